//! One address of a backend, with the figures that every worker adds to and every picker reads. Atomics alone: whoever
//! reads a figure that is a moment old picks a little worse, and nothing else.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

use crate::balance::hash;
use crate::upstream::dice;

/// What an endpoint is assumed to take before anything is known of it. Source: Finagle's and linkerd's peak EWMA.
const ASSUMED: f64 = 30e6;
/// After this time, what was observed counts 1/e. Source: as above.
const DECAY: f64 = 10e9;
/// What a call that failed counts as: who fails fast must not look fast. Not measured.
const FAILED: Duration = Duration::from_secs(1);
/// What a warming endpoint takes at least, of 1,000.
const LEAST: u64 = 100;

/// Passive ejection has taken it out.
pub(super) const EJECTED: u8 = 1;
/// Active checks say that it does not serve.
pub(super) const DOWN: u8 = 2;

/// An instant that every other one is counted from; atomics hold milliseconds since then, and 0 means never.
static BASE: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Milliseconds since the process looked at its clock first, at least 1.
pub(super) fn millis(now: Instant) -> u64 {
    let since = now.saturating_duration_since(*BASE).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).saturating_add(1)
}

/// An endpoint as it is listed, by the configuration or by whoever knows where endpoints are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Listed {
    /// Where it is.
    pub uri: Uri,
    /// How much of the load it takes, beside the others.
    pub weight: u32,
    /// Where it runs, such as an availability zone.
    pub zone: Option<Arc<str>>,
}

impl Listed {
    /// An endpoint like any other.
    pub fn new(uri: Uri) -> Self {
        Self {
            uri,
            weight: 1,
            zone: None,
        }
    }
}

/// Why an endpoint was ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// Calls failed one after the other.
    Consecutive,
    /// It fails more often than the others.
    SuccessRate,
    /// It is slower than the others.
    Latency,
}

impl Ejection {
    /// Every reason, for metrics.
    pub const ALL: [Self; 3] = [Self::Consecutive, Self::SuccessRate, Self::Latency];

    /// The word for it in logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::SuccessRate => "success_rate",
            Self::Latency => "latency",
        }
    }
}

/// One address of a backend; its figures are shared by every worker.
#[derive(Debug)]
pub struct Endpoint {
    /// Where it is.
    pub uri: Uri,
    /// How records and metrics call it.
    label: String,
    /// What no other endpoint of the process has.
    number: u64,
    /// What no other endpoint of the world has, by all likelihood, and every gateway computes alike.
    fingerprint: u64,
    state: AtomicU8,
    /// Failures since the last success.
    failures: AtomicU32,
    /// Ejections with no good stretch between them.
    rounds: AtomicU32,
    /// Milliseconds: when an ejection ends.
    ejected_until: AtomicU64,
    /// Milliseconds: when it last came back.
    returned: AtomicU64,
    /// Milliseconds: since when it warms up; 0 once it is warm.
    warms_since: AtomicU64,
    load: Load,
    ejections: [AtomicU64; Ejection::ALL.len()],
}

/// What calls write of an endpoint, on one cache line with nothing else: workers have it in common.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Load {
    in_flight: AtomicUsize,
    /// Calls that began here, ever.
    calls: AtomicU64,
    /// Nanoseconds as an `f64`: the peak-sensitive moving average of its latency; 0 before the first observation.
    cost: AtomicU64,
    /// Microseconds: when the average was last moved.
    observed: AtomicU64,
    window: Window,
}

const _: () = assert!(size_of::<Load>() == 64, "a load is one cache line");

/// What happened since outliers were last looked for.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub(super) successes: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) micros: AtomicU64,
    pub(super) answers: AtomicU64,
}

impl Endpoint {
    /// An endpoint that nobody calls yet.
    pub fn new(uri: Uri) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let label = uri.to_string().trim_end_matches('/').to_owned();
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            fingerprint: hash::text(&label),
            label,
            uri,
            state: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            rounds: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            returned: AtomicU64::new(0),
            warms_since: AtomicU64::new(0),
            load: Load::default(),
            ejections: Default::default(),
        }
    }

    /// How records and metrics call it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A number that stands for it in this process.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// A number that stands for it, the same in every gateway.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Calls under way, from all workers.
    pub fn in_flight(&self) -> usize {
        self.load.in_flight.load(Ordering::Relaxed)
    }

    /// Calls that began here, those that could not be sent among them.
    pub fn calls(&self) -> u64 {
        self.load.calls.load(Ordering::Relaxed)
    }

    /// A call begins here.
    pub fn begin(&self) {
        self.load.in_flight.fetch_add(1, Ordering::Relaxed);
        self.load.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A call ends here.
    pub fn end(&self) {
        self.load.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether neither calls nor checks speak against it.
    pub fn is_healthy(&self) -> bool {
        self.state.load(Ordering::Relaxed) == 0
    }

    /// Whether passive ejection has taken it out.
    pub fn is_ejected(&self) -> bool {
        self.state.load(Ordering::Relaxed) & EJECTED != 0
    }

    /// Whether active checks say that it does not serve.
    pub fn is_down(&self) -> bool {
        self.state.load(Ordering::Relaxed) & DOWN != 0
    }

    /// How often it was ejected for this reason.
    pub fn ejections(&self, why: Ejection) -> u64 {
        let counters = Ejection::ALL.iter().zip(&self.ejections);
        let mut of = counters.filter(|(one, _)| **one == why);
        of.next().map_or(0, |(_, count)| count.load(Ordering::Relaxed))
    }

    pub(super) fn count_ejection(&self, why: Ejection) {
        for (one, count) in Ejection::ALL.iter().zip(&self.ejections) {
            if *one == why {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Sets bits of its state; whether one of them was not set before.
    pub(super) fn set(&self, bits: u8) -> bool {
        self.state.fetch_or(bits, Ordering::Relaxed) & bits != bits
    }

    /// Clears bits of its state; whether one of them was set before.
    pub(super) fn clear(&self, bits: u8) -> bool {
        self.state.fetch_and(!bits, Ordering::Relaxed) & bits != 0
    }

    pub(super) fn window(&self) -> &Window {
        &self.load.window
    }

    /// Forgets failures.
    pub(super) fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure; failures in a row.
    pub(super) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// When its ejection ends, in milliseconds.
    pub(super) fn ejected_until(&self) -> u64 {
        self.ejected_until.load(Ordering::Relaxed)
    }

    /// For how long it is ejected this time: longer each time, unless it was good for as long as the longest time.
    pub(super) fn sentence(&self, base: Duration, longest: Duration, now: u64) -> Duration {
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let returned = self.returned.load(Ordering::Relaxed);
        let good_for = now.saturating_sub(returned);
        let rounds = if returned == 0 || good_for >= longest_ms {
            1
        } else {
            self.rounds.load(Ordering::Relaxed).saturating_add(1)
        };
        self.rounds.store(rounds, Ordering::Relaxed);
        let sentence = base.saturating_mul(rounds).min(longest);
        let sentence_ms = u64::try_from(sentence.as_millis()).unwrap_or(u64::MAX);
        self.ejected_until
            .store(now.saturating_add(sentence_ms), Ordering::Relaxed);
        sentence
    }

    /// It takes calls again: few at first.
    pub(super) fn warm_up(&self, now: u64) {
        self.failures.store(0, Ordering::Relaxed);
        self.returned.store(now, Ordering::Relaxed);
        self.warms_since.store(now, Ordering::Relaxed);
    }

    /// Whether it takes the call for which `lot` was drawn, a number below 1,000: always once it is warm.
    pub(super) fn takes_lot(
        &self,
        lot: impl FnOnce() -> u64,
        now: impl FnOnce() -> u64,
        takes: Duration,
    ) -> bool {
        let since = self.warms_since.load(Ordering::Relaxed);
        if since == 0 {
            return true;
        }
        let takes = u64::try_from(takes.as_millis()).unwrap_or(u64::MAX);
        let spent = now().saturating_sub(since);
        if spent >= takes {
            self.warms_since.store(0, Ordering::Relaxed);
            return true;
        }
        lot() < (spent.saturating_mul(1000) / takes).max(LEAST)
    }

    /// Whether it still warms up, which takes so long.
    pub fn is_warming(&self, takes: Duration, now: Instant) -> bool {
        let since = self.warms_since.load(Ordering::Relaxed);
        let takes = u64::try_from(takes.as_millis()).unwrap_or(u64::MAX);
        since != 0 && millis(now).saturating_sub(since) < takes
    }

    /// Moves the average: up at once, down slowly.
    ///
    /// Two workers that do so at once may lose one of the observations, which the next one makes up for.
    pub fn observe(&self, took: Duration, now: Instant) {
        let micros = micros(now);
        let then = self.load.observed.swap(micros, Ordering::Relaxed);
        let before = f64::from_bits(self.load.cost.load(Ordering::Relaxed));
        let took = nanos(took);
        let after = if took >= before || before == 0.0 {
            took
        } else {
            let keeps = decay(micros.saturating_sub(then));
            before * keeps + took * (1.0 - keeps)
        };
        self.load.cost.store(after.to_bits(), Ordering::Relaxed);
    }

    /// Moves the average for a call that failed.
    pub(super) fn observe_failure(&self, now: Instant) {
        self.observe(FAILED, now);
    }

    /// What a further call costs here, by latency and by what is under way.
    #[expect(clippy::cast_precision_loss, reason = "calls in flight are far below 2^52")]
    pub(super) fn cost(&self, now: Instant) -> f64 {
        let average = f64::from_bits(self.load.cost.load(Ordering::Relaxed));
        if average == 0.0 {
            // Nobody knows: it is tried, by one call at a time.
            return ASSUMED * self.in_flight() as f64;
        }
        let left = average * decay(micros(now).saturating_sub(self.load.observed.load(Ordering::Relaxed)));
        left * (self.in_flight() + 1) as f64
    }
}

fn micros(now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(*BASE).as_micros()).unwrap_or(u64::MAX)
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// What is left of an average after so many microseconds.
#[expect(clippy::cast_precision_loss, reason = "an average is no exact number")]
fn decay(micros: u64) -> f64 {
    (-(micros as f64 * 1e3) / DECAY).exp()
}

/// A lot below 1,000.
pub(super) fn lot() -> u64 {
    dice::below(1000) as u64
}
