//! A call under way at an endpoint: counted until it is dropped, and what becomes of it is told to whoever wants to know.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;

use crate::balance::breaker::Leave;
use crate::balance::{Endpoint, Target, View};
use crate::buffers::Pipe;
use crate::fault::{Fault, Side};
use crate::wire::body::{Body, Piped};

/// How the body of a whole answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In any way.
    Any,
    /// With trailers that carry a gRPC status.
    Status,
}

/// A call under way at an endpoint.
#[derive(Debug)]
pub struct InFlight {
    view: Arc<View>,
    at: usize,
    /// When it began, if anybody wants to know how long it takes.
    began: Option<Instant>,
    /// Until it was told how the call went.
    leave: Option<Leave>,
}

impl InFlight {
    pub(super) fn begin(view: &Arc<View>, at: usize) -> Self {
        let in_flight = Self {
            view: Arc::clone(view),
            at,
            began: view.group.watches().time().then(Instant::now),
            leave: None,
        };
        if let Some(target) = in_flight.find() {
            target.endpoint.begin();
        }
        in_flight
    }

    pub(super) fn with(mut self, leave: Option<Leave>) -> Self {
        self.leave = leave;
        // Dialling is not the endpoint's answer.
        if self.began.is_some() {
            self.began = Some(Instant::now());
        }
        self
    }

    fn find(&self) -> Option<&Target> {
        self.view.targets.get(self.at)
    }

    /// Where the call is.
    pub fn target(&self) -> &Target {
        // It is made of an index that is there, and a view does not change.
        &self.view.targets[self.at]
    }

    /// Where the call is.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.target().endpoint
    }

    /// The number by which a further attempt avoids this endpoint.
    pub fn number(&self) -> u64 {
        self.endpoint().number()
    }

    /// The head of the answer is there.
    pub fn answered(&self) {
        let Some(began) = self.began else { return };
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        let group = &self.view.group;
        let watches = group.watches();
        let endpoint = self.endpoint();
        if watches.averages {
            endpoint.observe(took, now);
        }
        if watches.outliers {
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            endpoint.window().micros.fetch_add(micros, Ordering::Relaxed);
            endpoint.window().answers.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(latencies) = group.latencies() {
            latencies.observe(took, now);
        }
    }

    /// The call went well.
    pub fn succeeded(&mut self) {
        let endpoint = self.endpoint();
        endpoint.succeeded();
        let group = &self.view.group;
        if group.watches().outliers {
            endpoint.window().successes.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(leave) = self.leave.take()
            && let Some(breaker) = self.view.group.breaker()
        {
            breaker.succeeded(&leave, Instant::now());
        }
    }

    /// The call failed, and the endpoint is at fault.
    pub fn failed(&mut self) {
        let now = Instant::now();
        count_failure(&self.view, self.endpoint(), now);
        if let Some(leave) = self.leave.take()
            && let Some(breaker) = self.view.group.breaker()
        {
            breaker.failed(&leave, now);
        }
    }

    /// The body of the answer, which keeps the call counted until it has ended, and tells how it ended.
    pub fn watch(mut self, body: Body, ending: Ending) -> Body {
        if body.is_end_stream() {
            if ending == Ending::Any {
                self.succeeded();
            } else {
                self.failed();
            }
            return body;
        }
        // The upstream has nothing more to say.
        if ending == Ending::Any && body.is_whole() {
            self.succeeded();
            return body;
        }
        Body::piped(Answer {
            body,
            in_flight: Some(self),
            ending,
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(target) = self.find() {
            target.endpoint.end();
        }
        if let (Some(leave), Some(breaker)) = (&self.leave, self.view.group.breaker()) {
            breaker.abandoned(leave);
        }
    }
}

/// Counts a failure of an endpoint, whatever it was asked.
pub(super) fn count_failure(view: &View, endpoint: &Endpoint, now: Instant) {
    let watches = view.group.watches();
    if watches.averages {
        endpoint.observe_failure(now);
    }
    if watches.outliers {
        endpoint.window().failures.fetch_add(1, Ordering::Relaxed);
    }
    view.group.failed(endpoint, now);
}

/// The body of an answer on its way.
struct Answer {
    body: Body,
    /// `None` once the body has ended.
    in_flight: Option<InFlight>,
    ending: Ending,
}

impl Answer {
    fn ended(&mut self, well: bool) {
        let Some(mut in_flight) = self.in_flight.take() else {
            return;
        };
        if well {
            in_flight.succeeded();
        } else {
            in_flight.failed();
        }
    }

    fn broken(&mut self, fault: &Fault) {
        // What breaks the client's side off says nothing about the endpoint.
        if fault.side() == Side::Upstream {
            self.ended(false);
        } else {
            self.in_flight = None;
        }
    }
}

impl Piped for Answer {
    fn poll_pipe(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Option<Result<usize, Fault>>> {
        let this = &mut *self;
        let piped = ready!(Pin::new(&mut this.body).poll_pipe(cx, pipe));
        match &piped {
            Some(Err(fault)) => this.broken(fault),
            Some(Ok(_)) if this.ending == Ending::Any && this.body.is_end_stream() => this.ended(true),
            Some(Ok(_)) | None => {}
        }
        Poll::Ready(piped)
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match &frame {
            Some(Err(fault)) => this.broken(fault),
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    let status = trailers.get("grpc-status").map(|status| status.as_bytes());
                    let well = match this.ending {
                        Ending::Any => status != Some(b"14"),
                        Ending::Status => status.is_some_and(|status| status != b"14"),
                    };
                    this.ended(well);
                } else if this.ending == Ending::Any && this.body.is_end_stream() {
                    this.ended(true);
                }
            }
            None => this.ended(this.ending == Ending::Any),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
