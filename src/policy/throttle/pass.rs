//! What a call that was let pass takes with it: its places, what its client is told, and what is asked later.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::gcra::Standing;
use super::key::{self, Caller, Part, Text};
use super::{Allowance, Counter, Limit, Place, Question, Round, Throttle};
use crate::fault::Fault;

/// What clients are told of the limits that were asked. Source: draft-ietf-httpapi-ratelimit-headers.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What a call takes with it that all limits let pass.
#[derive(Debug)]
pub struct Pass {
    pub(super) standings: Option<Standings>,
    pub(super) places: Places,
    pub(super) deferred: Option<Box<Deferred>>,
}

impl Pass {
    /// What the client is told of the limits; once.
    pub fn take_standings(&mut self) -> Option<Standings> {
        self.standings.take()
    }

    /// The places that the call takes; they are free again when this is dropped.
    pub fn take_places(&mut self) -> Places {
        std::mem::take(&mut self.places)
    }

    /// What is asked when the first message is there; once.
    pub fn take_deferred(&mut self) -> Option<Box<Deferred>> {
        self.deferred.take()
    }
}

/// Places of a call in flight. Dropping them frees them.
#[derive(Debug, Default)]
pub struct Places(SmallVec<[Place; 2]>);

impl Places {
    pub(super) fn push(&mut self, place: Place) {
        self.0.push(place);
    }

    pub(super) fn extend(&mut self, places: Vec<Place>) {
        self.0.extend(places);
    }
}

/// What was taken of one limit.
pub(super) struct Held<'t> {
    pub(super) question: &'t Question,
    pub(super) key: Text,
    pub(super) standing: Standing,
}

impl Held<'_> {
    pub(super) fn limit(&self) -> &Limit {
        self.question.counter.limit()
    }
}

/// How the limits stand that a call was asked about, as its client is told.
#[derive(Clone, Debug)]
pub struct Standings {
    policy: Option<HeaderValue>,
    limits: Option<HeaderValue>,
}

impl Standings {
    pub(super) fn new<'l>(
        told: Option<&HeaderValue>,
        standings: impl Iterator<Item = (&'l Limit, Standing)>,
    ) -> Self {
        let mut text = String::new();
        for (limit, standing) in standings {
            if policy(limit).is_none() {
                continue;
            }
            if !text.is_empty() {
                text.push_str(", ");
            }
            // Writing to a string never fails.
            let _ = write!(
                text,
                "\"{}\";r={};t={}",
                limit.name,
                standing.left,
                seconds(standing.reset)
            );
        }
        Self {
            policy: told.cloned(),
            limits: (!text.is_empty())
                .then(|| HeaderValue::try_from(text).ok())
                .flatten(),
        }
    }

    pub(super) fn headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let policy = self.policy.map(|value| (RATE_LIMIT_POLICY, value));
        policy
            .into_iter()
            .chain(self.limits.map(|value| (RATE_LIMIT, value)))
    }

    /// Puts them into the head of an answer. What an upstream says of limits of its own goes: a client can't tell whose
    /// they are.
    pub fn tell(self, headers: &mut HeaderMap) {
        // A refusal that came after the pass knows better.
        if headers.contains_key(RATE_LIMIT) && headers.get(RATE_LIMIT_POLICY) == self.policy.as_ref() {
            return;
        }
        for (name, value) in self.headers() {
            headers.insert(name, value);
        }
    }
}

/// A limit as a member of `RateLimit-Policy`; calls in flight are none that a client could plan by.
pub(super) fn policy(limit: &Limit) -> Option<String> {
    let name = &limit.name;
    match limit.allowance {
        Allowance::Rate(rate) => Some(format!(
            "\"{name}\";q={};w={}",
            rate.burst,
            seconds(rate.window())
        )),
        Allowance::Quota { count, calendar } => {
            // Months differ; what is told is the longest.
            let window = match calendar {
                super::calendar::Calendar::Hour => 3600,
                super::calendar::Calendar::Day => 86_400,
                super::calendar::Calendar::Month => 31 * 86_400,
            };
            Some(format!("\"{name}\";q={count};w={window}"))
        }
        Allowance::InFlight(_) => None,
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The field of a message by which a limit tells callers apart.
#[derive(Debug)]
pub(super) struct Field {
    names: Vec<String>,
    numbers: Vec<u32>,
}

impl Field {
    pub(super) fn new(limit: &Limit, numbers: &[u32]) -> Self {
        let names = limit.key.iter().find_map(|part| match part {
            Part::MessageField(names) => Some(names.clone()),
            Part::Principal
            | Part::ApiKey
            | Part::Address
            | Part::Header(_)
            | Part::Claim(_)
            | Part::Method => None,
        });
        Self {
            names: names.unwrap_or_default(),
            numbers: numbers.to_vec(),
        }
    }
}

/// What is asked of some limits once the first message of a call is there.
#[derive(Debug)]
pub struct Deferred {
    throttle: Arc<Throttle>,
    /// What clients are told of all limits that the call is asked about.
    policy: Option<HeaderValue>,
    /// What was taken before, and is given back if the call is refused now.
    taken: SmallVec<[(Arc<Counter>, u64, Text); 1]>,
    /// What is known of their keys already.
    keys: SmallVec<[(usize, Text); 1]>,
    principal: Text,
}

impl Deferred {
    pub(super) fn new(throttle: &Arc<Throttle>, caller: Caller<'_>, before: &Round<'_>) -> Self {
        let mut principal = Text::new();
        key::principal(&mut principal, caller);
        let deferred = throttle.questions.iter().enumerate();
        Self {
            keys: deferred
                .filter(|(_, question)| question.is_deferred())
                .map(|(at, question)| (at, key::before_message(&question.counter.limit().key, caller)))
                .collect(),
            throttle: Arc::clone(throttle),
            policy: before.policy.cloned(),
            taken: before
                .taken
                .iter()
                .map(|held| {
                    let Question { counter, cost, .. } = held.question;
                    (Arc::clone(counter), *cost, held.key.clone())
                })
                .collect(),
            principal,
        }
    }

    /// Asks them; `field` finds the text of a field in the message by its numbers.
    ///
    /// # Errors
    /// The refusal of the first one that does not allow the call.
    ///
    /// # Cancel safety
    /// What was taken is given back.
    pub async fn ask(self, field: impl Fn(&[u32]) -> Option<Vec<u8>>, now: Instant) -> Result<(), Fault> {
        let Self {
            throttle,
            policy,
            taken,
            mut keys,
            principal,
        } = self;
        for (at, key) in &mut keys {
            let wanted = throttle
                .questions
                .get(*at)
                .and_then(|question| question.field.as_ref());
            if let Some(wanted) = wanted {
                let value = field(&wanted.numbers);
                key::with_field(key, &wanted.names, value.as_deref(), &principal);
            }
        }
        drop(field);
        let mut round = Round::new(&throttle.book, throttle.by_calendar, policy.as_ref(), now);
        for (at, key) in keys {
            let Some(question) = throttle.questions.get(at) else {
                continue;
            };
            if let Err(refusal) = round.ask(question, key).await {
                for (counter, units, key) in &taken {
                    counter.give_back(key, *units);
                }
                return Err(refusal);
            }
        }
        round.end();
        Ok(())
    }
}
