//! A connection of HTTP/2 to an upstream: its task, and the handle by which requests are sent on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http2::frame::{FIRST_TABLE, FIRST_WINDOW, MOST_WINDOW};
use crate::http2::{Broken, Carried, Carrier, ConnectionError, Gone, Inbound, Line, Reason, Role, Settings};
use crate::pulse::{Beat, Pulse};
use crate::upstream::connect::Http2;

/// The largest frame that an upstream may send. 64 KiB: a body of 100 KB comes in two instead of seven.
const MAX_FRAME: u32 = 64 << 10;
/// Streams of one connection that may have to be reset for what the upstream did wrong.
const MAX_ERROR_RESETS: usize = 1000;
/// Turns before others have theirs.
const TURNS: usize = 8;

/// Sends requests on a connection, which ends when there is no handle any more and all is answered.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Arc<Held>);

#[derive(Debug)]
struct Held(Line);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl Handle {
    /// Streams at once that the upstream takes.
    pub(super) fn max_streams(&self) -> usize {
        self.0.0.max_open()
    }

    /// Sends the head of a request; what it returns brings the answer, and resets the stream when it is dropped before.
    pub(super) fn ask(&self, request: &Request<()>, ends: bool) -> Result<Inbound, Gone> {
        Inbound::ask(&self.0.0, request, ends)
    }

    /// What the body of a request is written to.
    pub(super) fn line(&self) -> Line {
        self.0.0.clone()
    }
}

/// Moves the bytes of a connection until it ends.
pub(crate) struct Connection<S: AsyncRead + AsyncWrite + Unpin> {
    carrier: Carrier<S>,
    pulse: Pulse,
    /// What comes of it, once it is being closed.
    ended: Option<Result<(), Broken>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, settings: &Http2) -> Self {
        let window = settings.stream_window_bytes;
        let own = Settings {
            role: Role::Client,
            max_streams: settings.max_streams,
            stream_window: window.min(MOST_WINDOW),
            // As much as all streams together, so that one that is not read does not hold up the others.
            connection_window: window
                .saturating_mul(settings.max_streams)
                .clamp(FIRST_WINDOW, MOST_WINDOW),
            max_frame: MAX_FRAME,
            header_table: FIRST_TABLE,
            max_header_list: settings.max_header_bytes,
            max_pending_resets: usize::MAX,
            max_error_resets: MAX_ERROR_RESETS,
        };
        Self {
            carrier: Carrier::new(stream, own),
            pulse: Pulse::new(settings.ping_interval, settings.ping_timeout),
            ended: None,
        }
    }

    /// A handle, the first.
    pub(super) fn handle(&self) -> Handle {
        Handle(Arc::new(Held(self.carrier.line().clone())))
    }

    /// Says goodbye, and why.
    fn close(&mut self, ended: Result<(), Broken>) {
        let reason = ended.map_or_else(|broken| broken.reason, |()| Reason::NO_ERROR);
        self.carrier.line().break_off(reason);
        self.ended = Some(ended);
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        for _ in 0..TURNS {
            self.carrier.line().is_rung();
            if let Some(ended) = self.ended {
                let closed = self.carrier.poll_close(cx);
                return closed.map(|()| ended.map_err(ConnectionError::from));
            }
            if self.carrier.line().is_done() {
                self.close(Ok(()));
                continue;
            }
            let Self { carrier, pulse, .. } = self;
            let read = carrier.poll_read(cx, || pulse.hear().into_std(), drop);
            let has_read = match read {
                Poll::Ready(Ok(Carried::End)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(Carried::Some)) => true,
                Poll::Ready(Err(ConnectionError::Broken(broken))) => {
                    self.close(Err(broken));
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => false,
            };
            match self.pulse.poll(cx) {
                Poll::Ready(Beat::Ask) => self.carrier.line().ping(),
                Poll::Ready(Beat::Dead) => return Poll::Ready(Err(ConnectionError::Dead)),
                Poll::Pending => {}
            }
            // What could not be written goes on when the socket takes more.
            let _out = self.carrier.poll_write(cx)?;
            if !(has_read || self.carrier.goes_on()) {
                self.carrier.rest();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        let line = me.carrier.line().clone();
        line.drive(cx, |cx| me.poll_turns(cx))
    }
}

#[cfg(test)]
mod tests;
