//! Sabir: a multi-protocol translating edge gateway.
//!
//! # The path of a call
//!
//! [`listen`] accepts a connection and checks each request head. [`identify`] tells the dialect, [`route`] finds the
//! method, and the gate in [`policy`] lets the call pass. A [`frontend`] turns the request into a [`call`], whose bodies
//! [`translate`] keeps as they came until somebody asks for more. The layers of the route, built by [`stack`], hand it to a
//! [`backend`]; [`balance`] picks the endpoint and [`upstream`] has the connection. The reply goes the same way back.
//!
//! [`gateway`] is that path in one function. [`serve`] runs it on every core; [`config`] compiles the plan that it follows,
//! out of a file and of what [`discover`] learns about backends.
//!
//! # Embedding
//!
//! [`config::load`] reads a configuration, [`serve::start`] runs it on the current tokio runtime until
//! [`serve::Running::stop`]. `examples/embed.rs` shows both.
//!
//! # Limitations
//!
//! The README lists them.

// Accepting and finding.
pub mod identify;
pub mod listen;
pub mod policy;
pub mod route;

// Translating.
pub mod call;
pub mod frontend;
pub mod translate;

// Sending.
pub mod backend;
pub mod balance;
pub mod stack;
pub mod upstream;

// Formats and descriptors.
pub mod discover;
pub mod http1;
pub mod http2;
pub mod schema;
pub mod wire;

// The whole.
pub mod admin;
pub mod config;
pub mod describe;
pub mod gateway;
pub mod observe;
pub mod serve;

// Around it.
pub mod cli;
pub mod demo;

// What everybody knows.
mod buffers;
pub mod fault;
pub mod limits;
pub mod peer;
mod pulse;
pub mod status;
