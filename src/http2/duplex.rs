//! A stream as a pair of byte streams, after an answer that made it one. Source: RFC 9113, section 8.5.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use tokio::io::{self, AsyncRead, AsyncWrite, ReadBuf};

use crate::http2::Reason;
use crate::http2::inbound::Inbound;
use crate::http2::line::{Gone, Line};

/// Both directions of one stream. Dropping it resets the stream, unless it was shut down.
#[derive(Debug)]
pub(crate) struct Duplex {
    line: Line,
    inbound: Inbound,
    /// What was read and not given to whoever reads.
    rest: Bytes,
}

impl Duplex {
    pub(crate) fn new(line: Line, inbound: Inbound) -> Self {
        Self {
            line,
            inbound,
            rest: Bytes::new(),
        }
    }
}

impl From<Gone> for io::Error {
    fn from(gone: Gone) -> Self {
        Self::new(io::ErrorKind::BrokenPipe, gone)
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = &mut *self;
        while me.rest.is_empty() {
            match ready!(Pin::new(&mut me.inbound).poll_frame(cx)) {
                Some(Ok(frame)) => me.rest = frame.into_data().unwrap_or_default(),
                Some(Err(lost)) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, lost)));
                }
                None => return Poll::Ready(Ok(())),
            }
        }
        let given = me.rest.split_to(me.rest.len().min(buf.remaining()));
        buf.put_slice(&given);
        if me.rest.is_empty() {
            // Not the end of a buffer that would be kept.
            me.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(self.line.poll_copy(cx, self.inbound.stream(), bytes, false))?;
        Poll::Ready(Ok(sent))
    }

    /// Done at once: the connection's task writes it out.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(self.line.poll_copy(cx, self.inbound.stream(), &[], true)) {
            Ok(_) | Err(Gone) => Poll::Ready(Ok(())),
        }
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        self.line.leave(self.inbound.stream(), Reason::CANCEL);
    }
}
