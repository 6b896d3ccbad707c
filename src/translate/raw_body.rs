//! `google.api.HttpBody`: raw bytes with a content type, as a message or as a field of one.

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderValue;
use prost::Message as _;
use prost::encoding::encode_varint;

/// The full name of the type.
pub const NAME: &str = "google.api.HttpBody";

/// `google.api.HttpBody`, less its extensions.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpBody {
    /// The content type of the data.
    #[prost(string, tag = "1")]
    pub content_type: String,
    /// The data.
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
}

/// Appends the wire form of a body: the message itself, or the field of this number.
pub fn encode(field: Option<u32>, content_type: Option<&HeaderValue>, data: &Bytes, message: &mut BytesMut) {
    let body = HttpBody {
        content_type: content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        data: data.clone(),
    };
    if let Some(number) = field {
        encode_varint(u64::from(number) << 3 | 2, message);
        encode_varint(body.encoded_len() as u64, message);
    }
    message.reserve(body.encoded_len());
    message.put(body.encode_to_vec().as_slice());
}

/// The body in a message: the message itself, or its field of this number.
///
/// # Errors
/// [`prost::DecodeError`] for bytes that are no such message.
pub fn decode(field: Option<u32>, message: Bytes) -> Result<HttpBody, prost::DecodeError> {
    let Some(number) = field else {
        return HttpBody::decode(message);
    };
    let mut body = HttpBody::default();
    let mut rest = message;
    while !rest.is_empty() {
        let (tag, wire_type) = prost::encoding::decode_key(&mut rest)?;
        if tag == number {
            prost::encoding::message::merge(
                wire_type,
                &mut body,
                &mut rest,
                prost::encoding::DecodeContext::default(),
            )?;
        } else {
            prost::encoding::skip_field(
                wire_type,
                tag,
                &mut rest,
                prost::encoding::DecodeContext::default(),
            )?;
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_survives_as_a_message_and_as_a_field() {
        let data = Bytes::from_static(b"\x89PNG");
        let content_type = HeaderValue::from_static("image/png");
        for field in [None, Some(3), Some(3000)] {
            let mut message = BytesMut::new();
            if field.is_some() {
                // Field 1, a string: what else the message holds is passed over.
                message.extend_from_slice(b"\x0a\x02id");
            }
            encode(field, Some(&content_type), &data, &mut message);
            let body = decode(field, message.freeze()).unwrap();
            assert_eq!(
                (body.content_type.as_str(), body.data),
                ("image/png", data.clone())
            );
        }
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(decode(Some(3), Bytes::from_static(b"\x1a\xff")).is_err());
        assert!(decode(None, Bytes::from_static(b"\x12\x09x")).is_err());
    }
}
