//! gRPC-Web where its bytes are the contract; what calls say and hear is in the matrix.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use tokio::sync::Notify;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, raw};
use crate::support::clients::rest::{Answer, Rest, Version, collect, once, request, whole};
use crate::support::framing::{envelope, flagged};
use crate::support::gateway::{Gateway, Settings};

const GET_BOOK: &str = "/library.v1.Library/GetBook";
const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";

async fn call(gateway: &Gateway, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
    let request = Request::post(path).header("content-type", content_type);
    once(gateway.address, request.body(whole(body)).unwrap()).await
}

/// A backend that answers with the bytes that it was sent, and trailers.
async fn echo() -> Backend {
    raw(|request, mut answer| async move {
        assert_eq!(request.headers()["content-type"], "application/grpc");
        for name in ["x-grpc-web", "grpc-encoding", "content-length"] {
            assert!(!request.headers().contains_key(name), "{name}");
        }
        let mut body = request.into_body();
        let mut sending = answer.send_response(grpc_head(), false).unwrap();
        while let Some(data) = body.data().await {
            sending.send_data(data.unwrap(), false).unwrap();
        }
        let mut trailers = grpc_trailers("0");
        trailers.insert("x-last", "bye".parse().unwrap());
        sending.send_trailers(trailers).unwrap();
    })
    .await
}

/// A backend that is never called.
async fn untouched() -> Backend {
    raw(|_, _| async { panic!("nothing may arrive") }).await
}

/// Rule 45: the trailers are the last frame, with lower-case names.
#[tokio::test]
async fn a_binary_answer_is_the_relayed_bytes_and_a_trailer_frame() {
    let backend = echo().await;
    let gateway = Gateway::to(backend.address).await;
    let sent = envelope(b"\xff not a protobuf message");
    let answer = call(&gateway, GET_BOOK, BINARY, sent.clone()).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), BINARY);
    let (body, last) = answer.body.split_at(sent.len());
    assert_eq!(body, sent);
    let (prefix, text) = last.split_at(5);
    assert_eq!(prefix, [0x80, 0, 0, 0, u8::try_from(text.len()).unwrap()]);
    let mut lines: Vec<_> = std::str::from_utf8(text)
        .unwrap()
        .split_terminator("\r\n")
        .collect();
    lines.sort_unstable();
    assert_eq!(lines, ["grpc-status: 0", "x-last: bye"]);
}

/// Rule 45: padded chunks may be glued together, wherever they are cut.
#[tokio::test]
async fn glued_text_is_one_body() {
    let backend = echo().await;
    let gateway = Gateway::to(backend.address).await;
    // The envelope of `hello` in chunks of one, four, one and four bytes.
    let answer = call(&gateway, GET_BOOK, TEXT, "AA==AAAABQ==aA==ZWxsbw==").await;
    assert_eq!(answer.header("content-type"), TEXT);
    assert!(
        from_text(answer.text()).starts_with(&envelope(b"hello")),
        "{answer:?}"
    );
}

/// The bytes of base64 whose padded chunks are glued together.
fn from_text(text: &str) -> Vec<u8> {
    let groups = text.as_bytes().chunks(4);
    let decoded = groups.map(|group| base64_simd::STANDARD.decode_to_vec(group).unwrap());
    decoded.flatten().collect()
}

/// A reply of one message goes out whole, with its length, however the backend cuts it; a stream goes out as it comes.
#[tokio::test]
async fn a_reply_of_one_message_goes_out_whole() {
    let begun = Arc::new(Notify::new());
    let beginning = Arc::clone(&begun);
    let backend = raw(move |request: Request<h2::RecvStream>, mut answer| {
        let begun = Arc::clone(&beginning);
        async move {
            let is_stream = request.uri().path().ends_with("WatchBooks");
            let mut sending = answer.send_response(grpc_head(), false).unwrap();
            // The pause cuts the reply; were it too short, the gateway would find all of it at once, which is whole too.
            tokio::time::sleep(Duration::from_millis(50)).await;
            sending.send_data(envelope(b"a message"), false).unwrap();
            if is_stream {
                begun.notified().await;
            }
            sending.send_trailers(grpc_trailers("0")).unwrap();
        }
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    for (content_type, message) in [(BINARY, envelope(b"")), (TEXT, Bytes::from_static(b"AAAAAAA="))] {
        let answer = call(&gateway, GET_BOOK, content_type, message.clone()).await;
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());

        let mut client = Rest::connect(gateway.address, Version::Http1).await;
        let request = Request::post("/library.v1.Library/WatchBooks").header("content-type", content_type);
        let response = client.start(request.body(whole(message)).unwrap()).await.unwrap();
        assert!(!response.headers().contains_key("content-length"), "{response:?}");
        begun.notify_one();
        let stream = collect(response).await;

        let bytes = |answer: Answer| match content_type {
            TEXT => from_text(answer.text()),
            _ => answer.body.to_vec(),
        };
        let one = bytes(answer);
        assert!(one.starts_with(&envelope(b"a message")) && one.ends_with(b"grpc-status: 0\r\n"));
        assert_eq!(bytes(stream), one);
    }
}

/// What is no base64, ends too soon, or has a flag that is nobody's is the client's mistake.
#[tokio::test]
async fn bodies_that_are_not_what_they_say() {
    let backend = raw(|request, mut answer| async move {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.data().await {}
        let _ = answer.send_response(grpc_head(), false);
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    for (content_type, body) in [
        (TEXT, Bytes::from_static(b"AAAA!AAA")),
        (TEXT, Bytes::from_static(b"AAAAA")),
        (BINARY, Bytes::from_static(b"\0\0\0\0\x09abc")),
        (BINARY, flagged(0x80, b"grpc-status: 0\r\n")),
        (BINARY, flagged(2, b"{}")),
    ] {
        let answer = call(&gateway, GET_BOOK, content_type, body.clone()).await;
        let text = match content_type {
            TEXT => base64_simd::STANDARD.decode_to_vec(answer.text()).unwrap(),
            _ => answer.body.to_vec(),
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(text.contains("grpc-status: 3\r\n"), "{body:?}: {text}");
    }
}

/// What is not gRPC-Web is told in HTTP.
#[tokio::test]
async fn heads_that_are_not_grpc_web() {
    let backend = untouched().await;
    let gateway = Gateway::to(backend.address).await;
    let answer = call(&gateway, GET_BOOK, "application/grpc-web+json", "").await;
    assert_eq!(answer.status, 415);
    let get = Request::get(GET_BOOK).header("content-type", BINARY);
    let answer = once(gateway.address, get.body(whole("")).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
}

/// A refusal is a trailer frame in the client's own format, also where the gateway makes it.
#[tokio::test]
async fn a_refused_call_is_a_trailer_frame() {
    let backend = untouched().await;
    let gateway = Gateway::to(backend.address).await;
    for version in [Version::Http1, Version::Http2] {
        let mut client = Rest::connect(gateway.address, version).await;
        for content_type in [BINARY, TEXT] {
            let head = Request::post("/library.v1.Library/NoSuchMethod").header("content-type", content_type);
            let answer = client.send(head.body(whole(envelope(b""))).unwrap()).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("content-type"), content_type);
            let frame = match content_type {
                TEXT => base64_simd::STANDARD.decode_to_vec(answer.text()).unwrap(),
                _ => answer.body.to_vec(),
            };
            assert!(
                frame.starts_with(&[0x80]) && frame[5..].starts_with(b"grpc-status: 12\r\n"),
                "{frame:?}"
            );
            assert!(
                !answer.headers.contains_key("grpc-status"),
                "the status is in the body"
            );
        }
    }
}

/// A reply that breaks ends in a trailer frame with an error, never as if it were whole.
#[tokio::test]
async fn a_broken_reply_ends_in_an_error() {
    let backend = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), true).unwrap();
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let answer = call(&gateway, "/library.v1.Library/WatchBooks", BINARY, envelope(b"")).await;
    assert!(answer.body.starts_with(b"\0\0\0\0\0\x80"), "{answer:?}");
    let text = String::from_utf8_lossy(&answer.body[10..]).into_owned();
    assert!(
        text.contains("grpc-status: 2\r\n") && text.contains("without a status"),
        "{text}"
    );
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused() {
    let backend = echo().await;
    let settings = Settings::to(backend.address).limit("max_message_bytes: 1000");
    let gateway = Gateway::start(&settings).await;
    for (bytes, status) in [(999, "0"), (1000, "0"), (1001, "8")] {
        let message = envelope(&vec![b'x'; bytes]);
        for content_type in [BINARY, TEXT] {
            let body = match content_type {
                TEXT => base64_simd::STANDARD.encode_to_string(&message).into(),
                _ => message.clone(),
            };
            let answer = call(&gateway, GET_BOOK, content_type, body).await;
            let tail = match content_type {
                TEXT => from_text(answer.text()),
                _ => answer.body.to_vec(),
            };
            let tail = String::from_utf8_lossy(&tail).into_owned();
            assert!(
                tail.contains(&format!("grpc-status: {status}\r\n")),
                "{bytes}, {content_type}: {tail}"
            );
        }
    }
}

/// A client on HTTP/1.1 whose body is refused hears why, and its connection lives on.
#[tokio::test]
async fn a_refused_body_is_read_off() {
    let backend = untouched().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for _ in 0..3 {
        let (pieces, body) = crate::support::clients::rest::pieces();
        let head = Request::post("/library.v1.Library/NoSuchMethod").header("content-type", BINARY);
        let request = head.body(body).unwrap();
        let answer = tokio::spawn(async move {
            let response = client.start(request).await.unwrap();
            (collect(response).await, client)
        });
        pieces.send(envelope(&[b'x'; 10_000])).await.unwrap();
        drop(pieces);
        let (answer, again) = answer.await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("connection"), "");
        client = again;
    }
    client
        .send(request(Method::GET, "/v1/nowhere", ""))
        .await
        .error(404, 5);
}
