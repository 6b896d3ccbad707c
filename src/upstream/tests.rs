//! The pool against an h2 server that is scripted: connections that close, refuse and fill up; and leases that nobody uses.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::connect::{Http1, Http2, Settings, Speaks};
use super::stream::SendError;
use super::{Connector, Pool};
use crate::wire::body::Body;

const SETTINGS: Settings = Settings {
    speaks: Speaks::Http2,
    http1: Http1 {
        max_header_bytes: 64 << 10,
        idle_timeout: Duration::from_secs(60),
    },
    http2: Http2 {
        max_streams: 100,
        stream_window_bytes: 64 << 10,
        max_header_bytes: 64 << 10,
        ping_interval: Duration::from_secs(30),
        ping_timeout: Duration::from_secs(10),
    },
};

/// What a server does with its first connection; later ones answer everything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// Holds the first request and says goodbye to later ones.
    GoesAway,
    /// Refuses the first request, which it has not looked at.
    Refuses,
}

/// A server on loopback; tells the number of each connection that it takes.
async fn server(first: First, tasks: &TaskTracker) -> (http::Uri, mpsc::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let (told, taken) = mpsc::channel(16);
    let each = tasks.clone();
    tasks.spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            told.send(number).await.unwrap();
            each.spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut held = Vec::new();
                while let Some(Ok((_request, mut respond))) = connection.accept().await {
                    if number > 0 {
                        respond.send_response(Response::new(()), true).unwrap();
                    } else if first == First::Refuses {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        held.push(respond);
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    (uri, taken)
}

fn pool(uri: &http::Uri, tasks: &TaskTracker) -> Pool {
    let connector = Connector::new(uri, None, None, Duration::from_secs(5), SETTINGS).unwrap();
    Pool::new(connector, tasks.clone())
}

async fn ask(pool: &Pool, uri: &http::Uri, tasks: &TaskTracker) -> Result<u16, SendError> {
    let request = Request::post(format!("{uri}a.B/C")).body(()).unwrap();
    let lease = pool.lease().await.unwrap();
    let response = lease
        .send(&request, Body::whole(Bytes::from_static(b"x")), tasks)
        .await?;
    Ok(response.status().as_u16())
}

#[tokio::test]
async fn a_connection_that_goes_away_takes_no_new_call() {
    let tasks = TaskTracker::new();
    let (uri, mut taken) = server(First::GoesAway, &tasks).await;
    let pool = pool(&uri, &tasks);
    // Stays open, so that the connection does too.
    let first = {
        let (pool, uri, tasks) = (pool.clone(), uri.clone(), tasks.clone());
        tasks.clone().spawn(async move { ask(&pool, &uri, &tasks).await })
    };
    assert_eq!(taken.recv().await, Some(0));
    // Once the goodbye has arrived, a call is sent elsewhere, at the latest when it was refused once.
    let mut refused = 0;
    loop {
        match tokio::time::timeout(Duration::from_millis(500), ask(&pool, &uri, &tasks)).await {
            Ok(Ok(status)) => break assert_eq!(status, 200),
            Ok(Err(SendError::Unprocessed(_))) => refused += 1,
            Ok(Err(error)) => panic!("{error}"),
            // The goodbye had not arrived, and the server holds this call too.
            Err(_elapsed) => {}
        }
        assert!(refused <= 1, "the connection was offered again");
    }
    assert_eq!(taken.recv().await, Some(1));
    first.abort();
}

#[tokio::test]
async fn a_refused_stream_is_one_that_was_not_processed() {
    let tasks = TaskTracker::new();
    let (uri, _taken) = server(First::Refuses, &tasks).await;
    let pool = pool(&uri, &tasks);
    assert!(matches!(
        ask(&pool, &uri, &tasks).await,
        Err(SendError::Refused(_))
    ));
}

#[tokio::test]
async fn nobody_at_the_endpoint_is_told_at_once_while_the_pause_lasts() {
    let tasks = TaskTracker::new();
    // A port that was free a moment ago, and that nobody listens on.
    let uri: http::Uri = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
            .parse()
            .unwrap()
    };
    let pool = pool(&uri, &tasks);
    let first = pool.lease().await.unwrap_err();
    let second = pool.lease().await.unwrap_err();
    assert_eq!(
        first.retry_at, second.retry_at,
        "no second attempt before it is due"
    );
    assert!(pool.unreachable().is_some());
}

/// A pool of HTTP/1.1 connections to somebody who only listens, kept for so long.
async fn one_at_a_time(idle_timeout: Duration) -> (TcpListener, Pool) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let settings = Settings {
        speaks: Speaks::Http1,
        http1: Http1 {
            idle_timeout,
            ..SETTINGS.http1
        },
        ..SETTINGS
    };
    let connector = Connector::new(&uri, None, None, Duration::from_secs(5), settings).unwrap();
    (listener, Pool::new(connector, TaskTracker::new()))
}

#[tokio::test]
async fn a_lease_that_is_not_used_gives_its_connection_back() {
    let (_listener, pool) = one_at_a_time(Duration::from_secs(60)).await;
    assert!(pool.try_lease().is_none());
    drop(pool.lease().await.unwrap());
    let again = pool.try_lease().expect("the connection is there");
    assert!(pool.try_lease().is_none(), "it has one place");
    drop(again);
    assert!(pool.try_lease().is_some());
}

#[tokio::test]
async fn a_connection_that_is_not_to_be_kept_can_be_used() {
    let (_listener, pool) = one_at_a_time(Duration::ZERO).await;
    assert!(pool.lease().await.is_ok());
}
