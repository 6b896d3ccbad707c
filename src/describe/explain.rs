//! What the gateway would do with a request, and why: the spine stopped before a call is sent. Pure.
//!
//! It asks the same functions as the gateway does; nothing here decides where a request goes.

mod instead;
mod others;
mod outgoing;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderMap, Method};

use super::columns;
use super::routes::{kind, verb};
use crate::balance::Listed;
use crate::call::metadata;
use crate::config::plan::{self, Backend, Found, FoundPath, Lead, Listener, Plan};
use crate::discover::endpoints::Source;
use crate::fault::{Fault, Kind};
use crate::identify::identify;
use crate::peer::Peer;
use crate::policy::throttle::{Caller, Part, key};
use crate::policy::{Access, Decision};
use crate::route::cors::Cors;
use crate::route::relay::Action;
use crate::route::{Entry, Form, PathRoute};
use crate::translate::Lane;
use crate::translate::binding::Binding;
use crate::translate::json::Target;
use crate::translate::raw_body;
use crate::wire::screen::{Barred, Screen};
use crate::wire::{Addressing, Codec, Dialect, Format, Spoken, connect, url};

/// What becomes of a request; `Display` tells it.
#[derive(Debug)]
pub struct Explanation<'a> {
    plan: &'a Plan,
    head: &'a Parts,
    has_body: bool,
    dialect: Dialect,
    lane: Lane,
    outcome: Outcome<'a>,
    from: IpAddr,
    decision: Option<Decision>,
}

/// Who guards what a request leads to.
#[derive(Clone, Copy, Debug)]
pub struct Guard<'a> {
    /// The index of the way in which callers prove who they are, if they have to.
    pub auth: Option<usize>,
    /// Who and what is not let in.
    pub screen: Option<&'a Arc<Screen>>,
    /// Whether forms are taken from callers who are known by a cookie.
    pub forms: bool,
    /// The rules.
    pub access: Option<&'a Arc<Access>>,
    /// Pages of other origins that may call.
    pub cors: Option<&'a Cors>,
}

/// Where a request leads.
#[derive(Debug)]
enum Outcome<'a> {
    Method(Taken<'a>),
    Path(&'a PathRoute, FoundPath),
    Nowhere(Fault),
}

/// A request that leads to a method.
#[derive(Debug)]
struct Taken<'a> {
    entry: &'a Entry,
    found: Found,
    message: Result<Message, Fault>,
    metadata: Result<HeaderMap, Fault>,
}

/// What is known of the message that would be sent.
#[derive(Debug)]
enum Message {
    /// Nothing: it is passed on as it is, or was not given.
    Unseen,
    /// All.
    Seen {
        wire: Bytes,
        /// As indented JSON.
        text: String,
    },
}

impl<'a> Explanation<'a> {
    /// Explains a request.
    ///
    /// A body is taken as one message; of a stream of messages, it is the first. Where the client speaks protobuf, it is
    /// given as JSON all the same, and is of interest only where the backend speaks JSON.
    pub fn new(plan: &'a Plan, head: &'a Parts, body: Option<&[u8]>) -> Self {
        let Spoken { dialect, format } = identify(head);
        let mut lane = Lane::between(format, Format::GRPC);
        let missing = || Fault::gateway(Kind::Internal, "the route table names an entry that is not there");
        let outcome = match plan.lead(dialect, head) {
            Ok(Lead::Method(found)) => match plan.entries.get(found.entry) {
                Some(entry) => {
                    lane = entry.outbound.lane(format);
                    let message = message(entry, &found, (head, Spoken { dialect, format }), body);
                    let metadata = metadata::from_request(head.headers.clone(), metadata::Headers::Http);
                    Outcome::Method(Taken {
                        entry,
                        found,
                        message,
                        metadata,
                    })
                }
                None => Outcome::Nowhere(missing()),
            },
            Ok(Lead::Path(found)) => match plan.paths.get(found.route) {
                Some(route) => Outcome::Path(route, found),
                None => Outcome::Nowhere(missing()),
            },
            Err(fault) => Outcome::Nowhere(fault),
        };
        Self {
            plan,
            head,
            has_body: body.is_some_and(|body| !body.is_empty()),
            dialect,
            lane,
            outcome,
            from: Ipv4Addr::LOCALHOST.into(),
            decision: None,
        }
    }

    /// Who guards what the request leads to; nothing where it is open to anybody, or leads nowhere.
    pub fn guard(&self) -> Option<Guard<'a>> {
        let guard = match &self.outcome {
            Outcome::Method(taken) => {
                let route = &taken.entry.route;
                Guard {
                    auth: taken.entry.auth(),
                    screen: route.screen.as_ref(),
                    forms: false,
                    access: taken.entry.access.as_ref(),
                    cors: route.cors.as_ref(),
                }
            }
            Outcome::Path(route, _) => Guard {
                auth: route.auth,
                screen: route.screen.as_ref(),
                forms: true,
                access: route.access.as_ref(),
                cors: None,
            },
            Outcome::Nowhere(_) => return None,
        };
        (guard.auth.is_some() || guard.screen.is_some()).then_some(guard)
    }

    /// The same, of a client at this address.
    #[must_use]
    pub fn from(mut self, address: IpAddr) -> Self {
        self.from = address;
        self
    }

    /// The same, with what the gate decided and which headers it let pass.
    #[must_use]
    pub fn decided(mut self, decision: Decision, headers: HeaderMap) -> Self {
        self.decision = Some(decision);
        if let Outcome::Method(taken) = &mut self.outcome {
            taken.metadata = metadata::from_request(headers, metadata::Headers::Http);
        }
        self
    }

    /// What the gate says, for a request that it sees.
    fn gate(&self) -> Option<(String, Option<String>)> {
        let guard = self.guard().filter(|guard| guard.auth.is_some())?;
        let name = self
            .plan
            .auth
            .get(guard.auth?)
            .map_or("", |setup| setup.name.as_str());
        let Some(decision) = &self.decision else {
            return Some((format!("\"{name}\", which is asked when the gateway runs"), None));
        };
        let who = match decision.identity() {
            None => "nobody who is known".to_owned(),
            Some(identity) => {
                let issuer = identity.claims().issuer.as_ref();
                let issuer = issuer.map_or_else(String::new, |issuer| format!(" of {issuer}"));
                let source = identity.claims().source.name();
                format!("{:?} by {source}{issuer}", identity.principal())
            }
        };
        let by_message = (!decision.by_message.is_empty())
            .then(|| format!("the first message decides, by {}", decision.by_message.join(", ")));
        let rule = match (
            &decision.rule,
            guard.access.filter(|_| decision.identity().is_some()),
        ) {
            (Some(rule), _) => Some(format!("{rule} lets it in")),
            (None, Some(_)) if by_message.is_some() => by_message,
            (None, Some(access)) => {
                let rules: Vec<&str> = access.rules.iter().map(|rule| rule.name.as_str()).collect();
                Some(match rules.as_slice() {
                    [] => "no rule speaks about this, so nobody may".to_owned(),
                    rules => format!("none lets it in of {}", rules.join(", ")),
                })
            }
            (None, None) => None,
        };
        Some((format!("\"{name}\": {who}"), rule))
    }

    /// Why the gate lets the request not pass.
    fn refusal(&self) -> Option<&Fault> {
        self.decision.as_ref()?.refusal.as_ref()
    }

    /// Whether a call would be sent.
    pub fn sends(&self) -> bool {
        let barred = |listener: &Listener| listener.screen.check(self.head, self.from).is_err();
        if self.refusal().is_some()
            || (!self.plan.listeners.is_empty() && self.plan.listeners.iter().all(barred))
        {
            return false;
        }
        match &self.outcome {
            Outcome::Method(taken) => {
                taken.message.is_ok()
                    && taken.metadata.is_ok()
                    && !matches!(self.request(taken), Some(Err(_)))
            }
            Outcome::Path(..) => true,
            Outcome::Nowhere(_) => false,
        }
    }
}

/// The message that would be sent.
fn message(
    entry: &Entry,
    found: &Found,
    (head, spoken): (&Parts, Spoken),
    body: Option<&[u8]>,
) -> Result<Message, Fault> {
    let invalid = |message: String| Fault::client(Kind::InvalidArgument, message);
    let binary = spoken.format.codec == Codec::Proto;
    let query = head.uri.query();
    let mut body = body.unwrap_or_default();
    let given;
    let query = match spoken.dialect.addressing() {
        Addressing::Rules | Addressing::Path => query,
        Addressing::RpcPath if head.method == Method::GET => {
            let parameters = connect::Query::parse(query.unwrap_or_default());
            given = parameters.message().map_err(|error| invalid(error.to_string()))?;
            if parameters.compression.is_some_and(|name| name != "identity") {
                return Ok(Message::Unseen);
            }
            if binary {
                return seen(entry, given.into());
            }
            body = &given;
            None
        }
        Addressing::RpcPath => None,
    };
    if binary && (body.is_empty() || entry.outbound.lane(spoken.format) != Lane::Transcode) {
        // Passed on as it is, so there is nothing that could be shown.
        return Ok(Message::Unseen);
    }
    let mut wire = BytesMut::new();
    let bound = entry.bound(found.binding);
    let given = bound
        .binding
        .read(&entry.json, &found.captures, query, &mut wire)
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
            let data = Bytes::copy_from_slice(body);
            raw_body::encode(
                field,
                head.headers.get(http::header::CONTENT_TYPE),
                &data,
                &mut wire,
            );
        }
    }
    seen(entry, wire.freeze())
}

fn seen(entry: &Entry, wire: Bytes) -> Result<Message, Fault> {
    let value = value(entry, entry.method.input.full_name(), &wire)?;
    let text = format!("{value:#}");
    Ok(Message::Seen { wire, text })
}

/// A message of this type as JSON.
fn value(entry: &Entry, name: &str, wire: &[u8]) -> Result<serde_json::Value, Fault> {
    let broken = |error: &dyn fmt::Display| {
        Fault::gateway(Kind::Internal, format!("the message can't be shown: {error}"))
    };
    let input = entry
        .json
        .message(name)
        .ok_or_else(|| broken(&"its type is not known"))?;
    let mut text = BytesMut::new();
    entry
        .json
        .write(Target::Message(input), None, wire, &mut text, usize::MAX)
        .map_err(|error| broken(&error))?;
    serde_json::from_slice(&text).map_err(|error| broken(&error))
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
            Outcome::Method(taken) => {
                self.taken(f, taken)?;
                self.other_routes(f, taken)?;
                self.other_rules(f, Some(taken))
            }
            Outcome::Path(route, found) => self.relayed(f, route, found),
            Outcome::Nowhere(fault) => {
                refused(f, fault)?;
                self.other_rules(f, None)?;
                match fault.kind() {
                    // Some route has the path, or would have, were it one.
                    Kind::MethodNotAllowed | Kind::BadRequest => Ok(()),
                    _ => self.unmatched(f),
                }
            }
        }
    }
}

/// What a client is told instead of an answer.
fn refused(f: &mut fmt::Formatter<'_>, fault: &Fault) -> fmt::Result {
    let kind = fault.kind();
    let status = kind.http_status();
    let (code, reason) = (kind.code().name(), kind.reason());
    let why = if code == reason {
        code.to_owned()
    } else {
        format!("{code}, {reason}")
    };
    writeln!(f, "\nanswered with {status}: {} ({why})", fault.message())
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
            ["lane".to_owned(), self.lane.name().to_owned()],
        ];
        if let Some(timeout) = entry.timeout() {
            facts.push(["timeout".to_owned(), format!("{timeout:?}")]);
        }
        self.gate_facts(&mut facts);
        writeln!(f)?;
        columns::write(f, "", &facts)?;
        if let Some(fault) = self.refusal() {
            return refused(f, fault);
        }
        if self.lane == Lane::Transcode {
            self.fields(f, taken)?;
        }
        match message {
            Ok(Message::Unseen) => {}
            Ok(Message::Seen { text, .. }) => {
                writeln!(f, "\nmessage {}\n{text}", method.input.full_name())?;
            }
            Err(fault) => return refused(f, fault),
        }
        let metadata = match metadata {
            Ok(metadata) => metadata,
            Err(fault) => return refused(f, fault),
        };
        self.call(f, taken, metadata)
    }

    /// What becomes of a request that leads along a route of paths.
    fn relayed(&self, f: &mut fmt::Formatter<'_>, route: &PathRoute, found: &FoundPath) -> fmt::Result {
        let query = self
            .head
            .uri
            .query()
            .map_or_else(String::new, |query| format!("?{query}"));
        let mut facts = vec![
            ["route".to_owned(), route.name.clone()],
            ["path".to_owned(), found.path.clone()],
            ["lane".to_owned(), Lane::Relay.name().to_owned()],
        ];
        self.gate_facts(&mut facts);
        if let Some(fault) = self.refusal() {
            writeln!(f)?;
            columns::write(f, "", &facts)?;
            return refused(f, fault);
        }
        match &route.action {
            Action::Redirect(redirect) => {
                let path = redirect.rewrite.apply(&found.path, &found.captures);
                facts.push(["answered with".to_owned(), redirect.status.to_string()]);
                facts.push(["location".to_owned(), format!("{path}{query}")]);
            }
            Action::Relay(relay) => {
                let path = relay.rewrite.apply(&found.path, &found.captures);
                facts.push([
                    "request".to_owned(),
                    format!("{} {path}{query}", self.head.method),
                ]);
                for (at, weight) in &relay.shares {
                    let backend = self.plan.backends.get(*at);
                    let to = backend.map_or_else(String::new, |backend| {
                        format!("backend \"{}\", {}", backend.name, endpoints(backend))
                    });
                    let share = if relay.shares.len() > 1 {
                        format!(" (share {weight})")
                    } else {
                        String::new()
                    };
                    facts.push(["to".to_owned(), format!("{to}{share}")]);
                    let instead = backend.map_or_else(Vec::new, |backend| self.instead_of_request(backend));
                    facts.extend(instead.into_iter().map(|who| ["or else".to_owned(), who]));
                }
            }
        }
        writeln!(f)?;
        columns::write(f, "", &facts)
    }

    /// What listeners make of the request, where they keep somebody out.
    fn listener_facts(&self, facts: &mut Vec<[String; 2]>) {
        for listener in &self.plan.listeners {
            let told = match listener.screen.check(self.head, self.from) {
                Ok(()) => continue,
                Err(Barred::Address) => format!(
                    "{} does not take connections from {}",
                    listener.address, self.from
                ),
                Err(Barred::Rule(rule)) => format!("{}: {rule} blocks it", listener.address),
            };
            facts.push(["listener".to_owned(), told]);
        }
    }

    fn gate_facts(&self, facts: &mut Vec<[String; 2]>) {
        self.listener_facts(facts);
        if let Some(rule) = self
            .decision
            .as_ref()
            .and_then(|decision| decision.blocked_by.as_ref())
        {
            facts.push(["rule".to_owned(), format!("{rule} blocks it")]);
            return;
        }
        if let Some((auth, rule)) = self.gate() {
            facts.push(["auth".to_owned(), auth]);
            facts.extend(rule.map(|rule| ["rule".to_owned(), rule]));
        }
        self.limit_facts(facts);
    }

    /// Which limits are asked, and about whom.
    fn limit_facts(&self, facts: &mut Vec<[String; 2]>) {
        let (checks, method) = match &self.outcome {
            Outcome::Method(taken) => {
                let path = taken.entry.method.path.trim_start_matches('/');
                (&taken.entry.checks, path)
            }
            Outcome::Path(route, _) => (&route.checks, self.head.method.as_str()),
            Outcome::Nowhere(_) => return,
        };
        let here = Peer::new((self.from, 0).into(), false, false, Vec::new());
        let caller = Caller {
            identity: self.decision.as_ref().and_then(Decision::identity),
            peer: &here,
            headers: &self.head.headers,
            method,
        };
        for check in &checks.checks {
            let Some(limit) = self.plan.rate_limits.get(check.limit) else {
                continue;
            };
            let of = match limit.key.as_slice() {
                [] => "all callers together".to_owned(),
                _ if check.field.is_some() => {
                    let parts: Vec<String> = limit.key.iter().map(Part::name).collect();
                    format!("{}, once the first message is there", parts.join(" + "))
                }
                parts => key::shown(&key::text(parts, caller)),
            };
            let cost = match check.cost {
                1 => String::new(),
                cost => format!(", this call costs {cost}"),
            };
            let told = format!("\"{}\" ({}) of {of}{cost}", limit.name, limit.allowance);
            facts.push(["limit".to_owned(), told]);
        }
        for limit in self.decision.as_ref().map_or(&[][..], Decision::own_limits) {
            let told = format!(
                "\"{}\" ({}) of this key, whatever it calls",
                limit.name, limit.allowance
            );
            facts.push(["limit".to_owned(), told]);
        }
        if self.plan.shedding.is_some() {
            facts.push([
                "priority".to_owned(),
                format!("{} where load is shed", checks.priority),
            ]);
        }
        if let Some(most) = checks.max_in_flight {
            facts.push(["in flight".to_owned(), format!("{most} on this route")]);
        }
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
            Form::None if self.has_body => {
                rows.push([
                    "-".to_owned(),
                    "body".to_owned(),
                    "no field is taken from it".to_owned(),
                ]);
            }
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

/// The endpoints of a backend, and how one is chosen where there are several.
fn endpoints(backend: &Backend) -> String {
    let policy = backend.balancing.policy.name();
    match &backend.source {
        Source::Listed(all) => match all.as_slice() {
            [only] => listed(only),
            all => {
                let all: Vec<String> = all.iter().map(listed).collect();
                format!("one of {} by {policy}", all.join(", "))
            }
        },
        found => format!("one of the {found} by {policy}"),
    }
}

fn listed(endpoint: &Listed) -> String {
    let mut text = endpoint.uri.to_string();
    let mut notes = Vec::new();
    if endpoint.weight != 1 {
        notes.push(format!("weight {}", endpoint.weight));
    }
    if let Some(zone) = &endpoint.zone {
        notes.push(format!("zone {zone}"));
    }
    if !notes.is_empty() {
        text.push_str(&format!(" ({})", notes.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests;
