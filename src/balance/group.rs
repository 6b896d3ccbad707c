//! The endpoints of a backend as all workers share them: who is there, who is healthy, and what may be sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Uri;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::balance::breaker::{Breaker, Circuit};
use crate::balance::budget::{Allowance, Budget};
use crate::balance::endpoint::{DOWN, EJECTED, Ejection, Endpoint, Listed, millis};
use crate::balance::members::{Member, Members};
use crate::balance::quantile::Latencies;
use crate::balance::retries::Retries;
use crate::balance::settings::{Ejecting, Hedge, Policy, Settings};
use crate::balance::stance::{self, SharedStance, Stance};
use crate::route::entry::Doubt;

/// No ejection will end.
const NEVER: u64 = u64::MAX;

/// What is watched of calls, beside whether they fail.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watches {
    /// The moving averages of latency.
    pub(super) averages: bool,
    /// What outliers are found by.
    pub(super) outliers: bool,
    /// The latencies that hedging goes by.
    pub(super) quantiles: bool,
}

impl Watches {
    /// Whether anybody wants to know how long a call took.
    pub(super) fn time(self) -> bool {
        self.averages || self.outliers || self.quantiles
    }
}

/// The endpoints of one backend.
#[derive(Debug)]
pub struct Group {
    name: Arc<str>,
    settings: Settings,
    members: ArcSwap<Members>,
    /// Of the members; a worker that has seen another one looks again.
    generation: AtomicU64,
    stance: SharedStance,
    /// Milliseconds: when the next ejection ends.
    next_return: AtomicU64,
    /// Held by whoever changes who is healthy; never on the way of a call that goes well.
    transitions: Mutex<()>,
    budget: Arc<Budget>,
    retries: Retries,
    breaker: Option<Breaker>,
    latencies: Option<Box<Latencies>>,
    watches: Watches,
    /// Raised when an endpoint comes beside others: it may offer what they do not.
    newcomers: Doubt,
    /// Woken when endpoints come, or become healthy.
    pub(super) changed: Arc<Notify>,
    /// Ends with the group: what is done on its behalf elsewhere.
    gone: CancellationToken,
    _guard: DropGuard,
}

impl Group {
    /// The endpoints of the backend `name`. Those that `before` had, the group of the same backend in an earlier plan,
    /// keep their figures.
    pub fn new(name: &str, settings: Settings, listed: &[Listed], before: Option<&Self>) -> Self {
        let gone = CancellationToken::new();
        let ejecting = settings.ejection.as_ref();
        let outliers = ejecting.is_some_and(|it| it.success_rate.is_some() || it.latency.is_some());
        let watches = Watches {
            averages: matches!(settings.policy, Policy::PeakEwma),
            outliers,
            quantiles: matches!(settings.hedge, Some(Hedge::P95)),
        };
        let group = Self {
            name: name.into(),
            members: ArcSwap::default(),
            generation: AtomicU64::new(0),
            stance: SharedStance::default(),
            next_return: AtomicU64::new(NEVER),
            transitions: Mutex::default(),
            budget: before.map_or_else(Arc::default, |before| Arc::clone(&before.budget)),
            retries: before.map_or_else(Retries::default, |before| before.retries.clone()),
            breaker: settings.breaker.clone().map(Breaker::new),
            latencies: watches.quantiles.then(Box::default),
            watches,
            newcomers: before.map_or_else(Doubt::default, |before| before.newcomers.clone()),
            changed: Arc::default(),
            _guard: gone.clone().drop_guard(),
            gone,
            settings,
        };
        let known: Vec<Arc<Endpoint>> = before.map_or_else(Vec::new, |before| {
            let members = before.members.load();
            members
                .list
                .iter()
                .map(|member| Arc::clone(&member.endpoint))
                .collect()
        });
        group.put(listed, &known, None);
        group
    }

    /// The name of the backend.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What is configured.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Who is there now.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Cancelled when the group is gone.
    pub fn gone(&self) -> &CancellationToken {
        &self.gone
    }

    /// The number of the set of members that is in place.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Retries and what they were for.
    pub fn retries(&self) -> &Retries {
        &self.retries
    }

    /// The circuit breaker, if there is one.
    pub fn breaker(&self) -> Option<&Breaker> {
        self.breaker.as_ref()
    }

    /// What the circuit breaker does, if there is one.
    pub fn circuit(&self, now: Instant) -> Option<Circuit> {
        self.breaker.as_ref().map(|breaker| breaker.circuit(now))
    }

    /// The doubt that an endpoint raises which comes beside others.
    pub fn newcomers(&self) -> &Doubt {
        &self.newcomers
    }

    pub(super) fn watches(&self) -> Watches {
        self.watches
    }

    pub(super) fn latencies(&self) -> Option<&Latencies> {
        self.latencies.as_deref()
    }

    /// Endpoints that take calls.
    pub fn healthy(&self) -> usize {
        let members = self.members.load();
        members
            .list
            .iter()
            .filter(|member| member.endpoint.is_healthy())
            .count()
    }

    /// Calls under way, at all endpoints.
    pub fn in_flight(&self) -> usize {
        let members = self.members.load();
        members
            .list
            .iter()
            .map(|member| member.endpoint.in_flight())
            .sum()
    }

    /// Allows a retry, or not.
    pub fn allow_retry(&self, now: Instant) -> Option<Allowance> {
        self.budget.take(&self.settings.retry, self.in_flight(), now)
    }

    /// How long a hedge waits, if anything is known by which to say.
    pub fn hedge_delay(&self, now: Instant) -> Option<Duration> {
        match self.settings.hedge? {
            Hedge::After(delay) => Some(delay),
            Hedge::P95 => self.latencies()?.quantile(95, now),
        }
    }

    /// Puts another list of endpoints in place. Those that stay keep their figures and their connections; those that are
    /// new warm up; those that go finish the calls that they have.
    pub fn replace(&self, listed: &[Listed], now: Instant) {
        let members = self.members.load_full();
        if members.generation > 0 && members.listed().eq(listed.iter().cloned()) {
            return;
        }
        let known: Vec<_> = members
            .list
            .iter()
            .map(|member| Arc::clone(&member.endpoint))
            .collect();
        // The first endpoints of all have nobody to warm up beside.
        let warms = self.settings.slow_start.filter(|_| !known.is_empty());
        let is_new = |listed: &Listed| known.iter().all(|known| known.uri != listed.uri);
        if !known.is_empty() && listed.iter().any(is_new) {
            self.newcomers.raise();
        }
        self.put(listed, &known, warms.map(|_| millis(now)));
        self.changed.notify_waiters();
    }

    fn put(&self, listed: &[Listed], known: &[Arc<Endpoint>], new_since: Option<u64>) {
        let _transition = self.transitions.lock();
        let known: HashMap<&Uri, &Arc<Endpoint>> =
            known.iter().map(|endpoint| (&endpoint.uri, endpoint)).collect();
        let mut list: Vec<Member> = Vec::with_capacity(listed.len());
        for listed in listed {
            if list.iter().any(|member| member.endpoint.uri == listed.uri) {
                continue;
            }
            let endpoint = known.get(&listed.uri).map_or_else(
                || {
                    let endpoint = Endpoint::new(listed.uri.clone());
                    if let Some(now) = new_since {
                        endpoint.warm_up(now);
                    }
                    Arc::new(endpoint)
                },
                |endpoint| Arc::clone(endpoint),
            );
            list.push(Member {
                endpoint,
                weight: listed.weight.max(1),
                is_local: self.settings.zone.is_some() && self.settings.zone == listed.zone,
                zone: listed.zone.clone(),
            });
        }
        let generation = self.members.load().generation + 1;
        let members = Arc::new(Members::new(generation, list, &self.settings.policy));
        self.recount(&members);
        self.members.store(members);
        self.generation.store(generation, Ordering::Release);
    }

    /// How calls are spread now; ejections whose time is over end first.
    pub(super) fn stance(&self, now: Instant) -> Stance {
        let next = self.next_return.load(Ordering::Relaxed);
        if next != NEVER && millis(now) >= next {
            self.release(now);
        }
        self.stance.load()
    }

    /// Whether so few endpoints are healthy that all of them are called.
    pub fn panics(&self) -> bool {
        self.stance.load() == Stance::Panic
    }

    /// A call to an endpoint failed: one more in a row. Ejects it where that is one too many.
    pub(super) fn failed(&self, endpoint: &Endpoint, now: Instant) {
        let failures = endpoint.failed();
        if let Some(ejecting) = &self.settings.ejection
            && failures >= ejecting.consecutive
            && !endpoint.is_ejected()
        {
            self.eject(endpoint, Ejection::Consecutive, ejecting, now);
        }
    }

    /// Takes an endpoint out for a while, unless too many are out.
    pub(super) fn eject(&self, endpoint: &Endpoint, why: Ejection, ejecting: &Ejecting, now: Instant) {
        let _transition = self.transitions.lock();
        let members = self.members.load();
        let all = members.list.len();
        let out = members
            .list
            .iter()
            .filter(|member| member.endpoint.is_ejected())
            .count();
        let healthy = members
            .list
            .iter()
            .filter(|member| member.endpoint.is_healthy())
            .count();
        let is_last = endpoint.is_healthy() && healthy <= 1;
        let may_be_out = all * usize::from(ejecting.most_percent) / 100;
        let is_member = members
            .list
            .iter()
            .any(|member| std::ptr::eq(&*member.endpoint, endpoint));
        if is_last || out >= may_be_out || !is_member || !endpoint.set(EJECTED) {
            return;
        }
        let sentence = endpoint.sentence(ejecting.base, ejecting.longest, millis(now));
        endpoint.count_ejection(why);
        tracing::warn!(
            backend = %self.name,
            endpoint = %endpoint.label(),
            reason = why.name(),
            seconds = sentence.as_secs_f64(),
            "an endpoint is ejected"
        );
        self.recount(&members);
    }

    /// Ends the ejections whose time is over.
    fn release(&self, now: Instant) {
        let _transition = self.transitions.lock();
        let members = self.members.load();
        let ms = millis(now);
        let is_over =
            |member: &&Member| member.endpoint.is_ejected() && member.endpoint.ejected_until() <= ms;
        for member in members.list.iter().filter(is_over) {
            self.readmit(&member.endpoint, EJECTED, now);
        }
        self.recount(&members);
    }

    fn readmit(&self, endpoint: &Endpoint, bits: u8, now: Instant) {
        if endpoint.clear(bits) && endpoint.is_healthy() {
            endpoint.warm_up(millis(now));
            self.changed.notify_waiters();
            tracing::info!(backend = %self.name, endpoint = %endpoint.label(), "an endpoint takes calls again");
        }
    }

    /// What active checks say of an endpoint. One that serves is called again even where it was ejected.
    pub fn checked(&self, endpoint: &Endpoint, serves: bool, why: &str, now: Instant) {
        let is_known = if serves {
            endpoint.is_healthy()
        } else {
            endpoint.is_down()
        };
        if is_known {
            return;
        }
        let _transition = self.transitions.lock();
        if serves {
            self.readmit(endpoint, EJECTED | DOWN, now);
        } else if endpoint.set(DOWN) {
            tracing::warn!(backend = %self.name, endpoint = %endpoint.label(), reason = why, "an endpoint is down");
        }
        self.recount(&self.members.load());
    }

    /// How calls are to be spread over `members`, by who is healthy. With the lock of transitions.
    fn recount(&self, members: &Members) {
        let all = members.list.len() as u64;
        let healthy = members.list.iter().filter(|member| member.endpoint.is_healthy());
        let healthy = healthy.count() as u64;
        let ejected = members.list.iter().filter(|member| member.endpoint.is_ejected());
        let next = ejected.map(|member| member.endpoint.ejected_until()).min();
        self.next_return.store(next.unwrap_or(NEVER), Ordering::Relaxed);
        let panics = healthy < all && healthy * 100 < all * u64::from(self.settings.panic_percent);
        let stance = if panics {
            Stance::Panic
        } else {
            stance::within(members)
        };
        let before = self.stance.swap(stance);
        if panics && before != Stance::Panic {
            tracing::warn!(
                backend = %self.name,
                healthy,
                endpoints = all,
                "too few endpoints are healthy: calls go to all of them"
            );
        } else if !panics && before == Stance::Panic {
            tracing::info!(backend = %self.name, healthy, endpoints = all, "enough endpoints are healthy again");
        }
    }
}
