//! When the client of a WebSocket is to be pinged, and when it has been silent, deaf or full for too long: one timer
//! for all of it.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::route::entry::WebSocket;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The client is to be pinged.
    Ping,
    /// The client has not answered a ping.
    NoPong,
    /// Neither side has said anything.
    Idle,
    /// The client has taken nothing of what waits for it.
    Stalled,
    /// What says who the client is does not hold any more.
    Expired,
}

/// The timer, which is moved only when something is due before it fires.
#[derive(Debug)]
pub(crate) struct Timers {
    sleep: Pin<Box<Sleep>>,
    ping_interval: Duration,
    pong_timeout: Duration,
    idle_timeout: Duration,
    write_timeout: Duration,
    ping_at: Instant,
    pong_by: Option<Instant>,
    idle_at: Instant,
    expires_at: Option<Instant>,
    /// How much the client had taken when that was noted, and until when it is to take more.
    stalled: Option<(u64, Instant)>,
}

impl Timers {
    pub(crate) fn new(options: &WebSocket, now: Instant) -> Self {
        let ping_at = now + options.ping_interval;
        let idle_at = now + options.idle_timeout;
        Self {
            sleep: Box::pin(sleep_until(ping_at.min(idle_at))),
            ping_interval: options.ping_interval,
            pong_timeout: options.pong_timeout,
            idle_timeout: options.idle_timeout,
            write_timeout: options.write_timeout,
            ping_at,
            pong_by: None,
            idle_at,
            expires_at: None,
            stalled: None,
        }
    }

    /// Until when the socket may be open at most.
    pub(crate) fn expires(&mut self, at: Option<Instant>) {
        self.expires_at = at;
    }

    /// One side has sent a message.
    pub(crate) fn active(&mut self, now: Instant) {
        self.idle_at = now + self.idle_timeout;
    }

    /// A ping was sent.
    pub(crate) fn pinged(&mut self, now: Instant) {
        self.ping_at = now + self.ping_interval;
        self.pong_by.get_or_insert(now + self.pong_timeout);
    }

    /// A pong came.
    pub(crate) fn answered(&mut self) {
        self.pong_by = None;
    }

    /// Gives the client as long again to answer the ping: its answer may stand behind a message that waits.
    pub(crate) fn excuse(&mut self, now: Instant) {
        self.pong_by = Some(now + self.pong_timeout);
    }

    /// Ready when something is due. `taken` is what the client has taken so far, if more waits for it than it should.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, taken: Option<u64>) -> Poll<Due> {
        self.stalled = match (taken, self.stalled) {
            (None, _) => None,
            (Some(taken), Some(noted)) if noted.0 == taken => Some(noted),
            (Some(taken), _) => Some((taken, Instant::now() + self.write_timeout)),
        };
        loop {
            let (at, due) = self.next();
            if at < self.sleep.deadline() {
                self.sleep.as_mut().reset(at);
            }
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if at <= now {
                // Until what is due is seen to, the timer must not fire on and on.
                self.sleep.as_mut().reset(now + self.ping_interval);
                return Poll::Ready(due);
            }
            self.sleep.as_mut().reset(at);
        }
    }

    fn next(&self) -> (Instant, Due) {
        let pong = self.pong_by.map(|at| (at, Due::NoPong));
        let stalled = self.stalled.map(|(_, at)| (at, Due::Stalled));
        let mut next = (self.ping_at, Due::Ping);
        let expired = self.expires_at.map(|at| (at, Due::Expired));
        for (at, due) in [Some((self.idle_at, Due::Idle)), pong, stalled, expired]
            .into_iter()
            .flatten()
        {
            if at < next.0 {
                next = (at, due);
            }
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn options() -> WebSocket {
        WebSocket {
            origins: Vec::new(),
            deflate: false,
            max_message_bytes: 1,
            max_fragments: 1,
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(20),
            idle_timeout: Duration::from_secs(300),
            write_timeout: Duration::from_secs(10),
        }
    }

    async fn next(timers: &mut Timers, taken: Option<u64>) -> (Due, u64) {
        let began = Instant::now();
        let due = poll_fn(|cx| timers.poll(cx, taken)).await;
        (due, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn pings_go_on_and_do_not_count_as_activity() {
        let mut timers = Timers::new(&options(), Instant::now());
        for _ in 0..9 {
            assert_eq!(next(&mut timers, None).await, (Due::Ping, 30));
            timers.pinged(Instant::now());
            timers.answered();
        }
        assert_eq!(next(&mut timers, None).await, (Due::Ping, 30));
        timers.pinged(Instant::now());
        timers.answered();
        assert_eq!(next(&mut timers, None).await, (Due::Idle, 0));
        timers.active(Instant::now());
        assert_eq!(next(&mut timers, None).await, (Due::Ping, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_answered_in_time() {
        let mut timers = Timers::new(&options(), Instant::now());
        assert_eq!(next(&mut timers, None).await, (Due::Ping, 30));
        timers.pinged(Instant::now());
        assert_eq!(next(&mut timers, None).await, (Due::NoPong, 20));
        timers.excuse(Instant::now());
        assert_eq!(next(&mut timers, None).await, (Due::Ping, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_something_is_not_stalled() {
        let mut timers = Timers::new(&options(), Instant::now());
        let early = tokio::time::timeout(Duration::from_secs(9), next(&mut timers, Some(1)));
        assert!(early.await.is_err());
        assert_eq!(next(&mut timers, Some(2)).await, (Due::Stalled, 10));
    }
}
