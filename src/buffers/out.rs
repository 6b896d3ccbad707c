//! What is to go out on a connection, in one buffer that belongs to the thread while there is nothing.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};

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
            let polled = match slices {
                [one] => stream.poll_write(cx, one),
                several => stream.poll_write_vectored(cx, several),
            };
            let Poll::Ready(written) = polled else {
                self.let_go();
                return Poll::Pending;
            };
            let written = written?;
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

    /// Lets go of what is out, once it is much: the socket of a slow reader may take some each time, and never all.
    fn let_go(&mut self) {
        if self.sent < MOST / 2 {
            return;
        }
        self.bytes.drain(..self.sent);
        for piece in &mut self.pieces {
            piece.after -= self.sent;
        }
        self.sent = 0;
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// A socket that takes some each time, and never all.
    #[derive(Default)]
    struct Slow {
        taken: Vec<u8>,
        is_full: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.is_full = !self.is_full;
            if !self.is_full {
                return Poll::Pending;
            }
            let some = bytes.len().min(MOST / 3);
            self.taken.extend_from_slice(&bytes[..some]);
            Poll::Ready(Ok(some))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn what_waits_for_a_slow_socket_is_no_more_than_what_it_has_not_taken() {
        let mut cx = Context::from_waker(Waker::noop());
        let (mut out, mut socket, mut written) = (Out::default(), Slow::default(), Vec::new());
        for number in 0_u32..100_000 {
            // A piece that is not copied, now and then.
            let size = if number % 1000 == 0 { COPIED } else { 100 };
            let piece = Bytes::from(number.to_ne_bytes().repeat(size / 4));
            written.extend_from_slice(&piece);
            out.piece(piece);
            while out.is_full() {
                assert!(out.poll_write(&mut cx, &mut socket).is_pending());
                assert!(out.bytes.capacity() <= 4 * MOST, "{}", out.bytes.capacity());
            }
        }
        while out.poll_write(&mut cx, &mut socket).is_pending() {}
        assert!(out.is_empty());
        assert!(socket.taken == written);
    }
}
