//! Networks that lose, hold and cut: endpoints that can't be heard, or late, or half. A deadline is one whatever happens
//! beneath it, and endpoints go and come back.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::Code;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, library, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Rest, Version, once, request};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};
use crate::support::proxy::{Proxy, Weather};
use crate::support::{until, within};

const BOOK: &str = "/v1/shelves/1/books/7";
const GET: &str = "library.v1.Library/GetBook";
const CREATE: &str = "library.v1.Library/CreateBook";

/// A backend that answers each call with an empty message, and says that it serves.
async fn healthy() -> Backend {
    raw(|request, mut answer| async move {
        let mut head = grpc_head();
        let path = request.uri().path().to_owned();
        if path.ends_with("/Watch") {
            head.headers_mut().extend(grpc_trailers("12"));
            let _ = answer.send_response(head, true);
            return;
        }
        let said: &[u8] = if path.ends_with("/Check") { &[8, 1] } else { b"" };
        if let Ok(mut body) = answer.send_response(head, false) {
            let _ = body.send_data(envelope(said), false);
            let _ = body.send_trailers(grpc_trailers("0"));
        }
    })
    .await
}

/// A gateway before these networks.
async fn gateway(networks: &[&Proxy], lines: &[&str], limits: &[&str]) -> Gateway {
    let mut settings = Settings::to(networks[0].address);
    settings.endpoints = networks
        .iter()
        .map(|network| format!("\"http://{}\"", network.address))
        .collect();
    for line in lines {
        settings = settings.backend(line);
    }
    for line in limits {
        settings = settings.limit(line);
    }
    Gateway::start(&settings).await
}

async fn metric(gateway: &Gateway, begins: &str) -> u64 {
    let page = once(gateway.admin, request(Method::GET, "/metrics", "")).await;
    let line = page.text().lines().find_map(|line| line.strip_prefix(begins));
    line.map_or(0, |value| value.trim().parse().unwrap())
}

fn endpoint(metric: &str, network: &Proxy) -> String {
    format!(
        "{metric}{{backend=\"library\",endpoint=\"http://{}\"}} ",
        network.address
    )
}

/// A call with a deadline, as gRPC: the code of its status.
async fn grpc_within(gateway: &Gateway, path: &str, deadline: &str) -> Option<Code> {
    let head = grpc::head(path).header("grpc-timeout", deadline);
    let answer = grpc::exchange(gateway.address, head, envelope(b"")).await;
    let status = answer.grpc_status().map(|status| status.parse::<i32>().unwrap());
    status.map(Code::from)
}

/// A call with a deadline, as REST: its HTTP status and the code in it.
async fn rest_within(gateway: &Gateway, deadline: &str) -> (u16, i64) {
    let mut call = request(Method::GET, BOOK, "");
    call.headers_mut()
        .insert("x-server-timeout", deadline.parse().unwrap());
    let answer = once(gateway.address, call).await;
    let code = match answer.status.as_u16() {
        200 => 0,
        _ => answer.json()["code"].as_i64().unwrap(),
    };
    (answer.status.as_u16(), code)
}

/// One of three can't be heard any more. What may be sent twice finds another one, the endpoint is taken out, and comes back
/// when it is heard again.
#[tokio::test]
async fn an_endpoint_that_is_cut_off_is_taken_out_and_comes_back() {
    let backends = [healthy().await, healthy().await, healthy().await];
    let networks = [
        Proxy::before(backends[0].address).await,
        Proxy::before(backends[1].address).await,
        Proxy::before(backends[2].address).await,
    ];
    let gateway = gateway(
        &[&networks[0], &networks[1], &networks[2]],
        &[
            "load_balancing: round_robin",
            "slow_start: off",
            "timeout: {per_try: 250ms}",
            "retry: {budget_per_second: 1000}",
            "ejection: {consecutive: 2, base: 200ms, longest: 200ms}",
            "health_check: {interval: 100ms, timeout: 500ms, healthy: 1, unhealthy: 2}",
        ],
        &[],
    )
    .await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for _ in 0..6 {
        assert_eq!(client.get(BOOK).await.status, 200);
    }
    networks[0].becomes(Weather::Dark);
    let healthy = endpoint("sabir_endpoint_healthy", &networks[0]);
    within("its ejection", async {
        while metric(&gateway, &healthy).await == 1 {
            let answer = client.get(BOOK).await;
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    })
    .await;
    // The checks find it, too: it stays out, and nobody waits for it any more.
    until("the checks", async || {
        let told = once(gateway.admin, request(Method::GET, "/v1/backends/library", "")).await;
        let told = told.json();
        let endpoints = told["endpoints"].as_array().unwrap();
        let url = format!("http://{}/", networks[0].address);
        endpoints
            .iter()
            .any(|endpoint| endpoint["url"] == json!(url) && endpoint["down"] == json!(true))
    })
    .await;
    let calls = endpoint("sabir_endpoint_calls_total", &networks[0]);
    let before = metric(&gateway, &calls).await;
    for _ in 0..20 {
        assert_eq!(client.get(BOOK).await.status, 200);
    }
    assert_eq!(metric(&gateway, &calls).await, before);
    networks[0].becomes(Weather::Fair);
    within("its return", async {
        while metric(&gateway, &calls).await <= before + 3 {
            assert_eq!(client.get(BOOK).await.status, 200);
        }
    })
    .await;
    until("its health", async || metric(&gateway, &healthy).await == 1).await;
}

/// The only endpoint is beyond a partition: whatever the caller speaks, its deadline is what it hears of.
#[tokio::test]
async fn in_a_partition_a_deadline_is_a_deadline() {
    let backend = library().await;
    let network = Proxy::before(backend.address).await;
    // Pings and attempts that give up earlier would have another word.
    let gateway = gateway(&[&network], &["ejection: off"], &[]).await;
    assert_eq!(rest_within(&gateway, "10").await, (200, 0));
    network.becomes(Weather::Dark);
    let mut calls = JoinSet::new();
    let (address, gateway) = (gateway.address, std::sync::Arc::new(gateway));
    for number in 0..40_u32 {
        let gateway = std::sync::Arc::clone(&gateway);
        calls.spawn(async move {
            let milliseconds = 20 + number * 7;
            if number % 2 == 0 {
                let heard = grpc_within(&gateway, CREATE, &format!("{milliseconds}m")).await;
                assert_eq!(heard, Some(Code::DeadlineExceeded));
            } else {
                let seconds = format!("0.{milliseconds:03}");
                assert_eq!(rest_within(&gateway, &seconds).await, (504, 4));
            }
        });
    }
    within("the answers", calls.join_all()).await;
    // On a connection that never was heard, too.
    let heard = grpc::unary(address, GET, Bytes::new());
    let heard = tokio::time::timeout(Duration::from_millis(50), heard).await;
    assert!(heard.is_err(), "without a deadline it waits: {heard:?}");
    network.becomes(Weather::Fair);
    until("its return", async || {
        rest_within(&gateway, "5").await == (200, 0)
    })
    .await;
}

/// An upstream that keeps deadlines itself cancels, resets or answers in the very moment in which they pass here.
#[tokio::test]
async fn at_the_deadline_there_is_no_race() {
    /// Waits for the deadline that it is told, and then does this.
    async fn punctual(does: &'static str) -> Backend {
        raw(move |request, mut answer| async move {
            let told = request.headers()["grpc-timeout"].to_str().unwrap().to_owned();
            let (digits, unit) = told.split_at(told.len() - 1);
            let number: u64 = digits.parse().unwrap();
            let left = match unit {
                "n" => Duration::from_nanos(number),
                "u" => Duration::from_micros(number),
                "m" => Duration::from_millis(number),
                _ => Duration::from_secs(number),
            };
            tokio::time::sleep(left).await;
            let mut only = grpc_head();
            match does {
                "cancelled" => {
                    only.headers_mut().extend(grpc_trailers("1"));
                    let _ = answer.send_response(only, true);
                }
                "deadline" => {
                    only.headers_mut().extend(grpc_trailers("4"));
                    let _ = answer.send_response(only, true);
                }
                "reset" => answer.send_reset(h2::Reason::CANCEL),
                _ => {
                    if let Ok(mut body) = answer.send_response(only, false) {
                        let _ = body.send_data(envelope(b""), false);
                        let _ = body.send_trailers(grpc_trailers("0"));
                    }
                }
            }
        })
        .await
    }
    for does in ["cancelled", "deadline", "reset", "answer"] {
        let backend = punctual(does).await;
        let gateway = std::sync::Arc::new(
            Gateway::start(&Settings::to(backend.address).backend("ejection: off")).await,
        );
        let mut calls = JoinSet::new();
        for number in 0..60_u32 {
            let gateway = std::sync::Arc::clone(&gateway);
            calls.spawn(async move {
                let path = if number % 2 == 0 { GET } else { CREATE };
                grpc_within(&gateway, path, &format!("{}m", 10 + number)).await
            });
        }
        for heard in within("the answers", calls.join_all()).await {
            let is_right = match does {
                // Its answer was in time, or it was not.
                "answer" => matches!(heard, Some(Code::Ok | Code::DeadlineExceeded)),
                _ => heard == Some(Code::DeadlineExceeded),
            };
            assert!(is_right, "{does}: {heard:?}");
        }
    }
}

/// Connections that are half open are found by pings, and calls go on over new ones.
#[tokio::test]
async fn half_open_connections_are_given_up() {
    let backend = library().await;
    let network = Proxy::before(backend.address).await;
    let gateway = gateway(
        &[&network],
        &["ejection: off", "timeout: {request: 20s}"],
        &["ping_interval: 100ms", "ping_timeout: 200ms"],
    )
    .await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(client.get(BOOK).await.status, 200);
    let before = network.connections();
    network.forget_connections();
    // It may be sent twice, so that its client does not notice.
    let answer = client.get(BOOK).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(network.connections() > before);
    // What may not be sent twice fails, alone, and as what it is.
    network.forget_connections();
    let answer = client.post("/v1/shelves/1/books", json!({"title": "Dune"})).await;
    answer.error(502, 14);
    assert_eq!(answer.reason(), "UPSTREAM_RESET");
    let answer = client.post("/v1/shelves/1/books", json!({"title": "Dune"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// A connection that is cut in the middle of an answer: one that may be sent twice goes elsewhere, and a stream never ends as
/// if it were whole.
#[tokio::test]
async fn an_answer_that_is_cut_is_no_success() {
    let backends = [library().await, library().await];
    let networks = [
        Proxy::before(backends[0].address).await,
        Proxy::before(backends[1].address).await,
    ];
    let gateway = gateway(
        &[&networks[0], &networks[1]],
        &[
            "ejection: off",
            "load_balancing: round_robin",
            "retry: {budget_per_second: 1000}",
        ],
        &[],
    )
    .await;
    for bytes in [0, 1, 9, 20, 60] {
        networks[0].becomes(Weather::Cut(bytes));
        for _ in 0..4 {
            let answer = once(gateway.address, request(Method::GET, BOOK, "")).await;
            // Once a part of the message is there it can't be sent again; what is told then is a failure.
            if answer.status != 200 {
                answer.error(502, 14);
                assert_eq!(answer.reason(), "UPSTREAM_RESET");
            } else {
                assert_eq!(answer.json()["name"], "shelves/1/books/7", "{answer:?}");
            }
        }
    }
    // Streams: all of a long text, or an error.
    let whole = {
        networks[0].becomes(Weather::Fair);
        let answer = once(gateway.address, request(Method::GET, "/v1/shelves/1/books", "")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    };
    networks[1].becomes(Weather::Cut(40));
    networks[0].becomes(Weather::Cut(40));
    let answer = once(gateway.address, request(Method::GET, "/v1/shelves/1/books", "")).await;
    assert!(answer.status != 200 || answer.body == whole, "{answer:?}");
    answer.error(502, 14);
}

/// Latency alone breaks nothing, and an endpoint that is slower than the others is taken out where that is asked for.
#[tokio::test]
async fn an_endpoint_far_away_is_taken_out_by_its_latency() {
    let backends = [library().await, library().await, library().await];
    let networks = [
        Proxy::before(backends[0].address).await,
        Proxy::before(backends[1].address).await,
        Proxy::before(backends[2].address).await,
    ];
    let gateway = gateway(
        &[&networks[0], &networks[1], &networks[2]],
        &[
            "load_balancing: round_robin",
            "ejection: {interval: 300ms, base: 1m, latency: {min_calls: 2, min_endpoints: 3, median_percent: 300}}",
        ],
        &[],
    )
    .await;
    networks[2].becomes(Weather::Slow(Duration::from_millis(60)));
    let reasons = format!(
        "sabir_endpoint_ejections_total{{backend=\"library\",endpoint=\"http://{}\",reason=\"latency\"}} ",
        networks[2].address
    );
    within("its ejection", async {
        while metric(&gateway, &reasons).await == 0 {
            let mut calls = JoinSet::new();
            for _ in 0..12 {
                let address = gateway.address;
                calls.spawn(async move { once(address, request(Method::GET, BOOK, "")).await });
            }
            for answer in calls.join_all().await {
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
    })
    .await;
}
