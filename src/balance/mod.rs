//! Which endpoint takes a call.
//!
//! A [`Group`] is the endpoints of a backend as all workers share them: figures in atomics, sets of members that are
//! replaced as a whole. A [`Balance`] is how one worker sees a group: the same members, with connections of its own.
//! Choosing takes no lock and allocates nothing.

pub mod breaker;
pub mod budget;
pub mod endpoint;
pub mod group;
pub mod hash;
pub mod health;
mod in_flight;
pub mod key;
mod maglev;
pub mod members;
pub mod metrics;
pub mod outliers;
pub mod picker;
pub mod quantile;
pub mod retries;
pub mod settings;
mod stance;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::{Instant, timeout_at};

pub use endpoint::{Endpoint, Listed};
pub use group::Group;
pub use in_flight::{Ending, InFlight};
pub use picker::Tried;
pub use settings::Settings;

use crate::balance::breaker::Leave;
use crate::balance::endpoint::lot;
use crate::balance::members::{Member, Members};
use crate::balance::picker::{Field, Picker, Zones, picker};
use crate::balance::stance::Stance;
use crate::upstream::connect::Stream;
use crate::upstream::pools::{Dialling, Pools};
use crate::upstream::{Lease, Pool, Unreachable};

/// One endpoint as a worker reaches it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The shared figures.
    pub endpoint: Arc<Endpoint>,
    /// How records call it: the worker's own copy, which is counted apart.
    pub label: Arc<str>,
    /// The worker's own connections.
    pub pool: Pool,
}

/// What a call says about where it wants to go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// The hash of the key that it is balanced by.
    pub key: Option<u64>,
    /// The fingerprint of the endpoint that its client stays with.
    pub sticky: Option<u64>,
}

/// Why no endpoint takes a call.
#[derive(Clone, Debug)]
pub enum Untaken {
    /// There is none.
    NoEndpoint,
    /// None is healthy.
    NoneHealthy,
    /// The circuit breaker is open; it may try again after this time.
    Open(Duration),
    /// None can be reached; of the endpoint that is dialled next.
    Unreachable(Unreachable),
}

/// The members of a group with one worker's connections to them.
#[derive(Debug)]
struct View {
    group: Arc<Group>,
    members: Arc<Members>,
    /// As the members.
    targets: Vec<Target>,
}

/// The endpoints of a backend, as one worker sees them.
#[derive(Debug)]
pub struct Balance {
    group: Arc<Group>,
    view: ArcSwap<View>,
    picker: Box<dyn Picker>,
    pools: Arc<Pools>,
    dialling: Dialling,
}

impl Balance {
    /// A worker's view of `group`, whose members it dials by `dialling`.
    pub fn new(group: Arc<Group>, pools: Arc<Pools>, dialling: Dialling) -> Self {
        let view = view(&group, &pools, &dialling);
        Self {
            view: ArcSwap::from_pointee(view),
            picker: picker(&group.settings().policy),
            group,
            pools,
            dialling,
        }
    }

    /// The endpoints as all workers share them.
    pub fn group(&self) -> &Arc<Group> {
        &self.group
    }

    /// The members as they are now.
    fn view(&self) -> Arc<View> {
        let seen = self.view.load_full();
        if seen.members.generation == self.group.generation() {
            return seen;
        }
        let new = Arc::new(view(&self.group, &self.pools, &self.dialling));
        self.view.store(Arc::clone(&new));
        new
    }

    /// A place on a connection to the endpoint that the picker likes best among those that can be reached, and rather
    /// not one of those to `avoid`.
    ///
    /// # Errors
    /// [`Untaken`]: why nobody takes the call. Whoever has only just become unreachable is waited for.
    ///
    /// # Cancel safety
    /// The place is given back.
    pub async fn lease(&self, wish: Wish, avoid: &[u64]) -> Result<(Lease, InFlight), Untaken> {
        let mut leave = self.enter()?;
        match self.try_all(wish, avoid, &mut leave).await {
            Ok(found) => Ok(found),
            // Boxed: it is rare, and the room for it should not be in every call.
            Err(untaken) => Box::pin(self.wait(wish, avoid, leave, untaken)).await,
        }
    }

    /// Leave of the circuit breaker, if there is one.
    fn enter(&self) -> Result<Option<Leave>, Untaken> {
        match self.group.breaker() {
            None => Ok(None),
            Some(breaker) => breaker.enter(Instant::now()).map(Some).map_err(Untaken::Open),
        }
    }

    /// Waits for an endpoint that comes, or comes back: a restart is a short gap, an outage is not.
    #[cold]
    async fn wait(
        &self,
        wish: Wish,
        avoid: &[u64],
        mut leave: Option<Leave>,
        mut why: Untaken,
    ) -> Result<(Lease, InFlight), Untaken> {
        let began = Instant::now();
        let patience = self.group.settings().patience;
        let give_up = began + patience;
        loop {
            let changed = self.group.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let due = match &why {
                Untaken::Unreachable(it) if it.retry_at < give_up && it.since + patience > began => {
                    it.retry_at
                }
                Untaken::NoEndpoint | Untaken::NoneHealthy => give_up,
                Untaken::Unreachable(_) | Untaken::Open(_) => break,
            };
            // An endpoint may have come before anybody listened.
            if !matches!(why, Untaken::Unreachable(_))
                && let Ok(found) = self.try_all(wish, avoid, &mut leave).await
            {
                return Ok(found);
            }
            // Which of the two it was does not matter: both are tried.
            let _ = timeout_at(due, changed).await;
            match self.try_all(wish, avoid, &mut leave).await {
                Ok(found) => return Ok(found),
                Err(untaken) => why = untaken,
            }
            if Instant::now() >= give_up {
                break;
            }
        }
        if let (Some(breaker), Some(leave)) = (self.group.breaker(), &leave) {
            breaker.failed(leave, Instant::now());
        }
        Err(why)
    }

    /// Tries each endpoint once, in the picker's order.
    async fn try_all(
        &self,
        wish: Wish,
        avoid: &[u64],
        leave: &mut Option<Leave>,
    ) -> Result<(Lease, InFlight), Untaken> {
        let view = self.view();
        let mut round = Round::new(avoid);
        while let Some(at) = round.next(self, &view, wish) {
            let Some(target) = view.targets.get(at) else { break };
            let in_flight = InFlight::begin(&view, at);
            let leased = match target.pool.try_lease() {
                Some(lease) => Ok(lease),
                // Likewise.
                None => Box::pin(target.pool.lease()).await,
            };
            match leased {
                Ok(lease) => return Ok((lease, in_flight.with(leave.take()))),
                Err(unreachable) => round.missed(&view, at, unreachable),
            }
        }
        Err(round.why(&view))
    }

    /// A connection of its own to the endpoint that the picker likes best among those that can be reached.
    ///
    /// # Errors
    /// [`Untaken`]: why nobody takes the call.
    ///
    /// # Cancel safety
    /// The connection is closed.
    pub(crate) async fn dial(&self, wish: Wish) -> Result<(Stream, InFlight), Untaken> {
        let leave = self.enter()?;
        let view = self.view();
        let mut round = Round::new(&[]);
        while let Some(at) = round.next(self, &view, wish) {
            let Some(target) = view.targets.get(at) else { break };
            let in_flight = InFlight::begin(&view, at);
            match target.pool.connector().stream().await {
                Ok(stream) => return Ok((stream, in_flight.with(leave))),
                Err(error) => {
                    let now = Instant::now();
                    let unreachable = Unreachable {
                        cause: Arc::new(error),
                        retry_at: now,
                        since: now,
                    };
                    round.missed(&view, at, unreachable);
                }
            }
        }
        if let (Some(breaker), Some(leave)) = (self.group.breaker(), &leave) {
            breaker.failed(leave, Instant::now());
        }
        Err(round.why(&view))
    }

    /// Whether a call would find an endpoint now. Without a connection one is tried, unless the back-off says to wait.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn is_reachable(&self) -> bool {
        let view = self.view();
        let panics = self.group.panics();
        let may = |target: &&Target| panics || !target.endpoint.is_down();
        if view
            .targets
            .iter()
            .filter(may)
            .any(|target| target.pool.try_lease().is_some())
        {
            return true;
        }
        for target in view.targets.iter().filter(may) {
            if target.pool.lease().await.is_ok() {
                return true;
            }
        }
        false
    }

    /// The index of the endpoint that takes a call.
    fn pick(&self, view: &View, tried: &[u64], wish: Wish) -> Option<usize> {
        if let [only] = view.members.list() {
            let takes = tried.is_empty() && (only.endpoint.is_healthy() || self.group.panics());
            return takes.then_some(0);
        }
        let now = Instant::now();
        let stance = self.group.stance(now);
        let mut field = Field {
            members: &view.members,
            tried,
            panics: stance == Stance::Panic,
            zones: match stance {
                Stance::Everywhere | Stance::Panic => Zones::Every,
                Stance::Local(1000) => Zones::Local,
                Stance::Local(share) if lot() < u64::from(share) => Zones::Local,
                Stance::Local(_) => Zones::Other,
            },
            slow_start: self.group.settings().slow_start.unwrap_or_default(),
            now,
        };
        if let Some(fingerprint) = wish.sticky
            && let Some(at) = field.sticks_to(fingerprint)
        {
            return Some(at);
        }
        let picked = self.picker.pick(&field, wish.key);
        if picked.is_some() || field.zones == Zones::Every {
            return picked;
        }
        // Any zone is better than none.
        field.zones = Zones::Every;
        self.picker.pick(&field, wish.key)
    }
}

/// One turn around the endpoints, for one call.
struct Round {
    tried: Tried,
    /// How many of them are only avoided.
    avoided: usize,
    last: Option<Unreachable>,
}

impl Round {
    fn new(avoid: &[u64]) -> Self {
        Self {
            tried: avoid.into(),
            avoided: avoid.len(),
            last: None,
        }
    }

    /// The index of the endpoint to try next.
    fn next(&mut self, balance: &Balance, view: &View, wish: Wish) -> Option<usize> {
        let picked = balance.pick(view, &self.tried, wish);
        if picked.is_some() || self.avoided == 0 {
            return picked;
        }
        // The same endpoint again is better than none.
        self.tried.drain(..self.avoided);
        self.avoided = 0;
        balance.pick(view, &self.tried, wish)
    }

    /// An endpoint could not be reached.
    fn missed(&mut self, view: &View, at: usize, unreachable: Unreachable) {
        if let Some(target) = view.targets.get(at) {
            self.tried.push(target.endpoint.number());
            in_flight::count_failure(view, &target.endpoint, Instant::now());
        }
        self.last = Some(match self.last.take() {
            Some(earlier) if earlier.retry_at < unreachable.retry_at => earlier,
            Some(_) | None => unreachable,
        });
    }

    /// Why nobody took the call.
    fn why(self, view: &View) -> Untaken {
        match self.last {
            Some(unreachable) => Untaken::Unreachable(unreachable),
            None if view.members.list().is_empty() => Untaken::NoEndpoint,
            None => Untaken::NoneHealthy,
        }
    }
}

/// How a worker sees a group now.
fn view(group: &Arc<Group>, pools: &Pools, dialling: &Dialling) -> View {
    let mut members = group.members();
    let mut targets = Vec::with_capacity(members.list().len());
    let mut left: Vec<Member> = Vec::new();
    for member in members.list() {
        match pools.pool(&member.endpoint.uri, dialling) {
            Ok(pool) => {
                left.push(member.clone());
                targets.push(Target {
                    endpoint: Arc::clone(&member.endpoint),
                    label: member.endpoint.label().into(),
                    pool,
                });
            }
            Err(error) => {
                tracing::error!(backend = %group.name(), endpoint = %member.endpoint.label(), %error, "an endpoint can't be dialled");
            }
        }
    }
    if left.len() < members.list().len() {
        members = Arc::new(Members::new(members.generation, left, &group.settings().policy));
    }
    View {
        group: Arc::clone(group),
        members,
        targets,
    }
}

#[cfg(test)]
mod tests;
