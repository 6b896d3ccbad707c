//! A configuration that changes while the gateway runs: by a signal, by its files, and without a lost call.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::body::Incoming;
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use sabir::schema::{Rules, Schema};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_reflection::server::Builder;
use tower::Service;
use tower::util::BoxCloneSyncService;

use crate::support::clients::grpc;
use crate::support::clients::rest::{Answer, Rest, Version, once, request};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answering, Origin, answer};
use crate::support::{until, within};
use crate::tls::{self, Authority};

/// An origin that says its name.
async fn origin(name: &'static str) -> Origin {
    Origin::start(move |_| answer(200, "text/plain", name)).await
}

/// A gateway that relays everything to one origin.
fn relaying(to: SocketAddr) -> String {
    relaying_with(to, "", "")
}

/// The same with lines of the listener, and of the whole.
fn relaying_with(to: SocketAddr, listener: &str, whole: &str) -> String {
    format!(
        "workers: 2\nlisteners:\n  - address: 127.0.0.1:0\n{listener}admin: {{address: 127.0.0.1:0}}\n\
         backends:\n  site: {{protocol: rest, endpoints: [\"http://{to}\"]}}\n\
         routes:\n  - {{path: /**, backend: site}}\n{whole}"
    )
}

async fn get(address: SocketAddr, path: &str) -> Answer {
    once(address, request(Method::GET, path, "")).await
}

async fn readiness(gateway: &Gateway) -> Value {
    get(gateway.admin, "/readyz").await.json()
}

/// A count of the metrics page.
async fn metric(gateway: &Gateway, name: &str) -> u64 {
    let page = get(gateway.admin, "/metrics").await;
    let line = page.text().lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("no {name} in {}", page.text()));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[tokio::test]
async fn a_signal_puts_another_configuration_in_place_and_calls_finish_on_theirs() {
    let go = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&go);
    let slow = Origin::serve(false, move |_: Request<Incoming>| {
        let told = Arc::clone(&told);
        async move {
            told.acquire().await.unwrap().forget();
            answer(200, "text/plain", "the old one") as Response<Answering>
        }
    })
    .await;
    let new = origin("the new one").await;
    let gateway = Gateway::with_config(&relaying(slow.address)).await;
    let address = gateway.address;
    let begun = tokio::spawn(async move { get(address, "/").await });
    until("the call", || async { slow.connections() == 1 }).await;
    gateway.rewrite(&relaying(new.address));
    gateway.signal("HUP");
    gateway.says("the configuration is reloaded").await;
    assert_eq!(get(address, "/").await.text(), "the new one");
    go.add_permits(1);
    assert_eq!(within("the call", begun).await.unwrap().text(), "the old one");
    gateway.says("\"generation\":1}").await;
    gateway.says("\"generation\":2}").await;
    assert!(metric(&gateway, "sabir_descriptor_generation").await >= 2);
}

#[tokio::test]
async fn a_change_of_the_file_is_seen_and_what_is_wrong_changes_nothing() {
    let (old, new) = (origin("the old one").await, origin("the new one").await);
    let gateway = Gateway::with_config(&relaying(old.address)).await;
    let address = gateway.address;
    gateway.rewrite(&relaying(new.address).replace("backend: site", "backend: sight"));
    until("the error", || async {
        readiness(&gateway).await["reload_errors"].is_array()
    })
    .await;
    let told = readiness(&gateway).await;
    assert_eq!(told["status"], "ready", "{told}");
    let error = told["reload_errors"][0].as_str().unwrap();
    assert!(
        error.contains("sabir.yaml:8:26: routes[0].backend: no backend \"sight\""),
        "{error}"
    );
    assert_eq!(get(address, "/").await.text(), "the old one");
    assert_eq!(
        metric(&gateway, "sabir_config_reload_total{result=\"failure\"}").await,
        1
    );
    gateway.rewrite(&relaying(new.address));
    until("the new configuration", || async {
        get(address, "/").await.text() == "the new one"
    })
    .await;
    until("the end of the error", || async {
        readiness(&gateway).await.get("reload_errors").is_none()
    })
    .await;
}

/// As a mounted ConfigMap changes.
#[tokio::test]
async fn a_folder_that_is_swapped_behind_a_link_is_seen() {
    let (old, new) = (origin("the old one").await, origin("the new one").await);
    let folder = tempfile::tempdir().unwrap();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, folder.path().join(name)).unwrap();
    for (version, to) in [("..1", old.address), ("..2", new.address)] {
        std::fs::create_dir(folder.path().join(version)).unwrap();
        std::fs::write(
            folder.path().join(version).join("site.url"),
            format!("http://{to}"),
        )
        .unwrap();
    }
    link("..1", "..data");
    link("..data/site.url", "site.url");
    let yaml = relaying(old.address).replace(&format!("http://{}", old.address), "${file:site.url}");
    let gateway = Gateway::in_folder(folder, &yaml).await;
    assert_eq!(get(gateway.address, "/").await.text(), "the old one");
    std::os::unix::fs::symlink("..2", gateway.folder().join("..next")).unwrap();
    std::fs::rename(gateway.folder().join("..next"), gateway.folder().join("..data")).unwrap();
    until("the new folder", || async {
        get(gateway.address, "/").await.text() == "the new one"
    })
    .await;
}

#[tokio::test]
async fn connections_and_what_they_carry_survive_what_does_not_concern_them() {
    let site = origin("here").await;
    let gateway = Gateway::with_config(&relaying(site.address).replace("workers: 2", "workers: 1")).await;
    let mut client = Rest::connect(gateway.address, Version::Http2).await;
    assert_eq!(client.get("/").await.text(), "here");
    let yaml = relaying_with(site.address, "", "limits: {request_timeout: 7s}\n");
    gateway.rewrite(&yaml.replace("workers: 2", "workers: 1"));
    gateway.signal("HUP");
    gateway.says("the configuration is reloaded").await;
    assert_eq!(client.get("/").await.text(), "here");
    assert_eq!(site.connections(), 1, "the connection upstream is the same");
    gateway.rewrite(&yaml);
    gateway.signal("HUP");
    gateway
        .says("workers: 2 instead of 1: holds after a restart only")
        .await;
}

#[tokio::test]
async fn listeners_come_and_go() {
    let site = origin("here").await;
    let gateway = Gateway::with_config(&relaying(site.address)).await;
    let first = gateway.address;
    let mut kept = Rest::connect(first, Version::Http1).await;
    assert_eq!(kept.get("/").await.text(), "here");
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    };
    let both = relaying_with(site.address, &format!("  - address: {port}\n"), "");
    gateway.rewrite(&both);
    gateway.signal("HUP");
    gateway.says(&format!("listening on {port}")).await;
    until("the new listener", || async {
        TcpStream::connect(port).await.is_ok()
    })
    .await;
    assert_eq!(get(port, "/").await.text(), "here");
    assert_eq!(kept.get("/").await.text(), "here");
    gateway.rewrite(&both.replace("  - address: 127.0.0.1:0\n", ""));
    gateway.signal("HUP");
    gateway.says(&format!("no longer listening on {first}")).await;
    until("the end of the old listener", || async {
        TcpStream::connect(first).await.is_err()
    })
    .await;
    assert_eq!(get(port, "/").await.text(), "here");
    // A port that somebody else has is an error, and nothing changes.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken_address = taken.local_addr().unwrap();
    gateway.rewrite(&both.replacen("127.0.0.1:0", &taken_address.to_string(), 1));
    gateway.signal("HUP");
    gateway.says("the port is taken").await;
    assert_eq!(get(port, "/").await.text(), "here");
}

#[tokio::test]
async fn new_handshakes_take_the_new_certificate_and_old_connections_live_on() {
    let site = origin("here").await;
    let (one, two) = (Authority::new(), Authority::new());
    one.sign("here.test");
    two.sign("here.test");
    let listener = format!("    tls: {{{}}}\n", one.pair("here.test"));
    let gateway = Gateway::with_config(&relaying_with(site.address, &listener, "")).await;
    let address = gateway.address;
    let stream = tls::connect(address, "here.test", one.client(&[b"h2"], None))
        .await
        .unwrap();
    let mut old = Rest::over(stream, Version::Http2).await;
    assert_eq!(old.get("/").await.text(), "here");
    for file in ["here.test.key", "here.test.pem"] {
        std::fs::copy(two.file(file), one.file(file)).unwrap();
    }
    until("the new certificate", || async {
        tls::connect(address, "here.test", two.client(&[b"h2"], None))
            .await
            .is_ok()
    })
    .await;
    assert!(
        tls::connect(address, "here.test", one.client(&[b"h2"], None))
            .await
            .is_err()
    );
    assert_eq!(old.get("/").await.text(), "here");
}

#[tokio::test]
async fn files_of_keys_are_watched() {
    let site = origin("here").await;
    let folder = tempfile::tempdir().unwrap();
    let keys = |keys: &[&str]| {
        let hex = |key: &str| {
            let digest = digest::digest(&digest::SHA256, key.as_bytes());
            digest
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let lines: Vec<String> = keys
            .iter()
            .map(|key| format!("  - {{label: {key}, sha256: {}}}\n", hex(key)))
            .collect();
        format!("keys:\n{}", lines.concat())
    };
    std::fs::write(folder.path().join("keys.yaml"), keys(&["first"])).unwrap();
    let yaml = relaying(site.address).replace("backend: site}\n", "backend: site, auth: members}\n")
        + "auth: {members: {api_keys: {file: keys.yaml}}}\n";
    let gateway = Gateway::in_folder(folder, &yaml).await;
    let status = |key: &'static str| async {
        let mut asked = request(Method::GET, "/", "");
        asked.headers_mut().insert("x-api-key", key.parse().unwrap());
        once(gateway.address, asked).await.status.as_u16()
    };
    assert_eq!((status("first").await, status("second").await), (200, 401));
    std::fs::write(gateway.folder().join("keys.yaml"), keys(&["second"])).unwrap();
    until("the new key", || async { status("second").await == 200 }).await;
    assert_eq!(status("first").await, 401);
    // A file that is broken takes nobody's key away.
    std::fs::write(gateway.folder().join("keys.yaml"), "keys: 7\n").unwrap();
    until("the error", || async {
        readiness(&gateway).await["reload_errors"].is_array()
    })
    .await;
    assert_eq!(status("second").await, 200);
}

#[tokio::test]
async fn proto_files_and_rules_are_watched() {
    let folder = TempDir::new().unwrap();
    let proto = |method: &str| {
        format!(
            "syntax = \"proto3\";\npackage shop.v1;\nmessage M {{}}\n\
             service Shop {{\n  rpc {method}(M) returns (M);\n}}\n"
        )
    };
    std::fs::create_dir(folder.path().join("protos")).unwrap();
    std::fs::write(folder.path().join("protos/shop.proto"), proto("Open")).unwrap();
    std::fs::write(folder.path().join("rules.yaml"), "http: {rules: []}\n").unwrap();
    let yaml = "listeners: [{address: \"127.0.0.1:0\"}]\nadmin: {address: \"127.0.0.1:0\"}\nworkers: 1\n\
                backends:\n  shop: {endpoints: [\"http://127.0.0.1:1\"], schema: {protos: [protos]}, rules: [rules.yaml]}\n\
                routes:\n  - {services: [\"*\"], backend: shop}\n";
    let gateway = Gateway::in_folder(folder, yaml).await;
    let status = |method: Method, path: &'static str| async {
        let body = if method == Method::POST { "{}" } else { "" };
        once(gateway.address, request(method, path, body))
            .await
            .status
            .as_u16()
    };
    // Nobody answers at the backend: what is known is 503.
    assert_eq!(status(Method::POST, "/shop.v1.Shop/Open").await, 503);
    assert_eq!(status(Method::POST, "/shop.v1.Shop/Close").await, 404);
    std::fs::write(gateway.folder().join("protos/shop.proto"), proto("Close")).unwrap();
    until("the new method", || async {
        status(Method::POST, "/shop.v1.Shop/Close").await == 503
    })
    .await;
    let rules = "http: {rules: [{selector: shop.v1.Shop.Close, get: /v1/close}]}\n";
    std::fs::write(gateway.folder().join("rules.yaml"), rules).unwrap();
    until("the new rule", || async {
        status(Method::GET, "/v1/close").await == 503
    })
    .await;
    // A file that does not compile is said with its place, and what was there stays.
    std::fs::write(
        gateway.folder().join("protos/shop.proto"),
        "syntax = \"proto3\";\nmessage M {\n",
    )
    .unwrap();
    until("the error", || async {
        readiness(&gateway).await["reload_errors"].is_array()
    })
    .await;
    let told = readiness(&gateway).await.to_string();
    assert!(told.contains("shop.proto:2:"), "{told}");
    assert_eq!(status(Method::GET, "/v1/close").await, 503);
}

/// A backend that answers reflection as it is told to, and every method that it tells of with an empty message.
#[derive(Clone)]
struct Reflecting(Arc<parking_lot::Mutex<Offer>>);

/// The paths of its methods, a line each, and reflection about them.
type Offer = (
    String,
    BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>,
);

impl Reflecting {
    async fn start(methods: &[&str]) -> (Self, SocketAddr, tokio::task::JoinHandle<()>) {
        let service = Self(Arc::new(parking_lot::Mutex::new(Self::with(methods))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = service.clone();
        let task = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            Server::builder()
                .serve_with_incoming(served, incoming)
                .await
                .unwrap();
        });
        (service, address, task)
    }

    fn offer(&self, methods: &[&str]) {
        *self.0.lock() = Self::with(methods);
    }

    fn with(methods: &[&str]) -> Offer {
        let rpcs: Vec<String> = methods
            .iter()
            .map(|method| format!("  rpc {method}(M) returns (M);\n"))
            .collect();
        let text = format!(
            "syntax = \"proto3\";\npackage shop.v1;\nmessage M {{}}\nservice Shop {{\n{}}}\n",
            rpcs.concat()
        );
        let schema = Schema::from_sources(
            &["shop.proto".to_owned()],
            &[("shop.proto".to_owned(), text)].into(),
            &Rules::empty(),
        )
        .unwrap();
        let files = schema
            .files
            .iter()
            .map(|file| FileDescriptorProto::decode(&**file).unwrap());
        let set = FileDescriptorSet {
            file: files.collect(),
        };
        let reflection = Builder::configure()
            .register_file_descriptor_set(set)
            .build_v1()
            .unwrap();
        let known = methods.iter().map(|method| format!("/shop.v1.Shop/{method}\n"));
        (known.collect(), BoxCloneSyncService::new(reflection))
    }
}

impl Service<Request<Body>> for Reflecting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (known, mut reflection) = self.0.lock().clone();
        let path = request.uri().path().to_owned();
        if path.starts_with("/grpc.reflection.") {
            return Box::pin(async move { reflection.call(request).await });
        }
        Box::pin(async move {
            if !known.lines().any(|method| method == path) {
                return Ok(tonic::Status::unimplemented("no such method").into_http());
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            let frames = [
                Frame::data(Bytes::from_static(&[0; 5])),
                Frame::trailers(trailers),
            ];
            let body = StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)));
            let mut response = Response::new(Body::new(body));
            response
                .headers_mut()
                .insert("content-type", "application/grpc".parse().unwrap());
            Ok(response)
        })
    }
}

fn asking(backend: SocketAddr, interval: &str) -> String {
    format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 1\n\
         backends:\n  shop: {{endpoints: [\"http://{backend}\"], reflection_interval: {interval}}}\n\
         routes:\n  - {{services: [\"*\"], backend: shop}}\n"
    )
}

async fn shop(address: SocketAddr, method: &str) -> u16 {
    let path = format!("/shop.v1.Shop/{method}");
    once(address, request(Method::POST, &path, "{}"))
        .await
        .status
        .as_u16()
}

#[tokio::test]
async fn a_backend_is_asked_again_and_keeps_what_it_told_while_it_is_silent() {
    let (service, backend, task) = Reflecting::start(&["Open"]).await;
    let gateway = Gateway::with_config(&asking(backend, "200ms")).await;
    assert_eq!(shop(gateway.address, "Open").await, 200);
    assert_eq!(shop(gateway.address, "Close").await, 404);
    service.offer(&["Open", "Close"]);
    until("the new method", || async {
        shop(gateway.address, "Close").await == 200
    })
    .await;
    task.abort();
    gateway.says("the last one stays").await;
    assert_ne!(shop(gateway.address, "Close").await, 404, "it is still known");
}

/// Without a doubt nobody would ask for an hour.
#[tokio::test]
async fn a_call_that_is_not_understood_has_the_backend_asked_at_once() {
    let (service, backend, _task) = Reflecting::start(&["Open"]).await;
    let gateway = Gateway::with_config(&asking(backend, "1h")).await;
    assert_eq!(shop(gateway.address, "Open").await, 200);
    service.offer(&["Shut"]);
    // The backend says that it has no such method, though it told of it.
    assert_eq!(shop(gateway.address, "Open").await, 501);
    until("the new schema", || async {
        shop(gateway.address, "Open").await == 404
    })
    .await;
    assert_eq!(shop(gateway.address, "Shut").await, 200);
    service.offer(&["Shut", "Lock"]);
    // A client knows of a method that nobody has told the gateway of.
    let unknown = grpc::unary(gateway.address, "shop.v1.Shop/Lock", Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::Unimplemented);
    until("the new method", || async {
        shop(gateway.address, "Lock").await == 200
    })
    .await;
}

/// A reload that gives a backend another endpoint does not forget what it told, and asks there.
#[tokio::test]
async fn another_endpoint_is_asked_and_nobody_waits_for_it() {
    let (_one, first, _first) = Reflecting::start(&["Open"]).await;
    let (_two, second, _second) = Reflecting::start(&["Open", "Close"]).await;
    let gateway = Gateway::with_config(&asking(first, "1h")).await;
    assert_eq!(
        (
            shop(gateway.address, "Open").await,
            shop(gateway.address, "Close").await
        ),
        (200, 404)
    );
    gateway.rewrite(&asking(second, "1h"));
    gateway.signal("HUP");
    gateway.says("the configuration is reloaded").await;
    assert_eq!(shop(gateway.address, "Open").await, 200);
    until("the new method", || async {
        shop(gateway.address, "Close").await == 200
    })
    .await;
}

/// An endpoint that is found beside another one is asked what it offers, without a reload or a call for it.
#[tokio::test]
async fn an_endpoint_that_comes_is_asked() {
    let (_one, first, _first) = Reflecting::start(&["Open"]).await;
    let (_two, second, _second) = Reflecting::start(&["Open", "Close"]).await;
    let folder = tempfile::tempdir().unwrap();
    let endpoints = folder.path().join("endpoints.yaml");
    std::fs::write(&endpoints, format!("[\"http://{first}\"]\n")).unwrap();
    let yaml = asking(first, "1h").replace(
        &format!("endpoints: [\"http://{first}\"]"),
        "endpoints: {file: endpoints.yaml}",
    );
    let gateway = Gateway::in_folder(folder, &yaml).await;
    assert_eq!(shop(gateway.address, "Open").await, 200);
    let next = gateway.folder().join("next");
    std::fs::write(&next, format!("[\"http://{first}\", \"http://{second}\"]\n")).unwrap();
    std::fs::rename(next, gateway.folder().join("endpoints.yaml")).unwrap();
    until("the new method in the routes", || async {
        let routes = once(gateway.admin, request(Method::GET, "/v1/routes", "")).await;
        routes.text().contains("shop.v1.Shop/Close")
    })
    .await;
}

/// One reload after the other under load, with changes that touch the route: no call fails, and nothing is left behind.
#[tokio::test]
async fn calls_do_not_notice_reloads() {
    let site = origin("here").await;
    let gateway = Gateway::with_config(&relaying(site.address)).await;
    let address = gateway.address;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for version in [Version::Http1, Version::Http2] {
        for _ in 0..2 {
            let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
            clients.spawn(async move {
                let mut client = Rest::connect(address, version).await;
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.get("/").await;
                    assert_eq!((answer.status.as_u16(), answer.text()), (200, "here"));
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    let mut resident = 0;
    for round in 0_u64..30 {
        let timeout = 5 + round % 7;
        gateway.rewrite(&relaying_with(
            site.address,
            "",
            &format!("limits: {{request_timeout: {timeout}s}}\n"),
        ));
        gateway.signal("HUP");
        until("the next plan", || async {
            metric(&gateway, "sabir_descriptor_generation").await >= round + 2
        })
        .await;
        if round == 10 {
            resident = gateway.resident_bytes();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 30);
    let after = gateway.resident_bytes();
    assert!(after < resident + (24 << 20), "{resident} bytes became {after}");
}
