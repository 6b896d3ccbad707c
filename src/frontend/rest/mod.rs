//! The REST frontend: HTTP and JSON by HTTP rules, or by the rpc path.
//!
//! A request is checked whole before its call is opened, and a unary answer is whole before its head is sent.

pub(super) mod body;
pub(super) mod deadline;
pub(super) mod error;
mod read;
mod stream;
mod upload;
mod write;

pub(super) use error::fields;
pub(super) use read::read_json;
pub(super) use write::{JSON, add_metadata, extend, not_json, only, pack, whole};

use std::sync::Arc;

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderValue, TE};
use http::request::Parts;
use http::{Method, Response, Version};
use tower::Service as _;

use crate::fault::Fault;
use crate::frontend::{Admitted, refuse};
use crate::route::entry::{Entry, Form, Streaming};
use crate::schema::MethodKind;
use crate::stack::CallService;
use crate::translate::Tally;
use crate::translate::tally::Outcome;
use crate::wire::body::Body;
use crate::wire::{Codec, Dialect, Format, Spoken};

/// Serves a REST request.
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
        Ok(reply) => write::write(reply, &asked).await,
        Err(fault) => Err(fault),
    };
    let response = response.unwrap_or_else(|fault| refused(&asked.tally, &fault));
    if asked.head { bodiless(response) } else { response }
}

/// What the answer needs to know of the request.
struct Asked {
    entry: Arc<Entry>,
    binding: Option<u32>,
    tally: Arc<Tally>,
    /// The method is HEAD: the answer is that of GET, without its body.
    head: bool,
    /// What the one message of a unary answer is.
    codec: Codec,
    /// How a stream is to be framed.
    framing: Streaming,
    /// Whether the client takes gzip.
    gzip: bool,
    /// How trailers reach the client.
    trailers: Trailers,
}

/// How trailers reach the client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trailers {
    /// HTTP/2 has them.
    Free,
    /// HTTP/1.1 with `TE: trailers`: the head must announce them.
    Announced,
    /// The client does not read them.
    None,
}

impl Asked {
    fn of(admitted: &Admitted) -> Self {
        let head = &admitted.head;
        Self {
            entry: Arc::clone(&admitted.entry),
            binding: admitted.binding,
            tally: Arc::clone(&admitted.tally),
            head: head.method == Method::HEAD,
            codec: codec(admitted.format, &admitted.entry, admitted.binding),
            framing: stream::negotiate(&head.headers.get_all(ACCEPT), admitted.entry.route.streaming),
            gzip: head.headers.get(ACCEPT_ENCODING).is_some_and(takes_gzip),
            trailers: trailers(head),
        }
    }
}

fn trailers(head: &Parts) -> Trailers {
    if head.version == Version::HTTP_2 {
        return Trailers::Free;
    }
    match head.headers.get(TE).and_then(|value| value.to_str().ok()) {
        Some(te)
            if te
                .split(',')
                .any(|part| part.trim().eq_ignore_ascii_case("trailers")) =>
        {
            Trailers::Announced
        }
        Some(_) | None => Trailers::None,
    }
}

/// How the one message of a unary call is encoded: the rpc path takes protobuf too, and answers with what it took.
fn codec(format: Format, entry: &Entry, binding: Option<u32>) -> Codec {
    match binding {
        None if entry.method.kind == MethodKind::Unary && matches!(entry.rpc.request, Form::Json(_)) => {
            format.codec
        }
        Some(_) | None => Codec::Json,
    }
}

/// Whether `Accept-Encoding` lists gzip with a weight above 0. Source: RFC 9110, section 12.5.3.
pub(super) fn takes_gzip(value: &HeaderValue) -> bool {
    value.to_str().unwrap_or_default().split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"))
            && parts
                .find_map(|part| part.strip_prefix("q="))
                .is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

fn refused(tally: &Tally, fault: &Fault) -> Response<Body> {
    tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    tracing::debug!(error = %fault, cause = ?std::error::Error::source(fault), "a REST call failed");
    let spoken = Spoken {
        dialect: Dialect::Rest,
        format: Format::JSON,
    };
    refuse::refuse(spoken, fault)
}

/// The same answer without its body; its length stays announced.
fn bodiless(response: Response<Body>) -> Response<Body> {
    response.map(|body| {
        drop(body);
        Body::empty()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_where_its_weight_is_not_zero() {
        for (value, takes) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("br", false),
            ("", false),
            ("gzip;q=x", false),
        ] {
            assert_eq!(takes_gzip(&HeaderValue::from_static(value)), takes, "{value}");
        }
    }
}
