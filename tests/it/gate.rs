//! Callers about whom somebody else is asked, or whose proof is slow to check: passwords, opaque tokens, authorization
//! services, tickets. Those who wait keep nobody else waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64_simd::URL_SAFE_NO_PAD;
use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use http::{HeaderMap, Method, Request, StatusCode};
use parking_lot::Mutex;
use prost::Message as _;
use serde_json::json;
use tempfile::TempDir;

use crate::auth::{
    BOOK, Headers, KEY, RPC, SECRET, backend, calls, get, is_unauthenticated, now, post, send, sha256, site,
    token_with,
};
use crate::support::backends::{Backend, grpc_head, grpc_trailers, messages, raw};
use crate::support::clients::rest::{Rest, Version, once, request};
use crate::support::clients::websocket::{Client, handshake};
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::origin::{Answering, Origin, answer, json as in_json};
use crate::support::within;
use tokio_tungstenite::tungstenite::Message;

/// A gateway whose one `auth` block has these lines; `/open/**` is open to anybody.
async fn gateway(backend: &Backend, origin: &Origin, members: &str) -> Gateway {
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
  site: {{protocol: rest, endpoints: [\"http://{}\"]}}
routes:
  - {{services: [\"*\"], backend: library, auth: members}}
  - {{path: /site/**, backend: site, auth: members}}
  - {{path: /open/**, backend: site}}
auth:
  members:
{members}
",
        backend.address, origin.address,
    );
    Gateway::with_config(&yaml).await
}

fn basic(name: &str, password: &str) -> String {
    format!(
        "Basic {}",
        base64_simd::STANDARD.encode_to_string(format!("{name}:{password}"))
    )
}

fn told<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn a_name_and_a_password_let_in_whoever_has_them() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("users");
    // Made by `htpasswd -nbB -C 4` and by argon2 with little memory.
    let hash = bcrypt::hash("open sesame", 4).unwrap();
    std::fs::write(&file, format!("# people\nada:{}\n", hash.replace("$2b$", "$2y$"))).unwrap();
    let members = format!("    basic: {{file: {}}}", file.display());
    let gateway = gateway(&backend, &origin, &members).await;
    let good = basic("ada", "open sesame");
    for (name, version, call) in calls(&[("authorization", &good)]) {
        let answer = send(&gateway, version, call).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        let headers = match name {
            "site" => origin.last().headers,
            _ => seen.lock().pop().unwrap(),
        };
        assert_eq!(
            (
                told(&headers, "x-sabir-principal"),
                told(&headers, "x-sabir-auth")
            ),
            ("ada", "basic"),
            "{name}"
        );
        assert!(!headers.contains_key("authorization"), "{name}");
    }
    for wrong in [
        basic("ada", "open sesame "),
        basic("Ada", "open sesame"),
        basic("eve", "open sesame"),
        "Basic !".to_owned(),
        "Basic".to_owned(),
        good.replace("Basic ", "Bearer "),
        String::new(),
    ] {
        let answer = once(gateway.address, get(BOOK, &[("authorization", &wrong)])).await;
        answer.error(401, 16);
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, "Basic realm=\"members\", charset=\"UTF-8\"", "{wrong}");
    }
    let before = backend.begun();
    for credential in [&[][..], &[("authorization", &*basic("ada", "sesame"))]] {
        for (name, version, call) in calls(credential) {
            let answer = send(&gateway, version, call).await;
            assert!(is_unauthenticated(&answer), "{name} {credential:?}: {answer:?}");
        }
    }
    assert_eq!(backend.begun(), before, "nothing went upstream");
    // A browser sends it by itself, whoever wrote the page.
    let foreign = [
        ("authorization", good.as_str()),
        ("origin", "https://evil.example"),
    ];
    let answer = once(gateway.address, get(BOOK, &foreign)).await;
    assert_eq!(answer.reason(), "ORIGIN_DENIED");
    assert!(!gateway.said().contains("sesame") && !gateway.said().contains(&good[6..]));
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_keeps_nobody_else_waiting() {
    let (backend, _seen) = backend().await;
    let origin = site().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("users");
    // Of a cost at which the flood takes a second or more, on one thread.
    std::fs::write(
        &file,
        format!("ada:{}\n", bcrypt::hash("open sesame", 10).unwrap()),
    )
    .unwrap();
    let members = format!("    basic: {{file: {}}}", file.display());
    let gateway = gateway(&backend, &origin, &members).await;
    let good = basic("ada", "open sesame");
    let known = once(gateway.address, get(BOOK, &[("authorization", &good)])).await;
    assert_eq!(known.status, 200, "{known:?}");
    let over = Arc::new(AtomicUsize::new(0));
    let flood: Vec<_> = (0..40)
        .map(|number| {
            let (address, over) = (gateway.address, Arc::clone(&over));
            let wrong = basic(
                if number % 2 == 0 { "ada" } else { "nobody" },
                &number.to_string(),
            );
            tokio::spawn(async move {
                let answer = once(address, get(BOOK, &[("authorization", &wrong)])).await;
                over.fetch_add(1, Ordering::Relaxed);
                answer.status
            })
        })
        .collect();
    let mut open = Rest::connect(gateway.address, Version::Http1).await;
    for _ in 0..20 {
        assert_eq!(open.get("/open/page").await.status, 200);
        // Whoever was let in before is not made to wait for a seat.
        let call = get(BOOK, &[("authorization", &good)]);
        assert_eq!(open.send(call).await.status, 200);
    }
    assert!(
        over.load(Ordering::Relaxed) < 40,
        "they did not have to wait for the flood"
    );
    for one in flood {
        assert_eq!(within("the flood", one).await.unwrap(), StatusCode::UNAUTHORIZED);
    }
}

/// An issuer of opaque tokens, which counts the questions.
async fn issuer() -> Origin {
    Origin::start(|asked| {
        assert!(asked.line.starts_with("POST /introspect"), "{}", asked.line);
        assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded");
        let pair = asked.header("authorization").strip_prefix("Basic ").unwrap();
        let pair = base64_simd::STANDARD.decode_to_vec(pair).unwrap();
        assert_eq!(pair, b"gateway:p%3Aw");
        let form = String::from_utf8(asked.body.to_vec()).unwrap();
        let token = form.strip_prefix("token=").unwrap().split('&').next().unwrap();
        match token {
            "of-ada" => in_json(&json!({
                "active": true, "sub": "ada", "scope": "books.read", "iss": "https://id.example.com",
                "exp": now() + 600, "tenant": "t-7",
            })),
            "a%2Fb%2Bc%3D%3D" => in_json(&json!({"active": true, "username": "odd"})),
            "garbage" => answer(200, "application/json", "{\"active\": true, \"active\": true}"),
            "broken" => answer(500, "", ""),
            _ => in_json(&json!({"active": false})),
        }
    })
    .await
}

#[tokio::test]
async fn an_opaque_token_is_asked_about_once_whoever_brings_it() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let issuer = issuer().await;
    let members = format!(
        "    introspection: {{url: \"http://{}/introspect\", client_id: gateway, client_secret: \"p:w\"}}\n    forward_claims: [tenant]",
        issuer.address
    );
    let gateway = gateway(&backend, &origin, &members).await;
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        once(gateway.address, get(BOOK, &[("authorization", &bearer)])).await
    };
    let at_once = join_all((0..20).map(|_| ask("of-ada"))).await;
    assert!(at_once.iter().all(|answer| answer.status == 200), "{at_once:?}");
    for (name, version, call) in calls(&[("authorization", "Bearer of-ada")]) {
        assert_eq!(send(&gateway, version, call).await.status, 200, "{name}");
    }
    assert_eq!(issuer.seen().len(), 1, "one question for all of them");
    let headers = seen.lock().pop().unwrap();
    assert_eq!(
        [
            "x-sabir-principal",
            "x-sabir-auth",
            "x-sabir-scopes",
            "x-sabir-claim-tenant"
        ]
        .map(|name| told(&headers, name)),
        ["ada", "introspection", "books.read", "t-7"]
    );
    assert_eq!(ask("a/b+c==").await.status, 200);
    for _ in 0..3 {
        let answer = ask("of-nobody").await;
        answer.error(401, 16);
        assert!(
            answer.header("www-authenticate").contains("invalid_token"),
            "{answer:?}"
        );
    }
    assert_eq!(issuer.seen().len(), 3, "a no is remembered too");
    // What can't be a token is not asked about.
    let long = "x".repeat(8193);
    for nonsense in ["", "a b", "=", &long] {
        ask(nonsense).await.error(401, 16);
    }
    assert_eq!(issuer.seen().len(), 3);
    for token in ["garbage", "broken"] {
        let answer = ask(token).await;
        answer.error(503, 14);
        assert_eq!(answer.reason(), "IDENTITY_UNAVAILABLE");
        assert_eq!(answer.header("retry-after"), "1");
    }
    gateway.says("who calls can't be checked").await;
    assert!(!gateway.said().contains("of-ada") && !gateway.said().contains("p:w"));
}

// What the authorization service of these tests reads and writes, by the numbers of Envoy's API.

#[derive(Clone, PartialEq, prost::Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attributes {
    #[prost(message, optional, tag = "4")]
    request: Option<AskedAbout>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AskedAbout {
    #[prost(message, optional, tag = "2")]
    http: Option<Http>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Http {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: std::collections::HashMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<Number>,
    #[prost(message, optional, tag = "2")]
    denied: Option<Denied>,
    #[prost(message, optional, tag = "3")]
    ok: Option<Allowed>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Number {
    #[prost(int32, tag = "1")]
    number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Denied {
    #[prost(message, optional, tag = "1")]
    status: Option<Number>,
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, tag = "3")]
    body: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Allowed {
    #[prost(message, repeated, tag = "2")]
    headers: Vec<HeaderOption>,
    #[prost(string, repeated, tag = "5")]
    headers_to_remove: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeaderOption {
    #[prost(message, optional, tag = "1")]
    header: Option<Pair>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Pair {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

fn pair(key: &str, value: &str) -> HeaderOption {
    HeaderOption {
        header: Some(Pair {
            key: key.to_owned(),
            value: value.to_owned(),
        }),
    }
}

/// An authorization service over gRPC that knows one team; what it was asked is kept.
async fn envoy_service() -> (Backend, Arc<Mutex<Vec<Http>>>) {
    let asked: Arc<Mutex<Vec<Http>>> = Arc::default();
    let keep = Arc::clone(&asked);
    let service = raw(
        move |request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>| {
            let keep = Arc::clone(&keep);
            async move {
                assert_eq!(request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
                let mut asked = Box::pin(messages(request.into_body()));
                let message = asked.next().await.unwrap().unwrap();
                let about = CheckRequest::decode(message).unwrap();
                let http = about.attributes.unwrap().request.unwrap().http.unwrap();
                keep.lock().push(http.clone());
                let team = http.headers.get("x-team").cloned().unwrap_or_default();
                let response = match team.as_str() {
                    "a" => CheckResponse {
                        status: Some(Number { number: 0 }),
                        denied: None,
                        ok: Some(Allowed {
                            headers: vec![
                                pair("x-user", "ada"),
                                pair("x-sabir-principal", "root"),
                                pair("host", "elsewhere"),
                            ],
                            headers_to_remove: vec!["x-secret".to_owned()],
                        }),
                    },
                    "never" => return std::future::pending().await,
                    _ => CheckResponse {
                        status: Some(Number { number: 7 }),
                        denied: Some(Denied {
                            status: Some(Number { number: 401 }),
                            headers: vec![pair("x-why", "no team"), pair("www-authenticate", "Team")],
                            body: "which team?".to_owned(),
                        }),
                        ok: None,
                    },
                };
                let mut framed = BytesMut::from(&[0; 1][..]);
                let encoded = response.encode_to_vec();
                framed.extend_from_slice(&u32::try_from(encoded.len()).unwrap().to_be_bytes());
                framed.extend_from_slice(&encoded);
                if let Ok(mut stream) = respond.send_response(grpc_head(), false) {
                    let _ = stream.send_data(framed.copy_to_bytes(framed.len()), false);
                    let _ = stream.send_trailers(grpc_trailers("0"));
                }
            }
        },
    )
    .await;
    (service, asked)
}

#[tokio::test]
async fn an_envoy_authorization_service_decides_in_every_dialect() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let (service, asked) = envoy_service().await;
    let members = format!(
        "    ext_authz: {{grpc: \"http://{}\", principal_header: x-user}}",
        service.address
    );
    let gateway = gateway(&backend, &origin, &members).await;
    let lies: Headers<'_> = &[
        ("x-team", "a"),
        ("x-user", "eve"),
        ("x-secret", "s"),
        ("x-sabir-principal", "eve"),
        ("x-forwarded-for", "127.0.0.9"),
    ];
    for (name, version, call) in calls(lies) {
        let answer = send(&gateway, version, call).await;
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        let headers = match name {
            "site" => origin.last().headers,
            _ => seen.lock().pop().unwrap(),
        };
        let facts =
            ["x-user", "x-sabir-principal", "x-sabir-auth", "x-secret"].map(|name| told(&headers, name));
        assert_eq!(facts, ["ada", "ada", "ext_authz", ""], "{name}");
        let about = asked.lock().pop().unwrap();
        assert!(
            !about.headers.contains_key("x-sabir-principal"),
            "{name}: {about:?}"
        );
        assert_eq!(about.headers["x-forwarded-for"], "127.0.0.1", "{name}");
        assert!(
            !about.method.is_empty() && about.path.starts_with('/'),
            "{about:?}"
        );
    }
    let before = backend.begun();
    for (name, version, call) in calls(&[("x-team", "b"), ("x-user", "ada")]) {
        let answer = send(&gateway, version, call).await;
        let text = String::from_utf8_lossy(&answer.body);
        let message = percent(
            answer
                .headers
                .get("grpc-message")
                .or_else(|| answer.trailers.get("grpc-message")),
        );
        if name.starts_with("rest") || name == "site" {
            assert_eq!(answer.status, 401, "{name}: {answer:?}");
            assert_eq!(answer.header("x-why"), "no team", "{name}");
            assert_eq!(answer.header("www-authenticate"), "Team", "{name}");
            assert!(name == "rest head" || text == "which team?", "{name}: {answer:?}");
        } else if name != "grpc-web-text" {
            assert!(
                text.contains("which team") || message.contains("which team"),
                "{name}: {answer:?}"
            );
        }
    }
    let refused = Client::ask(gateway.address, handshake(gateway.address, BOOK, &[])).await;
    assert_eq!(refused.err().unwrap().status(), 401);
    assert_eq!(backend.begun(), before, "nothing went upstream");
    // A service that says nothing is no yes, and it keeps nobody else waiting.
    let waiting = once(gateway.address, get(BOOK, &[("x-team", "never")]));
    let open = once(gateway.address, get("/open/page", &[]));
    let (waited, open) = tokio::join!(waiting, open);
    assert_eq!(open.status, 200);
    waited.error(503, 14);
    assert_eq!(waited.reason(), "IDENTITY_UNAVAILABLE");
}

/// A header value with its escapes read.
fn percent(value: Option<&http::HeaderValue>) -> String {
    let text = value.map_or("", |value| value.to_str().unwrap());
    text.replace("%3F", "?").replace("%20", " ")
}

/// A forward-auth service that knows one cookie.
fn forward_auth(asked: &crate::support::origin::Seen) -> http::Response<Answering> {
    match asked.header("cookie") {
        "team=a" => {
            let mut response = answer(204, "", "");
            let headers = response.headers_mut();
            headers.insert("x-user", "ada".parse().unwrap());
            headers.insert("x-internal", "secret".parse().unwrap());
            response
        }
        "team=broken" => answer(502, "text/plain", "oops"),
        "team=b" => answer(403, "application/json", "{\"why\": \"team b\"}"),
        _ => {
            let mut response = answer(302, "text/html", "<a href=\"/login\">");
            let headers = response.headers_mut();
            headers.insert("location", "https://id.example.com/login".parse().unwrap());
            headers.insert("set-cookie", "state=1".parse().unwrap());
            response
        }
    }
}

#[tokio::test]
async fn a_forward_auth_service_decides_and_is_not_asked_twice() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let service = Origin::start(forward_auth).await;
    let members = format!(
        "    ext_authz:\n      http: \"http://{}/verify?app=1\"\n      upstream_headers: [x-user, x-groups]\n      cache: {{ttl: 60s, headers: [cookie]}}",
        service.address
    );
    let gateway = gateway(&backend, &origin, &members).await;
    let lies = [("cookie", "team=a"), ("x-user", "eve"), ("x-groups", "owners")];
    for _ in 0..3 {
        let answer = once(gateway.address, get("/v1/shelves/1/books/7?view=1", &lies)).await;
        // The query parameter is no field, and the request has passed the gate.
        answer.error(400, 3);
        let answer = once(gateway.address, get(BOOK, &lies)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let headers = seen.lock().pop().unwrap();
        let facts = ["x-user", "x-groups", "x-internal"].map(|name| told(&headers, name));
        assert_eq!(facts, ["ada", "", ""]);
    }
    let asked = service.seen();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0].line, "GET /verify?app=1");
    let facts = [
        "x-forwarded-method",
        "x-forwarded-uri",
        "x-forwarded-for",
        "x-user",
    ];
    assert_eq!(
        facts.map(|name| asked[1].header(name)),
        ["GET", BOOK, "127.0.0.1", ""]
    );
    let login = once(gateway.address, get(BOOK, &[])).await;
    assert_eq!(login.status, 302, "{login:?}");
    assert_eq!(login.header("location"), "https://id.example.com/login");
    assert_eq!(login.header("set-cookie"), "state=1");
    let denied = once(gateway.address, get(BOOK, &[("cookie", "team=b")])).await;
    assert_eq!(
        (denied.status.as_u16(), denied.text()),
        (403, "{\"why\": \"team b\"}")
    );
    // Other dialects are told in their own way.
    for (cookie, code) in [("team=b", "7"), ("team=c", "16"), ("team=broken", "14")] {
        let call = post(
            RPC,
            "application/grpc",
            &[0; 5],
            &[("te", "trailers"), ("cookie", cookie)],
        );
        let answer = send(&gateway, Version::Http2, call).await;
        assert_eq!(answer.grpc_status(), Some(code), "{cookie}: {answer:?}");
    }
    let broken = once(gateway.address, get(BOOK, &[("cookie", "team=broken")])).await;
    broken.error(503, 14);
}

#[tokio::test]
async fn without_an_answer_a_request_passes_only_where_that_was_asked_for() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    // A port that was free a moment ago, and that nobody listens on.
    let nobody = Origin::start(forward_auth).await.address;
    for (on_failure, status) in [("deny", 503), ("allow", 200)] {
        let members = format!(
            "    ext_authz: {{http: \"http://{nobody}/\", on_failure: {on_failure}, upstream_headers: [x-user]}}"
        );
        let gateway = gateway(&backend, &origin, &members).await;
        for _ in 0..3 {
            let answer = once(gateway.address, get(BOOK, &[("x-user", "eve")])).await;
            assert_eq!(answer.status, status, "{answer:?}");
        }
        while let Some(headers) = seen.lock().pop() {
            assert_eq!(told(&headers, "x-user"), "", "nobody vouched for it");
        }
    }
}

#[tokio::test]
async fn a_ticket_opens_one_socket_and_an_api_key_as_a_subprotocol_any_number() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys.yaml");
    std::fs::write(
        &keys,
        format!("keys: [{{label: program, sha256: {}}}]", sha256(KEY)),
    )
    .unwrap();
    let members = format!(
        "    api_keys: {{file: {}}}\n    tickets: {{path: /tickets, ttl: 60s}}",
        keys.display()
    );
    let gateway = gateway(&backend, &origin, &members).await;
    let take = async || {
        let call = post("/tickets", "application/json", b"{}", &[("x-api-key", KEY)]);
        let answer = once(gateway.address, call).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.json()["expires_in"], 60);
        answer.json()["ticket"].as_str().unwrap().to_owned()
    };
    once(gateway.address, request(Method::POST, "/tickets", ""))
        .await
        .error(401, 16);
    let by_get = once(gateway.address, get("/tickets", &[("x-api-key", KEY)])).await;
    by_get.error(405, 12);
    assert_eq!(by_get.header("allow"), "POST");

    let (in_query, in_protocols) = (take().await, take().await);
    let path = format!("{BOOK}?sabir-ticket={in_query}");
    let protocols = format!("sabir.v1.json, ticket.{in_protocols}");
    let key = format!("sabir.v1.json, apikey.{}", URL_SAFE_NO_PAD.encode_to_string(KEY));
    for (path, protocols, again) in [
        (path.as_str(), "sabir.v1.json", false),
        (BOOK, &protocols, false),
        (BOOK, &key, true),
    ] {
        let mut client = Client::with(gateway.address, path, protocols, &[]).await;
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
        assert_eq!(told(&headers, "x-sabir-principal"), "program");
        let handshake = handshake(gateway.address, path, &[("sec-websocket-protocol", protocols)]);
        let second = Client::ask(gateway.address, handshake).await;
        assert_eq!(second.is_ok(), again, "{protocols}");
    }
    // A ticket is no credential anywhere else.
    let unused = take().await;
    let bearer = format!("Bearer {unused}");
    let in_query = format!("{BOOK}?sabir-ticket={unused}");
    for call in [
        get(&in_query, &[]),
        get(BOOK, &[("authorization", &bearer)]),
        get(BOOK, &[("x-api-key", &unused)]),
        get(BOOK, &[("sec-websocket-protocol", &format!("ticket.{unused}"))]),
    ] {
        once(gateway.address, call).await.error(401, 16);
    }
    assert!(!gateway.said().contains(&unused) && !gateway.said().contains(KEY));
}

#[tokio::test]
async fn a_first_message_says_who_calls_where_that_is_wanted() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let jwt = format!("    jwt: {{issuer: tests, audiences: [library], secret: \"{SECRET}\"}}");
    let closed = gateway(&backend, &origin, &jwt).await;
    let protocols = [("sec-websocket-protocol", "sabir.v1.json")];
    let refused = Client::ask(closed.address, handshake(closed.address, RPC, &protocols)).await;
    assert_eq!(refused.err().unwrap().status(), 401, "it is off");

    let gateway = gateway(&backend, &origin, &format!("{jwt}\n    first_message: true")).await;
    for other in ["", "sabir.v1.proto", "grpc-websockets"] {
        let protocols = [("sec-websocket-protocol", other)];
        let headers = if other.is_empty() { &[][..] } else { &protocols[..] };
        let refused = Client::ask(gateway.address, handshake(gateway.address, RPC, headers)).await;
        assert_eq!(refused.err().unwrap().status(), 401, "{other}");
    }
    // What is there and wrong is refused at once.
    let wrong = [
        ("sec-websocket-protocol", "sabir.v1.json"),
        ("authorization", "Bearer x.y.z"),
    ];
    let refused = Client::ask(gateway.address, handshake(gateway.address, RPC, &wrong)).await;
    assert_eq!(refused.err().unwrap().status(), 401);

    let word = |token: &str| json!({"$auth": token}).to_string();
    let expired = token_with(&json!({"exp": now() - 100}));
    for (said, code) in [
        (json!({"name": "x"}).to_string(), 16),
        (json!({"$open": {}}).to_string(), 16),
        (json!({"$auth": 7}).to_string(), 16),
        (word("x.y.z"), 16),
        (word(&expired), 16),
        (word("a\r\nb: c"), 16),
        (word(&"x".repeat(20_000)), 8),
    ] {
        let mut client = Client::open(gateway.address, RPC, "sabir.v1.json").await;
        client.send(Message::text(said.clone())).await;
        let status = client.hear().await;
        assert_eq!(status["$status"]["code"], code, "{said}: {status}");
        match client.next().await {
            Message::Close(Some(frame)) => {
                let expected = if code == 8 { 1009 } else { 1008 };
                assert_eq!(u16::from(frame.code), expected, "{said}: {frame:?}");
            }
            other => panic!("{said}: {other:?}"),
        }
    }
    assert_eq!(backend.begun(), 0, "nothing went upstream");

    // On an rpc path, and where the path says all and the call begins at once.
    for (path, message) in [(RPC, true), (BOOK, false)] {
        let mut client = Client::open(gateway.address, path, "sabir.v1.json").await;
        client.send(Message::text(word(&token_with(&json!({}))))).await;
        if message {
            client.send(Message::text("{}")).await;
        }
        let mut status = client.hear().await;
        while status["$status"].is_null() {
            status = client.hear().await;
        }
        assert_eq!(status["$status"]["code"], 0, "{path}: {status}");
        let headers = seen.lock().pop().unwrap();
        assert_eq!(told(&headers, "x-sabir-principal"), "ada");
        assert!(!headers.contains_key("authorization"));
    }
    // The socket ends with the token here too: with the leeway, this one has a second or two left.
    let mut client = Client::open(gateway.address, RPC, "sabir.v1.json").await;
    client
        .send(Message::text(word(&token_with(&json!({"exp": now() - 28})))))
        .await;
    let status = client.hear().await;
    assert_eq!(status["$status"]["code"], 16, "{status}");
    match client.next().await {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1008, "{frame:?}"),
        other => panic!("{other:?}"),
    }
    assert!(!gateway.said().contains("eyJ"), "a token is in the log");
}
