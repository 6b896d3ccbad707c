//! The circuit breaker of a backend: when most calls fail, none is sent for a while, and then a few that try.
//!
//! Calls are counted in ten buckets of exact time: an average that forgets slowly would hide a backend that has just gone,
//! and remember one that has come back. All workers share it; no lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::balance::endpoint::millis;
use crate::balance::settings::Breaking;

const BUCKETS: usize = 10;

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Circuit {
    /// They are sent.
    Closed,
    /// They are refused.
    Open,
    /// A few are sent, to see whether it may close.
    HalfOpen,
}

impl Circuit {
    /// The words for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half open",
            Self::Open => "open",
        }
    }

    /// Its number in metrics.
    pub fn number(self) -> u8 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// The breaker of one backend.
#[derive(Debug)]
pub struct Breaker {
    settings: Breaking,
    buckets: [Bucket; BUCKETS],
    /// Milliseconds: when it may try again; 0 while it is closed.
    open_until: AtomicU64,
    /// Times that it opened without having closed in between.
    rounds: AtomicU32,
    /// Probes that were sent, and probes that were good, since it may try.
    probing: AtomicU32,
    good: AtomicU32,
}

/// Calls in a tenth of the window: the number of the tenth in the upper 24 bits, calls and failures in 20 bits each. One
/// word, so that a new tenth and its first call are one step.
#[derive(Debug, Default)]
struct Bucket(AtomicU64);

const FULL: u64 = (1 << 20) - 1;

/// Leave to send a request; says how it went, or was dropped before that was known.
#[derive(Debug)]
pub struct Leave {
    is_probe: bool,
}

impl Breaker {
    /// A closed one.
    pub fn new(settings: Breaking) -> Self {
        Self {
            settings,
            buckets: Default::default(),
            open_until: AtomicU64::new(0),
            rounds: AtomicU32::new(0),
            probing: AtomicU32::new(0),
            good: AtomicU32::new(0),
        }
    }

    /// What it does with calls now.
    pub fn circuit(&self, now: Instant) -> Circuit {
        match self.open_until.load(Ordering::Relaxed) {
            0 => Circuit::Closed,
            until if millis(now) < until => Circuit::Open,
            _ => Circuit::HalfOpen,
        }
    }

    /// Leave to send a request.
    ///
    /// # Errors
    /// How long it stays open, at least.
    pub fn enter(&self, now: Instant) -> Result<Leave, Duration> {
        let until = self.open_until.load(Ordering::Relaxed);
        if until == 0 {
            return Ok(Leave { is_probe: false });
        }
        let ms = millis(now);
        if ms < until {
            return Err(Duration::from_millis(until - ms));
        }
        let probes = self.settings.probes;
        let taken = self
            .probing
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |probing| {
                (probing < probes).then_some(probing + 1)
            });
        match taken {
            Ok(_) => Ok(Leave { is_probe: true }),
            // The probes will tell; until then, nobody knows how long that takes.
            Err(_) => Err(Duration::from_secs(1)),
        }
    }

    /// A request went well.
    pub fn succeeded(&self, leave: &Leave, now: Instant) {
        if leave.is_probe {
            let good = self.good.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if good >= self.settings.probes {
                self.close();
            }
        } else {
            self.count(false, now);
        }
    }

    /// A request failed.
    pub fn failed(&self, leave: &Leave, now: Instant) {
        if leave.is_probe {
            self.open(now);
        } else {
            self.count(true, now);
            let (calls, failures) = self.counts(now);
            let is_too_many = failures.saturating_mul(100)
                >= calls.saturating_mul(u64::from(self.settings.failure_percent));
            if calls >= u64::from(self.settings.min_requests)
                && is_too_many
                && self.open_until.load(Ordering::Relaxed) == 0
            {
                self.open(now);
            }
        }
    }

    /// Nobody knows how a request went: its client left.
    pub fn abandoned(&self, leave: &Leave) {
        if leave.is_probe {
            // It opened again, or closed, in between: then there is nothing to give back.
            let _ = self
                .probing
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |probing| {
                    probing.checked_sub(1)
                });
        }
    }

    fn open(&self, now: Instant) {
        let rounds = self.rounds.fetch_add(1, Ordering::Relaxed).min(16);
        let open = self
            .settings
            .open
            .saturating_mul(1 << rounds)
            .min(self.settings.longest);
        let open = u64::try_from(open.as_millis()).unwrap_or(u64::MAX);
        self.good.store(0, Ordering::Relaxed);
        self.probing.store(0, Ordering::Relaxed);
        self.open_until
            .store(millis(now).saturating_add(open.max(1)), Ordering::Relaxed);
    }

    fn close(&self) {
        for bucket in &self.buckets {
            bucket.0.store(0, Ordering::Relaxed);
        }
        self.rounds.store(0, Ordering::Relaxed);
        self.good.store(0, Ordering::Relaxed);
        self.probing.store(0, Ordering::Relaxed);
        self.open_until.store(0, Ordering::Relaxed);
    }

    /// The number of the tenth of the window that `now` is in.
    fn tenth(&self, now: Instant) -> u64 {
        let tenth = u64::try_from((self.settings.window / 10).as_millis()).unwrap_or(u64::MAX);
        (millis(now) / tenth.max(1)) & 0x00ff_ffff
    }

    fn count(&self, failed: bool, now: Instant) {
        let tenth = self.tenth(now);
        let at = usize::try_from(tenth % BUCKETS as u64).unwrap_or(0);
        let Some(bucket) = self.buckets.get(at) else {
            return;
        };
        // It never refuses to update.
        let _ = bucket
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                let (calls, failures) = if word >> 40 == tenth {
                    ((word >> 20) & FULL, word & FULL)
                } else {
                    (0, 0)
                };
                let calls = (calls + 1).min(FULL);
                let failures = (failures + u64::from(failed)).min(FULL);
                Some((tenth << 40) | (calls << 20) | failures)
            });
    }

    /// Calls within the window, and how many of them failed.
    fn counts(&self, now: Instant) -> (u64, u64) {
        let tenth = self.tenth(now);
        self.buckets
            .iter()
            .map(|bucket| bucket.0.load(Ordering::Relaxed))
            .filter(|word| tenth.wrapping_sub(word >> 40) & 0x00ff_ffff < BUCKETS as u64)
            .fold((0, 0), |(calls, failures), word| {
                (calls + ((word >> 20) & FULL), failures + (word & FULL))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn fail(breaker: &Breaker, times: usize, now: Instant) {
        for _ in 0..times {
            let leave = breaker.enter(now).expect("closed");
            breaker.failed(&leave, now);
        }
    }

    #[test]
    fn it_opens_doubles_and_closes() {
        let breaker = Breaker::new(Breaking::default());
        let start = Instant::now() + Duration::from_secs(60);
        for _ in 0..10 {
            let leave = breaker.enter(start).expect("closed");
            breaker.succeeded(&leave, start);
        }
        fail(&breaker, 9, after(start, 1));
        assert_eq!(
            breaker.circuit(after(start, 1)),
            Circuit::Closed,
            "9 of 19 is no half"
        );
        fail(&breaker, 1, after(start, 1));
        assert_eq!(breaker.circuit(after(start, 1)), Circuit::Open, "10 of 20 is");
        assert!(breaker.enter(after(start, 5)).is_err());
        // A probe that fails opens it for twice as long.
        let probe = breaker.enter(after(start, 6)).expect("half open");
        breaker.failed(&probe, after(start, 6));
        assert!(breaker.enter(after(start, 15)).is_err());
        let now = after(start, 16);
        let probes: Vec<_> = (0..3).map(|_| breaker.enter(now).expect("a probe")).collect();
        assert!(breaker.enter(now).is_err(), "three probes and no more");
        breaker.succeeded(&probes[0], now);
        breaker.abandoned(&probes[1]);
        assert_eq!(breaker.circuit(now), Circuit::HalfOpen);
        let another = breaker.enter(now).expect("in place of the one that was given up");
        breaker.succeeded(&probes[2], now);
        breaker.succeeded(&another, now);
        assert_eq!(breaker.circuit(now), Circuit::Closed);
    }

    #[test]
    fn what_is_out_of_the_window_does_not_count() {
        let breaker = Breaker::new(Breaking::default());
        let start = Instant::now() + Duration::from_secs(60);
        fail(&breaker, 19, start);
        // Ten seconds on, the nineteen are forgotten: this failure is one of one.
        fail(&breaker, 1, after(start, 10));
        assert_eq!(breaker.circuit(after(start, 10)), Circuit::Closed);
        fail(&breaker, 19, after(start, 11));
        assert_eq!(breaker.circuit(after(start, 11)), Circuit::Open);
    }

    #[test]
    fn times_double_up_to_the_longest() {
        let breaker = Breaker::new(Breaking::default());
        let mut now = Instant::now() + Duration::from_secs(60);
        fail(&breaker, 20, now);
        for seconds in [5, 10, 20, 40, 60, 60] {
            assert!(
                breaker
                    .enter(now + Duration::from_millis(seconds * 1000 - 1))
                    .is_err()
            );
            now = after(now, seconds);
            let probe = breaker.enter(now).expect("half open");
            breaker.failed(&probe, now);
        }
    }
}
