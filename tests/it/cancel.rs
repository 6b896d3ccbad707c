//! Who goes away ends the call of the other side, at once.

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Method};

use crate::support::backends::{Backend, grpc_head, raw};
use crate::support::clients::rest::{Rest, Version, request};
use crate::support::clients::{grpc, rest};
use crate::support::framing::envelope;
use crate::support::gateway::Gateway;
use crate::support::messages::{encode, method};
use crate::support::within;

const UNARY: &str = "library.v1.Library/GetBook";
const STREAM: &str = "library.v1.Library/WatchBooks";

/// A backend that never answers.
async fn silent() -> Backend {
    raw(|request, mut answer| async move {
        let _body = request;
        let _ = std::future::poll_fn(|context| answer.poll_reset(context)).await;
    })
    .await
}

/// A backend that sends one message and then nothing.
async fn halting() -> Backend {
    raw(|request, mut answer| async move {
        let _body = request;
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        let _ = std::future::poll_fn(|context| body.poll_reset(context)).await;
    })
    .await
}

/// The gateway's record of a call that its client left.
async fn is_recorded(gateway: &Gateway) {
    gateway.says("\"CANCELLED\"").await;
}

#[tokio::test]
async fn a_rest_client_that_leaves_a_unary_call() {
    for version in [Version::Http1, Version::Http2] {
        let backend = silent().await;
        let gateway = Gateway::to(backend.address).await;
        let mut client = Rest::connect(gateway.address, version).await;
        let call = tokio::spawn(async move {
            let call = request(Method::POST, &format!("/{UNARY}"), "{}");
            drop(client.start(call).await);
        });
        backend.calls_begun(1).await;
        call.abort();
        backend.calls_ended(1).await;
        is_recorded(&gateway).await;
    }
}

#[tokio::test]
async fn a_rest_client_that_leaves_a_stream() {
    for version in [Version::Http1, Version::Http2] {
        let backend = halting().await;
        let gateway = Gateway::to(backend.address).await;
        let mut client = Rest::connect(gateway.address, version).await;
        let call = request(Method::POST, &format!("/{STREAM}"), "{}");
        let response = within("the head", client.start(call)).await.unwrap();
        drop((response, client));
        backend.calls_ended(1).await;
    }
}

#[tokio::test]
async fn a_grpc_client_that_leaves() {
    for (backend, path) in [(silent().await, UNARY), (halting().await, STREAM)] {
        let gateway = Gateway::to(backend.address).await;
        let channel = grpc::connect(gateway.address).await;
        let (requests, started) = grpc::start(channel, path, HeaderMap::new(), false);
        requests.send(Bytes::new()).await.unwrap();
        drop(requests);
        backend.calls_begun(1).await;
        if path == STREAM {
            let mut answers = within("the head", started).await.unwrap().unwrap().into_inner();
            within("a message", answers.message()).await.unwrap();
            drop(answers);
        } else {
            started.abort();
        }
        backend.calls_ended(1).await;
    }
}

/// A client of a stream that stops in the middle of its upload ends the upstream call too.
#[tokio::test]
async fn a_client_that_leaves_while_it_sends() {
    let backend = silent().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let (pieces, body) = rest::pieces();
    let call = http::Request::post("/library.v1.Library/ImportBooks")
        .header("content-type", "application/x-ndjson")
        .body(body)
        .unwrap();
    let call = tokio::spawn(async move { drop(client.start(call).await) });
    pieces
        .send(Bytes::from_static(b"{\"parent\": \"shelves/1\"}\n"))
        .await
        .unwrap();
    backend.calls_begun(1).await;
    call.abort();
    backend.calls_ended(1).await;
}

/// An upstream that resets its stream in the middle ends the client's at once, and not as if it were complete.
#[tokio::test]
async fn an_upstream_that_resets_a_stream() {
    let backend = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        let book = encode(&method(UNARY).output(), &serde_json::json!({"title": "Dune"}));
        body.send_data(envelope(&book), false).unwrap();
        body.send_reset(Reason::CANCEL);
    })
    .await;
    let gateway = Gateway::to(backend.address).await;

    let channel = grpc::connect(gateway.address).await;
    let (requests, started) = grpc::start(channel, STREAM, HeaderMap::new(), false);
    requests.send(Bytes::new()).await.unwrap();
    // The half-close is not yet said: the end has to come from the other side.
    let end = within("the end", async {
        let mut answers = started.await.unwrap()?.into_inner();
        while answers.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    })
    .await;
    assert!(end.is_err(), "a broken stream ended well");

    let mut client = Rest::connect(gateway.address, Version::Http2).await;
    let answer = client.post(&format!("/{STREAM}"), "{}").await;
    assert!(
        answer.status != 200 || answer.text().contains("\"error\""),
        "{answer:?}"
    );
}
