//! The gRPC frontend. Its messages are never decoded: what the client sends is what the upstream gets.
//!
//! Source: gRPC over HTTP/2.

use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use tower::Service as _;

use crate::call::{Call, Deadline, Reply, metadata};
use crate::fault::{Fault, Kind, Side};
use crate::frontend::{Admitted, refuse};
use crate::stack::CallService;
use crate::translate::messages::Direction;
use crate::translate::relay;
use crate::translate::tally::Outcome;
use crate::translate::{Messages, Tally};
use crate::wire::body::{Body, Way};
use crate::wire::gathered::Gathered;
use crate::wire::{Dialect, Format, Spoken, ending, timeout};

/// The content type of gRPC.
pub const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// Serves a gRPC request.
///
/// # Cancel safety
/// Dropping it cancels the call upstream.
pub fn serve(admitted: Admitted, mut stack: CallService) -> impl Future<Output = Response<Body>> + Send {
    let tally = Arc::clone(&admitted.tally);
    // What waits holds neither the request nor the call.
    let asked = shape(&admitted.head)
        .map_err(|status| Box::new(not_grpc(status, &tally)))
        .and_then(|()| {
            let call = call(admitted, metadata::Headers::Grpc, |body| body);
            call.map_err(|fault| Box::new(refused(&tally, &fault)))
        })
        .map(|call| stack.call(call));
    async move {
        match asked {
            Ok(answering) => match answering.await {
                Ok(reply) => write(reply, &tally).await,
                Err(fault) => refused(&tally, &fault),
            },
            Err(response) => *response,
        }
    }
}

/// Whether the head is one of a gRPC call.
fn shape(head: &Parts) -> Result<(), StatusCode> {
    if head.version != Version::HTTP_2 {
        return Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
    }
    is_call(head, b"application/grpc")
}

fn refused(tally: &Tally, fault: &Fault) -> Response<Body> {
    tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    tracing::debug!(error = %fault, cause = ?std::error::Error::source(fault), "a gRPC call failed");
    let spoken = Spoken {
        dialect: Dialect::Grpc,
        format: Format::GRPC,
    };
    refuse::refuse(spoken, fault)
}

/// The answer to what is not gRPC, told in HTTP.
pub(super) fn not_grpc(status: StatusCode, tally: &Tally) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    let kind = match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            Kind::MethodNotAllowed
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Kind::UnsupportedMediaType,
        _ => Kind::BadRequest,
    };
    tally.end(Outcome::Gateway(kind, Side::Client));
    response
}

/// Whether the head is one of a gRPC call with protobuf messages, in this media type.
pub(super) fn is_call(head: &Parts, media_type: &[u8]) -> Result<(), StatusCode> {
    if head.method != Method::POST {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let codec = head
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(media_type))
        .unwrap_or_default();
    match codec
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii()
    {
        b"" | b"+proto" => Ok(()),
        // Source: gRPC over HTTP/2, "Requests": a content type that is not supported is answered with 415.
        _ => Err(StatusCode::UNSUPPORTED_MEDIA_TYPE),
    }
}

/// The call that a request asks for whose body is, once `unwrap` has opened it, one of gRPC.
pub(super) fn call(
    admitted: Admitted,
    which: metadata::Headers,
    unwrap: impl FnOnce(Body) -> Body,
) -> Result<Call, Fault> {
    let Admitted {
        head,
        body,
        entry,
        permit,
        tally,
        now,
        ..
    } = admitted;
    let (mut patience, mut encoding, mut accepted) = (None, None, None);
    // There are few fields, which are sooner looked at than three names are hashed. Of several of a name the first counts.
    for (name, value) in &head.headers {
        let place = match name {
            name if *name == GRPC_TIMEOUT => &mut patience,
            name if *name == GRPC_ENCODING => &mut encoding,
            name if *name == GRPC_ACCEPT_ENCODING => &mut accepted,
            _ => continue,
        };
        place.get_or_insert_with(|| value.clone());
    }
    let asked = match patience {
        Some(value) => Some(timeout::parse(value.as_bytes()).map_err(|error| {
            Fault::client(Kind::InvalidArgument, format!("header grpc-timeout: {error}"))
        })?),
        None => None,
    };
    let deadline = Deadline::earlier(now, asked, entry.timeout());
    let mut metadata = metadata::from_request(head.headers, which)?;
    if let Some(accepted) = accepted {
        metadata.insert(GRPC_ACCEPT_ENCODING, accepted);
    }
    let body = unwrap(Body::incoming(body, Side::Client).counted(&tally, Way::Request));
    let messages = Messages::raw(body, encoding, Direction::Request, entry.route.bounds, tally);
    Ok(Call {
        method: Arc::clone(&entry.method),
        metadata,
        deadline,
        messages,
        permit,
    })
}

/// The response that a reply becomes.
async fn write(reply: Reply, tally: &Tally) -> Response<Body> {
    if let Some(end) = reply.messages.as_end() {
        tally.end(Outcome::Upstream(end.status.code));
        let mut headers: HeaderMap = reply.metadata;
        for (name, value) in &end.metadata {
            headers.append(name, value.clone());
        }
        ending::put(&end.status, &mut headers);
        return respond(headers, Body::empty());
    }
    let (headers, mut body) = relayed(reply);
    respond(headers, body.settled().await)
}

/// The body of a reply on its way to the client.
pub(super) enum Relayed {
    Whole(Body),
    Open(Gathered<relay::Reply>),
}

impl Relayed {
    /// The body, known whole if all of it is ready and small; nothing is left here.
    pub(super) async fn settled(&mut self) -> Body {
        if let Self::Open(body) = self {
            body.settle().await;
        }
        match std::mem::replace(self, Self::Whole(Body::empty())) {
            Self::Whole(body) => body,
            Self::Open(body) => body.into_body(),
        }
    }
}

/// Headers and body of a reply that ends in trailers, whatever happens to it.
pub(super) fn relayed(reply: Reply) -> (HeaderMap, Relayed) {
    let Reply {
        metadata,
        mut messages,
    } = reply;
    if let Some((message, end)) = messages.take_answer() {
        messages.tally().end(Outcome::Upstream(end.status.code));
        let mut trailers = end.metadata;
        ending::put(&end.status, &mut trailers);
        return (metadata, Relayed::Whole(Body::with_trailers(message, trailers)));
    }
    let mut headers = metadata;
    if let Some(encoding) = messages.encoding() {
        headers.insert(GRPC_ENCODING, encoding.clone());
    }
    (headers, Relayed::Open(Gathered::new(relay::Reply::new(messages))))
}

fn respond(mut headers: HeaderMap, body: Body) -> Response<Body> {
    headers.insert(CONTENT_TYPE, GRPC);
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}
