//! One call on a connection: the request goes out, the answer comes in, dropping the answer resets the stream.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;

use crate::fault::{Fault, Kind};
use crate::http2::{Gone, Inbound, Line, Lost, Reason};
use crate::upstream::http2::Handle;
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

/// How the body of an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// It is read.
    Read,
    /// It may go on from its socket, if it is large, and is read otherwise.
    Piped,
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
    /// The same place, for a request the body of whose answer is `wanted` so.
    #[must_use]
    pub fn wanting(mut self, wanted: Wanted) -> Self {
        if let Place::Exchange(exchange) = &mut self.0 {
            exchange.wanting(wanted);
        }
        self
    }

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
        request: &Request<()>,
        body: Body,
        tasks: &TaskTracker,
    ) -> Result<Response<Body>, SendError> {
        match self.0 {
            Place::Stream(handle, place) => send(handle, place, request, body, tasks).await,
            Place::Exchange(exchange) => exchange.send(request, body, tasks).await,
        }
    }
}

/// Sends a request on a stream of its own.
async fn send(
    handle: Handle,
    place: Counted,
    request: &Request<()>,
    body: Body,
    tasks: &TaskTracker,
) -> Result<Response<Body>, SendError> {
    let ends_at_once = body.is_end_stream();
    let mut answer = handle.ask(request, ends_at_once).map_err(|gone| {
        // It is closing: calls that are under way finish on it, new ones need another.
        place.retire();
        SendError::Unprocessed(gone.into())
    })?;
    let pump = if ends_at_once {
        None
    } else {
        Pump::start(handle.line(), answer.stream(), body, tasks).await?
    };
    drop(handle);
    let head = match poll_fn(|cx| answer.poll_head(cx)).await {
        Ok(head) => head,
        Err(lost) => {
            if let Lost::Left(_) = lost {
                place.retire();
            }
            let fault = pump.and_then(|pump| pump.fault());
            return Err(fault.map_or_else(|| classify(lost), SendError::Request));
        }
    };
    let body = if answer.is_end_stream() {
        Body::empty()
    } else {
        Body::stream(Answer {
            inbound: answer,
            is_done: false,
            pump,
            _place: place,
        })
    };
    Ok(Response::from_parts(head, body))
}

/// Whether the upstream surely left the stream alone.
///
/// Source: RFC 9113, sections 6.8 and 8.7.
fn classify(lost: Lost) -> SendError {
    match lost {
        Lost::Reset(Reason::REFUSED_STREAM) => SendError::Refused(lost.into()),
        Lost::Left(Reason::NO_ERROR) => SendError::Unprocessed(lost.into()),
        Lost::Informational => TOO_INFORMATIONAL,
        Lost::Reset(_) | Lost::Broken(_) | Lost::Left(_) | Lost::Closed => SendError::Broken(lost.into()),
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
        line: Line,
        stream: u32,
        body: Body,
        tasks: &TaskTracker,
    ) -> Result<Option<Self>, SendError> {
        let mut upload = Upload {
            line,
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

/// Sends a body as far as the stream's window lets it: a slow upstream slows the client. Dropping it before its end resets
/// the stream.
struct Upload {
    line: Line,
    stream: u32,
    body: Body,
    /// A chunk that waits for window, and whether it is the last one.
    waiting: Option<(Bytes, bool)>,
}

impl Upload {
    /// Sends what waits, and then what the body brings.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Result<(), Fault>, Gone>> {
        loop {
            self.line.watch(cx, self.stream)?;
            if let Some((chunk, last)) = &mut self.waiting {
                let sent = ready!(self.line.poll_data(cx, self.stream, chunk, *last))?;
                chunk.advance(sent);
                if !chunk.is_empty() {
                    continue;
                }
                let last = *last;
                self.waiting = None;
                if last {
                    return Poll::Ready(Ok(Ok(())));
                }
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        self.waiting = Some((data, self.body.is_end_stream()));
                    }
                }
                Some(Err(fault)) => {
                    // The client broke off, or sent what is not valid: half a request must not look like a whole one.
                    self.line.reset(self.stream, Reason::CANCEL);
                    return Poll::Ready(Ok(Err(fault)));
                }
                None => self.waiting = Some((Bytes::new(), true)),
            }
        }
    }
}

impl Future for Upload {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        // Of a stream that is gone, whoever waits for the answer hears why.
        self.poll_send(cx).map(|sent| sent.unwrap_or(Ok(())))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.line.leave(self.stream, Reason::CANCEL);
    }
}

/// The body of an answer. Gives window back as it is read: a slow client slows the upstream.
struct Answer {
    inbound: Inbound,
    is_done: bool,
    pump: Option<Pump>,
    _place: Counted,
}

impl Answer {
    /// Why the answer broke off: the request's own fault, if it has one.
    fn broken(&self, lost: Lost) -> Fault {
        self.pump.as_ref().and_then(Pump::fault).unwrap_or_else(|| {
            Fault::upstream(Kind::UpstreamReset, "the upstream broke off its answer").caused_by(lost)
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
        if this.is_done {
            return Poll::Ready(None);
        }
        let polled = ready!(Pin::new(&mut this.inbound).poll_frame(cx));
        this.is_done = !matches!(polled, Some(Ok(_)));
        Poll::Ready(match polled {
            // A server that has answered in full may reset what is left of the request so. Source: RFC 9113, section 8.1.
            Some(Err(Lost::Reset(Reason::NO_ERROR))) | None => None,
            Some(Ok(frame)) => Some(Ok(frame)),
            Some(Err(lost)) => Some(Err(this.broken(lost))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.is_done || self.inbound.is_end_stream()
    }
}
