//! How well pickers spread calls: a simulation of ten endpoints, of which one is ten times slower than the others.
//!
//! Each endpoint serves four calls at once and queues the others; calls come by chance, and take a time by chance. No
//! clock and no socket: the same decisions are made as on the way of a call, on simulated time. Run it with
//! `cargo bench --bench balance`.

#![allow(clippy::print_stdout, clippy::panic, reason = "it prints what it finds")]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::process::ExitCode;
use std::time::Duration;

use sabir::balance::picker::{Field, picker};
use sabir::balance::settings::{HashOn, Policy, Settings};
use sabir::balance::{Group, Listed, hash};
use sabir::upstream::dice;
use tokio::time::Instant;

const ENDPOINTS: usize = 10;
const AT_ONCE: usize = 4;
const CALLS: usize = 200_000;
/// Microseconds that a call takes on average, at the slow endpoint and at the others.
const SLOW: f64 = 100_000.0;
const USUAL: f64 = 10_000.0;

/// What an endpoint has to do.
#[derive(Default)]
struct Server {
    serving: usize,
    queue: VecDeque<u64>,
}

/// A number above 0 and up to 1.
#[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
fn chance() -> f64 {
    ((dice::roll() >> 11) + 1) as f64 / (1_u64 << 53) as f64
}

/// A time by chance, of this average, in microseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "far below 2^63, and above 0"
)]
fn exponential(mean: f64) -> u64 {
    (-chance().ln() * mean) as u64 + 1
}

/// The latencies of all calls in microseconds, sorted, where calls come at so many a second.
fn simulate(policy: &Policy, per_second: f64) -> Vec<u64> {
    let listed: Vec<Listed> = (0..ENDPOINTS)
        .filter_map(|at| format!("http://10.0.0.{at}:80").parse().ok())
        .map(Listed::new)
        .collect();
    let settings = Settings {
        policy: policy.clone(),
        ..Settings::default()
    };
    let group = Group::new("simulated", settings, &listed, None);
    let members = group.members();
    let picker = picker(policy);
    let base = Instant::now();
    let at_time = |micros: u64| base + Duration::from_micros(micros);
    let mut servers: Vec<Server> = (0..ENDPOINTS).map(|_| Server::default()).collect();
    // When a call ends: the time, the endpoint, and when it came.
    let mut ends: BinaryHeap<Reverse<(u64, usize, u64)>> = BinaryHeap::new();
    let mut latencies = Vec::with_capacity(CALLS);
    let mean = |at: usize| if at == 0 { SLOW } else { USUAL };
    let mut now = 0;
    for number in 0..CALLS {
        now += exponential(1e6 / per_second);
        while let Some(Reverse((end, at, came))) = ends.peek().copied()
            && end <= now
        {
            ends.pop();
            let endpoint = &members.list()[at].endpoint;
            endpoint.end();
            endpoint.observe(Duration::from_micros(end - came), at_time(end));
            latencies.push(end - came);
            let server = &mut servers[at];
            match server.queue.pop_front() {
                Some(came) => ends.push(Reverse((end + exponential(mean(at)), at, came))),
                None => server.serving -= 1,
            }
        }
        let key = hash::text(&number.to_string());
        let field = Field::of(&members, at_time(now));
        let Some(at) = picker.pick(&field, Some(key)) else {
            panic!("nobody was picked")
        };
        members.list()[at].endpoint.begin();
        let server = &mut servers[at];
        if server.serving < AT_ONCE {
            server.serving += 1;
            ends.push(Reverse((now + exponential(mean(at)), at, now)));
        } else {
            server.queue.push_back(now);
        }
    }
    latencies.sort_unstable();
    latencies
}

fn quantile(sorted: &[u64], of_ten_thousand: usize) -> u64 {
    let at = sorted.len() * of_ten_thousand / 10_000;
    sorted
        .get(at.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}

fn main() -> ExitCode {
    let policies = [
        Policy::RoundRobin,
        Policy::LeastRequest,
        Policy::PeakEwma,
        Policy::Hash(HashOn::Claim("sub".to_owned())),
    ];
    let mut all_beat = true;
    // The slow endpoint can serve 40 calls a second, and a round robin gives it a tenth of all.
    for per_second in [300.0, 1_000.0, 2_500.0] {
        println!("\n{per_second} calls a second; latencies in milliseconds");
        println!("{:>14} {:>8} {:>8} {:>8} {:>9}", "", "p50", "p90", "p99", "p99.9");
        let mut tails = Vec::new();
        for policy in &policies {
            let sorted = simulate(policy, per_second);
            let [half, most, tail, end] = [5_000, 9_000, 9_900, 9_990].map(|at| quantile(&sorted, at));
            let ms = |micros: u64| format!("{}.{}", micros / 1000, micros % 1000 / 100);
            println!(
                "{:>14} {:>8} {:>8} {:>8} {:>9}",
                policy.name(),
                ms(half),
                ms(most),
                ms(tail),
                ms(end)
            );
            tails.push(tail);
        }
        all_beat &= tails[1] < tails[0] && tails[2] < tails[0];
    }
    println!("\nleast_request and peak_ewma beat round_robin at p99: {all_beat}");
    if all_beat {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
