//! What was proven before, so that it is not proven again for each call: bounded, for one worker.

use std::mem;

use ahash::AHashMap;
use aws_lc_rs::digest;

/// The digest of a credential. What is kept is no secret.
pub(super) type Fingerprint = [u8; 32];

/// The SHA-256 digest of a credential.
pub(super) fn fingerprint(credential: &[u8]) -> Fingerprint {
    let mut print = [0; 32];
    print.copy_from_slice(digest::digest(&digest::SHA256, credential).as_ref());
    print
}

/// Entries of one of the two halves: with both full, a few MiB for each worker. Not measured.
const MAX_ENTRIES: usize = 4096;

/// Two halves: new entries go into the young one; when it is full it becomes the old one, and what was in that is gone
/// unless it was used since.
#[derive(Debug)]
pub(super) struct Cache<T> {
    young: AHashMap<Fingerprint, T>,
    old: AHashMap<Fingerprint, T>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            young: AHashMap::new(),
            old: AHashMap::new(),
        }
    }
}

impl<T: Clone> Cache<T> {
    /// What is known of a credential, if it still `holds`; what does not is forgotten.
    pub(super) fn find(&mut self, print: &Fingerprint, holds: impl Fn(&T) -> bool) -> Option<T> {
        if let Some(found) = self.young.get(print) {
            if holds(found) {
                return Some(found.clone());
            }
            self.young.remove(print);
            return None;
        }
        let found = self.old.remove(print).filter(|found| holds(found))?;
        self.put(*print, found.clone());
        Some(found)
    }

    /// Remembers what was proven.
    pub(super) fn put(&mut self, print: Fingerprint, proven: T) {
        if self.young.len() >= MAX_ENTRIES {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(print, proven);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(number: usize) -> Fingerprint {
        fingerprint(&number.to_be_bytes())
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let mut cache = Cache::default();
        for number in 0..MAX_ENTRIES * 4 {
            cache.put(print(number), number);
            assert_eq!(cache.find(&print(0), |_| true), Some(0), "used all the time");
        }
        assert!(cache.young.len() + cache.old.len() <= 2 * MAX_ENTRIES);
        assert_eq!(cache.find(&print(1), |_| true), None, "not used for long");
    }

    #[test]
    fn what_does_not_hold_is_forgotten() {
        let mut cache = Cache::default();
        cache.put(print(1), 1);
        assert_eq!(cache.find(&print(1), |_| false), None);
        assert_eq!(cache.find(&print(1), |_| true), None);
    }
}
