//! How fast the messages of one stream may come: who is faster is read later, and who never catches up is ended. Pure.

use std::time::Duration;

use super::gcra::{Level, Rate};
use crate::fault::{Fault, Kind};

/// What one stream of a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pace {
    /// So many messages.
    pub messages: Rate,
    /// So many bytes of them.
    pub bytes: Rate,
    /// How long a client may have more to send than is taken, without a moment in which it had not.
    pub patience: Duration,
}

/// How one stream keeps its pace. Instants are nanoseconds since the stream began.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    pace: Pace,
    messages: Level,
    bytes: Level,
    /// When more may be read.
    free_at: u64,
    /// Since when the client has had more to send than is taken.
    behind_since: Option<u64>,
}

impl Pacer {
    /// A stream of which nothing has come.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            messages: Level::default(),
            bytes: Level::default(),
            free_at: 0,
            behind_since: None,
        }
    }

    /// When more may be read; that may be over.
    pub fn free_at(&self) -> u64 {
        self.free_at
    }

    /// So much has come. A message that is larger than what may come at once is taken all the same, and waited for
    /// afterwards.
    ///
    /// # Errors
    /// The client has had more to send than is taken for too long.
    pub fn came(&mut self, messages: u64, bytes: u64, now: u64) -> Result<(), Fault> {
        let debt = self.pace.messages.charge(&mut self.messages, messages, now);
        let debt = debt.max(self.pace.bytes.charge(&mut self.bytes, bytes, now));
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.free_at = now.saturating_add(nanos(debt));
        if debt.is_zero() {
            return Ok(());
        }
        let since = *self.behind_since.get_or_insert(now);
        if now.saturating_sub(since) < nanos(self.pace.patience) {
            return Ok(());
        }
        let Pace { messages, bytes, .. } = self.pace;
        Err(Fault::client(
            Kind::RateLimited,
            format!(
                "this stream sends faster than {} messages in {:?} or {} bytes in {:?}, and did not slow down",
                messages.count, messages.period, bytes.count, bytes.period
            ),
        )
        .retry_after(Duration::from_secs(1))
        .of_limit("stream_limits"))
    }

    /// More would have been read, and nothing had come: the client has caught up.
    pub fn caught_up(&mut self) {
        self.behind_since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn rate(count: u32) -> Rate {
        Rate {
            count,
            period: Duration::from_secs(1),
            burst: count,
        }
    }

    fn pacer() -> Pacer {
        Pacer::new(Pace {
            messages: rate(10),
            bytes: rate(1000),
            patience: Duration::from_secs(2),
        })
    }

    #[test]
    fn exactly_the_burst_is_free_and_one_more_is_waited_for() {
        let mut pacer = pacer();
        pacer.came(10, 1000, 0).unwrap();
        assert_eq!(pacer.free_at(), 0);
        pacer.came(1, 0, 0).unwrap();
        assert_eq!(pacer.free_at(), 100 * MILLI);
        pacer.came(0, 1, 0).unwrap();
        assert_eq!(pacer.free_at(), 100 * MILLI, "the longer debt holds");
        pacer.came(0, 500, 0).unwrap();
        assert_eq!(pacer.free_at(), 501 * MILLI);
    }

    #[test]
    fn who_never_catches_up_is_ended_and_who_does_is_not() {
        let fast = |catches_up: bool| {
            let mut pacer = pacer();
            let mut now = 0;
            for number in 0..200 {
                now = now.max(pacer.free_at());
                if let Err(fault) = pacer.came(1, 1, now) {
                    assert_eq!(fault.kind(), Kind::RateLimited);
                    return Some((number, now));
                }
                if catches_up && number % 15 == 0 {
                    pacer.caught_up();
                }
            }
            None
        };
        assert_eq!(fast(false), Some((30, 2000 * MILLI)));
        assert_eq!(fast(true), None);
    }
}
