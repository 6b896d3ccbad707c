//! What an operator can ask of the running gateway, and what becomes of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::watch::Digest;
use crate::gateway::Prepared;

/// Orders that may wait while one is carried out; an operator who finds no room tries again.
const WAITING: usize = 16;

/// An order to the control task.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again and put it in place.
    Reload(oneshot::Sender<Reloaded>),
    /// The same, if what is in the files is not what was read last.
    Changed(Digest, oneshot::Sender<()>),
    /// Register a schema.
    PutSchema(String, Upload, oneshot::Sender<Result<PutSchema, RegistryError>>),
    /// Forget a schema.
    DeleteSchema(String, WhileInUse, oneshot::Sender<Result<(), RegistryError>>),
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

/// A schema to be registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upload {
    /// An encoded `google.protobuf.FileDescriptorSet`.
    Set(Bytes),
    /// `.proto` files by the names under which they import each other.
    Files(BTreeMap<String, String>),
}

/// Whether a schema is forgotten that a backend goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhileInUse {
    /// It is not.
    Refuse,
    /// It is, and calls to the backend are answered with 503.
    Forget,
}

/// A schema that is registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Counts up with each one that is put in the place of another.
    pub revision: u64,
    /// Of files and rules; the same in every process.
    pub fingerprint: u64,
    /// The full names of its services, sorted.
    pub services: Vec<String>,
    /// How many methods they have.
    pub methods: usize,
    /// How many files it has, without what they import of those that the gateway brings along.
    pub files: usize,
    /// An encoded `google.protobuf.FileDescriptorSet` with all that its files import.
    pub set: Bytes,
}

/// What became of a schema that was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutSchema {
    /// The schema.
    pub registered: Arc<Registered>,
    /// What works, and probably not as meant.
    pub warnings: Vec<String>,
    /// What the plan in place has in the place of the one before.
    pub changes: Vec<String>,
}

/// All schemas that are registered, by name.
pub type Registry = BTreeMap<String, Arc<Registered>>;

/// Why a schema is not registered, or not forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The name is none.
    #[error("\"{0}\" is no name of a schema; {hint}", hint = crate::config::file::SCHEMA_NAME)]
    Name(String),
    /// There is none of the name.
    #[error("no schema \"{0}\" is registered")]
    Absent(String),
    /// It does not compile: what the compiler says, with its place.
    #[error("{0}")]
    Schema(String),
    /// With it, the configuration makes no sense.
    #[error("with this schema the configuration can't be put in place: {}", .0.join("; "))]
    Plan(Vec<String>),
    /// There are too many.
    #[error("{0} schemas are registered, and more may not be; forget one first")]
    Full(usize),
    /// Backends go by it.
    #[error("the schema is what these backends go by: {}", .0.join(", "))]
    InUse(Vec<String>),
    /// It can't be kept on disk.
    #[error("the schema can't be kept: {0}")]
    Kept(String),
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

/// What operators read and whom they give orders. Clones speak of the same gateway.
#[derive(Clone, Debug)]
pub struct Controls {
    orders: mpsc::Sender<Order>,
    plans: watch::Receiver<Arc<Prepared>>,
    registry: watch::Receiver<Registry>,
    /// Counts up when an operator wants the process to end.
    ending: Arc<watch::Sender<bool>>,
}

impl Controls {
    /// Controls of a gateway with these plans and schemas, and where their orders arrive.
    pub fn new(
        plans: watch::Receiver<Arc<Prepared>>,
        registry: watch::Receiver<Registry>,
    ) -> (Self, mpsc::Receiver<Order>) {
        let (sender, orders) = mpsc::channel(WAITING);
        let controls = Self {
            orders: sender,
            plans,
            registry,
            ending: Arc::new(watch::Sender::new(false)),
        };
        (controls, orders)
    }

    /// The plan in place.
    pub fn plan(&self) -> Arc<Prepared> {
        Arc::clone(&self.plans.borrow())
    }

    /// The schemas that are registered.
    pub fn registry(&self) -> Registry {
        self.registry.borrow().clone()
    }

    /// Wants the process to end, as a signal would.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Resolves when an operator wants the process to end.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn ended(&self) {
        let mut ending = self.ending.subscribe();
        // The sender is here, so that it can't be gone.
        let _ = ending.wait_for(|ending| *ending).await;
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

    /// Registers a schema, or puts it in the place of the one before.
    ///
    /// # Errors
    /// [`Unheard`]: the order was not carried out; within, why it was refused.
    ///
    /// # Cancel safety
    /// The order is carried out all the same.
    pub async fn put_schema(
        &self,
        name: String,
        upload: Upload,
    ) -> Result<Result<PutSchema, RegistryError>, Unheard> {
        self.order(|answer| Order::PutSchema(name, upload, answer)).await
    }

    /// Forgets a schema.
    ///
    /// # Errors
    /// As [`Controls::put_schema`].
    ///
    /// # Cancel safety
    /// The order is carried out all the same.
    pub async fn delete_schema(
        &self,
        name: String,
        in_use: WhileInUse,
    ) -> Result<Result<(), RegistryError>, Unheard> {
        self.order(|answer| Order::DeleteSchema(name, in_use, answer))
            .await
    }

    /// Reads the configuration again if this is not what was in its files when they were read last.
    ///
    /// # Errors
    /// [`Unheard`]: the order was not carried out.
    ///
    /// # Cancel safety
    /// The order is carried out all the same.
    pub async fn changed(&self, digest: Digest) -> Result<(), Unheard> {
        self.order(|answer| Order::Changed(digest, answer)).await
    }

    async fn order<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Unheard> {
        let (answer, heard) = oneshot::channel();
        self.orders.try_send(order(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unheard::Busy,
            mpsc::error::TrySendError::Closed(_) => Unheard::Ending,
        })?;
        heard.await.map_err(|_| Unheard::Ending)
    }
}
