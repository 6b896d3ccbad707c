//! The socket of a connection, cleartext or TLS, and the watch that is kept over it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::buffers::{Pipe, Rewound};
use crate::listen::link::{Link, Protocol};

/// Bytes thrown away at a time while a closed connection lingers.
const SCRATCH: usize = 4096;

/// An accepted connection.
#[derive(Debug)]
pub(crate) enum Stream {
    /// Cleartext.
    Plain(TcpStream),
    /// TLS, after the handshake.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// How far the end of the connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// Not at all.
    Open,
    /// The gateway's direction is closed and the client's is read until it closes too.
    Lingering,
}

/// A stream that notes in its [`Link`] what happens on it.
///
/// Two things are done here because nobody above sees them: bytes read before the protocol was known are given back
/// first, and closing lingers until the client has read what it was sent.
#[derive(Debug)]
pub(crate) struct Watched {
    stream: Rewound<Stream>,
    link: Arc<Link>,
    ending: Ending,
    /// The client may still be sending when the gateway closes.
    lingers: bool,
}

impl Watched {
    /// Watches `stream`, of which `before` was already read.
    pub(crate) fn new(stream: Stream, before: Bytes, link: Arc<Link>) -> Self {
        Self {
            stream: Rewound::new(stream, before),
            link,
            ending: Ending::Open,
            lingers: true,
        }
    }

    /// The stream alone.
    pub(crate) fn into_inner(self) -> Stream {
        self.stream.into_inner()
    }

    /// Has the client see an error and no end.
    pub(crate) fn break_off(&self) {
        let socket = match self.stream.get_ref() {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.get_ref().0,
        };
        // The socket is dropped next, with what was not sent.
        if let Err(error) = socket.set_zero_linger() {
            tracing::debug!(%error, "the connection could not be reset");
        }
    }

    /// The client's socket, if what is written is to go out on it as it is.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match self.stream.get_ref() {
            Stream::Plain(socket) => Some(socket),
            Stream::Tls(_) => None,
        }
    }

    /// Waits until there may be something to read, so that nobody who waits needs a buffer. What TLS holds back does not
    /// show.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.look();
        match self.stream.get_ref() {
            Stream::Plain(socket) if self.stream.is_level() => socket.poll_read_ready(cx),
            Stream::Plain(_) | Stream::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// Notes that more is read for.
    fn look(&mut self) {
        if self.link.protocol() == Protocol::Http1 && self.link.settled() && !self.link.heard() {
            // The next head is awaited, so the last request was read to its end.
            self.lingers = false;
        }
    }

    /// Writes out what is in `pipe`. Over TLS nothing can be.
    pub(crate) fn poll_drain(&self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<io::Result<()>> {
        while !pipe.is_empty() {
            let Some(socket) = self.socket() else {
                return Poll::Ready(Err(io::ErrorKind::Unsupported.into()));
            };
            let written = pipe.poll_drain(cx, socket);
            self.after_write(&written);
            ready!(written)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut scratch = [0; SCRATCH];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // The client closed too, or broke off, which comes to the same.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    fn after_write(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(_)) => self.link.wrote(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.link.stall(),
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        me.look();
        let before = buf.filled().len();
        ready!(Pin::new(&mut me.stream).poll_read(cx, buf))?;
        me.lingers = buf.filled().len() > before;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.after_write(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.after_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        match &flushed {
            Poll::Ready(Ok(())) => self.link.flushed(),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => self.link.stall(),
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = &mut *self;
        if me.ending == Ending::Open {
            me.link.close();
            ready!(Pin::new(&mut me.stream).poll_shutdown(cx))?;
            me.ending = Ending::Lingering;
        }
        if me.lingers {
            ready!(me.poll_linger(cx))?;
        }
        Poll::Ready(Ok(()))
    }
}
