//! The calls of the soak, one for each dialect and shape, by clients that other people wrote; each knows what the answer has
//! to be to the last byte that matters.

use std::fmt::Display;
use std::net::SocketAddr;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// Messages of a stream.
const MESSAGES: i64 = 40;

/// A dialect and the shape of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    RestGet,
    RestBook,
    RestPost,
    RestStream,
    Grpc,
    GrpcOnce,
    GrpcStream,
    GrpcChat,
    GrpcWeb,
    GrpcWebStream,
    Connect,
    ConnectStream,
    WebSocketStream,
    WebSocketChat,
}

impl Kind {
    pub(crate) const ALL: [Self; 14] = [
        Self::RestGet,
        Self::RestBook,
        Self::RestPost,
        Self::RestStream,
        Self::Grpc,
        Self::GrpcOnce,
        Self::GrpcStream,
        Self::GrpcChat,
        Self::GrpcWeb,
        Self::GrpcWebStream,
        Self::Connect,
        Self::ConnectStream,
        Self::WebSocketStream,
        Self::WebSocketChat,
    ];

    /// Whether the gateway may send it again, so that its client should see nothing of a fault.
    pub(crate) fn may_be_sent_twice(self) -> bool {
        matches!(
            self,
            Self::RestGet | Self::RestBook | Self::Grpc | Self::GrpcWeb | Self::Connect
        )
    }
}

/// What became of a call.
pub(crate) enum Verdict {
    /// The answer is what it has to be.
    Right,
    /// An error that is well formed and says that the upstream was not there, or not in time.
    Failed(String),
    /// Anything else.
    Wrong(String),
}

/// Why a call has no right answer; the same as a verdict.
enum Miss {
    Failed(String),
    Wrong(String),
}

fn wrong(what: impl Display) -> Miss {
    Miss::Wrong(what.to_string())
}

/// An answer that should have been another one.
fn differs(what: &str, got: impl std::fmt::Debug) -> Miss {
    let mut text = format!("{what}: {got:?}");
    text.truncate(text.char_indices().nth(400).map_or(text.len(), |(at, _)| at));
    Miss::Wrong(text)
}

/// Whether an error may be told while upstreams fail.
fn failed(code: i64, message: impl Display) -> Miss {
    if code == i64::from(i32::from(Code::Unavailable)) || code == i64::from(i32::from(Code::DeadlineExceeded))
    {
        Miss::Failed(format!("{code} {message}"))
    } else {
        Miss::Wrong(format!("code {code}: {message}"))
    }
}

/// Of `library.v1.Sample`, what is used.
#[derive(Clone, PartialEq, prost::Message)]
struct Sample {
    #[prost(int64, tag = "4")]
    int64_value: i64,
    #[prost(string, tag = "14")]
    string_value: String,
}

/// `library.v1.Count`.
#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    #[prost(sfixed64, tag = "1")]
    number: i64,
}

/// `library.v1.FailRequest`, without a status to fail with.
#[derive(Clone, PartialEq, prost::Message)]
struct FailRequest {
    #[prost(uint32, tag = "2")]
    after: u32,
}

/// `library.v1.Remark`.
#[derive(Clone, PartialEq, prost::Message)]
struct Remark {
    #[prost(string, tag = "1")]
    room: String,
    #[prost(string, tag = "2")]
    author: String,
    #[prost(string, tag = "3")]
    text: String,
    #[prost(uint64, tag = "4")]
    number: u64,
}

type Body = Full<Bytes>;

/// A connection to the gateway.
enum Connection {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
    Grpc(Channel),
}

/// A client of one kind.
pub(crate) struct Caller {
    kind: Kind,
    address: SocketAddr,
    /// Unique among its kind.
    number: usize,
    calls: i64,
    connection: Option<Connection>,
}

impl Caller {
    pub(crate) fn new(kind: Kind, address: SocketAddr, number: usize) -> Self {
        Self {
            kind,
            address,
            number,
            calls: 0,
            connection: None,
        }
    }

    /// Connects anew the next time.
    pub(crate) fn forget(&mut self) {
        self.connection = None;
    }

    /// One call.
    pub(crate) async fn call(&mut self) -> Verdict {
        self.calls += 1;
        if self.calls % 500 == 0 {
            self.forget();
        }
        let outcome = match self.kind {
            Kind::RestGet => self.rest_get().await,
            Kind::RestBook => self.rest_book().await,
            Kind::RestPost => self.rest_post().await,
            Kind::RestStream => self.rest_stream().await,
            Kind::Grpc => self.grpc().await,
            Kind::GrpcOnce => self.grpc_once().await,
            Kind::GrpcStream => self.grpc_stream().await,
            Kind::GrpcChat => self.grpc_chat().await,
            Kind::GrpcWeb => self.grpc_web().await,
            Kind::GrpcWebStream => self.grpc_web_stream().await,
            Kind::Connect => self.connect_unary().await,
            Kind::ConnectStream => self.connect_stream().await,
            Kind::WebSocketStream => self.websocket_stream().await,
            Kind::WebSocketChat => self.websocket_chat().await,
        };
        match outcome {
            Ok(()) => Verdict::Right,
            Err(Miss::Failed(why)) => Verdict::Failed(why),
            Err(Miss::Wrong(why)) => Verdict::Wrong(why),
        }
    }

    fn word(&self) -> String {
        format!("{:?}-{}-{}", self.kind, self.number, self.calls)
    }

    async fn socket(&self) -> Result<TcpStream, Miss> {
        let socket = TcpStream::connect(self.address).await.map_err(wrong)?;
        socket.set_nodelay(true).map_err(wrong)?;
        Ok(socket)
    }

    /// Sends a request over HTTP/1.1 or, every other client, HTTP/2.
    async fn send(&mut self, mut request: Request<Body>) -> Result<Response<Incoming>, Miss> {
        if self.connection.is_none() {
            let io = TokioIo::new(self.socket().await?);
            self.connection = Some(if self.number.is_multiple_of(2) {
                let (sender, connection) = http1::handshake(io).await.map_err(wrong)?;
                tokio::spawn(connection);
                Connection::Http1(sender)
            } else {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.map_err(wrong)?;
                tokio::spawn(connection);
                Connection::Http2(sender)
            });
        }
        match &mut self.connection {
            Some(Connection::Http1(sender)) => {
                let host = self.address.to_string().parse().map_err(wrong)?;
                request.headers_mut().insert("host", host);
                sender.ready().await.map_err(wrong)?;
                sender.send_request(request).await.map_err(wrong)
            }
            Some(Connection::Http2(sender)) => {
                let uri = format!("http://{}{}", self.address, request.uri());
                *request.uri_mut() = uri.parse().map_err(wrong)?;
                sender.ready().await.map_err(wrong)?;
                sender.send_request(request).await.map_err(wrong)
            }
            Some(Connection::Grpc(_)) | None => Err(wrong("no connection")),
        }
    }

    /// Sends a request and waits for all of the answer.
    async fn ask(&mut self, request: Request<Body>) -> Result<(http::response::Parts, Bytes), Miss> {
        let (head, body) = self.send(request).await?.into_parts();
        let body = body.collect().await.map_err(wrong)?.to_bytes();
        Ok((head, body))
    }

    /// The same for REST: JSON, or an error.
    async fn rest(&mut self, request: Request<Body>) -> Result<Value, Miss> {
        let (head, body) = self.ask(request).await?;
        let json: Value =
            serde_json::from_slice(&body).map_err(|error| differs(&error.to_string(), &body))?;
        if head.status == StatusCode::OK {
            return Ok(json);
        }
        let code = json["code"].as_i64().unwrap_or(-1);
        let fits = matches!(head.status.as_u16(), 502..=504);
        match failed(code, &json["message"]) {
            Miss::Failed(why) if fits => Err(Miss::Failed(why)),
            _ => Err(differs("status", (head.status, json))),
        }
    }

    async fn rest_get(&mut self) -> Result<(), Miss> {
        let word = self.word();
        let path = format!("/v1/probe:echo?stringValue={word}&int64Value={}", self.calls);
        let told = self.rest(get(&path)?).await?;
        let due = json!({"stringValue": word, "int64Value": self.calls.to_string()});
        if told == due {
            Ok(())
        } else {
            Err(differs("echo", told))
        }
    }

    async fn rest_book(&mut self) -> Result<(), Miss> {
        let told = self.rest(get("/v1/shelves/1/books/7")?).await?;
        let is_it = told["name"] == "shelves/1/books/7" && told["title"].is_string();
        if is_it {
            Ok(())
        } else {
            Err(differs("a book", told))
        }
    }

    async fn rest_post(&mut self) -> Result<(), Miss> {
        let due = json!({"number": self.calls.to_string()});
        let request = post("/library.v1.Probe/Unbound", "application/json", due.to_string())?;
        let told = self.rest(request).await?;
        if told == due {
            Ok(())
        } else {
            Err(differs("a count", told))
        }
    }

    async fn rest_stream(&mut self) -> Result<(), Miss> {
        let (head, body) = self
            .ask(get(&format!("/v1/probe:failLater?after={MESSAGES}"))?)
            .await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if head.status != StatusCode::OK {
            let json: Value = serde_json::from_str(&text).map_err(wrong)?;
            return Err(failed(json["code"].as_i64().unwrap_or(-1), &json["message"]));
        }
        let mut counted = 0;
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).map_err(wrong)?;
            if let Some(error) = line.get("error") {
                return Err(failed(error["code"].as_i64().unwrap_or(-1), &error["message"]));
            }
            counted += 1;
            if line != json!({"number": counted.to_string()}) {
                return Err(differs("a stream out of order", text));
            }
        }
        whole(counted)
    }

    async fn channel(&mut self) -> Result<tonic::client::Grpc<Channel>, Miss> {
        let channel = match &self.connection {
            Some(Connection::Grpc(channel)) => channel.clone(),
            _ => {
                let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).map_err(wrong)?;
                let channel = endpoint.connect().await.map_err(wrong)?;
                self.connection = Some(Connection::Grpc(channel.clone()));
                channel
            }
        };
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.map_err(wrong)?;
        Ok(client)
    }

    async fn grpc(&mut self) -> Result<(), Miss> {
        let sample = Sample {
            int64_value: self.calls,
            string_value: self.word(),
        };
        let path = http::uri::PathAndQuery::from_static("/library.v1.Probe/Echo");
        let request = tonic::Request::new(sample.clone());
        let codec = ProstCodec::<Sample, Sample>::default();
        let told = self.channel().await?.unary(request, path, codec).await;
        let told = told.map_err(|status| status_of(&status))?.into_inner();
        if told == sample {
            Ok(())
        } else {
            Err(differs("echo", told))
        }
    }

    async fn grpc_once(&mut self) -> Result<(), Miss> {
        let count = Count { number: self.calls };
        let path = http::uri::PathAndQuery::from_static("/library.v1.Probe/Unbound");
        let codec = ProstCodec::<Count, Count>::default();
        let told = self
            .channel()
            .await?
            .unary(tonic::Request::new(count.clone()), path, codec)
            .await;
        let told = told.map_err(|status| status_of(&status))?.into_inner();
        if told == count {
            Ok(())
        } else {
            Err(differs("a count", told))
        }
    }

    async fn grpc_stream(&mut self) -> Result<(), Miss> {
        let path = http::uri::PathAndQuery::from_static("/library.v1.Probe/FailLater");
        let request = tonic::Request::new(FailRequest { after: 40 });
        let codec = ProstCodec::<FailRequest, Count>::default();
        let told = self.channel().await?.server_streaming(request, path, codec).await;
        let mut told = told.map_err(|status| status_of(&status))?.into_inner();
        let mut counted = 0;
        while let Some(count) = told.message().await.map_err(|status| status_of(&status))? {
            counted += 1;
            if count.number != counted {
                return Err(differs("a stream out of order", count));
            }
        }
        whole(counted)
    }

    async fn grpc_chat(&mut self) -> Result<(), Miss> {
        let room = self.word();
        let remark = |text: u64| Remark {
            room: room.clone(),
            author: "soak".to_owned(),
            text: text.to_string(),
            number: 0,
        };
        let remarks: Vec<Remark> = (1..=5).map(remark).collect();
        let path = http::uri::PathAndQuery::from_static("/library.v1.ReadingRoom/Chat");
        let codec = ProstCodec::<Remark, Remark>::default();
        let said = tonic::Request::new(stream::iter(remarks));
        let told = self.channel().await?.streaming(said, path, codec).await;
        let mut told = told.map_err(|status| status_of(&status))?.into_inner();
        let mut heard = 0;
        while let Some(remark) = told.message().await.map_err(|status| status_of(&status))? {
            heard += 1;
            if remark.number != heard || remark.text != heard.to_string() || remark.room != room {
                return Err(differs("a remark", remark));
            }
        }
        if heard == 5 {
            Ok(())
        } else {
            Err(differs("remarks", heard))
        }
    }

    /// The messages of an answer in envelopes, and what ends it.
    async fn enveloped(
        &mut self,
        path: &str,
        content_type: &str,
        message: &[u8],
    ) -> Result<(Vec<Bytes>, Option<Bytes>, http::response::Parts), Miss> {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).map_err(wrong)?);
        body.put_slice(message);
        let mut request = post(path, content_type, body.freeze())?;
        let version = http::HeaderValue::from_static("1");
        request.headers_mut().insert("connect-protocol-version", version);
        let (head, mut body) = self.ask(request).await?;
        let (mut messages, mut end) = (Vec::new(), None);
        while body.has_remaining() {
            if body.len() < 5 || end.is_some() {
                return Err(differs("an envelope", body));
            }
            let flag = body.get_u8();
            let length = usize::try_from(body.get_u32()).map_err(wrong)?;
            if length > body.len() {
                return Err(differs("half an envelope", body));
            }
            let payload = body.split_to(length);
            match flag {
                0 => messages.push(payload),
                2 | 0x80 => end = Some(payload),
                _ => return Err(differs("a flag", flag)),
            }
        }
        Ok((messages, end, head))
    }

    async fn web(&mut self, path: &str, message: &[u8]) -> Result<Vec<Bytes>, Miss> {
        let (messages, end, head) = self
            .enveloped(path, "application/grpc-web+proto", message)
            .await?;
        let trailers = end
            .map(|end| String::from_utf8_lossy(&end).into_owned())
            .unwrap_or_default();
        let trailing = trailers
            .lines()
            .find_map(|line| line.strip_prefix("grpc-status:"));
        let leading = head
            .headers
            .get("grpc-status")
            .and_then(|status| status.to_str().ok());
        let status = trailing.or(leading).ok_or_else(|| differs("no status", &head))?;
        match status.trim().parse::<i64>().map_err(wrong)? {
            0 => Ok(messages),
            code => Err(failed(code, trailers)),
        }
    }

    async fn grpc_web(&mut self) -> Result<(), Miss> {
        let sample = Sample {
            int64_value: self.calls,
            string_value: self.word(),
        };
        let told = self
            .web("/library.v1.Probe/Echo", &sample.encode_to_vec())
            .await?;
        match told.as_slice() {
            [message] if *message == sample.encode_to_vec() => Ok(()),
            _ => Err(differs("echo", told)),
        }
    }

    async fn grpc_web_stream(&mut self) -> Result<(), Miss> {
        let request = FailRequest { after: 40 }.encode_to_vec();
        let told = self.web("/library.v1.Probe/FailLater", &request).await?;
        let mut counted = 0;
        for message in told {
            counted += 1;
            if Count::decode(message).map_err(wrong)?.number != counted {
                return Err(wrong("a stream out of order"));
            }
        }
        whole(counted)
    }

    async fn connect_unary(&mut self) -> Result<(), Miss> {
        let due = json!({"stringValue": self.word(), "int64Value": self.calls.to_string()});
        let mut request = post("/library.v1.Probe/Echo", "application/json", due.to_string())?;
        let version = http::HeaderValue::from_static("1");
        request.headers_mut().insert("connect-protocol-version", version);
        let (head, body) = self.ask(request).await?;
        let told: Value =
            serde_json::from_slice(&body).map_err(|error| differs(&error.to_string(), &body))?;
        if head.status == StatusCode::OK {
            return if told == due {
                Ok(())
            } else {
                Err(differs("echo", told))
            };
        }
        Err(named(&told))
    }

    async fn connect_stream(&mut self) -> Result<(), Miss> {
        let request = json!({"after": MESSAGES}).to_string();
        let path = "/library.v1.Probe/FailLater";
        let (messages, end, _) = self
            .enveloped(path, "application/connect+json", request.as_bytes())
            .await?;
        let end = end.ok_or_else(|| wrong("no end of the stream"))?;
        let end: Value = serde_json::from_slice(&end).map_err(wrong)?;
        if let Some(error) = end.get("error") {
            return Err(named(error));
        }
        let mut counted = 0;
        for message in messages {
            counted += 1;
            let message: Value = serde_json::from_slice(&message).map_err(wrong)?;
            if message != json!({"number": counted.to_string()}) {
                return Err(differs("a stream out of order", message));
            }
        }
        whole(counted)
    }

    async fn open(&self, path: &str) -> Result<WebSocketStream<MaybeTlsStream<TcpStream>>, Miss> {
        let url = format!("ws://{}{path}", self.address);
        let mut request = url.into_client_request().map_err(wrong)?;
        let protocol = http::HeaderValue::from_static("sabir.v1.json");
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let socket = MaybeTlsStream::Plain(self.socket().await?);
        let opened = tokio_tungstenite::client_async(request, socket).await;
        opened.map(|(socket, _)| socket).map_err(wrong)
    }

    async fn websocket_stream(&self) -> Result<(), Miss> {
        let mut socket = self
            .open(&format!("/v1/probe:failLater?after={MESSAGES}"))
            .await?;
        let mut counted = 0;
        let end = loop {
            match hear(&mut socket).await? {
                Said::Message(message) => {
                    counted += 1;
                    if message != json!({"number": counted.to_string()}) {
                        return Err(differs("a stream out of order", message));
                    }
                }
                Said::End(end) => break end,
            }
        };
        closed(socket, end).await?;
        whole(counted)
    }

    async fn websocket_chat(&self) -> Result<(), Miss> {
        let room = self.word();
        let mut socket = self.open(&format!("/v1/rooms/{room}:chat")).await?;
        for number in 1..=5 {
            let text = format!("remark {number}");
            say(&mut socket, &json!({"author": "soak", "text": text})).await?;
            match hear(&mut socket).await? {
                Said::Message(remark) => {
                    if remark["text"] != json!(text) || remark["number"] != json!(number.to_string()) {
                        return Err(differs("a remark", remark));
                    }
                }
                Said::End(end) => {
                    return Err(closed(socket, end)
                        .await
                        .err()
                        .unwrap_or_else(|| wrong("an early end")));
                }
            }
        }
        say(&mut socket, &json!({"$end": {}})).await?;
        match hear(&mut socket).await? {
            Said::End(end) => closed(socket, end).await,
            Said::Message(more) => Err(differs("one remark too many", more)),
        }
    }
}

/// What a WebSocket says.
enum Said {
    Message(Value),
    /// The last status.
    End(Value),
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn say(socket: &mut Socket, value: &Value) -> Result<(), Miss> {
    match socket.send(Message::text(value.to_string())).await {
        Ok(()) => Ok(()),
        // It was closed meanwhile: what it said last is still to be heard.
        Err(error) => match hear(socket).await {
            Ok(Said::End(end)) => Err(ended(&end).err().unwrap_or_else(|| wrong(error))),
            Ok(Said::Message(_)) | Err(_) => Err(wrong(error)),
        },
    }
}

async fn hear(socket: &mut Socket) -> Result<Said, Miss> {
    loop {
        let frame = socket
            .next()
            .await
            .ok_or_else(|| wrong("the socket ended without a word"))?;
        let Message::Text(text) = frame.map_err(wrong)? else {
            continue;
        };
        let value: Value = serde_json::from_str(&text).map_err(wrong)?;
        if let Some(status) = value.get("$status") {
            return Ok(Said::End(status.clone()));
        }
        if value.get("$headers").is_none() {
            return Ok(Said::Message(value));
        }
    }
}

fn ended(status: &Value) -> Result<(), Miss> {
    match status["code"].as_i64() {
        Some(0) => Ok(()),
        code => Err(failed(code.unwrap_or(-1), &status["message"])),
    }
}

/// After the status comes the close, with the code that goes with it.
async fn closed(mut socket: Socket, status: Value) -> Result<(), Miss> {
    let due = match status["code"].as_i64() {
        Some(0) => 1000,
        code => 4000 + code.unwrap_or(-1),
    };
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(close)))) if i64::from(u16::from(close.code)) == due => {
                return ended(&status);
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            other => return Err(differs("a close", other)),
        }
    }
}

/// Whether a stream had all of its messages.
fn whole(counted: i64) -> Result<(), Miss> {
    if counted == MESSAGES {
        return Ok(());
    }
    Err(differs("a stream that ended well, and early", counted))
}

fn get(path: &str) -> Result<Request<Body>, Miss> {
    Request::get(path).body(Body::default()).map_err(wrong)
}

fn post(path: &str, content_type: &str, body: impl Into<Bytes>) -> Result<Request<Body>, Miss> {
    let request = Request::post(path).header("content-type", content_type);
    request.body(Body::new(body.into())).map_err(wrong)
}

/// What a gRPC status says. One that the client made itself means that the gateway went away.
fn status_of(status: &Status) -> Miss {
    if std::error::Error::source(status).is_some() {
        return Miss::Wrong(format!("the connection to the gateway broke: {status:?}"));
    }
    failed(i64::from(i32::from(status.code())), status.message())
}

/// An error of Connect, which has its code by name.
fn named(error: &Value) -> Miss {
    match error["code"].as_str() {
        Some("unavailable" | "deadline_exceeded") => Miss::Failed(error.to_string()),
        _ => Miss::Wrong(error.to_string()),
    }
}
