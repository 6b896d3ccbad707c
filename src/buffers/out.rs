//! What is to go out on a connection, in one buffer that belongs to the thread while there is nothing.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{self, AsyncWrite};

use crate::buffers::{self, MOST};

/// Pieces of bodies that are smaller are copied into the buffer; larger ones go out as they are.
const COPIED: usize = 8 << 10;
/// Slices that are written at once.
const SLICES: usize = 16;

/// Bytes that wait for the socket.
#[derive(Debug, Default)]
pub(crate) struct Out {
    bytes: Vec<u8>,
    /// How many of them are out.
    sent: usize,
    /// What goes out between them, in order.
    pieces: VecDeque<Piece>,
    /// Bytes of the pieces.
    held: usize,
}

/// A piece of a body that is not copied.
#[derive(Debug)]
struct Piece {
    /// How many of the bytes go before it.
    after: usize,
    bytes: Bytes,
}

impl Out {
    /// Where to write.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.bytes = buffers::spare();
        }
        &mut self.bytes
    }

    /// Writes a piece of a body, as it is if it is large.
    pub(crate) fn piece(&mut self, bytes: Bytes) {
        if bytes.len() < COPIED {
            return self.buffer().extend_from_slice(&bytes);
        }
        self.held += bytes.len();
        let after = self.bytes.len();
        self.pieces.push_back(Piece { after, bytes });
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.held
    }

    /// Whether so much waits that no more bodies are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= MOST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.pieces.is_empty()
    }

    /// Writes everything out; the buffer goes back to the thread then.
    pub(crate) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() || !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = self.slices(&mut slices);
            let slices = slices.get(..count).unwrap_or_default();
            let stream = Pin::new(&mut *stream);
            let written = match slices {
                [one] => ready!(stream.poll_write(cx, one))?,
                several => ready!(stream.poll_write_vectored(cx, several))?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        if self.bytes.capacity() > 0 {
            buffers::give_back(std::mem::take(&mut self.bytes));
            self.pieces = VecDeque::new();
        }
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// The next bytes in their order; how many slices they are.
    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut at = self.sent;
        let pieces = self.pieces.iter().flat_map(|piece| {
            let before = self.bytes.get(at..piece.after).unwrap_or_default();
            at = piece.after;
            [before, &*piece.bytes]
        });
        let last = self.pieces.back().map_or(self.sent, |piece| piece.after);
        let rest = self.bytes.get(last..).unwrap_or_default();
        let all = pieces.chain([rest]).filter(|bytes| !bytes.is_empty());
        let mut count = 0;
        for (place, bytes) in slices.iter_mut().zip(all) {
            *place = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Takes away what was written.
    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let until = self.pieces.front().map_or(self.bytes.len(), |piece| piece.after);
            let before = written.min(until - self.sent);
            self.sent += before;
            written -= before;
            let Some(piece) = self.pieces.front_mut() else {
                return;
            };
            let of_piece = written.min(piece.bytes.len());
            if self.sent == piece.after {
                piece.bytes.advance(of_piece);
                self.held -= of_piece;
                written -= of_piece;
                if piece.bytes.is_empty() {
                    self.pieces.pop_front();
                }
            }
        }
    }
}
