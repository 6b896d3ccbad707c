//! Why a request does not go elsewhere: other routes, other rules, rules that are not in use.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::super::columns;
use super::super::routes::joined;
use super::{Explanation, Taken, shown_rule};
use crate::config::plan::{self, Declared};
use crate::config::value::Services;
use crate::route::{Entry, PathOptions, RoutesBuilder};
use crate::schema::HttpMethod;
use crate::schema::template::Template;
use crate::translate::Lane;

impl Explanation<'_> {
    /// Why other routes do not have the method.
    pub(super) fn other_routes(&self, f: &mut fmt::Formatter<'_>, taken: &Taken<'_>) -> fmt::Result {
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
    pub(super) fn other_rules(&self, f: &mut fmt::Formatter<'_>, taken: Option<&Taken<'_>>) -> fmt::Result {
        if self.lane != Lane::Transcode {
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
        // Routes of several hosts have the same rules; said once is enough.
        let mut told: HashSet<[String; 2]> = HashSet::new();
        if let Some(taken) = taken {
            let binding = &taken.entry.bound(taken.found.binding).binding;
            told.insert([shown_rule(binding), taken.entry.method.full_name()]);
        }
        rows.retain(|[rule, method, _]| told.insert([rule.clone(), method.clone()]));
        if rows.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nother rules for this path")?;
        columns::write(f, "  ", &rows)
    }

    /// What there is, where nothing fits.
    pub(super) fn unmatched(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
