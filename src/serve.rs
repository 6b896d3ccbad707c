//! A running gateway: workers that serve, and a control runtime for everything else.
//!
//! The control runtime learns schemas, compiles plans, watches memory and signals, and serves the admin listener. A new
//! plan reaches the workers through a channel; each puts it in place for the calls that begin afterwards.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::request::Parts;
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Readiness};
use crate::config::{self, Diagnostic, File, Plan, SchemaState, Source, told};
use crate::fault::Fault;
use crate::frontend::refuse;
use crate::gateway::{Gateway, Prepared, Shared};
use crate::identify::identify;
use crate::listen::counters::Counters;
use crate::listen::pressure::{self, Pressure};
use crate::listen::tls::{Identity, Tls, TlsError};
use crate::listen::worker::{Panicked, Workers};
use crate::listen::{self, BindError, Connections, Drain, Drained, Settings, Sockets};
use crate::observe::log::Writer;
use crate::observe::{Log, LogFormat, Metrics};
use crate::schema::Schema;
use crate::upstream::dice;
use crate::upstream::tls;
use crate::wire::body::Body;

/// How long a start waits for backends to tell their schema; what comes later is learned while serving.
const FIRST_LESSON: Duration = Duration::from_secs(3);
/// How long one attempt to learn a schema may take.
const LESSON: Duration = Duration::from_secs(10);
/// The first pause between attempts; it doubles. Jitter takes up to half of it away.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause: a backend that comes up is found within a breath.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Schemas that may wait for the control task; each backend has at most one on its way.
const SCHEMAS_WAITING: usize = 16;

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
    /// TLS towards a backend can't be set up.
    #[error("TLS towards a backend")]
    BackendTls(#[from] tls::TlsError),
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
    announce(&workers_plan.borrow().plan, &readiness, &metrics);
    let workers = bound.start(&workers_plan, &metrics, &log, &connections, &drain)?;
    background.spawn(pressure::watch(Arc::clone(&pressure), drain.clone()));
    if let Some(sockets) = admin {
        let settings = Settings {
            counters: Arc::default(),
            pressure,
            ..admin_settings(file)
        };
        serve_admin(sockets, settings, &metrics, &readiness, &drain, &mut background)?;
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

fn compile(
    file: &File,
    schemas: &BTreeMap<String, SchemaState>,
    generation: u64,
) -> Result<Plan, ServeError> {
    let mut plan = config::compile(file, schemas).map_err(ServeError::Config)?;
    plan.generation = generation;
    Ok(plan)
}

/// Tells operators what a plan leaves out.
fn announce(plan: &Plan, readiness: &Readiness, metrics: &Metrics) {
    metrics.planned(plan.generation);
    for disabled in &plan.disabled {
        tracing::warn!(method = %disabled.method, rule = %disabled.rule, reason = %disabled.reason, "an HTTP rule is not in use");
    }
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    for pending in &plan.pending {
        tracing::warn!(backend = %pending.backend, reason = %pending.reason, "a backend has not told its schema yet");
        readiness.wait_for(format!("backend {}", pending.backend), pending.reason.clone());
    }
    tracing::info!(
        generation = plan.generation,
        methods = plan.entries.len(),
        "a plan is in place"
    );
}

/// The listeners' sockets and settings, before they are shared out to the workers.
struct Bound {
    sockets: Vec<Sockets>,
    addresses: Vec<SocketAddr>,
    settings: Vec<Arc<Settings>>,
    workers: usize,
}

impl Bound {
    fn new(plan: &Plan, counters: &Arc<Counters>, pressure: &Arc<Pressure>) -> Result<Self, ServeError> {
        let mut bound = Self {
            sockets: Vec::new(),
            addresses: Vec::new(),
            settings: Vec::new(),
            workers: plan.workers,
        };
        for listener in &plan.listeners {
            let tls = match &listener.tls {
                None => None,
                Some(files) => {
                    let identities: Vec<Identity> = files
                        .certificates
                        .iter()
                        .map(|(certificate, key)| Identity {
                            certificate: certificate.clone(),
                            key: key.clone(),
                        })
                        .collect();
                    Some(Tls::load(&identities, files.client_ca.as_deref())?)
                }
            };
            let sockets = Sockets::bind(listener.address, plan.workers)?;
            bound.addresses.push(sockets.address());
            bound.sockets.push(sockets);
            bound.settings.push(Arc::new(Settings {
                tls,
                trusted_proxies: listener.trusted_proxies.clone(),
                counters: Arc::clone(counters),
                pressure: Arc::clone(pressure),
                ..Settings::new(listener.limits.clone(), refuse_head)
            }));
        }
        Ok(bound)
    }

    /// Starts the worker threads; returns once they run.
    fn start(
        mut self,
        plans: &watch::Receiver<Arc<Prepared>>,
        metrics: &Metrics,
        log: &Log,
        connections: &Arc<Connections>,
        drain: &Drain,
    ) -> Result<Workers, ServeError> {
        let shares = (0..self.workers)
            .map(|worker| Share {
                listeners: self
                    .sockets
                    .iter_mut()
                    .filter_map(|sockets| sockets.take(worker))
                    .collect(),
                settings: self.settings.clone(),
                plans: plans.clone(),
                shard: metrics.shard(worker),
                log: log.clone(),
                connections: Arc::clone(connections),
                drain: drain.clone(),
            })
            .collect();
        Ok(Workers::start(shares, |_number, share: Share| share.run())?)
    }
}

/// Renders what the listener refuses, in the dialect of the request.
fn refuse_head(head: &Parts, fault: &Fault) -> Response<Body> {
    refuse::refuse(identify(head), fault)
}

/// What one worker gets.
struct Share {
    listeners: Vec<std::net::TcpListener>,
    settings: Vec<Arc<Settings>>,
    plans: watch::Receiver<Arc<Prepared>>,
    shard: Arc<crate::observe::Shard>,
    log: Log,
    connections: Arc<Connections>,
    drain: Drain,
}

impl Share {
    /// The life of a worker.
    async fn run(mut self) {
        let tasks = TaskTracker::new();
        let prepared = Arc::clone(&self.plans.borrow_and_update());
        let gateway = match Gateway::new(&prepared, tasks.clone(), self.shard, self.log.clone()) {
            Ok(gateway) => Arc::new(gateway),
            Err(error) => return tracing::error!(%error, "a worker can't start"),
        };
        let replaced = tasks.spawn(replace(Arc::clone(&gateway), self.plans));
        let mut serving = JoinSet::new();
        for (listener, settings) in self.listeners.into_iter().zip(self.settings) {
            let gateway = Arc::clone(&gateway);
            let handler = move |request, peer| {
                let gateway = Arc::clone(&gateway);
                async move { gateway.handle(request, peer).await }
            };
            let connections = Arc::clone(&self.connections);
            serving.spawn(listen::serve(
                listener,
                settings,
                connections,
                self.drain.clone(),
                handler,
            ));
        }
        while let Some(served) = serving.join_next().await {
            if let Ok(Err(error)) = served {
                tracing::error!(%error, "a listener ended");
            }
        }
        replaced.abort();
        self.log.flush();
    }
}

/// Puts each new plan in place.
async fn replace(gateway: Arc<Gateway>, mut plans: watch::Receiver<Arc<Prepared>>) {
    while plans.changed().await.is_ok() {
        let prepared = Arc::clone(&plans.borrow_and_update());
        if let Err(error) = gateway.replace(&prepared) {
            tracing::error!(%error, "a plan can't be put in place; the one before stays");
        }
    }
}

fn admin_settings(file: &File) -> Settings {
    Settings::new(file.limits.over(&crate::limits::Limits::default()), refuse_head)
}

fn serve_admin(
    mut sockets: Sockets,
    settings: Settings,
    metrics: &Metrics,
    readiness: &Arc<Readiness>,
    drain: &Drain,
    background: &mut JoinSet<()>,
) -> io::Result<()> {
    let Some(listener) = sockets.take(0) else {
        return Ok(());
    };
    let metrics = metrics.clone();
    let admin = Admin::new(Arc::clone(readiness), move || metrics.text(), refuse_head);
    let connections = Connections::new(&settings.limits);
    let settings = Arc::new(settings);
    // It answers while the gateway drains, so that readiness can be asked, and ends with the process.
    let own = Drain::new(Duration::ZERO);
    let _ = drain;
    background.spawn(async move {
        if let Err(error) = listen::serve(listener, settings, connections, own, admin.handler()).await {
            tracing::error!(%error, "the admin listener ended");
        }
    });
    Ok(())
}

/// Schemas as they are learned by reflection.
struct Lessons {
    learned: mpsc::Receiver<(String, Result<Schema, String>)>,
    waiting: usize,
}

/// Starts a task for each backend that is to be asked.
fn learn(file: &File, schemas: &BTreeMap<String, SchemaState>, background: &mut JoinSet<()>) -> Lessons {
    let (sender, learned) = mpsc::channel(SCHEMAS_WAITING);
    let mut waiting = 0;
    for (name, backend) in &file.backends {
        if matches!(schemas.get(name), Some(SchemaState::Ready(_))) {
            continue;
        }
        waiting += 1;
        let student = Student {
            name: name.clone(),
            file: file.clone(),
            endpoints: backend
                .endpoints
                .iter()
                .map(|endpoint| endpoint.0.clone())
                .collect(),
        };
        background.spawn(student.run(sender.clone()));
    }
    Lessons { learned, waiting }
}

impl Lessons {
    /// Waits for the first word of each backend, but not long.
    async fn first(&mut self, schemas: &mut BTreeMap<String, SchemaState>) {
        let mut silent = self.waiting;
        let gathering = async {
            while silent > 0
                && let Some((name, outcome)) = self.learned.recv().await
            {
                silent -= 1;
                schemas.insert(name, state(outcome));
            }
        };
        // Who is silent for longer is learned while serving.
        let _ = tokio::time::timeout(FIRST_LESSON, gathering).await;
    }
}

fn state(outcome: Result<Schema, String>) -> SchemaState {
    match outcome {
        Ok(schema) => SchemaState::Ready(Arc::new(schema)),
        Err(reason) => SchemaState::Pending(reason),
    }
}

/// Learns the schema of one backend, however long it takes.
struct Student {
    name: String,
    file: File,
    endpoints: Vec<http::Uri>,
}

impl Student {
    async fn run(self, sender: mpsc::Sender<(String, Result<Schema, String>)>) {
        let mut pause = FIRST_PAUSE;
        let mut said: Option<String> = None;
        for endpoint in self.endpoints.iter().cycle() {
            let outcome = self.ask(endpoint).await;
            let done = outcome.is_ok();
            // The same reason again is no news.
            if said.as_ref() != outcome.as_ref().err() || said.is_none() {
                said = outcome.as_ref().err().cloned();
                if sender.send((self.name.clone(), outcome)).await.is_err() {
                    return;
                }
            }
            if done {
                return;
            }
            let half = pause / 2;
            let jitter = dice::below(usize::try_from(half.as_millis()).unwrap_or(usize::MAX));
            tokio::time::sleep(half + Duration::from_millis(jitter as u64)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn ask(&self, endpoint: &http::Uri) -> Result<Schema, String> {
        let Some(backend) = self.file.backends.get(&self.name) else {
            return Err("it is not configured".to_owned());
        };
        config::learn(&self.file, backend, endpoint.clone(), LESSON)
            .await
            .map_err(|error| told(&error))
    }
}

/// Turns what is learned into plans.
struct Control {
    file: File,
    schemas: BTreeMap<String, SchemaState>,
    shared: Arc<Shared>,
    plans: watch::Sender<Arc<Prepared>>,
    readiness: Arc<Readiness>,
    metrics: Metrics,
}

impl Control {
    async fn run(mut self, mut lessons: Lessons) {
        while let Some((name, outcome)) = lessons.learned.recv().await {
            let ready = outcome.is_ok();
            self.schemas.insert(name.clone(), state(outcome));
            if ready {
                self.readiness.arrived(&format!("backend {name}"));
            }
            self.plan();
        }
    }

    fn plan(&self) {
        let generation = self.plans.borrow().plan.generation + 1;
        let prepared = compile(&self.file, &self.schemas, generation)
            .and_then(|plan| Ok(self.shared.prepare(Arc::new(plan))?));
        match prepared {
            Ok(prepared) => {
                announce(&prepared.plan, &self.readiness, &self.metrics);
                self.plans.send_replace(Arc::new(prepared));
            }
            Err(ServeError::Config(errors)) => {
                self.metrics.plan_refused();
                for error in errors {
                    tracing::error!("{error}");
                }
                tracing::error!("what was learned does not compile; the plan before stays");
            }
            Err(error) => {
                self.metrics.plan_refused();
                tracing::error!(error = %told(&error), "the plan before stays");
            }
        }
    }
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
