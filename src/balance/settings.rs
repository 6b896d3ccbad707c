//! What is configured about the endpoints of a backend, resolved.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

/// How calls are spread over the endpoints of a backend, and what becomes of those that fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How an endpoint is chosen.
    pub policy: Policy,
    /// Where the gateway runs; endpoints of the same zone are preferred.
    pub zone: Option<Arc<str>>,
    /// How long an endpoint that comes, or comes back, takes less than its share; `None` for no time.
    pub slow_start: Option<Duration>,
    /// Percent of endpoints: where fewer are healthy, calls go to all of them. 0 to 100.
    pub panic_percent: u8,
    /// When endpoints are taken out because of the calls that they failed; `None` for never.
    pub ejection: Option<Ejecting>,
    /// The cookie by which a client stays with its endpoint.
    pub sticky: Option<Sticky>,
    /// When a request is sent again.
    pub retry: Retry,
    /// When a second copy of a request is sent.
    pub hedge: Option<Hedge>,
    /// When nothing is sent for a while.
    pub breaker: Option<Breaking>,
    /// How long one attempt may wait for its answer to begin.
    pub per_try: Option<Duration>,
    /// How long a call may wait for an endpoint to come, or to come back.
    pub patience: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            zone: None,
            slow_start: Some(Duration::from_secs(30)),
            panic_percent: 50,
            ejection: Some(Ejecting::default()),
            sticky: None,
            retry: Retry::default(),
            hedge: None,
            breaker: None,
            per_try: None,
            patience: Duration::from_secs(1),
        }
    }
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// One after the other, by weight.
    RoundRobin,
    /// The less loaded of two taken at random.
    #[default]
    LeastRequest,
    /// Of two taken at random, the one that costs less by latency and calls under way.
    PeakEwma,
    /// The one that a key belongs to.
    Hash(HashOn),
}

impl Policy {
    /// The word for it in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequest => "least_request",
            Self::PeakEwma => "peak_ewma",
            Self::Hash(_) => "hash",
        }
    }
}

/// What of a call is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header of the request.
    Header(HeaderName),
    /// A cookie of the request.
    Cookie(String),
    /// A claim of the caller: `sub` is the principal.
    Claim(String),
    /// A field of the first message, by names joined by dots.
    Field(String),
}

/// The cookie by which a client stays with its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sticky {
    /// Its name.
    pub cookie: String,
    /// How long a client keeps it; `None` until it is closed.
    pub max_age: Option<Duration>,
}

/// When endpoints are taken out because of the calls that they failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejecting {
    /// Failures in a row.
    pub consecutive: u32,
    /// How long the first time; each further time this much longer.
    pub base: Duration,
    /// The longest time.
    pub longest: Duration,
    /// Percent of the endpoints that may be out at once; the last one never is. 0 to 100.
    pub most_percent: u8,
    /// Endpoints that fail more often than the others.
    pub success_rate: Option<SuccessRate>,
    /// Endpoints that are slower than the others.
    pub latency: Option<SlowAnswers>,
    /// How often outliers are looked for.
    pub interval: Duration,
}

impl Default for Ejecting {
    fn default() -> Self {
        Self {
            consecutive: 5,
            base: Duration::from_secs(30),
            longest: Duration::from_secs(300),
            most_percent: 50,
            success_rate: None,
            latency: None,
            interval: Duration::from_secs(10),
        }
    }
}

/// Endpoints that fail more often than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// Calls in an interval below which an endpoint is not judged.
    pub min_calls: u64,
    /// Endpoints with so many calls below which nobody is judged.
    pub min_endpoints: usize,
    /// Standard deviations below the mean, in hundredths.
    pub deviations: u32,
}

/// Endpoints that are slower than the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowAnswers {
    /// Calls in an interval below which an endpoint is not judged.
    pub min_calls: u64,
    /// Endpoints with so many calls below which nobody is judged.
    pub min_endpoints: usize,
    /// Times the median of all endpoints, in hundredths.
    pub factor: u32,
}

/// When a request is sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Times at most, beside the first; 0 for never.
    pub max: u32,
    /// The longest pause before the first one; it doubles.
    pub first_pause: Duration,
    /// The longest pause of all.
    pub longest_pause: Duration,
    /// Percent of the calls under way that may be retries.
    pub budget_percent: u32,
    /// Retries in a second that are allowed however few calls there are.
    pub budget_per_second: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max: 2,
            first_pause: Duration::from_millis(25),
            longest_pause: Duration::from_millis(250),
            budget_percent: 20,
            budget_per_second: 10,
        }
    }
}

/// When a second copy of a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// After this time.
    After(Duration),
    /// When it takes longer than 95 of 100 have taken.
    P95,
}

/// When nothing is sent for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaking {
    /// Requests within the window below which it stays closed.
    pub min_requests: u32,
    /// Percent of them that failed.
    pub failure_percent: u8,
    /// What is counted: ten buckets of a tenth of it each.
    pub window: Duration,
    /// How long it is open the first time; it doubles.
    pub open: Duration,
    /// The longest time.
    pub longest: Duration,
    /// Requests that try whether it may close.
    pub probes: u32,
}

impl Default for Breaking {
    fn default() -> Self {
        Self {
            min_requests: 20,
            failure_percent: 50,
            window: Duration::from_secs(10),
            open: Duration::from_secs(5),
            longest: Duration::from_secs(60),
            probes: 3,
        }
    }
}
