//! Rules over the request, the caller and the first message, and policies that `.proto` files declare: whatever dialect a
//! message comes in, it is judged before anything goes upstream.

use bytes::Bytes;
use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::auth::{SECRET, backend, get, post, send, token_with};
use crate::support::backends::Backend;
use crate::support::clients::raw::Raw;
use crate::support::clients::rest::{Answer, Version, once};
use crate::support::clients::websocket::Client;
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;

const MOVE: &str = "/library.v1.Library/GetBook";
const BOOK: &str = "/v1/shelves/1/books/7";

/// A gateway whose route has these lines, in front of a backend with this schema.
async fn gateway(backend: &Backend, schema: &str, route: &str) -> Gateway {
    Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library: {{endpoints: [\"http://{}\"], schema: {schema}}}
routes:
  - services: [\"*\"]
    backend: library
    auth: members
{route}
auth:
  members:
    jwt: {{issuer: tests, audiences: [library], secret: \"{SECRET}\"}}
",
        backend.address
    ))
    .await
}

fn bearer(changes: &serde_json::Value) -> String {
    format!("Bearer {}", token_with(changes))
}

/// `GetBookRequest` with this name in an envelope.
fn enveloped(name: &str) -> Bytes {
    let length = u8::try_from(name.len()).unwrap();
    let mut bytes = vec![0, 0, 0, 0, length + 2, 0x0a, length];
    bytes.extend_from_slice(name.as_bytes());
    bytes.into()
}

fn is_denied(answer: &Answer) -> bool {
    answer.tells(403, 7, "permission_denied")
}

#[tokio::test]
async fn a_message_is_judged_before_anything_goes_upstream_whatever_it_came_in() {
    let (backend, _seen) = backend().await;
    let route = "    authorize: [{when: \"message.name.startsWith(identity.claims.tenant)\"}]";
    let gateway = gateway(&backend, &format!("{{descriptors: {DESCRIPTORS}}}"), route).await;
    for (tenant, let_in) in [("shelves/1/", true), ("shelves/2/", false)] {
        let credential = bearer(&json!({"tenant": tenant}));
        let auth = ("authorization", credential.as_str());
        let name = "shelves/1/books/7";
        let frame: &'static [u8] = Box::leak(enveloped(name).to_vec().into_boxed_slice());
        let bare = &frame[5..];
        let text: &'static [u8] = json!({"name": name}).to_string().leak().as_bytes();
        let connect = [auth, ("connect-protocol-version", "1")];
        let calls = [
            ("rest", Version::Http1, get(BOOK, &[auth])),
            (
                "rpc path",
                Version::Http2,
                post(MOVE, "application/json; charset=utf-8", text, &[auth]),
            ),
            (
                "grpc-web",
                Version::Http1,
                post(MOVE, "application/grpc-web+proto", frame, &[auth]),
            ),
            (
                "connect json",
                Version::Http1,
                post(MOVE, "application/json", text, &connect),
            ),
            (
                "connect proto",
                Version::Http2,
                post(MOVE, "application/proto", bare, &connect),
            ),
            (
                "grpc",
                Version::Http2,
                post(MOVE, "application/grpc", frame, &[auth, ("te", "trailers")]),
            ),
        ];
        for (dialect, version, call) in calls {
            let before = backend.begun();
            let answer = send(&gateway, version, call).await;
            assert_eq!(is_denied(&answer), !let_in, "{dialect}: {answer:?}");
            assert_eq!(backend.begun() - before, usize::from(let_in), "{dialect}");
        }
        let before = backend.begun();
        let mut socket = Client::with(gateway.address, MOVE, "sabir.v1.json", &[auth]).await;
        socket
            .send(Message::text(json!({"name": name}).to_string()))
            .await;
        let mut status = socket.hear().await;
        while status["$status"].is_null() {
            status = socket.hear().await;
        }
        assert_eq!(status["$status"]["code"], if let_in { 0 } else { 7 }, "{status}");
        assert_eq!(backend.begun() - before, usize::from(let_in));
    }
    let told = gateway.says("\"reason\":\"PERMISSION_DENIED\"").await;
    assert!(told.contains("\"message_read_by_rule\":true"), "{told}");
}

#[tokio::test]
async fn the_head_decides_where_it_can_and_nothing_is_read_then() {
    let (backend, _seen) = backend().await;
    let route = "    authorize:
      - {when: \"message.name == 'never'\"}
      - {when: \"request.headers['x-team'] == 'books' && identity.claims.level >= 3\"}";
    let gateway = gateway(&backend, &format!("{{descriptors: {DESCRIPTORS}}}"), route).await;
    for (level, team, let_in) in [(3, "books", true), (2, "books", false), (3, "toys", false)] {
        let credential = bearer(&json!({"level": level}));
        let auth = ("authorization", credential.as_str());
        // No message at all, which only a rule that reads one would miss.
        let call = post(
            MOVE,
            "application/grpc",
            &[0, 0, 0, 0, 3, 0xff, 0xff, 0xff],
            &[auth, ("te", "trailers"), ("x-team", team)],
        );
        let answer = send(&gateway, Version::Http2, call).await;
        let expected = if let_in { "0" } else { "3" };
        assert_eq!(answer.grpc_status(), Some(expected), "{level} {team}: {answer:?}");
    }
    // A message that is too large to be read by a rule is told so, and one that never comes is not waited for.
    let credential = bearer(&json!({"level": 1}));
    let large: &'static [u8] = json!({"name": "x".repeat(300 << 10)})
        .to_string()
        .leak()
        .as_bytes();
    let auth = [("authorization", credential.as_str())];
    let answer = once(
        gateway.address,
        post(MOVE, "application/json; charset=utf-8", large, &auth),
    )
    .await;
    answer.error(413, 8);
    let text = format!(
        "POST {MOVE} HTTP/1.1\r\nhost: a\r\nauthorization: {credential}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let told = Raw::exchange(gateway.address, &text).await;
    assert!(!told.starts_with("HTTP/1.1 200"), "{told}");
    assert_eq!(backend.begun(), 1, "only the one call that the head let in");
}

const PROTO: &str = r#"
syntax = "proto3";
package shop.v1;
import "sabir/policy.proto";
message Order { string tenant = 1; }
service Shop {
  option (sabir.service_policy) = { any_roles: ["clerk", "owner"] };
  rpc List(Order) returns (Order);
  rpc Open(Order) returns (Order) { option (sabir.policy) = { public: true }; }
  rpc Close(Order) returns (Order) { option (sabir.policy) = { scopes: ["close"], roles: ["owner"] }; }
  rpc Pay(Order) returns (Order) { option (sabir.policy) = { when: "message.tenant == identity.claims.tenant" }; }
}
service Plain { rpc Look(Order) returns (Order); }
"#;

#[tokio::test]
async fn policies_of_proto_files_hold_unless_the_route_has_its_own() {
    let (backend, _seen) = backend().await;
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("shop.proto"), PROTO).unwrap();
    let protos = format!(
        "{{protos: [shop.proto], proto_paths: [\"{}\"]}}",
        folder.path().display()
    );
    let clerk = bearer(&json!({"roles": ["clerk"], "tenant": "t-7", "scope": "close"}));
    let owner = bearer(&json!({"roles": ["owner"], "tenant": "t-8", "scope": "close"}));
    let nobody = String::new();
    let cases: [(&str, &str, [u16; 3]); 7] = [
        // What nobody, a clerk and an owner are told.
        ("", "Shop/List", [401, 200, 200]),
        ("", "Shop/Open", [200, 200, 200]),
        ("", "Shop/Close", [401, 403, 200]),
        ("", "Shop/Pay", [401, 200, 403]),
        ("", "Plain/Look", [401, 200, 200]),
        ("    declared_policies: ignore", "Shop/Close", [401, 200, 200]),
        ("    authorize: [{roles: [clerk]}]", "Shop/Open", [401, 200, 403]),
    ];
    for (route, method, statuses) in cases {
        let gateway = gateway(&backend, &protos, route).await;
        for (credential, status) in [&nobody, &clerk, &owner].into_iter().zip(statuses) {
            let headers = [("authorization", credential.as_str())];
            let headers = if credential.is_empty() {
                &[][..]
            } else {
                &headers[..]
            };
            let call = post(
                &format!("/shop.v1.{method}"),
                "application/json; charset=utf-8",
                b"{\"tenant\": \"t-7\"}",
                headers,
            );
            let answer = once(gateway.address, call).await;
            assert_eq!(
                answer.status.as_u16(),
                status,
                "{route} {method} {credential}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_policy_on_a_route_without_auth_lets_nobody_in_and_says_so() {
    let (backend, _seen) = backend().await;
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("shop.proto"), PROTO).unwrap();
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  shop: {{endpoints: [\"http://{}\"], schema: {{protos: [shop.proto], proto_paths: [\"{}\"]}}}}
routes:
  - {{services: [\"*\"], backend: shop}}
",
        backend.address,
        folder.path().display()
    ))
    .await;
    gateway.says("shop.v1.Shop.Close declares who may call it").await;
    for (method, status) in [
        ("Shop/Close", 403),
        ("Shop/List", 403),
        ("Shop/Open", 200),
        ("Plain/Look", 200),
    ] {
        let call = post(
            &format!("/shop.v1.{method}"),
            "application/json; charset=utf-8",
            b"{}",
            &[],
        );
        let answer = once(gateway.address, call).await;
        assert_eq!(answer.status, status, "{method}: {answer:?}");
    }
}
