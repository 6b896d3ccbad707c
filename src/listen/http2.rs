//! A connection of HTTP/2: the socket, what is said on it, and the requests that are answered on it.
//!
//! In one turn, what has come is read, all answers that can go on do so, and what they wrote goes out as one. Requests
//! are answered within the connection's own task: nothing is handed from one task to another.

mod exchange;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use tokio::io::{AsyncRead, AsyncWrite};

pub(crate) use exchange::{Exchanges, answering};

use crate::http2::frame::{FIRST_WINDOW, LEAST_FRAME, MOST_FRAME, MOST_WINDOW};
use crate::http2::{Broken, Carried, Carrier, ConnectionError, Reason, Role, Settings};
use crate::limits::Limits;
use crate::listen::head;
use crate::pulse::{Beat, Pulse};

/// Turns before others have theirs.
const TURNS: usize = 8;

/// How far a connection has come.
enum Stage {
    Serving,
    /// What is written goes out, and then the connection is closed.
    Closing(Option<Broken>),
}

/// A connection whose requests `E` answers.
pub(crate) struct Http2<S: AsyncRead + AsyncWrite + Unpin, E: Exchanges> {
    carrier: Carrier<S>,
    answers: E,
    exchanges: FuturesUnordered<E::Exchange>,
    /// Wakes this task for what its exchanges do.
    waker: Waker,
    pulse: Pulse,
    stage: Stage,
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: Exchanges> Http2<S, E> {
    pub(crate) fn new(io: S, settings: Settings, limits: &Limits, answers: E) -> Self {
        let carrier = Carrier::new(io, settings);
        Self {
            waker: carrier.line().waker(),
            carrier,
            answers,
            exchanges: FuturesUnordered::new(),
            pulse: Pulse::new(limits.ping_interval, limits.ping_timeout),
            stage: Stage::Serving,
        }
    }

    /// No further requests; those in flight are answered.
    pub(crate) fn finish(&self) {
        self.carrier.line().finish();
    }

    /// The client asks too much: it is told so, and that is the end.
    pub(crate) fn calm(&mut self) {
        let reason = Reason::ENHANCE_YOUR_CALM;
        self.break_off(Broken::new(reason, "the client reset too many streams"));
    }

    /// Gives back what an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        self.carrier.shrink();
    }

    fn break_off(&mut self, broken: Broken) {
        if matches!(self.stage, Stage::Serving) {
            self.carrier.line().break_off(broken.reason);
            self.close(Some(broken));
        }
    }

    fn close(&mut self, broken: Option<Broken>) {
        self.carrier.line().end();
        self.exchanges.clear();
        self.stage = Stage::Closing(broken);
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        for _ in 0..TURNS {
            self.carrier.line().is_rung();
            if let Stage::Closing(broken) = self.stage {
                let closed = self.carrier.poll_close(cx);
                return closed.map(|()| broken.map_or(Ok(()), |broken| Err(broken.into())));
            }
            let has_read = match self.poll_read(cx) {
                Poll::Ready(Ok(Carried::End)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(Carried::Some)) => true,
                Poll::Ready(Err(ConnectionError::Broken(broken))) => {
                    self.break_off(broken);
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => false,
            };
            let mut within = Context::from_waker(&self.waker);
            while let Poll::Ready(Some(())) = self.exchanges.poll_next_unpin(&mut within) {}
            match self.pulse.poll(cx) {
                Poll::Ready(Beat::Ask) => self.carrier.line().ping(),
                Poll::Ready(Beat::Dead) => return Poll::Ready(Err(ConnectionError::Dead)),
                Poll::Pending => {}
            }
            // What could not be written goes on when the socket takes more.
            let _out = self.carrier.poll_write(cx)?;
            if self.carrier.line().is_done() {
                self.close(None);
            } else if !(has_read || self.carrier.goes_on()) {
                self.carrier.rest();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Carried, ConnectionError>> {
        let Self {
            carrier,
            answers,
            exchanges,
            pulse,
            ..
        } = self;
        let line = carrier.line().clone();
        carrier.poll_read(
            cx,
            || pulse.hear().into_std(),
            |opened| exchanges.push(answers.begin(&line, opened)),
        )
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, E: Exchanges + Unpin> Future for Http2<S, E> {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        let line = me.carrier.line().clone();
        line.drive(cx, |cx| me.poll_turns(cx))
    }
}

/// What the limits mean for a connection.
pub(crate) fn settings(limits: &Limits) -> Settings {
    // A list that is a little too large is taken whole, so that the check of the head can refuse it in the client's
    // dialect.
    let list = u32::try_from(head::most_bytes(limits) + limits.max_header_bytes).unwrap_or(u32::MAX);
    Settings {
        role: Role::Server,
        max_streams: limits.max_streams,
        stream_window: limits.stream_window_bytes.min(MOST_WINDOW),
        connection_window: limits.connection_window_bytes.clamp(FIRST_WINDOW, MOST_WINDOW),
        max_frame: limits.max_frame_bytes.clamp(LEAST_FRAME, MOST_FRAME),
        header_table: limits.header_table_bytes,
        max_header_list: list,
        max_pending_resets: limits.max_pending_resets,
        max_error_resets: limits.max_error_resets,
    }
}

#[cfg(test)]
mod tests;
