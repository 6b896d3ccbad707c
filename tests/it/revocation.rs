//! Tokens that are taken back before they expire: by a file, and by the Redis that gateways share.

use std::path::Path;
use std::process::{Command, Output};

use base64_simd::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::auth::{BOOK, RPC, SECRET, backend, get, is_unauthenticated, now, post, token_with};
use crate::support::backends::{Backend, grpc_head, raw};
use crate::support::clients::rest::{Rest, Version, once};
use crate::support::clients::websocket::Client;
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::redis::Redis;
use crate::support::{until, within};
use crate::websocket::upstream_echo;

/// A token with this `jti` of this subject, issued so many seconds ago.
fn token(id: &str, subject: &str, age: u64) -> String {
    token_with(&json!({"jti": id, "sub": subject, "iat": now() - age}))
}

/// A gateway in front of the backend and of a WebSocket service, with these lines in its `auth` and at the end.
async fn gateway(folder: TempDir, backend: &Backend, revocation: &str, rest: &str) -> Gateway {
    let (live, mut handshakes) = upstream_echo().await;
    // Nobody asks what they were.
    tokio::spawn(async move { while handshakes.recv().await.is_some() {} });
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 2
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
  live: {{protocol: websocket, endpoints: [\"ws://{live}/\"]}}
routes:
  - {{services: [\"*\"], backend: library, auth: members}}
  - {{path: /live/**, backend: live, auth: members}}
auth:
  members:
    jwt: {{issuer: tests, audiences: [library], secret: \"{SECRET}\"}}
    revocation: {revocation}
{rest}
",
        backend.address,
    );
    Gateway::in_folder(folder, &yaml).await
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// The status and the reason of a call with this token.
async fn called(gateway: &Gateway, token: &str) -> (u16, String) {
    let answer = once(gateway.address, get(BOOK, &[("authorization", &bearer(token))])).await;
    let status = answer.status.as_u16();
    (
        status,
        if status == 200 {
            String::new()
        } else {
            answer.reason()
        },
    )
}

async fn is_let_in(gateway: &Gateway, token: &str) {
    until("the token to be taken", || async {
        called(gateway, token).await.0 == 200
    })
    .await;
}

async fn is_revoked(gateway: &Gateway, token: &str) {
    until("the token to be refused", || async {
        let (status, reason) = called(gateway, token).await;
        if status != 401 {
            return false;
        }
        assert_eq!(reason, "CREDENTIALS_REVOKED");
        true
    })
    .await;
}

/// `sabir` with these words, in the folder of a gateway.
fn sabir(folder: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sabir"))
        .args(words)
        .current_dir(folder)
        .output()
        .unwrap()
}

/// `sabir revoke sabir.yaml` with these words, which is to be done.
fn revoke(gateway: &Gateway, words: &[&str]) -> String {
    let output = sabir(gateway.folder(), &[&["revoke", "sabir.yaml"], words].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn what_a_file_revokes_is_refused_in_every_dialect_and_given_back_when_it_is_taken_out() {
    let (backend, seen) = backend().await;
    let folder = TempDir::new().unwrap();
    let list = folder.path().join("revoked");
    std::fs::write(&list, "# stolen\n{\"jti\": \"old\"}\n").unwrap();
    let gateway = gateway(folder, &backend, "{file: revoked}", "").await;
    assert_eq!(
        called(&gateway, &token("old", "ada", 5)).await,
        (401, "CREDENTIALS_REVOKED".to_owned()),
        "from the start"
    );
    let (one, two) = (token("t-1", "ada", 5), token("t-2", "ada", 5));
    for token in [&one, &two] {
        assert_eq!(
            called(&gateway, token).await.0,
            200,
            "it is verified, and remembered"
        );
    }
    revoke(&gateway, &["--jti", "t-1"]);
    is_revoked(&gateway, &one).await;
    assert_eq!(
        called(&gateway, &two).await.0,
        200,
        "another token of the same caller"
    );
    let before = seen.lock().len();
    let authorization = bearer(&one);
    let headers = [("authorization", authorization.as_str())];
    let frame: &[u8] = &[0; 5];
    for content_type in ["application/grpc", "application/grpc-web+proto"] {
        let mut connection = Rest::connect(gateway.address, Version::Http2).await;
        let answer = connection.send(post(RPC, content_type, frame, &headers)).await;
        assert!(is_unauthenticated(&answer), "{content_type}: {answer:?}");
    }
    let encoded = URL_SAFE_NO_PAD.encode_to_string(&one);
    let request = crate::support::clients::websocket::handshake(
        gateway.address,
        BOOK,
        &[(
            "sec-websocket-protocol",
            &format!("sabir.v1.json, bearer.{encoded}"),
        )],
    );
    let refused = Client::ask(gateway.address, request).await.err().unwrap();
    assert_eq!(refused.status(), 401);
    assert_eq!(seen.lock().len(), before, "nothing went upstream");
    let verdict = sabir(gateway.folder(), &["token", "sabir.yaml", &one]);
    let text = String::from_utf8_lossy(&verdict.stdout);
    assert!(text.contains("refused: the token has been revoked"), "{text}");
    assert!(!verdict.status.success());

    // A line that can't be read takes nothing back.
    let good = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, "nonsense\n").unwrap();
    gateway.says("what is revoked can't be read").await;
    assert_eq!(called(&gateway, &one).await.0, 401);
    std::fs::remove_file(&list).unwrap();
    std::fs::write(&list, good).unwrap();

    revoke(&gateway, &["--jti", "t-1", "--undo"]);
    is_let_in(&gateway, &one).await;
    let left = revoke(&gateway, &["--list"]);
    assert_eq!(left, "{\"jti\":\"old\"}\n");

    // A subject: what was issued before, and not what comes after.
    revoke(&gateway, &["--sub", "ada"]);
    is_revoked(&gateway, &two).await;
    let next = token_with(&json!({"jti": "t-3", "sub": "ada", "iat": now() + 2}));
    assert_eq!(called(&gateway, &next).await.0, 200);
    assert_eq!(called(&gateway, &token("t-4", "bob", 5)).await.0, 200);
    revoke(&gateway, &["--sub", "ada", "--all", "--issuer", "tests"]);
    is_revoked(&gateway, &next).await;
    // By the token itself, which says until when it has to be remembered.
    revoke(&gateway, &["--token", &token("t-4", "bob", 5)]);
    is_revoked(&gateway, &token("t-4", "bob", 5)).await;
    assert!(revoke(&gateway, &["--list"]).contains("\"until\""));
}

#[tokio::test]
async fn a_list_that_can_t_be_read_keeps_a_gateway_from_starting() {
    let folder = TempDir::new().unwrap();
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
backends: {{library: {{endpoints: [\"http://127.0.0.1:1\"], schema: {{descriptors: {DESCRIPTORS}}}}}}}
routes: [{{services: [\"*\"], backend: library, auth: members}}]
auth:
  members:
    jwt: {{issuer: tests, audiences: [library], secret: \"{SECRET}\"}}
    revocation: {{file: revoked}}
"
    );
    std::fs::write(folder.path().join("sabir.yaml"), yaml).unwrap();
    std::fs::write(folder.path().join("revoked"), "\n{\"sub\": \"\"}\n").unwrap();
    let output = sabir(folder.path(), &["serve", "--config", "sabir.yaml"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("revoked: line 2: has to have one of"), "{said}");
}

/// A backend that answers and never ends.
async fn endless() -> Backend {
    raw(|request: Request<h2::RecvStream>, mut answer| async move {
        if let Ok(mut stream) = answer.send_response(grpc_head(), false) {
            let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
            std::future::poll_fn(|cx| stream.poll_reset(cx)).await.ok();
        }
        drop(request);
    })
    .await
}

#[tokio::test]
async fn what_was_begun_with_a_token_ends_when_it_is_revoked() {
    const STREAM: &str = "/library.v1.Library/WatchBooks";
    let backend = endless().await;
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("revoked"), "").unwrap();
    let gateway = gateway(folder, &backend, "{file: revoked}", "").await;
    let token = token("t-1", "ada", 5);
    let authorization = bearer(&token);
    let headers = [("authorization", authorization.as_str())];
    let kept = bearer(&token_with(&json!({"jti": "t-2"})));
    let kept = [("authorization", kept.as_str())];

    let mut socket = Client::with(
        gateway.address,
        "/v1/shelves/1/books:watch",
        "sabir.v1.json",
        &headers,
    )
    .await;
    let mut waiting = Client::with(gateway.address, RPC, "sabir.v1.json", &headers).await;
    let mut relayed = Client::with(gateway.address, "/live/a", "", &headers).await;
    let mut other = Client::with(gateway.address, "/live/a", "", &kept).await;
    let mut connection = Rest::connect(gateway.address, Version::Http2).await;
    let frame: &[u8] = &[0; 5];
    let stream = connection
        .start(post(STREAM, "application/grpc", frame, &headers))
        .await
        .unwrap();
    // The call of the socket and the one of the stream.
    backend.calls_begun(2).await;
    revoke(&gateway, &["--jti", "t-1"]);

    let ended = within(
        "the end of the stream",
        crate::support::clients::rest::collect(stream),
    )
    .await;
    assert_eq!(ended.grpc_status(), Some("16"), "{ended:?}");
    for (name, client) in [
        ("a call", &mut socket),
        ("no call yet", &mut waiting),
        ("a relay", &mut relayed),
    ] {
        let close = within(name, async {
            loop {
                if let Message::Close(close) = client.next().await {
                    return close;
                }
            }
        })
        .await;
        assert_eq!(close.map(|frame| u16::from(frame.code)), Some(1008), "{name}");
    }
    other.send(Message::text("still here")).await;
    assert_eq!(other.next().await, Message::text("still here"));
    backend.calls_ended(2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_share_redis_share_what_is_revoked_and_losing_it_takes_nothing_back() {
    let Some(mut redis) = Redis::start("what is revoked, shared by three gateways").await else {
        return;
    };
    let (backend, _seen) = backend().await;
    let shared = format!("redis: {{url: \"{}\", prefix: \"tests\"}}", redis.url());
    let start = || gateway(TempDir::new().unwrap(), &backend, "{redis: true}", &shared);
    let gateways = [start().await, start().await, start().await];
    let (one, two) = (token("t-1", "ada", 5), token("t-2", "bob", 5));
    join_all(
        gateways
            .iter()
            .flat_map(|gateway| [is_let_in(gateway, &one), is_let_in(gateway, &two)]),
    )
    .await;

    revoke(&gateways[0], &["--jti", "t-1"]);
    join_all(gateways.iter().map(|gateway| is_revoked(gateway, &one))).await;
    for gateway in &gateways {
        assert_eq!(called(gateway, &two).await.0, 200);
    }
    // Calls do not ask Redis: only what looks once a second does.
    let before = redis.scripts().await;
    let began = std::time::Instant::now();
    let mut connection = Rest::connect(gateways[0].address, Version::Http2).await;
    for _ in 0..500 {
        let answer = connection
            .send(get(BOOK, &[("authorization", &bearer(&two))]))
            .await;
        assert_eq!(answer.status, 200);
    }
    let asked = redis.scripts().await - before;
    let most = 2 * 3 * (began.elapsed().as_secs() as usize + 2);
    assert!(
        asked <= most,
        "redis was asked {asked} times for 500 calls, at most {most} was to be"
    );

    // Twice is once, and what is taken out is taken.
    revoke(&gateways[1], &["--jti", "t-1"]);
    assert_eq!(revoke(&gateways[2], &["--list"]), "{\"jti\":\"t-1\"}\n");
    revoke(&gateways[2], &["--jti", "t-1", "--undo"]);
    join_all(gateways.iter().map(|gateway| is_let_in(gateway, &one))).await;
    revoke(&gateways[0], &["--sub", "ada"]);
    join_all(gateways.iter().map(|gateway| is_revoked(gateway, &one))).await;

    redis.kill();
    join_all(
        gateways
            .iter()
            .map(|gateway| gateway.says("redis does not tell what is revoked")),
    )
    .await;
    for gateway in &gateways {
        assert_eq!(called(gateway, &one).await.0, 401, "what was heard counts on");
        assert_eq!(called(gateway, &two).await.0, 200);
    }
    // One that never heard anything believes no token.
    let late = start().await;
    assert_eq!(
        called(&late, &two).await,
        (503, "IDENTITY_UNAVAILABLE".to_owned())
    );

    // It comes back with nothing, and nothing is given back by that.
    redis.restart().await;
    is_let_in(&late, &two).await;
    join_all(
        gateways
            .iter()
            .map(|gateway| gateway.says("redis has lost what was revoked")),
    )
    .await;
    for gateway in &gateways {
        assert_eq!(called(gateway, &one).await.0, 401);
    }
    revoke(&gateways[0], &["--jti", "t-2"]);
    join_all(
        gateways
            .iter()
            .chain([&late])
            .map(|gateway| is_revoked(gateway, &two)),
    )
    .await;
    for gateway in &gateways {
        assert_eq!(called(gateway, &one).await.0, 401);
    }
}
