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

use crate::admin::{
    Guard, Order, PutSchema, Readiness, Registered, Registry, RegistryError, Reloaded, Upload, WhileInUse,
};
use crate::config::file::SchemaSource;
use crate::config::watch::{Digest, Noted};
use crate::config::{self, Diagnostic, File, Plan, SchemaCache, SchemaState, told};
use crate::describe::inventory::Inventory;
use crate::gateway::{Prepared, Shared};
use crate::listen::{Connections, Drain, Settings};
use crate::observe::Metrics;
use crate::schema::Schema;
use crate::schema::reflection::Learned;
use crate::serve::doors::Doors;
use crate::serve::lessons::{Lessons, State};
use crate::serve::notify::Manager;
use crate::serve::registry::{self, Entries, Store};
use crate::serve::watcher::Watched;
use crate::serve::workers::{Desks, Placed};
use crate::serve::{ServeError, admin_settings};

/// What was read and learned, so that what stays the same is not compiled again.
#[derive(Debug, Default)]
pub(super) struct Known {
    files: SchemaCache,
    /// By backend: what it told, its rules, and what the two came to.
    taught: BTreeMap<String, (Arc<Learned>, Digest, SchemaState)>,
    /// By backend: what was registered, its rules, and what the two came to.
    registered: BTreeMap<String, (Arc<Schema>, Digest, SchemaState)>,
}

impl Known {
    /// Reads the files of a configuration's backends.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn files(&mut self, file: &File) -> Result<BTreeMap<String, SchemaState>, Vec<Diagnostic>> {
        self.files.schemas(file)
    }

    /// Adds what backends said to what files say.
    pub(super) fn learned(
        &mut self,
        file: &File,
        states: Vec<(String, State)>,
        schemas: &mut BTreeMap<String, SchemaState>,
    ) {
        for (name, state) in states {
            let Some(backend) = file.backends.get(&name) else {
                continue;
            };
            let state = match state {
                // What stands in its place says that it will be asked.
                State::Silent => continue,
                State::Refused(reason) => SchemaState::Pending(reason),
                State::Told(learned) => self.taught(file, &name, backend, learned),
            };
            schemas.insert(name, state);
        }
        self.taught.retain(|name, _| file.backends.contains_key(name));
    }

    /// Adds what is registered to what files say.
    ///
    /// # Errors
    /// What is wrong with rules that a backend has beside it.
    pub(super) fn registered(
        &mut self,
        file: &File,
        entries: &Entries,
        schemas: &mut BTreeMap<String, SchemaState>,
    ) -> Result<(), Vec<Diagnostic>> {
        self.registered.retain(|name, _| file.backends.contains_key(name));
        for (name, backend) in &file.backends {
            let Some(SchemaSource::Registry(wanted)) = backend.source() else {
                continue;
            };
            // What stands in its place says that it is not registered.
            let Some(entry) = entries.get(&wanted.value) else {
                continue;
            };
            let rules: Vec<_> = backend
                .rules
                .iter()
                .map(|path| file.origin.resolve(path))
                .collect();
            let digest = Digest::of(&rules);
            let state = match self.registered.get(name) {
                Some((known, its_rules, state))
                    if Arc::ptr_eq(known, &entry.schema) && *its_rules == digest =>
                {
                    state.clone()
                }
                Some(_) | None if rules.is_empty() => SchemaState::Ready(Arc::clone(&entry.schema)),
                Some(_) | None => {
                    let rules = config::rules(file, backend)?;
                    let schema = Schema::from_descriptor_set(&entry.registered.set, &rules)
                        .map_err(|error| vec![Diagnostic::error(format!("backends.{name}"), told(&error))])?;
                    SchemaState::Ready(Arc::new(schema))
                }
            };
            let known = (Arc::clone(&entry.schema), digest, state.clone());
            self.registered.insert(name.clone(), known);
            schemas.insert(name.clone(), state);
        }
        Ok(())
    }

    fn taught(
        &mut self,
        file: &File,
        name: &str,
        backend: &config::file::Backend,
        learned: Arc<Learned>,
    ) -> SchemaState {
        let rules: Vec<_> = backend
            .rules
            .iter()
            .map(|path| file.origin.resolve(path))
            .collect();
        let rules = Digest::of(&rules);
        let before = self.taught.get(name);
        if let Some((known, its_rules, state)) = before
            && Arc::ptr_eq(known, &learned)
            && *its_rules == rules
        {
            return state.clone();
        }
        let state = match config::taught(file, backend, Learned::clone(&learned)) {
            Ok(schema) => SchemaState::Ready(Arc::new(schema)),
            Err(error) => match before {
                Some((_, _, state @ SchemaState::Ready(_))) => {
                    tracing::error!(backend = name, error = %told(&error), "what a backend tells now makes no schema; the last one stays");
                    state.clone()
                }
                Some(_) | None => SchemaState::Pending(told(&error)),
            },
        };
        self.taught
            .insert(name.to_owned(), (learned, rules, state.clone()));
        state
    }
}

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

    /// Registers a schema: it is compiled, and the plan that it leads to, and it is kept, before it counts.
    async fn put_schema(&mut self, name: &str, upload: Upload) -> Result<PutSchema, RegistryError> {
        let failed = |error: &dyn std::error::Error| RegistryError::Kept(told(error));
        let compiled = {
            let (name, entries) = (name.to_owned(), self.entries.clone());
            self.aside(move |_, _| Ok(registry::compile(&name, upload, &entries)))
                .await
                .map_err(|error| failed(&error))?
        };
        let entry = compiled?;
        let registered = Arc::clone(&entry.registered);
        let mut warnings: Vec<String> = entry.schema.warnings.iter().map(ToString::to_string).collect();
        if self.fixed.data_dir.is_none() {
            warnings
                .push("there is no data_dir, so the schema is forgotten when the gateway ends".to_owned());
        }
        let before = self.entries.clone();
        self.entries.insert(name.to_owned(), entry);
        let outcome = self.entered(name, Some(&registered)).await;
        match outcome {
            Ok(changes) => Ok(PutSchema {
                registered,
                warnings,
                changes,
            }),
            Err(error) => {
                self.entries = before;
                Err(error)
            }
        }
    }

    async fn delete_schema(&mut self, name: &str, in_use: WhileInUse) -> Result<(), RegistryError> {
        if !self.entries.contains_key(name) {
            return Err(RegistryError::Absent(name.to_owned()));
        }
        let plan = Arc::clone(&self.plans.borrow().plan);
        let goes_by = plan
            .backends
            .iter()
            .filter(|backend| backend.registry.as_deref() == Some(name));
        let users: Vec<String> = goes_by.map(|backend| backend.name.clone()).collect();
        if in_use == WhileInUse::Refuse && !users.is_empty() {
            return Err(RegistryError::InUse(users));
        }
        let before = self.entries.clone();
        self.entries.remove(name);
        let outcome = self.entered(name, None).await;
        if outcome.is_err() {
            self.entries = before;
        }
        outcome.map(drop)
    }

    /// Puts in place what the schemas that are registered now lead to, and keeps the one of this name, or forgets it. Says
    /// what has changed.
    async fn entered(
        &mut self,
        name: &str,
        registered: Option<&Arc<Registered>>,
    ) -> Result<Vec<String>, RegistryError> {
        let prepared = self
            .renewed()
            .await
            .map_err(|error| RegistryError::Plan(errors(&error)))?;
        let (before, after) = (Arc::clone(&self.plans.borrow().plan), Arc::clone(&prepared.plan));
        let (store, name, registered) = (self.store.clone(), name.to_owned(), registered.map(Arc::clone));
        let changes = self
            .aside(move |_, _| {
                match registered {
                    Some(registered) => store.keep(&name, &registered)?,
                    None => store.forget(&name)?,
                }
                Ok(Inventory::of(&before).changes(&Inventory::of(&after)))
            })
            .await
            .map_err(|error| RegistryError::Kept(told(&error)))?;
        self.place(prepared).await;
        self.registry.send_replace(registry::view(&self.entries));
        Ok(changes)
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
    async fn renewed(&mut self) -> Result<Prepared, ServeError> {
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
    async fn place(&mut self, prepared: Prepared) {
        let generation = prepared.plan.generation;
        self.plans.send_replace(Arc::new(prepared));
        let plan = Arc::clone(&self.plans.borrow().plan);
        self.lessons.doubted(&plan);
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
    async fn aside<T: Send + 'static>(
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
fn errors(error: &ServeError) -> Vec<String> {
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
