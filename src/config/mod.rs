//! The configuration: as written, checked, and compiled into a plan.

pub mod plan;

pub use plan::Plan;

pub use crate::limits::Limits;
