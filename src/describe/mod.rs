//! Descriptions of a plan: pure functions of it.

pub mod reflection;
