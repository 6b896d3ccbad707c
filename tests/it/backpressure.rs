//! A slow reader slows its writer, through every dialect, and the memory of a call stays bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use h2::SendStream;
use http::{HeaderMap, Method};
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, messages, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{self, Rest, Version, request};
use crate::support::framing::envelope;
use crate::support::gateway::Gateway;
use crate::support::messages::{encode, method};
use crate::support::{stalls, within};

const DOWN: &str = "library.v1.Library/WatchBooks";
const UP: &str = "library.v1.Library/ImportBooks";

/// What would be sent if nobody held it back.
const ALL: usize = 256 << 20;
/// What may be on its way at most: the buffers of the kernel, which grow to some megabytes a socket on loopback, on
/// both sides of the gateway, and the windows of HTTP/2.
const ON_ITS_WAY: usize = 32 << 20;
/// How much the gateway may grow: far less than what waits on the other side.
const GROWTH: usize = 24 << 20;

/// Sends as fast as the other side takes it; counts what was taken.
async fn pour(body: &mut SendStream<Bytes>, bytes: Bytes, count: &AtomicUsize) -> Result<(), h2::Error> {
    let mut rest = bytes;
    while !rest.is_empty() {
        body.reserve_capacity(rest.len());
        let room = std::future::poll_fn(|context| body.poll_capacity(context)).await;
        let room = room.unwrap_or_else(|| Err(h2::Reason::CANCEL.into()))?;
        let piece = rest.split_to(room.min(rest.len()));
        count.fetch_add(piece.len(), Ordering::Relaxed);
        body.send_data(piece, false)?;
    }
    Ok(())
}

/// A backend that sends messages of 16 KiB until it has sent so much.
async fn pouring(all: usize) -> (Backend, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let event = json!({"book": {"title": "x".repeat(16 << 10)}});
    let message = envelope(&encode(&method(DOWN).output(), &event));
    let backend = raw(move |_, mut answer| {
        let (count, message) = (Arc::clone(&count), message.clone());
        async move {
            let mut body = answer.send_response(grpc_head(), false).unwrap();
            for _ in 0..all.div_ceil(message.len()) {
                if pour(&mut body, message.clone(), &count).await.is_err() {
                    return;
                }
            }
            body.send_trailers(grpc_trailers("0")).unwrap();
        }
    })
    .await;
    (backend, taken)
}

/// Checks that the writer stands still and the gateway holds little.
async fn is_held_back(gateway: &Gateway, before: usize, taken: &AtomicUsize) {
    let taken = stalls(taken).await;
    assert!(
        taken < ON_ITS_WAY,
        "{taken} bytes were taken for a reader that reads nothing"
    );
    let growth = gateway.resident_bytes().saturating_sub(before);
    assert!(growth < GROWTH, "the gateway grew by {growth} bytes");
}

#[tokio::test]
async fn a_rest_reader_that_does_not_read() {
    for version in [Version::Http1, Version::Http2] {
        let (backend, taken) = pouring(ALL).await;
        let gateway = Gateway::to(backend.address).await;
        let before = gateway.resident_bytes();
        let mut client = Rest::connect(gateway.address, version).await;
        let call = request(Method::POST, &format!("/{DOWN}"), "{}");
        let response = within("the head", client.start(call)).await.unwrap();
        is_held_back(&gateway, before, &taken).await;
        drop((response, client));
        backend.calls_ended(1).await;
    }
}

#[tokio::test]
async fn a_grpc_reader_that_does_not_read() {
    let (backend, taken) = pouring(ALL).await;
    let gateway = Gateway::to(backend.address).await;
    let before = gateway.resident_bytes();
    let channel = grpc::connect(gateway.address).await;
    let (requests, started) = grpc::start(channel, DOWN, HeaderMap::new(), false);
    requests.send(Bytes::new()).await.unwrap();
    let answers = within("the head", started).await.unwrap().unwrap();
    is_held_back(&gateway, before, &taken).await;
    drop((requests, answers));
    backend.calls_ended(1).await;
}

/// Who reads on after a pause gets everything.
#[tokio::test]
async fn a_reader_that_pauses_misses_nothing() {
    const SOME: usize = 24 << 20;
    let (backend, taken) = pouring(SOME).await;
    let gateway = Gateway::to(backend.address).await;
    let channel = grpc::connect(gateway.address).await;
    let (requests, started) = grpc::start(channel, DOWN, HeaderMap::new(), false);
    requests.send(Bytes::new()).await.unwrap();
    drop(requests);
    let mut answers = within("the head", started).await.unwrap().unwrap().into_inner();
    stalls(&taken).await;
    let mut count = 0;
    while let Some(message) = within("a message", answers.message()).await.unwrap() {
        count += message.len() + 5;
    }
    assert_eq!(count, taken.load(Ordering::Relaxed));
    assert!(count >= SOME);
}

/// A backend that does not read holds an upload back.
#[tokio::test]
async fn a_backend_that_does_not_read() {
    let backend = raw(|request, mut answer| async move {
        let _unread = request;
        let _ = std::future::poll_fn(|context| answer.poll_reset(context)).await;
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let before = gateway.resident_bytes();
    let sent = Arc::new(AtomicUsize::new(0));
    let mut client = Rest::connect(gateway.address, Version::Http2).await;
    let (pieces, body) = rest::pieces();
    let call = http::Request::post(format!("/{UP}"))
        .header("content-type", "application/x-ndjson")
        .body(body)
        .unwrap();
    let call = tokio::spawn(async move { drop(client.start(call).await) });
    let count = Arc::clone(&sent);
    let upload = tokio::spawn(async move {
        let line = Bytes::from(format!(
            "{{\"book\": {{\"title\": \"{}\"}}}}\n",
            "x".repeat(16 << 10)
        ));
        while count.load(Ordering::Relaxed) < ALL && pieces.send(line.clone()).await.is_ok() {
            count.fetch_add(line.len(), Ordering::Relaxed);
        }
    });
    is_held_back(&gateway, before, &sent).await;
    call.abort();
    upload.abort();
    backend.calls_ended(1).await;
}

/// Messages of a stream are passed on one by one, not when there are enough of them.
#[tokio::test]
async fn nothing_is_held_until_there_is_more() {
    let backend = raw(|request, mut answer| async move {
        let mut heard = Box::pin(messages(request.into_body()));
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        while let Some(Ok(message)) = heard.next().await {
            body.send_data(envelope(&message), false).unwrap();
        }
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http2).await;
    let (pieces, body) = rest::pieces();
    let call = http::Request::post("/v1/rooms/7:chat")
        .header("content-type", "application/x-ndjson")
        .header("accept", "application/x-ndjson")
        .body(body)
        .unwrap();
    let mut response = within("the head", client.start(call)).await.unwrap();
    for text in ["one", "two", "three"] {
        pieces
            .send(format!("{{\"text\": \"{text}\"}}\n").into())
            .await
            .unwrap();
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let frame = within(text, response.body_mut().frame()).await.unwrap().unwrap();
            line.extend_from_slice(&frame.into_data().unwrap());
        }
        assert!(String::from_utf8(line).unwrap().contains(text));
    }
}
