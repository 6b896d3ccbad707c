//! A unary call of Connect, over hyper; its streams are in `enveloped`.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request};
use prost_reflect::MethodDescriptor;
use serde_json::Value;
use tonic::Code;

use super::super::backends::{gunzip, gzip};
use super::super::framing::Connect;
use super::super::messages::{decode, encode, message_type, method};
use super::super::script::Conversation;
use super::rest::{Rest, Version, whole};
use super::session::{Ended, Heard, headers, http_status};

/// A unary call under way.
pub(crate) struct ConnectSession {
    method: MethodDescriptor,
    codec: Connect,
    compressed: bool,
    head: http::request::Builder,
    connection: Rest,
    message: Option<Bytes>,
    is_over: bool,
    pub(crate) initial: HeaderMap,
}

impl ConnectSession {
    pub(crate) async fn start(
        conversation: &Conversation,
        codec: Connect,
        version: Version,
        address: SocketAddr,
    ) -> Self {
        let mut head = Request::post(format!("/{}", conversation.path))
            .header("connect-protocol-version", "1")
            .header("content-type", content_type(codec));
        if conversation.compressed {
            head = head
                .header("content-encoding", "gzip")
                .header("accept-encoding", "gzip");
        }
        for (name, value) in &headers(conversation.headers()) {
            head = head.header(name, value);
        }
        Self {
            method: method(conversation.path),
            codec,
            compressed: conversation.compressed,
            head,
            connection: Rest::connect(address, version).await,
            message: None,
            is_over: false,
            initial: HeaderMap::new(),
        }
    }

    pub(crate) fn send(&mut self, message: &Value) {
        let payload = match self.codec {
            Connect::Proto => encode(&self.method.input(), message),
            Connect::Json => message.to_string().into(),
        };
        self.message = Some(match self.compressed {
            true => gzip(&payload).into(),
            false => payload,
        });
    }

    pub(crate) async fn next(&mut self) -> Heard {
        if self.is_over {
            return Heard::End(ended(None));
        }
        self.is_over = true;
        let body = self.message.take().unwrap();
        let request = std::mem::take(&mut self.head).body(whole(body)).unwrap();
        let answer = self.connection.send(request).await;
        self.initial = answer.headers.clone();
        if answer.status != 200 {
            assert_eq!(answer.header("content-type"), "application/json");
            let end = ended(Some(&answer.json()));
            assert_eq!(answer.status.as_u16(), http_status(end.code));
            return Heard::End(end);
        }
        assert_eq!(answer.header("content-type"), content_type(self.codec));
        let body: Bytes = match answer.header("content-encoding") {
            "gzip" => gunzip(&answer.body).into(),
            encoding => {
                assert_eq!(encoding, "");
                answer.body.clone()
            }
        };
        Heard::Message(match self.codec {
            Connect::Proto => decode(&self.method.output(), &body),
            Connect::Json => serde_json::from_slice(&body).unwrap(),
        })
    }
}

pub(crate) fn content_type(codec: Connect) -> &'static str {
    match codec {
        Connect::Proto => "application/proto",
        Connect::Json => "application/json",
    }
}

/// What an error of Connect says; without one the call went well.
pub(crate) fn ended(error: Option<&Value>) -> Ended {
    let Some(error) = error else {
        return Ended {
            code: Code::Ok,
            message: String::new(),
            details: Vec::new(),
        };
    };
    let name = error["code"].as_str().unwrap();
    let code = (1..=16)
        .map(Code::from_i32)
        .find(|code| name_of(*code) == name)
        .unwrap_or_else(|| panic!("no code is {name:?}"));
    let details = error["details"].as_array().into_iter().flatten();
    Ended {
        code,
        message: error["message"].as_str().unwrap_or_default().to_owned(),
        details: details.map(any).collect(),
    }
}

/// The name of a code: that of its variant, in snake case, but for one that Connect writes as Americans do.
fn name_of(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name.replace("cancelled", "canceled")
}

/// A detail as the JSON of a `google.protobuf.Any`. What it says for people is the same as its bytes.
fn any(detail: &Value) -> Value {
    let name = detail["type"].as_str().unwrap();
    let value = detail["value"].as_str().unwrap();
    let bytes = base64_simd::STANDARD_NO_PAD.decode_to_vec(value).unwrap();
    let mut any = decode(&message_type(name), &bytes);
    if let Some(debug) = detail.get("debug") {
        assert_eq!(*debug, any, "{name}");
    }
    let object = any.as_object_mut().unwrap();
    object.insert("@type".to_owned(), format!("type.googleapis.com/{name}").into());
    any
}
