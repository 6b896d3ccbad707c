//! A fault in the client's dialect: the one place per dialect where the gateway's errors are rendered.

use http::header::{
    ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, SEC_WEBSOCKET_VERSION, UPGRADE,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use crate::fault::{DOMAIN, Fault, Kind};
use crate::frontend::grpc::GRPC;
use crate::frontend::{connect, grpc_web};
use crate::status::Status;
use crate::wire::body::Body;
use crate::wire::grpc_web::{to_text, trailer_frame};
use crate::wire::websocket::handshake;
use crate::wire::{Dialect, Format, Framing, Spoken, ending};

/// The response that tells `fault` to a client that speaks so, before anything else was sent.
pub fn refuse(spoken: Spoken, fault: &Fault) -> Response<Body> {
    let mut response = match spoken.dialect {
        Dialect::Rest | Dialect::WebSocket => http(fault),
        Dialect::Grpc => grpc(fault),
        Dialect::GrpcWeb => grpc_web(spoken.format, fault),
        Dialect::Connect => connect(spoken.format, fault),
    };
    if let Some(delay) = fault.delay() {
        // Whole seconds, rounded up: a client that comes back earlier comes back too early.
        let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    for (name, value) in fault.headers() {
        response.headers_mut().insert(name, value.clone());
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

/// The same as a body: some clients can't read headers of another origin.
fn grpc_web(format: Format, fault: &Fault) -> Response<Body> {
    let mut trailers = HeaderMap::new();
    ending::put(&Status::from(fault), &mut trailers);
    let frame = trailer_frame(&trailers);
    let body = match format {
        Format::GRPC_WEB_TEXT => to_text(&frame),
        _ => frame,
    };
    let mut response = Response::new(Body::whole(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, grpc_web::content_type(format));
    response
}

/// Connect's JSON: the body of an HTTP answer, or the last message of a stream.
fn connect(format: Format, fault: &Fault) -> Response<Body> {
    let status = Status::from(fault);
    let http_status = match fault.kind() {
        // What is wrong with the HTTP request itself, HTTP says, for a stream too.
        kind @ (Kind::MethodNotAllowed
        | Kind::UnsupportedMediaType
        | Kind::UriTooLong
        | Kind::HeadersTooLarge
        | Kind::RequestTimeout) => Some(kind.http_status()),
        _ => None,
    };
    if format.framing == Framing::Connect && http_status.is_none() {
        let end = connect::end_frame(&status, HeaderMap::new(), None);
        let mut response = Response::new(Body::whole(end));
        let content_type = HeaderValue::from_static(connect::content_type(format));
        response.headers_mut().insert(CONTENT_TYPE, content_type);
        return response;
    }
    let http_status = http_status.unwrap_or_else(|| status.code.http_status());
    whole(connect::json(&status, None).text(), http_status, fault)
}

/// An HTTP status and a `google.rpc.Status` in JSON.
fn http(fault: &Fault) -> Response<Body> {
    let Some(denial) = fault.denial() else {
        return whole(json(fault).text(), fault.kind().http_status(), fault);
    };
    let mut response = whole(json(fault).text(), denial.status, fault);
    if !denial.body.is_empty() {
        response.headers_mut().remove(CONTENT_TYPE);
        *response.body_mut() = Body::whole(denial.body.clone());
    }
    let headers = response.headers_mut();
    for name in denial.headers.keys() {
        // What describes a body describes the one that is sent.
        if denial.body.is_empty() && *name == CONTENT_TYPE {
            continue;
        }
        headers.remove(name);
        for value in denial.headers.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    response
}

/// A JSON text with an HTTP status, and with what that status asks for beside it.
fn whole(text: String, status: StatusCode, fault: &Fault) -> Response<Body> {
    let mut response = Response::new(Body::whole(text.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(Ok(allow)) = fault.allow().map(HeaderValue::from_str) {
        headers.insert(ALLOW, allow);
    }
    for challenge in fault.challenges() {
        headers.append(WWW_AUTHENTICATE, challenge.clone());
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

    fn spoken(dialect: Dialect, format: Format) -> Spoken {
        Spoken { dialect, format }
    }

    #[test]
    fn a_fault_is_an_http_status_and_a_json_text_for_rest() {
        let fault = Fault::client(Kind::MethodNotAllowed, "GET is not bound here").allowing("PATCH, DELETE");
        let response = refuse(spoken(Dialect::Rest, Format::JSON), &fault);
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
        let response = refuse(spoken(Dialect::Grpc, Format::GRPC), &fault);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "busy");
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert!(response.headers().contains_key("grpc-status-details-bin"));
    }

    #[test]
    fn a_fault_is_a_trailer_frame_for_grpc_web() {
        let fault = Fault::client(Kind::Unimplemented, "no such method");
        let response = refuse(spoken(Dialect::GrpcWeb, Format::GRPC_WEB), &fault);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/grpc-web+proto");
        let frame = response.body().as_whole().unwrap();
        assert!(
            frame.starts_with(b"\x80\0\0\0") && frame[5..].starts_with(b"grpc-status: 12\r\n"),
            "{frame:?}"
        );
        let response = refuse(spoken(Dialect::GrpcWeb, Format::GRPC_WEB_TEXT), &fault);
        assert_eq!(
            response.headers()[CONTENT_TYPE],
            "application/grpc-web-text+proto"
        );
        assert_eq!(response.body().as_whole().unwrap(), to_text(&frame));
    }

    #[test]
    fn a_fault_is_connect_json_in_a_body_or_at_the_end_of_a_stream() {
        let fault = Fault::client(Kind::MessageTooLarge, "too large");
        let response = refuse(spoken(Dialect::Connect, Format::PROTO), &fault);
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let value: Value = serde_json::from_slice(&response.body().as_whole().unwrap()).unwrap();
        assert_eq!(value["code"], "resource_exhausted");

        let response = refuse(spoken(Dialect::Connect, Format::CONNECT_JSON), &fault);
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/connect+json");
        let body = response.body().as_whole().unwrap();
        assert_eq!(body[0], 2);
        let value: Value = serde_json::from_slice(&body[5..]).unwrap();
        assert_eq!(value["error"]["code"], "resource_exhausted");

        let fault = Fault::client(Kind::MethodNotAllowed, "not so").allowing("POST");
        let response = refuse(spoken(Dialect::Connect, Format::CONNECT_PROTO), &fault);
        assert_eq!(
            (response.status().as_u16(), &response.headers()[ALLOW]),
            (405, &HeaderValue::from_static("POST"))
        );
    }
}
