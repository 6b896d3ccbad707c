//! From chosen methods to entries and the lookup that finds them. A bad HTTP rule is left out and told.

use std::collections::HashMap;
use std::sync::Arc;

use super::choose::Chosen;
use super::compile::{Granted, Resolved, SchemaState, envelope, granted};
use super::diagnostic::Diagnostic;
use super::fallback;
use super::file::{self, File};
use super::located::Spot;
use super::plan::Disabled;
use super::relays;
use super::throttle;
use crate::route::entry::{
    Bound, FixedAnswer, Outbound, OutboundRest, OutboundRule, RestOptions, ServerTimeout, StatusTable,
};
use crate::route::{Entry, PathOptions, PathRoute, PathUnescape, Routes, RoutesBuilder, TrailingSlash};
use crate::schema::{HttpMethod, HttpRule, Method};
use crate::translate::binding::{
    Binding, BindingError, BindingOptions, OwnedFields, PathFields, UnknownQuery,
};
use crate::translate::json::{JsonOptions, Transcoder};

/// What the gateway exposes.
#[derive(Debug, Default)]
pub(super) struct Exposure {
    pub(super) entries: Vec<Arc<Entry>>,
    pub(super) routes: Routes,
    pub(super) disabled: Vec<Disabled>,
    /// Routes of paths that answer the same requests, and fixed answers that fit no method.
    pub(super) conflicts: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
}

/// Makes an entry of every chosen method, binds its HTTP rules, and the paths of routes after them.
pub(super) fn expose(
    file: &File,
    routes: &[Resolved<'_>],
    chosen: &[Chosen],
    states: &[&SchemaState],
    paths: &[(Spot, Arc<PathRoute>)],
) -> Exposure {
    let mut builder = RoutesBuilder::new();
    let mut exposure = Exposure::default();
    let default_rest = file::Rest::default();
    // One transcoder serves all routes of a backend that write JSON alike.
    let mut transcoders: HashMap<(usize, JsonOptions), Result<Transcoder, String>> = HashMap::new();
    for chosen in chosen {
        let route = &routes[chosen.route];
        let backend = route.route.backend;
        let SchemaState::Ready(schema) = states[backend] else {
            continue;
        };
        let mut transcoder = |options: JsonOptions| {
            transcoders
                .entry((backend, options))
                .or_insert_with(|| Transcoder::compile(schema, options).map_err(|error| error.to_string()))
                .clone()
        };
        let rest = match file.backends.get(&route.written.backend.value) {
            Some(group) if group.protocol == file::Protocol::Rest => {
                let written = group.rest.as_ref().map_or(&default_rest, |rest| &rest.value);
                Some(transcoder(RestBackend::json_options(written)).map(|json| RestBackend { written, json }))
            }
            Some(_) | None => None,
        };
        let json = transcoder(route.route.json);
        let group = file.backends.get(&route.written.backend.value);
        let answer = group.and_then(|group| {
            let (written, json) = (
                fallback::answer(group, &chosen.method)?,
                transcoder(fallback::JSON),
            );
            let compiled = json
                .map_err(|error| file.origin.error(written.spot, "backends", error))
                .and_then(|json| fallback::compile(file, written, &chosen.method, &json));
            match compiled {
                Ok(answer) => Some(answer),
                // A backend may learn tomorrow what does not fit it today.
                Err(wrong) if group.is_learned() => {
                    exposure.warnings.push(wrong.as_warning());
                    None
                }
                Err(wrong) => {
                    exposure.conflicts.push(wrong);
                    None
                }
            }
        });
        let exposed = json.and_then(|json| {
            let rest = rest.transpose()?;
            let entry =
                u32::try_from(exposure.entries.len()).map_err(|_| "there are too many methods".to_owned())?;
            Binder {
                file,
                route,
                chosen,
                json: &json,
                entry,
                rest,
                answer,
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
    exposure
        .conflicts
        .extend(relays::bind(file, paths, &mut builder, exposure.entries.len()));
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
    /// How the backend is called, if it speaks HTTP and JSON.
    rest: Option<RestBackend<'a>>,
    /// What answers where the backend can't.
    answer: Option<FixedAnswer>,
}

/// A backend that speaks HTTP and JSON.
struct RestBackend<'a> {
    written: &'a file::Rest,
    json: Transcoder,
}

impl RestBackend<'_> {
    /// How the backend reads and writes JSON.
    fn json_options(written: &file::Rest) -> JsonOptions {
        JsonOptions {
            proto_names: written.proto_names,
            emit_defaults: written.emit_defaults,
            ..JsonOptions::default()
        }
    }

    fn path_fields(&self) -> PathFields {
        if self.written.path_fields_in_body {
            PathFields::InBodyToo
        } else {
            PathFields::InPath
        }
    }

    fn options(&self) -> RestOptions {
        RestOptions {
            statuses: match self.written.statuses {
                file::Statuses::Origin => StatusTable::Origin,
                file::Statuses::GrpcTable => StatusTable::Grpc,
            },
            server_timeout: if self.written.server_timeout {
                ServerTimeout::Told
            } else {
                ServerTimeout::Kept
            },
            envelope: envelope(self.written.stream_envelope),
        }
    }
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
        let outbound = self.outbound(exposure)?;
        let Granted {
            access,
            public,
            warning,
        } = granted(self.file, self.route.written, method);
        exposure
            .warnings
            .extend(warning.map(|warning| self.warning(warning)));
        for rule in access.iter().flat_map(|access| &access.rules) {
            let fields = rule
                .when
                .iter()
                .filter_map(|condition| condition.fields())
                .flatten();
            for field in fields.filter(|name| method.input.get_field_by_name(name).is_none()) {
                let message = format!(
                    "{}: {} has no field \"{field}\", so that the rule lets nobody call {}",
                    rule.name,
                    method.input.full_name(),
                    method.full_name()
                );
                exposure.warnings.push(self.warning(message));
            }
        }
        exposure.entries.push(Arc::new(Entry {
            outbound,
            route: Arc::clone(&self.route.route),
            method: Arc::clone(method),
            bindings,
            rpc,
            json: self.json.clone(),
            access,
            public,
            checks: throttle::checks(self.file, self.route.written, Some(method)),
            answer: self.answer.clone(),
        }));
        Ok(())
    }

    /// What calls of the method go out as. A method that has no rule for it is exposed all the same, and says so.
    fn outbound(&self, exposure: &mut Exposure) -> Result<Outbound, String> {
        let Some(rest) = &self.rest else {
            return Ok(Outbound::Grpc);
        };
        let method = &self.chosen.method;
        let at = rest.written.rules.get(&method.full_name());
        let at = at.map_or(0, |at| usize::try_from(at.value).unwrap_or(usize::MAX));
        let rule = match method.rules.get(at) {
            None => Err(match method.rules.len() {
                0 => "it has no HTTP rule".to_owned(),
                rules => format!("it has {rules} HTTP rules, and none is number {at}"),
            }),
            Some(rule) => Binding::compile(rule, method, &rest.json, &BindingOptions::default())
                .and_then(|binding| OutboundRule::new(binding, method, &rest.json, rest.path_fields()))
                .map_err(|error| format!("`{}`: {error}", shown(rule))),
        };
        let rule = match rule {
            Ok(rule) => Some(rule),
            Err(reason) => {
                let what = format!("{} can't be called at its backend: {reason}", method.full_name());
                exposure.warnings.push(self.warning(what));
                None
            }
        };
        Ok(Outbound::Rest(Arc::new(OutboundRest {
            rule,
            json: rest.json.clone(),
            options: rest.options(),
        })))
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
