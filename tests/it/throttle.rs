//! How often callers may call: in every dialect, before a body is read, with what a client needs to know to come back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::support::backends::{Backend, answering, grpc_head, grpc_trailers, messages, raw};
use crate::support::clients::rest::{Answer, Rest, Sending, Version, once, pieces, request, whole};
use crate::support::clients::websocket::{Client, handshake};
use crate::support::gateway::{Gateway, Settings};
use crate::support::messages::DESCRIPTORS;
use crate::support::origin::{Origin, answer};
use crate::support::within;

const BOOK: &str = "/v1/shelves/1/books/7";
const RPC: &str = "/library.v1.Library/GetBook";
const WATCH: &str = "/library.v1.Library/WatchBooks";

/// A backend that answers a call when it is let.
async fn waiting(gate: Arc<Semaphore>) -> Backend {
    raw(
        move |_: Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                if let Ok(mut stream) = answer.send_response(grpc_head(), false) {
                    let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
                    let _ = stream.send_trailers(grpc_trailers("0"));
                }
            }
        },
    )
    .await
}

/// A configuration: the limits, and members of the route, a line each.
fn yaml(backend: &Backend, limits: &str, route: &str, more: &str) -> String {
    format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 2
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
routes:
  - services: [\"*\"]
    backend: library
    {route}
rate_limits:
  {limits}
{more}
",
        backend.address
    )
}

fn with(mut request: Request<Sending>, headers: &[(&str, &str)]) -> Request<Sending> {
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

fn get(path: &str, headers: &[(&str, &str)]) -> Request<Sending> {
    with(request(Method::GET, path, ""), headers)
}

fn post(path: &str, content_type: &str, body: &'static [u8], headers: &[(&str, &str)]) -> Request<Sending> {
    let request = Request::post(path).header("content-type", content_type);
    with(request.body(whole(Bytes::from_static(body))).unwrap(), headers)
}

type Call = (&'static str, Version, Request<Sending>);

/// A call in each dialect that has a request and an answer.
fn calls(headers: &[(&str, &str)]) -> Vec<Call> {
    let frame: &[u8] = &[0; 5];
    let connect = [headers, &[("connect-protocol-version", "1")]].concat();
    let grpc = [headers, &[("te", "trailers")]].concat();
    vec![
        ("rest", Version::Http1, get(BOOK, headers)),
        ("rest", Version::Http2, get(BOOK, headers)),
        (
            "grpc",
            Version::Http2,
            post(RPC, "application/grpc", frame, &grpc),
        ),
        (
            "grpc-web",
            Version::Http1,
            post(RPC, "application/grpc-web+proto", frame, headers),
        ),
        (
            "grpc-web-text",
            Version::Http2,
            post(RPC, "application/grpc-web-text", b"AAAAAAA=", headers),
        ),
        (
            "connect",
            Version::Http1,
            post(RPC, "application/json", b"{}", &connect),
        ),
        (
            "connect",
            Version::Http2,
            post(RPC, "application/proto", b"", &connect),
        ),
        (
            "connect stream",
            Version::Http2,
            post(WATCH, "application/connect+proto", frame, &connect),
        ),
    ]
}

async fn send(gateway: &Gateway, version: Version, request: Request<Sending>) -> Answer {
    Rest::connect(gateway.address, version).await.send(request).await
}

/// Base64 of several pieces, each with padding of its own.
fn segments(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in text.split_inclusive(|letter| *letter == b'=') {
        let bare: Vec<u8> = piece.iter().copied().filter(|letter| *letter != b'=').collect();
        bytes.extend(base64_simd::STANDARD_NO_PAD.decode_to_vec(&bare).unwrap());
    }
    bytes
}

/// The code with which a call ended, in whatever way its dialect says it.
fn code(name: &str, answer: &Answer) -> String {
    let body = match name {
        "grpc-web-text" => segments(&answer.body),
        _ => answer.body.to_vec(),
    };
    let text = String::from_utf8_lossy(&body).into_owned();
    let after = |text: &str, mark: &str| {
        let (_, rest) = text.split_once(mark)?;
        Some(
            rest.chars()
                .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                .collect::<String>(),
        )
    };
    match name {
        "rest" if answer.status.is_success() => "0".to_owned(),
        "rest" => answer.json()["code"].to_string(),
        "grpc" => answer.grpc_status().unwrap_or_default().to_owned(),
        "grpc-web" | "grpc-web-text" => after(&text, "grpc-status: ")
            .or_else(|| after(&text, "grpc-status:"))
            .unwrap_or_default(),
        _ => match after(&text, "\"code\":\"") {
            Some(code) => code,
            None => "0".to_owned(),
        },
    }
}

#[tokio::test]
async fn a_limit_holds_in_every_dialect_and_says_when_to_come_back() {
    let backend = answering().await;
    let limits = "few: {rate: 2/h, burst: 2, key: {header: x-who}}";
    let gateway = Gateway::with_config(&yaml(&backend, limits, "rate_limit: few", "")).await;
    let policy = "\"few\";q=2;w=3600";
    for number in 0..calls(&[]).len() {
        // Each dialect has an account of its own here, which any dialect uses up.
        let who = format!("client-{number}");
        let headers = [("x-who", who.as_str())];
        for left in [1, 0] {
            let (name, version, call) = calls(&headers).swap_remove(number);
            let answer = send(&gateway, version, call).await;
            assert_eq!(code(name, &answer), "0", "{name}: {answer:?}");
            assert_eq!(answer.header("ratelimit-policy"), policy, "{name}: {answer:?}");
            let stands = answer.header("ratelimit").to_owned();
            assert!(
                stands.starts_with(&format!("\"few\";r={left};t=")),
                "{name}: {stands}"
            );
        }
        for (name, version, call) in calls(&headers) {
            let answer = send(&gateway, version, call).await;
            let expected = match name {
                "connect" | "connect stream" => "resource_exhausted",
                _ => "8",
            };
            assert_eq!(code(name, &answer), expected, "{name}: {answer:?}");
            assert_eq!(answer.header("ratelimit-policy"), policy, "{name}");
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!((1790..=1800).contains(&wait), "{name}: {wait}");
            assert_eq!(
                answer.header("ratelimit"),
                format!("\"few\";r=0;t={wait}"),
                "{name}"
            );
            if matches!(name, "rest" | "connect") {
                assert_eq!(answer.status, 429, "{name}");
            }
            if name == "rest" {
                let status = answer.json();
                assert_eq!(status["details"][0]["reason"], "RATE_LIMITED");
                let delay = status["details"][1]["retryDelay"].as_str().unwrap();
                assert!(
                    delay.ends_with('s') && delay.starts_with("17") || delay.starts_with("1800"),
                    "{delay}"
                );
                assert!(status["message"].as_str().unwrap().contains("\"few\""));
            }
            if name == "grpc" {
                let details = answer.headers["grpc-status-details-bin"].to_str().unwrap();
                let bare = details.trim_end_matches('=');
                let details = base64_simd::STANDARD_NO_PAD.decode_to_vec(bare).unwrap();
                let text = String::from_utf8_lossy(&details);
                for part in ["google.rpc.ErrorInfo", "RATE_LIMITED", "google.rpc.RetryInfo"] {
                    assert!(text.contains(part), "{text}");
                }
            }
        }
        // Before the upgrade, over either HTTP.
        let Err(refused) = Client::ask(gateway.address, handshake(gateway.address, BOOK, &headers)).await
        else {
            panic!("a WebSocket was opened")
        };
        assert_eq!(refused.status(), 429);
        assert!(refused.headers().contains_key("retry-after"));
        let Err(refused) = Client::connect(gateway.address, BOOK, &headers).await else {
            panic!("a WebSocket was opened")
        };
        assert_eq!(refused.status(), 429);
    }
    let line = gateway.says("RATE_LIMITED").await;
    assert!(line.contains("few"), "{line}");
    let page = once(gateway.admin, get("/metrics", &[])).await;
    let metrics = page.text();
    assert!(
        metrics.contains("sabir_ratelimit_total{limit=\"few\",decision=\"allowed\"} 16\n"),
        "{metrics}"
    );
    assert!(
        metrics.contains("sabir_ratelimit_total{limit=\"few\",decision=\"refused\"} 80\n"),
        "{metrics}"
    );
    assert!(metrics.contains("reason=\"RATE_LIMITED\""), "{metrics}");
}

#[tokio::test]
async fn weights_quotas_and_bursts_go_together_and_what_was_used_can_be_asked_for() {
    let backend = answering().await;
    let limits = "burst: {rate: 100/h, burst: 9, key: address, weights: {\"library.v1.Library/*\": 2, \"library.v1.Library/GetBook\": 3}}
  daily: {quota: 1000/day, key: global, weights: {\"*\": 10}}";
    let gateway = Gateway::with_config(&yaml(&backend, limits, "rate_limit: [burst, daily]", "")).await;
    let mut connection = Rest::connect(gateway.address, Version::Http2).await;
    let books = || get("/v1/shelves/1/books", &[]);
    for (call, allowed) in [
        (get(BOOK, &[]), true),
        (get(BOOK, &[]), true),
        (books(), true),
        (get(BOOK, &[]), false),
        (books(), false),
    ] {
        let path = call.uri().clone();
        let answer = connection.send(call).await;
        assert_eq!(answer.status == 200, allowed, "{path}: {answer:?}");
        assert!(
            answer
                .header("ratelimit-policy")
                .contains("\"daily\";q=1000;w=86400"),
            "{answer:?}"
        );
    }
    let usage = |query: &'static str| {
        let target = format!("/limits{query}");
        let admin = gateway.admin;
        async move { once(admin, get(&target, &[])).await.json() }
    };
    let all = usage("").await;
    assert_eq!(all["limits"][0]["limit"], "burst");
    assert_eq!(all["limits"][1]["allowed"], 3);
    let daily = usage("?limit=daily").await;
    assert_eq!(
        (&daily["usage"][0]["used"], &daily["usage"][0]["left"]),
        (&json!(30), &json!(970))
    );
    assert!(daily["usage"][0]["reset_seconds"].as_u64().unwrap() <= 86_400);
    let burst = usage("?limit=burst&key=address:127.0.0.1").await;
    assert_eq!(burst["usage"][0]["used"], 8);
    assert_eq!(
        usage("?limit=burst&key=address:192.0.2.1").await["usage"],
        json!([])
    );
    let nothing = once(gateway.admin, get("/limits?limit=other", &[])).await;
    assert_eq!(nothing.status, 404);
}

#[tokio::test]
async fn a_field_of_the_message_tells_callers_apart_in_every_dialect() {
    let backend = answering().await;
    let limits = "by_name: {rate: 1/h, burst: 1, key: {message_field: name}}";
    let gateway = Gateway::with_config(&yaml(&backend, limits, "rate_limit: by_name", "")).await;
    let refused = |answer: &Answer| answer.status == 429;
    let book = |number: usize| get(&format!("/v1/shelves/1/books/{number}"), &[]);
    for number in 0..3 {
        assert_eq!(once(gateway.address, book(number)).await.status, 200);
        let answer = once(gateway.address, book(number)).await;
        assert!(refused(&answer), "{answer:?}");
        assert_eq!(answer.header("ratelimit-policy"), "\"by_name\";q=1;w=3600");
    }
    // The same book, asked for in other dialects.
    let frame: &'static [u8] = b"\0\0\0\0\x13\x0a\x11shelves/1/books/0";
    let grpc = post(RPC, "application/grpc", frame, &[("te", "trailers")]);
    let answer = send(&gateway, Version::Http2, grpc).await;
    assert_eq!(answer.grpc_status(), Some("8"), "{answer:?}");
    let web = post(RPC, "application/grpc-web+proto", frame, &[]);
    let answer = send(&gateway, Version::Http1, web).await;
    assert_eq!(code("grpc-web", &answer), "8", "{answer:?}");
    let mut socket = Client::open(gateway.address, "/v1/shelves/1/books/0", "sabir.v1.json").await;
    assert_eq!(socket.status().await, 8);
    assert_eq!(socket.closed().await.0, 1008);
    // Another one goes through whole, though its first message was looked at.
    let other: &'static [u8] = b"\0\0\0\0\x13\x0a\x11shelves/1/books/8";
    let grpc = post(RPC, "application/grpc", other, &[("te", "trailers")]);
    let answer = send(&gateway, Version::Http2, grpc).await;
    assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
}

#[tokio::test]
async fn calls_in_flight_are_counted_to_their_end_on_every_path() {
    let gate = Arc::new(Semaphore::new(0));
    let backend = waiting(Arc::clone(&gate)).await;
    let limits = "slots: {in_flight: 2, key: {header: x-who}}";
    let gateway = Gateway::with_config(&yaml(&backend, limits, "rate_limit: slots", "")).await;
    let who = [("x-who", "ada")];
    let mut connection = Rest::connect(gateway.address, Version::Http2).await;
    // Two calls wait for the backend; the third is one too many, and somebody else's is not.
    let first = connection.start(get(BOOK, &who));
    let mut other = Rest::connect(gateway.address, Version::Http2).await;
    let second = other.start(get(BOOK, &who));
    let (first, second) = (Box::pin(first), Box::pin(second));
    let begun = async {
        let both = futures_util::future::join(first, second);
        let asked = async {
            backend.calls_begun(2).await;
            let answer = once(gateway.address, get(BOOK, &who)).await;
            assert_eq!(answer.status, 429, "{answer:?}");
            assert_eq!(answer.json()["details"][0]["reason"], "CONCURRENCY_LIMITED");
            assert!(!answer.header("retry-after").is_empty());
            gate.add_permits(2);
        };
        futures_util::future::join(both, asked).await
    };
    let ((first, second), ()) = within("the calls", begun).await;
    // Their answers are there and have been read to the end: the places are free.
    for response in [first, second] {
        crate::support::clients::rest::collect(response.unwrap()).await;
    }
    frees(&gateway, "slots").await;
    // Clients that leave in the middle: before the answer, while they send, and over a WebSocket.
    for _ in 0..3 {
        let mut leaving = Rest::connect(gateway.address, Version::Http2).await;
        let call = leaving.start(get(BOOK, &who));
        let _ = tokio::time::timeout(Duration::from_millis(1), call).await;
        drop(leaving);
        let mut uploading = Rest::connect(gateway.address, Version::Http1).await;
        let (sender, body) = pieces();
        let upload = with(
            Request::post(RPC)
                .header("content-type", "application/json; charset=utf-8")
                .body(body)
                .unwrap(),
            &who,
        );
        let started = uploading.start(upload);
        sender.send(Bytes::from_static(b"{\"name\":")).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(1), started).await;
        drop((sender, uploading));
        let opened = Client::ask(gateway.address, handshake(gateway.address, BOOK, &who)).await;
        drop(opened);
        frees(&gateway, "slots").await;
    }
    // The backend still has the calls that were given up.
    gate.add_permits(100);
    let answer = once(gateway.address, get(BOOK, &who)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Waits until nobody holds anything of a limit.
async fn frees(gateway: &Gateway, limit: &str) {
    within("the places of calls that are over", async {
        loop {
            let target = format!("/limits?limit={limit}");
            let usage = once(gateway.admin, get(&target, &[])).await.json();
            if usage["usage"] == json!([]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn routes_and_backends_have_room_for_so_many_calls() {
    let gate = Arc::new(Semaphore::new(0));
    let backend = waiting(Arc::clone(&gate)).await;
    let settings = |backend_line: &str, route_line: &str| {
        Settings::to(backend.address)
            .backend(backend_line)
            .route(route_line)
    };
    for (on_backend, on_route, name) in [
        ("max_in_flight: 1", "timeout: 30s", "backend \\\"library\\\""),
        ("timeout: {connect: 1s}", "max_in_flight: 1", "route \\\"*\\\""),
    ] {
        let gateway = Gateway::start(&settings(on_backend, on_route)).await;
        let before = backend.begun();
        let mut connection = Rest::connect(gateway.address, Version::Http2).await;
        let asked = async {
            backend.calls_begun(before + 1).await;
            let answer = once(gateway.address, get(BOOK, &[])).await;
            assert_eq!(answer.status, 503, "{answer:?}");
            assert_eq!(answer.json()["details"][0]["reason"], "OVERLOADED");
            let metrics = once(gateway.admin, get("/metrics", &[])).await;
            let line = format!("sabir_concurrency{{limit=\"{name}\"}} 1\n");
            assert!(metrics.text().contains(&line), "{line}{}", metrics.text());
            gate.add_permits(1);
        };
        let both = futures_util::future::join(connection.send(get(BOOK, &[])), asked);
        let (answer, ()) = within("the call", both).await;
        assert_eq!(answer.status, 200);
        gate.add_permits(1);
        let answer = once(gateway.address, get(BOOK, &[])).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
}

#[tokio::test]
async fn paths_are_limited_like_methods() {
    let backend = answering().await;
    let origin = Origin::start(|_| answer(200, "text/plain", "a page".to_owned())).await;
    let limits = "few: {rate: 2/h, key: address}";
    let config = yaml(&backend, limits, "rate_limit: few", "").replace(
        "routes:\n",
        &format!(
            "  site: {{protocol: rest, endpoints: [\"http://{}\"]}}\nroutes:\n  - {{path: /site/**, backend: site, rate_limit: few}}\n",
            origin.address
        ),
    );
    let gateway = Gateway::with_config(&config).await;
    let mut connection = Rest::connect(gateway.address, Version::Http1).await;
    let first = connection.get("/site/page").await;
    assert_eq!(
        (first.status.as_u16(), first.header("ratelimit-policy")),
        (200, "\"few\";q=2;w=3600")
    );
    // Another route with the same limit shares the account.
    assert_eq!(connection.get(BOOK).await.status, 200);
    let refused = connection.get("/site/page").await;
    assert_eq!(refused.status, 429, "{refused:?}");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn who_a_client_is_behind_a_proxy_is_what_the_proxy_says_and_no_client() {
    let backend = answering().await;
    let limits = "each: {rate: 1/h, key: address}";
    let config = yaml(&backend, limits, "rate_limit: each", "");
    let allowed = async |config: &str, addresses: &[&str]| {
        let gateway = Gateway::with_config(config).await;
        let mut allowed = 0;
        for address in addresses {
            let answer = once(gateway.address, get(BOOK, &[("x-forwarded-for", address)])).await;
            allowed += usize::from(answer.status == 200);
        }
        allowed
    };
    let addresses = [
        "203.0.113.1",
        "203.0.113.2",
        "203.0.113.2",
        "2001:db8::1",
        "2001:db8::2",
        "2001:db8:0:1::1",
    ];
    assert_eq!(
        allowed(&config, &addresses).await,
        1,
        "a client can call itself what it likes"
    );
    let behind = config.replace(
        "{address: \"127.0.0.1:0\"}]",
        "{address: \"127.0.0.1:0\", trusted_proxies: [127.0.0.0/8]}]",
    );
    assert_ne!(behind, config);
    assert_eq!(allowed(&behind, &addresses).await, 4);
}

#[tokio::test]
async fn a_flood_of_made_up_callers_does_not_grow_the_gateway() {
    let backend = answering().await;
    let limits = "each: {rate: 1/h, key: {header: x-who}, max_keys: 1000}";
    let gateway = Gateway::with_config(&yaml(&backend, limits, "rate_limit: each", "")).await;
    let mut connection = Rest::connect(gateway.address, Version::Http2).await;
    let mut statuses = BTreeSet::new();
    for number in 0..3_000 {
        let who = format!("{number}-{}", "x".repeat(1000));
        let answer = connection.send(get(BOOK, &[("x-who", &who)])).await;
        statuses.insert(answer.status.as_u16());
    }
    assert_eq!(statuses, BTreeSet::from([200]));
    let usage: Value = once(gateway.admin, get("/limits", &[])).await.json();
    let keys = usage["limits"][0]["keys"].as_u64().unwrap();
    assert!((500..=1100).contains(&keys), "{keys}");
}

#[tokio::test]
async fn a_socket_that_is_open_stays_open_and_counts_once() {
    let backend = answering().await;
    let limits = "few: {rate: 1/h, key: address}";
    let gateway = Gateway::with_config(&yaml(&backend, limits, "rate_limit: few", "")).await;
    let mut socket = Client::open(gateway.address, RPC, "sabir.v1.json").await;
    assert_eq!(socket.header("ratelimit-policy"), "\"few\";q=1;w=3600");
    let refused = once(gateway.address, get(BOOK, &[])).await;
    assert_eq!(refused.status, 429);
    socket
        .send(Message::text("{\"name\":\"shelves/1/books/7\"}"))
        .await;
    assert_eq!(socket.hear().await, json!({"$headers": {}}));
    assert_eq!(socket.hear().await, json!({}));
    assert_eq!(socket.status().await, 0);
}

/// A configuration whose streams may bring ten messages a second, in front of a backend that echoes them.
async fn paced(patience: &str) -> (Backend, Gateway) {
    let backend = raw(
        |request: Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>| async move {
            let Ok(mut stream) = answer.send_response(grpc_head(), false) else {
                return;
            };
            let mut messages = std::pin::pin!(messages(request.into_body()));
            while let Some(Ok(message)) = messages.next().await {
                let length = u32::try_from(message.len()).unwrap();
                let frame = [&[0][..], &length.to_be_bytes(), &message].concat();
                if stream.send_data(frame.into(), false).is_err() {
                    return;
                }
            }
            let _ = stream.send_trailers(grpc_trailers("0"));
        },
    )
    .await;
    let route = format!("stream_limits: {{messages: 10/s, bytes: 64KiB/s, patience: {patience}}}");
    let gateway = Gateway::with_config(&yaml(&backend, "unused: {rate: 1/s}", &route, "")).await;
    (backend, gateway)
}

/// Frames of empty messages.
fn frames(count: usize) -> Bytes {
    vec![0; 5 * count].into()
}

const CHAT: &str = "/library.v1.ReadingRoom/Chat";

#[tokio::test]
async fn a_stream_that_comes_too_fast_is_read_later_and_loses_nothing() {
    let (_backend, gateway) = paced("1m").await;
    let began = std::time::Instant::now();
    let mut connection = Rest::connect(gateway.address, Version::Http2).await;
    let (sender, body) = pieces();
    let call = Request::post(CHAT)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap();
    let answered = connection.start(call);
    let sent = async {
        for _ in 0..25 {
            sender.send(frames(1)).await.unwrap();
        }
        drop(sender);
    };
    let (answered, ()) = futures_util::future::join(answered, sent).await;
    let answer = crate::support::clients::rest::collect(answered.unwrap()).await;
    assert_eq!(answer.trailers["grpc-status"], "0", "{answer:?}");
    assert_eq!(answer.body.len(), 25 * 5, "all of it is there");
    // Ten at once, and fifteen at ten a second: a machine that is busy can only be slower.
    assert!(
        began.elapsed() >= Duration::from_millis(1400),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn a_stream_that_does_not_slow_down_is_refused_in_its_dialect() {
    let (_backend, gateway) = paced("200ms").await;
    let flood = |content_type: &'static str, more: &[(&str, &str)]| {
        let (sender, body) = pieces();
        let call = with(
            Request::post(CHAT)
                .header("content-type", content_type)
                .body(body)
                .unwrap(),
            more,
        );
        let sending = tokio::spawn(async move {
            // One piece after the other, until nobody takes them.
            while sender.send(frames(20)).await.is_ok() {}
        });
        (call, sending)
    };
    for (name, content_type, more) in [
        ("grpc", "application/grpc", vec![("te", "trailers")]),
        ("grpc-web", "application/grpc-web+proto", vec![]),
        (
            "connect stream",
            "application/connect+proto",
            vec![("connect-protocol-version", "1")],
        ),
    ] {
        let (call, sending) = flood(content_type, &more);
        let answer = send(&gateway, Version::Http2, call).await;
        sending.abort();
        let told = match name {
            "grpc" => answer.grpc_status().unwrap_or_default().to_owned(),
            name => code(name, &answer),
        };
        let expected = if name == "connect stream" {
            "resource_exhausted"
        } else {
            "8"
        };
        assert_eq!(told, expected, "{name}: {answer:?}");
    }
    // A WebSocket is told, and closed for a breach of policy.
    let mut socket = Client::open(gateway.address, CHAT, "sabir.v1.proto").await;
    for _ in 0..200 {
        socket.send(Message::binary(vec![0])).await;
    }
    let code = within("the end", async {
        loop {
            match socket.next().await {
                Message::Close(Some(close)) => return u16::from(close.code),
                Message::Close(None) => return 0,
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(code, 1008);
    let line = gateway.says("\"close_code\":1008").await;
    assert!(
        line.contains("RATE_LIMITED") && line.contains("stream_limits"),
        "{line}"
    );
}

#[tokio::test]
async fn a_relayed_socket_keeps_the_pace_too() {
    let (upstream, _handshakes) = crate::websocket::upstream_echo().await;
    let yaml = format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  echo: {{protocol: websocket, endpoints: [\"ws://{upstream}\"]}}
routes:
  - {{path: /echo, backend: echo, stream_limits: {{messages: 10/s, patience: 200ms}}}}
"
    );
    let gateway = Gateway::with_config(&yaml).await;
    let mut socket = Client::open(gateway.address, "/echo", "").await;
    for _ in 0..200 {
        socket.send(Message::text("x")).await;
    }
    let (echoed, code) = within("the end", async {
        let mut echoed = 0;
        loop {
            match socket.next().await {
                Message::Close(Some(close)) => return (echoed, u16::from(close.code)),
                Message::Close(None) => return (echoed, 0),
                _ => echoed += 1,
            }
        }
    })
    .await;
    assert_eq!(code, 1008);
    assert!((10..100).contains(&echoed), "{echoed}");
}
