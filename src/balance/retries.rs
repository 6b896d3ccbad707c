//! What retries were made for, counted for metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a request was sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The upstream surely did not process it: its connection was closing.
    Unprocessed,
    /// The upstream refused it before it processed it.
    Refused,
    /// A kept connection closed as it went out.
    Stale,
    /// The upstream broke off before it answered.
    Reset,
    /// The upstream said that it is not available.
    Unavailable,
    /// An attempt took too long.
    Timeout,
    /// The answer took longer than most.
    Hedge,
}

impl Why {
    /// Every reason, for metrics.
    pub const ALL: [Self; 7] = [
        Self::Unprocessed,
        Self::Refused,
        Self::Stale,
        Self::Reset,
        Self::Unavailable,
        Self::Timeout,
        Self::Hedge,
    ];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unprocessed => "unprocessed",
            Self::Refused => "refused",
            Self::Stale => "stale",
            Self::Reset => "reset",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Hedge => "hedge",
        }
    }
}

/// Who answered in a backend's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// Another backend.
    Backend,
    /// A fixed answer.
    Answer,
}

impl Instead {
    /// Both, for metrics.
    pub const ALL: [Self; 2] = [Self::Backend, Self::Answer];

    /// The word for it in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backend => "backend",
            Self::Answer => "answer",
        }
    }
}

/// Counts of one backend. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Retries(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    made: [AtomicU64; Why::ALL.len()],
    refused: AtomicU64,
    instead: [AtomicU64; Instead::ALL.len()],
}

impl Retries {
    /// Counts a retry.
    pub fn count(&self, why: Why) {
        for (one, count) in Why::ALL.iter().zip(&self.0.made) {
            if *one == why {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Counts a retry that the budget did not allow.
    pub fn refuse(&self) {
        self.0.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that somebody answered in the backend's place.
    pub fn answered(&self, by: Instead) {
        for (one, count) in Instead::ALL.iter().zip(&self.0.instead) {
            if *one == by {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Requests that somebody answered in the backend's place.
    pub fn instead(&self) -> impl Iterator<Item = (Instead, u64)> + '_ {
        let counts = self.0.instead.iter().map(|count| count.load(Ordering::Relaxed));
        Instead::ALL.into_iter().zip(counts)
    }

    /// The counts by reason.
    pub fn counts(&self) -> impl Iterator<Item = (Why, u64)> + '_ {
        let counts = self.0.made.iter().map(|count| count.load(Ordering::Relaxed));
        Why::ALL.into_iter().zip(counts)
    }

    /// Retries that the budget did not allow.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }
}
