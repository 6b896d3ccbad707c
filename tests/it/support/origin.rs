//! HTTP origins for the gateway: hyper's server, and bare sockets that answer what no server would.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A body to answer with.
pub(crate) type Answering = UnsyncBoxBody<Bytes, Infallible>;

/// A request as the origin saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Such as `GET /v1/books?page=2`.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// A header as text, empty if it is absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON; null if there is none.
    pub(crate) fn json(&self) -> Value {
        if self.body.is_empty() {
            return Value::Null;
        }
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An origin that listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// HTTP/1.1 that answers each request by `answer`, once all of it is there.
    pub(crate) async fn start<F>(answer: F) -> Self
    where
        F: Fn(&Seen) -> Response<Answering> + Send + Sync + 'static,
    {
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = Arc::clone(&seen);
        let answer = Arc::new(answer);
        let mut origin = Self::serve(false, move |request| {
            let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
            async move {
                let seen = see(request).await;
                let response = answer(&seen);
                log.lock().push(seen);
                response
            }
        })
        .await;
        origin.seen = seen;
        origin
    }

    /// HTTP/1.1, or HTTP/2 without TLS, that answers each request as it comes.
    pub(crate) async fn serve<F, R>(http2: bool, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Answering>> + Send + 'static,
    {
        Self::sockets(move |socket| {
            let answer = answer.clone();
            async move {
                let service = service_fn(move |request| {
                    let response = answer(request);
                    async move { Ok::<_, Infallible>(response.await) }
                });
                let io = TokioIo::new(socket);
                // A connection that breaks is seen by the client on it.
                if http2 {
                    let _ = http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, service)
                        .await;
                } else {
                    let _ = http1::Builder::new().serve_connection(io, service).await;
                }
            }
        })
        .await
    }

    /// Whatever `talk` does with each connection.
    pub(crate) async fn sockets<F, R>(talk: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut talks = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).unwrap();
                *count.lock() += 1;
                talks.spawn(talk(socket));
            }
        });
        Self {
            address,
            seen: Arc::default(),
            connections,
            task,
        }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().clone()
    }

    /// The newest request.
    pub(crate) fn last(&self) -> Seen {
        self.seen.lock().last().cloned().unwrap()
    }

    /// Connections that were accepted so far.
    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock()
    }
}

/// All of a request.
pub(crate) async fn see(request: Request<Incoming>) -> Seen {
    let (head, body) = request.into_parts();
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    Seen {
        line: format!("{} {target}", head.method),
        headers: head.headers,
        body: body.collect().await.unwrap().to_bytes(),
    }
}

/// An answer of a status, a content type and a body.
pub(crate) fn answer(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Answering> {
    let mut response = Response::builder().status(status);
    if !content_type.is_empty() {
        response = response.header("content-type", content_type);
    }
    response.body(Full::new(body.into()).boxed_unsync()).unwrap()
}

/// An answer in JSON.
pub(crate) fn json(body: &Value) -> Response<Answering> {
    answer(200, "application/json", body.to_string())
}
