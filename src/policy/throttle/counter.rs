//! One limit of the configuration, and the accounts of those whom it tells apart.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::Now;
use super::calendar::{Calendar, Window};
use super::gcra::{Level, Rate, Standing};
use super::key::Part;
use super::store::{Keep, Store};

/// A limit, as data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// Its name in the configuration, records, metrics and answers: letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// By what callers are told apart; empty where all of them share one account.
    pub key: Vec<Part>,
    /// What each of them may.
    pub allowance: Allowance,
    /// How many of them are known at once.
    pub max_keys: usize,
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
}

impl Verdict {
    /// Every one, in the order in which they are counted.
    pub const ALL: [Self; 2] = [Self::Allowed, Self::Refused];

    /// The word in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
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
}

/// What is kept of one caller.
#[derive(Debug)]
enum Account {
    Rate(Rate, Level),
    Quota { window: Window, used: u64 },
    InFlight(Arc<AtomicU32>),
}

impl Keep for Account {
    fn rests(&self, now: Now) -> bool {
        match self {
            Self::Rate(rate, level) => rate.until_full(*level, now.nanos).is_zero(),
            Self::Quota { window, used } => *used == 0 || window.end <= now.unix,
            Self::InFlight(count) => count.load(Ordering::Relaxed) == 0,
        }
    }

    fn loss(&self, now: Now) -> Option<u128> {
        match self {
            Self::Rate(rate, level) => Some(rate.until_full(*level, now.nanos).as_nanos()),
            Self::Quota { used, .. } => Some((*used).into()),
            Self::InFlight(_) => None,
        }
    }
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
    pub fn new(limit: Limit) -> Self {
        Self {
            accounts: Store::new(limit.max_keys),
            limit,
        }
    }

    /// The limit.
    pub fn limit(&self) -> &Limit {
        &self.limit
    }

    /// Takes `units` of what the owner of `key` may, if they are there. `None` where no more owners can be told apart.
    pub(super) fn take(&self, key: &[u8], units: u64, now: Now) -> Option<Taken> {
        self.accounts.with(
            key,
            now,
            || self.open(now),
            |account, verdicts| {
                let taken = self.ask(account, units, now);
                let verdict = match taken.standing.wait {
                    None => Verdict::Allowed,
                    Some(_) => Verdict::Refused,
                };
                count(verdicts, verdict, 1);
                taken
            },
        )
    }

    fn open(&self, now: Now) -> Account {
        match self.limit.allowance {
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

fn count(verdicts: &mut Verdicts, verdict: Verdict, by: u64) {
    if let Some(count) = verdicts.get_mut(verdict as usize) {
        *count += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::time::Moment;

    fn counter(allowance: Allowance) -> Counter {
        Counter::new(Limit {
            name: "a".into(),
            key: Vec::new(),
            allowance,
            max_keys: 1000,
        })
    }

    fn at(text: &str) -> Now {
        Now {
            nanos: 0,
            unix: text.parse::<Moment>().unwrap().0,
        }
    }

    fn wait(counter: &Counter, units: u64, now: Now) -> Option<Duration> {
        counter.take(b"k", units, now).unwrap().standing.wait
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
        assert_eq!(month.verdicts(), [4, 3]);
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
        let first = slots.take(b"k", 1, now).unwrap();
        let second = slots.take(b"k", 1, now).unwrap();
        assert_eq!((first.standing.left, second.standing.left), (1, 0));
        let third = slots.take(b"k", 1, now).unwrap();
        assert!(third.standing.wait.is_some() && third.place.is_none());
        assert!(slots.take(b"other", 1, now).unwrap().place.is_some());
        drop(first);
        assert!(slots.take(b"k", 1, now).unwrap().place.is_some());
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
                        let taken = slots.take(b"k", 1, now).unwrap();
                        if taken.place.is_some() {
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
            rate.take(key.as_bytes(), units, now).unwrap();
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
