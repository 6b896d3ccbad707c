//! What a stream brings: the body of a request, or an answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};

use crate::http2::Lost;
use crate::http2::line::{Gone, Line};
use crate::http2::streams::keep;

/// A body that comes by HTTP/2. What is read of it is what the peer may send more of.
#[derive(Debug)]
pub struct Inbound {
    line: Line,
    id: u32,
    /// Bytes that are still to be read, if the head says how many there are.
    left: Option<u64>,
    /// It is read to its end, or there was none.
    is_done: bool,
}

impl Inbound {
    pub(super) fn new(line: Line, id: u32, length: Option<u64>) -> Self {
        Self {
            line,
            id,
            left: length,
            is_done: false,
        }
    }

    /// Sends the head of a request on a new stream, which brings the answer; with `ends`, that is all of it.
    pub(crate) fn ask(line: &Line, request: &Request<()>, ends: bool) -> Result<Self, Gone> {
        let id = line.ask(request, ends)?;
        Ok(Self::new(line.clone(), id, None))
    }

    /// The stream that brings it.
    pub(crate) fn stream(&self) -> u32 {
        self.id
    }
}

impl Inbound {
    /// The head of an answer.
    pub(crate) fn poll_head(&mut self, cx: &Context<'_>) -> Poll<Result<Parts, Lost>> {
        let polled = self.line.with(|state| {
            let Some(stream) = state.streams.get(self.id) else {
                return Poll::Ready(Err(Lost::Closed));
            };
            if let Some(head) = stream.head.take() {
                return Poll::Ready(Ok((*head, stream.missing)));
            }
            if let Some(lost) = stream.lost {
                return Poll::Ready(Err(lost));
            }
            keep(&mut stream.reader, cx.waker());
            Poll::Pending
        });
        polled.map_ok(|(head, length)| {
            self.left = length;
            head
        })
    }
}

/// What reading a stream found.
enum Read {
    Data(Bytes),
    Trailers(Box<http::HeaderMap>),
    End,
}

impl Body for Inbound {
    type Data = Bytes;
    type Error = Lost;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let me = &mut *self;
        if me.is_done {
            return Poll::Ready(None);
        }
        let id = me.id;
        let read = me.line.with(|state| {
            let Some(stream) = state.streams.get(id) else {
                return Poll::Ready(Err(Lost::Closed));
            };
            if let Some(piece) = stream.queue.pop() {
                state.read(id, piece.len());
                return Poll::Ready(Ok(Read::Data(piece)));
            }
            if let Some(trailers) = stream.trailers.take() {
                return Poll::Ready(Ok(Read::Trailers(trailers)));
            }
            if stream.is_received {
                return Poll::Ready(Ok(Read::End));
            }
            if let Some(lost) = stream.lost {
                return Poll::Ready(Err(lost));
            }
            keep(&mut stream.reader, cx.waker());
            Poll::Pending
        });
        match std::task::ready!(read) {
            Ok(Read::Data(piece)) => {
                // A window may have been given back.
                me.line.ring();
                me.left = me.left.map(|left| left.saturating_sub(piece.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Ok(Read::Trailers(trailers)) => {
                me.is_done = true;
                Poll::Ready(Some(Ok(Frame::trailers(*trailers))))
            }
            Ok(Read::End) => {
                me.is_done = true;
                Poll::Ready(None)
            }
            Err(lost) => {
                me.is_done = true;
                Poll::Ready(Some(Err(lost)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_done
            || self.line.with(|state| {
                state.streams.get(self.id).is_some_and(|stream| {
                    stream.is_received && stream.queue.is_empty() && stream.trailers.is_none()
                })
            })
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
        self.line.unread(self.id);
    }
}
