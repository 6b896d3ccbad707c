//! Pickers: which of the endpoints at hand takes the next call. Synchronous, no I/O.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::balance::Target;
use crate::upstream::dice;

/// Chooses among endpoints.
pub trait Picker: fmt::Debug + Send + Sync {
    /// The index of the choice; `None` only for an empty slice.
    fn pick(&self, targets: &[&Target]) -> Option<usize>;
}

/// One after the other.
#[derive(Debug, Default)]
pub struct RoundRobin(AtomicUsize);

impl Picker for RoundRobin {
    fn pick(&self, targets: &[&Target]) -> Option<usize> {
        self.0.fetch_add(1, Ordering::Relaxed).checked_rem(targets.len())
    }
}

/// The less loaded of two taken at random.
///
/// Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing".
#[derive(Debug)]
pub struct LeastRequest;

impl Picker for LeastRequest {
    fn pick(&self, targets: &[&Target]) -> Option<usize> {
        match targets.len() {
            0 => None,
            1 => Some(0),
            many => {
                let one = dice::below(many);
                // Shifted past the first, so that the two differ.
                let other = (one + 1 + dice::below(many - 1)) % many;
                let load = |at: usize| {
                    targets
                        .get(at)
                        .map_or(usize::MAX, |target| target.endpoint.in_flight())
                };
                Some(if load(other) < load(one) { other } else { one })
            }
        }
    }
}
