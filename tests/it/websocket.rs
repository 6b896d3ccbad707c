//! What only a WebSocket has: handshakes, close codes, control frames, and clients that stop listening.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{Frame, FrameHeader};
use tonic::Code;

use crate::support::backends::{Backend, Kind, grpc_head, grpc_trailers, library, messages, raw, scripted};
use crate::support::clients::raw::Raw;
use crate::support::clients::websocket::{Client, handshake};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};
use crate::support::script::{Conversation, end, recv, send};
use crate::support::{nowhere, within};

const JSON: &str = "sabir.v1.json";
const CHAT: &str = "/v1/rooms/7:chat";
const ECHO: &str = "/library.v1.Probe/Echo";

/// A backend that answers each message of any call with the same message, and ends when the client has.
async fn echo() -> Backend {
    raw(|request, mut answer| async move {
        let mut heard = Box::pin(messages(request.into_body()));
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        while let Some(Ok(message)) = heard.next().await {
            body.send_data(envelope(&message), false).unwrap();
        }
        // The gateway may have gone.
        let _ = body.send_trailers(grpc_trailers("0"));
    })
    .await
}

/// A backend that answers with nothing but its head, until its stream is reset.
async fn silent() -> Backend {
    raw(|request, mut answer| async move {
        let _body = request;
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        let _ = std::future::poll_fn(|context| body.poll_reset(context)).await;
    })
    .await
}

async fn refused(gateway: &Gateway, path: &str, headers: &[(&str, &str)]) -> http::Response<Option<Vec<u8>>> {
    match Client::ask(gateway.address, handshake(gateway.address, path, headers)).await {
        Ok(_) => panic!("{path} with {headers:?} was taken"),
        Err(response) => response,
    }
}

fn status_of(response: &http::Response<Option<Vec<u8>>>) -> (u16, i64) {
    let body = response.body().as_ref().unwrap();
    let value: Value = serde_json::from_slice(body).unwrap();
    (response.status().as_u16(), value["code"].as_i64().unwrap())
}

/// Failures before the call are HTTP statuses, and nothing reaches the backend.
#[tokio::test]
async fn what_is_wrong_with_a_handshake_is_an_http_status() {
    let backend = raw(|_, _| async { panic!("nothing may arrive") }).await;
    let gateway = Gateway::to(backend.address).await;
    for (path, headers, status, code) in [
        ("/nowhere", &[][..], 404, 5),
        ("/v1/rooms/7:chat?nonsense=1", &[], 400, 3),
        ("/v1/rooms/%zz:chat", &[], 400, 3),
        (CHAT, &[("sec-websocket-protocol", "mqtt")], 400, 3),
        (CHAT, &[("sec-websocket-protocol", "bearer.!")], 400, 3),
        (CHAT, &[("origin", "https://evil.example")], 403, 7),
        (CHAT, &[("origin", "null")], 403, 7),
        (CHAT, &[("cookie", "session=1")], 403, 7),
        (
            CHAT,
            &[("cookie", "session=1"), ("origin", "http://localhost:1")],
            403,
            7,
        ),
        (CHAT, &[("grpc-timeout", "soon")], 400, 3),
    ] {
        let response = refused(&gateway, path, headers).await;
        assert_eq!(status_of(&response), (status, code), "{path} {headers:?}");
    }
    for (line, status) in [
        (
            "Sec-WebSocket-Version: 8\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "426",
        ),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "426"),
        ("Sec-WebSocket-Version: 13", "400"),
        ("Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvcnQ=", "400"),
    ] {
        let mut client = Raw::connect(gateway.address).await;
        client
            .write(format!(
                "GET {CHAT} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{line}\r\n\r\n",
                gateway.address
            ))
            .await;
        let answer = client.until("\r\n\r\n").await.to_lowercase();
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{line}: {answer}"
        );
        if status == "426" {
            assert!(answer.contains("sec-websocket-version: 13"), "{answer}");
        }
    }
    assert_eq!(backend.begun(), 0);
}

/// An upgrade to anything else is no upgrade.
#[tokio::test]
async fn other_upgrades_are_ignored() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    for upgrade in ["h2c", "tls/1.0"] {
        let mut client = Raw::connect(gateway.address).await;
        client
            .write(format!(
                "GET /v1/genres HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade, close\r\nUpgrade: {upgrade}\r\n\r\n",
                gateway.address
            ))
            .await;
        let answer = client.rest().await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// Path and query bind the first message; without a subprotocol messages go alone.
#[tokio::test]
async fn a_bidirectional_method_on_its_bound_path_without_a_subprotocol() {
    let backend = echo().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Client::open(gateway.address, CHAT, "").await;
    assert_eq!(client.header("sec-websocket-protocol"), "");
    client.say(&json!({"author": "a", "text": "one"})).await;
    assert_eq!(
        client.hear().await,
        json!({"room": "7", "author": "a", "text": "one"})
    );
    client.say(&json!({"text": "two"})).await;
    assert_eq!(client.hear().await, json!({"text": "two"}));
    client.say(&json!({"$msg": {"text": "three"}})).await;
    assert_eq!(client.hear().await, json!({"text": "three"}));
    client.say(&json!({"$end": {}})).await;
    assert_eq!(client.closed().await, (1000, String::new()));
    backend.calls_ended(1).await;
    let line = gateway.says("\"kind\":\"access\"").await;
    for part in [
        "\"dialect_in\":\"websocket\"",
        "\"http_status\":101",
        "\"grpc_status\":0",
        "\"close_code\":1000",
        "\"request_messages\":3",
        "\"response_messages\":3",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
}

/// Rule 12: what the path owns can't be said again.
#[tokio::test]
async fn a_field_of_the_path_is_the_paths() {
    let backend = echo().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.say(&json!({"room": "8"})).await;
    assert_eq!(client.hear().await["$status"]["code"], 3);
    assert_eq!(client.closed().await.0, 4003);
    // In protobuf the path's value holds.
    let mut client = Client::open(gateway.address, CHAT, "sabir.v1.proto").await;
    client.send(Message::binary(b"\x00\x0a\x018".to_vec())).await;
    assert_eq!(client.next().await, Message::binary(b"\x03".to_vec()));
    assert_eq!(
        client.next().await,
        Message::binary(b"\x00\x0a\x018\x0a\x017".to_vec())
    );
}

/// A path whose method takes no body is called at once.
#[tokio::test]
async fn a_path_without_a_body_needs_no_frame() {
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Client::open(gateway.address, "/v1/genres", JSON).await;
    assert!(client.hear().await["$headers"].is_object());
    assert!(client.hear().await.is_array(), "the response body is one field");
    let status = client.hear().await;
    assert_eq!(status["$status"]["code"], 0);
    assert_eq!(client.closed().await.0, 1000);

    let mut client = Client::open(gateway.address, "/v1/shelves/99/books:watch", "").await;
    assert_eq!(client.hear().await["error"]["code"], 5);
    let (code, reason) = client.closed().await;
    assert_eq!(code, 4005);
    assert!(reason.contains("shelves/99"), "{reason}");

    let mut client = Client::open(gateway.address, "/v1/rooms/9:listen?limit=1", JSON).await;
    assert!(client.hear().await["$headers"].is_object());
    client.say(&json!({"more": 1})).await;
    assert_eq!(client.hear().await["$status"]["code"], 3);
    assert_eq!(client.closed().await.0, 4003);
}

/// Where a body is a `google.api.HttpBody` and no subprotocol is chosen, frames are its bytes.
#[tokio::test]
async fn raw_bodies_are_frames_without_a_subprotocol() {
    const MIRROR: &str = "/v1/probe:mirror";
    let backend = library().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Client::open(gateway.address, MIRROR, "").await;
    for message in [
        Message::text("gr\u{fc}\u{df}e"),
        Message::binary(vec![0, 255, 1]),
        // No control frame here: whatever is sent is data.
        Message::text(r#"{"$end":{}}"#),
        Message::text(""),
        Message::binary(vec![7; 100_000]),
    ] {
        client.send(message.clone()).await;
        assert_eq!(client.next().await, message);
    }
    // What was sent before the client left is answered before the close is.
    client.send(Message::text("last")).await;
    let farewell = CloseFrame {
        code: 1000.into(),
        reason: "done".into(),
    };
    client.send(Message::Close(Some(farewell.clone()))).await;
    assert_eq!(client.next().await, Message::text("last"));
    assert_eq!(client.next().await, Message::Close(Some(farewell)));

    // In JSON a body is what ProtoJSON makes of it.
    let mut client = Client::open(gateway.address, MIRROR, JSON).await;
    client
        .say(&json!({"contentType": "text/plain", "data": "aGk="}))
        .await;
    assert!(client.hear().await["$headers"].is_object());
    assert_eq!(
        client.hear().await,
        json!({"contentType": "text/plain", "data": "aGk="})
    );

    // An answer alone is raw too, and what fails is told by the close code alone.
    let mut client = Client::open(gateway.address, "/v1/shelves/1/books/7/cover", "").await;
    match client.next().await {
        Message::Binary(picture) => assert!(picture.starts_with(b"<svg"), "{picture:?}"),
        other => panic!("no picture: {other:?}"),
    }
    assert_eq!(client.closed().await.0, 1000);
    let mut client = Client::open(gateway.address, "/v1/shelves/99/books/7/cover", "").await;
    assert_eq!(client.closed().await.0, 4005);
}

/// A unary method takes one message, or none.
#[tokio::test]
async fn a_unary_method_is_called_with_the_first_message() {
    let backend = echo().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Client::open(gateway.address, ECHO, JSON).await;
    client.say(&json!({"stringValue": "x"})).await;
    // The end of what it sends is understood, and changes nothing.
    client.say(&json!({"$end": {}})).await;
    assert!(client.hear().await["$headers"].is_object());
    assert_eq!(client.hear().await, json!({"stringValue": "x"}));
    assert_eq!(client.hear().await["$status"]["code"], 0);
    client.closed().await;

    let mut client = Client::open(gateway.address, ECHO, JSON).await;
    client.say(&json!({"$end": {}})).await;
    assert!(client.hear().await["$headers"].is_object());
    assert_eq!(client.hear().await, json!({}));
    assert_eq!(client.hear().await["$status"]["code"], 0);
    client.closed().await;

    let backend = silent().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Client::open(gateway.address, ECHO, JSON).await;
    client.say(&json!({})).await;
    backend.calls_begun(1).await;
    client.say(&json!({})).await;
    assert_eq!(client.status().await, 3);
    assert_eq!(client.closed().await.0, 4003);
    backend.calls_ended(1).await;
}

/// Whatever ends the socket ends the call upstream.
#[tokio::test]
async fn a_client_that_goes_cancels_its_call() {
    let backend = silent().await;
    let gateway = Gateway::to(backend.address).await;

    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.say(&json!({"$open": {}})).await;
    assert!(client.hear().await["$headers"].is_object());
    client.say(&json!({"$cancel": {}})).await;
    assert_eq!(client.hear().await["$status"]["code"], 1);
    assert_eq!(client.closed().await.0, 4001);
    backend.calls_ended(1).await;

    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.say(&json!({"$open": {}})).await;
    assert!(client.hear().await["$headers"].is_object());
    client.socket.close(None).await.unwrap();
    backend.calls_ended(2).await;
    assert!(matches!(
        within("the echo", client.socket.next()).await,
        Some(Ok(Message::Close(None)))
    ));

    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.say(&json!({"$open": {}})).await;
    assert!(client.hear().await["$headers"].is_object());
    drop(client);
    backend.calls_ended(3).await;

    // Also where the upstream does not take what the client sends.
    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    let text = "x".repeat(100_000);
    client.say(&json!({"text": text})).await;
    client.say(&json!({"text": text})).await;
    backend.calls_begun(4).await;
    client.socket.close(None).await.unwrap();
    backend.calls_ended(4).await;
    gateway.says("\"close_code\":1006").await;
    gateway.says("\"close_code\":1005").await;
}

/// A frame as it is given, whatever a client should send.
fn frame(opcode: OpCode, payload: &[u8]) -> Message {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    Message::Frame(Frame::from_payload(header, Bytes::copy_from_slice(payload)))
}

/// Each error has its close code, after a status where the framing is sound.
#[tokio::test]
async fn bad_frames_have_their_close_codes() {
    let backend = silent().await;
    let settings = Settings::to(backend.address).route("websocket: {max_message_bytes: 1000}");
    let gateway = Gateway::start(&settings).await;
    let large = format!("{{\"text\":\"{}\"}}", "x".repeat(1000 - 10));
    for (frame, status, close) in [
        (Message::binary(vec![1]), Some(3), 1003),
        (frame(OpCode::Data(Data::Text), b"\"\xff"), Some(3), 1007),
        (Message::text(large), Some(8), 1009),
        (frame(OpCode::Data(Data::Continue), b"x"), None, 1002),
        (Message::text("{"), Some(3), 4003),
        (Message::text("{\"$what\":1}"), Some(3), 4003),
    ] {
        let mut client = Client::open(gateway.address, CHAT, JSON).await;
        client.say(&json!({"$open": {}})).await;
        assert!(client.hear().await["$headers"].is_object());
        client.send(frame.clone()).await;
        if let Some(status) = status {
            assert_eq!(client.hear().await["$status"]["code"], status, "{frame:?}");
        }
        assert_eq!(client.closed().await.0, close, "{frame:?}");
    }
    let exact = format!("{{\"text\":\"{}\"}}", "x".repeat(1000 - 11));
    assert_eq!(exact.len(), 1000);
    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.send(Message::text(exact)).await;
    assert!(client.hear().await["$headers"].is_object());
}

/// Metadata and a deadline in the first frame; the handshake's own wins.
#[tokio::test]
async fn the_first_frame_says_more_about_the_call() {
    let backend = silent().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.say(&json!({"$open": {"timeout": "0.2s"}})).await;
    assert!(client.hear().await["$headers"].is_object());
    assert_eq!(client.hear().await["$status"]["code"], 4);
    assert_eq!(client.closed().await.0, 4004);
    backend.calls_ended(1).await;

    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.say(&json!({"text": "x"})).await;
    client.say(&json!({"$open": {}})).await;
    assert_eq!(client.status().await, 3);
    assert_eq!(client.closed().await.0, 4003);
}

/// A token among the subprotocols reaches the backend as authorization and is never named.
#[tokio::test]
async fn a_token_travels_among_the_subprotocols() {
    for (protocols, named, token) in [
        ("bearer.YS9iPT0, sabir.v1.json", JSON, "Bearer a/b=="),
        ("sabir.v1.json, bearer.YS9iPT0=", JSON, "Bearer a/b=="),
        ("Bearer, to.ken", "Bearer", "Bearer to.ken"),
    ] {
        let token: &'static str = token;
        let script = Conversation::new(
            "library.v1.Probe/Metadata",
            [recv(json!({})), send(json!({})), end(Code::Ok)],
        )
        .metadata([("authorization", token), ("x-a", "1")]);
        let backend = scripted(Kind::H2, script).await;
        let gateway = Gateway::to(backend.address).await;
        let headers = [("x-a", "1")];
        let mut client =
            Client::with(gateway.address, "/library.v1.Probe/Metadata", protocols, &headers).await;
        assert_eq!(client.header("sec-websocket-protocol"), named);
        client.say(&json!({})).await;
        backend.has_played_to_the_end().await;
        assert!(!gateway.said().contains("to.ken") && !gateway.said().contains("YS9i"));
    }
}

/// A backend that sends messages of 64 KiB for as long as they are taken.
async fn flood() -> Backend {
    raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        let mut message = vec![0x12, 0x80, 0x80, 0x04];
        message.extend(vec![b'x'; 1 << 16]);
        let mut whole = envelope(&message);
        loop {
            body.reserve_capacity(whole.len());
            let Some(Ok(room)) = std::future::poll_fn(|context| body.poll_capacity(context)).await else {
                return;
            };
            let _ = body.send_data(whole.split_to(room.min(whole.len())), false);
            if whole.is_empty() {
                whole = envelope(&message);
            }
        }
    })
    .await
}

/// A slow reader slows the upstream, and one that takes nothing is given up.
#[tokio::test]
async fn a_client_that_reads_nothing_is_given_up() {
    let backend = flood().await;
    let settings = Settings::to(backend.address).route("websocket: {write_timeout: 500ms}");
    let gateway = Gateway::start(&settings).await;
    let before = gateway.resident_bytes();
    let mut client = Client::open(gateway.address, "/v1/rooms/7:listen", JSON).await;
    backend.calls_begun(1).await;
    backend.calls_ended(1).await;
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes for a client that does not read");
    // What was under way is still there, and then the reason.
    let close = loop {
        match within("the close frame", client.socket.next()).await {
            Some(Ok(Message::Close(close))) => break close.unwrap(),
            Some(Ok(_)) => {}
            other => panic!("the connection ended: {other:?}"),
        }
    };
    assert_eq!(u16::from(close.code), 1013);
    gateway.says("\"close_code\":1013").await;
}

/// A client that sends more than the upstream takes is held back, and the gateway does not fill up.
#[tokio::test]
async fn a_client_that_sends_too_much_is_held_back() {
    let backend = silent().await;
    let gateway = Gateway::to(backend.address).await;
    let before = gateway.resident_bytes();
    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    let message = Message::text(json!({"text": "x".repeat(1 << 20)}).to_string());
    let sent = async {
        for _ in 0..64 {
            client.socket.send(message.clone()).await.unwrap();
        }
    };
    let all = tokio::time::timeout(Duration::from_secs(2), sent).await;
    assert!(all.is_err(), "64 MiB were taken that nobody reads");
    let grown = gateway.resident_bytes().saturating_sub(before);
    // A few messages of 1 MiB are under way, and the allocator keeps what passed; far less than what was sent.
    assert!(grown < 40 << 20, "{grown} bytes for a client that is held back");
}

/// A client that does not answer pings is given up, and one that does is told when nothing is said.
#[tokio::test]
async fn pings_find_clients_that_are_gone_and_are_no_activity() {
    let backend = silent().await;
    let settings = Settings::to(backend.address)
        .route("websocket: {ping_interval: 100ms, pong_timeout: 300ms, idle_timeout: 900ms}");
    let gateway = Gateway::start(&settings).await;
    let began = Instant::now();
    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.say(&json!({"$open": {}})).await;
    assert!(client.hear().await["$headers"].is_object());
    // The library answers pings while it is asked for the next message.
    assert_eq!(client.hear().await["$status"]["code"], 4);
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(client.closed().await.0, 4004);
    backend.calls_ended(1).await;

    let mut client = Client::open(gateway.address, CHAT, JSON).await;
    client.say(&json!({"$open": {}})).await;
    // Nobody asks, so that nobody answers.
    backend.calls_ended(2).await;
    let mut last = None;
    while let Some(Ok(message)) = within("the close frame", client.socket.next()).await {
        last = Some(message);
    }
    match last {
        Some(Message::Close(Some(close))) => assert_eq!(u16::from(close.code), 1008),
        other => panic!("no close frame: {other:?}"),
    }
}

/// A gateway that stops says so to each client, and ends when they have heard it.
#[tokio::test]
async fn a_gateway_that_stops_says_so() {
    let backend = silent().await;
    let settings = Settings::to(backend.address).limit("drain_timeout: 10s");
    let mut gateway = Gateway::start(&settings).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::open(gateway.address, CHAT, JSON).await;
        client.say(&json!({"$open": {}})).await;
        assert!(client.hear().await["$headers"].is_object());
        clients.push(client);
    }
    gateway.terminate();
    for client in &mut clients {
        assert_eq!(client.hear().await["$status"]["code"], 14);
        assert_eq!(client.closed().await.0, 1001);
    }
    assert!(gateway.ended().await.success());
    backend.calls_ended(3).await;
}

/// RFC 8441: the same over one stream of HTTP/2, beside other requests.
#[tokio::test]
async fn extended_connect_opens_a_websocket() {
    let backend = echo().await;
    let gateway = Gateway::to(backend.address).await;
    let headers = [("sec-websocket-protocol", JSON)];
    let mut client = Client::connect(gateway.address, CHAT, &headers).await.unwrap();
    assert_eq!(client.header("sec-websocket-protocol"), JSON);
    client.say(&json!({"text": "one"})).await;
    assert!(client.hear().await["$headers"].is_object());
    assert_eq!(client.hear().await, json!({"room": "7", "text": "one"}));
    client.say(&json!({"text": "x".repeat(1 << 20)})).await;
    assert_eq!(client.hear().await["text"].as_str().unwrap().len(), 1 << 20);
    client.say(&json!({"$end": {}})).await;
    assert_eq!(client.hear().await["$status"]["code"], 0);
    assert_eq!(client.closed().await.0, 1000);

    let refused = Client::connect(gateway.address, "/nowhere", &[]).await;
    assert_eq!(refused.err().unwrap().status(), 404);
    let mut client = Client::connect(gateway.address, CHAT, &headers).await.unwrap();
    client.say(&json!({"$open": {}})).await;
    backend.calls_begun(2).await;
    drop(client);
    backend.calls_ended(2).await;
}

/// Existing clients of gRPC-Web: metadata as the first frame, a lead byte before each further one.
#[tokio::test]
async fn existing_clients_of_grpc_web_are_served() {
    let script = Conversation::new(
        "library.v1.ReadingRoom/Chat",
        [
            recv(json!({"text": "one"})),
            send(json!({"text": "two"})),
            end(Code::Ok),
        ],
    )
    .metadata([("x-reader", "Leto")])
    .trailing([("x-last", "bye")]);
    let backend = scripted(Kind::H2, script).await;
    let gateway = Gateway::to(backend.address).await;
    let path = "/library.v1.ReadingRoom/Chat";
    let mut client = Client::open(gateway.address, path, "grpc-websockets").await;
    assert_eq!(client.header("sec-websocket-protocol"), "grpc-websockets");
    let metadata = "content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\nx-reader: Leto\r\n";
    client.send(Message::binary(metadata.as_bytes().to_vec())).await;
    let mut message = vec![0];
    message.extend(envelope(b"\x1a\x03one"));
    client.send(Message::binary(message)).await;
    client.send(Message::binary(vec![1])).await;
    let mut bytes = Vec::new();
    let close = loop {
        match client.next().await {
            Message::Binary(frame) => bytes.extend(frame),
            Message::Close(close) => break close.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(close.code), 1000);
    // Frames of gRPC-Web: metadata, the message, metadata again.
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let [flag, a, b, c, d, after @ ..] = rest {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        frames.push((*flag, after[..length].to_vec()));
        rest = &after[length..];
    }
    let [(0x80, _), (0, message), (0x80, trailers)] = &frames[..] else {
        panic!("{frames:?}");
    };
    assert_eq!(message, b"\x1a\x03two");
    let trailers = String::from_utf8_lossy(trailers);
    assert!(
        trailers.contains("grpc-status: 0\r\n") && trailers.contains("x-last: bye\r\n"),
        "{trailers}"
    );
    backend.has_played_to_the_end().await;
}

/// Compression is agreed on where the route says so, and bounded by what a message becomes.
#[tokio::test]
async fn messages_are_compressed_where_the_route_says_so() {
    use flate2::{Compress, Compression, FlushCompress};

    let backend = echo().await;
    let gateway = Gateway::to(backend.address).await;
    let offer = [("sec-websocket-extensions", "permessage-deflate")];
    let client = Client::with(gateway.address, CHAT, JSON, &offer).await;
    assert_eq!(client.header("sec-websocket-extensions"), "");

    let settings =
        Settings::to(backend.address).route("websocket: {deflate: true, max_message_bytes: 20KiB}");
    let gateway = Gateway::start(&settings).await;
    let mut client = Client::with(gateway.address, CHAT, JSON, &offer).await;
    assert_eq!(
        client.header("sec-websocket-extensions"),
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
    );
    let compressed = |text: &str| {
        let mut packed = Vec::with_capacity(text.len() + 64);
        Compress::new(Compression::fast(), false)
            .compress_vec(text.as_bytes(), &mut packed, FlushCompress::Sync)
            .unwrap();
        assert!(packed.ends_with(&[0, 0, 0xff, 0xff]));
        packed.truncate(packed.len() - 4);
        let header = FrameHeader {
            rsv1: true,
            opcode: OpCode::Data(Data::Text),
            ..FrameHeader::default()
        };
        Message::Frame(Frame::from_payload(header, packed.into()))
    };
    client
        .send(compressed(&json!({"text": "short"}).to_string()))
        .await;
    assert!(client.hear().await["$headers"].is_object());
    assert_eq!(client.hear().await, json!({"room": "7", "text": "short"}));
    client
        .send(compressed(&json!({"text": "x".repeat(30 << 10)}).to_string()))
        .await;
    // The answer is compressed, which this client can't read.
    gateway.says("\"close_code\":1009").await;
}

/// What an idle socket costs, with its call open upstream.
#[tokio::test]
async fn an_idle_socket_costs_little() {
    const SOCKETS: usize = 1000;
    let backend = silent().await;
    let gateway = Gateway::to(backend.address).await;
    let mut clients = Vec::new();
    let open = async |clients: &mut Vec<Client>, sockets: usize| {
        for _ in 0..sockets {
            let mut client = Client::open(gateway.address, CHAT, JSON).await;
            client.say(&json!({"$open": {}})).await;
            assert!(client.hear().await["$headers"].is_object());
            clients.push(client);
        }
    };
    // What is made once for all of them is there afterwards.
    open(&mut clients, 50).await;
    let before = gateway.resident_bytes();
    open(&mut clients, SOCKETS).await;
    let each = gateway.resident_bytes().saturating_sub(before) / SOCKETS;
    println!("{each} bytes for each idle socket");
    assert!(each <= 16 << 10, "{each} bytes for each idle socket");
}

/// A WebSocket server of tokio-tungstenite that echoes, and tells what its handshakes said.
pub(crate) async fn upstream_echo() -> (
    std::net::SocketAddr,
    tokio::sync::mpsc::Receiver<http::Request<()>>,
) {
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, handshakes) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            tokio::spawn(async move {
                #[allow(clippy::result_large_err, reason = "the library's own type")]
                let answer = |request: &Request, mut response: Response| {
                    seen.try_send(request.clone()).unwrap();
                    if request.uri().path() == "/prefix/refused" {
                        let body = Some("not here".to_owned());
                        return Err(ErrorResponse::new(body).map(|body| body)).map_err(|mut refused| {
                            *refused.status_mut() = http::StatusCode::FORBIDDEN;
                            refused
                        });
                    }
                    if request.headers().contains_key("sec-websocket-protocol") {
                        response
                            .headers_mut()
                            .insert("sec-websocket-protocol", "second".parse().unwrap());
                    }
                    response.headers_mut().insert("x-upstream", "1".parse().unwrap());
                    Ok(response)
                };
                let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, answer).await else {
                    return;
                };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, handshakes)
}

/// A gateway that relays `/live/**` to WebSockets of this address.
async fn relaying(address: std::net::SocketAddr, route: &str) -> Gateway {
    Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  live: {{protocol: websocket, endpoints: [\"ws://{address}/prefix\"]}}
routes:
  - path: /live/**
    backend: live
    relay: {{rewrite: {{prefix: /}}}}
{route}"
    ))
    .await
}

/// Frames pass in both directions, with the handshake's subprotocols and headers.
#[tokio::test]
async fn websockets_are_relayed_frame_by_frame() {
    let (address, mut handshakes) = upstream_echo().await;
    let gateway = relaying(address, "").await;
    for http2 in [false, true] {
        let headers = [
            ("sec-websocket-protocol", "first, second"),
            ("x-mine", "1"),
            ("x-sabir-user", "root"),
        ];
        let mut client = if http2 {
            Client::connect(gateway.address, "/live/a/b?x=1", &headers)
                .await
                .unwrap()
        } else {
            Client::with(gateway.address, "/live/a/b?x=1", "", &headers).await
        };
        let seen = within("the handshake", handshakes.recv()).await.unwrap();
        assert_eq!(seen.uri().to_string(), "/prefix/a/b?x=1");
        assert_eq!(seen.headers()["x-mine"], "1");
        assert_eq!(seen.headers()["host"], address.to_string());
        assert_eq!(seen.headers()["x-forwarded-for"], "127.0.0.1");
        assert!(!seen.headers().contains_key("x-sabir-user"));
        assert_eq!(client.header("sec-websocket-protocol"), "second");
        assert_eq!(client.header("x-upstream"), "1");
        for message in [
            Message::text("héllo"),
            Message::binary(vec![7; 200_000]),
            Message::text(""),
        ] {
            client.send(message.clone()).await;
            assert_eq!(client.next().await, message);
        }
        client
            .socket
            .close(Some(CloseFrame {
                code: 4321.into(),
                reason: "done".into(),
            }))
            .await
            .unwrap();
        assert_eq!(client.closed().await, (4321, "done".to_owned()));
    }
    let line = gateway.says("\"close_code\":4321").await;
    assert!(
        line.contains("\"dialect_in\":\"websocket\"")
            && line.contains("\"dialect_out\":\"websocket\"")
            && line.contains("\"lane\":\"relay\""),
        "{line}"
    );
}

/// Nothing is a tunnel before the upstream has said 101.
#[tokio::test]
async fn an_upstream_that_refuses_is_heard() {
    let (address, _handshakes) = upstream_echo().await;
    let gateway = relaying(address, "").await;
    assert_eq!(refused(&gateway, "/live/refused", &[]).await.status(), 403);
    assert_eq!(
        refused(&gateway, "/live/x", &[("origin", "https://evil.example")])
            .await
            .status(),
        403
    );
    let refused = Client::connect(gateway.address, "/live/refused", &[]).await;
    assert_eq!(refused.err().unwrap().status(), 403);
    let answer = crate::support::clients::rest::once(
        gateway.address,
        crate::support::clients::rest::request(http::Method::GET, "/live/x", ""),
    )
    .await;
    answer.error(426, 3);

    let gateway = relaying(nowhere(), "").await;
    let response = self::refused(&gateway, "/live/x", &[]).await;
    assert_eq!(status_of(&response), (503, 14));
}

/// An upstream that says 101 to another question, or success without one, is no WebSocket.
#[tokio::test]
async fn an_upstream_that_answers_wrongly_is_502() {
    for answer in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: \
         s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ] {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.read(&mut head).await;
        });
        let gateway = relaying(address, "").await;
        let response = refused(&gateway, "/live/x", &[]).await;
        assert_eq!(response.status(), 502, "{answer}");
    }
}

/// A path that takes everything leaves to services what is theirs, by whatever method.
#[tokio::test]
async fn services_and_relayed_paths_stand_side_by_side() {
    let (live, _handshakes) = upstream_echo().await;
    let backend = echo().await;
    let gateway = Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  library: {{endpoints: [\"http://{}\"], schema: {{descriptors: {}}}}}
  live: {{protocol: websocket, endpoints: [\"ws://{live}\"]}}
routes:
  - {{services: [\"*\"], backend: library}}
  - {{path: /**, backend: live}}
",
        backend.address,
        crate::support::messages::DESCRIPTORS
    ))
    .await;
    let mut service = Client::open(gateway.address, CHAT, "").await;
    service.say(&json!({"text": "one"})).await;
    assert_eq!(service.hear().await, json!({"room": "7", "text": "one"}));
    let mut relayed = Client::open(gateway.address, "/v1/rooms", "").await;
    relayed.say(&json!({"text": "one"})).await;
    assert_eq!(relayed.hear().await, json!({"text": "one"}));
}
