//! Routes of paths: requests that are relayed to HTTP origins as they are.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;

use crate::support::clients::raw::Raw;
use crate::support::clients::rest::{Rest, Version, once, pieces, request};
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::origin::{Origin, answer, see};
use crate::support::within;

/// A gateway whose backends are `a`, `b` and so on, one for each origin; `routes` in YAML.
async fn gateway_with(origins: &[&Origin], backend: &str, limits: &str, routes: &str) -> Gateway {
    let mut backends = String::new();
    for (origin, name) in origins.iter().zip(["a", "b", "c"]) {
        backends += &format!(
            "  {name}: {{protocol: rest, endpoints: [\"http://{}\"]{backend}}}\n",
            origin.address
        );
    }
    Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
limits: {{{limits}}}
backends:
{backends}
routes:
{routes}"
    ))
    .await
}

async fn gateway(origins: &[&Origin], routes: &str) -> Gateway {
    gateway_with(origins, "", "", routes).await
}

const ALL: &str = "  - {path: /**, backend: a}\n";

async fn echo() -> Origin {
    Origin::start(|seen| {
        let mut response = answer(200, "text/plain", format!("{} {}", seen.line, seen.body.len()));
        response
            .headers_mut()
            .insert("server", "origin/1".parse().unwrap());
        response.headers_mut().insert("x-cache", "hit".parse().unwrap());
        response
    })
    .await
}

#[tokio::test]
async fn what_is_relayed_is_what_was_sent_less_what_belongs_to_a_hop() {
    let origin = echo().await;
    let gateway = gateway(&[&origin], ALL).await;
    for version in [Version::Http1, Version::Http2] {
        let mut client = Rest::connect(gateway.address, version).await;
        let mut sent = request(Method::PUT, "/a%20b/%63?x=1&y=%2F", r#"{"a":1}"#);
        sent.headers_mut().insert("x-mine", "1".parse().unwrap());
        sent.headers_mut().insert("x-sabir-user", "root".parse().unwrap());
        sent.headers_mut()
            .insert("x-forwarded-for", "10.9.9.9".parse().unwrap());
        if version == Version::Http1 {
            sent.headers_mut()
                .insert("connection", "x-private".parse().unwrap());
            sent.headers_mut().insert("x-private", "1".parse().unwrap());
            sent.headers_mut()
                .insert("keep-alive", "timeout=5".parse().unwrap());
        }
        let answer = client.send(sent).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text(), "PUT /a%20b/c?x=1&y=%2F 7");
        assert_eq!(answer.header("x-cache"), "hit");
        let seen = origin.last();
        assert_eq!(seen.header("x-mine"), "1");
        assert_eq!(seen.header("content-type"), "application/json");
        assert_eq!(seen.header("content-length"), "7");
        assert_eq!(seen.header("host"), origin.address.to_string());
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.header("x-forwarded-host"), "localhost");
        for gone in ["connection", "x-private", "keep-alive", "x-sabir-user"] {
            assert_eq!(seen.header(gone), "", "{gone}");
        }
    }
    assert_eq!(origin.connections(), 1, "the connection was kept");
}

#[tokio::test]
async fn a_path_is_relayed_in_the_form_in_which_it_was_matched() {
    let origin = echo().await;
    let gateway = gateway(
        &[&origin],
        "  - {path: /open/**, backend: a}
  - {path: /files/**, backend: a, relay: {encoded_slash: allow}}
  - {path: /exact, backend: a}
  - {path: '/users/{user}/avatar', backend: a}
",
    )
    .await;
    for (path, expected) in [
        ("/open", "GET /open 0"),
        ("/open//a/./b/../c/", "GET /open/a/c/ 0"),
        ("/closed/../open/x", "GET /open/x 0"),
        ("/%6Fpen/x", "GET /open/x 0"),
        ("/open/../secret", "400"),
        ("/open/%2e%2e/secret", "400"),
        ("/open/a%2Fb", "400"),
        ("/open/..%2fsecret", "400"),
        ("/files/a%2Fb", "GET /files/a%2Fb 0"),
        ("/exact", "GET /exact 0"),
        ("/exact/", "404"),
        ("/exact/more", "404"),
        ("/users/7/avatar?size=2", "GET /users/7/avatar?size=2 0"),
        ("/users/7/8/avatar", "404"),
        ("/open/%5c", "400"),
    ] {
        let line = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let text = Raw::exchange(gateway.address, &line).await;
        let got = text.split("\r\n\r\n").nth(1).unwrap_or_default();
        if expected.len() == 3 {
            assert!(
                text.starts_with(&format!("HTTP/1.1 {expected}")),
                "{path}: {text}"
            );
        } else {
            assert_eq!(got, expected, "{path}: {text}");
        }
    }
}

#[tokio::test]
async fn a_route_changes_path_headers_and_host() {
    let origin = echo().await;
    let gateway = gateway(
        &[&origin],
        "  - path: /legacy/**
    backend: a
    relay:
      rewrite: {prefix: /v2}
      host: client
      request_headers: {set: {x-source: edge}, add: {x-tag: two}, remove: [cookie]}
      response_headers: {set: {x-cache: none}, remove: [server]}
  - path: '/u/{user}/{rest=**}'
    backend: a
    relay: {rewrite: {path: '/{rest}/of/{user}'}, methods: [GET]}
  - path: /old/**
    relay: {redirect: {prefix: /new, status: 301}}
  - path: /away
    relay: {redirect: {scheme: https, host: example.com}}
",
    )
    .await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let mut sent = request(Method::GET, "/legacy/a?q", "");
    sent.headers_mut().insert("cookie", "secret".parse().unwrap());
    sent.headers_mut().insert("x-tag", "one".parse().unwrap());
    sent.headers_mut().insert("host", "shop.example".parse().unwrap());
    let answer = client.send(sent).await;
    assert_eq!(answer.text(), "GET /v2/a?q 0");
    assert_eq!((answer.header("x-cache"), answer.header("server")), ("none", ""));
    let seen = origin.last();
    assert_eq!((seen.header("x-source"), seen.header("cookie")), ("edge", ""));
    assert_eq!(seen.header("host"), "shop.example");
    let tags: Vec<_> = seen.headers.get_all("x-tag").iter().collect();
    assert_eq!(tags, ["one", "two"]);

    assert_eq!(client.get("/u/7/a/b").await.text(), "GET /a/b/of/7 0");
    let refused = client.post("/u/7/a", "{}").await;
    refused.error(405, 12);
    assert_eq!(refused.header("allow"), "GET, HEAD");

    let moved = client.get("/old/a?q=1").await;
    assert_eq!(
        (moved.status.as_u16(), moved.header("location")),
        (301, "/new/a?q=1")
    );
    let away = client.get("/away?q").await;
    assert_eq!(
        (away.status.as_u16(), away.header("location")),
        (308, "https://example.com/away?q")
    );
}

#[tokio::test]
async fn requests_are_split_by_weight_and_mirrored() {
    let (one, two, shadow) = (echo().await, echo().await, echo().await);
    let gateway = gateway(
        &[&one, &two, &shadow],
        "  - path: /**
    relay:
      split: [{backend: a, weight: 3}, {backend: b, weight: 1}]
      mirror: {backend: c}
",
    )
    .await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for _ in 0..200 {
        assert_eq!(client.post("/x", "{}").await.text(), "POST /x 2");
    }
    let (first, second) = (one.seen().len(), two.seen().len());
    assert_eq!(first + second, 200);
    assert!((110..190).contains(&first), "{first} of 200");
    within("the copies", async {
        while shadow.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(shadow.last().body, "{}");
}

#[tokio::test]
async fn head_has_no_body_and_keeps_its_length() {
    let origin = echo().await;
    let gateway = gateway(&[&origin], ALL).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for _ in 0..3 {
        let answer = client.send(request(Method::HEAD, "/x", "")).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
        assert_eq!(answer.header("content-length"), "9");
    }
    assert_eq!(client.get("/x").await.text(), "GET /x 0");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn services_and_paths_stand_side_by_side_and_no_spelling_leads_from_one_to_the_other() {
    let (library, rest) = (echo_json("library").await, echo_json("rest").await);
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library: {{protocol: rest, endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
  rest: {{protocol: rest, endpoints: [\"http://{}\"]}}
routes:
  - {{services: [\"library.v1.Library\"], backend: library}}
  - {{path: /**, backend: rest}}
  - {{path: /v1/genres/hidden, backend: rest}}
",
        library.address, rest.address
    ))
    .await;
    for (line, expected) in [
        ("GET /v1/shelves/1/books/7", "library"),
        ("GET /v1/shelves/1/books/%37", "library"),
        ("POST /library.v1.Library/GetBook", "library"),
        ("GET /anything", "rest"),
        ("GET /v1/shelves/1", "rest"),
        ("GET /v1/genres/hidden", "rest"),
        ("GET /v1/x/../shelves/1/books/7", "400"),
        ("GET /v1/shelves/1/./books/7", "400"),
        ("GET //v1/shelves/1/books/7", "404"),
        ("GET /v1/shelves/1/books//7", "404"),
    ] {
        let body = if line.starts_with("POST") {
            r#"{"name":"shelves/1/books/7"}"#
        } else {
            ""
        };
        let request = format!(
            "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let text = Raw::exchange(gateway.address, &request).await;
        if expected.len() == 3 {
            assert!(
                text.starts_with(&format!("HTTP/1.1 {expected}")),
                "{line}: {text}"
            );
        } else {
            assert!(
                text.contains(&format!("\"title\":\"{expected}\"")),
                "{line}: {text}"
            );
        }
    }
}

/// An origin that answers with a book of this title.
async fn echo_json(title: &'static str) -> Origin {
    Origin::start(move |_| answer(200, "application/json", format!("{{\"title\":\"{title}\"}}"))).await
}

/// Sends back each frame as it comes, and trailers after the last one.
async fn mirror_image(http2: bool) -> Origin {
    Origin::serve(http2, |request| async move {
        let body = request.into_body();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let mut body = body;
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(data) = frame.into_data()
                    && sender.send(Ok(Frame::data(data))).await.is_err()
                {
                    return;
                }
            }
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                HeaderValue::from_static("7"),
            )]);
            let _ = sender.send(Ok(Frame::trailers(trailers))).await;
        });
        let frames = futures_util::stream::unfold(receiver, |mut receiver| async move {
            let frame = receiver.recv().await?;
            Some((frame, receiver))
        });
        Response::builder()
            .header("trailer", "x-sum")
            .body(StreamBody::new(frames).boxed_unsync())
            .unwrap()
    })
    .await
}

#[tokio::test]
async fn bodies_and_trailers_stream_in_both_directions_at_once() {
    for (http2, backend) in [(false, ""), (true, ", http2: true")] {
        let origin = mirror_image(http2).await;
        let gateway = gateway_with(&[&origin], backend, "", ALL).await;
        for version in [Version::Http1, Version::Http2] {
            let mut client = Rest::connect(gateway.address, version).await;
            let (sender, body) = pieces();
            let mut sent = http::Request::post("/x").body(body).unwrap();
            if version == Version::Http1 {
                sent.headers_mut().insert("te", "trailers".parse().unwrap());
            }
            sender.send(Bytes::from_static(b"one")).await.unwrap();
            let mut answer = within("the head", client.start(sent)).await.unwrap().into_body();
            for piece in ["one", "two", "three"] {
                if piece != "one" {
                    sender.send(Bytes::from(piece)).await.unwrap();
                }
                let frame = within("the echo", told(&mut answer)).await;
                assert_eq!(frame.into_data().unwrap(), piece, "{http2} {version:?}");
            }
            drop(sender);
            let trailers = within("the trailers", told(&mut answer)).await;
            assert_eq!(
                trailers.into_trailers().unwrap()["x-sum"],
                "7",
                "{http2} {version:?}"
            );
        }
    }
}

/// The next frame that says something: HTTP/2 may have empty ones between.
async fn told(body: &mut hyper::body::Incoming) -> Frame<Bytes> {
    loop {
        let frame = body.frame().await.unwrap().unwrap();
        if !frame.data_ref().is_some_and(Bytes::is_empty) {
            return frame;
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_request_upstream() {
    let ended = Arc::new(Notify::new());
    let (begun, tell) = (Arc::new(Notify::new()), Arc::clone(&ended));
    let tell_begun = Arc::clone(&begun);
    let origin = Origin::sockets(move |mut socket| {
        let (tell, tell_begun) = (Arc::clone(&tell), Arc::clone(&tell_begun));
        async move {
            let mut bytes = [0; 4096];
            let _ = socket.read(&mut bytes).await;
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                .await
                .unwrap();
            tell_begun.notify_one();
            while socket.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
            tell.notify_one();
        }
    })
    .await;
    let gateway = gateway(&[&origin], ALL).await;
    let mut client = Raw::connect(gateway.address).await;
    client.write("GET /x HTTP/1.1\r\nhost: x\r\n\r\n").await;
    client.until("half").await;
    within("the request upstream", begun.notified()).await;
    drop(client);
    within("the end of the connection upstream", ended.notified()).await;
}

/// An origin that answers each connection with these bytes, again and again.
async fn says(bytes: &'static str) -> Origin {
    Origin::sockets(move |mut socket| async move {
        let mut read = [0; 4096];
        while socket.read(&mut read).await.is_ok_and(|length| length > 0) {
            let _ = socket.write_all(bytes.as_bytes()).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_origin_that_misbehaves_is_a_bad_gateway() {
    let early: &'static str = Box::leak(
        format!(
            "{}HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(17)
        )
        .into_boxed_str(),
    );
    let hinted: &'static str = Box::leak(
        format!(
            "{}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(3)
        )
        .into_boxed_str(),
    );
    let long: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\nx-long: {}\r\n\r\n", "x".repeat(70_000)).into_boxed_str());
    for (what, bytes, status) in [
        (
            "an unasked 101",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            502,
        ),
        ("too many informational answers", early, 502),
        ("a few informational answers", hinted, 200),
        ("a header section that is too long", long, 503),
        ("what is no HTTP", "hello\r\n\r\n", 503),
    ] {
        let origin = says(bytes).await;
        let gateway = gateway(&[&origin], ALL).await;
        let answer = once(gateway.address, request(Method::GET, "/x", "")).await;
        let got = answer.status.as_u16();
        assert!(
            got == status || (status == 503 && got == 502),
            "{what}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn surplus_bytes_close_a_kept_connection() {
    let origin = says(
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    )
    .await;
    let gateway = gateway(&[&origin], ALL).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for requests in 1..=3 {
        assert_eq!(client.get("/x").await.text(), "ok");
        assert_eq!(origin.connections(), requests);
    }
}

#[tokio::test]
async fn an_answer_that_breaks_in_its_trailers_breaks_at_once() {
    for trailers in [
        "bad name: x\r\n\r\n".to_owned(),
        "x: y\r\n".repeat(101) + "\r\n",
        format!("x: {}\r\n\r\n", "y".repeat(20_000)),
    ] {
        let bytes =
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{trailers}");
        let origin = says(Box::leak(bytes.into_boxed_str())).await;
        let gateway = gateway(&[&origin], ALL).await;
        let text = Raw::exchange(gateway.address, "GET /x HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(!text.ends_with("0\r\n\r\n"), "{text}");
        let said = gateway.says("/x").await;
        assert!(said.contains("UPSTREAM_RESET"), "{said}");
    }
}

#[tokio::test]
async fn what_is_said_after_a_body_is_passed_on_from_origins_alone_and_not_all_of_it() {
    let (heard, mut asked) = tokio::sync::mpsc::channel(1);
    let origin = Origin::sockets(move |mut socket| {
        let heard = heard.clone();
        async move {
            let mut read = Vec::new();
            while !read.ends_with(b"\r\n\r\nhi")
                && socket.read_buf(&mut read).await.is_ok_and(|length| length > 0)
            {}
            heard
                .send(String::from_utf8_lossy(&read).into_owned())
                .await
                .unwrap();
            let _ = socket
                .write_all(
                    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\
                      x-sum: 7\r\nx-sabir-user: root\r\nset-cookie: a=b\r\nkeep-alive: timeout=5\r\n\r\n",
                )
                .await;
        }
    })
    .await;
    let gateway = gateway(&[&origin], ALL).await;
    let text = Raw::exchange(
        gateway.address,
        "POST /x HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: close\r\ntrailer: x-sabir-user\r\n\
         transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\
         x-sabir-user: root\r\nx-forwarded-for: 10.0.0.1\r\nauthorization: Bearer x\r\n\r\n",
    )
    .await;
    assert!(text.ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{text}");
    let asked = within("the request", asked.recv()).await.unwrap();
    assert!(asked.contains("content-length: 2\r\n"), "{asked}");
    for gone in ["x-sabir-user", "10.0.0.1", "authorization", "trailer:"] {
        assert!(!asked.contains(gone), "{gone}: {asked}");
    }
}

#[tokio::test]
async fn a_body_that_is_not_framed_as_it_has_to_be_is_a_bad_request() {
    let origin = echo().await;
    let gateway = gateway(&[&origin], ALL).await;
    let text = Raw::exchange(
        gateway.address,
        "POST /x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi!\r\n0\r\n\r\n",
    )
    .await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    assert!(text.contains("a chunk is not as long as it says"), "{text}");
}

#[tokio::test]
async fn an_origin_that_closes_what_it_accepts_is_not_dialled_without_a_pause() {
    let origin = Origin::sockets(|socket| async move { drop(socket) }).await;
    let gateway = gateway(&[&origin], ALL).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let answer = client.get("/x").await;
    assert!([502, 503].contains(&answer.status.as_u16()), "{answer:?}");
    assert!(origin.connections() < 20, "{}", origin.connections());
}

#[tokio::test]
async fn a_kept_connection_that_ends_late_has_most_likely_processed_its_request() {
    let origin = Origin::sockets(|mut socket| async move {
        let mut read = [0; 4096];
        while socket.read(&mut read).await.is_ok_and(|length| length > 0) {
            if String::from_utf8_lossy(&read).contains("/slow") {
                tokio::time::sleep(Duration::from_millis(1500)).await;
                return;
            }
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
        }
    })
    .await;
    let gateway = gateway(&[&origin], ALL).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(client.get("/x").await.text(), "ok");
    let answer = client.post("/slow", "{}").await;
    assert_eq!(answer.error(502, 14), "the upstream broke off before it answered");
}

#[tokio::test]
async fn an_answer_that_comes_before_its_request_has_gone_out_is_passed_on() {
    let origin = Origin::sockets(|mut socket| async move {
        let mut read = [0; 64];
        let _ = socket.read(&mut read).await;
        let _ = socket
            .write_all(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nno!")
            .await;
        // It neither reads on nor closes.
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = gateway(&[&origin], ALL).await;
    for size in [100_000, 20_000_000] {
        let mut raw = Raw::connect(gateway.address).await;
        raw.write(format!(
            "POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n"
        ))
        .await;
        raw.write("x".repeat(50_000)).await;
        let text = raw.rest().await;
        assert!(
            text.starts_with("HTTP/1.1 413 ") && text.ends_with("no!"),
            "{text}"
        );
        assert!(text.contains("connection: close"), "{text}");
    }
    assert_eq!(origin.connections(), 2, "none of them is used again");
}

/// An origin that answers one request on each connection and closes it at the next one.
async fn answers_once() -> Origin {
    Origin::sockets(|mut socket| async move {
        let mut read = [0; 4096];
        if socket.read(&mut read).await.is_ok_and(|length| length > 0) {
            let _ = socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await;
            // It dies while the next request comes in.
            let _ = socket.read(&mut read).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_has_died_costs_nothing_that_may_be_sent_twice() {
    let origin = answers_once().await;
    let gateway = gateway(&[&origin], ALL).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(client.get("/x").await.text(), "ok");
    assert_eq!(client.get("/x").await.text(), "ok");
    assert_eq!(origin.connections(), 2);
    let answer = client.post("/x", "{}").await;
    assert_eq!(answer.error(502, 14), "the upstream closed a kept connection");
}

#[tokio::test]
async fn an_origin_that_is_silent_is_given_up() {
    let origin = Origin::sockets(|mut socket| async move {
        let mut read = [0; 4096];
        let length = socket.read(&mut read).await.unwrap_or(0);
        if String::from_utf8_lossy(&read[..length]).contains("/half") {
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
                .await
                .unwrap();
        }
        while socket.read(&mut read).await.is_ok_and(|length| length > 0) {}
    })
    .await;
    let limits = "request_timeout: 200ms, idle_timeout: 300ms";
    let gateway = gateway_with(&[&origin], "", limits, ALL).await;
    let answer = once(gateway.address, request(Method::GET, "/none", "")).await;
    answer.error(504, 4);
    let text = Raw::exchange(gateway.address, "GET /half HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(text.ends_with("half"), "{text}");
    let said = gateway.says("/half").await;
    assert!(
        said.contains("DEADLINE_EXCEEDED") && said.contains("\"lane\":\"relay\""),
        "{said}"
    );
}

#[tokio::test]
async fn an_origin_that_can_not_be_reached_is_unavailable() {
    let origin = echo().await;
    let address = origin.address;
    let gateway = gateway(&[&origin], ALL).await;
    drop(origin);
    within("the port to be free", async {
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answer = once(gateway.address, request(Method::GET, "/x", "")).await;
    answer.error(503, 14);
    assert_eq!(answer.reason(), "UPSTREAM_UNAVAILABLE");
}

#[tokio::test]
async fn many_requests_at_once_have_a_connection_each() {
    let origin = Origin::serve(false, |request| async move {
        let seen = see(request).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer(200, "text/plain", seen.line)
    })
    .await;
    let gateway = gateway(&[&origin], ALL).await;
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..40 {
        let address = gateway.address;
        calls.spawn(async move {
            let answer = once(address, request(Method::GET, &format!("/{number}"), "")).await;
            assert_eq!(answer.text(), format!("GET /{number}"));
        });
    }
    while let Some(done) = within("the answers", calls.join_next()).await {
        done.unwrap();
    }
    assert!(origin.connections() <= 40, "{}", origin.connections());
}

#[tokio::test]
async fn a_client_that_expects_to_be_told_to_continue_is_told() {
    let origin = echo().await;
    let gateway = gateway(&[&origin], ALL).await;
    let mut client = Raw::connect(gateway.address).await;
    client
        .write("POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n")
        .await;
    client.until("HTTP/1.1 100").await;
    client.write("abc").await;
    let text = client.rest().await;
    assert!(text.contains("POST /x 3"), "{text}");
    assert_eq!(origin.last().header("expect"), "");
}
