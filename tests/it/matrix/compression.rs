//! Compressed messages and bodies.

use bytes::BytesMut;
use serde_json::json;
use tonic::Code;

use crate::support::backends::{grpc_head, grpc_trailers, gzip, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{once, request};
use crate::support::framing::flagged;
use crate::support::gateway::{Gateway, Settings};
use crate::support::script::{conversation, end, recv, send};

conversation!(
    unary,
    "library.v1.Library/GetBook",
    [
        recv(json!({"name": "shelves/1/books/7"})),
        send(
            json!({"title": "Dune", "tags": ["sand", "sand", "sand", "sand", "sand", "sand", "sand", "sand", "sand"]})
        ),
        end(Code::Ok),
    ],
    compressed(),
);

conversation!(
    streams,
    "library.v1.ReadingRoom/Chat",
    [
        recv(json!({"text": "one one one one one one one one one one one one"})),
        send(json!({"text": "two two two two two two two two two two two two"})),
        recv(json!({"text": "three"})),
        send(json!({"text": "four"})),
        end(Code::Ok),
    ],
    compressed(),
);

/// A compressed message of a gRPC client stays as it is, in both directions.
#[tokio::test]
async fn relay_keeps_the_compressed_bytes() {
    let backend = raw(|request, mut answer| async move {
        assert_eq!(request.headers()["grpc-encoding"], "gzip");
        let mut body = request.into_body();
        let mut arrived = BytesMut::new();
        while let Some(data) = body.data().await {
            arrived.extend_from_slice(&data.unwrap());
        }
        let mut head = grpc_head();
        head.headers_mut()
            .insert("grpc-encoding", "gzip".parse().unwrap());
        let mut sending = answer.send_response(head, false).unwrap();
        // The very bytes that came go back.
        sending.send_data(arrived.freeze(), false).unwrap();
        sending.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let sent = flagged(1, &gzip(b"whatever this is"));
    let head = grpc::head("library.v1.Library/GetBook")
        .header("grpc-encoding", "gzip")
        .header("grpc-accept-encoding", "gzip");
    let answer = grpc::exchange(gateway.address, head, sent.clone()).await;
    assert_eq!(answer.body, sent, "{answer:?}");
    assert_eq!(answer.header("grpc-encoding"), "gzip");
}

/// A body that grows a hundredfold and more is refused before it is held.
#[tokio::test]
async fn a_bomb_is_refused() {
    let backend = raw(|_, _| async { panic!("nothing may arrive") }).await;
    let gateway = Gateway::start(&Settings::to(backend.address).limit("max_message_bytes: 64MiB")).await;
    let bomb = gzip(&vec![b' '; 32 << 20]);
    assert!(bomb.len() < (32 << 20) / 100, "the bomb is not one");
    let mut call = request(http::Method::POST, "/library.v1.Library/GetBook", bomb);
    call.headers_mut()
        .insert("content-encoding", "gzip".parse().unwrap());
    let answer = once(gateway.address, call).await;
    assert!(answer.status.is_client_error(), "{answer:?}");
    assert_eq!(backend.begun(), 0);
}

/// What can't be decompressed is the client's mistake, and an encoding that nobody knows too.
#[tokio::test]
async fn bodies_that_are_not_what_they_say() {
    let backend = raw(|_, _| async { panic!("nothing may arrive") }).await;
    let gateway = Gateway::to(backend.address).await;
    let whole = gzip(b"{\"name\": \"shelves/1/books/7\"}");
    let cut = whole[..whole.len() - 6].to_vec();
    for (encoding, body, status) in [
        ("gzip", b"{}".to_vec(), 400),
        ("gzip", cut, 400),
        ("br", b"{}".to_vec(), 415),
        ("gzip, gzip", whole, 415),
    ] {
        let mut call = request(http::Method::POST, "/library.v1.Library/GetBook", body);
        call.headers_mut()
            .insert("content-encoding", encoding.parse().unwrap());
        let answer = once(gateway.address, call).await;
        assert_eq!(answer.status.as_u16(), status, "{encoding}: {answer:?}");
    }
    assert_eq!(backend.begun(), 0);
}

/// A compressed message from the upstream reaches a REST client as JSON.
#[tokio::test]
async fn a_compressed_answer_is_opened_for_rest() {
    let backend = raw(|_, mut answer| async move {
        let mut head = grpc_head();
        head.headers_mut()
            .insert("grpc-encoding", "gzip".parse().unwrap());
        let mut body = answer.send_response(head, false).unwrap();
        // Field 2, the title, length 4.
        body.send_data(flagged(1, &gzip(b"\x12\x04Dune")), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let answer = once(
        gateway.address,
        request(http::Method::POST, "/library.v1.Library/GetBook", "{}"),
    )
    .await;
    assert_eq!(answer.json(), json!({"title": "Dune"}));
}
