//! What a thread keeps between messages: what it learned about each plan, and room to work in.
//!
//! Nothing of it is shared, so that cores do not fight over it.

use std::cell::RefCell;

use super::plan::{Message, Plan};

/// Plans of which one thread remembers something: more than a gateway has in use at once.
const REMEMBERED: usize = 64;

thread_local! {
    static WORKER: RefCell<Worker> = RefCell::new(Worker::default());
}

#[derive(Default)]
struct Worker {
    /// The plan used last is the first.
    learned: Vec<Learned>,
    scratch: Scratch,
}

/// What was learned from the messages of one plan.
#[derive(Debug)]
pub(super) struct Learned {
    serial: u64,
    /// For each spelling of each message, the spelling that came after it last time.
    pub(super) successors: Vec<u16>,
    /// For each field, the width of its length last time.
    pub(super) widths: Vec<u8>,
}

impl Learned {
    /// Before the first message, names are expected in the order of the numbers.
    fn new(plan: &Plan) -> Self {
        let mut successors = Vec::with_capacity(plan.rows);
        for message in &plan.messages {
            let last = message.fields.len().saturating_sub(1);
            let rows = 0..=message.spellings.len();
            successors.extend(rows.map(|row| u16::try_from(row.min(last)).unwrap_or_default()));
        }
        Self {
            serial: plan.serial,
            successors,
            widths: vec![1; plan.hints],
        }
    }
}

/// Buffers that keep their allocation.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    bits: Vec<u64>,
    pub(super) text: Vec<u8>,
    pub(super) keys: Keys,
}

/// Runs with what this thread knows of a plan.
pub(super) fn with<T>(plan: &Plan, run: impl FnOnce(&mut Learned, &mut Scratch) -> T) -> T {
    WORKER.with_borrow_mut(|worker| {
        match worker
            .learned
            .iter()
            .position(|learned| learned.serial == plan.serial)
        {
            Some(0) => {}
            Some(at) => worker.learned.swap(0, at),
            None => {
                worker.learned.truncate(REMEMBERED - 1);
                worker.learned.push(Learned::new(plan));
                let last = worker.learned.len() - 1;
                worker.learned.swap(0, last);
            }
        }
        worker.scratch.bits.clear();
        worker.scratch.keys.clear();
        let Worker { learned, scratch } = worker;
        run(&mut learned[0], scratch)
    })
}

/// The bits of one message that are set: in a register, or in the scratch space where they do not fit.
#[derive(Debug)]
pub(super) struct Seen {
    low: u64,
    /// Where the words beyond the first start.
    base: usize,
}

impl Seen {
    #[inline]
    pub(super) fn new(message: &Message, scratch: &mut Scratch) -> Self {
        let base = scratch.bits.len();
        if message.bits > 64 {
            scratch.bits.resize(base + message.bits / 64, 0);
        }
        Self { low: 0, base }
    }

    /// Gives the room back that `new` took.
    #[inline]
    pub(super) fn leave(self, scratch: &mut Scratch) {
        scratch.bits.truncate(self.base);
    }

    /// Sets a bit; whether it was set before.
    #[inline]
    pub(super) fn mark(&mut self, bit: usize, scratch: &mut Scratch) -> bool {
        let mask = 1 << (bit % 64);
        let word = if bit < 64 {
            &mut self.low
        } else {
            &mut scratch.bits[self.base + bit / 64 - 1]
        };
        let before = *word & mask != 0;
        *word |= mask;
        before
    }

    /// The bits from `64 * index`.
    #[inline]
    pub(super) fn word(&self, index: usize, scratch: &Scratch) -> u64 {
        if index == 0 {
            self.low
        } else {
            scratch.bits[self.base + index - 1]
        }
    }
}

/// The keys of the map that is being read or written, and of those around it.
#[derive(Debug, Default)]
pub(super) struct Keys {
    seeds: ahash::RandomState,
    /// The hash of each key, and where it is.
    known: Vec<(u64, usize, usize)>,
}

/// Maps with more keys than this find them by a table.
const FEW: usize = 16;

/// The keys of one map.
#[derive(Debug)]
pub(super) struct KeySet {
    base: usize,
    /// Indexes into `known` from `base`, plus one; empty while there are few keys.
    table: Vec<u32>,
}

impl Keys {
    fn clear(&mut self) {
        self.known.clear();
    }

    pub(super) fn open(&self) -> KeySet {
        KeySet {
            base: self.known.len(),
            table: Vec::new(),
        }
    }
}

impl KeySet {
    /// Adds a key that stands at a place; whether it was there before. `at` gives the bytes of a place.
    pub(super) fn insert<'t>(
        &mut self,
        keys: &mut Keys,
        place: (usize, usize),
        at: impl Fn((usize, usize)) -> &'t [u8],
    ) -> bool {
        let key = at(place);
        let hash = keys.seeds.hash_one(key);
        let known = &keys.known[self.base..];
        let same = |entry: &(u64, usize, usize)| entry.0 == hash && at((entry.1, entry.2)) == key;
        if known.len() < FEW {
            if known.iter().any(same) {
                return true;
            }
        } else {
            if self.table.len() < known.len() * 2 {
                self.rebuild(known);
            }
            let mask = self.table.len() - 1;
            let mut slot = low(hash) & mask;
            while let Some(entry) = self.table[slot]
                .checked_sub(1)
                .and_then(|index| known.get(index as usize))
            {
                if same(entry) {
                    return true;
                }
                slot = (slot + 1) & mask;
            }
            self.table[slot] = u32::try_from(known.len() + 1).unwrap_or_default();
        }
        keys.known.push((hash, place.0, place.1));
        false
    }

    #[cold]
    fn rebuild(&mut self, known: &[(u64, usize, usize)]) {
        let size = known.len() * 4;
        let size = size.next_power_of_two();
        self.table.clear();
        self.table.resize(size, 0);
        for (entry, index) in known.iter().zip(1..) {
            let mut slot = low(entry.0) & (size - 1);
            while self.table[slot] != 0 {
                slot = (slot + 1) & (size - 1);
            }
            self.table[slot] = index;
        }
    }

    /// Forgets the keys.
    pub(super) fn close(self, keys: &mut Keys) {
        keys.known.truncate(self.base);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a hash may lose bits")]
fn low(hash: u64) -> usize {
    hash as usize
}
