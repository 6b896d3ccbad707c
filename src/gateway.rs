//! The spine: identify, find, admit, serve. One [`Gateway`] for each worker, with its own connections and counters.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::ORIGIN;
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::backend::grpc::Grpc;
use crate::backend::reflection::{self, Reflection};
use crate::balance::{Balance, Endpoint, Target};
use crate::config::Plan;
use crate::config::plan::{self, Backend, Found};
use crate::fault::{Fault, Kind};
use crate::frontend::{self, Admitted, refuse};
use crate::identify::identify;
use crate::limits::Limits;
use crate::listen::forwarded;
use crate::observe::metrics::{Key, Series};
use crate::observe::{Log, Record, Shard};
use crate::peer::Peer;
use crate::policy::auth::Authenticator;
use crate::policy::jwks::Keeper;
use crate::policy::setup::SetupError;
use crate::policy::{Desk, Gate, Permit, Setup};
use crate::route::cors::{Origins, Preflight};
use crate::route::{Captures, Entry};
use crate::stack::{self, CallService};
use crate::status::Code;
use crate::translate::tally::Outcome;
use crate::translate::{Lane, Tally};
use crate::upstream::connect::Http2;
use crate::upstream::{Connector, Pool, tls};
use crate::wire::body::{Body, Way};
use crate::wire::{Addressing, Dialect, Format, PerDialect, Spoken};

/// What a plan needs beside itself and all workers share: endpoints with their load, and TLS towards backends.
#[derive(Debug)]
pub struct Prepared {
    /// The plan.
    pub plan: Arc<Plan>,
    /// For each backend its endpoints, and TLS if one of them needs it.
    backends: Vec<PreparedBackend>,
    /// The methods that the gateway answers itself.
    own: Vec<Arc<Entry>>,
    /// What checks callers, in the order in which routes count it.
    auth: Vec<Arc<Authenticator>>,
}

#[derive(Clone, Debug)]
struct PreparedBackend {
    endpoints: Vec<Arc<Endpoint>>,
    tls: Option<Arc<rustls::ClientConfig>>,
}

/// What outlives a plan and is shared by all workers.
#[derive(Debug, Default)]
pub struct Shared {
    /// By backend and URL: an endpoint keeps its figures when the plan changes.
    endpoints: Mutex<HashMap<(String, Uri), Arc<Endpoint>>>,
    tls: Mutex<HashMap<plan::BackendTls, Arc<rustls::ClientConfig>>>,
    /// What checks callers stays, with the keys that were fetched, while its block of the configuration does.
    auth: Mutex<HashMap<Setup, Arc<Authenticator>>>,
    /// Those who keep fetched keys fresh, until somebody runs them.
    keepers: Mutex<Vec<Keeper>>,
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
        let backends = plan
            .backends
            .iter()
            .map(|backend| self.backend(backend))
            .collect::<Result<Vec<_>, _>>()?;
        let used: Vec<_> = backends
            .iter()
            .flat_map(|backend| &backend.endpoints)
            .map(Arc::as_ptr)
            .collect();
        self.endpoints
            .lock()
            .retain(|_, endpoint| used.contains(&Arc::as_ptr(endpoint)));
        let own = reflection::entries(&plan.limits);
        let auth = self.authenticators(&plan)?;
        Ok(Prepared {
            plan,
            backends,
            own,
            auth,
        })
    }

    /// Those who keep keys fresh and have not been run yet.
    pub fn keepers(&self) -> Vec<Keeper> {
        std::mem::take(&mut self.keepers.lock())
    }

    fn authenticators(&self, plan: &Plan) -> Result<Vec<Arc<Authenticator>>, PrepareError> {
        let mut known = self.auth.lock();
        let mut all = Vec::new();
        for setup in &plan.auth {
            if let Some(one) = known.get(setup) {
                all.push(Arc::clone(one));
                continue;
            }
            let (one, keepers) = setup
                .load()
                .map_err(|error| PrepareError::Auth(setup.name.clone(), error))?;
            self.keepers.lock().extend(keepers);
            all.push(Arc::clone(
                known.entry(setup.clone()).or_insert_with(|| Arc::new(one)),
            ));
        }
        Ok(all)
    }

    fn backend(&self, backend: &Backend) -> Result<PreparedBackend, tls::TlsError> {
        let mut known = self.endpoints.lock();
        let endpoints = backend
            .endpoints
            .iter()
            .map(|uri| {
                let endpoint = known
                    .entry((backend.name.clone(), uri.clone()))
                    .or_insert_with(|| Arc::new(Endpoint::new(uri.clone())));
                Arc::clone(endpoint)
            })
            .collect();
        let secure = backend
            .endpoints
            .iter()
            .any(|uri| uri.scheme() == Some(&http::uri::Scheme::HTTPS));
        let tls = secure.then(|| self.tls(&backend.tls)).transpose()?;
        Ok(PreparedBackend { endpoints, tls })
    }

    /// The TLS set-up for these files; the same one as long as the process lives, so that sessions resume.
    fn tls(&self, files: &plan::BackendTls) -> Result<Arc<rustls::ClientConfig>, tls::TlsError> {
        let mut known = self.tls.lock();
        if let Some(config) = known.get(files) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(tls::client_config(
            files.ca.as_deref(),
            files
                .certificate
                .as_ref()
                .map(|(certificate, key)| (certificate.as_path(), key.as_path())),
        )?);
        known.insert(files.clone(), Arc::clone(&config));
        Ok(config)
    }
}

/// A plan with its gates and stacks built for one worker. Calls keep the one they began with.
struct Live {
    plan: Arc<Plan>,
    entries: Vec<LiveEntry>,
    /// Methods that the gateway answers itself, by rpc path.
    own: Vec<LiveEntry>,
    /// Where requests are counted that lead nowhere.
    nowhere: PerDialect<Arc<Series>>,
}

struct LiveEntry {
    entry: Arc<Entry>,
    gate: Gate,
    stack: CallService,
    series: PerDialect<Arc<Series>>,
}

/// One worker's gateway.
pub struct Gateway {
    live: ArcSwap<Live>,
    worker: Worker,
}

/// What a worker keeps from plan to plan.
struct Worker {
    pools: Mutex<HashMap<PoolKey, Pool>>,
    desks: Mutex<Vec<Arc<Desk>>>,
    tasks: TaskTracker,
    shard: Arc<Shard>,
    log: Log,
}

/// What makes two connections interchangeable.
type PoolKey = (Uri, Option<usize>, Option<String>, std::time::Duration, Http2);

impl Gateway {
    /// A worker's gateway over its first plan. Tasks that calls need are spawned on `tasks`.
    ///
    /// # Errors
    /// An endpoint that can't be dialled by its URL.
    pub fn new(prepared: &Prepared, tasks: TaskTracker, shard: Arc<Shard>, log: Log) -> io::Result<Self> {
        let worker = Worker {
            pools: Mutex::default(),
            desks: Mutex::default(),
            tasks,
            shard,
            log,
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
    pub async fn handle(&self, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let now = Instant::now();
        let live = self.live.load_full();
        let (mut head, body) = request.into_parts();
        let spoken = identify(&head);
        let dialect = spoken.dialect;
        let mut record = self.record(&live, spoken, &head, &peer, now);
        let tally = Arc::clone(&record.tally);
        let response = if let Some((entry, allowed)) = live.preflight(&head) {
            record.enter(entry, dialect);
            // What needs no call is over, and well.
            tally.end(Outcome::Upstream(Code::Ok));
            no_content(allowed)
        } else {
            match live.find(dialect, &head) {
                Ok((entry, found)) => {
                    record.enter(entry, dialect);
                    let origin = head.headers.get(ORIGIN).cloned();
                    let mut response = match entry.admit(&mut head, &peer).await {
                        Ok(permit) => {
                            let admitted = Admitted {
                                head,
                                body,
                                format: spoken.format,
                                entry: Arc::clone(&entry.entry),
                                binding: found.binding,
                                captures: found.captures,
                                permit,
                                tally,
                                now,
                            };
                            frontend::serve(dialect, admitted, entry.stack.clone()).await
                        }
                        Err(fault) => refused(spoken, &tally, &fault),
                    };
                    if let Some(cors) = &entry.entry.route.cors {
                        cors.share(origin.as_ref(), response.headers_mut());
                    }
                    response
                }
                Err(fault) => refused(spoken, &tally, &fault),
            }
        };
        record.http_status = response.status().as_u16();
        let counter = Arc::clone(&record.tally) as _;
        response.map(|body| body.counted(counter, Way::Reply).holding(record))
    }

    fn record(&self, live: &Live, spoken: Spoken, head: &Parts, peer: &Peer, now: Instant) -> Record {
        let Spoken { dialect, format } = spoken;
        let series = Arc::clone(live.nowhere.get(dialect));
        series.begin();
        Record {
            log: self.worker.log.clone(),
            tasks: self.worker.tasks.clone(),
            began: now,
            client: peer.ip(),
            dialect,
            method: head.method.clone(),
            uri: head.uri.clone(),
            generation: live.plan.generation,
            entry: None,
            lane: Lane::between(format, Format::GRPC),
            http_status: 0,
            tally: Arc::default(),
            series,
        }
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
    /// From here on the call is one of this entry.
    fn enter(&mut self, live: &LiveEntry, dialect: Dialect) {
        self.entry = Some(Arc::clone(&live.entry));
        self.recount(live.series.get(dialect));
    }
}

fn refused(spoken: Spoken, tally: &Tally, fault: &Fault) -> Response<Body> {
    tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    refuse::refuse(spoken, fault)
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
    fn find(&self, dialect: Dialect, head: &Parts) -> Result<(&LiveEntry, Found), Fault> {
        let missed = match self.plan.find(dialect, head) {
            Ok(found) => match self.entries.get(found.entry) {
                Some(live) => return Ok((live, found)),
                None => Fault::gateway(Kind::Internal, "the route table names an entry that is not there"),
            },
            Err(fault) => fault,
        };
        let own = match dialect.addressing() {
            Addressing::RpcPath => self
                .own
                .iter()
                .find(|live| *live.entry.method.path == *head.uri.path()),
            Addressing::Rules => None,
        };
        let found = Found {
            entry: 0,
            binding: None,
            captures: Captures::default(),
        };
        own.map(|live| (live, found)).ok_or(missed)
    }
}

impl LiveEntry {
    /// Lets the gate decide.
    async fn admit(&self, head: &mut Parts, peer: &Peer) -> Result<Permit, Fault> {
        let permit = self.gate.admit(head, peer).await?;
        let host = plan::host(head).and_then(|host| http::HeaderValue::from_str(host).ok());
        forwarded::rewrite(&mut head.headers, peer, host.as_ref());
        Ok(permit)
    }
}

impl Worker {
    fn build(&self, prepared: &Prepared) -> io::Result<Live> {
        let plan = Arc::clone(&prepared.plan);
        let backends = self.backends(prepared)?;
        let params = stack::Params {
            idle_timeout: plan.limits.idle_timeout,
        };
        let desks = self.desks(prepared);
        let entries = plan
            .entries
            .iter()
            .map(|entry| {
                let backend = backends
                    .get(entry.route.backend)
                    .cloned()
                    .ok_or_else(|| io::Error::other("a route names a backend that is not there"))?;
                Ok(self.entry(entry, &desks, stack::build(params, backend)))
            })
            .collect::<io::Result<Vec<_>>>()?;
        let own = prepared
            .own
            .iter()
            .map(|entry| {
                let backend = Reflection::new(plan.reflection.clone());
                self.entry(entry, &desks, stack::build(params, backend))
            })
            .collect();
        let nowhere = self.all_series("", "");
        Ok(Live {
            plan,
            entries,
            own,
            nowhere,
        })
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
                same.map_or_else(|| Arc::new(Desk::new(Arc::clone(authenticator))), Arc::clone)
            })
            .collect();
        known.clone_from(&desks);
        desks
    }

    fn entry(&self, entry: &Arc<Entry>, desks: &[Arc<Desk>], stack: CallService) -> LiveEntry {
        let rpc = entry.method.path.trim_start_matches('/');
        let series = self.all_series(&entry.route.name, rpc);
        LiveEntry {
            entry: Arc::clone(entry),
            gate: gate(entry, desks),
            stack,
            series,
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

    /// The backends over this worker's pools; pools that no backend wants any more are let go.
    fn backends(&self, prepared: &Prepared) -> io::Result<Vec<Grpc>> {
        let mut known = self.pools.lock();
        let mut wanted = HashMap::new();
        let mut backends = Vec::new();
        for (backend, ready) in prepared.plan.backends.iter().zip(&prepared.backends) {
            let mut targets = Vec::new();
            for endpoint in &ready.endpoints {
                let http2 = http2(&prepared.plan.limits);
                let key: PoolKey = (
                    endpoint.uri.clone(),
                    ready.tls.as_ref().map(|tls| Arc::as_ptr(tls) as usize),
                    backend.tls.server_name.clone(),
                    backend.connect_timeout,
                    http2,
                );
                let pool = match known.get(&key) {
                    Some(pool) => pool.clone(),
                    None => {
                        let name = backend.tls.server_name.as_deref();
                        let connector = Connector::new(
                            &endpoint.uri,
                            ready.tls.clone(),
                            name,
                            backend.connect_timeout,
                            http2,
                        )?;
                        Pool::new(connector, self.tasks.clone())
                    }
                };
                wanted.insert(key, pool.clone());
                targets.push(Target {
                    endpoint: Arc::clone(endpoint),
                    pool,
                });
            }
            let balance = Balance::new(targets, backend.load_balancing, backend.connect_timeout);
            backends.push(Grpc::new(&backend.name, Arc::new(balance), self.tasks.clone()));
        }
        *known = wanted;
        Ok(backends)
    }
}

/// The gate of a method. A route that names a way to prove who calls, and finds none, lets nobody in.
fn gate(entry: &Entry, desks: &[Arc<Desk>]) -> Gate {
    let pages = match &entry.route.cors {
        Some(cors) if cors.credentials => match &cors.origins {
            Origins::These(pages) => pages.clone(),
            Origins::Any => Vec::new(),
        },
        Some(_) | None => Vec::new(),
    };
    match entry.route.auth {
        None => Gate::new(None, entry.access.clone(), pages),
        Some(at) => match desks.get(at) {
            Some(desk) => Gate::new(Some(Arc::clone(desk)), entry.access.clone(), pages),
            None => Gate::new(None, Some(Arc::default()), pages),
        },
    }
}

/// Settings of connections to upstreams.
fn http2(limits: &Limits) -> Http2 {
    Http2 {
        max_streams: limits.max_streams,
        stream_window_bytes: limits.stream_window_bytes,
        max_header_bytes: u32::try_from(limits.max_upstream_header_bytes).unwrap_or(u32::MAX),
        ping_interval: limits.ping_interval,
        ping_timeout: limits.ping_timeout,
    }
}
