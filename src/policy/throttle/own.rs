//! Limits of a caller's own: those that its API key has, whatever it calls, beside those of the routes.

use std::sync::Arc;

use super::key::Part;
use super::{Allowance, Book, Counter, Limit, Throttle};
use crate::policy::identity::escaped;

/// What one API key may call by limits of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnLimits {
    /// Whose key it is.
    pub label: String,
    /// What it may.
    pub allowances: Vec<Allowance>,
}

impl OwnLimits {
    /// They as limits, whose names tell whose they are: `api_key.quota:members/app` is the quota of the key with the label
    /// `app`, counted as one of `members`. No limit of the configuration has a name with a colon. What can't stand in a
    /// header is escaped.
    pub fn limits(&self, counted_as: &str) -> impl Iterator<Item = Limit> {
        let whose = format!(
            "{}/{}",
            escaped(counted_as, "\"\\/"),
            escaped(&self.label, "\"\\")
        );
        self.allowances.iter().map(move |allowance| Limit {
            name: format!("api_key.{}:{whose}", what(allowance)),
            key: vec![Part::ApiKey],
            allowance: *allowance,
            max_keys: 1,
            of_key: true,
        })
    }
}

fn what(allowance: &Allowance) -> &'static str {
    match allowance {
        Allowance::Rate(_) => "rate",
        Allowance::Quota { .. } => "quota",
        Allowance::InFlight(_) => "in_flight",
    }
}

/// What is asked for the calls of each API key of a file that has limits of its own.
#[derive(Debug)]
pub struct OwnThrottles(Vec<Option<Arc<Throttle>>>);

impl OwnThrottles {
    /// The questions, in the order of the keys whose `limits` these are; `counters` are those of the limits, one by one.
    /// Nothing where no key has any.
    pub fn new(
        book: &Arc<Book>,
        limits: &[Vec<Limit>],
        counters: &mut impl Iterator<Item = Arc<Counter>>,
    ) -> Option<Arc<Self>> {
        let of_key = |limits: &Vec<Limit>| {
            let counters = counters.by_ref().take(limits.len());
            Throttle::own(book, counters)
        };
        let all: Vec<_> = limits.iter().map(of_key).collect();
        (!all.is_empty()).then(|| Arc::new(Self(all)))
    }

    /// What is asked for the calls of one of them.
    pub(in crate::policy) fn of(&self, at: usize) -> Option<&Arc<Throttle>> {
        self.0.get(at)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::throttle::Rate;
    use std::time::Duration;

    fn own(label: &str, count: usize) -> OwnLimits {
        let rate = Allowance::Rate(Rate {
            count: 1,
            period: Duration::from_secs(1),
            burst: 1,
        });
        OwnLimits {
            label: label.into(),
            allowances: vec![rate; count],
        }
    }

    #[test]
    fn no_two_keys_have_one_name_and_every_name_fits_in_a_header() {
        let name = |counted_as: &str, label: &str| own(label, 1).limits(counted_as).next().unwrap().name;
        assert_eq!(name("members", "app"), "api_key.rate:members/app");
        assert_eq!(name("members", "a/b c"), "api_key.rate:members/a/b c");
        assert_eq!(name("members", "a\"\\%\n"), "api_key.rate:members/a%22%5C%25%0A");
        assert_ne!(name("members/a", "b"), name("members", "a/b"));
        assert_ne!(name("members", "é"), name("members", "%C3%A9"));
    }

    #[test]
    fn keys_find_their_own_limits_and_no_others() {
        let book = Arc::new(Book::default());
        let limits: Vec<Vec<Limit>> = [("a", 2), ("b", 1), ("c", 2)]
            .map(|(label, count)| own(label, count).limits("members").collect())
            .into();
        let flat: Vec<Limit> = limits.iter().flatten().cloned().collect();
        let counters = book.counters(&flat, None);
        let all = OwnThrottles::new(&book, &limits, &mut counters.into_iter()).unwrap();
        for (at, expected) in [(0, "a"), (1, "b"), (2, "c")] {
            let names: Vec<&str> = all
                .of(at)
                .unwrap()
                .questions
                .iter()
                .map(|it| &*it.counter.limit().name)
                .collect();
            assert_eq!(
                names,
                vec![format!("api_key.rate:members/{expected}"); limits[at].len()]
            );
        }
        assert!(all.of(3).is_none());
        assert!(OwnThrottles::new(&book, &[], &mut std::iter::empty()).is_none());
    }
}
