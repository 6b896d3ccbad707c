//! How often something may happen, by the generic cell rate algorithm, in whole numbers: nothing is lost to rounding,
//! whatever the rate. Pure.
//!
//! A bucket is one number, the theoretical arrival time. It is kept in ticks, of which a nanosecond has as many as the
//! rate allows in its period: then both time and cost are whole.

use std::time::Duration;

/// `count` in each `period`, and `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many. At least 1.
    pub count: u32,
    /// In which time. More than nothing, and less than 500 years.
    pub period: Duration,
    /// How many at once. At least 1.
    pub burst: u32,
}

/// What is left of a rate: the instant at which the bucket is full again, in the rate's ticks. The default is a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level(u128);

/// How a rate stands after it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How many are left.
    pub left: u64,
    /// When all of it is there again.
    pub reset: Duration,
    /// When what was asked for will be there, if it is not; nothing where it was taken.
    pub wait: Option<Duration>,
}

impl Rate {
    /// What one costs, in ticks: the nanoseconds of the period.
    fn cost(&self, units: u64) -> u128 {
        self.period.as_nanos().saturating_mul(u128::from(units))
    }

    /// An instant, in nanoseconds, as ticks.
    fn ticks(&self, now: u64) -> u128 {
        u128::from(now) * u128::from(self.count)
    }

    fn time(&self, ticks: u128) -> Duration {
        let nanos = ticks.div_ceil(u128::from(self.count.max(1)));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Takes `units` at the instant `now`, in nanoseconds; what is not there is not taken.
    pub fn take(&self, level: &mut Level, units: u64, now: u64) -> Standing {
        let now = self.ticks(now);
        let full = self.cost(u64::from(self.burst));
        let used = level.0.saturating_sub(now);
        let after = used.saturating_add(self.cost(units));
        if after <= full {
            level.0 = now + after;
            return self.standing(after, None);
        }
        self.standing(used, Some(self.time(after - full)))
    }

    /// Takes `units` that have happened, whether they were there or not; the time until the debt is paid.
    pub fn charge(&self, level: &mut Level, units: u64, now: u64) -> Duration {
        let now = self.ticks(now);
        let full = self.cost(u64::from(self.burst));
        let after = level.0.saturating_sub(now).saturating_add(self.cost(units));
        level.0 = now.saturating_add(after);
        self.time(after.saturating_sub(full))
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, level: &mut Level, units: u64) {
        level.0 = level.0.saturating_sub(self.cost(units));
    }

    /// How it stands at the instant `now`.
    pub fn look(&self, level: Level, now: u64) -> Standing {
        self.standing(level.0.saturating_sub(self.ticks(now)), None)
    }

    /// The time until the bucket is full again. With nothing used it is as if nobody had ever asked.
    pub fn until_full(&self, level: Level, now: u64) -> Duration {
        self.time(level.0.saturating_sub(self.ticks(now)))
    }

    /// How long an empty bucket takes to be full.
    pub fn window(&self) -> Duration {
        self.time(self.cost(u64::from(self.burst)))
    }

    /// The share that each of so many nodes has of it. A share is at least one at a time.
    #[must_use]
    pub fn shared_by(&self, nodes: u32) -> Self {
        let nodes = nodes.max(1);
        Self {
            count: self.count,
            period: self.period.saturating_mul(nodes),
            burst: (self.burst / nodes).max(1),
        }
    }

    fn standing(&self, used: u128, wait: Option<Duration>) -> Standing {
        let free = self.cost(u64::from(self.burst)).saturating_sub(used);
        let left = free / self.cost(1).max(1);
        Standing {
            left: u64::try_from(left).unwrap_or(u64::MAX),
            reset: self.time(used),
            wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32, seconds: u64, burst: u32) -> Rate {
        Rate {
            count,
            period: Duration::from_secs(seconds),
            burst,
        }
    }

    /// How many of `asked` single ones are taken at an instant.
    fn taken(rate: &Rate, level: &mut Level, asked: u32, now: u64) -> u32 {
        let ones = (0..asked).filter(|_| rate.take(level, 1, now).wait.is_none());
        u32::try_from(ones.count()).unwrap()
    }

    #[test]
    fn exactly_the_burst_passes_and_then_one_at_each_instant_of_refill() {
        for (count, seconds, burst) in [
            (1, 1, 1),
            (100, 1, 200),
            (3, 1, 3),
            (7, 60, 20),
            (1, 3600, 5),
            (999_983, 1, 10),
        ] {
            let rate = rate(count, seconds, burst);
            let mut level = Level::default();
            let began = 12_345_678_901;
            assert_eq!(taken(&rate, &mut level, burst + 10, began), burst, "{rate:?}");
            let period = u128::from(seconds * SECOND);
            for nth in 1..=u128::from(burst) * 3 {
                let at = began + u64::try_from((nth * period).div_ceil(u128::from(count))).unwrap();
                assert_eq!(
                    taken(&rate, &mut level, 1, at - 1),
                    0,
                    "{rate:?}: number {nth} too early"
                );
                assert_eq!(taken(&rate, &mut level, 2, at), 1, "{rate:?}: number {nth}");
            }
        }
    }

    #[test]
    fn the_wait_that_is_told_is_enough_and_no_more_than_needed() {
        let rate = rate(3, 1, 3);
        let mut level = Level::default();
        assert_eq!(taken(&rate, &mut level, 3, 0), 3);
        for units in [1, 2, 3] {
            let wait = rate.take(&mut level, units, 5).wait.unwrap();
            let at = 5 + u64::try_from(wait.as_nanos()).unwrap();
            assert!(rate.take(&mut level.clone(), units, at - 1).wait.is_some());
            assert!(rate.take(&mut level.clone(), units, at).wait.is_none());
        }
        let never = rate.take(&mut level, 4, 0);
        assert!(never.wait.is_some(), "more than the burst is never there");
    }

    #[test]
    fn a_full_bucket_holds_the_burst_and_no_more_however_long_nobody_asked() {
        let rate = rate(10, 1, 10);
        let mut level = Level::default();
        assert_eq!(taken(&rate, &mut level, 5, 0), 5);
        assert_eq!(taken(&rate, &mut level, 20, 3600 * SECOND), 10);
    }

    #[test]
    fn what_is_left_and_when_it_is_full_are_told() {
        let rate = rate(10, 1, 20);
        let mut level = Level::default();
        let standing = rate.take(&mut level, 5, 0);
        assert_eq!((standing.left, standing.reset), (15, Duration::from_millis(500)));
        let standing = rate.take(&mut level, 16, 0);
        assert_eq!(
            (standing.left, standing.wait),
            (15, Some(Duration::from_millis(100)))
        );
        let standing = rate.look(level, SECOND / 4);
        assert_eq!((standing.left, standing.reset), (17, Duration::from_millis(250)));
        assert_eq!(rate.window(), Duration::from_secs(2));
        rate.give_back(&mut level, 5);
        assert_eq!(rate.look(level, 0).left, 20);
    }

    #[test]
    fn a_clock_that_stands_still_or_runs_out_does_no_harm() {
        let rate = rate(u32::MAX, 1, u32::MAX);
        let mut level = Level::default();
        assert!(
            rate.take(&mut level, u64::from(u32::MAX), u64::MAX)
                .wait
                .is_none()
        );
        assert!(rate.take(&mut level, 1, u64::MAX).wait.is_some());
        // An instant before the last one, as two workers may see it, gives nothing away.
        assert!(rate.take(&mut level, 1, 0).wait.is_some());
    }

    #[test]
    fn a_debt_is_paid_by_time() {
        let rate = rate(100, 1, 100);
        let mut level = Level::default();
        assert_eq!(rate.charge(&mut level, 100, 0), Duration::ZERO);
        assert_eq!(rate.charge(&mut level, 250, 0), Duration::from_millis(2500));
        assert_eq!(rate.charge(&mut level, 1, 2 * SECOND), Duration::from_millis(510));
    }

    #[test]
    fn shares_add_up_to_no_more_than_the_whole() {
        let whole = rate(100, 1, 10);
        for nodes in 1..=10 {
            let share = whole.shared_by(nodes);
            let mut level = Level::default();
            let at_once = taken(&share, &mut level, 20, 0);
            assert!(at_once * nodes <= 10, "{nodes} nodes");
            let second = (1..=100).map(|step| taken(&share, &mut level, 5, step * SECOND / 100));
            let second: u32 = second.sum();
            assert!(
                second * nodes <= 100 && second * nodes >= 80,
                "{nodes} nodes: {second}"
            );
        }
    }
}
