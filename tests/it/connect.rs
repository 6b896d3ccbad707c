//! Connect where its bytes and headers are the contract; what calls say and hear is in the matrix.

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::support::backends::{Backend, grpc_head, grpc_trailers, gzip, library, messages, raw};
use crate::support::clients::rest::{Answer, once, whole};
use crate::support::framing::{envelope, flagged};
use crate::support::gateway::{Gateway, Settings};
use crate::support::messages::{encode, method};

const GET_BOOK: &str = "/library.v1.Library/GetBook";
const WATCH: &str = "/library.v1.Library/WatchBooks";
const BOOK: &str = r#"{"name":"shelves/1/books/1"}"#;

/// Calls with these headers.
async fn post(gateway: &Gateway, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let mut request = Request::post(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    once(gateway.address, request.body(whole(body)).unwrap()).await
}

async fn get(gateway: &Gateway, query: &str) -> Answer {
    let request = Request::get(format!("{GET_BOOK}?{query}"));
    once(gateway.address, request.body(whole("")).unwrap()).await
}

const JSON: (&str, &str) = ("content-type", "application/json");
const PROTO: (&str, &str) = ("content-type", "application/proto");
const VERSION: (&str, &str) = ("connect-protocol-version", "1");

async fn untouched() -> Backend {
    raw(|_, _| async { panic!("nothing may arrive") }).await
}

/// The last message of a stream, which must be its end.
fn end_of(answer: &Answer) -> Value {
    let mut rest = bytes::BytesMut::from(&answer.body[..]);
    let mut last = None;
    while let Some(envelope) = crate::support::framing::open(&mut rest) {
        last = Some(envelope);
    }
    assert!(rest.is_empty(), "{answer:?}");
    let (flag, text) = last.unwrap_or_else(|| panic!("an empty stream: {answer:?}"));
    assert_eq!(flag, 2, "{answer:?}");
    serde_json::from_slice(&text).unwrap()
}

/// Rule 44: the version of the protocol decides the shape of errors on the rpc path.
#[tokio::test]
async fn the_version_decides_the_shape_of_errors() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let missing = r#"{"name":"shelves/1/books/1000"}"#;
    let connect = post(&gateway, GET_BOOK, &[JSON, VERSION], missing).await;
    assert_eq!(connect.status, 404);
    assert_eq!(connect.json()["code"], "not_found");
    let detail = &connect.json()["details"][0];
    assert_eq!(detail["type"], "google.rpc.ErrorInfo");
    assert_eq!(detail["debug"]["reason"], "NOT_FOUND");
    assert!(!detail["value"].as_str().unwrap().contains('='));
    post(&gateway, GET_BOOK, &[JSON], missing).await.error(404, 5);

    let request = encode(
        &method("library.v1.Library/GetBook").input(),
        &json!({"name": "shelves/1/books/1000"}),
    );
    let connect = post(&gateway, GET_BOOK, &[PROTO, VERSION], request.clone()).await;
    assert_eq!(
        (connect.status.as_u16(), &connect.json()["code"]),
        (404, &json!("not_found"))
    );
    post(&gateway, GET_BOOK, &[PROTO], request).await.error(404, 5);
}

/// The rpc path takes protobuf without the version too, and answers with it.
#[tokio::test]
async fn protobuf_on_the_rpc_path() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let request = encode(
        &method("library.v1.Library/GetBook").input(),
        &json!({"name": "shelves/1/books/1"}),
    );
    for headers in [&[PROTO][..], &[PROTO, VERSION][..]] {
        let answer = post(&gateway, GET_BOOK, headers, request.clone()).await;
        assert_eq!(answer.header("content-type"), "application/proto", "{answer:?}");
        let book =
            crate::support::messages::decode(&method("library.v1.Library/GetBook").output(), &answer.body);
        assert_eq!(book["name"], "shelves/1/books/1");
    }
    // A bound path speaks JSON alone.
    let bound = post(&gateway, "/v1/books:search", &[PROTO], request).await;
    bound.error(415, 3);
}

/// A unary protobuf message is not decoded on its way, in either direction.
#[tokio::test]
async fn protobuf_is_not_decoded() {
    const GARBAGE: &[u8] = b"\xff\xff not a message";
    let backend = raw(|request, mut answer| async move {
        let mut heard = Box::pin(messages(request.into_body()));
        let message = futures_util::StreamExt::next(&mut heard).await.unwrap().unwrap();
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(&message), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let answer = post(&gateway, GET_BOOK, &[PROTO, VERSION], GARBAGE).await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, GARBAGE));
    let stream = ("content-type", "application/connect+proto");
    let answer = post(&gateway, WATCH, &[stream], envelope(GARBAGE)).await;
    assert!(answer.body.starts_with(&envelope(GARBAGE)), "{answer:?}");
    assert_eq!(end_of(&answer), json!({}));
}

/// Rule 44: GET is for methods without side effects.
#[tokio::test]
async fn a_get_carries_its_message_in_the_query() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let proto = encode(
        &method("library.v1.Library/GetBook").input(),
        &json!({"name": "shelves/1/books/1"}),
    );
    let base64 = |bytes: &[u8]| base64_simd::URL_SAFE_NO_PAD.encode_to_string(bytes);
    for (query, content_type) in [
        (
            "connect=v1&encoding=json&message=%7B%22name%22%3A%22shelves/1/books/1%22%7D".to_owned(),
            "application/json",
        ),
        (
            format!(
                "connect=v1&encoding=json&base64=1&message={}",
                base64(BOOK.as_bytes())
            ),
            "application/json",
        ),
        (
            format!("base64=1&message={}&encoding=proto&connect=v1", base64(&proto)),
            "application/proto",
        ),
        (
            format!(
                "connect=v1&encoding=proto&base64=1&compression=gzip&message={}",
                base64(&gzip(&proto))
            ),
            "application/proto",
        ),
    ] {
        let answer = get(&gateway, &query).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        assert_eq!(answer.header("content-type"), content_type, "{query}");
    }
    for (query, status, code) in [
        ("connect=v2&encoding=json&message=%7B%7D", 400, "invalid_argument"),
        ("connect=v1&encoding=json", 400, "invalid_argument"),
        ("connect=v1&message=%7B%7D", 400, "invalid_argument"),
        ("connect=v1&encoding=xml&message=%7B%7D", 415, "invalid_argument"),
        ("connect=v1&encoding=json&message=%7B", 400, "invalid_argument"),
        (
            "connect=v1&encoding=json&base64=1&message=!",
            400,
            "invalid_argument",
        ),
        (
            "connect=v1&encoding=json&compression=br&message=%7B%7D",
            501,
            "unimplemented",
        ),
        (
            "connect=v1&encoding=json&message=%7B%22name%22:%22shelves/1/books/1000%22%7D",
            404,
            "not_found",
        ),
    ] {
        let answer = get(&gateway, query).await;
        assert_eq!(answer.status.as_u16(), status, "{query}: {answer:?}");
        assert_eq!(answer.json()["code"], code, "{query}");
    }
    let create = Request::get("/library.v1.Library/CreateBook?connect=v1&encoding=json&message=%7B%7D");
    let answer = once(gateway.address, create.body(whole("")).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    // Without the version it is no Connect, and the rpc path answers POST.
    get(&gateway, "encoding=json&message=%7B%7D").await.error(405, 12);
}

/// Heads that do not fit the method say what would.
#[tokio::test]
async fn heads_that_do_not_fit() {
    let backend = untouched().await;
    let gateway = Gateway::to(backend.address).await;
    let unary = "application/json, application/proto";
    let stream = "application/connect+json, application/connect+proto";
    for (path, content_type, accept) in [
        (GET_BOOK, "application/connect+json", unary),
        (GET_BOOK, "application/connect+xml", unary),
        (GET_BOOK, "text/plain", unary),
        (GET_BOOK, "application/json; charset=latin1", unary),
        (WATCH, "application/json", stream),
        (WATCH, "application/proto", stream),
    ] {
        let answer = post(&gateway, path, &[("content-type", content_type), VERSION], "{}").await;
        assert_eq!(answer.status, 415, "{path}, {content_type}: {answer:?}");
        assert_eq!(answer.header("accept-post"), accept, "{path}, {content_type}");
    }
    let answer = post(
        &gateway,
        GET_BOOK,
        &[JSON, ("connect-protocol-version", "2")],
        "{}",
    )
    .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["code"]),
        (400, &json!("invalid_argument"))
    );
    let put = Request::put(WATCH).header("content-type", "application/connect+json");
    let answer = once(gateway.address, put.body(whole("")).unwrap()).await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "POST"));
    let answer = post(
        &gateway,
        GET_BOOK,
        &[JSON, VERSION, ("connect-timeout-ms", "1s")],
        "{}",
    )
    .await;
    assert_eq!(answer.json()["code"], "invalid_argument");
    let answer = post(
        &gateway,
        GET_BOOK,
        &[JSON, VERSION, ("content-encoding", "br")],
        "{}",
    )
    .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["code"]),
        (501, &json!("unimplemented"))
    );
    let answer = post(
        &gateway,
        "/library.v1.Library/NoSuchMethod",
        &[JSON, VERSION],
        "{}",
    )
    .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["code"]),
        (501, &json!("unimplemented"))
    );
    assert_eq!(backend.begun(), 0);
}

/// A stream that is refused is a stream all the same: its one message says why.
#[tokio::test]
async fn a_refused_stream_ends_in_its_error() {
    let backend = untouched().await;
    let gateway = Gateway::to(backend.address).await;
    for codec in ["json", "proto"] {
        let content_type = format!("application/connect+{codec}");
        let headers = [("content-type", content_type.as_str())];
        let answer = post(&gateway, "/library.v1.Library/NoSuchMethod", &headers, "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), content_type);
        assert_eq!(end_of(&answer)["error"]["code"], "unimplemented");
    }
}

/// What a client sends wrong in a stream is told by its index, and what an upstream breaks is an error.
#[tokio::test]
async fn a_broken_stream_ends_in_an_error() {
    let backend = raw(|request, mut answer| async move {
        let mut heard = Box::pin(messages(request.into_body()));
        while let Some(Ok(_)) = futures_util::StreamExt::next(&mut heard).await {}
        // Of a request that was broken off nobody waits for the answer.
        if let Ok(mut body) = answer.send_response(grpc_head(), false) {
            body.send_data(envelope(b""), true).unwrap();
        }
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let json = ("content-type", "application/connect+json");
    let proto = ("content-type", "application/connect+proto");
    for headers in [[json], [proto]] {
        let body = if headers == [json] {
            envelope(b"{}")
        } else {
            envelope(b"")
        };
        let answer = post(&gateway, WATCH, &headers, body).await;
        assert_eq!(end_of(&answer)["error"]["code"], "unknown", "{answer:?}");
    }
    for (headers, body) in [
        ([json], flagged(0, b"{")),
        ([json], flagged(2, b"{}")),
        ([json], flagged(1, b"{}")),
        ([proto], flagged(2, b"{}")),
        ([proto], Bytes::from_static(b"\0\0\0\0\x09abc")),
    ] {
        let answer = post(&gateway, WATCH, &headers, body.clone()).await;
        let error = &end_of(&answer)["error"];
        assert!(
            error["code"] == "invalid_argument" || error["code"] == "unimplemented",
            "{body:?}: {error}"
        );
    }
    let import = "/library.v1.Library/ImportBooks";
    let mut body = envelope(br#"{"parent":"shelves/1"}"#).to_vec();
    body.extend_from_slice(&envelope(br#"{"book":{"pages":-1}}"#));
    let answer = post(&gateway, import, &[json], body).await;
    let message = end_of(&answer)["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("message 1: "), "{message}");
}

/// The deadline goes upstream, and ends the call.
#[tokio::test]
async fn the_deadline_is_kept() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let timeout = |value| [JSON, VERSION, ("connect-timeout-ms", value)];
    let wait = "/library.v1.Probe/Wait";
    let answer = post(&gateway, wait, &timeout("5000"), "{}").await;
    let left = answer.json()["timeLeft"].as_str().unwrap().to_owned();
    assert!(left.starts_with("4.") || left == "5s", "{left}");
    let answer = post(&gateway, wait, &timeout("100"), r#"{"delay":"30s"}"#).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["code"]),
        (504, &json!("deadline_exceeded"))
    );
}

/// Limits hold in every form, before the backend hears of it.
#[tokio::test]
async fn a_message_over_the_limit_is_refused() {
    let backend = library().await;
    let settings = Settings::to(backend.address).limit("max_message_bytes: 1000");
    let gateway = Gateway::start(&settings).await;
    let text = |bytes: usize| format!(r#"{{"name":"{}"}}"#, "x".repeat(bytes - 11));
    for (bytes, fits) in [(999, true), (1000, true), (1001, false)] {
        let answer = post(&gateway, GET_BOOK, &[JSON, VERSION], text(bytes)).await;
        assert_eq!(
            answer.json()["code"] == "resource_exhausted",
            !fits,
            "{bytes}: {answer:?}"
        );
        let stream = [("content-type", "application/connect+json")];
        let body = envelope(text(bytes).replace("name", "room").as_bytes());
        let answer = post(
            &gateway,
            "/library.v1.ReadingRoom/Listen",
            &stream,
            flagged(1, &gzip(&body[5..])),
        )
        .await;
        assert_eq!(
            end_of(&answer)["error"]["code"],
            "unimplemented",
            "a flag without an encoding"
        );
        let packed = [stream[0], ("connect-content-encoding", "gzip")];
        let body = flagged(1, &gzip(text(bytes).replace("name", "path").as_bytes()));
        let answer = post(&gateway, "/library.v1.Library/WatchBooks", &packed, body).await;
        let code = end_of(&answer)["error"]["code"].clone();
        assert_eq!(code == "resource_exhausted", !fits, "{bytes}: {code}");
    }
}

/// Compression as the client asks for it.
#[tokio::test]
async fn a_large_answer_is_compressed_where_the_client_takes_it() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let sample = json!({"words": (0..500).map(|number| number.to_string()).collect::<Vec<_>>()}).to_string();
    let echo = "/library.v1.Probe/Echo";
    let plain = post(&gateway, echo, &[JSON, VERSION], sample.clone()).await;
    assert_eq!(plain.header("content-encoding"), "");
    let packed = post(
        &gateway,
        echo,
        &[JSON, VERSION, ("accept-encoding", "gzip")],
        sample,
    )
    .await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(crate::support::backends::gunzip(&packed.body), plain.body);
}

/// REST on the rpc path stays what it was.
#[tokio::test]
async fn rest_is_not_mistaken_for_connect() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let answer = post(&gateway, GET_BOOK, &[JSON], BOOK).await;
    assert_eq!(answer.json()["name"], "shelves/1/books/1");
    let request = Request::builder()
        .method(Method::GET)
        .uri("/v1/shelves/1/books/1");
    let answer = once(gateway.address, request.body(whole("")).unwrap()).await;
    assert_eq!(answer.json()["name"], "shelves/1/books/1");
}
