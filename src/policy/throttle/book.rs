//! The counters of the process: what stays when the plan changes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::cluster::{Cluster, ClusterSetup};
use super::shed::{self, Shedders};
use super::{Adaptive, AdaptiveSetup, Allowance, Clock, Counter, Limit, Now, Room, Shedder, SheddingSetup};

/// How often those who have used nothing lately are forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// Every counter in use, by the limit that it is of, and the clock that they go by.
#[derive(Debug, Default)]
pub struct Book {
    clock: Clock,
    counters: Mutex<HashMap<Limit, Arc<Counter>>>,
    cluster: Mutex<Option<Arc<Cluster>>>,
    rooms: Mutex<HashMap<String, Arc<Room>>>,
    adaptive: Mutex<HashMap<String, Arc<Adaptive>>>,
    shedders: Shedders,
}

impl Book {
    /// An instant on both clocks; the calendar's is looked at where it is asked for.
    pub(super) fn now(&self, now: Instant, by_calendar: bool) -> Now {
        self.clock.now(now, by_calendar)
    }

    /// The store that limits are shared by from here on: the same one, as long as it is set up alike.
    pub fn cluster(&self, setup: Option<&ClusterSetup>) -> Option<Arc<Cluster>> {
        let mut known = self.cluster.lock();
        if known.as_ref().map(|cluster| cluster.setup()) != setup {
            *known = setup.map(|setup| Arc::new(Cluster::new(setup.clone())));
        }
        known.clone()
    }

    /// The counters of these limits, in their order. A limit that was there before keeps what was used of it; those that
    /// are not wanted any more go when the last call lets go of them.
    pub fn counters(&self, limits: &[Limit], cluster: Option<&Arc<Cluster>>) -> Vec<Arc<Counter>> {
        let mut known = self.counters.lock();
        let wanted: HashSet<&Limit> = limits.iter().collect();
        let is_same = |counter: &Counter| match (counter.cluster(), cluster) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (None, None) => true,
            (None, Some(_)) => matches!(counter.limit().allowance, Allowance::InFlight(_)),
            (Some(_), None) => false,
        };
        known.retain(|limit, counter| wanted.contains(limit) && is_same(counter));
        limits
            .iter()
            .map(|limit| {
                let counter = known
                    .entry(limit.clone())
                    .or_insert_with(|| Arc::new(Counter::new(limit.clone(), self.clock, cluster)));
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

    /// The bound on what is called so that finds itself out. One that was there on the same terms keeps what it knows.
    pub fn adaptive(&self, name: &str, setup: AdaptiveSetup) -> Arc<Adaptive> {
        let mut known = self.adaptive.lock();
        // As with rooms.
        known.retain(|known, bound| known == name || Arc::strong_count(bound) > 1);
        if let Some(bound) = known.get(name).filter(|bound| bound.setup() == setup) {
            return Arc::clone(bound);
        }
        let bound = Arc::new(Adaptive::new(name.to_owned(), setup, self.clock));
        known.insert(name.to_owned(), Arc::clone(&bound));
        bound
    }

    /// Every bound that finds itself out and is in use, in the order of their names.
    pub fn adaptives(&self) -> Vec<Arc<Adaptive>> {
        let known = self.adaptive.lock();
        let used = known.values().filter(|bound| Arc::strong_count(bound) > 1);
        let mut all: Vec<_> = used.cloned().collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all
    }

    /// What sheds load at a worker, and what has to run there for it.
    pub fn shedder(&self, setup: SheddingSetup) -> (Arc<Shedder>, impl Future<Output = ()> + Send + 'static) {
        let shedder = Arc::new(Shedder::new(setup));
        self.shedders.add(&shedder);
        let watch = shed::watch(Arc::downgrade(&shedder));
        (shedder, watch)
    }

    /// What sheds load, one for each worker.
    pub fn shedders(&self) -> Vec<Arc<Shedder>> {
        self.shedders.all()
    }

    /// The store that limits are shared by, if they are.
    pub fn shared_by(&self) -> Option<Arc<Cluster>> {
        self.cluster.lock().clone()
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
