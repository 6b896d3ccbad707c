//! Limits of the configuration at their value, one below and one above, and what a request must not be.
//!
//! Sizes of messages are in `matrix/large.rs`.

use std::time::Duration;

use http::Method;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, library, raw};
use crate::support::clients::grpc;
use crate::support::clients::raw::Raw;
use crate::support::clients::rest::{Rest, Version, request};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};

const GENRES: &str = "/v1/genres";

async fn with(limits: &[&str]) -> (Gateway, Backend) {
    let backend = library().await;
    let mut settings = Settings::to(backend.address);
    for limit in limits {
        settings = settings.limit(limit);
    }
    (Gateway::start(&settings).await, backend)
}

/// A path and query of exactly so many bytes.
fn uri(bytes: usize) -> String {
    let start = "/v1/books?pageToken=";
    format!("{start}{}", "0".repeat(bytes - start.len()))
}

#[tokio::test]
async fn the_uri() {
    const LIMIT: usize = 1_000;
    let (gateway, _backend) = with(&["max_uri_bytes: 1000"]).await;
    for version in [Version::Http1, Version::Http2] {
        for (bytes, status) in [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 414)] {
            let mut client = Rest::connect(gateway.address, version).await;
            let answer = client.get(&uri(bytes)).await;
            assert_eq!(answer.status.as_u16(), status, "{bytes} over {version:?}");
        }
    }
}

#[tokio::test]
async fn the_number_of_headers() {
    const LIMIT: usize = 20;
    let (gateway, _backend) = with(&["max_headers: 20"]).await;
    for version in [Version::Http1, Version::Http2] {
        // Over HTTP/1.1 the client adds its Host line.
        let own = usize::from(version == Version::Http1);
        for (headers, status) in [(LIMIT - 1, 200), (LIMIT, 200), (LIMIT + 1, 431)] {
            let mut call = request(Method::GET, GENRES, "");
            for at in own..headers {
                call.headers_mut()
                    .append("x-many", at.to_string().parse().unwrap());
            }
            let answer = Rest::connect(gateway.address, version).await.send(call).await;
            assert_eq!(
                answer.status.as_u16(),
                status,
                "{headers} over {version:?}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_refusal_is_in_the_callers_dialect() {
    let (gateway, _backend) = with(&["max_header_bytes: 2KiB"]).await;
    let long = "x".repeat(3 << 10);

    let mut call = request(Method::GET, GENRES, "");
    call.headers_mut().insert("x-long", long.parse().unwrap());
    let answer = Rest::connect(gateway.address, Version::Http1)
        .await
        .send(call)
        .await;
    assert_eq!(answer.status, 431);
    answer.reason();

    let head = grpc::head("library.v1.Library/GetBook").header("x-long", &long);
    let answer = grpc::exchange(gateway.address, head, envelope(b"")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("grpc-status"), "8", "{answer:?}");
}

/// An upstream's header section: 8 KiB here, names and values and 32 bytes a line as HTTP/2 counts them.
#[tokio::test]
async fn the_headers_of_an_upstream() {
    for (bytes, fits) in [(7_000, true), (9_000, false)] {
        let backend = raw(move |_, mut answer| async move {
            let mut head = grpc_head();
            head.headers_mut()
                .insert("x-long", "x".repeat(bytes).parse().unwrap());
            let Ok(mut body) = answer.send_response(head, false) else {
                return;
            };
            let _ = body.send_data(envelope(b""), false);
            let _ = body.send_trailers(grpc_trailers("0"));
        })
        .await;
        let gateway =
            Gateway::start(&Settings::to(backend.address).limit("max_upstream_header_bytes: 8KiB")).await;
        let mut client = Rest::connect(gateway.address, Version::Http1).await;
        let answer = client.post("/library.v1.Library/GetBook", "{}").await;
        assert_eq!(answer.status == 200, fits, "{bytes}: {answer:?}");
        if !fits {
            assert!(answer.status.is_server_error(), "{answer:?}");
        }
    }
}

/// One connection over the cap is told so; when another goes, there is room again.
#[tokio::test]
async fn the_number_of_connections() {
    let (gateway, _backend) = with(&["max_connections: 2"]).await;
    let mut first = Rest::connect(gateway.address, Version::Http1).await;
    let mut second = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(first.get(GENRES).await.status, 200);
    assert_eq!(second.get(GENRES).await.status, 200);
    let told = Raw::exchange(
        gateway.address,
        "GET /v1/genres HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert_eq!(first.get(GENRES).await.status, 200, "those who are in stay in");
}

/// A client that begins a head and does not finish it has `header_timeout`, while others are served.
#[tokio::test]
async fn a_slow_head() {
    let (gateway, _backend) = with(&["header_timeout: 200ms"]).await;
    let mut slow = Raw::connect(gateway.address).await;
    slow.write("GET /v1/genres HTTP/1.1\r\nhost: a\r\nx-").await;
    let mut other = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(other.get(GENRES).await.status, 200);
    let told = slow.rest().await;
    assert!(told.starts_with("HTTP/1.1 408 "), "{told:?}");
}

/// A stream on which nothing moves ends after `idle_timeout`, and its upstream call with it.
#[tokio::test]
async fn an_idle_stream() {
    let backend = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        let _ = std::future::poll_fn(|context| body.poll_reset(context)).await;
    })
    .await;
    let gateway = Gateway::start(&Settings::to(backend.address).limit("idle_timeout: 200ms")).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let answer = client.post("/library.v1.Library/WatchBooks", "{}").await;
    assert!(
        answer.text().lines().last().unwrap().contains("\"error\""),
        "{answer:?}"
    );
    backend.calls_ended(1).await;
}

/// Requests that two parsers could read differently, or that ask for what a gateway is not.
#[tokio::test]
async fn abuse_of_http1() {
    let (gateway, _backend) = with(&[]).await;
    for (what, head, status) in [
        (
            "two lengths",
            "POST /v1/probe:echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3",
            400,
        ),
        (
            "length and chunks",
            "POST /v1/probe:echo HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ntransfer-encoding: chunked",
            400,
        ),
        (
            "chunked twice",
            "POST /v1/probe:echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, chunked",
            400,
        ),
        (
            "chunks in HTTP/1.0",
            "POST /v1/probe:echo HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked",
            400,
        ),
        ("no host", "GET /v1/genres HTTP/1.1", 400),
        ("two hosts", "GET /v1/genres HTTP/1.1\r\nhost: a\r\nhost: b", 400),
        ("userinfo", "GET /v1/genres HTTP/1.1\r\nhost: me@a", 400),
        (
            "a space in a name",
            "GET /v1/genres HTTP/1.1\r\nhost: a\r\nx y: 1",
            400,
        ),
        (
            "a folded line",
            "GET /v1/genres HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2",
            400,
        ),
        ("NUL", "GET /v1/files/%00 HTTP/1.1\r\nhost: a", 400),
        ("a backslash", "GET /v1/files/a\\b HTTP/1.1\r\nhost: a", 400),
        (
            "an escaped backslash",
            "GET /v1/files/a%5Cb HTTP/1.1\r\nhost: a",
            400,
        ),
        ("CONNECT", "CONNECT a:80 HTTP/1.1\r\nhost: a:80", 405),
        ("TRACE", "TRACE /v1/genres HTTP/1.1\r\nhost: a", 405),
        (
            "an unknown upgrade",
            "GET /v1/genres HTTP/1.1\r\nhost: a\r\nconnection: upgrade, close\r\nupgrade: h2c",
            200,
        ),
        (
            "an override",
            "GET /v1/genres HTTP/1.1\r\nhost: a\r\nx-http-method-override: DELETE\r\nconnection: close",
            200,
        ),
    ] {
        let mut raw = Raw::connect(gateway.address).await;
        raw.write(format!("{head}\r\n\r\n")).await;
        let told = raw.until("\r\n\r\n").await;
        let line = told.lines().next().unwrap();
        let got: u16 = line.split(' ').nth(1).unwrap().parse().unwrap();
        let fits = got == status || (status == 405 && matches!(got, 400 | 501));
        assert!(fits, "{what}: {line}");
        if status == 400 {
            assert!(told.contains("application/json"), "{what}: {told}");
        }
    }
}

/// A name of the gateway's own never comes from a client.
#[tokio::test]
async fn reserved_names_are_taken_out() {
    let (gateway, _backend) = with(&[]).await;
    let mut call = request(Method::GET, "/v1/probe:metadata", "");
    for name in ["x-sabir-user", "x-forwarded-for", "forwarded", "x-real-ip"] {
        call.headers_mut().insert(name, "evil".parse().unwrap());
    }
    let answer = Rest::connect(gateway.address, Version::Http1)
        .await
        .send(call)
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.text().contains("evil"), "{answer:?}");
}

/// A body that stops coming holds a call no longer than the call may take.
#[tokio::test]
async fn a_body_that_stops() {
    let (gateway, _backend) = with(&["request_timeout: 300ms"]).await;
    let mut raw = Raw::connect(gateway.address).await;
    let head =
        "POST /v1/probe:echo HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 10";
    raw.write(format!("{head}\r\n\r\n{{\"w")).await;
    let begun = tokio::time::Instant::now();
    let told = raw.until("\r\n\r\n").await;
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "another limit ended it"
    );
}
