//! Groups: who is healthy, ejected, warming up, local.

use std::time::Duration;

use super::*;
use crate::balance::endpoint::Ejection;
use crate::balance::settings::{Ejecting, Policy, SlowAnswers, SuccessRate};

/// How long an endpoint warms up.
const TAKES: Duration = Duration::from_secs(30);

fn uri(at: usize) -> http::Uri {
    format!("http://10.0.0.{at}:80").parse().unwrap()
}

fn listed(count: usize) -> Vec<Listed> {
    (0..count).map(|at| Listed::new(uri(at))).collect()
}

fn group(count: usize) -> Group {
    Group::new("library", Settings::default(), &listed(count), None)
}

fn fail(group: &Group, at: usize, times: usize, now: Instant) {
    let members = group.members();
    for _ in 0..times {
        group.failed(&members.list()[at].endpoint, now);
    }
}

fn healthy(group: &Group) -> Vec<bool> {
    let members = group.members();
    members
        .list()
        .iter()
        .map(|member| member.endpoint.is_healthy())
        .collect()
}

#[test]
fn five_failures_in_a_row_eject_for_longer_each_time() {
    let group = group(3);
    let start = Instant::now() + Duration::from_secs(3600);
    fail(&group, 0, 4, start);
    group.members().list()[0].endpoint.succeeded();
    fail(&group, 0, 4, start);
    assert_eq!(healthy(&group), [true; 3], "a success in between");
    fail(&group, 0, 1, start);
    assert_eq!(healthy(&group), [false, true, true]);
    let mut now = start;
    for seconds in [30, 60, 90, 120] {
        group.stance(now + Duration::from_millis(seconds * 1000 - 1));
        assert_eq!(healthy(&group), [false, true, true], "{seconds}");
        now += Duration::from_secs(seconds);
        group.stance(now);
        assert_eq!(healthy(&group), [true; 3], "{seconds}");
        assert!(group.members().list()[0].endpoint.is_warming(TAKES, now));
        fail(&group, 0, 5, now);
    }
    // After a good stretch, it begins at the beginning.
    now += Duration::from_secs(150);
    group.stance(now);
    assert_eq!(healthy(&group), [true; 3]);
    now += Duration::from_secs(301);
    fail(&group, 0, 5, now);
    group.stance(now + Duration::from_secs(30));
    assert_eq!(healthy(&group), [true; 3]);
    assert_eq!(
        group.members().list()[0]
            .endpoint
            .ejections(Ejection::Consecutive),
        6
    );
}

#[test]
fn at_most_half_are_ejected_and_never_the_last() {
    for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let group = group(count);
        let now = Instant::now();
        for at in 0..count {
            fail(&group, at, 50, now);
        }
        let out = healthy(&group).iter().filter(|healthy| !**healthy).count();
        assert_eq!(out, most, "of {count}");
    }
    let all = Settings {
        ejection: Some(Ejecting {
            most_percent: 100,
            ..Ejecting::default()
        }),
        ..Settings::default()
    };
    let group = Group::new("library", all, &listed(3), None);
    for at in 0..3 {
        fail(&group, at, 50, Instant::now());
    }
    assert_eq!(healthy(&group), [false, false, true]);
}

#[test]
fn below_the_threshold_everybody_is_called() {
    let group = group(4);
    let now = Instant::now();
    let members = group.members();
    for (at, panics) in [(0, false), (1, false), (2, true)] {
        group.checked(&members.list()[at].endpoint, false, "said so", now);
        assert_eq!(group.panics(), panics, "{at}");
    }
    group.checked(&members.list()[2].endpoint, true, "", now);
    assert!(!group.panics());
    assert_eq!(healthy(&group), [false, false, true, true]);
}

#[test]
fn a_check_that_goes_well_ends_an_ejection() {
    let group = group(2);
    let now = Instant::now();
    fail(&group, 0, 5, now);
    assert_eq!(healthy(&group), [false, true]);
    group.checked(&group.members().list()[0].endpoint, true, "", now);
    assert_eq!(healthy(&group), [true, true]);
}

#[test]
fn calls_stay_in_their_zone_while_enough_of_it_is_healthy() {
    let zoned = |at: usize| Listed {
        zone: Some(if at < 5 { "a" } else { "b" }.into()),
        ..Listed::new(uri(at))
    };
    let settings = Settings {
        zone: Some("a".into()),
        ..Settings::default()
    };
    let group = Group::new("library", settings, &(0..10).map(zoned).collect::<Vec<_>>(), None);
    let now = Instant::now();
    let members = group.members();
    let mut stances = vec![group.stance(now)];
    for at in 0..5 {
        group.checked(&members.list()[at].endpoint, false, "", now);
        stances.push(group.stance(now));
    }
    // 4 of 5 are 80 %, enough; 3 of 5 are 60 %, of the 70 % that would be.
    assert_eq!(
        stances,
        [
            Stance::Local(1000),
            Stance::Local(1000),
            Stance::Local(857),
            Stance::Local(571),
            Stance::Local(285),
            Stance::Local(0),
        ]
    );
}

#[test]
fn endpoints_that_stay_keep_their_figures_and_new_ones_warm_up() {
    let group = group(2);
    let now = Instant::now();
    let before = group.members();
    before.list()[1].endpoint.begin();
    group.replace(&[Listed::new(uri(1)), Listed::new(uri(7))], now);
    let after = group.members();
    assert!(Arc::ptr_eq(&before.list()[1].endpoint, &after.list()[0].endpoint));
    assert_eq!(after.list()[0].endpoint.in_flight(), 1);
    assert!(!after.list()[0].endpoint.is_warming(TAKES, now));
    assert!(after.list()[1].endpoint.is_warming(TAKES, now));
    // The same list again changes nothing.
    let generation = group.generation();
    group.replace(&[Listed::new(uri(1)), Listed::new(uri(7))], now);
    assert_eq!(group.generation(), generation);
    // Another plan: the figures go on.
    let other = Settings {
        policy: Policy::RoundRobin,
        ..Settings::default()
    };
    let next = Group::new("library", other, &listed(2), Some(&group));
    assert_eq!(next.members().list()[1].endpoint.in_flight(), 1);
    assert!(!next.members().list()[0].endpoint.is_warming(TAKES, now));
}

#[test]
fn outliers_are_ejected_by_success_and_by_latency() {
    let settings = Settings {
        ejection: Some(Ejecting {
            success_rate: Some(SuccessRate {
                min_calls: 100,
                min_endpoints: 5,
                deviations: 190,
            }),
            latency: Some(SlowAnswers {
                min_calls: 100,
                min_endpoints: 3,
                factor: 300,
            }),
            ..Ejecting::default()
        }),
        ..Settings::default()
    };
    let group = Group::new("library", settings, &listed(10), None);
    let now = Instant::now();
    let act = |failing: u64, slow: u64| {
        for (at, member) in group.members().list().iter().enumerate() {
            let window = member.endpoint.window();
            let bad = if at == 3 { failing } else { 1 };
            window
                .failures
                .fetch_add(bad, std::sync::atomic::Ordering::Relaxed);
            window
                .successes
                .fetch_add(200 - bad, std::sync::atomic::Ordering::Relaxed);
            let micros = if at == 4 { slow } else { 1_000 };
            window
                .micros
                .fetch_add(200 * micros, std::sync::atomic::Ordering::Relaxed);
            window
                .answers
                .fetch_add(200, std::sync::atomic::Ordering::Relaxed);
        }
        group.eject_outliers(now);
    };
    act(1, 2_900);
    assert_eq!(healthy(&group), [true; 10]);
    act(100, 3_100);
    let out: Vec<usize> = healthy(&group)
        .iter()
        .enumerate()
        .filter(|(_, healthy)| !**healthy)
        .map(|(at, _)| at)
        .collect();
    assert_eq!(out, [3, 4]);
    let members = group.members();
    assert_eq!(members.list()[3].endpoint.ejections(Ejection::SuccessRate), 1);
    assert_eq!(members.list()[4].endpoint.ejections(Ejection::Latency), 1);
}
