//! Pickers: which of the endpoints at hand takes the next call. Synchronous, no I/O, no lock, no allocation.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use crate::balance::endpoint::{lot, millis};
use crate::balance::maglev::{self, SLOTS};
use crate::balance::members::{Member, Members};
use crate::balance::settings::Policy;
use crate::upstream::dice;

/// Draws before the rest is looked through in order. Eight misses in a row are rare unless hardly anybody is left.
const DRAWS: usize = 8;
/// Slots that are walked for an endpoint with room, before any that is healthy has to do.
const WALK: usize = 1024;

/// Which endpoints are asked first, by zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Zones {
    /// All of them.
    Every,
    /// Those that run where the gateway runs.
    Local,
    /// The others.
    Other,
}

/// The endpoints that a call was tried at, by their numbers.
pub type Tried = SmallVec<[u64; 4]>;

/// The endpoints that may take a call.
#[derive(Debug)]
pub struct Field<'m> {
    pub(super) members: &'m Members,
    /// By their numbers.
    pub(super) tried: &'m [u64],
    /// The unhealthy take calls too.
    pub(super) panics: bool,
    pub(super) zones: Zones,
    pub(super) slow_start: Duration,
    pub(super) now: Instant,
}

impl<'m> Field<'m> {
    /// All healthy members, at this time: for who picks without a call, such as a simulation.
    pub fn of(members: &'m Members, now: Instant) -> Self {
        Self {
            members,
            tried: &[],
            panics: false,
            zones: Zones::Every,
            slow_start: Duration::ZERO,
            now,
        }
    }
}

impl Field<'_> {
    fn list(&self) -> &[Member] {
        &self.members.list
    }

    fn member(&self, at: usize) -> Option<&Member> {
        self.list().get(at)
    }

    /// Whether an endpoint may take the call.
    fn takes(&self, at: usize) -> bool {
        self.member(at).is_some_and(|member| {
            let zone = match self.zones {
                Zones::Every => true,
                Zones::Local => member.is_local,
                Zones::Other => !member.is_local,
            };
            zone && (self.panics || member.endpoint.is_healthy())
                && !self.tried.contains(&member.endpoint.number())
        })
    }

    /// The same, and fewer calls than its share while it warms up.
    fn takes_share(&self, at: usize, lot: impl FnOnce() -> u64) -> bool {
        self.takes(at)
            && self.member(at).is_some_and(|member| {
                member
                    .endpoint
                    .takes_lot(lot, || millis(self.now), self.slow_start)
            })
    }

    /// The endpoint with this fingerprint, if it may take the call.
    pub(super) fn sticks_to(&self, fingerprint: u64) -> Option<usize> {
        let is_it = |member: &Member| member.endpoint.fingerprint() == fingerprint;
        let at = self.list().iter().position(is_it)?;
        self.takes(at).then_some(at)
    }

    /// The first that may take it, from a random place on.
    fn any(&self) -> Option<usize> {
        let many = self.list().len();
        let start = dice::below(many);
        (0..many)
            .map(|step| (start + step) % many)
            .find(|at| self.takes(*at))
    }

    /// One at random, by weight.
    fn draw(&self) -> Option<usize> {
        (0..DRAWS)
            .map(|_| self.members.draw())
            .find(|at| self.takes_share(*at, lot))
            .or_else(|| self.any())
    }

    /// Another one at random.
    fn draw_beside(&self, one: usize) -> Option<usize> {
        if let [_, _] = self.list() {
            return Some(1 - one.min(1)).filter(|other| self.takes_share(*other, lot));
        }
        (0..DRAWS)
            .map(|_| self.members.draw())
            .find(|other| *other != one && self.takes_share(*other, lot))
    }
}

/// Chooses among endpoints.
pub trait Picker: fmt::Debug + Send + Sync {
    /// The index of the choice; `None` where nobody may take the call. `key` is what the call is hashed by.
    fn pick(&self, field: &Field<'_>, key: Option<u64>) -> Option<usize>;
}

/// The picker of a policy, for one worker.
pub fn picker(policy: &Policy) -> Box<dyn Picker> {
    match policy {
        // Workers that begin at the same place would send their first calls to the same endpoint.
        Policy::RoundRobin => Box::new(RoundRobin(AtomicUsize::new(dice::below(1 << 16)))),
        Policy::LeastRequest => Box::new(LeastRequest),
        Policy::PeakEwma => Box::new(PeakEwma),
        Policy::Hash(_) => Box::new(Hash),
    }
}

/// One after the other, by weight. Who can't take a call is left out, and its place in the order with it: so that what
/// was its share goes to all others alike.
#[derive(Debug, Default)]
pub struct RoundRobin(AtomicUsize);

impl Picker for RoundRobin {
    fn pick(&self, field: &Field<'_>, _key: Option<u64>) -> Option<usize> {
        let schedule = &field.members.schedule;
        for _ in 0..schedule.len().saturating_mul(2) {
            let turn = self
                .0
                .fetch_add(1, Ordering::Relaxed)
                .checked_rem(schedule.len())?;
            let at = usize::try_from(*schedule.get(turn)?).ok()?;
            if field.takes_share(at, lot) {
                return Some(at);
            }
        }
        field.any()
    }
}

/// The less loaded of two taken at random.
///
/// Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing".
#[derive(Debug)]
pub struct LeastRequest;

impl Picker for LeastRequest {
    fn pick(&self, field: &Field<'_>, _key: Option<u64>) -> Option<usize> {
        let one = field.draw()?;
        let Some(other) = field.draw_beside(one) else {
            return Some(one);
        };
        // In flight for each unit of weight, compared without dividing. Two that have nothing to do are alike: then the
        // first of the draws takes it, which went by weight.
        let load = |at: usize, by: usize| -> Option<u64> {
            let in_flight = field.member(at)?.endpoint.in_flight() as u64;
            Some(in_flight.saturating_mul(u64::from(field.member(by)?.weight)))
        };
        Some(if load(other, one) < load(one, other) {
            other
        } else {
            one
        })
    }
}

/// Of two taken at random, the one that costs less by its latency and the calls under way.
///
/// Source: Finagle, "Power of Two Choices + Peak EWMA".
#[derive(Debug)]
pub struct PeakEwma;

impl Picker for PeakEwma {
    fn pick(&self, field: &Field<'_>, _key: Option<u64>) -> Option<usize> {
        let one = field.draw()?;
        let Some(other) = field.draw_beside(one) else {
            return Some(one);
        };
        // Weights are in the draws: what an endpoint can bear shows in its latency.
        let cost = |at: usize| {
            field
                .member(at)
                .map_or(f64::INFINITY, |member| member.endpoint.cost(field.now))
        };
        Some(if cost(other) < cost(one) { other } else { one })
    }
}

/// The endpoint that a key belongs to, unless that one has a quarter more than its share of the calls under way; then
/// the next one on the way through the table. A call without a key goes by load.
///
/// Source: Mirrokni et al., "Consistent Hashing with Bounded Loads".
#[derive(Debug)]
pub struct Hash;

impl Picker for Hash {
    fn pick(&self, field: &Field<'_>, key: Option<u64>) -> Option<usize> {
        let Some(key) = key else {
            return LeastRequest.pick(field, None);
        };
        let table = &field.members.table;
        let start = maglev::slot(key);
        let mut total = None;
        let mut passed = None;
        let mut last = usize::MAX;
        // By the key and not by chance: while an endpoint warms up, keys move to it one after the other, and stay.
        let lot = (key >> 32) % 1000;
        for step in 0..WALK.min(table.len()) {
            let at = usize::try_from(*table.get((start + step) % SLOTS)?).ok()?;
            if at == last || !field.takes_share(at, || lot) {
                continue;
            }
            last = at;
            if has_room(field, at, &mut total) {
                return Some(at);
            }
            passed.get_or_insert(at);
        }
        passed.or_else(|| field.any())
    }
}

/// Whether an endpoint has less than 1.25 times its share of the calls under way, this one among them. `total` is summed
/// up by the first who needs it.
fn has_room(field: &Field<'_>, at: usize, total: &mut Option<u64>) -> bool {
    let Some(member) = field.member(at) else {
        return false;
    };
    let own = member.endpoint.in_flight() as u64 + 1;
    if own <= 1 {
        return true;
    }
    let total = *total.get_or_insert_with(|| {
        let all = field
            .list()
            .iter()
            .map(|member| member.endpoint.in_flight() as u64);
        all.sum::<u64>() + 1
    });
    // own <= ceil(1.25 * total * weight / weights), in whole numbers.
    let share = total.saturating_mul(5).saturating_mul(u64::from(member.weight));
    own <= share.div_ceil(field.members.total_weight.max(1).saturating_mul(4))
}

#[cfg(test)]
mod tests;
