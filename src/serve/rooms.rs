//! Room for the calls of a worker, which is used again by the next call: it is a few kilobytes each.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use parking_lot::Mutex;

use crate::peer::Peer;
use crate::wire::received::Received;

/// Rooms that are kept while no call uses them.
const MOST: usize = 32;

type Room<F> = Pin<Box<Option<F>>>;

/// The handler that `make` is, each of whose calls has a room of its own: so that a connection that idles holds a
/// pointer and not the room for a call.
pub(super) fn roomed<M, F>(make: M) -> impl Fn(Request<Received>, Peer) -> Roomed<F> + Clone
where
    M: Fn(Request<Received>, Peer) -> F + Clone,
{
    let empty: Arc<Mutex<Vec<Room<F>>>> = Arc::default();
    move |request, peer| {
        let spare = empty.lock().pop();
        let mut room = spare.unwrap_or_else(|| Box::pin(None));
        room.as_mut().set(Some(make(request, peer)));
        Roomed {
            room: Some(room),
            empty: Arc::clone(&empty),
        }
    }
}

/// A call in its room.
pub(super) struct Roomed<F> {
    /// `None` once the call is over.
    room: Option<Room<F>>,
    empty: Arc<Mutex<Vec<Room<F>>>>,
}

impl<F> Roomed<F> {
    /// The call is over.
    fn leave(&mut self) {
        let Some(mut room) = self.room.take() else { return };
        room.as_mut().set(None);
        let mut empty = self.empty.lock();
        if empty.len() < MOST {
            empty.push(room);
        }
    }
}

impl<F: Future> Future for Roomed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let call = self.room.as_mut().and_then(|room| room.as_mut().as_pin_mut());
        let Some(call) = call else { return Poll::Pending };
        let polled = call.poll(cx);
        if polled.is_ready() {
            self.leave();
        }
        polled
    }
}

impl<F> Drop for Roomed<F> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<F> fmt::Debug for Roomed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Roomed")
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn a_room_is_used_again_and_few_are_kept() {
        let handler = roomed(|_, peer: Peer| ready(peer.ip()));
        let ask = || {
            let peer = Peer::new(([127, 0, 0, 1], 9).into(), false, false, Vec::new());
            handler(Request::new(Received::nothing()), peer)
        };
        let calls: Vec<_> = (0..=MOST).map(|_| ask()).collect();
        let empty = Arc::clone(&calls[0].empty);
        assert_eq!(empty.lock().len(), 0);
        for call in calls {
            assert!(call.await.is_loopback());
        }
        assert_eq!(empty.lock().len(), MOST);
        drop(ask());
        let one = ask();
        assert_eq!(empty.lock().len(), MOST - 1);
        drop(one);
        assert_eq!(empty.lock().len(), MOST);
    }
}
