//! Asks the limits that go by a field of the first message, once it is there. Nothing is sent upstream before.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream;
use tokio::time::Instant;
use tower::Service;

use crate::call::{Call, Reply};
use crate::fault::Fault;
use crate::translate::messages::Direction;
use crate::translate::{Messages, Part, scalar};

/// The layer.
#[derive(Clone, Debug)]
pub struct Metered<S>(S);

impl<S> Metered<S> {
    /// `inner`, behind the limits that go by a field of the first message.
    pub fn new(inner: S) -> Self {
        Self(inner)
    }
}

impl<S> Service<Call> for Metered<S>
where
    S: Service<Call, Response = Reply, Error = Fault> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        // The one that is ready is the one that is called.
        let inner = self.0.clone();
        let mut ready = std::mem::replace(&mut self.0, inner);
        Box::pin(async move {
            let call = ask(call).await?;
            ready.call(call).await
        })
    }
}

/// Asks the limits; the call that comes back has its first message still to be read.
async fn ask(mut call: Call) -> Result<Call, Fault> {
    let deferred = call.permit.pass().and_then(|pass| pass.take_deferred());
    let Some(deferred) = deferred else {
        return Ok(call);
    };
    let (bounds, tally) = (call.messages.bounds(), Arc::clone(call.messages.tally()));
    let input = &call.method.input;
    let told = |fault: &Fault| {
        if let Some(limit) = fault.limit() {
            tally.met(limit);
        }
    };
    if let Some(message) = call.messages.as_whole() {
        let field = |numbers: &[u32]| scalar::text(input, numbers, message);
        deferred.ask(field, Instant::now()).await.inspect_err(told)?;
        return Ok(call);
    }
    // Messages are counted where they come out.
    let mut rest = call.messages.uncounted();
    let first = rest.next().await?;
    let message = match &first {
        Some(Part::Message(message)) => message.as_ref(),
        Some(Part::End(_)) | None => &[],
    };
    let field = |numbers: &[u32]| scalar::text(input, numbers, message);
    deferred.ask(field, Instant::now()).await.inspect_err(told)?;
    let parts = stream::try_unfold((first, rest), async |(first, mut rest)| {
        let part = match first {
            Some(part) => Some(part),
            None => rest.next().await?,
        };
        Ok(part.map(|part| (part, (None, rest))))
    });
    Ok(Call {
        messages: Messages::stream(Box::pin(parts), Direction::Request, bounds, tally),
        ..call
    })
}
