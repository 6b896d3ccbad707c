//! A connection over a pipe, with an independent server at its other end, or with one that says frames.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::*;
use crate::http2::Lost;
use crate::http2::Reason;

const SETTINGS: Http2 = Http2 {
    max_streams: 100,
    stream_window_bytes: 1 << 20,
    max_header_bytes: 16 << 10,
    ping_interval: Duration::from_secs(30),
    ping_timeout: Duration::from_secs(10),
};
const PATIENCE: Duration = Duration::from_secs(10);

/// An independent server that sends each body back.
async fn echo(stream: tokio::io::DuplexStream, tasks: TaskTracker) {
    let mut connection = h2::server::Builder::new()
        .initial_window_size(4 << 20)
        .initial_connection_window_size(64 << 20)
        .handshake::<_, Bytes>(stream)
        .await
        .unwrap();
    while let Some(Ok((request, mut answer))) = connection.accept().await {
        tasks.spawn(async move {
            let mut out = answer.send_response(Response::new(()), false).unwrap();
            let mut body = request.into_body();
            while let Some(piece) = body.data().await {
                let piece = piece.unwrap();
                body.flow_control().release_capacity(piece.len()).unwrap();
                out.send_data(piece, false).unwrap();
            }
            out.send_data(Bytes::new(), true).unwrap();
        });
    }
}

#[tokio::test]
async fn a_pipe_that_takes_little_at_a_time_gets_all() {
    const LENGTH: usize = 320 << 10;
    let tasks = TaskTracker::new();
    let (ours, theirs) = duplex(1000);
    tasks.spawn(echo(theirs, tasks.clone()));
    let mut connection = pin!(Connection::new(ours, &SETTINGS));
    let handle = connection.handle();
    let mut asked = Vec::new();
    for at in 0..8_u8 {
        let request = Request::post("http://a/").body(()).unwrap();
        let mut answer = handle.ask(&request, false).unwrap();
        let line = handle.line();
        asked.push(tasks.spawn(async move {
            let bytes = Bytes::from(vec![at; LENGTH]);
            let stream = answer.stream();
            let sending = async {
                let mut sent = 0;
                while sent < LENGTH {
                    let rest = bytes.slice(sent..);
                    sent += poll_fn(|cx| line.poll_data(cx, stream, &rest, true))
                        .await
                        .unwrap();
                }
            };
            let reading = async {
                poll_fn(|cx| answer.poll_head(cx)).await.unwrap();
                answer.collect().await.unwrap().to_bytes()
            };
            let ((), read) = tokio::join!(sending, reading);
            assert!(read == bytes, "{} bytes came back", read.len());
        }));
    }
    let all = async {
        for task in asked {
            task.await.unwrap();
        }
    };
    tokio::select! {
        done = timeout(Duration::from_secs(10), all) => done.expect("every stream should come to its end"),
        ended = &mut connection => panic!("{ended:?}"),
    }
    // The last handle is gone, and all is answered: the connection ends by itself.
    drop(handle);
    timeout(Duration::from_secs(10), connection)
        .await
        .unwrap()
        .unwrap();
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The status and body of an answer, or why there is none.
type Answer<B> = Result<(u16, B), Lost>;

/// What becomes of a GET when the server says these frames.
async fn told(frames: &[u8]) -> Answer<Bytes> {
    let (ours, mut theirs) = duplex(1 << 20);
    let connection = Connection::new(ours, &SETTINGS);
    let handle = connection.handle();
    let tasks = TaskTracker::new();
    tasks.spawn(async move {
        // What the connection says of it is what the stream says, or nothing.
        let _ended = connection.await;
    });
    let request = Request::get("http://a/").body(()).unwrap();
    let mut answer = handle.ask(&request, true).unwrap();
    theirs.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    theirs.write_all(frames).await.unwrap();
    let reading = async {
        let head = poll_fn(|cx| answer.poll_head(cx)).await?;
        Ok((head.status.as_u16(), answer.collect().await?.to_bytes()))
    };
    let read = timeout(PATIENCE, reading).await.expect("the stream should end");
    // Not before: the end of a connection is another way for a stream to end.
    drop(theirs);
    read
}

#[tokio::test]
async fn a_server_that_breaks_the_protocol_is_not_believed() {
    const END: u8 = 5;
    const MORE: u8 = 4;
    let ok = frame(1, MORE, 1, b"\x88");
    let continued = frame(1, MORE, 1, b"\x08\x03100");
    let after = |first: &[u8], second: Vec<u8>| [first, &second].concat();
    let goaway =
        |last: u32, reason: u32| frame(7, 0, 0, &[last.to_be_bytes(), reason.to_be_bytes()].concat());
    let broken = Err(Lost::Broken(Reason::PROTOCOL_ERROR));
    let large = |times: usize| {
        let fields = b"\x00\x01x\x7f\x81\x01".iter().copied().chain([b'y'; 256]);
        let fields: Vec<u8> = fields.collect::<Vec<_>>().repeat(times);
        frame(1, END, 1, &[&b"\x88"[..], &fields].concat())
    };
    let table: Vec<(&str, Vec<u8>, Answer<&str>)> = vec![
        ("an answer", after(&ok, frame(0, 1, 1, b"a")), Ok((200, "a"))),
        (
            "an answer without a body",
            frame(1, END, 1, b"\x89"),
            Ok((204, "")),
        ),
        (
            "after another",
            after(&continued, frame(1, END, 1, b"\x88")),
            Ok((200, "")),
        ),
        (
            "after sixteen",
            after(&continued.repeat(16), frame(1, END, 1, b"\x88")),
            Ok((200, "")),
        ),
        (
            "after seventeen",
            after(&continued.repeat(17), frame(1, END, 1, b"\x88")),
            Err(Lost::Informational),
        ),
        ("101", frame(1, MORE, 1, b"\x08\x03101"), broken),
        ("100 and the end", frame(1, END, 1, b"\x08\x03100"), broken),
        ("DATA before the head", frame(0, 1, 1, b"a"), broken),
        ("no :status", frame(1, END, 1, b"\x00\x01x\x01y"), broken),
        (":status twice", frame(1, END, 1, b"\x88\x88"), broken),
        ("a status that is none", frame(1, END, 1, b"\x08\x03abc"), broken),
        (":path", frame(1, END, 1, b"\x88\x84"), broken),
        (
            "`connection`",
            frame(1, END, 1, b"\x88\x00\x0aconnection\x05close"),
            broken,
        ),
        (
            "a length and less",
            after(&frame(1, MORE, 1, b"\x88\x0f\x0d\x012"), frame(0, 1, 1, b"a")),
            broken,
        ),
        (
            "a length and more",
            after(&frame(1, MORE, 1, b"\x88\x0f\x0d\x011"), frame(0, 1, 1, b"ab")),
            broken,
        ),
        (
            "a length of 304",
            frame(1, END, 1, b"\x8b\x0f\x0d\x011"),
            Ok((304, "")),
        ),
        ("fields within the limit", large(50), Ok((200, ""))),
        ("fields over it", large(60), broken),
        (
            "trailers that do not end",
            after(&ok, frame(1, MORE, 1, b"\x00\x01x\x01y")),
            broken,
        ),
        (
            "a refusal",
            frame(3, 0, 1, &7_u32.to_be_bytes()),
            Err(Lost::Reset(Reason::REFUSED_STREAM)),
        ),
        (
            "a goodbye before it",
            goaway(0, 0),
            Err(Lost::Left(Reason::NO_ERROR)),
        ),
        (
            "a goodbye after it",
            after(&goaway(1, 0), frame(1, END, 1, b"\x88")),
            Ok((200, "")),
        ),
        (
            "PUSH_PROMISE",
            frame(5, 4, 1, &[0, 0, 0, 2, 0x82]),
            Err(Lost::Closed),
        ),
        (
            "a stream of its own",
            frame(1, END, 2, b"\x88"),
            Err(Lost::Closed),
        ),
        (
            "a stream that nobody opened",
            frame(1, END, 3, b"\x88"),
            Err(Lost::Closed),
        ),
        ("DATA on one", frame(0, 0, 3, b"a"), Err(Lost::Closed)),
        (
            "an index in neither table",
            frame(1, END, 1, b"\xff\x00"),
            Err(Lost::Closed),
        ),
        (
            "a frame that is too large",
            frame(0, 0, 1, &[0; (64 << 10) + 1]),
            Err(Lost::Closed),
        ),
        (
            "no SETTINGS first is told elsewhere",
            frame(4, 0, 1, &[]),
            Err(Lost::Closed),
        ),
    ];
    for (name, frames, expected) in table {
        let expected = expected.map(|(status, body)| (status, Bytes::from_static(body.as_bytes())));
        assert_eq!(told(&frames).await, expected, "{name}");
    }
}

#[tokio::test]
async fn answers_that_nobody_wants_are_reset_and_others_come() {
    let (ours, mut theirs) = duplex(1 << 20);
    let connection = Connection::new(ours, &SETTINGS);
    let handle = connection.handle();
    let tasks = TaskTracker::new();
    tasks.spawn(connection);
    let request = Request::get("http://a/").body(()).unwrap();
    // More than could be remembered.
    for _ in 0..300 {
        drop(handle.ask(&request, true).unwrap());
    }
    let mut wanted = handle.ask(&request, true).unwrap();
    let reset = frame(3, 0, 599, &8_u32.to_be_bytes());
    let mut said = Vec::new();
    let reading = async {
        while !said.windows(reset.len()).any(|bytes| bytes == reset) {
            assert!(theirs.read_buf(&mut said).await.unwrap() > 0);
        }
    };
    timeout(PATIENCE, reading).await.expect("CANCEL should be told");
    // The server had answered before it heard of that.
    let late = [
        frame(4, 0, 0, &[]),
        frame(1, 4, 1, b"\x88"),
        frame(0, 1, 1, b"late"),
    ]
    .concat();
    theirs.write_all(&late).await.unwrap();
    theirs.write_all(&frame(1, 5, 601, b"\x89")).await.unwrap();
    let head = timeout(PATIENCE, poll_fn(|cx| wanted.poll_head(cx)))
        .await
        .unwrap();
    assert_eq!(head.unwrap().status, 204);
}
