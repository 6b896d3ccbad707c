//! The configuration: as written, checked, and compiled into a plan.

pub mod limits;

pub use limits::Limits;
