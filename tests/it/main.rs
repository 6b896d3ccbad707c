//! The integration tests: one binary, so that two cores link once.

// The kit of the tests is test code too, which clippy sees only within functions marked as tests; tasks and clocks of
// a test are its own.
#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
// The largest messages of the tests are one `json!` each.
#![recursion_limit = "256"]

mod admin;
mod auth;
mod backpressure;
mod balance;
mod bindings;
mod cancel;
mod cluster;
mod conditions;
mod connect;
mod cors;
mod discover;
mod drain;
mod endpoints;
mod etcd;
mod examples;
mod fallback;
mod faults;
mod gate;
mod generated;
mod grpc_web;
mod health;
mod idle;
mod key_limits;
mod large;
mod limits;
mod matrix;
mod mutate;
mod overload;
mod partitions;
mod relay;
mod reload;
mod rest_backend;
mod retry;
mod revocation;
mod routes;
mod support;
mod survive;
mod takeover;
mod threats;
mod throttle;
mod tls;
mod websocket;
