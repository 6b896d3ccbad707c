//! Has the first message judged, where the gate's rules want that, before anything goes upstream.
//!
//! A call whose permit waits for its message goes no further without this layer: it is part of every stack.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::Either;
use tokio::time::timeout;
use tower::Service;

use crate::call::{Call, Reply};
use crate::fault::{Fault, Kind};

/// The layer.
#[derive(Clone, Debug)]
pub struct Judged<S> {
    inner: S,
    patience: Duration,
}

impl<S> Judged<S> {
    /// `inner`, for calls whose first message comes within `patience` and is let pass, where it is to be judged.
    pub fn new(inner: S, patience: Duration) -> Self {
        Self { inner, patience }
    }
}

type Boxed = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

impl<S> Service<Call> for Judged<S>
where
    S: Service<Call, Response = Reply, Error = Fault> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Fault;
    type Future = Either<S::Future, Boxed>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        if !call.permit.waits_for_message() {
            return Either::Left(self.inner.call(call));
        }
        // The one that was polled for readiness is the one that is called.
        let again = self.inner.clone();
        let mut ready = std::mem::replace(&mut self.inner, again);
        let patience = self.patience;
        Either::Right(Box::pin(async move {
            let call = judged(call, patience).await?;
            ready.call(call).await
        }))
    }
}

async fn judged(call: Call, patience: Duration) -> Result<Call, Fault> {
    let Call {
        method,
        metadata,
        deadline,
        messages,
        mut permit,
    } = call;
    let tally = Arc::clone(messages.tally());
    let (first, messages) = timeout(patience, messages.peeked()).await.map_err(|_elapsed| {
        Fault::client(Kind::RequestTimeout, "the first message did not come in time")
    })??;
    tally.judge();
    permit.judge(&method.input, first.as_deref())?;
    Ok(Call {
        method,
        metadata,
        deadline,
        messages,
        permit,
    })
}
