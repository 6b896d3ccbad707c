//! The integration tests: one binary, so that two cores link once.

// The kit of the tests is test code too, which clippy sees only within functions marked as tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod generated;
