//! What is written about the endpoints of a backend, with the defaults filled in.

use std::time::Duration;

use http::uri::PathAndQuery;

use super::file::{self, File, HealthKind, HedgeAfter, LoadBalancing, Switch};
use super::value::{Count, Percent, Period};
use crate::balance::Settings;
use crate::balance::health::{Check, Page, Probe};
use crate::balance::settings::{
    Breaking, Ejecting, HashOn, Hedge, Policy, Retry, SlowAnswers, Sticky, SuccessRate,
};

/// What a backend's section comes to.
pub(super) fn balancing(file: &File, written: &file::Backend) -> Settings {
    let default = Settings::default();
    Settings {
        policy: policy(&written.load_balancing),
        zone: file.zone.as_deref().map(Into::into),
        slow_start: match &written.slow_start {
            None => default.slow_start,
            Some(Switch::Off) => None,
            Some(Switch::On(period)) => Some(period.0),
        },
        panic_percent: percent(written.panic_threshold, default.panic_percent),
        ejection: match &written.ejection {
            Switch::Off => None,
            Switch::On(ejection) => Some(ejecting(ejection)),
        },
        sticky: written.sticky.as_ref().map(|sticky| Sticky {
            cookie: sticky.cookie.0.clone(),
            max_age: sticky.max_age.map(|period| period.0),
        }),
        retry: retry(&written.retry),
        hedge: written.hedge.map(|hedge| match hedge.after {
            HedgeAfter::Fixed(period) => Hedge::After(period.0),
            HedgeAfter::P95 => Hedge::P95,
        }),
        breaker: written.circuit_breaker.as_ref().map(breaking),
        per_try: written.timeout.per_try.map(|period| period.0),
        patience: default.patience,
    }
}

/// How the endpoints of a backend are checked, if they are.
pub(super) fn health_check(written: &file::Backend) -> Option<Check> {
    let check = written.health_check.as_ref()?;
    Some(Check {
        interval: period(check.interval, Duration::from_secs(10)),
        timeout: period(check.timeout, Duration::from_secs(2)),
        up: number(check.healthy, 2),
        down: number(check.unhealthy, 3),
        probe: match health_kind(check, written.protocol) {
            HealthKind::Tcp => Probe::Tcp,
            HealthKind::Grpc => {
                let service = check.service.as_ref().map(|service| service.value.clone());
                Probe::Grpc(service.unwrap_or_default())
            }
            HealthKind::Http => Probe::Http(Page {
                // The file was refused without a path, or with one that is none.
                path: check
                    .path
                    .as_ref()
                    .and_then(|path| path.parse().ok())
                    .unwrap_or(PathAndQuery::from_static("/")),
                expected: match check.expected.as_slice() {
                    [] => vec![(200, 299)],
                    written => written.iter().map(|range| (range.0, range.1)).collect(),
                },
                contains: check.contains.as_ref().map(|text| text.value.clone()),
            }),
        },
    })
}

/// What endpoints are asked, if the file does not say.
pub(super) fn health_kind(check: &file::HealthCheck, protocol: file::Protocol) -> HealthKind {
    match (&check.kind, protocol) {
        (Some(kind), _) => kind.value,
        (None, file::Protocol::Grpc) => HealthKind::Grpc,
        (None, file::Protocol::Rest | file::Protocol::WebSocket) if check.path.is_some() => HealthKind::Http,
        (None, file::Protocol::Rest | file::Protocol::WebSocket) => HealthKind::Tcp,
    }
}

fn policy(written: &LoadBalancing) -> Policy {
    match written {
        LoadBalancing::RoundRobin => Policy::RoundRobin,
        LoadBalancing::LeastRequest => Policy::LeastRequest,
        LoadBalancing::PeakEwma => Policy::PeakEwma,
        LoadBalancing::Hash(hash) => {
            let header = hash.header.as_ref().and_then(|name| name.0.parse().ok());
            let cookie = hash.cookie.as_ref().map(|name| HashOn::Cookie(name.0.clone()));
            let claim = hash.claim.clone().map(HashOn::Claim);
            let field = hash.field.clone().map(HashOn::Field);
            let on = header.map(HashOn::Header).or(cookie).or(claim).or(field);
            // One of them is there: the file is refused otherwise.
            on.map_or(Policy::LeastRequest, Policy::Hash)
        }
    }
}

fn ejecting(written: &file::Ejection) -> Ejecting {
    let default = Ejecting::default();
    Ejecting {
        consecutive: number(written.consecutive, default.consecutive),
        base: period(written.base, default.base),
        longest: period(written.longest, default.longest),
        most_percent: percent(written.max_percent, default.most_percent),
        interval: period(written.interval, default.interval),
        success_rate: written.success_rate.map(|rate| SuccessRate {
            min_calls: number(rate.min_calls, 100).into(),
            min_endpoints: size(rate.min_endpoints, 5),
            deviations: number(rate.deviation_percent, 190),
        }),
        latency: written.latency.map(|slow| SlowAnswers {
            min_calls: number(slow.min_calls, 100).into(),
            min_endpoints: size(slow.min_endpoints, 3),
            factor: number(slow.median_percent, 300),
        }),
    }
}

fn retry(written: &file::Retry) -> Retry {
    let default = Retry::default();
    Retry {
        max: written.max.as_ref().map_or(default.max, |max| max.value),
        first_pause: period(written.first_pause, default.first_pause),
        longest_pause: period(written.longest_pause, default.longest_pause),
        budget_percent: written
            .budget_percent
            .map_or(default.budget_percent, |percent| percent.0.into()),
        budget_per_second: number(written.budget_per_second, default.budget_per_second),
    }
}

fn breaking(written: &file::CircuitBreaker) -> Breaking {
    let default = Breaking::default();
    Breaking {
        min_requests: number(written.min_requests, default.min_requests),
        failure_percent: percent(written.failure_percent, default.failure_percent),
        window: period(written.window, default.window),
        open: period(written.open, default.open),
        longest: period(written.longest, default.longest),
        probes: number(written.probes, default.probes),
    }
}

fn period(written: Option<Period>, default: Duration) -> Duration {
    written.map_or(default, |period| period.0)
}

fn percent(written: Option<Percent>, default: u8) -> u8 {
    written.map_or(default, |percent| percent.0)
}

fn number(written: Option<Count>, default: u32) -> u32 {
    written.map_or(default, |count| count.0)
}

fn size(written: Option<Count>, default: usize) -> usize {
    written.map_or(default, |count| usize::try_from(count.0).unwrap_or(usize::MAX))
}
