//! What travels beside the messages.

use serde_json::json;
use tonic::Code;

use crate::support::backends::{Kind, scripted};
use crate::support::clients::rest::{self, request};
use crate::support::gateway::Gateway;
use crate::support::script::{Conversation, conversation, end, fail, recv, send};

conversation!(
    both_ways_unary,
    "library.v1.Probe/Metadata",
    [recv(json!({})), send(json!({})), end(Code::Ok)],
    metadata([
        ("x-reader", "Leto"),
        ("x-twice", "1"),
        ("x-twice", "2"),
        ("x-raw-bin", "AP8")
    ]),
    initial([("x-first", "hello"), ("x-first-bin", "AAEC")]),
    trailing([("x-last", "bye"), ("x-last-bin", "/w")]),
);

conversation!(
    both_ways_streaming,
    "library.v1.Library/WatchBooks",
    [recv(json!({})), send(json!({})), end(Code::Ok)],
    metadata([("x-reader", "Leto"), ("authorization", "Bearer token")]),
    initial([("x-first", "hello")]),
    trailing([("x-last", "bye")]),
);

conversation!(
    with_an_error,
    "library.v1.Library/GetBook",
    [recv(json!({})), fail(Code::NotFound, "gone")],
    trailing([("x-last", "bye"), ("x-last-bin", "/w==")]),
);

/// Rule 42: the prefix of grpc-gateway's clients, and names that are the connection's own.
#[tokio::test]
async fn request_headers_become_metadata() {
    let script = Conversation::new(
        "library.v1.Probe/Metadata",
        [recv(json!({})), send(json!({})), end(Code::Ok)],
    )
    .metadata([("x-plain", "1"), ("x-prefixed", "2"), ("x-padded-bin", "AP8")]);
    let backend = scripted(Kind::H2, script).await;
    let gateway = Gateway::to(backend.address).await;
    let mut call = request(http::Method::POST, "/library.v1.Probe/Metadata", "{}");
    for (name, value) in [
        ("x-plain", "1"),
        ("grpc-metadata-x-prefixed", "2"),
        ("x-padded-bin", "AP8="),
        ("connection", "x-hop, keep-alive"),
        ("x-hop", "1"),
        ("keep-alive", "timeout=5"),
    ] {
        call.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = rest::once(gateway.address, call).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    backend.has_played_to_the_end().await;
}

/// Rule 42: what is no base64 is the client's mistake.
#[tokio::test]
async fn a_binary_header_that_is_not_base64_is_refused() {
    let script = Conversation::new("library.v1.Probe/Metadata", [end(Code::Ok)]);
    let backend = scripted(Kind::H2, script).await;
    let gateway = Gateway::to(backend.address).await;
    let mut call = request(http::Method::POST, "/library.v1.Probe/Metadata", "{}");
    call.headers_mut().insert("x-bad-bin", "$$$".parse().unwrap());
    let answer = rest::once(gateway.address, call).await;
    answer.error(400, 3);
    assert_eq!(backend.begun(), 0);
}
