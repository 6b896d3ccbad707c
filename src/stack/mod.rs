//! The layers of a route over `Service<Call>`, and the only place that knows their order.

pub mod deadline;
pub mod held;
pub mod judge;
pub mod metered;
pub mod paced;
pub mod screened;
pub mod told;

use std::future::poll_fn;

use tower::layer::layer_fn;
use tower::util::BoxCloneSyncService;
use tower::{Service as _, ServiceBuilder};

use crate::call::{Call, Reply};
use crate::fault::Fault;
use crate::policy::throttle::pace::Pace;
use crate::translate::Hygiene;

/// What a frontend calls: a backend under the layers of its route.
pub type CallService = BoxCloneSyncService<Call, Reply, Fault>;

/// Parameters of a route's layers, resolved when the configuration is compiled.
#[derive(Clone, Copy, Debug)]
pub struct Params {
    /// How long a stream may be silent.
    pub idle_timeout: std::time::Duration,
    /// What clients are not told of a backend's errors.
    pub hygiene: Hygiene,
    /// Whether callers' tokens can be revoked.
    pub revocable: bool,
    /// Whether limits go by a field of the first message.
    pub asks_messages: bool,
    /// How fast the messages of a client may come.
    pub pace: Option<Pace>,
}

/// A clone of a stack that takes one call now.
///
/// # Errors
/// The backend takes none.
pub async fn ready(stack: &CallService) -> Result<CallService, Fault> {
    let mut stack = stack.clone();
    poll_fn(|cx| stack.poll_ready(cx)).await?;
    Ok(stack)
}

/// Builds the stack of a route over its backend.
pub fn build<B>(params: Params, backend: B) -> CallService
where
    B: tower::Service<Call, Response = Reply, Error = Fault> + Clone + Send + Sync + 'static,
    B::Future: Send + 'static,
{
    let stack = ServiceBuilder::new()
        // Outermost: nothing below may outlive the client's patience.
        .layer_fn(|inner| deadline::Timed::new(inner, params.idle_timeout))
        // Whatever waits or streams below ends with the caller's word.
        .option_layer(params.revocable.then(|| layer_fn(held::Held::new)))
        // Before messages are looked at: nobody reads ahead.
        .option_layer(
            params
                .pace
                .map(|pace| layer_fn(move |inner| paced::Paced::new(inner, pace))),
        )
        // Before anything is sent, and before anything is sent twice.
        .layer_fn(|inner| judge::Judged::new(inner, params.idle_timeout))
        // Whatever comes between, it sees what clients do.
        .layer_fn(|inner| screened::Screened::new(inner, params.hygiene))
        // What the gate has left for when the first message is there.
        .option_layer(params.asks_messages.then(|| layer_fn(metered::Metered::new)))
        // Innermost: whatever backend answers, it learns who calls, and only from the gate.
        .layer_fn(told::Told::new)
        .service(backend);
    // Boxed here and nowhere else on the call path.
    BoxCloneSyncService::new(stack)
}
