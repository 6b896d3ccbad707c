//! A connection over a pipe that takes little at a time, with an independent client at its other end.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tokio::io::duplex;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::Http2;
use super::exchange::Exchanges;
use crate::http2::{Line, Opened, Role, Settings};
use crate::limits::Limits;

/// Sends each body back.
struct Echo;

impl Exchanges for Echo {
    type Exchange = std::pin::Pin<Box<dyn Future<Output = ()>>>;

    fn begin(&self, line: &Line, opened: Opened) -> Self::Exchange {
        let line = line.clone();
        Box::pin(async move {
            let (head, ()) = Response::new(()).into_parts();
            line.head(opened.stream, &head, &HeaderValue::from_static("now"), false)
                .unwrap();
            let mut body = opened.body.unwrap();
            while let Some(frame) = body.frame().await {
                let mut rest = frame.unwrap().into_data().unwrap();
                while !rest.is_empty() {
                    let sent = poll_fn(|cx| line.poll_data(cx, opened.stream, &rest, false)).await;
                    drop(rest.split_to(sent.unwrap()));
                }
            }
            poll_fn(|cx| line.poll_data(cx, opened.stream, &Bytes::new(), true))
                .await
                .unwrap();
        })
    }
}

#[tokio::test]
async fn a_pipe_that_takes_little_at_a_time_gets_all() {
    const STREAMS: u8 = 8;
    const PIECES: usize = 20;
    let settings = Settings {
        role: Role::Server,
        max_streams: 100,
        stream_window: 1 << 20,
        connection_window: 16 << 20,
        max_frame: 16 << 10,
        header_table: 4096,
        max_header_list: 16 << 10,
        max_pending_resets: 20,
        max_error_resets: 20,
    };
    let tasks = TaskTracker::new();
    let (ours, theirs) = duplex(1000);
    let mut serving = pin!(Http2::new(ours, settings, &Limits::default(), Echo));
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(4 << 20)
        .initial_connection_window_size(64 << 20)
        .handshake::<_, Bytes>(theirs)
        .await
        .unwrap();
    let _connection = tasks.spawn(connection);
    let mut asked = Vec::new();
    for at in 0..STREAMS {
        let mut sender = sender.clone().ready().await.unwrap();
        asked.push(tasks.spawn(async move {
            let request = Request::post("http://a/").body(()).unwrap();
            let (response, mut stream) = sender.send_request(request, false).unwrap();
            for piece in 1..=PIECES {
                let bytes = vec![at; 16 << 10].into();
                stream.send_data(bytes, piece == PIECES).unwrap();
            }
            let mut body = response.await.unwrap().into_body();
            let mut read = 0;
            while let Some(piece) = body.data().await {
                let piece = piece.unwrap();
                assert!(piece.iter().all(|byte| *byte == at));
                read += piece.len();
            }
            assert_eq!(read, PIECES * (16 << 10));
        }));
    }
    let all = async {
        for task in asked {
            task.await.unwrap();
        }
    };
    tokio::select! {
        done = timeout(Duration::from_secs(10), all) => done.expect("every stream should come to its end"),
        ended = &mut serving => panic!("{ended:?}"),
    }
}
