//! What is let go when a worker has more to do than it can: calls of the lowest class first.
//!
//! What is measured is the queue of the worker itself, by how much later than it was due a task runs that has nothing to do.
//! Everything that is ready waits as long as it does.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::fault::{Fault, Kind, Side};

/// Time between two looks at the queue.
const LOOK: Duration = Duration::from_millis(20);

/// How much it matters that a call is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// It is shed first.
    Low,
    /// As most.
    #[default]
    Normal,
    /// It is shed last.
    High,
    /// It is never shed.
    Critical,
}

impl Priority {
    /// Those that may be shed, lowest first.
    pub const SHEDDABLE: [Self; 3] = [Self::Low, Self::Normal, Self::High];

    /// The word for it in the configuration, in messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// How many classes are below it.
    fn rank(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// When calls are shed, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SheddingSetup {
    /// The longest that what is ready should wait.
    pub queue_time: Duration,
    /// For how long it has to wait longer before another class is shed, and not to before one is let in again.
    pub sustained: Duration,
}

/// How many classes are shed. No clock.
#[derive(Debug)]
struct Levels {
    setup: SheddingSetup,
    shed: u8,
    /// Since when the queue is too long, or is not.
    since: Option<(bool, Instant)>,
}

impl Levels {
    fn new(setup: SheddingSetup) -> Self {
        Self {
            setup,
            shed: 0,
            since: None,
        }
    }

    /// What was ready waited this long, up to `now`.
    fn waited(&mut self, queue: Duration, now: Instant) -> u8 {
        let too_long = queue > self.setup.queue_time;
        let since = match self.since {
            Some((was, since)) if was == too_long => since,
            // It has waited all the while.
            Some(_) | None if too_long => now.checked_sub(queue).unwrap_or(now),
            Some(_) | None => now,
        };
        self.since = Some((too_long, since));
        if now.saturating_duration_since(since) >= self.setup.sustained {
            let most = u8::try_from(Priority::SHEDDABLE.len()).unwrap_or(u8::MAX);
            self.shed = if too_long {
                (self.shed + 1).min(most)
            } else {
                self.shed.saturating_sub(1)
            };
            self.since = Some((too_long, now));
        }
        self.shed
    }
}

/// Lets calls in at one worker, or sheds them.
#[derive(Debug)]
pub struct Shedder {
    setup: SheddingSetup,
    /// How many classes are shed.
    shed: AtomicU8,
    /// How long what was ready waited last, in microseconds.
    queue: AtomicU64,
    refused: [AtomicU64; 3],
}

impl Shedder {
    /// One that sheds nothing yet.
    pub(super) fn new(setup: SheddingSetup) -> Self {
        Self {
            setup,
            shed: AtomicU8::new(0),
            queue: AtomicU64::new(0),
            refused: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// When it sheds.
    pub fn setup(&self) -> SheddingSetup {
        self.setup
    }

    /// Lets a call of this class in.
    ///
    /// # Errors
    /// Calls of its class are shed.
    pub fn admit(&self, priority: Priority) -> Result<(), Fault> {
        if priority.rank() >= self.shed.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(refused) = self.refused.get(usize::from(priority.rank())) {
            refused.fetch_add(1, Ordering::Relaxed);
        }
        let message = format!(
            "the gateway has more to do than it can, and calls of priority \"{priority}\" have to wait; try again"
        );
        Err(Fault::new(Kind::Overloaded, Side::Gateway, message)
            .retry_after(Duration::from_secs(1))
            .of_limit("load_shedding"))
    }

    /// How many calls of each class were shed, lowest first.
    pub fn refused(&self) -> [u64; 3] {
        [0, 1, 2].map(|at| {
            self.refused
                .get(at)
                .map_or(0, |count| count.load(Ordering::Relaxed))
        })
    }

    /// How long what was ready waited last.
    pub fn queue(&self) -> Duration {
        Duration::from_micros(self.queue.load(Ordering::Relaxed))
    }

    /// How many classes are shed.
    pub fn level(&self) -> u8 {
        self.shed.load(Ordering::Relaxed)
    }
}

/// Looks at the queue of the worker on which it runs, for as long as somebody goes by what it finds.
///
/// # Cancel safety
/// What was found last stays.
pub async fn watch(shedder: Weak<Shedder>) {
    let Some(mut levels) = shedder.upgrade().map(|shedder| Levels::new(shedder.setup)) else {
        return;
    };
    loop {
        let due = Instant::now() + LOOK;
        sleep_until(due).await;
        let Some(shedder) = shedder.upgrade() else {
            return;
        };
        let now = Instant::now();
        let queue = now.saturating_duration_since(due);
        let before = shedder.level();
        let shed = levels.waited(queue, now);
        shedder.shed.store(shed, Ordering::Relaxed);
        let micros = u64::try_from(queue.as_micros()).unwrap_or(u64::MAX);
        shedder.queue.store(micros, Ordering::Relaxed);
        if shed != before {
            tracing::warn!(
                classes = shed,
                queue_ms = queue.as_millis(),
                "load is shed, or less of it"
            );
        }
    }
}

/// The shedders of all workers, for metrics.
#[derive(Debug, Default)]
pub(super) struct Shedders(Mutex<Vec<Weak<Shedder>>>);

impl Shedders {
    pub(super) fn add(&self, shedder: &Arc<Shedder>) {
        let mut known = self.0.lock();
        known.retain(|known| known.strong_count() > 0);
        known.push(Arc::downgrade(shedder));
    }

    pub(super) fn all(&self) -> Vec<Arc<Shedder>> {
        self.0.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: SheddingSetup = SheddingSetup {
        queue_time: Duration::from_millis(100),
        sustained: Duration::from_secs(1),
    };

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[tokio::test(start_paused = true)]
    async fn classes_are_shed_one_after_the_other_and_come_back_likewise() {
        let mut levels = Levels::new(SETUP);
        let began = Instant::now();
        let mut at = |time: u64, queue: u64| levels.waited(millis(queue), began + millis(time));
        assert_eq!(at(0, 100), 0, "no longer than it may");
        assert_eq!(at(1000, 101), 0);
        assert_eq!(at(1800, 150), 0);
        assert_eq!(at(1950, 150), 1, "it has been too long since 899 ms");
        assert_eq!(at(2800, 101), 1);
        assert_eq!(at(2950, 101), 2);
        assert_eq!(at(3950, 101), 3);
        assert_eq!(at(4950, 101), 3, "nothing is left to shed");
        assert_eq!(at(5000, 5), 3);
        assert_eq!(at(5900, 5), 3);
        assert_eq!(at(5990, 120), 3, "and again");
        assert_eq!(at(6000, 5), 3);
        assert_eq!(at(7000, 5), 2);
        assert_eq!(at(8000, 5), 1);
        assert_eq!(at(9000, 5), 0);
        assert_eq!(at(9500, 5), 0);
        assert_eq!(at(11_000, 1200), 1, "all of a sudden, for longer than is borne");
    }

    #[test]
    fn the_lowest_go_first_and_the_critical_never() {
        let shedder = Shedder::new(SETUP);
        for level in 0..=3 {
            shedder.shed.store(level, Ordering::Relaxed);
            let let_in: Vec<_> = [
                Priority::Low,
                Priority::Normal,
                Priority::High,
                Priority::Critical,
            ]
            .into_iter()
            .filter(|priority| shedder.admit(*priority).is_ok())
            .map(Priority::name)
            .collect();
            let all = ["low", "normal", "high", "critical"];
            assert_eq!(let_in, all[usize::from(level)..], "{level}");
        }
        assert_eq!(shedder.refused(), [3, 2, 1]);
        let fault = shedder.admit(Priority::Low).unwrap_err();
        assert_eq!(
            (fault.kind(), fault.limit()),
            (Kind::Overloaded, Some("load_shedding"))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_is_late_sheds_and_one_that_is_not_wanted_stops_looking() {
        let shedder = Arc::new(Shedder::new(SETUP));
        let mut looking = Box::pin(watch(Arc::downgrade(&shedder)));
        assert!(futures_util::poll!(&mut looking).is_pending());
        // The worker does something else for so long.
        tokio::time::advance(millis(1220)).await;
        assert!(futures_util::poll!(&mut looking).is_pending());
        assert_eq!(shedder.level(), 1);
        assert!(shedder.queue() >= millis(1199), "{:?}", shedder.queue());
        drop(shedder);
        looking.await;
    }
}
