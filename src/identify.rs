//! Which dialect a request speaks and what its bodies are, told by its head alone.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::request::Parts;

use crate::wire::{Dialect, Format, Spoken};

/// The dialect and format of a request.
///
/// By content type, before routing: `application/grpc`, alone or with a `+codec`, is gRPC, `application/grpc-web` and
/// `application/grpc-web-text` are gRPC-Web; everything else is HTTP.
pub fn identify(head: &Parts) -> Spoken {
    let (dialect, format) = match head.headers.get(CONTENT_TYPE) {
        Some(value) if is(value, "application/grpc") => (Dialect::Grpc, Format::GRPC),
        Some(value) if is(value, "application/grpc-web") => (Dialect::GrpcWeb, Format::GRPC_WEB),
        Some(value) if is(value, "application/grpc-web-text") => (Dialect::GrpcWeb, Format::GRPC_WEB_TEXT),
        Some(_) | None => (Dialect::Rest, Format::JSON),
    };
    Spoken { dialect, format }
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
}
