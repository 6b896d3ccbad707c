//! Who and what is kept out: addresses, patterns, forms, strangers who ask what is there; what clients are not told of a
//! backend's errors; and attacks on the sockets, while a bystander is served.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::future::join_all;
use http::HeaderValue;
use prost::Message as _;
use tempfile::TempDir;

use crate::auth::{BOOK, KEY, RPC, backend, calls, get, post, send, sha256, site};
use crate::support::backends::{Backend, grpc_head, grpc_trailers, raw};
use crate::support::clients::raw::Raw;
use crate::support::clients::rest::{Answer, Rest, Version, once};
use crate::support::clients::websocket::{Client, handshake};
use crate::support::gateway::{Gateway, Settings};
use crate::support::messages::DESCRIPTORS;
use crate::support::origin::Origin;

/// A gateway with these lines in its listener, its route of services and its route of paths.
async fn gateway(backend: &Backend, origin: &Origin, listener: &str, services: &str, paths: &str) -> Gateway {
    let yaml = format!(
        "listeners:
  - address: \"127.0.0.1:0\"
{listener}
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
  site: {{protocol: rest, endpoints: [\"http://{}\"]}}
routes:
  - services: [\"*\"]
    backend: library
{services}
  - path: /site/**
    backend: site
{paths}
",
        backend.address, origin.address,
    );
    Gateway::with_config(&yaml).await
}

/// Whether an answer says that this may not be, in whatever way its dialect does.
fn is_denied(answer: &Answer) -> bool {
    answer.tells(403, 7, "permission_denied")
}

async fn is_let_in(gateway: &Gateway, headers: &[(&str, &str)], let_in: bool) {
    for (name, version, call) in calls(headers) {
        let answer = send(gateway, version, call).await;
        if let_in {
            assert_eq!(answer.status, 200, "{name} {headers:?}: {answer:?}");
            assert!(!is_denied(&answer), "{name} {headers:?}: {answer:?}");
        } else {
            assert!(is_denied(&answer), "{name} {headers:?}: {answer:?}");
        }
    }
    let socket = Client::ask(gateway.address, handshake(gateway.address, BOOK, headers)).await;
    match socket {
        Ok(mut socket) => {
            assert!(let_in, "{headers:?}: a WebSocket was opened");
            // Its call has begun once something comes of it.
            let _ = socket.next().await;
        }
        Err(refused) => assert!(!let_in && refused.status() == 403, "{headers:?}: {refused:?}"),
    }
}

#[tokio::test]
async fn an_address_that_a_listener_denies_gets_no_answer_at_all() {
    let (backend, _seen) = backend().await;
    let origin = site().await;
    for (listener, answered) in [
        ("    addresses: {deny: [127.0.0.0/8]}", false),
        ("    addresses: {allow: [10.0.0.0/8]}", false),
        ("    addresses: {allow: [127.0.0.1], deny: [127.0.0.2]}", true),
    ] {
        let gateway = gateway(&backend, &origin, listener, "", "").await;
        let text = format!("GET {BOOK} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let told = Raw::exchange(gateway.address, &text).await;
        assert_eq!(told.starts_with("HTTP/1.1 200"), answered, "{listener}: {told}");
        assert!(answered || told.is_empty(), "{listener}: {told}");
        let metrics = once(gateway.admin, get("/metrics", &[])).await;
        let counted = format!(
            "sabir_connections_refused_total{{cap=\"denied\"}} {}",
            u8::from(!answered)
        );
        assert!(metrics.text().contains(&counted), "{}", metrics.text());
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_it_is_the_client_whose_address_counts() {
    let (backend, _seen) = backend().await;
    let origin = site().await;
    let listener = "    trusted_proxies: [127.0.0.1]\n    addresses: {deny: [203.0.113.0/24]}";
    let route = "    addresses: {allow: [192.0.2.0/24, \"2001:db8::/32\"], deny: [192.0.2.66]}";
    let gateway = gateway(&backend, &origin, listener, route, route).await;
    for (client, let_in) in [
        ("192.0.2.1", true),
        ("2001:db8::7", true),
        ("192.0.2.66", false),
        ("203.0.113.9", false),
        ("198.51.100.1", false),
        // What stands left of the first stranger is a stranger's word.
        ("192.0.2.1, 198.51.100.1", false),
        ("198.51.100.1, 192.0.2.1", true),
        ("192.0.2.66, 192.0.2.1", true),
    ] {
        is_let_in(&gateway, &[("x-forwarded-for", client)], let_in).await;
    }
    let answer = once(gateway.address, get(BOOK, &[("x-forwarded-for", "192.0.2.66")])).await;
    answer.error(403, 7);
    assert_eq!(answer.reason(), "ADDRESS_DENIED");
    gateway.says("\"reason\":\"ADDRESS_DENIED\"").await;
}

#[tokio::test]
async fn a_request_that_looks_like_what_is_blocked_goes_nowhere() {
    let (backend, seen) = backend().await;
    let origin = site().await;
    let listener = "    block: [{user_agent: \"(?i)sqlmap|nikto\"}, {path: \"\\\\.php$\"}]";
    let route = "    block: [{headers: {x-probe: \"^on$\"}, path: \"GetBook|books|page\"}, {query: \"(?i)union\\\\s+select\"}]";
    let gateway = gateway(&backend, &origin, listener, route, route).await;
    is_let_in(&gateway, &[("user-agent", "curl/8")], true).await;
    is_let_in(&gateway, &[("x-probe", "off")], true).await;
    let before = (backend.begun(), origin.seen().len());
    is_let_in(&gateway, &[("user-agent", "SQLMap/1.7")], false).await;
    for path in [
        "/site/index.php",
        "/site/index%2Ephp",
        "/site/x?q=1%20UNION%20SELECT%202",
        "/site/x?q=1+union+select+2",
        "/no/route.php",
    ] {
        let answer = once(gateway.address, get(path, &[])).await;
        answer.error(403, 7);
        assert_eq!(answer.reason(), "REQUEST_BLOCKED", "{path}");
        assert!(
            !answer.text().contains("union") && !answer.text().contains("block"),
            "{answer:?}"
        );
    }
    let blocked = post(
        RPC,
        "application/grpc",
        &[0; 5],
        &[("te", "trailers"), ("x-probe", "on")],
    );
    let answer = send(&gateway, Version::Http2, blocked).await;
    assert_eq!(answer.grpc_status(), Some("7"), "{answer:?}");
    assert_eq!(
        (backend.begun(), origin.seen().len()),
        before,
        "nothing went upstream"
    );
    drop(seen);
}

#[tokio::test]
async fn a_form_is_not_taken_where_a_cookie_says_who_calls() {
    let (backend, _seen) = backend().await;
    let origin = site().await;
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys.yaml");
    std::fs::write(
        &keys,
        format!("keys: [{{label: program, sha256: {}}}]", sha256(KEY)),
    )
    .unwrap();
    let auth = format!(
        "auth:\n  members:\n    api_keys: {{file: {}, header: x-api-key, cookie: session}}",
        keys.display()
    );
    let paths = format!("    auth: members\n{auth}");
    let gateway = gateway(&backend, &origin, "", "    auth: members", &paths).await;
    let cookie = format!("session={KEY}");
    let form = "application/x-www-form-urlencoded";
    for (credential, path, content_type, status) in [
        (("x-api-key", KEY), RPC, form, 200),
        (("cookie", &*cookie), RPC, "application/json", 200),
        (("cookie", &*cookie), RPC, form, 415),
        (
            ("cookie", &*cookie),
            RPC,
            "Application/X-WWW-Form-Urlencoded; charset=utf-8",
            415,
        ),
        (("cookie", &*cookie), RPC, "text/plain", 415),
        // A site behind the gateway reads its own forms.
        (("cookie", &*cookie), "/site/login", form, 200),
    ] {
        let call = post(path, content_type, b"{}", &[credential]);
        let answer = once(gateway.address, call).await;
        assert_eq!(
            answer.status, status,
            "{credential:?} {path} {content_type}: {answer:?}"
        );
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct Details {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// A backend whose calls fail at once or after a message, with a stack trace and a hint in the details.
async fn failing(after_a_message: bool) -> Backend {
    let any = |name: &str, value: &[u8]| prost_types::Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: value.to_vec(),
    };
    let details = Details {
        code: 13,
        message: "table books".to_owned(),
        details: vec![
            // DebugInfo: stack_entries = 1, detail = 2; ErrorInfo: reason = 1.
            any("DebugInfo", b"\x0a\x09main.rs:7"),
            any("ErrorInfo", b"\x0a\x04HINT"),
        ],
    };
    let encoded = base64_simd::STANDARD_NO_PAD.encode_to_string(details.encode_to_vec());
    raw(move |_request, mut answer: h2::server::SendResponse<Bytes>| {
        let mut trailers = grpc_trailers("13");
        trailers.insert("grpc-message", HeaderValue::from_static("table books"));
        trailers.insert("grpc-status-details-bin", encoded.parse().unwrap());
        async move {
            if after_a_message {
                if let Ok(mut stream) = answer.send_response(grpc_head(), false) {
                    let _ = stream.send_data(Bytes::from_static(&[0; 5]), false);
                    let _ = stream.send_trailers(trailers);
                }
            } else {
                let mut head = grpc_head();
                head.headers_mut().extend(trailers);
                let _ = answer.send_response(head, true);
            }
        }
    })
    .await
}

/// Everything that an answer says, with its base64 read.
fn said(answer: &Answer) -> String {
    let mut said = answer.text_lossy();
    let values = answer.headers.iter().chain(&answer.trailers);
    for (name, value) in values {
        write!(said, "\n{name}: {}", String::from_utf8_lossy(value.as_bytes())).unwrap();
    }
    // Padding stands at the end of a piece, and another may follow at once.
    let words: Vec<String> = said
        .split(|letter: char| !(letter.is_ascii_alphanumeric() || "+/_-".contains(letter)))
        .filter(|word| word.len() > 8)
        .map(str::to_owned)
        .collect();
    for word in words {
        for decoded in [
            base64_simd::STANDARD_NO_PAD.decode_to_vec(&word),
            base64_simd::URL_SAFE_NO_PAD.decode_to_vec(&word),
        ]
        .into_iter()
        .flatten()
        {
            let text = String::from_utf8_lossy(&decoded).into_owned();
            // grpc-web-text holds the header in another layer of base64.
            let inner: Vec<_> = text
                .split(|letter: char| !(letter.is_ascii_alphanumeric() || "+/=".contains(letter)))
                .filter_map(|word| {
                    base64_simd::STANDARD_NO_PAD
                        .decode_to_vec(word.trim_end_matches('='))
                        .ok()
                })
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .collect();
            said.push_str(&text);
            said.push_str(&inner.concat());
        }
    }
    said
}

impl Answer {
    fn text_lossy(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

#[tokio::test]
async fn stack_traces_stay_inside_in_every_dialect() {
    let origin = site().await;
    for after_a_message in [false, true] {
        let backend = failing(after_a_message).await;
        for (errors, traces, words) in [
            ("", false, true),
            ("    errors: {debug_info: true}", true, true),
            ("    errors: {server_messages: replace}", false, false),
        ] {
            let gateway = gateway(&backend, &origin, "", errors, "").await;
            for (name, version, call) in calls(&[]) {
                if name == "site" || name == "rest head" {
                    continue;
                }
                let answer = send(&gateway, version, call).await;
                let said = said(&answer);
                // Compared as JSON where a dialect writes details so.
                let trace = said.contains("main.rs:7");
                assert_eq!(trace, traces, "{name} {errors} {after_a_message}: {said}");
                assert!(said.contains("HINT"), "{name} {errors}: {said}");
                let told = said.contains("table books") || said.contains("table%20books");
                assert_eq!(told, words, "{name} {errors}: {said}");
            }
            let mut socket = Client::open(gateway.address, BOOK, "sabir.v1.json").await;
            let mut told = String::new();
            loop {
                let heard = socket.hear().await;
                told = format!("{told}{heard}");
                if !heard["$status"].is_null() {
                    break;
                }
            }
            assert_eq!(told.contains("main.rs:7"), traces, "{errors}: {told}");
            assert_eq!(told.contains("table books"), words, "{errors}: {told}");
        }
    }
}

#[tokio::test]
async fn what_is_there_is_told_to_whom_the_configuration_says() {
    let (backend, _seen) = backend().await;
    let folder = TempDir::new().unwrap();
    let keys = folder.path().join("keys.yaml");
    std::fs::write(
        &keys,
        format!("keys: [{{label: program, sha256: {}}}]", sha256(KEY)),
    )
    .unwrap();
    let list = [&[0, 0, 0, 0, 2][..], b"\x3a\x00"].concat();
    let list: &'static [u8] = list.leak();
    for (reflection, credential, status, services) in [
        ("{}", "", "0", &["library.v1.Library", "library.v1.Probe"][..]),
        ("{auth: members}", "", "16", &[]),
        (
            "{auth: members}",
            KEY,
            "0",
            &["library.v1.Library", "library.v1.Probe"],
        ),
        ("{services: [library.v1.Probe]}", "", "0", &["library.v1.Probe"]),
        ("{enabled: false}", "", "5", &[]),
    ] {
        let yaml = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
reflection: {reflection}
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {DESCRIPTORS}}}}}
routes:
  - {{services: [\"*\"], backend: library}}
auth:
  members: {{api_keys: {{file: {}}}}}
",
            backend.address,
            keys.display()
        );
        let gateway = Gateway::with_config(&yaml).await;
        for version in ["v1", "v1alpha"] {
            let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
            let credential: &[(&str, &str)] = if credential.is_empty() {
                &[("te", "trailers")]
            } else {
                &[("te", "trailers"), ("x-api-key", credential)]
            };
            let call = post(&path, "application/grpc", list, credential);
            let answer = send(&gateway, Version::Http2, call).await;
            let got = answer.grpc_status();
            let unknown = status == "5" && got == Some("12");
            assert!(got == Some(status) || unknown, "{reflection}: {answer:?}");
            let told = answer.text_lossy();
            for service in ["library.v1.Library", "library.v1.Probe"] {
                assert_eq!(
                    told.contains(service),
                    services.contains(&service),
                    "{reflection}: {told}"
                );
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

/// The preface of HTTP/2, with settings that change nothing.
fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &[])].concat()
}

/// `GET http://a/` in HPACK.
const GET: &[u8] = b"\x82\x86\x84\x41\x01a";

/// Bytes that no honest client sends, by what they are.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let h2 = |frames: Vec<u8>| [preface(), frames].concat();
    let reset = |stream| {
        [
            frame(1, 5, stream, GET),
            frame(3, 0, stream, &8_u32.to_be_bytes()),
        ]
        .concat()
    };
    let post = "POST /v1/probe:echo HTTP/1.1\r\nhost: a\r\n";
    let smuggled = "GET /admin HTTP/1.1\r\nhost: a\r\n\r\n";
    // A literal header with a new name of one letter and a value of 4,096.
    let literal = [&b"\x40\x01x\x7f\x81\x1f"[..], &[b'y'; 4096]].concat();
    // Inserts a value of 4,000 bytes into the table, and names it again and again: the bomb of HPACK.
    let bomb = [GET, &b"\x40\x01x\x7f\xa1\x1e"[..], &[b'y'; 4000], &[0xbe; 4000]].concat();
    vec![
        (
            "length and chunks",
            format!("{post}content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")
                .into(),
        ),
        (
            "two lengths",
            format!(
                "{post}content-length: 0\r\ncontent-length: {}\r\n\r\n{smuggled}",
                smuggled.len()
            )
            .into(),
        ),
        (
            "a disguised coding",
            format!("{post}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n{smuggled}").into(),
        ),
        (
            "a coding after a tab",
            format!("{post}transfer-encoding:\tchunked, identity\r\n\r\n0\r\n\r\n{smuggled}").into(),
        ),
        (
            "a chunk that lies",
            format!("{post}transfer-encoding: chunked\r\n\r\n1\r\n{{}}\r\n0\r\n\r\n{smuggled}").into(),
        ),
        (
            "a chunk size that overflows",
            format!("{post}transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{{}}\r\n").into(),
        ),
        (
            "a length with a sign",
            format!("{post}content-length: +2\r\n\r\n{{}}{smuggled}").into(),
        ),
        (
            "another host in the target",
            b"GET http://b/v1/genres HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
        ),
        (
            "two hosts",
            b"GET /v1/genres HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_vec(),
        ),
        (
            "many headers",
            format!(
                "GET /v1/genres HTTP/1.1\r\nhost: a\r\n{}\r\n",
                (0..5000).fold(String::new(), |mut lines, at| {
                    write!(lines, "x{at}: 1\r\n").unwrap();
                    lines
                })
            )
            .into(),
        ),
        (
            "a long header",
            format!(
                "GET /v1/genres HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
                "y".repeat(1 << 20)
            )
            .into(),
        ),
        (
            "a long target",
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "y".repeat(1 << 20)).into(),
        ),
        (
            "rapid resets",
            h2((0..500).flat_map(|at| reset(at * 2 + 1)).collect()),
        ),
        (
            "continuations",
            h2([frame(1, 1, 1, GET), frame(9, 0, 1, &literal[..16]).repeat(20_000)].concat()),
        ),
        (
            "large continuations",
            h2([frame(1, 1, 1, GET), frame(9, 0, 1, &literal).repeat(500)].concat()),
        ),
        ("a bomb in HPACK", h2(frame(1, 5, 1, &bomb))),
        ("settings", h2(frame(4, 0, 0, &[0, 4, 0, 1, 0, 0]).repeat(20_000))),
        ("pings", h2(frame(6, 0, 0, &[7; 8]).repeat(20_000))),
        (
            "windows that overflow",
            h2(frame(8, 0, 0, &0x7fff_ffff_u32.to_be_bytes()).repeat(2)),
        ),
        (
            "empty data",
            h2([
                frame(1, 4, 1, b"\x83\x86\x84\x41\x01a"),
                frame(0, 0, 1, &[]).repeat(20_000),
            ]
            .concat()),
        ),
        ("priorities", h2(frame(2, 0, 1, &[0, 0, 0, 3, 7]).repeat(20_000))),
        (
            "a frame too large",
            h2([&[0xff, 0xff, 0xff, 0, 0][..], &[0; 4], &[0; 70_000]].concat()),
        ),
        ("garbage", (0..=255_u8).cycle().take(100_000).collect()),
    ]
}

/// Sends an attack and hears the gateway out, until it closes the connection.
async fn attack(gateway: &Gateway, name: &str, bytes: &[u8]) -> String {
    let mut socket = Raw::connect(gateway.address).await;
    let told = socket.exchange_and_close(bytes).await;
    assert!(
        !told.contains("HTTP/1.1 2") || name == "another host in the target",
        "{name}: {told}"
    );
    told
}

#[tokio::test]
async fn attacks_are_ended_while_a_bystander_is_served_and_memory_stays() {
    let (backend, _seen) = backend().await;
    let gateway = Gateway::start(
        &Settings::to(backend.address)
            .limit("header_timeout: 1s")
            .limit("keep_alive_timeout: 1s"),
    )
    .await;
    let mut bystander = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(bystander.get(BOOK).await.status, 200);
    let over = Arc::new(AtomicBool::new(false));
    let served = {
        let (address, over) = (gateway.address, Arc::clone(&over));
        tokio::spawn(async move {
            let mut served = 0_usize;
            while !over.load(Ordering::Relaxed) {
                let mut client = Rest::connect(address, Version::Http2).await;
                for _ in 0..5 {
                    assert_eq!(client.get(BOOK).await.status, 200, "after {served} calls");
                    served += 1;
                }
            }
            served
        })
    };
    // One round to fill what is kept, one to see that it does not grow.
    for (name, bytes) in attacks() {
        attack(&gateway, name, &bytes).await;
    }
    let before = gateway.resident_bytes();
    for _ in 0..3 {
        let all = attacks();
        join_all(all.iter().map(|(name, bytes)| attack(&gateway, name, bytes))).await;
        // Those who say their head a byte a second, or nothing at all.
        let address = gateway.address;
        let slow = (0..30).map(|number| async move {
            let mut socket = Raw::connect(address).await;
            if number % 2 == 0 {
                socket.write(b"GET / HTTP/1.1\r\nhost:").await;
            }
            socket.rest().await
        });
        for told in join_all(slow).await {
            assert!(told.is_empty() || told.starts_with("HTTP/1.1 408"), "{told}");
        }
    }
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "memory grew by {grown} bytes");
    over.store(true, Ordering::Relaxed);
    let served = served.await.unwrap();
    assert!(served > 0, "nobody was served");
    assert_eq!(once(gateway.address, get(BOOK, &[])).await.status, 200);
}
