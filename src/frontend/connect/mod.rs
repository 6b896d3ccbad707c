//! The Connect frontend: unary calls as plain HTTP requests, streams in envelopes, protobuf or JSON.
//!
//! Protobuf is not decoded on the way; JSON is translated by the route's transcoder.
//! Source: Connect protocol reference.

mod error;
mod read;
mod stream;
mod write;

use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use tower::Service as _;

use crate::fault::Fault;
use crate::frontend::rest::takes_gzip;
use crate::frontend::{Admitted, refuse};
use crate::route::Entry;
use crate::schema::{self, MethodKind};
use crate::stack::CallService;
use crate::translate::Tally;
use crate::translate::tally::Outcome;
use crate::wire::body::Body;
use crate::wire::{Codec, Dialect, Format, Framing, Spoken};

pub(super) use error::{end_frame, json};

const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");
const CONNECT_CONTENT_ENCODING: HeaderName = HeaderName::from_static("connect-content-encoding");
const CONNECT_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("connect-accept-encoding");

/// Serves a Connect request.
///
/// # Cancel safety
/// Dropping it cancels the call upstream.
pub async fn serve(admitted: Admitted, mut stack: CallService) -> Response<Body> {
    let asked = Asked::of(&admitted);
    let outcome = match read::read(admitted).await {
        Ok(call) => stack.call(call).await,
        Err(fault) => Err(fault),
    };
    let response = match outcome {
        Ok(reply) if asked.is_stream() => Ok(stream::write(reply, &asked)),
        Ok(reply) => write::write(reply, &asked).await,
        Err(fault) => Err(fault),
    };
    response.unwrap_or_else(|fault| refused(&asked, &fault))
}

/// What the answer needs to know of the request.
struct Asked {
    entry: Arc<Entry>,
    tally: Arc<Tally>,
    format: Format,
    /// Whether the client takes gzip.
    gzip: bool,
}

impl Asked {
    fn of(admitted: &Admitted) -> Self {
        let asked = Self {
            entry: Arc::clone(&admitted.entry),
            tally: Arc::clone(&admitted.tally),
            format: admitted.format,
            gzip: false,
        };
        let accepted = match asked.is_stream() {
            true => CONNECT_ACCEPT_ENCODING,
            false => ACCEPT_ENCODING,
        };
        Self {
            gzip: admitted.head.headers.get(accepted).is_some_and(takes_gzip),
            ..asked
        }
    }

    fn is_stream(&self) -> bool {
        self.format.framing == Framing::Connect
    }
}

fn refused(asked: &Asked, fault: &Fault) -> Response<Body> {
    asked.tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    tracing::debug!(error = %fault, cause = ?std::error::Error::source(fault), "a Connect call failed");
    let spoken = Spoken {
        dialect: Dialect::Connect,
        format: asked.format,
    };
    let mut response = refuse::refuse(spoken, fault);
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        response.headers_mut().insert(
            ACCEPT_POST,
            HeaderValue::from_static(accept_post(&asked.entry.method)),
        );
    }
    response
}

/// The content types that a method takes.
fn accept_post(method: &schema::Method) -> &'static str {
    match method.kind {
        MethodKind::Unary => "application/json, application/proto",
        MethodKind::ServerStream | MethodKind::ClientStream | MethodKind::Bidi => {
            "application/connect+json, application/connect+proto"
        }
    }
}

/// The HTTP methods that a method of a service answers.
fn allow(method: &schema::Method) -> &'static str {
    if method.may_be_got() { "GET, POST" } else { "POST" }
}

/// Whether a request is one by GET.
fn is_get(head: &Parts) -> bool {
    head.method == Method::GET
}

/// The content type of bodies that are not errors.
pub(super) fn content_type(format: Format) -> &'static str {
    match (format.framing, format.codec) {
        (Framing::Connect, Codec::Proto) => "application/connect+proto",
        (Framing::Connect, Codec::Json) => "application/connect+json",
        (_, Codec::Proto) => "application/proto",
        (_, Codec::Json) => "application/json",
    }
}
