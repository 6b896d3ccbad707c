//! The streams of a connection. What is called an answer here is what the gateway sends: a server's answer, and a client's
//! request.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Bytes;
use http::HeaderMap;
use http::response::Parts;

use crate::http2::Lost;

/// One stream. It is in the table until both sides are done with it, and nobody reads what has come of it.
#[derive(Debug)]
pub(super) struct Stream {
    /// Bytes that the peer takes; less than none after it has made its windows smaller.
    pub(super) window: i64,
    pub(super) answer: Answer,
    /// Whoever answers.
    pub(super) writer: Option<Waker>,
    /// What has come and was not read.
    pub(super) queue: Queue,
    pub(super) trailers: Option<Box<HeaderMap>>,
    /// What the peer sends is complete.
    pub(super) is_received: bool,
    /// Somebody may still read it.
    pub(super) has_reader: bool,
    pub(super) reader: Option<Waker>,
    /// Bytes that the peer may still send.
    pub(super) left: i64,
    /// Bytes that were read and that it was not given back yet.
    pub(super) read: u32,
    /// Bytes that are missing from the body, if the head said how many there are.
    pub(super) missing: Option<u64>,
    /// What is to come on a stream that was opened here.
    pub(super) awaits: Awaits,
    /// The answer's head, until it is read.
    pub(super) head: Option<Box<Parts>>,
    /// Why nothing more will come or go.
    pub(super) lost: Option<Lost>,
}

/// What is to come on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// The head of an answer, after so many that were informational.
    Head { informational: u32, to: Asked },
    /// A body, and trailers.
    Body,
}

/// What an answer is to: whether a length in its head is one of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    ForHead,
    ForAll,
}

/// How far the answer of a stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Nobody has looked at the request.
    Unseen,
    Begun,
    /// It waits for a window, or for room.
    Blocked,
    Complete,
}

impl Stream {
    pub(super) fn is_closed(&self) -> bool {
        self.lost.is_some() || (self.answer == Answer::Complete && self.is_received)
    }

    /// Lets the answer go on that waits.
    pub(super) fn unblock(&mut self) {
        if self.answer == Answer::Blocked {
            self.answer = Answer::Begun;
            if let Some(waker) = self.writer.take() {
                waker.wake();
            }
        }
    }

    /// Wakes whoever has to do with it.
    pub(super) fn wake(&mut self) {
        for waker in [self.writer.take(), self.reader.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Keeps the waker of `waker`, unless it is kept already.
pub(super) fn keep(place: &mut Option<Waker>, waker: &Waker) {
    if !place.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
        *place = Some(waker.clone());
    }
}

/// Pieces of a body, of which there is mostly one.
#[derive(Debug, Default)]
pub(super) struct Queue {
    first: Bytes,
    rest: VecDeque<Bytes>,
}

impl Queue {
    pub(super) fn push(&mut self, piece: Bytes) {
        if piece.is_empty() {
        } else if self.first.is_empty() {
            self.first = piece;
        } else {
            self.rest.push_back(piece);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Bytes> {
        if self.first.is_empty() {
            return None;
        }
        let next = self.rest.pop_front().unwrap_or_default();
        Some(std::mem::replace(&mut self.first, next))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Bytes in all.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.iter().map(Bytes::len).sum::<usize>()
    }
}

/// The streams that are open, by their numbers. They are few, and the one that is asked for is mostly new.
#[derive(Debug, Default)]
pub(super) struct Streams {
    ids: Vec<u32>,
    all: Vec<Stream>,
}

impl Streams {
    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.place(id)?;
        self.all.get_mut(at)
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.ids.iter().rposition(|other| *other == id)
    }

    pub(super) fn insert(&mut self, id: u32, stream: Stream) {
        self.ids.push(id);
        self.all.push(stream);
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Stream> {
        let at = self.place(id)?;
        self.ids.swap_remove(at);
        Some(self.all.swap_remove(at))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.all.iter_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether there are as many as may be, those not counted that only wait to be read.
    pub(super) fn are_at(&self, most: usize) -> bool {
        self.ids.len() >= most && self.all.iter().filter(|stream| !stream.is_closed()).count() >= most
    }

    /// The numbers of all.
    pub(super) fn ids(&self) -> Vec<u32> {
        self.ids.clone()
    }

    /// Gives back room that is not used.
    pub(super) fn shrink(&mut self) {
        self.ids.shrink_to_fit();
        self.all.shrink_to_fit();
    }
}
