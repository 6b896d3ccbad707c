//! One call on an HTTP/1.1 connection, which is kept for the next one when both sides have said all they had to say.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::client::conn::http1::SendRequest;
use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::fault::{Fault, Side};
use crate::upstream::pool::Pool;
use crate::upstream::stream::{MAX_INFORMATIONAL, SendError, TOO_INFORMATIONAL};
use crate::wire::body::Body;

/// How long a connection may still be busy after its answer has ended: with the rest of a request that the upstream did
/// not want to hear. 1 s: what is longer is cheaper to dial anew.
const LINGER: Duration = Duration::from_secs(1);

/// A connection without a request.
pub(super) struct Kept {
    handle: SendRequest<Body>,
    /// Moves the bytes of the connection.
    task: AbortHandle,
    /// Whether it has carried a request before.
    used: bool,
    pub(super) since: Instant,
}

impl Kept {
    pub(super) fn new(handle: SendRequest<Body>, task: AbortHandle) -> Self {
        Self {
            handle,
            task,
            used: false,
            since: Instant::now(),
        }
    }

    /// Whether the upstream, or an error, has closed it: noticed before it is used.
    pub(super) fn is_closed(&self) -> bool {
        self.handle.is_closed()
    }

    /// Whether it can take a request now.
    pub(super) fn is_ready(&self) -> bool {
        self.handle.is_ready()
    }
}

/// A connection that one call has to itself.
pub(super) struct Exchange {
    /// `None` once it was given back.
    kept: Option<Kept>,
    pool: Pool,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        // A call that stops half-way leaves a connection that nobody can use.
        if let Some(kept) = &self.kept {
            kept.task.abort();
        }
    }
}

impl Exchange {
    pub(super) fn new(kept: Kept, pool: Pool) -> Self {
        Self {
            kept: Some(kept),
            pool,
        }
    }

    pub(super) async fn send(
        mut self,
        request: Request<()>,
        body: Body,
    ) -> Result<Response<Body>, SendError> {
        let Some(kept) = &mut self.kept else {
            return Err(SendError::Protocol("was not asked: its connection is gone"));
        };
        let fault = Arc::new(Mutex::new(None));
        let informational = Arc::new(AtomicU32::new(0));
        let is_head = request.method() == Method::HEAD;
        let request = prepare(request, body, &fault, &informational, &kept.task);
        let outcome = kept.handle.try_send_request(request).await;
        let used = std::mem::replace(&mut kept.used, true);
        let too_many = informational.load(Ordering::Relaxed) > MAX_INFORMATIONAL;
        let response = outcome.map_err(|mut error| {
            if error.take_message().is_some() {
                return SendError::Unprocessed(error.into_error().into());
            }
            if let Some(fault) = fault.lock().take() {
                return SendError::Request(fault);
            }
            if too_many {
                return TOO_INFORMATIONAL;
            }
            let error = error.into_error();
            if used && !error.is_parse() && !error.is_user() {
                SendError::Stale(error.into())
            } else {
                SendError::Broken(error.into())
            }
        })?;
        if too_many {
            return Err(TOO_INFORMATIONAL);
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::Protocol("switched protocols without being asked"));
        }
        let (head, incoming) = response.into_parts();
        let body = if is_head || incoming.is_end_stream() {
            drop(incoming);
            self.finish();
            Body::empty()
        } else {
            Body::stream(Answer {
                incoming: Body::incoming(incoming, Side::Upstream),
                exchange: Some(self),
                fault,
            })
        };
        Ok(Response::from_parts(head, body))
    }

    /// Gives the connection back.
    fn finish(mut self) {
        let Some(mut kept) = self.kept.take() else { return };
        kept.since = Instant::now();
        if kept.is_ready() {
            self.pool.keep(kept);
        } else if !kept.is_closed() {
            let pool = self.pool.clone();
            let settled = async move {
                match timeout(LINGER, kept.handle.ready()).await {
                    Ok(Ok(())) => pool.keep(kept),
                    Ok(Err(_)) | Err(_) => kept.task.abort(),
                }
            };
            self.pool.tasks().spawn(settled);
        }
    }
}

/// The request as HTTP/1.1 writes it: the path alone in its first line, and the host in a header.
fn prepare(
    request: Request<()>,
    body: Body,
    fault: &Arc<Mutex<Option<Fault>>>,
    informational: &Arc<AtomicU32>,
    task: &AbortHandle,
) -> Request<Body> {
    let (mut head, ()) = request.into_parts();
    head.version = Version::HTTP_11;
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    let target = head.uri.path_and_query().cloned();
    head.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
    let takes_body = matches!(head.method, Method::POST | Method::PUT | Method::PATCH);
    if takes_body && body.is_end_stream() {
        // Without it, some servers wait for a body, or answer 411.
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    let body = if body.as_whole().is_some() {
        body
    } else {
        Body::stream(Watched {
            body,
            fault: Arc::clone(fault),
        })
    };
    let mut request = Request::from_parts(head, body);
    let (count, task) = (Arc::clone(informational), task.clone());
    hyper::ext::on_informational(&mut request, move |_head| {
        if count.fetch_add(1, Ordering::Relaxed) >= MAX_INFORMATIONAL {
            task.abort();
        }
    });
    request
}

/// A request body that notes why it broke off, for whoever waits for the answer.
struct Watched {
    body: Body,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Err(fault)) => {
                let echo = Fault::new(fault.kind(), fault.side(), fault.message());
                *self.fault.lock() = Some(fault);
                Some(Err(echo))
            }
            frame => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer; its connection is free again when it has ended.
struct Answer {
    incoming: Body,
    exchange: Option<Exchange>,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.incoming).poll_frame(cx));
        if matches!(frame, Some(Err(_))) {
            this.exchange = None;
        } else if (frame.is_none() || this.incoming.is_end_stream())
            && let Some(exchange) = this.exchange.take()
        {
            exchange.finish();
        }
        Poll::Ready(frame.map(|frame| {
            // What broke the request off is why the answer did.
            frame.map_err(|broken| this.fault.lock().take().unwrap_or(broken))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
