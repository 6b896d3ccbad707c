//! WebSockets over tokio-tungstenite: by upgrade in HTTP/1.1, and over hyper by extended CONNECT in HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::SEC_WEBSOCKET_PROTOCOL;
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_reflect::MethodDescriptor;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tonic::Code;

use super::super::messages::{decode, details, encode, method};
use super::super::script::Conversation;
use super::super::within;
use super::rest::Version;
use super::session::{Heard, ended};

/// What is below a WebSocket.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open WebSocket.
pub(crate) struct Client {
    pub(crate) socket: WebSocketStream<Box<dyn Io>>,
    /// The answer to the handshake.
    pub(crate) head: Response<()>,
    version: Version,
}

/// A handshake, as it is before it is sent.
pub(crate) fn handshake(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Request<()> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    for (name, value) in headers {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    request
}

/// Large enough for every answer of a test.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(64 << 20))
        .max_frame_size(Some(64 << 20))
}

impl Client {
    /// Opens a WebSocket by upgrade, or says how that was refused.
    pub(crate) async fn ask(
        address: SocketAddr,
        request: Request<()>,
    ) -> Result<Self, Response<Option<Vec<u8>>>> {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream: Box<dyn Io> = Box::new(stream);
        let opened = tokio_tungstenite::client_async_with_config(request, stream, Some(config()));
        match within("the handshake", opened).await {
            Ok((socket, head)) => Ok(Self {
                socket,
                head: head.map(|_| ()),
                version: Version::Http1,
            }),
            Err(Error::Http(response)) => Err(*response),
            Err(error) => panic!("the handshake failed: {error}"),
        }
    }

    /// Opens a WebSocket that speaks one of these subprotocols.
    pub(crate) async fn open(address: SocketAddr, path: &str, protocols: &str) -> Self {
        Self::with(address, path, protocols, &[]).await
    }

    /// The same with more headers.
    pub(crate) async fn with(
        address: SocketAddr,
        path: &str,
        protocols: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let mut request = handshake(address, path, headers);
        if !protocols.is_empty() {
            request
                .headers_mut()
                .insert(SEC_WEBSOCKET_PROTOCOL, protocols.parse().unwrap());
        }
        match Self::ask(address, request).await {
            Ok(client) => client,
            Err(response) => panic!("the handshake was refused: {response:?}"),
        }
    }

    /// Opens a WebSocket by extended CONNECT.
    pub(crate) async fn connect(
        address: SocketAddr,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self, Response<hyper::body::Incoming>> {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        // The server's settings say that it takes extended CONNECT; hyper refuses to send it before they came.
        let mut request = Request::connect(format!("http://{address}{path}"))
            .extension(Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        sender.ready().await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let mut response = within("the answer", sender.send_request(request)).await.unwrap();
        if response.status() != 200 {
            return Err(response);
        }
        let upgraded = hyper::upgrade::on(&mut response).await.unwrap();
        // The connection ends with its last sender.
        let stream: Box<dyn Io> = Box::new(Kept(TokioIo::new(upgraded), sender));
        let socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config())).await;
        Ok(Self {
            socket,
            head: response.map(|_| ()),
            version: Version::Http2,
        })
    }

    pub(crate) async fn send(&mut self, message: Message) {
        within("room for a message", self.socket.send(message))
            .await
            .unwrap();
    }

    pub(crate) async fn say(&mut self, value: &Value) {
        self.send(Message::text(value.to_string())).await;
    }

    /// The next frame that is no pong.
    pub(crate) async fn next(&mut self) -> Message {
        loop {
            match within("a frame", self.socket.next()).await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return message,
                other => panic!("the connection ended: {other:?}"),
            }
        }
    }

    /// The next frame as JSON.
    pub(crate) async fn hear(&mut self) -> Value {
        match self.next().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// The code of the status, which may come after headers.
    pub(crate) async fn status(&mut self) -> i64 {
        loop {
            let frame = self.hear().await;
            if let Some(status) = frame.get("$status") {
                return status["code"].as_i64().unwrap();
            }
            assert!(
                frame.get("$headers").is_some(),
                "a message before the status: {frame}"
            );
        }
    }

    /// The code and the reason of the close frame, which has to be next, and then the end of the connection.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        let close = match self.next().await {
            Message::Close(Some(close)) => (u16::from(close.code), close.reason.to_string()),
            other => panic!("no close frame: {other:?}"),
        };
        match within("the end of the connection", self.socket.next()).await {
            None => {}
            // A stream of HTTP/2 that is ended before its client has sent all is reset without an error.
            Some(Err(Error::Io(_))) if self.version == Version::Http2 => {}
            other => panic!("something after the close frame: {other:?}"),
        }
        close
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.head
            .headers()
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// A stream that keeps what it needs.
struct Kept<S, K>(S, K);

impl<S: AsyncRead + Unpin, K: Unpin> AsyncRead for Kept<S, K> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, K: Unpin> AsyncWrite for Kept<S, K> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Which subprotocol a conversation is held in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subprotocol {
    SabirJson,
    SabirProto,
}

/// A call by WebSocket, on the rpc path.
pub(crate) struct WebSocketSession {
    method: MethodDescriptor,
    subprotocol: Subprotocol,
    client: Client,
    /// Headers frames so far.
    headers: usize,
    /// Whether the gateway ends this call by itself.
    pub(crate) own_words: bool,
    pub(crate) initial: HeaderMap,
    pub(crate) trailing: HeaderMap,
}

impl WebSocketSession {
    pub(crate) async fn start(
        conversation: &Conversation,
        subprotocol: Subprotocol,
        version: Version,
        address: SocketAddr,
    ) -> Self {
        let name = match subprotocol {
            Subprotocol::SabirJson => "sabir.v1.json",
            Subprotocol::SabirProto => "sabir.v1.proto",
        };
        let path = format!("/{}", conversation.path);
        let mut client = match version {
            Version::Http1 => Client::open(address, &path, name).await,
            Version::Http2 => {
                let headers = [("sec-websocket-protocol", name)];
                let opened = Client::connect(address, &path, &headers).await;
                opened.unwrap_or_else(|response| panic!("the handshake was refused: {response:?}"))
            }
        };
        assert_eq!(client.header("sec-websocket-protocol"), name);
        // Metadata goes with the first frame, as from a browser, which can't set headers.
        match subprotocol {
            Subprotocol::SabirJson => {
                let mut metadata = serde_json::Map::new();
                for (name, value) in &conversation.metadata {
                    let values = metadata.entry(*name).or_insert(json!([]));
                    values.as_array_mut().unwrap().push(json!(value));
                }
                let mut open = json!({"metadata": metadata});
                if !conversation.own.is_empty() {
                    open["timeout"] = json!("1s");
                }
                client.say(&json!({"$open": open})).await;
            }
            Subprotocol::SabirProto => {
                let mut frame = vec![2];
                for (name, value) in conversation.headers() {
                    let mut entry = vec![0x0a, name.len() as u8];
                    entry.extend(name.as_bytes());
                    entry.extend([0x12, value.len() as u8]);
                    entry.extend(value.as_bytes());
                    frame.extend([0x0a, entry.len() as u8]);
                    frame.extend(entry);
                }
                client.send(Message::binary(frame)).await;
            }
        }
        Self {
            method: method(conversation.path),
            subprotocol,
            client,
            headers: 0,
            own_words: false,
            initial: HeaderMap::new(),
            trailing: HeaderMap::new(),
        }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        match self.subprotocol {
            Subprotocol::SabirJson => self.client.say(message).await,
            Subprotocol::SabirProto => {
                let mut frame = vec![0];
                frame.extend(encode(&self.method.input(), message));
                self.client.send(Message::binary(frame)).await;
            }
        }
    }

    pub(crate) async fn half_close(&mut self) {
        match self.subprotocol {
            Subprotocol::SabirJson => self.client.say(&json!({"$end": {}})).await,
            Subprotocol::SabirProto => self.client.send(Message::binary(vec![1])).await,
        }
    }

    pub(crate) async fn next(&mut self) -> Heard {
        loop {
            let heard = match self.subprotocol {
                Subprotocol::SabirJson => self.next_json().await,
                Subprotocol::SabirProto => self.next_proto().await,
            };
            let Some(heard) = heard else { continue };
            if let Heard::End(end) = &heard {
                let (code, reason) = self.client.closed().await;
                let expected = match end.code {
                    Code::Ok => 1000,
                    Code::ResourceExhausted if self.own_words && code == 1009 => 1009,
                    code => 4000 + code as u16,
                };
                assert_eq!(code, expected);
                assert!(end.message.starts_with(&reason), "{reason:?}");
            }
            return heard;
        }
    }

    async fn next_json(&mut self) -> Option<Heard> {
        let value = self.client.hear().await;
        if let Some(headers) = value.get("$headers") {
            self.initial = from_json(headers);
            return None;
        }
        if let Some(status) = value.get("$status") {
            self.trailing = from_json(&status["trailers"]);
            return Some(Heard::End(ended(status)));
        }
        Some(Heard::Message(value))
    }

    async fn next_proto(&mut self) -> Option<Heard> {
        let frame = match self.client.next().await {
            Message::Binary(frame) => frame,
            other => panic!("no binary frame: {other:?}"),
        };
        let (kind, payload) = frame.split_first().unwrap();
        match kind {
            0 => Some(Heard::Message(decode(&self.method.output(), payload))),
            3 => {
                self.headers += 1;
                let headers = from_block(payload);
                if self.headers == 1 {
                    self.initial = headers;
                } else {
                    self.trailing = headers;
                }
                None
            }
            4 => {
                assert!(self.headers > 0, "headers come before the status");
                let status = decode(
                    &super::super::messages::message_type("google.rpc.Status"),
                    payload,
                );
                let mut status = json!({
                    "code": status.get("code").cloned().unwrap_or_else(|| json!(0)),
                    "message": status.get("message").cloned().unwrap_or_else(|| json!("")),
                });
                status["details"] = Value::Array(details(payload));
                Some(Heard::End(ended(&status)))
            }
            kind => panic!("a frame of kind {kind}"),
        }
    }
}

/// Metadata in JSON.
fn from_json(value: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in value.as_object().unwrap() {
        let values = match value {
            Value::Array(values) => values.clone(),
            one => vec![one.clone()],
        };
        for value in values {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            headers.append(name, value.as_str().unwrap().parse().unwrap());
        }
    }
    headers
}

/// Metadata as a block: entries of a name and a value, all shorter than 128 bytes.
fn from_block(mut block: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let field = |bytes: &mut &[u8], tag: u8| {
        assert_eq!(bytes[0], tag);
        let length = usize::from(bytes[1]);
        let value = bytes[2..2 + length].to_vec();
        *bytes = &bytes[2 + length..];
        value
    };
    while !block.is_empty() {
        let entry = field(&mut block, 0x0a);
        let mut entry = &entry[..];
        let name = field(&mut entry, 0x0a);
        let value = field(&mut entry, 0x12);
        headers.append(
            http::HeaderName::from_bytes(&name).unwrap(),
            http::HeaderValue::from_bytes(&value).unwrap(),
        );
    }
    headers
}
