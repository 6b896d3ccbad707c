//! Where endpoints are: a file, DNS, Consul, Kubernetes; and whether they serve.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, SRV};
use hickory_proto::rr::{RData, Record, RecordType};
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::sync::watch;

use crate::support::backends::{Backend, answering, grpc_head, grpc_trailers, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{once, request};
use crate::support::framing::envelope;
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::origin::{Answering, Origin, answer};
use crate::support::within;

const GET: &str = "library.v1.Library/GetBook";

/// A gateway whose one backend has these lines.
async fn gateway(lines: &str) -> Gateway {
    Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\n\
         backends:\n  library:\n    schema: {{descriptors: {DESCRIPTORS}}}\n    slow_start: off\n{lines}\
         routes:\n  - {{services: [\"*\"], backend: library}}\n"
    ))
    .await
}

/// Calls until this backend alone takes all calls.
async fn takes_over(gateway: &Gateway, backend: &Backend) {
    within("the change of endpoints", async {
        loop {
            let before = backend.begun();
            let mut good = 0;
            for _ in 0..4 {
                good += usize::from(grpc::unary(gateway.address, GET, Bytes::new()).await.is_ok());
            }
            if good == 4 && backend.begun() == before + 4 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let (one, other) = (answering().await, answering().await);
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("endpoints.yaml");
    std::fs::write(&file, format!("- http://{}\n", one.address)).unwrap();
    let gateway = gateway(&format!("    endpoints: {{file: {}}}\n", file.display())).await;
    takes_over(&gateway, &one).await;
    // A list that is wrong changes nothing.
    std::fs::write(&file, "- nonsense\n").unwrap();
    takes_over(&gateway, &one).await;
    let next = folder.path().join("next.yaml");
    std::fs::write(
        &next,
        format!("- {{url: \"http://{}\", weight: 2}}\n", other.address),
    )
    .unwrap();
    std::fs::rename(&next, &file).unwrap();
    takes_over(&gateway, &other).await;
}

/// A DNS server that answers with what it is told to.
async fn dns(answers: impl Fn(&str, RecordType) -> Option<Vec<RData>> + Send + 'static) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let asked = Message::from_vec(&buffer[..length]).unwrap();
            let query = asked.queries[0].clone();
            let mut told = Message::new(asked.metadata.id, MessageType::Response, OpCode::Query);
            told.metadata.recursion_desired = true;
            told.metadata.recursion_available = true;
            match answers(&query.name.to_string(), query.query_type) {
                None => told.metadata.response_code = ResponseCode::ServFail,
                Some(found) => {
                    for data in found {
                        told.add_answer(Record::from_rdata(query.name.clone(), 5, data));
                    }
                }
            }
            told.add_query(query);
            socket.send_to(&told.to_vec().unwrap(), from).await.unwrap();
        }
    });
    address
}

fn local() -> RData {
    RData::A(A(Ipv4Addr::LOCALHOST))
}

/// Every service of a name is an endpoint; when DNS fails, those that are known stay; when it tells others, they change.
#[tokio::test]
async fn services_of_dns_are_followed() {
    let (one, other) = (answering().await, answering().await);
    let port = Arc::new(Mutex::new(Some(one.address.port())));
    let told = Arc::clone(&port);
    let server = dns(move |name, kind| {
        let port = (*told.lock())?;
        Some(match (name, kind) {
            ("_grpc._tcp.library.test.", RecordType::SRV) => {
                let worse = SRV::new(20, 1, 1, "spare.library.test.".parse().unwrap());
                let best = SRV::new(10, 5, port, "a.library.test.".parse().unwrap());
                vec![RData::SRV(worse), RData::SRV(best)]
            }
            ("a.library.test.", RecordType::A) => vec![local()],
            _ => Vec::new(),
        })
    })
    .await;
    let gateway = gateway(&format!(
        "    endpoints: {{srv: \"http://_grpc._tcp.library.test\", server: \"{server}\"}}\n"
    ))
    .await;
    takes_over(&gateway, &one).await;
    *port.lock() = None;
    gateway.says("endpoints can't be found").await;
    takes_over(&gateway, &one).await;
    *port.lock() = Some(other.address.port());
    takes_over(&gateway, &other).await;
}

/// Every address of a name is an endpoint, which is asked by that name.
#[tokio::test]
async fn addresses_of_dns_are_asked_by_their_name() {
    let seen = Arc::new(Mutex::new(String::new()));
    let authority = Arc::clone(&seen);
    let backend = raw(move |request, mut answer| {
        *authority.lock() = request.uri().authority().unwrap().to_string();
        async move {
            let mut body = answer.send_response(grpc_head(), false).unwrap();
            body.send_data(envelope(b""), false).unwrap();
            body.send_trailers(grpc_trailers("0")).unwrap();
        }
    })
    .await;
    let server = dns(|name, kind| {
        Some(match (name, kind) {
            ("library.test.", RecordType::A) => vec![local()],
            _ => Vec::new(),
        })
    })
    .await;
    let port = backend.address.port();
    let gateway = gateway(&format!(
        "    endpoints: {{dns: \"http://library.test:{port}\", server: \"{server}\"}}\n"
    ))
    .await;
    takes_over(&gateway, &backend).await;
    assert_eq!(*seen.lock(), format!("library.test:{port}"));
}

/// An agent of Consul with one service, whose instances are these.
async fn consul(instances: watch::Receiver<Vec<u16>>) -> Origin {
    Origin::serve(false, move |request: Request<Incoming>| {
        let mut instances = instances.clone();
        async move {
            assert_eq!(request.uri().path(), "/v1/health/service/library");
            assert_eq!(request.headers()["x-consul-token"], "secret");
            let query = request.uri().query().unwrap().to_owned();
            assert!(query.contains("passing=1") && query.contains("tag=v2"), "{query}");
            if query.contains("index=") {
                // A blocking query waits for a change.
                if instances.changed().await.is_err() {
                    return answer(500, "", "");
                }
            }
            let ports = instances.borrow_and_update().clone();
            let body: Vec<Value> = ports
                .iter()
                .map(|port| {
                    json!({"Node": {"Address": "127.0.0.1"},
                           "Service": {"Address": "", "Port": port, "Weights": {"Passing": 3, "Warning": 1}}})
                })
                .collect();
            let mut response = answer(200, "application/json", Value::from(body).to_string());
            response
                .headers_mut()
                .insert("x-consul-index", "7".parse().unwrap());
            response
        }
    })
    .await
}

#[tokio::test]
async fn instances_of_consul_are_followed() {
    let (one, other) = (answering().await, answering().await);
    let (tell, told) = watch::channel(vec![one.address.port()]);
    let agent = consul(told).await;
    let gateway = gateway(&format!(
        "    endpoints: {{consul: {{url: \"http://{}\", service: library, tag: v2, token: secret}}}}\n",
        agent.address
    ))
    .await;
    takes_over(&gateway, &one).await;
    tell.send(vec![other.address.port()]).unwrap();
    takes_over(&gateway, &other).await;
    assert!(!gateway.said().contains("secret"));
}

fn slice(name: &str, version: u32, endpoints: &[(u16, Option<bool>)]) -> Vec<Value> {
    endpoints
        .iter()
        .map(|(port, ready)| {
            json!({
                "metadata": {"name": format!("{name}-{port}"), "resourceVersion": version.to_string()},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": ready}, "zone": "a"}],
                "ports": [{"name": "metrics", "port": 1}, {"name": "grpc", "port": port, "protocol": "TCP"}]
            })
        })
        .collect()
}

/// Lists, watches, bookmarks, and a list that is too old: the slices of a service are followed through all of it.
#[tokio::test]
async fn slices_of_kubernetes_are_followed() {
    let (one, two, three) = (answering().await, answering().await, answering().await);
    let (first, second, third) = (one.address.port(), two.address.port(), three.address.port());
    let step = watch::Sender::new(0_u32);
    let steps = step.subscribe();
    let queries: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&queries);
    let server = Origin::serve(false, move |request: Request<Incoming>| {
        let steps = steps.clone();
        let query = request.uri().query().unwrap().to_owned();
        assert_eq!(
            request.uri().path(),
            "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
        );
        assert_eq!(request.headers()["authorization"], "Bearer pod");
        assert!(
            query.contains("kubernetes.io%2Fservice-name%3Dlibrary"),
            "{query}"
        );
        seen.lock().push(query.clone());
        async move {
            if !query.contains("watch=1") {
                let (version, items) = if *steps.borrow() == 0 {
                    (10, slice("s", 9, &[(first, None), (second, Some(false))]))
                } else {
                    (30, slice("s", 29, &[(third, Some(true))]))
                };
                let list = json!({"metadata": {"resourceVersion": version.to_string()}, "items": items});
                return answer(200, "application/json", list.to_string());
            }
            let at = u32::from(query.contains("resourceVersion=30")) * 2;
            let events = stream::unfold((steps, at), move |(mut steps, at)| async move {
                steps.wait_for(|step| *step > at).await.ok()?;
                let text = match at {
                    0 => {
                        let [gone, ready] = [
                            slice("s", 11, &[(first, None)]),
                            slice("s", 12, &[(second, Some(true))]),
                        ];
                        format!(
                            "{}\n{}\n{}\n",
                            json!({"type": "MODIFIED", "object": ready[0]}),
                            json!({"type": "DELETED", "object": gone[0]}),
                            json!({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "20"}}}),
                        )
                    }
                    1 => format!(
                        "{}\n",
                        json!({"type": "ERROR", "object": {"code": 410, "reason": "Expired"}})
                    ),
                    _ => return None,
                };
                // In two pieces, of which the first ends in the middle of a line.
                let (head, tail) = text.split_at(text.len() / 2);
                let pieces = [head, tail].map(|piece| Bytes::from(piece.to_owned()));
                Some((stream::iter(pieces), (steps, at + 1)))
            });
            let frames = events
                .flatten()
                .map(|piece| Ok::<_, std::convert::Infallible>(Frame::data(piece)));
            let body: Answering = StreamBody::new(frames).boxed_unsync();
            Response::new(body)
        }
    })
    .await;
    let folder = tempfile::TempDir::new().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "pod\n").unwrap();
    let gateway = gateway(&format!(
        "    endpoints:\n      kubernetes:\n        {{service: library, namespace: shop, port: grpc, server: \"http://{}\", token: {}}}\n",
        server.address,
        token.display()
    ))
    .await;
    takes_over(&gateway, &one).await;
    step.send_replace(1);
    takes_over(&gateway, &two).await;
    step.send_replace(2);
    takes_over(&gateway, &three).await;
    assert!(
        queries
            .lock()
            .iter()
            .any(|query| query.contains("resourceVersion=30"))
    );
}

/// What a server says by `Watch` counts at once; who does not know the protocol is checked by its connections.
#[tokio::test]
async fn grpc_servers_are_asked_whether_they_serve() {
    let serving = watch::Sender::new(true);
    let told = serving.subscribe();
    let watched = raw(move |request, mut answer| {
        let mut told = told.clone();
        async move {
            let path = request.uri().path().to_owned();
            let state = |serves: bool| envelope(&[0x08, if serves { 1 } else { 2 }]);
            let mut body = answer.send_response(grpc_head(), false).unwrap();
            match path.as_str() {
                "/grpc.health.v1.Health/Check" => {
                    body.send_data(state(*told.borrow()), false).unwrap();
                    body.send_trailers(grpc_trailers("0")).unwrap();
                }
                "/grpc.health.v1.Health/Watch" => loop {
                    let now = *told.borrow_and_update();
                    if body.send_data(state(now), false).is_err() || told.changed().await.is_err() {
                        return;
                    }
                },
                _ => {
                    body.send_data(envelope(b""), false).unwrap();
                    body.send_trailers(grpc_trailers("0")).unwrap();
                }
            }
        }
    })
    .await;
    let ignorant = raw(|request, mut answer| async move {
        let mut head = grpc_head();
        if request.uri().path().starts_with("/grpc.health") {
            head.headers_mut().extend(grpc_trailers("12"));
            let _ = answer.send_response(head, true);
            return;
        }
        let mut body = answer.send_response(head, false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    // An interval of an hour: what changes is told by the server, and not found by asking.
    let gateway = gateway(&format!(
        "    endpoints: [\"http://{}\", \"http://{}\"]\n    health_check: {{interval: 1h}}\n    load_balancing: round_robin\n",
        watched.address, ignorant.address
    ))
    .await;
    gateway.says("does not know grpc.health.v1").await;
    let healthy = |expected: u8| {
        let line = format!(
            "sabir_endpoint_healthy{{backend=\"library\",endpoint=\"http://{}\"}} {expected}",
            watched.address
        );
        let admin = gateway.admin;
        async move {
            within(&line, async {
                loop {
                    let page = once(admin, request(Method::GET, "/metrics", "")).await;
                    if page.text().contains(&line) {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
            .await;
        }
    };
    healthy(1).await;
    within("the watch", watched.calls_begun(2)).await;
    serving.send_replace(false);
    healthy(0).await;
    takes_over(&gateway, &ignorant).await;
    serving.send_replace(true);
    healthy(1).await;
}

/// A page that does not say what it should is the end of an endpoint, until it does again.
#[tokio::test]
async fn http_origins_are_asked_for_a_page() {
    let is_well = Arc::new(AtomicBool::new(true));
    let well = Arc::clone(&is_well);
    let page = move |path: &str, mine: &str| -> Response<Answering> {
        match path {
            "GET /healthz" if well.load(Ordering::Relaxed) => answer(200, "text/plain", "status: fine"),
            "GET /healthz" => answer(200, "text/plain", "status: poor"),
            _ => answer(200, "text/plain", mine.to_owned()),
        }
    };
    let one = Origin::start(move |seen| page(&seen.line, "one")).await;
    let other = Origin::start(|seen| match seen.line.as_str() {
        "GET /healthz" => answer(204, "", ""),
        _ => answer(200, "text/plain", "other"),
    })
    .await;
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\n\
         backends:\n  origin:\n    protocol: rest\n    slow_start: off\n    panic_threshold: 0\n\
         \x20   endpoints: [\"http://{}\", \"http://{}\"]\n\
         \x20   health_check: {{interval: 20ms, healthy: 1, unhealthy: 2, path: /healthz, expected: [200], contains: fine}}\n\
         routes:\n  - {{path: /**, backend: origin}}\n",
        one.address, other.address
    ))
    .await;
    let ask = || async { once(gateway.address, request(Method::GET, "/x", "")).await };
    within("the other one to be left out", async {
        loop {
            let answers = [
                ask().await,
                ask().await,
                ask().await,
                ask().await,
                ask().await,
                ask().await,
            ];
            if answers.iter().all(|answer| answer.text() == "one") {
                return;
            }
        }
    })
    .await;
    is_well.store(false, Ordering::Relaxed);
    within("nobody to be healthy", async {
        while ask().await.status != 503 {}
    })
    .await;
    let refused = ask().await;
    refused.error(503, 14);
    assert_eq!(refused.reason(), "UPSTREAM_UNAVAILABLE");
    is_well.store(true, Ordering::Relaxed);
    within("it to come back", async { while ask().await.status != 200 {} }).await;
}
