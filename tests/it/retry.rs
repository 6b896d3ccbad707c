//! Requests that are sent again, and those that never are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use h2::Reason;
use http::{HeaderMap, Method};
use serde_json::json;
use tonic::Code;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, messages, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Answer, Rest, Version, once, request};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};
use crate::support::origin::{self, Origin};
use crate::support::{nowhere, within};

/// May be sent twice, by its idempotency level.
const GET: &str = "library.v1.Library/GetBook";
/// May not.
const CREATE: &str = "library.v1.Library/CreateBook";
/// A stream of answers.
const WATCH: &str = "library.v1.Library/WatchBooks";

/// What a backend does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    /// Answers.
    Answers,
    /// Says that it is not available, without a message.
    Unavailable,
    /// Breaks off before it answers.
    Resets,
    /// Refuses the stream.
    Refuses,
    /// Says nothing.
    Nothing,
    /// Answers another error.
    NotFound,
}

/// A backend that reads each request to its end and does this.
async fn backend(does: Does) -> Backend {
    raw(move |request, mut answer| async move {
        let mut body = request.into_body();
        if does != Does::Refuses {
            while let Some(Ok(_)) = body.data().await {}
        }
        let only_trailers = |code: &'static str| {
            let mut head = grpc_head();
            head.headers_mut().extend(grpc_trailers(code));
            head
        };
        match does {
            Does::Answers => {
                let mut body = answer.send_response(grpc_head(), false).unwrap();
                body.send_data(envelope(b""), false).unwrap();
                body.send_trailers(grpc_trailers("0")).unwrap();
            }
            Does::Unavailable => drop(answer.send_response(only_trailers("14"), true)),
            Does::NotFound => drop(answer.send_response(only_trailers("5"), true)),
            Does::Resets => answer.send_reset(Reason::INTERNAL_ERROR),
            Does::Refuses => answer.send_reset(Reason::REFUSED_STREAM),
            Does::Nothing => {
                let _ = std::future::poll_fn(|context| answer.poll_reset(context)).await;
            }
        }
    })
    .await
}

/// A gateway before these, which takes one after the other and ejects nobody.
async fn gateway(backends: &[&Backend], lines: &[&str]) -> Gateway {
    let mut settings = Settings::to(backends[0].address)
        .backend("load_balancing: round_robin")
        .backend("ejection: off");
    settings.endpoints = backends
        .iter()
        .map(|backend| format!("http://{}", backend.address))
        .collect();
    for line in lines {
        settings = settings.backend(line);
    }
    Gateway::start(&settings).await
}

async fn unary(gateway: &Gateway, path: &str) -> Result<(), Code> {
    let answer = within("an answer", grpc::unary(gateway.address, path, Bytes::new())).await;
    answer.map(drop).map_err(|status| status.code())
}

async fn page(gateway: &Gateway) -> String {
    once(gateway.admin, request(Method::GET, "/metrics", ""))
        .await
        .text()
        .to_owned()
}

#[tokio::test]
async fn what_may_be_sent_twice_is_answered_by_another_endpoint() {
    for does in [Does::Unavailable, Does::Resets, Does::Refuses] {
        let (bad, good) = (backend(does).await, backend(Does::Answers).await);
        let gateway = gateway(&[&bad, &good], &[]).await;
        for _ in 0..6 {
            assert_eq!(unary(&gateway, GET).await, Ok(()), "{does:?}");
        }
        assert!(
            bad.begun() >= 3 && good.begun() == 6,
            "{does:?}: {} {}",
            bad.begun(),
            good.begun()
        );
        let mut client = Rest::connect(gateway.address, Version::Http1).await;
        for _ in 0..4 {
            let answer = client.get("/v1/shelves/1/books/7").await;
            assert_eq!(answer.status, 200, "{does:?}: {answer:?}");
        }
    }
}

/// A request that may have been processed never arrives twice.
#[tokio::test]
async fn what_may_not_be_sent_twice_is_sent_once() {
    for (does, code) in [
        (Does::Unavailable, Code::Unavailable),
        (Does::Resets, Code::Unavailable),
    ] {
        let (bad, good) = (backend(does).await, backend(Does::Answers).await);
        let gateway = gateway(&[&bad, &good], &[]).await;
        let mut failed = 0;
        for _ in 0..6 {
            match unary(&gateway, CREATE).await {
                Ok(()) => {}
                Err(got) => {
                    assert_eq!(got, code, "{does:?}");
                    failed += 1;
                }
            }
        }
        assert_eq!((failed, bad.begun(), good.begun()), (3, 3, 3), "{does:?}");
    }
}

/// What was surely not processed is sent again, whatever it is.
#[tokio::test]
async fn what_is_refused_before_it_is_processed_is_sent_again() {
    let (bad, good) = (backend(Does::Refuses).await, backend(Does::Answers).await);
    let gateway = gateway(&[&bad, &good], &[]).await;
    for _ in 0..6 {
        assert_eq!(unary(&gateway, CREATE).await, Ok(()));
    }
    // Every refusal is one retry.
    let refused = bad.begun();
    assert!(refused >= 3 && good.begun() == 6, "{refused} {}", good.begun());
    gateway.says("\"retries\":1").await;
    let page = page(&gateway).await;
    let line = format!("sabir_retries_total{{backend=\"library\",reason=\"refused\"}} {refused}");
    assert!(page.contains(&line), "{page}");
}

/// An error that is an answer is no reason to ask again.
#[tokio::test]
async fn other_errors_are_answers() {
    let (bad, good) = (backend(Does::NotFound).await, backend(Does::Answers).await);
    let gateway = gateway(&[&bad, &good], &[]).await;
    let codes = [unary(&gateway, GET).await, unary(&gateway, GET).await];
    assert!(codes.contains(&Err(Code::NotFound)), "{codes:?}");
    assert_eq!(bad.begun() + good.begun(), 2);
}

#[tokio::test]
async fn retries_end_and_can_be_turned_off() {
    for (line, begun) in [
        ("retry: {max: 0}", 1),
        ("retry: {max: 1}", 2),
        ("retry: {max: 4, budget_per_second: 100}", 5),
    ] {
        let bad = backend(Does::Unavailable).await;
        let gateway = gateway(&[&bad], &[line]).await;
        assert_eq!(unary(&gateway, GET).await, Err(Code::Unavailable), "{line}");
        assert_eq!(bad.begun(), begun, "{line}");
    }
}

/// Ten a second are allowed however few calls there are, and of more there has to be a share.
#[tokio::test]
async fn a_budget_keeps_retries_from_being_the_load() {
    let bad = backend(Does::Unavailable).await;
    let gateway = gateway(
        &[&bad],
        &["retry: {max: 1, budget_per_second: 2, budget_percent: 0}"],
    )
    .await;
    for _ in 0..10 {
        assert_eq!(unary(&gateway, GET).await, Err(Code::Unavailable));
    }
    let retries = bad.begun() - 10;
    assert!((1..10).contains(&retries), "{retries}");
    assert!(
        page(&gateway)
            .await
            .contains("sabir_retries_refused_total{backend=\"library\"}")
    );
}

/// A retry counts against the budget until it is over, hedged or not.
#[tokio::test]
async fn a_retry_counts_for_as_long_as_it_takes() {
    for hedges in [&[][..], &["hedge: {after: 60s}"]] {
        // Who asks for nothing waits; who asks for something is told to come back, and waits the second time.
        let told: Arc<parking_lot::Mutex<Vec<Bytes>>> = Arc::default();
        let backend = raw(move |request, mut answer| {
            let told = Arc::clone(&told);
            async move {
                let mut asked = Box::pin(messages(request.into_body()));
                let asked = asked.next().await.unwrap().unwrap();
                let is_new = {
                    let mut told = told.lock();
                    let is_new = !asked.is_empty() && !told.contains(&asked);
                    told.push(asked);
                    is_new
                };
                if is_new {
                    let mut head = grpc_head();
                    head.headers_mut().extend(grpc_trailers("14"));
                    drop(answer.send_response(head, true));
                } else {
                    let _ = std::future::poll_fn(|context| answer.poll_reset(context)).await;
                }
            }
        })
        .await;
        let mut lines = vec!["retry: {max: 1, budget_percent: 20, budget_per_second: 1}"];
        lines.extend(hedges);
        let gateway = gateway(&[&backend], &lines).await;
        let mut calls = tokio::task::JoinSet::new();
        let address = gateway.address;
        for _ in 0..4 {
            calls.spawn(grpc::unary(address, GET, Bytes::new()));
        }
        backend.calls_begun(4).await;
        // One in five may be a retry, and one a second beside it: of five calls that fail one after the other, and whose
        // retries do not end, not all are sent again.
        let mut refused = 0;
        for book in 1..=5 {
            let retry = backend.begun() + 2;
            calls.spawn(grpc::unary(address, GET, Bytes::from(vec![0x0a, 1, book])));
            tokio::select! {
                () = backend.calls_begun(retry) => {}
                ended = calls.join_next() => {
                    let status = ended.unwrap().unwrap().unwrap_err();
                    assert_eq!(status.code(), Code::Unavailable, "{lines:?}: {status:?}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "{lines:?}");
    }
}

/// What an upstream asks for by push-back is done.
#[tokio::test]
async fn an_upstream_can_ask_not_to_be_tried_again() {
    for (pushback, begun) in [("-1", 1), ("soon", 1), ("3600000", 1), ("5", 3)] {
        let bad = raw(move |_, mut answer| async move {
            let mut head = grpc_head();
            head.headers_mut().extend(grpc_trailers("14"));
            head.headers_mut()
                .insert("grpc-retry-pushback-ms", pushback.parse().unwrap());
            let _ = answer.send_response(head, true);
        })
        .await;
        let gateway = gateway(&[&bad], &[]).await;
        assert_eq!(unary(&gateway, GET).await, Err(Code::Unavailable));
        assert_eq!(bad.begun(), begun, "{pushback}");
    }
}

/// A deadline is one for all attempts, and what ends by it says so.
#[tokio::test]
async fn the_deadline_is_one_for_all_attempts() {
    let bad = backend(Does::Nothing).await;
    let gateway = gateway(
        &[&bad],
        &[
            "timeout: {per_try: 60ms, request: 150ms}",
            "retry: {max: 10, budget_per_second: 100}",
        ],
    )
    .await;
    assert_eq!(unary(&gateway, GET).await, Err(Code::DeadlineExceeded));
    assert!((2..=4).contains(&bad.begun()), "{}", bad.begun());
    bad.calls_ended(bad.begun()).await;
}

/// An attempt that takes too long is given up and made elsewhere; of what may not be sent twice, the caller is told.
#[tokio::test]
async fn an_attempt_that_takes_too_long_is_made_elsewhere() {
    let (bad, good) = (backend(Does::Nothing).await, backend(Does::Answers).await);
    let gateway = gateway(&[&bad, &good], &["timeout: {per_try: 100ms}"]).await;
    assert_eq!(
        (unary(&gateway, GET).await, unary(&gateway, GET).await),
        (Ok(()), Ok(()))
    );
    let tried = bad.begun();
    assert!(tried >= 1);
    bad.calls_ended(tried).await;
    let codes = [unary(&gateway, CREATE).await, unary(&gateway, CREATE).await];
    assert!(
        codes.contains(&Ok(())) && codes.contains(&Err(Code::DeadlineExceeded)),
        "{codes:?}"
    );
    assert_eq!(bad.begun(), tried + 1);
}

/// The beginning of an upload is kept until it is answered, so that it can be sent again where nobody has touched it.
#[tokio::test]
async fn a_stream_that_was_refused_is_sent_again_from_its_beginning() {
    let received: Arc<parking_lot::Mutex<Vec<u8>>> = Arc::default();
    let refusals = Arc::new(AtomicUsize::new(0));
    let (seen, count) = (Arc::clone(&received), Arc::clone(&refusals));
    let backend = raw(move |request, mut answer| {
        let (seen, count) = (Arc::clone(&seen), Arc::clone(&count));
        async move {
            let mut body = request.into_body();
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                body.data().await.unwrap().unwrap();
                return answer.send_reset(Reason::REFUSED_STREAM);
            }
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                seen.lock().extend_from_slice(&data);
            }
            let mut body = answer.send_response(grpc_head(), false).unwrap();
            body.send_data(envelope(b""), false).unwrap();
            body.send_trailers(grpc_trailers("0")).unwrap();
        }
    })
    .await;
    let gateway = gateway(&[&backend], &[]).await;
    let channel = grpc::connect(gateway.address).await;
    let (requests, started) = grpc::start(channel, "library.v1.Library/ImportBooks", HeaderMap::new(), false);
    requests.send(Bytes::from_static(b"one")).await.unwrap();
    backend.calls_begun(2).await;
    requests.send(Bytes::from_static(b"two")).await.unwrap();
    drop(requests);
    let mut answers = within("an answer", started).await.unwrap().unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    assert_eq!(*received.lock(), [envelope(b"one"), envelope(b"two")].concat());
}

/// Once a client has seen something of an answer, there is no other one.
#[tokio::test]
async fn an_answer_that_has_begun_is_not_asked_for_again() {
    let seen = Arc::new(tokio::sync::Notify::new());
    let is_seen = Arc::clone(&seen);
    let backend = raw(move |_, mut answer| {
        let is_seen = Arc::clone(&is_seen);
        async move {
            let mut body = answer.send_response(grpc_head(), false).unwrap();
            body.send_data(envelope(b""), false).unwrap();
            is_seen.notified().await;
            body.send_reset(Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let gateway = gateway(&[&backend], &[]).await;
    let channel = grpc::connect(gateway.address).await;
    let (requests, started) = grpc::start(channel, WATCH, HeaderMap::new(), false);
    requests.send(Bytes::new()).await.unwrap();
    drop(requests);
    let ended = within("the end", async {
        let mut answers = started.await.unwrap()?.into_inner();
        while answers.message().await?.is_some() {
            seen.notify_one();
        }
        Ok::<_, tonic::Status>(())
    })
    .await;
    assert!(ended.is_err());
    assert_eq!(backend.begun(), 1);
}

/// Plain HTTP: what may be sent twice goes to another origin, a POST goes to one.
#[tokio::test]
async fn origins_are_tried_in_the_same_way() {
    let bad = Origin::start(|_| origin::answer(503, "text/plain", "busy")).await;
    let good = Origin::start(|_| origin::answer(200, "text/plain", "fine")).await;
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\n\
         backends:\n  origin:\n    protocol: rest\n    load_balancing: round_robin\n    ejection: off\n\
         \x20   endpoints: [\"http://{}\", \"http://{}\"]\n\
         routes:\n  - {{path: /**, backend: origin}}\n",
        bad.address, good.address
    ))
    .await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for _ in 0..4 {
        assert_eq!(client.get("/a").await.text(), "fine");
    }
    let before = bad.seen().len();
    assert!(before >= 2 && good.seen().len() == 4, "{before}");
    let mut statuses: Vec<u16> = Vec::new();
    for _ in 0..4 {
        statuses.push(client.post("/a", json!({"x": 1})).await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
    // Each POST arrived once.
    assert_eq!((bad.seen().len(), good.seen().len()), (before + 2, 6));
    // A PUT with a body is sent again with its body.
    for _ in 0..2 {
        let answer = client.send(put("/a", "content")).await;
        assert_eq!(answer.text(), "fine");
        assert_eq!(good.last().body, "content");
    }
}

fn put(path: &str, body: &str) -> http::Request<crate::support::clients::rest::Sending> {
    request(Method::PUT, path, body.to_owned())
}

/// A second copy races the first one where that takes long; the one that loses is cancelled.
#[tokio::test]
async fn a_hedge_answers_where_the_first_is_slow() {
    let (slow, fast) = (backend(Does::Nothing).await, backend(Does::Answers).await);
    let gateway = gateway(&[&slow, &fast], &["hedge: {after: 30ms}"]).await;
    for _ in 0..6 {
        assert_eq!(unary(&gateway, GET).await, Ok(()));
    }
    assert_eq!(fast.begun(), 6);
    assert!(slow.begun() >= 1);
    slow.calls_ended(slow.begun()).await;
    let page = page(&gateway).await;
    assert!(page.contains("reason=\"hedge\""), "{page}");
    // What may not be sent twice has no second copy.
    let before = slow.begun() + fast.begun();
    let deadline = |path: &str| grpc::head(path).header("grpc-timeout", "200m");
    for _ in 0..2 {
        grpc::exchange(gateway.address, deadline(CREATE), envelope(b"")).await;
    }
    assert_eq!(slow.begun() + fast.begun(), before + 2);
}

/// When most calls fail, none is sent for a while, and then a few that try.
#[tokio::test]
async fn a_circuit_opens_and_closes() {
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let is_healthy = Arc::clone(&healthy);
    let backend = raw(move |_, mut answer| {
        let is_healthy = Arc::clone(&is_healthy);
        async move {
            let mut head = grpc_head();
            let code = if is_healthy.load(Ordering::Relaxed) {
                "0"
            } else {
                "14"
            };
            head.headers_mut().extend(grpc_trailers(code));
            let _ = answer.send_response(head, true);
        }
    })
    .await;
    let breaker = "circuit_breaker: {min_requests: 5, window: 10s, open: 300ms, probes: 2}";
    let gateway = gateway(&[&backend], &[breaker, "retry: {max: 0}"]).await;
    let ask = || async { once(gateway.address, request(Method::GET, "/v1/shelves/1/books/7", "")).await };
    for _ in 0..5 {
        ask().await.error(503, 14);
    }
    let refused: Answer = ask().await;
    refused.error(503, 14);
    assert_eq!(refused.reason(), "CIRCUIT_OPEN");
    assert!(!refused.header("retry-after").is_empty(), "{refused:?}");
    assert_eq!(backend.begun(), 5);
    assert!(
        page(&gateway)
            .await
            .contains("sabir_circuit_state{backend=\"library\"} 2")
    );
    healthy.store(true, Ordering::Relaxed);
    within("the circuit to close", async {
        while !page(&gateway)
            .await
            .contains("sabir_circuit_state{backend=\"library\"} 0")
        {
            let _ = unary(&gateway, GET).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    // One that has no message is no answer of a unary call; that it is the backend's own word is what counts here.
    assert_ne!(ask().await.status, 503);
}

/// Another backend answers where this one can't.
#[tokio::test]
async fn a_fallback_answers() {
    let good = backend(Does::Answers).await;
    let gone = nowhere();
    let schema = crate::support::messages::DESCRIPTORS;
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\n\
         backends:\n  library: {{endpoints: [\"http://{gone}\"], schema: {{descriptors: {schema}}}, fallback: spare}}\n\
         \x20 spare: {{endpoints: [\"http://{}\"], schema: {{descriptors: {schema}}}}}\n\
         routes:\n  - {{services: [\"*\"], backend: library}}\n",
        good.address
    ))
    .await;
    assert_eq!(unary(&gateway, GET).await, Ok(()));
    // It was not sent anywhere else, so it may be anything.
    assert_eq!(unary(&gateway, CREATE).await, Ok(()));
    assert_eq!(good.begun(), 2);
}

/// Nobody to call: the caller is told so within a moment, and why.
#[tokio::test]
async fn without_an_endpoint_a_call_fails_with_a_reason() {
    let gone = nowhere();
    let gateway = Gateway::to(gone).await;
    let answer = once(gateway.address, request(Method::GET, "/v1/shelves/1/books/7", "")).await;
    answer.error(503, 14);
    assert_eq!(answer.reason(), "UPSTREAM_UNAVAILABLE");
}
