//! The counters of the process: what stays when the plan changes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Counter, Limit, Now, Room};
use crate::policy::time::unix_now;

/// How often those who have used nothing lately are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// Every counter in use, by the limit that it is of, and the clock that they go by.
#[derive(Debug)]
pub struct Book {
    epoch: Instant,
    counters: Mutex<HashMap<Limit, Arc<Counter>>>,
    rooms: Mutex<HashMap<String, Arc<Room>>>,
}

impl Default for Book {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            counters: Mutex::default(),
            rooms: Mutex::default(),
        }
    }
}

impl Book {
    /// An instant on both clocks; the calendar's is looked at where it is asked for.
    pub(super) fn now(&self, now: Instant, by_calendar: bool) -> Now {
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        Now {
            // 584 years of uptime.
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
            unix: if by_calendar { unix_now() } else { 0 },
        }
    }

    /// The counters of these limits, in their order. A limit that was there before keeps what was used of it; those that
    /// are not wanted any more go when the last call lets go of them.
    pub fn counters(&self, limits: &[Limit]) -> Vec<Arc<Counter>> {
        let mut known = self.counters.lock();
        known.retain(|limit, _| limits.contains(limit));
        limits
            .iter()
            .map(|limit| {
                let counter = known
                    .entry(limit.clone())
                    .or_insert_with(|| Arc::new(Counter::new(limit.clone())));
                Arc::clone(counter)
            })
            .collect()
    }

    /// The room on what is called so. One that was there keeps its calls in flight, whatever its bound was.
    pub fn room(&self, name: &str, most: u32) -> Arc<Room> {
        let mut known = self.rooms.lock();
        // What nobody uses any more goes when something is asked for.
        known.retain(|known, room| known == name || Arc::strong_count(room) > 1 || room.in_flight() > 0);
        let room = known
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Room::new(name.to_owned(), most)));
        room.resize(most);
        Arc::clone(room)
    }

    /// Every counter in use, in the order of their names.
    pub fn all(&self) -> Vec<Arc<Counter>> {
        let mut all: Vec<_> = self.counters.lock().values().cloned().collect();
        all.sort_by(|a, b| a.limit().name.cmp(&b.limit().name));
        all
    }

    /// Every room in use, in the order of their names.
    pub fn rooms(&self) -> Vec<Arc<Room>> {
        let mut all: Vec<_> = self.rooms.lock().values().cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// Now, on both clocks.
    pub fn clock(&self) -> Now {
        self.now(Instant::now(), true)
    }

    /// Forgets, from time to time, whoever has used nothing lately.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn keep_tidy(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP).await;
            for counter in self.all() {
                counter.sweep(self.clock());
            }
        }
    }
}
