//! From a file and the schemas of its backends to a plan. Pure: it reads no file and asks no backend.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::balancing::{balancing, health_check};
use super::choose::{Chosen, choose};
use super::diagnostic::{Diagnostic, did_you_mean};
use super::expose::{expose, path_options};
use super::file::{self, File, SchemaSource};
use super::located::{Located, Spot};
use super::plan::{Backend, BackendTls, Declared, Listener, ListenerTls, Pending, Plan};
use super::relays::relays;
use super::sources::source;
use super::throttle;
use super::value::{Count, HeaderPattern, Origin, Services};
use crate::limits::Limits;
use crate::route::cors::{Cors, Names, Origins};
use crate::route::entry::{Doubt, Offer, StreamEnvelope};
use crate::route::{Host, Route, Streaming};
use crate::schema::exposed::Exposed;
use crate::schema::{Method, Schema};
use crate::translate::Bounds;
use crate::translate::json::{JsonOptions, UnknownFields};
use crate::upstream::connect::Speaks;

mod auth;
mod screen;

use auth::setup;
pub(super) use screen::{hygiene, route_screen, screen};

pub(super) use auth::{Granted, MAX_INTROSPECTION_CACHE, access, algorithm, algorithms, auth, granted};

/// What is known of a backend's services.
#[derive(Clone, Debug)]
pub enum SchemaState {
    /// All that it offers.
    Ready(Arc<Schema>),
    /// Nothing yet, and why.
    Pending(String),
}

/// Compiles a configuration. A backend that is not among `schemas` is pending.
///
/// What is wrong with an HTTP rule disables that rule alone; see [`Plan::disabled`].
///
/// # Errors
/// Every route that makes no sense with these schemas: patterns that take nothing, routes that take the same method
/// equally.
pub fn compile(file: &File, schemas: &BTreeMap<String, SchemaState>) -> Result<Plan, Vec<Diagnostic>> {
    let limits = file.limits.over(&Limits::default());
    let routes = routes(file, &limits);
    let mut errors = Vec::new();
    let states: Vec<&SchemaState> = file.backends.keys().map(|name| state(schemas, name)).collect();
    let mut warnings = Vec::new();
    for route in &routes {
        if let SchemaState::Ready(schema) = states[route.route.backend] {
            takes_something(file, route, schema, &mut errors, &mut warnings);
        }
    }
    let chosen = choose(file, &routes, &states);
    errors.extend(chosen.conflicts);
    if !errors.is_empty() {
        return Err(errors);
    }
    for (at, route) in routes.iter().enumerate() {
        let of = chosen.entries.iter().filter(|chosen| chosen.route == at);
        let methods: Vec<&Method> = of.map(|chosen| &*chosen.method).collect();
        errors.extend(throttle::fields_of_nothing(file, route, &methods));
    }
    warnings.extend(chosen.warnings);
    for (name, state) in file.backends.keys().zip(&states) {
        if let SchemaState::Ready(schema) = state {
            let about = |warning: &_| {
                Diagnostic::error(format!("backends.{name}"), format!("{warning}")).as_warning()
            };
            warnings.extend(schema.warnings.iter().map(about));
        }
    }
    let paths = relays(file, &limits, &mut errors);
    let exposed = expose(file, &routes, &chosen.entries, &states, &paths);
    errors.extend(exposed.conflicts);
    if !errors.is_empty() {
        return Err(errors);
    }
    warnings.extend(exposed.warnings);
    warnings.extend(super::fallback::answers_of_nothing(
        file,
        &states,
        &exposed.entries,
    ));
    Ok(Plan {
        generation: 0,
        workers: workers(file.workers),
        listeners: file
            .listeners
            .iter()
            .map(|written| listener(file, written, &limits))
            .collect(),
        admin: Some(file.admin.address.0),
        backends: backends(file),
        schemas: states
            .iter()
            .map(|state| match state {
                SchemaState::Ready(schema) => Some(schema.fingerprint),
                SchemaState::Pending(_) => None,
            })
            .collect(),
        declared: routes.iter().map(declared).collect(),
        auth: file
            .auth
            .iter()
            .map(|(name, written)| setup(file, name, written))
            .collect(),
        rate_limits: throttle::limits(file),
        cluster: throttle::cluster(file),
        shedding: throttle::shedding(file),
        entries: exposed.entries,
        paths: paths.into_iter().map(|(_, route)| route).collect(),
        routes: exposed.routes,
        offer: offer(file),
        reflection: reflection(file, &chosen.entries, &routes, &states),
        disabled: exposed.disabled,
        pending: pending(file, &routes, &states),
        warnings,
        limits,
    })
}

/// A route of the file, as far as it is resolved before its methods are known.
#[derive(Debug)]
pub(super) struct Resolved<'a> {
    pub(super) written: &'a Located<file::Route>,
    pub(super) route: Arc<Route>,
}

impl Resolved<'_> {
    /// The pattern by which the route takes a service: the most specific of those that do.
    pub(super) fn pattern(&self, service: &str) -> Option<&Located<Services>> {
        let takes = self
            .written
            .services
            .iter()
            .filter(|pattern| pattern.take(service));
        takes.max_by_key(|pattern| pattern.rank())
    }
}

fn declared(route: &Resolved<'_>) -> Declared {
    Declared {
        services: route
            .written
            .services
            .iter()
            .map(|pattern| pattern.value.clone())
            .collect(),
        route: Arc::clone(&route.route),
        path: path_options(route.written),
    }
}

fn state<'a>(schemas: &'a BTreeMap<String, SchemaState>, backend: &str) -> &'a SchemaState {
    static UNKNOWN: std::sync::LazyLock<SchemaState> =
        std::sync::LazyLock::new(|| SchemaState::Pending("it was not asked yet".to_owned()));
    schemas.get(backend).unwrap_or(&UNKNOWN)
}

fn workers(written: Option<Count>) -> usize {
    match written {
        Some(count) => usize::try_from(count.0).unwrap_or(usize::MAX),
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

fn listener(file: &File, written: &file::Listener, limits: &Limits) -> Listener {
    Listener {
        address: written.address.0,
        tls: listener_tls(file, written.tls.as_ref()),
        trusted_proxies: written.trusted_proxies.iter().map(|network| network.0).collect(),
        screen: screen(file, &written.addresses, &written.block),
        limits: written.limits.over(limits),
    }
}

/// The files of a listener's TLS.
pub fn listener_tls(file: &File, written: Option<&Located<file::ListenerTls>>) -> Option<ListenerTls> {
    let path = |path: &Located<PathBuf>| file.origin.resolve(path);
    written.map(|tls| {
        let first = tls.certificate.as_ref().zip(tls.key.as_ref());
        let further = tls.certificates.iter().map(|pair| (&pair.certificate, &pair.key));
        ListenerTls {
            certificates: first
                .into_iter()
                .chain(further)
                .map(|(a, b)| (path(a), path(b)))
                .collect(),
            client_ca: tls.client_ca.as_ref().map(path),
        }
    })
}

/// The files and the name of TLS towards a backend.
pub fn backend_tls(file: &File, written: &file::Backend) -> BackendTls {
    let path = |path: &Located<PathBuf>| file.origin.resolve(path);
    let tls = written.tls.as_ref().map(|tls| BackendTls {
        ca: tls.ca.as_ref().map(path),
        certificate: tls
            .certificate
            .as_ref()
            .zip(tls.key.as_ref())
            .map(|(a, b)| (path(a), path(b))),
        server_name: tls.server_name.as_ref().map(|name| name.value.clone()),
    });
    tls.unwrap_or_default()
}

/// The backends of a file, which need no schema to be known.
pub fn backends(file: &File) -> Vec<Backend> {
    let limits = file.limits.over(&Limits::default());
    let written = file.backends.iter();
    written
        .map(|(name, written)| backend(file, name, written, &limits))
        .collect()
}

fn backend(file: &File, name: &str, written: &file::Backend, limits: &Limits) -> Backend {
    Backend {
        name: name.to_owned(),
        source: source(file, written),
        speaks: match written.protocol {
            file::Protocol::Grpc => Speaks::Http2,
            file::Protocol::Rest if written.http2.value => Speaks::Http2,
            file::Protocol::Rest => Speaks::Http1,
            file::Protocol::WebSocket => Speaks::Http1Alone,
        },
        balancing: balancing(file, written),
        health: health_check(written),
        fallback: written
            .fallback
            .as_ref()
            .and_then(|fallback| fallback.backend.as_ref())
            .and_then(|other| file.backends.keys().position(|name| *name == other.value)),
        page: super::fallback::page(written),
        idle_timeout: written
            .timeout
            .idle
            .map_or(limits.idle_timeout, |period| period.0),
        connect_timeout: written
            .timeout
            .connect
            .map_or(limits.connect_timeout, |period| period.0),
        tls: backend_tls(file, written),
        registry: match written.source() {
            Some(SchemaSource::Registry(name)) => Some(name.value.clone()),
            Some(SchemaSource::Reflection | SchemaSource::Protos(_) | SchemaSource::Descriptors(_))
            | None => None,
        },
        max_in_flight: written.max_in_flight.map(|most| most.0),
        adaptive: written.adaptive_concurrency.as_deref().map(throttle::adaptive),
    }
}

fn routes<'a>(file: &'a File, limits: &Limits) -> Vec<Resolved<'a>> {
    let mut routes: Vec<Resolved<'_>> = Vec::new();
    for (index, written) in file.routes.iter().enumerate() {
        if written.path.is_some() {
            continue;
        }
        let Some((backend, (_, group))) = file
            .backends
            .iter()
            .enumerate()
            .find(|(_, (name, _))| **name == written.backend.value)
        else {
            // The file was refused for it when it was read.
            continue;
        };
        let first = written
            .services
            .first()
            .map_or_else(String::new, |pattern| pattern.to_string());
        let taken = routes.iter().any(|route| route.route.name == first);
        let request = written.timeout.or(group.timeout.request);
        let size = written
            .limits
            .max_message_bytes
            .and_then(|size| usize::try_from(size.0).ok());
        let max_message_bytes = size.unwrap_or(limits.max_message_bytes);
        let route = Route {
            name: if taken { format!("{first}#{index}") } else { first },
            backend,
            hosts: hosts(written),
            json: json(&written.json),
            streaming: match written.streaming {
                file::Streaming::Ndjson => Streaming::Ndjson,
                file::Streaming::Array => Streaming::Array,
                file::Streaming::Sse => Streaming::Sse,
            },
            envelope: envelope(written.stream_envelope),
            unary_timeout: request.map_or(limits.request_timeout, |period| period.0),
            stream_timeout: None,
            bounds: Bounds {
                max_message_bytes,
                max_decompression_ratio: limits.max_decompression_ratio,
            },
            websocket: written.websocket.over(limits, max_message_bytes),
            cors: written.cors.as_deref().map(cors),
            auth: auth(file, written),
            screen: route_screen(file, written),
            hygiene: hygiene(&written.errors),
            doubt: Doubt::default(),
        };
        routes.push(Resolved {
            written,
            route: Arc::new(route),
        });
    }
    routes
}

/// What stands around each message of a stream.
pub(super) fn envelope(written: file::StreamEnvelope) -> StreamEnvelope {
    match written {
        file::StreamEnvelope::None => StreamEnvelope::None,
        file::StreamEnvelope::Result => StreamEnvelope::Result,
    }
}

/// How long a browser remembers the answer to a preflight request, if the route does not say.
const PREFLIGHT_MAX_AGE: Duration = Duration::from_secs(600);

fn cors(written: &file::Cors) -> Cors {
    let origins: Option<Vec<_>> = written
        .origins
        .iter()
        .map(|origin| match &origin.value {
            Origin::Any => None,
            Origin::One(origin) => Some(origin.clone()),
        })
        .collect();
    let methods = written.methods.as_ref();
    Cors {
        origins: origins.map_or(Origins::Any, Origins::These),
        methods: methods.map(|methods| methods.iter().map(|method| method.0.clone()).collect()),
        headers: names(&written.headers),
        expose: names(&written.expose),
        credentials: written.credentials,
        max_age: written.max_age.map_or(PREFLIGHT_MAX_AGE, |period| period.0),
    }
}

fn names(written: &[Located<HeaderPattern>]) -> Names {
    let names: Option<Vec<_>> = written
        .iter()
        .map(|name| match &name.value {
            HeaderPattern::Any => None,
            HeaderPattern::One(name) => Some(name.clone()),
        })
        .collect();
    names.map_or(Names::Any, Names::These)
}

/// The hosts of a route; the file was refused for those that can't be read.
pub(super) fn hosts(written: &file::Route) -> Vec<Host> {
    let mut hosts = Vec::new();
    for host in written.hosts.iter().filter_map(|host| host.parse().ok()) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

fn json(written: &file::Json) -> JsonOptions {
    JsonOptions {
        unknown_fields: match written.unknown_fields {
            file::UnknownFields::Ignore => UnknownFields::Ignore,
            file::UnknownFields::Reject => UnknownFields::Reject,
        },
        case_insensitive_enums: written.case_insensitive_enums,
        drop_unknown_enum_names: false,
        emit_defaults: written.emit_defaults,
        proto_names: written.proto_names,
        enums_as_ints: written.enums_as_ints,
        int64_as_numbers: written.int64_as_numbers,
    }
}

/// Says which patterns of a route take nothing that its backend offers.
///
/// A backend that is asked by reflection may offer it tomorrow, so it is a warning there; a file that does not declare
/// it is most likely not what was meant.
fn takes_something(
    file: &File,
    route: &Resolved<'_>,
    schema: &Schema,
    errors: &mut Vec<Diagnostic>,
    warnings: &mut Vec<Diagnostic>,
) {
    let name = &route.written.backend.value;
    let learned = file.backends.get(name).is_none_or(|it| it.is_learned());
    for pattern in &route.written.services.value {
        if schema.methods.iter().any(|method| pattern.take(&method.service)) {
            continue;
        }
        let services = services(schema);
        let meant = did_you_mean(&pattern.to_string(), services.iter().copied());
        let message = format!(
            "backend \"{name}\" offers no service that is \"{}\"{meant}",
            pattern.value
        );
        let note = match services.as_slice() {
            [] => "it offers none".to_owned(),
            services => format!("it offers: {}", services.join(", ")),
        };
        let found = file.origin.error(pattern.spot, "routes", message).noting(note);
        if learned {
            warnings.push(found.as_warning());
        } else {
            errors.push(found);
        }
    }
}

fn services(schema: &Schema) -> Vec<&str> {
    let mut services: Vec<&str> = schema.methods.iter().map(|method| &*method.service).collect();
    services.sort_unstable();
    services.dedup();
    services
}

/// To whom server reflection tells anything; a name that is not there leads to nobody.
fn offer(file: &File) -> Offer {
    match (&file.reflection.auth, file.reflection.enabled) {
        (_, false) => Offer::Nobody,
        (None, true) => Offer::Anybody,
        (Some(auth), true) => {
            let at = file.auth.keys().position(|name| *name == auth.value);
            at.map_or(Offer::Nobody, Offer::Known)
        }
    }
}

fn reflection(file: &File, chosen: &[Chosen], routes: &[Resolved<'_>], states: &[&SchemaState]) -> Exposed {
    let told = |method: &Method| {
        let patterns = &file.reflection.services;
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.take(&method.service))
    };
    let methods: Vec<Vec<Arc<Method>>> = (0..states.len())
        .map(|backend| {
            let of = chosen
                .iter()
                .filter(|chosen| routes[chosen.route].route.backend == backend && told(&chosen.method));
            let mut methods: Vec<_> = of.map(|chosen| Arc::clone(&chosen.method)).collect();
            methods.sort_by(|a, b| a.path.cmp(&b.path));
            methods.dedup_by(|a, b| a.path == b.path);
            methods
        })
        .collect();
    Exposed::new(
        states
            .iter()
            .zip(&methods)
            .filter_map(|(state, methods)| match state {
                SchemaState::Ready(schema) => Some((&**schema, methods.as_slice())),
                SchemaState::Pending(_) => None,
            }),
    )
}

fn pending(file: &File, routes: &[Resolved<'_>], states: &[&SchemaState]) -> Vec<Pending> {
    let waits = |route: &Resolved<'_>| match states[route.route.backend] {
        SchemaState::Ready(_) => None,
        SchemaState::Pending(reason) => Some(Pending {
            backend: route.written.backend.value.clone(),
            patterns: route
                .written
                .services
                .iter()
                .map(|pattern| pattern.value.clone())
                .collect(),
            hosts: route.route.hosts.clone(),
            reason: reason.clone(),
        }),
    };
    debug_assert!(routes.len() <= file.routes.len());
    routes.iter().filter_map(waits).collect()
}

/// Where a value stands, for an error about the route as a whole.
pub(super) fn place(file: &File, spot: Spot, name: &str) -> String {
    file.origin.path(spot).unwrap_or_else(|| name.to_owned())
}

#[cfg(test)]
mod tests;
