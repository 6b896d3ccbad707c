//! Names to indexes: an open-addressing table over a hash of length, first and last bytes.
//!
//! The names come from a descriptor, never from a peer, so a hash that a peer could attack does no harm: a peer only
//! looks names up.

/// An immutable set of names, each with the index under which it was given.
#[derive(Debug)]
pub(super) struct Names {
    entries: Box<[(Box<[u8]>, u16)]>,
    /// Indexes into `entries`, [`FREE`] where there is none; at least twice as many as entries, a power of two.
    slots: Box<[u16]>,
}

const FREE: u16 = u16::MAX;

impl Names {
    /// Of two equal names the first one counts. More than 65,534 names do not fit.
    pub(super) fn new(names: impl IntoIterator<Item = (Box<[u8]>, u16)>) -> Option<Self> {
        let given: Vec<_> = names.into_iter().collect();
        let size = (given.len() * 2).next_power_of_two().max(2);
        let mut slots = vec![FREE; size].into_boxed_slice();
        let mut entries: Vec<(Box<[u8]>, u16)> = Vec::with_capacity(given.len());
        for (name, index) in given {
            let mut slot = hash(&name) & (size - 1);
            let twice = loop {
                match entries.get(slots[slot] as usize) {
                    Some(entry) if entry.0 == name => break true,
                    Some(_) => slot = (slot + 1) & (size - 1),
                    None => break false,
                }
            };
            if !twice {
                slots[slot] = u16::try_from(entries.len()).ok().filter(|&index| index != FREE)?;
                entries.push((name, index));
            }
        }
        Some(Self {
            entries: entries.into(),
            slots,
        })
    }

    /// The index that was given with a name.
    #[inline]
    pub(super) fn find(&self, name: &[u8]) -> Option<u16> {
        let mask = self.slots.len() - 1;
        let mut slot = hash(name) & mask;
        loop {
            let entry = self.entries.get(self.slots[slot & mask] as usize)?;
            if &*entry.0 == name {
                return Some(entry.1);
            }
            slot += 1;
        }
    }
}

#[inline]
fn hash(name: &[u8]) -> usize {
    let (first, last) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
        _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            (Some(first), Some(last)) => (
                u64::from(u32::from_le_bytes(*first)),
                u64::from(u32::from_le_bytes(*last)),
            ),
            _ => (name.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), 0),
        },
    };
    let mixed = (first ^ last.rotate_left(29) ^ name.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn every_name_is_found_and_no_other() {
        let name = |n: usize| "abcdefghijklmnopqrstuvwxyz".repeat(2).as_bytes()[n % 7..n].into();
        let names = Names::new((0..40).map(|n| (name(n + 7), u16::try_from(n).unwrap()))).unwrap();
        for n in 0..40 {
            assert_eq!(names.find(&name(n + 7)), Some(u16::try_from(n).unwrap()));
        }
        assert_eq!(names.find(b""), Some(0).filter(|_| name(7).is_empty()));
        assert_eq!(names.find(b"zzz"), None);
    }

    #[test]
    fn the_first_of_two_equal_names_counts() {
        let names = Names::new([(b"a"[..].into(), 1), (b"a"[..].into(), 2)]).unwrap();
        assert_eq!(names.find(b"a"), Some(1));
    }
}
