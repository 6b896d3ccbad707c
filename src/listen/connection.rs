//! One connection, from its first bytes to its end.

use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::fault::{Fault, Kind};
use crate::http2::{PREFACE, Settings as Http2Settings};
use crate::listen::admission::Place;
use crate::listen::call::Calls;
use crate::listen::drain::{Drain, Stop};
use crate::listen::driver::{Driver, End};
use crate::listen::http1::Http1;
use crate::listen::http2::{self, Http2, answering};
use crate::listen::link::{Clock, LINGER, Link, Protocol};
use crate::listen::stream::{Stream, Watched};
use crate::listen::tls::Tls;
use crate::listen::tunnel::{Io, Switching};
use crate::listen::{Settings, answer};
use crate::peer::Peer;
use crate::wire::body::Body;
use crate::wire::received::Received;

/// The first read of a connection whose protocol is not known: the head of most requests fits.
const FIRST_READ: usize = 2048;

/// How long a connection that was made just before draining may take to begin its request.
const LAST_WORD: Duration = Duration::from_millis(100);

/// Makes connections of accepted sockets; one for each worker and listener.
pub(crate) struct Connector<H> {
    http2: Http2Settings,
    settings: Arc<Settings>,
    tasks: TaskTracker,
    drain: Drain,
    /// The listener's own address.
    listener: SocketAddr,
    handler: H,
}

impl<H, F> Connector<H>
where
    H: Fn(Request<Received>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    pub(crate) fn new(
        settings: &Arc<Settings>,
        tasks: &TaskTracker,
        drain: &Drain,
        listener: SocketAddr,
        handler: H,
    ) -> Self {
        Self {
            http2: http2::settings(&settings.limits),
            settings: Arc::clone(settings),
            tasks: tasks.clone(),
            drain: drain.clone(),
            listener,
            handler,
        }
    }

    /// The task of one connection; it holds `place` until the connection is closed.
    pub(crate) fn connect(
        self: &Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        trusted: bool,
        place: Place,
    ) -> impl Future<Output = ()> + Send + use<H, F> {
        let me = Arc::clone(self);
        async move {
            let (drain, tasks) = (me.drain.clone(), me.tasks.clone());
            let mut stop = drain.watch();
            let switched = tokio::select! {
                biased;
                () = stop.cut() => None,
                switched = me.run(stream, address, trusted) => switched,
            };
            let Some((io, switching)) = switched else {
                return drop(place);
            };
            // A task of its own, which is smaller than this one was: a WebSocket may be idle for hours.
            tasks.spawn(async move {
                switching.run(io, drain).await;
                drop(place);
            });
        }
    }

    /// Serves a connection until it ends; what it has become, if it goes on as something else.
    async fn run(&self, stream: TcpStream, address: SocketAddr, trusted: bool) -> Option<(Io, Switching)> {
        let accepted = Instant::now();
        let opened = match &self.settings.tls {
            None => Opened::cleartext(stream),
            // Boxed, so that the handshake's state is not room that the connection keeps.
            Some(tls) => match Box::pin(self.secure(stream, tls, address)).await {
                Some(opened) => opened,
                None => return None,
            },
        };
        let since = if opened.secure { Instant::now() } else { accepted };
        let mut peer = Peer::new(address, opened.secure, trusted, opened.certificates).through(self.listener);
        if trusted {
            peer = peer.believing(self.settings.trusted_proxies.clone());
        }
        let (stream, before, protocol) = Box::pin(first_bytes(
            opened.stream,
            opened.protocol,
            since,
            &self.settings,
            &self.drain,
        ))
        .await?;
        let link = Arc::new(Link::new(protocol, Arc::clone(&self.settings.counters)));
        let io = Watched::new(stream, before, Arc::clone(&link));
        let calls = Arc::new(Calls {
            handler: self.handler.clone(),
            peer,
            link: Arc::clone(&link),
            settings: Arc::clone(&self.settings),
            drain: self.drain.clone(),
            tasks: self.tasks.clone(),
        });
        match protocol {
            Protocol::Http1 => self.http1(io, &link, calls, since).await,
            Protocol::Http2 => {
                self.http2(io, &link, calls, since).await;
                None
            }
        }
    }

    /// The connection after its handshake; `None` when that failed, or draining began and it did not end soon.
    async fn secure(&self, stream: TcpStream, tls: &Tls, client: SocketAddr) -> Option<Opened> {
        let mut stop = self.drain.watch();
        tokio::select! {
            biased;
            opened = handshake(stream, tls, &self.settings, client) => opened,
            () = a_while_after(&mut stop, LINGER) => None,
        }
    }

    async fn http1(
        &self,
        io: Watched,
        link: &Arc<Link>,
        calls: Arc<Calls<H>>,
        since: Instant,
    ) -> Option<(Io, Switching)> {
        let client = calls.peer.address();
        let mut driver = Driver::new(link, &self.settings, &self.drain, Clock::new(since, None));
        let begin = move |head, body| Arc::clone(&calls).answer(calls.open(), head, body);
        let mut connection = Box::new(Http1::new(
            io,
            Arc::clone(link),
            Arc::clone(&self.settings),
            begin,
        ));
        match driver.drive(Pin::new(&mut *connection)).await {
            End::Closed(Ok(())) => {
                let (io, before, switching) = connection.into_parts();
                Some((Io::http1(io, before), switching?))
            }
            End::Closed(Err(error)) => {
                tracing::debug!(%client, %error, "connection ended");
                None
            }
            End::HeadLate => {
                link.counters().heads_late.add();
                // A connection on which nothing was said is closed in silence: a browser that opened it in advance
                // would take an answer for that of its next request.
                if link.heard() {
                    let late = format!(
                        "the request's headers did not arrive within {:?}",
                        self.settings.limits.header_timeout
                    );
                    let fault = Fault::client(Kind::RequestTimeout, late);
                    let (io, _, _) = connection.into_parts();
                    answer::say(io.into_inner(), &answer::refusal(self.settings.refuse, &fault)).await;
                }
                None
            }
            End::Cut => None,
        }
    }

    async fn http2(&self, io: Watched, link: &Link, calls: Arc<Calls<H>>, since: Instant) {
        let client = calls.peer.address();
        let limits = &self.settings.limits;
        let mut connection = Box::new(Http2::new(io, self.http2, limits, answering(calls)));
        let age = jittered(limits.max_connection_age);
        let mut driver = Driver::new(link, &self.settings, &self.drain, Clock::new(since, Some(age)));
        if let End::Closed(Err(error)) = driver.drive(Pin::new(&mut *connection)).await {
            tracing::debug!(%client, %error, "connection ended");
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
async fn handshake(stream: TcpStream, tls: &Tls, settings: &Settings, client: SocketAddr) -> Option<Opened> {
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
    tracing::debug!(%client, %error, "TLS handshake failed");
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

/// Tells HTTP/2 from HTTP/1.1 by the first bytes, which are given back to be read again, where ALPN has not told that it
/// is HTTP/2; `None` when the client left, said nothing in time, or had said nothing when draining began.
async fn first_bytes(
    mut stream: Stream,
    known: Option<Protocol>,
    since: Instant,
    settings: &Settings,
    drain: &Drain,
) -> Option<(Stream, Bytes, Protocol)> {
    if known == Some(Protocol::Http2) {
        return Some((stream, Bytes::new(), Protocol::Http2));
    }
    let mut before = BytesMut::with_capacity(FIRST_READ);
    let mut stop = drain.watch();
    let told = tokio::select! {
        biased;
        protocol = preface(&mut stream, &mut before, known) => protocol,
        () = a_while_after(&mut stop, LAST_WORD) => None,
        () = tokio::time::sleep_until(since + settings.limits.header_timeout) => {
            settings.counters.heads_late.add();
            None
        }
    };
    Some((stream, before.freeze(), told?))
}

/// Reads until the bytes are the HTTP/2 preface, or can't become it.
async fn preface(stream: &mut Stream, before: &mut BytesMut, known: Option<Protocol>) -> Option<Protocol> {
    loop {
        match stream.read_buf(before).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        if known.is_some() {
            return known;
        }
        if before.starts_with(PREFACE) {
            return Some(Protocol::Http2);
        }
        if !PREFACE.starts_with(before) {
            return Some(Protocol::Http1);
        }
    }
}

/// Resolves some time after draining has begun: what was sent by then has been read.
async fn a_while_after(stop: &mut Stop, grace: Duration) {
    stop.begun().await;
    tokio::time::sleep(grace).await;
}

/// An age up to a tenth shorter or longer, so that connections made together do not all leave together.
fn jittered(age: Duration) -> Duration {
    // Each RandomState is keyed anew; nothing here needs more randomness than that.
    let spread = RandomState::new().hash_one(0) % 2001;
    // From 9,000 to 11,000 ten-thousandths.
    let parts = u32::try_from(9_000 + spread).unwrap_or(10_000);
    age / 10_000 * parts
}

#[cfg(test)]
mod tests {
    use super::*;

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
