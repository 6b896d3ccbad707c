//! Who takes a call, of several endpoints.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::json;

use crate::support::backends::{Backend, answering, grpc_head, grpc_trailers, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Answer, Rest, Version, once, request};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};
use crate::support::origin::{self, Origin};
use crate::support::{nowhere, within};

const GET: &str = "library.v1.Library/GetBook";

async fn three() -> [Backend; 3] {
    [answering().await, answering().await, answering().await]
}

fn to(backends: &[Backend]) -> Settings {
    let mut settings = Settings::to(backends[0].address);
    settings.endpoints = backends
        .iter()
        .map(|backend| format!("http://{}", backend.address))
        .collect();
    settings
}

/// How many calls each backend has seen.
fn calls(backends: &[Backend]) -> Vec<usize> {
    backends.iter().map(Backend::begun).collect()
}

async fn get(client: &mut Rest, headers: &[(&'static str, &str)], path: &str) -> Answer {
    let mut call = request(Method::GET, path, "");
    for (name, value) in headers {
        call.headers_mut().insert(*name, value.parse().unwrap());
    }
    let answer = client.send(call).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

const BOOK: &str = "/v1/shelves/1/books/7";

#[tokio::test]
async fn round_robin_goes_by_weight() {
    let backends = three().await;
    let mut settings = to(&backends).backend("load_balancing: round_robin");
    settings.endpoints[0] = format!("{{url: \"http://{}\", weight: 3}}", backends[0].address);
    let gateway = Gateway::start(&settings).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for _ in 0..20 {
        get(&mut client, &[], BOOK).await;
    }
    assert_eq!(calls(&backends), [12, 4, 4]);
}

#[tokio::test]
async fn every_way_to_choose_uses_every_endpoint() {
    for way in ["least_request", "peak_ewma", "round_robin"] {
        let backends = three().await;
        let gateway = Gateway::start(&to(&backends).backend(&format!("load_balancing: {way}"))).await;
        let mut client = Rest::connect(gateway.address, Version::Http1).await;
        for _ in 0..60 {
            get(&mut client, &[], BOOK).await;
        }
        assert!(
            calls(&backends).iter().all(|calls| *calls > 0),
            "{way}: {:?}",
            calls(&backends)
        );
    }
}

/// Which backend takes each of these keys; and that it is the same one each time.
async fn owners(
    backends: &[Backend],
    keys: impl Iterator<Item = String>,
    call: impl AsyncFn(&str),
) -> BTreeMap<String, usize> {
    let mut owners = BTreeMap::new();
    for key in keys {
        for _ in 0..3 {
            let before = calls(backends);
            call(&key).await;
            let at = calls(backends)
                .iter()
                .zip(&before)
                .position(|(now, before)| now > before)
                .unwrap();
            let owner = *owners.entry(key.clone()).or_insert(at);
            assert_eq!(owner, at, "{key} moved");
        }
    }
    owners
}

#[tokio::test]
async fn a_key_belongs_to_one_endpoint() {
    let ways = [
        ("{hash: {header: x-user}}", "x-user"),
        ("{hash: {cookie: user}}", "cookie"),
        ("{hash: {field: name}}", ""),
    ];
    for (way, header) in ways {
        let backends = three().await;
        let gateway = Gateway::start(&to(&backends).backend(&format!("load_balancing: {way}"))).await;
        let keys = || (0..20).map(|number| number.to_string());
        let by_rest = owners(&backends, keys(), async |key| {
            let mut client = Rest::connect(gateway.address, Version::Http1).await;
            match header {
                "" => drop(get(&mut client, &[], &format!("/v1/shelves/1/books/{key}")).await),
                "cookie" => drop(get(&mut client, &[("cookie", &format!("a=b; user={key}"))], BOOK).await),
                header => drop(get(&mut client, &[(header, key)], BOOK).await),
            }
        })
        .await;
        let used: std::collections::BTreeSet<_> = by_rest.values().collect();
        assert_eq!(used.len(), 3, "{way}: {by_rest:?}");
        // The same key in gRPC belongs to the same one: for a field, the first message is looked into.
        let by_grpc = owners(&backends, keys(), async |key| {
            let mut head = grpc::head(GET);
            let mut message = Vec::new();
            match header {
                "" => {
                    let name = format!("shelves/1/books/{key}");
                    message.extend([0x0a, u8::try_from(name.len()).unwrap()]);
                    message.extend_from_slice(name.as_bytes());
                }
                "cookie" => head = head.header("cookie", format!("user={key}")),
                header => head = head.header(header, key),
            }
            let answer = grpc::exchange(gateway.address, head, envelope(&message)).await;
            assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
        })
        .await;
        assert_eq!(by_rest, by_grpc, "{way}");
    }
}

/// The gateway gives a client a cookie, by which it stays where it is.
#[tokio::test]
async fn a_client_stays_by_its_cookie() {
    let backends = three().await;
    let gateway = Gateway::start(&to(&backends).backend("sticky: {cookie: at, max_age: 1h}")).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let first = get(&mut client, &[], BOOK).await;
    let cookie = first.header("set-cookie").to_owned();
    assert!(
        cookie.starts_with("at=") && cookie.contains("HttpOnly") && cookie.contains("Max-Age=3600"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    let home = calls(&backends).iter().position(|calls| *calls == 1).unwrap();
    for _ in 0..20 {
        let answer = get(&mut client, &[("cookie", pair)], BOOK).await;
        assert_eq!(answer.header("set-cookie"), "", "it knows already");
    }
    assert_eq!(calls(&backends)[home], 21);
    // A cookie that says nothing is as none.
    let answer = get(&mut client, &[("cookie", "at=nonsense")], BOOK).await;
    assert!(answer.header("set-cookie").starts_with("at="), "{answer:?}");
}

#[tokio::test]
async fn calls_stay_in_the_gateways_zone() {
    let backends = three().await;
    let mut yaml = String::from("zone: near\n");
    let schema = crate::support::messages::DESCRIPTORS;
    let zones = ["near", "far", "far"];
    let listed: Vec<String> = backends
        .iter()
        .zip(zones)
        .map(|(backend, zone)| format!("{{url: \"http://{}\", zone: {zone}}}", backend.address))
        .collect();
    yaml.push_str(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\n\
         backends:\n  library: {{endpoints: [{}], schema: {{descriptors: {schema}}}}}\n\
         routes:\n  - {{services: [\"*\"], backend: library}}\n",
        listed.join(", ")
    ));
    let gateway = Gateway::with_config(&yaml).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for _ in 0..20 {
        get(&mut client, &[], BOOK).await;
    }
    assert_eq!(calls(&backends), [20, 0, 0]);
}

/// Five failures in a row take an endpoint out; errors that are answers do not.
#[tokio::test]
async fn an_endpoint_that_fails_is_ejected() {
    let failing = |code: &'static str| {
        raw(move |_, mut answer| async move {
            let mut head = grpc_head();
            head.headers_mut().extend(grpc_trailers(code));
            let _ = answer.send_response(head, true);
        })
    };
    for (code, is_ejected) in [("14", true), ("5", false), ("13", false)] {
        let (bad, good) = (failing(code).await, answering().await);
        let backends = [bad, good];
        let settings = to(&backends)
            .backend("load_balancing: round_robin")
            .backend("retry: {max: 0}");
        let gateway = Gateway::start(&settings).await;
        for _ in 0..30 {
            let _ = grpc::unary(gateway.address, GET, Bytes::new()).await;
        }
        let expected = if is_ejected { [5, 25] } else { [15, 15] };
        assert_eq!(calls(&backends), expected, "{code}");
        let page = once(gateway.admin, request(Method::GET, "/metrics", "")).await;
        let line = format!(
            "sabir_endpoint_healthy{{backend=\"library\",endpoint=\"http://{}\"}} {}",
            backends[0].address,
            u8::from(!is_ejected)
        );
        assert!(page.text().contains(&line), "{line}\n{}", page.text());
    }
}

/// A stream that breaks off after its head is a failure of its endpoint all the same.
#[tokio::test]
async fn what_breaks_in_the_middle_counts() {
    let seen = std::sync::Arc::new(tokio::sync::Notify::new());
    let is_seen = std::sync::Arc::clone(&seen);
    let breaking = raw(move |_, mut answer| {
        let is_seen = std::sync::Arc::clone(&is_seen);
        async move {
            let mut body = answer.send_response(grpc_head(), false).unwrap();
            body.send_data(envelope(b"\x0a\x01b"), false).unwrap();
            is_seen.notified().await;
            body.send_reset(h2::Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let backends = [breaking, answering().await];
    let gateway = Gateway::start(&to(&backends).backend("load_balancing: round_robin")).await;
    for _ in 0..20 {
        let channel = grpc::connect(gateway.address).await;
        let (requests, started) =
            grpc::start(channel, "library.v1.Library/WatchBooks", HeaderMap::new(), false);
        requests.send(Bytes::new()).await.unwrap();
        drop(requests);
        let mut answers = within("an answer", started).await.unwrap().unwrap().into_inner();
        // The one that breaks says so.
        while let Ok(Some(message)) = within("a message", answers.message()).await {
            if !message.is_empty() {
                seen.notify_one();
            }
        }
    }
    assert_eq!(calls(&backends), [5, 15]);
}

/// An origin that answers 503 is one that fails; 500 is its own affair.
#[tokio::test]
async fn origins_are_ejected_by_gateway_errors_alone() {
    for (status, expected) in [(503, [5, 25]), (500, [15, 15])] {
        let bad = Origin::start(move |_| origin::answer(status, "application/json", "{}")).await;
        let good = Origin::start(|_| origin::json(&json!({}))).await;
        let gateway = Gateway::with_config(&format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\n\
             backends:\n  origin:\n    protocol: rest\n    load_balancing: round_robin\n    retry: {{max: 0}}\n\
             \x20   endpoints: [\"http://{}\", \"http://{}\"]\n\
             routes:\n  - {{path: /**, backend: origin}}\n",
            bad.address, good.address
        ))
        .await;
        let mut client = Rest::connect(gateway.address, Version::Http1).await;
        for _ in 0..30 {
            client.get("/x").await;
        }
        assert_eq!([bad.seen().len(), good.seen().len()], expected, "{status}");
    }
}

/// An endpoint where nobody listens costs its callers nothing.
#[tokio::test]
async fn an_endpoint_that_is_gone_is_passed_over() {
    let gone = nowhere();
    let good = answering().await;
    let mut settings = Settings::to(good.address).backend("load_balancing: round_robin");
    settings.endpoints.push(format!("http://{gone}"));
    let gateway = Gateway::start(&settings).await;
    for _ in 0..20 {
        let answer = within("an answer", grpc::unary(gateway.address, GET, Bytes::new())).await;
        assert!(answer.is_ok(), "{answer:?}");
    }
    assert_eq!(good.begun(), 20);
    let channel = grpc::connect(gateway.address).await;
    let (requests, started) = grpc::start(channel, "library.v1.ReadingRoom/Chat", HeaderMap::new(), false);
    drop(requests);
    let started = within("a stream", started).await.unwrap();
    assert!(started.is_ok(), "{started:?}");
}
