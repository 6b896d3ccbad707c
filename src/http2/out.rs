//! What is to go out on a connection, in one buffer that belongs to the thread while there is nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{self, AsyncWrite};

use crate::buffers;

/// Bytes that wait for the socket.
#[derive(Debug, Default)]
pub(super) struct Out {
    bytes: Vec<u8>,
    /// How many of them are out.
    sent: usize,
}

impl Out {
    /// Where to write.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = buffers::spare();
        }
        &mut self.bytes
    }

    /// Whether so much waits that no more bodies are taken.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() - self.sent >= buffers::MOST
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes everything out; the buffer goes back to the thread then.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        while let Some(waiting) = self.bytes.get(self.sent..).filter(|waiting| !waiting.is_empty()) {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
        }
        if self.bytes.capacity() > 0 {
            buffers::give_back(std::mem::take(&mut self.bytes));
        }
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}
