//! What a node has borrowed of a limit that a cluster shares. Pure.
//!
//! The store that all nodes share lends a batch at a time. What is borrowed is used up here without asking anybody; when
//! half of it is gone, more is asked for, aside. A call waits only where nothing is borrowed and the store has not said no.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::calendar::Window;
use super::gcra::{Level, Rate, Standing};
use super::{Allowance, Now};

/// How long what is borrowed of a rate may be used: afterwards the bucket has been filled again without it.
const LAPSES: u64 = 1_000_000_000;

/// How much is borrowed at once: a twentieth of what a limit has, one at least, a thousand at most.
///
/// This is by how much each node may be over a rate: see [`bound`].
pub fn batch(allowance: &Allowance) -> u64 {
    (allowance.most() / 20).clamp(1, 1000)
}

/// By how much so many nodes together can be over a limit, while the store answers: of a rate, what each of them has
/// borrowed and not used when the bucket was filled again; of a quota and of calls in flight on one node, nothing.
pub fn bound(allowance: &Allowance, nodes: u64) -> u64 {
    match allowance {
        Allowance::Rate(_) => batch(allowance).saturating_mul(nodes),
        Allowance::Quota { .. } | Allowance::InFlight(_) => 0,
    }
}

/// What a node asks the store for, on behalf of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// How much at most.
    pub want: u64,
    /// How much of it calls are waiting for.
    pub need: u64,
    /// What was used without the store, to be taken there; below nothing, what is given back.
    pub owed: i64,
    /// The window of a quota.
    pub window: Window,
}

/// What the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// How much it lends.
    pub granted: u64,
    /// When it will have one more, where it had less than was needed.
    pub next: Option<Duration>,
    /// How much is left there.
    pub left: u64,
    /// When all of it is there again.
    pub reset: Duration,
}

/// What came of asking a lease.
#[derive(Debug)]
pub(super) enum Asked {
    /// It was there, or is used up.
    Told(Standing),
    /// The store is asked; who waits asks again when it has answered.
    Wait(OwnedNotified),
    /// The store can't be asked.
    Alone,
}

/// One key's lease.
#[derive(Debug)]
pub(super) struct Lease {
    /// Borrowed and not used.
    held: u64,
    /// Until when it may be used, in nanoseconds.
    lapses: u64,
    /// The window of a quota.
    window: Window,
    /// The store has no more before this instant.
    next: u64,
    left: u64,
    reset_at: u64,
    /// The store is being asked.
    asking: bool,
    /// What calls wait for.
    demand: u64,
    owed: i64,
    /// What was used without the store: of a rate, and of a quota in its window.
    level: Level,
    used_alone: u64,
    told: Arc<Notify>,
}

impl Lease {
    pub(super) fn new(allowance: &Allowance, now: Now) -> Self {
        Self {
            held: 0,
            lapses: 0,
            window: window(allowance, now),
            next: 0,
            left: 0,
            reset_at: 0,
            asking: false,
            demand: 0,
            owed: 0,
            level: Level::default(),
            used_alone: 0,
            told: Arc::default(),
        }
    }

    /// Takes `units`. What is to be asked of the store goes to `ask`, which says whether it could be.
    pub(super) fn take(
        &mut self,
        allowance: &Allowance,
        units: u64,
        now: Now,
        ask: impl FnOnce(Wanted) -> bool,
    ) -> Asked {
        self.turn(allowance, now);
        let batch = batch(allowance);
        if self.held >= units {
            self.held -= units;
            let left = self.held.saturating_add(self.left);
            if self.held < batch.div_ceil(2) && !self.asking && now.nanos >= self.next {
                // Aside: that it can't be asked is seen by whoever needs it.
                self.asking = ask(self.wanted(batch));
            }
            return Asked::Told(self.standing(left, None, now));
        }
        if now.nanos < self.next {
            let wait = self.wait(allowance, units, now);
            return Asked::Told(self.standing(self.held, Some(wait), now));
        }
        self.demand = self.demand.saturating_add(units);
        if !self.asking {
            self.asking = ask(self.wanted(batch));
        }
        if !self.asking {
            self.demand = self.demand.saturating_sub(units);
            return Asked::Alone;
        }
        Asked::Wait(Arc::clone(&self.told).notified_owned())
    }

    /// Somebody who waited for `units` waits no more.
    pub(super) fn waited(&mut self, allowance: &Allowance, units: u64) {
        self.demand = self.demand.saturating_sub(units);
        // What nobody waits for any more is not kept beyond a batch.
        let most = batch(allowance).saturating_add(self.demand);
        let surplus = self.held.saturating_sub(most);
        self.held -= surplus;
        if matches!(allowance, Allowance::Quota { .. }) {
            self.owed = self
                .owed
                .saturating_sub(i64::try_from(surplus).unwrap_or(i64::MAX));
        }
    }

    /// The store has answered.
    pub(super) fn granted(&mut self, grant: Grant, window: Window, told: i64, now: Now) {
        self.asking = false;
        if self.window == window {
            self.held = self.held.saturating_add(grant.granted);
            self.lapses = now.nanos.saturating_add(LAPSES);
            self.owed = self.owed.saturating_sub(told);
            self.left = grant.left;
            self.reset_at = now.nanos.saturating_add(nanos(grant.reset));
            self.next = grant.next.map_or(0, |next| now.nanos.saturating_add(nanos(next)));
        }
        self.told.notify_waiters();
    }

    /// The store has not answered.
    pub(super) fn unheard(&mut self) {
        self.asking = false;
        self.told.notify_waiters();
    }

    /// Takes `units` of the share that this node has of the limit when it is on its own.
    pub(super) fn take_alone(&mut self, allowance: &Allowance, units: u64, nodes: u32, now: Now) -> Standing {
        self.turn(allowance, now);
        if self.held >= units {
            self.held -= units;
            return self.standing(self.held, None, now);
        }
        match allowance {
            Allowance::Rate(rate) => {
                let share = rate.shared_by(nodes);
                // A call that costs more than the share is let in when all of the share is there.
                share.take(&mut self.level, units.min(share.burst.into()), now.nanos)
            }
            Allowance::Quota { count, .. } => {
                let share = (count / u64::from(nodes.max(1))).max(1);
                let fits = self.used_alone.saturating_add(units) <= share;
                if fits {
                    self.used_alone += units;
                    self.owed = self.owed.saturating_add(i64::try_from(units).unwrap_or(i64::MAX));
                }
                let reset = Duration::from_secs(self.window.end.saturating_sub(now.unix));
                Standing {
                    left: share.saturating_sub(self.used_alone),
                    reset,
                    wait: (!fits).then_some(reset),
                }
            }
            Allowance::InFlight(_) => self.standing(0, None, now),
        }
    }

    /// Gives back what another limit did not let be used.
    pub(super) fn give_back(&mut self, units: u64) {
        self.held = self.held.saturating_add(units);
    }

    /// Whether it is as if nobody had ever asked.
    pub(super) fn rests(&self, allowance: &Allowance, now: Now) -> bool {
        if self.asking || self.demand > 0 {
            return false;
        }
        match allowance {
            Allowance::Rate(rate) => {
                now.nanos >= self.lapses
                    && now.nanos >= self.reset_at
                    && now.nanos >= self.next
                    && rate.until_full(self.level, now.nanos).is_zero()
            }
            Allowance::Quota { .. } | Allowance::InFlight(_) => now.unix >= self.window.end,
        }
    }

    /// What would be lost with it; `None` while somebody waits.
    pub(super) fn loss(&self) -> Option<u128> {
        (!self.asking && self.demand == 0).then(|| u128::from(self.reset_at) + u128::from(self.held))
    }

    /// How much is left, as far as is known here.
    pub(super) fn look(&self, now: Now) -> Standing {
        self.standing(self.held.saturating_add(self.left), None, now)
    }

    /// Forgets what time has made void.
    fn turn(&mut self, allowance: &Allowance, now: Now) {
        match allowance {
            Allowance::Rate(_) => {
                if now.nanos >= self.lapses {
                    self.held = 0;
                }
            }
            Allowance::Quota { .. } => {
                if now.unix >= self.window.end {
                    self.window = window(allowance, now);
                    (self.held, self.left, self.next) = (0, 0, 0);
                    (self.owed, self.used_alone) = (0, 0);
                }
            }
            Allowance::InFlight(_) => {}
        }
    }

    fn wanted(&self, batch: u64) -> Wanted {
        Wanted {
            want: batch.saturating_sub(self.held).saturating_add(self.demand),
            need: self.demand.saturating_sub(self.held),
            owed: self.owed,
            window: self.window,
        }
    }

    fn wait(&self, allowance: &Allowance, units: u64, now: Now) -> Duration {
        match allowance {
            Allowance::Rate(rate) => {
                let first = Duration::from_nanos(self.next.saturating_sub(now.nanos));
                let missing = units.saturating_sub(self.held).saturating_sub(1);
                first.saturating_add(each(rate).saturating_mul(u32::try_from(missing).unwrap_or(u32::MAX)))
            }
            Allowance::Quota { .. } | Allowance::InFlight(_) => {
                Duration::from_secs(self.window.end.saturating_sub(now.unix))
            }
        }
    }

    fn standing(&self, left: u64, wait: Option<Duration>, now: Now) -> Standing {
        let reset = match self.window.end {
            u64::MAX => Duration::from_nanos(self.reset_at.saturating_sub(now.nanos)),
            end => Duration::from_secs(end.saturating_sub(now.unix)),
        };
        Standing { left, reset, wait }
    }
}

/// The window that a lease is for: that of a quota, or all time.
fn window(allowance: &Allowance, now: Now) -> Window {
    match allowance {
        Allowance::Quota { calendar, .. } => calendar.window(now.unix),
        Allowance::Rate(_) | Allowance::InFlight(_) => Window {
            start: 0,
            end: u64::MAX,
        },
    }
}

/// The time in which a rate has one more.
fn each(rate: &Rate) -> Duration {
    rate.period / rate.count.max(1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::throttle::calendar::Calendar;

    const RATE: Allowance = Allowance::Rate(Rate {
        count: 100,
        period: Duration::from_secs(1),
        burst: 200,
    });
    const MILLI: u64 = 1_000_000;

    fn at(millis: u64) -> Now {
        Now {
            nanos: millis * MILLI,
            unix: millis / 1000,
        }
    }

    fn grant(granted: u64) -> Grant {
        Grant {
            granted,
            next: None,
            left: 100,
            reset: Duration::from_secs(1),
        }
    }

    const ALWAYS: Window = Window {
        start: 0,
        end: u64::MAX,
    };

    #[test]
    fn a_call_waits_for_the_first_batch_and_later_ones_for_nothing() {
        let mut lease = Lease::new(&RATE, at(0));
        let mut asked = Vec::new();
        let first = lease.take(&RATE, 1, at(0), |wanted| {
            asked.push(wanted);
            true
        });
        assert!(matches!(first, Asked::Wait(_)));
        assert_eq!((asked[0].want, asked[0].need), (11, 1));
        // Another one meanwhile does not ask again.
        let second = lease.take(&RATE, 1, at(0), |_| panic!("asked twice"));
        assert!(matches!(second, Asked::Wait(_)));
        lease.granted(grant(11), ALWAYS, 0, at(1));
        for _ in 0..2 {
            lease.waited(&RATE, 1);
        }
        let mut refills = 0;
        for step in 0..10 {
            let told = lease.take(&RATE, 1, at(2 + step), |wanted| {
                refills += 1;
                assert_eq!(wanted.need, 0, "aside");
                true
            });
            assert!(matches!(told, Asked::Told(Standing { wait: None, .. })), "{step}");
        }
        assert_eq!(refills, 1, "at half of a batch, once");
    }

    #[test]
    fn what_is_not_used_lapses_and_is_never_more_than_a_batch() {
        let mut lease = Lease::new(&RATE, at(0));
        for _ in 0..50 {
            drop(lease.take(&RATE, 1, at(0), |_| true));
        }
        lease.granted(grant(60), ALWAYS, 0, at(1));
        // All of those who waited have left.
        for _ in 0..50 {
            lease.waited(&RATE, 1);
        }
        assert_eq!(lease.held, batch(&RATE));
        let late = lease.take(&RATE, 1, at(1002), |_| true);
        assert!(matches!(late, Asked::Wait(_)), "it has lapsed");
    }

    #[test]
    fn a_no_holds_until_the_store_has_more() {
        let mut lease = Lease::new(&RATE, at(0));
        drop(lease.take(&RATE, 1, at(0), |_| true));
        let no = Grant {
            next: Some(Duration::from_millis(10)),
            left: 0,
            ..grant(0)
        };
        lease.granted(no, ALWAYS, 0, at(0));
        lease.waited(&RATE, 1);
        match lease.take(&RATE, 3, at(4), |_| panic!("asked though it said no")) {
            Asked::Told(standing) => assert_eq!(standing.wait, Some(Duration::from_millis(26))),
            other => panic!("{other:?}"),
        }
        assert!(matches!(lease.take(&RATE, 1, at(10), |_| true), Asked::Wait(_)));
        assert!(matches!(
            Lease::new(&RATE, at(0)).take(&RATE, 1, at(0), |_| false),
            Asked::Alone
        ));
    }

    #[test]
    fn alone_a_node_has_its_share_and_owes_what_it_used_of_a_quota() {
        let quota = Allowance::Quota {
            count: 90,
            calendar: Calendar::Day,
        };
        let mut lease = Lease::new(&quota, at(0));
        let taken = (0..100)
            .filter(|_| lease.take_alone(&quota, 1, 3, at(0)).wait.is_none())
            .count();
        assert_eq!((taken, lease.owed), (30, 30));
        let mut lease = Lease::new(&RATE, at(0));
        let taken = (0..500)
            .filter(|_| lease.take_alone(&RATE, 1, 4, at(0)).wait.is_none())
            .count();
        assert_eq!(taken, 50);
        // The next window begins anew, and owes nothing.
        let mut lease = Lease::new(&quota, at(0));
        lease.take_alone(&quota, 30, 3, at(0));
        let tomorrow = Now {
            nanos: 0,
            unix: 86_400,
        };
        assert!(lease.take_alone(&quota, 30, 3, tomorrow).wait.is_none());
        assert_eq!(lease.owed, 30);
    }
}
