//! One request of a connection, and its answer.

use std::error::Error as _;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Buf as _, Bytes};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body as _;

use crate::fault::Fault;
use crate::http2::{Duplex, Gone, Line, Lost, Opened, Reason};
use crate::listen::call::{Calls, Tracked};
use crate::listen::date::date;
use crate::listen::tunnel::Io;
use crate::peer::Peer;
use crate::wire::body::Body;
use crate::wire::received::Received;

/// Begins what answers the requests of a connection.
pub(crate) trait Exchanges {
    /// A request that is being answered.
    type Exchange: Future<Output = ()>;

    fn begin(&self, line: &Line, opened: Opened) -> Self::Exchange;
}

/// Answers requests by the handler that the calls of a connection share.
pub(crate) fn answering<H, F>(calls: Arc<Calls<H>>) -> impl Exchanges<Exchange: Send> + Unpin + Send
where
    H: Fn(Request<Received>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    By(move |line: &Line, opened| exchange(Arc::clone(&calls), line.clone(), opened))
}

struct By<B>(B);

impl<B, X> Exchanges for By<B>
where
    B: Fn(&Line, Opened) -> X,
    X: Future<Output = ()>,
{
    type Exchange = X;

    fn begin(&self, line: &Line, opened: Opened) -> X {
        (self.0)(line, opened)
    }
}

/// Answers one request. Nothing is done before it is polled: who begins it has the state of the connection, which a body
/// that is dropped would want too.
///
/// # Cancel safety
/// The connection is over if this is dropped, and so is the call.
async fn exchange<H, F>(calls: Arc<Calls<H>>, line: Line, opened: Opened)
where
    H: Fn(Request<Received>, Peer) -> F,
    F: Future<Output = Response<Body>> + Send,
{
    let Opened { stream, head, body } = opened;
    let (head, ()) = head.into_parts();
    // Before it is known whether the client still wants it, so that what it resets is counted.
    let open = calls.open();
    // The body of CONNECT is not the request's but that of whatever the stream becomes.
    let (body, below) = match body {
        Some(body) if head.method == Method::CONNECT => (Received::nothing(), Some(body)),
        Some(body) => (Received::from(body), None),
        None => (Received::nothing(), None),
    };
    let answer = {
        let mut answering = pin!(Arc::clone(&calls).answer(open, head, body));
        poll_fn(|cx| match line.watch(cx, stream) {
            Ok(()) => answering.as_mut().poll(cx).map(Ok),
            Err(Gone) => Poll::Ready(Err(Gone)),
        })
        .await
    };
    // What is gone is not answered.
    let Ok((response, switching)) = answer else { return };
    if let (Some(switching), Some(below)) = (switching, below) {
        let (head, _) = response.into_parts();
        if line.head(stream, &head, &date(), false).is_ok() {
            let io = Io::http2(Duplex::new(line, below));
            calls.tasks.spawn(switching.run(io, calls.drain.clone()));
        }
        return;
    }
    if let Err(Ended::Failed(reason)) = send(&line, stream, response).await {
        line.reset(stream, reason);
    }
}

/// Why an answer is not complete.
enum Ended {
    /// Its body failed.
    Failed(Reason),
    /// Nobody wants it.
    Gone,
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

/// Sends an answer as the client takes it.
async fn send(line: &Line, stream: u32, response: Response<Tracked>) -> Result<(), Ended> {
    let (mut head, body) = response.into_parts();
    let mut body = pin!(body);
    if body.is_end_stream() {
        return Ok(line.head(stream, &head, &date(), true)?);
    }
    if let Some(length) = body.size_hint().exact() {
        head.headers
            .entry(CONTENT_LENGTH)
            .or_insert_with(|| HeaderValue::from(length));
    }
    line.head(stream, &head, &date(), false)?;
    drop(head);
    loop {
        let frame = poll_fn(|cx| match line.watch(cx, stream) {
            Ok(()) => body.as_mut().poll_frame(cx).map(Ok),
            Err(Gone) => Poll::Ready(Err(Gone)),
        });
        let frame = match frame.await? {
            None => return data(line, stream, Bytes::new(), true).await,
            Some(Ok(frame)) => frame,
            Some(Err(fault)) => return Err(Ended::Failed(reason(&fault))),
        };
        match frame.into_data() {
            Ok(bytes) => {
                let ends = body.is_end_stream();
                data(line, stream, bytes, ends).await?;
                if ends {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return Ok(line.trailers(stream, &trailers)?);
                }
            }
        }
    }
}

/// Sends one piece of a body; an empty one only if it is the last.
async fn data(line: &Line, stream: u32, mut bytes: Bytes, ends: bool) -> Result<(), Ended> {
    loop {
        let sent = poll_fn(|cx| line.poll_data(cx, stream, &bytes, ends)).await?;
        bytes.advance(sent);
        if bytes.is_empty() {
            return Ok(());
        }
    }
}

/// What a stream is reset with whose answer failed: what an upstream reset it with, if that is why.
fn reason(fault: &Fault) -> Reason {
    let mut cause = fault.source();
    while let Some(error) = cause {
        match error.downcast_ref::<Lost>() {
            Some(Lost::Reset(reason) | Lost::Broken(reason) | Lost::Left(reason)) => return *reason,
            Some(Lost::Closed | Lost::Informational) | None => {}
        }
        cause = error.source();
    }
    Reason::INTERNAL_ERROR
}
