//! What the gateway would do with a request, and why: the spine stopped before a call is sent. Pure.
//!
//! It asks the same functions as the gateway does; nothing here decides where a request goes.

use std::fmt;
use std::sync::Arc;

use bytes::BytesMut;
use http::HeaderMap;
use http::request::Parts;

use super::columns;
use super::routes::{joined, kind, rpc, verb};
use crate::call::metadata;
use crate::config::plan::{self, Declared, Found, Plan};
use crate::config::value::Services;
use crate::fault::{Fault, Kind};
use crate::identify::identify;
use crate::route::{Entry, Form, PathOptions, RoutesBuilder};
use crate::schema::HttpMethod;
use crate::schema::template::Template;
use crate::translate::binding::Binding;
use crate::translate::json::Target;
use crate::translate::raw_body;
use crate::wire::{Dialect, url};

/// What becomes of a request; `Display` tells it.
#[derive(Debug)]
pub struct Explanation<'a> {
    plan: &'a Plan,
    head: &'a Parts,
    dialect: Dialect,
    outcome: Result<Taken<'a>, Fault>,
}

/// A request that leads to a method.
#[derive(Debug)]
struct Taken<'a> {
    entry: &'a Entry,
    found: Found,
    message: Result<String, Fault>,
    metadata: Result<HeaderMap, Fault>,
}

impl<'a> Explanation<'a> {
    /// Explains a request.
    ///
    /// A body is taken as one message; of a stream of messages, it is the first.
    pub fn new(plan: &'a Plan, head: &'a Parts, body: Option<&[u8]>) -> Self {
        let dialect = identify(head);
        let outcome = plan.find(dialect, head).and_then(|found| {
            let missing =
                || Fault::gateway(Kind::Internal, "the route table names an entry that is not there");
            let entry: &Entry = plan.entries.get(found.entry).ok_or_else(missing)?;
            let message = message(dialect, entry, &found, head, body);
            let metadata = metadata::from_request(head.headers.clone(), metadata::Headers::Http);
            Ok(Taken {
                entry,
                found,
                message,
                metadata,
            })
        });
        Self {
            plan,
            head,
            dialect,
            outcome,
        }
    }

    /// Whether a call would be sent.
    pub fn sends(&self) -> bool {
        self.outcome
            .as_ref()
            .is_ok_and(|taken| taken.message.is_ok() && taken.metadata.is_ok())
    }
}

/// The message that would be sent, as JSON.
fn message(
    dialect: Dialect,
    entry: &Entry,
    found: &Found,
    head: &Parts,
    body: Option<&[u8]>,
) -> Result<String, Fault> {
    let invalid = |message: String| Fault::client(Kind::InvalidArgument, message);
    let body = body.unwrap_or_default();
    let mut wire = BytesMut::new();
    match dialect {
        // Relayed as it is, so there is nothing that could be shown.
        Dialect::Grpc => return Ok(String::new()),
        Dialect::Rest => {
            let bound = entry.bound(found.binding);
            let given = bound
                .binding
                .read(&entry.json, &found.captures, head.uri.query(), &mut wire)
                .map_err(|error| invalid(error.to_string()))?;
            match bound.request {
                Form::None => {}
                Form::Json(_) => {
                    let limit = entry.route.bounds.max_message_bytes;
                    let in_body = |error: &dyn fmt::Display| invalid(format!("in the request body, {error}"));
                    bound
                        .binding
                        .read_body(&entry.json, body, &mut wire, limit)
                        .map_err(|error| in_body(&error))?;
                    bound
                        .binding
                        .patch_mask(given, body, &mut wire)
                        .map_err(|error| in_body(&error))?;
                }
                Form::Raw(field) => {
                    let data = bytes::Bytes::copy_from_slice(body);
                    raw_body::encode(
                        field,
                        head.headers.get(http::header::CONTENT_TYPE),
                        &data,
                        &mut wire,
                    );
                }
            }
        }
    }
    shown(entry, &wire)
}

/// A message as indented JSON, however the route writes JSON.
fn shown(entry: &Entry, wire: &[u8]) -> Result<String, Fault> {
    let broken = |error: &dyn fmt::Display| {
        Fault::gateway(Kind::Internal, format!("the message can't be shown: {error}"))
    };
    let input = entry
        .json
        .message(entry.method.input.full_name())
        .ok_or_else(|| broken(&"its type is not known"))?;
    let mut text = BytesMut::new();
    entry
        .json
        .write(Target::Message(input), None, wire, &mut text, usize::MAX)
        .map_err(|error| broken(&error))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|error| broken(&error))?;
    Ok(format!("{value:#}"))
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self
            .head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let host = plan::host(self.head).map_or_else(String::new, |host| format!(", host {host}"));
        writeln!(f, "{} {target} ({}{host})", self.head.method, self.dialect)?;
        match &self.outcome {
            Ok(taken) => {
                self.taken(f, taken)?;
                self.other_routes(f, taken)?;
                self.other_rules(f, Some(taken))
            }
            Err(fault) => {
                refused(f, fault)?;
                self.other_rules(f, None)?;
                self.unmatched(f)
            }
        }
    }
}

/// What a client is told instead of an answer.
fn refused(f: &mut fmt::Formatter<'_>, fault: &Fault) -> fmt::Result {
    let kind = fault.kind();
    let status = kind.http_status();
    writeln!(
        f,
        "\nanswered with {status}: {} ({}, {})",
        fault.message(),
        kind.code().name(),
        kind.reason()
    )?;
    match fault.allow() {
        Some(allow) => writeln!(f, "  allow: {allow}"),
        None => Ok(()),
    }
}

impl Explanation<'_> {
    fn taken(&self, f: &mut fmt::Formatter<'_>, taken: &Taken<'_>) -> fmt::Result {
        let Taken {
            entry,
            found,
            message,
            metadata,
        } = taken;
        let method = &entry.method;
        let backend = self.plan.backends.get(entry.route.backend);
        let bound = entry.bound(found.binding);
        let name = backend.map_or("", |backend| backend.name.as_str());
        let rule = match found.binding {
            Some(_) => shown_rule(&bound.binding),
            None => "the rpc path".to_owned(),
        };
        let kind = kind(method.kind);
        let mut facts = vec![
            [
                "route".to_owned(),
                format!("{}, backend \"{name}\"", entry.route.name),
            ],
            ["method".to_owned(), format!("{} ({kind})", method.full_name())],
            ["binding".to_owned(), rule],
        ];
        if let Some(timeout) = entry.timeout() {
            facts.push(["timeout".to_owned(), format!("{timeout:?}")]);
        }
        writeln!(f)?;
        columns::write(f, "", &facts)?;
        if self.dialect == Dialect::Rest {
            self.fields(f, taken)?;
        }
        match message {
            Ok(message) if message.is_empty() => {}
            Ok(message) => writeln!(f, "\nmessage {}\n{message}", method.input.full_name())?,
            Err(fault) => return refused(f, fault),
        }
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(fault) => return refused(f, fault),
        };
        let endpoints = backend.map_or_else(String::new, |backend| joined(&backend.endpoints));
        writeln!(f, "\ncall {}\n  to {endpoints}", rpc(method))?;
        for (name, value) in metadata {
            writeln!(f, "  {name}: {}", String::from_utf8_lossy(value.as_bytes()))?;
        }
        Ok(())
    }

    /// Which part of the request gives which field.
    fn fields(&self, f: &mut fmt::Formatter<'_>, taken: &Taken<'_>) -> fmt::Result {
        let bound = taken.entry.bound(taken.found.binding);
        let mut rows = Vec::new();
        for (variable, value) in bound
            .binding
            .template
            .variables()
            .iter()
            .zip(taken.found.captures.iter())
        {
            rows.push([variable.name(), "path".to_owned(), format!("{value:?}")]);
        }
        for pair in self
            .head
            .uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            rows.push([decoded(name), "query".to_owned(), format!("{:?}", decoded(value))]);
        }
        match bound.request {
            Form::None => {}
            Form::Json(Target::Message(_)) | Form::Raw(None) => {
                rows.push(["*".to_owned(), "body".to_owned(), String::new()]);
            }
            Form::Json(Target::Field { number, .. }) | Form::Raw(Some(number)) => {
                let name = taken.entry.method.input.get_field(number);
                let name = name.map_or_else(|| number.to_string(), |field| field.name().to_owned());
                rows.push([name, "body".to_owned(), String::new()]);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nfields")?;
        columns::write(f, "  ", &rows)
    }

    /// Why other routes do not have the method.
    fn other_routes(&self, f: &mut fmt::Formatter<'_>, taken: &Taken<'_>) -> fmt::Result {
        let service = &*taken.entry.method.service;
        let chosen = self
            .declared(taken.entry)
            .and_then(|declared| declared.pattern(service));
        let rank = chosen.map_or(0, Services::rank);
        let mut rows = Vec::new();
        for declared in &self.plan.declared {
            if Arc::ptr_eq(&declared.route, &taken.entry.route) {
                continue;
            }
            let reason = match declared.pattern(service) {
                None => format!("does not take {service}"),
                Some(_) if !declared.answers(plan::host(self.head)) => {
                    format!("answers {} only", joined(&declared.route.hosts))
                }
                Some(_) if self.pending(declared) => "waits for the schema of its backend".to_owned(),
                Some(pattern) if pattern.rank() < rank => {
                    format!("takes it by \"{pattern}\"; the chosen one is more specific")
                }
                // A pattern that is as specific would have had the method, had its backend one.
                Some(_) => format!("its backend does not offer {service}"),
            };
            rows.push([declared.route.name.clone(), reason]);
        }
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nother routes")?;
        columns::write(f, "  ", &rows)
    }

    /// Rules that fit the request as well, or would if they or their method were others.
    fn other_rules(&self, f: &mut fmt::Formatter<'_>, taken: Option<&Taken<'_>>) -> fmt::Result {
        if self.dialect != Dialect::Rest {
            return Ok(());
        }
        let mut rows = Vec::new();
        for (at, entry) in self.plan.entries.iter().enumerate() {
            let declared = self.declared(entry);
            let path = declared.map_or_else(PathOptions::default, |declared| declared.path);
            let chosen = |binding: Option<u32>| {
                taken.is_some_and(|taken| taken.found.entry == at && taken.found.binding == binding)
            };
            let numbers = (0..).map(Some).zip(&entry.bindings);
            for (number, bound) in numbers.chain([(None, &entry.rpc)]) {
                let binding = &bound.binding;
                if chosen(number) || !self.fits(&binding.template, path) {
                    continue;
                }
                let reason = match taken {
                    _ if !answers(&binding.method, &self.head.method) => "answers another method",
                    _ if !declared.is_some_and(|declared| declared.answers(plan::host(self.head))) => {
                        "answers other hosts"
                    }
                    Some(_) => "fits too; the chosen one is more specific",
                    None => "fits",
                };
                rows.push([shown_rule(binding), entry.method.full_name(), reason.to_owned()]);
            }
        }
        for disabled in &self.plan.disabled {
            // One that can't even be parsed may be the one that was meant.
            let template = disabled
                .rule
                .split_once(' ')
                .and_then(|(_, path)| Template::parse(path).ok());
            if template.is_none_or(|template| self.fits(&template, PathOptions::default())) {
                let reason = format!("is not in use: {}", disabled.reason);
                rows.push([disabled.rule.clone(), disabled.method.clone(), reason]);
            }
        }
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nother rules for this path")?;
        columns::write(f, "  ", &rows)
    }

    /// What there is, where nothing fits.
    fn unmatched(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; 2]> = self
            .plan
            .declared
            .iter()
            .map(|declared| {
                let methods = self
                    .plan
                    .entries
                    .iter()
                    .filter(|entry| Arc::ptr_eq(&entry.route, &declared.route));
                let reason = if !declared.answers(plan::host(self.head)) {
                    format!("answers {} only", joined(&declared.route.hosts))
                } else if self.pending(declared) {
                    "waits for the schema of its backend".to_owned()
                } else {
                    format!(
                        "has {} methods, and none of them is at this path",
                        methods.count()
                    )
                };
                [declared.route.name.clone(), reason]
            })
            .collect();
        if rows.is_empty() {
            return writeln!(f, "\nno route is declared");
        }
        writeln!(f, "\nroutes")?;
        columns::write(f, "  ", &rows)
    }

    fn pending(&self, declared: &Declared) -> bool {
        let backend = self.plan.backends.get(declared.route.backend);
        backend.is_some_and(|backend| {
            self.plan
                .pending
                .iter()
                .any(|pending| pending.backend == backend.name)
        })
    }

    fn declared(&self, entry: &Entry) -> Option<&Declared> {
        self.plan
            .declared
            .iter()
            .find(|declared| Arc::ptr_eq(&declared.route, &entry.route))
    }

    /// Whether the path fits a template, asked of a lookup that has nothing else.
    fn fits(&self, template: &Template, path: PathOptions) -> bool {
        let mut alone = RoutesBuilder::new();
        alone.options(path);
        let bound = alone.bind(&[], HttpMethod::Any, template, 0, 0);
        bound.is_ok()
            && alone
                .build()
                .find(None, &self.head.method, self.head.uri.path())
                .is_ok()
    }
}

fn answers(rule: &HttpMethod, method: &http::Method) -> bool {
    match rule {
        HttpMethod::Exact(exact) => {
            exact == method || (exact == http::Method::GET && method == http::Method::HEAD)
        }
        HttpMethod::Any => true,
    }
}

fn shown_rule(binding: &Binding) -> String {
    format!("{} {}", verb(&binding.method), binding.template)
}

/// A part of a query, decoded as far as it can be.
fn decoded(raw: &str) -> String {
    let mut text = String::new();
    match url::decode_form(raw, &mut text) {
        Ok(()) => text,
        Err(_) => raw.to_owned(),
    }
}
