//! Calls of a described service that go to an origin which knows HTTP and JSON alone.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::support::clients::grpc;
use crate::support::clients::rest::{self, Rest, Version, request};
use crate::support::gateway::Gateway;
use crate::support::messages::{DESCRIPTORS, canonical, decode, details, encode, method};
use crate::support::origin::{Origin, Seen, answer, json as answer_json};
use crate::support::{same, within};

/// A gateway in front of an origin; `backend` and `route` are further members in YAML.
async fn gateway(origin: &Origin, backend: &str, route: &str) -> Gateway {
    Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
limits: {{request_timeout: 10s}}
backends:
  library:
    protocol: rest
    endpoints: [\"http://{}/api\"]
    schema: {{descriptors: {DESCRIPTORS}}}
    {backend}
routes:
  - services: [\"*\"]
    backend: library
    {route}
",
        origin.address
    ))
    .await
}

/// A unary call over gRPC, in JSON on both ends.
async fn call(gateway: &Gateway, path: &str, message: &Value) -> Result<Value, Status> {
    let method = method(path);
    let message = encode(&method.input(), message);
    let answer = grpc::unary(gateway.address, path, message).await?;
    Ok(decode(&method.output(), &answer))
}

/// All messages of a stream and how it ended.
async fn stream(gateway: &Gateway, path: &str, message: &Value) -> (Vec<Value>, Result<(), Status>) {
    let method = method(path);
    let channel = grpc::connect(gateway.address).await;
    let (sender, started) = grpc::start(channel, path, HeaderMap::new(), false);
    sender.send(encode(&method.input(), message)).await.unwrap();
    drop(sender);
    let mut answers = match within("the head of the stream", started).await.unwrap() {
        Ok(response) => response.into_inner(),
        Err(status) => return (Vec::new(), Err(status)),
    };
    let mut messages = Vec::new();
    loop {
        match within("the next message", answers.message()).await {
            Ok(Some(message)) => messages.push(decode(&method.output(), &message)),
            Ok(None) => return (messages, Ok(())),
            Err(status) => return (messages, Err(status)),
        }
    }
}

#[tokio::test]
async fn a_grpc_call_goes_out_by_its_rule() {
    let origin = Origin::start(|seen| match seen.line.as_str() {
        "DELETE /api/v1/shelves/1/books/7" => answer(204, "", ""),
        line if line.contains("genres") => answer(200, "application/json", r#"[{"genre":"GENRE_POETRY"}]"#),
        _ => answer_json(&json!({"name": "shelves/1/books/7", "title": "Dune", "unknown": 1})),
    })
    .await;
    let gateway = gateway(&origin, "", "").await;
    let dune = json!({"name": "shelves/1/books/7", "title": "Dune"});
    for (path, message, line, body, expected) in [
        (
            "library.v1.Library/GetBook",
            json!({"name": "shelves/1/books/a b"}),
            "GET /api/v1/shelves/1/books/a%20b",
            Value::Null,
            dune.clone(),
        ),
        (
            "library.v1.Library/CreateBook",
            json!({"parent": "shelves/1", "book": {"title": "Dune", "pages": 412}, "bookId": "7"}),
            "POST /api/v1/shelves/1/books?bookId=7",
            json!({"title": "Dune", "pages": 412}),
            dune.clone(),
        ),
        (
            "library.v1.Library/UpdateBook",
            json!({"book": {"name": "shelves/1/books/7", "title": "Dune"}, "updateMask": "title"}),
            "PATCH /api/v1/shelves/1/books/7?updateMask=title",
            json!({"title": "Dune"}),
            dune.clone(),
        ),
        (
            "library.v1.Library/MoveBook",
            json!({"name": "shelves/1/books/7"}),
            "POST /api/v1/shelves/1/books/7:move",
            json!({}),
            dune.clone(),
        ),
        (
            "library.v1.Library/DeleteBook",
            json!({"name": "shelves/1/books/7"}),
            "DELETE /api/v1/shelves/1/books/7",
            Value::Null,
            json!({}),
        ),
        (
            "library.v1.Library/ListGenres",
            json!({}),
            "GET /api/v1/genres",
            Value::Null,
            json!({"genres": [{"genre": "GENRE_POETRY"}]}),
        ),
    ] {
        let got = call(&gateway, path, &message)
            .await
            .unwrap_or_else(|status| panic!("{path}: {status:?}"));
        let seen = origin.last();
        assert_eq!(seen.line, line, "{path}");
        assert_eq!(seen.json(), body, "{path}");
        let output = method(path).output();
        same(path, &canonical(&output, &expected), &canonical(&output, &got));
        let content_type = if body.is_null() { "" } else { "application/json" };
        assert_eq!(seen.header("content-type"), content_type, "{path}");
        assert_eq!(seen.header("te"), "", "{path}");
        assert!(
            seen.headers
                .keys()
                .all(|name| !name.as_str().starts_with("grpc-")),
            "{seen:?}"
        );
    }
    assert_eq!(origin.connections(), 1, "the connection was kept");
}

#[tokio::test]
async fn what_does_not_fit_the_rule_is_refused_without_a_request() {
    let origin = Origin::start(|_| answer_json(&json!({}))).await;
    let gateway = gateway(&origin, "", "").await;
    for (path, message, code) in [
        (
            "library.v1.Library/GetBook",
            json!({"name": "books/7"}),
            Code::InvalidArgument,
        ),
        ("library.v1.Library/GetBook", json!({}), Code::InvalidArgument),
        (
            "library.v1.Library/GetFile",
            json!({"path": "../etc"}),
            Code::InvalidArgument,
        ),
        ("library.v1.Probe/Unbound", json!({}), Code::Unimplemented),
    ] {
        let status = call(&gateway, path, &message).await.unwrap_err();
        assert_eq!(status.code(), code, "{path} {message}: {status:?}");
    }
    let (_, end) = stream(&gateway, "library.v1.Library/ImportBooks", &json!({})).await;
    assert_eq!(end.unwrap_err().code(), Code::Unimplemented);
    assert_eq!(origin.seen().len(), 0);
}

#[tokio::test]
async fn an_answer_is_a_success_only_where_it_says_so() {
    let origin = Origin::start(|seen| {
        let case = seen.line.rsplit('/').next().unwrap();
        match case {
            "html" => answer(200, "text/html", "<html>"),
            "malformed" => answer(200, "application/json", r#"{"title":"#),
            "wrong" => answer(200, "application/json", r#"{"title":7}"#),
            "status" => answer(
                409,
                "application/json",
                r#"{"code":6,"message":"it exists","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"R"}]}"#,
            ),
            "redirect" => {
                let mut response = answer(302, "", "");
                response.headers_mut().insert("location", "/elsewhere".parse().unwrap());
                response
            }
            code => answer(code.parse().unwrap(), "text/plain", "why"),
        }
    })
    .await;
    let gateway = gateway(&origin, "", "").await;
    for (case, code, said) in [
        ("html", Code::Internal, "text/html"),
        ("malformed", Code::Internal, "in the upstream's answer"),
        ("wrong", Code::Internal, "title"),
        ("status", Code::AlreadyExists, "it exists"),
        ("redirect", Code::Unknown, "/elsewhere"),
        ("404", Code::NotFound, "404"),
        ("409", Code::Aborted, "409"),
        ("418", Code::Unknown, "418"),
        ("429", Code::ResourceExhausted, "429"),
        ("503", Code::Unavailable, "503"),
    ] {
        let message = json!({"name": format!("shelves/1/books/{case}")});
        let status = call(&gateway, "library.v1.Library/GetBook", &message)
            .await
            .unwrap_err();
        assert_eq!(status.code(), code, "{case}: {status:?}");
        assert!(status.message().contains(said), "{case}: {status:?}");
        let found = details(status.details());
        match case {
            "status" => assert_eq!(found[0]["reason"], "R", "{found:?}"),
            "404" => {
                assert_eq!(
                    found[0]["@type"], "type.googleapis.com/google.api.HttpBody",
                    "{found:?}"
                );
                assert_eq!(found[0]["data"], "d2h5", "{found:?}");
            }
            _ => {}
        }
    }
    // A REST client is told the same, as an HTTP status.
    let answer = rest::once(
        gateway.address,
        request(http::Method::GET, "/v1/shelves/1/books/404", ""),
    )
    .await;
    assert!(answer.error(404, 5).contains("404"));
}

#[tokio::test]
async fn a_stream_is_read_from_lines_events_and_arrays() {
    const EVENTS: [&str; 2] = [r#"{"book":{"title":"a"}}"#, r#"{"book":{"title":"b"}}"#];
    let origin = Origin::start(|seen| {
        let [a, b] = EVENTS;
        match seen
            .line
            .split("shelves/")
            .nth(1)
            .unwrap()
            .split('/')
            .next()
            .unwrap()
        {
            "lines" => answer(200, "application/x-ndjson", format!("{a}\n{b}\n")),
            "array" => answer(200, "application/json", format!("[{a}, {b}]")),
            "events" => answer(
                200,
                "text/event-stream",
                format!("id: 0\ndata: {a}\n\ndata: {b}\n\n"),
            ),
            "nothing" => answer(200, "application/json", "[]"),
            "failing" => answer(
                200,
                "application/x-ndjson",
                format!("{a}\n{{\"error\":{{\"code\":8,\"message\":\"enough\"}}}}\n"),
            ),
            "failed" => answer(
                200,
                "text/event-stream",
                format!("data: {a}\n\nevent: error\ndata: {{\"code\":8,\"message\":\"enough\"}}\n\n"),
            ),
            "cut" => answer(200, "application/json", format!("[{a},")),
            "html" => answer(200, "text/html", "<html>"),
            other => answer(other.parse().unwrap(), "", ""),
        }
    })
    .await;
    let gateway = gateway(&origin, "", "").await;
    for (case, count, code) in [
        ("lines", 2, Code::Ok),
        ("array", 2, Code::Ok),
        ("events", 2, Code::Ok),
        ("nothing", 0, Code::Ok),
        ("failing", 1, Code::ResourceExhausted),
        ("failed", 1, Code::ResourceExhausted),
        ("cut", 1, Code::Unknown),
        ("html", 0, Code::Internal),
        ("404", 0, Code::NotFound),
    ] {
        let message = json!({"parent": format!("shelves/{case}")});
        let (messages, end) = stream(&gateway, "library.v1.Library/WatchBooks", &message).await;
        let got = end.as_ref().err().map_or(Code::Ok, Status::code);
        assert_eq!(
            (messages.len(), got),
            (count, code),
            "{case}: {messages:?} {end:?}"
        );
        for (message, expected) in messages.iter().zip(EVENTS) {
            assert_eq!(
                message,
                &serde_json::from_str::<Value>(expected).unwrap(),
                "{case}"
            );
        }
    }
    assert!(origin.last().header("accept").starts_with("application/x-ndjson"));
}

#[tokio::test]
async fn rest_clients_of_a_rest_backend_get_streams_in_their_own_framing() {
    let origin = Origin::start(|_| {
        answer(
            200,
            "application/json",
            r#"[{"result":{"book":{"title":"a"}}},{"result":{}}]"#,
        )
    })
    .await;
    let gateway = gateway(
        &origin,
        "rest: {stream_envelope: result}",
        "stream_envelope: result",
    )
    .await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let answer = client.get("/v1/shelves/1/books:watch").await;
    assert_eq!(
        answer.text(),
        "{\"result\":{\"book\":{\"title\":\"a\"}}}\n{\"result\":{}}\n"
    );
}

#[tokio::test]
async fn raw_bodies_go_both_ways() {
    let origin = Origin::start(|seen: &Seen| {
        if seen.line.starts_with("PUT") {
            answer(204, "", "")
        } else {
            answer(200, "image/png", &b"\x89PNG"[..])
        }
    })
    .await;
    let gateway = gateway(&origin, "", "").await;
    let cover = json!({"name": "shelves/1/books/7/cover"});
    let got = call(&gateway, "library.v1.Library/GetCover", &cover)
        .await
        .unwrap();
    assert_eq!(got, json!({"contentType": "image/png", "data": "iVBORw=="}));
    let cover =
        json!({"name": "shelves/1/books/7/cover", "content": {"contentType": "image/gif", "data": "+/8="}});
    call(&gateway, "library.v1.Library/SetCover", &cover)
        .await
        .unwrap();
    let seen = origin.last();
    assert_eq!(seen.body, Bytes::from_static(b"\xfb\xff"));
    assert_eq!(seen.header("content-type"), "image/gif");
    let book = json!({"name": "shelves/1/books/7"});
    let (messages, end) = stream(&gateway, "library.v1.Library/DownloadText", &book).await;
    assert_eq!(
        messages,
        [json!({"contentType": "image/png", "data": "iVBORw=="})]
    );
    assert!(end.is_ok(), "{end:?}");
}

#[tokio::test]
async fn the_deadline_is_told_where_it_is_asked_for() {
    let origin = Origin::start(|_| answer_json(&json!({}))).await;
    let gateway = gateway(&origin, "rest: {server_timeout: true, statuses: grpc_table}", "").await;
    call(
        &gateway,
        "library.v1.Library/GetBook",
        &json!({"name": "shelves/1/books/7"}),
    )
    .await
    .unwrap();
    let told = |seen: &Seen| {
        let values: Vec<_> = seen.headers.get_all("x-server-timeout").iter().collect();
        assert_eq!(values.len(), 1, "{values:?}");
        let seconds: f64 = values[0].to_str().unwrap().parse().unwrap();
        assert!((5.0..=10.0).contains(&seconds), "{seconds}");
    };
    told(&origin.last());

    // What a client says by that name does not stand beside it.
    let path = "library.v1.Library/GetBook";
    let metadata = HeaderMap::from_iter([(
        HeaderName::from_static("x-server-timeout"),
        HeaderValue::from_static("99"),
    )]);
    let (sender, started) = grpc::start(grpc::connect(gateway.address).await, path, metadata, false);
    let message = encode(&method(path).input(), &json!({"name": "shelves/1/books/7"}));
    sender.send(message).await.unwrap();
    drop(sender);
    within("the answer", started).await.unwrap().unwrap();
    told(&origin.last());
}

#[tokio::test]
async fn headers_of_the_answer_are_metadata() {
    let origin = Origin::start(|_| {
        let mut response = answer_json(&json!({}));
        let headers = response.headers_mut();
        headers.insert("x-page", "2".parse().unwrap());
        headers.insert("grpc-status", "13".parse().unwrap());
        headers.insert("broken-bin", "!".parse().unwrap());
        response
    })
    .await;
    let gateway = gateway(&origin, "", "").await;
    let method = method("library.v1.Library/GetBook");
    let message = encode(&method.input(), &json!({"name": "shelves/1/books/7"}));
    let mut body = vec![0];
    body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend_from_slice(&message);
    let answer = grpc::exchange(gateway.address, grpc::head("library.v1.Library/GetBook"), body).await;
    assert_eq!(answer.header("x-page"), "2");
    assert_eq!(answer.header("broken-bin"), "");
    assert_eq!(answer.header("grpc-status"), "");
    assert_eq!(answer.trailers["grpc-status"], "0");
}
