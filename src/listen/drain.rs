//! Stopping: no new connections, calls in flight finish, and whoever is still there at the end is cut off.

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

/// How long tasks may take to notice that they were cut off.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// How far stopping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Not stopping.
    Serving,
    /// Still serving, and about to stop: whoever asks is told.
    Leaving,
    /// What is in flight finishes, nothing else begins.
    Draining,
    /// Time is up.
    Cut,
}

/// How draining ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every call finished by itself.
    Clean,
    /// The time-out passed first.
    Cut {
        /// Listeners and tasks that were still there.
        tasks: usize,
    },
}

/// The signal to stop, shared by everything that serves.
///
/// One lock guards the list of who waits; it is taken when a connection comes or goes, never for a call.
#[derive(Clone)]
pub struct Drain(Arc<Inner>);

struct Inner {
    level: AtomicU8,
    timeout: Arc<Mutex<Duration>>,
    waiting: Mutex<Waiting>,
    tasks: TaskTracker,
    /// Those that stop when this one does, and may stop before.
    parts: Mutex<Vec<Weak<Self>>>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    wakers: HashMap<u64, Waker>,
}

impl Drain {
    /// A signal that is not given yet. Draining may take `timeout` before connections are cut.
    pub fn new(timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            level: AtomicU8::new(Level::Serving as u8),
            timeout: Arc::new(Mutex::new(timeout)),
            waiting: Mutex::default(),
            tasks: TaskTracker::new(),
            parts: Mutex::default(),
        }))
    }

    /// A signal for a part of what serves: it is given with this one, or by itself before. What the part does is
    /// waited for here too.
    #[must_use]
    pub fn part(&self) -> Self {
        let mut parts = self.0.parts.lock();
        let part = Arc::new(Inner {
            // Read under the lock, so that a level that is raised meanwhile finds the part in the list.
            level: AtomicU8::new(self.0.level.load(Ordering::Acquire)),
            timeout: Arc::clone(&self.0.timeout),
            waiting: Mutex::default(),
            tasks: self.0.tasks.clone(),
            parts: Mutex::default(),
        });
        parts.retain(|part| part.strong_count() > 0);
        parts.push(Arc::downgrade(&part));
        Self(part)
    }

    /// Stops one part: what it does may take the time-out, and is then cut off.
    ///
    /// # Cancel safety
    /// What has not ended by then goes on until the whole is stopped.
    pub async fn part_done(&self) {
        self.begin();
        tokio::time::sleep(self.timeout()).await;
        self.raise(Level::Cut);
    }

    /// Gives the signal: listeners stop accepting, idle connections close, the others finish what they do.
    pub fn begin(&self) {
        self.raise(Level::Draining);
    }

    /// Says that the signal will be given soon, to whoever tells others whether calls should come here.
    pub fn announce(&self) {
        self.raise(Level::Leaving);
    }

    /// Whether the signal was given, or is about to be.
    pub fn announced(&self) -> bool {
        self.0.level() >= Level::Leaving
    }

    /// Whether the signal was given.
    pub fn begun(&self) -> bool {
        self.0.level() >= Level::Draining
    }

    /// Resolves when the signal is given, or is about to be.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn foretold(&self) {
        self.watch().reached(Level::Leaving).await;
    }

    /// Resolves when the signal is given.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn signalled(&self) {
        self.watch().begun().await;
    }

    /// Tasks that draining waits for beside the connections.
    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// Resolves when everything has ended; the time-out runs from this call on, and what passes it is cut off.
    ///
    /// # Cancel safety
    /// May be called again; the time-out then starts anew.
    pub async fn done(&self) -> Drained {
        self.begin();
        self.0.tasks.close();
        if tokio::time::timeout(self.timeout(), self.0.tasks.wait())
            .await
            .is_ok()
        {
            return Drained::Clean;
        }
        let tasks = self.0.tasks.len();
        self.raise(Level::Cut);
        // A task that does not notice even then is not worth waiting for: the process is about to end.
        if tokio::time::timeout(CUT_GRACE, self.0.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.0.tasks.len(),
                "tasks still run after the drain time-out"
            );
        }
        Drained::Cut { tasks }
    }

    /// How long draining may take.
    pub(crate) fn timeout(&self) -> Duration {
        *self.0.timeout.lock()
    }

    /// Draining may take so long from now on, that of parts too.
    pub fn set_timeout(&self, timeout: Duration) {
        *self.0.timeout.lock() = timeout;
    }

    pub(crate) fn watch(&self) -> Stop {
        Stop {
            inner: Arc::clone(&self.0),
            registered: None,
        }
    }

    fn raise(&self, level: Level) {
        self.0.raise(level);
    }
}

impl Inner {
    fn raise(&self, level: Level) {
        if self.level.fetch_max(level as u8, Ordering::AcqRel) >= level as u8 {
            return;
        }
        let wakers: Vec<Waker> = self.waiting.lock().wakers.values().cloned().collect();
        for waker in wakers {
            waker.wake();
        }
        let parts: Vec<Arc<Self>> = self.parts.lock().iter().filter_map(Weak::upgrade).collect();
        for part in parts {
            part.raise(level);
        }
    }

    fn level(&self) -> Level {
        match self.level.load(Ordering::Acquire) {
            0 => Level::Serving,
            1 => Level::Leaving,
            2 => Level::Draining,
            _ => Level::Cut,
        }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("level", &self.0.level())
            .field("timeout", &self.timeout())
            .finish_non_exhaustive()
    }
}

/// One task's view of the signal.
pub(crate) struct Stop {
    inner: Arc<Inner>,
    registered: Option<(u64, Waker)>,
}

impl Stop {
    /// The level now; the task is woken when it rises.
    pub(crate) fn poll_level(&mut self, cx: &Context<'_>) -> Level {
        let known = self
            .registered
            .as_ref()
            .is_some_and(|(_, waker)| waker.will_wake(cx.waker()));
        if !known {
            let mut waiting = self.inner.waiting.lock();
            let key = self.registered.as_ref().map_or_else(
                || {
                    waiting.next += 1;
                    waiting.next
                },
                |(key, _)| *key,
            );
            waiting.wakers.insert(key, cx.waker().clone());
            self.registered = Some((key, cx.waker().clone()));
        }
        // Read after the waker is in place, so that a level raised in between is not missed.
        self.inner.level()
    }

    /// Resolves when the level has come to draining.
    pub(crate) async fn begun(&mut self) {
        self.reached(Level::Draining).await;
    }

    /// Resolves when time is up.
    pub(crate) async fn cut(&mut self) {
        self.reached(Level::Cut).await;
    }

    async fn reached(&mut self, level: Level) {
        poll_fn(|cx| {
            if self.poll_level(cx) >= level {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        if let Some((key, _)) = self.registered.take() {
            self.inner.waiting.lock().wakers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn draining_ends_when_the_last_task_does() {
        let drain = Drain::new(Duration::from_secs(30));
        let mut stop = drain.watch();
        drain.tasks().spawn(async move { stop.begun().await });
        assert_eq!(drain.done().await, Drained::Clean);
        assert!(drain.0.waiting.lock().wakers.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_announced_goes_on() {
        let drain = Drain::new(Duration::from_secs(30));
        let part = drain.part();
        drain.announce();
        assert!(drain.announced() && part.announced() && !drain.begun() && !part.begun());
        part.foretold().await;
        drain.begin();
        assert!(part.begun() && part.announced());
        drain.announce();
        assert!(part.begun(), "it does not go back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_stops_with_the_whole_or_before_it() {
        let drain = Drain::new(Duration::from_secs(30));
        let (one, other) = (drain.part(), drain.part());
        one.begin();
        assert!(one.begun() && !other.begun() && !drain.begun());
        let mut stop = other.watch();
        let part = other.clone();
        other.tasks().spawn(async move {
            stop.begun().await;
            drop(part);
        });
        assert_eq!(drain.done().await, Drained::Clean);
        assert!(other.begun() && drain.part().begun());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_cut_at_the_time_out() {
        let drain = Drain::new(Duration::from_secs(30));
        let mut stop = drain.watch();
        drain.tasks().spawn(async move { stop.cut().await });
        let began = tokio::time::Instant::now();
        assert_eq!(drain.done().await, Drained::Cut { tasks: 1 });
        assert_eq!(began.elapsed().as_secs(), 30);
    }
}
