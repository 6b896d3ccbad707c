//! Ends a call at its deadline, and a stream that stays silent too long.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::Service;

use crate::call::{Call, Deadline, Reply};
use crate::fault::{Fault, Kind, Side};
use crate::translate::Tally;
use crate::wire::body::Body;

/// The layer.
#[derive(Clone, Debug)]
pub struct Timed<S> {
    inner: S,
    idle_timeout: Duration,
}

impl<S> Timed<S> {
    /// `inner`, ended at each call's deadline; streams that are silent for `idle_timeout` end too.
    pub fn new(inner: S, idle_timeout: Duration) -> Self {
        Self { inner, idle_timeout }
    }
}

impl<S> Service<Call> for Timed<S>
where
    S: Service<Call, Response = Reply, Error = Fault>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let deadline = call.deadline;
        let idle_timeout = self.idle_timeout;
        let tally = Arc::clone(call.messages.tally());
        let reply = self.inner.call(call);
        Box::pin(async move {
            let reply = match deadline {
                Some(deadline) => match timeout_at(deadline.instant(), reply).await {
                    Ok(reply) => reply.map_err(|fault| at_the_deadline(fault, Some(deadline)))?,
                    Err(_) => return Err(expired()),
                },
                None => reply.await?,
            };
            let messages = reply
                .messages
                .map_body(|body| Body::stream(TimedBody::new(body, deadline, idle_timeout, tally)));
            Ok(Reply { messages, ..reply })
        })
    }
}

/// The one fault of a deadline that passed, wherever it is noticed.
pub fn expired() -> Fault {
    Fault::gateway(
        Kind::DeadlineExceeded,
        "the deadline passed before the call was complete",
    )
}

/// An upstream that breaks off a call when its deadline is over here as well was told the same deadline.
fn at_the_deadline(fault: Fault, deadline: Option<Deadline>) -> Fault {
    let is_over = deadline.is_some_and(|deadline| deadline.is_over(Instant::now()));
    if is_over && fault.side() == Side::Upstream {
        return expired();
    }
    fault
}

/// A body that breaks off at the deadline, or after too long a silence.
///
/// One timer serves both: it is armed for the earlier instant, and a frame only notes when it came. A stream is silent
/// when neither side says anything: a client that still uploads keeps its call alive.
struct TimedBody {
    inner: Body,
    deadline: Option<Deadline>,
    idle_timeout: Duration,
    tally: Arc<Tally>,
    /// What the client had sent when the timer was last armed.
    sent: u64,
    heard: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    fn new(inner: Body, deadline: Option<Deadline>, idle_timeout: Duration, tally: Arc<Tally>) -> Self {
        let sent = tally.request_bytes();
        Self {
            inner,
            deadline,
            idle_timeout,
            tally,
            sent,
            heard: Instant::now(),
            timer: None,
        }
    }

    /// When to look again.
    fn due(&self) -> Instant {
        let idle = self.heard + self.idle_timeout;
        self.deadline
            .map_or(idle, |deadline| deadline.instant().min(idle))
    }

    /// Waits for the timer; the fault, once it is really due.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        loop {
            let due = self.due();
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline.instant() <= now) {
                return Poll::Ready(expired());
            }
            let sent = self.tally.request_bytes();
            if sent != self.sent {
                self.sent = sent;
                self.heard = now;
            }
            if now >= self.heard + self.idle_timeout {
                return Poll::Ready(silent());
            }
            let due = self.due();
            let Some(timer) = &mut self.timer else { continue };
            timer.as_mut().reset(due);
        }
    }
}

fn silent() -> Fault {
    Fault::upstream(Kind::DeadlineExceeded, "the stream was silent for too long")
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.heard = Instant::now();
            let deadline = this.deadline;
            return Poll::Ready(frame.map(|frame| frame.map_err(|fault| at_the_deadline(fault, deadline))));
        }
        match this.poll_due(cx) {
            Poll::Ready(fault) => {
                // Dropping it tells the peer at once.
                this.inner = Body::empty();
                Poll::Ready(Some(Err(fault)))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
