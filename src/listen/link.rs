//! What is known about one connection: the facts that its parts note, and the time that each state may last.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::limits::Limits;
use crate::listen::counters::Counters;

/// How long a closed connection waits for the client to close too. Without it the kernel answers bytes that are
/// still under way with a reset, and the client loses the answer that it has not read yet.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// How long a connection is idle before what it does not need is given back: long beside the pauses of a client at
/// work, short beside the minute that an idle connection is kept.
const RESTS_AFTER: Duration = Duration::from_millis(500);

/// Which HTTP the connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// Facts about one connection. All of them are noted and read on the connection's own thread; they are atomic only
/// because the futures that hold them move between threads before they are first polled.
#[derive(Debug)]
pub(crate) struct Link {
    protocol: Protocol,
    counters: Arc<Counters>,
    /// Calls whose answer is not complete.
    calls: AtomicU32,
    /// Calls begun so far, wrapping.
    begun: AtomicU32,
    /// Calls that the client broke off, wrapping.
    resets: AtomicU32,
    /// Writes that made progress, wrapping.
    writes: AtomicU32,
    /// The last answer is complete and handed to the socket.
    settled: AtomicBool,
    /// Bytes have come since.
    heard: AtomicBool,
    /// The socket takes no more bytes.
    stalled: AtomicBool,
    /// The gateway has closed its direction.
    closing: AtomicBool,
}

impl Link {
    pub(crate) fn new(protocol: Protocol, counters: Arc<Counters>) -> Self {
        Self {
            protocol,
            counters,
            calls: AtomicU32::new(0),
            begun: AtomicU32::new(0),
            resets: AtomicU32::new(0),
            writes: AtomicU32::new(0),
            settled: AtomicBool::new(true),
            heard: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// A call begins: its head is complete.
    pub(crate) fn begin_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.settled.store(false, Ordering::Relaxed);
        self.heard.store(false, Ordering::Relaxed);
    }

    /// A call ends; `complete` says that its whole answer was taken.
    pub(crate) fn end_call(&self, complete: bool) {
        self.calls.fetch_sub(1, Ordering::Relaxed);
        if !complete {
            self.resets.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All that was written is with the socket.
    pub(crate) fn flushed(&self) {
        self.stalled.store(false, Ordering::Relaxed);
        if self.calls.load(Ordering::Relaxed) == 0 {
            self.settled.store(true, Ordering::Relaxed);
        }
    }

    /// Whether no call is in flight and the last answer is out.
    pub(crate) fn settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Bytes came between calls.
    pub(crate) fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    pub(crate) fn heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    pub(crate) fn wrote(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.stalled.store(false, Ordering::Relaxed);
    }

    pub(crate) fn stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }

    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Ordering::Relaxed)
    }

    /// The state that has a time limit now, and a number that changes when it is entered anew.
    fn stage(&self, told_to_go: bool) -> (Stage, u32) {
        let calls = self.calls.load(Ordering::Relaxed);
        let begun = self.begun.load(Ordering::Relaxed);
        let writes = self.writes.load(Ordering::Relaxed);
        if self.closing.load(Ordering::Relaxed) {
            (Stage::Closing, 0)
        } else if self.stalled.load(Ordering::Relaxed) {
            (Stage::Stalled, writes)
        } else if calls > 0 {
            (Stage::Busy, 0)
        } else if self.protocol == Protocol::Http2 && told_to_go {
            // The last answers may still be on their way through the client's windows.
            (Stage::Closing, writes)
        } else if self.protocol == Protocol::Http2 {
            (Stage::Idle, begun)
        } else if !self.settled() {
            (Stage::Busy, 0)
        } else if self.heard() || begun == 0 {
            (Stage::Head, begun)
        } else {
            (Stage::Idle, begun)
        }
    }
}

/// What a connection is doing, as far as time goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A head is awaited on a new connection, or its first byte has come on a kept one.
    Head,
    /// Nothing is asked.
    Idle,
    /// A call is in flight; its own time-outs are the handler's.
    Busy,
    /// The client does not take what it is sent.
    Stalled,
    /// The gateway is done with the connection and waits for the client to see it.
    Closing,
}

impl Stage {
    fn limit(self, limits: &Limits) -> Option<Duration> {
        match self {
            Self::Head => Some(limits.header_timeout),
            Self::Idle => Some(limits.keep_alive_timeout),
            Self::Busy => None,
            Self::Stalled => Some(limits.idle_timeout),
            Self::Closing => Some(LINGER),
        }
    }
}

/// What the clock found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The stage lasted too long.
    Stage(Stage),
    /// The connection is old.
    Age,
    /// The connection has been idle for long enough to give back what it does not need.
    Rest,
}

/// One timer for all of a connection's time limits.
///
/// It is moved only when a limit is nearer than what it is set to, and found out late otherwise, so that a busy
/// connection does not touch the runtime's timers for each call.
pub(crate) struct Clock {
    sleep: Pin<Box<Sleep>>,
    /// When the sleep ends; `None` while nothing has a limit.
    armed: Option<Instant>,
    /// Who is woken then.
    watcher: Option<Waker>,
    stage: Stage,
    entry: u32,
    since: Instant,
    old_at: Option<Instant>,
    /// The idle connection has given back what it can.
    is_resting: bool,
}

impl Clock {
    /// A clock for a connection that waits for its first head since `since`.
    pub(crate) fn new(since: Instant, age: Option<Duration>) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep_until(since)),
            armed: None,
            watcher: None,
            stage: Stage::Head,
            entry: 0,
            since,
            old_at: age.and_then(|age| since.checked_add(age)),
            is_resting: false,
        }
    }

    /// The connection rests, until its next call.
    pub(crate) fn rest(&mut self) {
        self.is_resting = true;
    }

    /// Looks at the link after it was driven; ready when a limit has passed.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        link: &Link,
        limits: &Limits,
        told_to_go: bool,
    ) -> Poll<Expired> {
        let (stage, entry) = link.stage(told_to_go);
        if (stage, entry) != (self.stage, self.entry) {
            self.is_resting = false;
            if stage != Stage::Busy {
                self.since = Instant::now();
            }
            self.stage = stage;
            self.entry = entry;
        }
        let rests = stage == Stage::Idle && !told_to_go && !self.is_resting;
        let after = |limit: Option<Duration>| limit.and_then(|limit| self.since.checked_add(limit));
        let ends_at = after(stage.limit(limits));
        let rests_at = after(rests.then_some(RESTS_AFTER));
        loop {
            let deadline = [ends_at, rests_at, self.old_at].into_iter().flatten().min();
            match (deadline, self.armed) {
                (Some(deadline), armed) if armed.is_none_or(|armed| deadline < armed) => {
                    self.sleep.as_mut().reset(deadline);
                    self.armed = Some(deadline);
                    self.watcher = None;
                }
                (None, None) => return Poll::Pending,
                _ => {}
            }
            // To tell the sleep again who waits costs about what it costs to make one.
            let is_watched = self
                .watcher
                .as_ref()
                .is_some_and(|watcher| watcher.will_wake(cx.waker()));
            if is_watched && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                self.watcher = Some(cx.waker().clone());
                return Poll::Pending;
            }
            self.watcher = None;
            let fired = self.armed.take();
            if let (Some(deadline), Some(fired)) = (deadline, fired)
                && fired >= deadline
            {
                if self.old_at.is_some_and(|old_at| fired >= old_at) {
                    self.old_at = None;
                    return Poll::Ready(Expired::Age);
                }
                if ends_at.is_none_or(|ends_at| Instant::now() < ends_at) {
                    return Poll::Ready(Expired::Rest);
                }
                return Poll::Ready(Expired::Stage(stage));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn expires(clock: &mut Clock, link: &Link, limits: &Limits) -> (Expired, u64) {
        let began = Instant::now();
        let expired = poll_fn(|cx| clock.poll(cx, link, limits, false)).await;
        (expired, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_stage_has_its_own_time() {
        let limits = Limits::default();
        let link = Link::new(Protocol::Http1, Arc::default());
        let mut clock = Clock::new(Instant::now(), None);
        let head = Expired::Stage(Stage::Head);
        assert_eq!(expires(&mut clock, &link, &limits).await, (head, 10));
        link.begin_call();
        let busy = tokio::time::timeout(Duration::from_secs(600), expires(&mut clock, &link, &limits));
        assert!(busy.await.is_err());
        link.end_call(true);
        link.flushed();
        assert_eq!(expires(&mut clock, &link, &limits).await, (Expired::Rest, 0));
        clock.rest();
        let idle = Expired::Stage(Stage::Idle);
        assert_eq!(expires(&mut clock, &link, &limits).await, (idle, 59));
        link.hear();
        assert_eq!(expires(&mut clock, &link, &limits).await, (head, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asked_last_is_woken() {
        let limits = Limits::default();
        let link = Link::new(Protocol::Http1, Arc::default());
        let mut clock = Clock::new(Instant::now(), None);
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(clock.poll(&mut nobody, &link, &limits, false).is_pending());
        assert!(clock.poll(&mut nobody, &link, &limits, false).is_pending());
        let head = Expired::Stage(Stage::Head);
        assert_eq!(expires(&mut clock, &link, &limits).await, (head, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_byte_late_in_the_idle_time_still_has_the_header_time() {
        let limits = Limits::default();
        let link = Link::new(Protocol::Http1, Arc::default());
        let mut clock = Clock::new(Instant::now(), None);
        link.begin_call();
        link.end_call(true);
        link.flushed();
        assert_eq!(expires(&mut clock, &link, &limits).await, (Expired::Rest, 0));
        clock.rest();
        let early = tokio::time::timeout(Duration::from_secs(55), expires(&mut clock, &link, &limits));
        assert!(early.await.is_err());
        link.hear();
        let head = Expired::Stage(Stage::Head);
        assert_eq!(expires(&mut clock, &link, &limits).await, (head, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn age_comes_once_and_while_busy() {
        let limits = Limits::default();
        let link = Link::new(Protocol::Http2, Arc::default());
        let mut clock = Clock::new(Instant::now(), Some(Duration::from_secs(100)));
        link.begin_call();
        assert_eq!(expires(&mut clock, &link, &limits).await, (Expired::Age, 100));
        link.end_call(true);
        assert_eq!(expires(&mut clock, &link, &limits).await, (Expired::Rest, 0));
        clock.rest();
        let idle = Expired::Stage(Stage::Idle);
        assert_eq!(expires(&mut clock, &link, &limits).await, (idle, 59));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_bytes_is_not_stalled() {
        let limits = Limits::default();
        let link = Link::new(Protocol::Http1, Arc::default());
        let mut clock = Clock::new(Instant::now(), None);
        link.begin_call();
        link.stall();
        let early = tokio::time::timeout(Duration::from_secs(299), expires(&mut clock, &link, &limits));
        assert!(early.await.is_err());
        link.wrote();
        link.stall();
        let stalled = Expired::Stage(Stage::Stalled);
        assert_eq!(expires(&mut clock, &link, &limits).await, (stalled, 300));
    }
}
