//! A request on its way to one of a backend's endpoints, and once more where that is safe.
//!
//! Here it is known what was sent, to whom, and how it went wrong; so here it is decided whether it is sent again, and not
//! in a layer above, which would have to keep whole calls for it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{Either, select};
use http::header::{HeaderName, HeaderValue, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::task::TaskTracker;

use crate::backend::replay::Replay;
use crate::balance::budget::Allowance;
use crate::balance::key::{KeySource, cookie};
use crate::balance::retries::{Instead, Why};
use crate::balance::settings::{Policy, Retry, Sticky};
use crate::balance::{Balance, Ending, InFlight, Target, Tried, Untaken, Wish};
use crate::call::Deadline;
use crate::fault::{Fault, Kind};
use crate::policy::Identity;
use crate::policy::throttle::adaptive::Outstanding;
use crate::policy::throttle::{Adaptive, Place, Room};
use crate::route::relay::Page;
use crate::translate::Tally;
use crate::upstream::stream::{SendError, Wanted};
use crate::upstream::upgrade::{self, Answered};
use crate::wire::body::Body;
use crate::wire::ending;

/// The number of no endpoint.
const NOBODY: u64 = u64::MAX;

/// The largest body that is waited for where requests in flight are counted. 64 KiB.
const KEPT: u64 = 64 << 10;

/// The longest pause that an upstream may ask for. Longer, a client waits better by itself.
const LONGEST_ASKED: Duration = Duration::from_secs(2);

/// Whether a request may reach a backend twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twice {
    /// It does the same as once.
    Harmless,
    /// Only what was surely not processed is sent again.
    Never,
}

/// What the body of a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upload {
    /// One message.
    Message,
    /// Messages, one after the other.
    Stream,
    /// Anything.
    Plain,
}

/// What is to be known of a request beside its head and its body.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'c> {
    /// Whether it may arrive twice.
    pub(super) twice: Twice,
    /// When its client stops waiting.
    pub(super) deadline: Option<Deadline>,
    /// The counts of its call.
    pub(super) tally: &'c Tally,
    /// Where it wants to go.
    pub(super) wish: Wish,
    /// How a whole answer ends.
    pub(super) ending: Ending,
    /// Whether it has one answer, so that a second copy may race the first one.
    pub(super) is_unary: bool,
    /// Whether there is a fixed answer where nobody can give one.
    pub(super) has_answer: bool,
    /// How the body of the answer is wanted.
    pub(super) wanted: Wanted,
}

/// What became of a request.
pub(super) enum Sent {
    /// An upstream answered.
    Answered(Response<Body>),
    /// Nobody did, and the fixed answer holds.
    Unanswered,
}

/// The endpoints of one backend, for one worker. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Dispatch {
    inner: Arc<Inner>,
    room: Option<Arc<Room>>,
    adaptive: Option<Arc<Adaptive>>,
    /// What plain HTTP is answered with where nobody can.
    page: Option<Arc<Page>>,
}

#[derive(Debug)]
struct Inner {
    balance: Arc<Balance>,
    tasks: TaskTracker,
    /// Who is asked where this backend can't answer.
    fallback: Option<Dispatch>,
}

/// Why an attempt brought no answer that a client should see.
enum Failed {
    /// Nobody took the request.
    Untaken(Untaken),
    /// The request can't be made.
    Unmade(Fault),
    /// It was sent, and no answer came.
    Send(SendError),
    /// The answer did not begin in time.
    Late(Duration),
    /// The upstream answers that it is not available.
    Unavailable(Response<Body>, InFlight),
}

impl Dispatch {
    /// The backend over `balance`; request bodies that stream are sent by tasks of `tasks`.
    pub fn new(balance: Arc<Balance>, tasks: TaskTracker, fallback: Option<Self>) -> Self {
        Self {
            inner: Arc::new(Inner {
                balance,
                tasks,
                fallback,
            }),
            room: None,
            adaptive: None,
            page: None,
        }
    }

    /// The same, with this answer to plain HTTP where nobody can give one.
    #[must_use]
    pub fn with_page(self, page: Option<Arc<Page>>) -> Self {
        Self { page, ..self }
    }

    /// What plain HTTP is answered with where nobody can.
    pub(super) fn page(&self) -> Option<&Page> {
        self.page.as_deref()
    }

    /// The same, with room for so many requests at once, for who asks here without a gate that has seen to it.
    #[must_use]
    pub fn with_room(self, room: Option<Arc<Room>>) -> Self {
        Self { room, ..self }
    }

    /// The same, with a bound that goes by how long answers take.
    #[must_use]
    pub fn adapting(self, adaptive: Option<Arc<Adaptive>>) -> Self {
        Self { adaptive, ..self }
    }

    /// Room for a request by how long answers take, where that is asked, and the request is there in whole and has one
    /// answer: how long others take says nothing of the backend.
    async fn outstanding(&self, asked: &Asked<'_>, is_whole: bool) -> Result<Option<Outstanding>, Fault> {
        match &self.adaptive {
            Some(adaptive) if is_whole && (asked.is_unary || asked.ending == Ending::Any) => {
                adaptive.enter().await.map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    /// A place for a request, where there is a bound.
    ///
    /// # Errors
    /// All places are taken.
    pub(super) fn enter(&self) -> Result<Option<Place>, Fault> {
        match &self.room {
            None => Ok(None),
            Some(room) => room.enter().map(Some).ok_or_else(|| room.fault()),
        }
    }

    /// Its endpoints, as this worker sees them.
    pub fn balance(&self) -> &Arc<Balance> {
        &self.inner.balance
    }

    /// Where calls with requests of `input` carry the key that they are balanced by.
    pub(super) fn key_source(&self, input: Option<&prost_reflect::MessageDescriptor>) -> KeySource {
        match &self.inner.balance.group().settings().policy {
            Policy::Hash(on) => KeySource::new(on, input),
            Policy::RoundRobin | Policy::LeastRequest | Policy::PeakEwma => KeySource::Nowhere,
        }
    }

    /// What the head of a call says about where it wants to go.
    pub(super) fn wish(&self, key: &KeySource, headers: &HeaderMap, identity: Option<&Identity>) -> Wish {
        let sticky = self.inner.balance.group().settings().sticky.as_ref();
        Wish {
            key: key.of_head(headers, identity),
            sticky: sticky
                .and_then(|sticky| cookie(headers, &sticky.cookie))
                .and_then(|value| u64::from_str_radix(value, 16).ok()),
        }
    }

    /// Whether a request may be sent more than once, so that its body has to be kept.
    pub(super) fn retries(&self) -> bool {
        self.inner.balance.group().settings().retry.max > 0 || self.inner.fallback.is_some() || self.hedges()
    }

    /// The body of a request, kept as far as it may be needed again.
    ///
    /// # Errors
    /// The body's own.
    pub(super) async fn keep(&self, body: Body, is: Upload) -> Result<Replay, Fault> {
        let is_small = body.size_hint().upper().is_some_and(|size| size <= KEPT);
        let is_counted = self.adaptive.is_some();
        match is {
            // What is counted has to be there, or a client would be counted that takes its time; and what may be copied.
            Upload::Message if is_counted || self.hedges() => Replay::whole(body).await,
            Upload::Plain if is_counted && is_small => Replay::whole(body).await,
            // What is there goes out with its head, without a task.
            Upload::Message => Replay::message(body).await,
            Upload::Stream | Upload::Plain if !self.retries() => Ok(Replay::once(body)),
            Upload::Stream => Ok(Replay::streaming(body)),
            Upload::Plain => Replay::new(body).await,
        }
    }

    fn hedges(&self) -> bool {
        self.inner.balance.group().settings().hedge.is_some()
    }

    /// Sends a request, into which `address` writes what an endpoint decides and what is left of the deadline, and waits for
    /// the head of the answer. The body of the answer counts as a call under way until it has ended.
    ///
    /// # Errors
    /// What `address` says, and an upstream fault where no endpoint can be reached or the answer does not come.
    ///
    /// # Cancel safety
    /// Dropping it cancels the request upstream.
    pub(super) async fn send<A>(
        &self,
        asked: &Asked<'_>,
        request: &mut Request<()>,
        body: &mut Replay,
        address: &A,
    ) -> Result<Sent, Fault>
    where
        A: Fn(&mut Request<()>, &Target, Option<Deadline>) -> Result<(), Fault>,
    {
        let mut went_out = false;
        let outstanding = self.outstanding(asked, body.as_whole().is_some()).await?;
        // As it is before anything is written into it for an endpoint here.
        let mut spare = self.inner.fallback.as_ref().map(|_| Box::new(request.clone()));
        let tried = self.tries(asked, request, body, address, &mut went_out).await;
        match (outstanding, &tried) {
            (Some(outstanding), Ok(_) | Err(Failed::Late(_))) => outstanding.answered(),
            (Some(outstanding), Err(_)) => outstanding.failed(),
            (None, _) => {}
        }
        let failed = match tried {
            Ok((response, in_flight)) => {
                body.commit();
                return Ok(Sent::Answered(self.answer(asked, response, in_flight)));
            }
            Err(failed) => failed,
        };
        let is_upstreams = !matches!(failed, Failed::Unmade(_));
        if let (Some(fallback), Some(request)) = (&self.inner.fallback, &mut spare)
            && is_upstreams
            && (!went_out || asked.twice == Twice::Harmless)
            && body.is_there()
        {
            let asked = Asked {
                wish: Wish::default(),
                ..*asked
            };
            let elsewhere = fallback.tries(&asked, request, body, address, &mut went_out);
            // Boxed: a fallback is rare, and the room for it should not be in every call.
            if let Ok((response, in_flight)) = Box::pin(elsewhere).await {
                body.commit();
                self.inner.balance.group().retries().answered(Instead::Backend);
                return Ok(Sent::Answered(fallback.answer(&asked, response, in_flight)));
            }
        }
        body.commit();
        // A fixed answer to what may have been done would say that it was not.
        if asked.has_answer && is_upstreams && (!went_out || asked.twice == Twice::Harmless) {
            self.inner.balance.group().retries().answered(Instead::Answer);
            return Ok(Sent::Unanswered);
        }
        self.told(failed).map(Sent::Answered)
    }

    /// What a client is told of a request that failed for good.
    fn told(&self, failed: Failed) -> Result<Response<Body>, Fault> {
        match failed {
            Failed::Unavailable(response, in_flight) => Ok(response.map(|body| body.holding(in_flight))),
            Failed::Untaken(untaken) => Err(self.unavailable(untaken)),
            Failed::Unmade(fault) => Err(fault),
            Failed::Send(error) => Err(error.into()),
            Failed::Late(patience) => Err(Fault::upstream(
                Kind::DeadlineExceeded,
                format!("the upstream did not begin to answer within {patience:?}"),
            )),
        }
    }

    /// An answer on its way to the client.
    fn answer(&self, asked: &Asked<'_>, mut response: Response<Body>, in_flight: InFlight) -> Response<Body> {
        if let Some(sticky) = &self.inner.balance.group().settings().sticky {
            stick(
                sticky,
                asked.wish,
                in_flight.endpoint().fingerprint(),
                response.headers_mut(),
            );
        }
        let ending = match asked.ending {
            // Trailers-only, or what is no gRPC at all: there is nothing more to wait for.
            Ending::Status if ending::find(response.headers()).is_some() => Ending::Any,
            Ending::Status if response.status() != StatusCode::OK => Ending::Any,
            ending => ending,
        };
        response.body_mut().wrap(|body| in_flight.watch(body, ending));
        response
    }

    /// Tries as often as it is safe, and the budget allows.
    async fn tries<A>(
        &self,
        asked: &Asked<'_>,
        request: &mut Request<()>,
        body: &mut Replay,
        address: &A,
        went_out: &mut bool,
    ) -> Result<(Response<Body>, InFlight), Failed>
    where
        A: Fn(&mut Request<()>, &Target, Option<Deadline>) -> Result<(), Fault>,
    {
        let group = self.inner.balance.group();
        if group.settings().hedge.is_some()
            && asked.is_unary
            && asked.twice == Twice::Harmless
            && let Some(whole) = body.as_whole()
        {
            let whole = whole.clone();
            return Box::pin(self.hedged(asked, request, &whole, address, went_out)).await;
        }
        let mut tried = Tried::new();
        let mut allowed: Option<Allowance> = None;
        let mut retried = 0;
        loop {
            let Some(sending) = body.body() else {
                return Err(Failed::Unmade(Fault::gateway(
                    Kind::Internal,
                    "the request is gone",
                )));
            };
            let chosen = AtomicU64::new(NOBODY);
            let attempt = self.attempt(asked, &tried, &chosen, request, sending, address);
            let failed = match attempt.await {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            tried.push(chosen.into_inner());
            drop(allowed.take());
            *went_out |= !matches!(
                failed,
                Failed::Untaken(_) | Failed::Unmade(_) | Failed::Send(SendError::Unprocessed(_))
            );
            let Some(why) = reason(&failed).filter(|why| is_safe(*why, asked.twice)) else {
                return Err(failed);
            };
            // What was surely not processed is sent again at once, the first time: nobody has done anything with it yet.
            let is_free = retried == 0 && matches!(why, Why::Unprocessed | Why::Refused | Why::Stale);
            if retried >= group.settings().retry.max || !body.is_there() || (why == Why::Stale && !is_free) {
                return Err(failed);
            }
            if !is_free {
                allowed = Some(self.allow_again(asked, retried, failed).await?);
            }
            retried += 1;
            group.retries().count(why);
            asked.tally.retry();
        }
    }

    /// Waits until it is time for another attempt after one that `failed`. What is given counts against the budget until
    /// it is dropped, when that attempt is over.
    ///
    /// # Errors
    /// `failed` itself, where the upstream, the deadline or the budget are against another attempt.
    async fn allow_again(
        &self,
        asked: &Asked<'_>,
        retried: u32,
        failed: Failed,
    ) -> Result<Allowance, Failed> {
        let group = self.inner.balance.group();
        let now = Instant::now();
        let Some(pause) = pause(&group.settings().retry, retried, &failed) else {
            return Err(failed);
        };
        if asked.deadline.is_some_and(|deadline| deadline.left(now) <= pause) {
            return Err(failed);
        }
        let Some(allowed) = group.allow_retry(now) else {
            group.retries().refuse();
            return Err(failed);
        };
        // What the upstream said so far is not held while waiting.
        drop(failed);
        sleep(pause).await;
        Ok(allowed)
    }

    /// Sends a request, and a second copy of it to another endpoint where the answer takes long; who answers first wins,
    /// and the other one is cancelled.
    async fn hedged<A>(
        &self,
        asked: &Asked<'_>,
        request: &Request<()>,
        whole: &bytes::Bytes,
        address: &A,
        went_out: &mut bool,
    ) -> Result<(Response<Body>, InFlight), Failed>
    where
        A: Fn(&mut Request<()>, &Target, Option<Deadline>) -> Result<(), Fault>,
    {
        let group = self.inner.balance.group();
        let mut tried = Tried::new();
        let mut allowed: Option<Allowance> = None;
        let mut retried = 0;
        loop {
            let (outcome, hedged) = self.race(asked, request, whole, address, &mut tried).await;
            let failed = match outcome {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            *went_out |= !matches!(failed, Failed::Untaken(_) | Failed::Unmade(_));
            drop(allowed.take());
            retried += u32::from(hedged);
            let Some(why) = reason(&failed) else {
                return Err(failed);
            };
            if retried >= group.settings().retry.max {
                return Err(failed);
            }
            allowed = Some(self.allow_again(asked, retried, failed).await?);
            retried += 1;
            group.retries().count(why);
            asked.tally.retry();
        }
    }

    /// One race of a request with its copy; whether there was a copy.
    async fn race<A>(
        &self,
        asked: &Asked<'_>,
        request: &Request<()>,
        whole: &bytes::Bytes,
        address: &A,
        tried: &mut Tried,
    ) -> (Result<(Response<Body>, InFlight), Failed>, bool)
    where
        A: Fn(&mut Request<()>, &Target, Option<Deadline>) -> Result<(), Fault>,
    {
        let group = self.inner.balance.group();
        let (one, other) = (AtomicU64::new(NOBODY), AtomicU64::new(NOBODY));
        let began = Instant::now();
        let delay = group.hedge_delay(began);
        let avoid = tried.clone();
        let (mut original, body) = (request.clone(), Body::whole(whole.clone()));
        let mut first = pin!(self.attempt(asked, &avoid, &one, &mut original, body, address));
        let early = match delay {
            None => Some(first.as_mut().await),
            Some(delay) => timeout_at(began + delay, first.as_mut()).await.ok(),
        };
        if let Some(outcome) = early {
            tried.push(one.load(Ordering::Relaxed));
            return (outcome, false);
        }
        tried.push(one.load(Ordering::Relaxed));
        let Some(_allowed) = group.allow_retry(Instant::now()) else {
            group.retries().refuse();
            return (first.as_mut().await, false);
        };
        group.retries().count(Why::Hedge);
        asked.tally.retry();
        let avoid = tried.clone();
        let (mut copy, body) = (request.clone(), Body::whole(whole.clone()));
        let second = pin!(self.attempt(asked, &avoid, &other, &mut copy, body, address));
        let outcome = match select(first, second).await {
            Either::Left((Ok(answered), _)) | Either::Right((Ok(answered), _)) => Ok(answered),
            Either::Left((Err(_), second)) => second.await,
            Either::Right((Err(_), first)) => first.await,
        };
        tried.push(other.load(Ordering::Relaxed));
        (outcome, true)
    }

    /// One attempt, rather not at an endpoint to `avoid`; the number of the one that it is made at goes into `chosen`.
    async fn attempt<A>(
        &self,
        asked: &Asked<'_>,
        avoid: &[u64],
        chosen: &AtomicU64,
        request: &mut Request<()>,
        body: Body,
        address: &A,
    ) -> Result<(Response<Body>, InFlight), Failed>
    where
        A: Fn(&mut Request<()>, &Target, Option<Deadline>) -> Result<(), Fault>,
    {
        let leased = self.inner.balance.lease(asked.wish, avoid).await;
        let (lease, mut in_flight) = leased.map_err(Failed::Untaken)?;
        let lease = lease.wanting(asked.wanted);
        asked.tally.sent_to(&in_flight.target().label);
        chosen.store(in_flight.number(), Ordering::Relaxed);
        let per_try = self.inner.balance.group().settings().per_try;
        let (response, patience) = match per_try {
            None => {
                address(request, in_flight.target(), asked.deadline).map_err(Failed::Unmade)?;
                (
                    Some(lease.send(request, body, &self.inner.tasks).await),
                    Duration::ZERO,
                )
            }
            Some(patience) => {
                let until = Instant::now() + patience;
                let own = Deadline::after(Instant::now(), patience);
                let deadline = match (asked.deadline, own) {
                    (Some(one), Some(other)) => Some(one.min(other)),
                    (one, other) => one.or(other),
                };
                address(request, in_flight.target(), deadline).map_err(Failed::Unmade)?;
                let sent = lease.send(request, body, &self.inner.tasks);
                (timeout_at(until, sent).await.ok(), patience)
            }
        };
        match response {
            Some(Ok(response)) => {
                in_flight.answered();
                if is_unavailable(&response) {
                    in_flight.failed();
                    return Err(Failed::Unavailable(response, in_flight));
                }
                Ok((response, in_flight))
            }
            Some(Err(error)) => {
                match &error {
                    // Each of them is how a connection ends that was good until then.
                    SendError::Unprocessed(_) | SendError::Stale(_) | SendError::Request(_) => {}
                    SendError::Refused(_) | SendError::Broken(_) | SendError::Protocol(_) => {
                        in_flight.failed()
                    }
                }
                Err(Failed::Send(error))
            }
            None => {
                in_flight.failed();
                Err(Failed::Late(patience))
            }
        }
    }

    /// Asks an endpoint, on a connection of its own, to switch protocols.
    ///
    /// # Errors
    /// As [`Dispatch::send`].
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(super) async fn ask(
        &self,
        wish: Wish,
        tally: &Tally,
        mut request: Request<()>,
        address: impl Fn(&mut Request<()>, &Target) -> Result<(), Fault>,
    ) -> Result<(Answered, InFlight), Fault> {
        let dialled = self.inner.balance.dial(wish).await;
        let (stream, mut in_flight) = dialled.map_err(|untaken| self.unavailable(untaken))?;
        tally.sent_to(&in_flight.target().label);
        let target = in_flight.target();
        let connector = target.pool.connector();
        address(&mut request, target)?;
        let asked = upgrade::ask(stream, &request, connector, &self.inner.tasks).await;
        match &asked {
            Ok(Answered::Refused(response)) if is_unavailable(response) => in_flight.failed(),
            Ok(_) => in_flight.succeeded(),
            Err(_) => in_flight.failed(),
        }
        Ok((asked?, in_flight))
    }

    /// Who runs what outlives a request.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    fn unavailable(&self, untaken: Untaken) -> Fault {
        let name = self.inner.balance.group().name();
        let fault = |said: String| Fault::upstream(Kind::UpstreamUnavailable, said);
        match untaken {
            Untaken::Unreachable(unreachable) => {
                let delay = unreachable.retry_at.saturating_duration_since(Instant::now());
                fault(format!(
                    "no endpoint of backend \"{name}\" can be reached; try again"
                ))
                .caused_by(unreachable)
                .retry_after(delay)
            }
            Untaken::NoEndpoint => fault(format!("backend \"{name}\" has no endpoint")),
            Untaken::NoneHealthy => fault(format!("no endpoint of backend \"{name}\" is healthy; try again"))
                .retry_after(Duration::from_secs(1)),
            Untaken::Open(delay) => Fault::upstream(
                Kind::CircuitOpen,
                format!("backend \"{name}\" fails too often and is given a rest; try again"),
            )
            .retry_after(delay),
        }
    }
}

/// Whether an answer says that its server can't serve at all.
fn is_unavailable(response: &Response<Body>) -> bool {
    let gateway_class = matches!(
        response.status(),
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
    );
    gateway_class || ending::find(response.headers()).is_some_and(|status| status == "14")
}

/// Why an attempt could be made again, if anything speaks for it.
fn reason(failed: &Failed) -> Option<Why> {
    match failed {
        Failed::Send(SendError::Unprocessed(_)) => Some(Why::Unprocessed),
        Failed::Send(SendError::Refused(_)) => Some(Why::Refused),
        Failed::Send(SendError::Stale(_)) => Some(Why::Stale),
        Failed::Send(SendError::Broken(_)) => Some(Why::Reset),
        Failed::Unavailable(..) => Some(Why::Unavailable),
        Failed::Late(_) => Some(Why::Timeout),
        // What is wrong with the request, or with how the upstream speaks, is so the next time too; and whoever could
        // have taken it was asked.
        Failed::Send(SendError::Protocol(_) | SendError::Request(_))
        | Failed::Untaken(_)
        | Failed::Unmade(_) => None,
    }
}

/// Whether a request may be sent again for this reason.
fn is_safe(why: Why, twice: Twice) -> bool {
    match why {
        Why::Unprocessed | Why::Refused => true,
        Why::Stale | Why::Reset | Why::Unavailable | Why::Timeout | Why::Hedge => twice == Twice::Harmless,
    }
}

/// `grpc-retry-pushback-ms`. Source: gRFC A6.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// How long to wait before the next attempt: what the upstream asks for, or else a time by chance, up to a bound that
/// doubles. `None` where the upstream asks not to be tried again, or to be left alone for long.
fn pause(retry: &Retry, retried: u32, failed: &Failed) -> Option<Duration> {
    if let Failed::Unavailable(response, _) = failed {
        if let Some(asked) = response.headers().get(PUSHBACK) {
            // What is no number of milliseconds means: not again.
            let asked: u64 = asked.to_str().ok()?.parse().ok()?;
            return Some(Duration::from_millis(asked)).filter(|asked| *asked <= LONGEST_ASKED);
        }
        // A date says the same as a number would, of which nothing is left by the time that it is read.
        let asked = response
            .headers()
            .get(RETRY_AFTER)
            .and_then(|asked| asked.to_str().ok()?.parse().ok());
        if let Some(asked) = asked {
            return Some(Duration::from_secs(asked)).filter(|asked| *asked <= LONGEST_ASKED);
        }
    }
    let bound = retry
        .first_pause
        .saturating_mul(1 << retried.min(16))
        .min(retry.longest_pause);
    let micros = usize::try_from(bound.as_micros()).unwrap_or(usize::MAX);
    Some(Duration::from_micros(crate::upstream::dice::below(micros) as u64))
}

/// Tells a client by which cookie it stays with the endpoint, unless it knows.
fn stick(sticky: &Sticky, wish: Wish, fingerprint: u64, headers: &mut HeaderMap) {
    if wish.sticky == Some(fingerprint) {
        return;
    }
    let age = sticky
        .max_age
        .map_or_else(String::new, |age| format!("; Max-Age={}", age.as_secs()));
    let cookie = format!(
        "{}={fingerprint:016x}; Path=/; HttpOnly; SameSite=Lax{age}",
        sticky.cookie
    );
    // The name was checked when the configuration was read, so it always is a value.
    if let Ok(cookie) = HeaderValue::try_from(cookie) {
        headers.append(SET_COOKIE, cookie);
    }
}
