//! The accept loop of one worker. Nothing that happens to one connection, or to accepting itself, ends it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::listen::admission::{Connections, Full};
use crate::listen::connection::Connector;
use crate::listen::drain::{Drain, Stop};
use crate::listen::pressure::Level;
use crate::listen::stream::Stream;
use crate::listen::{Settings, answer, forwarded};
use crate::peer::Peer;
use crate::wire::body::Body;
use crate::wire::received::Received;

/// The first wait after an error of accepting; it doubles up to [`MAX_BACK_OFF`].
const MIN_BACK_OFF: Duration = Duration::from_millis(10);
/// The longest wait: file descriptors come free one by one, and a second is long for a client.
const MAX_BACK_OFF: Duration = Duration::from_secs(1);
/// How often the memory is looked at while it keeps the worker from accepting.
const PRESSURE_POLL: Duration = Duration::from_millis(200);
/// The least time between two log lines about accepting.
const QUIET: Duration = Duration::from_secs(5);
/// Refused connections of one worker that are being told why. They hold descriptors beyond the caps, so they are few;
/// those after them are closed at once.
const MAX_FAREWELLS: usize = 64;

/// Serves one worker's socket until `drain` is given, and returns when its last connection has ended.
///
/// Runs on the worker's own runtime. The handler is called for each request whose head is in order; dropping its
/// future means that the client left. Settings that change hold for connections that are made afterwards.
///
/// # Errors
/// The socket can't be registered with the runtime. Errors of accepting are survived, logged and counted.
///
/// # Cancel safety
/// Dropping it closes the socket; connections that were accepted go on until `drain` ends them.
pub async fn serve<H, F>(
    listener: std::net::TcpListener,
    mut settings: watch::Receiver<Arc<Settings>>,
    connections: Arc<Connections>,
    drain: Drain,
    handler: H,
) -> io::Result<()>
where
    H: Fn(Request<Received>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let listener = TcpListener::from_std(listener)?;
    // Draining waits for this worker as for one task; the worker waits for its own.
    let _token = drain.tasks().token();
    let tasks = TaskTracker::new();
    let first = Arc::clone(&settings.borrow_and_update());
    let mut door = Door {
        connector: Arc::new(Connector::new(&first, &tasks, &drain, address, handler.clone())),
        farewells: Arc::default(),
        settings: first,
        connections,
        tasks,
    };
    let mut stop = drain.watch();
    let mut log = Quiet::default();
    loop {
        match next(&listener, &mut stop, &mut settings, &door.settings, &mut log).await {
            Next::Connection(stream, address) => door.take(stream, address),
            Next::Settings(changed) => {
                door.connector = Arc::new(Connector::new(
                    &changed,
                    &door.tasks,
                    &drain,
                    address,
                    handler.clone(),
                ));
                door.settings = changed;
            }
            Next::Stop => break,
        }
    }
    door.take_waiting(listener.into_std()?);
    door.tasks.close();
    door.tasks.wait().await;
    Ok(())
}

/// What happens next at a socket.
enum Next {
    Connection(TcpStream, SocketAddr),
    Settings(Arc<Settings>),
    Stop,
}

/// The next connection, unless the worker is to stop or goes by other settings first. Each arm may be dropped: what it
/// waits for is still there the next time.
async fn next(
    listener: &TcpListener,
    stop: &mut Stop,
    changes: &mut watch::Receiver<Arc<Settings>>,
    settings: &Settings,
    log: &mut Quiet,
) -> Next {
    tokio::select! {
        biased;
        () = stop.begun() => Next::Stop,
        changed = changed(changes) => Next::Settings(changed),
        (stream, address) = accept(listener, settings, log) => Next::Connection(stream, address),
    }
}

/// The settings once they are others; never, if nobody can change them any more.
async fn changed(changes: &mut watch::Receiver<Arc<Settings>>) -> Arc<Settings> {
    if changes.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    Arc::clone(&changes.borrow_and_update())
}

/// What happens to accepted sockets.
struct Door<H> {
    connector: Arc<Connector<H>>,
    settings: Arc<Settings>,
    connections: Arc<Connections>,
    tasks: TaskTracker,
    farewells: Arc<AtomicUsize>,
}

impl<H, F> Door<H>
where
    H: Fn(Request<Received>, Peer) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    /// Takes what the kernel has connected already and closes the socket. Such a client may have sent a request, which
    /// is answered. The socket is asked directly, because the runtime may not have heard of them yet.
    #[expect(clippy::needless_pass_by_value, reason = "the socket is closed here")]
    fn take_waiting(&self, listener: std::net::TcpListener) {
        while let Ok((stream, address)) = listener.accept() {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            match stream {
                Ok(stream) => self.take(stream, address),
                Err(error) => tracing::debug!(%error, "a connection could not be served"),
            }
        }
    }

    fn take(&self, stream: TcpStream, address: SocketAddr) {
        // Nagle's algorithm holds back small answers. A socket that refuses the option has been closed already.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection was closed before it was served");
            return;
        }
        let ip = address.ip();
        let trusted = forwarded::is_trusted(ip, &self.settings.trusted_proxies);
        let known = trusted || ip.to_canonical().is_loopback();
        let counters = &self.settings.counters;
        if !trusted && !self.settings.screen.admits(ip) {
            // Closed at once: whoever is kept out should cost as little as can be. Behind a trusted proxy each request
            // says whose it is.
            counters.barred.add();
            return;
        }
        match self.connections.admit(ip, known) {
            Ok(place) => {
                counters.accepted.add();
                self.tasks
                    .spawn(self.connector.connect(stream, address, trusted, place));
            }
            Err(full) => {
                match full {
                    Full::Total => counters.over_total.add(),
                    Full::Address => counters.over_address.add(),
                }
                self.turn_away(stream);
            }
        }
    }

    fn turn_away(&self, stream: TcpStream) {
        let farewells = Farewell(Arc::clone(&self.farewells));
        if self.farewells.fetch_add(1, Ordering::Relaxed) >= MAX_FAREWELLS {
            return;
        }
        let tls = self.settings.tls.is_some();
        let refuse = self.settings.refuse;
        self.tasks.spawn(async move {
            answer::no_room(Stream::Plain(stream), tls, refuse).await;
            drop(farewells);
        });
    }
}

/// One of the refused connections that are being told why.
struct Farewell(Arc<AtomicUsize>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts one connection, however long it takes.
async fn accept(listener: &TcpListener, settings: &Settings, log: &mut Quiet) -> (TcpStream, SocketAddr) {
    let mut back_off = MIN_BACK_OFF;
    loop {
        while settings.pressure.level() >= Level::High {
            tokio::time::sleep(PRESSURE_POLL).await;
        }
        let error = match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => error,
        };
        settings.counters.accept_errors.add();
        if let Some(suppressed) = log.may_speak(Instant::now()) {
            tracing::warn!(%error, suppressed, "a connection could not be accepted");
        }
        if is_of_the_connection(&error) {
            // The error was that one connection's; the next one may be fine.
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(back_off).await;
            back_off = (back_off * 2).min(MAX_BACK_OFF);
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// Keeps a log readable when the same thing happens over and over.
#[derive(Debug, Default)]
struct Quiet {
    last: Option<Instant>,
    suppressed: u64,
}

impl Quiet {
    /// Whether to log now, and how many lines were left out since the last one.
    fn may_speak(&mut self, now: Instant) -> Option<u64> {
        if self
            .last
            .is_some_and(|last| now.saturating_duration_since(last) < QUIET)
        {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_errors_is_a_line_every_five_seconds() {
        let mut log = Quiet::default();
        let start = Instant::now();
        assert_eq!(log.may_speak(start), Some(0));
        for second in 1..5 {
            assert_eq!(log.may_speak(start + Duration::from_secs(second)), None);
        }
        assert_eq!(log.may_speak(start + QUIET), Some(4));
    }
}
