//! What a backend's descriptors say: messages, methods, HTTP rules. Pure: reads no file, opens no socket.

pub mod descriptor;
pub mod edition_source;
pub mod editions;
pub mod method;

use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::DescriptorPool;

pub use method::{HttpMethod, HttpRule, Idempotency, Method, MethodKind};

/// One generation of a backend's schema. Immutable.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Encoded `FileDescriptorProto`s as they were received, dependencies first.
    pub files: Vec<Bytes>,
    /// The same for lookup by name.
    pub pool: DescriptorPool,
    /// Every method of every service, sorted by path.
    pub methods: Vec<Arc<Method>>,
    /// Changes when any file or rule changes.
    pub fingerprint: u64,
}
