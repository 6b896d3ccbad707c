//! HTTP rules through the gateway: requests as they stand in `tests/data/bindings`, and the messages they become.
//!
//! A case is a comment that says what holds, a request line, headers and a body if there are any, and after `=>`
//! either the method with the messages that reach it, or the HTTP status and code of a refusal, with a word of its
//! message.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, Request};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::backends::{Backend, grpc_head, grpc_trailers, messages, raw};
use crate::support::clients::rest::{self, Answer, Rest, Version, whole};
use crate::support::framing::envelope;
use crate::support::gateway::Gateway;
use crate::support::messages::{canonical, decode, encode, message_type, method};

/// What reached the backend: the path and the messages.
type Seen = Arc<Mutex<Option<(String, Vec<Bytes>)>>>;

/// A backend that notes what it is asked, and answers with one empty message.
async fn noting() -> (Backend, Seen) {
    let seen = Seen::default();
    let notes = Arc::clone(&seen);
    let backend = raw(move |request, mut answer| {
        let notes = Arc::clone(&notes);
        async move {
            let path = request.uri().path().trim_start_matches('/').to_owned();
            let heard: Vec<Bytes> = messages(request.into_body()).map(Result::unwrap).collect().await;
            *notes.lock() = Some((path, heard));
            let mut body = answer.send_response(grpc_head(), false).unwrap();
            body.send_data(envelope(b""), false).unwrap();
            body.send_trailers(grpc_trailers("0")).unwrap();
        }
    })
    .await;
    (backend, seen)
}

/// One case of a file.
#[derive(Debug)]
struct Case {
    claim: String,
    method: Method,
    path: String,
    body: String,
    /// The line after `=>` and what follows it.
    outcome: String,
    messages: Vec<Value>,
}

/// Reads the cases of a file.
fn cases(text: &str) -> Vec<Case> {
    text.split("\n# ")
        .map(|case| {
            let (claim, rest) = case.trim_start_matches("# ").split_once('\n').unwrap();
            let (request, outcome) = rest.split_once("\n=>").unwrap();
            let request = request.trim_end();
            let (line, body) = request.split_once('\n').unwrap_or((request, ""));
            let (method, path) = line.split_once(' ').unwrap();
            let outcome = outcome.trim();
            let (outcome, expected) = outcome.split_once('\n').unwrap_or((outcome, ""));
            let expected = serde_json::Deserializer::from_str(expected)
                .into_iter()
                .map(|value| value.unwrap_or_else(|error| panic!("{claim}: {error}")))
                .collect();
            Case {
                claim: claim.to_owned(),
                method: method.parse().unwrap(),
                path: path.to_owned(),
                body: body.to_owned(),
                outcome: outcome.to_owned(),
                messages: expected,
            }
        })
        .collect()
}

/// Sends a case and compares what became of it. Gives what differs.
async fn differs(case: &Case, mut client: Rest, seen: &Seen) -> Option<String> {
    *seen.lock() = None;
    let request = rest::request(case.method.clone(), &case.path, case.body.clone());
    let answer = client.send(request).await;
    let reached = seen.lock().take();
    let mut words = case.outcome.splitn(3, ' ');
    let first = words.next().unwrap();
    if let Ok(status) = first.parse::<u16>() {
        return refused(
            status,
            words.next().unwrap(),
            words.next(),
            &answer,
            reached.map(|seen| seen.0),
        );
    }
    let Some((path, messages)) = reached else {
        return Some(format!(
            "{} and nothing reached the backend: {:?}",
            answer.status, answer.body
        ));
    };
    if path != case.outcome || answer.status != 200 {
        return Some(format!(
            "{path}, answered with {}: {:?}",
            answer.status, answer.body
        ));
    }
    let input = method(&path).input();
    let text = |messages: &mut dyn Iterator<Item = Value>| {
        messages.fold(String::new(), |mut text, message| {
            writeln!(text, "{}", canonical(&input, &message)).unwrap();
            text
        })
    };
    let expected = text(&mut case.messages.iter().cloned());
    let got = text(&mut messages.iter().map(|bytes| decode(&input, bytes)));
    (expected != got).then(|| format!("expected\n{expected}got\n{got}"))
}

/// Compares a refusal.
fn refused(
    status: u16,
    code: &str,
    word: Option<&str>,
    answer: &Answer,
    reached: Option<String>,
) -> Option<String> {
    if answer.status.as_u16() != status {
        return Some(format!(
            "{} {:?}, reached {reached:?}",
            answer.status, answer.body
        ));
    }
    if let Some(reached) = reached {
        return Some(format!("refused, and yet {reached} was called"));
    }
    let json = answer.json();
    let message = json["message"].as_str().unwrap_or_default();
    let fits = json["code"].as_i64() == code.parse().ok() && word.is_none_or(|word| message.contains(word));
    (!fits).then(|| json.to_string())
}

async fn check(text: &str) {
    let (backend, seen) = noting().await;
    let gateway = Gateway::to(backend.address).await;
    let mut wrong = Vec::new();
    for version in [Version::Http1, Version::Http2] {
        for case in cases(text) {
            // A connection each: what is malformed may end it.
            let client = Rest::connect(gateway.address, version).await;
            if let Some(difference) = differs(&case, client, &seen).await {
                wrong.push(format!(
                    "{} ({version:?})\n{} {}\n{difference}",
                    case.claim, case.method, case.path
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} wrong\n\n{}\n",
        wrong.len(),
        wrong.join("\n\n")
    );
}

#[tokio::test]
async fn paths() {
    check(include_str!("../data/bindings/path.txt")).await;
}

#[tokio::test]
async fn queries() {
    check(include_str!("../data/bindings/query.txt")).await;
}

#[tokio::test]
async fn bodies() {
    check(include_str!("../data/bindings/body.txt")).await;
}

/// A backend that answers with these messages, whatever it is asked.
async fn answering(path: &str, answers: Vec<Value>) -> Backend {
    let output = method(path).output();
    let answers: Vec<Bytes> = answers.iter().map(|answer| encode(&output, answer)).collect();
    raw(move |_, mut answer| {
        let answers = answers.clone();
        async move {
            let mut body = answer.send_response(grpc_head(), false).unwrap();
            for message in answers {
                body.send_data(envelope(&message), false).unwrap();
            }
            body.send_trailers(grpc_trailers("0")).unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn response_body_is_the_field_alone() {
    let genres = json!({"genres": [{"genre": "GENRE_NOVEL", "books": "2"}]});
    let backend = answering("library.v1.Library/ListGenres", vec![genres]).await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(
        client.get("/v1/genres").await.json(),
        json!([{"genre": "GENRE_NOVEL", "books": "2"}])
    );
    // The rpc path has no rule, so it has the whole message.
    let whole = client.post("/library.v1.Library/ListGenres", "{}").await.json();
    assert_eq!(whole, json!({"genres": [{"genre": "GENRE_NOVEL", "books": "2"}]}));
}

#[tokio::test]
async fn response_body_that_is_empty_is_an_empty_list() {
    let backend = answering("library.v1.Library/ListGenres", vec![json!({})]).await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    assert_eq!(client.get("/v1/genres").await.json(), json!([]));
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let backend = answering("library.v1.Library/GetBook", vec![json!({"title": "Dune"})]).await;
    let gateway = Gateway::to(backend.address).await;
    for version in [Version::Http1, Version::Http2] {
        let mut client = Rest::connect(gateway.address, version).await;
        let answer = client
            .send(rest::request(Method::HEAD, "/v1/shelves/1/books/7", ""))
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/json");
        assert!(answer.body.is_empty());
        // The connection is still good for the next call.
        assert_eq!(
            client.get("/v1/shelves/1/books/7").await.json(),
            json!({"title": "Dune"})
        );
    }
}

#[tokio::test]
async fn a_raw_body_goes_out_as_it_is() {
    let picture = json!({"contentType": "image/png", "data": "iVBORw0KGgo="});
    let backend = answering("library.v1.Library/GetCover", vec![picture]).await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let answer = client.get("/v1/shelves/1/books/7/cover").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("content-type")),
        (200, "image/png")
    );
    assert_eq!(&answer.body[..], b"\x89PNG\r\n\x1a\n");
}

/// Rule 38: chunks without separators, the type from the first message.
#[tokio::test]
async fn a_raw_stream_goes_out_as_it_is() {
    let chunks = vec![
        json!({"contentType": "text/plain", "data": "aGVs"}),
        json!({"data": "bG8="}),
        json!({"contentType": "image/png", "data": "IQ=="}),
    ];
    let backend = answering("library.v1.Library/DownloadText", chunks).await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let answer = client.get("/v1/shelves/1/books/7:download").await;
    assert_eq!(
        (answer.header("content-type"), answer.text()),
        ("text/plain", "hello!")
    );
}

#[tokio::test]
async fn a_raw_body_comes_in_as_it_is() {
    let (backend, seen) = noting().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    let call = Request::put("/v1/shelves/1/books/7/cover")
        .header("content-type", "image/webp")
        .body(whole(Bytes::from_static(b"\x00\xff{")))
        .unwrap();
    assert_eq!(client.send(call).await.status, 200);
    let (path, messages) = seen.lock().take().unwrap();
    assert_eq!(path, "library.v1.Library/SetCover");
    let got = decode(&message_type("library.v1.SetCoverRequest"), &messages[0]);
    let expected = json!({
        "name": "shelves/1/books/7/cover",
        "content": {"contentType": "image/webp", "data": "AP97"},
    });
    assert_eq!(got, expected);
}

/// Rule 38: an upload is cut; its type and the other fields are in the first message only.
#[tokio::test]
async fn a_raw_upload_is_cut_into_chunks() {
    const BYTES: usize = 150_000;
    let (backend, seen) = noting().await;
    let gateway = Gateway::to(backend.address).await;
    let mut client = Rest::connect(gateway.address, Version::Http2).await;
    let call = Request::post("/v1/shelves/1/books/7:upload?language=en")
        .header("content-type", "text/plain")
        .body(whole(vec![b'x'; BYTES]))
        .unwrap();
    let answer = client.send(call).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (_, messages) = seen.lock().take().unwrap();
    let input = message_type("library.v1.UploadTextRequest");
    let messages: Vec<Value> = messages.iter().map(|bytes| decode(&input, bytes)).collect();
    assert_eq!(messages[0]["name"], "shelves/1/books/7");
    assert_eq!(messages[0]["language"], "en");
    assert_eq!(messages[0]["content"]["contentType"], "text/plain");
    let mut sum = 0;
    for (at, message) in messages.iter().enumerate() {
        let data = message["content"]["data"].as_str().unwrap();
        let length = base64_simd::STANDARD.decode_to_vec(data).unwrap().len();
        assert!(length <= 64 << 10, "chunk {at} has {length} bytes");
        assert!(at == 0 || message.get("name").is_none(), "{at}");
        sum += length;
    }
    assert_eq!(sum, BYTES);
}
