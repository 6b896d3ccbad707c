//! The gRPC frontend. Its messages are never decoded: what the client sends is what the upstream gets.
//!
//! Source: gRPC over HTTP/2.

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use tower::ServiceExt;

use crate::call::{Call, Deadline, Reply, metadata};
use crate::fault::{Fault, Kind, Side};
use crate::frontend::{Admitted, refuse};
use crate::stack::CallService;
use crate::translate::messages::Direction;
use crate::translate::relay;
use crate::translate::tally::Outcome;
use crate::translate::{Messages, Tally};
use crate::wire::body::{Body, Way};
use crate::wire::{Dialect, ending, timeout};

/// The content type of gRPC.
pub const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Serves a gRPC request.
///
/// # Cancel safety
/// Dropping it cancels the call upstream.
pub async fn serve(admitted: Admitted, stack: CallService) -> Response<Body> {
    let tally = Arc::clone(&admitted.tally);
    let call = match read(admitted) {
        Ok(call) => call,
        Err(Refused::Fault(fault)) => return refused(&tally, &fault),
        Err(Refused::Http(status)) => return not_grpc(status),
    };
    match stack.oneshot(call).await {
        Ok(reply) => write(reply, &tally),
        Err(fault) => refused(&tally, &fault),
    }
}

/// Why a request is no gRPC call.
enum Refused {
    /// The client speaks gRPC and is told in gRPC.
    Fault(Fault),
    /// What came is not gRPC over HTTP/2, so that it is told in HTTP.
    Http(StatusCode),
}

fn refused(tally: &Tally, fault: &Fault) -> Response<Body> {
    tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    tracing::debug!(error = %fault, cause = ?std::error::Error::source(fault), "a gRPC call failed");
    refuse::refuse(Dialect::Grpc, fault)
}

fn not_grpc(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}

/// The call that a request asks for.
fn read(admitted: Admitted) -> Result<Call, Refused> {
    let Admitted {
        head,
        body,
        entry,
        permit,
        tally,
        now,
        ..
    } = admitted;
    shape(&head)?;
    let asked = match head.headers.get(GRPC_TIMEOUT) {
        Some(value) => Some(timeout::parse(value.as_bytes()).map_err(|error| {
            Refused::Fault(Fault::client(
                Kind::InvalidArgument,
                format!("header grpc-timeout: {error}"),
            ))
        })?),
        None => None,
    };
    let deadline = Deadline::earlier(now, asked, entry.timeout());
    let encoding = head.headers.get(GRPC_ENCODING).cloned();
    let accepted = head.headers.get(GRPC_ACCEPT_ENCODING).cloned();
    let mut metadata =
        metadata::from_request(head.headers, metadata::Headers::Grpc).map_err(Refused::Fault)?;
    if let Some(accepted) = accepted {
        metadata.insert(GRPC_ACCEPT_ENCODING, accepted);
    }
    let body = Body::incoming(body, Side::Client).counted(Arc::clone(&tally) as _, Way::Request);
    let messages = Messages::raw(body, encoding, Direction::Request, entry.route.bounds, tally);
    Ok(Call {
        method: Arc::clone(&entry.method),
        metadata,
        deadline,
        messages,
        permit,
    })
}

/// Whether the head is one of gRPC over HTTP/2.
fn shape(head: &Parts) -> Result<(), Refused> {
    if head.version != Version::HTTP_2 {
        return Err(Refused::Http(StatusCode::HTTP_VERSION_NOT_SUPPORTED));
    }
    if head.method != Method::POST {
        return Err(Refused::Http(StatusCode::METHOD_NOT_ALLOWED));
    }
    let codec = head
        .headers
        .get(CONTENT_TYPE)
        .map(HeaderValue::as_bytes)
        .unwrap_or_default();
    let codec = codec.strip_prefix(b"application/grpc").unwrap_or_default();
    match codec
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii()
    {
        b"" | b"+proto" => Ok(()),
        // Source: gRPC over HTTP/2, "Requests": a content type that is not supported is answered with 415.
        _ => Err(Refused::Http(StatusCode::UNSUPPORTED_MEDIA_TYPE)),
    }
}

/// The response that a reply becomes.
fn write(reply: Reply, tally: &Tally) -> Response<Body> {
    let Reply {
        metadata,
        mut messages,
    } = reply;
    if let Some(end) = messages.as_end() {
        tally.end(Outcome::Upstream(end.status.code));
        let mut headers: HeaderMap = metadata;
        for (name, value) in &end.metadata {
            headers.append(name, value.clone());
        }
        ending::put(&end.status, &mut headers);
        return respond(headers, Body::empty());
    }
    if let Some((message, end)) = messages.take_answer() {
        tally.end(Outcome::Upstream(end.status.code));
        let mut trailers = end.metadata;
        ending::put(&end.status, &mut trailers);
        return respond(metadata, Body::with_trailers(message, trailers));
    }
    let mut headers = metadata;
    if let Some(encoding) = messages.encoding() {
        headers.insert(GRPC_ENCODING, encoding.clone());
    }
    respond(headers, Body::stream(relay::Reply::new(messages)))
}

fn respond(mut headers: HeaderMap, body: Body) -> Response<Body> {
    headers.insert(CONTENT_TYPE, GRPC);
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}
