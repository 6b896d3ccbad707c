//! The compiled whole: everything that a call needs to know, as data. It needs no runtime to build or to test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::header::HOST;
use http::request::Parts;
use ipnet::IpNet;

use super::diagnostic::Diagnostic;
use super::value::Services;
use crate::balance::Settings;
use crate::balance::health::Check;
use crate::discover::endpoints::Source;
use crate::fault::{Fault, Kind};
use crate::limits::Limits;
use crate::policy::Setup;
use crate::policy::throttle::Limit;
use crate::policy::throttle::cluster::ClusterSetup;
use crate::policy::throttle::{AdaptiveSetup, SheddingSetup};
use crate::route::cors::Preflight;
use crate::route::entry::Offer;
use crate::route::relay::{EncodedSlash, Page};
use crate::route::{
    Captures, Entry, Host, Matched, NoRoute, PathOptions, PathRoute, Route, Routes, has_escaped_slash, normal,
};
use crate::schema::exposed::Exposed;
use crate::upstream::connect::Speaks;
use crate::wire::screen::Screen;
use crate::wire::{Addressing, Dialect};

/// A configuration and the schemas of its backends, compiled.
#[derive(Debug)]
pub struct Plan {
    /// Counts up with each plan of the process.
    pub generation: u64,
    /// Worker threads.
    pub workers: usize,
    /// Limits that hold where a listener has none of its own.
    pub limits: Limits,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Where operators connect; `None` turns the admin listener off.
    pub admin: Option<SocketAddr>,
    /// Where calls go.
    pub backends: Vec<Backend>,
    /// What tells the schema of each backend from another one; nothing while it is not known.
    pub schemas: Vec<Option<u64>>,
    /// The routes as they are declared, in the order of the file.
    pub declared: Vec<Declared>,
    /// How callers prove who they are, in the order in which routes count it.
    pub auth: Vec<Setup>,
    /// How often callers may call, in the order in which routes count it.
    pub rate_limits: Vec<Limit>,
    /// By what the nodes of a cluster share them.
    pub cluster: Option<ClusterSetup>,
    /// When load is shed, if it is.
    pub shedding: Option<SheddingSetup>,
    /// Every exposed method, in the order in which [`Routes`] counts them.
    pub entries: Vec<Arc<Entry>>,
    /// Every route of paths, counted after the entries.
    pub paths: Vec<Arc<PathRoute>>,
    /// From host and path to an entry, or to a route of paths.
    pub routes: Routes,
    /// To whom server reflection tells anything.
    pub offer: Offer,
    /// What server reflection tells.
    pub reflection: Exposed,
    /// HTTP rules that are not in use, each with its reason.
    pub disabled: Vec<Disabled>,
    /// Routes whose backend's schema is not known yet.
    pub pending: Vec<Pending>,
    /// What works, and probably not as meant.
    pub warnings: Vec<Diagnostic>,
}

/// What a request head leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The index of the entry.
    pub entry: usize,
    /// Which of the entry's bindings; `None` for the rpc path.
    pub binding: Option<u32>,
    /// The path variables.
    pub captures: Captures,
}

impl From<Matched> for Found {
    fn from(matched: Matched) -> Self {
        Self {
            entry: index(matched.entry),
            binding: matched.binding,
            captures: matched.captures,
        }
    }
}

/// What a request head leads to, where paths are relayed too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lead {
    /// A method of a service.
    Method(Found),
    /// A route of paths.
    Path(FoundPath),
}

/// A route of paths that a request head leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPath {
    /// Its index among the routes of paths.
    pub route: usize,
    /// The path that it matches, in its normal form.
    pub path: String,
    /// The path variables.
    pub captures: Captures,
}

impl Plan {
    /// Finds what a request of `dialect` leads to, by its head alone.
    ///
    /// A path is in its normal form before it is matched with routes of paths. What services are reached by is taken as
    /// it was sent, so that no spelling of a path leads to a route that does not see it.
    ///
    /// # Errors
    /// As [`Plan::find`].
    pub fn lead(&self, dialect: Dialect, head: &Parts) -> Result<Lead, Fault> {
        // Only HTTP itself and WebSockets are relayed along a path; other dialects ask for methods of services.
        if self.paths.is_empty() || dialect.addressing() == Addressing::RpcPath {
            return self.find(dialect, head).map(Lead::Method);
        }
        let raw = head.uri.path();
        let path = normal(raw)
            .map_err(|error| Fault::client(Kind::BadRequest, format!("the URL's path: {error}")))?;
        if dialect.addressing() == Addressing::Path {
            return self.lead_socket(dialect, head, &path);
        }
        match self.routes.find(host(head), &head.method, &path) {
            Ok(matched) => match self.path_route(matched.entry) {
                Some(route) => self.relayed(route, &path, matched.captures).map(Lead::Path),
                None if *path == *raw => Ok(Lead::Method(matched.into())),
                None => self.find(dialect, head).map(Lead::Method),
            },
            Err(_) => self.find(dialect, head).map(Lead::Method),
        }
    }

    /// Finds where a WebSocket leads: to a method of a service, or along a path whose backend takes WebSockets.
    fn lead_socket(&self, dialect: Dialect, head: &Parts, path: &str) -> Result<Lead, Fault> {
        let missed = match self.find(dialect, head) {
            Ok(found) => return Ok(Lead::Method(found)),
            Err(missed) => missed,
        };
        // It is opened by GET, whatever it is called in HTTP/2.
        let matched = self.routes.find(host(head), &Method::GET, path).ok();
        let takes = |route: &usize| {
            self.paths
                .get(*route)
                .is_some_and(|route| route.websocket().is_some())
        };
        let along = matched.and_then(|matched| {
            let route = self.path_route(matched.entry).filter(takes)?;
            Some((route, matched.captures))
        });
        match along {
            Some((route, captures)) => self.relayed(route, path, captures).map(Lead::Path),
            None => Err(missed),
        }
    }

    /// The index of the route of paths that the lookup counts by this number, if it is one.
    fn path_route(&self, entry: u32) -> Option<usize> {
        index(entry)
            .checked_sub(self.entries.len())
            .filter(|at| *at < self.paths.len())
    }

    fn relayed(&self, route: usize, path: &str, captures: Captures) -> Result<FoundPath, Fault> {
        let refuses = self
            .paths
            .get(route)
            .is_none_or(|route| route.encoded_slash == EncodedSlash::Refuse);
        if refuses && has_escaped_slash(path) {
            return Err(Fault::client(
                Kind::BadRequest,
                "the URL's path: an escaped slash is not taken here",
            ));
        }
        Ok(FoundPath {
            route,
            path: path.to_owned(),
            captures,
        })
    }

    /// Finds what a request of `dialect` asks for, by its head alone.
    ///
    /// # Errors
    /// A client fault that says why nothing answers, and [`Kind::SchemaPending`] where a backend that is not known yet
    /// may answer once it is.
    pub fn find(&self, dialect: Dialect, head: &Parts) -> Result<Found, Fault> {
        let host = host(head);
        let path = head.uri.path();
        match dialect.addressing() {
            Addressing::RpcPath => self
                .routes
                .find_rpc(host, path)
                .map(|entry| Found {
                    entry: index(entry),
                    binding: None,
                    captures: Captures::default(),
                })
                .ok_or_else(|| self.unknown_rpc(host, path)),
            Addressing::Rules => self.along_rules(self.routes.find(host, &head.method, path), host, path),
            Addressing::Path => self.along_rules(self.find_any(host, path), host, path),
        }
    }

    /// The entry whose route decides on a preflight request: the one that the request in question leads to, in
    /// whatever dialect it will be.
    pub fn find_for(&self, preflight: &Preflight, head: &Parts) -> Option<usize> {
        let host = host(head);
        let path = head.uri.path();
        let bound = self.routes.find(host, &preflight.method, path);
        let entry = bound.map(|matched| matched.entry).ok();
        let entry = entry.filter(|entry| self.path_route(*entry).is_none());
        entry.or_else(|| self.routes.find_rpc(host, path)).map(index)
    }

    /// Finds what a path leads to for a client whose dialect has no HTTP methods: what GET does, or else the first
    /// of these that the path takes.
    fn find_any(&self, host: Option<&str>, path: &str) -> Result<Matched, NoRoute> {
        let missed = match self.routes.find(host, &Method::GET, path) {
            Err(NoRoute::MethodNotAllowed { allow }) => allow,
            // A route of paths takes every method; a more specific one of a service may take another than GET.
            Ok(matched) if self.path_route(matched.entry).is_some() => return self.find_service(host, path),
            found => return found,
        };
        let taken: Vec<&str> = missed.split(", ").collect();
        let method = ["POST", "PUT", "PATCH", "DELETE"]
            .into_iter()
            .find(|method| taken.contains(method))
            .or_else(|| taken.first().copied())
            .and_then(|method| method.parse().ok())
            .unwrap_or(Method::POST);
        self.routes.find(host, &method, path)
    }

    /// Finds what a path leads to among the rules of services, by the first method that leads there.
    fn find_service(&self, host: Option<&str>, path: &str) -> Result<Matched, NoRoute> {
        [Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
            .iter()
            .filter_map(|method| self.routes.find(host, method, path).ok())
            .find(|matched| self.path_route(matched.entry).is_none())
            .ok_or(NoRoute::NotFound)
    }

    /// What a lookup by HTTP rules has found, of services alone: a route of paths takes nothing but normal forms.
    fn along_rules(
        &self,
        found: Result<Matched, NoRoute>,
        host: Option<&str>,
        path: &str,
    ) -> Result<Found, Fault> {
        let found = found.and_then(|matched| match self.path_route(matched.entry) {
            None => Ok(Found::from(matched)),
            Some(_) => Err(NoRoute::NotFound),
        });
        found.map_err(|missed| self.unknown_path(host, path, &missed))
    }

    fn unknown_rpc(&self, host: Option<&str>, path: &str) -> Fault {
        let service = path
            .trim_start_matches('/')
            .rsplit_once('/')
            .map_or("", |(service, _)| service);
        self.pending
            .iter()
            .find(|pending| pending.answers(host) && pending.covers(service))
            .map_or_else(
                || {
                    // The backend may have it since it was asked last.
                    let may_have =
                        |declared: &&Declared| declared.answers(host) && declared.pattern(service).is_some();
                    for declared in self.declared.iter().filter(may_have) {
                        declared.route.doubt.raise();
                    }
                    Fault::client(Kind::Unimplemented, format!("no route has the method {path}"))
                },
                Pending::fault,
            )
    }

    fn unknown_path(&self, host: Option<&str>, path: &str, missed: &NoRoute) -> Fault {
        match missed {
            NoRoute::Malformed(error) => Fault::client(Kind::BadRequest, format!("the URL's path: {error}")),
            NoRoute::MethodNotAllowed { allow } => {
                Fault::client(Kind::MethodNotAllowed, missed.to_string()).allowing(allow)
            }
            NoRoute::NotFound => self
                .pending
                .iter()
                .find(|pending| pending.answers(host))
                .map_or_else(
                    || Fault::client(Kind::RouteNotFound, format!("no route answers {path}")),
                    Pending::fault,
                ),
        }
    }
}

/// The host that a request is for: `:authority`, or the `Host` header.
pub fn host(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(HOST).and_then(|value| value.to_str().ok()),
    }
}

fn index(entry: u32) -> usize {
    usize::try_from(entry).unwrap_or(usize::MAX)
}

/// A socket for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it is bound; port 0 lets the system choose.
    pub address: SocketAddr,
    /// TLS; absent for cleartext.
    pub tls: Option<ListenerTls>,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Who and what is not let in.
    pub screen: Screen,
    /// Its limits.
    pub limits: Limits,
}

/// The files of a TLS listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerTls {
    /// Certificate chains with their keys, chosen by SNI; the first is the default.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// The authorities of client certificates; present, every client must have one.
    pub client_ca: Option<PathBuf>,
}

impl ListenerTls {
    /// The files that it names.
    pub fn paths(&self) -> Vec<PathBuf> {
        let pairs = self
            .certificates
            .iter()
            .flat_map(|(certificate, key)| [certificate, key]);
        self.client_ca.iter().chain(pairs).cloned().collect()
    }
}

/// A named set of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The name in the configuration.
    pub name: String,
    /// Where its endpoints are.
    pub source: Source,
    /// Which versions of HTTP they are spoken to in.
    pub speaks: Speaks,
    /// How calls are spread over them.
    pub balancing: Settings,
    /// How they are checked, if they are.
    pub health: Option<Check>,
    /// The index of the backend that is asked where this one can't answer.
    pub fallback: Option<usize>,
    /// What plain HTTP is answered with where nobody else can.
    pub page: Option<Page>,
    /// How long a stream may be silent.
    pub idle_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// TLS towards `https` endpoints.
    pub tls: BackendTls,
    /// The registered schema that it goes by.
    pub registry: Option<String>,
    /// Calls in flight to it, from all workers, if that is bounded.
    pub max_in_flight: Option<u32>,
    /// The bound that goes by how long its answers take, if it has one.
    pub adaptive: Option<AdaptiveSetup>,
}

/// A route as it is declared: which services it may have, whether its backend offers them or not.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Which services it takes.
    pub services: Vec<Services>,
    /// What its entries share.
    pub route: Arc<Route>,
    /// How its paths are read.
    pub path: PathOptions,
}

impl Declared {
    /// The pattern by which the route takes a service: the most specific of those that do.
    pub fn pattern(&self, service: &str) -> Option<&Services> {
        let takes = self.services.iter().filter(|pattern| pattern.take(service));
        takes.max_by_key(|pattern| pattern.rank())
    }

    /// Whether it answers a host.
    pub fn answers(&self, host: Option<&str>) -> bool {
        answers(&self.route.hosts, host)
    }
}

/// Whether one of the patterns covers the host; no pattern covers every host.
fn answers(hosts: &[Host], host: Option<&str>) -> bool {
    hosts.is_empty() || host.is_some_and(|host| hosts.iter().any(|pattern| pattern.matches(host)))
}

/// TLS towards a backend. Verification is always on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BackendTls {
    /// The authorities that its certificate may come from; absent, those of the system.
    pub ca: Option<PathBuf>,
    /// The gateway's own certificate chain and key, for mutual TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name that the certificate must be for; absent, the endpoint's host.
    pub server_name: Option<String>,
}

impl BackendTls {
    /// The files that it names.
    pub fn paths(&self) -> Vec<PathBuf> {
        let own = self
            .certificate
            .iter()
            .flat_map(|(certificate, key)| [certificate, key]);
        self.ca.iter().chain(own).cloned().collect()
    }
}

/// An HTTP rule that is not in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// The full name of its method.
    pub method: String,
    /// The rule, such as `GET /v1/{name=shelves/*}`.
    pub rule: String,
    /// Why.
    pub reason: String,
}

/// A route whose backend's schema is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The backend's name.
    pub backend: String,
    /// The services that the route takes.
    pub patterns: Vec<Services>,
    /// The hosts of the route; empty for any.
    pub hosts: Vec<Host>,
    /// Why the schema is not known; for operators.
    pub reason: String,
}

impl Pending {
    /// Whether a route that waits answers this host.
    fn answers(&self, host: Option<&str>) -> bool {
        answers(&self.hosts, host)
    }

    /// Whether a pattern covers the service.
    pub fn covers(&self, service: &str) -> bool {
        self.patterns.iter().any(|pattern| pattern.take(service))
    }

    fn fault(&self) -> Fault {
        Fault::upstream(
            Kind::SchemaPending,
            format!(
                "backend \"{}\" has not told yet what it offers; try again",
                self.backend
            ),
        )
        .retry_after(Duration::from_secs(1))
    }
}
