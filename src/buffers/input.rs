//! What has come on a connection and was not looked at yet.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use bytes::{Buf as _, Bytes, BytesMut};

/// Less room than this is not worth a read.
const LEAST_READ: usize = 4 << 10;
/// Pieces of a body that are smaller are copied out of the buffer in which they came; larger ones keep it, all of it. So
/// what waits to be read holds a few times its size at the most.
const COPIED: usize = 16 << 10;
/// What may stay in a buffer of its own, when a peer says half of something and waits.
const FEW: usize = 1 << 10;

/// Whose bytes they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    Client,
    Upstream,
}

impl Sender {
    /// What is read at a time. From clients 64 KiB, four frames of the usual size; from upstreams 128 KiB, so that an
    /// answer of 100 KB is there in one read and no byte of it is copied.
    const fn size(self) -> usize {
        match self {
            Self::Client => 64 << 10,
            Self::Upstream => 128 << 10,
        }
    }
}

thread_local! {
    /// Buffers of connections that have nothing unread, which is most of them most of the time.
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { client: None, upstream: None }) };
}

/// A buffer for each side.
struct Spare {
    client: Option<BytesMut>,
    upstream: Option<BytesMut>,
}

impl Spare {
    fn of(&mut self, sender: Sender) -> &mut Option<BytesMut> {
        match sender {
            Sender::Client => &mut self.client,
            Sender::Upstream => &mut self.upstream,
        }
    }
}

/// Bytes of one connection, in a buffer that belongs to the thread while there are none.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: BytesMut,
    sender: Sender,
}

impl Input {
    pub(crate) fn new(sender: Sender) -> Self {
        Self {
            bytes: BytesMut::new(),
            sender,
        }
    }

    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        let Self { bytes, sender } = self;
        let size = sender.size();
        if bytes.is_empty() && !bytes.try_reclaim(size) && bytes.capacity() < size / 4 {
            *bytes = SPARE
                .with_borrow_mut(|spare| spare.of(*sender).take())
                .unwrap_or_else(|| BytesMut::with_capacity(size));
        }
        if bytes.capacity() - bytes.len() < LEAST_READ {
            bytes.reserve(size);
        }
        bytes
    }

    /// The next `length` bytes, which have come: a piece of a body, that is copied unless it is large.
    pub(crate) fn take(&mut self, length: usize) -> Bytes {
        if length < COPIED {
            return self.copy(length);
        }
        if length < self.bytes.len() {
            return self.bytes.split_to(length).freeze();
        }
        // The rest of the buffer goes along, so that the thread has it again as soon as the piece is out, and with it what
        // the processor still has of it at hand.
        Bytes::from_owner(Lent {
            buffer: std::mem::take(&mut self.bytes),
            sender: self.sender,
        })
    }

    /// The next `length` bytes, which have come, in a buffer of their own.
    pub(crate) fn copy(&mut self, length: usize) -> Bytes {
        let copy = Bytes::copy_from_slice(self.bytes.get(..length).unwrap_or_default());
        self.bytes.advance(length);
        copy
    }

    /// Gives the buffer back to the thread, if the peer has nothing half said.
    pub(crate) fn rest(&mut self) {
        if self.bytes.is_empty() {
            let buffer = std::mem::take(&mut self.bytes);
            if let Some(buffer) = give_back(buffer, self.sender) {
                // A piece of it waits to be read, and keeps all of it: what is left is used before another is taken.
                self.bytes = buffer;
            }
        } else if self.bytes.len() <= FEW && self.bytes.capacity() > 2 * FEW {
            // Whoever sends a few bytes and waits holds no more than a few.
            let few = BytesMut::from(&*self.bytes);
            let buffer = std::mem::replace(&mut self.bytes, few);
            let _kept_by_a_piece = give_back(buffer, self.sender);
        }
    }
}

/// Gives a buffer back to the thread; if a piece of it is in use, it is returned.
fn give_back(mut buffer: BytesMut, sender: Sender) -> Option<BytesMut> {
    let size = sender.size();
    buffer.clear();
    if buffer.capacity() == 0 {
        return None;
    }
    if !buffer.try_reclaim(size) {
        return Some(buffer);
    }
    // One that had to grow is not kept, and none where the thread ends.
    if buffer.capacity() < 2 * size {
        let _ends = SPARE.try_with(|spare| *spare.borrow_mut().of(sender) = Some(buffer));
    }
    None
}

/// A buffer that is a piece of a body, until that is out.
struct Lent {
    buffer: BytesMut,
    sender: Sender,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let _kept_by_a_piece = give_back(std::mem::take(&mut self.buffer), self.sender);
    }
}

impl Deref for Input {
    type Target = BytesMut;

    fn deref(&self) -> &BytesMut {
        &self.bytes
    }
}

impl DerefMut for Input {
    fn deref_mut(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_piece_that_is_all_there_is_gives_the_buffer_back_when_it_is_out() {
        let mut input = Input::new(Sender::Upstream);
        input.room().extend_from_slice(&[b'h'; 100]);
        input.extend_from_slice(&[b'b'; COPIED]);
        let place = input.as_ptr().addr();
        input.advance(100);
        let piece = input.take(COPIED);
        assert_eq!((piece.as_ptr().addr(), piece.len()), (place + 100, COPIED));
        assert_eq!(input.capacity(), 0);
        let slice = piece.slice(1..2);
        drop(piece);
        // It is in use, so that another connection has another one.
        let mut other = Input::new(Sender::Upstream);
        assert_ne!(other.room().as_ptr().addr(), place);
        assert_eq!(slice, "b");
        drop(slice);
        assert_eq!(input.room().as_ptr().addr(), place);
        assert!(input.room().capacity() >= Sender::Upstream.size());
    }
}
