//! `grpc.health.v1` as a backend: the gateway itself says which of its services can be called.
//!
//! A service serves where an endpoint of a backend that it is routed to can be reached, as this worker's connections
//! know, and a connection is tried where nobody has called yet. The gateway as a whole, the empty name, serves while one
//! of its services does. When it drains, or is about to, nothing serves any more.
//! Source: gRPC Health Checking Protocol.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use prost::Message as _;
use tokio::time::{Instant, sleep_until};
use tower::Service;

use crate::balance::Balance;
use crate::call::{Call, Deadline, Reply};
use crate::config::Plan;
use crate::config::plan::Pending;
use crate::fault::{Fault, Kind};
use crate::listen::Drain;
use crate::schema::exposed;
use crate::stack::deadline::expired;
use crate::status::{Code, Status};
use crate::translate::messages::{Direction, PartStream};
use crate::translate::{Bounds, End, Messages, Part, Tally};

/// How often a watched service is looked at: what is there is a connection's state, which nobody announces.
const LOOK: Duration = Duration::from_secs(1);

/// Services that one `List` tells at most. Source: `grpc.health.v1.Health.List`.
const LIST_LIMIT: usize = 100;

/// The state of a service, by its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum State {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Answer {
    #[prost(enumeration = "State", tag = "1")]
    status: i32,
}

/// `grpc.health.v1.HealthListResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Answers {
    #[prost(btree_map = "string, message", tag = "1")]
    statuses: BTreeMap<String, Answer>,
}

/// What a plan routes, and to whom.
#[derive(Debug, Default)]
pub struct Standing {
    services: HashMap<String, Vec<Arc<Balance>>>,
    pending: Vec<Pending>,
}

impl Standing {
    /// What `plan` routes over `balances`, which are those of its backends in order.
    pub fn new(plan: &Plan, balances: &[Arc<Balance>]) -> Self {
        let mut services: HashMap<String, Vec<Arc<Balance>>> = HashMap::new();
        for entry in &plan.entries {
            let Some(balance) = balances.get(entry.route.backend) else {
                continue;
            };
            let behind = services.entry(entry.method.service.to_string()).or_default();
            if !behind.iter().any(|known| Arc::ptr_eq(known, balance)) {
                behind.push(Arc::clone(balance));
            }
        }
        Self {
            services,
            pending: plan.pending.clone(),
        }
    }

    /// The state of a service by its full name, or of the gateway by an empty one; `None` where it is not routed.
    async fn state(&self, service: &str) -> Option<State> {
        if service.is_empty() {
            let idle = self.services.is_empty() && self.pending.is_empty();
            return Some(serving(idle || reachable(self.services.values().flatten()).await));
        }
        if let Some(behind) = self.services.get(service) {
            return Some(serving(reachable(behind).await));
        }
        if own().any(|name| name == service) {
            return Some(State::Serving);
        }
        let awaited = self.pending.iter().any(|pending| pending.covers(service));
        awaited.then_some(State::NotServing)
    }
}

/// The services that the gateway answers itself.
fn own() -> impl Iterator<Item = &'static str> {
    exposed::SERVICES.into_iter().chain([exposed::HEALTH])
}

fn serving(is_reachable: bool) -> State {
    if is_reachable {
        State::Serving
    } else {
        State::NotServing
    }
}

async fn reachable(balances: impl IntoIterator<Item = &Arc<Balance>>) -> bool {
    for balance in balances {
        if balance.is_reachable().await {
            return true;
        }
    }
    false
}

/// Answers the health protocol for one worker. Clones share what they know.
#[derive(Clone)]
pub struct Health {
    standing: Arc<ArcSwap<Standing>>,
    drain: Drain,
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

impl Health {
    /// Knows nothing yet; says that nothing serves from `drain`'s announcement on.
    pub fn new(drain: Drain) -> Self {
        Self {
            standing: Arc::default(),
            drain,
        }
    }

    /// Goes by another plan from now on, in answers that are being watched too.
    pub fn replace(&self, standing: Standing) {
        self.standing.store(Arc::new(standing));
    }

    async fn state(&self, service: &str) -> Option<State> {
        let standing = self.standing.load_full();
        let state = standing.state(service).await;
        if self.drain.announced() {
            return state.map(|_| State::NotServing);
        }
        state
    }

    async fn serve(self, call: Call) -> Result<Reply, Fault> {
        let mut messages = call.messages;
        let (bounds, tally) = (messages.bounds(), Arc::clone(messages.tally()));
        let service = question(&mut messages).await?.service;
        match &*call.method.name {
            "Check" => {
                let Some(state) = self.state(&service).await else {
                    return Ok(refused(
                        Code::NotFound,
                        format!("no route has the service \"{service}\""),
                        bounds,
                        tally,
                    ));
                };
                Ok(one(answer(state), bounds, tally))
            }
            "List" => match self.list().await {
                Some(answers) => Ok(one(answers.encode_to_vec().into(), bounds, tally)),
                None => Ok(refused(
                    Code::ResourceExhausted,
                    format!("there are more than {LIST_LIMIT} services; ask for one of them by Check"),
                    bounds,
                    tally,
                )),
            },
            _ => {
                let watch = Watch {
                    health: self,
                    service,
                    deadline: call.deadline,
                    told: None,
                    is_over: false,
                };
                Ok(reply(
                    Box::pin(stream::try_unfold(watch, Watch::step)),
                    bounds,
                    tally,
                ))
            }
        }
    }

    /// The state of every service; `None` where they are too many.
    async fn list(&self) -> Option<Answers> {
        let standing = self.standing.load_full();
        let mut names: Vec<&str> = standing.services.keys().map(String::as_str).collect();
        names.push("");
        for name in own() {
            names.push(name);
        }
        if names.len() > LIST_LIMIT {
            return None;
        }
        let mut statuses = BTreeMap::new();
        for name in names {
            if let Some(state) = self.state(name).await {
                statuses.insert(name.to_owned(), Answer { status: state.into() });
            }
        }
        Some(Answers { statuses })
    }
}

impl Service<Call> for Health {
    type Response = Reply;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(self.clone().serve(call))
    }
}

/// The one message of a request; a `HealthListRequest` is an empty one.
async fn question(messages: &mut Messages) -> Result<Question, Fault> {
    let Some(Part::Message(message)) = messages.next().await? else {
        return Err(Fault::client(Kind::InvalidArgument, "the request has no message"));
    };
    Question::decode(message).map_err(|error| {
        Fault::client(Kind::InvalidArgument, "the message is not a HealthCheckRequest").caused_by(error)
    })
}

fn answer(state: State) -> Bytes {
    Answer { status: state.into() }.encode_to_vec().into()
}

fn one(message: Bytes, bounds: Bounds, tally: Arc<Tally>) -> Reply {
    let parts = [Ok(Part::Message(message)), Ok(Part::End(End::new(Status::OK)))];
    reply(Box::pin(stream::iter(parts)), bounds, tally)
}

fn reply(parts: PartStream, bounds: Bounds, tally: Arc<Tally>) -> Reply {
    Reply {
        metadata: HeaderMap::new(),
        messages: Messages::stream(parts, Direction::Reply, bounds, tally),
    }
}

fn refused(code: Code, message: String, bounds: Bounds, tally: Arc<Tally>) -> Reply {
    let end = End::new(Status::new(code, message));
    Reply {
        metadata: HeaderMap::new(),
        messages: Messages::ended(end, bounds, tally),
    }
}

/// A service that is watched.
struct Watch {
    health: Health,
    service: String,
    deadline: Option<Deadline>,
    /// What the client was told last.
    told: Option<State>,
    is_over: bool,
}

impl Watch {
    /// The state now, and after that each time that it is another.
    async fn step(mut self) -> Result<Option<(Part, Self)>, Fault> {
        if self.is_over {
            return Ok(None);
        }
        loop {
            let is_draining = self.health.drain.begun();
            let state = self.health.state(&self.service).await;
            let state = state.unwrap_or(State::ServiceUnknown);
            if self.told != Some(state) {
                self.told = Some(state);
                return Ok(Some((Part::Message(answer(state)), self)));
            }
            if is_draining {
                // The client watches another gateway from here on.
                self.is_over = true;
                let status = Status::new(Code::Unavailable, "the gateway is about to end");
                return Ok(Some((Part::End(End::new(status)), self)));
            }
            self.pause().await?;
        }
    }

    /// Resolves when stopping has come further than it had.
    async fn told_to_stop(&self) {
        let drain = &self.health.drain;
        if drain.announced() {
            drain.signalled().await;
        } else {
            drain.foretold().await;
        }
    }

    /// Waits until it is time to look again.
    async fn pause(&self) -> Result<(), Fault> {
        let look = Instant::now() + LOOK;
        let deadline = self.deadline.map(Deadline::instant);
        let due = deadline.map_or(look, |deadline| deadline.min(look));
        // Which of the two comes first does not matter: both are looked at afterwards.
        tokio::select! {
            () = self.told_to_stop() => {}
            () = sleep_until(due) => {}
        }
        match deadline {
            Some(deadline) if deadline <= Instant::now() => Err(expired()),
            Some(_) | None => Ok(()),
        }
    }
}
