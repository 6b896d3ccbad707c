//! The configuration: as written, checked, and compiled into a plan.
//!
//! [`load()`] reads a file, or flags, into a [`File`] and says everything that is wrong at once.

mod balancing;
mod choose;
mod compile;
pub mod diagnostic;
mod document;
mod expose;
mod fallback;
pub mod file;
mod interpolate;
mod json_schema;
mod learn;
mod load;
mod located;
pub mod plan;
mod read;
mod relays;
mod schemas;
mod sources;
mod throttle;
pub mod value;
pub mod watch;

pub use compile::{SchemaState, backend_tls, backends, compile, listener_tls};
pub use diagnostic::Diagnostic;
pub use document::NodeId;
pub use file::File;
pub use json_schema::json_schema;
pub use learn::{LearnError, learn, taught};
pub use load::{Flags, Origin, Source, SourceKind, from_text, load, load_noting};
pub use located::{Located, Spot};
pub use plan::Plan;
pub(crate) use schemas::told;
pub use schemas::{SchemaCache, check, rules, schemas};
pub use sources::source;

pub use crate::limits::Limits;

#[cfg(test)]
mod tests;
