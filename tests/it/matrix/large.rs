//! Messages at their limit, one below and one above, in both directions and through both frontends.

use bytes::Bytes;
use serde_json::json;
use tonic::Code;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, messages, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Rest, Version, request};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};
use crate::support::script::{conversation, end, recv, send};

conversation!(
    a_megabyte_each_way,
    "library.v1.Library/GetFile",
    [
        recv(json!({"path": "x".repeat(1 << 20)})),
        send(json!({"path": "y".repeat(1 << 20)})),
        end(Code::Ok)
    ]
);

const GET_FILE: &str = "library.v1.Library/GetFile";
const LIMIT: usize = 10_000;

/// A `GetFileRequest` or `File` of exactly this many bytes: field 1 with a length of three bytes.
fn message(bytes: usize) -> Bytes {
    let text = bytes - 3;
    assert!((128..16_384).contains(&text));
    let mut message = vec![0x0a, (text & 0x7f) as u8 | 0x80, (text >> 7) as u8];
    message.resize(bytes, b'x');
    message.into()
}

/// A backend that answers any path with a `File` of so many bytes.
async fn answering(bytes: usize) -> Backend {
    raw(move |request, mut answer| async move {
        let mut heard = Box::pin(messages(request.into_body()));
        while let Some(Ok(_)) = futures_util::StreamExt::next(&mut heard).await {}
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(&message(bytes)), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await
}

fn limited(backend: &Backend) -> Settings {
    Settings::to(backend.address).limit(&format!("max_message_bytes: {LIMIT}"))
}

#[tokio::test]
async fn requests_over_grpc() {
    let backend = answering(200).await;
    let gateway = Gateway::start(&limited(&backend)).await;
    for (bytes, code) in [
        (LIMIT - 1, Code::Ok),
        (LIMIT, Code::Ok),
        (LIMIT + 1, Code::ResourceExhausted),
    ] {
        let answer = grpc::unary(gateway.address, GET_FILE, message(bytes)).await;
        assert_eq!(
            answer.err().map_or(Code::Ok, |status| status.code()),
            code,
            "{bytes}"
        );
    }
}

#[tokio::test]
async fn requests_over_rest() {
    let backend = answering(200).await;
    let gateway = Gateway::start(&limited(&backend)).await;
    for version in [Version::Http1, Version::Http2] {
        for (bytes, status) in [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 413)] {
            let mut client = Rest::connect(gateway.address, version).await;
            let frame = "{\"path\":\"\"}".len();
            let body = format!("{{\"path\":\"{}\"}}", "x".repeat(bytes - frame));
            let answer = client.post(&format!("/{GET_FILE}"), body).await;
            assert_eq!(answer.status.as_u16(), status, "{bytes} over {version:?}");
        }
    }
}

#[tokio::test]
async fn answers() {
    for (bytes, code) in [
        (LIMIT - 1, Code::Ok),
        (LIMIT, Code::Ok),
        (LIMIT + 1, Code::ResourceExhausted),
    ] {
        let backend = answering(bytes).await;
        let gateway = Gateway::start(&limited(&backend)).await;
        let answer = grpc::unary(gateway.address, GET_FILE, message(200)).await;
        assert_eq!(
            answer.err().map_or(Code::Ok, |status| status.code()),
            code,
            "{bytes}"
        );
        let mut client = Rest::connect(gateway.address, Version::Http1).await;
        let answer = client
            .send(request(http::Method::POST, &format!("/{GET_FILE}"), "{}"))
            .await;
        assert_eq!(
            answer.status == 200,
            code == Code::Ok,
            "{bytes}: {:?}",
            answer.status
        );
    }
}
