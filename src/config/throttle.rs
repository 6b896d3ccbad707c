//! From `rate_limits:` and `rate_limit:` to what the gate asks, with what makes no sense.

use std::time::Duration;

use http::HeaderName;
use prost_reflect::{Kind, MessageDescriptor};

use super::compile::Resolved;
use super::diagnostic::Diagnostic;
use super::file::throttle::{AdaptiveConcurrency, KeyPart, RateLimit, StreamLimits};
use super::file::{self, File};
use super::located::{Located, Spot};
use super::value::{Methods, Period};
use crate::policy::setup::Secret;
use crate::policy::throttle::cluster::{ClusterSetup, OnLoss};
use crate::policy::throttle::pace::Pace;
use crate::policy::throttle::{
    AdaptiveSetup, Allowance, Check, Checks, Limit, Part, Priority, Rate, SheddingSetup,
};
use crate::schema::Method;

/// Keys of a limit that are known at once, where nothing is written.
const MAX_KEYS: usize = 100_000;

/// Every limit, in the order in which routes count them.
pub(super) fn limits(file: &File) -> Vec<Limit> {
    file.rate_limits
        .iter()
        .filter_map(|(name, written)| limit(name, written))
        .collect()
}

/// What is written, as a limit; nothing for what was told to make no sense.
fn limit(name: &str, written: &RateLimit) -> Option<Limit> {
    let allowance = match (&written.rate, &written.quota, &written.in_flight) {
        (Some(rate), _, _) => rate.with_burst(written.burst.as_ref().map(|burst| burst.0)),
        (None, Some(quota), _) => quota.value.into(),
        (None, None, Some(most)) => Allowance::InFlight(most.0),
        (None, None, None) => return None,
    };
    Some(Limit {
        name: name.to_owned(),
        key: written.key.0.iter().filter_map(part).collect(),
        allowance,
        max_keys: written
            .max_keys
            .as_ref()
            .map_or(MAX_KEYS, |most| usize::try_from(most.0).unwrap_or(usize::MAX)),
        of_key: false,
    })
}

/// How long what is ready may wait before load is shed, where nothing is written.
const QUEUE_TIME: Duration = Duration::from_millis(100);
/// The shortest time that this can be: timers are late by one or two milliseconds where nothing waits.
const LEAST_QUEUE_TIME: Duration = Duration::from_millis(5);
/// For how long it has to.
const SUSTAINED: Duration = Duration::from_secs(1);
/// The highest bound that goes by how long answers take.
const MOST_ADAPTED: u32 = 1000;
/// How much longer than at best they may take, in percent.
const BUFFER_PERCENT: u8 = 25;
/// How often it is measured what is best.
const MEASURE: Duration = Duration::from_secs(60);
/// The shortest time between two measurements: while it is measured, requests wait.
const LEAST_MEASURE: Duration = Duration::from_secs(10);

/// How long a call waits for Redis, where nothing is written.
const TIMEOUT: Duration = Duration::from_millis(100);

/// By what the nodes of a cluster share limits.
pub(super) fn cluster(file: &File) -> Option<ClusterSetup> {
    let written = file.redis.as_ref()?;
    Some(ClusterSetup {
        url: Secret(written.url.0.clone()),
        prefix: written.prefix.clone().unwrap_or_else(|| "sabir".to_owned()),
        timeout: written.timeout.map_or(TIMEOUT, |period| period.0),
        on_loss: match written.on_loss {
            file::OnLoss::Share => OnLoss::Share,
            file::OnLoss::Open => OnLoss::Open,
            file::OnLoss::Closed => OnLoss::Closed,
        },
    })
}

/// When load is shed.
pub(super) fn shedding(file: &File) -> Option<SheddingSetup> {
    let written = file.load_shedding.as_ref()?;
    Some(SheddingSetup {
        queue_time: written.queue_time.as_ref().map_or(QUEUE_TIME, |period| period.0),
        sustained: written.sustained.map_or(SUSTAINED, |period| period.0),
    })
}

/// The bound of a backend that goes by how long its answers take.
pub(super) fn adaptive(written: &AdaptiveConcurrency) -> AdaptiveSetup {
    AdaptiveSetup {
        most: written.max.map_or(MOST_ADAPTED, |most| most.0),
        buffer_percent: written.buffer_percent.map_or(BUFFER_PERCENT, |percent| percent.0),
        measure: written
            .measure_interval
            .as_ref()
            .map_or(MEASURE, |period| period.0),
    }
}

fn priority(written: file::Priority) -> Priority {
    match written {
        file::Priority::Low => Priority::Low,
        file::Priority::Normal => Priority::Normal,
        file::Priority::High => Priority::High,
        file::Priority::Critical => Priority::Critical,
    }
}

fn part(written: &KeyPart) -> Option<Part> {
    match written {
        KeyPart::Principal => Some(Part::Principal),
        KeyPart::ApiKey => Some(Part::ApiKey),
        KeyPart::Address => Some(Part::Address),
        KeyPart::Method => Some(Part::Method),
        KeyPart::Global => None,
        KeyPart::Header(name) => HeaderName::from_bytes(name.0.as_bytes()).ok().map(Part::Header),
        KeyPart::Claim(name) => Some(Part::Claim(name.clone())),
        KeyPart::MessageField(path) => Some(Part::MessageField(names(path))),
    }
}

fn names(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// What a method on a route asks, or a path.
pub(super) fn checks(file: &File, written: &file::Route, method: Option<&Method>) -> Checks {
    let named = written.rate_limit.as_ref().map_or(&[][..], |names| &names.0);
    let checks = named.iter().filter_map(|name| {
        let at = file.rate_limits.keys().position(|known| known == name)?;
        let limit = file.rate_limits.get(name)?;
        Some(Check {
            limit: at,
            cost: cost(limit, method),
            field: method.and_then(|method| field(limit, &method.input)),
        })
    });
    Checks {
        checks: checks.collect(),
        max_in_flight: written.max_in_flight.map(|most| most.0),
        pace: written.stream_limits.as_deref().map(pace),
        priority: priority(written.priority),
    }
}

/// How fast the messages of a stream may come, with what holds where nothing is written.
fn pace(written: &StreamLimits) -> Pace {
    const SECOND: Duration = Duration::from_secs(1);
    let rate = |count, period| Rate {
        count,
        period,
        burst: count,
    };
    Pace {
        messages: written
            .messages
            .map_or_else(|| rate(100, SECOND), |often| rate(often.count, often.period)),
        bytes: written
            .bytes
            .map_or_else(|| rate(1 << 20, SECOND), |often| rate(often.bytes, often.period)),
        patience: written.patience.map_or(10 * SECOND, |period| period.0),
    }
}

/// What a call of a method costs: the most specific pattern says it.
fn cost(limit: &RateLimit, method: Option<&Method>) -> u64 {
    let path = method.map(|method| &*method.path);
    let rank = |pattern: &Methods| match pattern {
        Methods::All => 0,
        Methods::Of(_) => 1,
        Methods::One(_) => 2,
    };
    let patterns = limit.weights.iter().filter_map(|(pattern, weight)| {
        let pattern: Methods = pattern.parse().ok()?;
        let takes = path.map_or(pattern == Methods::All, |path| pattern.take(path));
        takes.then(|| (rank(&pattern), weight.0))
    });
    patterns
        .max_by_key(|(rank, _)| *rank)
        .map_or(1, |(_, weight)| weight.into())
}

/// The numbers of the fields that lead to the one by which a limit tells callers apart.
fn field(limit: &RateLimit, message: &MessageDescriptor) -> Option<Vec<u32>> {
    let path = limit.key.0.iter().find_map(|part| match part {
        KeyPart::MessageField(path) => Some(path),
        KeyPart::Principal
        | KeyPart::ApiKey
        | KeyPart::Address
        | KeyPart::Method
        | KeyPart::Global
        | KeyPart::Header(_)
        | KeyPart::Claim(_) => None,
    })?;
    let mut message = Some(message.clone());
    let mut numbers = Vec::new();
    for name in path.split('.') {
        let within = message?;
        let found = within
            .get_field_by_name(name)
            .or_else(|| within.get_field_by_json_name(name))
            .filter(|field| !field.is_list() && !field.is_map() && !field.is_group())?;
        numbers.push(found.number());
        message = found.kind().as_message().cloned();
        if let Kind::Float | Kind::Double = found.kind() {
            return None;
        }
    }
    // A message is no value to tell callers apart by.
    message.is_none().then_some(numbers)
}

/// Limits by a field of messages, on routes none of whose methods has it.
pub(super) fn fields_of_nothing(file: &File, route: &Resolved<'_>, methods: &[&Method]) -> Vec<Diagnostic> {
    let Some(names) = &route.written.rate_limit else {
        return Vec::new();
    };
    let lacking = names.0.iter().filter(|name| {
        file.rate_limits.get(*name).is_some_and(|limit| {
            has_field(limit)
                && !methods.is_empty()
                && methods.iter().all(|method| field(limit, &method.input).is_none())
        })
    });
    let told = lacking.map(|name| {
        let message = format!(
            "\"{name}\" goes by a message_field that no method of this route has as a single text, number or boolean"
        );
        file.origin.error(names.spot, "routes", message)
    });
    told.collect()
}

fn has_field(limit: &RateLimit) -> bool {
    let is_field = |part: &KeyPart| matches!(part, KeyPart::MessageField(_));
    limit.key.0.iter().any(is_field)
}

/// Everything about limits that makes no sense, whatever the schemas are.
pub(super) struct Review<'a> {
    pub(super) file: &'a File,
}

impl Review<'_> {
    pub(super) fn all(&self, found: &mut Vec<Diagnostic>) {
        for (name, written) in &self.file.rate_limits {
            self.limit(name, written, found);
        }
        let shedding = self.file.load_shedding.as_ref();
        if let Some(time) = shedding.and_then(|shedding| shedding.queue_time.as_ref())
            && time.0 < LEAST_QUEUE_TIME
        {
            let message = format!(
                "is too short; the shortest is {}, which timers can tell",
                Period(LEAST_QUEUE_TIME)
            );
            found.push(self.file.origin.error(time.spot, "queue_time", message));
        }
        for backend in self.file.backends.values() {
            let adaptive = backend.adaptive_concurrency.as_ref();
            if let Some(every) = adaptive.and_then(|adaptive| adaptive.measure_interval.as_ref())
                && every.0 < LEAST_MEASURE
            {
                let message = format!("is too short; the shortest is {}", Period(LEAST_MEASURE));
                found.push(self.file.origin.error(every.spot, "measure_interval", message));
            }
        }
        for route in &self.file.routes {
            self.route(route, found);
        }
        if let Some(redis) = &self.file.redis
            && !cfg!(feature = "redis")
        {
            let message = "needs a gateway that was built with the feature \"redis\"";
            found.push(self.file.origin.key_error(redis.spot, "redis", message));
        }
    }

    fn key_error(&self, spot: Spot, message: impl Into<String>) -> Diagnostic {
        self.file.origin.key_error(spot, "rate_limits", message)
    }

    fn error(&self, spot: Spot, message: impl Into<String>) -> Diagnostic {
        self.file.origin.error(spot, "rate_limits", message)
    }

    fn limit(&self, name: &str, written: &Located<RateLimit>, found: &mut Vec<Diagnostic>) {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        if name.is_empty() || !name.chars().all(is_plain) {
            let message = format!(
                "\"{name}\" is no name of a limit, which clients are told: use letters, digits, - _ and ."
            );
            found.push(self.key_error(written.spot, message));
        }
        let ways = [
            written.rate.is_some(),
            written.quota.is_some(),
            written.in_flight.is_some(),
        ];
        if ways.iter().filter(|way| **way).count() != 1 {
            // What is there and wrong was told.
            let written_at_all = ["rate", "quota", "in_flight"];
            let there = written_at_all
                .iter()
                .filter(|key| self.file.origin.has(written.spot, key));
            if there.count() != 1 {
                let message = format!(
                    "the limit \"{name}\" is one of rate, quota and in_flight; for more, write a limit for each"
                );
                found.push(self.key_error(written.spot, message));
            }
            return;
        }
        if let (Some(burst), None) = (&written.burst, &written.rate) {
            found.push(self.key_error(burst.spot, "goes with a \"rate\"; this limit has none"));
        }
        self.keys(written, found);
        let most = limit(name, written).map_or(0, |limit| limit.allowance.most());
        for (pattern, weight) in &written.weights {
            if let Err(not) = pattern.parse::<Methods>() {
                found.push(self.key_error(weight.spot, format!("\"{pattern}\" {not}")));
            }
            if written.in_flight.is_some() {
                found.push(self.error(weight.spot, "means nothing here: a call in flight is one"));
            } else if u64::from(weight.0) > most {
                let message = format!(
                    "is more than the {most} that are there at once, so that it could never be called"
                );
                found.push(self.error(weight.spot, message));
            }
        }
    }

    fn keys(&self, written: &RateLimit, found: &mut Vec<Diagnostic>) {
        let keys = &written.key;
        if keys.0.is_empty() {
            found.push(self.key_error(
                keys.spot,
                "names nothing; write `global` for one account that all share",
            ));
        }
        if keys.0.len() > 1 && keys.0.contains(&KeyPart::Global) {
            found.push(self.error(keys.spot, "global is one account for everybody, and stands alone"));
        }
        if keys
            .0
            .iter()
            .filter(|part| matches!(part, KeyPart::MessageField(_)))
            .count()
            > 1
        {
            found.push(self.error(keys.spot, "has more than one message_field; one can be taken"));
        }
        for part in &keys.0 {
            match part {
                KeyPart::Header(name) if name.0.to_ascii_lowercase().starts_with("x-sabir-") => {
                    let message = "is a header that no client can send; write principal or {claim: NAME}";
                    found.push(self.error(keys.spot, message));
                }
                KeyPart::MessageField(_) if written.in_flight.is_some() => {
                    let message =
                        "calls in flight are counted before their messages are read; write another key";
                    found.push(self.error(keys.spot, message));
                }
                KeyPart::MessageField(path) if names(path).iter().any(String::is_empty) => {
                    let message =
                        format!("\"{path}\" is no path of a field; write such as name or book.author");
                    found.push(self.error(keys.spot, message));
                }
                KeyPart::Principal
                | KeyPart::ApiKey
                | KeyPart::Address
                | KeyPart::Method
                | KeyPart::Global
                | KeyPart::Header(_)
                | KeyPart::Claim(_)
                | KeyPart::MessageField(_) => {}
            }
        }
    }

    fn route(&self, route: &file::Route, found: &mut Vec<Diagnostic>) {
        let speaks = self
            .file
            .backends
            .get(&route.backend.value)
            .map(|backend| backend.protocol);
        if let Some(limits) = &route.stream_limits
            && route.path.is_some()
            && speaks.is_some_and(|protocol| protocol != file::Protocol::WebSocket)
        {
            let message =
                "means nothing here: requests of a path are no streams of messages, but for WebSockets";
            found.push(self.key_error(limits.spot, message));
        }
        let Some(names) = &route.rate_limit else { return };
        if names.0.is_empty() {
            found.push(self.key_error(names.spot, "names no limit; leave it out where there is none"));
        }
        for (at, name) in names.0.iter().enumerate() {
            if names.0.iter().position(|other| other == name) != Some(at) {
                found.push(self.error(names.spot, format!("\"{name}\" is there twice")));
            }
            let limit = self.file.rate_limits.get(name);
            if route.path.is_some() && limit.is_some_and(|limit| has_field(limit)) {
                let message = format!("\"{name}\" goes by a message_field, and a path has no messages");
                found.push(self.error(names.spot, message));
            }
        }
    }
}
