//! Bodies of the relay and reframe lanes: frames pass, only sizes, counts and endings are looked at.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::fault::Fault;
use crate::status::Status;
use crate::translate::hygiene::Hygiene;
use crate::translate::messages::{Direction, Messages, Part, enveloped, no_status};
use crate::translate::tally::{Outcome, Tally};
use crate::wire::body::Body;
use crate::wire::ending;
use crate::wire::envelope::{Followed, FrameError, Watch};

/// A gRPC request body on its way to a gRPC upstream.
pub(crate) struct Request {
    body: Body,
    watch: Watch,
    /// What is wrong after all that has passed.
    broken: Option<FrameError>,
    tally: Arc<Tally>,
}

impl Request {
    pub(crate) fn new(body: Body, max_message_bytes: usize, tally: Arc<Tally>) -> Self {
        Self {
            body,
            watch: Watch::new(max_message_bytes),
            broken: None,
            tally,
        }
    }
}

impl HttpBody for Request {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        loop {
            if let Some(error) = this.broken.take() {
                return Poll::Ready(Some(Err(Direction::Request.fault(&error))));
            }
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(cx)?) else {
                return Poll::Ready(
                    this.watch
                        .finish()
                        .err()
                        .map(|error| Err(Direction::Request.fault(&error))),
                );
            };
            // A request has no trailers in gRPC: what comes as such is dropped.
            let Ok(data) = frame.into_data() else { continue };
            let Followed { data, begun, error } = this.watch.follow(data);
            this.tally.add_request_messages(begun);
            this.broken = error;
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        // A body that stops within a message has its fault still to tell.
        self.body.is_end_stream() && self.broken.is_none() && self.watch.finish().is_ok()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Messages made on the way, each put into an envelope.
pub(crate) struct Enveloped(Messages);

impl Enveloped {
    pub(crate) fn new(messages: Messages) -> Self {
        Self(messages)
    }
}

impl HttpBody for Enveloped {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        Poll::Ready(match ready!(self.0.poll_next(cx))? {
            Some(Part::Message(message)) => Some(enveloped(&message).map(Frame::data)),
            Some(Part::End(_)) | None => None,
        })
    }
}

/// A reply on its way to a gRPC client: whatever happens, it ends in trailers with a status.
pub(crate) struct Reply {
    state: State,
    tally: Arc<Tally>,
    /// What the end may not say, where the upstream's own is passed on.
    hygiene: Option<Hygiene>,
}

enum State {
    /// The upstream speaks gRPC too.
    Raw(Body, Watch),
    /// The same, of which all has passed that is sound.
    Broken(FrameError),
    /// Messages made on the way.
    Made(Box<Messages>),
    /// The trailers are out.
    Ended,
}

impl Reply {
    pub(crate) fn new(messages: Messages) -> Self {
        let tally = Arc::clone(messages.tally());
        let limit = messages.bounds().max_message_bytes;
        let hygiene = messages.hygiene();
        let state = match messages.into_raw() {
            Ok(raw) => State::Raw(raw.body, Watch::new(limit)),
            Err(messages) => State::Made(messages),
        };
        Self {
            state,
            tally,
            hygiene,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame<Bytes>, Fault>> {
        match &mut self.state {
            State::Raw(body, watch) => loop {
                let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(cx)?) else {
                    watch.finish().map_err(|error| Direction::Reply.fault(&error))?;
                    return Poll::Ready(Err(no_status()));
                };
                match frame.into_data() {
                    Ok(data) => {
                        let Followed { data, begun, error } = watch.follow(data);
                        self.tally.add_reply_messages(begun);
                        let passes = !data.is_empty();
                        if let Some(error) = error {
                            if !passes {
                                return Poll::Ready(Err(Direction::Reply.fault(&error)));
                            }
                            self.state = State::Broken(error);
                            return Poll::Ready(Ok(Frame::data(data)));
                        }
                        if passes {
                            return Poll::Ready(Ok(Frame::data(data)));
                        }
                    }
                    Err(frame) => {
                        watch.finish().map_err(|error| Direction::Reply.fault(&error))?;
                        let mut trailers = frame.into_trailers().unwrap_or_default();
                        let mut status = ending::take(&mut trailers).ok_or_else(no_status)?;
                        if let Some(hygiene) = self.hygiene {
                            hygiene.clean(&mut status);
                        }
                        return Poll::Ready(Ok(self.end(&status, trailers)));
                    }
                }
            },
            State::Broken(error) => Poll::Ready(Err(Direction::Reply.fault(error))),
            State::Made(messages) => match ready!(messages.poll_next(cx))? {
                Some(Part::Message(message)) => Poll::Ready(Ok(Frame::data(enveloped(&message)?))),
                Some(Part::End(end)) => Poll::Ready(Ok(self.end(&end.status, end.metadata))),
                None => Poll::Ready(Err(no_status())),
            },
            // Not polled after the end; a status is still better than a stream without one.
            State::Ended => Poll::Ready(Err(no_status())),
        }
    }

    fn end(&mut self, status: &Status, mut trailers: HeaderMap) -> Frame<Bytes> {
        self.tally.end(Outcome::Upstream(status.code));
        self.state = State::Ended;
        ending::put(status, &mut trailers);
        Frame::trailers(trailers)
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if matches!(self.state, State::Ended) {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(match ready!(self.poll(cx)) {
            Ok(frame) => frame,
            Err(fault) => {
                self.tally.end(Outcome::Gateway(fault.kind(), fault.side()));
                self.state = State::Ended;
                let mut trailers = HeaderMap::new();
                ending::put(&Status::from(&fault), &mut trailers);
                Frame::trailers(trailers)
            }
        })))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}
