//! Backends: a call becomes an upstream request, the upstream's response a reply.

pub mod dispatch;
pub mod grpc;
pub mod health;
pub mod own;
pub mod reflection;
pub mod relay;
mod replay;
pub mod rest;
mod tee;
mod websocket;
