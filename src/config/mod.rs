//! The configuration: as written, checked, and compiled into a plan.
//!
//! [`load()`] reads a file, or flags, into a [`File`] and says everything that is wrong at once.

pub mod diagnostic;
mod document;
pub mod file;
mod interpolate;
mod json_schema;
mod load;
mod located;
mod read;
pub mod value;

pub mod plan;

pub use plan::Plan;

pub use crate::limits::Limits;
pub use diagnostic::Diagnostic;
pub use document::NodeId;
pub use file::File;
pub use json_schema::json_schema;
pub use load::{Flags, Origin, Source, SourceKind, from_text, load};
pub use located::{Located, Spot};

#[cfg(test)]
mod tests;
