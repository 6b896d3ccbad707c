//! From chosen methods to entries and the lookup that finds them. A bad HTTP rule is left out and told.

use std::collections::HashMap;
use std::sync::Arc;

use super::choose::Chosen;
use super::compile::{Resolved, SchemaState, access};
use super::diagnostic::Diagnostic;
use super::file::{self, File};
use super::plan::Disabled;
use crate::route::entry::Bound;
use crate::route::{Entry, PathOptions, PathUnescape, Routes, RoutesBuilder, TrailingSlash};
use crate::schema::{HttpMethod, HttpRule, Method};
use crate::translate::binding::{Binding, BindingError, BindingOptions, OwnedFields, UnknownQuery};
use crate::translate::json::{JsonOptions, Transcoder};

/// What the gateway exposes.
#[derive(Debug, Default)]
pub(super) struct Exposure {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) routes: Routes,
    pub(super) disabled: Vec<Disabled>,
    pub(super) warnings: Vec<Diagnostic>,
}

/// Makes an entry of every chosen method, and binds its HTTP rules.
pub(super) fn expose(
    file: &File,
    routes: &[Resolved<'_>],
    chosen: &[Chosen],
    states: &[&SchemaState],
) -> Exposure {
    let mut builder = RoutesBuilder::new();
    let mut exposure = Exposure::default();
    // One transcoder serves all routes of a backend that write JSON alike.
    let mut transcoders: HashMap<(usize, JsonOptions), Result<Transcoder, String>> = HashMap::new();
    for chosen in chosen {
        let route = &routes[chosen.route];
        let backend = route.route.backend;
        let SchemaState::Ready(schema) = states[backend] else {
            continue;
        };
        let json = transcoders.entry((backend, route.route.json)).or_insert_with(|| {
            Transcoder::compile(schema, route.route.json).map_err(|error| error.to_string())
        });
        let exposed = json.as_ref().map_err(Clone::clone).and_then(|json| {
            let entry =
                u32::try_from(exposure.entries.len()).map_err(|_| "there are too many methods".to_owned())?;
            Binder {
                file,
                route,
                chosen,
                json,
                entry,
            }
            .expose(&mut builder, &mut exposure)
        });
        if let Err(reason) = exposed {
            let what = format!("{} is not exposed: {reason}", chosen.method.full_name());
            exposure
                .warnings
                .push(file.origin.error(route.written.spot, "routes", what).as_warning());
        }
    }
    exposure.routes = builder.build();
    exposure
}

/// Binds the rules of one method on one route.
struct Binder<'a> {
    file: &'a File,
    route: &'a Resolved<'a>,
    chosen: &'a Chosen,
    json: &'a Transcoder,
    /// The index that the entry will have.
    entry: u32,
}

impl Binder<'_> {
    fn expose(&self, builder: &mut RoutesBuilder, exposure: &mut Exposure) -> Result<(), String> {
        let method = &self.chosen.method;
        let options = binding_options(self.route.written);
        let rpc = bound(method, Binding::rpc(method, self.json, &options))?;
        builder
            .rpc(&self.chosen.hosts, &method.path, self.entry)
            .map_err(|conflict| conflict.to_string())?;
        builder.options(path_options(self.route.written));
        let mut bindings = Vec::new();
        for rule in &method.rules {
            match self.bind(rule, bindings.len(), builder, &exposure.entries) {
                Ok(bound) => {
                    if bound.binding.template.goes_on_after_rest() {
                        let what = format!("{}: {}", method.full_name(), shown(rule));
                        let message =
                            format!("{what} goes on after \"**\"; it works here, and not everywhere");
                        exposure.warnings.push(self.warning(message));
                    }
                    bindings.push(bound);
                }
                Err(reason) => exposure.disabled.push(Disabled {
                    method: method.full_name(),
                    rule: shown(rule),
                    reason,
                }),
            }
        }
        exposure.entries.push(Arc::new(Entry {
            route: Arc::clone(&self.route.route),
            method: Arc::clone(method),
            bindings,
            rpc,
            json: self.json.clone(),
            access: access(self.file, self.route.written, method),
        }));
        Ok(())
    }

    fn warning(&self, message: String) -> Diagnostic {
        self.file
            .origin
            .error(self.route.written.spot, "routes", message)
            .as_warning()
    }

    /// Binds one rule as the binding number `at` of the entry.
    fn bind(
        &self,
        rule: &HttpRule,
        at: usize,
        builder: &mut RoutesBuilder,
        entries: &[Arc<Entry>],
    ) -> Result<Bound, String> {
        let method = &self.chosen.method;
        let options = binding_options(self.route.written);
        let bound = bound(method, Binding::compile(rule, method, self.json, &options))?;
        let at = u32::try_from(at).map_err(|_| "there are too many rules".to_owned())?;
        builder
            .bind(
                &self.chosen.hosts,
                rule.method.clone(),
                &bound.binding.template,
                self.entry,
                at,
            )
            .map_err(|conflict| {
                let held = usize::try_from(conflict.held.entry)
                    .ok()
                    .and_then(|held| entries.get(held));
                let held = held.map_or(method, |entry| &entry.method).full_name();
                format!("{held} answers the same requests by `{}`", conflict.held.pattern)
            })?;
        Ok(bound)
    }
}

fn bound(method: &Method, binding: Result<Binding, BindingError>) -> Result<Bound, String> {
    let binding = binding.map_err(|error| error.to_string())?;
    Ok(Bound::new(binding, method))
}

/// A rule as it is told to people, such as `GET /v1/{name=shelves/*}`.
fn shown(rule: &HttpRule) -> String {
    match &rule.method {
        HttpMethod::Exact(method) => format!("{method} {}", rule.template),
        HttpMethod::Any => format!("* {}", rule.template),
    }
}

pub(super) fn path_options(written: &file::Route) -> PathOptions {
    PathOptions {
        trailing_slash: match written.trailing_slash {
            file::TrailingSlash::Strict => TrailingSlash::Significant,
            file::TrailingSlash::Ignore => TrailingSlash::Ignore,
        },
        unescape: match written.path_unescape {
            file::PathUnescape::AllExceptSlash => PathUnescape::AllExceptSlash,
            file::PathUnescape::AllExceptReserved => PathUnescape::AllExceptReserved,
        },
    }
}

fn binding_options(written: &file::Route) -> BindingOptions {
    let (unknown_query, passed): (_, &[String]) = match &written.query.unknown {
        file::UnknownParameters::Reject => (UnknownQuery::Reject, &[]),
        file::UnknownParameters::Ignore => (UnknownQuery::Ignore, &[]),
        file::UnknownParameters::Pass(names) => (UnknownQuery::Reject, names),
    };
    BindingOptions {
        unknown_query,
        passed: passed.iter().map(|name| name.as_str().into()).collect(),
        owned_fields: match written.path_owned {
            file::PathOwned::Reject => OwnedFields::Reject,
            file::PathOwned::Ignore => OwnedFields::Ignore,
        },
        ..BindingOptions::default()
    }
}
