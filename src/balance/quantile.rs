//! How long the slowest of a hundred calls take, roughly: counts by size, which forget what is older than a while.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::endpoint::millis;

/// Four sizes for each doubling, from 1 µs to over an hour: a size is at most a quarter too large.
const SIZES: usize = 128;
/// How long a count is added to before it is only read, in milliseconds.
const SPAN_MS: u64 = 10_000;
/// Calls below which nothing is said.
const FEW: u64 = 20;

/// Latencies of a backend, from all workers.
#[derive(Debug)]
pub struct Latencies {
    /// The count that is added to, and the one before; they take turns.
    counts: [[AtomicU32; SIZES]; 2],
    /// The number of the span that is added to.
    span: AtomicU64,
}

impl Default for Latencies {
    fn default() -> Self {
        let count = || std::array::from_fn(|_| AtomicU32::new(0));
        Self {
            counts: [count(), count()],
            span: AtomicU64::new(0),
        }
    }
}

impl Latencies {
    /// Counts a call.
    pub fn observe(&self, took: Duration, now: Instant) {
        let at = self.turn(now);
        if let Some(count) = self.counts.get(at).and_then(|counts| counts.get(size(took))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What `percent` of the calls of the last 10 to 20 s did not pass; `None` where they were too few to say.
    pub fn quantile(&self, percent: u64, now: Instant) -> Option<Duration> {
        self.turn(now);
        let sums: [u64; SIZES] = std::array::from_fn(|size| {
            let of = |counts: &[AtomicU32; SIZES]| {
                counts
                    .get(size)
                    .map_or(0, |count| u64::from(count.load(Ordering::Relaxed)))
            };
            self.counts.iter().map(of).sum()
        });
        let total: u64 = sums.iter().sum();
        if total < FEW {
            return None;
        }
        let wanted = (total * percent).div_ceil(100);
        let mut seen = 0;
        for (size, count) in sums.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return Some(upper(size));
            }
        }
        None
    }

    /// Which count is added to now. The first who comes into a new span empties it.
    fn turn(&self, now: Instant) -> usize {
        // Whose time is a moment old belongs to the span that has begun.
        let known = self.span.load(Ordering::Relaxed);
        let span = (millis(now) / SPAN_MS).max(known);
        let at = usize::from(!span.is_multiple_of(2));
        // Most calls find it begun, and write nothing here.
        if known == span {
            return at;
        }
        let before = self.span.fetch_max(span, Ordering::Relaxed);
        if before < span {
            let empty = |counts: &[AtomicU32; SIZES]| {
                for count in counts {
                    count.store(0, Ordering::Relaxed);
                }
            };
            if before + 1 == span {
                self.counts.get(at).map(empty);
            } else {
                self.counts.iter().for_each(empty);
            }
        }
        at
    }
}

/// The size of a latency.
fn size(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
    let doublings = u64::from(micros.ilog2());
    // The two bits after the first one.
    let quarter = (micros >> (doublings - 2)) & 3;
    usize::try_from((doublings - 2) * 4 + quarter).map_or(SIZES - 1, |size| size.min(SIZES - 1))
}

/// The latency that a size ends at.
fn upper(size: usize) -> Duration {
    let (doublings, quarter) = (size / 4 + 2, size % 4);
    Duration::from_micros(((5 + quarter as u64) << doublings) >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_are_told_within_a_quarter() {
        let latencies = Latencies::default();
        let now = Instant::now() + Duration::from_secs(100);
        assert_eq!(latencies.quantile(95, now), None);
        for ms in 1..=100 {
            latencies.observe(Duration::from_millis(ms), now);
        }
        let p95 = latencies.quantile(95, now).expect("enough");
        assert!((95..=119).contains(&p95.as_millis()), "{p95:?}");
        let p50 = latencies.quantile(50, now).expect("enough");
        assert!((50..=63).contains(&p50.as_millis()), "{p50:?}");
        assert_eq!(
            latencies.quantile(95, now + Duration::from_secs(30)),
            None,
            "forgotten"
        );
    }

    #[test]
    fn whoever_is_a_moment_late_takes_nothing_back() {
        let latencies = Latencies::default();
        let late = Instant::now() + Duration::from_millis(5 * SPAN_MS);
        let now = late + Duration::from_millis(SPAN_MS);
        for _ in 0..FEW {
            latencies.observe(Duration::from_millis(3), now);
        }
        assert!(latencies.quantile(50, now).is_some());
        latencies.observe(Duration::from_millis(3), late);
        assert!(latencies.quantile(50, now).is_some());
    }

    #[test]
    fn sizes_grow_with_latencies() {
        let mut last = 0;
        for micros in (0..40_000).chain([1 << 30, 1 << 40, u64::MAX]) {
            let took = Duration::from_micros(micros);
            assert!(size(took) >= last, "{took:?}");
            last = size(took);
            assert!(
                last == SIZES - 1 || upper(last) > took,
                "{took:?} is in size {last}"
            );
        }
    }
}
