//! A connection of HTTP/1.1 that is asked to become something else, and is nobody else's from then on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use http::response;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_util::task::TaskTracker;

use crate::fault::Side;
use crate::upstream::connect::{Connector, MAX_HEADERS, Stream};
use crate::upstream::exchange::to_origin;
use crate::upstream::stream::{MAX_INFORMATIONAL, SendError};
use crate::wire::body::Body;

/// What an upstream says when it is asked.
pub(crate) enum Answered {
    /// 101, and the bytes of the connection.
    Switched(Box<response::Parts>, TokioIo<Upgraded>),
    /// Anything else.
    Refused(Response<Body>),
}

/// Asks the other end of `stream`. The connection is moved by a task of `tasks` until it has switched, or its answer
/// was read.
///
/// # Errors
/// [`SendError`]; nothing is sent twice.
///
/// # Cancel safety
/// Dropping it closes the connection.
pub(crate) async fn ask(
    stream: Stream,
    request: Request<()>,
    connector: &Connector,
    tasks: &TaskTracker,
) -> Result<Answered, SendError> {
    let broken = |error: hyper::Error| SendError::Broken(error.into());
    let (mut handle, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .max_header_size(connector.settings().http1.max_header_bytes)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let mover = tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upstream connection broke");
        }
    });
    let mover = mover.abort_handle();
    let (mut head, ()) = request.into_parts();
    to_origin(&mut head);
    let mut request = Request::from_parts(head, Empty::<bytes::Bytes>::new());
    let count = Arc::new(AtomicU32::new(0));
    hyper::ext::on_informational(&mut request, move |_head| {
        if count.fetch_add(1, Ordering::Relaxed) >= MAX_INFORMATIONAL {
            mover.abort();
        }
    });
    let response = handle.send_request(request).await.map_err(broken)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answered::Refused(
            response.map(|body| Body::incoming(body, Side::Upstream)),
        ));
    }
    let (head, body) = response.into_parts();
    let mut response = Response::from_parts(head, body);
    let upgraded = hyper::upgrade::on(&mut response).await.map_err(broken)?;
    let (head, _) = response.into_parts();
    Ok(Answered::Switched(Box::new(head), TokioIo::new(upgraded)))
}
