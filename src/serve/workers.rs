//! The workers: one gateway each, sockets that come and go, new plans put in place.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::gateway::{Gateway, Prepared};
use crate::listen::worker::Workers;
use crate::listen::{self, Connections, Drain, Settings};
use crate::observe::{Log, Metrics, Shard};
use crate::serve::rooms::roomed;
use crate::serve::{ServeError, memory};

/// Orders that may wait for a worker: it takes them at once, and a reload sends one for each listener that is new.
const ORDERS_WAITING: usize = 64;
/// How long workers may take to put a plan in place before whoever asked for it is told that one has not.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a worker is told to do.
pub(super) enum Order {
    /// Serve a listener's sockets.
    Serve(Opened),
    /// Say that it is alive.
    Beat(oneshot::Sender<()>),
}

/// What a worker has of one listener.
pub(super) struct Opened {
    pub(super) sockets: Vec<TcpListener>,
    pub(super) settings: watch::Receiver<Arc<Settings>>,
    pub(super) drain: Drain,
}

/// Orders to every worker.
#[derive(Clone)]
pub(super) struct Desks(Vec<mpsc::Sender<Order>>);

impl Desks {
    /// Gives an order to one worker.
    ///
    /// # Cancel safety
    /// The order is given or not.
    pub(super) async fn order(&self, worker: usize, order: Order) {
        if let Some(desk) = self.0.get(worker)
            && desk.send(order).await.is_err()
        {
            tracing::error!(worker, "a worker has ended");
        }
    }
}

impl Desks {
    /// Whether every worker says that it is alive, however long that takes.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn beat(&self) -> bool {
        for desk in &self.0 {
            let (answer, heard) = oneshot::channel();
            if desk.send(Order::Beat(answer)).await.is_err() || heard.await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Which plan each worker goes by.
#[derive(Debug)]
pub(super) struct Placed {
    /// Generations, with the reason where one could not be put in place.
    workers: Mutex<Vec<(u64, Option<String>)>>,
    moved: Notify,
}

impl Placed {
    fn new(workers: usize) -> Self {
        Self {
            workers: Mutex::new(vec![(0, None); workers]),
            moved: Notify::new(),
        }
    }

    fn put(&self, worker: usize, generation: u64, problem: Option<String>) {
        if let Some(place) = self.workers.lock().get_mut(worker) {
            *place = (generation, problem);
        }
        self.moved.notify_waiters();
    }

    /// Waits until every worker goes by this plan.
    ///
    /// # Errors
    /// Why one of them does not.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn all(&self, generation: u64) -> Result<(), String> {
        let moved = async {
            loop {
                let moved = self.moved.notified();
                tokio::pin!(moved);
                moved.as_mut().enable();
                if self
                    .workers
                    .lock()
                    .iter()
                    .all(|(placed, _)| *placed >= generation)
                {
                    return;
                }
                moved.await;
            }
        };
        if tokio::time::timeout(PATIENCE, moved).await.is_err() {
            return Err(format!(
                "a worker has not put the plan in place within {PATIENCE:?}"
            ));
        }
        let problem = self
            .workers
            .lock()
            .iter()
            .find_map(|(_, problem)| problem.clone());
        problem.map_or(Ok(()), Err)
    }
}

/// What every worker gets a clone of.
pub(super) struct Common {
    pub(super) plans: watch::Receiver<Arc<Prepared>>,
    pub(super) metrics: Metrics,
    pub(super) log: Log,
    pub(super) connections: Arc<Connections>,
    pub(super) drain: Drain,
}

/// Starts so many workers, which serve nothing yet.
///
/// # Errors
/// A runtime or a thread can't be made.
pub(super) fn start(workers: usize, common: &Common) -> Result<(Workers, Desks, Arc<Placed>), ServeError> {
    let placed = Arc::new(Placed::new(workers));
    let mut desks = Vec::new();
    let mut shares = Vec::new();
    for worker in 0..workers {
        let (desk, orders) = mpsc::channel(ORDERS_WAITING);
        desks.push(desk);
        shares.push(Share {
            orders,
            placed: Arc::clone(&placed),
            plans: common.plans.clone(),
            shard: common.metrics.shard(worker),
            log: common.log.clone(),
            connections: Arc::clone(&common.connections),
            drain: common.drain.clone(),
        });
    }
    let threads = Workers::start(shares, |number, share: Share| share.run(number))?;
    Ok((threads, Desks(desks), placed))
}

/// What one worker gets.
struct Share {
    orders: mpsc::Receiver<Order>,
    placed: Arc<Placed>,
    plans: watch::Receiver<Arc<Prepared>>,
    shard: Arc<Shard>,
    log: Log,
    connections: Arc<Connections>,
    drain: Drain,
}

impl Share {
    /// The life of a worker.
    async fn run(mut self, number: usize) {
        let tasks = TaskTracker::new();
        let prepared = Arc::clone(&self.plans.borrow_and_update());
        let gateway = match Gateway::new(
            &prepared,
            tasks.clone(),
            self.shard,
            self.log.clone(),
            self.drain.clone(),
        ) {
            Ok(gateway) => Arc::new(gateway),
            Err(error) => {
                let generation = prepared.plan.generation;
                return self
                    .placed
                    .put(number, generation, Some(format!("a worker can't start: {error}")));
            }
        };
        self.placed.put(number, prepared.plan.generation, None);
        drop(prepared);
        let replaced = tasks.spawn(replace(Arc::clone(&gateway), self.plans, number, self.placed));
        let tidied = tasks.spawn(memory::tidy());
        let mut serving = JoinSet::new();
        while let Some(next) = next(&mut self.orders, &mut serving, &self.drain).await {
            let Opened {
                sockets,
                settings,
                drain,
            } = match next {
                Order::Serve(opened) => opened,
                Order::Beat(answer) => {
                    // Who asked may have lost patience.
                    let _ = answer.send(());
                    continue;
                }
            };
            for socket in sockets {
                let gateway = Arc::clone(&gateway);
                let handler = roomed(move |request, peer| Arc::clone(&gateway).handle(request, peer));
                let connections = Arc::clone(&self.connections);
                serving.spawn(listen::serve(
                    socket,
                    settings.clone(),
                    connections,
                    drain.clone(),
                    handler,
                ));
            }
        }
        replaced.abort();
        tidied.abort();
        self.log.flush();
    }
}

/// The next order; `None` once the gateway drains and the last listener has ended.
async fn next(
    orders: &mut mpsc::Receiver<Order>,
    serving: &mut JoinSet<std::io::Result<()>>,
    drain: &Drain,
) -> Option<Order> {
    let mut open = true;
    loop {
        // Dropping either arm loses nothing: both are asked again.
        tokio::select! {
            order = orders.recv(), if open && !drain.begun() => match order {
                Some(order) => return Some(order),
                None => open = false,
            },
            served = serving.join_next(), if !serving.is_empty() => {
                if let Some(Ok(Err(error))) = served {
                    tracing::error!(%error, "a listener ended");
                }
            }
            () = drain.signalled(), if !drain.begun() => {}
            else => return None,
        }
    }
}

/// Puts each new plan in place.
async fn replace(
    gateway: Arc<Gateway>,
    mut plans: watch::Receiver<Arc<Prepared>>,
    worker: usize,
    placed: Arc<Placed>,
) {
    while plans.changed().await.is_ok() {
        let prepared = Arc::clone(&plans.borrow_and_update());
        let generation = prepared.plan.generation;
        let gateway = Arc::clone(&gateway);
        // Not on the worker's own thread: a plan of ten thousand methods would make its calls wait.
        let built = tokio::task::spawn_blocking(move || gateway.replace(&prepared)).await;
        let problem = match built {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = &problem {
            tracing::error!(problem, "a plan can't be put in place; the one before stays");
        }
        placed.put(worker, generation, problem);
    }
}
