//! Random schemas, messages and spellings against prost-reflect; the input is a seed and a message to change.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some(seed) = data.first_chunk::<8>() {
        let seed = u64::from_le_bytes(*seed);
        sabir::translate::json::fuzzing::random_schema(seed);
        sabir::translate::json::fuzzing::mutated(seed);
    }
});
