//! Tells a backend who calls: whatever it is, it learns that from the gate, and only from there.

use std::task::{Context, Poll};

use tower::Service;

use crate::call::{Call, Reply};
use crate::fault::Fault;

/// The layer.
#[derive(Clone, Debug)]
pub struct Told<S> {
    inner: S,
}

impl<S> Told<S> {
    /// `inner`, whose calls carry what their permits say of their callers.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S> Service<Call> for Told<S>
where
    S: Service<Call, Response = Reply, Error = Fault>,
{
    type Response = Reply;
    type Error = Fault;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut call: Call) -> Self::Future {
        call.permit.tell(&mut call.metadata);
        self.inner.call(call)
    }
}
