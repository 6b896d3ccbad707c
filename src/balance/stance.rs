//! How calls are spread by who is healthy: over all, within the gateway's zone, or over the unhealthy too.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::balance::members::Members;

/// Of 1,000 endpoints in the gateway's zone, so many have to be healthy for all calls to stay there.
const ENOUGH: u64 = 700;

/// What a [`SharedStance`] holds: a share of calls for the gateway's own zone, of 1,000, or one of these.
const EVERYWHERE: u32 = 1001;
/// So few endpoints are healthy that all of them are called.
const PANIC: u32 = 1002;

/// How calls are spread, for as long as nobody's health changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stance {
    /// Over all healthy endpoints.
    Everywhere,
    /// So many of 1,000 within the gateway's own zone, the others outside.
    Local(u32),
    /// Over all endpoints.
    Panic,
}

/// A stance that all workers share.
#[derive(Debug)]
pub(super) struct SharedStance(AtomicU32);

impl Default for SharedStance {
    fn default() -> Self {
        Self(AtomicU32::new(EVERYWHERE))
    }
}

impl SharedStance {
    pub(super) fn load(&self) -> Stance {
        Stance::from_number(self.0.load(Ordering::Relaxed))
    }

    /// Puts another one in place; the one before.
    pub(super) fn swap(&self, stance: Stance) -> Stance {
        Stance::from_number(self.0.swap(stance.number(), Ordering::Relaxed))
    }
}

impl Stance {
    fn from_number(number: u32) -> Self {
        match number {
            PANIC => Self::Panic,
            EVERYWHERE => Self::Everywhere,
            share => Self::Local(share),
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Panic => PANIC,
            Self::Everywhere => EVERYWHERE,
            Self::Local(share) => share,
        }
    }
}

/// The share of calls that stays in the gateway's own zone: all of them while enough of its endpoints are healthy, and
/// fewer the fewer there are, so that a zone that goes does not drag its last endpoint down.
pub(super) fn within(members: &Members) -> Stance {
    let local = members.list.iter().filter(|member| member.is_local);
    let (all, healthy) = local.fold((0_u64, 0_u64), |(all, healthy), member| {
        (all + 1, healthy + u64::from(member.endpoint.is_healthy()))
    });
    let others = members
        .list
        .iter()
        .any(|member| !member.is_local && member.endpoint.is_healthy());
    if all == 0 || !others {
        return Stance::Everywhere;
    }
    let share = (healthy * 1_000_000 / all / ENOUGH).min(1000);
    Stance::Local(u32::try_from(share).unwrap_or(1000))
}
