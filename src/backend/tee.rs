//! A body that goes two ways: to the backend that answers, and as a copy to one that is never waited for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::fault::{Fault, Kind};
use crate::wire::body::Body;

/// Chunks by which the copy may be behind. 32: at most half a mebibyte of HTTP/2 frames; a copy that is slower breaks off.
const BEHIND: usize = 32;

/// A body and its copy. The copy gets what the body's reader gets, and breaks off where it falls behind.
pub(super) fn split(body: Body) -> (Body, Copy) {
    let (sender, receiver) = channel(BEHIND);
    let original = Original {
        body,
        copy: Some(sender),
    };
    let copy = Copy {
        receiver,
        state: State::Open,
    };
    (Body::stream(original), copy)
}

/// What is copied.
enum Chunk {
    Data(Bytes),
    End,
}

struct Original {
    body: Body,
    /// `None` once the copy is over, well or not.
    copy: Option<Sender<Chunk>>,
}

impl Original {
    fn copy(&mut self, chunk: Chunk) {
        let ends = matches!(chunk, Chunk::End);
        if let Some(sender) = &self.copy
            && (sender.try_send(chunk).is_err() || ends)
        {
            self.copy = None;
        }
    }
}

impl HttpBody for Original {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.copy(Chunk::End),
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    let data = data.clone();
                    self.copy(Chunk::Data(data));
                }
                // Whoever knows the length does not ask for the end.
                if self.body.is_end_stream() || self.body.size_hint().exact() == Some(0) {
                    self.copy(Chunk::End);
                }
            }
            Some(Err(_)) => self.copy = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The copy of a body.
pub(super) struct Copy {
    receiver: Receiver<Chunk>,
    state: State,
}

enum State {
    Open,
    Over,
}

impl HttpBody for Copy {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let State::Over = self.state {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.receiver.poll_recv(cx)) {
            Some(Chunk::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Chunk::End) => {
                self.state = State::Over;
                None
            }
            None => {
                self.state = State::Over;
                // Half a request must not look like a whole one.
                Some(Err(Fault::gateway(
                    Kind::Cancelled,
                    "the copy of the request fell behind",
                )))
            }
        })
    }
}
