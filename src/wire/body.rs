//! The one body type of the call path: what is known whole is sent whole, and only streams are boxed.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::buffers::Pipe;
use crate::fault::{Fault, Kind, Side};
use crate::http1::Unread;
use crate::wire::received::{ReceiveError, Received};

/// A body that is streamed, made by a frontend or a backend.
pub type BoxBody = Pin<Box<dyn HttpBody<Data = Bytes, Error = Fault> + Send>>;

/// A body whose bytes can go on without coming into memory.
pub(crate) trait Piped: HttpBody<Data = Bytes, Error = Fault> {
    /// Moves what comes next into `pipe`, which is empty; how many bytes that is. `None` if it is not to be had but as a
    /// frame.
    fn poll_pipe(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Option<Result<usize, Fault>>>;
}

/// A request or response body.
pub struct Body {
    state: State,
    /// Dropped with the body: what is in use as long as it streams.
    held: Option<Box<dyn Send>>,
    /// Told the size of each data frame.
    counter: Option<(Arc<dyn Count>, Way)>,
}

/// Which way a body goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    Request,
    /// To the client.
    Reply,
}

/// Something that counts the bytes of a body as they pass.
pub trait Count: Send + Sync {
    /// Counts `bytes` more.
    fn count(&self, way: Way, bytes: usize);
}

enum State {
    /// Nothing, or nothing more.
    Empty,
    /// All of it, and the trailers that follow.
    Whole(Bytes, Option<Box<HeaderMap>>),
    /// Trailers alone.
    Trailers(Box<HeaderMap>),
    /// As a peer sends it; errors are that peer's.
    Incoming(Received, Side),
    /// Made on the way.
    Stream(BoxBody),
    /// From a socket, or around one that is.
    Piped(Pin<Box<dyn Piped + Send>>),
}

impl Body {
    /// A body without a byte.
    pub const fn empty() -> Self {
        Self::from_state(State::Empty)
    }

    /// A body that is known whole.
    pub fn whole(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::empty()
        } else {
            Self::from_state(State::Whole(bytes, None))
        }
    }

    /// A body that is known whole, with trailers.
    pub fn with_trailers(bytes: Bytes, trailers: HeaderMap) -> Self {
        if bytes.is_empty() {
            Self::from_state(State::Trailers(Box::new(trailers)))
        } else {
            Self::from_state(State::Whole(bytes, Some(Box::new(trailers))))
        }
    }

    /// What a peer sends; `side` says whose fault a broken body is.
    pub fn incoming(body: impl Into<Received>, side: Side) -> Self {
        let mut body = body.into();
        match body.take_whole() {
            Some(bytes) => Self::whole(bytes),
            None => Self::from_state(State::Incoming(body, side)),
        }
    }

    /// A body made on the way.
    pub fn stream(body: impl HttpBody<Data = Bytes, Error = Fault> + Send + 'static) -> Self {
        Self::from_state(State::Stream(Box::pin(body)))
    }

    /// A body whose bytes come from a socket and may go to another as they are.
    pub(crate) fn piped(body: impl Piped + Send + 'static) -> Self {
        Self::from_state(State::Piped(Box::pin(body)))
    }

    const fn from_state(state: State) -> Self {
        Self {
            state,
            held: None,
            counter: None,
        }
    }

    /// The same body, each of whose data frames `counter` is told of, if there are any.
    #[must_use]
    pub fn counted<C: Count + 'static>(mut self, counter: &Arc<C>, way: Way) -> Self {
        if !matches!(self.state, State::Empty) {
            self.counter = Some((Arc::clone(counter) as _, way));
        }
        self
    }

    /// The same body, which keeps `thing` until it is dropped.
    #[must_use]
    pub fn holding(self, thing: impl Send + 'static) -> Self {
        self.holding_boxed(Box::new(thing))
    }

    /// The same for what has its place already.
    #[must_use]
    pub fn holding_boxed(mut self, thing: Box<dyn Send>) -> Self {
        self.held = Some(match self.held {
            Some(earlier) => Box::new((earlier, thing)),
            None => thing,
        });
        self
    }

    /// What `wrap` makes of the body, in its place: to move the head around it as well costs more than this does.
    pub fn wrap(&mut self, wrap: impl FnOnce(Self) -> Self) {
        *self = wrap(std::mem::replace(self, Self::empty()));
    }

    /// Whether the body is known whole and has no trailers.
    pub fn is_whole(&self) -> bool {
        matches!(self.state, State::Empty | State::Whole(_, None))
    }

    /// The bytes, if the body is known whole and has no trailers.
    pub fn as_whole(&self) -> Option<Bytes> {
        match &self.state {
            State::Empty => Some(Bytes::new()),
            State::Whole(bytes, None) => Some(bytes.clone()),
            State::Whole(_, Some(_))
            | State::Trailers(_)
            | State::Incoming(..)
            | State::Stream(_)
            | State::Piped(_) => None,
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.state {
            State::Empty => "Body::Empty",
            State::Whole(..) => "Body::Whole",
            State::Trailers(_) => "Body::Trailers",
            State::Incoming(..) => "Body::Incoming",
            State::Stream(_) => "Body::Stream",
            State::Piped(_) => "Body::Piped",
        })
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = self.poll_state(cx);
        if let (Some((counter, way)), Poll::Ready(Some(Ok(frame)))) = (&self.counter, &polled)
            && let Some(data) = frame.data_ref()
        {
            counter.count(*way, data.len());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Empty => true,
            State::Whole(..) | State::Trailers(_) => false,
            State::Incoming(body, _) => body.is_end_stream(),
            State::Stream(body) => body.is_end_stream(),
            State::Piped(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Empty => SizeHint::with_exact(0),
            State::Whole(bytes, None) => SizeHint::with_exact(bytes.len() as u64),
            // A length in the head would leave no place for trailers in HTTP/1.1, and in HTTP/2 it has no use.
            State::Whole(_, Some(_)) | State::Trailers(_) => SizeHint::default(),
            State::Incoming(body, _) => body.size_hint(),
            State::Stream(body) => body.size_hint(),
            State::Piped(body) => body.size_hint(),
        }
    }
}

impl Piped for Body {
    fn poll_pipe(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Option<Result<usize, Fault>>> {
        let State::Piped(body) = &mut self.state else {
            return Poll::Ready(None);
        };
        let polled = body.as_mut().poll_pipe(cx, pipe);
        if let (Some((counter, way)), Poll::Ready(Some(Ok(moved)))) = (&self.counter, &polled) {
            counter.count(*way, *moved);
        }
        polled
    }
}

impl Body {
    fn poll_state(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut self.state {
            State::Incoming(body, side) => {
                let side = *side;
                Pin::new(body).poll_frame(cx).map_err(|error| broken(error, side))
            }
            State::Stream(body) => body.as_mut().poll_frame(cx),
            State::Piped(body) => body.as_mut().poll_frame(cx),
            State::Empty | State::Whole(..) | State::Trailers(_) => Poll::Ready(self.take_next().map(Ok)),
        }
    }

    /// The next frame of a body that is known whole.
    fn take_next(&mut self) -> Option<Frame<Bytes>> {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Whole(bytes, trailers) => {
                if let Some(trailers) = trailers {
                    self.state = State::Trailers(trailers);
                }
                Some(Frame::data(bytes))
            }
            State::Trailers(trailers) => Some(Frame::trailers(*trailers)),
            State::Empty | State::Incoming(..) | State::Stream(_) | State::Piped(_) => None,
        }
    }
}

/// A body that a peer broke off: the client went away, or the upstream reset the stream.
fn broken(error: ReceiveError, side: Side) -> Fault {
    match side {
        Side::Client => match error {
            ReceiveError::Http1(Unread::Malformed(malformed)) => {
                Fault::client(Kind::BadRequest, format!("in the request, {malformed}"))
            }
            ReceiveError::Http1(Unread::Closed) | ReceiveError::Http2(_) => {
                Fault::client(Kind::Cancelled, "the request body ended before it was complete")
                    .caused_by(error)
            }
        },
        Side::Upstream | Side::Gateway => {
            Fault::upstream(Kind::UpstreamReset, "the upstream broke off its answer").caused_by(error)
        }
    }
}
