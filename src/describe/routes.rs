//! The route table of a plan, for people and for programs: what is answered, where and in which dialects, by which
//! method of which backend, and what is not.

mod reach;

use std::fmt;

use serde::Serialize;

use super::columns;
use crate::backend::own;
use crate::config::Plan;
use crate::config::plan::{Disabled, Pending};
use crate::route::entry::Bound;
use crate::route::relay::Action;
use crate::route::{Entry, Form};
use crate::schema::{HttpMethod, Method, MethodKind};
use crate::translate::binding::BodyRule;
use crate::wire::{Addressing, Dialect, Spellings};

/// The route table; `Display` writes it.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a>(&'a Plan);

/// A method where it answers.
#[derive(Clone, Debug, Serialize)]
struct Answered {
    /// As gRPC tools write it.
    method: String,
    kind: &'static str,
    /// Empty for any.
    hosts: Vec<String>,
    route: String,
    /// Absent where the gateway answers itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    addresses: Vec<Address>,
    /// Why calls of it fail, whatever they say.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<&'static str>,
}

/// One address of a method.
#[derive(Clone, Debug, Serialize)]
struct Address {
    /// `*` for any.
    http_method: String,
    path: String,
    /// What the body of a request gives, as a rule writes it.
    body: String,
    dialects: Vec<Heard>,
}

/// A dialect that is understood at an address.
#[derive(Clone, Debug, Serialize)]
struct Heard {
    dialect: &'static str,
    /// What a request may be. Empty where it has no body.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    content_types: Vec<&'static str>,
    /// A header that a request has beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    /// What a WebSocket may agree on; it need not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subprotocols: Vec<&'static str>,
}

/// A route of paths.
#[derive(Clone, Debug, Serialize)]
struct Relayed {
    /// Empty for any.
    http_methods: Vec<String>,
    path: String,
    /// Empty for any.
    hosts: Vec<String>,
    route: String,
    /// `http` or `websocket`.
    carries: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backends: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect: Option<u16>,
}

/// Everything, for programs.
#[derive(Debug, Serialize)]
struct Everything<'a> {
    methods: Vec<Answered>,
    paths: Vec<Relayed>,
    /// HTTP rules that are not in use.
    disabled: Vec<Unused<'a>>,
    /// Routes whose services are not known.
    pending: Vec<Unknown<'a>>,
}

#[derive(Debug, Serialize)]
struct Unused<'a> {
    method: &'a str,
    rule: &'a str,
    reason: &'a str,
}

#[derive(Debug, Serialize)]
struct Unknown<'a> {
    backend: &'a str,
    services: Vec<String>,
    reason: &'a str,
}

impl<'a> Table<'a> {
    /// The table of a plan.
    pub fn new(plan: &'a Plan) -> Self {
        Self(plan)
    }

    /// What the cells of a row are.
    pub const TITLES: [&'static str; 9] = [
        "METHOD", "PATH", "RPC", "KIND", "BODY", "HOSTS", "ROUTE", "BACKEND", "DIALECTS",
    ];

    /// The rows of what goes to backends, each with a cell for each of the titles.
    pub fn rows(&self) -> Vec<[String; 9]> {
        let mut rows: Vec<_> = self.methods().iter().flat_map(Answered::rows).collect();
        rows.extend(self.paths().iter().map(Relayed::row));
        rows
    }

    /// Everything as indented JSON.
    ///
    /// # Errors
    /// None that a plan can cause; the writer's.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let plan = self.0;
        let disabled = plan
            .disabled
            .iter()
            .map(|Disabled { method, rule, reason }| Unused { method, rule, reason });
        let pending = plan.pending.iter().map(|pending| Unknown {
            backend: &pending.backend,
            services: strings(&pending.patterns),
            reason: &pending.reason,
        });
        let mut methods = self.methods();
        methods.extend(self.own());
        serde_json::to_string_pretty(&Everything {
            methods,
            paths: self.paths(),
            disabled: disabled.collect(),
            pending: pending.collect(),
        })
    }

    fn methods(&self) -> Vec<Answered> {
        let plan = self.0;
        let entries = plan.entries.iter().enumerate();
        entries
            .map(|(at, entry)| {
                let backend = plan.backends.get(entry.route.backend);
                let mut answered = Answered::new(entry, backend.map(|backend| backend.name.clone()));
                let numbers = (0..).map(Some).zip(&entry.bindings);
                for (number, bound) in numbers.chain([(None, &entry.rpc)]) {
                    let dialects = match answered.unreachable {
                        None => reach::dialects(plan, (at, entry), number, &bound.binding),
                        Some(_) => Vec::new(),
                    };
                    answered.add(entry, bound, &dialects);
                }
                answered
            })
            .collect()
    }

    /// What the gateway answers itself.
    fn own(&self) -> Vec<Answered> {
        let by_rpc_path = |dialect: &Dialect| dialect.addressing() == Addressing::RpcPath;
        let dialects: Vec<Dialect> = Dialect::ALL.into_iter().filter(by_rpc_path).collect();
        let own = own::all(&self.0.limits, &self.0.offer);
        own.iter()
            .map(|own| {
                let mut answered = Answered::new(&own.entry, None);
                answered.add(&own.entry, &own.entry.rpc, &dialects);
                answered
            })
            .collect()
    }

    fn paths(&self) -> Vec<Relayed> {
        let plan = self.0;
        plan.paths
            .iter()
            .map(|route| {
                let name = |at: &usize| plan.backends.get(*at).map(|backend| backend.name.clone());
                let (backends, redirect) = match &route.action {
                    Action::Redirect(redirect) => (Vec::new(), Some(redirect.status.as_u16())),
                    Action::Relay(relay) => {
                        let shares = relay.shares.iter();
                        (shares.filter_map(|(at, _)| name(at)).collect(), None)
                    }
                };
                Relayed {
                    http_methods: strings(&route.methods),
                    path: route.template.to_string(),
                    hosts: strings(&route.hosts),
                    route: route.name.clone(),
                    carries: if route.websocket().is_some() {
                        "websocket"
                    } else {
                        "http"
                    },
                    backends,
                    redirect,
                }
            })
            .collect()
    }
}

impl Answered {
    /// A method without its addresses.
    fn new(entry: &Entry, backend: Option<String>) -> Self {
        Self {
            method: rpc(&entry.method).to_owned(),
            kind: kind(entry.method.kind),
            hosts: strings(&entry.route.hosts),
            route: entry.route.name.clone(),
            backend,
            addresses: Vec::new(),
            unreachable: entry.outbound.gap(&entry.method),
        }
    }

    /// Adds an address at which the method is called in these dialects.
    fn add(&mut self, entry: &Entry, bound: &Bound, dialects: &[Dialect]) {
        let binding = &bound.binding;
        self.addresses.push(Address {
            http_method: verb(&binding.method).to_owned(),
            path: binding.template.to_string(),
            body: body(&entry.method, binding.body),
            dialects: dialects
                .iter()
                .map(|dialect| Heard::new(*dialect, entry, bound))
                .collect(),
        });
        let connect = dialects.iter().find(|dialect| dialect.takes_get());
        if let Some(connect) = connect.filter(|_| entry.method.may_be_got()) {
            self.addresses.push(Address {
                http_method: "GET".to_owned(),
                path: binding.template.to_string(),
                body: body(&entry.method, BodyRule::None),
                dialects: vec![Heard {
                    dialect: connect.name(),
                    content_types: Vec::new(),
                    header: None,
                    subprotocols: Vec::new(),
                }],
            });
        }
    }

    fn rows(&self) -> impl Iterator<Item = [String; 9]> {
        self.addresses.iter().map(|address| {
            let dialects: Vec<&str> = address.dialects.iter().map(|heard| heard.dialect).collect();
            [
                address.http_method.clone(),
                address.path.clone(),
                self.method.clone(),
                self.kind.to_owned(),
                address.body.clone(),
                any(&self.hosts, "any"),
                self.route.clone(),
                self.backend.clone().unwrap_or_else(|| "-".to_owned()),
                any(&dialects, "-"),
            ]
        })
    }
}

impl Heard {
    fn new(dialect: Dialect, entry: &Entry, bound: &Bound) -> Self {
        let spellings = dialect.spellings();
        let (spellings, header) = match entry.method.kind {
            MethodKind::Unary => (spellings.unary, spellings.unary_header),
            MethodKind::ServerStream | MethodKind::ClientStream | MethodKind::Bidi => {
                (spellings.streaming, None)
            }
        };
        let (content_types, subprotocols) = match (dialect.addressing(), &bound.request) {
            (Addressing::Path, _) => (Vec::new(), spellings.to_vec()),
            (Addressing::Rules, Form::None) => (Vec::new(), Vec::new()),
            (Addressing::Rules, Form::Raw(_)) => (vec!["*/*"], Vec::new()),
            (Addressing::Rules, Form::Json(_)) | (Addressing::RpcPath, _) => (spellings.to_vec(), Vec::new()),
        };
        Self {
            dialect: dialect.name(),
            content_types,
            header: header.map(|(name, value)| format!("{name}: {value}")),
            subprotocols,
        }
    }
}

impl Relayed {
    fn row(&self) -> [String; 9] {
        [
            any(&self.http_methods, "*"),
            self.path.clone(),
            "-".to_owned(),
            match self.redirect {
                Some(status) => format!("redirect {status}"),
                None => "relay".to_owned(),
            },
            "-".to_owned(),
            any(&self.hosts, "any"),
            self.route.clone(),
            any(&self.backends, "-"),
            self.carries.to_owned(),
        ]
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let (methods, own) = (self.methods(), self.own());
        let titles = Self::TITLES.map(str::to_owned);
        let mut rows = vec![titles];
        rows.extend(methods.iter().flat_map(Answered::rows));
        rows.extend(self.paths().iter().map(Relayed::row));
        columns::write(f, "", &rows)?;
        if !own.is_empty() {
            writeln!(f, "\nAnswered by the gateway itself:")?;
            let own = own.iter().flat_map(Answered::rows);
            let own: Vec<_> = own
                .map(|[verb, path, _, kind, _, _, _, _, dialects]| [verb, path, kind, dialects])
                .collect();
            columns::write(f, "  ", &own)?;
        }
        writeln!(f, "\nDialects, and what a request says that is in one:")?;
        columns::write(f, "  ", &Dialect::ALL.map(spelled))?;
        let gaps = methods
            .iter()
            .filter_map(|method| Some((method, method.unreachable?)));
        for (at, (Answered { method, .. }, why)) in gaps.enumerate() {
            if at == 0 {
                writeln!(f, "\nMethods that can't be called:")?;
            }
            writeln!(f, "  {method}\n    {why}")?;
        }
        if !plan.disabled.is_empty() {
            writeln!(f, "\nHTTP rules that are not in use:")?;
            for Disabled { method, rule, reason } in &plan.disabled {
                writeln!(f, "  {method}: {rule}\n    {reason}")?;
            }
        }
        if !plan.pending.is_empty() {
            writeln!(f, "\nRoutes whose services are not known:")?;
            for Pending {
                backend,
                patterns,
                reason,
                ..
            } in &plan.pending
            {
                writeln!(f, "  {} of backend \"{backend}\"\n    {reason}", joined(patterns))?;
            }
        }
        Ok(())
    }
}

/// A list, or this where it is empty.
fn any<T: ToString>(items: &[T], nothing: &str) -> String {
    if items.is_empty() {
        nothing.to_owned()
    } else {
        joined(items)
    }
}

/// How a client says that it speaks a dialect.
fn spelled(dialect: Dialect) -> [String; 2] {
    let Spellings {
        unary,
        streaming,
        unary_header,
    } = dialect.spellings();
    let mut text = match dialect.addressing() {
        Addressing::Path => format!("subprotocol {}, or none", joined(unary)),
        Addressing::Rules | Addressing::RpcPath => format!("content type {}", joined(unary)),
    };
    if let Some((name, value)) = unary_header {
        text = format!("{text}, with header {name}: {value}");
    }
    if streaming != unary {
        text = format!("{text}; of streams, {}", joined(streaming));
    }
    if dialect.takes_get() {
        text.push_str("; GET with ?connect=v1&encoding=…&message=…");
    }
    [dialect.name().to_owned(), text]
}

fn strings<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

/// An HTTP method, or `*` for any.
pub(super) fn verb(method: &HttpMethod) -> &str {
    match method {
        HttpMethod::Exact(method) => method.as_str(),
        HttpMethod::Any => "*",
    }
}

/// The rpc as gRPC tools write it, such as `library.v1.Library/GetBook`.
pub(super) fn rpc(method: &Method) -> &str {
    method.path.trim_start_matches('/')
}

pub(super) fn kind(kind: MethodKind) -> &'static str {
    match kind {
        MethodKind::Unary => "unary",
        MethodKind::ServerStream => "server stream",
        MethodKind::ClientStream => "client stream",
        MethodKind::Bidi => "bidi",
    }
}

/// What the body of a request gives, as a rule writes it.
fn body(method: &Method, body: BodyRule) -> String {
    match body {
        BodyRule::None => "-".to_owned(),
        BodyRule::All => "*".to_owned(),
        BodyRule::Field(number) => method
            .input
            .get_field(number)
            .map_or_else(|| number.to_string(), |field| field.name().to_owned()),
    }
}

pub(super) fn joined<T: ToString>(items: &[T]) -> String {
    strings(items).join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{SchemaState, compile, from_text};
    use crate::schema::{Rules, Schema};

    const FILE: &str = "\
backends:
  a: {endpoints: [\"http://127.0.0.1:1\"]}
  b: {endpoints: [\"http://127.0.0.1:2\"]}
  c: {protocol: rest, endpoints: [\"http://127.0.0.1:3\"], schema: {protos: [c.proto]}}
  d: {protocol: websocket, endpoints: [\"ws://127.0.0.1:4\"]}
routes:
  - {services: [\"a.*\"], backend: a, hosts: [example.com, \"*.example.com\"]}
  - {services: [\"c.*\"], backend: c}
  - {services: [\"*\"], backend: b}
  - {path: /v1/things/raw, backend: c}
  - {path: /talk, backend: d}
  - {path: /old/**, relay: {redirect: {status: 308, prefix: /new}}}
";

    const A: &str = r#"
syntax = "proto3";
package a;
import "google/api/annotations.proto";
message M { string x = 1; M m = 2; }
service S {
  rpc Unary(M) returns (M) { option (google.api.http) = {
    post: "/v1/{x=a/**}:do" body: "m"
    additional_bindings { custom { kind: "*" path: "/v1/any" } }
    additional_bindings { get: "/v1/{y}" }
  }; }
  rpc Both(stream M) returns (stream M);
  rpc Read(M) returns (M) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (google.api.http) = { get: "/v1/things/{x}" };
  }
  rpc Write(M) returns (M) { option (google.api.http) = { put: "/v1/things/{x}" body: "*" }; }
}
"#;

    const C: &str = r#"
syntax = "proto3";
package c;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
message M { string x = 1; }
service S {
  rpc One(M) returns (M) { option (google.api.http) = { get: "/v2/things/{x}" }; }
  rpc Raw(google.api.HttpBody) returns (M) { option (google.api.http) = { post: "/v2/raw" body: "*" }; }
  rpc Up(stream M) returns (M) { option (google.api.http) = { post: "/v2/up" body: "*" }; }
  rpc None(M) returns (M);
}
"#;

    fn plan() -> Plan {
        let file = from_text("sabir.yaml", Path::new(""), FILE).expect("a file");
        let schema = |text: &str| {
            let sources = [("a.proto".to_owned(), text.to_owned())].into();
            let schema = Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty());
            SchemaState::Ready(Arc::new(schema.expect("a schema")))
        };
        let schemas = [
            ("a".to_owned(), schema(A)),
            ("b".to_owned(), SchemaState::Pending("it is down".to_owned())),
            ("c".to_owned(), schema(C)),
        ];
        compile(&file, &schemas.into()).expect("a plan")
    }

    #[test]
    fn the_table_lists_what_is_answered_and_what_is_not() {
        insta::assert_snapshot!(Table::new(&plan()));
    }

    #[test]
    fn programs_are_told_the_same() {
        insta::assert_snapshot!(Table::new(&plan()).to_json().expect("JSON"));
    }
}
