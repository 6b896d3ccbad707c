//! What the listeners count, for metrics. Plain numbers that only grow.

use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of all listeners that share them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections taken.
    pub accepted: Counter,
    /// Connections turned away because all places are taken.
    pub over_total: Counter,
    /// Connections turned away because their address has as many as it may.
    pub over_address: Counter,
    /// Connections closed because their address is not taken.
    pub barred: Counter,
    /// Errors of accepting, such as too few file descriptors.
    pub accept_errors: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    /// Heads that did not arrive in time.
    pub heads_late: Counter,
    /// Heads that were refused, unreadable ones too.
    pub heads_refused: Counter,
    /// HTTP/2 connections ended because the client reset too many streams.
    pub calmed: Counter,
    /// Times that an idle connection gave back what it did not need.
    pub rested: Counter,
    /// Requests refused for lack of memory.
    pub shed: Counter,
    /// Panics while a request was handled or answered.
    pub panics: Counter,
}

impl Counters {
    /// Counts and reports a panic that was caught.
    pub(crate) fn panicked(&self, panic: &(dyn Any + Send)) {
        self.panics.add();
        tracing::error!(panic = panic_text(panic), "a call panicked");
    }
}

/// What a panic said, if it said it in words.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&'static str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}
