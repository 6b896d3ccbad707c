//! One call on a connection: the request goes out, the answer comes in, dropping the answer resets the stream.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::fault::{Fault, Kind};
use crate::upstream::pool::{Counted, Lease, Place};
use crate::wire::body::Body;

/// Why a request got no answer.
#[derive(Debug, Error)]
pub enum SendError {
    /// The upstream surely did not process it: the connection was closing.
    #[error("the upstream did not take the request")]
    Unprocessed(#[source] Cause),
    /// The upstream refused it before it processed any of it.
    #[error("the upstream refused the request")]
    Refused(#[source] Cause),
    /// A connection that was kept from before closed as the request went out. The upstream has most likely not seen
    /// it, and may have: only what may be sent twice may be sent again.
    #[error("the upstream closed a kept connection")]
    Stale(#[source] Cause),
    /// The upstream may have processed it.
    #[error("the upstream broke off before it answered")]
    Broken(#[source] Cause),
    /// The upstream answered with what nobody asked for.
    #[error("the upstream {0}")]
    Protocol(&'static str),
    /// The request itself went wrong on its way: its body broke off or is not valid.
    #[error("the request body failed")]
    Request(#[source] Fault),
}

/// What the connection said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Informational answers to one request. 16: a server has one or two to say before its answer.
pub(super) const MAX_INFORMATIONAL: u32 = 16;

/// What is said of an upstream that has more to say before its answer.
pub(super) const TOO_INFORMATIONAL: SendError =
    SendError::Protocol("sent too many informational answers before its answer");

impl From<SendError> for Fault {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Request(fault) => fault,
            SendError::Unprocessed(_)
            | SendError::Refused(_)
            | SendError::Stale(_)
            | SendError::Broken(_) => Self::upstream(Kind::UpstreamReset, error.to_string()).caused_by(error),
            SendError::Protocol(_) => {
                Self::upstream(Kind::UpstreamProtocol, error.to_string()).caused_by(error)
            }
        }
    }
}

impl Lease {
    /// Sends `request` and waits for the head of the answer. A body that is not whole goes out on a task of `tasks`
    /// while the answer comes in.
    ///
    /// # Errors
    /// [`SendError`], which says whether trying again is safe.
    ///
    /// # Cancel safety
    /// Dropping it resets the stream, or closes the connection.
    pub async fn send(
        self,
        request: Request<()>,
        body: Body,
        tasks: &TaskTracker,
    ) -> Result<Response<Body>, SendError> {
        match self.0 {
            Place::Stream(handle, place) => send(handle, place, request, body, tasks).await,
            Place::Exchange(exchange) => exchange.send(request, body).await,
        }
    }
}

/// Sends a request on a stream of its own.
async fn send(
    mut handle: SendRequest<Bytes>,
    place: Counted,
    request: Request<()>,
    body: Body,
    tasks: &TaskTracker,
) -> Result<Response<Body>, SendError> {
    let ends_at_once = body.is_end_stream();
    let (answer, stream) = handle.send_request(request, ends_at_once).map_err(|error| {
        // It is closing: calls that are under way finish on it, new ones need another.
        place.retire();
        SendError::Unprocessed(error.into())
    })?;
    let pump = if ends_at_once {
        None
    } else {
        Pump::start(stream, body, tasks).await?
    };
    let (head, stream) = match final_answer(answer, &place).await {
        Ok(response) => response.into_parts(),
        Err(error) => {
            let fault = pump.and_then(|pump| pump.fault());
            return Err(fault.map_or(error, SendError::Request));
        }
    };
    let body = if stream.is_end_stream() {
        Body::empty()
    } else {
        Body::stream(Answer {
            stream,
            state: State::Data,
            pump,
            _place: place,
        })
    };
    Ok(Response::from_parts(head, body))
}

/// The answer after the informational ones, of which so many are taken and no more.
async fn final_answer(
    mut answer: ResponseFuture,
    place: &Counted,
) -> Result<Response<RecvStream>, SendError> {
    let mut informational = 0;
    poll_fn(|cx| {
        while let Poll::Ready(Some(Ok(_head))) = answer.poll_informational(cx) {
            informational += 1;
            if informational > MAX_INFORMATIONAL {
                return Poll::Ready(Err(TOO_INFORMATIONAL));
            }
        }
        Pin::new(&mut answer).poll(cx).map_err(|error| {
            if error.is_go_away() {
                place.retire();
            }
            classify(error)
        })
    })
    .await
}

/// Whether the upstream surely left the stream alone.
///
/// Source: RFC 9113, sections 6.8 and 8.7.
fn classify(error: h2::Error) -> SendError {
    if error.is_remote() && error.reason() == Some(Reason::REFUSED_STREAM) {
        SendError::Refused(error.into())
    } else if error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR) {
        SendError::Unprocessed(error.into())
    } else {
        SendError::Broken(error.into())
    }
}

/// The task that sends a request body; dropping it stops the task, which resets the stream.
struct Pump {
    task: AbortHandle,
    /// Why the body could not be sent on, for whoever waits for the answer.
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pump {
    /// Sends what is there already, and spawns a task for the rest, if there is any.
    async fn start(
        stream: SendStream<Bytes>,
        body: Body,
        tasks: &TaskTracker,
    ) -> Result<Option<Self>, SendError> {
        let mut upload = Upload {
            stream,
            body,
            waiting: None,
        };
        match poll_fn(|cx| Poll::Ready(Pin::new(&mut upload).poll(cx))).await {
            Poll::Ready(Ok(())) => Ok(None),
            Poll::Ready(Err(fault)) => Err(SendError::Request(fault)),
            Poll::Pending => {
                let fault: Arc<Mutex<Option<Fault>>> = Arc::default();
                let slot = Arc::clone(&fault);
                let task = tasks.spawn(async move {
                    if let Err(fault) = upload.await {
                        *slot.lock() = Some(fault);
                    }
                });
                Ok(Some(Self {
                    task: task.abort_handle(),
                    fault,
                }))
            }
        }
    }

    /// Why the body could not be sent on; the first to ask is told.
    fn fault(&self) -> Option<Fault> {
        self.fault.lock().take()
    }
}

/// Sends a body as far as the stream's window lets it: a slow upstream slows the client.
struct Upload {
    stream: SendStream<Bytes>,
    body: Body,
    /// A chunk that waits for window, and whether it is the last one.
    waiting: Option<(Bytes, bool)>,
}

impl Future for Upload {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(_reset) = this.stream.poll_reset(cx) {
                return Poll::Ready(Ok(()));
            }
            while let Some((chunk, last)) = &mut this.waiting {
                if chunk.is_empty() {
                    let last = *last;
                    this.waiting = None;
                    if last {
                        return Poll::Ready(Ok(()));
                    }
                    break;
                }
                this.stream.reserve_capacity(chunk.len());
                let room = match this.stream.capacity() {
                    0 => match ready!(this.stream.poll_capacity(cx)) {
                        // Window was promised and taken back: wait for more.
                        Some(Ok(0)) => continue,
                        Some(Ok(room)) => room,
                        // The stream is gone; whoever waits for the answer hears why.
                        Some(Err(_)) | None => return Poll::Ready(Ok(())),
                    },
                    room => room,
                };
                let piece = chunk.split_to(room.min(chunk.len()));
                let ends = *last && chunk.is_empty();
                if this.stream.send_data(piece, ends).is_err() {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        this.waiting = Some((data, this.body.is_end_stream()));
                    }
                }
                Some(Err(fault)) => {
                    // The client broke off, or sent what is not valid: half a request must not look like a whole one.
                    this.stream.send_reset(Reason::CANCEL);
                    return Poll::Ready(Err(fault));
                }
                None => {
                    // An error here means that the stream is gone; whoever waits for the answer hears why.
                    let _ = this.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// The body of an answer. Gives window back as it is read: a slow client slows the upstream.
struct Answer {
    stream: RecvStream,
    state: State,
    pump: Option<Pump>,
    _place: Counted,
}

enum State {
    Data,
    Trailers,
    Done,
}

impl Answer {
    /// Why the answer broke off: the request's own fault, if it has one.
    fn broken(&self, error: h2::Error) -> Fault {
        self.pump.as_ref().and_then(Pump::fault).unwrap_or_else(|| {
            Fault::upstream(Kind::UpstreamReset, "the upstream broke off its answer").caused_by(error)
        })
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        if matches!(this.state, State::Data) {
            match ready!(this.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails only for a stream that is closed, which the next poll tells.
                    let _ = this.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) if ended_early_without_error(&error) => this.state = State::Done,
                Some(Err(error)) => {
                    this.state = State::Done;
                    return Poll::Ready(Some(Err(this.broken(error))));
                }
                None => this.state = State::Trailers,
            }
        }
        if matches!(this.state, State::Trailers) {
            let trailers: Result<Option<HeaderMap>, _> = ready!(this.stream.poll_trailers(cx));
            this.state = State::Done;
            return Poll::Ready(match trailers {
                Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
                Err(error) => Some(Err(this.broken(error))),
            });
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done) || self.stream.is_end_stream()
    }
}

/// A server that has answered in full may reset what is left of the request with NO_ERROR.
///
/// Source: RFC 9113, section 8.1.
fn ended_early_without_error(error: &h2::Error) -> bool {
    error.is_reset() && error.reason() == Some(Reason::NO_ERROR)
}
