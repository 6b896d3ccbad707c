//! One limit of the configuration, and the accounts of those whom it tells apart.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::Instant;

use super::calendar::{Calendar, Window};
use super::cluster::{Ask, Cluster, OnLoss};
use super::gcra::{Level, Rate, Standing};
use super::key::Part;
use super::lease::{Asked, Grant, Lease, Wanted};
use super::store::{Keep, Store};
use super::{Clock, Now};

/// A limit, as data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Its name in the configuration, records, metrics and answers: letters, digits, `-`, `_` and `.`; that of an API key's
    /// own has a `:` after its kind, and may have anything visible after that but `"` and `\`.
    pub name: String,
    /// By what callers are told apart; empty where all of them share one account.
    pub key: Vec<Part>,
    /// What each of them may.
    pub allowance: Allowance,
    /// How many of them are known at once.
    pub max_keys: usize,
    /// Whether it is an API key's own, and not one of the configuration.
    pub of_key: bool,
}

/// What one caller may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Allowance {
    /// So often.
    Rate(Rate),
    /// So many in a window of the calendar.
    Quota {
        /// How many.
        count: u64,
        /// In which window.
        calendar: Calendar,
    },
    /// So many at once.
    InFlight(u32),
}

impl Allowance {
    /// The most that a single call may cost.
    pub fn most(&self) -> u64 {
        match self {
            Self::Rate(rate) => rate.burst.into(),
            Self::Quota { count, .. } => *count,
            Self::InFlight(most) => (*most).into(),
        }
    }
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "{} in {:?}, {} at once", rate.count, rate.period, rate.burst),
            Self::Quota { count, calendar } => write!(f, "{count} in each {calendar}"),
            Self::InFlight(most) => write!(f, "{most} in flight"),
        }
    }
}

/// What was decided, as metrics count it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was there.
    Allowed,
    /// It was used up.
    Refused,
    /// The store of the cluster could not be asked, and calls are let in without.
    Open,
    /// The same, and none is.
    Closed,
}

impl Verdict {
    /// Every one, in the order in which they are counted.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Refused, Self::Open, Self::Closed];

    /// The word in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

/// How often each verdict was given.
pub type Verdicts = [u64; Verdict::ALL.len()];

/// A limit with its accounts.
#[derive(Debug)]
pub struct Counter {
    limit: Limit,
    accounts: Store<Account>,
    clock: Clock,
    /// The store that a cluster shares, if there is one, and this is a limit that it can share.
    cluster: Option<Arc<Cluster>>,
}

/// What is kept of one caller.
#[derive(Debug)]
enum Account {
    Rate(Rate, Level),
    Quota { window: Window, used: u64 },
    InFlight(Arc<AtomicU32>),
    Leased(Allowance, Box<Lease>),
}

impl Keep for Account {
    fn rests(&self, now: Now) -> bool {
        match self {
            Self::Rate(rate, level) => rate.until_full(*level, now.nanos).is_zero(),
            Self::Quota { window, used } => *used == 0 || window.end <= now.unix,
            Self::InFlight(count) => count.load(Ordering::Relaxed) == 0,
            Self::Leased(allowance, lease) => lease.rests(allowance, now),
        }
    }

    fn loss(&self, now: Now) -> Option<u128> {
        match self {
            Self::Rate(rate, level) => Some(rate.until_full(*level, now.nanos).as_nanos()),
            Self::Quota { used, .. } => Some((*used).into()),
            Self::InFlight(_) => None,
            Self::Leased(_, lease) => lease.loss(),
        }
    }
}

/// What a limit answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// It allows, or refuses.
    Taken(Taken),
    /// The store of the cluster is asked: ask again when it has answered, and say when you wait no more.
    Wait(OwnedNotified),
    /// The store can't be asked, and no call is let in without.
    Closed,
    /// No more callers can be told apart.
    Crowded,
}

/// What came of asking a limit.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) standing: Standing,
    /// The place that was taken, where the limit is one of calls in flight.
    pub(super) place: Option<Place>,
}

impl Taken {
    fn of(standing: Standing) -> Self {
        Self {
            standing,
            place: None,
        }
    }
}

/// A call in flight; it counts until it is dropped.
#[derive(Debug)]
pub struct Place(Arc<AtomicU32>);

impl Place {
    /// A place among `most`; `None` if they are taken.
    pub(super) fn take(count: &Arc<AtomicU32>, most: u32) -> Option<Self> {
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
            (taken < most).then_some(taken + 1)
        });
        taken.is_ok().then(|| Self(Arc::clone(count)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How one account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Whose it is.
    pub key: Vec<u8>,
    /// How much is used: of a quota, in this window; of a rate, of its burst.
    pub used: u64,
    /// How much is left.
    pub left: u64,
    /// When all of it is there again.
    pub reset: Duration,
}

impl Counter {
    /// A limit of which nobody has used anything.
    pub fn new(limit: Limit, clock: Clock, cluster: Option<&Arc<Cluster>>) -> Self {
        let is_local = matches!(limit.allowance, Allowance::InFlight(_));
        Self {
            accounts: Store::new(limit.max_keys),
            limit,
            clock,
            cluster: cluster.filter(|_| !is_local).cloned(),
        }
    }

    /// The store of the cluster that shares the limit.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// The limit.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Takes `units` of what the owner of `key` may, if they are there.
    pub(super) fn take(self: &Arc<Self>, key: &[u8], units: u64, now: Now) -> Answer {
        self.with(key, now, |account, verdicts| match account {
            Account::Leased(allowance, lease) => {
                let ask = |wanted| {
                    let ask = || Ask {
                        counter: Arc::clone(self),
                        key: key.to_vec(),
                        wanted,
                    };
                    self.cluster.as_ref().is_some_and(|cluster| cluster.ask(ask()))
                };
                match lease.take(allowance, units, now, ask) {
                    Asked::Told(standing) => told(verdicts, Taken::of(standing)),
                    Asked::Wait(told) => Answer::Wait(told),
                    Asked::Alone => self.alone(lease, units, now, verdicts),
                }
            }
            account => told(verdicts, self.ask(account, units, now)),
        })
    }

    /// The same without asking the store.
    pub(super) fn take_alone(&self, key: &[u8], units: u64, now: Now) -> Answer {
        self.with(key, now, |account, verdicts| match account {
            Account::Leased(_, lease) => self.alone(lease, units, now, verdicts),
            account => told(verdicts, self.ask(account, units, now)),
        })
    }

    fn with(&self, key: &[u8], now: Now, act: impl FnOnce(&mut Account, &mut Verdicts) -> Answer) -> Answer {
        let answer = self.accounts.with(key, now, || self.open(now), act);
        answer.unwrap_or(Answer::Crowded)
    }

    /// What the node decides that can't ask the store.
    fn alone(&self, lease: &mut Lease, units: u64, now: Now, verdicts: &mut Verdicts) -> Answer {
        let (on_loss, nodes) = match &self.cluster {
            Some(cluster) => (cluster.setup().on_loss, cluster.nodes()),
            None => (OnLoss::Share, 1),
        };
        match on_loss {
            OnLoss::Share => {
                let standing = lease.take_alone(&self.limit.allowance, units, nodes, now);
                told(verdicts, Taken::of(standing))
            }
            OnLoss::Open => {
                count(verdicts, Verdict::Open, 1);
                Answer::Taken(Taken::of(lease.look(now)))
            }
            OnLoss::Closed => {
                count(verdicts, Verdict::Closed, 1);
                Answer::Closed
            }
        }
    }

    /// Somebody who waited for `units` waits no more.
    pub(super) fn waited(&self, key: &[u8], units: u64) {
        self.accounts.find(key, |account, _| {
            if let Account::Leased(allowance, lease) = account {
                lease.waited(allowance, units);
            }
        });
    }

    /// The store has answered what was `wanted` for a key.
    pub fn granted(&self, key: &[u8], grant: Grant, wanted: &Wanted) {
        let now = self.clock.now(Instant::now(), true);
        self.accounts.find(key, |account, _| {
            if let Account::Leased(_, lease) = account {
                lease.granted(grant, wanted.window, wanted.owed, now);
            }
        });
    }

    /// The store has not answered.
    pub fn unheard(&self, key: &[u8]) {
        self.accounts.find(key, |account, _| {
            if let Account::Leased(_, lease) = account {
                lease.unheard();
            }
        });
    }

    fn open(&self, now: Now) -> Account {
        let allowance = self.limit.allowance;
        if self.cluster.is_some() {
            return Account::Leased(allowance, Box::new(Lease::new(&allowance, now)));
        }
        match allowance {
            Allowance::Rate(rate) => Account::Rate(rate, Level::default()),
            Allowance::Quota { calendar, .. } => Account::Quota {
                window: calendar.window(now.unix),
                used: 0,
            },
            Allowance::InFlight(_) => Account::InFlight(Arc::default()),
        }
    }

    fn ask(&self, account: &mut Account, units: u64, now: Now) -> Taken {
        match account {
            Account::Rate(rate, level) => Taken::of(rate.take(level, units, now.nanos)),
            Account::Quota { window, used } => Taken::of(self.ask_quota(window, used, units, now)),
            Account::InFlight(taken) => {
                let most = u32::try_from(self.limit.allowance.most()).unwrap_or(u32::MAX);
                let place = Place::take(taken, most);
                let left = most.saturating_sub(taken.load(Ordering::Relaxed));
                let standing = Standing {
                    left: left.into(),
                    reset: Duration::ZERO,
                    wait: place.is_none().then_some(SOON),
                };
                Taken { standing, place }
            }
            Account::Leased(_, lease) => Taken::of(lease.look(now)),
        }
    }

    fn ask_quota(&self, window: &mut Window, used: &mut u64, units: u64, now: Now) -> Standing {
        // A clock that was set back does not open a window again.
        if let Allowance::Quota { calendar, .. } = self.limit.allowance
            && now.unix >= window.end
        {
            *window = calendar.window(now.unix);
            *used = 0;
        }
        let reset = Duration::from_secs(window.end.saturating_sub(now.unix));
        let most = self.limit.allowance.most();
        let fits = used.saturating_add(units) <= most;
        if fits {
            *used += units;
        }
        Standing {
            left: most.saturating_sub(*used),
            reset,
            wait: (!fits).then_some(reset),
        }
    }

    /// Gives back what was taken for a call that another limit refused.
    pub(super) fn give_back(&self, key: &[u8], units: u64) {
        self.accounts.find(key, |account, verdicts| {
            match account {
                Account::Rate(rate, level) => rate.give_back(level, units),
                Account::Quota { used, .. } => *used = used.saturating_sub(units),
                // Its place is given back by dropping it.
                Account::InFlight(_) => {}
                Account::Leased(_, lease) => lease.give_back(units),
            }
            if let Some(allowed) = verdicts.get_mut(Verdict::Allowed as usize) {
                *allowed = allowed.saturating_sub(1);
            }
        });
    }

    /// How the owner of a key stands; `None` for one who has used nothing.
    pub fn usage(&self, key: &[u8], now: Now) -> Option<Usage> {
        self.accounts
            .find(key, |account, _| self.stands(key, account, now))
            .flatten()
    }

    /// Those who have used most, and how many there are in all.
    pub fn usages(&self, most: usize, now: Now) -> (Vec<Usage>, usize) {
        let mut all = Vec::new();
        self.accounts.sweep(now, |key, account| {
            if let Some(usage) = self.stands(key, account, now) {
                all.push(usage);
                // Twice as many as are wanted are sorted at once, so that a long list costs no more memory than a short.
                if all.len() > most.saturating_mul(2) {
                    all.sort_by_key(|usage| std::cmp::Reverse(usage.used));
                    all.truncate(most);
                }
            }
        });
        all.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.key.cmp(&b.key)));
        all.truncate(most);
        (all, self.accounts.len())
    }

    fn stands(&self, key: &[u8], account: &Account, now: Now) -> Option<Usage> {
        if account.rests(now) {
            return None;
        }
        let (left, reset) = match (account, self.limit.allowance) {
            (Account::Rate(rate, level), _) => {
                let standing = rate.look(*level, now.nanos);
                (standing.left, standing.reset)
            }
            (Account::Quota { window, used }, _) => (
                self.limit.allowance.most().saturating_sub(*used),
                Duration::from_secs(window.end.saturating_sub(now.unix)),
            ),
            (Account::InFlight(taken), _) => {
                let taken = u64::from(taken.load(Ordering::Relaxed));
                (self.limit.allowance.most().saturating_sub(taken), Duration::ZERO)
            }
            (Account::Leased(_, lease), _) => {
                let standing = lease.look(now);
                (standing.left, standing.reset)
            }
        };
        Some(Usage {
            key: key.to_vec(),
            used: self.limit.allowance.most().saturating_sub(left),
            left,
            reset,
        })
    }

    /// Forgets whoever has used nothing lately.
    pub fn sweep(&self, now: Now) {
        self.accounts.sweep(now, |_, _| ());
    }

    /// How many owners are known.
    pub fn keys(&self) -> usize {
        self.accounts.len()
    }

    /// How often each verdict was given.
    pub fn verdicts(&self) -> Verdicts {
        self.accounts.counted()
    }
}

/// When a place may be free again: nobody knows, and a client that asks at once asks too often.
const SOON: Duration = Duration::from_secs(1);

/// What was taken or refused, which is counted.
fn told(verdicts: &mut Verdicts, taken: Taken) -> Answer {
    let verdict = match taken.standing.wait {
        None => Verdict::Allowed,
        Some(_) => Verdict::Refused,
    };
    count(verdicts, verdict, 1);
    Answer::Taken(taken)
}

fn count(verdicts: &mut Verdicts, verdict: Verdict, by: u64) {
    if let Some(count) = verdicts.get_mut(verdict as usize) {
        *count += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::time::Moment;

    fn counter(allowance: Allowance) -> Arc<Counter> {
        let limit = Limit {
            name: "a".into(),
            key: Vec::new(),
            allowance,
            max_keys: 1000,
            of_key: false,
        };
        Arc::new(Counter::new(limit, Clock::default(), None))
    }

    fn taken(counter: &Arc<Counter>, key: &[u8], units: u64, now: Now) -> Taken {
        match counter.take(key, units, now) {
            Answer::Taken(taken) => taken,
            other => panic!("{other:?}"),
        }
    }

    fn at(text: &str) -> Now {
        Now {
            nanos: 0,
            unix: text.parse::<Moment>().unwrap().0,
        }
    }

    fn wait(counter: &Arc<Counter>, units: u64, now: Now) -> Option<Duration> {
        taken(counter, b"k", units, now).standing.wait
    }

    #[test]
    fn a_quota_counts_to_the_end_of_its_window_and_then_anew() {
        let month = counter(Allowance::Quota {
            count: 3,
            calendar: Calendar::Month,
        });
        assert_eq!(wait(&month, 1, at("2028-02-01")), None);
        assert_eq!(wait(&month, 2, at("2028-02-29T23:59:58Z")), None);
        let last = at("2028-02-29T23:59:59Z");
        assert_eq!(wait(&month, 1, last), Some(Duration::from_secs(1)));
        assert_eq!(
            month.usage(b"k", last).map(|usage| (usage.used, usage.left)),
            Some((3, 0))
        );
        assert_eq!(wait(&month, 1, at("2028-03-01T00:00:00Z")), None);
        assert_eq!(
            wait(&month, 3, at("2028-03-01T00:00:00Z")),
            Some(Duration::from_secs(31 * 86_400))
        );
        assert_eq!(wait(&month, 2, at("2028-03-01T00:00:00Z")), None);
        // The clock is set back: what is used in March is used.
        assert!(wait(&month, 1, last).is_some());
        month.give_back(b"k", 1);
        assert_eq!(wait(&month, 1, at("2028-03-31T23:59:59Z")), None);
        assert_eq!(month.verdicts(), [4, 3, 0, 0]);
    }

    #[test]
    fn a_quota_that_rests_is_forgotten_when_its_window_is_over() {
        let day = counter(Allowance::Quota {
            count: 3,
            calendar: Calendar::Day,
        });
        wait(&day, 1, at("2027-01-31T10:00:00Z"));
        day.sweep(at("2027-01-31T23:59:59Z"));
        assert_eq!(day.keys(), 1);
        day.sweep(at("2027-02-01"));
        assert_eq!(day.keys(), 0);
    }

    #[test]
    fn places_are_free_again_when_they_are_dropped() {
        let slots = counter(Allowance::InFlight(2));
        let now = at("2027-01-01");
        let first = taken(&slots, b"k", 1, now);
        let second = taken(&slots, b"k", 1, now);
        assert_eq!((first.standing.left, second.standing.left), (1, 0));
        let third = taken(&slots, b"k", 1, now);
        assert!(third.standing.wait.is_some() && third.place.is_none());
        assert!(taken(&slots, b"other", 1, now).place.is_some());
        drop(first);
        assert!(taken(&slots, b"k", 1, now).place.is_some());
        drop((second, third));
        slots.sweep(now);
        assert_eq!(slots.keys(), 0);
    }

    #[test]
    fn no_place_is_taken_twice_from_many_threads() {
        let slots = counter(Allowance::InFlight(5));
        let now = at("2027-01-01");
        let most = AtomicU32::new(0);
        let busy = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let got = taken(&slots, b"k", 1, now);
                        if got.place.is_some() {
                            let inside = busy.fetch_add(1, Ordering::SeqCst) + 1;
                            most.fetch_max(inside, Ordering::SeqCst);
                            std::thread::yield_now();
                            busy.fetch_sub(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 5);
        assert_eq!(slots.usage(b"k", now), None, "none is left behind");
    }

    #[test]
    fn who_has_used_most_is_told_first() {
        let rate = counter(Allowance::Rate(Rate {
            count: 1,
            period: Duration::from_secs(3600),
            burst: 100,
        }));
        let now = at("2027-01-01");
        for (key, units) in [("a", 5), ("b", 50), ("c", 20)] {
            taken(&rate, key.as_bytes(), units, now);
        }
        let (top, all) = rate.usages(2, now);
        let told: Vec<_> = top
            .iter()
            .map(|usage| (usage.key.as_slice(), usage.used))
            .collect();
        assert_eq!(told, [(&b"b"[..], 50), (&b"c"[..], 20)]);
        assert_eq!(all, 3);
    }
}
