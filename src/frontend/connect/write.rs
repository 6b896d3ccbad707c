//! A reply to a unary call becomes an HTTP response.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};

use super::{Asked, content_type, error};
use crate::call::Reply;
use crate::fault::Fault;
use crate::frontend::rest::{JSON, add_metadata, not_json, only, whole};
use crate::status::Code;
use crate::translate::End;
use crate::translate::tally::Outcome;
use crate::wire::Codec;
use crate::wire::body::Body;

/// The response that a reply becomes.
pub(super) async fn write(reply: Reply, asked: &Asked) -> Result<Response<Body>, Fault> {
    let Reply {
        metadata,
        mut messages,
    } = reply;
    let (message, end) = only(&mut messages).await?;
    let Some(message) = message else {
        return Ok(failed(metadata, end, asked));
    };
    let content_type = HeaderValue::from_static(content_type(asked.format));
    let mut response = whole(encode(message, asked)?, content_type, asked.gzip)?;
    asked.tally.end(Outcome::Upstream(Code::Ok));
    add_metadata(response.headers_mut(), metadata, end.metadata);
    Ok(response)
}

/// A message in the client's codec.
pub(super) fn encode(message: Bytes, asked: &Asked) -> Result<Bytes, Fault> {
    match asked.format.codec {
        Codec::Proto => Ok(message),
        Codec::Json => {
            let mut text = BytesMut::with_capacity(message.len() * 2 + 64);
            let limit = asked.entry.route.bounds.max_message_bytes.saturating_mul(8);
            asked
                .entry
                .json
                .write(asked.entry.rpc.binding.response, None, &message, &mut text, limit)
                .map_err(|error| not_json(&error))?;
            Ok(text.freeze())
        }
    }
}

/// The response to a call that failed.
fn failed(metadata: HeaderMap, end: End, asked: &Asked) -> Response<Body> {
    asked.tally.end(Outcome::Upstream(end.status.code));
    let text = error::json(&end.status, Some(&asked.entry.json)).text();
    let mut response = Response::new(Body::whole(text.into()));
    *response.status_mut() = end.status.code.http_status();
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    add_metadata(response.headers_mut(), metadata, end.metadata);
    response
}
