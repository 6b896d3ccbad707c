//! What a call has moved so far, and how it ended: shared by the request's way up and the answer's way down.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::fault::{Kind, Side};
use crate::status::Code;
use crate::wire::body::{Count, Way};

/// Adds to a counter that one thread alone writes to, as a worker does to those of its calls and its metrics: the price is that
/// of a plain number, and not that of one that several write to.
pub(crate) fn add(counter: &AtomicU64, more: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(more),
        Ordering::Relaxed,
    );
}

/// Counts of one call. All counts are relaxed: nobody decides by them. All of a call is on one worker, which alone counts.
#[derive(Debug, Default)]
pub struct Tally {
    request_bytes: AtomicU64,
    request_messages: AtomicU64,
    reply_messages: AtomicU64,
    reply_bytes: AtomicU64,
    outcome: OnceLock<Outcome>,
    /// The endpoint that the newest attempt went to. One call alone takes the lock.
    endpoint: Mutex<Option<Arc<str>>>,
    /// Times that the request was sent again.
    retries: AtomicU32,
    /// The code with which a WebSocket was closed; 0 as long as it was not.
    close_code: AtomicU16,
    /// Whether a rule has read a message.
    judged: AtomicBool,
    /// The limit that was met.
    limit: OnceLock<Box<str>>,
}

/// How a call ended, as the client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream said so.
    Upstream(Code),
    /// The gateway said so.
    Gateway(Kind, Side),
}

impl Outcome {
    /// The code that the client was told.
    pub fn code(self) -> Code {
        match self {
            Self::Upstream(code) => code,
            Self::Gateway(kind, _) => kind.code(),
        }
    }
}

impl Tally {
    /// Counts messages on their way up.
    pub fn add_request_messages(&self, messages: u64) {
        add(&self.request_messages, messages);
    }

    /// Counts messages on their way down.
    pub fn add_reply_messages(&self, messages: u64) {
        add(&self.reply_messages, messages);
    }

    /// Notes how the call ended; the first word counts.
    pub fn end(&self, outcome: Outcome) {
        // A later outcome is an echo of the first one: the client was told already.
        let _ = self.outcome.set(outcome);
    }

    /// Notes that a rule has read the first message.
    pub fn judge(&self) {
        self.judged.store(true, Ordering::Relaxed);
    }

    /// Whether a rule has read a message.
    pub fn judged(&self) -> bool {
        self.judged.load(Ordering::Relaxed)
    }

    /// Notes where an attempt goes.
    pub fn sent_to(&self, endpoint: &Arc<str>) {
        *self.endpoint.lock() = Some(Arc::clone(endpoint));
    }

    /// The endpoint that the newest attempt went to, if there was one: for the record, which asks once.
    pub fn take_endpoint(&self) -> Option<Arc<str>> {
        self.endpoint.lock().take()
    }

    /// Notes that the request is sent again.
    pub fn retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Times that the request was sent again.
    pub fn retries(&self) -> u32 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Notes the limit that the call met; the first one counts.
    pub fn met(&self, limit: &str) {
        // A later one is an echo.
        let _ = self.limit.set(limit.into());
    }

    /// The limit that the call met, if it met one.
    pub fn limit(&self) -> Option<&str> {
        self.limit.get().map(|limit| &**limit)
    }

    /// Notes the code with which a WebSocket was closed.
    pub fn close(&self, code: u16) {
        self.close_code.store(code, Ordering::Relaxed);
    }

    /// The code with which a WebSocket was closed, if it was.
    pub fn close_code(&self) -> Option<u16> {
        match self.close_code.load(Ordering::Relaxed) {
            0 => None,
            code => Some(code),
        }
    }

    /// Bytes of the request body so far.
    pub fn request_bytes(&self) -> u64 {
        self.request_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the response body so far.
    pub fn reply_bytes(&self) -> u64 {
        self.reply_bytes.load(Ordering::Relaxed)
    }

    /// Messages on their way up so far.
    pub fn request_messages(&self) -> u64 {
        self.request_messages.load(Ordering::Relaxed)
    }

    /// Messages on their way down so far.
    pub fn reply_messages(&self) -> u64 {
        self.reply_messages.load(Ordering::Relaxed)
    }

    /// How the call ended, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.get().copied()
    }
}

impl Count for Tally {
    fn count(&self, way: Way, bytes: usize) {
        let counter = match way {
            Way::Request => &self.request_bytes,
            Way::Reply => &self.reply_bytes,
        };
        add(counter, bytes as u64);
    }
}
