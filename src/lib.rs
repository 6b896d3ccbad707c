//! Sabir: a multi-protocol translating edge gateway.

pub mod admin;
pub mod backend;
pub mod balance;
pub mod call;
pub mod cli;
pub mod config;
pub mod demo;
pub mod describe;
pub mod discover;
pub mod fault;
pub mod frontend;
pub mod gateway;
pub mod identify;
pub mod limits;
pub mod listen;
pub mod observe;
pub mod peer;
pub mod policy;
pub mod route;
pub mod schema;
pub mod serve;
pub mod stack;
pub mod status;
pub mod translate;
pub mod upstream;
pub mod wire;
