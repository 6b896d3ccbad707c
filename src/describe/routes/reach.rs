//! Which dialects reach a method by one of its addresses: the lookup itself is asked, with paths that fit.

use http::header::HOST;
use http::request::Parts;
use http::{Method, Request};

use crate::config::Plan;
use crate::config::plan::{Found, Lead};
use crate::route::{Entry, Host};
use crate::schema::HttpMethod;
use crate::schema::template::{Segment, Template};
use crate::translate::binding::Binding;
use crate::wire::Dialect;
use crate::wire::url::{self, Keep};

/// A segment that no template has as a literal.
const ANY: &str = "~any~";

/// How many segments are tried for `**`: templates of other shapes may have some of them, and hardly all.
const RESTS: [usize; 4] = [1, 2, 3, 7];

/// Methods that are tried for a rule that takes any.
const VERBS: [Method; 5] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// The dialects in which a request leads to a binding of the entry with this index; `number` is the binding's, and
/// nothing for the rpc path's.
pub(super) fn dialects(
    plan: &Plan,
    entry: (usize, &Entry),
    number: Option<u32>,
    binding: &Binding,
) -> Vec<Dialect> {
    let (at, entry) = entry;
    let heads = samples(entry, binding);
    let leads = |dialect: &Dialect| {
        heads.iter().any(|head| {
            matches!(
                plan.lead(*dialect, head),
                Ok(Lead::Method(Found { entry, binding, .. })) if entry == at && binding == number
            )
        })
    };
    Dialect::ALL.into_iter().filter(leads).collect()
}

/// Requests that fit a binding.
fn samples(entry: &Entry, binding: &Binding) -> Vec<Parts> {
    let verbs = match &binding.method {
        HttpMethod::Exact(method) => std::slice::from_ref(method),
        HttpMethod::Any => &VERBS,
    };
    let host = entry.route.hosts.first().map(|host| match host {
        Host::Exact(name) => name.to_string(),
        Host::Below(suffix) => format!("any{suffix}"),
    });
    let rests = if binding.template.rest().is_some() {
        &RESTS[..]
    } else {
        &[1]
    };
    let mut heads = Vec::new();
    for rest in rests {
        let path = path(&binding.template, *rest);
        for verb in verbs {
            let mut request = Request::builder().method(verb).uri(&path);
            if let Some(host) = &host {
                request = request.header(HOST, host);
            }
            // A literal that fits into no URL is reached by none.
            heads.extend(request.body(()).ok().map(|request| request.into_parts().0));
        }
    }
    heads
}

/// A path that a template fits, with `rest` segments for `**`.
fn path(template: &Template, rest: usize) -> String {
    let mut path = String::new();
    for segment in template.segments() {
        match segment {
            Segment::Literal(text) => {
                path.push('/');
                url::encode(text, Keep::Nothing, &mut path);
            }
            Segment::One => path.extend(["/", ANY]),
            Segment::Rest => (0..rest).for_each(|_| path.extend(["/", ANY])),
        }
    }
    if path.is_empty() {
        path.push('/');
    }
    if let Some(verb) = template.verb() {
        path.push(':');
        url::encode(verb, Keep::Nothing, &mut path);
    }
    path
}
