//! One request on its way to the handler and back: checked, counted, and kept from taking the process down.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::task::TaskTracker;

use crate::buffers::Pipe;
use crate::fault::{Fault, Kind};
use crate::listen::counters::Counters;
use crate::listen::drain::Drain;
use crate::listen::link::Link;
use crate::listen::pressure::Level;
use crate::listen::tunnel::{Switching, Tunnel};
use crate::listen::{Settings, answer, forwarded, head};
use crate::peer::Peer;
use crate::wire::body::{Body, Piped};
use crate::wire::received::Received;
use crate::wire::screen;

/// When a client that was shed may come back.
const SHED_RETRY: Duration = Duration::from_secs(1);

/// What every call of one connection shares.
pub(crate) struct Calls<H> {
    pub(crate) handler: H,
    pub(crate) peer: Peer,
    pub(crate) link: Arc<Link>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) drain: Drain,
    /// Where tunnels of HTTP/2 run.
    pub(crate) tasks: TaskTracker,
}

impl<H, F> Calls<H>
where
    H: Fn(Request<Received>, Peer) -> F,
    F: Future<Output = Response<Body>> + Send,
{
    /// A call begins.
    pub(crate) fn open(&self) -> Open {
        Open::new(&self.link)
    }

    /// Answers one request; with what the connection, or the stream, is to become after the answer. The request is the
    /// handler's at once, so that no room for it is in what waits.
    ///
    /// # Cancel safety
    /// Dropping it drops the handler's future; the call counts as broken off by the client.
    pub(crate) fn answer(
        self: Arc<Self>,
        open: Open,
        head: Parts,
        body: Received,
    ) -> impl Future<Output = (Response<Tracked>, Option<Switching>)> + use<H, F> {
        // What a refusal is rendered from, should the handler panic: the head itself is the handler's.
        let version = head.version;
        let content_type = head.headers.get(CONTENT_TYPE).cloned();
        let handling = match self.check(&head) {
            Ok(()) => Ok(catch_unwind(AssertUnwindSafe(|| {
                (self.handler)(Request::from_parts(head, body), self.peer.clone())
            }))),
            Err(fault) => Err(self.refuse(&head, &fault)),
        };
        async move {
            let handled = match handling {
                Ok(Ok(handling)) => AssertUnwindSafe(handling).catch_unwind().await,
                Ok(Err(panic)) => Err(panic),
                Err(refusal) => return (open.track(refusal), None),
            };
            let mut response = handled.unwrap_or_else(|panic| {
                self.link.counters().panicked(&*panic);
                let mut head = answer::unknown_head(version);
                head.headers
                    .extend(content_type.map(|value| (CONTENT_TYPE, value)));
                let fault = Fault::gateway(Kind::Internal, "the gateway failed to handle the request");
                (self.settings.refuse)(&head, &fault)
            });
            let switching = Tunnel::take(&mut response).map(|tunnel| Switching {
                tunnel,
                open: self.open(),
            });
            (open.track(response), switching)
        }
    }

    fn check(&self, head: &Parts) -> Result<(), Fault> {
        head::check(head, &self.settings.limits)?;
        self.screen(head)?;
        self.room()
    }

    fn screen(&self, head: &Parts) -> Result<(), Fault> {
        let screen = &self.settings.screen;
        if screen.is_empty() {
            return Ok(());
        }
        let client = forwarded::client_ip(&self.peer, &head.headers, &self.settings.trusted_proxies);
        screen.check(head, client).map_err(screen::Barred::fault)
    }

    fn room(&self) -> Result<(), Fault> {
        if self.settings.pressure.level() < Level::Shedding {
            return Ok(());
        }
        self.link.counters().shed.add();
        Err(Fault::gateway(
            Kind::Overloaded,
            "the gateway is short of memory; try again later",
        )
        .retry_after(SHED_RETRY))
    }

    fn refuse(&self, head: &Parts, fault: &Fault) -> Response<Body> {
        let client = self.peer.address();
        tracing::debug!(%client, reason = fault.kind().reason(), %fault, "request refused");
        self.link.counters().heads_refused.add();
        let mut response = (self.settings.refuse)(head, fault);
        if head.method == Method::HEAD {
            without_body(&mut response);
        }
        // Where such a request ends is in doubt, so nothing more is read from the connection.
        if head.version <= Version::HTTP_11 {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Leaves the head of an answer to HEAD, refusals too: to an HTTP/2 client, what follows would be an error.
pub(crate) fn without_body(response: &mut Response<Body>) {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert(HeaderValue::from(length));
    }
    *response.body_mut() = Body::empty();
}

impl<H> fmt::Debug for Calls<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

/// A call in flight, from its head to the end of its answer.
pub(crate) struct Open {
    link: Arc<Link>,
    complete: bool,
}

impl Open {
    fn new(link: &Arc<Link>) -> Self {
        link.begin_call();
        Self {
            link: Arc::clone(link),
            complete: false,
        }
    }

    fn track(mut self, response: Response<Body>) -> Response<Tracked> {
        self.complete = response.body().is_end_stream();
        response.map(|body| Tracked { body, open: self })
    }

    /// The call ended as it should.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }

    pub(crate) fn counters(&self) -> &Counters {
        self.link.counters()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.link.end_call(self.complete);
    }
}

/// The body of an answer; the call ends with it.
pub(crate) struct Tracked {
    body: Body,
    open: Open,
}

impl Tracked {
    /// Whether it is known whole.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.is_whole()
    }

    /// What `next` brings of the body.
    fn poll_safely<T>(
        &mut self,
        next: impl FnOnce(Pin<&mut Body>) -> Poll<Option<Result<T, Fault>>>,
    ) -> Poll<Option<Result<T, Fault>>> {
        let polled = catch_unwind(AssertUnwindSafe(|| next(Pin::new(&mut self.body))));
        polled.unwrap_or_else(|panic| {
            self.open.link.counters().panicked(&*panic);
            self.body = Body::empty();
            let fault = Fault::gateway(Kind::Internal, "the gateway failed to go on with its answer");
            Poll::Ready(Some(Err(fault)))
        })
    }
}

impl Piped for Tracked {
    fn poll_pipe(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Option<Result<usize, Fault>>> {
        let polled = self.poll_safely(|body| body.poll_pipe(cx, pipe));
        match &polled {
            Poll::Ready(Some(Err(_))) => self.open.complete = true,
            Poll::Ready(Some(Ok(_))) => self.open.complete = self.body.is_end_stream(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = self.poll_safely(|body| body.poll_frame(cx));
        match &polled {
            Poll::Ready(None | Some(Err(_))) => self.open.complete = true,
            // A body that says so is not polled again, and the last frame of trailers ends every body.
            Poll::Ready(Some(Ok(frame))) => {
                self.open.complete = frame.is_trailers() || self.body.is_end_stream();
            }
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
