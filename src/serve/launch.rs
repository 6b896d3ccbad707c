//! From a file to a gateway that serves: everything is made, and joined, here.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Response;
use http::request::Parts;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::admin::{Admin, Controls, Guard, Readiness};
use crate::balance;
use crate::config::{self, File};
use crate::fault::Fault;
use crate::frontend::refuse;
use crate::gateway::Shared;
use crate::identify::identify;
use crate::limits::Limits;
use crate::listen::counters::Counters;
use crate::listen::pressure::{self, Pressure};
use crate::listen::tls::TlsError;
use crate::listen::{self, Connections, Drain, Settings, Sockets};
use crate::observe::{Log, Metrics};
use crate::serve::control::{Control, Fixed, announce, compile};
use crate::serve::doors::{self, Doors, House, Spares};
use crate::serve::known::Known;
use crate::serve::lessons::Lessons;
use crate::serve::notify::Manager;
use crate::serve::registry::{self, Store};
use crate::serve::watcher::{self, Watched};
use crate::serve::workers::{self, Common};
use crate::serve::{Addresses, Running, ServeError};
use crate::wire::body::Body;

/// What a process brings along that starts.
#[derive(Debug, Default)]
pub(super) struct Launch {
    /// Listening sockets of the process before.
    pub(super) sockets: Vec<TcpListener>,
    /// Where copies of the sockets are kept for the process after.
    pub(super) spares: Spares,
    pub(super) manager: Arc<Manager>,
}

/// Starts a gateway with what a process brings along.
///
/// # Errors
/// [`ServeError`]: why it can't start.
pub(super) async fn launched(file: &File, log: Log, launch: Launch) -> Result<Running, ServeError> {
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
    lessons.doubted(&plan, &shared.groups());
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

/// Renders what the listener refuses, in the dialect of the request.
pub(super) fn refuse_head(head: &Parts, fault: &Fault) -> Response<Body> {
    refuse::refuse(identify(head), fault)
}

/// The settings of the admin listener.
///
/// # Errors
/// Its certificates can't be used.
pub(super) fn admin_settings(file: &File) -> Result<Settings, TlsError> {
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
