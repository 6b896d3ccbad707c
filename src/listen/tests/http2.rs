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
    let mut response = send(&sender, get("/panic-body")).await.unwrap();
    let error = response.body_mut().data().await.unwrap().unwrap_err();
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
        let (head, payload) = self.whole_frame().await?;
        Some((head[3], head[4], payload))
    }

    async fn whole_frame(&mut self) -> Option<([u8; 9], Vec<u8>)> {
        let mut head = [0; 9];
        let read = self.0.read_exact(&mut head);
        tokio::time::timeout(PATIENCE, read).await.unwrap().ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.unwrap();
        Some((head, payload))
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

/// What a client is told that breaks the protocol: that its connection ends, that its stream does, or nothing.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// GOAWAY, with this error code.
    Goaway(u32),
    /// RST_STREAM on the first stream, with this error code.
    Reset(u32),
    /// An answer on the stream of this number.
    Answer(u32),
}

impl Raw {
    /// What the gateway says to what was sent, apart from what it says to everybody.
    async fn told(&mut self) -> Told {
        loop {
            let (head, payload) = self
                .whole_frame()
                .await
                .expect("the gateway should say something");
            let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
            let stream = u32::from_be_bytes(head[5..9].try_into().unwrap());
            match head[3] {
                1 => return Told::Answer(stream),
                3 => return Told::Reset(code(0)),
                7 => return Told::Goaway(code(4)),
                _ => {}
            }
        }
    }
}

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const COMPRESSION_ERROR: u32 = 9;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `POST http://a/count`, whose body follows.
const POST: &[u8] = b"\x83\x86\x44\x06/count\x41\x01a";
const MORE: u8 = 0x04;

#[tokio::test]
async fn a_client_that_breaks_the_protocol_is_told_how() {
    let number = |number: u32| number.to_be_bytes();
    let setting = |name: u16, value: u32| [&name.to_be_bytes()[..], &number(value)].concat();
    let get = frame(1, END, 1, GET);
    let post = frame(1, MORE, 1, POST);
    let head = |block: &[u8]| frame(1, END, 1, block);
    let after = |first: &[u8], second: Vec<u8>| [first, &second].concat();
    let hang = frame(1, MORE, 1, b"\x83\x86\x44\x05/hang\x41\x01a");
    let table: Vec<(&str, Vec<u8>, Told)> = vec![
        (
            "DATA on no stream",
            frame(0, 0, 0, b"a"),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "DATA on an idle stream",
            frame(0, 0, 1, b"a"),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "padding as long as DATA",
            after(&post, frame(0, 8, 1, &[2, 0])),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "padding within DATA",
            after(&post, frame(0, 9, 1, &[2, b'a', 0, 0])),
            Told::Answer(1),
        ),
        (
            "DATA after its end",
            after(&hang, [frame(0, 1, 1, b"a"), frame(0, 0, 1, b"a")].concat()),
            Told::Reset(STREAM_CLOSED),
        ),
        (
            "HEADERS on no stream",
            frame(1, END, 0, GET),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "HEADERS on a server's stream",
            frame(1, END, 2, GET),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "HEADERS on a lower stream",
            after(&frame(1, END, 3, GET), frame(1, END, 1, GET)),
            Told::Goaway(STREAM_CLOSED),
        ),
        (
            "HEADERS with a priority",
            frame(1, END | 0x20, 1, &[&[0, 0, 0, 0, 9], GET].concat()),
            Told::Answer(1),
        ),
        (
            "HEADERS with padding",
            frame(1, END | 8, 1, &[&[2], GET, &[0, 0]].concat()),
            Told::Answer(1),
        ),
        (
            "a stream that depends on itself",
            frame(1, END | 0x20, 1, &[&[0, 0, 0, 1, 9], GET].concat()),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "an index in neither table",
            head(b"\xff\x00"),
            Told::Goaway(COMPRESSION_ERROR),
        ),
        (
            "HEADERS in two frames",
            [frame(1, 1, 1, &GET[..2]), frame(9, 4, 1, &GET[2..])].concat(),
            Told::Answer(1),
        ),
        (
            "a block with another frame in it",
            [frame(1, 1, 1, GET), frame(6, 0, 0, &[0; 8])].concat(),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "a block with DATA in it",
            [frame(1, 1, 1, GET), frame(0, 0, 1, b"a")].concat(),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "a block with another stream's in it",
            [frame(1, 1, 1, GET), frame(9, 4, 3, GET)].concat(),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "CONTINUATION of nothing",
            frame(9, 4, 1, GET),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "PRIORITY on no stream",
            frame(2, 0, 0, &[0; 5]),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "a short PRIORITY",
            frame(2, 0, 1, &[0; 4]),
            Told::Reset(FRAME_SIZE_ERROR),
        ),
        (
            "RST_STREAM on no stream",
            frame(3, 0, 0, &number(8)),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "RST_STREAM on an idle stream",
            frame(3, 0, 1, &number(8)),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "a short RST_STREAM",
            after(&get, frame(3, 0, 1, &[0; 3])),
            Told::Goaway(FRAME_SIZE_ERROR),
        ),
        (
            "SETTINGS on a stream",
            frame(4, 0, 1, &[]),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "SETTINGS of five bytes",
            frame(4, 0, 0, &[0; 5]),
            Told::Goaway(FRAME_SIZE_ERROR),
        ),
        (
            "an answer to SETTINGS with something in it",
            frame(4, 1, 0, &[0; 6]),
            Told::Goaway(FRAME_SIZE_ERROR),
        ),
        (
            "ENABLE_PUSH of 2",
            frame(4, 0, 0, &setting(2, 2)),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "a window of 2 GiB",
            frame(4, 0, 0, &setting(4, 1 << 31)),
            Told::Goaway(FLOW_CONTROL_ERROR),
        ),
        (
            "frames of 16,383 bytes",
            frame(4, 0, 0, &setting(5, 16_383)),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "frames of 16 MiB",
            frame(4, 0, 0, &setting(5, 1 << 24)),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "a setting that nobody knows",
            after(&frame(4, 0, 0, &setting(99, 1)), get.clone()),
            Told::Answer(1),
        ),
        (
            "PUSH_PROMISE",
            frame(5, 4, 1, &[0; 4]),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "PING on a stream",
            frame(6, 0, 1, &[0; 8]),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "PING of seven bytes",
            frame(6, 0, 0, &[0; 7]),
            Told::Goaway(FRAME_SIZE_ERROR),
        ),
        (
            "GOAWAY on a stream",
            frame(7, 0, 1, &[0; 8]),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "WINDOW_UPDATE of three bytes",
            frame(8, 0, 0, &[0; 3]),
            Told::Goaway(FRAME_SIZE_ERROR),
        ),
        (
            "WINDOW_UPDATE by nothing",
            frame(8, 0, 0, &number(0)),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "WINDOW_UPDATE by nothing on a stream",
            after(&hang, frame(8, 0, 1, &number(0))),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "WINDOW_UPDATE on an idle stream",
            frame(8, 0, 1, &number(1)),
            Told::Goaway(PROTOCOL_ERROR),
        ),
        (
            "too large a window",
            frame(8, 0, 0, &number(u32::MAX >> 1)),
            Told::Goaway(FLOW_CONTROL_ERROR),
        ),
        (
            "too large a window of a stream",
            after(&hang, frame(8, 0, 1, &number(u32::MAX >> 1))),
            Told::Reset(FLOW_CONTROL_ERROR),
        ),
        (
            "a frame that nobody knows",
            after(&frame(77, 3, 9, b"?"), get.clone()),
            Told::Answer(1),
        ),
        (
            "a frame of 16,385 bytes",
            after(&post, frame(0, 0, 1, &[0; 16_385])),
            Told::Goaway(FRAME_SIZE_ERROR),
        ),
        (
            "trailers that do not end",
            after(&post, frame(1, MORE, 1, b"\x00\x01x\x01y")),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "trailers with :path",
            after(&post, frame(1, END, 1, b"\x84")),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "trailers",
            after(
                &post,
                [frame(0, 0, 1, b"a"), frame(1, END, 1, b"\x00\x01x\x01y")].concat(),
            ),
            Told::Answer(1),
        ),
        (
            "a name with a capital",
            head(&[GET, b"\x00\x01X\x01y"].concat()),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "a pseudo-header field that nobody knows",
            head(&[GET, b"\x00\x02:x\x01y"].concat()),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            ":status",
            head(&[GET, b"\x88"].concat()),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            ":method twice",
            head(&[GET, b"\x82"].concat()),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            ":path after a header field",
            head(b"\x82\x86\x00\x01x\x01y\x84"),
            Told::Reset(PROTOCOL_ERROR),
        ),
        ("no :method", head(b"\x86\x84"), Told::Reset(PROTOCOL_ERROR)),
        ("no :scheme", head(b"\x82\x84"), Told::Reset(PROTOCOL_ERROR)),
        ("no :path", head(b"\x82\x86"), Told::Reset(PROTOCOL_ERROR)),
        (
            "an empty :path",
            head(b"\x82\x86\x44\x00"),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "`connection`",
            head(&[GET, b"\x00\x0aconnection\x05close"].concat()),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "`te: gzip`",
            head(&[GET, b"\x00\x02te\x04gzip"].concat()),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "`te: trailers`",
            head(&[GET, b"\x00\x02te\x08trailers"].concat()),
            Told::Answer(1),
        ),
        (
            "a length and no body",
            head(&[POST, b"\x0f\x0d\x011"].concat()),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "a body shorter than its length",
            after(
                &frame(1, MORE, 1, &[POST, b"\x0f\x0d\x012"].concat()),
                frame(0, 1, 1, b"a"),
            ),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "a body longer than its length",
            after(
                &frame(1, MORE, 1, &[POST, b"\x0f\x0d\x011"].concat()),
                frame(0, 1, 1, b"ab"),
            ),
            Told::Reset(PROTOCOL_ERROR),
        ),
        (
            "a body of its length",
            after(
                &frame(1, MORE, 1, &[POST, b"\x0f\x0d\x011"].concat()),
                frame(0, 1, 1, b"a"),
            ),
            Told::Answer(1),
        ),
        (
            "more than a stream's window",
            after(&hang, frame(0, 0, 1, &[0; 16_384]).repeat(5)),
            Told::Reset(FLOW_CONTROL_ERROR),
        ),
    ];
    for (name, bytes, told) in table {
        let gateway = Gateway::new(Limits::default());
        let mut client = Raw::connect(&gateway).await;
        // The gateway may close before it has taken all.
        let _sent = client.0.write_all(&bytes).await;
        assert_eq!(client.told().await, told, "{name}");
    }
}

#[tokio::test]
async fn a_connection_that_does_not_begin_as_it_should_is_ended() {
    let gateway = Gateway::new(Limits::default());
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(crate::http2::PREFACE).await.unwrap();
    stream.write_all(&frame(1, END, 1, GET)).await.unwrap();
    assert_eq!(Raw(stream).told().await, Told::Goaway(PROTOCOL_ERROR));
}

#[tokio::test]
async fn streams_over_the_limit_are_refused_and_may_come_again() {
    let mut gateway = Gateway::new(Limits {
        max_streams: 2,
        ..Limits::default()
    });
    let mut client = Raw::connect(&gateway).await;
    let wait = b"\x82\x86\x44\x05/wait\x41\x01a";
    for stream in [1, 3] {
        client.0.write_all(&frame(1, END, stream, wait)).await.unwrap();
        assert_eq!(gateway.hear().await, "begun");
    }
    client.0.write_all(&frame(1, END, 5, GET)).await.unwrap();
    assert_eq!(client.told().await, Told::Reset(REFUSED_STREAM));
    gateway.stage.go.notify_one();
    assert_eq!(client.told().await, Told::Answer(1));
    client.0.write_all(&frame(1, END, 7, GET)).await.unwrap();
    assert_eq!(client.told().await, Told::Answer(7));
}

#[tokio::test]
async fn errors_that_reset_streams_end_the_connection_when_they_are_many() {
    let gateway = Gateway::new(Limits {
        max_error_resets: 3,
        ..Limits::default()
    });
    let mut client = Raw::connect(&gateway).await;
    for stream in [1, 3, 5] {
        client.0.write_all(&frame(1, END, stream, b"\x86")).await.unwrap();
        assert_eq!(client.told().await, Told::Reset(PROTOCOL_ERROR));
    }
    client.0.write_all(&frame(1, END, 7, b"\x86")).await.unwrap();
    assert_eq!(client.told().await, Told::Goaway(ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn frames_that_carry_nothing_end_the_connection_when_they_are_many() {
    let floods = [
        ("pings", frame(6, 0, 0, &[0; 8])),
        ("settings", frame(4, 0, 0, &[])),
        ("priorities", frame(2, 0, 1, &[0; 5])),
        ("windows", frame(8, 0, 0, &1_u32.to_be_bytes())),
        ("unknown frames", frame(77, 0, 0, &[])),
    ];
    for (name, flood) in floods {
        let gateway = Gateway::new(Limits::default());
        let mut client = Raw::connect(&gateway).await;
        let (mut reading, mut writing) = client.0.into_split();
        let writing = tokio::spawn(async move {
            let _sent = writing.write_all(&flood.repeat(3000)).await;
            writing
        });
        let mut told = Vec::new();
        tokio::time::timeout(PATIENCE, reading.read_to_end(&mut told))
            .await
            .unwrap()
            .unwrap();
        let _writing = writing.await.unwrap();
        let goaway = [&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &[0, 0, 0, 0, 0, 0, 0, 11]].concat();
        assert!(told.ends_with(&goaway), "{name}");
        client = Raw::connect(&gateway).await;
        client.0.write_all(&frame(1, END, 1, GET)).await.unwrap();
        assert_eq!(client.told().await, Told::Answer(1), "{name}: others are served");
    }
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_not_read_from_and_goes_on_when_it_does() {
    let gateway = Gateway::new(Limits::default());
    let mut client = Raw::connect(&gateway).await;
    // No byte of any answer is taken.
    client
        .0
        .write_all(&frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]))
        .await
        .unwrap();
    client.0.write_all(&frame(1, END, 1, GET)).await.unwrap();
    assert_eq!(client.told().await, Told::Answer(1));
    let quiet = tokio::time::timeout(Duration::from_millis(100), client.told()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    client
        .0
        .write_all(&frame(8, 0, 1, &1_u32.to_be_bytes()))
        .await
        .unwrap();
    let (kind, flags, payload) = client.frame().await.unwrap();
    assert_eq!((kind, flags, &*payload), (0, 1, &b"/"[..]));
}

#[tokio::test]
async fn bodies_are_echoed_whole_at_every_size() {
    let gateway = Gateway::new(Limits::default());
    let (sender, _connection) = connect(&gateway).await;
    for size in [
        0, 1, 2048, 2049, 16_383, 16_384, 16_385, 65_535, 65_536, 300_000, 3_000_000,
    ] {
        let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
        let request = Request::post("http://a/echo").body(()).unwrap();
        let (response, mut stream) = sender
            .clone()
            .ready()
            .await
            .unwrap()
            .send_request(request, false)
            .unwrap();
        let sent = Bytes::from(bytes.clone());
        let sending = tokio::spawn(async move {
            let mut rest = sent;
            loop {
                stream.reserve_capacity(rest.len());
                let most = match stream.capacity() {
                    0 if !rest.is_empty() => {
                        let more = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                        more.unwrap().unwrap()
                    }
                    most => most,
                };
                let piece = rest.split_to(most.min(rest.len()));
                stream.send_data(piece, rest.is_empty()).unwrap();
                if rest.is_empty() {
                    break;
                }
            }
        });
        let mut body = response.await.unwrap().into_body();
        let mut read = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.unwrap();
            body.flow_control().release_capacity(piece.len()).unwrap();
            read.extend_from_slice(&piece);
        }
        sending.await.unwrap();
        assert!(read == bytes, "{size}: {} bytes came back", read.len());
    }
}

#[tokio::test]
async fn padding_is_given_back_to_the_window() {
    let gateway = Gateway::new(Limits::default());
    let mut client = Raw::connect(&gateway).await;
    // A byte of data in 257.
    let padded = frame(0, 8, 1, &[&[255, b'a'][..], &[0; 255]].concat());
    client.0.write_all(&frame(1, MORE, 1, POST)).await.unwrap();
    client.0.write_all(&padded.repeat(200)).await.unwrap();
    loop {
        let (head, _) = client.whole_frame().await.unwrap();
        if head[3] == 8 && head[8] == 1 {
            break;
        }
    }
    client.0.write_all(&padded.repeat(100)).await.unwrap();
    client.0.write_all(&frame(0, 1, 1, &[])).await.unwrap();
    assert_eq!(client.told().await, Told::Answer(1));
    assert_eq!(client.frame().await.unwrap().2, b"300 bytes");
}

#[tokio::test]
async fn an_answer_before_the_end_of_its_request_stops_the_client() {
    let gateway = Gateway::new(Limits::default());
    let mut client = Raw::connect(&gateway).await;
    client
        .0
        .write_all(
            &[
                frame(1, MORE, 1, b"\x83\x86\x84\x41\x01a"),
                frame(0, 0, 1, b"some"),
            ]
            .concat(),
        )
        .await
        .unwrap();
    assert_eq!(client.told().await, Told::Answer(1));
    assert_eq!(client.told().await, Told::Reset(0));
    // What was on its way is let pass.
    let late = [
        frame(0, 0, 1, b"more"),
        frame(1, END, 1, b"\x00\x01x\x01y"),
        frame(1, END, 3, GET),
    ]
    .concat();
    client.0.write_all(&late).await.unwrap();
    assert_eq!(client.told().await, Told::Answer(3));
}
