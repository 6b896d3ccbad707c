//! Sabir: a multi-protocol translating edge gateway.

pub mod admin;
pub mod config;
pub mod fault;
pub mod listen;
pub mod peer;
pub mod schema;
pub mod status;
pub mod translate;
pub mod wire;
