//! The route table of a plan, for people: what is answered, by which method of which backend, and what is not.

use std::fmt;

use super::columns;
use crate::config::Plan;
use crate::config::plan::{Disabled, Pending};
use crate::route::Entry;
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
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let titles = [
            "METHOD", "PATH", "RPC", "KIND", "BODY", "HOSTS", "ROUTE", "BACKEND",
        ];
        let mut rows = vec![titles.map(str::to_owned)];
        for entry in &plan.entries {
            let bindings = entry.bindings.iter().map(|bound| &bound.binding);
            rows.extend(
                bindings
                    .chain([&entry.rpc.binding])
                    .map(|binding| row(plan, entry, binding)),
            );
        }
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
