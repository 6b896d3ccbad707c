//! The spine: identify, find, admit, serve. One [`Gateway`] for each worker, with its own connections and counters.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, EXPECT, ORIGIN};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::backend::dispatch::Dispatch;
use crate::backend::grpc::Grpc;
use crate::backend::health::{Health, Standing};
use crate::backend::own::{self, Answers, Own};
use crate::backend::reflection::Reflection;
use crate::backend::relay::{Relay, Relayed};
use crate::backend::rest::Rest;
use crate::balance::health::{self, Check};
use crate::balance::{Balance, Group, outliers};
use crate::config::Plan;
use crate::config::plan::{self, Backend, Found, FoundPath, Lead};
use crate::config::watch::Digest;
use crate::discover::endpoints::{self, Source};
use crate::fault::{Fault, Kind, Side};
use crate::frontend::ticket::Booth;
use crate::frontend::{self, Admitted, refuse};
use crate::identify::identify;
use crate::limits::Limits;
use crate::listen::tunnel::Tunnel;
use crate::listen::{Drain, forwarded, without_body};
use crate::observe::metrics::{Key, Series};
use crate::observe::{Destination, Journal, Log, Record, Shard};
use crate::peer::Peer;
use crate::policy::auth::Authenticator;
use crate::policy::jwks::Keeper;
#[cfg(feature = "redis")]
use crate::policy::redis::Lender;
use crate::policy::revocation::{Keeper as RevocationKeeper, RevocationSetup, Revocations};
use crate::policy::setup::SetupError;
use crate::policy::throttle::{
    Adaptive, Book, Checks, Counter, OwnThrottles, Pass, Places, Room, Shedder, SheddingSetup, Standings,
    Throttle,
};
use crate::policy::{Access, Desk, Gate, Permit, Setup};
use crate::route::cors::{Cors, Origins, Preflight};
use crate::route::entry::Outbound;
use crate::route::relay::Action;
use crate::route::{Captures, Entry, PathRoute};
use crate::stack::{self, CallService};
use crate::status::Code;
use crate::translate::tally::Outcome;
use crate::translate::{Hygiene, Lane, Tally};
use crate::upstream::connect::{Http1, Http2, Settings, Speaks};
use crate::upstream::pools::{Dialling, Pools};
use crate::upstream::tls;
use crate::wire::body::{Body, Way};
use crate::wire::received::Received;
use crate::wire::{Addressing, Dialect, Format, PerDialect, Spoken};

/// What is read of a body that nobody wants: as much as clients send in one go.
const LITTLE: usize = 64 << 10;
/// How long that may take.
const MOMENT: Duration = Duration::from_millis(500);

/// What a plan needs beside itself and all workers share: endpoints with their load, and TLS towards backends.
#[derive(Debug)]
pub struct Prepared {
    /// The plan.
    pub plan: Arc<Plan>,
    /// For each backend its endpoints, and TLS if one of them needs it.
    backends: Vec<PreparedBackend>,
    /// The methods that the gateway answers itself.
    own: Vec<Own>,
    /// What checks callers, in the order in which routes count it.
    auth: Vec<Arc<Authenticator>>,
    /// How often they may call, likewise.
    counters: Vec<Arc<Counter>>,
    /// How often callers may call by limits of their own, in the order of what checks them.
    own_throttles: Vec<Option<Arc<OwnThrottles>>>,
    book: Arc<Book>,
}

#[derive(Clone, Debug)]
struct PreparedBackend {
    group: Arc<Group>,
    dialling: Dialling,
}

impl Prepared {
    /// The endpoints of a backend, by its index in the plan, with their figures.
    pub fn group(&self, backend: usize) -> Option<&Arc<Group>> {
        self.backends.get(backend).map(|backend| &backend.group)
    }
}

impl PreparedBackend {
    fn uses(&self, config: &Arc<rustls::ClientConfig>) -> bool {
        let tls = self.dialling.tls.as_ref();
        tls.is_some_and(|tls| Arc::ptr_eq(tls, config))
    }
}

/// What outlives a plan and is shared by all workers.
#[derive(Debug, Default)]
pub struct Shared {
    /// By backend: endpoints keep their figures when the plan changes.
    groups: Mutex<HashMap<String, Arc<Known>>>,
    /// What is done for groups in the background, until somebody runs it.
    watchers: Mutex<Vec<Watcher>>,
    /// By what is written and what is in the files.
    tls: Mutex<HashMap<(plan::BackendTls, Digest), Arc<rustls::ClientConfig>>>,
    /// What checks callers stays, with the keys that were fetched, while its block of the configuration and its files
    /// do.
    auth: Mutex<HashMap<(Setup, Digest), Checked>>,
    /// What is revoked, while a block of the configuration asks for it.
    revocations: Mutex<HashMap<RevocationSetup, Revoked>>,
    /// Those who keep fetched keys fresh, until somebody runs them.
    keepers: Mutex<Vec<KeeperTask>>,
    /// What was used of limits stays used.
    book: Arc<Book>,
}

#[derive(Debug)]
struct Checked {
    authenticator: Arc<Authenticator>,
    /// Ends those who keep its keys fresh when it is dropped.
    _keepers: DropGuard,
}

#[derive(Debug)]
struct Revoked {
    revocations: Arc<Revocations>,
    /// Ends who keeps it fresh when it is dropped.
    _keeper: DropGuard,
}

/// Keeps something fresh for as long as the plan needs it.
#[derive(Debug)]
pub enum KeeperTask {
    /// The keys of one issuer.
    Keys(Box<Keeper>, CancellationToken),
    /// What is revoked.
    Revocations(RevocationKeeper, CancellationToken),
    /// What is borrowed of the limits that a cluster shares.
    #[cfg(feature = "redis")]
    Limits(Box<Lender>),
}

impl KeeperTask {
    /// Runs until a plan that does without is in place.
    ///
    /// # Cancel safety
    /// What was fetched last stays.
    pub async fn run(self) {
        match self {
            Self::Keys(keeper, end) => {
                // It ends in no other way than by being told.
                let _ = end.run_until_cancelled(keeper.run()).await;
            }
            Self::Revocations(keeper, end) => {
                // As above.
                let _ = end.run_until_cancelled(keeper.run()).await;
            }
            #[cfg(feature = "redis")]
            Self::Limits(lender) => lender.run().await,
        }
    }
}

/// A group and what it was made of.
#[derive(Debug)]
struct Known {
    source: Source,
    health: Option<Check>,
    dialling: Dialling,
    group: Arc<Group>,
}

/// What is done for a group in the background.
#[derive(Debug)]
struct Watcher {
    group: Weak<Group>,
    source: Source,
    health: Option<Check>,
    dialling: Dialling,
}

impl Watcher {
    /// Finds endpoints, checks them and compares them, until the group is gone.
    async fn run(self) {
        let checks = async {
            if let Some(check) = self.health {
                health::watch(Weak::clone(&self.group), check, self.dialling).await;
            }
        };
        tokio::join!(
            endpoints::watch(self.source, Weak::clone(&self.group)),
            checks,
            outliers::watch(Weak::clone(&self.group)),
        );
    }
}

/// Why a plan can't be made ready.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// TLS towards a backend can't be set up.
    #[error("TLS towards a backend")]
    Tls(#[from] tls::TlsError),
    /// Callers can't be checked.
    #[error("auth \"{0}\"")]
    Auth(String, #[source] SetupError),
}

impl Shared {
    /// Makes a plan ready for the workers.
    ///
    /// # Errors
    /// TLS towards a backend can't be set up, or a file of keys can't be used; the error names the file.
    pub fn prepare(&self, plan: Arc<Plan>) -> Result<Prepared, PrepareError> {
        // What may fail comes first, and nothing is forgotten until all is well.
        let auth = self.authenticators(&plan)?;
        let backends = plan
            .backends
            .iter()
            .map(|backend| self.backend(backend, &plan.limits))
            .collect::<Result<Vec<_>, _>>()?;
        self.groups
            .lock()
            .retain(|name, _| plan.backends.iter().any(|backend| backend.name == *name));
        self.tls
            .lock()
            .retain(|_, config| backends.iter().any(|backend| backend.uses(config)));
        self.auth
            .lock()
            .retain(|_, known| auth.iter().any(|used| Arc::ptr_eq(used, &known.authenticator)));
        self.revocations.lock().retain(|setup, _| {
            plan.auth
                .iter()
                .any(|used| used.revocation.as_ref() == Some(setup))
        });
        let own = own::all(&plan.limits, &plan.offer);
        let cluster = self.book.cluster(plan.cluster.as_ref());
        #[cfg(feature = "redis")]
        if let Some(lender) = cluster.as_ref().and_then(Lender::new) {
            self.keepers.lock().push(KeeperTask::Limits(Box::new(lender)));
        }
        let brought = auth.iter().flat_map(|one| one.own_limits()).flatten();
        let limits: Vec<_> = plan.rate_limits.iter().chain(brought).cloned().collect();
        let mut counters = self.book.counters(&limits, cluster.as_ref());
        let mut of_keys = counters.drain(plan.rate_limits.len()..);
        let own_throttles = auth
            .iter()
            .map(|one| OwnThrottles::new(&self.book, one.own_limits(), &mut of_keys))
            .collect();
        drop(of_keys);
        Ok(Prepared {
            counters,
            own_throttles,
            book: Arc::clone(&self.book),
            plan,
            backends,
            own,
            auth,
        })
    }

    /// What was used of limits.
    pub fn book(&self) -> &Arc<Book> {
        &self.book
    }

    /// Those who keep keys fresh and have not been run yet. Ask after each plan that was prepared.
    pub fn keepers(&self) -> Vec<KeeperTask> {
        std::mem::take(&mut self.keepers.lock())
    }

    fn authenticators(&self, plan: &Plan) -> Result<Vec<Arc<Authenticator>>, PrepareError> {
        let mut known = self.auth.lock();
        let mut all = Vec::new();
        for setup in &plan.auth {
            let key = (setup.clone(), Digest::of(&setup.files()));
            if let Some(one) = known.get(&key) {
                all.push(Arc::clone(&one.authenticator));
                continue;
            }
            let revocations = setup
                .revocation
                .as_ref()
                .map(|it| self.revocations(it))
                .transpose();
            let (one, keepers) = revocations
                .and_then(|revocations| setup.load(revocations))
                .map_err(|error| PrepareError::Auth(setup.name.clone(), error))?;
            let end = CancellationToken::new();
            let task = |keeper| KeeperTask::Keys(Box::new(keeper), end.clone());
            self.keepers.lock().extend(keepers.into_iter().map(task));
            let authenticator = Arc::new(one);
            all.push(Arc::clone(&authenticator));
            let checked = Checked {
                authenticator,
                _keepers: end.drop_guard(),
            };
            known.insert(key, checked);
        }
        Ok(all)
    }

    /// What is revoked: the same lists for as long as they are asked for, so that nothing is taken back for a moment.
    fn revocations(&self, setup: &RevocationSetup) -> Result<Arc<Revocations>, SetupError> {
        let mut known = self.revocations.lock();
        if let Some(known) = known.get(setup) {
            return Ok(Arc::clone(&known.revocations));
        }
        let revocations = Arc::new(Revocations::new(setup)?);
        let end = CancellationToken::new();
        let keeper = RevocationKeeper::new(&revocations);
        let task = KeeperTask::Revocations(keeper, end.clone());
        self.keepers.lock().push(task);
        let one = Revoked {
            revocations: Arc::clone(&revocations),
            _keeper: end.drop_guard(),
        };
        known.insert(setup.clone(), one);
        Ok(revocations)
    }

    fn backend(&self, backend: &Backend, limits: &Limits) -> Result<PreparedBackend, tls::TlsError> {
        let secure = backend.source.is_secure();
        let tls = secure.then(|| self.tls(&backend.tls)).transpose()?;
        let dialling = dialling(backend, tls, limits);
        Ok(PreparedBackend {
            group: self.group(backend, &dialling),
            dialling,
        })
    }

    /// The endpoints of a backend: the same group while what is configured of them stays, and else one in which endpoints
    /// that stay keep their figures.
    fn group(&self, backend: &Backend, dialling: &Dialling) -> Arc<Group> {
        let mut groups = self.groups.lock();
        let before = groups.get(&backend.name);
        if let Some(known) = before
            && known.source == backend.source
            && known.health == backend.health
            && known.dialling.is(dialling)
            && *known.group.settings() == backend.balancing
        {
            return Arc::clone(&known.group);
        }
        // What was found by the same source before is better than nothing, until it tells.
        let listed = match before {
            Some(known) if known.source == backend.source => known.group.members().listed().collect(),
            Some(_) | None => backend.source.known().to_vec(),
        };
        let group = Arc::new(Group::new(
            &backend.name,
            backend.balancing.clone(),
            &listed,
            before.map(|known| &*known.group),
        ));
        let (source, health) = (backend.source.clone(), backend.health.clone());
        let watcher = Watcher {
            group: Arc::downgrade(&group),
            source: source.clone(),
            health: health.clone(),
            dialling: dialling.clone(),
        };
        self.watchers.lock().push(watcher);
        let known = Known {
            source,
            health,
            dialling: dialling.clone(),
            group: Arc::clone(&group),
        };
        groups.insert(backend.name.clone(), Arc::new(known));
        group
    }

    /// What is to be done for groups in the background and nobody does yet: each runs until its group is gone.
    pub fn watchers(&self) -> Vec<impl Future<Output = ()> + Send + 'static> {
        let watchers = std::mem::take(&mut *self.watchers.lock());
        watchers.into_iter().map(Watcher::run).collect()
    }

    /// The endpoints of every backend, by the names of the backends.
    pub fn groups(&self) -> Vec<Arc<Group>> {
        let groups = self.groups.lock();
        let mut groups: Vec<_> = groups.values().map(|known| Arc::clone(&known.group)).collect();
        groups.sort_by(|a, b| a.name().cmp(b.name()));
        groups
    }

    /// The TLS set-up for these files; the same one as long as what is in them is, so that sessions resume.
    fn tls(&self, files: &plan::BackendTls) -> Result<Arc<rustls::ClientConfig>, tls::TlsError> {
        let mut known = self.tls.lock();
        let key = (files.clone(), Digest::of(&files.paths()));
        if let Some(config) = known.get(&key) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(tls::client_config(
            files.ca.as_deref(),
            files
                .certificate
                .as_ref()
                .map(|(certificate, key)| (certificate.as_path(), key.as_path())),
        )?);
        known.insert(key, Arc::clone(&config));
        Ok(config)
    }
}

/// A plan with its gates and stacks built for one worker. Calls keep the one they began with, and what they hold of it is
/// the worker's own copy: to count holders in common would be a cache line that all workers write to in every call.
struct Live {
    plan: Arc<Plan>,
    entries: Vec<LiveEntry>,
    paths: Vec<LivePath>,
    /// Methods that the gateway answers itself, by rpc path.
    own: Vec<LiveEntry>,
    /// Where tickets are given.
    booths: Vec<Booth>,
    /// Where requests are counted that lead nowhere.
    nowhere: PerDialect<Arc<Series>>,
}

struct LiveEntry {
    entry: Arc<Entry>,
    gate: Gate,
    stack: CallService,
    series: PerDialect<Arc<Series>>,
}

struct LivePath {
    route: Arc<PathRoute>,
    gate: Gate,
    relay: Relay,
    series: PerDialect<Arc<Series>>,
}

/// One worker's gateway.
pub struct Gateway {
    live: ArcSwap<Live>,
    worker: Worker,
}

/// What a worker keeps from plan to plan. Whatever a call holds of it is counted here, apart from other workers.
struct Worker {
    pools: Arc<Pools>,
    desks: Mutex<Vec<Arc<Desk>>>,
    shedder: Mutex<Option<Arc<Shedder>>>,
    tasks: TaskTracker,
    shard: Arc<Shard>,
    journal: Arc<Journal>,
    health: Health,
}

impl Gateway {
    /// A worker's gateway over its first plan. Tasks that calls need are spawned on `tasks`; `drain` is the signal that
    /// the process ends.
    ///
    /// # Errors
    /// An endpoint that can't be dialled by its URL.
    pub fn new(
        prepared: &Prepared,
        tasks: TaskTracker,
        shard: Arc<Shard>,
        log: Log,
        drain: Drain,
    ) -> io::Result<Self> {
        let worker = Worker {
            pools: Arc::new(Pools::new(tasks.clone())),
            desks: Mutex::default(),
            shedder: Mutex::default(),
            journal: Arc::new(Journal::new(log, tasks.clone())),
            tasks,
            shard,
            health: Health::new(drain),
        };
        let live = worker.build(prepared)?;
        Ok(Self {
            live: ArcSwap::from_pointee(live),
            worker,
        })
    }

    /// Puts another plan in place. Calls in flight finish on theirs; connections that are still wanted stay.
    ///
    /// # Errors
    /// An endpoint that can't be dialled by its URL; the plan before stays.
    pub fn replace(&self, prepared: &Prepared) -> io::Result<()> {
        self.live.store(Arc::new(self.worker.build(prepared)?));
        Ok(())
    }

    /// Serves one request.
    ///
    /// # Cancel safety
    /// Dropping it, or the body of the response, cancels the call upstream.
    pub fn handle(
        self: Arc<Self>,
        request: Request<Received>,
        peer: Peer,
    ) -> impl Future<Output = Response<Body>> + Send {
        let now = Instant::now();
        let (mut head, body) = request.into_parts();
        async move {
            let live = self.live.load_full();
            let spoken = identify(&head);
            let dialect = spoken.dialect;
            let mut record = self.record(&live, spoken, &head, &peer, now);
            let mut response = if let Some((entry, allowed)) = live.preflight(&head) {
                record.enter(entry, spoken);
                // What needs no call is over, and well.
                record.tally.end(Outcome::Upstream(Code::Ok));
                no_content(allowed)
            } else if let Some(booth) = live.booths.iter().find(|booth| booth.is_asked(&head)) {
                match booth.give(&mut head, &peer, now).await {
                    Ok(response) => {
                        record.tally.end(Outcome::Upstream(Code::Ok));
                        response
                    }
                    Err(fault) => {
                        read_off(&head, body).await;
                        refused(spoken, &record.tally, &fault)
                    }
                }
            } else {
                match live.find(dialect, &head) {
                    Ok(Reached::Call(entry, found)) => {
                        record.enter(entry, spoken);
                        let cors = entry.entry.route.cors.as_ref();
                        let origin = cors.and_then(|_| head.headers.get(ORIGIN).cloned());
                        let mut response = match entry.admit(dialect, &mut head, &peer, now).await {
                            Ok(mut permit) => {
                                let told = record.passed(&mut permit);
                                let admitted = Admitted {
                                    head,
                                    body,
                                    format: spoken.format,
                                    entry: Arc::clone(&entry.entry),
                                    binding: found.binding,
                                    captures: found.captures,
                                    permit,
                                    tally: Arc::clone(&record.tally),
                                    now,
                                };
                                let response = match stack::ready(&entry.stack).await {
                                    Ok(stack) => frontend::serve(dialect, admitted, stack).await,
                                    Err(fault) => refused(spoken, &record.tally, &fault),
                                };
                                telling(told, response)
                            }
                            Err(fault)
                                if fault.kind() == Kind::CredentialsMissing
                                    && entry.gate.takes_first_message()
                                    && frontend::proves_later(dialect, &head) =>
                            {
                                let unproven = frontend::Unproven {
                                    prove: prove(entry.gate.clone(), head.clone(), peer),
                                    head,
                                    body,
                                    entry: Arc::clone(&entry.entry),
                                    binding: found.binding,
                                    captures: found.captures,
                                    tally: Arc::clone(&record.tally),
                                };
                                frontend::websocket::serve_unproven(unproven, entry.stack.clone())
                            }
                            Err(fault) => {
                                read_off(&head, body).await;
                                refused(spoken, &record.tally, &fault)
                            }
                        };
                        if let Some(cors) = cors {
                            cors.share(origin.as_ref(), response.headers_mut());
                        }
                        response
                    }
                    Ok(Reached::Path(path, found)) => {
                        record.relay(path, dialect);
                        let admitted = match frontend::prepare_relayed(dialect, &head, &peer, &path.route) {
                            Ok(()) => admit(&path.gate, &mut head, &peer, now).await,
                            Err(fault) => Err(fault),
                        };
                        match admitted {
                            Ok(mut permit) => {
                                let told = record.passed(&mut permit);
                                let relayed = Relayed {
                                    head,
                                    body: Body::incoming(body, Side::Client)
                                        .counted(&record.tally, Way::Request),
                                    path: found.path,
                                    captures: found.captures,
                                    secure: peer.secure(),
                                    permit,
                                    tally: Arc::clone(&record.tally),
                                };
                                let response = path.relay.serve(relayed).await;
                                telling(
                                    told,
                                    response.unwrap_or_else(|fault| refused(spoken, &record.tally, &fault)),
                                )
                            }
                            Err(fault) => {
                                read_off(&head, body).await;
                                refused(spoken, &record.tally, &fault)
                            }
                        }
                    }
                    Err(fault) => {
                        read_off(&head, body).await;
                        refused(spoken, &record.tally, &fault)
                    }
                }
            };
            record.http_status = response.status().as_u16();
            if let Some(tunnel) = Tunnel::take(&mut response) {
                // The call goes on after its answer, and is written when the tunnel has ended.
                tunnel.holding(record.detached()).put(&mut response);
                return response;
            }
            if record.method == Method::HEAD {
                without_body(&mut response);
            }
            response.body_mut().wrap(|body| {
                let body = body.counted(&record.tally, Way::Reply);
                body.holding_boxed(record)
            });
            response
        }
    }

    fn record(&self, live: &Live, spoken: Spoken, head: &Parts, peer: &Peer, now: Instant) -> Box<Record> {
        let Spoken { dialect, format } = spoken;
        let series = Arc::clone(live.nowhere.get(dialect));
        series.begin();
        // In its place from the first on: it is held until the answer has gone out.
        Box::new(Record {
            journal: Arc::clone(&self.worker.journal),
            began: now,
            client: peer.ip(),
            dialect,
            method: head.method.clone(),
            uri: head.uri.clone(),
            generation: live.plan.generation,
            destination: None,
            lane: Lane::between(format, Format::GRPC),
            http_status: 0,
            tally: Arc::default(),
            series,
            places: Places::default(),
        })
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway")
            .field("generation", &self.live.load().plan.generation)
            .finish_non_exhaustive()
    }
}

impl Record {
    /// Keeps the places of a call to its end, and gives what its client is told of limits.
    fn passed(&mut self, permit: &mut Permit) -> Option<Standings> {
        let pass = permit.pass()?;
        self.places = pass.take_places();
        pass.take_standings()
    }

    /// From here on the call is one of this entry.
    fn enter(&mut self, live: &LiveEntry, spoken: Spoken) {
        self.destination = Some(Destination::Method(Arc::clone(&live.entry)));
        self.lane = live.entry.outbound.lane(spoken.format);
        self.recount(live.series.get(spoken.dialect));
    }

    /// From here on the request is one of this route.
    fn relay(&mut self, live: &LivePath, dialect: Dialect) {
        self.destination = Some(Destination::Path(Arc::clone(&live.route)));
        self.lane = Lane::Relay;
        self.recount(live.series.get(dialect));
    }
}

/// What a request leads to.
enum Reached<'l> {
    Call(&'l LiveEntry, Found),
    Path(&'l LivePath, FoundPath),
}

/// An answer with what its client is told of limits.
fn telling(told: Option<Standings>, mut response: Response<Body>) -> Response<Body> {
    if let Some(told) = told {
        told.tell(response.headers_mut());
    }
    response
}

fn refused(spoken: Spoken, tally: &Tally, fault: &Fault) -> Response<Body> {
    if let Some(limit) = fault.limit() {
        tally.met(limit);
    }
    tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    refuse::refuse(spoken, fault)
}

/// Reads what a refused client is sending, within reason: on HTTP/1.1 an answer in the middle of its body would end the
/// connection, and the client would hear of a broken pipe instead of its fault.
async fn read_off(head: &Parts, body: Received) {
    // A client that waits for leave to send is told before it has sent anything.
    if head.version != Version::HTTP_11 || head.headers.contains_key(EXPECT) {
        return;
    }
    let reading = Limited::new(body, LITTLE).collect();
    // What is longer, slower or broken off ends the connection after all.
    let _ = tokio::time::timeout(MOMENT, reading).await;
}

fn no_content(headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers;
    response
}

impl Live {
    /// The answer to a preflight request that a route with CORS decides on, and whose origin it allows.
    fn preflight(&self, head: &Parts) -> Option<(&LiveEntry, HeaderMap)> {
        let preflight = Preflight::of(head)?;
        let live = self.entries.get(self.plan.find_for(&preflight, head)?)?;
        let allowed = live.entry.route.cors.as_ref()?.preflight(&preflight)?;
        Some((live, allowed))
    }

    /// Finds what a request asks for.
    fn find(&self, dialect: Dialect, head: &Parts) -> Result<Reached<'_>, Fault> {
        let missing = || Fault::gateway(Kind::Internal, "the route table names an entry that is not there");
        let missed = match self.plan.lead(dialect, head) {
            Ok(Lead::Method(found)) => match self.entries.get(found.entry) {
                Some(live) => return Ok(Reached::Call(live, found)),
                None => missing(),
            },
            Ok(Lead::Path(found)) => match self.paths.get(found.route) {
                Some(live) => return Ok(Reached::Path(live, found)),
                None => missing(),
            },
            Err(fault) => fault,
        };
        let own = match dialect.addressing() {
            Addressing::RpcPath => self
                .own
                .iter()
                .find(|live| *live.entry.method.path == *head.uri.path()),
            Addressing::Rules | Addressing::Path => None,
        };
        let found = Found {
            entry: 0,
            binding: None,
            captures: Captures::default(),
        };
        own.map(|live| Reached::Call(live, found)).ok_or(missed)
    }
}

impl LiveEntry {
    /// Lets the gate decide.
    async fn admit(
        &self,
        dialect: Dialect,
        head: &mut Parts,
        peer: &Peer,
        now: Instant,
    ) -> Result<Permit, Fault> {
        frontend::prepare(dialect, head, peer, &self.entry)?;
        admit(&self.gate, head, peer, now).await
    }
}

/// Lets the gate decide when the client has said who it is.
fn prove(gate: Gate, mut head: Parts, peer: Peer) -> frontend::Prove {
    Box::new(move |credential| {
        Box::pin(async move {
            head.headers.insert(AUTHORIZATION, credential);
            let mut permit = admit(&gate, &mut head, &peer, Instant::now()).await?;
            let held = permit.pass().map(Pass::take_places);
            Ok(frontend::Proven {
                head,
                permit,
                held: Box::new(held),
            })
        })
    })
}

/// Lets the gate of a route decide.
async fn admit(gate: &Gate, head: &mut Parts, peer: &Peer, now: Instant) -> Result<Permit, Fault> {
    let permit = gate.admit(head, peer, now).await?;
    let host = plan::host(head).and_then(|host| HeaderValue::from_str(host).ok());
    forwarded::rewrite(&mut head.headers, peer, host);
    Ok(permit)
}

impl Worker {
    fn build(&self, prepared: &Prepared) -> io::Result<Live> {
        let plan = Arc::clone(&prepared.plan);
        let backends = self.backends(prepared);
        let own_params = stack::Params {
            idle_timeout: plan.limits.idle_timeout,
            hygiene: Hygiene::default(),
            revocable: true,
            asks_messages: false,
            pace: None,
        };
        let desks = self.desks(prepared);
        let shedder = self.shedder(&prepared.book, prepared.plan.shedding);
        let shedder = shedder.as_ref();
        let entries = plan
            .entries
            .iter()
            .map(|entry| {
                let entry = Arc::new(entry.apart());
                let dispatch = backends
                    .get(entry.route.backend)
                    .cloned()
                    .ok_or_else(|| io::Error::other("a route names a backend that is not there"))?;
                let throttle = throttle(prepared, &entry);
                let params = stack::Params {
                    hygiene: entry.route.hygiene,
                    revocable: is_revocable(entry.auth(), &prepared.auth),
                    asks_messages: throttle.as_ref().is_some_and(|throttle| throttle.asks_messages()),
                    pace: entry.checks.pace,
                    idle_timeout: idle_timeout(&plan, entry.route.backend),
                };
                let stack = match &entry.outbound {
                    Outbound::Grpc => {
                        stack::build(params, Grpc::new(dispatch, &entry.method, entry.answer.clone()))
                    }
                    Outbound::Rest(rest) => {
                        let (rest, answer) = (Arc::clone(rest), entry.answer.clone());
                        stack::build(params, Rest::new(dispatch, &entry.method, rest, answer))
                    }
                };
                Ok(self.entry(entry, &desks, prepared, throttle, stack, shedder))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let paths = plan
            .paths
            .iter()
            .map(|route| self.path(route, &backends, &desks, prepared, shedder))
            .collect::<io::Result<Vec<_>>>()?;
        let own = prepared
            .own
            .iter()
            .map(|own| {
                let stack = match own.answers {
                    Answers::Reflection => stack::build(own_params, Reflection::new(plan.reflection.clone())),
                    Answers::Health => stack::build(own_params, self.health.clone()),
                };
                // What is asked by those who look after the gateway.
                self.entry(Arc::new(own.entry.apart()), &desks, prepared, None, stack, None)
            })
            .collect();
        let balances: Vec<_> = backends
            .iter()
            .map(|backend| Arc::clone(backend.balance()))
            .collect();
        self.health.replace(Standing::new(&plan, &balances));
        let nowhere = self.all_series("", "");
        let gates = desks
            .iter()
            .map(|desk| Gate::new(Some(Arc::clone(desk)), None, Vec::new()));
        let booths = gates.filter_map(Booth::of).collect();
        Ok(Live {
            booths,
            plan,
            entries,
            paths,
            own,
            nowhere,
        })
    }

    /// What sheds load here: the same one for as long as it does so on the same terms.
    fn shedder(&self, book: &Book, wanted: Option<SheddingSetup>) -> Option<Arc<Shedder>> {
        let mut known = self.shedder.lock();
        if known.as_ref().map(|shedder| shedder.setup()) != wanted {
            *known = wanted.map(|setup| {
                let (shedder, watch) = book.shedder(setup);
                // It looks at this worker, and ends when nobody goes by it.
                self.tasks.spawn(watch);
                shedder
            });
        }
        known.clone()
    }

    /// A desk for each authenticator; what was proven stays proven when the plan changes.
    fn desks(&self, prepared: &Prepared) -> Vec<Arc<Desk>> {
        let mut known = self.desks.lock();
        let desks: Vec<Arc<Desk>> = prepared
            .auth
            .iter()
            .map(|authenticator| {
                let same = known
                    .iter()
                    .find(|desk| Arc::ptr_eq(desk.authenticator(), authenticator));
                same.map_or_else(
                    || Arc::new(Desk::new(Arc::clone(authenticator), &self.tasks)),
                    Arc::clone,
                )
            })
            .collect();
        known.clone_from(&desks);
        desks
    }

    fn path(
        &self,
        route: &PathRoute,
        backends: &[Dispatch],
        desks: &[Arc<Desk>],
        prepared: &Prepared,
        shedder: Option<&Arc<Shedder>>,
    ) -> io::Result<LivePath> {
        let idle_timeout = match &route.action {
            Action::Relay(relay) => relay
                .shares
                .first()
                .map_or(prepared.plan.limits.idle_timeout, |(at, _)| {
                    idle_timeout(&prepared.plan, *at)
                }),
            Action::Redirect(_) => prepared.plan.limits.idle_timeout,
        };
        let route = Arc::new(route.apart());
        let relay = Relay::new(Arc::clone(&route), |at| backends.get(at).cloned(), idle_timeout)
            .map_err(|_| io::Error::other("a route names a backend that is not there"))?;
        Ok(LivePath {
            // What comes of a form is for the service behind to say.
            gate: gate(route.auth, route.access.as_ref(), None, desks)
                .throttled_by_caller(own_throttles(prepared, route.auth))
                .taking_forms()
                .screened(route.screen.clone())
                .sheddable(shedder, route.checks.priority)
                .throttled(Throttle::new(
                    &prepared.book,
                    &route.checks,
                    on_route(&prepared.book, &route.name, &route.checks)
                        .into_iter()
                        .collect(),
                    &prepared.counters,
                    None,
                )),
            relay,
            series: self.all_series(&route.name, ""),
            route,
        })
    }

    fn entry(
        &self,
        entry: Arc<Entry>,
        desks: &[Arc<Desk>],
        prepared: &Prepared,
        throttle: Option<Arc<Throttle>>,
        stack: CallService,
        shedder: Option<&Arc<Shedder>>,
    ) -> LiveEntry {
        let rpc = entry.method.path.trim_start_matches('/');
        let series = self.all_series(&entry.route.name, rpc);
        LiveEntry {
            gate: gate(
                entry.auth(),
                entry.access.as_ref(),
                entry.route.cors.as_ref(),
                desks,
            )
            .screened(entry.route.screen.clone())
            .sheddable(shedder, entry.checks.priority)
            .throttled(throttle)
            .throttled_by_caller(own_throttles(prepared, entry.auth())),
            stack,
            series,
            entry,
        }
    }

    fn all_series(&self, route: &str, rpc: &str) -> PerDialect<Arc<Series>> {
        PerDialect::new(|dialect| {
            self.shard.series(Key {
                route: route.to_owned(),
                rpc: rpc.to_owned(),
                dialect: dialect.name(),
            })
        })
    }

    /// The backends over this worker's pools; those that several plans want are shared, and the others go.
    fn backends(&self, prepared: &Prepared) -> Vec<Dispatch> {
        let balance = |ready: &PreparedBackend| {
            Balance::new(
                Arc::clone(&ready.group),
                Arc::clone(&self.pools),
                ready.dialling.clone(),
            )
        };
        let balances: Vec<_> = prepared.backends.iter().map(balance).map(Arc::new).collect();
        let dispatch = |balance: &Arc<Balance>, fallback| {
            Dispatch::new(Arc::clone(balance), self.tasks.clone(), fallback)
        };
        let backends = prepared.plan.backends.iter().zip(&balances);
        backends
            .map(|(backend, balance)| {
                let fallback = backend.fallback.and_then(|at| balances.get(at));
                dispatch(balance, fallback.map(|other| dispatch(other, None)))
                    .with_page(backend.page.clone().map(Arc::new))
                    .with_room(at_backend(&prepared.book, backend))
                    .adapting(by_answers(&prepared.book, backend))
            })
            .collect()
    }
}

/// How the endpoints of a backend are dialled.
fn dialling(backend: &Backend, tls: Option<Arc<rustls::ClientConfig>>, limits: &Limits) -> Dialling {
    Dialling {
        tls,
        server_name: backend
            .tls
            .server_name
            .clone()
            .or_else(|| backend.source.server_name()),
        authority: backend.source.authority(),
        connect_timeout: backend.connect_timeout,
        settings: settings(backend.speaks, limits),
    }
}

/// Whether what callers of a route prove can be taken back.
fn is_revocable(auth: Option<usize>, all: &[Arc<Authenticator>]) -> bool {
    auth.and_then(|at| all.get(at))
        .is_some_and(|authenticator| authenticator.revocations().is_some())
}

/// How long a stream of a backend may be silent.
fn idle_timeout(plan: &Plan, backend: usize) -> Duration {
    plan.backends
        .get(backend)
        .map_or(plan.limits.idle_timeout, |backend| backend.idle_timeout)
}

/// The limits that callers of a route bring with them.
fn own_throttles(prepared: &Prepared, auth: Option<usize>) -> Option<Arc<OwnThrottles>> {
    prepared.own_throttles.get(auth?)?.clone()
}

/// What a method asks of limits.
fn throttle(prepared: &Prepared, entry: &Entry) -> Option<Arc<Throttle>> {
    let book = &prepared.book;
    let at_backend = prepared
        .plan
        .backends
        .get(entry.route.backend)
        .and_then(|backend| at_backend(book, backend));
    let rooms = on_route(book, &entry.route.name, &entry.checks)
        .into_iter()
        .chain(at_backend);
    let method = entry.method.path.trim_start_matches('/');
    Throttle::new(
        book,
        &entry.checks,
        rooms.collect(),
        &prepared.counters,
        Some(method),
    )
}

/// Room for the calls of a route, if that is bounded.
fn on_route(book: &Book, route: &str, checks: &Checks) -> Option<Arc<Room>> {
    let most = checks.max_in_flight?;
    Some(book.room(&format!("route \"{route}\""), most))
}

/// Room for the calls of a backend, if that is bounded.
fn at_backend(book: &Book, backend: &Backend) -> Option<Arc<Room>> {
    let most = backend.max_in_flight?;
    Some(book.room(&format!("backend \"{}\"", backend.name), most))
}

/// The bound of a backend that goes by how long its answers take, if it has one.
fn by_answers(book: &Book, backend: &Backend) -> Option<Arc<Adaptive>> {
    let setup = backend.adaptive?;
    Some(book.adaptive(&format!("backend \"{}\"", backend.name), setup))
}

/// The gate of a method or a path. A route that names a way to prove who calls, and finds none, lets nobody in.
pub(crate) fn gate(
    auth: Option<usize>,
    access: Option<&Arc<Access>>,
    cors: Option<&Cors>,
    desks: &[Arc<Desk>],
) -> Gate {
    let pages = match cors.filter(|cors| cors.credentials).map(|cors| &cors.origins) {
        Some(Origins::These(pages)) => pages.clone(),
        Some(Origins::Any) | None => Vec::new(),
    };
    let access = access.map(Arc::clone);
    match auth.map(|at| desks.get(at)) {
        None => Gate::new(None, access, pages),
        Some(Some(desk)) => Gate::new(Some(Arc::clone(desk)), access, pages),
        Some(None) => Gate::new(None, Some(Arc::default()), pages),
    }
}

/// Settings of connections to upstreams.
fn settings(speaks: Speaks, limits: &Limits) -> Settings {
    Settings {
        speaks,
        http1: Http1 {
            max_header_bytes: limits.max_upstream_header_bytes,
            idle_timeout: limits.keep_alive_timeout,
        },
        http2: Http2 {
            max_streams: limits.max_streams,
            stream_window_bytes: limits.stream_window_bytes,
            max_header_bytes: u32::try_from(limits.max_upstream_header_bytes).unwrap_or(u32::MAX),
            ping_interval: limits.ping_interval,
            ping_timeout: limits.ping_timeout,
        },
    }
}
