//! A running gateway: workers that serve, and a control runtime for everything else.
//!
//! The control runtime learns schemas, compiles plans, watches memory, files and signals, and serves the admin listener. A
//! new plan reaches the workers through a channel; each puts it in place for the calls that begin afterwards.

mod control;
mod doors;
mod lessons;
mod notify;
mod registry;
mod takeover;
mod watcher;
mod workers;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Response;
use http::request::Parts;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, ApiError, Controls, Guard, Readiness, Reloaded, Unheard};
use crate::balance;
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
use crate::wire::body::Body;

use control::{Control, Fixed, Known, announce, compile};
use doors::Spares;
use doors::{Doors, House};
use lessons::Lessons;
use notify::Manager;
use registry::Store;
use takeover::Offer;
pub use takeover::TakeoverError;
use watcher::Watched;
use workers::{Common, Desks};

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
    refuse_huge_pages();
    let (log, writer) = Log::start(format)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let signals = Signals::listen()?;
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
        ready(&running.addresses);
        let spares = running.spares.clone();
        let taken = async {
            match offer {
                Some(offer) => offer.taken(async || spares.copies()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = signals.obey(&running.controls) => running.stop().await,
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

/// Keeps the kernel from giving two megabytes where four kilobytes are asked for: of an idle connection a few hundred
/// bytes of a page are in use, and huge pages made a gateway that did nothing half as large again.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "transparent huge pages can't be refused");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn refuse_huge_pages() {}

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

/// What a process brings along that starts.
#[derive(Debug, Default)]
struct Launch {
    /// Listening sockets of the process before.
    sockets: Vec<TcpListener>,
    /// Where copies of the sockets are kept for the process after.
    spares: Spares,
    manager: Arc<Manager>,
}

async fn launched(file: &File, log: Log, launch: Launch) -> Result<Running, ServeError> {
    let Launch {
        sockets: mut inherited,
        spares,
        manager,
    } = launch;
    let since = file.origin.read_at().unwrap_or_else(SystemTime::now);
    let file = Arc::new(file.clone());
    let mut known = Known::default();
    let mut schemas = known.files(&file).map_err(ServeError::Config)?;
    let mut lessons = Lessons::new();
    lessons.follow(&file);
    lessons.first(&file).await;
    known.learned(&file, lessons.states(&file), &mut schemas);
    let data_dir = file.data_dir.as_ref().map(|path| file.origin.resolve(path));
    let store = Store::open(data_dir.as_deref())?;
    let entries = store.load();
    known
        .registered(&file, &entries, &mut schemas)
        .map_err(ServeError::Config)?;
    let shared = Arc::new(Shared::default());
    let plan = Arc::new(compile(&file, &schemas, 1)?);
    let counters = Arc::new(Counters::default());
    let metrics = Metrics::new(plan.workers, Arc::clone(&counters), log.clone());
    let groups = Arc::clone(&shared);
    metrics.include(Box::new(move |encoder| {
        balance::metrics::encode(&groups.groups(), encoder, Instant::now())
    }));
    metrics.tell_of(Arc::clone(shared.book()));
    let readiness = Arc::new(Readiness::new());
    let pressure = Arc::new(Pressure::default());
    let drain = Drain::new(plan.limits.drain_timeout);
    let connections = Connections::new(&plan.limits);
    let mut doors = Doors::new(House {
        workers: plan.workers,
        counters,
        pressure: Arc::clone(&pressure),
        drain: drain.clone(),
        spares: spares.clone(),
    });
    let next = doors.prepare(&plan.listeners, &mut inherited)?;
    let admin_sockets = Sockets::with(file.admin.address.0, 1, &mut inherited)?;
    spares.keep(&admin_sockets)?;
    let admin_address = admin_sockets.address();
    let (plans, plans_there) = watch::channel(Arc::new(shared.prepare(Arc::clone(&plan))?));
    let (threads, desks, placed) = workers::start(
        plan.workers,
        &Common {
            plans: plans_there.clone(),
            metrics: metrics.clone(),
            log,
            connections: Arc::clone(&connections),
            drain: drain.clone(),
        },
    )?;
    let refused = |problem: String| ServeError::Io(io::Error::other(problem));
    placed.all(plan.generation).await.map_err(refused)?;
    announce(&plan, &readiness, &metrics);
    lessons.doubted(&plan);
    let mut background = JoinSet::new();
    background.spawn(Arc::clone(shared.book()).keep_tidy());
    let mut keepers = JoinSet::new();
    for keeper in shared.keepers() {
        keepers.spawn(keeper.run());
    }
    for watcher in shared.watchers() {
        keepers.spawn(watcher);
    }
    background.spawn(pressure::watch(Arc::clone(&pressure), drain.clone()));
    let (registry, registry_there) = watch::channel(registry::view(&entries));
    let (controls, orders) = Controls::new(plans_there, registry_there);
    let (admin, admin_changes) = watch::channel(Arc::new(Settings {
        pressure,
        ..admin_settings(&file)?
    }));
    let guard = Guard::default();
    guard.want(file.admin.token.as_ref().map(|token| token.0.as_str()));
    let reporting = metrics.clone();
    let operators = Admin::new(
        guard.clone(),
        Arc::clone(&readiness),
        controls.clone(),
        move || reporting.text(),
        refuse_head,
    )?
    .telling_of(Arc::clone(shared.book()));
    // It answers while the gateway drains, so that readiness can be asked, and ends with the process.
    let admin_drain = Drain::new(Duration::ZERO);
    serve_admin(
        admin_sockets,
        &admin_changes,
        &operators,
        &admin_drain,
        &mut background,
    );
    readiness.set_ready();
    let closing = TaskTracker::new();
    doors.apply(next, &desks, &closing).await;
    tracing::info!("admin on {admin_address}");
    let addresses = Addresses {
        listeners: doors.addresses(),
        admin: Some(admin_address),
    };
    let (watched, watched_there) = watch::channel(Watched::read(file.origin.noted().paths(), since, None));
    if file.origin.source().is_some() {
        background.spawn(watcher::run(watched_there, controls.clone()));
    }
    let control = Control {
        manager: Arc::clone(&manager),
        fixed: Fixed {
            workers: plan.workers,
            admin: file.admin.address.0,
            data_dir: file.data_dir.as_ref().map(|path| path.value.clone()),
        },
        store,
        entries,
        registry,
        guard,
        file,
        known,
        lessons,
        shared,
        plans,
        readiness: Arc::clone(&readiness),
        metrics,
        doors,
        desks: desks.clone(),
        placed,
        connections,
        drain: drain.clone(),
        admin,
        watched,
        keepers,
        closing,
    };
    background.spawn(control.run(orders));
    Ok(Running {
        addresses,
        readiness,
        controls,
        drain,
        admin_drain,
        spares,
        desks,
        manager,
        workers: threads,
        background,
    })
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

/// Renders what the listener refuses, in the dialect of the request.
fn refuse_head(head: &Parts, fault: &Fault) -> Response<Body> {
    refuse::refuse(identify(head), fault)
}

fn admin_settings(file: &File) -> Result<Settings, TlsError> {
    let tls = match config::listener_tls(file, file.admin.tls.as_ref()) {
        None => None,
        Some(files) => Some(doors::load(&files)?),
    };
    Ok(Settings {
        tls,
        ..Settings::new(file.limits.over(&Limits::default()), refuse_head)
    })
}

fn serve_admin(
    mut sockets: Sockets,
    settings: &watch::Receiver<Arc<Settings>>,
    admin: &Admin,
    drain: &Drain,
    background: &mut JoinSet<()>,
) {
    let connections = Connections::new(&settings.borrow().limits);
    for socket in sockets.take(0) {
        let own = drain.clone();
        let (admin, settings, connections) = (admin.clone(), settings.clone(), Arc::clone(&connections));
        background.spawn(async move {
            if let Err(error) = listen::serve(socket, settings, connections, own, admin.handler()).await {
                tracing::error!(%error, "the admin listener ended");
            }
        });
    }
}

/// The signals that the process listens to, from the moment on at which this is made: one that comes while the gateway
/// starts is not lost, and does not end the process by surprise.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Does what signals say, and resolves when one, or an operator, tells the process to end.
    async fn obey(mut self, controls: &Controls) {
        // Aside, so that a signal to end is heard meanwhile.
        let mut reloads = JoinSet::new();
        let ended = controls.ended();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                () = &mut ended => return,
                _ = self.hang_up.recv() => {}
            }
            while reloads.try_join_next().is_some() {}
            tracing::info!("told to reload");
            let controls = controls.clone();
            reloads.spawn(async move {
                // What becomes of it is in the log.
                if let Err(unheard) = controls.reload().await {
                    tracing::warn!(%unheard, "the configuration is not reloaded");
                }
            });
        }
    }
}
