//! What the client sends on its way up: one message at a time, taken when the upstream has room for it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;

use crate::fault::{Fault, Kind};
use crate::translate::Part;

/// Both ends of the way, for the session and for the call.
pub(super) fn uplink() -> (Uplink, Uploads) {
    let slot: Arc<Mutex<Slot>> = Arc::default();
    (Uplink(Arc::clone(&slot)), Uploads(slot))
}

/// Room for one message. Both ends run on one thread, so that the lock is always free.
#[derive(Default)]
struct Slot {
    message: Option<Bytes>,
    end: End,
    /// Nobody takes messages any more.
    closed: bool,
    /// Who waits for a message.
    taker: Option<Waker>,
    /// Who waits for room.
    giver: Option<Waker>,
}

/// Whether more comes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// The client has said all.
    HalfClosed,
    /// The client is gone.
    Broken,
}

/// The session's end. Dropping it without [`Uplink::end`] breaks the request off.
pub(super) struct Uplink(Arc<Mutex<Slot>>);

impl Uplink {
    /// Ready when a message can be given.
    pub(super) fn poll_free(&self, cx: &Context<'_>) -> Poll<()> {
        let mut slot = self.0.lock();
        if slot.message.is_none() || slot.closed {
            return Poll::Ready(());
        }
        slot.giver = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Gives a message when there is room. What nobody takes any more is dropped: the upstream has answered already.
    pub(super) fn give(&self, message: Bytes) {
        let mut slot = self.0.lock();
        if !slot.closed {
            slot.message = Some(message);
        }
        wake(slot.taker.take());
    }

    /// Says that nothing more comes.
    pub(super) fn end(self) {
        self.0.lock().end = End::HalfClosed;
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        if slot.end == End::Open {
            slot.end = End::Broken;
        }
        wake(slot.taker.take());
    }
}

/// The call's end.
pub(super) struct Uploads(Arc<Mutex<Slot>>);

impl Stream for Uploads {
    type Item = Result<Part, Fault>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Part, Fault>>> {
        let mut slot = self.0.lock();
        if let Some(message) = slot.message.take() {
            wake(slot.giver.take());
            return Poll::Ready(Some(Ok(Part::Message(message))));
        }
        match slot.end {
            End::Open => {
                slot.taker = Some(cx.waker().clone());
                Poll::Pending
            }
            End::HalfClosed => Poll::Ready(None),
            End::Broken => Poll::Ready(Some(Err(Fault::client(
                Kind::Cancelled,
                "the client went away before it had sent all",
            )))),
        }
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        let mut slot = self.0.lock();
        slot.closed = true;
        slot.message = None;
        wake(slot.giver.take());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _};

    use super::*;

    fn taken(uploads: &mut Uploads) -> Poll<Option<Result<Bytes, Kind>>> {
        let next = uploads.next().now_or_never();
        next.map_or(Poll::Pending, Poll::Ready).map(|part| {
            part.map(|part| match part {
                Ok(Part::Message(message)) => Ok(message),
                Ok(Part::End(_)) => panic!("a request has no end"),
                Err(fault) => Err(fault.kind()),
            })
        })
    }

    #[test]
    fn one_message_waits_and_the_end_comes_after_it() {
        let (uplink, mut uploads) = uplink();
        let cx = Context::from_waker(Waker::noop());
        assert_eq!(taken(&mut uploads), Poll::Pending);
        uplink.give("a".into());
        assert!(uplink.poll_free(&cx).is_pending());
        assert_eq!(taken(&mut uploads), Poll::Ready(Some(Ok("a".into()))));
        assert!(uplink.poll_free(&cx).is_ready());
        uplink.give("b".into());
        uplink.end();
        assert_eq!(taken(&mut uploads), Poll::Ready(Some(Ok("b".into()))));
        assert_eq!(taken(&mut uploads), Poll::Ready(None));
    }

    #[test]
    fn half_a_request_does_not_look_like_a_whole_one() {
        let (uplink, mut uploads) = uplink();
        drop(uplink);
        assert_eq!(taken(&mut uploads), Poll::Ready(Some(Err(Kind::Cancelled))));
    }

    #[test]
    fn what_nobody_takes_does_not_stop_the_client() {
        let (uplink, uploads) = uplink();
        uplink.give("a".into());
        drop(uploads);
        let cx = Context::from_waker(Waker::noop());
        assert!(uplink.poll_free(&cx).is_ready());
        uplink.give("b".into());
        assert!(uplink.poll_free(&cx).is_ready());
    }
}
