//! Options of a route: what they change, and that nothing else changes.

use std::path::Path;
use std::process::Command;

use http::Method;
use serde_json::{Value, json};

use crate::support::backends::{Backend, library};
use crate::support::clients::rest::{Rest, Version, request};
use crate::support::gateway::{Gateway, Settings};

/// The example service behind a route with these options.
async fn with(options: &[&str]) -> (Rest, Gateway, Backend) {
    let backend = library().await;
    let mut settings = Settings::to(backend.address);
    for option in options {
        settings = settings.route(option);
    }
    let gateway = Gateway::start(&settings).await;
    let client = Rest::connect(gateway.address, Version::Http1).await;
    (client, gateway, backend)
}

#[tokio::test]
async fn json_is_written_as_the_route_says() {
    for (options, expected) in [
        (
            "{}",
            json!({"int64Value": "5", "genre": "GENRE_POETRY", "otherName": "x"}),
        ),
        (
            "{proto_names: true}",
            json!({"int64_value": "5", "genre": "GENRE_POETRY", "renamed": "x"}),
        ),
        (
            "{enums_as_ints: true, int64_as_numbers: true}",
            json!({"int64Value": 5, "genre": 3, "otherName": "x"}),
        ),
    ] {
        let (mut client, _gateway, _backend) = with(&[&format!("json: {options}")]).await;
        let sent = json!({"int64_value": 5, "genre": "GENRE_POETRY", "otherName": "x"});
        assert_eq!(
            client.post("/v1/probe:echo", sent).await.json(),
            expected,
            "{options}"
        );
    }
}

#[tokio::test]
async fn defaults_are_written_where_asked_for() {
    let (mut client, _gateway, _backend) = with(&["json: {emit_defaults: true}"]).await;
    let reply = client.get("/v1/shelves/3/books").await.json();
    assert_eq!(reply, json!({"books": [], "nextPageToken": "", "totalSize": "0"}));
    let book = client.get("/v1/shelves/1/books/7").await.json();
    assert_eq!(
        (&book["tags"][0], &book["isbn"]),
        (&json!("desert"), &json!("9780441172719"))
    );
    // A field with presence that is not set is not a default.
    assert!(book.get("subtitle").is_none_or(Value::is_null), "{book}");
}

#[tokio::test]
async fn json_is_read_as_the_route_says() {
    let (mut client, _gateway, _backend) =
        with(&["json: {unknown_fields: reject, case_insensitive_enums: true}"]).await;
    let refused = client
        .post("/v1/probe:echo", json!({"nested": {"noSuchField": 1}}))
        .await;
    assert!(refused.error(400, 3).contains("noSuchField"), "{refused:?}");
    let answer = client
        .post("/v1/probe:echo", json!({"genre": "genre_poetry"}))
        .await;
    assert_eq!(answer.json(), json!({"genre": "GENRE_POETRY"}));
}

#[tokio::test]
async fn unknown_parameters_pass_where_the_route_says() {
    for (option, page_sze, other) in [
        ("ignore", 200, 200),
        ("[page_sze]", 200, 400),
        ("reject", 400, 400),
    ] {
        let (mut client, _gateway, _backend) = with(&[&format!("query: {{unknown: {option}}}")]).await;
        assert_eq!(
            client.get("/v1/books?page_sze=1").await.status.as_u16(),
            page_sze,
            "{option}"
        );
        assert_eq!(
            client.get("/v1/books?other=1").await.status.as_u16(),
            other,
            "{option}"
        );
    }
}

/// Rule 12: ignored is not believed: the path still has the last word.
#[tokio::test]
async fn a_field_of_the_path_is_ignored_elsewhere_where_the_route_says() {
    let (mut client, _gateway, _backend) = with(&["path_owned: ignore"]).await;
    let answer = client.get("/v1/shelves/1/books?parent=shelves/2").await;
    assert!(answer.text().contains("\"Dune\""), "{answer:?}");
    let moved = json!({"name": "shelves/2/books/1", "shelf": "shelves/3"});
    let answer = client.post("/v1/shelves/1/books/7:move", moved).await;
    assert_eq!(answer.json()["name"], "shelves/3/books/7");
}

/// Rule 9.
#[tokio::test]
async fn a_slash_at_the_end_is_ignored_where_the_route_says() {
    let (mut client, _gateway, _backend) = with(&["trailing_slash: ignore"]).await;
    assert_eq!(client.get("/v1/genres/").await.status, 200);
    assert_eq!(client.get("/v1/genres").await.status, 200);
}

/// Rule 34: `Accept` chooses, and the route where it does not.
#[tokio::test]
async fn a_stream_is_framed_as_the_route_says_where_the_client_does_not() {
    for (option, media_type) in [
        ("ndjson", "application/x-ndjson"),
        ("array", "application/json"),
        ("sse", "text/event-stream"),
    ] {
        let (mut client, _gateway, _backend) = with(&[&format!("streaming: {option}")]).await;
        let answer = client.get("/v1/shelves/1/books:watch").await;
        assert!(
            answer.header("content-type").starts_with(media_type),
            "{option}: {answer:?}"
        );
        let mut chosen = request(Method::GET, "/v1/shelves/1/books:watch", "");
        chosen
            .headers_mut()
            .insert("accept", "application/json".parse().unwrap());
        let answer = client.send(chosen).await;
        assert_eq!(answer.json().as_array().unwrap().len(), 4, "{option}");
    }
}

#[tokio::test]
async fn a_route_answers_for_its_hosts() {
    let (mut client, _gateway, _backend) = with(&["hosts: [api.test, \"*.books.test\"]"]).await;
    for (host, status) in [
        ("api.test", 200),
        ("API.test:8080", 200),
        ("eu.books.test", 200),
        ("books.test", 404),
        ("other.test", 404),
    ] {
        let mut call = request(Method::GET, "/v1/genres", "");
        call.headers_mut().insert("host", host.parse().unwrap());
        assert_eq!(client.send(call).await.status.as_u16(), status, "{host}");
    }
}

/// A route's limit of a message is the route's alone.
#[tokio::test]
async fn a_route_has_limits_of_its_own() {
    let (mut client, _gateway, _backend) = with(&["limits: {max_message_bytes: 100}"]).await;
    for (bytes, status) in [(99, 200), (100, 200), (101, 413)] {
        let body = format!("{{\"word\":\"{}\"}}", "x".repeat(bytes - "{\"word\":\"\"}".len()));
        assert_eq!(
            client.post("/v1/probe:echo", body).await.status.as_u16(),
            status,
            "{bytes}"
        );
    }
}

/// A configuration that is wrong is refused with the place of every mistake, and the exit code of wrong usage.
#[test]
fn mistakes_are_told_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sabir.yaml");
    std::fs::write(
        &file,
        "backends:\n  library:\n    protocol: grpc\n    endpoints: [http://127.0.0.1:1]\n    retrys: 1\n\
         routes:\n  - services: [\"*\"]\n    backend: libary\n",
    )
    .unwrap();
    for command in [&["check"][..], &["serve", "--config"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_sabir"))
            .args(command)
            .arg(&file)
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        for word in [
            "sabir.yaml:5:5",
            "retrys",
            "sabir.yaml:8:14",
            "did you mean \"library\"?",
        ] {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
    }
}
