//! The hub: what every frontend makes of a request, and every backend consumes and answers.

pub mod deadline;
pub mod metadata;

use std::sync::Arc;

use http::HeaderMap;

pub use deadline::Deadline;

use crate::policy::Permit;
use crate::schema::Method;
use crate::translate::Messages;

/// A request, whatever the dialect it came in.
#[derive(Debug)]
pub struct Call {
    /// What is called.
    pub method: Arc<Method>,
    /// End-to-end metadata; what belongs to a hop or a protocol was lifted out.
    pub metadata: HeaderMap,
    /// When the client's patience, or the route's, ends.
    pub deadline: Option<Deadline>,
    /// What the client sends; stops when the client half-closes.
    pub messages: Messages,
    /// The gate's word that the call may go upstream.
    pub permit: Permit,
}

/// An answer, whatever the backend it came from.
#[derive(Debug)]
pub struct Reply {
    /// Initial metadata.
    pub metadata: HeaderMap,
    /// What the upstream sends; its last part is the end.
    pub messages: Messages,
}
