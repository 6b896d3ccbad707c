//! What goes to the backend: a call of gRPC, or a request by the method's HTTP rule.

use std::fmt;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};

use super::super::routes::rpc;
use super::{Explanation, Message, Taken, endpoints, refused};
use crate::backend::rest;
use crate::config::plan::Backend;
use crate::discover::endpoints::Source;
use crate::fault::Fault;
use crate::route::entry::{Outbound, OutboundRest, ServerTimeout};

impl Explanation<'_> {
    /// What the backend is told beside the message.
    fn told(&self, metadata: &HeaderMap) -> HeaderMap {
        let mut metadata = metadata.clone();
        if let Some(decision) = &self.decision {
            decision.tell(&mut metadata);
        }
        metadata
    }

    /// The request that a backend gets which knows HTTP and JSON alone, as far as it is known.
    pub(super) fn request(&self, taken: &Taken<'_>) -> Option<Result<Request<Bytes>, Fault>> {
        let Outbound::Rest(rest) = &taken.entry.outbound else {
            return None;
        };
        let (Ok(metadata), Ok(message)) = (&taken.metadata, &taken.message) else {
            return None;
        };
        match message {
            Message::Seen { wire, .. } => Some(rest::request(
                rest,
                &taken.entry.method,
                self.told(metadata),
                wire.clone(),
                taken.entry.route.bounds,
            )),
            // What no message can help is known without one.
            Message::Unseen => rest::unreachable(rest, &taken.entry.method).map(Err),
        }
    }

    /// The call, and what becomes of it at the backend.
    pub(super) fn call(
        &self,
        f: &mut fmt::Formatter<'_>,
        taken: &Taken<'_>,
        metadata: &HeaderMap,
    ) -> fmt::Result {
        let backend = self.plan.backends.get(taken.entry.route.backend);
        let request = match self.request(taken).transpose() {
            Ok(request) => request,
            Err(fault) => return refused(f, &fault),
        };
        let to = backend.map_or_else(String::new, endpoints);
        writeln!(f, "\ncall {}\n  to {to}", rpc(&taken.entry.method))?;
        for who in backend.map_or_else(Vec::new, |backend| self.instead_of_call(backend, taken)) {
            writeln!(f, "  or else {who}")?;
        }
        match (&taken.entry.outbound, request) {
            (Outbound::Grpc, _) => headers(f, &self.told(metadata)),
            (Outbound::Rest(rest), Some(request)) => {
                let prefix = backend.map_or("", prefix);
                writeln!(f, "\nrequest {} {prefix}{}", request.method(), request.uri())?;
                headers(f, request.headers())?;
                if taken.entry.timeout().is_some() {
                    tells_time(f, rest)?;
                }
                body(f, &request)
            }
            (Outbound::Rest(rest), None) => {
                let method = rest.rule.as_ref().map(|rule| rule.outgoing.method.as_str());
                let method = method.unwrap_or_default();
                writeln!(
                    f,
                    "\nrequest {method}, of which the message gives the rest: `-d` takes it, as JSON"
                )
            }
        }
    }
}

fn headers(f: &mut fmt::Formatter<'_>, headers: &HeaderMap) -> fmt::Result {
    headers
        .iter()
        .try_for_each(|(name, value)| writeln!(f, "  {name}: {}", String::from_utf8_lossy(value.as_bytes())))
}

/// The header whose value is known only when the request is sent.
fn tells_time(f: &mut fmt::Formatter<'_>, rest: &OutboundRest) -> fmt::Result {
    match rest.options.server_timeout {
        ServerTimeout::Kept => Ok(()),
        ServerTimeout::Told => writeln!(f, "  x-server-timeout: the seconds that are left"),
    }
}

fn body(f: &mut fmt::Formatter<'_>, request: &Request<Bytes>) -> fmt::Result {
    let body = request.body();
    if body.is_empty() {
        return Ok(());
    }
    let is_json = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == b"application/json");
    writeln!(f)?;
    match serde_json::from_slice::<serde_json::Value>(body) {
        Ok(value) if is_json => writeln!(f, "{value:#}"),
        _ => match std::str::from_utf8(body) {
            Ok(text) => writeln!(f, "{text}"),
            Err(_) => writeln!(f, "({} bytes)", body.len()),
        },
    }
}

/// What stands before every path at the backend, as far as its endpoints are of one mind.
fn prefix(backend: &Backend) -> &str {
    let Source::Listed(all) = &backend.source else {
        return "";
    };
    let mut prefixes = all
        .iter()
        .map(|endpoint| endpoint.uri.path().trim_end_matches('/'));
    let first = prefixes.next().unwrap_or_default();
    if prefixes.all(|prefix| prefix == first) {
        first
    } else {
        ""
    }
}
