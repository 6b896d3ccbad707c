//! Answers that are written without a call: to a connection that is not taken, and to a head that can't be read.

use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Response, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::fault::{Fault, Kind};
use crate::http2::{self, PREFACE};
use crate::listen::Refuse;
use crate::listen::link::LINGER;
use crate::listen::stream::Stream;
use crate::wire::body::Body;

/// How long a client that is refused may take to say which protocol it speaks.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// A fatal `internal_error` alert, which may come in the place of a handshake. Source: RFC 8446, section 6.
const TLS_ALERT: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// The bytes of an HTTP/1.1 answer that closes the connection.
pub(crate) fn http1(response: Response<Body>) -> Vec<u8> {
    let (parts, body) = response.into_parts();
    // Refusals are known whole; a stream would need the machinery that is missing here.
    let body = body.as_whole().unwrap_or_default();
    let reason = parts.status.canonical_reason().unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", parts.status.as_str()).into_bytes();
    for (name, value) in &parts.headers {
        if [CONTENT_LENGTH, CONNECTION, TRANSFER_ENCODING].contains(name) {
            continue;
        }
        out.extend_from_slice(name.as_ref());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(&body);
    out
}

/// The head of a request that is not known, for rendering a refusal of it.
pub(crate) fn unknown_head(version: Version) -> Parts {
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.version = version;
    parts
}

/// Renders `fault` for a client of HTTP/1.1 whose head can't be read.
pub(crate) fn refusal(refuse: Refuse, fault: &Fault) -> Vec<u8> {
    http1(refuse(&unknown_head(Version::HTTP_11), fault))
}

/// Tells a client that there is no room for its connection, in the protocol that it opens with.
///
/// # Cancel safety
/// The connection is closed without the rest of the answer.
pub(crate) async fn no_room(mut stream: Stream, tls: bool, refuse: Refuse) {
    let answer = if tls {
        TLS_ALERT.to_vec()
    } else {
        let mut first = [0; PREFACE.len()];
        let read = tokio::time::timeout(FIRST_WORD, stream.read(&mut first)).await;
        match read {
            Ok(Ok(length)) if length > 2 && PREFACE.starts_with(&first[..length]) => http2::farewell(),
            _ => refusal(
                refuse,
                &Fault::gateway(Kind::Overloaded, "the gateway has no room for more connections")
                    .retry_after(Duration::from_secs(1)),
            ),
        }
    };
    say(stream, &answer).await;
}

/// Writes the last bytes of a connection and closes it, so that the client can read them.
///
/// # Cancel safety
/// The connection is closed without the rest.
pub(crate) async fn say(mut stream: Stream, bytes: &[u8]) {
    let farewell = async {
        stream.write_all(bytes).await?;
        stream.shutdown().await?;
        // On the heap, so that every connection does not have room for it all its life.
        let mut scratch = vec![0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        std::io::Result::Ok(())
    };
    match tokio::time::timeout(LINGER, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the client did not wait for its answer"),
        Err(_) => tracing::debug!("the client did not close its side"),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use super::*;

    #[test]
    fn an_answer_is_framed_by_its_length_and_closes() {
        let mut response = Response::new(Body::whole("no".into()));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
            .headers_mut()
            .insert("retry-after", HeaderValue::from_static("1"));
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        let text = String::from_utf8(http1(response)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
             content-length: 2\r\n\r\nno"
        );
    }
}
