//! A reply becomes a REST response: one JSON text, raw bytes, or a stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use http::{HeaderMap, Response};
use tokio::time::timeout;

use crate::call::{Reply, metadata};
use crate::fault::{Fault, Kind};
use crate::frontend::rest::{Asked, error, stream};
use crate::route::entry::Form;
use crate::status::{Code, Status};
use crate::translate::json::{Target, WireError, WireReason};
use crate::translate::tally::Outcome;
use crate::translate::{End, Messages, Part, raw_body};
use crate::wire::Codec;
use crate::wire::body::Body;
use crate::wire::compression;

/// How long the head of a stream waits for the first message: an error that comes first can then be an HTTP status,
/// and a watch that stays silent still gets its head.
const FIRST_WORD: Duration = Duration::from_millis(200);

/// Below this many bytes, gzip costs more than it saves.
const WORTH_COMPRESSING: usize = 1024;

/// The response that a reply becomes.
pub(super) async fn write(reply: Reply, asked: &Asked) -> Result<Response<Body>, Fault> {
    let Reply {
        metadata,
        mut messages,
    } = reply;
    if asked.entry.method.kind.server_streams() {
        return streamed(metadata, messages, asked).await;
    }
    let (message, end) = only(&mut messages).await?;
    let Some(message) = message else {
        return Ok(failed(metadata, end, asked));
    };
    let mut response = match asked.entry.bound(asked.binding).response {
        Form::Raw(field) => raw(field, message)?,
        Form::Json(_) if asked.codec == Codec::Proto => {
            whole(message, HeaderValue::from_static("application/proto"), asked.gzip)?
        }
        Form::Json(target) => text(target, &message, asked)?,
        Form::None => Response::new(Body::empty()),
    };
    asked.tally.end(Outcome::Upstream(Code::Ok));
    add_metadata(response.headers_mut(), metadata, end.metadata);
    Ok(response)
}

/// The one message of a unary reply and its end; no message when the call failed.
pub(in crate::frontend) async fn only(messages: &mut Messages) -> Result<(Option<Bytes>, End), Fault> {
    let mut only: Option<Bytes> = None;
    loop {
        match messages.next().await? {
            Some(Part::Message(message)) if only.is_none() => only = Some(message),
            Some(Part::Message(_)) => return Err(miscounted("more than one message")),
            Some(Part::End(end)) if end.status.code != Code::Ok => return Ok((None, end)),
            Some(Part::End(end)) if only.is_some() => return Ok((only, end)),
            Some(Part::End(_)) => return Err(miscounted("no message")),
            None => return Err(crate::translate::messages::no_status()),
        }
    }
}

fn miscounted(what: &str) -> Fault {
    Fault::upstream(
        Kind::UpstreamProtocol,
        format!("the upstream answered a unary call with {what}"),
    )
}

/// The response to a call that failed before it sent anything.
pub(super) fn failed(metadata: HeaderMap, end: End, asked: &Asked) -> Response<Body> {
    asked.tally.end(Outcome::Upstream(end.status.code));
    let mut response = status_response(&end.status, asked);
    add_metadata(response.headers_mut(), metadata, end.metadata);
    response
}

fn status_response(status: &Status, asked: &Asked) -> Response<Body> {
    let text = error::json(status, &asked.entry.json).text();
    let mut response = Response::new(Body::whole(text.into()));
    *response.status_mut() = status.code.http_status();
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// `application/json`.
pub(in crate::frontend) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The JSON of a message, compressed where the client takes it and it pays.
fn text(target: Target, message: &[u8], asked: &Asked) -> Result<Response<Body>, Fault> {
    let mut text = BytesMut::with_capacity(message.len() * 2 + 64);
    asked
        .entry
        .json
        .write(
            target,
            None,
            message,
            &mut text,
            asked.entry.route.bounds.max_message_bytes.saturating_mul(8),
        )
        .map_err(|error| not_json(&error))?;
    whole(text.freeze(), JSON, asked.gzip)
}

/// A whole answer, compressed where the client takes it and it pays.
pub(in crate::frontend) fn whole(
    body: Bytes,
    content_type: HeaderValue,
    takes_gzip: bool,
) -> Result<Response<Body>, Fault> {
    let varies = body.len() >= WORTH_COMPRESSING;
    let packed = pack(&body, takes_gzip)?;
    let is_packed = packed.is_some();
    let body = packed.unwrap_or(body);
    let length = body.len();
    let mut response = Response::new(Body::whole(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    if is_packed {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if varies {
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(response)
}

/// The same bytes in gzip, where the client takes it and it pays.
pub(in crate::frontend) fn pack(bytes: &[u8], takes_gzip: bool) -> Result<Option<Bytes>, Fault> {
    if !takes_gzip || bytes.len() < WORTH_COMPRESSING {
        return Ok(None);
    }
    compression::gzip(bytes).map(Some).map_err(|error| {
        Fault::gateway(Kind::Internal, "the answer could not be compressed").caused_by(error)
    })
}

/// A message that JSON can't express, as the upstream's fault.
pub(in crate::frontend) fn not_json(error: &WireError) -> Fault {
    let kind = match error.reason {
        WireReason::TooLarge { .. } => Kind::UpstreamMessageTooLarge,
        _ => Kind::UpstreamMessage,
    };
    Fault::upstream(kind, format!("in the upstream's answer, {error}"))
}

/// The raw bytes of an `HttpBody`.
fn raw(field: Option<u32>, message: Bytes) -> Result<Response<Body>, Fault> {
    let body = raw_body::decode(field, message).map_err(|error| {
        Fault::upstream(
            Kind::UpstreamMessage,
            "the upstream's answer is no google.api.HttpBody",
        )
        .caused_by(error)
    })?;
    let length = body.data.len();
    let mut response = Response::new(Body::whole(body.data));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, content_type(&body.content_type));
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// The content type that an `HttpBody` names; bytes without one are just bytes.
pub(super) fn content_type(named: &str) -> HeaderValue {
    HeaderValue::from_str(named)
        .ok()
        .filter(|value| !value.is_empty())
        .unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// Initial metadata becomes headers, trailing metadata headers with the prefix `trailer-`.
pub(in crate::frontend) fn add_metadata(
    headers: &mut HeaderMap,
    initial: HeaderMap,
    mut trailing: HeaderMap,
) {
    extend(headers, initial);
    metadata::from_upstream(&mut trailing);
    for (name, value) in &trailing {
        if let Ok(name) = HeaderName::try_from(format!("trailer-{name}")) {
            headers.append(name, value.clone());
        }
    }
}

/// Adds metadata to headers; what the gateway set itself stays.
pub(in crate::frontend) fn extend(headers: &mut HeaderMap, metadata: HeaderMap) {
    let mut last: Option<HeaderName> = None;
    for (name, value) in metadata {
        if name.is_some() {
            last = name;
        }
        if let Some(name) = &last
            && !matches!(*name, CONTENT_ENCODING | CONTENT_LENGTH | CONTENT_TYPE)
        {
            headers.append(name.clone(), value);
        }
    }
}

/// A stream: its head goes out with the first message, or once it is clear that there is none for now.
async fn streamed(
    metadata: HeaderMap,
    mut messages: Messages,
    asked: &Asked,
) -> Result<Response<Body>, Fault> {
    let first = match timeout(FIRST_WORD, messages.next()).await {
        Ok(Ok(Some(Part::End(end)))) if end.status.code != Code::Ok => {
            return Ok(failed(metadata, end, asked));
        }
        Ok(Ok(Some(part))) => Some(part),
        Ok(Ok(None)) => return Err(crate::translate::messages::no_status()),
        Ok(Err(fault)) => return Err(fault),
        Err(_elapsed) => None,
    };
    let mut response = stream::respond(first, messages, asked)?;
    extend(response.headers_mut(), metadata);
    Ok(response)
}

/// The stream's own part of what [`Asked`] holds.
pub(super) fn shared(asked: &Asked) -> (Arc<crate::route::Entry>, Arc<crate::translate::Tally>) {
    (Arc::clone(&asked.entry), Arc::clone(&asked.tally))
}
