//! A bed of faults: upstreams that do to a call what its header asks for, broken things included, while their neighbours
//! are called too. Whatever they do, each caller gets an answer that is well formed in its own dialect, and the
//! neighbours' callers notice nothing.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, library, raw};
use crate::support::clients::grpc;
use crate::support::clients::rest::{Answer, Rest, Version, once, request};
use crate::support::framing::{envelope, flagged};
use crate::support::gateway::Gateway;
use crate::support::messages::DESCRIPTORS;
use crate::support::origin::Origin;
use crate::support::within;

/// What a gRPC upstream does; each but the last makes the call fail.
const GRPC_FAULTS: [&str; 13] = [
    "reset",
    "refuse",
    "stall",
    "garbage",
    "truncated",
    "oversized",
    "bad-flag",
    "no-status",
    "html",
    "huge-headers",
    "trickle",
    "http-503",
    "two-statuses",
];

/// What an HTTP/1.1 upstream does.
const HTTP_FAULTS: [&str; 9] = [
    "reset",
    "garbage",
    "half-close",
    "truncated",
    "unasked-101",
    "huge-headers",
    "bad-chunk",
    "stall",
    "surplus",
];

/// How often each call arrived, by its number.
type Arrived = Arc<Mutex<HashMap<String, usize>>>;

fn note(arrived: &Arrived, number: &str) {
    *arrived.lock().entry(number.to_owned()).or_default() += 1;
}

async fn misbehave(fault: &str, mut answer: SendResponse<Bytes>) {
    let mut head = grpc_head();
    match fault {
        "reset" => return answer.send_reset(Reason::INTERNAL_ERROR),
        "refuse" => return answer.send_reset(Reason::REFUSED_STREAM),
        "stall" => {
            let _ = std::future::poll_fn(|context| answer.poll_reset(context)).await;
            return;
        }
        "html" => {
            let html = Response::builder()
                .header("content-type", "text/html")
                .body(())
                .unwrap();
            if let Ok(mut body) = answer.send_response(html, false) {
                let _ = body.send_data(Bytes::from_static(b"<h1>It works</h1>"), true);
            }
            return;
        }
        "http-503" => {
            drop(answer.send_response(Response::builder().status(503).body(()).unwrap(), true));
            return;
        }
        "huge-headers" => {
            let value = "x".repeat(60_000);
            for name in ["x-one", "x-two"] {
                head.headers_mut().insert(name, value.parse().unwrap());
            }
        }
        _ => {}
    }
    let Ok(mut body) = answer.send_response(head, false) else {
        return;
    };
    // What can't be sent any more is of no matter: the gateway has seen enough.
    let _ = match fault {
        "garbage" => body.send_data(envelope(b"\xff\xff\xff\xff"), false),
        "truncated" => body.send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1, 2]), false),
        "oversized" => body.send_data(Bytes::from_static(&[0, 0x7f, 0, 0, 0, 1]), false),
        "bad-flag" => body.send_data(flagged(0x40, b""), false),
        "no-status" => return drop(body.send_data(envelope(b""), true)),
        "trickle" => {
            for byte in envelope(b"\x0a\x01").iter() {
                if body.send_data(Bytes::copy_from_slice(&[*byte]), false).is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            Ok(())
        }
        _ => body.send_data(envelope(b""), false),
    };
    let mut trailers = grpc_trailers("0");
    if fault == "two-statuses" {
        trailers.append("grpc-status", "13".parse().unwrap());
    }
    let _ = body.send_trailers(trailers);
}

/// A gRPC upstream that does what calls ask for.
async fn faulty(arrived: Arrived) -> Backend {
    raw(move |request: Request<h2::RecvStream>, answer| {
        let arrived = Arc::clone(&arrived);
        async move {
            let header = |name: &str| {
                let value = request.headers().get(name);
                value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
            };
            let (fault, number) = (header("x-fault"), header("x-number"));
            let mut body = request.into_body();
            if fault != "refuse" {
                note(&arrived, &number);
                while let Some(Ok(_)) = body.data().await {}
            }
            misbehave(&fault, answer).await;
        }
    })
    .await
}

/// The value of a header in the text of a request.
fn header_in<'t>(text: &'t str, name: &str) -> &'t str {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .map_or("", |value| value.trim_start_matches(':').trim())
}

/// An HTTP/1.1 upstream that does what requests ask for.
async fn faulty_origin(arrived: Arrived) -> Origin {
    Origin::sockets(move |mut socket: TcpStream| {
        let arrived = Arc::clone(&arrived);
        async move {
            let mut text = Vec::new();
            let mut piece = [0; 4096];
            while !text.windows(4).any(|four| four == b"\r\n\r\n") {
                match socket.read(&mut piece).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => text.extend_from_slice(&piece[..length]),
                }
            }
            let text = String::from_utf8_lossy(&text).into_owned();
            note(&arrived, header_in(&text, "x-number"));
            let huge = format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(100_000));
            let says = match header_in(&text, "x-fault") {
                "reset" => {
                    socket.set_zero_linger().unwrap();
                    return;
                }
                "garbage" => "\u{7f}\u{1}\u{2} this is no HTTP\r\n\r\n",
                "half-close" => "HTTP/1.1 200 OK\r\ncontent-le",
                "truncated" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
                "unasked-101" => "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
                "huge-headers" => &huge,
                "bad-chunk" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nabc",
                "stall" => {
                    // Until the gateway goes.
                    let _ = socket.read(&mut piece).await;
                    return;
                }
                _ => "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfineHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
            };
            let _ = socket.write_all(says.as_bytes()).await;
            let _ = socket.shutdown().await;
            while socket.read(&mut piece).await.is_ok_and(|length| length > 0) {}
        }
    })
    .await
}

struct Bed {
    gateway: Gateway,
    grpc: Backend,
    _origin: Origin,
    _good: Backend,
    arrived: Arrived,
}

impl Bed {
    async fn make() -> Self {
        let arrived = Arrived::default();
        let grpc = faulty(Arc::clone(&arrived)).await;
        let origin = faulty_origin(Arc::clone(&arrived)).await;
        let good = library().await;
        let gateway = Gateway::with_config(&format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nworkers: 2\n\
             backends:\n\
             \x20 bad: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}, ejection: off}}\n\
             \x20 origin: {{protocol: rest, endpoints: [\"http://{}\"], ejection: off, timeout: {{request: 5s}}}}\n\
             \x20 good: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}\n\
             routes:\n\
             \x20 - {{services: [library.v1.Library], backend: bad, timeout: 5s}}\n\
             \x20 - {{services: [library.v1.Probe], backend: good}}\n\
             \x20 - {{path: /origin/**, backend: origin, timeout: 5s}}\n",
            grpc.address, origin.address, good.address
        ))
        .await;
        Self {
            gateway,
            grpc,
            _origin: origin,
            _good: good,
            arrived,
        }
    }
}

type Call = Request<crate::support::clients::rest::Sending>;

fn with(mut call: Call, fault: &str, number: &str) -> Call {
    call.headers_mut().insert("x-fault", fault.parse().unwrap());
    call.headers_mut().insert("x-number", number.parse().unwrap());
    call
}

/// All of an answer, or nothing where it breaks off.
async fn attempt(client: &mut Rest, call: Call) -> Result<Answer, hyper::Error> {
    let response = client.start(call).await?;
    let (head, body) = response.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body,
        trailers: HeaderMap::new(),
    })
}

/// An error in JSON as every REST client gets it.
fn well_formed(answer: &Answer, what: &str) {
    assert!(
        answer.status.is_client_error() || answer.status.is_server_error(),
        "{what}: {answer:?}"
    );
    assert_eq!(
        answer.header("content-type"),
        "application/json",
        "{what}: {answer:?}"
    );
    let error = answer.json();
    assert!(
        error["code"].as_i64().is_some_and(|code| code > 0),
        "{what}: {error}"
    );
    assert!(error["message"].is_string(), "{what}: {error}");
}

/// One call of each fault and dialect, all at once, among calls to healthy neighbours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_is_well_formed_and_no_neighbour_notices() {
    let bed = Bed::make().await;
    let address = bed.gateway.address;
    let mut calls = JoinSet::new();
    for round in 0..3 {
        for fault in GRPC_FAULTS {
            // REST, a call that may not be sent twice.
            let number = format!("rest-{fault}-{round}");
            calls.spawn(async move {
                let call = with(
                    request(Method::POST, "/v1/shelves/1/books", "{\"title\": \"x\"}"),
                    fault,
                    &number,
                );
                let answer = within(&number, once(address, call)).await;
                well_formed(&answer, &number);
            });
            // gRPC, the same.
            let number = format!("grpc-{fault}-{round}");
            calls.spawn(async move {
                let head = grpc::head("library.v1.Library/CreateBook")
                    .header("x-fault", fault)
                    .header("x-number", &number);
                let answer = within(&number, grpc::exchange(address, head, envelope(b""))).await;
                assert_eq!(answer.status, 200, "{number}: {answer:?}");
                let status = answer
                    .grpc_status()
                    .unwrap_or_else(|| panic!("{number}: no status in {answer:?}"));
                // A payload that is no message crosses a relay as it is, and is the client's to refuse.
                let is_payload = matches!(fault, "garbage" | "trickle");
                assert_eq!(status == "0", is_payload, "{number}: {answer:?}");
            });
        }
        for fault in HTTP_FAULTS {
            let number = format!("http-{fault}-{round}");
            calls.spawn(async move {
                let call = with(request(Method::POST, "/origin/x", "{}"), fault, &number);
                let mut client = Rest::connect(address, Version::Http1).await;
                match within(&number, attempt(&mut client, call)).await {
                    Ok(answer) if fault == "surplus" => assert_eq!(answer.text(), "fine", "{number}"),
                    Ok(answer) => well_formed(&answer, &number),
                    // The head was out: all that is left is to break off.
                    Err(_) => assert!(matches!(fault, "truncated" | "bad-chunk"), "{number} broke off"),
                }
            });
        }
        for number in 1..=20 {
            calls.spawn(async move {
                let mut client = Rest::connect(
                    address,
                    if number % 2 == 0 {
                        Version::Http1
                    } else {
                        Version::Http2
                    },
                )
                .await;
                for turn in 0..5 {
                    let answer = client
                        .post("/library.v1.Probe/Unbound", json!({"number": number.to_string()}))
                        .await;
                    assert_eq!(
                        answer.json(),
                        json!({"number": number.to_string()}),
                        "turn {turn}"
                    );
                }
            });
        }
    }
    while let Some(call) = calls.join_next().await {
        call.unwrap();
    }
    // A request that may have been processed never arrives twice.
    for (number, times) in &*bed.arrived.lock() {
        assert_eq!(*times, 1, "{number}");
    }
    // What is still there of stalled calls ends with their deadline.
    bed.grpc.calls_ended(bed.grpc.begun()).await;
}

/// A client that leaves ends its call at an upstream that says nothing, whatever else goes on there.
#[tokio::test]
async fn a_call_that_is_left_ends_at_its_upstream() {
    let bed = Bed::make().await;
    for count in 1..=3 {
        let channel = grpc::connect(bed.gateway.address).await;
        let mut metadata = HeaderMap::new();
        metadata.insert("x-fault", "stall".parse().unwrap());
        let (requests, started) = grpc::start(channel, "library.v1.Library/WatchBooks", metadata, false);
        requests.send(Bytes::new()).await.unwrap();
        bed.grpc.calls_begun(count).await;
        started.abort();
        drop(requests);
        bed.grpc.calls_ended(count).await;
    }
}

/// An upstream that goes away in order, with calls on their way that it has not touched: each is answered elsewhere, those
/// that may not be sent twice too.
#[tokio::test]
async fn what_a_goaway_leaves_out_is_sent_elsewhere() {
    // Answers each connection's first request by GOAWAY with no stream processed.
    let leaving = Origin::sockets(|mut socket: TcpStream| async move {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let acknowledged = [0, 0, 0, 4, 1, 0, 0, 0, 0];
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let _ = socket.write_all(&[settings, acknowledged].concat()).await;
        let mut seen = Vec::new();
        let mut piece = [0; 4096];
        // The preface is 24 bytes; a frame of type 1 after it begins a request.
        loop {
            match socket.read(&mut piece).await {
                Ok(0) | Err(_) => return,
                Ok(length) => seen.extend_from_slice(&piece[..length]),
            }
            let mut at = 24;
            while let Some(head) = seen.get(at..at + 9) {
                if head[3] == 1 {
                    let _ = socket.write_all(&goaway).await;
                    let _ = socket.shutdown().await;
                    while socket.read(&mut piece).await.is_ok_and(|length| length > 0) {}
                    return;
                }
                at += 9 + usize::from(head[0]) * 65_536 + usize::from(head[1]) * 256 + usize::from(head[2]);
            }
        }
    })
    .await;
    let good = raw(|request, mut answer| async move {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.data().await {}
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let mut settings =
        crate::support::gateway::Settings::to(good.address).backend("load_balancing: round_robin");
    settings.endpoints.push(format!("http://{}", leaving.address));
    let gateway = Gateway::start(&settings).await;
    for _ in 0..20 {
        let answer = grpc::unary(gateway.address, "library.v1.Library/CreateBook", Bytes::new());
        within("an answer", answer).await.unwrap();
    }
    assert_eq!(good.begun(), 20);
    assert!(leaving.connections() >= 5, "{}", leaving.connections());
}
