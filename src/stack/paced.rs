//! Reads the messages of a stream no faster than they may come: the client's own windows hold the rest back.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use tower::Service;

use crate::call::{Call, Reply};
use crate::fault::Fault;
use crate::policy::throttle::pace::{Pace, Pacer};
use crate::translate::Part;
use crate::translate::messages::PartStream;
use crate::wire::body::Body;
use crate::wire::envelope::Watch;

/// The layer, for methods to which clients stream.
#[derive(Clone, Debug)]
pub struct Paced<S> {
    inner: S,
    pace: Pace,
}

impl<S> Paced<S> {
    /// `inner`, whose calls bring their messages at this pace.
    pub fn new(inner: S, pace: Pace) -> Self {
        Self { inner, pace }
    }
}

impl<S> Service<Call> for Paced<S>
where
    S: Service<Call, Response = Reply, Error = Fault>,
{
    type Response = Reply;
    type Error = Fault;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        if call.method.kind.client_streams() {
            let pace = self.pace;
            let limit = call.messages.bounds().max_message_bytes;
            call.messages.wrap_body(|inner| {
                Body::stream(PacedBody {
                    inner,
                    watch: Watch::new(limit),
                    brake: Brake::new(pace),
                })
            });
            call.messages.wrap_parts(|inner| {
                Box::pin(PacedParts {
                    inner: Some(inner),
                    brake: Brake::new(pace),
                })
            });
        }
        self.inner.call(call)
    }
}

/// Holds a reader back until it may go on.
#[derive(Debug)]
pub(crate) struct Brake {
    pacer: Pacer,
    began: Instant,
    /// Armed while the reader is held back.
    held: Option<Pin<Box<Sleep>>>,
}

impl Brake {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pacer: Pacer::new(pace),
            began: Instant::now(),
            held: None,
        }
    }

    /// Ready when more may be read.
    pub(crate) fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(held) = &mut self.held {
            ready!(held.as_mut().poll(cx));
            self.held = None;
        }
        Poll::Ready(())
    }

    /// So much was read.
    ///
    /// # Errors
    /// The client is too fast, and has been for too long.
    pub(crate) fn came(&mut self, messages: u64, bytes: usize) -> Result<(), Fault> {
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.pacer.came(messages, bytes as u64, now)?;
        let free_at = self.pacer.free_at();
        if free_at > now {
            let free_at = self.began + Duration::from_nanos(free_at);
            self.held = Some(Box::pin(sleep_until(free_at)));
        }
        Ok(())
    }

    /// More would have been read, and nothing had come.
    pub(crate) fn caught_up(&mut self) {
        self.pacer.caught_up();
    }
}

/// Envelopes as the client sends them.
struct PacedBody {
    inner: Body,
    watch: Watch,
    brake: Brake,
}

impl HttpBody for PacedBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        ready!(this.brake.poll_free(cx));
        let Poll::Ready(polled) = Pin::new(&mut this.inner).poll_frame(cx) else {
            this.brake.caught_up();
            return Poll::Pending;
        };
        if let Some(Ok(frame)) = &polled
            && let Some(data) = frame.data_ref()
        {
            // What is wrong with an envelope is told by who opens it.
            let length = data.len();
            let followed = this.watch.follow(data.clone());
            let begun = followed.begun.saturating_add(u64::from(followed.error.is_some()));
            if let Err(fault) = this.brake.came(begun, length) {
                this.inner = Body::empty();
                return Poll::Ready(Some(Err(fault)));
            }
        }
        Poll::Ready(polled)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Messages made on the way.
struct PacedParts {
    /// `None` once they broke off.
    inner: Option<PartStream>,
    brake: Brake,
}

impl Stream for PacedParts {
    type Item = Result<Part, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        ready!(this.brake.poll_free(cx));
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let Poll::Ready(polled) = inner.as_mut().poll_next(cx) else {
            this.brake.caught_up();
            return Poll::Pending;
        };
        if let Some(Ok(Part::Message(message))) = &polled
            && let Err(fault) = this.brake.came(1, message.len())
        {
            this.inner = None;
            return Poll::Ready(Some(Err(fault)));
        }
        Poll::Ready(polled)
    }
}
