//! Pickers over members without a socket.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::balance::endpoint::{EJECTED, Endpoint};
use crate::balance::hash;
use crate::balance::settings::HashOn;

fn members(policy: &Policy, weights: &[u32]) -> Members {
    let member = |(at, weight): (usize, &u32)| Member {
        endpoint: Arc::new(Endpoint::new(format!("http://h{at}:80").parse().unwrap())),
        weight: *weight,
        zone: None,
        is_local: false,
    };
    Members::new(1, weights.iter().enumerate().map(member).collect(), policy)
}

fn field<'m>(members: &'m Members, tried: &'m [u64]) -> Field<'m> {
    Field {
        members,
        tried,
        panics: false,
        zones: Zones::Every,
        slow_start: Duration::from_secs(30),
        now: Instant::now(),
    }
}

/// How often each endpoint is picked.
fn shares(policy: &Policy, field: &Field<'_>, picks: usize) -> Vec<usize> {
    let picker = picker(policy);
    let mut shares = vec![0; field.list().len()];
    for number in 0..picks {
        let key = hash::text(&number.to_string());
        if let Some(at) = picker.pick(field, Some(key)) {
            shares[at] += 1;
        }
    }
    shares
}

fn hashing() -> Policy {
    Policy::Hash(HashOn::Claim("sub".to_owned()))
}

fn every_policy() -> [Policy; 4] {
    [
        Policy::RoundRobin,
        Policy::LeastRequest,
        Policy::PeakEwma,
        hashing(),
    ]
}

#[test]
fn calls_are_spread_by_weight() {
    for policy in every_policy() {
        for (weights, expected) in [
            (vec![1, 1, 1, 1], vec![2_000, 2_000, 2_000, 2_000]),
            (vec![3, 1], vec![6_000, 2_000]),
        ] {
            let members = members(&policy, &weights);
            let slack = 250;
            let shares = shares(&policy, &field(&members, &[]), 8_000);
            for (share, expected) in shares.iter().zip(expected) {
                assert!(
                    share.abs_diff(expected) <= slack,
                    "{policy:?} {weights:?}: {shares:?}"
                );
            }
        }
    }
}

#[test]
fn who_is_ejected_or_was_tried_is_left_out_and_the_others_share_alike() {
    for policy in every_policy() {
        let members = members(&policy, &[1, 1, 1, 1]);
        members.list[1].endpoint.set(EJECTED);
        let tried = [members.list[2].endpoint.number()];
        let picked = shares(&policy, &field(&members, &tried), 4_000);
        assert_eq!((picked[1], picked[2]), (0, 0), "{policy:?}");
        assert!(picked[0].abs_diff(picked[3]) < 300, "{policy:?}: {picked:?}");
        // In panic, the ejected one takes calls too.
        let panicking = Field {
            panics: true,
            ..field(&members, &tried)
        };
        assert!(shares(&policy, &panicking, 400)[1] > 50, "{policy:?}");
        // Nobody is left: nobody is picked.
        let all: Vec<u64> = members
            .list
            .iter()
            .map(|member| member.endpoint.number())
            .collect();
        assert_eq!(shares(&policy, &field(&members, &all), 10), [0; 4], "{policy:?}");
    }
}

#[test]
fn who_warms_up_takes_little_at_first() {
    for policy in every_policy() {
        let members = members(&policy, &[1, 1, 1, 1]);
        let now = Instant::now();
        members.list[0].endpoint.warm_up(millis(now));
        let at = |seconds| Field {
            now: now + Duration::from_secs(seconds),
            ..field(&members, &[])
        };
        let share = |seconds| shares(&policy, &at(seconds), 8_000)[0];
        let (cold, half, warm) = (share(0), share(15), share(30));
        assert!((100..500).contains(&cold), "{policy:?}: {cold}");
        assert!((700..1_500).contains(&half), "{policy:?}: {half}");
        assert!((1_700..2_300).contains(&warm), "{policy:?}: {warm}");
    }
}

#[test]
fn the_less_loaded_of_two_is_taken() {
    for policy in [Policy::LeastRequest, Policy::PeakEwma] {
        let members = members(&policy, &[1, 1]);
        members.list[0].endpoint.begin();
        assert_eq!(
            shares(&policy, &field(&members, &[]), 100),
            [0, 100],
            "{policy:?}"
        );
    }
}

#[test]
fn the_slow_one_takes_less_by_latency() {
    let members = members(&Policy::PeakEwma, &[1, 1]);
    let now = Instant::now();
    members.list[0].endpoint.observe(Duration::from_millis(100), now);
    members.list[1].endpoint.observe(Duration::from_millis(10), now);
    assert_eq!(shares(&Policy::PeakEwma, &field(&members, &[]), 100), [0, 100]);
    // One slow answer counts at once; many fast ones bring it down again, in time.
    for tick in 0..100 {
        let later = now + Duration::from_secs(tick);
        members.list[0].endpoint.observe(Duration::from_millis(5), later);
        members.list[1].endpoint.observe(Duration::from_millis(10), later);
    }
    let later = Field {
        now: now + Duration::from_secs(100),
        ..field(&members, &[])
    };
    assert_eq!(shares(&Policy::PeakEwma, &later, 100), [100, 0]);
}

#[test]
fn a_key_stays_where_it_is() {
    let policy = hashing();
    let all = members(&policy, &[1; 5]);
    let picker = picker(&policy);
    let find = |field: &Field<'_>| -> HashMap<u64, usize> {
        let keys = (0..1_000).map(|number: u32| hash::text(&number.to_string()));
        keys.map(|key| (key, picker.pick(field, Some(key)).unwrap()))
            .collect()
    };
    let before = find(&field(&all, &[]));
    assert_eq!(before, find(&field(&all, &[])));
    // Without one of them, only its keys move, and not all to the same one.
    all.list[2].endpoint.set(EJECTED);
    let after = find(&field(&all, &[]));
    let mut moved_to = [0; 5];
    for (key, at) in &before {
        if *at == 2 {
            moved_to[after[key]] += 1;
        } else {
            assert_eq!(after[key], *at);
        }
    }
    assert!(
        moved_to.iter().filter(|count| **count > 20).count() >= 4,
        "{moved_to:?}"
    );
}

#[test]
fn a_hot_key_spills_over_at_its_bound() {
    let policy = hashing();
    let members = members(&policy, &[1; 4]);
    let field = field(&members, &[]);
    let picker = picker(&policy);
    let mut shares = [0_usize; 4];
    for _ in 0..100 {
        let at = picker.pick(&field, Some(7)).unwrap();
        members.list[at].endpoint.begin();
        shares[at] += 1;
    }
    // ceil(1.25 * 100 / 4)
    assert!(shares.iter().all(|share| *share <= 32), "{shares:?}");
    assert!(shares.iter().any(|share| *share >= 30), "{shares:?}");
}

#[test]
fn zones_are_kept_apart() {
    for policy in every_policy() {
        let mut list = members(&policy, &[1; 4]).list;
        list[0].is_local = true;
        list[1].is_local = true;
        let members = Members::new(1, list, &policy);
        for (zones, expected) in [
            (Zones::Local, [true, true, false, false]),
            (Zones::Other, [false, false, true, true]),
        ] {
            let near = Field {
                zones,
                ..field(&members, &[])
            };
            let picked = shares(&policy, &near, 400)
                .iter()
                .map(|share| *share > 0)
                .collect::<Vec<_>>();
            assert_eq!(picked, expected, "{policy:?} {zones:?}");
        }
    }
}
