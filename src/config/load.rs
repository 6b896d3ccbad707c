//! From a path or from flags to a [`File`], with everything that is wrong in it said at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::diagnostic::{Diagnostic, did_you_mean};
use super::document::{Document, Kind, NodeId, Scalar};
use super::file::{
    Addresses, Admin, Backend, BackendTimeout, BackendTls, Cors, DeclaredPolicies, Endpoints, Errors,
    Fallback, File, Found, HealthCheck, HealthKind, Json, LimitsSection, Listed, Listener, ListenerTls,
    LoadBalancing, PathOwned, PathUnescape, Priority, ProtoFiles, Protocol, Query, Reflection, Retry, Route,
    RouteLimits, SCHEMA_NAME, SchemaSource, StreamEnvelope, Streaming, Switch, TrailingSlash,
    WebSocketSection, is_schema_name,
};
use super::interpolate::{Process, interpolate};
use super::located::{Located, Spot};
use super::read::read;
use super::throttle;
use super::value::{Address, Count, Endpoint, HeaderPattern, Origin as WebOrigin, Services};
use super::watch::Noted;
use crate::route::Host;

mod auth;
mod screen;

/// The largest file that is read: far above any configuration. Not measured.
const MAX_FILE_BYTES: u64 = 8 << 20;

/// Where a configuration comes from, so that it can be read again.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file or the flags.
    pub kind: SourceKind,
    /// Worker threads, where the command line says it; it wins over the file.
    pub workers: Option<Count>,
}

/// The two ways to tell a gateway what to do.
#[derive(Clone, Debug)]
pub enum SourceKind {
    /// `--config FILE`.
    File(PathBuf),
    /// `--backend URL` and what goes with it.
    Flags(Box<Flags>),
}

/// What the command line says about the one backend of a gateway without a file.
#[derive(Clone, Debug)]
pub struct Flags {
    /// The endpoint.
    pub backend: Endpoint,
    /// `.proto` files and folders; empty to ask the backend by reflection.
    pub protos: Vec<PathBuf>,
    /// Where their imports are.
    pub proto_paths: Vec<PathBuf>,
    /// A descriptor set, instead of `.proto` files.
    pub descriptors: Option<PathBuf>,
    /// Where to listen.
    pub listen: Option<Address>,
    /// Where the admin listener is.
    pub admin: Option<Address>,
}

impl Source {
    /// A file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self {
            kind: SourceKind::File(path.into()),
            workers: None,
        }
    }

    /// The flags of a gateway without a file.
    pub fn flags(flags: Flags) -> Self {
        Self {
            kind: SourceKind::Flags(Box::new(flags)),
            workers: None,
        }
    }
}

/// Where a [`File`] was read from: what its places and relative paths refer to.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    base: PathBuf,
    document: Option<Arc<Document>>,
    source: Option<(Arc<Source>, SystemTime)>,
    noted: Noted,
}

impl Origin {
    /// A path of the configuration as the process can open it. It is watched from now on.
    pub fn resolve(&self, path: &Path) -> PathBuf {
        let path = self.base.join(path);
        self.noted.add(path.clone());
        path
    }

    /// Likewise, of a file that is looked after by who reads it, and not watched.
    pub fn beside(&self, path: &Path) -> PathBuf {
        self.base.join(path)
    }

    /// Where the configuration can be read again; nothing for one that was given as a text.
    pub fn source(&self) -> Option<&Source> {
        self.source.as_ref().map(|(source, _)| &**source)
    }

    /// When reading it began.
    pub fn read_at(&self) -> Option<SystemTime> {
        self.source.as_ref().map(|(_, at)| *at)
    }

    /// The files that the configuration is made of, as far as it was looked at.
    pub fn noted(&self) -> &Noted {
        &self.noted
    }

    /// An error about a value; `otherwise` names what it is about where the value has no place.
    pub(crate) fn error(&self, spot: Spot, otherwise: &str, message: impl Into<String>) -> Diagnostic {
        match (spot, &self.document) {
            (Spot::Node(node), Some(document)) => document.error(node, message),
            (Spot::Flag(flag), _) => Diagnostic::error(flag, message),
            (Spot::Node(_) | Spot::Default, _) => Diagnostic::error(otherwise, message),
        }
    }

    /// The same about the key under which the value stands.
    pub(crate) fn key_error(&self, spot: Spot, otherwise: &str, message: impl Into<String>) -> Diagnostic {
        match (spot, &self.document) {
            (Spot::Node(node), Some(document)) => document.key_error(node, message),
            _ => self.error(spot, otherwise, message),
        }
    }

    /// Whether nothing is written there; values that were wrong, and so are not in the [`File`], count.
    fn is_empty(&self, spot: Spot) -> bool {
        match (spot, &self.document) {
            (Spot::Node(node), Some(document)) => document.items(node).is_empty(),
            _ => true,
        }
    }

    /// Whether a mapping has a key, with a right value or a wrong one, which is then not in the [`File`].
    pub(super) fn has(&self, spot: Spot, key: &str) -> bool {
        match (spot, &self.document) {
            (Spot::Node(node), Some(document)) => document.child(node, key).is_some(),
            _ => false,
        }
    }

    /// The path of a value within the file, such as `routes[3]`, if it was written in one.
    pub(crate) fn path(&self, spot: Spot) -> Option<String> {
        match (spot, &self.document) {
            (Spot::Node(node), Some(document)) => Some(document.path(node)),
            _ => None,
        }
    }
}

/// Reads a configuration from where it comes from.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn load(source: &Source) -> Result<File, Vec<Diagnostic>> {
    load_noting(source, &Noted::default())
}

/// The same; the files that it is made of are noted even if it is wrong, so that it can be read again when they change.
///
/// # Errors
/// As [`load`].
pub fn load_noting(source: &Source, noted: &Noted) -> Result<File, Vec<Diagnostic>> {
    let began = SystemTime::now();
    let mut file = match &source.kind {
        SourceKind::File(path) => {
            noted.add(path.clone());
            from_path(path, noted)
        }
        SourceKind::Flags(flags) => from_flags(flags),
    }?;
    file.origin.source = Some((Arc::new(source.clone()), began));
    file.origin.noted = noted.clone();
    if source.workers.is_some() {
        file.workers = source.workers;
    }
    Ok(file)
}

fn from_path(path: &Path, noted: &Noted) -> Result<File, Vec<Diagnostic>> {
    let name = path.display().to_string();
    let unreadable =
        |error: &dyn std::fmt::Display| vec![Diagnostic::error(&name, format!("can't read it: {error}"))];
    let size = std::fs::metadata(path).map_err(|error| unreadable(&error))?.len();
    if size > MAX_FILE_BYTES {
        return Err(unreadable(&format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(&error))?;
    parse(
        &name,
        path.parent().unwrap_or_else(|| Path::new("")),
        &text,
        noted,
    )
}

/// Reads a configuration from its text. `name` is how errors call it, `base` what relative paths are relative to.
///
/// # Errors
/// Everything that is wrong with it, in the order of the file.
pub fn from_text(name: &str, base: &Path, text: &str) -> Result<File, Vec<Diagnostic>> {
    parse(name, base, text, &Noted::default())
}

fn parse(name: &str, base: &Path, text: &str, noted: &Noted) -> Result<File, Vec<Diagnostic>> {
    let mut document = Document::parse(name, text)?;
    let mut problems = interpolate(&mut document, &Process { base, noted });
    let (file, found) = read::<File>(&document);
    problems.extend(found);
    let document = Arc::new(document);
    let Some(mut file) = file else {
        return Err(in_order(problems));
    };
    file.origin = Origin {
        base: base.to_owned(),
        document: Some(Arc::clone(&document)),
        source: None,
        noted: noted.clone(),
    };
    for (key, block) in [
        ("backend", "backends"),
        ("auth", "auth"),
        ("rate_limit", "rate_limits"),
    ] {
        problems.extend(references(&document, key, block));
    }
    problems.extend(Check { file: &file }.all());
    if problems.is_empty() {
        Ok(file)
    } else {
        Err(in_order(problems))
    }
}

/// A value that could not be replaced is also wrong as the text that it still is: what comes first is the cause.
pub(super) fn in_order(mut problems: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let place = |problem: &Diagnostic| problem.place.as_ref().map(|place| (place.line, place.column));
    problems.sort_by_key(place);
    problems.dedup_by(|b, a| a.path == b.path && place(a).is_some() && place(a) == place(b));
    problems
}

/// Routes whose `key` names what is not in a block.
///
/// Looked up in the document, not in the [`File`]: a route or a backend with another error is not in the file, and all
/// the same its name is right or wrong.
fn references(document: &Document, key: &str, block: &str) -> Vec<Diagnostic> {
    let known: BTreeSet<&str> = document
        .child(NodeId::ROOT, block)
        .map(|backends| document.entries(backends))
        .unwrap_or_default()
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    let note = if known.is_empty() {
        match block {
            "backends" => "there are no backends".to_owned(),
            block => format!("there is no block \"{block}\""),
        }
    } else {
        format!(
            "{block}: {}",
            known.iter().copied().collect::<Vec<_>>().join(", ")
        )
    };
    let routes = document
        .child(NodeId::ROOT, "routes")
        .map(|routes| document.items(routes));
    let mut owners: Vec<NodeId> = routes.unwrap_or_default().to_vec();
    if key == "auth" {
        owners.extend(document.child(NodeId::ROOT, "reflection"));
    }
    let mut found = Vec::new();
    for backend in owners.iter().flat_map(|route| match key {
        "backend" => named_backends(document, *route),
        "rate_limit" => match document.child(*route, key) {
            Some(one) if matches!(document.kind(one), Kind::Scalar(_)) => vec![one],
            Some(list) => document.items(list).to_vec(),
            None => Vec::new(),
        },
        key => document.child(*route, key).into_iter().collect(),
    }) {
        if let Kind::Scalar(Scalar { text, written }) = document.kind(backend)
            && !known.contains(text.as_str())
        {
            let meant = did_you_mean(text, known.iter().copied());
            let message = format!("no {key} \"{}\"{meant}", written.as_ref().unwrap_or(text));
            found.push(document.error(backend, message).noting(&note));
        }
    }
    found
}

/// Where a route names backends.
fn named_backends(document: &Document, route: NodeId) -> Vec<NodeId> {
    let mut named: Vec<NodeId> = document.child(route, "backend").into_iter().collect();
    if let Some(relay) = document.child(route, "relay") {
        let mirror = document.child(relay, "mirror");
        let split = document
            .child(relay, "split")
            .map(|split| document.items(split))
            .unwrap_or_default();
        let within = mirror.iter().chain(split);
        named.extend(within.filter_map(|group| document.child(*group, "backend")));
    }
    named
}

/// The name of the one backend of a gateway without a file.
const FLAG_BACKEND: &str = "backend";

fn from_flags(flags: &Flags) -> Result<File, Vec<Diagnostic>> {
    let paths = |paths: &[PathBuf], flag| {
        paths
            .iter()
            .map(|path| Located::flag(path.clone(), flag))
            .collect()
    };
    let schema = match &flags.descriptors {
        Some(descriptors) => SchemaSource::Descriptors(Located::flag(descriptors.clone(), "--descriptors")),
        None if flags.protos.is_empty() => SchemaSource::Reflection,
        None => SchemaSource::Protos(ProtoFiles {
            protos: paths(&flags.protos, "--proto"),
            proto_paths: paths(&flags.proto_paths, "--proto-path"),
        }),
    };
    let backend = Backend {
        protocol: Protocol::Grpc,
        endpoints: Located::flag(
            Endpoints::List(vec![Located::flag(flags.backend.clone().into(), "--backend")]),
            "--backend",
        ),
        http2: Located::default_of(false),
        max_in_flight: None,
        adaptive_concurrency: None,
        schema: Some(Located::flag(schema, "--backend")),
        rest: None,
        rules: Vec::new(),
        reflection_interval: super::file::backend::default_reflection_interval(),
        load_balancing: LoadBalancing::default(),
        sticky: None,
        slow_start: None,
        panic_threshold: None,
        ejection: Switch::default(),
        health_check: None,
        retry: Retry::default(),
        hedge: None,
        circuit_breaker: None,
        fallback: None,
        timeout: BackendTimeout::default(),
        tls: None,
    };
    let listen = flags.listen.unwrap_or(Address(super::file::DEFAULT_LISTEN));
    let admin = flags.admin.unwrap_or(Address(super::file::DEFAULT_ADMIN));
    let file = File {
        listeners: vec![Located::flag(
            Listener {
                address: Located::flag(listen, "--listen"),
                ..Listener::at(listen)
            },
            "--listen",
        )],
        admin: Admin::at(Located::flag(admin, "--admin")),
        data_dir: None,
        workers: None,
        zone: None,
        limits: LimitsSection::default(),
        backends: [(FLAG_BACKEND.to_owned(), Located::flag(backend, "--backend"))].into(),
        routes: vec![Located::flag(all_of(FLAG_BACKEND), "--backend")],
        auth: BTreeMap::new(),
        reflection: Reflection::default(),
        rate_limits: BTreeMap::new(),
        load_shedding: None,
        redis: None,
        origin: Origin::default(),
    };
    let problems = Check { file: &file }.all();
    if problems.is_empty() {
        Ok(file)
    } else {
        Err(problems)
    }
}

/// A route that exposes everything that a backend offers, to any host.
fn all_of(backend: &str) -> Route {
    Route {
        services: Located::default_of(vec![Located::default_of(Services::All)]),
        path: None,
        hosts: Vec::new(),
        websocket: WebSocketSection::default(),
        backend: Located::default_of(backend.to_owned()),
        relay: None,
        json: Json::default(),
        query: Query::default(),
        streaming: Streaming::default(),
        stream_envelope: StreamEnvelope::default(),
        timeout: None,
        cors: None,
        auth: None,
        authorize: None,
        declared_policies: DeclaredPolicies::default(),
        addresses: Addresses::default(),
        block: Vec::new(),
        errors: Errors::default(),
        rate_limit: None,
        max_in_flight: None,
        priority: Priority::default(),
        stream_limits: None,
        limits: RouteLimits::default(),
        path_unescape: PathUnescape::default(),
        trailing_slash: TrailingSlash::default(),
        path_owned: PathOwned::default(),
    }
}

/// The shortest token of the admin listener, in characters.
const LEAST_TOKEN: usize = 32;

/// Keys of a route that mean nothing for a path.
const OF_SERVICES: [&str; 11] = [
    "cors",
    "declared_policies",
    "errors",
    "json",
    "limits",
    "path_owned",
    "path_unescape",
    "query",
    "stream_envelope",
    "streaming",
    "trailing_slash",
];

/// What no single value shows: keys that need or exclude each other.
struct Check<'a> {
    file: &'a File,
}

impl Check<'_> {
    fn all(&self) -> Vec<Diagnostic> {
        let file = self.file;
        let mut found = Vec::new();
        self.listeners(&mut found);
        for (name, backend) in &file.backends {
            self.backend(name, backend, &mut found);
        }
        for route in &file.routes {
            self.route(route, &mut found);
        }
        for (name, auth) in &file.auth {
            self.auth(name, auth, &mut found);
        }
        throttle::Review { file }.all(&mut found);
        found
    }

    fn error(&self, spot: Spot, message: impl Into<String>) -> Diagnostic {
        self.file.origin.error(spot, "", message)
    }

    fn key_error(&self, spot: Spot, message: impl Into<String>) -> Diagnostic {
        self.file.origin.key_error(spot, "", message)
    }

    fn listeners(&self, found: &mut Vec<Diagnostic>) {
        let file = self.file;
        let mut taken = Vec::new();
        let addresses = file
            .listeners
            .iter()
            .map(|listener| ("listeners", &listener.address));
        for (block, address) in addresses.chain([("admin.address", &file.admin.address)]) {
            if address.0.port() != 0 && taken.contains(&address.0) {
                let message = format!("{} is taken by another listener", address.0);
                found.push(file.origin.error(address.spot, block, message));
            }
            taken.push(address.0);
        }
        for listener in &file.listeners {
            self.block(&listener.block, found);
        }
        let own = file.admin.tls.as_ref();
        for tls in file
            .listeners
            .iter()
            .filter_map(|listener| listener.tls.as_ref())
            .chain(own)
        {
            self.listener_tls(tls, found);
        }
        self.admin(found);
    }

    /// The admin listener changes what the gateway does: where others can connect, they have to say who they are.
    fn admin(&self, found: &mut Vec<Diagnostic>) {
        let admin = &self.file.admin;
        if let Some(token) = &admin.token
            && token.0.len() < LEAST_TOKEN
        {
            let message = format!("is shorter than {LEAST_TOKEN} characters, so that it could be guessed");
            found.push(self.key_error(token.spot, message));
        }
        let asks = admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()) || admin.token.is_some();
        if !admin.address.0.ip().is_loopback() && !asks {
            let message = format!(
                "{} is not on loopback, and the admin listener asks nobody who they are; write a token \
                 (admin: {{token: \"${{file:PATH}}\"}}) or tls with client_ca",
                admin.address.0
            );
            found.push(
                self.file
                    .origin
                    .error(admin.address.spot, "admin.address", message),
            );
        }
    }

    fn listener_tls(&self, tls: &Located<ListenerTls>, found: &mut Vec<Diagnostic>) {
        match (&tls.certificate, &tls.key) {
            (Some(certificate), None) => {
                found.push(self.key_error(certificate.spot, "has no \"key\" beside it"))
            }
            (None, Some(key)) => found.push(self.key_error(key.spot, "has no \"certificate\" beside it")),
            (None, None) if tls.certificates.is_empty() => {
                let message =
                    "has no certificate; write certificate and key, or certificates: [{certificate, key}]";
                found.push(self.key_error(tls.spot, message));
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    fn backend(&self, name: &str, backend: &Located<Backend>, found: &mut Vec<Diagnostic>) {
        if let Endpoints::Found(found_by) = &backend.endpoints.value {
            self.found(found_by, backend, found);
        } else if backend.endpoints.listed().is_empty() && self.file.origin.is_empty(backend.endpoints.spot) {
            found.push(self.key_error(
                backend.endpoints.spot,
                format!("backend \"{name}\" has no endpoint"),
            ));
        }
        let mut seen: Vec<Endpoint> = Vec::new();
        for listed in backend.endpoints.listed() {
            let endpoint = &Located {
                value: listed.url.clone(),
                spot: listed.spot,
            };
            if seen.contains(&endpoint.value) {
                found.push(self.error(endpoint.spot, format!("{} is given twice", endpoint.0)));
            }
            seen.push(endpoint.value.clone());
            let message = match (backend.protocol, endpoint.value.is_websocket()) {
                (Protocol::WebSocket, false) => {
                    "is no WebSocket; write ws:// or wss:// with `protocol: websocket`"
                }
                (Protocol::Grpc | Protocol::Rest, true) => {
                    "is a WebSocket; write `protocol: websocket`, or an http:// or https:// URL"
                }
                (Protocol::WebSocket, true) | (Protocol::Grpc | Protocol::Rest, false) => continue,
            };
            found.push(self.error(endpoint.spot, format!("{} {message}", endpoint.0)));
        }
        if let Some(tls) = &backend.tls {
            self.backend_tls(tls, backend, found);
        }
        self.backend_keys(backend, found);
        if let Some(SchemaSource::Registry(name)) = backend.schema.as_deref()
            && !is_schema_name(name)
        {
            let message = format!("\"{}\" is no name of a schema; {SCHEMA_NAME}", name.value);
            found.push(self.error(name.spot, message));
        }
        self.resilience(name, backend, found);
    }

    /// Who knows where endpoints are.
    fn found(&self, by: &Found, backend: &Backend, found: &mut Vec<Diagnostic>) {
        for url in [&by.dns, &by.srv].into_iter().flatten() {
            if url.is_websocket() {
                found.push(self.error(url.spot, "is a WebSocket; write an http:// or https:// URL"));
            }
            let host = url.0.host().unwrap_or_default();
            if host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok() {
                found.push(self.error(
                    url.spot,
                    "is an address and no name; write it in a list of endpoints",
                ));
            }
        }
        if let Some(srv) = &by.srv
            && srv.0.port().is_some()
        {
            found.push(self.error(srv.spot, "has a port, which SRV records tell"));
        }
        if let Some(kubernetes) = &by.kubernetes {
            if kubernetes.namespace.is_none() && super::sources::own_namespace().is_none() {
                let message = "no \"namespace\", and the gateway does not run in a pod that could say it";
                found.push(self.key_error(kubernetes.spot, message));
            }
            if kubernetes.server.is_none() && super::sources::own_server().is_none() {
                let message = "no \"server\", and the gateway does not run in a pod that could say it";
                found.push(self.key_error(kubernetes.spot, message));
            }
        }
        if backend.protocol == Protocol::WebSocket
            && by.kubernetes.is_none()
            && by.consul.is_none()
            && by.dns.is_none()
        {
            let message =
                "can't be found so with `protocol: websocket`; write a list, dns, consul or kubernetes";
            found.push(self.key_error(backend.endpoints.spot, message));
        }
    }

    fn health_check(&self, check: &Located<HealthCheck>, backend: &Backend, found: &mut Vec<Diagnostic>) {
        let kind = super::balancing::health_kind(check, backend.protocol);
        if let Some(written) = &check.kind
            && written.value == HealthKind::Grpc
            && backend.protocol != Protocol::Grpc
        {
            found.push(self.error(written.spot, "is for `protocol: grpc`; write http or tcp"));
        }
        if let Some(service) = check.service.as_ref().filter(|_| kind != HealthKind::Grpc) {
            found.push(self.key_error(service.spot, "is for checks by grpc"));
        }
        let pages = [
            check.path.as_ref().map(|path| path.spot),
            check.contains.as_ref().map(|text| text.spot),
            check.expected.first().map(|status| status.spot),
        ];
        for spot in pages.into_iter().flatten().filter(|_| kind != HealthKind::Http) {
            found.push(self.key_error(spot, "is for checks by http"));
        }
        match &check.path {
            Some(path)
                if path.value.parse::<http::uri::PathAndQuery>().is_err() || !path.starts_with('/') =>
            {
                let message = format!("\"{}\" is no path; write such as /healthz", path.value);
                found.push(self.error(path.spot, message));
            }
            None if kind == HealthKind::Http => {
                found.push(self.key_error(check.spot, "no \"path\"; a check by http asks for a page"));
            }
            Some(_) | None => {}
        }
    }

    /// What becomes of calls that fail.
    fn resilience(&self, name: &str, backend: &Backend, found: &mut Vec<Diagnostic>) {
        if let Some(max) = &backend.retry.max
            && max.value > 10
        {
            let message = format!("{} retries are too many; write a number from 0 to 10", max.value);
            found.push(self.error(max.spot, message));
        }
        if let Some(check) = &backend.health_check {
            self.health_check(check, backend, found);
        }
        if let Some(fallback) = &backend.fallback {
            self.fallback(name, backend, fallback, found);
        }
    }

    /// What answers in the backend's place.
    fn fallback(
        &self,
        name: &str,
        backend: &Backend,
        written: &Located<Fallback>,
        found: &mut Vec<Diagnostic>,
    ) {
        let no_calls = "is for calls, and this backend has no schema with methods to call";
        for answer in &written.answers {
            if answer.methods.is_empty() {
                found.push(self.error(answer.spot, "is about no method; write such as methods: [\"*\"]"));
            }
            if backend.source().is_none() {
                found.push(self.error(answer.spot, no_calls));
            }
        }
        if let Some(page) = &written.page {
            if backend.protocol != Protocol::Rest {
                found.push(self.key_error(page.spot, "is for plain HTTP, of `protocol: rest`"));
            }
            if let Some(kind) = &page.content_type
                && http::HeaderValue::from_str(kind).is_err()
            {
                found.push(self.error(kind.spot, "is no content type; write such as text/html"));
            }
        }
        let Some(other) = &written.backend else { return };
        let fallback = Located {
            value: other.value.clone(),
            // A name alone stands where the whole does.
            spot: if other.spot == Spot::Default {
                written.spot
            } else {
                other.spot
            },
        };
        let known = self.file.backends.keys().map(String::as_str);
        match self.file.backends.get(&fallback.value) {
            _ if fallback.value == name => {
                found.push(self.error(fallback.spot, "is the backend itself; name another one"));
            }
            None => {
                let meant = did_you_mean(&fallback.value, known);
                found.push(self.error(fallback.spot, format!("no backend \"{}\"{meant}", fallback.value)));
            }
            Some(other) if other.protocol != backend.protocol => {
                let message = format!(
                    "backend \"{}\" speaks another protocol; a fallback gets the same requests",
                    fallback.value
                );
                found.push(self.error(fallback.spot, message));
            }
            Some(_) => {}
        }
    }

    /// Keys that mean something for one protocol alone.
    fn backend_keys(&self, backend: &Backend, found: &mut Vec<Diagnostic>) {
        match backend.protocol {
            Protocol::Grpc => {
                if backend.http2.spot != Spot::Default {
                    found.push(self.key_error(backend.http2.spot, "is for `protocol: rest`; gRPC is HTTP/2"));
                }
                if let Some(rest) = &backend.rest {
                    found.push(self.key_error(rest.spot, "is for `protocol: rest`"));
                }
            }
            Protocol::WebSocket => {
                if backend.http2.spot != Spot::Default {
                    found.push(self.key_error(backend.http2.spot, "is for `protocol: rest`"));
                }
                if let Some(rest) = &backend.rest {
                    found.push(self.key_error(rest.spot, "is for `protocol: rest`"));
                }
                if let Some(schema) = &backend.schema {
                    found.push(
                        self.key_error(schema.spot, "means nothing here: frames are relayed as they are"),
                    );
                }
            }
            Protocol::Rest => {
                if let Some(schema) = &backend.schema
                    && schema.value == SchemaSource::Reflection
                {
                    let message = "can't be learned by reflection from a REST backend; write {protos: …} or {descriptors: …}";
                    found.push(self.error(schema.spot, message));
                }
                if let Some(rest) = &backend.rest
                    && backend.schema.is_none()
                {
                    let message =
                        "says how calls become requests, and this backend has no schema with methods to call";
                    found.push(self.key_error(rest.spot, message));
                }
            }
        }
    }

    fn backend_tls(&self, tls: &Located<BackendTls>, backend: &Backend, found: &mut Vec<Diagnostic>) {
        let secure = |listed: &Located<Listed>| listed.url.is_secure();
        let listed = matches!(backend.endpoints.value, Endpoints::List(_));
        if listed && !backend.endpoints.listed().iter().any(secure) {
            let message = "speaks of https:// or wss:// endpoints, and this backend has none";
            found.push(self.key_error(tls.spot, message));
        }
        match (&tls.certificate, &tls.key) {
            (Some(certificate), None) => {
                found.push(self.key_error(certificate.spot, "has no \"key\" beside it"))
            }
            (None, Some(key)) => found.push(self.key_error(key.spot, "has no \"certificate\" beside it")),
            (None, None) | (Some(_), Some(_)) => {}
        }
        if let Some(name) = &tls.server_name
            && rustls_pki_types::ServerName::try_from(name.value.as_str()).is_err()
        {
            found.push(self.error(name.spot, format!("\"{}\" is not a host name", name.value)));
        }
    }

    fn route(&self, route: &Located<Route>, found: &mut Vec<Diagnostic>) {
        let has = |key| self.file.origin.has(route.spot, key);
        let names_services = !route.services.is_empty() || has("services");
        match &route.path {
            Some(path) if names_services => {
                found.push(self.key_error(path.spot, "stands beside services; a route has one of the two"));
            }
            Some(_) => {
                for key in OF_SERVICES.iter().filter(|key| has(key)) {
                    let message =
                        format!("\"{key}\" is for routes with services; a path is relayed as it is");
                    found.push(self.key_error(route.spot, message));
                }
                let relay = route.relay.as_ref();
                let elsewhere =
                    relay.is_some_and(|relay| relay.redirect.is_some() || !relay.split.is_empty());
                if route.backend.is_empty() && !elsewhere && !has("backend") {
                    found.push(self.key_error(
                        route.spot,
                        "no \"backend\"; a path needs one, or a relay with split or redirect",
                    ));
                }
            }
            // A path that is wrong was told.
            None if has("path") => {}
            None => self.service_route(route, names_services, found),
        }
        for host in &route.hosts {
            if let Err(error) = host.parse::<Host>() {
                found.push(self.error(host.spot, format!("\"{}\" is no host: {error}", host.value)));
            }
        }
        if let Some(cors) = &route.cors {
            self.cors(cors, found);
        }
        self.block(&route.block, found);
        if let Some(rules) = &route.authorize {
            if route.auth.is_none() {
                let message =
                    "speaks of callers, and the route has no \"auth\" by which they say who they are";
                found.push(self.key_error(rules.spot, message));
            }
            let auth = route
                .auth
                .as_ref()
                .and_then(|name| self.file.auth.get(&name.value));
            if auth.is_some_and(|auth| !auth::names_callers(auth)) {
                let message = "speaks of callers, and the \"ext_authz\" of this route has no \"principal_header\" that names them";
                found.push(self.key_error(rules.spot, message));
            }
            let reading = rules.iter().filter_map(|rule| rule.when.as_ref());
            for condition in reading.filter(|it| route.path.is_some() && it.0.fields().is_some()) {
                let message = "reads a message, and what a \"path\" relays has none";
                found.push(self.error(condition.spot, message));
            }
            let methods = rules.iter().flat_map(|rule| rule.methods.first());
            for pattern in methods.filter(|_| route.path.is_some()) {
                let message = "speaks of the methods of services, and this route has a \"path\"";
                found.push(self.error(pattern.spot, message));
            }
            if rules.is_empty() && self.file.origin.is_empty(rules.spot) {
                let message =
                    "has no rule, so nobody may call anything; leave it out to let everybody in who is known";
                found.push(self.key_error(rules.spot, message));
            }
        }
    }

    fn cors(&self, cors: &Located<Cors>, found: &mut Vec<Diagnostic>) {
        if cors.origins.is_empty() && self.file.origin.is_empty(cors.origins.spot) {
            let message = "names no origin; write such as https://app.example.com, or leave cors out";
            found.push(self.key_error(cors.origins.spot, message));
        }
        if !cors.credentials {
            return;
        }
        // A browser refuses the pair, and where `*` is answered by what was asked for, any page acts as its visitor.
        let origins = cors
            .origins
            .iter()
            .filter(|origin| origin.value == WebOrigin::Any)
            .map(|origin| origin.spot);
        let names = cors
            .headers
            .iter()
            .chain(&cors.expose)
            .filter(|name| name.value == HeaderPattern::Any)
            .map(|name| name.spot);
        for spot in origins.chain(names) {
            let message = "\"*\" does not go with credentials: true; write out what is allowed";
            found.push(self.error(spot, message));
        }
    }

    fn service_route(&self, route: &Located<Route>, names_services: bool, found: &mut Vec<Diagnostic>) {
        if !names_services {
            found.push(self.key_error(
                route.spot,
                "no \"services\" and no \"path\"; one of them has to be there",
            ));
        } else if route.services.is_empty()
            && route.services.spot != Spot::Default
            && self.file.origin.is_empty(route.services.spot)
        {
            let message = "names no service; write \"*\" for all that the backend offers";
            found.push(self.key_error(route.services.spot, message));
        }
        if route.backend.is_empty() && !self.file.origin.has(route.spot, "backend") {
            found.push(self.key_error(route.spot, "no \"backend\"; it has to be there"));
        }
        if let Some(relay) = &route.relay {
            found.push(self.key_error(relay.spot, "is for routes with a \"path\""));
        }
    }
}
