//! What the gateway says about itself: pure functions of what it serves.

pub(crate) mod columns;
pub mod explain;
pub mod inventory;
pub mod routes;
