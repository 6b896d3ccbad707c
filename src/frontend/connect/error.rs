//! A status in Connect's JSON: as the body of a unary answer, and in the last message of a stream.

use bytes::Bytes;
use http::HeaderMap;
use prost::Message as _;
use serde::Serialize;
use serde_json::Value;

use crate::call::metadata;
use crate::frontend::rest::fields;
use crate::status::{Code, Status};
use crate::translate::json::Transcoder;
use crate::wire::{base64, connect, envelope};

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// An error of a call, members in the order of the protocol's reference.
#[derive(Debug, Serialize)]
pub(in crate::frontend) struct ErrorJson {
    code: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Detail>,
}

impl ErrorJson {
    /// The JSON text.
    pub(in crate::frontend) fn text(&self) -> String {
        // Strings and JSON values always have a text; were it not so, the HTTP status still tells.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// One detail of an error.
#[derive(Debug, Serialize)]
struct Detail {
    /// The full name of its message type.
    r#type: String,
    /// The message in base64 without padding.
    value: String,
    /// The message as people read it, where its type is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    debug: Option<Value>,
}

/// The JSON of a status. Details whose type `transcoder` knows are spelt out beside their bytes.
pub(in crate::frontend) fn json(status: &Status, transcoder: Option<&Transcoder>) -> ErrorJson {
    let details = RpcStatus::decode(status.details.clone())
        .map(|status| status.details)
        .unwrap_or_default();
    let details = details
        .into_iter()
        .map(|detail| Detail {
            r#type: name(&detail).to_owned(),
            value: base64::encode(&detail.value),
            debug: transcoder.and_then(|transcoder| fields(&detail, transcoder)),
        })
        .collect();
    ErrorJson {
        code: connect::code_name(status.code),
        message: status.message.clone(),
        details,
    }
}

fn name(detail: &prost_types::Any) -> &str {
    detail.type_url.rsplit('/').next().unwrap_or_default()
}

/// The message that ends a stream, in its envelope.
pub(in crate::frontend) fn end_frame(
    status: &Status,
    mut trailers: HeaderMap,
    transcoder: Option<&Transcoder>,
) -> Bytes {
    metadata::from_upstream(&mut trailers);
    let error = (status.code != Code::Ok).then(|| json(status, transcoder));
    let text = connect::end_of_stream(error.as_ref(), &trailers);
    // Trailers are bounded far below what an envelope holds.
    envelope::flagged(connect::END_STREAM, text.as_bytes()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, Kind};

    #[test]
    fn a_fault_has_its_reason_in_the_details() {
        let fault = Fault::client(Kind::InvalidArgument, "field title: not a string");
        let error: Value = serde_json::from_str(&json(&Status::from(&fault), None).text()).unwrap();
        assert_eq!(error["code"], "invalid_argument");
        assert_eq!(error["message"], "field title: not a string");
        assert_eq!(error["details"][0]["type"], "google.rpc.ErrorInfo");
        let value = error["details"][0]["value"].as_str().unwrap();
        assert!(!value.ends_with('='), "{value}");
        let info = base64::decode(value.as_bytes()).unwrap();
        assert!(String::from_utf8_lossy(&info).contains("INVALID_ARGUMENT"));
    }

    #[test]
    fn what_is_empty_is_left_out() {
        let status = Status::new(Code::Aborted, "");
        assert_eq!(json(&status, None).text(), r#"{"code":"aborted"}"#);
    }

    #[test]
    fn a_stream_that_succeeds_ends_in_an_empty_object() {
        let frame = end_frame(&Status::OK, HeaderMap::new(), None);
        assert_eq!(frame, &b"\x02\0\0\0\x02{}"[..]);
    }
}
