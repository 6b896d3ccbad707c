//! Whether the client is still there: it is asked when it has said nothing for a while.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::http2::Line;

/// The pings of one connection.
pub(super) struct Alive {
    sleep: Pin<Box<Sleep>>,
    interval: Duration,
    patience: Duration,
    heard: Instant,
    /// When the client was asked, if it has said nothing since.
    asked: Option<Instant>,
}

impl Alive {
    pub(super) fn new(interval: Duration, patience: Duration) -> Self {
        let now = Instant::now();
        Self {
            sleep: Box::pin(tokio::time::sleep(interval)),
            interval,
            patience,
            heard: now,
            asked: None,
        }
    }

    /// The client has said something.
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Asks when it is time; ready when there was no answer.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, line: &Line) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            let due = match self.asked {
                Some(asked) if self.heard >= asked => {
                    self.asked = None;
                    self.heard + self.interval
                }
                Some(_) => return Poll::Ready(()),
                None if now < self.heard + self.interval => self.heard + self.interval,
                None => {
                    line.ping();
                    self.asked = Some(now);
                    now + self.patience
                }
            };
            self.sleep.as_mut().reset(due);
        }
    }
}
