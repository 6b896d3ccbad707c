//! Deadlines: taken from the client, shortened by the route, sent on, and kept.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tonic::Code;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Answer, once, request};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};
use crate::support::script::{guarded, hold, recv, send};
use crate::support::within;

const WAIT: &str = "library.v1.Probe/Wait";

guarded!(
    before_the_answer,
    "library.v1.Library/GetBook",
    [
        recv(json!({"name": "shelves/1/books/7"})),
        hold(Code::DeadlineExceeded)
    ],
    route("timeout: 300ms"),
);

guarded!(
    in_a_stream_of_answers,
    "library.v1.Library/WatchBooks",
    [recv(json!({})), send(json!({})), hold(Code::DeadlineExceeded)],
    within_a_second(),
);

guarded!(
    in_the_middle_of_a_talk,
    "library.v1.ReadingRoom/Chat",
    [
        recv(json!({"text": "one"})),
        send(json!({"text": "one"})),
        recv(json!({"text": "two"})),
        hold(Code::DeadlineExceeded)
    ],
    within_a_second(),
);

/// A backend that answers nothing, until its stream is reset.
async fn silent() -> Backend {
    raw(|request, mut answer| async move {
        let _body = request;
        let _ = std::future::poll_fn(|context| answer.poll_reset(context)).await;
    })
    .await
}

/// A backend that answers at once, with the `grpc-timeout` that it saw in the answer's metadata.
async fn telling() -> Backend {
    raw(|request, mut answer| async move {
        let mut head = grpc_head();
        if let Some(timeout) = request.headers().get("grpc-timeout") {
            head.headers_mut().insert("x-seen-timeout", timeout.clone());
        }
        let mut body = answer.send_response(head, false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await
}

async fn rest_with(gateway: &Gateway, name: &str, value: &str) -> Answer {
    let mut call = request(Method::POST, &format!("/{WAIT}"), "{}");
    call.headers_mut().insert(
        http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
        value.parse().unwrap(),
    );
    once(gateway.address, call).await
}

/// Milliseconds of a `grpc-timeout`.
fn milliseconds(value: &str) -> u64 {
    let (digits, unit) = value.split_at(value.len() - 1);
    let number: u64 = digits.parse().unwrap();
    match unit {
        "H" => number * 3_600_000,
        "M" => number * 60_000,
        "S" => number * 1_000,
        "m" => number,
        "u" => number / 1_000,
        "n" => number / 1_000_000,
        unit => panic!("{unit}"),
    }
}

/// Rule 43: expiry is 504 and DEADLINE_EXCEEDED, and the upstream call is cancelled.
#[tokio::test]
async fn expiry_is_told_and_cancels_the_upstream_call() {
    let backend = silent().await;
    let gateway = Gateway::to(backend.address).await;

    rest_with(&gateway, "grpc-timeout", "50m").await.error(504, 4);
    backend.calls_ended(1).await;

    let head = grpc::head(WAIT).header("grpc-timeout", "50m");
    let answer = grpc::exchange(gateway.address, head, envelope(b"")).await;
    assert_eq!(answer.grpc_status(), Some("4"), "{answer:?}");
    backend.calls_ended(2).await;
}

/// The route's own limit ends a unary call that names no deadline.
#[tokio::test]
async fn a_call_without_a_deadline_has_the_routes() {
    let backend = silent().await;
    let gateway = Gateway::start(&Settings::to(backend.address).limit("request_timeout: 100ms")).await;
    once(gateway.address, request(Method::POST, &format!("/{WAIT}"), "{}"))
        .await
        .error(504, 4);
    let status = grpc::unary(gateway.address, WAIT, Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    backend.calls_ended(2).await;
}

/// Rule 43: the three headers in their order; the rest of the budget goes upstream.
#[tokio::test]
async fn the_rest_of_the_budget_goes_upstream() {
    let backend = telling().await;
    let gateway = Gateway::to(backend.address).await;
    for (name, value, most) in [
        ("grpc-timeout", "5S", 5_000),
        ("connect-timeout-ms", "4000", 4_000),
        ("x-server-timeout", "3", 3_000),
        ("x-server-timeout", "2.5", 2_500),
        // The route's 15 s cap what a client asks for.
        ("grpc-timeout", "1H", 15_000),
    ] {
        let answer = rest_with(&gateway, name, value).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let seen = milliseconds(answer.header("x-seen-timeout"));
        assert!(
            seen <= most && seen > most.saturating_sub(2_000),
            "{name}: {value} became {seen} ms"
        );
    }
}

/// Rule 43: a deadline that can't be read is refused, not ignored.
#[tokio::test]
async fn a_malformed_deadline_is_refused() {
    let backend = raw(|_, _| async { panic!("nothing may arrive") }).await;
    let gateway = Gateway::to(backend.address).await;
    for (name, value) in [
        ("grpc-timeout", "5"),
        ("grpc-timeout", "5x"),
        ("grpc-timeout", "123456789S"),
        ("grpc-timeout", "-1S"),
        ("connect-timeout-ms", "1s"),
        ("x-server-timeout", "soon"),
    ] {
        rest_with(&gateway, name, value).await.error(400, 3);
    }
    assert_eq!(backend.begun(), 0);
}

/// A stream may last; a deadline that the client names holds for it all the same.
#[tokio::test]
async fn a_stream_ends_at_the_clients_deadline() {
    let backend = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        let _ = std::future::poll_fn(|context| body.poll_reset(context)).await;
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let mut call = request(Method::POST, "/library.v1.Library/WatchBooks", "{}");
    call.headers_mut().insert("grpc-timeout", "300m".parse().unwrap());
    let answer = within("the end of the stream", once(gateway.address, call)).await;
    let last = answer.text().lines().last().unwrap().to_owned();
    assert!(last.contains("\"error\"") && last.contains("4"), "{answer:?}");
    backend.calls_ended(1).await;
}

/// Two timers for one deadline: whichever is first, the caller is told that the deadline passed, and nothing else.
#[tokio::test]
async fn an_upstream_that_gives_up_first_is_no_other_error() {
    /// What an upstream does a moment before the deadline.
    #[derive(Clone, Copy, Debug)]
    enum GivesUp {
        Cancelled,
        Reset,
    }
    for gives_up in [GivesUp::Cancelled, GivesUp::Reset] {
        let backend = raw(move |request, mut answer| async move {
            let timeout = request.headers()["grpc-timeout"].to_str().unwrap();
            let left = Duration::from_millis(milliseconds(timeout).saturating_sub(1));
            tokio::time::sleep(left).await;
            match gives_up {
                GivesUp::Cancelled => {
                    let mut head = grpc_head();
                    head.headers_mut().extend(grpc_trailers("1"));
                    // The gateway may have been first.
                    let _ = answer.send_response(head, true);
                }
                GivesUp::Reset => answer.send_reset(h2::Reason::CANCEL),
            }
        })
        .await;
        let gateway = Gateway::to(backend.address).await;
        for _ in 0..5 {
            let answer = rest_with(&gateway, "grpc-timeout", "40m").await;
            assert_eq!(
                (answer.status.as_u16(), &answer.json()["code"]),
                (504, &4.into()),
                "{gives_up:?}"
            );
        }
    }
}
