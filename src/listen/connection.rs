//! One connection, from its first bytes to its end.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::fault::{Fault, Kind};
use crate::listen::admission::Place;
use crate::listen::call::Calls;
use crate::listen::drain::{Drain, Level, Stop};
use crate::listen::link::{Clock, Expired, Link, Protocol, Stage};
use crate::listen::stream::{Stream, Watched};
use crate::listen::tls::Tls;
use crate::listen::{Settings, answer};
use crate::peer::Peer;
use crate::wire::body::Body;

/// The first read of a connection whose protocol is not known: the head of most requests fits.
const FIRST_READ: usize = 2048;

/// Bytes that hyper keeps of one HTTP/1.1 connection in each direction. Its own default is 400 KiB, which times ten
/// thousand connections is 8 GB. Not measured.
const HTTP1_BUFFER: usize = 64 << 10;

/// Bytes of one HTTP/2 stream that wait for the client. hyper's default is 400 KiB, for each of a hundred streams.
/// Not measured.
const SEND_BUFFER: usize = 64 << 10;

/// The largest HTTP/2 frame that is taken, which is the smallest that may be asked for. Source: RFC 9113, section 4.2.
const FRAME: u32 = 16 << 10;

/// Streams reset by the client before the handler saw them; h2 ends the connection beyond it.
const PENDING_RESETS: usize = 20;

/// Streams reset by us for errors of the client; h2 ends the connection beyond it, with a default of 1024.
const LOCAL_RESETS: usize = 100;

/// How long a connection that was made just before draining may take to begin its request.
const LAST_WORD: Duration = Duration::from_millis(100);

/// The time over which a client's resets are counted.
const RESET_WINDOW: Duration = Duration::from_secs(10);

/// Makes connections of accepted sockets; one for each worker and listener.
#[derive(Clone)]
pub(crate) struct Connector<H> {
    http1: http1::Builder,
    http2: http2::Builder<Tasks>,
    settings: Arc<Settings>,
    drain: Drain,
    handler: H,
}

impl<H, F> Connector<H>
where
    H: Fn(Request<Incoming>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    pub(crate) fn new(settings: &Arc<Settings>, tasks: &TaskTracker, drain: &Drain, handler: H) -> Self {
        Self {
            http1: http1_builder(&settings.limits),
            http2: http2_builder(&settings.limits, Tasks(tasks.clone())),
            settings: Arc::clone(settings),
            drain: drain.clone(),
            handler,
        }
    }

    /// The task of one connection; it holds `place` until the connection is closed.
    pub(crate) fn connect(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        trusted: bool,
        place: Place,
    ) -> impl Future<Output = ()> + Send + use<H, F> {
        let me = self.clone();
        async move {
            let mut stop = me.drain.watch();
            tokio::select! {
                biased;
                () = stop.cut() => {}
                () = me.run(stream, address, trusted) => {}
            }
            drop(place);
        }
    }

    async fn run(self, stream: TcpStream, address: SocketAddr, trusted: bool) {
        let accepted = Instant::now();
        let opened = match &self.settings.tls {
            None => Opened::cleartext(stream),
            Some(tls) => match handshake(stream, tls, &self.settings).await {
                Some(opened) => opened,
                None => return,
            },
        };
        let since = if opened.secure { Instant::now() } else { accepted };
        let peer = Peer::new(address, opened.secure, trusted, opened.certificates);
        let Some((stream, before, protocol)) =
            first_bytes(opened.stream, opened.protocol, since, &self.settings, &self.drain).await
        else {
            return;
        };
        let link = Arc::new(Link::new(protocol, Arc::clone(&self.settings.counters)));
        let io = TokioIo::new(Watched::new(stream, before, Arc::clone(&link)));
        let calls = Arc::new(Calls {
            handler: self.handler.clone(),
            peer,
            link: Arc::clone(&link),
            settings: Arc::clone(&self.settings),
        });
        match protocol {
            Protocol::Http1 => self.http1(io, &link, calls, since).await,
            Protocol::Http2 => self.http2(io, &link, calls, since).await,
        }
    }

    async fn http1(&self, io: TokioIo<Watched>, link: &Link, calls: Arc<Calls<H>>, since: Instant) {
        let service = service_fn(move |request| Arc::clone(&calls).answer(request));
        let mut connection = self.http1.serve_connection(io, service);
        let mut driver = Driver::new(link, &self.settings, &self.drain, Clock::new(since, None));
        let end = driver.drive(Pin::new(&mut connection)).await;
        let fault = match end {
            End::Closed(Ok(())) | End::Cut => return,
            End::Closed(Err(error)) => {
                let io = connection.into_parts().io.into_inner();
                if let Some(status) = io.withheld() {
                    let fault = unreadable(status, &error, &self.settings.limits);
                    link.counters().heads_refused.add();
                    answer::say(io.into_inner(), &answer::refusal(self.settings.refuse, &fault)).await;
                } else {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            End::HeadLate => Fault::client(
                Kind::RequestTimeout,
                format!(
                    "the request's headers did not arrive within {:?}",
                    self.settings.limits.header_timeout
                ),
            ),
        };
        link.counters().heads_late.add();
        // A connection on which nothing was said is closed in silence: a browser that opened it in advance would
        // take an answer for that of its next request.
        if link.heard() {
            let io = connection.into_parts().io.into_inner();
            answer::say(io.into_inner(), &answer::refusal(self.settings.refuse, &fault)).await;
        }
    }

    async fn http2(&self, io: TokioIo<Watched>, link: &Link, calls: Arc<Calls<H>>, since: Instant) {
        let service = service_fn(move |request| Arc::clone(&calls).answer(request));
        let mut connection = self.http2.serve_connection(io, service);
        let age = jittered(self.settings.limits.max_connection_age);
        let mut driver = Driver::new(link, &self.settings, &self.drain, Clock::new(since, Some(age)));
        if let End::Closed(Err(error)) = driver.drive(Pin::new(&mut connection)).await {
            tracing::debug!(%error, "connection ended");
        }
    }
}

/// A connection before its protocol is known.
struct Opened {
    stream: Stream,
    secure: bool,
    protocol: Option<Protocol>,
    certificates: Vec<Vec<u8>>,
}

impl Opened {
    fn cleartext(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(stream),
            secure: false,
            protocol: None,
            certificates: Vec::new(),
        }
    }
}

/// Runs the TLS handshake within its time; `None` when it failed.
async fn handshake(stream: TcpStream, tls: &Tls, settings: &Settings) -> Option<Opened> {
    let handshake = async {
        // The first byte of a TLS record of type handshake. Source: RFC 8446, section 5.1.
        const HANDSHAKE: u8 = 22;
        let mut first = [0];
        if stream.peek(&mut first).await? > 0 && first != [HANDSHAKE] {
            return Ok(Err(stream));
        }
        let acceptor = TlsAcceptor::from(Arc::clone(tls.config()));
        acceptor.accept(stream).await.map(Ok)
    };
    let error = match tokio::time::timeout(settings.limits.handshake_timeout, handshake).await {
        Ok(Ok(Ok(stream))) => return Some(secured(stream)),
        Ok(Ok(Err(stream))) => {
            settings.counters.handshakes_failed.add();
            let fault = Fault::client(
                Kind::BadRequest,
                "this port speaks TLS; use https:// or another port",
            );
            answer::say(Stream::Plain(stream), &answer::refusal(settings.refuse, &fault)).await;
            return None;
        }
        Ok(Err(error)) => error,
        Err(_) => io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long"),
    };
    settings.counters.handshakes_failed.add();
    tracing::debug!(%error, "TLS handshake failed");
    None
}

fn secured(stream: tokio_rustls::server::TlsStream<TcpStream>) -> Opened {
    let (_, session) = stream.get_ref();
    let protocol = match session.alpn_protocol() {
        Some(b"h2") => Some(Protocol::Http2),
        Some(_) => Some(Protocol::Http1),
        None => None,
    };
    let certificates = session
        .peer_certificates()
        .unwrap_or_default()
        .iter()
        .map(|certificate| certificate.as_ref().to_vec())
        .collect();
    Opened {
        stream: Stream::Tls(Box::new(stream)),
        secure: true,
        protocol,
        certificates,
    }
}

/// Tells HTTP/2 from HTTP/1.1 by the first bytes, which are given back to be read again; `None` when the client
/// left, said nothing in time, or had said nothing when draining began.
async fn first_bytes(
    mut stream: Stream,
    known: Option<Protocol>,
    since: Instant,
    settings: &Settings,
    drain: &Drain,
) -> Option<(Stream, Bytes, Protocol)> {
    if let Some(protocol) = known {
        return Some((stream, Bytes::new(), protocol));
    }
    let mut before = BytesMut::with_capacity(FIRST_READ);
    let mut stop = drain.watch();
    let told = tokio::select! {
        biased;
        protocol = preface(&mut stream, &mut before) => protocol,
        () = silent_until_drained(&mut stop) => None,
        () = tokio::time::sleep_until(since + settings.limits.header_timeout) => {
            settings.counters.heads_late.add();
            None
        }
    };
    Some((stream, before.freeze(), told?))
}

/// Reads until the bytes are the HTTP/2 preface, or can't become it.
async fn preface(stream: &mut Stream, before: &mut BytesMut) -> Option<Protocol> {
    loop {
        match stream.read_buf(before).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        if before.starts_with(answer::PREFACE) {
            return Some(Protocol::Http2);
        }
        if !answer::PREFACE.starts_with(before) {
            return Some(Protocol::Http1);
        }
    }
}

/// Resolves a moment after draining has begun: what was sent by then has been read.
async fn silent_until_drained(stop: &mut Stop) {
    stop.begun().await;
    tokio::time::sleep(LAST_WORD).await;
}

/// What a client is told whose head hyper could not read.
fn unreadable(status: StatusCode, error: &hyper::Error, limits: &Limits) -> Fault {
    match status {
        StatusCode::URI_TOO_LONG => Fault::client(
            Kind::UriTooLong,
            format!("the request line is longer than {} bytes", limits.max_uri_bytes),
        ),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Fault::client(
            Kind::HeadersTooLarge,
            format!(
                "the headers are more than {} bytes or {} lines",
                limits.max_header_bytes, limits.max_headers
            ),
        ),
        _ => Fault::client(
            Kind::BadRequest,
            format!("the request is not valid HTTP/1.1: {error}"),
        ),
    }
}

fn http1_builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper's timer runs while a kept connection idles too, for which the time is another; the clock does both.
        .header_read_timeout(None)
        // With half-closing, a client that leaves while its answer is made would not be noticed.
        .half_close(false)
        .max_buf_size(HTTP1_BUFFER)
        .max_header_size(head_bytes(limits).min(HTTP1_BUFFER));
    // Naming the number, even the same one, moves hyper's parser from the stack to the heap.
    const HYPERS_DEFAULT: usize = 100;
    if limits.max_headers != HYPERS_DEFAULT {
        builder.max_headers(limits.max_headers);
    }
    builder
}

/// Request line and headers together, as hyper counts them.
fn head_bytes(limits: &Limits) -> usize {
    /// The method, the version and the line ends around them, with room for long methods.
    const REQUEST_LINE: usize = 64;
    limits.max_header_bytes + limits.max_uri_bytes + REQUEST_LINE
}

fn http2_builder(limits: &Limits, tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    // h2 answers what passes its own limit with a bare 431 that gRPC clients take for INTERNAL. So it takes more
    // than the limit, and the check of the head refuses the difference in the client's dialect.
    let list = u32::try_from(head_bytes(limits) + limits.max_header_bytes).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(FRAME)
        .max_header_list_size(list)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(LOCAL_RESETS)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout);
    builder
}

/// An age up to a tenth shorter or longer, so that connections made together do not all leave together.
fn jittered(age: Duration) -> Duration {
    // Each RandomState is keyed anew; nothing here needs more randomness than that.
    let spread = RandomState::new().hash_one(0) % 2001;
    // From 9,000 to 11,000 ten-thousandths.
    let parts = u32::try_from(9_000 + spread).unwrap_or(10_000);
    age / 10_000 * parts
}

/// Spawns the streams of HTTP/2 connections where draining sees them.
#[derive(Clone)]
struct Tasks(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// How a connection ended.
enum End {
    /// By itself, or by its client.
    Closed(hyper::Result<()>),
    /// A head took too long.
    HeadLate,
    /// By force.
    Cut,
}

/// A hyper connection that can be told to finish.
trait Finish: Future<Output = hyper::Result<()>> {
    /// No further requests; those in flight are answered.
    fn finish(self: Pin<&mut Self>);
}

impl<S, B> Finish for http1::Connection<TokioIo<Watched>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S, B, E> Finish for http2::Connection<TokioIo<Watched>, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: hyper::body::Body + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, B>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Drives a connection and ends it when its clock or the drain signal says so.
struct Driver<'a> {
    link: &'a Link,
    settings: &'a Settings,
    clock: Clock,
    stop: Stop,
    resets: Resets,
    /// The connection was told to finish.
    told: bool,
}

impl<'a> Driver<'a> {
    fn new(link: &'a Link, settings: &'a Settings, drain: &Drain, clock: Clock) -> Self {
        Self {
            link,
            settings,
            clock,
            stop: drain.watch(),
            resets: Resets::default(),
            told: false,
        }
    }

    async fn drive<C: Finish>(&mut self, mut connection: Pin<&mut C>) -> End {
        poll_fn(|cx| self.poll(cx, connection.as_mut())).await
    }

    fn poll<C: Finish>(&mut self, cx: &mut Context<'_>, mut connection: Pin<&mut C>) -> Poll<End> {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                return Poll::Ready(End::Closed(result));
            }
            if self.too_many_resets() {
                // The stream says so to the client when it is read next, which is now.
                continue;
            }
            match self.stop.poll_level(cx) {
                Level::Cut => return Poll::Ready(End::Cut),
                Level::Draining if !self.told => {
                    self.tell(connection.as_mut());
                    continue;
                }
                Level::Draining | Level::Serving => {}
            }
            let limits = &self.settings.limits;
            match std::task::ready!(self.clock.poll(cx, self.link, limits, self.told)) {
                Expired::Age => self.tell(connection.as_mut()),
                Expired::Stage(Stage::Idle) if !self.told => self.tell(connection.as_mut()),
                Expired::Stage(Stage::Head) => return Poll::Ready(End::HeadLate),
                Expired::Stage(Stage::Idle | Stage::Busy | Stage::Stalled | Stage::Closing) => {
                    return Poll::Ready(End::Cut);
                }
            }
        }
    }

    fn tell<C: Finish>(&mut self, connection: Pin<&mut C>) {
        self.told = true;
        connection.finish();
    }

    /// Whether the client has just passed its resets.
    fn too_many_resets(&mut self) -> bool {
        let resets = self.link.resets();
        if resets == self.resets.seen || self.link.protocol() == Protocol::Http1 || self.link.calm() {
            return false;
        }
        if !self
            .resets
            .passes(resets, self.settings.limits.max_resets, Instant::now())
        {
            return false;
        }
        self.link.counters().calmed.add();
        self.link.ask_for_calm();
        true
    }
}

/// Resets of one client, counted over a window of time.
#[derive(Debug, Default)]
struct Resets {
    seen: u32,
    window: Option<(Instant, u32)>,
}

impl Resets {
    fn passes(&mut self, resets: u32, max: u32, now: Instant) -> bool {
        let before = self.seen;
        self.seen = resets;
        let start = match self.window {
            Some((since, start)) if now.saturating_duration_since(since) < RESET_WINDOW => start,
            _ => {
                self.window = Some((now, before));
                before
            }
        };
        resets.wrapping_sub(start) > max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resets_are_counted_for_ten_seconds() {
        let mut resets = Resets::default();
        let start = Instant::now();
        assert!(!resets.passes(199, 200, start));
        assert!(!resets.passes(200, 200, start + Duration::from_secs(9)));
        assert!(resets.passes(201, 200, start + Duration::from_secs(9)));
        let mut resets = Resets::default();
        assert!(!resets.passes(200, 200, start));
        assert!(!resets.passes(400, 200, start + Duration::from_secs(10)));
        assert!(resets.passes(401, 200, start + Duration::from_secs(11)));
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most() {
        let hour = Duration::from_secs(3600);
        let ages: Vec<_> = (0..100).map(|_| jittered(hour)).collect();
        let tenth = Duration::from_secs(360);
        assert!(
            ages.iter()
                .all(|age| *age >= hour - tenth && *age <= hour + tenth)
        );
        assert!(ages.iter().any(|age| *age != ages[0]));
    }
}
