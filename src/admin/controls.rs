//! What an operator can ask of the running gateway, and what becomes of it.

use tokio::sync::{mpsc, oneshot};

/// Orders that may wait while one is carried out; an operator who finds no room tries again.
const WAITING: usize = 16;

/// An order to the control task.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again and put it in place.
    Reload(oneshot::Sender<Reloaded>),
}

/// What became of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// The number of the plan that is in place now.
    pub generation: u64,
    /// What is wrong with the configuration, each with its place; empty where it is in place.
    pub errors: Vec<String>,
    /// What works, and probably not as meant.
    pub warnings: Vec<String>,
    /// What is other than before.
    pub changes: Vec<String>,
    /// What is written and holds only after a restart.
    pub after_restart: Vec<String>,
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unheard {
    /// Too many orders wait.
    #[error("the gateway is busy with other orders; try again")]
    Busy,
    /// The gateway is about to end.
    #[error("the gateway is about to end")]
    Ending,
}

/// Gives orders to the control task. Clones give them to the same one.
#[derive(Clone, Debug)]
pub struct Controls(mpsc::Sender<Order>);

impl Controls {
    /// Controls, and where their orders arrive.
    pub fn new() -> (Self, mpsc::Receiver<Order>) {
        let (sender, orders) = mpsc::channel(WAITING);
        (Self(sender), orders)
    }

    /// Reads the configuration again and puts it in place, or says why not.
    ///
    /// # Errors
    /// [`Unheard`]: the order was not carried out.
    ///
    /// # Cancel safety
    /// The order is carried out all the same.
    pub async fn reload(&self) -> Result<Reloaded, Unheard> {
        self.order(Order::Reload).await
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Unheard> {
        let (answer, heard) = oneshot::channel();
        self.0.try_send(order(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unheard::Busy,
            mpsc::error::TrySendError::Closed(_) => Unheard::Ending,
        })?;
        heard.await.map_err(|_| Unheard::Ending)
    }
}
