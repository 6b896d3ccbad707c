//! One call from the client's side, whatever the client speaks: send, half-close, hear.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use prost_reflect::MethodDescriptor;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

use super::super::backends::{gunzip, gzip, holds};
use super::super::framing::{Item, Reader, Stream};
use super::super::messages::{decode, details, encode, method};
use super::super::script::{Conversation, Frontend};
use super::connect::ConnectSession;
use super::enveloped::{EnvelopedSession, Tongue};
use super::grpc::{self, Started};
use super::rest::{self, Rest, Version};
use super::websocket::WebSocketSession;

/// What a client hears.
#[derive(Clone, Debug)]
pub(crate) enum Heard {
    Message(Value),
    End(Ended),
}

/// The end of a call, as the client sees it.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) details: Vec<Value>,
}

/// A call under way.
pub(crate) enum Session {
    Rest(Box<RestSession>),
    Enveloped(Box<EnvelopedSession>),
    Connect(Box<ConnectSession>),
    Grpc(Box<GrpcSession>),
    WebSocket(Box<WebSocketSession>),
}

impl Session {
    pub(crate) async fn start(conversation: &Conversation, frontend: Frontend, address: SocketAddr) -> Self {
        match frontend {
            Frontend::Rest(version, framing) => Self::Rest(Box::new(
                RestSession::start(conversation, version, framing, address).await,
            )),
            Frontend::WebSocket(version, subprotocol) => Self::WebSocket(Box::new(
                WebSocketSession::start(conversation, subprotocol, version, address).await,
            )),
            Frontend::Web(version, form) => {
                let tongue = Tongue::Web(form);
                let session = EnvelopedSession::start(conversation, tongue, version, address).await;
                Self::Enveloped(Box::new(session))
            }
            Frontend::Connect(version, codec) if is_unary(conversation) => Self::Connect(Box::new(
                ConnectSession::start(conversation, codec, version, address).await,
            )),
            Frontend::Connect(version, codec) => {
                let tongue = Tongue::Connect(codec);
                let session = EnvelopedSession::start(conversation, tongue, version, address).await;
                Self::Enveloped(Box::new(session))
            }
            Frontend::Grpc | Frontend::Nothing => {
                Self::Grpc(Box::new(GrpcSession::start(conversation, address).await))
            }
        }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        match self {
            Self::Rest(session) => session.send(message).await,
            Self::Enveloped(session) => session.send(message).await,
            Self::Connect(session) => session.send(message),
            Self::Grpc(session) => session.send(message).await,
            Self::WebSocket(session) => session.send(message).await,
        }
    }

    /// The code with which the gateway ends a call by itself. Statuses of HTTP and codes of closing sockets are its own
    /// choice then.
    pub(crate) async fn refused(&mut self) -> Code {
        match self {
            Self::Rest(session) => session.own_words = true,
            Self::WebSocket(session) => session.own_words = true,
            Self::Enveloped(_) | Self::Connect(_) | Self::Grpc(_) => {}
        }
        match self.next().await {
            Heard::End(end) => end.code,
            Heard::Message(message) => panic!("a message instead of the refusal: {message}"),
        }
    }

    pub(crate) async fn half_close(&mut self) {
        match self {
            Self::Rest(session) => session.half_close().await,
            Self::Enveloped(session) => session.half_close(),
            // The request is sent as a whole.
            Self::Connect(_) => {}
            Self::Grpc(session) => session.requests = None,
            Self::WebSocket(session) => session.half_close().await,
        }
    }

    pub(crate) async fn next(&mut self) -> Heard {
        match self {
            Self::Rest(session) => session.next().await,
            Self::Enveloped(session) => session.next().await,
            Self::Connect(session) => session.next().await,
            Self::Grpc(session) => session.next().await,
            Self::WebSocket(session) => session.next().await,
        }
    }

    /// Checks that the answer's metadata arrived.
    pub(crate) fn has_heard_metadata(&self, conversation: &Conversation) {
        let (initial, trailing, trailer_prefix) = match self {
            // A unary answer is whole before its head is written, so its trailers are headers.
            Self::Rest(session) if !session.method.is_server_streaming() => {
                (&session.initial, &session.initial, "trailer-")
            }
            // What comes after a stream is lost to those who can't read trailers.
            Self::Rest(session) => (&session.initial, &session.trailing, ""),
            Self::Enveloped(session) => (&session.initial, &session.trailing, ""),
            Self::Connect(session) => (&session.initial, &session.initial, "trailer-"),
            Self::Grpc(session) => (&session.initial, &session.trailing, ""),
            Self::WebSocket(session) => (&session.initial, &session.trailing, ""),
        };
        for (name, value) in &conversation.initial {
            assert!(
                holds(initial, name, value),
                "{name}: {value} is not in {initial:?}"
            );
        }
        if let Self::Rest(session) = self
            && session.method.is_server_streaming()
        {
            return;
        }
        for (name, value) in &conversation.trailing {
            let name = format!("{trailer_prefix}{name}");
            assert!(
                holds(trailing, &name, value),
                "{name}: {value} is not in {trailing:?}"
            );
        }
    }
}

fn is_unary(conversation: &Conversation) -> bool {
    let method = method(conversation.path);
    !method.is_client_streaming() && !method.is_server_streaming()
}

pub(crate) fn headers<'a>(pairs: impl Iterator<Item = &'a (&'static str, &'static str)>) -> HeaderMap {
    pairs
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect()
}

/// A call by gRPC, over tonic.
pub(crate) struct GrpcSession {
    method: MethodDescriptor,
    /// Absent once the client has half-closed.
    requests: Option<mpsc::Sender<Bytes>>,
    started: Option<Started>,
    answers: Option<Streaming<Bytes>>,
    initial: HeaderMap,
    trailing: HeaderMap,
}

impl GrpcSession {
    async fn start(conversation: &Conversation, address: SocketAddr) -> Self {
        let channel = grpc::connect(address).await;
        let (requests, started) = grpc::start(
            channel,
            conversation.path,
            headers(conversation.headers()),
            conversation.compressed,
        );
        Self {
            method: method(conversation.path),
            requests: Some(requests),
            started: Some(started),
            answers: None,
            initial: HeaderMap::new(),
            trailing: HeaderMap::new(),
        }
    }

    async fn send(&self, message: &Value) {
        let bytes = encode(&self.method.input(), message);
        self.requests.as_ref().unwrap().send(bytes).await.unwrap();
    }

    async fn next(&mut self) -> Heard {
        if let Some(started) = self.started.take() {
            match started.await.unwrap() {
                Ok(response) => {
                    self.initial = response.metadata().clone().into_headers();
                    self.answers = Some(response.into_inner());
                }
                Err(status) => return self.end(&status),
            }
        }
        let answers = self.answers.as_mut().unwrap();
        match answers.message().await {
            Ok(Some(bytes)) => Heard::Message(decode(&self.method.output(), &bytes)),
            Ok(None) => {
                if let Some(trailers) = answers.trailers().await.unwrap() {
                    self.trailing = trailers.into_headers();
                }
                self.end(&Status::ok(""))
            }
            Err(status) => self.end(&status),
        }
    }

    fn end(&mut self, status: &Status) -> Heard {
        if status.code() != Code::Ok {
            self.trailing = status.metadata().clone().into_headers();
            // A trailers-only answer has one header section, which is both.
            if self.initial.is_empty() {
                self.initial = self.trailing.clone();
            }
        }
        Heard::End(Ended {
            code: status.code(),
            message: status.message().to_owned(),
            details: details(status.details()),
        })
    }
}

/// A call by REST, on the rpc path.
pub(crate) struct RestSession {
    method: MethodDescriptor,
    framing: Stream,
    /// Taken by the request: a call is all that it carries.
    connection: Option<Rest>,
    head: http::request::Builder,
    /// How a stream of requests is written.
    requests: Requests,
    compressed: bool,
    /// Whether the gateway ends this call by itself.
    own_words: bool,
    answer: Answering,
    initial: HeaderMap,
    trailing: HeaderMap,
}

/// What the client sends.
enum Requests {
    /// One message, kept until it is known to be the last.
    One(Option<Bytes>),
    /// Many, as they come.
    Many {
        pieces: Option<mpsc::Sender<Bytes>>,
        style: Style,
        sent: usize,
    },
}

/// How messages follow each other in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Lines,
    Array,
    /// One value after the other, with a space between.
    Concatenated,
}

/// Where the answer stands.
enum Answering {
    NotAsked,
    Waiting(AbortOnDropHandle<hyper::Result<Response<Incoming>>>),
    Stream {
        body: Incoming,
        reader: Reader,
        broken: bool,
    },
    /// A unary answer whose message has been heard.
    Over,
}

impl RestSession {
    async fn start(
        conversation: &Conversation,
        version: Version,
        framing: Stream,
        address: SocketAddr,
    ) -> Self {
        let method = method(conversation.path);
        let mut head = Request::post(format!("/{}", conversation.path))
            .header("content-type", "application/json")
            .header("accept", framing.media_type());
        if version == Version::Http1 {
            head = head.header("te", "trailers");
        }
        if conversation.compressed && !method.is_server_streaming() {
            head = head.header("accept-encoding", "gzip");
        }
        for (name, value) in conversation.headers() {
            head = head.header(*name, *value);
        }
        let mut session = Self {
            requests: Requests::One(None),
            method,
            framing,
            connection: Some(Rest::connect(address, version).await),
            head,
            compressed: conversation.compressed,
            own_words: false,
            answer: Answering::NotAsked,
            initial: HeaderMap::new(),
            trailing: HeaderMap::new(),
        };
        if session.method.is_client_streaming() {
            let (pieces, body) = rest::pieces();
            session.ask(body);
            session.requests = Requests::Many {
                pieces: Some(pieces),
                style: match framing {
                    Stream::Ndjson => Style::Lines,
                    Stream::Sse => Style::Concatenated,
                    Stream::Array => Style::Array,
                },
                sent: 0,
            };
        }
        session
    }

    /// Sends the request's head, with this body to follow.
    fn ask(&mut self, body: rest::Sending) {
        let request = std::mem::take(&mut self.head).body(body).unwrap();
        let mut connection = self.connection.take().unwrap();
        self.answer = Answering::Waiting(AbortOnDropHandle::new(tokio::spawn(async move {
            connection.start(request).await
        })));
    }

    async fn send(&mut self, message: &Value) {
        let text = message.to_string();
        match &mut self.requests {
            Requests::One(one) => *one = Some(text.into()),
            Requests::Many { pieces, style, sent } => {
                let text = match style {
                    Style::Lines => format!("{text}\n"),
                    Style::Concatenated => format!("{text} "),
                    Style::Array if *sent == 0 => format!("[{text}"),
                    Style::Array => format!(",{text}"),
                };
                *sent += 1;
                pieces.as_ref().unwrap().send(text.into()).await.unwrap();
            }
        }
    }

    async fn half_close(&mut self) {
        match &mut self.requests {
            Requests::One(one) => {
                let mut body = one.take().unwrap_or_default();
                if self.compressed {
                    body = gzip(&body).into();
                    self.head = std::mem::take(&mut self.head).header("content-encoding", "gzip");
                }
                self.ask(rest::whole(body));
            }
            Requests::Many { pieces, style, sent } => {
                let last = match style {
                    Style::Array if *sent == 0 => "[]",
                    Style::Array => "]",
                    Style::Lines | Style::Concatenated => "",
                };
                if let Some(pieces) = pieces.take()
                    && !last.is_empty()
                {
                    pieces.send(last.into()).await.unwrap();
                }
            }
        }
    }

    async fn next(&mut self) -> Heard {
        if let Answering::Waiting(started) = &mut self.answer {
            let response = started.await.unwrap().unwrap();
            self.initial = response.headers().clone();
            if response.status() != StatusCode::OK {
                return self.refused(response).await;
            }
            if !self.method.is_server_streaming() {
                return self.whole(response).await;
            }
            let media_type = response.headers().get("content-type").unwrap().to_str().unwrap();
            assert_eq!(media_type.split(';').next(), Some(self.framing.media_type()));
            assert!(
                holds_word(response.headers(), "vary", "accept"),
                "{:?}",
                response.headers()
            );
            self.answer = Answering::Stream {
                body: response.into_body(),
                reader: Reader::new(self.framing),
                broken: false,
            };
        }
        match &mut self.answer {
            Answering::Stream { body, reader, broken } => loop {
                if let Some(item) = reader.next() {
                    match item {
                        Item::Message(message) => {
                            assert!(!*broken, "a message after the error");
                            return Heard::Message(message);
                        }
                        Item::Error(status) => {
                            *broken = true;
                            let end = ended(&status);
                            // The body has to end after it, and the trailers have to agree.
                            let rest = body.collect().await.unwrap();
                            if let Some(trailers) = rest.trailers() {
                                let code = trailers.get("grpc-status").unwrap().to_str().unwrap();
                                assert_eq!(code.parse::<i32>().unwrap(), end.code as i32);
                            }
                            reader.push(&rest.to_bytes());
                            assert!(reader.next().is_none(), "something after the error");
                            reader.finish();
                            self.answer = Answering::Over;
                            return Heard::End(end);
                        }
                    }
                }
                match body.frame().await {
                    Some(frame) => match frame.unwrap().into_data() {
                        Ok(data) => reader.push(&data),
                        Err(frame) => self.trailing.extend(frame.into_trailers().unwrap_or_default()),
                    },
                    None => {
                        reader.finish();
                        self.answer = Answering::Over;
                        return ok();
                    }
                }
            },
            Answering::Over => ok(),
            Answering::NotAsked | Answering::Waiting(_) => panic!("nothing was asked"),
        }
    }

    /// A unary answer.
    async fn whole(&mut self, response: Response<Incoming>) -> Heard {
        let answer = rest::collect(response).await;
        let body = match answer.header("content-encoding") {
            "gzip" => gunzip(&answer.body).into(),
            encoding => {
                assert_eq!(encoding, "");
                answer.body.clone()
            }
        };
        assert_eq!(answer.header("content-type"), "application/json");
        for name in [
            "grpc-status",
            "grpc-message",
            "grpc-encoding",
            "grpc-accept-encoding",
        ] {
            assert!(!answer.headers.contains_key(name), "{name} is gRPC's own");
        }
        self.answer = Answering::Over;
        Heard::Message(serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}")))
    }

    /// An answer that is an error.
    async fn refused(&mut self, response: Response<Incoming>) -> Heard {
        let answer = rest::collect(response).await;
        assert_eq!(answer.header("content-type"), "application/json", "{answer:?}");
        let end = ended(&answer.json());
        if !self.own_words {
            assert_eq!(answer.status.as_u16(), http_status(end.code), "{answer:?}");
        }
        self.answer = Answering::Over;
        Heard::End(end)
    }
}

fn ok() -> Heard {
    Heard::End(Ended {
        code: Code::Ok,
        message: String::new(),
        details: Vec::new(),
    })
}

/// A `google.rpc.Status` in JSON.
pub(crate) fn ended(status: &Value) -> Ended {
    let members: BTreeMap<&str, &Value> = status
        .as_object()
        .unwrap()
        .iter()
        .map(|(k, v)| (k.as_str(), v))
        .collect();
    let code = members["code"]
        .as_i64()
        .unwrap_or_else(|| panic!("no code in {status}"));
    Ended {
        code: Code::from_i32(i32::try_from(code).unwrap()),
        message: members
            .get("message")
            .and_then(|m| m.as_str())
            .unwrap_or_default()
            .to_owned(),
        details: members
            .get("details")
            .and_then(|d| d.as_array())
            .cloned()
            .unwrap_or_default(),
    }
}

/// The HTTP status of a code: rule 40.
pub(crate) fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
    }
}

/// Whether a header that is a list of words has this one.
pub(crate) fn holds_word(headers: &HeaderMap, name: &str, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|held| held.trim().eq_ignore_ascii_case(word))
}
