//! Who may call: a route with `auth` is closed to every dialect and every spelling, and open to those who prove who they
//! are; backends learn who that is from the gateway alone.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, hmac};
use base64_simd::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::Message;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, raw};
use crate::support::clients::raw::Raw;
use crate::support::clients::rest::{Answer, Rest, Version, once, request, whole};
use crate::support::clients::websocket::{Client, handshake};
use crate::support::clients::{grpc, rest};
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::origin::{Origin, answer};
use crate::support::within;
use crate::websocket::upstream_echo;

pub(crate) const SECRET: &str = "a secret that is long enough for SHA-256";
pub(crate) const KEY: &str = "sabir_of-a-program";
const OLD_KEY: &str = "sabir_of-last-year";
pub(crate) const BOOK: &str = "/v1/shelves/1/books/7";
const STREAM: &str = "/library.v1.Library/WatchBooks";
pub(crate) const RPC: &str = "/library.v1.Library/GetBook";

/// Headers to send.
pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A token of the issuer that the tests configure.
pub(crate) fn token_with(changes: &Value) -> String {
    let mut claims = json!({
        "iss": "tests", "aud": "library", "sub": "ada", "exp": now() + 600,
        "scope": "books.read", "roles": ["reader"], "tenant": "t-7",
    });
    let members = claims.as_object_mut().unwrap();
    members.extend(changes.as_object().unwrap().clone());
    let part = |value: &Value| URL_SAFE_NO_PAD.encode_to_string(value.to_string());
    let signed = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "typ": "JWT"})),
        part(&claims)
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode_to_string(tag.as_ref()))
}

pub(crate) fn token() -> String {
    token_with(&json!({}))
}

pub(crate) fn sha256(key: &str) -> String {
    let digest = digest::digest(&digest::SHA256, key.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A backend that answers every call with an empty message, and what it saw.
pub(crate) async fn backend() -> (Backend, Arc<Mutex<Vec<HeaderMap>>>) {
    let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
    let seeing = Arc::clone(&seen);
    let backend = raw(
        move |request: Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>| {
            seeing.lock().push(request.headers().clone());
            async move {
                // A client that has left is no failure of the test.
                if let Ok(mut stream) = answer.send_response(grpc_head(), false) {
                    let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
                    let _ = stream.send_trailers(grpc_trailers("0"));
                }
            }
        },
    )
    .await;
    (backend, seen)
}

/// A gateway in front of the backend whose route has these lines, and an origin behind `/site`.
async fn gateway(backend: &Backend, origin: &Origin, members: &str, route: &str) -> (Gateway, TempDir) {
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys.yaml");
    std::fs::write(
        &keys,
        format!(
            "keys:\n  - {{label: program, sha256: {}, scopes: [books.read]}}\n  - {{label: old, sha256: {}, expires: 2020-01-01}}\n",
            sha256(KEY),
            sha256(OLD_KEY)
        ),
    )
    .unwrap();
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
  site: {{protocol: rest, endpoints: [\"http://{}\"]}}
routes:
  - services: [\"*\"]
    backend: library
    auth: members
{route}
  - path: /site/**
    backend: site
    auth: members
auth:
  members:
    jwt: {{issuer: tests, audiences: [library], secret: \"{SECRET}\"}}
    api_keys: {{file: {}, header: x-api-key, cookie: session}}
{members}
",
        backend.address,
        origin.address,
        keys.display()
    );
    (Gateway::with_config(&yaml).await, folder)
}

pub(crate) async fn site() -> Origin {
    Origin::start(|_| answer(200, "text/plain", "a page".to_owned())).await
}

fn with(mut request: Request<rest::Sending>, headers: &[(&str, &str)]) -> Request<rest::Sending> {
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Request<rest::Sending> {
    with(request(Method::GET, path, ""), headers)
}

pub(crate) fn post(
    path: &str,
    content_type: &str,
    body: &'static [u8],
    headers: &[(&str, &str)],
) -> Request<rest::Sending> {
    let request = Request::post(path).header("content-type", content_type);
    with(request.body(whole(Bytes::from_static(body))).unwrap(), headers)
}

/// A call of `GetBook` in each dialect that has a request and an answer, with these headers.
pub(crate) fn calls(headers: &[(&str, &str)]) -> Vec<(&'static str, Version, Request<rest::Sending>)> {
    let frame: &[u8] = &[0; 5];
    let mut calls = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        calls.push(("rest", version, get(BOOK, headers)));
        calls.push((
            "rest head",
            version,
            with(request(Method::HEAD, BOOK, ""), headers),
        ));
        calls.push((
            "rest rpc path",
            version,
            post(RPC, "application/json; charset=utf-8", b"{}", headers),
        ));
        calls.push((
            "grpc-web",
            version,
            post(RPC, "application/grpc-web+proto", frame, headers),
        ));
        calls.push((
            "grpc-web-text",
            version,
            post(RPC, "application/grpc-web-text", b"AAAAAAA=", headers),
        ));
        let connect = [headers, &[("connect-protocol-version", "1")]].concat();
        calls.push((
            "connect json",
            version,
            post(RPC, "application/json", b"{}", &connect),
        ));
        calls.push((
            "connect proto",
            version,
            post(RPC, "application/proto", b"", &connect),
        ));
        calls.push((
            "connect stream",
            version,
            post(STREAM, "application/connect+proto", frame, &connect),
        ));
        calls.push(("site", version, get("/site/page", headers)));
    }
    let grpc = [headers, &[("te", "trailers")]].concat();
    calls.push((
        "grpc",
        Version::Http2,
        post(RPC, "application/grpc", frame, &grpc),
    ));
    calls
}

pub(crate) async fn send(gateway: &Gateway, version: Version, request: Request<rest::Sending>) -> Answer {
    Rest::connect(gateway.address, version).await.send(request).await
}

/// Whether an answer says that nobody knows who calls, in whatever way its dialect does.
pub(crate) fn is_unauthenticated(answer: &Answer) -> bool {
    answer.tells(401, 16, "unauthenticated")
}

#[tokio::test]
async fn no_dialect_and_no_spelling_gets_around_a_route_with_auth() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let (gateway, _folder) = gateway(&backend, &origin, "", "").await;
    let bearer = format!("Bearer {}", token());
    let forged = {
        let token = token();
        let (signed, _) = token.rsplit_once('.').unwrap();
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode_to_string([0; 32]))
    };
    let expired = format!("Bearer {}", token_with(&json!({"exp": now() - 31})));
    let other = format!("Bearer {}", token_with(&json!({"aud": "elsewhere"})));
    let credentials: Vec<Vec<(&str, &str)>> = vec![
        vec![],
        vec![("authorization", "Bearer")],
        vec![("authorization", "Bearer x.y.z")],
        vec![("authorization", "Basic YWRhOmFkYQ==")],
        vec![("authorization", &forged)],
        vec![("authorization", &expired)],
        vec![("authorization", &other)],
        vec![("authorization", &bearer), ("authorization", &bearer)],
        vec![("x-api-key", "sabir_of-nobody")],
        vec![("x-api-key", OLD_KEY)],
        vec![("x-api-key", KEY), ("x-api-key", KEY)],
        vec![("cookie", "session=nobody")],
        vec![("cookie", "Session=sabir_of-a-program")],
        vec![("grpc-metadata-authorization", &bearer)],
        vec![("proxy-authorization", &bearer)],
        vec![("x-sabir-principal", "ada"), ("x-sabir-auth", "jwt")],
        vec![
            ("x-forwarded-user", "ada"),
            ("x-original-url", "/public"),
            ("x-rewrite-url", "/public"),
        ],
        vec![
            ("x-http-method-override", "OPTIONS"),
            ("x-forwarded-for", "127.0.0.1"),
        ],
        vec![("connection", "authorization")],
    ];
    for headers in &credentials {
        for (name, version, call) in calls(headers) {
            let answer = send(&gateway, version, call).await;
            assert!(is_unauthenticated(&answer), "{name} {headers:?}: {answer:?}");
        }
        let refused = Client::ask(gateway.address, handshake(gateway.address, BOOK, headers)).await;
        let Err(refused) = refused else {
            panic!("a WebSocket was opened with {headers:?}")
        };
        assert!(
            matches!(refused.status().as_u16(), 401 | 403),
            "{headers:?}: {refused:?}"
        );
        let refused = Client::connect(gateway.address, RPC, headers).await;
        let Err(refused) = refused else {
            panic!("a WebSocket was opened with {headers:?}")
        };
        assert!(
            matches!(refused.status().as_u16(), 401 | 403),
            "{headers:?}: {refused:?}"
        );
    }
    // Every spelling of a path either leads to the gate or nowhere.
    let in_query = format!("{BOOK}?access_token={}", token());
    for path in [
        BOOK,
        "/v1/shelves/1/books/%37",
        "/v1/shelves/%31/books/7",
        "/v1/%73helves/1/books/7",
        "/v1/shelves/1/books/7/",
        "//v1/shelves/1/books/7",
        "/v1//shelves/1/books/7",
        "/v1/./shelves/1/books/7",
        "/v1/x/../shelves/1/books/7",
        "/public/../v1/shelves/1/books/7",
        "/v1/shelves/1/books/7;x=1",
        "/V1/shelves/1/books/7",
        "/v1/shelves/1%2Fbooks/7",
        "/v1/shelves/1/books/7?key=x&alt=media",
        "/library.v1.Library/GetBook?connect=v1&encoding=json&message=%7B%7D",
        "/library.v1.Library//GetBook",
        "/library.v1.Library%2FGetBook",
        "/site/page",
        "/site/../site/page",
        "/site//page",
        "/site/%70age",
        "/site/..%2Fsite/page",
        "/site",
        &in_query,
    ] {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get",
        ] {
            let text = format!(
                "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let answer = Raw::exchange(gateway.address, &text).await;
            let status = answer.get(9..12).unwrap_or_default().to_owned();
            assert!(
                ["400", "401", "404", "405", "415", "501"].contains(&status.as_str()),
                "{method} {path}: {answer}"
            );
        }
        // Nor does another version of HTTP, or another protocol, whichever way it is asked for.
        for upgrade in [
            "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
            "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__",
        ] {
            let text = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{upgrade}\r\n\r\n");
            let mut socket = Raw::connect(gateway.address).await;
            socket.write(&text).await;
            let answer = socket.until("\r\n\r\n").await;
            let status = answer.get(9..12).unwrap_or_default().to_owned();
            assert!(
                ["400", "401", "403", "404", "405", "415", "501"].contains(&status.as_str()),
                "{upgrade} {path}: {answer}"
            );
        }
        if path.parse::<http::Uri>().is_ok() {
            let answer = send(&gateway, Version::Http2, get(path, &[])).await;
            let status = answer.status.as_u16();
            assert!(
                [400, 401, 404, 405, 415, 501].contains(&status),
                "{path} over HTTP/2: {answer:?}"
            );
            let opened = Client::connect(gateway.address, path, &[]).await;
            let Err(refused) = opened else {
                panic!("a WebSocket was opened by CONNECT at {path}");
            };
            assert!(
                refused.status().is_client_error() || refused.status() == 501,
                "{path}: {refused:?}"
            );
        }
    }
    // An absolute URL and another host are the same route.
    let text = format!(
        "GET http://other.example{BOOK} HTTP/1.1\r\nhost: other.example\r\nconnection: close\r\n\r\n"
    );
    let answer = Raw::exchange(gateway.address, &text).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert_eq!(
        (backend.begun(), seen.lock().len()),
        (0, 0),
        "nothing went upstream"
    );
    assert!(origin.seen().is_empty(), "nothing was relayed");
}

#[tokio::test]
async fn whoever_proves_who_it_is_is_let_in_and_told_to_the_backend() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let members = "    forward_claims: [tenant]";
    let (gateway, _folder) = gateway(&backend, &origin, members, "").await;
    let bearer = format!("Bearer {}", token());
    let lies = [
        ("x-sabir-principal", "root"),
        ("x-sabir-roles", "owner"),
        ("x-sabir-anything", "1"),
        ("grpc-metadata-authorization", "Bearer other"),
        ("grpc-metadata-x-sabir-principal", "root"),
    ];
    let ways: [(Headers<'_>, &str, &str); 3] = [
        (&[("authorization", &bearer)], "ada", "jwt"),
        (&[("x-api-key", KEY)], "program", "api_key"),
        (
            &[("cookie", "a=b; session=sabir_of-a-program; c=d")],
            "program",
            "api_key",
        ),
    ];
    for (credential, principal, source) in ways {
        for (name, version, call) in calls(&[credential, &lies].concat()) {
            seen.lock().clear();
            let answer = send(&gateway, version, call).await;
            assert_eq!(answer.status, 200, "{name} {credential:?}: {answer:?}");
            let headers = match name {
                "site" => origin.seen().pop().unwrap().headers,
                _ => seen.lock().pop().unwrap(),
            };
            let told = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
            assert_eq!(
                (told("x-sabir-principal"), told("x-sabir-auth")),
                (principal, source),
                "{name}"
            );
            assert_eq!(headers.get_all("x-sabir-principal").iter().count(), 1, "{name}");
            for absent in ["authorization", "x-api-key", "x-sabir-anything"] {
                assert!(!headers.contains_key(absent), "{name}: {headers:?}");
            }
            if source == "jwt" {
                let facts = [
                    "x-sabir-issuer",
                    "x-sabir-scopes",
                    "x-sabir-roles",
                    "x-sabir-claim-tenant",
                ];
                assert_eq!(
                    facts.map(told),
                    ["tests", "books.read", "reader", "t-7"],
                    "{name}"
                );
            } else {
                assert_eq!(told("x-sabir-roles"), "", "{name}");
            }
            assert!(!told("cookie").contains("session"), "{name}: {headers:?}");
            if credential[0].0 == "cookie" && name != "grpc" {
                assert_eq!(told("cookie"), "a=b; c=d", "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_says_why_and_how_to_do_better() {
    let (backend, _seen) = backend().await;
    let origin = site().await;
    let (gateway, _folder) = gateway(&backend, &origin, "", "").await;
    let expired = format!("Bearer {}", token_with(&json!({"exp": 1})));
    let table: [(Headers<'_>, &str, &str, &str); 5] = [
        (
            &[],
            "CREDENTIALS_MISSING",
            "Authorization: Bearer",
            "Bearer realm=\"members\"",
        ),
        (
            &[("authorization", &expired)],
            "CREDENTIALS_EXPIRED",
            "the token has expired",
            "error=\"invalid_token\", error_description=\"the token has expired\"",
        ),
        (
            &[("authorization", "Bearer a.b")],
            "CREDENTIALS_INVALID",
            "2 parts",
            "error=\"invalid_token\"",
        ),
        (
            &[("x-api-key", "nobody")],
            "CREDENTIALS_INVALID",
            "not known",
            "ApiKey realm=\"members\"",
        ),
        (
            &[("x-api-key", OLD_KEY)],
            "CREDENTIALS_EXPIRED",
            "has expired",
            "ApiKey realm=\"members\"",
        ),
    ];
    for (headers, reason, message, challenge) in table {
        let answer = once(gateway.address, get(BOOK, headers)).await;
        assert_eq!(answer.reason(), reason);
        assert!(answer.error(401, 16).contains(message), "{answer:?}");
        let challenges: Vec<_> = answer
            .headers
            .get_all("www-authenticate")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert!(challenges.join("\n").contains(challenge), "{challenges:?}");
        // The record has the reason and no credential.
        let line = gateway.says(&format!("\"reason\":\"{reason}\"")).await;
        assert!(line.contains("\"http_status\":401"), "{line}");
    }
    let error = grpc::unary(gateway.address, &RPC[1..], Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unauthenticated);
    assert!(String::from_utf8_lossy(error.details()).contains("CREDENTIALS_MISSING"));
    let metrics = once(gateway.admin, get("/metrics", &[])).await;
    assert!(
        metrics.text().contains("CREDENTIALS_EXPIRED"),
        "{}",
        metrics.text()
    );
    for secret in [SECRET, KEY, OLD_KEY, "eyJ"] {
        assert!(!gateway.said().contains(secret), "{secret} is in the log");
    }
}

#[tokio::test]
async fn rules_let_in_by_method_and_deny_what_they_do_not_speak_of() {
    let (backend, _seen) = backend().await;
    let origin = site().await;
    let route = "    authorize:
      - {methods: [\"library.v1.Library/GetBook\"], scopes: [books.read]}
      - {methods: [\"library.v1.Library/*\"], scopes: {any: [books.write, admin]}, claims: {tenant: [t-7, t-8]}}";
    let (gateway, _folder) = gateway(&backend, &origin, "", route).await;
    let reader = format!("Bearer {}", token());
    let writer = format!("Bearer {}", token_with(&json!({"scope": "books.write"})));
    let stranger = format!(
        "Bearer {}",
        token_with(&json!({"scope": "books.write", "tenant": "t-9"}))
    );
    let ask = async |path: &str, credential: &str| {
        let call = post(
            path,
            "application/json; charset=utf-8",
            b"{}",
            &[("authorization", credential)],
        );
        once(gateway.address, call).await
    };
    for (path, credential, let_in) in [
        (RPC, &reader, true),
        (RPC, &writer, true),
        (RPC, &stranger, false),
        ("/library.v1.Library/DeleteBook", &reader, false),
        ("/library.v1.Library/DeleteBook", &writer, true),
        ("/library.v1.Library/DeleteBook", &stranger, false),
        ("/library.v1.Probe/Echo", &writer, false),
    ] {
        let answer = ask(path, credential).await;
        if let_in {
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
        } else {
            answer.error(403, 7);
            assert_eq!(answer.reason(), "PERMISSION_DENIED", "{path}");
        }
    }
    let denied = ask("/library.v1.Library/DeleteBook", &reader).await;
    assert_eq!(
        denied.header("www-authenticate"),
        "Bearer realm=\"members\", error=\"insufficient_scope\", scope=\"books.write\", error_description=\"no rule of \
         this route lets this caller do that; it takes the scope books.write\""
    );
}

#[tokio::test]
async fn pages_of_others_do_not_call_with_the_cookies_of_their_visitors() {
    let (backend, _seen) = backend().await;
    let origin = site().await;
    let route = "    cors: {origins: [\"https://app.example.com\"], credentials: true}";
    let (gateway, _folder) = gateway(&backend, &origin, "", route).await;
    let cookie = ("cookie", "session=sabir_of-a-program");
    for (headers, status) in [
        (vec![], 200),
        (vec![("origin", "http://localhost")], 200),
        (vec![("origin", "https://app.example.com")], 200),
        (vec![("sec-fetch-site", "same-origin")], 200),
        (vec![("origin", "https://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("origin", "http://localhost.evil.example")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
    ] {
        let answer = once(gateway.address, get(BOOK, &[&headers[..], &[cookie]].concat())).await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        // What a page sends by its own script is no ambient credential.
        let answer = once(
            gateway.address,
            get(BOOK, &[&headers[..], &[("x-api-key", KEY)]].concat()),
        )
        .await;
        assert_eq!(answer.status, 200, "{headers:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_socket_proves_who_it_is_by_a_subprotocol_and_ends_with_the_token() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let (gateway, _folder) = gateway(&backend, &origin, "", "").await;
    let encoded = URL_SAFE_NO_PAD.encode_to_string(token());
    let protocols = format!("sabir.v1.json, bearer.{encoded}");
    let mut client = Client::with(gateway.address, BOOK, &protocols, &[]).await;
    assert_eq!(client.head.headers()["sec-websocket-protocol"], "sabir.v1.json");
    let _ = client.next().await;
    let headers = within("the call", async {
        loop {
            if let Some(headers) = seen.lock().pop() {
                return headers;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(headers["x-sabir-principal"], "ada");
    assert!(!headers.contains_key("authorization"));
    // With the leeway, this one has a second or two left; the call waits for a message that never comes.
    let short = URL_SAFE_NO_PAD.encode_to_string(token_with(&json!({"exp": now() - 28})));
    let protocols = format!("sabir.v1.json, bearer.{short}");
    let mut client = Client::with(gateway.address, "/library.v1.Library/GetBook", &protocols, &[]).await;
    let status = client.hear().await;
    assert_eq!(status["$status"]["code"], 16, "{status}");
    match client.next().await {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1008, "{frame:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_relayed_socket_passes_the_same_gate_and_ends_with_the_token() {
    let (address, mut handshakes) = upstream_echo().await;
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  live: {{protocol: websocket, endpoints: [\"ws://{address}/\"]}}
routes:
  - path: /live/**
    backend: live
    auth: members
auth:
  members:
    jwt: {{issuer: tests, audiences: [library], secret: \"{SECRET}\"}}
"
    ))
    .await;
    let forged = format!("Bearer {}x", token());
    let refused: [Headers<'_>; 3] = [
        &[],
        &[("authorization", &forged)],
        &[
            ("x-sabir-principal", "ada"),
            ("sec-websocket-protocol", "bearer.eA"),
        ],
    ];
    for headers in refused {
        let by_upgrade = Client::ask(gateway.address, handshake(gateway.address, "/live/a", headers)).await;
        assert_eq!(
            by_upgrade.err().map(|no| no.status().as_u16()),
            Some(401),
            "{headers:?}"
        );
        let by_connect = Client::connect(gateway.address, "/live/a", headers).await;
        assert_eq!(
            by_connect.err().map(|no| no.status().as_u16()),
            Some(401),
            "{headers:?}"
        );
    }
    assert!(
        handshakes.try_recv().is_err(),
        "a refused client reached the upstream"
    );
    for http2 in [false, true] {
        // With the leeway, this one has a second or two left.
        let bearer = format!("Bearer {}", token_with(&json!({"exp": now() - 28})));
        let headers = [("authorization", bearer.as_str()), ("x-sabir-principal", "root")];
        let mut client = if http2 {
            Client::connect(gateway.address, "/live/a", &headers)
                .await
                .unwrap()
        } else {
            Client::with(gateway.address, "/live/a", "", &headers).await
        };
        let seen = within("the handshake", handshakes.recv()).await.unwrap();
        assert_eq!(seen.headers()["x-sabir-principal"], "ada");
        assert!(!seen.headers().contains_key("authorization"));
        client.send(Message::text("hello")).await;
        assert_eq!(client.next().await, Message::text("hello"));
        match client.next().await {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1008, "{frame:?}"),
            other => panic!("{other:?}"),
        }
    }
}
