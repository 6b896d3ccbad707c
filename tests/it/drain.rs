//! Stopping: nothing new, what is in flight finishes, and what does not is cut.

use std::sync::Arc;

use http::Method;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, messages, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Rest, Version, once, request};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};
use crate::support::within;

const GET_BOOK: &str = "library.v1.Library/GetBook";

/// A backend that answers once it is let go.
async fn waiting() -> (Backend, Arc<Semaphore>) {
    let go = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&go);
    let backend = raw(move |request, mut answer| {
        let told = Arc::clone(&told);
        async move {
            let mut heard = Box::pin(messages(request.into_body()));
            while futures_util::StreamExt::next(&mut heard).await.is_some() {}
            told.acquire().await.unwrap().forget();
            let Ok(mut body) = answer.send_response(grpc_head(), false) else {
                return;
            };
            let _ = body.send_data(envelope(b""), false);
            let _ = body.send_trailers(grpc_trailers("0"));
        }
    })
    .await;
    (backend, go)
}

#[tokio::test]
async fn calls_in_flight_finish() {
    let (backend, go) = waiting().await;
    let mut gateway = Gateway::to(backend.address).await;
    let address = gateway.address;
    let mut calls = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        calls.push(tokio::spawn(async move {
            let mut client = Rest::connect(address, version).await;
            client.post(&format!("/{GET_BOOK}"), "{}").await.status.as_u16()
        }));
    }
    calls.push(tokio::spawn(async move {
        let answer = grpc::unary(address, GET_BOOK, bytes::Bytes::new()).await;
        if answer.is_ok() { 200 } else { 0 }
    }));
    backend.calls_begun(3).await;
    gateway.terminate();
    gateway.says("draining").await;
    within("the closing of the port", async {
        // The word comes before the deed; a connection that still gets through is closed without an answer.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    for _ in 0..3 {
        go.add_permits(1);
    }
    for call in calls {
        assert_eq!(within("the answer", call).await.unwrap(), 200);
    }
    assert!(gateway.ended().await.success(), "{}", gateway.said());
}

#[tokio::test]
async fn what_does_not_finish_is_cut() {
    let backend = raw(|request, mut answer| async move {
        let _unread = request;
        let _ = std::future::poll_fn(|context| answer.poll_reset(context)).await;
    })
    .await;
    let mut gateway = Gateway::start(&Settings::to(backend.address).limit("drain_timeout: 300ms")).await;
    let address = gateway.address;
    let call = tokio::spawn(async move {
        let mut client = Rest::connect(address, Version::Http1).await;
        client
            .start(request(Method::POST, &format!("/{GET_BOOK}"), "{}"))
            .await
            .map(|answer| answer.status())
    });
    backend.calls_begun(1).await;
    gateway.terminate();
    gateway.ended().await;
    let answer = within("the end of the call", call).await.unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|status| status.is_server_error()));
    backend.calls_ended(1).await;
}

#[tokio::test]
async fn an_idle_gateway_ends_at_once() {
    let (backend, _go) = waiting().await;
    let mut gateway = Gateway::to(backend.address).await;
    let kept = Rest::connect(gateway.address, Version::Http2).await;
    let ready = once(gateway.admin, request(Method::GET, "/readyz", "")).await;
    assert_eq!(ready.status, 200);
    gateway.terminate();
    assert!(gateway.ended().await.success(), "{}", gateway.said());
    drop(kept);
}

/// Load balancers are told first; until they have looked elsewhere, calls are served as before.
#[tokio::test]
async fn with_a_delay_a_gateway_serves_on_while_it_says_that_it_does_not() {
    let (backend, go) = waiting().await;
    go.add_permits(3);
    // Far longer than the test: what ends it is the second signal.
    let mut gateway = Gateway::start(&Settings::to(backend.address).limit("drain_delay: 5m")).await;
    let health = "grpc.health.v1.Health/Check";
    let serves = async |gateway: &Gateway| {
        // By Connect: it has no path for REST.
        let mut asked = request(Method::POST, &format!("/{health}"), "{}");
        asked
            .headers_mut()
            .insert("connect-protocol-version", "1".parse().unwrap());
        once(gateway.address, asked).await.json()["status"].clone()
    };
    let mut kept = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(kept.post(&format!("/{GET_BOOK}"), "{}").await.status, 200);
    assert_eq!(serves(&gateway).await, "SERVING");
    gateway.terminate();
    gateway.says("about to drain").await;
    assert_eq!(
        once(gateway.admin, request(Method::GET, "/readyz", ""))
            .await
            .status,
        503
    );
    assert_eq!(
        once(gateway.admin, request(Method::GET, "/livez", ""))
            .await
            .status,
        200
    );
    assert_eq!(serves(&gateway).await, "NOT_SERVING");
    // On connections that there were, and on new ones.
    assert_eq!(kept.post(&format!("/{GET_BOOK}"), "{}").await.status, 200);
    let fresh = once(
        gateway.address,
        request(Method::POST, &format!("/{GET_BOOK}"), "{}"),
    )
    .await;
    assert_eq!(fresh.status, 200);
    assert!(!gateway.said().contains("draining"), "{}", gateway.said());
    gateway.terminate();
    assert!(gateway.ended().await.success(), "{}", gateway.said());
}

/// Somebody at a terminal does not wait for it.
#[tokio::test]
async fn an_interrupt_drains_at_once() {
    let (backend, _go) = waiting().await;
    let mut gateway = Gateway::start(&Settings::to(backend.address).limit("drain_delay: 5m")).await;
    gateway.signal("INT");
    assert!(gateway.ended().await.success(), "{}", gateway.said());
}

#[tokio::test]
async fn a_gateway_that_drains_is_not_ready_and_lives() {
    let (backend, go) = waiting().await;
    let mut gateway = Gateway::to(backend.address).await;
    let address = gateway.address;
    let call =
        tokio::spawn(
            async move { once(address, request(Method::POST, &format!("/{GET_BOOK}"), "{}")).await },
        );
    backend.calls_begun(1).await;
    gateway.terminate();
    gateway.says("draining").await;
    let ready = once(gateway.admin, request(Method::GET, "/readyz", "")).await;
    assert_eq!(ready.status, 503, "{ready:?}");
    let live = once(gateway.admin, request(Method::GET, "/livez", "")).await;
    assert_eq!(live.status, 200, "{live:?}");
    go.add_permits(1);
    assert_eq!(within("the answer", call).await.unwrap().status, 200);
    assert!(gateway.ended().await.success());
}
