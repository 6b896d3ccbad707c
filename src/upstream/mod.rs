//! Connections to endpoints: dialled, kept, shared by the calls of one worker.
//!
//! HTTP/2 is the gateway's own, from socket to stream: a call opens its stream on the connection and reads its answer from
//! it, with no task or channel in between. Dropping an answer resets its stream. A connection of HTTP/1.1 belongs to the
//! call that uses it, which reads and writes it itself, and is kept for the next one.

pub mod connect;
pub mod dice;
mod exchange;
pub mod fetch;
mod http1;
mod http2;
pub mod pool;
pub mod pools;
pub mod stream;
pub mod tls;
pub(crate) mod upgrade;

pub use connect::{ConnectError, Connector};
pub use pool::{Lease, Pool, Unreachable};

#[cfg(test)]
mod tests;
