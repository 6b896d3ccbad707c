//! Moves bytes between a socket and a line.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::http2::line::{Line, Wrote};
use crate::http2::reader::{Opened, Reader};
use crate::http2::{Broken, Settings};

/// How a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The peer broke the protocol, or asks for too much.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The peer does not answer.
    #[error("a ping was not answered")]
    Dead,
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// Something, and there may be more.
    Some,
    /// The end.
    End,
}

/// A socket and the line above it.
#[derive(Debug)]
pub(crate) struct Carrier<S> {
    io: S,
    line: Line,
    reader: Reader,
    /// The socket has been written to since it was flushed.
    is_dirty: bool,
    /// Nothing was read, since too much waits to be written.
    is_held: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Carrier<S> {
    pub(crate) fn new(io: S, own: Settings) -> Self {
        let line = Line::new(own);
        Self {
            io,
            reader: Reader::new(line.clone(), &own),
            line,
            is_dirty: false,
            is_held: false,
        }
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    /// Reads once, if there is room for what that leads to, and applies it; `accept` takes the requests that begin.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: impl FnOnce() -> Instant,
        accept: impl FnMut(Opened),
    ) -> Poll<Result<Carried, ConnectionError>> {
        self.is_held = self.line.is_full();
        if self.is_held {
            return Poll::Pending;
        }
        let read = ready!(poll_read_buf(Pin::new(&mut self.io), cx, self.reader.room()))?;
        if read == 0 {
            return Poll::Ready(Ok(Carried::End));
        }
        self.reader.apply(now(), accept)?;
        Poll::Ready(Ok(Carried::Some))
    }

    /// Writes out what waits, down to the socket.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if ready!(self.line.poll_write_out(cx, &mut self.io))? == Wrote::Something {
            self.is_dirty = true;
        }
        if self.is_dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether there is something to do before an event: somebody has asked for it, or there is room to read again.
    pub(crate) fn goes_on(&self) -> bool {
        (self.is_held && !self.line.is_full()) || self.line.is_rung()
    }

    /// Writes out the rest and closes; a peer that is gone does not hear it.
    pub(crate) fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if ready!(self.poll_write(cx)).is_ok() {
            let _closed = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
        }
        Poll::Ready(())
    }

    /// Gives back what is not needed until the peer says more.
    pub(crate) fn rest(&mut self) {
        self.reader.rest();
    }

    /// Gives back room that an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        self.reader.shrink();
        self.line.shrink();
    }
}

impl<S> Drop for Carrier<S> {
    fn drop(&mut self) {
        // Those who use the line may be elsewhere.
        self.line.end();
    }
}
