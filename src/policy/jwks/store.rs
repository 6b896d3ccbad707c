//! The fetched keys of one issuer, between the task that fetches them and the calls that need them.
//!
//! Calls read a snapshot. A call whose key is not among them may have them fetched once more and waits for it; how often
//! that happens is limited for all calls together, and a name that was looked for in vain is not looked for again soon.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::Pace;
use super::set::KeySet;

/// How long a call waits for keys. A client's patience is longer, and a fetch mostly takes a tenth of it.
const WAIT: Duration = Duration::from_secs(2);
/// Names that were looked for in vain; the memory of tokens that make names up. 128 KiB at most.
const MAX_MISSING: usize = 512;
/// How long a name counts as not there.
const MISSING_FOR: Duration = Duration::from_secs(300);

/// The keys of one issuer, as they were fetched last.
#[derive(Debug)]
pub struct Store {
    fetched: ArcSwapOption<Fetched>,
    /// Counts up when a fetch ends, well or not.
    ended: watch::Sender<u64>,
    wanted: Notify,
    state: Mutex<State>,
    pace: Pace,
}

#[derive(Debug)]
struct Fetched {
    keys: Arc<KeySet>,
    text: Vec<u8>,
    generation: u64,
    at: Instant,
}

#[derive(Debug)]
struct State {
    /// Whether a fetch runs, or is asked for.
    under_way: bool,
    /// When a call last asked for a fetch, or a fetch began.
    last: Option<Instant>,
    missing: AHashMap<String, Instant>,
}

impl Store {
    /// A store that waits for its first keys.
    pub fn new(pace: Pace) -> Self {
        Self {
            fetched: ArcSwapOption::empty(),
            ended: watch::Sender::new(0),
            wanted: Notify::new(),
            state: Mutex::new(State {
                under_way: true,
                last: None,
                missing: AHashMap::new(),
            }),
            pace,
        }
    }

    /// The keys and their generation, unless they are too old to be believed.
    pub fn now(&self) -> Option<(Arc<KeySet>, u64)> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref()?;
        (fetched.at.elapsed() < self.pace.keep).then(|| (Arc::clone(&fetched.keys), fetched.generation))
    }

    /// The generation of the keys: other keys, another number.
    pub fn generation(&self) -> Option<u64> {
        let fetched = self.fetched.load();
        let fetched = fetched.as_ref()?;
        (fetched.at.elapsed() < self.pace.keep).then_some(fetched.generation)
    }

    /// Waits for a fetch that may bring what is missing: the key of this name, or any key at all.
    ///
    /// Answers whether there was one; if not, looking again is of no use.
    ///
    /// # Cancel safety
    /// The fetch goes on.
    pub async fn refetched(&self, kid: Option<&str>) -> bool {
        let mut ended = self.ended.subscribe();
        let asked = {
            let now = Instant::now();
            let mut state = self.state.lock();
            let in_vain = kid.is_some_and(|kid| {
                let since = state.missing.get(kid);
                since.is_some_and(|since| now.duration_since(*since) < MISSING_FOR)
            });
            let recent = state
                .last
                .is_some_and(|last| now.duration_since(last) < self.pace.between_asked);
            match (in_vain, state.under_way, recent) {
                (true, _, _) | (false, false, true) => return false,
                (false, true, _) => false,
                (false, false, false) => {
                    state.under_way = true;
                    state.last = Some(now);
                    true
                }
            }
        };
        if asked {
            self.wanted.notify_one();
        }
        matches!(timeout(WAIT, ended.changed()).await, Ok(Ok(())))
    }

    /// Remembers that a key is not there, right after keys were fetched.
    pub fn missing(&self, kid: &str) {
        let now = Instant::now();
        let mut state = self.state.lock();
        if state.missing.len() >= MAX_MISSING {
            state
                .missing
                .retain(|_, since| now.duration_since(*since) < MISSING_FOR);
        }
        if state.missing.len() < MAX_MISSING {
            state.missing.insert(kid.to_owned(), now);
        }
    }

    /// Resolves when a call asks for a fetch.
    ///
    /// # Cancel safety
    /// A word that was given before is still heard.
    pub(super) async fn asked(&self) {
        self.wanted.notified().await;
    }

    /// A fetch begins.
    pub(in crate::policy) fn begin(&self) {
        let mut state = self.state.lock();
        state.under_way = true;
        state.last = Some(Instant::now());
    }

    /// A fetch brought this; the same text as before is the same generation.
    pub(in crate::policy) fn put(&self, keys: KeySet, text: &[u8]) {
        let before = self.fetched.load();
        let (keys, generation) = match before.as_ref() {
            Some(before) if before.text == text => (Arc::clone(&before.keys), before.generation),
            Some(before) => (Arc::new(keys), before.generation + 1),
            None => (Arc::new(keys), 1),
        };
        self.fetched.store(Some(Arc::new(Fetched {
            keys,
            text: text.to_owned(),
            generation,
            at: Instant::now(),
        })));
    }

    /// A fetch has ended, well or not.
    pub(in crate::policy) fn end(&self) {
        self.state.lock().under_way = false;
        self.ended.send_modify(|count| *count += 1);
    }
}
