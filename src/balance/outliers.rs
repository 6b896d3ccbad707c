//! Endpoints that are worse than the others, looked for once in a while.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use crate::balance::endpoint::{Ejection, Endpoint};
use crate::balance::group::Group;
use crate::balance::settings::{Ejecting, SlowAnswers, SuccessRate};

/// Looks for outliers of a group for as long as it is there, where its settings ask for it.
///
/// # Cancel safety
/// Nothing is lost.
pub async fn watch(group: Weak<Group>) {
    let (gone, interval) = match group.upgrade() {
        Some(group) => match &group.settings().ejection {
            Some(it) if it.success_rate.is_some() || it.latency.is_some() => {
                (group.gone().clone(), it.interval)
            }
            Some(_) | None => return,
        },
        None => return,
    };
    loop {
        tokio::select! {
            () = gone.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let Some(group) = group.upgrade() else { return };
        group.eject_outliers(Instant::now());
    }
}

/// What an endpoint did since it was last looked at.
struct Judged<'e> {
    endpoint: &'e Endpoint,
    calls: u64,
    good: f64,
    answers: u64,
    average: f64,
}

impl Group {
    /// Ejects the endpoints that are worse than the others, by what they did since the last time.
    pub fn eject_outliers(&self, now: Instant) {
        let Some(ejecting) = &self.settings().ejection else {
            return;
        };
        let members = self.members();
        let judged: Vec<Judged<'_>> = members
            .list()
            .iter()
            .map(|member| judge(&member.endpoint))
            .collect();
        if let Some(rate) = &ejecting.success_rate {
            self.eject_failing(&judged, rate, ejecting, now);
        }
        if let Some(slow) = &ejecting.latency {
            self.eject_slow(&judged, slow, ejecting, now);
        }
    }

    fn eject_failing(&self, judged: &[Judged<'_>], rate: &SuccessRate, ejecting: &Ejecting, now: Instant) {
        let with_calls: Vec<_> = judged.iter().filter(|it| it.calls >= rate.min_calls).collect();
        if with_calls.len() < rate.min_endpoints {
            return;
        }
        let many = float(with_calls.len() as u64);
        let mean = with_calls.iter().map(|it| it.good).sum::<f64>() / many;
        let variance = with_calls.iter().map(|it| (it.good - mean).powi(2)).sum::<f64>() / many;
        let least = mean - variance.sqrt() * f64::from(rate.deviations) / 100.0;
        for it in with_calls.iter().filter(|it| it.good < least) {
            self.eject(it.endpoint, Ejection::SuccessRate, ejecting, now);
        }
    }

    fn eject_slow(&self, judged: &[Judged<'_>], slow: &SlowAnswers, ejecting: &Ejecting, now: Instant) {
        let mut answering: Vec<_> = judged.iter().filter(|it| it.answers >= slow.min_calls).collect();
        if answering.len() < slow.min_endpoints {
            return;
        }
        answering.sort_by(|a, b| a.average.total_cmp(&b.average));
        let Some(median) = answering.get((answering.len() - 1) / 2).map(|it| it.average) else {
            return;
        };
        let most = median * f64::from(slow.factor) / 100.0;
        for it in answering.iter().filter(|it| it.average > most) {
            self.eject(it.endpoint, Ejection::Latency, ejecting, now);
        }
    }
}

/// Takes what an endpoint did.
fn judge(endpoint: &Endpoint) -> Judged<'_> {
    let window = endpoint.window();
    let successes = window.successes.swap(0, Ordering::Relaxed);
    let failures = window.failures.swap(0, Ordering::Relaxed);
    let micros = window.micros.swap(0, Ordering::Relaxed);
    let answers = window.answers.swap(0, Ordering::Relaxed);
    let calls = successes + failures;
    Judged {
        endpoint,
        calls,
        good: float(successes) / float(calls.max(1)),
        answers,
        average: float(micros) / float(answers.max(1)),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "rates and averages are no exact numbers"
)]
fn float(count: u64) -> f64 {
    count as f64
}
