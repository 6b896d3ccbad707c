//! How connections begin, wait, drain and end.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;

use super::support::{Client, Gateway, PATIENCE, refuse};
use crate::limits::Limits;
use crate::listen::pressure::Level;
use crate::listen::tls::{Identity, Tls};
use crate::listen::worker::Workers;
use crate::listen::{Connections, Drain, Drained, Settings, Sockets, serve};
use crate::wire::body::Body;

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn crowded() -> Limits {
    Limits {
        max_connections: 2,
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_connection_over_the_cap_is_told_so_and_the_others_are_served() {
    let gateway = Gateway::new(crowded());
    let mut first = gateway.client().await;
    let mut second = gateway.client().await;
    for client in [&mut first, &mut second] {
        client.say(GET).await;
        assert_eq!(client.answer().await.status, 200);
    }
    let mut third = gateway.client().await;
    third.say(GET).await;
    let answer = third.answer().await;
    assert_eq!((answer.status, answer.closes()), (503, true));
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(answer.body.contains("OVERLOADED"), "{}", answer.body);
    assert_eq!(third.rest().await, "");
    let mut fourth = gateway.client().await;
    fourth.say(PREFACE).await;
    let mut frames = Vec::new();
    fourth.0.read_to_end(&mut frames).await.unwrap();
    assert_eq!(frames[3], 4, "SETTINGS first");
    assert_eq!((frames[12], &frames[18..26]), (7, &[0, 0, 0, 0, 0, 0, 0, 11][..]));
    assert_eq!(gateway.settings.counters.over_total.value(), 2);
    drop(second);
    // The place is free once the gateway has seen the client leave.
    loop {
        let mut next = gateway.client().await;
        next.say(GET).await;
        if next.answer().await.status == 200 {
            break;
        }
    }
    first.say(GET).await;
    assert_eq!(first.answer().await.status, 200);
}

#[tokio::test]
async fn a_tls_connection_over_the_cap_gets_an_alert() {
    let files = tempfile::tempdir().unwrap();
    let identity = Identity {
        certificate: files.path().join("cert.pem"),
        key: files.path().join("key.pem"),
    };
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&identity.certificate, made.cert.pem()).unwrap();
    std::fs::write(&identity.key, made.signing_key.serialize_pem()).unwrap();
    let mut settings = Settings::new(crowded(), refuse);
    settings.tls = Some(Tls::load(&[identity], None).unwrap());
    let gateway = Gateway::with(settings);
    let _silent = [gateway.client().await, gateway.client().await];
    let mut third = gateway.client().await;
    let mut alert = Vec::new();
    third.0.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 80]);
}

#[tokio::test]
async fn short_memory_sheds_requests_and_then_connections() {
    let gateway = Gateway::new(Limits::default());
    let mut client = gateway.client().await;
    client.say(GET).await;
    assert_eq!(client.answer().await.status, 200);
    gateway.settings.pressure.set(Level::Shedding);
    client.say(GET).await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(gateway.settings.counters.shed.value(), 1);
    gateway.settings.pressure.set(Level::High);
    // One accept may be under way already.
    let _early = gateway.client().await;
    let mut late = gateway.client().await;
    late.say(GET).await;
    let early = tokio::time::timeout(Duration::from_millis(300), late.0.readable()).await;
    assert!(early.is_err(), "nothing is accepted");
    gateway.settings.pressure.set(Level::Normal);
    assert_eq!(late.answer().await.status, 200);
}

#[tokio::test]
async fn draining_closes_what_is_idle_and_finishes_what_is_not() {
    let mut gateway = Gateway::new(Limits::default());
    let mut idle = gateway.client().await;
    idle.say(GET).await;
    idle.answer().await;
    let mut silent = gateway.client().await;
    let mut busy = gateway.client().await;
    busy.say("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(gateway.hear().await, "begun");
    gateway.drain.begin();
    let began = Instant::now();
    assert_eq!(idle.rest().await, "");
    assert_eq!(silent.rest().await, "");
    assert!(began.elapsed() < Duration::from_secs(1));
    gateway.stage.go.notify_one();
    let answer = busy.answer().await;
    assert_eq!((answer.body.as_str(), answer.closes()), ("waited", true));
    assert_eq!(busy.rest().await, "");
    assert_eq!(gateway.drain.done().await, Drained::Clean);
    gateway.served.await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(gateway.address).await.is_err());
}

/// Waits until connections have given back what they do not need so many times.
async fn rested(gateway: &Gateway, times: u64) {
    let rested = async {
        while gateway.settings.counters.rested.value() < times {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, rested).await.expect("it rests");
}

#[tokio::test]
async fn a_connection_at_rest_serves_on() {
    let gateway = Gateway::new(Limits::default());
    let mut client = gateway.client().await;
    client.say(GET).await;
    assert_eq!(client.answer().await.status, 200);
    rested(&gateway, 1).await;
    // In two parts, of which the first wakes it.
    client.say(&GET[..9]).await;
    client.say(&GET[9..]).await;
    assert_eq!(client.answer().await.status, 200);
    client
        .say("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(client.answer().await.status, 200);
    rested(&gateway, 2).await;
    // What is wrong with a head is found as on any other connection.
    client
        .say("GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_connection_at_rest_ends_with_its_client_its_time_or_the_gateway() {
    let gateway = Gateway::new(Limits {
        keep_alive_timeout: Duration::from_secs(2),
        ..Limits::default()
    });
    let mut late = gateway.client().await;
    late.say(GET).await;
    late.answer().await;
    rested(&gateway, 1).await;
    assert_eq!(late.rest().await, "");
    let (mut gone, mut idle) = (gateway.client().await, gateway.client().await);
    for client in [&mut gone, &mut idle] {
        client.say(GET).await;
        client.answer().await;
    }
    rested(&gateway, 3).await;
    drop(gone);
    gateway.drain.begin();
    assert_eq!(idle.rest().await, "");
    assert_eq!(gateway.drain.done().await, Drained::Clean);
}

#[tokio::test]
async fn draining_tells_http2_clients_to_go() {
    let mut gateway = Gateway::new(Limits::default());
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("http://a/wait").body(()).unwrap();
    let (response, _) = sender
        .clone()
        .ready()
        .await
        .unwrap()
        .send_request(request, true)
        .unwrap();
    assert_eq!(gateway.hear().await, "begun");
    gateway.drain.begin();
    gateway.stage.go.notify_one();
    assert_eq!(response.await.unwrap().status(), 200);
    drop(sender);
    connection.await.unwrap().unwrap();
    assert_eq!(gateway.drain.done().await, Drained::Clean);
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_cut_off() {
    let mut gateway = Gateway::new(Limits {
        drain_timeout: Duration::from_millis(100),
        ..Limits::default()
    });
    let mut http1 = gateway.client().await;
    http1.say("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(gateway.hear().await, "begun");
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let _connection = tokio::spawn(connection);
    let request = http::Request::get("http://a/hang").body(()).unwrap();
    let (http2, _) = sender.send_request(request, true).unwrap();
    assert_eq!(gateway.hear().await, "begun");
    assert_eq!(gateway.drain.done().await, Drained::Cut { tasks: 1 });
    assert_eq!([gateway.hear().await, gateway.hear().await], ["dropped"; 2]);
    gateway.served.await.unwrap().unwrap();
    assert!(http2.await.is_err());
    let mut rest = Vec::new();
    // A reset or an end, as the kernel likes; no answer in any case.
    let _ended = http1.0.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
}

#[tokio::test]
async fn a_request_that_was_sent_before_draining_is_answered() {
    let gateway = Gateway::new(Limits::default());
    // The kernel connects and takes the bytes; the worker, on this thread, has not run yet.
    let mut client = std::net::TcpStream::connect(gateway.address).unwrap();
    std::io::Write::write_all(&mut client, GET.as_bytes()).unwrap();
    gateway.drain.begin();
    client.set_nonblocking(true).unwrap();
    let mut client = Client(tokio::net::TcpStream::from_std(client).unwrap());
    assert_eq!(client.answer().await.status, 200);
    assert_eq!(client.rest().await, "");
    assert_eq!(gateway.drain.done().await, Drained::Clean);
}

#[tokio::test]
async fn trusted_proxies_are_known_to_the_handler() {
    for (networks, trusted) in [(vec![], false), (vec!["127.0.0.0/8".parse().unwrap()], true)] {
        let mut settings = Settings::new(Limits::default(), refuse);
        settings.trusted_proxies = networks;
        let gateway = Gateway::with(settings);
        let mut client = gateway.client().await;
        client.say("GET /peer HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let said = client.answer().await.body;
        assert_eq!(
            said,
            format!("127.0.0.1 secure=false trusted={trusted} certificates=0")
        );
    }
}

#[test]
fn workers_share_a_port_and_drain_together() {
    let mut sockets = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into(), 2).unwrap();
    let shares = (0..2).map(|worker| sockets.take(worker).remove(0)).collect();
    let settings = Arc::new(Settings::new(Limits::default(), refuse));
    let connections = Connections::new(&settings.limits);
    let drain = Drain::new(Duration::from_secs(10));
    let workers = Workers::start(shares, {
        let drain = drain.clone();
        let connections = Arc::clone(&connections);
        move |_, socket| async move {
            let handler = |_, _| async {
                let worker = std::thread::current().name().unwrap().to_owned();
                http::Response::new(Body::whole(worker.into()))
            };
            let settings = tokio::sync::watch::channel(settings).1;
            serve(socket, settings, connections, drain, handler)
                .await
                .unwrap();
        }
    })
    .unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut clients = Vec::new();
        let mut names = BTreeSet::new();
        for _ in 0..32 {
            let mut client = Client(tokio::net::TcpStream::connect(sockets.address()).await.unwrap());
            client.say(GET).await;
            names.insert(client.answer().await.body);
            clients.push(client);
        }
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["worker-0", "worker-1"]);
        assert_eq!(connections.open(), 32);
        assert_eq!(drain.done().await, Drained::Clean);
        for mut client in clients {
            assert_eq!(client.rest().await, "");
        }
    });
    workers.join().unwrap();
    assert_eq!(connections.open(), 0);
}
