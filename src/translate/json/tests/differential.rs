//! Against prost-reflect, by seed.

use super::super::fuzzing;

/// How many seeds a run takes; `SABIR_SEEDS=2000` for a long one.
fn seeds() -> u64 {
    std::env::var("SABIR_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(40)
}

#[test]
fn random_messages_of_random_schemas_agree_with_prost_reflect() {
    for seed in 0..seeds() {
        assert!(
            std::panic::catch_unwind(|| fuzzing::random_schema(seed)).is_ok(),
            "seed {seed}"
        );
    }
}

#[test]
fn changed_messages_and_texts_are_errors_or_are_understood() {
    for seed in 0..seeds() * 20 {
        assert!(
            std::panic::catch_unwind(|| fuzzing::mutated(seed)).is_ok(),
            "seed {seed}"
        );
    }
}
