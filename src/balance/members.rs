//! The endpoints of a backend at one time, with what pickers want to have computed before a call comes.

use std::sync::Arc;

use crate::balance::endpoint::{Endpoint, Listed};
use crate::balance::maglev;
use crate::balance::settings::Policy;
use crate::upstream::dice;

/// The longest schedule of a round robin by weight. Weights beyond it are rounded.
const LONGEST_SCHEDULE: u64 = 4096;

/// An endpoint with its part in the set.
#[derive(Clone, Debug)]
pub struct Member {
    /// The shared figures.
    pub endpoint: Arc<Endpoint>,
    /// Its weight, at least 1.
    pub weight: u32,
    /// Where it runs.
    pub zone: Option<Arc<str>>,
    /// Whether it runs where the gateway runs.
    pub is_local: bool,
}

/// The endpoints of a backend, which do not change.
#[derive(Debug, Default)]
pub struct Members {
    /// Counts up with each set.
    pub(super) generation: u64,
    pub(super) list: Vec<Member>,
    /// Sums of the weights up to each member; nothing where all weigh the same.
    sums: Option<Box<[u64]>>,
    /// Who takes one call after the other, for a round robin.
    pub(super) schedule: Box<[u32]>,
    /// Who takes which slot, for hashing.
    pub(super) table: Box<[u32]>,
    pub(super) total_weight: u64,
}

impl Members {
    pub(super) fn new(generation: u64, list: Vec<Member>, policy: &Policy) -> Self {
        let alike = list.windows(2).all(|pair| pair[0].weight == pair[1].weight);
        let sums = (!alike).then(|| {
            list.iter()
                .scan(0, |sum, member| {
                    *sum += u64::from(member.weight);
                    Some(*sum)
                })
                .collect()
        });
        let schedule = match policy {
            Policy::RoundRobin => schedule(&list),
            Policy::LeastRequest | Policy::PeakEwma | Policy::Hash(_) => Box::default(),
        };
        let table = match policy {
            Policy::Hash(_) => maglev::table(list.iter().map(|member| (&*member.endpoint, member.weight))),
            Policy::RoundRobin | Policy::LeastRequest | Policy::PeakEwma => Box::default(),
        };
        let total_weight = list.iter().map(|member| u64::from(member.weight)).sum();
        Self {
            generation,
            list,
            sums,
            schedule,
            table,
            total_weight,
        }
    }

    /// The members, in order.
    pub fn list(&self) -> &[Member] {
        &self.list
    }

    /// The members as they are listed.
    pub fn listed(&self) -> impl Iterator<Item = Listed> + '_ {
        self.list.iter().map(|member| Listed {
            uri: member.endpoint.uri.clone(),
            weight: member.weight,
            zone: member.zone.clone(),
        })
    }

    /// The index of a member at random, by weight.
    pub(super) fn draw(&self) -> usize {
        match &self.sums {
            None => dice::below(self.list.len()),
            Some(sums) => {
                let total = usize::try_from(self.total_weight).unwrap_or(usize::MAX);
                let drawn = dice::below(total) as u64;
                sums.partition_point(|sum| *sum <= drawn)
            }
        }
    }
}

/// Smooth weighted round robin, for one turn around: an endpoint's calls are spread over the turn.
///
/// Source: nginx's `ngx_http_upstream_get_peer`.
fn schedule(list: &[Member]) -> Box<[u32]> {
    let divisor = list
        .iter()
        .fold(0, |divisor, member| gcd(divisor, u64::from(member.weight)))
        .max(1);
    let mut weights: Vec<u64> = list
        .iter()
        .map(|member| u64::from(member.weight) / divisor)
        .collect();
    let total: u64 = weights.iter().sum();
    if total > LONGEST_SCHEDULE {
        for weight in &mut weights {
            *weight = (*weight * LONGEST_SCHEDULE / total).max(1);
        }
    }
    let turns: u64 = weights.iter().sum();
    let mut credits = vec![0_i128; weights.len()];
    let mut order = Vec::new();
    for _ in 0..turns {
        for (credit, weight) in credits.iter_mut().zip(&weights) {
            *credit += i128::from(*weight);
        }
        let mut best: Option<(usize, i128)> = None;
        for (at, credit) in credits.iter().enumerate() {
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((at, *credit));
            }
        }
        if let Some((at, _)) = best {
            if let Some(credit) = credits.get_mut(at) {
                *credit -= i128::from(turns);
            }
            order.push(u32::try_from(at).unwrap_or(u32::MAX));
        }
    }
    order.into()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(weights: &[u32]) -> Vec<Member> {
        let member = |(at, weight): (usize, &u32)| Member {
            endpoint: Arc::new(Endpoint::new(format!("http://h{at}").parse().unwrap())),
            weight: *weight,
            zone: None,
            is_local: false,
        };
        weights.iter().enumerate().map(member).collect()
    }

    #[test]
    fn a_schedule_is_smooth() {
        for (weights, expected) in [
            (vec![5, 1, 1], vec![0, 0, 1, 0, 2, 0, 0]),
            (vec![10, 20], vec![1, 0, 1]),
            (vec![7, 7, 7], vec![0, 1, 2]),
            (vec![], vec![]),
        ] {
            assert_eq!(*schedule(&members(&weights)), *expected, "{weights:?}");
        }
        let long = schedule(&members(&[1_000_000_007, 1]));
        assert!(long.len() <= 4097 && long.contains(&1), "{}", long.len());
    }

    #[test]
    fn draws_go_by_weight() {
        let members = Members::new(0, members(&[1, 3]), &Policy::LeastRequest);
        let second = (0..10_000).filter(|_| members.draw() == 1).count();
        assert!((7_200..7_800).contains(&second), "{second}");
    }
}
