//! A fault in the client's dialect: the one place per dialect where the gateway's errors are rendered.

use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::fault::{DOMAIN, Fault};
use crate::frontend::grpc::GRPC;
use crate::status::Status;
use crate::wire::Dialect;
use crate::wire::body::Body;
use crate::wire::ending;
use crate::wire::websocket::handshake;

/// The response that tells `fault` to a client of `dialect`, before anything else was sent.
pub fn refuse(dialect: Dialect, fault: &Fault) -> Response<Body> {
    let mut response = match dialect {
        Dialect::Rest | Dialect::WebSocket => http(fault),
        Dialect::Grpc => grpc(fault),
    };
    if let Some(delay) = fault.delay() {
        // Whole seconds, rounded up: a client that comes back earlier comes back too early.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Trailers-only: a status in the head of an empty answer.
fn grpc(fault: &Fault) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    ending::put(&Status::from(fault), response.headers_mut());
    response
}

/// An HTTP status and a `google.rpc.Status` in JSON.
fn http(fault: &Fault) -> Response<Body> {
    let text = json(fault).text();
    let mut response = Response::new(Body::whole(text.into()));
    *response.status_mut() = fault.kind().http_status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(Ok(allow)) = fault.allow().map(HeaderValue::from_str) {
        headers.insert(ALLOW, allow);
    }
    if response.status() == StatusCode::UPGRADE_REQUIRED {
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, handshake::VERSION);
    }
    if response.status() == StatusCode::REQUEST_TIMEOUT {
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// `google.rpc.Status` in JSON, members in the order of the message.
#[derive(Debug, Serialize)]
pub struct StatusJson {
    /// The code's number.
    pub code: u8,
    /// For developers.
    pub message: String,
    /// Details as `google.protobuf.Any`.
    pub details: Vec<Value>,
}

impl StatusJson {
    /// The JSON text.
    pub fn text(&self) -> String {
        // Strings and JSON values always have a text; were it not so, the HTTP status still tells.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// A fault as `google.rpc.Status`, with the details that the gateway itself writes.
pub fn json(fault: &Fault) -> StatusJson {
    let mut details = vec![json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": fault.kind().reason(),
        "domain": DOMAIN,
    })];
    if let Some(delay) = fault.delay() {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}.{:03}s", delay.as_secs(), delay.subsec_millis()),
        }));
    }
    StatusJson {
        code: fault.kind().code().number(),
        message: fault.message().to_owned(),
        details,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::fault::Kind;

    #[test]
    fn a_fault_is_an_http_status_and_a_json_text_for_rest() {
        let fault = Fault::client(Kind::MethodNotAllowed, "GET is not bound here").allowing("PATCH, DELETE");
        let response = refuse(Dialect::Rest, &fault);
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[ALLOW], "PATCH, DELETE");
        let body = response.body().as_whole().unwrap();
        let value: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(value["code"], 12);
        assert_eq!(value["details"][0]["reason"], "METHOD_NOT_ALLOWED");
    }

    #[test]
    fn a_fault_is_a_trailers_only_answer_for_grpc() {
        let fault = Fault::gateway(Kind::Overloaded, "busy").retry_after(Duration::from_millis(1500));
        let response = refuse(Dialect::Grpc, &fault);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "busy");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert!(response.headers().contains_key("grpc-status-details-bin"));
    }
}
