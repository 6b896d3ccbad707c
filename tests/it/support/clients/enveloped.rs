//! A call whose messages travel in envelopes over plain HTTP: gRPC-Web, and the streams of Connect. Framing is written
//! here apart from the gateway's own, over hyper.

use std::net::SocketAddr;

use base64_simd::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost_reflect::MethodDescriptor;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::super::backends::{gunzip, gzip};
use super::super::framing::{self, Connect, Web};
use super::super::messages::{decode, details, encode, method};
use super::super::script::Conversation;
use super::connect;
use super::rest::{self, Rest, Version};
use super::session::{Ended, Heard, headers};

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tongue {
    Web(Web),
    Connect(Connect),
}

impl Tongue {
    fn content_type(self) -> &'static str {
        match self {
            Self::Web(Web::Binary) => "application/grpc-web+proto",
            Self::Web(Web::Text) => "application/grpc-web-text+proto",
            Self::Connect(Connect::Proto) => "application/connect+proto",
            Self::Connect(Connect::Json) => "application/connect+json",
        }
    }

    /// The headers that name the encodings of what is sent and of what is taken.
    fn encodings(self) -> [&'static str; 2] {
        match self {
            Self::Web(_) => ["grpc-encoding", "grpc-accept-encoding"],
            Self::Connect(_) => ["connect-content-encoding", "connect-accept-encoding"],
        }
    }

    /// The flag of what ends an answer.
    fn last(self) -> u8 {
        match self {
            Self::Web(_) => 0x80,
            Self::Connect(_) => 2,
        }
    }
}

/// A call under way.
pub(crate) struct EnvelopedSession {
    method: MethodDescriptor,
    tongue: Tongue,
    compressed: bool,
    /// Absent once the client has half-closed.
    requests: Option<mpsc::Sender<Bytes>>,
    started: Option<AbortOnDropHandle<hyper::Result<Response<Incoming>>>>,
    answer: Option<Incoming>,
    /// Base64 that has arrived and is no whole group yet.
    text: BytesMut,
    arrived: BytesMut,
    pub(crate) initial: HeaderMap,
    pub(crate) trailing: HeaderMap,
}

impl EnvelopedSession {
    pub(crate) async fn start(
        conversation: &Conversation,
        tongue: Tongue,
        version: Version,
        address: SocketAddr,
    ) -> Self {
        let mut head =
            Request::post(format!("/{}", conversation.path)).header("content-type", tongue.content_type());
        if conversation.compressed {
            for name in tongue.encodings() {
                head = head.header(name, "gzip");
            }
        }
        for (name, value) in &headers(conversation.headers()) {
            head = head.header(name, value);
        }
        let (requests, body) = rest::pieces();
        let mut connection = Rest::connect(address, version).await;
        let request = head.body(body).unwrap();
        let started = AbortOnDropHandle::new(tokio::spawn(async move { connection.start(request).await }));
        Self {
            method: method(conversation.path),
            tongue,
            compressed: conversation.compressed,
            requests: Some(requests),
            started: Some(started),
            answer: None,
            text: BytesMut::new(),
            arrived: BytesMut::new(),
            initial: HeaderMap::new(),
            trailing: HeaderMap::new(),
        }
    }

    pub(crate) async fn send(&self, message: &Value) {
        let payload = match self.tongue {
            Tongue::Connect(Connect::Json) => message.to_string().into(),
            _ => encode(&self.method.input(), message),
        };
        let envelope = match self.compressed {
            true => framing::flagged(1, &gzip(&payload)),
            false => framing::envelope(&payload),
        };
        let bytes = match self.tongue {
            Tongue::Web(Web::Text) => STANDARD.encode_to_string(envelope).into(),
            _ => envelope,
        };
        self.requests.as_ref().unwrap().send(bytes).await.unwrap();
    }

    pub(crate) fn half_close(&mut self) {
        self.requests = None;
    }

    pub(crate) async fn next(&mut self) -> Heard {
        if let Some(started) = self.started.take() {
            let response = started.await.unwrap().unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{response:?}");
            assert_eq!(response.headers()["content-type"], self.tongue.content_type());
            self.initial = response.headers().clone();
            self.answer = Some(response.into_body());
        }
        loop {
            if let Some((flag, payload)) = framing::open(&mut self.arrived) {
                if flag == self.tongue.last() {
                    return self.end(&payload).await;
                }
                return self.message(flag, &payload);
            }
            let frame = self.answer.as_mut().unwrap().frame().await;
            let frame = frame.expect("the answer stopped without its last frame").unwrap();
            let data = frame.into_data().expect("there are no trailers");
            self.arrive(&data);
        }
    }

    fn arrive(&mut self, data: &[u8]) {
        if self.tongue != Tongue::Web(Web::Text) {
            return self.arrived.extend_from_slice(data);
        }
        self.text.extend_from_slice(data);
        let whole = self.text.len() / 4 * 4;
        // Group by group, since each chunk has its own padding.
        for group in self.text.split_to(whole).chunks(4) {
            self.arrived
                .extend_from_slice(&STANDARD.decode_to_vec(group).unwrap());
        }
    }

    fn message(&self, flag: u8, payload: &Bytes) -> Heard {
        let payload: Bytes = match flag {
            0 => payload.clone(),
            1 => {
                assert_eq!(self.initial[self.tongue.encodings()[0]], "gzip");
                gunzip(payload).into()
            }
            flag => panic!("flag {flag}"),
        };
        Heard::Message(match self.tongue {
            Tongue::Connect(Connect::Json) => serde_json::from_slice(&payload).unwrap(),
            _ => decode(&self.method.output(), &payload),
        })
    }

    /// Checks that nothing follows the last frame, and reads it.
    async fn end(&mut self, payload: &[u8]) -> Heard {
        let rest = self.answer.take().unwrap().collect().await.unwrap();
        assert!(rest.trailers().is_none());
        assert!(
            rest.to_bytes().is_empty() && self.arrived.is_empty(),
            "something after the end"
        );
        match self.tongue {
            Tongue::Web(_) => self.trailers(std::str::from_utf8(payload).unwrap()),
            Tongue::Connect(_) => {
                let end: Value = serde_json::from_slice(payload).unwrap();
                for (name, values) in end["metadata"].as_object().into_iter().flatten() {
                    for value in values.as_array().unwrap() {
                        self.trailing.append(
                            HeaderName::try_from(name).unwrap(),
                            HeaderValue::from_str(value.as_str().unwrap()).unwrap(),
                        );
                    }
                }
                Heard::End(connect::ended(end.get("error")))
            }
        }
    }

    fn trailers(&mut self, text: &str) -> Heard {
        for line in text.split_terminator("\r\n") {
            let (name, value) = line.split_once(':').unwrap();
            assert_eq!(name, name.to_ascii_lowercase());
            self.trailing.append(
                HeaderName::try_from(name).unwrap(),
                HeaderValue::from_str(value.trim()).unwrap(),
            );
        }
        // tonic's reading of the same headers.
        let status = tonic::Status::from_header_map(&self.trailing).unwrap();
        Heard::End(Ended {
            code: status.code(),
            message: match status.code() {
                Code::Ok => String::new(),
                _ => status.message().to_owned(),
            },
            details: details(status.details()),
        })
    }
}
