//! The body of a request as the connection brings it, where it did not come whole with its head.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::http1::decode::Malformed;

/// Why a body did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The connection has ended, or is done with the request.
    #[error("the connection was closed")]
    Closed,
    /// It is not framed as it has to be.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// What the connection and the reader of a body share.
#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<Bytes>,
    end: Option<Result<Option<Box<HeaderMap>>, Unread>>,
    /// Whoever reads waits.
    reader: Option<Waker>,
    /// The task of the connection.
    feeder: Option<Waker>,
    /// All that came was read, and more is wanted.
    is_wanted: bool,
    /// Nobody reads any more.
    is_left: bool,
}

/// The connection's side of a body. Dropping it before the end tells the reader that there will be none.
#[derive(Debug)]
pub(crate) struct Feed(Arc<Mutex<State>>);

impl Feed {
    /// A body, of which `length` bytes are still to be read, if that is known.
    pub(crate) fn new(length: Option<u64>) -> (Self, Inbound) {
        let state = Arc::new(Mutex::new(State::default()));
        let inbound = Inbound {
            state: Arc::clone(&state),
            left: length,
            is_done: false,
        };
        (Self(state), inbound)
    }

    /// Whether more is to be read from the connection, whose task is woken when that changes.
    pub(crate) fn is_wanted(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock();
        keep(&mut state.feeder, cx);
        state.is_wanted && !state.is_left
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_left(&self) -> bool {
        self.0.lock().is_left
    }

    /// Hands on a piece; how many wait now. A reader within the connection's own task is not woken, since it is polled
    /// next.
    pub(crate) fn push(&self, piece: Bytes, cx: &Context<'_>) -> usize {
        let mut state = self.0.lock();
        state.is_wanted = false;
        if !state.is_left {
            state.pieces.push_back(piece);
        }
        wake(state.reader.take(), cx);
        state.pieces.len()
    }

    /// Hands on the end.
    pub(crate) fn end(&self, trailers: Option<Box<HeaderMap>>, cx: &Context<'_>) {
        let mut state = self.0.lock();
        state.end.get_or_insert(Ok(trailers));
        state.feeder = None;
        wake(state.reader.take(), cx);
    }

    /// There is no end.
    pub(crate) fn fail(&self, unread: Unread) {
        let mut state = self.0.lock();
        state.end.get_or_insert(Err(unread));
        state.feeder = None;
        if let Some(reader) = state.reader.take() {
            reader.wake();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.fail(Unread::Closed);
    }
}

fn keep(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

/// Wakes somebody, unless that is the task which runs now.
fn wake(waker: Option<Waker>, cx: &Context<'_>) {
    if let Some(waker) = waker
        && !waker.will_wake(cx.waker())
    {
        waker.wake();
    }
}

/// A body that comes by HTTP/1.1. The client may send more of it as it is read.
#[derive(Debug)]
pub struct Inbound {
    state: Arc<Mutex<State>>,
    /// Bytes that are still to be read, if the head says how many there are.
    left: Option<u64>,
    is_done: bool,
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Unread;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Unread>>> {
        let me = &mut *self;
        if me.is_done {
            return Poll::Ready(None);
        }
        let mut state = me.state.lock();
        if let Some(piece) = state.pieces.pop_front() {
            me.left = me.left.map(|left| left.saturating_sub(piece.len() as u64));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let Some(end) = state.end.take() else {
            keep(&mut state.reader, cx);
            if !std::mem::replace(&mut state.is_wanted, true) {
                wake(state.feeder.take(), cx);
            }
            return Poll::Pending;
        };
        me.is_done = true;
        Poll::Ready(match end {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(*trailers))),
            Err(unread) => Some(Err(unread)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_done || {
            let state = self.state.lock();
            state.pieces.is_empty() && matches!(state.end, Some(Ok(None)))
        }
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() {
            return SizeHint::with_exact(0);
        }
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        state.is_left = true;
        state.pieces.clear();
        // The connection may have been waiting for a reader.
        if let Some(feeder) = state.feeder.take() {
            feeder.wake();
        }
    }
}
