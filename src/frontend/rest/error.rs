//! A status that an upstream sent, as `google.rpc.Status` in JSON.

use base64_simd::STANDARD;
use bytes::{Bytes, BytesMut};
use prost::Message as _;
use serde_json::{Map, Value, json};

use crate::frontend::refuse::StatusJson;
use crate::status::Status;
use crate::translate::json::{Target, Transcoder};

/// More than a status may take in trailers anyway.
const DETAILS_LIMIT: usize = 1 << 20;

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// The JSON of a status. Details whose type the schema knows are spelt out, others keep their bytes in base64.
pub(in crate::frontend) fn json(status: &Status, transcoder: &Transcoder) -> StatusJson {
    let details = RpcStatus::decode(status.details.clone())
        .map(|status| status.details)
        .unwrap_or_default();
    let details: Vec<Value> = details
        .into_iter()
        .map(|detail| spell_out(&detail, transcoder))
        .collect();
    StatusJson {
        code: status.code.number(),
        message: status.message.clone(),
        details,
    }
}

fn spell_out(detail: &prost_types::Any, transcoder: &Transcoder) -> Value {
    known(detail, transcoder).unwrap_or_else(|| {
        json!({
            "@type": detail.type_url,
            "value": STANDARD.encode_to_string(&detail.value),
        })
    })
}

/// The detail by its descriptor; `None` when the schema has none for it, or the bytes don't fit it.
fn known(detail: &prost_types::Any, transcoder: &Transcoder) -> Option<Value> {
    let mut object = Map::new();
    object.insert("@type".to_owned(), json!(detail.type_url));
    match fields(detail, transcoder)? {
        Value::Object(fields) => object.extend(fields),
        // Well-known types with a JSON form of their own.
        value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            object.insert("value".to_owned(), value);
        }
    }
    Some(Value::Object(object))
}

/// The JSON of the message in a detail, without its type.
pub(in crate::frontend) fn fields(detail: &prost_types::Any, transcoder: &Transcoder) -> Option<Value> {
    let name = detail.type_url.rsplit('/').next()?;
    let message = transcoder.message(name)?;
    let mut text = BytesMut::new();
    let wire = Bytes::from(detail.value.clone());
    transcoder
        .write(Target::Message(message), None, &wire, &mut text, DETAILS_LIMIT)
        .ok()?;
    serde_json::from_slice(&text).ok()
}
