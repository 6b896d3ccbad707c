//! Metrics, as OpenMetrics text.
//!
//! Each worker counts in a shard of its own; the page adds the shards up. Labels are bounded: routes and methods come
//! from the configuration and the descriptors, never from a request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use crate::fault::Kind;
use crate::listen::counters::Counters;
use crate::observe::log::Log;
use crate::policy::throttle::{Adaptive, Book, Priority, Shedder, Verdict};
use crate::status::Code;
use crate::translate::Tally;
use crate::translate::tally::{self, Outcome};

/// The upper bounds of the latency histogram, in microseconds.
const BOUNDS: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
    15_000_000,
];

/// What a series is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The route's name; empty where none was found.
    pub route: String,
    /// The rpc, such as `library.v1.Library/GetBook`; empty where none was found.
    pub rpc: String,
    /// The dialect of the client.
    pub dialect: &'static str,
}

/// What one worker counts of one route, method and dialect. It alone writes here; everybody may read.
#[derive(Debug)]
pub struct Series {
    codes: [AtomicU64; Code::ALL.len()],
    refusals: [AtomicU64; Kind::ALL.len()],
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
    in_flight: AtomicI64,
    request_messages: AtomicU64,
    reply_messages: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            codes: std::array::from_fn(|_| AtomicU64::new(0)),
            refusals: std::array::from_fn(|_| AtomicU64::new(0)),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            microseconds: AtomicU64::new(0),
            in_flight: AtomicI64::new(0),
            request_messages: AtomicU64::new(0),
            reply_messages: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            reply_bytes: AtomicU64::new(0),
        }
    }
}

impl Series {
    /// A call began.
    pub fn begin(&self) {
        self.move_in_flight(1);
    }

    fn move_in_flight(&self, by: i64) {
        let now = self.in_flight.load(Ordering::Relaxed).wrapping_add(by);
        self.in_flight.store(now, Ordering::Relaxed);
    }

    /// It turned out to belong to another series.
    pub fn leave(&self) {
        self.move_in_flight(-1);
    }

    /// It ended.
    pub fn end(&self, outcome: Outcome, duration: Duration, tally: &Tally) {
        let add = |counter: Option<&AtomicU64>, amount| {
            if let Some(counter) = counter {
                tally::add(counter, amount);
            }
        };
        add(self.codes.get(usize::from(outcome.code().number())), 1);
        if let Outcome::Gateway(kind, _) = outcome {
            add(
                self.refusals
                    .get(Kind::ALL.iter().position(|other| *other == kind).unwrap_or(0)),
                1,
            );
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        add(
            self.buckets.get(BOUNDS.partition_point(|bound| *bound < micros)),
            1,
        );
        add(Some(&self.microseconds), micros);
        add(Some(&self.request_messages), tally.request_messages());
        add(Some(&self.reply_messages), tally.reply_messages());
        add(Some(&self.request_bytes), tally.request_bytes());
        add(Some(&self.reply_bytes), tally.reply_bytes());
        self.move_in_flight(-1);
    }

    /// Adds another shard's counts.
    fn add(&self, other: &Self) {
        let sum = |into: &[AtomicU64], from: &[AtomicU64]| {
            for (into, from) in into.iter().zip(from) {
                into.fetch_add(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        };
        sum(&self.codes, &other.codes);
        sum(&self.refusals, &other.refusals);
        sum(&self.buckets, &other.buckets);
        for (into, from) in [
            (&self.microseconds, &other.microseconds),
            (&self.request_messages, &other.request_messages),
            (&self.reply_messages, &other.reply_messages),
            (&self.request_bytes, &other.request_bytes),
            (&self.reply_bytes, &other.reply_bytes),
        ] {
            sum(std::slice::from_ref(into), std::slice::from_ref(from));
        }
        self.in_flight
            .fetch_add(other.in_flight.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The series of one worker. They outlive the plan that asked for them, so that counts never go back.
#[derive(Debug, Default)]
pub struct Shard(Mutex<BTreeMap<Key, Arc<Series>>>);

impl Shard {
    /// The series for a key. Not for the call path: handles are taken when a plan is put in place.
    pub fn series(&self, key: Key) -> Arc<Series> {
        Arc::clone(self.0.lock().entry(key).or_default())
    }
}

/// The metrics of the process.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    shards: Vec<Arc<Shard>>,
    listeners: Arc<Counters>,
    log: Log,
    generation: AtomicU64,
    reloads: [AtomicU64; 2],
    others: Mutex<Vec<Others>>,
    limits: OnceLock<Arc<Book>>,
}

/// Writes metrics that somebody else counts.
pub type Others = Box<dyn Fn(&mut DescriptorEncoder<'_>) -> fmt::Result + Send + Sync>;

impl Metrics {
    /// Metrics with a shard for each worker.
    pub fn new(workers: usize, listeners: Arc<Counters>, log: Log) -> Self {
        Self(Arc::new(Inner {
            shards: (0..workers).map(|_| Arc::default()).collect(),
            listeners,
            log,
            generation: AtomicU64::new(0),
            reloads: Default::default(),
            others: Mutex::default(),
            limits: OnceLock::new(),
        }))
    }

    /// The page tells of the limits in this book too.
    pub fn tell_of(&self, limits: Arc<Book>) {
        // There is one book in a process.
        let _ = self.0.limits.set(limits);
    }

    /// The shard of a worker, counted from 0.
    pub fn shard(&self, worker: usize) -> Arc<Shard> {
        self.0.shards.get(worker).cloned().unwrap_or_default()
    }

    /// Puts the metrics of somebody else on the page too.
    pub fn include(&self, others: Others) {
        self.0.others.lock().push(others);
    }

    /// A plan was put in place.
    pub fn planned(&self, generation: u64) {
        self.0.generation.store(generation, Ordering::Relaxed);
        self.count_reload(0);
    }

    /// A plan was refused; the one before it stays.
    pub fn plan_refused(&self) {
        self.count_reload(1);
    }

    fn count_reload(&self, outcome: usize) {
        if let Some(counter) = self.0.reloads.get(outcome) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The page.
    pub fn text(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self.clone()));
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing to a string never fails.
            Err(fmt::Error) => String::new(),
        }
    }

    /// The sum of the workers' series.
    fn sum(&self) -> BTreeMap<Key, Series> {
        let mut sums: BTreeMap<Key, Series> = BTreeMap::new();
        for shard in &self.0.shards {
            for (key, series) in &*shard.0.lock() {
                sums.entry(key.clone()).or_default().add(series);
            }
        }
        sums
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let sums = self.sum();
        calls(&mut encoder, &sums)?;
        durations(&mut encoder, &sums)?;
        traffic(&mut encoder, &sums)?;
        for others in &*self.0.others.lock() {
            others(&mut encoder)?;
        }
        if let Some(book) = self.0.limits.get() {
            limits(&mut encoder, book)?;
        }
        self.process(&mut encoder)
    }
}

fn labels(key: &Key) -> Labels<'_> {
    vec![
        ("route", key.route.as_str()),
        ("rpc", key.rpc.as_str()),
        ("dialect_in", key.dialect),
        ("dialect_out", if key.rpc.is_empty() { "" } else { "grpc" }),
    ]
}

fn calls(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<Key, Series>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "sabir_requests",
        "Calls that ended, by gRPC code.",
        None,
        MetricType::Counter,
    )?;
    for (key, series) in sums {
        for (code, count) in Code::ALL.iter().zip(&series.codes) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let mut labels = labels(key);
                labels.push(("code", code.name()));
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let mut family = encoder.encode_descriptor(
        "sabir_faults",
        "Calls that the gateway itself ended, by reason.",
        None,
        MetricType::Counter,
    )?;
    for (key, series) in sums {
        for (kind, count) in Kind::ALL.iter().zip(&series.refusals) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let labels = [
                    ("route", key.route.as_str()),
                    ("dialect_in", key.dialect),
                    ("reason", kind.reason()),
                ];
                ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let mut family =
        encoder.encode_descriptor("sabir_inflight", "Calls under way.", None, MetricType::Gauge)?;
    for (key, series) in sums {
        ConstGauge::new(series.in_flight.load(Ordering::Relaxed))
            .encode(family.encode_family(&labels(key))?)?;
    }
    Ok(())
}

/// What limits have decided, and the calls in flight where they are bounded.
fn limits(encoder: &mut DescriptorEncoder<'_>, book: &Book) -> fmt::Result {
    let (counters, rooms, adaptives) = (book.all(), book.rooms(), book.adaptives());
    let mut family = encoder.encode_descriptor(
        "sabir_ratelimit",
        "Calls that limits were asked about, by what they decided.",
        None,
        MetricType::Counter,
    )?;
    for counter in &counters {
        for (verdict, count) in Verdict::ALL.iter().zip(counter.verdicts()) {
            // Of keys in a file there may be many: those that never call have no series.
            if counter.limit().of_key && count == 0 {
                continue;
            }
            let labels = [
                ("limit", counter.limit().name.as_str()),
                ("decision", verdict.name()),
            ];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
    }
    for room in &rooms {
        let labels = [("limit", room.name()), ("decision", Verdict::Refused.name())];
        ConstCounter::new(room.refused()).encode(family.encode_family(&labels)?)?;
    }
    for bound in &adaptives {
        let labels = [("limit", bound.name()), ("decision", Verdict::Refused.name())];
        ConstCounter::new(bound.refused()).encode(family.encode_family(&labels)?)?;
    }
    adaptive(encoder, &adaptives)?;
    shedding(encoder, &book.shedders())?;
    if let Some(cluster) = book.shared_by() {
        for (name, help, value) in [
            (
                "sabir_cluster_up",
                "Whether the store that limits are shared by can be asked.",
                i64::from(cluster.is_up()),
            ),
            (
                "sabir_cluster_nodes",
                "Gateways that share limits, as this one saw them last.",
                i64::from(cluster.nodes()),
            ),
        ] {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)?;
        }
    }
    let mut family = encoder.encode_descriptor(
        "sabir_ratelimit_keys",
        "Callers that a limit knows.",
        None,
        MetricType::Gauge,
    )?;
    for counter in counters.iter().filter(|counter| !counter.limit().of_key) {
        let keys = i64::try_from(counter.keys()).unwrap_or(i64::MAX);
        let labels = [("limit", counter.limit().name.as_str())];
        ConstGauge::new(keys).encode(family.encode_family(&labels)?)?;
    }
    let mut family = encoder.encode_descriptor(
        "sabir_concurrency",
        "Calls in flight where they are bounded.",
        None,
        MetricType::Gauge,
    )?;
    for room in &rooms {
        let labels = [("limit", room.name())];
        ConstGauge::new(i64::from(room.in_flight())).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// Bounds that find themselves out.
fn adaptive(encoder: &mut DescriptorEncoder<'_>, all: &[Arc<Adaptive>]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    type Read = fn(&Adaptive) -> f64;
    let families: [(&str, &str, Read); 3] = [
        (
            "sabir_adaptive_limit",
            "Requests that may be in flight, by how long answers take.",
            |bound| f64::from(bound.bound()),
        ),
        ("sabir_adaptive_inflight", "Requests that are.", |bound| {
            f64::from(bound.in_flight())
        }),
        (
            "sabir_adaptive_best_latency_seconds",
            "How long an answer takes at best; 0 before that was measured.",
            |bound| bound.best().unwrap_or_default().as_secs_f64(),
        ),
    ];
    for (name, help, read) in families {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for bound in all {
            ConstGauge::new(read(bound)).encode(family.encode_family(&[("limit", bound.name())])?)?;
        }
    }
    Ok(())
}

/// What is shed, of all workers together.
fn shedding(encoder: &mut DescriptorEncoder<'_>, all: &[Arc<Shedder>]) -> fmt::Result {
    if all.is_empty() {
        return Ok(());
    }
    let mut family = encoder.encode_descriptor(
        "sabir_shed",
        "Calls that were shed, by their class.",
        None,
        MetricType::Counter,
    )?;
    for (at, priority) in Priority::SHEDDABLE.into_iter().enumerate() {
        let count = |shedder: &Arc<Shedder>| shedder.refused().get(at).copied().unwrap_or(0);
        let sum: u64 = all.iter().map(count).sum();
        ConstCounter::new(sum).encode(family.encode_family(&[("priority", priority.name())])?)?;
    }
    let longest = all
        .iter()
        .map(|shedder| shedder.queue())
        .max()
        .unwrap_or_default();
    let metric = encoder.encode_descriptor(
        "sabir_queue_seconds",
        "How long what was ready waited last, at the worker where that took longest.",
        None,
        MetricType::Gauge,
    )?;
    ConstGauge::new(longest.as_secs_f64()).encode(metric)
}

fn durations(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<Key, Series>) -> fmt::Result {
    let mut family = encoder.encode_descriptor(
        "sabir_request_duration_seconds",
        "From the request head to the end of the answer.",
        None,
        MetricType::Histogram,
    )?;
    for (key, series) in sums {
        let bounds = BOUNDS.iter().map(|micros| seconds(*micros)).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = bounds
            .zip(series.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)))
            .collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        family
            .encode_family(&labels(key))?
            .encode_histogram::<NoLabelSet>(
                seconds(series.microseconds.load(Ordering::Relaxed)),
                count,
                &buckets,
                None,
            )?;
    }
    Ok(())
}

/// Microseconds as seconds; exact enough for a page that people and dashboards read.
#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of 285 years is where the first microsecond is lost"
)]
fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn traffic(encoder: &mut DescriptorEncoder<'_>, sums: &BTreeMap<Key, Series>) -> fmt::Result {
    type Read = fn(&Series) -> [(&'static str, &AtomicU64); 2];
    let families: [(&str, &str, Read); 2] = [
        (
            "sabir_stream_messages",
            "Messages of calls that ended.",
            |series| {
                [
                    ("request", &series.request_messages),
                    ("response", &series.reply_messages),
                ]
            },
        ),
        (
            "sabir_body_bytes",
            "Bytes of bodies of calls that ended, as clients send and get them.",
            |series| {
                [
                    ("request", &series.request_bytes),
                    ("response", &series.reply_bytes),
                ]
            },
        ),
    ];
    for (name, help, read) in families {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (key, series) in sums {
            for (direction, count) in read(series) {
                let mut labels = labels(key);
                labels.push(("direction", direction));
                ConstCounter::new(count.load(Ordering::Relaxed)).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    Ok(())
}

impl Metrics {
    /// What is counted for the process as a whole.
    fn process(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counters = &self.0.listeners;
        let plain = [
            (
                "sabir_connections_accepted",
                "Connections taken.",
                counters.accepted.value(),
            ),
            (
                "sabir_accept_errors",
                "Errors of accepting.",
                counters.accept_errors.value(),
            ),
            (
                "sabir_tls_handshakes_failed",
                "TLS handshakes that failed.",
                counters.handshakes_failed.value(),
            ),
            (
                "sabir_heads_late",
                "Request heads that did not come in time.",
                counters.heads_late.value(),
            ),
            (
                "sabir_heads_refused",
                "Request heads that were refused.",
                counters.heads_refused.value(),
            ),
            (
                "sabir_connections_calmed",
                "Connections ended for too many resets.",
                counters.calmed.value(),
            ),
            (
                "sabir_connections_rested",
                "Times that an idle connection gave back what it did not need.",
                counters.rested.value(),
            ),
            (
                "sabir_requests_shed",
                "Requests refused for lack of memory.",
                counters.shed.value(),
            ),
            (
                "sabir_panics",
                "Panics that were caught.",
                counters.panics.value(),
            ),
            (
                "sabir_log_lines_dropped",
                "Buffers of log lines dropped.",
                self.0.log.dropped(),
            ),
        ];
        for (name, help, count) in plain {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(metric)?;
        }
        let mut family = encoder.encode_descriptor(
            "sabir_connections_refused",
            "Connections turned away, by the cap that was met.",
            None,
            MetricType::Counter,
        )?;
        for (cap, count) in [
            ("total", counters.over_total.value()),
            ("address", counters.over_address.value()),
            ("denied", counters.barred.value()),
        ] {
            ConstCounter::new(count).encode(family.encode_family(&[("cap", cap)])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "sabir_config_reload",
            "Plans that were compiled, by outcome.",
            None,
            MetricType::Counter,
        )?;
        for (outcome, count) in ["success", "failure"].into_iter().zip(&self.0.reloads) {
            ConstCounter::new(count.load(Ordering::Relaxed))
                .encode(family.encode_family(&[("result", outcome)])?)?;
        }
        let generation = i64::try_from(self.0.generation.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let metric = encoder.encode_descriptor(
            "sabir_descriptor_generation",
            "The number of the plan in place.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(generation).encode(metric)
    }
}
