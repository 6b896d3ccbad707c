//! A request on its way to one of a backend's endpoints, and once more to another where that is surely safe.

use std::sync::Arc;

use http::{Request, Response};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::balance::{Balance, InFlight, Target};
use crate::fault::{Fault, Kind};
use crate::policy::throttle::{Place, Room};
use crate::upstream::Unreachable;
use crate::upstream::stream::SendError;
use crate::upstream::upgrade::{self, Answered};
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
    room: Option<Arc<Room>>,
}

impl Dispatch {
    /// The backend `name` over `balance`; request bodies that stream are sent by tasks of `tasks`.
    pub fn new(name: &str, balance: Arc<Balance>, tasks: TaskTracker) -> Self {
        Self {
            balance,
            tasks,
            name: name.into(),
            room: None,
        }
    }

    /// The same, with room for so many requests at once. It is for who asks here without a gate that has seen to it:
    /// see [`Dispatch::enter`].
    #[must_use]
    pub fn with_room(self, room: Option<Arc<Room>>) -> Self {
        Self { room, ..self }
    }

    /// A place for a request, where there is a bound.
    ///
    /// # Errors
    /// All places are taken.
    pub(super) fn enter(&self) -> Result<Option<Place>, Fault> {
        match &self.room {
            None => Ok(None),
            Some(room) => room.enter().map(Some).ok_or_else(|| room.fault()),
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

    /// Asks an endpoint, on a connection of its own, to switch protocols.
    ///
    /// # Errors
    /// As [`Dispatch::send`].
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(super) async fn ask(
        &self,
        head: impl Fn(&Target) -> Result<Request<()>, Fault>,
    ) -> Result<(Answered, InFlight), Fault> {
        let (stream, target, in_flight) = self
            .balance
            .dial()
            .await
            .map_err(|unreachable| self.unavailable(unreachable))?;
        let answered = upgrade::ask(stream, head(target)?, target.pool.connector(), &self.tasks).await?;
        Ok((answered, in_flight))
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
