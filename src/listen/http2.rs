//! A connection of HTTP/2: the socket, what is said on it, and the requests that are answered on it.
//!
//! In one turn, what has come is read, all answers that can go on do so, and what they wrote goes out as one. Requests
//! are answered within the connection's own task: nothing is handed from one task to another.

mod alive;
mod exchange;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;

pub(crate) use exchange::{Exchanges, answering};

use crate::http2::{Broken, Line, Reader, Reason, Settings, Wrote};
use crate::limits::Limits;
use crate::listen::stream::Watched;
use alive::Alive;

/// Turns before others have theirs.
const TURNS: usize = 8;

/// How a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Http2Error {
    /// The client broke the protocol, or asked for too much.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client does not answer.
    #[error("a ping was not answered")]
    Dead,
}

/// How far a connection has come.
enum Stage {
    Serving,
    /// What is written goes out, and then the connection is closed.
    Closing(Option<Broken>),
}

/// A connection over `Watched`, whose requests `E` answers.
pub(crate) struct Http2<E: Exchanges> {
    io: Watched,
    line: Line,
    reader: Reader,
    answers: E,
    exchanges: FuturesUnordered<E::Exchange>,
    /// Wakes this task for what its exchanges do.
    waker: Waker,
    alive: Alive,
    stage: Stage,
    /// The socket has been written to since it was flushed.
    is_dirty: bool,
}

impl<E: Exchanges> Http2<E> {
    pub(crate) fn new(io: Watched, settings: Settings, limits: &Limits, answers: E) -> Self {
        let line = Line::new(settings);
        Self {
            io,
            reader: Reader::new(line.clone(), &settings),
            answers,
            exchanges: FuturesUnordered::new(),
            waker: line.waker(),
            alive: Alive::new(limits.ping_interval, limits.ping_timeout),
            stage: Stage::Serving,
            is_dirty: false,
            line,
        }
    }

    /// No further requests; those in flight are answered.
    pub(crate) fn finish(&self) {
        self.line.finish();
    }

    /// The client asks too much: it is told so, and that is the end.
    pub(crate) fn calm(&mut self) {
        let reason = Reason::ENHANCE_YOUR_CALM;
        self.break_off(Broken::new(reason, "the client reset too many streams"));
    }

    /// Gives back what an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        self.reader.shrink();
        self.line.shrink();
    }

    fn break_off(&mut self, broken: Broken) {
        if matches!(self.stage, Stage::Serving) {
            self.line.break_off(broken);
            self.close(Some(broken));
        }
    }

    fn close(&mut self, broken: Option<Broken>) {
        self.line.end();
        self.exchanges.clear();
        self.stage = Stage::Closing(broken);
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        for _ in 0..TURNS {
            self.line.is_rung();
            if let Stage::Closing(broken) = self.stage {
                return self
                    .poll_close(cx)
                    .map(|()| broken.map_or(Ok(()), |broken| Err(broken.into())));
            }
            let has_read = match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(_)) => true,
                Poll::Ready(Err(Http2Error::Broken(broken))) => {
                    self.break_off(broken);
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => false,
            };
            let mut within = Context::from_waker(&self.waker);
            while let Poll::Ready(Some(())) = self.exchanges.poll_next_unpin(&mut within) {}
            if self.alive.poll(cx, &self.line).is_ready() {
                return Poll::Ready(Err(Http2Error::Dead));
            }
            let is_out = self.poll_write(cx)?.is_ready();
            if self.line.is_done() {
                self.close(None);
            } else if !(has_read || (is_out && self.line.is_rung())) {
                self.reader.rest();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads once, if there is room for what that leads to, and applies it.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Http2Error>> {
        if self.line.is_full() {
            return Poll::Pending;
        }
        let read = std::task::ready!(poll_read_buf(Pin::new(&mut self.io), cx, self.reader.room()))?;
        if read > 0 {
            let now = Instant::now();
            self.alive.hear(now);
            let Self {
                reader,
                line,
                answers,
                exchanges,
                ..
            } = self;
            reader.apply(now.into_std(), |opened| {
                exchanges.push(answers.begin(line, opened))
            })?;
        }
        Poll::Ready(Ok(read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Http2Error>> {
        if std::task::ready!(self.line.poll_write_out(cx, &mut self.io))? == Wrote::Something {
            self.is_dirty = true;
        }
        if self.is_dirty {
            std::task::ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes out the rest and closes; a client that is gone does not hear it.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Ok(()) = std::task::ready!(self.poll_write(cx)) {
            let _closed = std::task::ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        }
        Poll::Ready(())
    }
}

impl<E: Exchanges + Unpin> Future for Http2<E> {
    type Output = Result<(), Http2Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        me.line.run(cx.waker());
        let polled = me.poll_turns(cx);
        if me.line.rest() && polled.is_pending() {
            cx.waker().wake_by_ref();
        }
        polled
    }
}

impl<E: Exchanges> Drop for Http2<E> {
    fn drop(&mut self) {
        // Tunnels and bodies may be elsewhere.
        self.line.end();
    }
}
