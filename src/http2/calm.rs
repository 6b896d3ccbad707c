//! How much a client may send that asks for nothing.

use std::time::{Duration, Instant};

use crate::http2::Broken;

/// The time over which it is counted.
const WINDOW: Duration = Duration::from_secs(10);
/// What may come in that time: pings, settings, priorities and the like.
const MOST: u32 = 2_000;
/// What each frame with content allows besides, in either direction: clients that measure send a ping for what they get.
const FOR_CONTENT: u32 = 4;

/// The count of a connection.
#[derive(Debug, Default)]
pub(super) struct Calm {
    since: Option<Instant>,
    spent: u32,
}

impl Calm {
    /// Counts frames with content.
    pub(super) fn content(&mut self, frames: u32) {
        self.spent = self.spent.saturating_sub(frames.saturating_mul(FOR_CONTENT));
    }

    /// Counts a frame without, which weighs `cost`.
    pub(super) fn spend(&mut self, cost: u32, now: Instant) -> Result<(), Broken> {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= WINDOW {
            self.since = Some(now);
            self.spent = 0;
        }
        self.spent = self.spent.saturating_add(cost);
        if self.spent > MOST {
            return Err(Broken::calm("too many frames that carry nothing"));
        }
        Ok(())
    }
}
