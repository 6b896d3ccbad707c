//! HTTP over hyper: one connection, either version, bodies whole or piece by piece.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::super::within;

/// Which HTTP to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// A body to send.
pub(crate) type Sending = UnsyncBoxBody<Bytes, Infallible>;

/// A connection to the gateway.
#[derive(Debug)]
pub(crate) enum Rest {
    Http1(http1::SendRequest<Sending>),
    Http2(http2::SendRequest<Sending>),
}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// A header as text, empty if it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// `grpc-status`, wherever it stands.
    pub(crate) fn grpc_status(&self) -> Option<&str> {
        let status = self.trailers.get("grpc-status");
        let status = status.or_else(|| self.headers.get("grpc-status"));
        status.map(|status| status.to_str().unwrap())
    }

    /// Whether the call ended with this, in whatever way its dialect tells it: the status of HTTP, the number of gRPC in
    /// headers, trailers or a frame of gRPC-Web, binary or text, or the word of Connect.
    pub(crate) fn tells(&self, status: u16, number: u8, word: &str) -> bool {
        let text = String::from_utf8_lossy(&self.body);
        let decoded = base64_simd::STANDARD.decode_to_vec(&self.body);
        let decoded = decoded.unwrap_or_default();
        let framed = format!("grpc-status: {number}\r\n");
        self.status == status
            || self.grpc_status() == Some(&number.to_string())
            || text.contains(&framed)
            || String::from_utf8_lossy(&decoded).contains(&framed)
            || text.contains(&format!("\"{word}\""))
    }

    /// Checks that this is an error in the form that every error has, and gives its message.
    #[track_caller]
    pub(crate) fn error(&self, status: u16, code: i32) -> String {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        let json = self.json();
        assert_eq!(json["code"], code, "{json}");
        json["message"].as_str().unwrap().to_owned()
    }

    /// The reason that the gateway gives for an error of its own.
    #[track_caller]
    pub(crate) fn reason(&self) -> String {
        let json = self.json();
        let info = json["details"].as_array().into_iter().flatten().find(|detail| {
            detail["@type"] == "type.googleapis.com/google.rpc.ErrorInfo" && detail["domain"] == "sabir"
        });
        info.unwrap_or_else(|| panic!("no reason of the gateway in {json}"))["reason"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

impl Rest {
    pub(crate) async fn connect(address: SocketAddr, version: Version) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self::over(socket, version).await
    }

    /// Speaks HTTP over any stream, a TLS session for one.
    pub(crate) async fn over(
        io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        version: Version,
    ) -> Self {
        let io = TokioIo::new(io);
        match version {
            Version::Http1 => {
                let (sender, connection) = http1::handshake(io).await.unwrap();
                // A connection that breaks is seen by the call on it.
                tokio::spawn(async move { drop(connection.await) });
                Self::Http1(sender)
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
                tokio::spawn(async move { drop(connection.await) });
                Self::Http2(sender)
            }
        }
    }

    /// Sends a request and gives the head of the answer.
    pub(crate) async fn start(&mut self, mut request: Request<Sending>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                if !request.headers().contains_key("host") {
                    let host = request
                        .uri()
                        .authority()
                        .map_or("localhost", |authority| authority.as_str())
                        .parse();
                    request.headers_mut().insert("host", host.unwrap());
                }
                let path = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
                *request.uri_mut() = path;
                sender.send_request(request).await
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                if request.uri().authority().is_none() {
                    let uri = format!("http://localhost{}", request.uri());
                    *request.uri_mut() = uri.parse().unwrap();
                }
                sender.send_request(request).await
            }
        }
    }

    /// Sends a request and waits for all of the answer.
    pub(crate) async fn send(&mut self, request: Request<Sending>) -> Answer {
        within("the answer", async {
            let response = self.start(request).await.unwrap();
            collect(response).await
        })
        .await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(request(Method::GET, path, "")).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: impl ToString) -> Answer {
        self.send(request(Method::POST, path, body.to_string())).await
    }
}

/// One request on a connection of its own.
pub(crate) async fn once(address: SocketAddr, request: Request<Sending>) -> Answer {
    Rest::connect(address, Version::Http1).await.send(request).await
}

/// A request with a JSON body, or none where it is empty.
pub(crate) fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Sending> {
    let body = body.into();
    let mut request = Request::builder().method(method).uri(path);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    request.body(whole(body)).unwrap()
}

pub(crate) fn whole(body: impl Into<Bytes>) -> Sending {
    Full::new(body.into()).boxed_unsync()
}

/// A body that is sent piece by piece; dropping the sender ends it.
pub(crate) fn pieces() -> (mpsc::Sender<Bytes>, Sending) {
    let (sender, receiver) = mpsc::channel(16);
    let frames = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Bytes>| async move {
        let piece = receiver.recv().await?;
        Some((Ok(Frame::data(piece)), receiver))
    });
    (sender, StreamBody::new(frames).boxed_unsync())
}

/// The whole answer, with its trailers.
pub(crate) async fn collect(response: Response<Incoming>) -> Answer {
    let (head, mut incoming) = response.into_parts();
    let (mut body, mut trailers) = (BytesMut::new(), HeaderMap::new());
    while let Some(frame) = incoming.frame().await {
        match frame.unwrap().into_data() {
            Ok(data) => body.extend_from_slice(&data),
            Err(frame) => trailers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    Answer {
        status: head.status,
        headers: head.headers,
        body: body.freeze(),
        trailers,
    }
}
