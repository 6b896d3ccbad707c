//! Which endpoint takes a call.

pub mod picker;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use smallvec::SmallVec;
use tokio::time::{Instant, sleep_until};

use crate::balance::picker::{LeastRequest, Picker, RoundRobin};
use crate::upstream::{Lease, Pool, Unreachable};

/// One address of a backend; its figures are shared by every worker.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is.
    pub uri: Uri,
    in_flight: AtomicUsize,
}

impl Endpoint {
    /// An endpoint that nobody calls yet.
    pub fn new(uri: Uri) -> Self {
        Self {
            uri,
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Calls under way, from all workers.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A call under way at an endpoint; counts until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Endpoint>);

impl InFlight {
    fn begin(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(endpoint))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadBalancing {
    /// One after the other.
    RoundRobin,
    /// The less loaded of two taken at random.
    #[default]
    LeastRequest,
}

/// One endpoint as a worker reaches it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The shared figures.
    pub endpoint: Arc<Endpoint>,
    /// The worker's own connections.
    pub pool: Pool,
}

/// The endpoints of a backend, as one worker sees them.
#[derive(Debug)]
pub struct Balance {
    targets: Vec<Target>,
    picker: Box<dyn Picker>,
    /// How long a call may wait for the first connection to anybody.
    patience: Duration,
}

impl Balance {
    /// A balance over `targets`. A call waits at most `patience` for an endpoint that has only just become unreachable.
    pub fn new(targets: Vec<Target>, how: LoadBalancing, patience: Duration) -> Self {
        let picker: Box<dyn Picker> = match how {
            LoadBalancing::RoundRobin => Box::<RoundRobin>::default(),
            LoadBalancing::LeastRequest => Box::new(LeastRequest),
        };
        Self {
            targets,
            picker,
            patience,
        }
    }

    /// A place on a connection to the endpoint that the picker likes best among those that can be reached.
    ///
    /// # Errors
    /// [`Unreachable`], of the endpoint tried last, when none can be reached; `None` without endpoints.
    ///
    /// # Cancel safety
    /// The place is given back.
    pub async fn lease(&self) -> Result<(Lease, &Target, InFlight), Option<Unreachable>> {
        let began = Instant::now();
        loop {
            match self.try_all().await {
                Ok(found) => return Ok(found),
                Err(Some(unreachable)) if self.may_wait(began, &unreachable) => {
                    sleep_until(unreachable.retry_at).await;
                }
                Err(unreachable) => return Err(unreachable),
            }
        }
    }

    /// Whether a call would find an endpoint now. Without a connection one is tried, unless the back-off says to wait.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn is_reachable(&self) -> bool {
        if self
            .targets
            .iter()
            .any(|target| target.pool.try_lease().is_some())
        {
            return true;
        }
        for target in &self.targets {
            if target.pool.lease().await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Whether an endpoint that has only just gone may be waited for: a restart is a short gap, an outage is not.
    fn may_wait(&self, began: Instant, unreachable: &Unreachable) -> bool {
        let give_up = began + self.patience;
        unreachable.retry_at < give_up && unreachable.since + self.patience > began
    }

    /// Tries each endpoint once, in the picker's order.
    async fn try_all(&self) -> Result<(Lease, &Target, InFlight), Option<Unreachable>> {
        let mut left: SmallVec<[&Target; 8]> = self.targets.iter().collect();
        let mut last: Option<Unreachable> = None;
        while let Some(at) = self.picker.pick(&left) {
            let target = left.swap_remove(at);
            let in_flight = InFlight::begin(&target.endpoint);
            if let Some(lease) = target.pool.try_lease() {
                return Ok((lease, target, in_flight));
            }
            match target.pool.lease().await {
                Ok(lease) => return Ok((lease, target, in_flight)),
                Err(unreachable) => {
                    last = Some(match last {
                        Some(earlier) if earlier.retry_at < unreachable.retry_at => earlier,
                        Some(_) | None => unreachable,
                    });
                }
            }
        }
        Err(last)
    }
}
