//! The store that the nodes of a cluster share, as the counters of one node see it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Counter;
use super::lease::Wanted;
use crate::policy::setup::Secret;

/// Questions that may wait for the store; what is beyond is answered as if it could not be asked.
const WAITING: usize = 4096;

/// What becomes of a limit while the store can't be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnLoss {
    /// Each node lets in its share: the limit, divided by the nodes that were there last.
    #[default]
    Share,
    /// Every call is let in.
    Open,
    /// No call is let in.
    Closed,
}

/// Where the store is, as data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterSetup {
    /// Its URL, which may have a password in it.
    pub url: Secret,
    /// What the names of its keys begin with.
    pub prefix: String,
    /// How long a call waits for it.
    pub timeout: Duration,
    /// What becomes of limits without it.
    pub on_loss: OnLoss,
}

/// The store, as counters see it.
pub struct Cluster {
    setup: ClusterSetup,
    asks: mpsc::Sender<Ask>,
    /// For whoever runs it; once.
    asked: Mutex<Option<mpsc::Receiver<Ask>>>,
    up: AtomicBool,
    nodes: AtomicU32,
}

/// A question to the store.
#[derive(Debug)]
pub struct Ask {
    /// The limit.
    pub counter: Arc<Counter>,
    /// Whose account it is.
    pub key: Vec<u8>,
    /// What is wanted.
    pub wanted: Wanted,
}

impl Cluster {
    /// A store that nobody has connected to yet.
    pub fn new(setup: ClusterSetup) -> Self {
        let (asks, asked) = mpsc::channel(WAITING);
        Self {
            setup,
            asks,
            asked: Mutex::new(Some(asked)),
            up: AtomicBool::new(false),
            nodes: AtomicU32::new(1),
        }
    }

    /// Where it is.
    pub fn setup(&self) -> &ClusterSetup {
        &self.setup
    }

    /// The questions, for whoever answers them; nothing the second time.
    pub fn questions(&self) -> Option<mpsc::Receiver<Ask>> {
        self.asked.lock().take()
    }

    /// Whether the store can be asked.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// It can be asked, or can't any more.
    pub fn set_up(&self, up: bool) {
        self.up.store(up, Ordering::Relaxed);
    }

    /// How many nodes there are, this one among them.
    pub fn nodes(&self) -> u32 {
        self.nodes.load(Ordering::Relaxed).max(1)
    }

    /// So many nodes were seen.
    pub fn saw(&self, nodes: u32) {
        self.nodes.store(nodes, Ordering::Relaxed);
    }

    /// Asks, if that can be done without waiting.
    pub(super) fn ask(&self, ask: Ask) -> bool {
        self.is_up() && self.asks.try_send(ask).is_ok()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("setup", &self.setup)
            .field("up", &self.up)
            .field("nodes", &self.nodes)
            .finish_non_exhaustive()
    }
}
