//! What the gateway says about itself: pure functions of what it serves.

pub mod reflection;
