//! Random numbers for jitter and for picking: fast, one state per thread, not for secrets.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish() | 1);
}

/// A uniform 64-bit number. Source: Marsaglia, "Xorshift RNGs".
pub fn roll() -> u64 {
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.set(next);
        next
    })
}

/// A number below `bound`; 0 for a bound of 0.
pub fn below(bound: usize) -> usize {
    let bound = bound as u128;
    // The high half of the product is below the bound, which is a usize.
    usize::try_from((u128::from(roll()) * bound) >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_below_the_bound_comes_up() {
        let mut seen = [0; 5];
        for _ in 0..1_000 {
            seen[below(5)] += 1;
        }
        assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
        assert_eq!(below(0), 0);
    }
}
