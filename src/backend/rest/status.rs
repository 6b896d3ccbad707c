//! What a REST backend means by an answer that is no success.

use base64_simd::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode};
use prost::Message as _;
use serde_json::Value;

use crate::route::entry::StatusTable;
use crate::status::{Code, Status};
use crate::translate::json::{Target, Transcoder};
use crate::translate::raw_body;

/// Bytes of a body that go into a detail. 2 KiB: with the rest of the trailers it fits into the 8 KiB that gRPC clients
/// take.
const MAX_DETAIL_BYTES: usize = 2 << 10;
/// Bytes of all details of a status.
const MAX_DETAILS_BYTES: usize = 64 << 10;

/// An answer that is no success.
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) location: Option<HeaderValue>,
    pub(super) content_type: Option<HeaderValue>,
    /// The beginning of its body.
    pub(super) body: Bytes,
}

/// The status of a call that was refused.
///
/// A body that is a `google.rpc.Status` in JSON says it itself; otherwise the HTTP status does, and the body is a detail.
pub(super) fn of(refusal: &Refusal, json: &Transcoder, table: StatusTable) -> Status {
    if let Some(status) = serde_json::from_slice(&refusal.body)
        .ok()
        .and_then(|value| read(&value, json))
    {
        return status;
    }
    let number = refusal.status.as_u16();
    let code = match table {
        StatusTable::Origin => Code::from_origin(refusal.status),
        StatusTable::Grpc => Code::from_http(refusal.status),
    };
    let message = match &refusal.location {
        Some(location) if refusal.status.is_redirection() => {
            format!(
                "the upstream answered with HTTP status {number} and sends to {location:?}, which is not followed"
            )
        }
        Some(_) | None => format!("the upstream answered with HTTP status {number}"),
    };
    if refusal.body.is_empty() {
        return Status::new(code, message);
    }
    let body = raw_body::HttpBody {
        content_type: refusal
            .content_type
            .as_ref()
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        data: refusal.body.slice(..refusal.body.len().min(MAX_DETAIL_BYTES)),
    };
    let detail = prost_types::Any {
        type_url: format!("type.googleapis.com/{}", raw_body::NAME),
        value: body.encode_to_vec(),
    };
    Status::with_details(code, message, vec![detail])
}

/// A `google.rpc.Status` in JSON, if it is one: a code from 1 to 16, a text, and details that name their types.
pub(super) fn read(value: &Value, json: &Transcoder) -> Option<Status> {
    let object = value.as_object()?;
    // Old versions of grpc-gateway tell an error within a stream by this name.
    let code = object.get("code").or_else(|| object.get("grpc_code"))?.as_i64()?;
    if !(1..=16).contains(&code) {
        return None;
    }
    let message = match object.get("message") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(_) => return None,
    };
    let details = match object.get("details") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(details)) => details,
        Some(_) => return None,
    };
    if !details
        .iter()
        .all(|detail| detail.get("@type").is_some_and(Value::is_string))
    {
        return None;
    }
    let code = Code::from_wire(code);
    // A detail that can't be read is left out: code and message still stand.
    let details: Vec<_> = details.iter().filter_map(|value| detail(value, json)).collect();
    Some(if details.is_empty() {
        Status::new(code, message)
    } else {
        Status::with_details(code, message, details)
    })
}

/// A detail by its descriptor, or as the bytes that an unknown one is given by.
fn detail(value: &Value, json: &Transcoder) -> Option<prost_types::Any> {
    let any = json.message("google.protobuf.Any")?;
    let mut wire = BytesMut::new();
    let text = value.to_string();
    match json.read(
        Target::Message(any),
        None,
        text.as_bytes(),
        &mut wire,
        MAX_DETAILS_BYTES,
    ) {
        Ok(()) => prost_types::Any::decode(wire.freeze()).ok(),
        Err(_) => Some(prost_types::Any {
            type_url: value.get("@type")?.as_str()?.to_owned(),
            value: STANDARD.decode_to_vec(value.get("value")?.as_str()?).ok()?,
        }),
    }
}

/// The error that a line or element of a stream is, if it is one: an object with the one member `error`.
pub(super) fn in_band(text: &[u8], json: &Transcoder) -> Option<Status> {
    let inside = text.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start();
    if !inside.starts_with(b"\"error\"") {
        return None;
    }
    let value: Value = serde_json::from_slice(text).ok()?;
    let object = value.as_object().filter(|object| object.len() == 1)?;
    read(object.get("error")?, json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Rules, Schema};
    use crate::translate::json::JsonOptions;

    fn transcoder() -> Transcoder {
        let schema = Schema::from_files(Vec::new(), &Rules::empty()).unwrap();
        Transcoder::compile(&schema, JsonOptions::default()).unwrap()
    }

    fn status(http: u16, body: &'static str) -> Status {
        let refusal = Refusal {
            status: StatusCode::from_u16(http).unwrap(),
            location: Some(HeaderValue::from_static("/elsewhere")),
            content_type: Some(HeaderValue::from_static("text/plain")),
            body: Bytes::from_static(body.as_bytes()),
        };
        of(&refusal, &transcoder(), StatusTable::Origin)
    }

    #[test]
    fn a_status_in_the_body_is_taken_if_its_shape_fits() {
        for (body, expected) in [
            (
                r#"{"code":5,"message":"no such book"}"#,
                Some((Code::NotFound, "no such book")),
            ),
            (r#"{"code":16}"#, Some((Code::Unauthenticated, ""))),
            (
                r#"{"code":8,"message":"m","details":[],"more":1}"#,
                Some((Code::ResourceExhausted, "m")),
            ),
            (r#"{"code":0,"message":"fine"}"#, None),
            (r#"{"code":17}"#, None),
            (r#"{"code":404,"message":"http"}"#, None),
            (r#"{"code":"5"}"#, None),
            (r#"{"code":5,"message":{}}"#, None),
            (r#"{"code":5,"details":[{"a":1}]}"#, None),
            (r#"{"error":{"code":5}}"#, None),
            ("<html>", None),
        ] {
            let got = status(409, body);
            match expected {
                Some((code, message)) => {
                    assert_eq!((got.code, got.message.as_str()), (code, message), "{body}")
                }
                None => assert_eq!(got.code, Code::Aborted, "{body}"),
            }
        }
    }

    #[test]
    fn details_are_kept_by_their_types_or_their_bytes() {
        let got = status(
            400,
            r#"{"code":3,"message":"m","details":[
                {"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"R","domain":"d"},
                {"@type":"type.googleapis.com/not.Known","value":"AQI="},
                {"@type":"type.googleapis.com/not.Known","field":1}]}"#,
        );
        let text = String::from_utf8_lossy(&got.details).into_owned();
        assert!(
            text.contains("google.rpc.ErrorInfo") && text.contains('R'),
            "{text}"
        );
        assert_eq!(text.matches("not.Known").count(), 1, "{text}");
    }

    #[test]
    fn what_is_no_status_is_told_by_the_http_status_with_the_body_as_a_detail() {
        let got = status(503, "come back later");
        assert_eq!(got.code, Code::Unavailable);
        let text = String::from_utf8_lossy(&got.details).into_owned();
        assert!(
            text.contains("google.api.HttpBody") && text.contains("come back later"),
            "{text}"
        );
        let empty = status(302, "");
        assert_eq!(empty.code, Code::Unknown);
        assert!(empty.message.contains("/elsewhere"), "{}", empty.message);
        assert!(empty.details.is_empty());
        let long = "x".repeat(9_000);
        assert!(status(500, long.leak()).details.len() < 3_000);
    }

    #[test]
    fn an_error_within_a_stream_is_an_object_with_that_one_member() {
        let json = transcoder();
        for (text, code) in [
            (r#"{"error":{"code":5,"message":"m"}}"#, Some(Code::NotFound)),
            (
                " { \"error\" : {\"grpc_code\":13,\"http_code\":500,\"message\":\"m\"}}",
                Some(Code::Internal),
            ),
            (r#"{"error":{"code":5},"more":1}"#, None),
            (r#"{"error":"text"}"#, None),
            (r#"{"title":"x"}"#, None),
        ] {
            let got = in_band(text.as_bytes(), &json).map(|status| status.code);
            assert_eq!(got, code, "{text}");
        }
    }
}
