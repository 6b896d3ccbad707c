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
        self.throttle
            .admit(caller, self.began + after)
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

#[test]
fn a_method_without_limits_asks_nothing() {
    let book = Arc::new(Book::default());
    assert!(Throttle::new(&book, &Checks::default(), Vec::new(), &[], None).is_none());
}
