//! Drives a connection and ends it when its clock, its client's resets or the drain signal say so.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::request;
use tokio::time::Instant;

use crate::http2::ConnectionError;
use crate::listen::Settings;
use crate::listen::drain::{Drain, Level, Stop};
use crate::listen::http1::{Answer, Ended, Http1};
use crate::listen::http2::{Exchanges, Http2};
use crate::listen::link::{Clock, Expired, Link, Protocol, Stage};
use crate::listen::stream::Watched;
use crate::wire::received::Received;

/// The time over which a client's resets are counted.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// How a connection ended.
pub(crate) enum End<E> {
    /// By itself, or by its client.
    Closed(Result<(), E>),
    /// A head took too long.
    HeadLate,
    /// By force.
    Cut,
}

/// A connection that can be told to finish.
pub(crate) trait Finish: Future<Output = Result<(), Self::Error>> {
    /// Why it could not go on.
    type Error;

    /// No further requests; those in flight are answered.
    fn finish(self: Pin<&mut Self>);

    /// The client asks too much: it is told so, and that is the end.
    fn calm(self: Pin<&mut Self>);

    /// The connection is idle: it gives back what it does not need.
    fn rest(self: Pin<&mut Self>);
}

impl<B, X> Finish for Http1<B, X>
where
    B: Fn(request::Parts, Received) -> X + Unpin,
    X: Future<Output = Answer>,
{
    type Error = Ended;

    fn finish(mut self: Pin<&mut Self>) {
        Self::finish(&mut self);
    }

    /// HTTP/1.1 has no resets that could be too many.
    fn calm(self: Pin<&mut Self>) {}

    fn rest(mut self: Pin<&mut Self>) {
        self.shrink();
    }
}

impl<E: Exchanges + Unpin> Finish for Http2<Watched, E> {
    type Error = ConnectionError;

    fn finish(self: Pin<&mut Self>) {
        Self::finish(&self);
    }

    fn calm(mut self: Pin<&mut Self>) {
        Self::calm(&mut self);
    }

    fn rest(mut self: Pin<&mut Self>) {
        self.shrink();
    }
}

/// Drives a connection and ends it when its clock or the drain signal says so.
pub(crate) struct Driver<'a> {
    link: &'a Link,
    settings: &'a Settings,
    clock: Clock,
    stop: Stop,
    resets: Resets,
    /// The connection was told to finish.
    told: bool,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(link: &'a Link, settings: &'a Settings, drain: &Drain, clock: Clock) -> Self {
        Self {
            link,
            settings,
            clock,
            stop: drain.watch(),
            resets: Resets::default(),
            told: false,
        }
    }

    pub(crate) async fn drive<C: Finish>(&mut self, mut connection: Pin<&mut C>) -> End<C::Error> {
        poll_fn(|cx| self.poll(cx, connection.as_mut())).await
    }

    fn poll<C: Finish>(&mut self, cx: &mut Context<'_>, mut connection: Pin<&mut C>) -> Poll<End<C::Error>> {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(End::Closed(result));
            }
            if self.too_many_resets() {
                connection.as_mut().calm();
                continue;
            }
            match self.stop.poll_level(cx) {
                Level::Cut => return Poll::Ready(End::Cut),
                Level::Draining if !self.told => {
                    self.tell(connection.as_mut());
                    continue;
                }
                Level::Draining | Level::Leaving | Level::Serving => {}
            }
            let limits = &self.settings.limits;
            match std::task::ready!(self.clock.poll(cx, self.link, limits, self.told)) {
                Expired::Age => self.tell(connection.as_mut()),
                Expired::Rest => {
                    connection.as_mut().rest();
                    self.clock.rest();
                    self.link.counters().rested.add();
                }
                Expired::Stage(Stage::Idle) if !self.told => self.tell(connection.as_mut()),
                Expired::Stage(Stage::Head) => return Poll::Ready(End::HeadLate),
                Expired::Stage(Stage::Idle | Stage::Busy | Stage::Stalled | Stage::Closing) => {
                    return Poll::Ready(End::Cut);
                }
            }
        }
    }

    fn tell<C: Finish>(&mut self, connection: Pin<&mut C>) {
        self.told = true;
        connection.finish();
    }

    /// Whether the client has just passed its resets.
    fn too_many_resets(&mut self) -> bool {
        let resets = self.link.resets();
        if resets == self.resets.seen || self.link.protocol() == Protocol::Http1 {
            return false;
        }
        if !self
            .resets
            .passes(resets, self.settings.limits.max_resets, Instant::now())
        {
            return false;
        }
        self.link.counters().calmed.add();
        true
    }
}

/// Resets of one client, counted over a window of time.
#[derive(Debug, Default)]
struct Resets {
    seen: u32,
    window: Option<(Instant, u32)>,
}

impl Resets {
    fn passes(&mut self, resets: u32, max: u32, now: Instant) -> bool {
        let before = self.seen;
        self.seen = resets;
        let start = match self.window {
            Some((since, start)) if now.saturating_duration_since(since) < RESET_WINDOW => start,
            _ => {
                self.window = Some((now, before));
                before
            }
        };
        resets.wrapping_sub(start) > max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_counted_for_ten_seconds() {
        let mut resets = Resets::default();
        let start = Instant::now();
        assert!(!resets.passes(199, 200, start));
        assert!(!resets.passes(200, 200, start + Duration::from_secs(9)));
        assert!(resets.passes(201, 200, start + Duration::from_secs(9)));
        let mut resets = Resets::default();
        assert!(!resets.passes(200, 200, start));
        assert!(!resets.passes(400, 200, start + Duration::from_secs(10)));
        assert!(resets.passes(401, 200, start + Duration::from_secs(11)));
    }
}
