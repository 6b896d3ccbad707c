//! Which dialect a request speaks and what its bodies are, told by its head alone.

use http::Method;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;

use crate::wire::connect::Query;
use crate::wire::websocket::handshake;
use crate::wire::{Dialect, Format, Spoken};

/// The dialect and format of a request, by content type and before routing.
///
/// `application/grpc`, alone or with a `+codec`, is gRPC, `application/grpc-web` and `application/grpc-web-text` are
/// gRPC-Web, `application/connect+codec` is a stream of Connect. Connect's unary calls are plain HTTP, so that the
/// version of its protocol tells them from REST: in a header of a POST, in the query of a GET. What is left is REST.
pub fn identify(head: &Parts) -> Spoken {
    if handshake::asks(head) {
        return Spoken {
            dialect: Dialect::WebSocket,
            format: handshake::format(&head.headers),
        };
    }
    let (dialect, format) = match head.headers.get(CONTENT_TYPE) {
        Some(value) if is(value, "application/grpc") => (Dialect::Grpc, Format::GRPC),
        Some(value) if is(value, "application/grpc-web") => (Dialect::GrpcWeb, Format::GRPC_WEB),
        Some(value) if is(value, "application/grpc-web-text") => (Dialect::GrpcWeb, Format::GRPC_WEB_TEXT),
        Some(value) if is(value, "application/connect+json") => (Dialect::Connect, Format::CONNECT_JSON),
        Some(value) if value.as_bytes().starts_with(b"application/connect+") => {
            (Dialect::Connect, Format::CONNECT_PROTO)
        }
        value => unary(head, value),
    };
    Spoken { dialect, format }
}

/// A body that is one message: Connect where the protocol's version is named, and REST elsewhere.
fn unary(head: &Parts, content_type: Option<&HeaderValue>) -> (Dialect, Format) {
    let is_proto = content_type.is_some_and(|value| is(value, "application/proto"));
    let query = query(head);
    let (dialect, is_proto) = match head.method {
        Method::POST if head.headers.contains_key("connect-protocol-version") => (Dialect::Connect, is_proto),
        Method::GET if query.version.is_some() => (Dialect::Connect, query.encoding == Some("proto")),
        _ => (Dialect::Rest, is_proto),
    };
    (dialect, if is_proto { Format::PROTO } else { Format::JSON })
}

fn query(head: &Parts) -> Query<'_> {
    head.uri.query().map(Query::parse).unwrap_or_default()
}

/// Whether a content type is this media type: alone, with a `+codec` or with parameters.
fn is(content_type: &HeaderValue, media_type: &str) -> bool {
    content_type
        .as_bytes()
        .strip_prefix(media_type.as_bytes())
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_content_type_decides() {
        for (content_type, dialect) in [
            (None, Dialect::Rest),
            (Some("application/json"), Dialect::Rest),
            (Some("application/grpc"), Dialect::Grpc),
            (Some("application/grpc+proto"), Dialect::Grpc),
            (Some("application/grpc;charset=utf-8"), Dialect::Grpc),
            (Some("application/grpc-web"), Dialect::GrpcWeb),
            (Some("application/grpc-web+proto"), Dialect::GrpcWeb),
            (Some("application/grpc-web-text"), Dialect::GrpcWeb),
            (Some("application/grpc-web-text+proto"), Dialect::GrpcWeb),
            (Some("application/grpc-webx"), Dialect::Rest),
            (Some("application/grpcx"), Dialect::Rest),
        ] {
            let mut request = http::Request::post("/a.B/C");
            if let Some(content_type) = content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(identify(&head).dialect, dialect, "{content_type:?}");
        }
    }

    #[test]
    fn rule_44_a_unary_call_of_connect_names_its_version() {
        type Row<'a> = (Method, &'a str, &'a [(&'a str, &'a str)], Dialect, Format);
        let table: &[Row<'_>] = &[
            (
                Method::POST,
                "/a.B/C",
                &[("content-type", "application/json")],
                Dialect::Rest,
                Format::JSON,
            ),
            (
                Method::POST,
                "/a.B/C",
                &[("content-type", "application/proto")],
                Dialect::Rest,
                Format::PROTO,
            ),
            (
                Method::POST,
                "/a.B/C",
                &[
                    ("content-type", "application/json"),
                    ("connect-protocol-version", "1"),
                ],
                Dialect::Connect,
                Format::JSON,
            ),
            (
                Method::POST,
                "/a.B/C",
                &[
                    ("content-type", "application/proto"),
                    ("connect-protocol-version", "1"),
                ],
                Dialect::Connect,
                Format::PROTO,
            ),
            (
                Method::POST,
                "/a.B/C",
                &[("content-type", "application/connect+json")],
                Dialect::Connect,
                Format::CONNECT_JSON,
            ),
            (
                Method::POST,
                "/a.B/C",
                &[("content-type", "application/connect+proto")],
                Dialect::Connect,
                Format::CONNECT_PROTO,
            ),
            (
                Method::GET,
                "/a.B/C?connect=v1&encoding=proto&message=",
                &[],
                Dialect::Connect,
                Format::PROTO,
            ),
            (
                Method::GET,
                "/a.B/C?encoding=json&message=%7B%7D&connect=v1",
                &[],
                Dialect::Connect,
                Format::JSON,
            ),
            (
                Method::GET,
                "/v1/books?encoding=proto",
                &[],
                Dialect::Rest,
                Format::JSON,
            ),
            (
                Method::DELETE,
                "/v1/books?connect=v1",
                &[("connect-protocol-version", "1")],
                Dialect::Rest,
                Format::JSON,
            ),
        ];
        for (method, uri, headers, dialect, format) in table {
            let mut request = http::Request::builder().method(method).uri(*uri);
            for (name, value) in *headers {
                request = request.header(*name, *value);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            let expected = Spoken {
                dialect: *dialect,
                format: *format,
            };
            assert_eq!(identify(&head), expected, "{method} {uri} {headers:?}");
        }
    }
}
