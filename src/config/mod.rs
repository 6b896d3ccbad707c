//! The configuration: as written, checked, and compiled into a plan.

pub use crate::limits::Limits;
