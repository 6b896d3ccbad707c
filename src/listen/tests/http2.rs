//! HTTP/2 from an independent client: floods, sizes, authorities.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::support::{Gateway, PATIENCE};
use crate::limits::Limits;

type Ended = JoinHandle<Result<(), h2::Error>>;

async fn connect(gateway: &Gateway) -> (SendRequest<Bytes>, Ended) {
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a{path}")).body(()).unwrap()
}

async fn send(sender: &SendRequest<Bytes>, request: Request<()>) -> Result<Response<RecvStream>, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let (response, _) = sender.send_request(request, true)?;
    response.await
}

async fn ask(sender: &SendRequest<Bytes>, request: Request<()>) -> (u16, String) {
    let (head, mut body) = send(sender, request).await.unwrap().into_parts();
    let mut text = Vec::new();
    while let Some(chunk) = body.data().await {
        text.extend_from_slice(&chunk.unwrap());
    }
    (head.status.as_u16(), String::from_utf8(text).unwrap())
}

async fn ended(connection: Ended) -> Result<(), h2::Error> {
    tokio::time::timeout(PATIENCE, connection)
        .await
        .expect("the connection should end")
        .unwrap()
}

#[tokio::test]
async fn streams_share_a_connection_with_prior_knowledge() {
    let mut gateway = Gateway::new(Limits::default());
    let (sender, _connection) = connect(&gateway).await;
    let waiting = tokio::spawn({
        let sender = sender.clone();
        async move { ask(&sender, get("/wait")).await }
    });
    assert_eq!(gateway.hear().await, "begun");
    assert_eq!(ask(&sender, get("/a")).await, (200, "/a".to_owned()));
    gateway.stage.go.notify_one();
    assert_eq!(waiting.await.unwrap(), (200, "waited".to_owned()));
}

#[tokio::test]
async fn heads_are_checked_and_refused_in_full() {
    let gateway = Gateway::new(Limits::default());
    let (sender, _connection) = connect(&gateway).await;
    let long = |length: usize| {
        Request::get(format!("http://a/{}", "x".repeat(length - 1)))
            .body(())
            .unwrap()
    };
    let large = |length: usize| {
        let value = "v".repeat(length - "x: \r\n".len());
        Request::get("http://a/").header("x", value).body(()).unwrap()
    };
    let lines = |count: usize| {
        let headers = (0..count).map(|at| (format!("x{at}"), "y"));
        headers
            .fold(Request::get("http://a/"), |request, (name, value)| {
                request.header(name, value)
            })
            .body(())
            .unwrap()
    };
    let host = |host: &str| Request::get("http://a/").header("host", host).body(()).unwrap();
    let table = [
        (get("/%5C"), 400, "BAD_REQUEST"),
        (host("a"), 200, ""),
        (host("b"), 400, "BAD_REQUEST"),
        (Request::get("http://u@a/").body(()).unwrap(), 400, "BAD_REQUEST"),
        (long(8192), 200, ""),
        (long(8193), 414, "URI_TOO_LONG"),
        (large(16_384), 200, ""),
        (large(16_385), 431, "HEADERS_TOO_LARGE"),
        (large(30_000), 431, "HEADERS_TOO_LARGE"),
        (lines(100), 200, ""),
        (lines(101), 431, "HEADERS_TOO_LARGE"),
        (
            Request::trace("http://a/").body(()).unwrap(),
            405,
            "METHOD_NOT_ALLOWED",
        ),
        (
            Request::connect("a:443").body(()).unwrap(),
            405,
            "METHOD_NOT_ALLOWED",
        ),
    ];
    for (request, status, reason) in table {
        let uri = request.uri().path().len();
        let answer = ask(&sender, request).await;
        assert!(
            answer.0 == status && answer.1.contains(reason),
            "{uri}: {answer:?}, not {status}"
        );
    }
}

#[tokio::test]
async fn a_failed_call_fails_alone() {
    let gateway = Gateway::new(Limits::default());
    let (sender, _connection) = connect(&gateway).await;
    let (status, body) = ask(&sender, get("/panic")).await;
    assert!(status == 500 && body.contains("INTERNAL"), "{status} {body}");
    // The reset overtakes the head, which was not sent yet.
    let error = send(&sender, get("/panic-body")).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    assert_eq!(gateway.settings.counters.panics.value(), 2);
    assert_eq!(ask(&sender, get("/a")).await.0, 200);
}

#[tokio::test]
async fn a_reset_stream_ends_its_call() {
    let mut gateway = Gateway::new(Limits::default());
    let (sender, _connection) = connect(&gateway).await;
    for path in ["/hang", "/stream"] {
        let mut sender = sender.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(get(path), true).unwrap();
        assert_eq!(gateway.hear().await, "begun");
        stream.send_reset(Reason::CANCEL);
        assert_eq!(gateway.hear().await, "dropped");
        drop(response);
    }
}

#[tokio::test]
async fn a_client_that_resets_too_much_is_told_to_calm_down() {
    let mut gateway = Gateway::new(Limits {
        max_resets: 5,
        ..Limits::default()
    });
    let (sender, connection) = connect(&gateway).await;
    for _ in 0..5 {
        let (response, mut stream) = sender.clone().send_request(get("/hang"), true).unwrap();
        assert_eq!(gateway.hear().await, "begun");
        stream.send_reset(Reason::CANCEL);
        assert_eq!(gateway.hear().await, "dropped");
        drop(response);
    }
    assert_eq!(ask(&sender, get("/a")).await.0, 200);
    let (_response, mut stream) = sender.clone().send_request(get("/hang"), true).unwrap();
    assert_eq!(gateway.hear().await, "begun");
    stream.send_reset(Reason::CANCEL);
    let _also_refused = send(&sender, get("/a")).await;
    let error = ended(connection).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
    assert_eq!(gateway.settings.counters.calmed.value(), 1);
}

/// A client that says frames.
struct Raw(TcpStream);

impl Raw {
    async fn connect(gateway: &Gateway) -> Self {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .await
            .unwrap();
        stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
        Self(stream)
    }

    /// The next frame: its type, flags and payload; `None` when the gateway has closed.
    async fn frame(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        let read = self.0.read_exact(&mut head);
        tokio::time::timeout(PATIENCE, read).await.unwrap().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        Some((head[3], head[4], payload))
    }

    /// The error code of the GOAWAY frame that comes, and then the end.
    async fn goaway(&mut self) -> u32 {
        loop {
            let (kind, flags, payload) = self.frame().await.expect("a GOAWAY frame should come");
            match (kind, flags) {
                (7, _) => return u32::from_be_bytes(payload[4..8].try_into().unwrap()),
                // A PING to be answered; the graceful end waits for it.
                (6, 0) => self.0.write_all(&frame(6, 1, 0, &payload)).await.unwrap(),
                _ => {}
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `GET http://a/` in HPACK, with names and values of the static table.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";
const END: u8 = 0x05;

#[tokio::test]
async fn the_settings_are_the_limits() {
    let gateway = Gateway::new(Limits::default());
    let mut client = Raw::connect(&gateway).await;
    let (kind, _, payload) = client.frame().await.unwrap();
    assert_eq!(kind, 4);
    let settings: Vec<(u16, u32)> = payload
        .chunks(6)
        .map(|setting| {
            (
                u16::from_be_bytes(setting[..2].try_into().unwrap()),
                u32::from_be_bytes(setting[2..].try_into().unwrap()),
            )
        })
        .collect();
    // Streams at once, stream window, frame size, header list.
    for (name, value) in [(3, 100), (4, 65_536), (5, 16_384), (6, 16_384 * 2 + 8192 + 64)] {
        assert!(settings.contains(&(name, value)), "{name}: {settings:?}");
    }
    // The connection's window, over the 65,535 bytes that it begins with.
    loop {
        let (kind, _, payload) = client.frame().await.unwrap();
        if kind == 8 {
            assert_eq!(payload, (1_048_576_u32 - 65_535).to_be_bytes());
            break;
        }
    }
}

#[tokio::test]
async fn floods_end_the_connection() {
    let reset = |stream| {
        [
            frame(1, END, stream, GET),
            frame(3, 0, stream, &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    let floods: [(&str, Vec<u8>); 3] = [
        (
            "rapid resets",
            (0..100).flat_map(|at| reset(at * 2 + 1)).collect(),
        ),
        (
            // A header block that does not end, in frames that do not either.
            "continuations",
            [
                frame(1, 1, 1, GET),
                frame(9, 0, 1, &[0x40, 1, b'x', 1, b'y']).repeat(20_000),
            ]
            .concat(),
        ),
        (
            "empty data",
            [
                frame(1, 4, 1, b"\x83\x86\x84\x41\x01a"),
                frame(0, 0, 1, &[]).repeat(1000),
            ]
            .concat(),
        ),
    ];
    for (name, bytes) in floods {
        let gateway = Gateway::new(Limits::default());
        let mut client = Raw::connect(&gateway).await;
        // The gateway may close before it has taken all.
        let _sent = client.0.write_all(&bytes).await;
        assert_eq!(client.goaway().await, 11, "{name}: ENHANCE_YOUR_CALM");
    }
}

#[tokio::test]
async fn an_idle_connection_is_told_to_go() {
    let gateway = Gateway::new(Limits {
        keep_alive_timeout: Duration::from_millis(100),
        ..Limits::default()
    });
    let mut client = Raw::connect(&gateway).await;
    assert_eq!(client.goaway().await, 0, "NO_ERROR");
    assert_eq!(client.goaway().await, 0, "NO_ERROR");
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn an_old_connection_is_told_to_go_and_finishes_its_calls() {
    let mut gateway = Gateway::new(Limits {
        max_connection_age: Duration::from_millis(200),
        ..Limits::default()
    });
    let (sender, connection) = connect(&gateway).await;
    let waiting = tokio::spawn({
        let sender = sender.clone();
        async move { ask(&sender, get("/wait")).await }
    });
    assert_eq!(gateway.hear().await, "begun");
    // New streams are refused once the client has read that it is to go.
    while send(&sender, get("/a")).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.stage.go.notify_one();
    assert_eq!(waiting.await.unwrap(), (200, "waited".to_owned()));
    drop(sender);
    ended(connection).await.unwrap();
}

#[tokio::test]
async fn a_preface_that_trickles_is_not_waited_for() {
    let gateway = Gateway::new(Limits {
        header_timeout: Duration::from_millis(100),
        ..Limits::default()
    });
    let mut client = gateway.client().await;
    client.say("PRI * HTTP/2.0\r\n").await;
    assert_eq!(client.rest().await, "");
    assert_eq!(gateway.settings.counters.heads_late.value(), 1);
}

#[tokio::test]
async fn a_dead_peer_is_found_by_pings() {
    let gateway = Gateway::new(Limits {
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(50),
        ..Limits::default()
    });
    // This client reads and never answers.
    let mut client = Raw::connect(&gateway).await;
    while client.frame().await.is_some() {}
}
