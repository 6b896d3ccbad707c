//! How often callers may call, and how many calls are in flight: the gate's last question.
//!
//! A [`Limit`] of the configuration becomes a [`Counter`], which all workers share and which lives on when the plan
//! changes and the limit does not. What a method on a route asks of them is a [`Throttle`]: all of its checks have to
//! allow, and what the others had given when one refuses is given back.

pub mod adaptive;
pub mod book;
pub mod calendar;
pub mod cluster;
mod counter;
pub mod gcra;
pub mod key;
pub mod lease;
pub mod own;
pub mod pace;
mod pass;
mod report;
mod room;
pub mod shed;
mod store;
pub mod written;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use smallvec::SmallVec;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, timeout_at};

pub use adaptive::{Adaptive, AdaptiveSetup};
pub use book::Book;
pub use counter::{Allowance, Counter, Limit, Place, Usage, Verdict, Verdicts};
pub use gcra::Rate;
pub use key::{Caller, Part};
pub use own::OwnThrottles;
pub use pass::{Deferred, Pass, Places, Standings};
pub use room::Room;
pub use shed::{Priority, Shedder, SheddingSetup};

use crate::fault::{Fault, Kind, Side};
use crate::policy::time::unix_now;
use counter::Answer;
use gcra::Standing;
use pace::Pace;
use pass::{Field, Held};

/// An instant, on both clocks: rates go by the one that never jumps, quotas by the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since the process began to count.
    pub nanos: u64,
    /// Seconds of Unix time.
    pub unix: u64,
}

/// What tells instants: those of one process count from the same one.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Default for Clock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock {
    /// An instant on both clocks; the calendar's is looked at where it is asked for.
    pub(super) fn now(&self, now: Instant, by_calendar: bool) -> Now {
        let nanos = now.saturating_duration_since(self.0).as_nanos();
        Now {
            // 584 years of uptime.
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
            unix: if by_calendar { unix_now() } else { 0 },
        }
    }
}

/// One question that a method on a route asks, as data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The index of the limit.
    pub limit: usize,
    /// What a call costs.
    pub cost: u64,
    /// The numbers of the fields that lead to the one by which callers are told apart, if one does.
    pub field: Option<Vec<u32>>,
}

/// What a method on a route asks, as data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    /// In the order of the configuration.
    pub checks: Vec<Check>,
    /// Calls in flight on the whole route.
    pub max_in_flight: Option<u32>,
    /// How fast the messages of a stream may come.
    pub pace: Option<Pace>,
    /// How much it matters that a call is served.
    pub priority: Priority,
}

/// What a method on a route asks, with the counters that answer.
#[derive(Debug)]
pub struct Throttle {
    book: Arc<Book>,
    questions: Vec<Question>,
    rooms: Vec<Arc<Room>>,
    /// Whether one of the limits goes by the calendar.
    by_calendar: bool,
    /// What is called, where that does not depend on the request.
    method: Option<Arc<str>>,
    policy: Option<HeaderValue>,
}

#[derive(Debug)]
struct Question {
    counter: Arc<Counter>,
    cost: u64,
    field: Option<Field>,
}

impl Question {
    fn is_deferred(&self) -> bool {
        self.field.is_some()
    }
}

impl Throttle {
    /// The questions of a method, or of a path; nothing where there are none. `backend` is the room of the only backend,
    /// if that has one; `method` what is called.
    pub fn new(
        book: &Arc<Book>,
        checks: &Checks,
        rooms: Vec<Arc<Room>>,
        counters: &[Arc<Counter>],
        method: Option<&str>,
    ) -> Option<Arc<Self>> {
        let questions: Vec<Question> = checks
            .checks
            .iter()
            .filter_map(|check| {
                let counter = Arc::clone(counters.get(check.limit)?);
                let field = check
                    .field
                    .as_ref()
                    .map(|numbers| Field::new(counter.limit(), numbers));
                Some(Question {
                    counter,
                    cost: check.cost,
                    field,
                })
            })
            .collect();
        if questions.is_empty() && rooms.is_empty() {
            return None;
        }
        let limits = || questions.iter().map(|question| question.counter.limit());
        let policy: Vec<String> = limits().filter_map(pass::policy).collect();
        Some(Arc::new(Self {
            book: Arc::clone(book),
            by_calendar: limits().any(|limit| matches!(limit.allowance, Allowance::Quota { .. })),
            rooms,
            method: method.map(Into::into),
            policy: (!policy.is_empty())
                .then(|| HeaderValue::try_from(policy.join(", ")).ok())
                .flatten(),
            questions,
        }))
    }

    /// The questions of an API key with limits of its own, of which a call costs one; nothing where there are none.
    fn own(book: &Arc<Book>, counters: impl Iterator<Item = Arc<Counter>>) -> Option<Arc<Self>> {
        let counters: Vec<_> = counters.collect();
        let check = |limit| Check {
            limit,
            cost: 1,
            field: None,
        };
        let checks = Checks {
            checks: (0..counters.len()).map(check).collect(),
            ..Checks::default()
        };
        Self::new(book, &checks, Vec::new(), &counters, None)
    }

    /// Whether something is asked once the first message is there.
    pub fn asks_messages(&self) -> bool {
        self.questions.iter().any(Question::is_deferred)
    }
}

/// Lets a call pass that all limits allow: those of its `route`, and the caller's `own`. What depends on its first message
/// is asked later: see [`Deferred`].
///
/// # Errors
/// The refusal of the first limit that does not allow it; nothing was taken from the others then.
///
/// # Cancel safety
/// What was taken is given back.
pub(super) async fn admit<'t>(
    route: Option<&'t Arc<Throttle>>,
    own: Option<&'t Arc<Throttle>>,
    caller: Caller<'_>,
    now: Instant,
) -> Result<Option<Pass>, Fault> {
    let all = || route.into_iter().chain(own);
    let Some(first) = all().next() else {
        return Ok(None);
    };
    let method = route.and_then(|route| route.method.as_deref());
    let caller = Caller {
        method: method.unwrap_or(caller.method),
        ..caller
    };
    let mut places = Places::default();
    for room in all().flat_map(|throttle| &throttle.rooms) {
        places.push(room.enter().ok_or_else(|| room.fault())?);
    }
    let both;
    let of = |throttle: Option<&'t Arc<Throttle>>| throttle.and_then(|throttle| throttle.policy.as_ref());
    let policy = match (of(route), of(own)) {
        (Some(route), Some(own)) => {
            both = joined(route, own);
            both.as_ref()
        }
        (route, own) => route.or(own),
    };
    let by_calendar = all().any(|throttle| throttle.by_calendar);
    let mut round = Round::new(&first.book, by_calendar, policy, now);
    let questions = all().flat_map(|throttle| &throttle.questions);
    for question in questions.filter(|question| !question.is_deferred()) {
        let key = key::text(&question.counter.limit().key, caller);
        round.ask(question, key).await?;
    }
    let deferred = route
        .filter(|route| route.asks_messages())
        .map(|route| Box::new(Deferred::new(route, caller, &round)));
    places.extend(std::mem::take(&mut round.places));
    Ok(Some(Pass {
        standings: Some(round.end()),
        places,
        deferred,
    }))
}

/// What clients are told of limits of both kinds.
fn joined(route: &HeaderValue, own: &HeaderValue) -> Option<HeaderValue> {
    let both = [route.as_bytes(), b", ", own.as_bytes()].concat();
    HeaderValue::from_maybe_shared(Bytes::from(both)).ok()
}

/// Questions that are asked together: what was taken is given back unless all of them allow.
struct Round<'t> {
    book: &'t Book,
    by_calendar: bool,
    /// What clients are told of the limits.
    policy: Option<&'t HeaderValue>,
    now: Now,
    taken: SmallVec<[Held<'t>; 2]>,
    places: Vec<Place>,
    is_over: bool,
}

impl<'t> Round<'t> {
    fn new(book: &'t Book, by_calendar: bool, policy: Option<&'t HeaderValue>, now: Instant) -> Self {
        Self {
            book,
            by_calendar,
            policy,
            now: book.now(now, by_calendar),
            taken: SmallVec::new(),
            places: Vec::new(),
            is_over: false,
        }
    }

    async fn ask(&mut self, question: &'t Question, key: key::Text) -> Result<(), Fault> {
        let limit = question.counter.limit();
        let answer = match question.counter.take(&key, question.cost, self.now) {
            // Boxed: it is rare, and large.
            Answer::Wait(told) => Box::pin(self.wait(question, &key, told)).await,
            answer => answer,
        };
        let taken = match answer {
            Answer::Taken(taken) => taken,
            Answer::Crowded => return Err(crowded(limit)),
            Answer::Closed | Answer::Wait(_) => return Err(unknown(limit)),
        };
        let held = Held {
            question,
            key,
            standing: taken.standing,
        };
        match taken.standing.wait {
            None => {
                self.taken.push(held);
                self.places.extend(taken.place);
                Ok(())
            }
            Some(wait) => Err(self.refusal(&held, wait)),
        }
    }

    /// Waits for the store of the cluster, within reason.
    async fn wait(&self, question: &Question, key: &[u8], mut told: OwnedNotified) -> Answer {
        let counter = &question.counter;
        let patience = counter
            .cluster()
            .map_or(Duration::ZERO, |cluster| cluster.setup().timeout);
        let give_up = Instant::now() + patience;
        loop {
            let waiting = Waiting {
                counter,
                key,
                units: question.cost,
            };
            let heard = timeout_at(give_up, told).await;
            let now = self.book.now(Instant::now(), self.by_calendar);
            let answer = match heard {
                Ok(()) => counter.take(key, question.cost, now),
                Err(_elapsed) => counter.take_alone(key, question.cost, now),
            };
            // After it was taken: what nobody waits for any more may be let go.
            drop(waiting);
            match answer {
                Answer::Wait(again) => told = again,
                answer => return answer,
            }
        }
    }

    fn refusal(&self, held: &Held<'_>, wait: Duration) -> Fault {
        let fault = refused(held.limit(), wait);
        let refused_at = Standing {
            reset: wait,
            ..held.standing
        };
        let told = Standings::new(self.policy, self.standings().chain([(held.limit(), refused_at)]));
        told.headers()
            .fold(fault, |fault, (name, value)| fault.beside(name, value))
    }

    fn standings(&self) -> impl Iterator<Item = (&Limit, Standing)> {
        self.taken.iter().map(|held| (held.limit(), held.standing))
    }

    fn end(mut self) -> Standings {
        self.is_over = true;
        Standings::new(self.policy, self.standings())
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        for held in &self.taken {
            held.question.counter.give_back(&held.key, held.question.cost);
        }
    }
}

/// A call that waits for the store; it waits no more when this is dropped.
struct Waiting<'a> {
    counter: &'a Counter,
    key: &'a [u8],
    units: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counter.waited(self.key, self.units);
    }
}

/// The fault of a limit of which it is not known how it stands.
fn unknown(limit: &Limit) -> Fault {
    let message = format!(
        "how the limit \"{}\" stands can't be told now; try again",
        limit.name
    );
    Fault::new(Kind::Overloaded, Side::Gateway, message)
        .retry_after(Duration::from_secs(1))
        .of_limit(limit.name.as_str())
}

/// The fault of a limit that is used up.
fn refused(limit: &Limit, wait: Duration) -> Fault {
    // Whole milliseconds, rounded up: a client that comes back earlier comes back too early.
    let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    let wait = Duration::from_millis(millis);
    let name = &limit.name;
    let (kind, said) = match limit.allowance {
        Allowance::Rate(_) => (
            Kind::RateLimited,
            format!("the limit \"{name}\" is used up; try again in {}", shown(wait)),
        ),
        Allowance::Quota { count, calendar } => (
            Kind::QuotaExhausted,
            format!(
                "the quota \"{name}\" of {count} in each {calendar} is used up; try again in {}",
                shown(wait)
            ),
        ),
        Allowance::InFlight(most) => (
            Kind::ConcurrencyLimited,
            format!("the limit \"{name}\" of {most} calls in flight is met; wait for one to end"),
        ),
    };
    Fault::client(kind, said)
        .retry_after(wait)
        .of_limit(name.as_str())
}

/// The fault of a limit that can't tell one caller more apart.
fn crowded(limit: &Limit) -> Fault {
    Fault::new(
        Kind::Overloaded,
        Side::Gateway,
        format!(
            "the limit \"{}\" knows as many callers as it can; try again",
            limit.name
        ),
    )
    .retry_after(Duration::from_secs(1))
    .of_limit(limit.name.as_str())
}

/// A time as people say it.
fn shown(wait: Duration) -> String {
    match wait.as_secs() {
        0 => format!("{} ms", wait.as_millis()),
        seconds => format!("{} s", seconds + u64::from(wait.subsec_nanos() > 0)),
    }
}

#[cfg(test)]
mod tests;
