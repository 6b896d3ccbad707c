//! A request on its way to one of a backend's endpoints, and once more to another where that is surely safe.

use std::sync::Arc;

use http::{Request, Response};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::balance::{Balance, InFlight, Target};
use crate::fault::{Fault, Kind};
use crate::upstream::Unreachable;
use crate::upstream::stream::SendError;
use crate::wire::body::Body;

/// Attempts at a request that no upstream has surely touched.
const ATTEMPTS: usize = 3;

/// Whether a request may reach a backend twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twice {
    /// It does the same as once.
    Harmless,
    /// Only what was surely not processed is sent again.
    Never,
}

/// The endpoints of one backend, for one worker. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Dispatch {
    balance: Arc<Balance>,
    tasks: TaskTracker,
    name: Arc<str>,
}

impl Dispatch {
    /// The backend `name` over `balance`; request bodies that stream are sent by tasks of `tasks`.
    pub fn new(name: &str, balance: Arc<Balance>, tasks: TaskTracker) -> Self {
        Self {
            balance,
            tasks,
            name: name.into(),
        }
    }

    /// Its endpoints, as this worker sees them.
    pub fn balance(&self) -> &Arc<Balance> {
        &self.balance
    }

    /// Sends the request that `head` makes for an endpoint, and waits for the head of the answer.
    ///
    /// # Errors
    /// What `head` says, and an upstream fault where no endpoint can be reached or the answer does not come.
    ///
    /// # Cancel safety
    /// Dropping it cancels the request upstream.
    pub(super) async fn send(
        &self,
        twice: Twice,
        mut body: Body,
        head: impl Fn(&Target) -> Result<Request<()>, Fault>,
    ) -> Result<(Response<Body>, InFlight), Fault> {
        let mut stale = false;
        for attempt in 1.. {
            let (lease, target, in_flight) = self
                .balance
                .lease()
                .await
                .map_err(|unreachable| self.unavailable(unreachable))?;
            let again = body.as_whole();
            let error = match lease.send(head(target)?, body, &self.tasks).await {
                Ok(response) => return Ok((response, in_flight)),
                Err(error) => error,
            };
            let safe = match &error {
                SendError::Unprocessed(_) => attempt < ATTEMPTS,
                // Once: the connection that follows may be as old, but two in a row are no accident.
                SendError::Stale(_) => twice == Twice::Harmless && !std::mem::replace(&mut stale, true),
                SendError::Broken(_) | SendError::Protocol(_) | SendError::Request(_) => false,
            };
            match again.filter(|_| safe) {
                Some(again) => body = Body::whole(again),
                None => return Err(error.into()),
            }
        }
        Err(Fault::gateway(Kind::Internal, "no attempt was made"))
    }

    /// Who runs what outlives a request.
    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    fn unavailable(&self, unreachable: Option<Unreachable>) -> Fault {
        let fault = |said| Fault::upstream(Kind::UpstreamUnavailable, said);
        match unreachable {
            Some(unreachable) => {
                let delay = unreachable.retry_at.saturating_duration_since(Instant::now());
                fault(format!(
                    "no endpoint of backend \"{}\" can be reached; try again",
                    self.name
                ))
                .caused_by(unreachable)
                .retry_after(delay)
            }
            None => fault(format!("backend \"{}\" has no endpoint", self.name)),
        }
    }
}
