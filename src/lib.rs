//! Sabir: a multi-protocol translating edge gateway.

pub mod config;
pub mod describe;
pub mod discover;
pub mod fault;
pub mod peer;
pub mod schema;
pub mod status;
pub mod translate;
pub mod wire;
