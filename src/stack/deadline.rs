//! Ends a call at its deadline, and a stream that stays silent too long.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tower::Service;

use crate::buffers::Pipe;
use crate::call::{Call, Deadline, Reply};
use crate::fault::{Fault, Kind, Side};
use crate::translate::Tally;
use crate::translate::messages::{Part, PartStream};
use crate::wire::body::{Body, Piped};

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
            let mut reply = match deadline {
                Some(deadline) => match timeout_at(deadline.instant(), reply).await {
                    Ok(reply) => reply.map_err(|fault| at_the_deadline(fault, Some(deadline)))?,
                    Err(_) => return Err(expired()),
                },
                None => reply.await?,
            };
            let made_of = Arc::clone(&tally);
            reply
                .messages
                .wrap_body(|body| Body::piped(TimedBody::new(body, deadline, idle_timeout, tally)));
            reply.messages.wrap_parts(|parts| {
                Box::pin(TimedParts {
                    inner: Some(parts),
                    patience: Patience::new(deadline, idle_timeout, made_of),
                })
            });
            Ok(reply)
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

/// How long a stream may go on, and be silent.
///
/// One timer serves both: it is armed for the earlier instant. What comes only notes that it did, and the clock is read
/// when more is waited for. A stream is silent when neither side says anything: a client that still uploads keeps its call
/// alive.
struct Patience {
    deadline: Option<Deadline>,
    idle_timeout: Duration,
    tally: Arc<Tally>,
    /// What the client had sent when the timer was last armed.
    sent: u64,
    /// When it was last waited for anew; `None` while nobody waits.
    silent_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    fn new(deadline: Option<Deadline>, idle_timeout: Duration, tally: Arc<Tally>) -> Self {
        let sent = tally.request_bytes();
        Self {
            deadline,
            idle_timeout,
            tally,
            sent,
            silent_since: None,
            timer: None,
        }
    }

    /// Something came.
    fn hear(&mut self) {
        self.silent_since = None;
    }

    /// When to look again.
    fn due(&self, silent_since: Instant) -> Instant {
        let idle = silent_since + self.idle_timeout;
        self.deadline
            .map_or(idle, |deadline| deadline.instant().min(idle))
    }

    /// Waits for the timer; the fault, once it is really due.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        loop {
            let since = *self.silent_since.get_or_insert_with(Instant::now);
            let due = self.due(since);
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.deadline.is_some_and(|deadline| deadline.instant() <= now) {
                return Poll::Ready(expired());
            }
            let sent = self.tally.request_bytes();
            let since = if sent == self.sent { since } else { now };
            self.sent = sent;
            self.silent_since = Some(since);
            if now >= since + self.idle_timeout {
                return Poll::Ready(silent());
            }
            let due = self.due(since);
            let Some(timer) = &mut self.timer else { continue };
            timer.as_mut().reset(due);
        }
    }
}

fn silent() -> Fault {
    Fault::upstream(Kind::DeadlineExceeded, "the stream was silent for too long")
}

/// A body that breaks off at the deadline, or after too long a silence.
pub(crate) struct TimedBody {
    inner: Body,
    patience: Patience,
}

impl TimedBody {
    pub(crate) fn new(
        body: Body,
        deadline: Option<Deadline>,
        idle_timeout: Duration,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            inner: body,
            patience: Patience::new(deadline, idle_timeout, tally),
        }
    }

    /// What `next` brings of the body, if it comes in time.
    fn poll_in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        next: impl FnOnce(Pin<&mut Body>, &mut Context<'_>) -> Poll<Option<Result<T, Fault>>>,
    ) -> Poll<Option<Result<T, Fault>>> {
        if let Poll::Ready(next) = next(Pin::new(&mut self.inner), cx) {
            self.patience.hear();
            let deadline = self.patience.deadline;
            return Poll::Ready(next.map(|next| next.map_err(|fault| at_the_deadline(fault, deadline))));
        }
        self.patience.poll_due(cx).map(|fault| {
            // Dropping it tells the peer at once.
            self.inner = Body::empty();
            Some(Err(fault))
        })
    }
}

impl Piped for TimedBody {
    fn poll_pipe(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Option<Result<usize, Fault>>> {
        self.poll_in_time(cx, |body, cx| body.poll_pipe(cx, pipe))
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        self.poll_in_time(cx, |body, cx| body.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Parts made on the way, which break off in time.
struct TimedParts {
    /// `None` once they broke off.
    inner: Option<PartStream>,
    patience: Patience,
}

impl Stream for TimedParts {
    type Item = Result<Part, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(part) = inner.as_mut().poll_next(cx) {
            this.patience.hear();
            let deadline = this.patience.deadline;
            return Poll::Ready(part.map(|part| part.map_err(|fault| at_the_deadline(fault, deadline))));
        }
        this.patience.poll_due(cx).map(|fault| {
            this.inner = None;
            Some(Err(fault))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;

    const IDLE: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_when_more_is_waited_for() {
        let (pieces, mut taken) = mpsc::channel(1);
        let frames = stream::poll_fn(move |cx| {
            let piece = taken.poll_recv(cx);
            piece.map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
        });
        let body = Body::stream(StreamBody::new(frames));
        let mut body = TimedBody::new(body, None, IDLE, Arc::default());
        // Whoever reads takes longer than the other side may be silent, before the first piece and after it.
        for text in ["one", "another"] {
            sleep(2 * IDLE).await;
            let later = async {
                sleep(IDLE - Duration::from_secs(1)).await;
                pieces.send(Bytes::from_static(text.as_bytes())).await
            };
            let (frame, sent) = tokio::join!(body.frame(), later);
            sent.unwrap();
            let frame = frame.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), text);
        }
        let began = Instant::now();
        let fault = body.frame().await.unwrap().unwrap_err();
        assert_eq!(
            (fault.kind(), began.elapsed().as_secs()),
            (Kind::DeadlineExceeded, 5)
        );
        drop(pieces);
    }
}
