//! Connect: names of codes, the last message of a stream, the parameters of a GET request.
//!
//! Source: Connect protocol reference.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::HeaderMap;
use serde::Serialize;
use thiserror::Error;

use crate::status::Code;
use crate::wire::url;

/// The flag of the message that ends a stream.
pub const END_STREAM: u8 = 2;

/// The one version of the protocol, as a header has it.
pub const VERSION: &str = "1";

/// The name of a code. A call that succeeds has none on the wire; `ok` is for completeness.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "canceled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

/// The message that ends a stream.
#[derive(Serialize)]
struct End<'a, E> {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a E>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<&'a str, Vec<Cow<'a, str>>>,
}

/// The JSON of the message that ends a stream: the error, if there was one, and the trailing metadata.
pub fn end_of_stream(error: Option<&impl Serialize>, trailers: &HeaderMap) -> String {
    let mut metadata: BTreeMap<&str, Vec<Cow<'_, str>>> = BTreeMap::new();
    for (name, value) in trailers {
        let values = metadata.entry(name.as_str()).or_default();
        values.push(String::from_utf8_lossy(value.as_bytes()));
    }
    // An error that has a JSON form has one here too; without it the stream ends well, which would be a lie.
    serde_json::to_string(&End { error, metadata })
        .unwrap_or_else(|_| r#"{"error":{"code":"internal"}}"#.to_owned())
}

/// Why the message of a GET request could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// There is no message.
    #[error("parameter message: it is missing; an empty message is written message=")]
    NoMessage,
    /// `%` without two hexadecimal digits.
    #[error("parameter message: a `%` is not followed by two hexadecimal digits")]
    Escape,
    /// It is not URL-safe base64, though `base64=1` says so.
    #[error("parameter message: it is not URL-safe base64, as base64=1 says")]
    NotBase64,
}

/// The parameters of a GET request. Of one that is given twice the first counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query<'a> {
    /// `connect`: the version, `v1`.
    pub version: Option<&'a str>,
    /// `encoding`: `proto` or `json`.
    pub encoding: Option<&'a str>,
    /// `compression`: the content encoding of the message.
    pub compression: Option<&'a str>,
    is_base64: bool,
    /// As it is written in the URL.
    message: Option<&'a str>,
}

impl<'a> Query<'a> {
    /// Reads a query string; parameters that the protocol does not know are passed over.
    pub fn parse(query: &'a str) -> Self {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "connect" => &mut parsed.version,
                "encoding" => &mut parsed.encoding,
                "compression" => &mut parsed.compression,
                "message" => &mut parsed.message,
                "base64" => {
                    parsed.is_base64 |= value == "1";
                    continue;
                }
                _ => continue,
            };
            slot.get_or_insert(value);
        }
        parsed
    }

    /// The message, not decompressed.
    ///
    /// # Errors
    /// [`QueryError`].
    pub fn message(&self) -> Result<Vec<u8>, QueryError> {
        let written = self.message.ok_or(QueryError::NoMessage)?;
        let bytes = unescape(written.as_bytes()).ok_or(QueryError::Escape)?;
        if !self.is_base64 {
            return Ok(bytes);
        }
        let end = bytes
            .iter()
            .rposition(|byte| *byte != b'=')
            .map_or(0, |last| last.saturating_add(1));
        base64_simd::URL_SAFE_NO_PAD
            .decode_to_vec(bytes.get(..end).unwrap_or_default())
            .map_err(|_| QueryError::NotBase64)
    }
}

/// The bytes of a value in a query string, which need not be text.
fn unescape(raw: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut at: usize = 0;
    while let Some(byte) = raw.get(at) {
        let (byte, width) = match byte {
            b'%' => (url::escape(raw, at)?, 3),
            b'+' => (b' ', 1),
            byte => (*byte, 1),
        };
        bytes.push(byte);
        at = at.saturating_add(width);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn the_message_of_a_get_is_read_in_each_spelling() {
        let table: &[(&str, Result<&[u8], QueryError>)] = &[
            (
                "connect=v1&encoding=json&message=%7B%22a%22:1%7D",
                Ok(b"{\"a\":1}"),
            ),
            ("message=a+b%2Bc", Ok(b"a b+c")),
            ("message=%ff%00", Ok(b"\xff\0")),
            ("message=", Ok(b"")),
            ("message", Ok(b"")),
            ("base64=1&message=_wA", Ok(b"\xff\0")),
            ("message=_wA%3D&base64=1", Ok(b"\xff\0")),
            ("message=_wA=&base64=1", Ok(b"\xff\0")),
            ("base64=0&message=_wA", Ok(b"_wA")),
            ("message=1&message=2", Ok(b"1")),
            ("connect=v1", Err(QueryError::NoMessage)),
            ("message=%f", Err(QueryError::Escape)),
            ("base64=1&message=%21", Err(QueryError::NotBase64)),
            ("base64=1&message=A", Err(QueryError::NotBase64)),
        ];
        for (query, expected) in table {
            let got = Query::parse(query).message();
            assert_eq!(got.as_deref(), expected.as_ref().copied(), "{query}");
        }
    }

    #[test]
    fn a_stream_ends_in_json() {
        assert_eq!(end_of_stream(None::<&()>, &HeaderMap::new()), "{}");
        let mut trailers = HeaderMap::new();
        trailers.append(HeaderName::from_static("x-a"), HeaderValue::from_static("1"));
        trailers.append(HeaderName::from_static("x-a"), HeaderValue::from_static("2"));
        assert_eq!(
            end_of_stream(Some(&serde_json::json!({"code": "aborted"})), &trailers),
            r#"{"error":{"code":"aborted"},"metadata":{"x-a":["1","2"]}}"#
        );
    }

    #[test]
    fn codes_have_the_names_of_the_protocol() {
        for code in Code::ALL {
            let name = code.name().to_ascii_lowercase();
            // The protocol writes one of them as Americans do.
            assert_eq!(code_name(code), name.replace("cancelled", "canceled"));
        }
    }
}
