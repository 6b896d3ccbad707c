//! The table by which keys find their endpoint: every endpoint has its share of the slots, and few slots change hands
//! when an endpoint comes or goes.
//!
//! Source: Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", section 3.4.

use crate::balance::endpoint::Endpoint;
use crate::balance::hash;

/// Slots: a prime, and at least a hundred for each endpoint of a set of 650.
pub(super) const SLOTS: usize = 65_537;

/// The index of the endpoint for each slot; empty for no endpoint.
pub(super) fn table<'e>(endpoints: impl ExactSizeIterator<Item = (&'e Endpoint, u32)>) -> Box<[u32]> {
    struct Turn {
        at: u32,
        next: usize,
        skip: usize,
        weight: u64,
        /// Slots it may take by now, less those that it has, in units of the largest weight.
        credit: u64,
    }

    let mut turns: Vec<Turn> = endpoints
        .take(SLOTS)
        .zip(0..)
        .map(|((endpoint, weight), at)| Turn {
            at,
            next: below(endpoint.fingerprint(), SLOTS),
            skip: below(hash::stir(endpoint.fingerprint() ^ 0x6d61_676c_6576), SLOTS - 1) + 1,
            weight: u64::from(weight.max(1)),
            credit: 0,
        })
        .collect();
    let Some(heaviest) = turns.iter().map(|turn| turn.weight).max() else {
        return Box::default();
    };
    const FREE: u32 = u32::MAX;
    let mut table = vec![FREE; SLOTS];
    let mut left = SLOTS;
    while left > 0 {
        for turn in &mut turns {
            turn.credit += turn.weight;
            if turn.credit < heaviest || left == 0 {
                continue;
            }
            turn.credit -= heaviest;
            // SLOTS is prime, so that every walk comes by every slot, and one of them is free.
            while let Some(slot) = table.get_mut(turn.next) {
                turn.next = (turn.next + turn.skip) % SLOTS;
                if *slot == FREE {
                    *slot = turn.at;
                    left -= 1;
                    break;
                }
            }
        }
    }
    table.into()
}

/// The slot of a key.
pub(super) fn slot(key: u64) -> usize {
    below(key, SLOTS)
}

fn below(hash: u64, bound: usize) -> usize {
    usize::try_from(hash % bound as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(names: &[&str]) -> Vec<Endpoint> {
        let uri = |name: &&str| format!("http://{name}:80").parse().unwrap();
        names.iter().map(uri).map(Endpoint::new).collect()
    }

    fn shares(table: &[u32], of: usize) -> Vec<usize> {
        let mut shares = vec![0; of];
        for at in table {
            shares[*at as usize] += 1;
        }
        shares
    }

    #[test]
    fn shares_are_even_and_few_slots_move() {
        let ten: Vec<String> = (0..10).map(|n| format!("h{n}")).collect();
        let names: Vec<&str> = ten.iter().map(String::as_str).collect();
        let all = endpoints(&names);
        let before = table(all.iter().map(|endpoint| (endpoint, 1)));
        for share in shares(&before, 10) {
            assert!((6_500..=6_600).contains(&share), "{share}");
        }
        // Without the last one, its slots are shared out, and few others change hands.
        let after = table(all[..9].iter().map(|endpoint| (endpoint, 1)));
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(a, b)| **a != 9 && a != b)
            .count();
        assert!(moved < SLOTS / 20, "{moved} of {SLOTS} moved without need");
    }

    #[test]
    fn weights_are_shares() {
        let all = endpoints(&["a", "b"]);
        let weighted = table(all.iter().zip([3, 1]));
        let shares = shares(&weighted, 2);
        assert!((48_000..=50_000).contains(&shares[0]), "{shares:?}");
        assert!(table(std::iter::empty::<(&Endpoint, u32)>()).is_empty());
    }
}
