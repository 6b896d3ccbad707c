//! Whether a peer is still there: it is asked when it has said nothing for a while.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    /// The peer is to be asked.
    Ask,
    /// It was asked, and did not answer.
    Dead,
}

/// The pulse of one connection.
pub(crate) struct Pulse {
    sleep: Pin<Box<Sleep>>,
    interval: Duration,
    patience: Duration,
    heard: Instant,
    /// When the peer was asked, until it is known whether it has answered.
    asked: Option<Instant>,
}

impl Pulse {
    /// A peer that is asked after `interval`, and has so much `patience` to answer.
    pub(crate) fn new(interval: Duration, patience: Duration) -> Self {
        Self {
            sleep: Box::pin(tokio::time::sleep(interval)),
            interval,
            patience,
            heard: Instant::now(),
            asked: None,
        }
    }

    /// The peer has said something: now.
    pub(crate) fn hear(&mut self) -> Instant {
        self.heard = Instant::now();
        self.heard
    }

    /// Ready when there is something to do.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Beat> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            match self.asked {
                Some(asked) if self.heard < asked => return Poll::Ready(Beat::Dead),
                Some(_) => self.asked = None,
                None => {}
            }
            let due = self.heard + self.interval;
            if now >= due {
                self.asked = Some(now);
                self.sleep.as_mut().reset(now + self.patience);
                return Poll::Ready(Beat::Ask);
            }
            self.sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_asked_when_it_was_silent_and_given_up_when_it_does_not_answer() {
        let second = Duration::from_secs(1);
        let mut pulse = Pulse::new(30 * second, 10 * second);
        let began = Instant::now();
        tokio::time::sleep(20 * second).await;
        pulse.hear();
        assert_eq!(poll_fn(|cx| pulse.poll(cx)).await, Beat::Ask);
        assert_eq!(began.elapsed().as_secs(), 50);
        tokio::time::sleep(5 * second).await;
        pulse.hear();
        assert_eq!(poll_fn(|cx| pulse.poll(cx)).await, Beat::Ask);
        assert_eq!(began.elapsed().as_secs(), 85);
        assert_eq!(poll_fn(|cx| pulse.poll(cx)).await, Beat::Dead);
        assert_eq!(began.elapsed().as_secs(), 95);
    }
}
