//! What a method asks of several limits at once.

use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

use super::*;
use crate::peer::Peer;

fn limit(name: &str, key: Vec<Part>, allowance: Allowance) -> Limit {
    Limit {
        name: name.into(),
        key,
        allowance,
        max_keys: 1000,
        of_key: false,
    }
}

fn rate(name: &str, count: u32, burst: u32) -> Limit {
    let rate = Rate {
        count,
        period: Duration::from_secs(1),
        burst,
    };
    limit(
        name,
        vec![Part::Header(HeaderName::from_static("x-who"))],
        Allowance::Rate(rate),
    )
}

struct Fixture {
    book: Arc<Book>,
    counters: Vec<Arc<Counter>>,
    throttle: Arc<Throttle>,
    began: Instant,
}

impl Fixture {
    fn new(limits: &[Limit], costs: &[u64]) -> Self {
        let book = Arc::new(Book::default());
        let counters = book.counters(limits, None);
        let checks = costs.iter().enumerate().map(|(at, cost)| Check {
            limit: at,
            cost: *cost,
            field: counters[at]
                .limit()
                .key
                .iter()
                .any(Part::is_of_message)
                .then(|| vec![1]),
        });
        let checks = Checks {
            checks: checks.collect(),
            ..Checks::default()
        };
        let throttle = Throttle::new(&book, &checks, Vec::new(), &counters, Some("a.B/C")).unwrap();
        Self {
            book,
            counters,
            throttle,
            began: Instant::now(),
        }
    }

    fn ask(&self, who: &str, after: Duration) -> Result<Pass, Fault> {
        let pass = self.ask_both(Some(&self.throttle), None, who, after)?;
        Ok(pass.expect("something was asked"))
    }

    /// The limits of a route, and those that the caller brings with it.
    fn ask_both(
        &self,
        route: Option<&Arc<Throttle>>,
        own: Option<&Arc<Throttle>>,
        who: &str,
        after: Duration,
    ) -> Result<Option<Pass>, Fault> {
        let peer = Peer::new("192.0.2.7:9".parse().unwrap(), false, false, Vec::new());
        let mut headers = HeaderMap::new();
        headers.insert("x-who", who.parse().unwrap());
        let caller = Caller {
            identity: None,
            peer: &peer,
            headers: &headers,
            method: "GET",
        };
        // Nobody has to be asked.
        admit(route, own, caller, self.began + after)
            .now_or_never()
            .unwrap()
    }
}

fn told(headers: impl Iterator<Item = (HeaderName, HeaderValue)>) -> Vec<String> {
    headers
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect()
}

#[test]
fn all_limits_have_to_allow_and_who_refuses_takes_nothing_from_the_others() {
    let fixture = Fixture::new(&[rate("sustained", 100, 100), rate("burst", 1, 3)], &[1, 1]);
    for left in [2, 1, 0] {
        let mut pass = fixture.ask("ada", Duration::ZERO).unwrap();
        let lines = told(pass.take_standings().unwrap().headers());
        assert_eq!(
            lines[0],
            "ratelimit-policy: \"sustained\";q=100;w=1, \"burst\";q=3;w=3"
        );
        assert!(lines[1].contains(&format!("\"burst\";r={left};")), "{lines:?}");
    }
    for _ in 0..50 {
        let fault = fixture.ask("ada", Duration::ZERO).unwrap_err();
        assert_eq!((fault.kind(), fault.limit()), (Kind::RateLimited, Some("burst")));
        assert_eq!(fault.delay(), Some(Duration::from_secs(1)));
    }
    let now = fixture.book.now(fixture.began, false);
    let key = b"header x-who:ada";
    assert_eq!(fixture.counters[0].usage(key, now).unwrap().used, 3);
    assert_eq!(
        fixture.counters[0].verdicts(),
        [3, 0, 0, 0],
        "what was given back was not allowed"
    );
    assert_eq!(fixture.counters[1].verdicts(), [3, 50, 0, 0]);
    assert!(fixture.ask("bob", Duration::ZERO).is_ok(), "somebody else");
    assert!(fixture.ask("ada", Duration::from_millis(999)).is_err());
    assert!(fixture.ask("ada", Duration::from_secs(1)).is_ok());
}

#[test]
fn a_refusal_says_how_all_limits_stand_and_when_to_come_back() {
    let quota = limit(
        "daily",
        Vec::new(),
        Allowance::Quota {
            count: 1000,
            calendar: calendar::Calendar::Day,
        },
    );
    let fixture = Fixture::new(&[quota, rate("per_second", 4, 8)], &[10, 5]);
    assert!(fixture.ask("ada", Duration::ZERO).is_ok());
    let fault = fixture.ask("ada", Duration::ZERO).unwrap_err();
    let lines = told(fault.headers().iter().cloned());
    assert_eq!(
        lines[0],
        "ratelimit-policy: \"daily\";q=1000;w=86400, \"per_second\";q=8;w=2"
    );
    assert!(lines[1].ends_with(", \"per_second\";r=3;t=1"), "{lines:?}");
    assert_eq!(fault.delay(), Some(Duration::from_millis(500)));
    assert!(fault.message().contains("\"per_second\"") && fault.message().contains("500 ms"));
}

#[test]
fn what_was_used_stays_used_when_the_plan_changes_and_the_limit_does_not() {
    let book = Arc::new(Book::default());
    let (same, changed) = (rate("same", 1, 1), rate("other", 1, 1));
    let before = book.counters(&[same.clone(), changed], None);
    let after = book.counters(&[rate("other", 1, 2), same], None);
    assert!(Arc::ptr_eq(&before[0], &after[1]));
    assert!(!Arc::ptr_eq(&before[1], &after[0]));
    let room = book.room("route \"a\"", 1);
    let place = room.enter().unwrap();
    let again = book.room("route \"a\"", 2);
    assert!(again.enter().is_some(), "there is more room");
    drop(room);
    assert_eq!(book.room("route \"a\"", 1).in_flight(), 1);
    assert!(again.enter().is_none());
    drop(place);
    assert_eq!(again.in_flight(), 0);
}

#[test]
fn a_place_is_free_again_whoever_refuses() {
    let slots = limit("slots", Vec::new(), Allowance::InFlight(1));
    let fixture = Fixture::new(&[slots, rate("rate", 1, 1)], &[1, 1]);
    let pass = fixture.ask("ada", Duration::ZERO).unwrap();
    let fault = fixture.ask("bob", Duration::ZERO).unwrap_err();
    assert_eq!(fault.kind(), Kind::ConcurrencyLimited);
    drop(pass);
    let fault = fixture.ask("ada", Duration::ZERO).unwrap_err();
    assert_eq!(fault.kind(), Kind::RateLimited);
    assert!(fixture.ask("bob", Duration::ZERO).is_ok());
}

#[test]
fn a_limit_by_a_field_is_asked_when_the_message_is_there() {
    let mut by_field = rate("by_name", 1, 1);
    by_field.key = vec![Part::MessageField(vec!["name".into()])];
    let fixture = Fixture::new(&[by_field], &[1]);
    let ask = |value: Option<&str>| {
        let mut pass = fixture.ask("ada", Duration::ZERO).unwrap();
        let field = |numbers: &[u32]| {
            assert_eq!(numbers, [1]);
            value.map(|value| value.as_bytes().to_vec())
        };
        pass.take_deferred()
            .unwrap()
            .ask(field, fixture.began)
            .now_or_never()
            .unwrap()
            .map_err(|fault| fault.kind())
    };
    assert_eq!(ask(Some("a")), Ok(()));
    assert_eq!(ask(Some("a")), Err(Kind::RateLimited));
    assert_eq!(ask(Some("b")), Ok(()));
    assert_eq!(ask(None), Ok(()));
    assert_eq!(
        ask(None),
        Err(Kind::RateLimited),
        "who leaves it out is told apart by who it is"
    );
}

/// What the one key of a file asks that has these limits, with their counters.
fn own(book: &Arc<Book>, allowances: &[Allowance]) -> (Vec<Arc<Counter>>, Arc<Throttle>) {
    let key = own::OwnLimits {
        label: "app".into(),
        allowances: allowances.to_vec(),
    };
    let limits: Vec<Limit> = key.limits("members").collect();
    let counters = book.counters(&limits, None);
    let all = OwnThrottles::new(book, &[limits], &mut counters.clone().into_iter()).unwrap();
    (counters, Arc::clone(all.of(0).unwrap()))
}

fn hourly(burst: u32) -> Allowance {
    Allowance::Rate(Rate {
        count: 1,
        period: Duration::from_secs(3600),
        burst,
    })
}

fn used(counter: &Counter, book: &Book) -> u64 {
    let (usages, _) = counter.usages(10, book.clock());
    usages.iter().map(|usage| usage.used).sum()
}

#[test]
fn a_callers_own_limits_are_asked_beside_those_of_the_route() {
    let fixture = Fixture::new(&[rate("route", 1, 3)], &[1]);
    let quota = Allowance::Quota {
        count: 100,
        calendar: calendar::Calendar::Day,
    };
    let (counters, own) = own(&fixture.book, &[quota, hourly(2)]);
    let both = || fixture.ask_both(Some(&fixture.throttle), Some(&own), "ada", Duration::ZERO);
    let policy = "ratelimit-policy: \"route\";q=3;w=3, \"api_key.quota:members/app\";q=100;w=86400, \
                  \"api_key.rate:members/app\";q=2;w=7200";
    for left in [1, 0] {
        let lines = told(both().unwrap().unwrap().take_standings().unwrap().headers());
        assert_eq!(lines[0], policy);
        let stands = format!("ratelimit: \"route\";r={};", left + 1);
        assert!(lines[1].starts_with(&stands), "{lines:?}");
        let stands = format!("\"api_key.rate:members/app\";r={left};");
        assert!(lines[1].contains(&stands), "{lines:?}");
    }
    let fault = both().unwrap_err();
    assert_eq!(fault.limit(), Some("api_key.rate:members/app"));
    let lines = told(fault.headers().iter().cloned());
    assert_eq!(lines[0], policy);
    assert!(
        lines[1].ends_with("\"api_key.rate:members/app\";r=0;t=3600"),
        "{lines:?}"
    );
    let all = fixture.counters.iter().chain(&counters);
    let used: Vec<u64> = all.map(|counter| used(counter, &fixture.book)).collect();
    assert_eq!(used, [2, 2, 2], "a refusal takes nothing from the others");
    // Where the route has none, its own are asked all the same; and who has none is asked nothing.
    let alone = fixture.ask_both(None, Some(&own), "ada", Duration::ZERO);
    assert_eq!(alone.unwrap_err().limit(), Some("api_key.rate:members/app"));
    let nothing = fixture.ask_both(None, None, "ada", Duration::ZERO);
    assert!(nothing.unwrap().is_none());
}

#[test]
fn what_a_message_is_refused_for_is_given_back_to_all_limits() {
    let mut by_field = rate("by_name", 1, 1);
    by_field.key = vec![Part::MessageField(vec!["name".into()])];
    let fixture = Fixture::new(&[rate("route", 1, 9), by_field], &[2, 1]);
    let (counters, own) = own(&fixture.book, &[hourly(9)]);
    let ask = || {
        let mut pass = fixture
            .ask_both(Some(&fixture.throttle), Some(&own), "ada", Duration::ZERO)
            .unwrap()
            .unwrap();
        let deferred = pass.take_deferred().unwrap();
        deferred
            .ask(|_| Some(b"a".to_vec()), fixture.began)
            .now_or_never()
            .unwrap()
    };
    ask().unwrap();
    let refusal = ask().unwrap_err();
    assert_eq!(refusal.limit(), Some("by_name"));
    let lines = told(refusal.headers().iter().cloned());
    assert!(lines[0].contains("\"api_key.rate:members/app\""), "{lines:?}");
    let now = fixture.book.now(fixture.began, false);
    let route = fixture.counters[0].usage(b"header x-who:ada", now).unwrap();
    assert_eq!(route.used, 2);
    assert_eq!(used(&counters[0], &fixture.book), 1);
    assert_eq!(counters[0].verdicts(), [1, 0, 0, 0]);
}

#[test]
fn a_method_without_limits_asks_nothing() {
    let book = Arc::new(Book::default());
    assert!(Throttle::new(&book, &Checks::default(), Vec::new(), &[], None).is_none());
}
