//! HTTP/1.1 from a raw socket: smuggling, slow clients, sizes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::support::{Client, Gateway};
use crate::limits::Limits;

fn gateway() -> Gateway {
    Gateway::new(Limits::default())
}

/// What a fresh connection answers to `bytes`: the status, the body, and whether the connection was closed.
async fn ask(gateway: &Gateway, bytes: &str) -> (u16, String) {
    let mut client = gateway.client().await;
    client.say(bytes).await;
    let answer = client.answer().await;
    if answer.closes() {
        assert_eq!(client.rest().await, "", "after {bytes:?}");
    }
    (answer.status, answer.body)
}

#[tokio::test]
async fn requests_follow_each_other_on_a_connection() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    for path in ["/a", "/b"] {
        client
            .say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.body.as_str()), (200, path));
        assert!(!answer.closes());
    }
    client
        .say("GET /c HTTP/1.1\r\nHost: a\r\n\r\nGET /d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.body, "/c");
    let last = client.answer().await;
    assert_eq!((last.body.as_str(), last.closes()), ("/d", true));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    for byte in b"PRINT /a HTTP/1.1\r\nHost: a\r\n\r\n" {
        client.say([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await.body, "/a");
}

#[tokio::test]
async fn framing_that_two_parsers_could_read_differently_is_refused_and_closed() {
    let gateway = gateway();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "Content-Length: 3, 3\r\n\r\nabc",
        "Content-Length: +3\r\n\r\nabc",
        "Content-Length: 3 \x0b\r\n\r\nabc",
        "Content-Length: -1\r\n\r\n",
        "Content-Length: 99999999999999999999\r\n\r\n",
        "Content-Length : 3\r\n\r\nabc",
        " Content-Length: 3\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: identity\r\n\r\n",
        "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        "X: a\rb\r\n\r\n",
        "X: a\r\n folded\r\n\r\n",
        "X: a\0b\r\n\r\n",
        "X\r\n\r\n",
        "X Y: a\r\n\r\n",
        ": a\r\n\r\n",
    ] {
        let bytes = format!("POST /count HTTP/1.1\r\nHost: a\r\n{framing}{smuggled}");
        let mut client = gateway.client().await;
        client.say(&bytes).await;
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.closes()), (400, true), "{framing:?}");
        assert!(
            answer.body.contains("BAD_REQUEST"),
            "{framing:?}: {}",
            answer.body
        );
        assert_eq!(client.rest().await, "", "{framing:?}");
    }
    let old = "POST /count HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(ask(&gateway, old).await.0, 400);
    // The same head on a kept connection is seen too.
    let mut client = gateway.client().await;
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer().await;
    client
        .say("POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.status, 400);
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn framing_is_checked_of_what_is_sent_ahead_too() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    client
        .say(
            "GET /a HTTP/1.1\r\nHost: a\r\n\r\nPOST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.body, "/a");
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (400, true));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn hosts_targets_and_methods_are_checked() {
    let gateway = gateway();
    let table = [
        ("GET /a HTTP/1.1\r\n\r\n", 400),
        ("GET /a HTTP/1.0\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET /a HTTP/1.1\r\nHost: \r\n\r\n", 400),
        ("GET http://a/a HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET http://b/a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u@a/a HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200),
        ("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\\a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%5ca HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /%a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /a\r\n\r\n", 400),
        ("GET /a HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        ("GET /a HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("G\0T /a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n", 400),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        ("TRACE /a HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("BREW /a HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ];
    for (bytes, status) in table {
        assert_eq!(ask(&gateway, bytes).await.0, status, "{bytes:?}");
    }
}

#[tokio::test]
async fn sizes_are_taken_up_to_their_limit() {
    let gateway = Gateway::new(Limits {
        max_headers: 5,
        ..Limits::default()
    });
    let uri = |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
    assert_eq!(ask(&gateway, &uri(8192)).await.0, 200);
    let (status, body) = ask(&gateway, &uri(8193)).await;
    assert!(status == 414 && body.contains("URI_TOO_LONG"), "{status} {body}");
    assert_eq!(ask(&gateway, &uri(60_000)).await.0, 414);
    assert_eq!(ask(&gateway, &uri(200_000)).await.0, 414);
    let header = |length: usize| {
        let value = "v".repeat(length - "host: a\r\n".len() - "x: \r\n".len());
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n")
    };
    assert_eq!(ask(&gateway, &header(16_384)).await.0, 200);
    let (status, body) = ask(&gateway, &header(16_385)).await;
    assert!(
        status == 431 && body.contains("HEADERS_TOO_LARGE"),
        "{status} {body}"
    );
    let (status, body) = ask(&gateway, &header(300_000)).await;
    assert!(
        status == 431 && body.contains("HEADERS_TOO_LARGE"),
        "{status} {body}"
    );
    let count = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "X: y\r\n".repeat(count - 1)
        )
    };
    assert_eq!(ask(&gateway, &count(5)).await.0, 200);
    let (status, body) = ask(&gateway, &count(6)).await;
    assert!(
        status == 431 && body.contains("HEADERS_TOO_LARGE"),
        "{status} {body}"
    );
}

#[tokio::test]
async fn an_answer_outlives_the_upload_that_it_refuses() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let body = vec![b'x'; 4 << 20];
    client
        .say(format!(
            "POST /%zz HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    // The gateway has answered and closed by the time the rest is sent; a reset would lose the answer.
    let (mut read, mut write) = client.0.into_split();
    let upload = tokio::spawn(async move {
        let _written = write.write_all(&body).await;
    });
    upload.await.unwrap();
    let mut answer = String::new();
    read.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn both_directions_run_at_once() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    client
        .say("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    for word in ["one", "two", "three"] {
        client.say(format!("{:x}\r\n{word}\r\n", word.len())).await;
        client.until(word).await;
    }
    client.say("0\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "/next");
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_wanted() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    let head = "HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.say(format!("POST /count {head}")).await;
    assert!(client.until("\r\n\r\n").await.starts_with("HTTP/1.1 100 "));
    client.say("abc").await;
    assert_eq!(client.answer().await.body, "3 bytes");
    client.say(format!("POST /%zz {head}")).await;
    assert_eq!(client.answer().await.status, 400);
}

#[tokio::test]
async fn a_chunk_longer_than_its_size_ends_the_connection() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    client
        .say("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n")
        .await;
    let rest = client.rest().await;
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");
}

#[tokio::test]
async fn a_failed_call_fails_alone() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    client.say("GET /panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (500, false));
    assert!(answer.body.contains("INTERNAL"), "{}", answer.body);
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.status, 200);
    client.say("GET /panic-body HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!client.rest().await.ends_with("0\r\n\r\n"));
    assert_eq!(gateway.settings.counters.panics.value(), 2);
    let mut client = gateway.client().await;
    client.say("GET /fail-body HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!client.rest().await.ends_with("0\r\n\r\n"));
    assert_eq!(ask(&gateway, "GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await.0, 200);
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_call() {
    let mut gateway = gateway();
    for path in ["/hang", "/stream"] {
        let mut client = gateway.client().await;
        client
            .say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        assert_eq!(gateway.hear().await, "begun");
        drop(client);
        assert_eq!(gateway.hear().await, "dropped");
    }
}

fn short() -> Limits {
    Limits {
        header_timeout: Duration::from_millis(200),
        keep_alive_timeout: Duration::from_millis(1500),
        idle_timeout: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed_in_silence() {
    let gateway = Gateway::new(short());
    assert_eq!(gateway.client().await.rest().await, "");
    assert_eq!(gateway.settings.counters.heads_late.value(), 1);
}

#[tokio::test]
async fn a_head_that_trickles_is_a_408() {
    let gateway = Gateway::new(short());
    let mut client = gateway.client().await;
    client.say("GET /a HTTP/1.1\r\nHos").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.closes()), (408, true));
    assert!(answer.body.contains("REQUEST_TIMEOUT"), "{}", answer.body);
    assert_eq!(client.rest().await, "");
    // Bytes that keep coming do not give it more time.
    let mut client = gateway.client().await;
    let began = std::time::Instant::now();
    let mut bytes = b"GET /a HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".iter();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let status = loop {
        tokio::select! {
            answer = client.0.readable() => {
                answer.unwrap();
                break client.answer().await.status;
            }
            _ = tick.tick() => {}
        }
        client.say([*bytes.next().unwrap()]).await;
    };
    assert_eq!(status, 408);
    assert!(began.elapsed() < Duration::from_millis(1000));
}

#[tokio::test]
async fn a_kept_connection_idles_longer_than_a_head_may_take() {
    let gateway = Gateway::new(short());
    let mut client = gateway.client().await;
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.say("GET /b HTTP/1.1\r\n").await;
    client.say("Host: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "/b");
    // The next head has the short time from its first byte on.
    client.say("G").await;
    let began = std::time::Instant::now();
    assert_eq!(client.answer().await.status, 408);
    assert!(began.elapsed() < Duration::from_millis(1200));
    let mut client = gateway.client().await;
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer().await;
    let began = std::time::Instant::now();
    assert_eq!(client.rest().await, "");
    assert!(began.elapsed() > Duration::from_millis(1200));
}

#[tokio::test]
async fn a_call_has_as_long_as_its_handler_takes() {
    let mut gateway = Gateway::new(short());
    let mut client = gateway.client().await;
    client.say("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(gateway.hear().await, "begun");
    tokio::time::sleep(Duration::from_millis(600)).await;
    gateway.stage.go.notify_one();
    assert_eq!(client.answer().await.body, "waited");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let mut gateway = Gateway::new(short());
    let mut client: Client = gateway.client().await;
    client.say("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(gateway.hear().await, "begun");
    assert_eq!(gateway.hear().await, "dropped");
}

#[tokio::test]
async fn what_is_sent_ahead_is_read_as_fast_as_it_is_answered() {
    /// Requests of 35 bytes whose answers are more than a hundred times as long.
    const ANSWERED: usize = 8192;
    let gateway = gateway();
    let (mut read, mut write) = gateway.client().await.0.into_split();
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let writer = tokio::spawn(async move {
        let requests = "GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
        while counter.load(Ordering::Relaxed) < 64 << 20 && write.write_all(requests.as_bytes()).await.is_ok()
        {
            counter.fetch_add(requests.len(), Ordering::Relaxed);
        }
    });
    let mut answers = vec![0; ANSWERED * 4096];
    read.read_exact(&mut answers).await.unwrap();
    // What the sockets' own buffers hold, and no multiple of what the answers were.
    let sent = sent.load(Ordering::Relaxed);
    assert!(sent < 16 << 20, "{sent} bytes of requests were taken");
    writer.abort();
}

#[tokio::test]
async fn an_answer_whose_end_is_known_late_leaves_the_next_head_its_time() {
    let gateway = Gateway::new(short());
    for trickles in [true, false] {
        let mut client = gateway.client().await;
        client.say("GET /late-end HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.answer().await.body, "late");
        gateway.stage.go.notify_one();
        if trickles {
            client.say("G").await;
            assert_eq!(client.answer().await.status, 408);
        } else {
            assert_eq!(client.rest().await, "", "the connection has idled for too long");
        }
    }
}

#[tokio::test]
async fn empty_lines_between_requests_begin_no_head() {
    let gateway = Gateway::new(short());
    let mut client = gateway.client().await;
    client.say("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.answer().await;
    client.say("\r\n").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.say("GET /b HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "/b");
}

#[tokio::test]
async fn a_body_that_ends_with_the_connection_has_no_end_when_it_fails() {
    let gateway = gateway();
    let mut client = gateway.client().await;
    client.say("GET /fail-body HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let mut rest = Vec::new();
    let error = client.0.read_to_end(&mut rest).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_says_whether_the_connection_goes_on() {
    let gateway = gateway();
    let head = "POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    // The rest of the body is still to come: nobody reads it.
    let mut client = gateway.client().await;
    client.say(format!("{head}2\r\nab\r\n")).await;
    let answer = client.answer().await;
    assert_eq!((answer.body.as_str(), answer.closes()), ("early", true));
    assert_eq!(client.rest().await, "");
    // All of it has come, in more pieces than are read ahead: it is passed over.
    let mut client = gateway.client().await;
    client
        .say(format!("{head}{}0\r\n\r\n", "1\r\na\r\n".repeat(100)))
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.body.as_str(), answer.closes()), ("early", false));
    client.say("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.answer().await.body, "/next");
}
