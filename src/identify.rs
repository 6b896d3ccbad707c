//! Which dialect a request speaks, told by its head alone.

use http::header::CONTENT_TYPE;
use http::request::Parts;

use crate::wire::Dialect;
use crate::wire::websocket::handshake;

/// The dialect of a request.
///
/// A WebSocket handshake is one whatever its content type. Otherwise the content type decides, before routing:
/// `application/grpc`, alone or with a `+codec`, is gRPC; everything else is HTTP.
pub fn identify(head: &Parts) -> Dialect {
    if handshake::asks(head) {
        return Dialect::WebSocket;
    }
    match head.headers.get(CONTENT_TYPE) {
        Some(value) if is_grpc(value.as_bytes()) => Dialect::Grpc,
        Some(_) | None => Dialect::Rest,
    }
}

/// `application/grpc`, then nothing, a `+codec` or parameters; not `application/grpc-web`.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
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
            (Some("application/grpc-web"), Dialect::Rest),
            (Some("application/grpcx"), Dialect::Rest),
        ] {
            let mut request = http::Request::post("/a.B/C");
            if let Some(content_type) = content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            assert_eq!(identify(&head), dialect, "{content_type:?}");
        }
    }
}
