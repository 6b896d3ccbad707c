//! Counters by key, shared by all workers: sharded, so that two calls rarely meet, and bounded, so that a flood of keys
//! costs no more memory than the bound.
//!
//! A new key looks at a few others: those that rest, of which nothing is to be remembered, go. When a shard is full and
//! none of them rests, the one that has the least to lose goes, and its owner begins anew: a flood of made-up keys can
//! cost some owners of few uses their count, and never lets in more than `burst` for each key that it pushes out.

use std::fmt;
use std::sync::Arc;

use ahash::{AHashMap, RandomState};
use parking_lot::Mutex;

use super::Now;
use super::counter::Verdicts;

/// Far more than there are workers, so that they seldom wait for each other. Fewer keys than these have one, where all of
/// them fit.
const SHARDS: usize = 64;
/// How many others a new key looks at.
const LOOKS: usize = 8;

/// What is kept of a key.
pub(super) trait Keep {
    /// Whether it is as if the key had never been there.
    fn rests(&self, now: Now) -> bool;

    /// What would be lost with it, on a scale of its own; `None` for what must not go.
    fn loss(&self, now: Now) -> Option<u128>;
}

/// Counters of one limit.
pub(super) struct Store<T> {
    hasher: RandomState,
    shards: Box<[Mutex<Shard<T>>]>,
    /// Keys in a shard at most.
    most: usize,
}

struct Shard<T> {
    index: AHashMap<Arc<[u8]>, usize>,
    slots: Vec<Slot<T>>,
    /// Where the next look begins.
    hand: usize,
    /// What was decided: here, so that counting it costs no other lock.
    verdicts: Verdicts,
}

struct Slot<T> {
    key: Arc<[u8]>,
    kept: T,
}

impl<T: Keep> Store<T> {
    /// A store of about `most` keys: it is divided among the shards, and rounded up.
    pub(super) fn new(most: usize) -> Self {
        let shard = || {
            Mutex::new(Shard {
                index: AHashMap::new(),
                slots: Vec::new(),
                hand: 0,
                verdicts: Verdicts::default(),
            })
        };
        let shards = if most < SHARDS { 1 } else { SHARDS };
        Self {
            hasher: RandomState::new(),
            shards: (0..shards).map(|_| shard()).collect(),
            most: most.div_ceil(shards).max(1),
        }
    }

    fn shard(&self, key: &[u8]) -> Option<&Mutex<Shard<T>>> {
        let at = self.hasher.hash_one(key) % (self.shards.len().max(1) as u64);
        usize::try_from(at).ok().and_then(|at| self.shards.get(at))
    }

    /// Does something with what is kept of a key, which is made if it is not there. `None` where there is no room for it.
    pub(super) fn with<R>(
        &self,
        key: &[u8],
        now: Now,
        make: impl FnOnce() -> T,
        act: impl FnOnce(&mut T, &mut Verdicts) -> R,
    ) -> Option<R> {
        let mut shard = self.shard(key)?.lock();
        let shard = &mut *shard;
        let verdicts = &mut shard.verdicts;
        if let Some(at) = shard.index.get(key) {
            return shard.slots.get_mut(*at).map(|slot| act(&mut slot.kept, verdicts));
        }
        shard.make_room(now, self.most)?;
        let key: Arc<[u8]> = key.into();
        let mut kept = make();
        let done = act(&mut kept, &mut shard.verdicts);
        shard.index.insert(Arc::clone(&key), shard.slots.len());
        shard.slots.push(Slot { key, kept });
        Some(done)
    }

    /// Does something with what is kept of a key, if it is there.
    pub(super) fn find<R>(&self, key: &[u8], act: impl FnOnce(&mut T, &mut Verdicts) -> R) -> Option<R> {
        let mut shard = self.shard(key)?.lock();
        let shard = &mut *shard;
        let at = shard.index.get(key)?;
        let verdicts = &mut shard.verdicts;
        shard.slots.get_mut(*at).map(|slot| act(&mut slot.kept, verdicts))
    }

    /// Looks at every key, a shard at a time, and drops those that rest.
    pub(super) fn sweep(&self, now: Now, mut each: impl FnMut(&[u8], &mut T)) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let mut at = 0;
            while let Some(slot) = shard.slots.get_mut(at) {
                each(&slot.key, &mut slot.kept);
                if slot.kept.rests(now) {
                    shard.remove(at);
                } else {
                    at += 1;
                }
            }
            shard.give_back_memory();
        }
    }

    /// How often each verdict was given.
    pub(super) fn counted(&self) -> Verdicts {
        let mut sums = Verdicts::default();
        for shard in &self.shards {
            for (sum, count) in sums.iter_mut().zip(shard.lock().verdicts) {
                *sum += count;
            }
        }
        sums
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().slots.len()).sum()
    }
}

impl<T: Keep> Shard<T> {
    fn make_room(&mut self, now: Now, most: usize) -> Option<()> {
        let mut least: Option<(u128, usize)> = None;
        for _ in 0..LOOKS.min(self.slots.len()) {
            if self.hand >= self.slots.len() {
                self.hand = 0;
            }
            let Some(slot) = self.slots.get(self.hand) else {
                break;
            };
            if slot.kept.rests(now) {
                // The last slot takes its place, and is looked at next.
                self.remove(self.hand);
                if least.is_some_and(|(_, at)| at >= self.slots.len()) {
                    least = None;
                }
                continue;
            }
            if let Some(loss) = slot.kept.loss(now)
                && least.is_none_or(|(known, _)| loss < known)
            {
                least = Some((loss, self.hand));
            }
            self.hand += 1;
        }
        if self.slots.len() < most {
            return Some(());
        }
        let (_, at) = least?;
        self.remove(at);
        Some(())
    }

    fn remove(&mut self, at: usize) {
        let gone = self.slots.swap_remove(at);
        self.index.remove(&gone.key);
        if let Some(moved) = self.slots.get(at)
            && let Some(place) = self.index.get_mut(&moved.key)
        {
            *place = at;
        }
    }

    /// What a flood has left behind is given back.
    fn give_back_memory(&mut self) {
        if self.slots.capacity() > 64 && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.len() * 2);
            self.index.shrink_to(self.slots.len() * 2);
        }
    }
}

impl<T> fmt::Debug for Store<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that rests from an instant on.
    struct Until(u64, bool);

    impl Keep for Until {
        fn rests(&self, now: Now) -> bool {
            self.0 <= now.nanos
        }

        fn loss(&self, _now: Now) -> Option<u128> {
            self.1.then_some(self.0.into())
        }
    }

    fn at(nanos: u64) -> Now {
        Now { nanos, unix: 0 }
    }

    #[test]
    fn a_flood_of_keys_is_bounded_and_who_is_busiest_stays() {
        let store = Store::new(1000);
        store
            .with(b"busy", at(0), || Until(u64::MAX, true), |_, _| ())
            .unwrap();
        for number in 0..200_000_u64 {
            store
                .with(
                    &number.to_be_bytes(),
                    at(0),
                    || Until(10 + number, true),
                    |_, _| (),
                )
                .unwrap();
        }
        assert!(store.len() <= 1000 + SHARDS, "{}", store.len());
        assert_eq!(store.find(b"busy", |kept, _| kept.0), Some(u64::MAX));
    }

    #[test]
    fn those_that_rest_go_as_others_come() {
        let store = Store::new(100_000);
        for number in 0..50_000_u64 {
            store
                .with(
                    &number.to_be_bytes(),
                    at(number),
                    || Until(number + 100, true),
                    |_, _| (),
                )
                .unwrap();
        }
        assert!(store.len() < 2_000, "{}", store.len());
        store.sweep(at(u64::MAX), |_, _| ());
        assert_eq!(store.len(), 0);
        let capacities: usize = store
            .shards
            .iter()
            .map(|shard| shard.lock().slots.capacity())
            .sum();
        assert!(capacities <= 64 * SHARDS, "{capacities}");
    }

    #[test]
    fn what_must_not_go_stays_and_new_keys_find_no_room() {
        let store = Store::new(SHARDS * 2);
        let refused = (0..10_000_u64)
            .filter(|number| {
                store
                    .with(&number.to_be_bytes(), at(0), || Until(1, false), |_, _| ())
                    .is_none()
            })
            .count();
        assert_eq!(refused + store.len(), 10_000);
        assert!(store.len() <= SHARDS * 2);
        assert_eq!(
            store.with(b"new", at(1), || Until(2, false), |kept, _| kept.0),
            Some(2)
        );
    }

    #[test]
    fn a_key_finds_what_is_its_own_whatever_went() {
        let store = Store::new(SHARDS * 50);
        for round in 0..20_u64 {
            for number in 0..2_000_u64 {
                let until = if number % 3 == 0 { round } else { u64::MAX };
                store.with(
                    &number.to_be_bytes(),
                    at(round),
                    || Until(until, true),
                    |kept, _| kept.0 = until,
                );
            }
            store.sweep(at(round), |_, _| ());
            for number in (0..2_000_u64).filter(|number| number % 3 != 0) {
                assert_eq!(
                    store.find(&number.to_be_bytes(), |kept, _| kept.0),
                    Some(u64::MAX)
                );
            }
        }
    }
}
