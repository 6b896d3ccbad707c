//! A running gateway: workers that serve, and a control runtime for everything else.
//!
//! The control runtime learns schemas, compiles plans, watches memory, files and signals, and serves the admin listener. A
//! new plan reaches the workers through a channel; each puts it in place for the calls that begin afterwards.

mod control;
mod doors;
mod known;
mod launch;
mod lessons;
mod memory;
mod notify;
mod registration;
mod registry;
mod rooms;
mod signals;
mod takeover;
mod watcher;
mod workers;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;

use crate::admin::{ApiError, Controls, Readiness, Reloaded, Unheard};
use crate::config::{self, Diagnostic, File, Source};
use crate::gateway::PrepareError;
use crate::listen::tls::TlsError;
use crate::listen::worker::{Panicked, Workers};
use crate::listen::{BindError, Drain, Drained};
use crate::observe::log::Writer;
use crate::observe::{Log, LogFormat};

use doors::Spares;
use launch::{Launch, launched};
use notify::Manager;
use signals::{Haste, Signals};
use takeover::Offer;
pub use takeover::TakeoverError;
use workers::Desks;

/// Why the gateway can't run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration is wrong: every error of it.
    #[error("the configuration is wrong")]
    Config(Vec<Diagnostic>),
    /// An address can't be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A listener's certificates can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS towards a backend or what checks callers can't be set up.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// The sockets of another process can't be taken over, or this one's not be offered.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// The admin service can't be served.
    #[error(transparent)]
    Admin(#[from] ApiError),
    /// The system refuses a thread, a signal handler or a socket.
    #[error("the system refuses")]
    Io(#[from] io::Error),
    /// A worker ended by a panic.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// Runs a gateway until a signal ends it, or another process takes over. Blocks the calling thread.
///
/// With `handover`, the path of a UNIX socket, it takes over from the process that offers its sockets there, if there is
/// one, and offers its own. `ready` is called once every listener accepts.
///
/// # Errors
/// [`ServeError`]: why it can't start, or did not end well.
pub fn run(
    source: &Source,
    format: LogFormat,
    handover: Option<&Path>,
    ready: impl FnOnce(&Addresses),
) -> Result<(), ServeError> {
    let file = config::load(source).map_err(ServeError::Config)?;
    raise_descriptors();
    memory::refuse_huge_pages();
    let (log, writer) = Log::start(format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let (before, sockets) = match handover {
            None => (None, Vec::new()),
            Some(path) => match takeover::ask(path).await? {
                None => (None, Vec::new()),
                Some((before, sockets)) => (Some(before), sockets),
            },
        };
        let manager = Arc::new(Manager::of_environment());
        let launch = Launch {
            sockets,
            spares: handover.map_or_else(Spares::default, |_| Spares::kept()),
            manager: Arc::clone(&manager),
        };
        let mut running = launched(&file, log, launch).await?;
        let offer = handover.map(Offer::at).transpose()?;
        if let Some(before) = before {
            before.ready().await;
        }
        manager.ready();
        if let Some(period) = notify::watchdog() {
            running
                .background
                .spawn(watch_over(period, running.desks.clone(), manager));
        }
        memory::give_back_program();
        ready(&running.addresses);
        let spares = running.spares.clone();
        let taken = async {
            match offer {
                Some(offer) => offer.taken(async || spares.copies()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            haste = signals.obey(&running.controls) => {
                if haste == Haste::Announced {
                    running.leave(signals.insist()).await;
                }
                running.stop().await
            }
            () = taken => {
                tracing::info!("another process has taken over");
                running.stop_at_once().await
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    Writer::join(writer);
    outcome
}

/// Lets the process hold as many descriptors as the system allows it: each connection is one, and the limit that a
/// shell hands down is often 1,024.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit on open files can't be raised");
    }
}

/// Where a gateway listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients, in the order of the configuration.
    pub listeners: Vec<SocketAddr>,
    /// For operators.
    pub admin: Option<SocketAddr>,
}

/// A gateway that serves. Dropping it does not stop it; [`Running::stop`] does.
pub struct Running {
    addresses: Addresses,
    readiness: Arc<Readiness>,
    controls: Controls,
    drain: Drain,
    /// Of the admin listener.
    admin_drain: Drain,
    spares: Spares,
    desks: Desks,
    manager: Arc<Manager>,
    workers: Workers,
    background: JoinSet<()>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Where it listens.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// Reads the configuration again and puts it in place, or says what is wrong with it and goes on as before.
    ///
    /// # Errors
    /// [`Unheard`]: nothing was done.
    ///
    /// # Cancel safety
    /// It is done all the same.
    pub async fn reload(&self) -> Result<Reloaded, Unheard> {
        self.controls.reload().await
    }

    /// Tells whoever asks that the gateway is about to stop, and serves on for the drain delay, or until `insisted`.
    async fn leave(&self, insisted: impl Future<Output = ()>) {
        let delay = self.controls.plan().plan.limits.drain_delay;
        self.readiness.set_draining();
        if delay.is_zero() {
            return;
        }
        self.manager.stopping();
        self.drain.announce();
        tracing::info!(?delay, "about to drain");
        // Which of the two it was does not matter.
        let _ = tokio::time::timeout(delay, insisted).await;
    }

    /// Stops: no new connections, calls in flight finish, and what is left after the drain time-out is cut.
    ///
    /// # Errors
    /// A worker ended by a panic.
    ///
    /// # Cancel safety
    /// The gateway goes on stopping, and nobody waits for it.
    pub async fn stop(self) -> Result<(), ServeError> {
        self.readiness.set_draining();
        self.manager.stopping();
        self.finish().await
    }

    /// The same where another process accepts already: nobody has to be given time to look elsewhere, and who asks the
    /// admin listener is answered by the other.
    async fn stop_at_once(self) -> Result<(), ServeError> {
        self.readiness.set_draining();
        self.admin_drain.begin();
        self.finish().await
    }

    async fn finish(mut self) -> Result<(), ServeError> {
        tracing::info!("draining");
        // The last copies of the sockets but those that the workers have.
        self.spares.close();
        match self.drain.done().await {
            Drained::Clean => tracing::info!("drained"),
            Drained::Cut { .. } => tracing::warn!("the drain time-out passed; what was left is cut"),
        }
        self.background.shutdown().await;
        let workers = self.workers;
        tokio::task::spawn_blocking(move || workers.join())
            .await
            .map_err(|error| ServeError::Io(io::Error::other(error)))??;
        Ok(())
    }
}

/// Starts a gateway on the current runtime and returns once it serves.
///
/// # Errors
/// [`ServeError`]: why it can't start.
///
/// # Cancel safety
/// A half-started gateway is left behind: call it to its end.
pub async fn start(file: &File, log: Log) -> Result<Running, ServeError> {
    launched(file, log, Launch::default()).await
}

/// Tells the service manager that the process is alive for as long as every worker is.
async fn watch_over(period: Duration, desks: Desks, manager: Arc<Manager>) {
    loop {
        tokio::time::sleep(period).await;
        match tokio::time::timeout(period, desks.beat()).await {
            Ok(true) => manager.alive(),
            // The manager ends what it does not hear of.
            Ok(false) | Err(_) => tracing::error!("a worker does not answer"),
        }
    }
}
