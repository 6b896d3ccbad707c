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
pub mod pace;
mod pass;
mod report;
mod room;
pub mod shed;
mod store;
pub mod written;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use smallvec::SmallVec;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, timeout_at};

pub use adaptive::{Adaptive, AdaptiveSetup};
pub use book::Book;
pub use counter::{Allowance, Counter, Limit, Place, Usage, Verdict, Verdicts};
pub use gcra::Rate;
pub use key::{Caller, Part};
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

    /// Whether something is asked once the first message is there.
    pub fn asks_messages(&self) -> bool {
        self.questions.iter().any(Question::is_deferred)
    }

    /// Lets a call pass that all limits allow. What depends on its first message is asked later: see [`Deferred`].
    ///
    /// # Errors
    /// The refusal of the first limit that does not allow it; nothing was taken from the others then.
    ///
    /// # Cancel safety
    /// What was taken is given back.
    pub(super) async fn admit(self: &Arc<Self>, caller: Caller<'_>, now: Instant) -> Result<Pass, Fault> {
        let caller = Caller {
            method: self.method.as_deref().unwrap_or(caller.method),
            ..caller
        };
        let now = self.book.now(now, self.by_calendar);
        let mut places = Places::default();
        for room in &self.rooms {
            places.push(room.enter().ok_or_else(|| room.fault())?);
        }
        let mut round = Round::new(self, now);
        for (at, question) in self.questions.iter().enumerate() {
            if question.is_deferred() {
                continue;
            }
            let key = key::text(&question.counter.limit().key, caller);
            round.ask(at, key).await?;
        }
        places.extend(std::mem::take(&mut round.places));
        let standings = round.end();
        let deferred = self
            .asks_messages()
            .then(|| Box::new(Deferred::new(self, caller)));
        Ok(Pass {
            standings: Some(standings),
            places,
            deferred,
        })
    }
}

/// Questions that are asked together: what was taken is given back unless all of them allow.
struct Round<'t> {
    throttle: &'t Arc<Throttle>,
    now: Now,
    taken: SmallVec<[Held; 2]>,
    places: Vec<Place>,
    is_over: bool,
}

impl<'t> Round<'t> {
    fn new(throttle: &'t Arc<Throttle>, now: Now) -> Self {
        Self {
            throttle,
            now,
            taken: SmallVec::new(),
            places: Vec::new(),
            is_over: false,
        }
    }

    async fn ask(&mut self, at: usize, key: key::Text) -> Result<(), Fault> {
        let Some(question) = self.throttle.questions.get(at) else {
            return Ok(());
        };
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
            at,
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
            let now = self.throttle.book.now(Instant::now(), self.throttle.by_calendar);
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

    fn refusal(&self, held: &Held, wait: Duration) -> Fault {
        let limit = self
            .throttle
            .questions
            .get(held.at)
            .map(|question| question.counter.limit());
        let fault = match limit {
            Some(limit) => refused(limit, wait),
            None => Fault::client(Kind::RateLimited, "a limit is used up"),
        };
        let refused_at = Standing {
            reset: wait,
            ..held.standing
        };
        let standings = self
            .taken
            .iter()
            .map(|held| (held.at, held.standing))
            .chain([(held.at, refused_at)]);
        let told = Standings::new(self.throttle, standings);
        told.headers()
            .fold(fault, |fault, (name, value)| fault.beside(name, value))
    }

    fn end(mut self) -> Standings {
        self.is_over = true;
        let standings = self.taken.iter().map(|held| (held.at, held.standing));
        Standings::new(self.throttle, standings)
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        for held in &self.taken {
            if let Some(question) = self.throttle.questions.get(held.at) {
                question.counter.give_back(&held.key, question.cost);
            }
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
