//! The scripted backend that knows HTTP and JSON alone: hyper's server, JSON through prost-reflect.
//!
//! A rules file maps each method to a path of its own with the whole message as body, so that what an origin is asked
//! can be read without the gateway's bindings.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tonic::Code;

use super::super::messages::{decode, encode};
use super::super::origin::{Answering, answer, see};
use super::{Answer, End, Player, Script, append, gzip, holds};

/// The path of a method at an origin.
fn path_of(method: &str) -> String {
    format!("/calls/{method}")
}

/// The rules file that maps a method, such as `library.v1.Library/GetBook`.
pub(crate) fn rules(method: &str) -> String {
    let selector = method.replace('/', ".");
    let path = path_of(method);
    format!("http:\n  rules:\n    - {{selector: {selector}, post: \"{path}\", body: \"*\"}}\n")
}

impl Script {
    pub(super) async fn play_over_http(self, request: Request<Incoming>) -> Response<Answering> {
        let ending = self.record.begin();
        let seen = see(request).await;
        self.check_request(&seen.line, &seen.headers);
        let message = encode(&self.method.input(), &seen.json());
        let mut player = self.player(stream::iter([Ok(message)]).boxed(), ending);
        let first = player.next().await;
        let mut response = match (first, self.method.is_server_streaming()) {
            (Answer::End(end), streams) if end.code != Code::Ok || !streams => refusal(&end),
            (Answer::Message(message), false) if player.has_said_all() => {
                self.whole(&player, &message, &seen.headers)
            }
            (Answer::Message(message), false) => match player.next().await {
                Answer::End(end) if end.code == Code::Ok => self.whole(&player, &message, &seen.headers),
                Answer::End(end) => refusal(&end),
                Answer::Message(_) => panic!("the script of a unary method has one answer"),
            },
            (first, _) => lines(player, first),
        };
        append(response.headers_mut(), &self.conversation.initial);
        response
    }

    /// Checks the target and the headers of a request.
    fn check_request(&self, line: &str, headers: &HeaderMap) {
        if line != format!("POST {}", path_of(self.conversation.path)) {
            self.record.problem(format!("asked for {line}"));
        }
        for (name, value) in &self.conversation.metadata {
            if !holds(headers, name, value) {
                self.record
                    .problem(format!("metadata {name}: {value} did not arrive: {headers:?}"));
            }
        }
        for name in [
            "connection",
            "te",
            "grpc-timeout",
            "grpc-encoding",
            "grpc-accept-encoding",
        ] {
            if headers.contains_key(name) {
                self.record
                    .problem(format!("{name} belongs to the client's protocol alone"));
            }
        }
    }

    /// A unary answer.
    fn whole(&self, player: &Player, message: &Bytes, asked: &HeaderMap) -> Response<Answering> {
        let text = shown(player, message).to_string();
        let takes = |accepted: &http::HeaderValue| accepted.to_str().unwrap().contains("gzip");
        if !self.conversation.compressed || !asked.get("accept-encoding").is_some_and(takes) {
            return answer(200, "application/json", text);
        }
        let mut response = answer(200, "application/json", gzip(text.as_bytes()));
        response
            .headers_mut()
            .insert("content-encoding", http::HeaderValue::from_static("gzip"));
        response
    }
}

/// A message as JSON.
fn shown(player: &Player, message: &Bytes) -> Value {
    decode(&player.script.method.output(), message)
}

/// An end as `google.rpc.Status` in JSON.
fn status(end: &End) -> Value {
    json!({"code": end.code as i32, "message": end.message, "details": end.details})
}

/// The answer instead of a message. What it means stands in the body, so that any status of failure will do.
fn refusal(end: &End) -> Response<Answering> {
    answer(500, "application/json", status(end).to_string())
}

/// A message a line, and a last line for an end that is no success.
fn lines(player: Player, first: Answer) -> Response<Answering> {
    let body = stream::unfold((Some(first), Some(player)), |(said, player)| async move {
        let mut player = player?;
        let next = match said {
            Some(answer) => answer,
            None => player.next().await,
        };
        let (line, player) = match next {
            Answer::Message(message) => (shown(&player, &message), Some(player)),
            Answer::End(end) if end.code == Code::Ok => return None,
            Answer::End(end) => (json!({"error": status(&end)}), None),
        };
        let frame = Frame::data(Bytes::from(format!("{line}\n")));
        Some((Ok::<_, Infallible>(frame), (None, player)))
    });
    Response::builder()
        .header("content-type", "application/x-ndjson")
        .body(StreamBody::new(body).boxed_unsync())
        .unwrap()
}
