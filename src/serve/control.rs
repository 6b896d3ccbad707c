//! The control task: a configuration and what is learned become a plan, and the plan reaches the workers.
//!
//! Whatever changes is compiled whole before anything of it holds. What does not compile changes nothing, and is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::admin::{Guard, Order, Readiness, Registry, Reloaded};
use crate::config::watch::Noted;
use crate::config::{self, Diagnostic, File, Plan, SchemaState, told};
use crate::describe::inventory::Inventory;
use crate::gateway::{Prepared, Shared};
use crate::listen::{Connections, Drain, Settings};
use crate::observe::Metrics;
use crate::serve::ServeError;
use crate::serve::doors::Doors;
use crate::serve::known::Known;
use crate::serve::launch::admin_settings;
use crate::serve::lessons::Lessons;
use crate::serve::notify::Manager;
use crate::serve::registry::{Entries, Store};
use crate::serve::watcher::Watched;
use crate::serve::workers::{Desks, Placed};

/// What a gateway was started with and can't change while it runs.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    pub(super) workers: usize,
    pub(super) admin: std::net::SocketAddr,
    pub(super) data_dir: Option<PathBuf>,
}

impl Fixed {
    /// What is written otherwise.
    fn differences(&self, file: &File, plan: &Plan) -> Vec<String> {
        let mut found = Vec::new();
        if plan.workers != self.workers {
            found.push(format!("workers: {} instead of {}", plan.workers, self.workers));
        }
        if plan.admin != Some(self.admin) {
            let written = plan
                .admin
                .map_or_else(|| "none".to_owned(), |address| address.to_string());
            found.push(format!("admin.address: {written} instead of {}", self.admin));
        }
        if file.data_dir.as_ref().map(|path| &path.value) != self.data_dir.as_ref() {
            found.push("data_dir: another folder".to_owned());
        }
        found
    }
}

/// Turns orders and lessons into plans.
pub(super) struct Control {
    pub(super) file: Arc<File>,
    pub(super) known: Known,
    pub(super) lessons: Lessons,
    pub(super) manager: Arc<Manager>,
    pub(super) fixed: Fixed,
    pub(super) store: Store,
    pub(super) entries: Entries,
    pub(super) registry: watch::Sender<Registry>,
    pub(super) guard: Guard,
    pub(super) shared: Arc<Shared>,
    pub(super) plans: watch::Sender<Arc<Prepared>>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) metrics: Metrics,
    pub(super) doors: Doors,
    pub(super) desks: Desks,
    pub(super) placed: Arc<Placed>,
    pub(super) connections: Arc<Connections>,
    pub(super) drain: Drain,
    pub(super) admin: watch::Sender<Arc<Settings>>,
    pub(super) watched: watch::Sender<Watched>,
    /// Those who keep keys fresh, and those who find and check endpoints; each ends when no plan needs it.
    pub(super) keepers: JoinSet<()>,
    /// Listeners on their way out.
    pub(super) closing: TaskTracker,
}

impl Control {
    /// Carries out orders for as long as somebody can give them.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            // Dropping either arm loses nothing: both are asked again.
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(order) => self.carry_out(order).await,
                },
                is_news = self.lessons.next() => if is_news {
                    // What is wrong is in the log.
                    let _ = self.renew().await;
                }
            }
        }
    }

    /// Carries out an order. Who gave it may be gone by then; what happened is in the log.
    async fn carry_out(&mut self, order: Order) {
        match order {
            Order::Reload(answer) => {
                let _ = answer.send(self.told_reload().await);
            }
            Order::Changed(digest, answer) => {
                // Somebody else may have been faster.
                if self.watched.borrow().digest != Some(digest) {
                    self.told_reload().await;
                }
                let _ = answer.send(());
            }
            Order::PutSchema(name, upload, answer) => {
                let outcome = self.put_schema(&name, upload).await;
                match &outcome {
                    Ok(put) => {
                        tracing::info!(
                            schema = name,
                            revision = put.registered.revision,
                            "a schema is registered"
                        );
                    }
                    Err(error) => tracing::warn!(schema = name, %error, "a schema is not registered"),
                }
                let _ = answer.send(outcome);
            }
            Order::DeleteSchema(name, in_use, answer) => {
                let outcome = self.delete_schema(&name, in_use).await;
                match &outcome {
                    Ok(()) => tracing::info!(schema = name, "a schema is forgotten"),
                    Err(error) => tracing::warn!(schema = name, %error, "a schema is not forgotten"),
                }
                let _ = answer.send(outcome);
            }
        }
    }

    /// Reloads, and has the service manager know when it begins and ends.
    async fn told_reload(&mut self) -> Reloaded {
        self.manager.reloading();
        let reloaded = self.reload().await;
        self.manager.ready();
        reloaded
    }

    /// Reads the configuration again and puts it in place.
    async fn reload(&mut self) -> Reloaded {
        let Some(source) = self.file.origin.source().cloned() else {
            return self.refused(vec![
                "the configuration is not from a file that could be read again".to_owned(),
            ]);
        };
        let since = SystemTime::now();
        let noted = Noted::default();
        let paths = self.watched.borrow().paths.clone();
        let before = self.aside(move |_, _| Ok(Watched::before(paths))).await.ok();
        let read = self
            .aside({
                let noted = noted.clone();
                move |known, _| {
                    let file = config::load_noting(&source, &noted).map_err(ServeError::Config)?;
                    let schemas = known.files(&file).map_err(ServeError::Config)?;
                    Ok::<_, ServeError>((file, schemas))
                }
            })
            .await;
        let outcome = match read {
            Ok((file, schemas)) => {
                let file = Arc::new(file);
                let outcome = self.put(&file, schemas).await;
                if outcome.is_err() {
                    let before = Arc::clone(&self.file);
                    self.lessons.settle(&before);
                }
                outcome
            }
            Err(error) => Err(error),
        };
        let mut paths = noted.paths();
        if outcome.is_err() {
            // What is in place still is made of what it is made of.
            paths.extend(self.file.origin.noted().paths());
        }
        paths.sort();
        paths.dedup();
        let watched = self.aside(move |_, _| Ok(Watched::read(paths, since, before.as_ref())));
        if let Ok(watched) = watched.await {
            self.watched.send_replace(watched);
        }
        match outcome {
            Ok(reloaded) => {
                self.readiness.reloaded(Vec::new());
                tracing::info!(
                    generation = reloaded.generation,
                    changes = reloaded.changes.len(),
                    "the configuration is reloaded"
                );
                for left in &reloaded.after_restart {
                    tracing::warn!("{left}: holds after a restart only");
                }
                reloaded
            }
            Err(error) => {
                self.metrics.plan_refused();
                let errors = errors(&error);
                tell(&error);
                tracing::error!("the configuration can't be put in place; the one before stays");
                self.readiness.reloaded(errors.clone());
                self.refused(errors)
            }
        }
    }

    /// Puts a configuration in place, or changes nothing.
    async fn put(
        &mut self,
        file: &Arc<File>,
        mut schemas: BTreeMap<String, SchemaState>,
    ) -> Result<Reloaded, ServeError> {
        self.lessons.follow(file);
        self.lessons.first(file).await;
        let prepared = self.prepare(file, &mut schemas).await?;
        let doors = self.doors.prepare(&prepared.plan.listeners, &mut Vec::new())?;
        let (before, after) = (Arc::clone(&self.plans.borrow().plan), Arc::clone(&prepared.plan));
        let changes = self
            .aside(move |_, _| Ok(Inventory::of(&before).changes(&Inventory::of(&after))))
            .await?;
        let reloaded = Reloaded {
            generation: prepared.plan.generation,
            errors: Vec::new(),
            warnings: prepared.plan.warnings.iter().map(Diagnostic::brief).collect(),
            changes,
            after_restart: self.fixed.differences(file, &prepared.plan),
        };
        self.file = Arc::clone(file);
        self.lessons.settle(file);
        self.connections.limit(&prepared.plan.limits);
        self.drain.set_timeout(prepared.plan.limits.drain_timeout);
        let settings = Settings {
            pressure: Arc::clone(&self.admin.borrow().pressure),
            ..admin_settings(file)?
        };
        self.admin.send_replace(Arc::new(settings));
        self.guard
            .want(file.admin.token.as_ref().map(|token| token.0.as_str()));
        self.place(prepared).await;
        self.doors.apply(doors, &self.desks, &self.closing).await;
        Ok(reloaded)
    }

    /// A plan of the configuration in place and all that is known now.
    pub(super) async fn renewed(&mut self) -> Result<Prepared, ServeError> {
        let file = Arc::clone(&self.file);
        let read = self.aside({
            let file = Arc::clone(&file);
            move |known, _| known.files(&file).map_err(ServeError::Config)
        });
        let mut schemas = read.await?;
        self.prepare(&file, &mut schemas).await
    }

    /// Puts what was learned in place.
    async fn renew(&mut self) -> Result<(), ServeError> {
        match self.renewed().await {
            Ok(prepared) => {
                self.place(prepared).await;
                Ok(())
            }
            Err(error) => {
                self.metrics.plan_refused();
                tell(&error);
                tracing::error!("what was learned can't be put in place; the plan before stays");
                Err(error)
            }
        }
    }

    /// A plan of a configuration and all that is known, ready for the workers.
    async fn prepare(
        &mut self,
        file: &Arc<File>,
        schemas: &mut BTreeMap<String, SchemaState>,
    ) -> Result<Prepared, ServeError> {
        let generation = self.plans.borrow().plan.generation + 1;
        let states = self.lessons.states(file);
        let file = Arc::clone(file);
        let mut schemas = std::mem::take(schemas);
        let entries = self.entries.clone();
        self.aside(move |known, shared| {
            known.learned(&file, states, &mut schemas);
            known
                .registered(&file, &entries, &mut schemas)
                .map_err(ServeError::Config)?;
            let plan = compile(&file, &schemas, generation)?;
            Ok(shared.prepare(Arc::new(plan))?)
        })
        .await
    }

    /// Hands a plan to the workers and waits until all go by it.
    pub(super) async fn place(&mut self, prepared: Prepared) {
        let generation = prepared.plan.generation;
        self.plans.send_replace(Arc::new(prepared));
        let plan = Arc::clone(&self.plans.borrow().plan);
        self.lessons.doubted(&plan, &self.shared.groups());
        while self.keepers.try_join_next().is_some() {}
        for keeper in self.shared.keepers() {
            self.keepers.spawn(keeper.run());
        }
        for watcher in self.shared.watchers() {
            self.keepers.spawn(watcher);
        }
        if let Err(problem) = self.placed.all(generation).await {
            tracing::error!(problem, generation, "not every worker goes by the plan");
        }
        announce(&plan, &self.readiness, &self.metrics);
    }

    /// Does what takes long, such as compiling, where it keeps nobody from being served.
    pub(super) async fn aside<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Known, &Shared) -> Result<T, ServeError> + Send + 'static,
    ) -> Result<T, ServeError> {
        let mut known = std::mem::take(&mut self.known);
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || {
            let outcome = work(&mut known, &shared);
            (known, outcome)
        });
        match done.await {
            Ok((known, outcome)) => {
                self.known = known;
                outcome
            }
            // It panicked, which the log has; what was known is read again.
            Err(error) => Err(ServeError::Io(std::io::Error::other(error))),
        }
    }

    fn refused(&self, errors: Vec<String>) -> Reloaded {
        Reloaded {
            generation: self.plans.borrow().plan.generation,
            errors,
            ..Reloaded::default()
        }
    }
}

pub(super) fn compile(
    file: &File,
    schemas: &BTreeMap<String, SchemaState>,
    generation: u64,
) -> Result<Plan, ServeError> {
    let mut plan = config::compile(file, schemas).map_err(ServeError::Config)?;
    plan.generation = generation;
    Ok(plan)
}

/// What is wrong, each in one line.
pub(super) fn errors(error: &ServeError) -> Vec<String> {
    match error {
        ServeError::Config(found) => found.iter().map(Diagnostic::brief).collect(),
        error => vec![told(error)],
    }
}

/// Logs what is wrong, with the lines of the file.
fn tell(error: &ServeError) {
    match error {
        ServeError::Config(found) => found.iter().for_each(|found| tracing::error!("{found}")),
        error => tracing::error!(error = %told(error), "a plan can't be made"),
    }
}

/// Tells operators what a plan leaves out.
pub(super) fn announce(plan: &Plan, readiness: &Readiness, metrics: &Metrics) {
    metrics.planned(plan.generation);
    for disabled in &plan.disabled {
        tracing::warn!(method = %disabled.method, rule = %disabled.rule, reason = %disabled.reason, "an HTTP rule is not in use");
    }
    for warning in &plan.warnings {
        tracing::warn!("{warning}");
    }
    let mut pending = BTreeMap::new();
    for waiting in &plan.pending {
        tracing::warn!(backend = %waiting.backend, reason = %waiting.reason, "a backend has not told its schema yet");
        pending.insert(format!("backend {}", waiting.backend), waiting.reason.clone());
    }
    readiness.wait_for(pending);
    tracing::info!(
        generation = plan.generation,
        methods = plan.entries.len(),
        "a plan is in place"
    );
}
