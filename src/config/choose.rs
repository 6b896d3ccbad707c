//! Which route has which method: the most specific pattern, host by host, and never the order of the file.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::compile::{Resolved, SchemaState, place};
use super::diagnostic::Diagnostic;
use super::file::File;
use super::located::Located;
use super::value::Services;
use crate::route::Host;
use crate::schema::Method;

/// A method that a route has, on some of its hosts.
#[derive(Debug)]
pub(super) struct Chosen {
    /// Which route, by its position among the resolved ones.
    pub(super) route: usize,
    pub(super) method: Arc<Method>,
    /// Empty for every host.
    pub(super) hosts: Vec<Host>,
}

/// What came of choosing.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// By route, then by the path of the method.
    pub(super) entries: Vec<Chosen>,
    pub(super) conflicts: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
}

/// A route that takes a method.
struct Candidate<'a> {
    route: usize,
    method: &'a Arc<Method>,
    pattern: &'a Located<Services>,
}

/// Gives every method, on every host for which a route is declared, to the route with the most specific pattern.
pub(super) fn choose(file: &File, routes: &[Resolved<'_>], states: &[&SchemaState]) -> Choice {
    let mut candidates: BTreeMap<&str, Vec<Candidate<'_>>> = BTreeMap::new();
    for (at, route) in routes.iter().enumerate() {
        let SchemaState::Ready(schema) = states[route.route.backend] else {
            continue;
        };
        for method in &schema.methods {
            if let Some(pattern) = route.pattern(&method.service) {
                candidates.entry(&method.path).or_default().push(Candidate {
                    route: at,
                    method,
                    pattern,
                });
            }
        }
    }
    let mut choice = Choice::default();
    // One message for two patterns, however many methods they share.
    let mut told: Vec<(usize, usize)> = Vec::new();
    for candidates in candidates.values() {
        for (candidate, hosts) in winners(routes, candidates, &mut |first, second| {
            if !told.contains(&(first.route, second.route)) {
                told.push((first.route, second.route));
                choice.tie(file, routes, first, second);
            }
        }) {
            choice.entries.push(Chosen {
                route: candidate.route,
                method: Arc::clone(candidate.method),
                hosts,
            });
        }
    }
    choice
        .entries
        .sort_by(|a, b| (a.route, &a.method.path).cmp(&(b.route, &b.method.path)));
    choice
}

/// The candidates that have the method somewhere, and on which hosts.
fn winners<'a, 'c>(
    routes: &[Resolved<'_>],
    candidates: &'c [Candidate<'a>],
    tie: &mut impl FnMut(&Candidate<'a>, &Candidate<'a>),
) -> Vec<(&'c Candidate<'a>, Vec<Host>)> {
    let declared = |candidate: &Candidate<'_>| &routes[candidate.route].route.hosts;
    let mut hosts: Vec<Option<&Host>> = Vec::new();
    for candidate in candidates {
        let any = declared(candidate).is_empty().then_some(None);
        for host in any.into_iter().chain(declared(candidate).iter().map(Some)) {
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    let mut won: Vec<(&Candidate<'_>, Vec<Host>)> = Vec::new();
    for host in hosts {
        let here = candidates.iter().filter(|candidate| match host {
            None => declared(candidate).is_empty(),
            Some(host) => declared(candidate).contains(host),
        });
        let mut best: Option<&Candidate<'_>> = None;
        for candidate in here {
            match best {
                Some(held) if held.pattern.rank() > candidate.pattern.rank() => {}
                Some(held) if held.pattern.rank() == candidate.pattern.rank() => tie(held, candidate),
                Some(_) | None => best = Some(candidate),
            }
        }
        let Some(best) = best else { continue };
        match won
            .iter_mut()
            .find(|(candidate, _)| candidate.route == best.route)
        {
            Some((_, hosts)) => hosts.extend(host.cloned()),
            None => won.push((best, host.cloned().into_iter().collect())),
        }
    }
    won
}

impl Choice {
    /// Notes that two routes take a method equally.
    ///
    /// Every backend offers `grpc.health.v1.Health` for itself, so two that are exposed wholly meet there by nature: the
    /// first one answers, with a warning. Anywhere else the choice would be an accident.
    fn tie(&mut self, file: &File, routes: &[Resolved<'_>], first: &Candidate<'_>, second: &Candidate<'_>) {
        let by_nature = first.method.service.starts_with("grpc.") && first.pattern.value == Services::All;
        let name = |candidate: &Candidate<'_>| {
            let route = &routes[candidate.route];
            place(file, candidate.pattern.spot, &route.route.name)
        };
        let message = format!(
            "takes {} by \"{}\", and so does {} by \"{}\"; make one of them more specific, or give them different hosts",
            first.method.service,
            second.pattern.value,
            name(first),
            first.pattern.value,
        );
        let found = file.origin.error(second.pattern.spot, &name(second), message);
        if by_nature {
            let service = &first.method.service;
            let message = format!(
                "{service} is answered by {}, which takes it by \"*\" too",
                name(first)
            );
            self.warnings.push(Diagnostic {
                message,
                ..found.as_warning()
            });
        } else {
            self.conflicts.push(found);
        }
    }
}
