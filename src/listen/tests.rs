//! The listener as its clients see it: bytes on sockets, hyper's peers h2 and rustls, and nothing of our own in between.

#![allow(
    clippy::disallowed_methods,
    reason = "the clients are tasks of the test, and what they measure is real time"
)]

mod http1;
mod http2;
mod lifetime;
mod support;
mod tls;
