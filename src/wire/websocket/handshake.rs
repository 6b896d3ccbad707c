//! The handshake as it is on the wire: what makes a request one, and what is missing from one that is not complete.
//!
//! Source: RFC 6455, section 4.2, and RFC 8441 for HTTP/2.

use std::hash::{BuildHasher as _, RandomState};

use http::header::InvalidHeaderValue;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Method, Response, StatusCode, Version};
use thiserror::Error;
use tungstenite::handshake::derive_accept_key;

use crate::fault::{Fault, Kind};
use crate::http2::Protocol;
use crate::wire::Format;

/// The version of the protocol, the only one there is.
pub const VERSION: HeaderValue = HeaderValue::from_static("13");

/// Headers of the handshake, none of which is for whoever answers the call.
pub const HEADERS: [HeaderName; 5] = [
    SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
];

/// Messages and control frames in JSON.
pub const SABIR_JSON: &str = "sabir.v1.json";
/// The same in protobuf.
pub const SABIR_PROTO: &str = "sabir.v1.proto";
/// gRPC-Web frames behind a lead byte.
pub const GRPC_WEBSOCKETS: &str = "grpc-websockets";

/// What the messages will be, by the first of the offered subprotocols that is known; JSON without one.
pub fn format(headers: &HeaderMap) -> Format {
    let known = subprotocols(headers).into_iter().find_map(|name| match name {
        SABIR_JSON => Some(Format::JSON),
        SABIR_PROTO | GRPC_WEBSOCKETS => Some(Format::PROTO),
        _ => None,
    });
    known.unwrap_or(Format::JSON)
}

/// How a connection becomes a WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// `Upgrade` in HTTP/1.1, with the `Sec-WebSocket-Accept` of the answer.
    Upgrade(HeaderValue),
    /// Extended CONNECT in HTTP/2.
    Connect,
}

/// Why a handshake is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    /// `Connection` does not name `Upgrade`.
    #[error("header connection: a WebSocket handshake says \"Upgrade\" here")]
    Connection,
    /// Another version, or none.
    #[error("header sec-websocket-version: 13 is the only version that is spoken")]
    Version,
    /// No key, more than one, or one that is not 16 bytes in base64.
    #[error("header sec-websocket-key: 16 bytes in base64 are expected, once")]
    Key,
}

impl From<HandshakeError> for Fault {
    fn from(error: HandshakeError) -> Self {
        let kind = match error {
            HandshakeError::Version => Kind::WebSocketVersion,
            HandshakeError::Connection | HandshakeError::Key => Kind::BadRequest,
        };
        Self::client(kind, error.to_string())
    }
}

/// Whether a request asks for a WebSocket: an `Upgrade` to it by GET in HTTP/1.1, or an extended CONNECT in HTTP/2.
pub fn asks(head: &Parts) -> bool {
    if head.version == Version::HTTP_2 {
        return is_extended_connect(head);
    }
    head.version == Version::HTTP_11
        && head.method == Method::GET
        && head.headers.contains_key(UPGRADE)
        && names(&head.headers, &UPGRADE, "websocket")
}

/// Whether a request is an extended CONNECT to a WebSocket.
pub fn is_extended_connect(head: &Parts) -> bool {
    head.method == Method::CONNECT
        && head
            .extensions
            .get::<Protocol>()
            .is_some_and(|protocol| protocol.as_bytes() == b"websocket")
}

/// Whether one of a header's comma-separated words is `word`, in any case.
fn names(headers: &HeaderMap, header: &HeaderName, word: &str) -> bool {
    headers
        .get_all(header)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|named| named.trim().eq_ignore_ascii_case(word))
}

/// Checks a request that asks for a WebSocket.
///
/// # Errors
/// [`HandshakeError`]: what is missing.
pub fn check(head: &Parts) -> Result<Opening, HandshakeError> {
    let mut versions = head.headers.get_all(SEC_WEBSOCKET_VERSION).iter();
    if versions.next() != Some(&VERSION) || versions.next().is_some() {
        return Err(HandshakeError::Version);
    }
    if head.method == Method::CONNECT {
        return Ok(Opening::Connect);
    }
    if !names(&head.headers, &CONNECTION, "upgrade") {
        return Err(HandshakeError::Connection);
    }
    let mut keys = head.headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().ok_or(HandshakeError::Key)?;
    let length = base64_simd::STANDARD
        .decode_to_vec(key.as_bytes())
        .map(|key| key.len());
    if keys.next().is_some() || length.ok() != Some(16) {
        return Err(HandshakeError::Key);
    }
    let accept = derive_accept_key(key.as_bytes());
    HeaderValue::try_from(accept)
        .map(Opening::Upgrade)
        .map_err(|_| HandshakeError::Key)
}

/// The subprotocols that a client offers, in its order.
pub fn subprotocols(headers: &HeaderMap) -> Vec<&str> {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect()
}

/// The answer that opens the WebSocket: 101, or 200 to a CONNECT.
pub fn accept<B>(opening: Opening, body: B) -> Response<B> {
    let mut response = Response::new(body);
    if let Opening::Upgrade(accept) = opening {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// A question for a WebSocket, and the answer that it has to have.
#[derive(Clone, Debug)]
pub struct Question {
    key: HeaderValue,
    accept: HeaderValue,
}

impl Question {
    /// A question with a key of its own.
    ///
    /// # Errors
    /// None in practice: base64 is always a header value.
    pub fn new() -> Result<Self, InvalidHeaderValue> {
        let keys = RandomState::new();
        let halves = [keys.hash_one(0).to_le_bytes(), keys.hash_one(1).to_le_bytes()];
        let key = base64_simd::STANDARD.encode_to_string(halves.concat());
        Ok(Self {
            accept: HeaderValue::try_from(derive_accept_key(key.as_bytes()))?,
            key: HeaderValue::try_from(key)?,
        })
    }

    /// Puts the question into the headers of a GET in HTTP/1.1.
    pub fn put(&self, headers: &mut HeaderMap) {
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
        headers.insert(SEC_WEBSOCKET_KEY, self.key.clone());
    }

    /// Whether a 101 answers this question: the protocol and the key are the ones that were asked for, no extension is
    /// agreed on, since none was offered, and the subprotocol is one of those that were.
    pub fn is_answered(&self, headers: &HeaderMap, offered: &[&str]) -> bool {
        let chosen = subprotocols(headers);
        names(headers, &UPGRADE, "websocket")
            && names(headers, &CONNECTION, "upgrade")
            && headers.get(SEC_WEBSOCKET_ACCEPT) == Some(&self.accept)
            && !headers.contains_key(SEC_WEBSOCKET_EXTENSIONS)
            && chosen.len() <= 1
            && chosen.iter().all(|name| offered.contains(name))
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn head(version: Version, lines: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/x").version(version);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_example_of_rfc_6455_is_accepted() {
        let head = head(
            Version::HTTP_11,
            &[
                ("upgrade", "WebSocket"),
                ("connection", "keep-alive, Upgrade"),
                ("sec-websocket-key", KEY),
                ("sec-websocket-version", "13"),
            ],
        );
        assert!(asks(&head));
        let opening = check(&head).unwrap();
        assert_eq!(
            opening,
            Opening::Upgrade(HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
        );
        let response = accept(opening, ());
        assert_eq!(response.status(), 101);
    }

    #[test]
    fn what_is_missing_is_said() {
        let whole = [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-key", KEY),
            ("sec-websocket-version", "13"),
        ];
        let table: &[(&str, Option<&str>, HandshakeError)] = &[
            ("connection", None, HandshakeError::Connection),
            ("connection", Some("close"), HandshakeError::Connection),
            ("sec-websocket-key", None, HandshakeError::Key),
            ("sec-websocket-key", Some("c2hvcnQ="), HandshakeError::Key),
            ("sec-websocket-key", Some("!"), HandshakeError::Key),
            ("sec-websocket-version", None, HandshakeError::Version),
            ("sec-websocket-version", Some("8"), HandshakeError::Version),
            ("sec-websocket-version", Some("13, 8"), HandshakeError::Version),
        ];
        for (name, value, error) in table {
            let lines: Vec<_> = whole
                .iter()
                .filter(|(line, _)| line != name)
                .copied()
                .chain(value.map(|value| (*name, value)))
                .collect();
            assert_eq!(
                check(&head(Version::HTTP_11, &lines)),
                Err(*error),
                "{name}: {value:?}"
            );
        }
    }

    #[test]
    fn an_answer_fits_its_question() {
        let question = Question::new().unwrap();
        let mut asked = head(Version::HTTP_11, &[]);
        question.put(&mut asked.headers);
        let Opening::Upgrade(value) = check(&asked).unwrap() else {
            panic!("no upgrade");
        };
        let good = accept(Opening::Upgrade(value), ()).into_parts().0.headers;
        assert!(question.is_answered(&good, &[]));
        assert!(!Question::new().unwrap().is_answered(&good, &[]), "another key");
        for (name, value, offered, fits) in [
            (SEC_WEBSOCKET_PROTOCOL, "b", &["a", "b"][..], true),
            (SEC_WEBSOCKET_PROTOCOL, "c", &["a", "b"], false),
            (SEC_WEBSOCKET_EXTENSIONS, "permessage-deflate", &[], false),
            (UPGRADE, "h2c", &[], false),
            (CONNECTION, "close", &[], false),
        ] {
            let mut headers = good.clone();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(question.is_answered(&headers, offered), fits, "{value}");
        }
    }

    #[test]
    fn only_a_get_of_http_1_1_asks_by_upgrade() {
        assert!(!asks(&head(Version::HTTP_10, &[("upgrade", "websocket")])));
        assert!(!asks(&head(Version::HTTP_11, &[("upgrade", "h2c")])));
        assert!(!asks(&head(Version::HTTP_2, &[("upgrade", "websocket")])));
        let mut post = head(Version::HTTP_11, &[("upgrade", "websocket")]);
        post.method = Method::POST;
        assert!(!asks(&post));
    }
}
