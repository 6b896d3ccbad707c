//! When a call must be over.

use std::time::Duration;

use tokio::time::Instant;

/// How much earlier than here an upstream may give up that was told the same deadline: its timer and ours are two.
///
/// 5 ms: more than what timers of a millisecond and a hop on a fast network add up to. Not measured.
const MARGIN: Duration = Duration::from_millis(5);

/// An instant, never a duration: it shrinks by itself as the call passes hops and retries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline `budget` from `now`; `None` for a budget beyond what a clock can hold.
    pub fn after(now: Instant, budget: Duration) -> Option<Self> {
        now.checked_add(budget).map(Self)
    }

    /// The earlier of what the client asked and what the route allows, if either says anything.
    pub fn earlier(now: Instant, client: Option<Duration>, route: Option<Duration>) -> Option<Self> {
        let budget = match (client, route) {
            (Some(client), Some(route)) => client.min(route),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return None,
        };
        Self::after(now, budget)
    }

    /// The instant.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// What is left of it; zero once it passed.
    pub fn left(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether it passed, or is so close that an upstream with the same deadline may have given up because of it.
    pub fn is_over(self, now: Instant) -> bool {
        self.left(now) <= MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earlier_word_counts() {
        let now = Instant::now();
        let (short, long) = (Duration::from_secs(1), Duration::from_secs(9));
        for (client, route, expected) in [
            (Some(short), Some(long), Some(short)),
            (Some(long), Some(short), Some(short)),
            (Some(long), None, Some(long)),
            (None, Some(short), Some(short)),
            (None, None, None),
        ] {
            assert_eq!(
                Deadline::earlier(now, client, route).map(|deadline| deadline.left(now)),
                expected
            );
        }
        assert_eq!(Deadline::after(now, Duration::MAX), None);
    }

    #[test]
    fn a_deadline_is_over_a_little_before_it_passes() {
        let now = Instant::now();
        let tick = Duration::from_millis(1);
        for (left, over) in [
            (MARGIN + tick, false),
            (MARGIN, true),
            (MARGIN - tick, true),
            (Duration::ZERO, true),
        ] {
            let deadline = Deadline::after(now, left).unwrap();
            assert_eq!(deadline.is_over(now), over, "{left:?}");
        }
    }
}
