//! `grpc.health.v1` as the gateway answers it, by tonic.

use std::net::SocketAddr;

use bytes::Bytes;
use tonic::Code;

use crate::support::backends::{Kind, library, raw, scripted};
use crate::support::clients::grpc;
use crate::support::gateway::{Gateway, Settings};
use crate::support::script::{Conversation, end, recv, send};
use crate::support::within;

const CHECK: &str = "grpc.health.v1.Health/Check";

/// A `HealthCheckRequest`: field 1, a string.
fn asking(service: &str) -> Bytes {
    if service.is_empty() {
        return Bytes::new();
    }
    let mut request = vec![0x0a, u8::try_from(service.len()).unwrap()];
    request.extend_from_slice(service.as_bytes());
    request.into()
}

/// The number in a `HealthCheckResponse`: field 1, an enum.
fn state(answer: &[u8]) -> u8 {
    match answer {
        [] => 0,
        [0x08, number] => *number,
        other => panic!("not an answer: {other:?}"),
    }
}

const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;
const SERVICE_UNKNOWN: u8 = 3;

async fn check(gateway: &Gateway, service: &str) -> Result<u8, Code> {
    let answer = grpc::unary(gateway.address, CHECK, asking(service)).await;
    answer
        .map(|answer| state(&answer))
        .map_err(|status| status.code())
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn services_serve_while_their_backend_can_be_reached() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    for service in [
        "",
        "library.v1.Library",
        "library.v1.Probe",
        "grpc.health.v1.Health",
    ] {
        assert_eq!(check(&gateway, service).await, Ok(SERVING), "{service:?}");
    }
    for service in ["library.v1.Nowhere", "library.v1", "library.v1.Library/GetBook"] {
        assert_eq!(check(&gateway, service).await, Err(Code::NotFound), "{service:?}");
    }
}

#[tokio::test]
async fn services_do_not_serve_while_their_backend_is_gone() {
    let address = nobody();
    let gateway = Gateway::start(&Settings::to(address)).await;
    for service in ["", "library.v1.Library"] {
        assert_eq!(check(&gateway, service).await, Ok(NOT_SERVING), "{service:?}");
    }
    assert_eq!(check(&gateway, "grpc.health.v1.Health").await, Ok(SERVING));
}

/// A backend whose schema is not known yet does not serve, and what it will offer is not unknown.
#[tokio::test]
async fn a_pending_backend_does_not_serve() {
    let settings = Settings::to(nobody()).schema("reflection");
    let gateway = Gateway::start(&settings).await;
    assert_eq!(check(&gateway, "library.v1.Library").await, Ok(NOT_SERVING));
    assert_eq!(check(&gateway, "").await, Ok(NOT_SERVING));
}

/// `Watch` tells each change, and the end of the gateway.
#[tokio::test]
async fn a_watch_tells_changes() {
    let address = nobody();
    let mut gateway = Gateway::start(&Settings::to(address)).await;
    let channel = grpc::connect(gateway.address).await;
    let watch = async |service: &str| {
        let (requests, started) = grpc::start(
            channel.clone(),
            "grpc.health.v1.Health/Watch",
            http::HeaderMap::new(),
            false,
        );
        requests.send(asking(service)).await.unwrap();
        drop(requests);
        started.await.unwrap().unwrap().into_inner()
    };
    let mut unknown = watch("library.v1.Nowhere").await;
    assert_eq!(state(&unknown.message().await.unwrap().unwrap()), SERVICE_UNKNOWN);
    let mut known = watch("library.v1.Library").await;
    assert_eq!(state(&known.message().await.unwrap().unwrap()), NOT_SERVING);

    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let backend = tokio::spawn(sabir::demo::serve(listener, std::future::pending()));
    let next = within("the change", known.message()).await.unwrap();
    assert_eq!(state(&next.unwrap()), SERVING);

    gateway.terminate();
    let next = within("the last change", known.message()).await.unwrap();
    assert_eq!(state(&next.unwrap()), NOT_SERVING);
    let end = within("the end", known.message()).await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable);
    assert_eq!(
        within("the end", unknown.message()).await.unwrap_err().code(),
        Code::Unavailable
    );
    assert!(gateway.ended().await.success());
    backend.abort();
}

/// A backend's own health service is not exposed by `*`, and is where it is named.
#[tokio::test]
async fn a_backends_own_health_is_exposed_where_it_is_named() {
    let backend = raw(|_, _| async { panic!("nothing may arrive") }).await;
    let gateway = Gateway::to(backend.address).await;
    assert_eq!(check(&gateway, "library.v1.Library").await, Ok(SERVING));

    let conversation = Conversation::new(
        "library.v1.Probe/Unbound",
        [
            recv(serde_json::json!({})),
            send(serde_json::json!({})),
            end(Code::Ok),
        ],
    );
    let backend = scripted(Kind::H2, conversation).await;
    let folder = tempfile::tempdir().unwrap();
    let proto = folder.path().join("all.proto");
    std::fs::write(
        &proto,
        "syntax = \"proto3\"; package all; import \"grpc/health/v1/health.proto\"; \
         service Other { rpc Ask(grpc.health.v1.HealthCheckRequest) returns (grpc.health.v1.HealthCheckResponse); }",
    )
    .unwrap();
    let schema = format!("{{protos: [{}]}}", proto.display());
    let gateway = Gateway::start(&Settings::to(backend.address).schema(&schema)).await;
    assert_eq!(check(&gateway, "all.Other").await, Ok(SERVING));
    assert_eq!(check(&gateway, "library.v1.Library").await, Err(Code::NotFound));
}
