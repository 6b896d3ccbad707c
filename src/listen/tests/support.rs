//! A listener with a small handler behind it, and clients that speak bytes.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};

use crate::fault::{Fault, Kind, Side};
use crate::limits::Limits;
use crate::listen::{Connections, Drain, Settings, Sockets, serve};
use crate::peer::Peer;
use crate::wire::body::Body;
use crate::wire::received::Received;

/// Longer than anything here takes; a test that waits this long has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What the handler does and sees, for tests to wait on.
#[derive(Debug)]
pub(super) struct Stage {
    /// Lets calls to `/wait` go on.
    pub(super) go: Notify,
    /// Hears `begun` and `dropped` from calls that do not end.
    heard: mpsc::Sender<&'static str>,
}

pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    pub(super) drain: Drain,
    pub(super) settings: Arc<Settings>,
    pub(super) stage: Arc<Stage>,
    pub(super) served: tokio::task::JoinHandle<std::io::Result<()>>,
    heard: mpsc::Receiver<&'static str>,
}

impl Gateway {
    pub(super) fn new(limits: Limits) -> Self {
        Self::with(Settings::new(limits, refuse))
    }

    pub(super) fn with(settings: Settings) -> Self {
        let mut sockets = Sockets::bind((Ipv4Addr::LOCALHOST, 0).into(), 1).unwrap();
        let (sender, heard) = mpsc::channel(64);
        let stage = Arc::new(Stage {
            go: Notify::new(),
            heard: sender,
        });
        let drain = Drain::new(settings.limits.drain_timeout);
        let settings = Arc::new(settings);
        let served = tokio::spawn(serve(
            sockets.take(0).remove(0),
            tokio::sync::watch::channel(Arc::clone(&settings)).1,
            Connections::new(&settings.limits),
            drain.clone(),
            {
                let stage = Arc::clone(&stage);
                move |request, peer| handle(Arc::clone(&stage), request, peer)
            },
        ));
        Self {
            address: sockets.address(),
            drain,
            settings,
            stage,
            served,
            heard,
        }
    }

    pub(super) async fn client(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// The next thing that the handler tells.
    pub(super) async fn hear(&mut self) -> &'static str {
        tokio::time::timeout(PATIENCE, self.heard.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

/// A JSON text for everybody; that gRPC clients get another form is not the listener's business.
pub(super) fn refuse(_: &http::request::Parts, fault: &Fault) -> Response<Body> {
    let text = format!(
        "{{\"reason\":\"{}\",\"message\":{:?}}}",
        fault.kind().reason(),
        fault.message()
    );
    let mut response = Response::new(Body::whole(text.into()));
    *response.status_mut() = fault.kind().http_status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(allow) = fault.allow() {
        headers.insert(ALLOW, HeaderValue::from_str(allow).unwrap());
    }
    if let Some(delay) = fault.delay() {
        headers.insert(RETRY_AFTER, HeaderValue::from(delay.as_secs()));
    }
    response
}

async fn handle(stage: Arc<Stage>, request: Request<Received>, peer: Peer) -> Response<Body> {
    match request.uri().path() {
        "/echo" => Response::new(Body::incoming(request.into_body(), Side::Client)),
        "/count" => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            text(format!("{} bytes", body.len()))
        }
        "/wait" => {
            stage.heard.try_send("begun").unwrap();
            stage.go.notified().await;
            text("waited")
        }
        "/hang" => {
            let _guard = Told(&stage);
            stage.heard.try_send("begun").unwrap();
            std::future::pending().await
        }
        "/stream" => {
            let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
            stage.heard.try_send("begun").unwrap();
            let stage = Arc::clone(&stage);
            tokio::spawn(async move {
                while sender.send(Bytes::from_static(&[b'x'; 16 << 10])).await.is_ok() {}
                stage.heard.try_send("dropped").unwrap();
            });
            let frames = futures_util::stream::poll_fn(move |cx| {
                let next = receiver.poll_recv(cx);
                next.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            });
            Response::new(Body::stream(StreamBody::new(frames)))
        }
        "/panic" => panic!("on purpose"),
        "/panic-body" => {
            let frames =
                futures_util::stream::poll_fn(|_| -> std::task::Poll<Option<Result<Frame<Bytes>, Fault>>> {
                    panic!("on purpose")
                });
            Response::new(Body::stream(StreamBody::new(frames)))
        }
        "/fail-body" => {
            let fault = Fault::gateway(Kind::Internal, "on purpose");
            Response::new(Body::stream(StreamBody::new(futures_util::stream::iter([
                Ok(Frame::data(Bytes::from_static(b"some"))),
                Err(fault),
            ]))))
        }
        "/large" => text("x".repeat(4096)),
        "/late-end" => {
            // Its last byte goes out before anybody knows that it is the last frame.
            let (sender, mut receiver) = mpsc::channel::<Bytes>(1);
            sender.try_send(Bytes::from_static(b"late")).unwrap();
            tokio::spawn(async move {
                stage.go.notified().await;
                drop(sender);
            });
            let frames = futures_util::stream::poll_fn(move |cx| {
                let next = receiver.poll_recv(cx);
                next.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
            });
            let mut response = Response::new(Body::stream(StreamBody::new(frames)));
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from_static("4"));
            response
        }
        "/early" => {
            let body = request.into_body();
            // Whoever read it has not let go of it yet.
            tokio::spawn(async move {
                stage.go.notified().await;
                drop(body);
            });
            text("early")
        }
        "/peer" => text(format!(
            "{} secure={} trusted={} certificates={}",
            peer.ip(),
            peer.secure(),
            peer.trusted(),
            peer.certificates().len()
        )),
        path => text(path.to_owned()),
    }
}

fn text(text: impl Into<String>) -> Response<Body> {
    Response::new(Body::whole(text.into().into()))
}

/// Tells that a call was dropped.
struct Told<'a>(&'a Stage);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        self.0.heard.try_send("dropped").unwrap();
    }
}

/// A client that says bytes and hears bytes.
pub(super) struct Client(pub(super) TcpStream);

impl Client {
    pub(super) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// One answer that is framed by its length: status, headers, body.
    pub(super) async fn answer(&mut self) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            let byte = tokio::time::timeout(PATIENCE, self.0.read_u8())
                .await
                .unwrap()
                .unwrap_or_else(|error| panic!("{error} after {head:?}"));
            head.push(char::from(byte));
        }
        let mut answer = Answer::of_head(&head);
        let length = answer
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// All that comes until the gateway closes.
    pub(super) async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest))
            .await
            .expect("the connection should be closed")
            .unwrap();
        String::from_utf8(rest).unwrap()
    }

    /// Reads until `end` has come.
    pub(super) async fn until(&mut self, end: &str) -> String {
        let mut seen = String::new();
        while !seen.ends_with(end) {
            let byte = tokio::time::timeout(PATIENCE, self.0.read_u8())
                .await
                .unwrap_or_else(|_| panic!("waited for {end:?}, have {seen:?}"))
                .unwrap();
            seen.push(char::from(byte));
        }
        seen
    }
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    fn of_head(head: &str) -> Self {
        Self {
            status: head[9..12].parse().unwrap(),
            head: head.to_owned(),
            body: String::new(),
        }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(super) fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}
