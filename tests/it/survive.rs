//! Three gateways before three backends, all of them processes, and one after the other killed under load: whoever may send a
//! call again sees nothing of it, and of the others only those fail whose call was under way there, with the status that says
//! so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::examples::program;
use crate::support::clients::rest::{Rest, Version, request};
use crate::support::gateway::{Gateway, Process};
use crate::support::messages::DESCRIPTORS;
use crate::support::{until, within};

/// Clients that send a call again, to the next gateway.
const PATIENT: usize = 3;
/// Clients that do not, of each gateway.
const STUBBORN: usize = 2;
/// Calls of each sort that have to go well while one is missing.
const CALLS: u64 = 60;

/// A backend as a process of its own.
struct Service {
    address: SocketAddr,
    /// Dropping it kills it.
    _process: Process,
    _folder: TempDir,
}

impl Service {
    async fn start(address: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let process = Process::run(&program("library"), &["--listen", address], folder.path());
        Self {
            address: process.address_after("listening on ").await,
            _process: process,
            _folder: folder,
        }
    }
}

async fn gateway(address: &str, backends: &[SocketAddr]) -> Gateway {
    let endpoints: Vec<String> = backends.iter().map(|at| format!("\"http://{at}\"")).collect();
    Gateway::with_config(&format!(
        "listeners: [{{address: \"{address}\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library:
    endpoints: [{}]
    schema: {{descriptors: {DESCRIPTORS}}}
    slow_start: off
    ejection: {{base: 200ms, longest: 200ms}}
    retry: {{budget_per_second: 1000}}
routes: [{{services: [\"*\"], backend: library}}]
",
        endpoints.join(", ")
    ))
    .await
}

/// Which gateway failed a call, and the status and the code, or that the connection broke.
type Failure = (usize, Option<(StatusCode, i64)>);

/// What clients saw.
#[derive(Default)]
struct Seen {
    over: AtomicBool,
    patient: AtomicU64,
    stubborn: AtomicU64,
    /// Of those who send nothing again.
    failures: Mutex<Vec<Failure>>,
    /// What nobody should ever see.
    wrong: Mutex<Vec<String>>,
}

/// One call on a connection of its own; nothing where the connection broke.
async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: &str,
) -> Option<(StatusCode, serde_json::Value)> {
    let socket = tokio::net::TcpStream::connect(address).await.ok()?;
    let mut client = Rest::over(socket, Version::Http1).await;
    let response = client.start(request(method, path, body.to_owned())).await.ok()?;
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok()?.to_bytes();
    Some((head.status, serde_json::from_slice(&body).ok()?))
}

/// Asks for what may be asked for twice; each gateway once.
async fn patient(seen: Arc<Seen>, gateways: [SocketAddr; 3], number: usize) {
    while !seen.over.load(Ordering::Relaxed) {
        let mut told = Vec::new();
        let mut is_right = false;
        for step in 0..gateways.len() {
            let address = gateways[(number + step) % gateways.len()];
            match ask(address, Method::GET, "/v1/shelves/1/books/7", "").await {
                Some((StatusCode::OK, book)) if book["title"] == "Dune" => {
                    is_right = true;
                    break;
                }
                other => told.push(other),
            }
        }
        if is_right {
            seen.patient.fetch_add(1, Ordering::Relaxed);
        } else {
            seen.wrong.lock().push(format!("a patient client saw {told:?}"));
        }
    }
}

/// Sends what may not be sent twice, to one gateway.
async fn stubborn(seen: Arc<Seen>, gateway: usize, address: SocketAddr) {
    for number in 1_u64.. {
        if seen.over.load(Ordering::Relaxed) {
            return;
        }
        let count = json!({"number": number.to_string()});
        let told = ask(
            address,
            Method::POST,
            "/library.v1.Probe/Unbound",
            &count.to_string(),
        )
        .await;
        match told {
            Some((StatusCode::OK, same)) if same == count => {
                seen.stubborn.fetch_add(1, Ordering::Relaxed);
            }
            Some((StatusCode::OK, other)) => seen.wrong.lock().push(format!("{count} became {other}")),
            Some((status, error)) => {
                let code = error["code"].as_i64().unwrap_or(-1);
                seen.failures.lock().push((gateway, Some((status, code))));
            }
            None => {
                seen.failures.lock().push((gateway, None));
                // Its gateway is gone: it tries again when there is a chance that it is back.
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

impl Seen {
    /// Waits until many more calls of both sorts went well.
    async fn goes_on(&self) {
        let (patient, stubborn) = (
            self.patient.load(Ordering::Relaxed) + CALLS,
            self.stubborn.load(Ordering::Relaxed) + CALLS,
        );
        until("many calls that go well", async || {
            self.patient.load(Ordering::Relaxed) >= patient
                && self.stubborn.load(Ordering::Relaxed) >= stubborn
        })
        .await;
    }

    fn take_failures(&self) -> Vec<Failure> {
        std::mem::take(&mut *self.failures.lock())
    }
}

#[tokio::test]
async fn any_one_of_six_may_die() {
    let mut services = Vec::new();
    for _ in 0..3 {
        services.push(Service::start("127.0.0.1:0").await);
    }
    let backends: Vec<SocketAddr> = services.iter().map(|service| service.address).collect();
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(gateway("127.0.0.1:0", &backends).await);
    }
    let addresses = [gateways[0].address, gateways[1].address, gateways[2].address];
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for number in 0..PATIENT {
        clients.spawn(patient(Arc::clone(&seen), addresses, number));
    }
    for (number, address) in addresses.into_iter().enumerate() {
        for _ in 0..STUBBORN {
            clients.spawn(stubborn(Arc::clone(&seen), number, address));
        }
    }
    seen.goes_on().await;
    assert_eq!(seen.take_failures(), [], "nobody has died yet");
    for at in 0..3 {
        // A backend: of each client, the call under way may fail, and says that the upstream broke off.
        let address = services[at].address.to_string();
        drop(services.remove(at));
        seen.goes_on().await;
        services.insert(at, Service::start(&address).await);
        seen.goes_on().await;
        let failures = seen.take_failures();
        assert!(failures.len() <= STUBBORN * 3, "backend {at}: {failures:?}");
        for (_, told) in failures {
            let (status, code) = told.expect("the gateways are there");
            assert!(
                matches!(status.as_u16(), 502 | 503) && code == 14,
                "{status} {code}"
            );
        }

        // A gateway: its own clients see that it is gone, and nobody else anything.
        drop(gateways.remove(at));
        seen.goes_on().await;
        gateways.insert(at, gateway(&addresses[at].to_string(), &backends).await);
        seen.goes_on().await;
        for failure in seen.take_failures() {
            assert_eq!(failure, (at, None), "gateway {at}");
        }
    }
    seen.over.store(true, Ordering::Relaxed);
    within("the end of the clients", clients.join_all()).await;
    let wrong = seen.wrong.lock();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
