//! Takes out of the end of a reply what clients are not told.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use crate::call::{Call, Reply};
use crate::fault::Fault;
use crate::translate::Hygiene;

/// The layer.
#[derive(Clone, Debug)]
pub struct Screened<S> {
    inner: S,
    hygiene: Hygiene,
}

impl<S> Screened<S> {
    /// `inner`, the ends of whose replies say no more than this lets them.
    pub fn new(inner: S, hygiene: Hygiene) -> Self {
        Self { inner, hygiene }
    }
}

impl<S> Service<Call> for Screened<S>
where
    S: Service<Call, Response = Reply, Error = Fault>,
{
    type Response = Reply;
    type Error = Fault;
    type Future = Screening<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Screening {
            reply: self.inner.call(call),
            hygiene: self.hygiene,
        }
    }
}

pin_project! {
    /// A reply on its way.
    #[derive(Debug)]
    pub struct Screening<F> {
        #[pin]
        reply: F,
        hygiene: Hygiene,
    }
}

impl<F> Future for Screening<F>
where
    F: Future<Output = Result<Reply, Fault>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut reply = ready!(this.reply.poll(cx));
        if let Ok(reply) = &mut reply {
            reply.messages.screen(*this.hygiene);
        }
        Poll::Ready(reply)
    }
}
