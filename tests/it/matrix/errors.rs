//! How calls fail: what an upstream says is data, what the gateway says has a reason, and nothing broken looks whole.

use bytes::Bytes;
use h2::Reason;
use http::Response;
use serde_json::json;
use tonic::Code;

use crate::support::backends::{Backend, grpc_head, grpc_trailers, raw};
use crate::support::clients::rest::{Answer, once, request};
use crate::support::clients::{grpc, rest};
use crate::support::framing::envelope;
use crate::support::gateway::{Gateway, Settings};
use crate::support::script::{conversation, fail, fail_with, recv, send};

conversation!(
    before_the_first_message,
    "library.v1.Library/GetBook",
    [
        recv(json!({"name": "shelves/1/books/99"})),
        fail_with(
            Code::NotFound,
            "no book \"shelves/1/books/99\": 100 % sure, né",
            vec![
                json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "NOT_FOUND", "domain": "library.example",
                       "metadata": {"name": "shelves/1/books/99"}}),
                json!({"@type": "type.googleapis.com/google.rpc.BadRequest",
                       "fieldViolations": [{"field": "name", "description": "is not there"}]}),
            ]
        ),
    ]
);

conversation!(
    before_the_first_message_of_a_stream,
    "library.v1.Library/WatchBooks",
    [recv(json!({})), fail(Code::PermissionDenied, "not for you")]
);

conversation!(
    after_the_first_message,
    "library.v1.Probe/FailLater",
    [
        recv(json!({"after": 2})),
        send(json!({"number": "1"})),
        send(json!({"number": "2"})),
        fail_with(
            Code::Unavailable,
            "the shelf fell over",
            vec![json!({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "5s"})]
        ),
    ]
);

macro_rules! every_code {
    ($($name:ident = $code:ident),+ $(,)?) => {
        $(conversation!($name, "library.v1.Probe/Fail", [recv(json!({})), fail(Code::$code, "as asked")]);)+
    };
}

every_code! {
    cancelled = Cancelled, unknown = Unknown, invalid_argument = InvalidArgument,
    deadline_exceeded = DeadlineExceeded, not_found = NotFound, already_exists = AlreadyExists,
    permission_denied = PermissionDenied, resource_exhausted = ResourceExhausted,
    failed_precondition = FailedPrecondition, aborted = Aborted, out_of_range = OutOfRange,
    unimplemented = Unimplemented, internal = Internal, unavailable = Unavailable, data_loss = DataLoss,
    unauthenticated = Unauthenticated,
}

/// What a REST and a gRPC client are told about the same call.
struct Told {
    rest: Answer,
    grpc: tonic::Status,
}

/// Calls `method` on both frontends; the backend must be one that fails.
async fn told(backend: &Backend, path: &str) -> Told {
    let gateway = Gateway::to(backend.address).await;
    let rest = once(
        gateway.address,
        request(http::Method::POST, &format!("/{path}"), "{}"),
    )
    .await;
    let grpc = match grpc::unary(gateway.address, path, Bytes::new()).await {
        Ok(_) => tonic::Status::ok("a success"),
        Err(status) => status,
    };
    Told { rest, grpc }
}

const GET_BOOK: &str = "library.v1.Library/GetBook";

/// Backends that break their protocol, and the code that clients see. Never a success.
#[tokio::test]
async fn a_broken_upstream_is_never_a_success() {
    let no_status = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), true).unwrap();
    })
    .await;
    let cut_in_a_message = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(Bytes::from_static(b"\0\0\0\0\x09abc"), false)
            .unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let no_message = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let two_messages = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let reset = raw(|_, mut answer| async move { answer.send_reset(Reason::INTERNAL_ERROR) }).await;
    let reset_later = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        body.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let html = raw(|_, mut answer| async move {
        let head = Response::builder()
            .header("content-type", "text/html")
            .body(())
            .unwrap();
        let mut body = answer.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(b"<html>fine</html>"), true)
            .unwrap();
    })
    .await;
    for (what, backend) in [
        ("no status", no_status),
        ("a message cut short", cut_in_a_message),
        ("no message", no_message),
        ("two messages", two_messages),
        ("a reset", reset),
        ("a reset after a message", reset_later),
        ("HTML", html),
    ] {
        let told = told(&backend, GET_BOOK).await;
        assert!(told.rest.status.as_u16() >= 500, "{what}: {:?}", told.rest);
        assert!(told.rest.json()["code"].as_i64().unwrap() > 0, "{what}");
        // A gRPC client counts messages itself: its bytes are relayed.
        if what != "two messages" {
            assert_ne!(told.grpc.code(), Code::Ok, "{what}");
        }
    }
}

/// A stream that stops without a status is not a stream that ended.
#[tokio::test]
async fn truncated_reply() {
    let backend = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b""), false).unwrap();
        body.send_data(envelope(b""), true).unwrap();
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let mut call = request(http::Method::POST, "/library.v1.Library/WatchBooks", "{}");
    call.headers_mut()
        .insert("accept", "application/x-ndjson".parse().unwrap());
    let answer = once(gateway.address, call).await;
    let lines: Vec<&str> = answer.text().lines().collect();
    assert_eq!(lines.len(), 3, "{answer:?}");
    let last: serde_json::Value = serde_json::from_str(lines[2]).unwrap();
    assert!(last["error"]["code"].as_i64().unwrap() > 0, "{last}");
}

/// A status of the upstream passes as it is, with the gateway's reason nowhere in it.
#[tokio::test]
async fn upstream_status_is_not_a_fault() {
    let backend = raw(|_, mut answer| async move {
        let mut head = grpc_head();
        head.headers_mut().insert("grpc-status", "9".parse().unwrap());
        head.headers_mut()
            .insert("grpc-message", "not%20now%2C%20%E2%9C%8B".parse().unwrap());
        answer.send_response(head, true).unwrap();
    })
    .await;
    let told = told(&backend, GET_BOOK).await;
    assert_eq!(told.rest.error(400, 9), "not now, ✋");
    assert!(told.rest.json()["details"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(
        (told.grpc.code(), told.grpc.message()),
        (Code::FailedPrecondition, "not now, ✋")
    );
}

/// A number that no table has is `UNKNOWN`, and said.
#[tokio::test]
async fn an_undefined_code_is_unknown() {
    let backend = raw(|_, mut answer| async move {
        let mut head = grpc_head();
        head.headers_mut().insert("grpc-status", "17".parse().unwrap());
        answer.send_response(head, true).unwrap();
    })
    .await;
    let told = told(&backend, GET_BOOK).await;
    assert!(told.rest.error(500, 2).contains("17"), "{:?}", told.rest);
    assert_eq!(told.grpc.code(), Code::Unknown);
}

/// Rule 40: an answer that is not gRPC has the code of its HTTP status.
#[tokio::test]
async fn an_http_error_without_a_grpc_status() {
    for (status, code, http) in [
        (400_u16, Code::Internal, 500_u16),
        (401, Code::Unauthenticated, 401),
        (403, Code::PermissionDenied, 403),
        (404, Code::Unimplemented, 501),
        (429, Code::Unavailable, 503),
        (502, Code::Unavailable, 503),
        (503, Code::Unavailable, 503),
        (418, Code::Unknown, 500),
    ] {
        let backend = raw(move |_, mut answer| async move {
            answer
                .send_response(Response::builder().status(status).body(()).unwrap(), true)
                .unwrap();
        })
        .await;
        let told = told(&backend, GET_BOOK).await;
        assert_eq!(told.grpc.code(), code, "{status}");
        told.rest.error(http, code as i32);
    }
}

/// A message of the upstream that does not fit its descriptor is the upstream's fault.
#[tokio::test]
async fn garbage_from_the_upstream_is_a_bad_upstream_on_rest() {
    let backend = raw(|_, mut answer| async move {
        let mut body = answer.send_response(grpc_head(), false).unwrap();
        body.send_data(envelope(b"\xff\xff\xff\xff"), false).unwrap();
        body.send_trailers(grpc_trailers("0")).unwrap();
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let answer = once(
        gateway.address,
        request(http::Method::POST, &format!("/{GET_BOOK}"), "{}"),
    )
    .await;
    assert!(answer.status.as_u16() >= 500, "{answer:?}");
    answer.reason();
}

/// Nobody listens where the backend should be.
#[tokio::test]
async fn no_backend_is_503_with_a_reason() {
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let gateway = Gateway::start(&Settings::to(nobody)).await;
    let answer = once(
        gateway.address,
        request(http::Method::POST, &format!("/{GET_BOOK}"), "{}"),
    )
    .await;
    let message = answer.error(503, 14);
    answer.reason();
    assert!(
        !message.contains("127.0.0.1"),
        "an internal address is told: {message}"
    );
    let status = grpc::unary(gateway.address, GET_BOOK, Bytes::new())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(!status.message().contains("127.0.0.1"), "{status:?}");
}

/// A failed gRPC call before any message is one header section: trailers-only.
#[tokio::test]
async fn a_refused_grpc_call_is_trailers_only() {
    let backend = raw(|_, _| async { panic!("nothing may arrive") }).await;
    let gateway = Gateway::to(backend.address).await;
    let answer = grpc::exchange(gateway.address, grpc::head("library.v1.Library/NoSuchMethod"), "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/grpc");
    assert_eq!(answer.header("grpc-status"), "12", "{answer:?}");
    assert!(answer.body.is_empty() && answer.trailers.is_empty(), "{answer:?}");
}

/// Rule 41: a call that can't be right never reaches the backend.
#[tokio::test]
async fn a_bad_body_opens_no_upstream_call() {
    let backend = raw(|_, _| async { panic!("nothing may arrive") }).await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = rest::Rest::connect(gateway.address, rest::Version::Http1).await;
    for body in [
        "{",
        "[]",
        "null",
        "{\"name\": 1}",
        "{} {}",
        "{\"name\": \"a\", \"name\": \"b\"}",
        "{'name': ''}",
    ] {
        client.post(&format!("/{GET_BOOK}"), body).await.error(400, 3);
    }
    let missing = client.post(&format!("/{GET_BOOK}"), "{\"name\": 1}").await;
    assert!(
        missing.error(400, 3).contains("name"),
        "the field is not named: {missing:?}"
    );
    assert_eq!(backend.begun(), 0);
}

/// Rule 37: an error in message n of a client stream names n and cancels the call.
#[tokio::test]
async fn a_bad_message_in_a_client_stream_names_its_index() {
    let backend = raw(|request, answer| async move {
        let mut messages = Box::pin(crate::support::backends::messages(request.into_body()));
        while let Some(Ok(_)) = futures_util::StreamExt::next(&mut messages).await {}
        drop(answer);
    })
    .await;
    let gateway = Gateway::to(backend.address).await;
    let body = "{\"parent\": \"shelves/1\"}\n{\"book\": {}}\n{\"book\": {\"pages\": -1}}\n";
    let call = request(http::Method::POST, "/library.v1.Library/ImportBooks", body);
    let message = once(gateway.address, call).await.error(400, 3);
    assert!(message.contains('2'), "{message}");
    backend.calls_ended(1).await;
}

/// Every error of the gateway itself has the same form and a reason.
#[tokio::test]
async fn the_gateways_own_errors_have_one_form() {
    let backend = raw(|_, _| async { panic!("nothing may arrive") }).await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = rest::Rest::connect(gateway.address, rest::Version::Http2).await;

    let unknown = client.get("/v1/nothing/here").await;
    unknown.error(404, 5);
    unknown.reason();

    let method = client.send(request(http::Method::DELETE, "/v1/genres", "")).await;
    method.error(405, 12);
    assert_eq!(method.header("allow"), "GET, HEAD");

    let mut call = request(http::Method::POST, &format!("/{GET_BOOK}"), "<a/>");
    call.headers_mut()
        .insert("content-type", "application/xml".parse().unwrap());
    client.send(call).await.error(415, 3);
}
