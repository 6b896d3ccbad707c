//! Upstreams for the gateway that other people's code speaks for: tonic, and h2 without anything above it.
//!
//! A scripted backend plays its part of one conversation with everybody who calls. A raw one does to a stream what a
//! test tells it to, broken things included.

pub(crate) mod origin;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use prost::Message as _;
use prost_reflect::MethodDescriptor;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tonic::codec::{CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataMap;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tower::Service;

use super::framing;
use super::messages::{canonical, decode, dynamic, encode, message_type, method};
use super::origin::Origin;
use super::script::{Conversation, End, Step};
use super::within;

/// Whose code a scripted backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Tonic,
    /// h2 alone, which sends its messages in pieces of three bytes.
    H2,
    /// An origin that knows JSON over HTTP/1.1.
    Http1,
    /// The same over HTTP/2.
    Http2,
}

impl Kind {
    /// Whether it knows HTTP and JSON alone.
    pub(crate) fn is_rest(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2)
    }
}

/// A backend that listens until it is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    record: Record,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    /// What went other than scripted.
    pub(crate) fn problems(&self) -> String {
        self.record.problems.lock().join("\n")
    }

    /// Waits until what has begun has ended, and checks that nothing went other than scripted.
    pub(crate) async fn has_played_to_the_end(&self) {
        self.calls_ended(self.begun()).await;
        let problems = self.problems();
        assert!(problems.is_empty(), "{problems}");
    }

    /// Waits until so many calls have ended, one way or the other.
    pub(crate) async fn calls_ended(&self, calls: usize) {
        let mut ended = self.record.ended.subscribe();
        within(
            "the end of the upstream call",
            ended.wait_for(|ended| *ended >= calls),
        )
        .await
        .unwrap();
    }

    /// Waits until so many calls have begun.
    pub(crate) async fn calls_begun(&self, calls: usize) {
        let mut begun = self.record.begun.subscribe();
        within("the upstream call", begun.wait_for(|begun| *begun >= calls))
            .await
            .unwrap();
    }

    /// Waits until a call has come to where the backend is silent.
    pub(crate) async fn holds(&self) {
        let mut holding = self.record.holding.subscribe();
        within("the silence", holding.wait_for(|holding| *holding > 0))
            .await
            .unwrap();
    }

    /// How many calls have begun.
    pub(crate) fn begun(&self) -> usize {
        *self.record.begun.borrow()
    }
}

/// What a backend saw.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    problems: Arc<Mutex<Vec<String>>>,
    begun: watch::Sender<usize>,
    /// Calls whose backend has come to where it is silent.
    holding: watch::Sender<usize>,
    ended: watch::Sender<usize>,
}

impl Record {
    fn new() -> Self {
        Self {
            problems: Arc::default(),
            begun: watch::Sender::new(0),
            holding: watch::Sender::new(0),
            ended: watch::Sender::new(0),
        }
    }

    fn begin(&self) -> Ending {
        self.begun.send_modify(|begun| *begun += 1);
        Ending(self.clone())
    }

    fn problem(&self, what: impl Into<String>) {
        self.problems.lock().push(what.into());
    }
}

/// Counts the end of a call when it is dropped, however the call ends.
struct Ending(Record);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.send_modify(|ended| *ended += 1);
    }
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A backend that plays its part of a conversation.
pub(crate) async fn scripted(kind: Kind, conversation: Conversation) -> Backend {
    let record = Record::new();
    let script = Script {
        method: method(conversation.path),
        conversation: Arc::new(conversation),
        record: record.clone(),
    };
    match kind {
        Kind::Tonic => {
            let (listener, address) = listen().await;
            let task = tokio::spawn(async move {
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                Server::builder()
                    .serve_with_incoming(Tonic(script), incoming)
                    .await
                    .unwrap();
            });
            Backend {
                address,
                record,
                task,
            }
        }
        Kind::H2 => {
            let mut backend = raw(move |request, answer| {
                let script = script.clone();
                async move { script.play_over_h2(request, answer).await }
            })
            .await;
            // The scripted record is the one that knows what went wrong.
            backend.record.problems = record.problems;
            backend.record.holding = record.holding;
            backend
        }
        Kind::Http1 | Kind::Http2 => {
            let origin = Origin::serve(kind == Kind::Http2, move |request| {
                script.clone().play_over_http(request)
            })
            .await;
            Backend {
                address: origin.address,
                record,
                task: tokio::spawn(async move {
                    let _origin = origin;
                    std::future::pending().await
                }),
            }
        }
    }
}

/// The example service itself.
pub(crate) async fn library() -> Backend {
    let (listener, address) = listen().await;
    let task = tokio::spawn(async move {
        sabir::demo::serve(listener, std::future::pending())
            .await
            .unwrap();
    });
    Backend {
        address,
        record: Record::new(),
        task,
    }
}

/// A conversation from the backend's side.
#[derive(Clone)]
struct Script {
    method: MethodDescriptor,
    conversation: Arc<Conversation>,
    record: Record,
}

/// What a scripted backend says next.
enum Answer {
    Message(Bytes),
    End(End),
}

/// Where a call stands in its script.
struct Player {
    script: Script,
    steps: std::vec::IntoIter<Step>,
    requests: BoxStream<'static, Result<Bytes, String>>,
    /// Kept for the length of the call.
    _ending: Ending,
}

impl Script {
    fn player(&self, requests: BoxStream<'static, Result<Bytes, String>>, ending: Ending) -> Player {
        Player {
            script: self.clone(),
            steps: self.conversation.steps.clone().into_iter(),
            requests,
            _ending: ending,
        }
    }

    /// Checks the path and the metadata of a call.
    fn check_head(&self, path: &str, headers: &HeaderMap) {
        if path != format!("/{}", self.conversation.path) {
            self.record.problem(format!("called on {path}"));
        }
        for (name, value) in &self.conversation.metadata {
            if !holds(headers, name, value) {
                self.record
                    .problem(format!("metadata {name}: {value} did not arrive: {headers:?}"));
            }
        }
        for name in ["connection", "transfer-encoding", "host", "content-length"] {
            if headers.contains_key(name) {
                self.record
                    .problem(format!("{name} belongs to the client's connection alone"));
            }
        }
        if headers.get("te").is_none_or(|te| te != "trailers") {
            self.record.problem("a gRPC request says te: trailers");
        }
    }

    async fn play_over_h2(self, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
        let ending = self.record.begin();
        self.check_head(request.uri().path(), request.headers());
        let zip = self.conversation.compressed
            && request
                .headers()
                .get("grpc-accept-encoding")
                .is_some_and(|accepted| accepted.to_str().unwrap().contains("gzip"));
        let mut player = self.player(messages(request.into_body()).boxed(), ending);
        let mut head = Response::new(());
        head.headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        if zip {
            head.headers_mut()
                .insert("grpc-encoding", HeaderValue::from_static("gzip"));
        }
        append(head.headers_mut(), &self.conversation.initial);
        let gone = poll_fn(|cx| answer.poll_reset(cx));
        let Some(first) = unless(gone, player.next()).await else {
            return;
        };
        if let Answer::End(end) = &first
            && end.code != Code::Ok
        {
            head.headers_mut().extend(self.trailers(end));
            // The client may have gone, which is for the client's side to notice.
            let _ = answer.send_response(head, true);
            return;
        }
        let Ok(mut body) = answer.send_response(head, false) else {
            return;
        };
        let mut next = first;
        loop {
            match next {
                Answer::Message(message) if zip => pieces(&mut body, &framing::flagged(1, &gzip(&message))),
                Answer::Message(message) => pieces(&mut body, &framing::envelope(&message)),
                Answer::End(end) => {
                    let _ = body.send_trailers(self.trailers(&end));
                    return;
                }
            }
            let gone = poll_fn(|cx| body.poll_reset(cx));
            let Some(said) = unless(gone, player.next()).await else {
                return;
            };
            next = said;
        }
    }

    /// The trailers of an end.
    fn trailers(&self, end: &End) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from(end.code as i32));
        if !end.message.is_empty() {
            trailers.insert(
                "grpc-message",
                HeaderValue::from_str(&percent(end.message)).unwrap(),
            );
        }
        if !end.details.is_empty() {
            let details = base64_simd::STANDARD_NO_PAD.encode_to_string(status(end));
            trailers.insert(
                "grpc-status-details-bin",
                HeaderValue::from_str(&details).unwrap(),
            );
        }
        append(&mut trailers, &self.conversation.trailing);
        trailers
    }
}

impl Player {
    /// Whether the script ends here, and its call with it.
    fn has_said_all(&self) -> bool {
        self.steps.as_slice().is_empty()
    }

    /// Hears what the script says, up to the next thing to say.
    async fn next(&mut self) -> Answer {
        loop {
            match self.steps.next() {
                Some(Step::Recv(expected)) => {
                    if let Err(problem) = self.hear(&expected).await {
                        return self.stray(problem);
                    }
                }
                Some(Step::Send(message)) => {
                    return Answer::Message(encode(&self.script.method.output(), &message));
                }
                Some(Step::End(end)) => {
                    if end.code == Code::Ok
                        && let Some(more) = self.requests.next().await
                    {
                        return self.stray(format!("something came after the last message: {more:?}"));
                    }
                    return Answer::End(end);
                }
                Some(Step::SendRefused(message, _)) => {
                    // What comes after it is never heard.
                    self.steps = Vec::new().into_iter();
                    return Answer::Message(encode(&self.script.method.output(), &message));
                }
                Some(Step::RecvRefused(..)) => match self.requests.next().await {
                    Some(Ok(_)) => return self.stray("a message that was to be refused".to_owned()),
                    Some(Err(_)) | None => return std::future::pending().await,
                },
                Some(Step::Hold(_) | Step::Leave) => {
                    self.script.record.holding.send_modify(|holding| *holding += 1);
                    return std::future::pending().await;
                }
                None => return std::future::pending().await,
            }
        }
    }

    async fn hear(&mut self, expected: &serde_json::Value) -> Result<(), String> {
        let input = self.script.method.input();
        match self.requests.next().await {
            Some(Ok(bytes)) => {
                let (expected, got) = (
                    canonical(&input, expected),
                    canonical(&input, &decode(&input, &bytes)),
                );
                if expected == got {
                    Ok(())
                } else {
                    Err(format!("expected {expected}\ngot {got}"))
                }
            }
            Some(Err(error)) => Err(format!("instead of a message: {error}")),
            None => Err("the client stopped before this message".to_owned()),
        }
    }

    /// Leaves the script.
    fn stray(&self, problem: String) -> Answer {
        self.script.record.problem(problem);
        Answer::End(End {
            code: Code::Internal,
            message: "the backend was told something else than its script says",
            details: Vec::new(),
        })
    }
}

/// What is said, unless something ends it before.
async fn unless<T>(end: impl Future, said: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        said = said => Some(said),
        _ = end => None,
    }
}

/// The encoded `google.rpc.Status` of an end.
fn status(end: &End) -> Vec<u8> {
    let status = json!({"code": end.code as i32, "message": end.message, "details": end.details});
    dynamic(&message_type("google.rpc.Status"), &status).encode_to_vec()
}

/// Whether these headers hold a value, padded or not where it is base64.
pub(crate) fn holds(headers: &HeaderMap, name: &str, value: &str) -> bool {
    let plain = |value: &str| {
        if name.ends_with("-bin") {
            value.trim_end_matches('=').to_owned()
        } else {
            value.to_owned()
        }
    };
    headers
        .get_all(name)
        .iter()
        .filter_map(|held| held.to_str().ok())
        .any(|held| plain(held) == plain(value))
}

fn append(headers: &mut HeaderMap, pairs: &[(&'static str, &'static str)]) {
    for (name, value) in pairs {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

/// `grpc-message` as it travels: everything but printable ASCII and `%` itself in escapes.
fn percent(message: &str) -> String {
    let mut escaped = String::new();
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// The scripted backend on tonic.
#[derive(Clone)]
struct Tonic(Script);

impl Service<Request<tonic::body::Body>> for Tonic {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let script = self.0.clone();
        script.check_head(request.uri().path(), request.headers());
        Box::pin(async move {
            let compressed = script.conversation.compressed;
            let mut trailing = HeaderMap::new();
            append(&mut trailing, &script.conversation.trailing);
            let mut grpc = tonic::server::Grpc::new(BytesCodec);
            if compressed {
                grpc = grpc
                    .accept_compressed(CompressionEncoding::Gzip)
                    .send_compressed(CompressionEncoding::Gzip);
            }
            let response = grpc.streaming(Call(script), request).await;
            // tonic sends no trailers of one's own with a success, so they are added below it.
            Ok(response.map(|body| {
                tonic::body::Body::new(body.map_frame(move |frame| match frame.into_trailers() {
                    Ok(mut trailers) => {
                        if trailers.get("grpc-status").is_some_and(|status| status == "0") {
                            trailers.extend(trailing.clone());
                        }
                        Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                }))
            }))
        })
    }
}

/// One call of the scripted backend on tonic.
struct Call(Script);

type Answers = BoxStream<'static, Result<Bytes, Status>>;

impl tonic::server::StreamingService<Bytes> for Call {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: tonic::Request<tonic::Streaming<Bytes>>) -> Self::Future {
        let script = self.0.clone();
        let ending = script.record.begin();
        Box::pin(async move {
            let requests = request
                .into_inner()
                .map(|message| message.map_err(|status| status.to_string()));
            let mut player = script.player(requests.boxed(), ending);
            let first = player.next().await;
            if let Answer::End(end) = &first
                && end.code != Code::Ok
            {
                return Err(tonic_status(&script, end));
            }
            let mut initial = HeaderMap::new();
            append(&mut initial, &script.conversation.initial);
            let answers = stream::unfold(
                (Some(first), player, script),
                |(said, mut player, script)| async move {
                    let next = match said {
                        Some(answer) => answer,
                        None => player.next().await,
                    };
                    match next {
                        Answer::Message(message) => Some((Ok(message), (None, player, script))),
                        Answer::End(end) if end.code == Code::Ok => None,
                        Answer::End(end) => Some((Err(tonic_status(&script, &end)), (None, player, script))),
                    }
                },
            );
            let mut response = tonic::Response::new(answers.boxed());
            *response.metadata_mut() = MetadataMap::from_headers(initial);
            Ok(response)
        })
    }
}

fn tonic_status(script: &Script, end: &End) -> Status {
    let mut trailing = HeaderMap::new();
    append(&mut trailing, &script.conversation.trailing);
    let details = if end.details.is_empty() {
        Vec::new()
    } else {
        status(end)
    };
    Status::with_details_and_metadata(
        end.code,
        end.message,
        details.into(),
        MetadataMap::from_headers(trailing),
    )
}

/// tonic without a codec: a message is its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BytesCodec;

impl tonic::codec::Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// A backend that does to each stream what the function says, over h2.
pub(crate) async fn raw<F, Done>(behave: F) -> Backend
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> Done + Clone + Send + 'static,
    Done: Future<Output = ()> + Send + 'static,
{
    let (listener, address) = listen().await;
    let record = Record::new();
    let seen = record.clone();
    let task = tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let (behave, seen) = (behave.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(socket).await else {
                    return;
                };
                while let Some(Ok((request, answer))) = connection.accept().await {
                    let (behave, ending) = (behave.clone(), seen.begin());
                    tokio::spawn(async move {
                        behave(request, answer).await;
                        drop(ending);
                    });
                }
            });
        }
    });
    Backend {
        address,
        record,
        task,
    }
}

/// A backend that hears every call out and answers with an empty message.
pub(crate) async fn answering() -> Backend {
    raw(|request, mut answer| async move {
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
        }
        // A client that has left is no failure of the test.
        if let Ok(mut body) = answer.send_response(grpc_head(), false) {
            let _ = body.send_data(framing::envelope(b""), false);
            let _ = body.send_trailers(grpc_trailers("0"));
        }
    })
    .await
}

/// The messages of a request, as they arrive.
pub(crate) fn messages(body: RecvStream) -> impl futures_util::Stream<Item = Result<Bytes, String>> {
    stream::unfold((body, BytesMut::new()), |(mut body, mut arrived)| async move {
        loop {
            if let Some((flag, message)) = framing::open(&mut arrived) {
                let plain = match flag {
                    0 => Ok(message),
                    1 => Ok(gunzip(&message).into()),
                    flag => Err(format!("flag {flag}")),
                };
                return Some((plain, (body, arrived)));
            }
            match body.data().await {
                Some(Ok(data)) => {
                    body.flow_control().release_capacity(data.len()).unwrap();
                    arrived.extend_from_slice(&data);
                }
                Some(Err(error)) => return Some((Err(error.to_string()), (body, arrived))),
                None if arrived.is_empty() => return None,
                None => {
                    let torn = Err(format!("{} bytes after the last message", arrived.len()));
                    arrived.clear();
                    return Some((torn, (body, arrived)));
                }
            }
        }
    })
}

/// Sends bytes three at a time, so that prefixes and messages lie across frames.
fn pieces(body: &mut SendStream<Bytes>, bytes: &[u8]) {
    // Long messages in larger pieces: the point is made by the first ones.
    let (small, rest) = bytes.split_at(bytes.len().min(300));
    for piece in small.chunks(3).chain(rest.chunks(1 << 14)) {
        // The client may have gone, which is for the client's side to notice.
        let _ = body.send_data(Bytes::copy_from_slice(piece), false);
    }
}

/// The head of a gRPC answer.
pub(crate) fn grpc_head() -> Response<()> {
    Response::builder()
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

/// Trailers with this status.
pub(crate) fn grpc_trailers(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers
}
