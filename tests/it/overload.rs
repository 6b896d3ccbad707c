//! More than there is room for: a backend's bound that follows its answers, and classes of calls that are shed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request};
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::Message;

use crate::auth::{BOOK, RPC, calls, post, send, site};
use crate::support::backends::{Backend, answering, grpc_head, grpc_trailers, raw};
use crate::support::clients::rest::{Answer, Rest, Version, once, request};
use crate::support::clients::websocket::Client;
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::until;

/// Whether an answer says in its dialect that there is no room now.
fn is_unavailable(answer: &Answer) -> bool {
    answer.tells(503, 14, "unavailable")
}

async fn metric(gateway: &Gateway, name: &str) -> f64 {
    let page = once(gateway.admin, request(Method::GET, "/metrics", "")).await;
    let text = page.text();
    let line = text.lines().find(|line| line.starts_with(name));
    let Some(value) = line.and_then(|line| line.rsplit(' ').next()) else {
        panic!("{name} is not in {text}");
    };
    value.parse().unwrap()
}

/// A backend that answers a call for each permit that there is.
async fn held(permits: Arc<Semaphore>) -> Backend {
    raw(
        move |request: Request<h2::RecvStream>, mut answer: h2::server::SendResponse<Bytes>| {
            let permits = Arc::clone(&permits);
            async move {
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                }
                permits.acquire().await.unwrap().forget();
                // A client that has left is no failure of the test.
                if let Ok(mut stream) = answer.send_response(grpc_head(), false) {
                    let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
                    let _ = stream.send_trailers(grpc_trailers("0"));
                }
            }
        },
    )
    .await
}

fn adaptive(backend: &Backend, site: &str) -> String {
    format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 2
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}, adaptive_concurrency: {{}}}}
  site: {{protocol: rest, endpoints: [\"{site}\"]}}
routes:
  - {{services: [\"*\"], backend: library}}
  - {{path: /site/**, backend: site}}
",
        backend.address
    )
}

#[tokio::test]
async fn a_backend_that_does_not_answer_gets_no_more_than_it_can_do_whatever_the_dialect() {
    let permits = Arc::new(Semaphore::new(0));
    let backend = held(Arc::clone(&permits)).await;
    let origin = site().await;
    let gateway = Gateway::with_config(&adaptive(&backend, &format!("http://{}", origin.address))).await;
    let address = gateway.address;
    let flying: Vec<_> = (0..3)
        .map(|_| tokio::spawn(async move { once(address, request(Method::GET, BOOK, "")).await }))
        .collect();
    backend.calls_begun(3).await;
    let mut refused = 0;
    for (name, version, call) in calls(&[]) {
        if matches!(name, "site" | "connect stream") {
            continue;
        }
        let answer = send(&gateway, version, call).await;
        assert!(is_unavailable(&answer), "{name}: {answer:?}");
        if answer.status == 503 {
            assert_eq!(answer.header("retry-after"), "1", "{name}");
        }
        if name == "rest" {
            assert_eq!(answer.reason(), "OVERLOADED");
        }
        refused += 1;
    }
    let mut socket = Client::open(address, BOOK, "sabir.v1.json").await;
    let status = socket.hear().await;
    assert_eq!(status["$status"]["code"], 14, "{status}");
    assert!(matches!(socket.next().await, Message::Close(Some(_))));
    refused += 1;
    assert_eq!(backend.begun(), 3, "nothing more was sent");
    let shown = metric(
        &gateway,
        "sabir_ratelimit_total{limit=\"backend \\\"library\\\"\",decision=\"refused\"}",
    );
    assert_eq!(shown.await, f64::from(refused));
    // Streams are not counted, and other backends are none of its business.
    let mut connection = Rest::connect(address, Version::Http2).await;
    let frame: &[u8] = &[0; 5];
    let watch = post("/library.v1.Library/WatchBooks", "application/grpc", frame, &[]);
    let stream = tokio::spawn(async move { connection.send(watch).await });
    backend.calls_begun(4).await;
    let page = once(address, request(Method::GET, "/site/page", "")).await;
    assert_eq!(page.status, 200);

    permits.add_permits(100_000);
    for call in flying {
        assert_eq!(call.await.unwrap().status, 200);
    }
    assert_eq!(stream.await.unwrap().status, 200);
    until("the best time to be measured", || async {
        let mut connection = Rest::connect(address, Version::Http2).await;
        for _ in 0..50 {
            assert_eq!(connection.get(BOOK).await.status, 200);
        }
        metric(&gateway, "sabir_adaptive_best_latency_seconds").await > 0.0
    })
    .await;
    // Whoever asks more at once gets more at once.
    until("the bound to grow", || async {
        let many = (0..30).map(|_| async {
            let mut connection = Rest::connect(address, Version::Http2).await;
            for _ in 0..10 {
                let status = connection.get(BOOK).await.status.as_u16();
                assert!(matches!(status, 200 | 503), "{status}");
            }
        });
        join_all(many).await;
        metric(&gateway, "sabir_adaptive_limit").await > 5.0
    })
    .await;
    assert_eq!(metric(&gateway, "sabir_adaptive_inflight").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_with_too_much_to_do_sheds_the_lowest_class_in_every_dialect_and_the_critical_never() {
    let backend = answering().await;
    let origin = site().await;
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
load_shedding: {{queue_time: 50ms, sustained: 2s}}
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
  site: {{protocol: rest, endpoints: [\"http://{}\"]}}
routes:
  - {{services: [library.v1.Library], backend: library, priority: low}}
  - {{services: [library.v1.Probe], backend: library, priority: critical}}
  - {{path: /site/**, backend: site, priority: low}}
",
        backend.address, origin.address
    ))
    .await;
    let address = gateway.address;
    // It stands still, which is a queue like any other for what is ready meanwhile.
    let stall = || async {
        gateway.signal("STOP");
        tokio::time::sleep(Duration::from_millis(2500)).await;
        gateway.signal("CONT");
    };
    stall().await;
    let mut stalls = 1;
    for at in 0..calls(&[]).len() {
        loop {
            let (name, version, call) = calls(&[]).swap_remove(at);
            let answer = send(&gateway, version, call).await;
            if !is_unavailable(&answer) {
                // It took so long to get here that all is well again.
                assert!(stalls < 10, "{name}: {answer:?}");
                stalls += 1;
                stall().await;
                continue;
            }
            if answer.status == 503 {
                assert_eq!(answer.header("retry-after"), "1", "{name}");
            }
            if name == "rest" {
                assert!(answer.text().contains("priority \\\"low\\\""), "{answer:?}");
            }
            break;
        }
        let answer = once(address, request(Method::POST, "/library.v1.Probe/Echo", "{}")).await;
        assert_eq!(answer.status, 200, "the critical are served");
    }
    loop {
        let handshake = crate::support::clients::websocket::handshake(address, RPC, &[]);
        match Client::ask(address, handshake).await {
            Err(refused) => {
                assert_eq!(refused.status(), 503, "before it is open");
                break;
            }
            Ok(_) => {
                assert!(stalls < 10, "it was opened");
                stalls += 1;
                stall().await;
            }
        }
    }
    assert!(metric(&gateway, "sabir_shed_total{priority=\"low\"}").await >= 1.0);
    let record = gateway.says("\"limit\":\"load_shedding\"").await;
    assert!(record.contains("OVERLOADED"));
    until("the low to be served again", || async {
        once(address, request(Method::GET, BOOK, "")).await.status == 200
    })
    .await;
    let explained = std::process::Command::new(env!("CARGO_BIN_EXE_sabir"))
        .args(["explain", "sabir.yaml", "GET", BOOK])
        .current_dir(gateway.folder())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&explained.stdout);
    assert!(text.contains("low where load is shed"), "{text}");
}
