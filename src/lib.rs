//! Sabir: a multi-protocol translating edge gateway.

pub mod backend;
pub mod balance;
pub mod call;
pub mod config;
pub mod fault;
pub mod frontend;
pub mod limits;
pub mod peer;
pub mod identify;
pub mod policy;
pub mod route;
pub mod schema;
pub mod stack;
pub mod status;
pub mod translate;
pub mod upstream;
pub mod wire;
