//! How many retries a backend may be sent, so that they never become the load that keeps it down.
//!
//! A share of the calls under way, and a few a second however few calls there are. All workers share it; no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::time::Instant;

use crate::balance::endpoint::millis;
use crate::balance::settings::Retry;

/// The budget of one backend.
#[derive(Debug, Default)]
pub struct Budget {
    /// Retries under way that were counted against the share.
    under_way: AtomicUsize,
    /// Milliseconds times 1,000: when the next retry beyond the share is due.
    next: AtomicU64,
}

/// A retry that the budget allowed; counts until it is dropped.
#[derive(Debug)]
pub struct Allowance(Option<Arc<Budget>>);

impl Drop for Allowance {
    fn drop(&mut self) {
        if let Some(budget) = &self.0 {
            budget.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Budget {
    /// Allows a retry beside `active` calls under way, or not.
    pub fn take(self: &Arc<Self>, settings: &Retry, active: usize, now: Instant) -> Option<Allowance> {
        let percent = usize::try_from(settings.budget_percent).unwrap_or(usize::MAX);
        let share = active.saturating_mul(percent) / 100;
        let within = self
            .under_way
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |under_way| {
                (under_way < share).then_some(under_way + 1)
            });
        if within.is_ok() {
            return Some(Allowance(Some(Arc::clone(self))));
        }
        self.take_beyond(settings.budget_per_second, now)
            .then_some(Allowance(None))
    }

    /// One of the few that are allowed in each second: as many at once as a second has.
    fn take_beyond(&self, per_second: u32, now: Instant) -> bool {
        let Some(apart) = 1_000_000_u64.checked_div(u64::from(per_second)) else {
            return false;
        };
        let now = millis(now).saturating_mul(1000);
        self.next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                let next = next.max(now).saturating_add(apart);
                (next <= now.saturating_add(1_000_000)).then_some(next)
            })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_of_what_is_under_way_and_a_few_a_second() {
        let budget = Arc::new(Budget::default());
        let settings = Retry::default();
        let now = Instant::now() + Duration::from_secs(5);
        let of_share: Vec<_> = (0..20).map_while(|_| budget.take(&settings, 100, now)).collect();
        assert_eq!(of_share.len(), 20);
        // Beyond the share: ten at once, and then one each 100 ms.
        let beyond = (0..50)
            .filter(|_| budget.take(&settings, 100, now).is_some())
            .count();
        assert_eq!(beyond, 10);
        let later = now + Duration::from_millis(250);
        let beyond = (0..50)
            .filter(|_| budget.take(&settings, 100, later).is_some())
            .count();
        assert_eq!(beyond, 2);
        // What has ended makes room.
        drop(of_share);
        assert!(budget.take(&settings, 100, later).is_some());
    }

    #[test]
    fn without_calls_and_without_a_floor_nothing_is_allowed() {
        let budget = Arc::new(Budget::default());
        let settings = Retry {
            budget_per_second: 0,
            ..Retry::default()
        };
        assert!(budget.take(&settings, 4, Instant::now()).is_none());
        assert!(budget.take(&settings, 5, Instant::now()).is_some());
    }
}
