//! What the gateway says about itself: pure functions of what it serves.

mod columns;
pub mod explain;
pub mod routes;
