//! The route table of a plan, for people: what is answered, by which method of which backend, and what is not.

use std::fmt;

use super::columns;
use crate::config::Plan;
use crate::config::plan::{Disabled, Pending};
use crate::route::relay::Action;
use crate::route::{Entry, PathRoute};
use crate::schema::{HttpMethod, Method, MethodKind};
use crate::translate::binding::{Binding, BodyRule};

/// The route table; `Display` writes it.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a>(&'a Plan);

impl<'a> Table<'a> {
    /// The table of a plan.
    pub fn new(plan: &'a Plan) -> Self {
        Self(plan)
    }

    /// What the cells of a row are.
    pub const TITLES: [&'static str; 8] = [
        "METHOD", "PATH", "RPC", "KIND", "BODY", "HOSTS", "ROUTE", "BACKEND",
    ];

    /// The rows, each with a cell for each of the titles.
    pub fn rows(&self) -> Vec<[String; 8]> {
        let plan = self.0;
        let mut rows = Vec::new();
        for entry in &plan.entries {
            let bindings = entry.bindings.iter().map(|bound| &bound.binding);
            rows.extend(
                bindings
                    .chain([&entry.rpc.binding])
                    .map(|binding| row(plan, entry, binding)),
            );
        }
        rows.extend(plan.paths.iter().map(|route| path_row(plan, route)));
        rows
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let titles = Self::TITLES.map(str::to_owned);
        let mut rows = vec![titles];
        rows.extend(self.rows());
        columns::write(f, "", &rows)?;
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

fn row(plan: &Plan, entry: &Entry, binding: &Binding) -> [String; 8] {
    let route = &entry.route;
    [
        verb(&binding.method).to_owned(),
        binding.template.to_string(),
        rpc(&entry.method).to_owned(),
        kind(entry.method.kind).to_owned(),
        body(&entry.method, binding.body),
        if route.hosts.is_empty() {
            "any".to_owned()
        } else {
            joined(&route.hosts)
        },
        route.name.clone(),
        plan.backends
            .get(route.backend)
            .map_or_else(String::new, |backend| backend.name.clone()),
    ]
}

fn path_row(plan: &Plan, route: &PathRoute) -> [String; 8] {
    let backend = |at: &usize| plan.backends.get(*at).map_or("", |backend| backend.name.as_str());
    let (what, backends) = match &route.action {
        Action::Redirect(redirect) => (format!("redirect {}", redirect.status.as_u16()), String::new()),
        Action::Relay(relay) => {
            let names: Vec<&str> = relay.shares.iter().map(|(at, _)| backend(at)).collect();
            ("relay".to_owned(), joined(&names))
        }
    };
    [
        if route.methods.is_empty() {
            "*".to_owned()
        } else {
            joined(&route.methods)
        },
        route.template.to_string(),
        "-".to_owned(),
        what,
        "-".to_owned(),
        if route.hosts.is_empty() {
            "any".to_owned()
        } else {
            joined(&route.hosts)
        },
        route.name.clone(),
        backends,
    ]
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
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::config::{SchemaState, compile, from_text};
    use crate::schema::{Rules, Schema};

    #[test]
    fn the_table_lists_what_is_answered_and_what_is_not() {
        let text = "\
backends:
  a: {endpoints: [\"http://127.0.0.1:1\"]}
  b: {endpoints: [\"http://127.0.0.1:2\"]}
routes:
  - {services: [\"a.*\"], backend: a, hosts: [example.com, \"*.example.com\"]}
  - {services: [\"*\"], backend: b}
";
        let proto = r#"
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
}
"#;
        let file = from_text("sabir.yaml", Path::new(""), text).expect("a file");
        let sources = [("a.proto".to_owned(), proto.to_owned())].into();
        let schema = Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty());
        let schemas = [
            (
                "a".to_owned(),
                SchemaState::Ready(Arc::new(schema.expect("a schema"))),
            ),
            ("b".to_owned(), SchemaState::Pending("it is down".to_owned())),
        ];
        let plan = compile(&file, &schemas.into()).expect("a plan");
        insta::assert_snapshot!(Table::new(&plan));
    }
}
