//! A running gateway: workers that serve, and a control runtime for everything else.
//!
//! The control runtime learns schemas, compiles plans, watches memory and signals, and serves the admin listener. A new
//! plan reaches the workers through a channel; each puts it in place for the calls that begin afterwards.

mod control;
mod lessons;
mod workers;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::request::Parts;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin::{Admin, Readiness};
use crate::config::{self, Diagnostic, File, Source};
use crate::fault::Fault;
use crate::frontend::refuse;
use crate::gateway::{PrepareError, Shared};
use crate::identify::identify;
use crate::limits::Limits;
use crate::listen::counters::Counters;
use crate::listen::pressure::{self, Pressure};
use crate::listen::tls::TlsError;
use crate::listen::worker::{Panicked, Workers};
use crate::listen::{self, BindError, Connections, Drain, Drained, Settings, Sockets};
use crate::observe::log::Writer;
use crate::observe::{Log, LogFormat, Metrics};
use crate::policy::throttle::Book;
use crate::wire::body::Body;

use control::{Control, announce, compile};
use lessons::learn;
use workers::Bound;

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
    /// The system refuses a thread, a signal handler or a socket.
    #[error("the system refuses")]
    Io(#[from] io::Error),
    /// A worker ended by a panic.
    #[error(transparent)]
    Panicked(#[from] Panicked),
}

/// Runs a gateway until a signal ends it. Blocks the calling thread.
///
/// `ready` is called once every listener accepts.
///
/// # Errors
/// [`ServeError`]: why it can't start, or did not end well.
pub fn run(source: &Source, format: LogFormat, ready: impl FnOnce(&Addresses)) -> Result<(), ServeError> {
    let file = config::load(source).map_err(ServeError::Config)?;
    raise_descriptors();
    let (log, writer) = Log::start(format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let running = start(&file, log).await?;
        ready(&running.addresses);
        terminated().await?;
        running.stop().await
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
    drain: Drain,
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

    /// Stops: no new connections, calls in flight finish, and what is left after the drain time-out is cut.
    ///
    /// # Errors
    /// A worker ended by a panic.
    ///
    /// # Cancel safety
    /// The gateway goes on stopping, and nobody waits for it.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        self.readiness.set_draining();
        tracing::info!("draining");
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
    let mut schemas = config::schemas(file).map_err(ServeError::Config)?;
    let mut background = JoinSet::new();
    let mut lessons = learn(file, &schemas, &mut background);
    lessons.first(&mut schemas).await;
    let shared = Arc::new(Shared::default());
    let plan = compile(file, &schemas, 1)?;
    let counters = Arc::new(Counters::default());
    let metrics = Metrics::new(plan.workers, Arc::clone(&counters), log.clone());
    metrics.tell_of(Arc::clone(shared.book()));
    background.spawn(Arc::clone(shared.book()).keep_tidy());
    let readiness = Arc::new(Readiness::new());
    let pressure = Arc::new(Pressure::default());
    let drain = Drain::new(plan.limits.drain_timeout);
    let connections = Connections::new(&plan.limits);
    let bound = Bound::new(&plan, &counters, &pressure)?;
    let admin = match plan.admin {
        Some(address) => Some(Sockets::bind(address, 1)?),
        None => None,
    };
    let addresses = Addresses {
        listeners: bound.addresses.clone(),
        admin: admin.as_ref().map(Sockets::address),
    };
    let (first, workers_plan) = watch::channel(Arc::new(shared.prepare(Arc::new(plan))?));
    for keeper in shared.keepers() {
        background.spawn(keeper.run());
    }
    announce(&workers_plan.borrow().plan, &readiness, &metrics);
    let workers = bound.start(&workers_plan, &metrics, &log, &connections, &drain)?;
    background.spawn(pressure::watch(Arc::clone(&pressure), drain.clone()));
    if let Some(sockets) = admin {
        let settings = Settings {
            counters: Arc::default(),
            pressure,
            ..admin_settings(file)
        };
        serve_admin(
            sockets,
            settings,
            (&metrics, shared.book()),
            &readiness,
            &mut background,
        )?;
    }
    let control = Control {
        file: file.clone(),
        schemas,
        shared,
        plans: first,
        readiness: Arc::clone(&readiness),
        metrics,
    };
    background.spawn(control.run(lessons));
    readiness.set_ready();
    for address in &addresses.listeners {
        tracing::info!("listening on {address}");
    }
    if let Some(address) = addresses.admin {
        tracing::info!("admin on {address}");
    }
    Ok(Running {
        addresses,
        readiness,
        drain,
        workers,
        background,
    })
}

/// Renders what the listener refuses, in the dialect of the request.
fn refuse_head(head: &Parts, fault: &Fault) -> Response<Body> {
    refuse::refuse(identify(head), fault)
}

fn admin_settings(file: &File) -> Settings {
    Settings::new(file.limits.over(&Limits::default()), refuse_head)
}

fn serve_admin(
    mut sockets: Sockets,
    settings: Settings,
    (metrics, limits): (&Metrics, &Arc<Book>),
    readiness: &Arc<Readiness>,
    background: &mut JoinSet<()>,
) -> io::Result<()> {
    let Some(listener) = sockets.take(0) else {
        return Ok(());
    };
    let metrics = metrics.clone();
    let admin =
        Admin::new(Arc::clone(readiness), move || metrics.text(), refuse_head).telling_of(Arc::clone(limits));
    let connections = Connections::new(&settings.limits);
    let settings = Arc::new(settings);
    // It answers while the gateway drains, so that readiness can be asked, and ends with the process.
    let own = Drain::new(Duration::ZERO);
    background.spawn(async move {
        if let Err(error) = listen::serve(listener, settings, connections, own, admin.handler()).await {
            tracing::error!(%error, "the admin listener ended");
        }
    });
    Ok(())
}

/// Resolves when the process is told to end.
async fn terminated() -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
