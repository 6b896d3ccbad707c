//! A restart while clients call: one process hands its sockets to the next, and nobody is refused or loses a call. And what
//! the service manager hears of all that.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Method;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::clients::rest::{Answer, Rest, Version, collect, request};
use crate::support::gateway::Process;
use crate::support::origin::{Origin, answer};
use crate::support::{until, within};

/// A port that is free for now.
fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

fn configuration(
    folder: &TempDir,
    listener: SocketAddr,
    admin: SocketAddr,
    origin: SocketAddr,
    workers: usize,
) {
    let yaml = format!(
        "workers: {workers}\nlisteners: [{{address: \"{listener}\"}}]\nadmin: {{address: \"{admin}\"}}\n\
         backends:\n  site: {{protocol: rest, endpoints: [\"http://{origin}\"]}}\n\
         routes:\n  - {{path: /**, backend: site}}\n"
    );
    std::fs::write(folder.path().join("sabir.yaml"), yaml).unwrap();
}

const ARGUMENTS: [&str; 5] = ["serve", "--config", "sabir.yaml", "--takeover", "takeover.sock"];

/// One call on a connection of its own; a refused or broken connection is a failure.
async fn call(address: SocketAddr) -> Answer {
    let socket = TcpStream::connect(address).await.expect("nobody is refused");
    let mut client = Rest::over(socket, Version::Http1).await;
    let response = client
        .start(request(Method::GET, "/", ""))
        .await
        .expect("no call is lost");
    collect(response).await
}

#[tokio::test]
async fn nobody_notices_that_another_process_serves() {
    let origin = Origin::start(|_| answer(200, "text/plain", "here")).await;
    let folder = tempfile::tempdir().unwrap();
    let (address, admin) = (free(), free());
    configuration(&folder, address, admin, origin.address, 2);
    let mut old = Process::start(&ARGUMENTS, folder.path());
    old.says("listening on ").await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for _ in 0..4 {
        let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
        clients.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = call(address).await;
                assert_eq!((answer.status.as_u16(), answer.text()), (200, "here"));
                calls.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // Fewer workers than sockets, then more: none is dropped.
    for workers in [1, 3] {
        let before = calls.load(Ordering::Relaxed);
        until("calls", || async { calls.load(Ordering::Relaxed) > before + 20 }).await;
        configuration(&folder, address, admin, origin.address, workers);
        let new = Process::start(&ARGUMENTS, folder.path());
        new.says("listening on ").await;
        old.says("another process has taken over").await;
        assert!(old.ended().await.success(), "{}", old.said());
        old = new;
        let during = calls.load(Ordering::Relaxed);
        until("calls", || async { calls.load(Ordering::Relaxed) > during + 20 }).await;
        assert_eq!(
            call(admin).await.status,
            404,
            "the admin listener is the new one's"
        );
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client.unwrap();
    }
    old.signal("TERM");
    assert!(old.ended().await.success(), "{}", old.said());
}

/// A process that can't start takes nothing away.
#[tokio::test]
async fn a_process_that_does_not_start_changes_nothing() {
    let origin = Origin::start(|_| answer(200, "text/plain", "here")).await;
    let folder = tempfile::tempdir().unwrap();
    let (address, admin) = (free(), free());
    configuration(&folder, address, admin, origin.address, 1);
    let old = Process::start(&ARGUMENTS, folder.path());
    old.says("listening on ").await;
    let yaml = std::fs::read_to_string(folder.path().join("sabir.yaml")).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!(
        "{{address: \"{address}\"}}, {{address: \"{}\"}}",
        taken.local_addr().unwrap()
    );
    let wrong = yaml.replace(&format!("{{address: \"{address}\"}}"), &other);
    std::fs::create_dir(folder.path().join("next")).unwrap();
    std::fs::write(folder.path().join("next/sabir.yaml"), wrong).unwrap();
    let arguments = [
        "serve",
        "--config",
        "next/sabir.yaml",
        "--takeover",
        "takeover.sock",
    ];
    let mut new = Process::start(&arguments, folder.path());
    assert!(!new.ended().await.success());
    old.says("does not serve").await;
    assert_eq!(call(address).await.text(), "here");
}

#[tokio::test]
async fn the_service_manager_hears_of_it() {
    let origin = Origin::start(|_| answer(200, "text/plain", "here")).await;
    let folder = tempfile::tempdir().unwrap();
    configuration(&folder, free(), free(), origin.address, 1);
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    let socket = folder.path().join("notify");
    let mut process = Process::with_environment(
        &["serve", "--config", "sabir.yaml"],
        folder.path(),
        &[
            ("NOTIFY_SOCKET", socket.to_str().unwrap()),
            ("WATCHDOG_USEC", "200000"),
        ],
    );
    manager.set_nonblocking(true).unwrap();
    let manager = tokio::net::UnixDatagram::from_std(manager).unwrap();
    let heard = async |wanted: &str| {
        within("the word", async {
            loop {
                let mut bytes = [0; 256];
                let length = manager.recv(&mut bytes).await.unwrap();
                let words = String::from_utf8(bytes[..length].to_vec()).unwrap();
                if words.starts_with(wanted) {
                    return;
                }
            }
        })
        .await;
    };
    heard("READY=1\nMAINPID=").await;
    heard("WATCHDOG=1").await;
    process.signal("HUP");
    heard("RELOADING=1\nMONOTONIC_USEC=").await;
    heard("READY=1").await;
    process.signal("TERM");
    heard("STOPPING=1").await;
    assert!(process.ended().await.success(), "{}", process.said());
}
