//! A WebSocket over a byte stream: polled for events, written to a buffer that is flushed as the peer takes it.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Close, Event, FrameError, Kind, Reader, Writer};

/// Bytes that are read at a time, on the stack: a socket that is idle has no read buffer.
const READ: usize = 4096;

/// Bytes in the write buffer above which nothing more is written to it but the end, which must follow what is there.
/// 64 KiB: enough for the peer's window to be full. Not measured.
pub const MARK: usize = 64 << 10;

/// A buffer that grew past this many bytes is given back once it is empty.
const KEPT: usize = 2 << 10;

/// Why nothing more comes.
#[derive(Debug, Error)]
pub enum SocketError {
    /// The peer is gone: its stream ended or broke without a close frame.
    #[error("the peer went away")]
    Gone(#[source] Option<io::Error>),
    /// What the peer sent is wrong.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// A WebSocket over `S`.
pub struct Socket<S> {
    stream: S,
    reader: Reader,
    writer: Writer,
    /// Bytes that came with an event and belong to the next ones.
    unread: Bytes,
    out: BytesMut,
    /// What was written is to be flushed.
    unflushed: bool,
    /// Bytes that the stream took, wrapping: whether it still takes any.
    taken: u64,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Socket<S> {
    /// A WebSocket whose handshake is done.
    pub fn new(stream: S, reader: Reader, writer: Writer) -> Self {
        Self {
            stream,
            reader,
            writer,
            unread: Bytes::new(),
            out: BytesMut::new(),
            unflushed: false,
            taken: 0,
        }
    }

    /// Goes by other limits from the next frame on.
    pub fn relimit(&mut self, limits: super::Limits) {
        self.reader.relimit(limits);
    }

    /// The next event. Without `takes_data` no data is read, only what stands before it.
    ///
    /// # Errors
    /// [`SocketError`]; nothing more is to be read afterwards.
    pub fn poll_event(&mut self, cx: &mut Context<'_>, takes_data: bool) -> Poll<Result<Event, SocketError>> {
        loop {
            if !self.unread.is_empty() {
                let mut rest = &self.unread[..];
                let event = self.reader.read(&mut rest, takes_data)?;
                let read = self.unread.len().saturating_sub(rest.len());
                self.unread.advance(read);
                if let Some(event) = event {
                    self.shrink();
                    return Poll::Ready(Ok(event));
                }
                if !self.unread.is_empty() {
                    // A data frame waits for its turn.
                    return Poll::Pending;
                }
                self.shrink();
            }
            let mut buffer = [const { MaybeUninit::uninit() }; READ];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer))
                .map_err(|error| SocketError::Gone(Some(error)))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(SocketError::Gone(None)));
            }
            let mut rest = buffer.filled();
            let event = self.reader.read(&mut rest, takes_data)?;
            self.unread = Bytes::copy_from_slice(rest);
            if let Some(event) = event {
                return Poll::Ready(Ok(event));
            }
            if !self.unread.is_empty() {
                return Poll::Pending;
            }
        }
    }

    fn shrink(&mut self) {
        if self.unread.is_empty() {
            self.unread = Bytes::new();
        }
    }

    /// Queues a message.
    pub fn message(&mut self, kind: Kind, payload: &[u8]) {
        self.writer.message(kind, payload, &mut self.out);
    }

    /// Queues a part of a message.
    pub fn part(&mut self, kind: Kind, first: bool, last: bool, payload: &[u8]) {
        self.writer.part(kind, first, last, payload, &mut self.out);
    }

    /// Queues a ping.
    pub fn ping(&mut self, payload: &[u8]) {
        self.writer.ping(payload, &mut self.out);
    }

    /// Queues a pong.
    pub fn pong(&mut self, payload: &[u8]) {
        self.writer.pong(payload, &mut self.out);
    }

    /// Queues the close frame, which is the last one.
    pub fn close(&mut self, close: Option<&Close>) {
        self.writer.close(close, &mut self.out);
    }

    /// Whether another message may be queued: the buffer is not over its [`MARK`].
    pub fn has_room(&self) -> bool {
        self.out.len() <= MARK
    }

    /// Whether a message of the peer waits to be read, and everything that stands behind it.
    pub fn waits(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Bytes that the stream has taken, wrapping.
    pub fn taken(&self) -> u64 {
        self.taken
    }

    /// Hands what is queued to the stream, as far as it takes it; ready when it has all of it.
    ///
    /// # Errors
    /// The stream's own.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let count = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(count);
            self.taken = self.taken.wrapping_add(count as u64);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
            if self.out.capacity() > KEPT || self.out.capacity() == 0 {
                self.out = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Closes the gateway's direction once everything is out.
    ///
    /// # Errors
    /// The stream's own.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for Socket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("queued", &self.out.len())
            .finish_non_exhaustive()
    }
}
