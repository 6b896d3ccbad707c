//! The handle by which the parts of a connection reach what they share.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::header::DATE;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Method, Request};
use parking_lot::Mutex;
use tokio::io::{self, AsyncWrite};

use crate::buffers::Out;
use crate::http2::frame::{self, Head, Kind, flag};
use crate::http2::head::is_of_connection;
use crate::http2::hpack::Encoder;
use crate::http2::state::{Going, KEEP_ALIVE, LEAVING, State};
use crate::http2::streams::{Answer, Asked, keep};
use crate::http2::{Reason, Role, Settings};

/// The stream is over: the client reset it, or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream is over")]
pub(crate) struct Gone;

/// What the parts of one connection share.
#[derive(Clone, Debug)]
pub(crate) struct Line(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// The connection's task.
    task: AtomicWaker,
    /// It is running now, and looks once more before it rests.
    is_running: AtomicBool,
    is_rung: AtomicBool,
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

impl Shared {
    /// Has the connection's task look.
    fn ring(&self) {
        // Both orders are strict: either the task sees this before it rests, or it is seen here that it rests.
        self.is_rung.store(true, Ordering::SeqCst);
        if !self.is_running.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

impl Line {
    /// The line of a new connection, on which the gateway has said what it allows.
    pub(crate) fn new(own: Settings) -> Self {
        let mut state = State::new(own);
        state.greet();
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            task: AtomicWaker::new(),
            is_running: AtomicBool::new(false),
            is_rung: AtomicBool::new(false),
        }))
    }

    /// Changes the state, without waking anybody.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.state.lock())
    }

    /// Changes the state so that there may be something to write out.
    fn write<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = self.with(change);
        self.0.ring();
        changed
    }

    // The task that drives the connection.

    /// A waker for what is polled within the connection's task, which is not run again for what it does to itself.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0))
    }

    /// What `turns` comes to in the connection's task, which looks once more if somebody wanted it to meanwhile.
    pub(crate) fn drive<T>(
        &self,
        cx: &mut Context<'_>,
        turns: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.0.task.register(cx.waker());
        self.0.is_running.store(true, Ordering::SeqCst);
        let polled = turns(cx);
        self.0.is_running.store(false, Ordering::SeqCst);
        if polled.is_pending() && self.0.is_rung.load(Ordering::SeqCst) {
            cx.waker().wake_by_ref();
        }
        polled
    }

    /// Whether somebody wanted the task to look since this was asked last.
    pub(crate) fn is_rung(&self) -> bool {
        self.0.is_rung.swap(false, Ordering::SeqCst)
    }

    /// Whether so much waits for the peer that nothing more is read from it.
    pub(crate) fn is_full(&self) -> bool {
        self.with(|state| state.out.is_full())
    }

    /// Writes out what waits, and lets those go on who waited for room.
    pub(super) fn poll_write_out<S: AsyncWrite + Unpin>(
        &self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<io::Result<Wrote>> {
        self.with(|state| {
            if state.out.is_empty() {
                return Poll::Ready(Ok(Wrote::Nothing));
            }
            let written = state.out.poll_write(cx, stream);
            if state.is_room_wanted && !state.out.is_full() {
                state.is_room_wanted = false;
                state.unblock();
            }
            written.map_ok(|()| Wrote::Something)
        })
    }

    /// Tells the client that the connection ends soon; what it asked by then is answered.
    pub(crate) fn finish(&self) {
        self.write(|state| {
            if state.going == Going::Serving {
                state.going = Going::Announced;
                let out = state.out.buffer();
                frame::goaway(frame::MOST_WINDOW, Reason::NO_ERROR, out);
                frame::ping(0, LEAVING, out);
            }
        });
    }

    /// Asks whether the client is there.
    pub(crate) fn ping(&self) {
        self.write(|state| frame::ping(0, KEEP_ALIVE, state.out.buffer()));
    }

    /// Whether both sides are done.
    pub(crate) fn is_done(&self) -> bool {
        self.with(|state| state.is_done())
    }

    /// Tells the peer why the connection ends now, and whoever has to do with it.
    pub(crate) fn break_off(&self, reason: Reason) {
        self.with(|state| {
            let last = match state.own.role {
                Role::Server => state.last,
                // A server opens no streams.
                Role::Client => 0,
            };
            frame::goaway(last, reason, state.out.buffer());
            state.end();
        });
    }

    /// The connection is over: whoever has to do with it is told.
    pub(crate) fn end(&self) {
        self.with(State::end);
    }

    /// Gives back room that an idle connection does not need.
    pub(crate) fn shrink(&self) {
        self.with(|state| {
            state.streams.shrink();
            state.encoder.shrink();
        });
    }

    // Those who ask.

    /// Streams at once that the server takes.
    pub(crate) fn max_open(&self) -> usize {
        self.with(|state| {
            if state.is_left || state.is_over {
                return 0;
            }
            usize::try_from(state.max_open).unwrap_or(usize::MAX)
        })
    }

    /// Nothing more will be asked: the connection ends when all is answered.
    pub(crate) fn retire(&self) {
        self.write(|state| state.is_left = true);
    }

    /// Sends the head of a request on a new stream; with `ends`, that is all of it.
    pub(super) fn ask(&self, request: &Request<()>, ends: bool) -> Result<u32, Gone> {
        let asked = match *request.method() {
            Method::HEAD => Asked::ForHead,
            _ => Asked::ForAll,
        };
        self.write(|state| {
            let id = state.ask(asked).ok_or(Gone)?;
            block(state, id, ends, |encoder, out| {
                encoder.request(request, out);
                for (name, value) in request.headers() {
                    if !is_of_connection(name) {
                        encoder.field(name, value, out);
                    }
                }
            })?;
            Ok(id)
        })
    }

    // Those who answer, or send what follows a request's head.

    /// Whoever answers looks at its stream, and is woken when that is over.
    pub(crate) fn watch(&self, cx: &Context<'_>, id: u32) -> Result<(), Gone> {
        self.with(|state| {
            let stream = state
                .streams
                .get(id)
                .filter(|stream| stream.lost.is_none())
                .ok_or(Gone)?;
            if stream.answer == Answer::Unseen {
                stream.answer = Answer::Begun;
            }
            keep(&mut stream.writer, cx.waker());
            Ok(())
        })
    }

    /// Sends the head of an answer, to which `date` is added if it has none; with `ends`, that is all of it.
    pub(crate) fn head(&self, id: u32, head: &Parts, date: &HeaderValue, ends: bool) -> Result<(), Gone> {
        self.write(|state| {
            block(state, id, ends, |encoder, out| {
                Encoder::status(head.status, out);
                for (name, value) in &head.headers {
                    if !is_of_connection(name) {
                        encoder.field(name, value, out);
                    }
                }
                if !head.headers.contains_key(DATE) {
                    encoder.field(&DATE, date, out);
                }
            })
        })
    }

    /// Sends trailers, with which an answer ends.
    pub(crate) fn trailers(&self, id: u32, trailers: &HeaderMap) -> Result<(), Gone> {
        self.write(|state| {
            block(state, id, true, |encoder, out| {
                for (name, value) in trailers {
                    if !is_of_connection(name) {
                        encoder.field(name, value, out);
                    }
                }
            })
        })
    }

    /// Sends as much of `bytes` as the peer takes now, and how much that is; with `ends`, they are the last. A large piece
    /// is not copied.
    pub(crate) fn poll_data(
        &self,
        cx: &Context<'_>,
        id: u32,
        bytes: &Bytes,
        ends: bool,
    ) -> Poll<Result<usize, Gone>> {
        self.poll_send(cx, id, bytes.len(), ends, |out, piece| {
            out.piece(bytes.slice(piece))
        })
    }

    /// The same for bytes that are copied.
    pub(super) fn poll_copy(
        &self,
        cx: &Context<'_>,
        id: u32,
        bytes: &[u8],
        ends: bool,
    ) -> Poll<Result<usize, Gone>> {
        self.poll_send(cx, id, bytes.len(), ends, |out, piece| {
            out.buffer()
                .extend_from_slice(bytes.get(piece).unwrap_or_default());
        })
    }

    /// Sends `length` bytes, each frame of which `put` writes.
    fn poll_send(
        &self,
        cx: &Context<'_>,
        id: u32,
        length: usize,
        ends: bool,
        mut put: impl FnMut(&mut Out, Range<usize>),
    ) -> Poll<Result<usize, Gone>> {
        let mut sent = 0;
        let polled = self.with(|state| {
            loop {
                let stream = state.streams.get(id);
                let Some(stream) = stream.filter(|stream| stream.answer != Answer::Complete) else {
                    return Poll::Ready(Err(Gone));
                };
                let rest = length - sent;
                if rest == 0 && (sent > 0 || !ends) {
                    return Poll::Ready(Ok(sent));
                }
                let most = i64::from(state.max_frame.min(LARGEST));
                let takes = stream.window.min(state.window).min(most);
                let takes = usize::try_from(takes).unwrap_or(0).min(rest);
                if state.out.is_full() || (takes == 0 && rest > 0) {
                    if sent > 0 {
                        return Poll::Ready(Ok(sent));
                    }
                    stream.answer = Answer::Blocked;
                    state.is_room_wanted |= state.out.is_full();
                    keep(&mut stream.writer, cx.waker());
                    return Poll::Pending;
                }
                let size = u32::try_from(takes).unwrap_or(0);
                let is_last = ends && takes == rest;
                stream.window -= i64::from(size);
                state.window -= i64::from(size);
                stream.answer = if is_last { Answer::Complete } else { Answer::Begun };
                let flags = if is_last { flag::END_STREAM } else { 0 };
                let head = Head::new(Kind::Data, flags, id, size);
                state.out.buffer().extend_from_slice(&head.bytes());
                put(&mut state.out, sent..sent + takes);
                state.contents += 1;
                sent += takes;
                if is_last {
                    state.settle(id);
                    return Poll::Ready(Ok(sent));
                }
            }
        });
        if polled.is_ready() {
            self.0.ring();
        }
        polled
    }

    /// Resets a stream that is not over.
    pub(crate) fn reset(&self, id: u32, reason: Reason) {
        self.write(|state| {
            if state.streams.get(id).is_some() {
                state.reset(id, reason);
            }
        });
    }

    /// The stream's answer will go no further: it is reset unless it is complete.
    pub(crate) fn leave(&self, id: u32, reason: Reason) {
        self.write(|state| {
            if state
                .streams
                .get(id)
                .is_some_and(|stream| stream.answer != Answer::Complete)
            {
                state.reset(id, reason);
            }
        });
    }

    // Those who read them, besides `Inbound`.

    /// Nobody reads the stream any more.
    pub(super) fn unread(&self, id: u32) {
        self.write(|state| {
            if let Some(stream) = state.streams.get(id) {
                stream.has_reader = false;
                stream.reader = None;
                let queued = std::mem::take(&mut stream.queue).len();
                state.give_back(u32::try_from(queued).unwrap_or(u32::MAX));
                state.settle(id);
            }
        });
    }

    pub(super) fn ring(&self) {
        self.0.ring();
    }
}

/// The largest frame that is written, whatever the client takes: what is written is gathered in one buffer.
const LARGEST: u32 = 16 << 10;

/// What was there to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrote {
    Nothing,
    Something,
}

/// Writes a header block as one HEADERS frame and as many CONTINUATION frames as it needs.
fn block(
    state: &mut State,
    id: u32,
    ends: bool,
    fields: impl FnOnce(&mut Encoder, &mut Vec<u8>),
) -> Result<(), Gone> {
    let stream = state
        .streams
        .get(id)
        .filter(|stream| stream.answer != Answer::Complete)
        .ok_or(Gone)?;
    stream.answer = if ends { Answer::Complete } else { Answer::Begun };
    let max = state.max_frame as usize;
    state.contents += 1;
    let out = state.out.buffer();
    let start = out.len();
    out.extend_from_slice(&[0; frame::HEAD]);
    state.encoder.begin(out);
    fields(&mut state.encoder, out);
    let written = out.len() - start - frame::HEAD;
    let flags = if ends { flag::END_STREAM } else { 0 };
    let place = |out: &mut Vec<u8>, at: usize, head: Head| {
        if let Some(place) = out.get_mut(at..at + frame::HEAD) {
            place.copy_from_slice(&head.bytes());
        }
    };
    if written <= max {
        let length = u32::try_from(written).unwrap_or(0);
        place(
            out,
            start,
            Head::new(Kind::Headers, flags | flag::END_HEADERS, id, length),
        );
    } else {
        let text = out.split_off(start + frame::HEAD);
        out.truncate(start);
        let pieces = text.len().div_ceil(max);
        for (at, piece) in text.chunks(max).enumerate() {
            let end = if at + 1 == pieces { flag::END_HEADERS } else { 0 };
            let length = u32::try_from(piece.len()).unwrap_or(0);
            let head = match at {
                0 => Head::new(Kind::Headers, flags | end, id, length),
                _ => Head::new(Kind::Continuation, end, id, length),
            };
            out.extend_from_slice(&head.bytes());
            out.extend_from_slice(piece);
        }
    }
    if ends {
        state.settle(id);
    }
    Ok(())
}
