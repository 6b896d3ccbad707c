//! The connections of one worker to one endpoint.
//!
//! A call takes a place on a connection and gives it back by dropping it. A connection that fills up has a successor
//! dialled before it is full; one of HTTP/1.1 has one place, so each call that finds none dials. While an endpoint can't
//! be dialled, attempts are spaced by a jittered back-off, and calls fail at once instead of queueing behind it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::upstream::connect::{ConnectError, Connector, Dialled};
use crate::upstream::dice;
use crate::upstream::exchange::Exchange;
use crate::upstream::http1;
use crate::upstream::http2::Handle;

/// The first pause after an attempt that failed; it doubles with each one. Jitter takes up to half of it away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause. Long enough to spare a dead host, short enough that a returning one is found within a breath.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Connections of HTTP/1.1 that are kept without a request. Not measured: what a burst leaves behind is closed.
const MOST_KEPT: usize = 128;
/// How long each is kept at the least: one that was just dialled has to be there for the call that waits for it.
const LEAST_KEPT: Duration = Duration::from_millis(100);
/// How long the gateway may take to close a kept connection that the upstream has closed.
const MOST_UNSEEN: Duration = Duration::from_secs(5);

/// Why no place could be had.
#[derive(Clone, Debug)]
pub struct Unreachable {
    /// What the newest attempt said.
    pub cause: Arc<ConnectError>,
    /// When the next attempt is due.
    pub retry_at: Instant,
    /// Since when the endpoint can't be dialled.
    pub since: Instant,
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the endpoint can't be reached: {}", self.cause)
    }
}

impl std::error::Error for Unreachable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// The connections of one worker to one endpoint. Clones share them.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

/// A pool that goes when nobody else holds it.
#[derive(Clone)]
pub struct WeakPool(Weak<Inner>);

impl WeakPool {
    /// The pool, if somebody still holds it.
    pub fn upgrade(&self) -> Option<Pool> {
        self.0.upgrade().map(Pool)
    }
}

impl fmt::Debug for WeakPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakPool")
    }
}

struct Inner {
    connector: Connector,
    tasks: TaskTracker,
    state: Mutex<State>,
    /// Woken when an attempt to dial ends.
    dialled: Notify,
}

#[derive(Default)]
struct State {
    /// Of HTTP/2.
    connections: Vec<Connection>,
    /// Of HTTP/1.1, without a request; the one used last is last.
    #[expect(clippy::vec_box, reason = "it goes from here to a call and back in its box")]
    kept: Vec<Box<http1::Connection>>,
    /// The endpoint was found to speak HTTP/1.1.
    one_at_a_time: bool,
    /// Attempts under way: one, or one for each call that waits where a connection takes one at a time.
    dialling: usize,
    /// Calls that wait for a connection.
    waiting: usize,
    /// A task closes what is kept for too long.
    sweeping: bool,
    failure: Option<Failure>,
}

struct Failure {
    unreachable: Unreachable,
    pause: Duration,
}

struct Connection {
    handle: Handle,
    load: Arc<Load>,
}

/// What the calls and the driver of a connection know of it.
#[derive(Default)]
struct Load {
    /// Calls that hold a place. 0 <= calls, and below the limit whenever one is added.
    calls: AtomicUsize,
    /// The connection takes no new stream.
    closed: AtomicBool,
}

/// A place on a connection. Dropping it gives the place back.
pub struct Lease(pub(super) Place);

/// What a [`Lease`] is a place on.
pub(super) enum Place {
    /// A stream of HTTP/2.
    Stream(Handle, Counted),
    /// A connection of HTTP/1.1.
    Exchange(Exchange),
}

/// The counted part of a [`Lease`]: held until the answer is read to its end or dropped.
pub(super) struct Counted(Arc<Load>);

impl Counted {
    /// Keeps new calls off the connection.
    pub(super) fn retire(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    /// A pool without a connection; the first call dials. Tasks that move bytes are spawned on `tasks`.
    pub fn new(connector: Connector, tasks: TaskTracker) -> Self {
        Self(Arc::new(Inner {
            connector,
            tasks,
            state: Mutex::new(State::default()),
            dialled: Notify::new(),
        }))
    }

    /// The same pool, without keeping it.
    pub fn downgrade(&self) -> WeakPool {
        WeakPool(Arc::downgrade(&self.0))
    }

    /// How the endpoint is dialled.
    pub fn connector(&self) -> &Connector {
        &self.0.connector
    }

    /// Why the endpoint can't be reached now; `None` while it can be, or nobody has tried.
    pub fn unreachable(&self) -> Option<Unreachable> {
        self.0
            .state
            .lock()
            .failure
            .as_ref()
            .map(|failure| failure.unreachable.clone())
    }

    /// A place on a connection that is there now.
    pub fn try_lease(&self) -> Option<Lease> {
        let mut state = self.0.state.lock();
        let lease = self.place(&mut state);
        if !state.one_at_a_time && state.is_crowded(self.limit()) {
            self.dial(&mut state);
        }
        lease
    }

    fn place(&self, state: &mut State) -> Option<Lease> {
        if let Some((handle, place)) = state.place(self.limit()) {
            return Some(Lease(Place::Stream(handle, place)));
        }
        let kept = state.take_kept(self.0.idle_timeout())?;
        Some(Lease(Place::Exchange(Exchange::new(kept, self.clone()))))
    }

    /// Takes a connection back for the next call.
    pub(super) fn keep(&self, connection: Box<http1::Connection>) {
        let mut state = self.0.state.lock();
        state.keep(connection);
        self.0.sweep_in_time(&mut state);
        let waited_for = state.waiting > 0;
        drop(state);
        if waited_for {
            self.0.dialled.notify_waiters();
        }
    }

    /// A place on a connection, dialled if need be.
    ///
    /// # Errors
    /// [`Unreachable`] when dialling failed, is not due yet, or took too long.
    ///
    /// # Cancel safety
    /// Dropping it gives up waiting; the attempt to dial goes on for the next call.
    pub async fn lease(&self) -> Result<Lease, Unreachable> {
        let patience = self.0.connector.connect_timeout();
        timeout(patience, self.wait()).await.unwrap_or_else(|_elapsed| {
            let now = Instant::now();
            Err(self.unreachable().unwrap_or_else(|| Unreachable {
                cause: Arc::new(ConnectError::Timeout(patience)),
                retry_at: now,
                since: now,
            }))
        })
    }

    async fn wait(&self) -> Result<Lease, Unreachable> {
        let _waiting = Waiting::begin(&self.0);
        loop {
            let dialled = self.0.dialled.notified();
            {
                let mut state = self.0.state.lock();
                if let Some(lease) = self.place(&mut state) {
                    return Ok(lease);
                }
                if state.dialling == 0
                    && let Some(failure) = &state.failure
                    && Instant::now() < failure.unreachable.retry_at
                {
                    return Err(failure.unreachable.clone());
                }
                self.dial(&mut state);
            }
            dialled.await;
        }
    }

    fn limit(&self) -> usize {
        usize::try_from(self.0.connector.settings().http2.max_streams).unwrap_or(usize::MAX)
    }

    /// Starts an attempt to dial, unless enough are under way or a pause is on.
    fn dial(&self, state: &mut State) {
        let paused = state
            .failure
            .as_ref()
            .is_some_and(|failure| Instant::now() < failure.unreachable.retry_at);
        let enough = if state.one_at_a_time { state.waiting } else { 1 };
        if state.dialling >= enough || paused {
            return;
        }
        state.dialling += 1;
        let inner = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            let outcome = inner.connector.dial().await;
            inner.settle(outcome);
        });
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("endpoint", self.0.connector.authority())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Place::Stream(..) => "Lease(Stream)",
            Place::Exchange(_) => "Lease(Exchange)",
        })
    }
}

/// A call that waits for a connection.
struct Waiting<'p>(&'p Inner);

impl<'p> Waiting<'p> {
    fn begin(inner: &'p Inner) -> Self {
        inner.state.lock().waiting += 1;
        Self(inner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.state.lock().waiting -= 1;
    }
}

/// A connection that can be used.
enum Running {
    Http2(Connection),
    Http1(Box<http1::Connection>),
}

impl Inner {
    /// Spawns the task of a connection, if it needs one.
    fn run(&self, dialled: Dialled) -> Result<Running, ConnectError> {
        Ok(match dialled {
            Dialled::Http2(connection) => {
                let load = Arc::new(Load::default());
                let handle = connection.handle();
                let closes = Arc::clone(&load);
                self.tasks.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(%error, "an upstream connection broke");
                    }
                    closes.closed.store(true, Ordering::Relaxed);
                });
                Running::Http2(Connection { handle, load })
            }
            Dialled::Http1(mut connection) => {
                // Were it taken for good, the next would be dialled without a pause.
                if connection.is_closed() {
                    return Err(ConnectError::Closed);
                }
                Running::Http1(connection)
            }
        })
    }

    /// Has a task close what is kept for too long, or was closed by the upstream, for as long as anything is kept.
    fn sweep_in_time(self: &Arc<Self>, state: &mut State) {
        if std::mem::replace(&mut state.sweeping, true) {
            return;
        }
        let idle = self.idle_timeout();
        let inner = Arc::downgrade(self);
        self.tasks.spawn(async move {
            loop {
                tokio::time::sleep(MOST_UNSEEN.min(idle / 2)).await;
                let Some(inner) = inner.upgrade() else { return };
                if !inner.state.lock().sweep(idle) {
                    return;
                }
            }
        });
    }

    /// How long a connection of HTTP/1.1 is kept.
    fn idle_timeout(&self) -> Duration {
        self.connector.settings().http1.idle_timeout.max(LEAST_KEPT)
    }

    fn settle(self: &Arc<Self>, outcome: Result<Dialled, ConnectError>) {
        let outcome = outcome.and_then(|dialled| self.run(dialled));
        let mut state = self.state.lock();
        state.dialling = state.dialling.saturating_sub(1);
        match outcome {
            Ok(Running::Http2(connection)) => {
                state.connections.push(connection);
                state.one_at_a_time = false;
                state.failure = None;
            }
            Ok(Running::Http1(connection)) => {
                state.keep(connection);
                self.sweep_in_time(&mut state);
                state.one_at_a_time = true;
                state.failure = None;
            }
            Err(error) => {
                let now = Instant::now();
                let (pause, since) = match &state.failure {
                    // Of several attempts at once, all but the first say what is known.
                    Some(before) if now < before.unreachable.retry_at => {
                        (before.pause, before.unreachable.since)
                    }
                    Some(before) => ((before.pause * 2).min(LONGEST_PAUSE), before.unreachable.since),
                    None => (FIRST_PAUSE, now),
                };
                tracing::debug!(endpoint = %self.connector.authority(), %error, "dialling failed");
                let unreachable = Unreachable {
                    cause: Arc::new(error),
                    retry_at: now + jittered(pause),
                    since,
                };
                state.failure = Some(Failure { unreachable, pause });
            }
        }
        drop(state);
        self.dialled.notify_waiters();
    }
}

impl State {
    /// Keeps a connection, where few are kept that nobody waits for.
    fn keep(&mut self, connection: Box<http1::Connection>) {
        if self.kept.len() < MOST_KEPT + self.waiting {
            self.kept.push(connection);
        }
    }

    /// The connection used last: those that are not needed grow old and are closed.
    fn take_kept(&mut self, idle: Duration) -> Option<Box<http1::Connection>> {
        let now = Instant::now();
        while let Some(mut connection) = self.kept.pop() {
            if connection.age(now) < idle && !connection.is_closed() {
                connection.take(now);
                return Some(connection);
            }
        }
        None
    }

    /// Closes what was kept for too long; false when there is nothing left to look after.
    fn sweep(&mut self, idle: Duration) -> bool {
        let now = Instant::now();
        self.kept
            .retain_mut(|kept| kept.age(now) < idle && !kept.is_closed());
        self.kept.iter_mut().for_each(|kept| kept.rest());
        self.sweeping = !self.kept.is_empty();
        self.sweeping
    }

    /// A place on the fullest connection that has room: so that connections which are no longer needed empty.
    fn place(&mut self, limit: usize) -> Option<(Handle, Counted)> {
        self.connections
            .retain(|connection| !connection.load.closed.load(Ordering::Relaxed));
        let connection = self
            .connections
            .iter()
            .filter(|connection| connection.calls() < connection.limit(limit))
            .max_by_key(|connection| connection.calls())?;
        connection.load.calls.fetch_add(1, Ordering::Relaxed);
        Some((connection.handle.clone(), Counted(Arc::clone(&connection.load))))
    }

    /// Whether the places that are left are few: under a fifth of a connection's.
    fn is_crowded(&self, limit: usize) -> bool {
        let (calls, places) = self
            .connections
            .iter()
            .fold((0, 0), |(calls, places), connection| {
                (calls + connection.calls(), places + connection.limit(limit))
            });
        places.saturating_sub(calls) < (limit / 5).max(1)
    }
}

impl Connection {
    fn calls(&self) -> usize {
        self.load.calls.load(Ordering::Relaxed)
    }

    /// Streams that both sides allow.
    fn limit(&self, ours: usize) -> usize {
        self.handle.max_streams().min(ours)
    }
}

/// A pause with up to half of it taken away at random, so that workers and gateways don't dial in step.
fn jittered(pause: Duration) -> Duration {
    let half = pause / 2;
    let micros = usize::try_from(half.as_micros()).unwrap_or(usize::MAX);
    half + Duration::from_micros(dice::below(micros) as u64)
}
