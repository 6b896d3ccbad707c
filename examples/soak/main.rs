//! A gateway under mixed load for minutes, while backends stall, reset and die under it and its configuration is changed:
//! every answer is checked, and memory and descriptors have to stay what they are.
//!
//! `cargo build --release --bin sabir --example soak && target/release/examples/soak --duration 1m`
//!
//! Clients are those that other people wrote: hyper, tonic, tokio-tungstenite. Backends are the example service as processes
//! of their own, each behind a proxy that makes the weather. The gateway is the program as users run it. Ends with 1 where an
//! answer was wrong, a call that may be sent twice failed more often than once in a thousand, memory or descriptors grew, or
//! a reload failed. `--faults off` has no faults, and then no call may fail; `--reload-every 200ms` reloads so often.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the program tells what it finds"
)]
#![allow(clippy::disallowed_methods, reason = "tasks and clocks are the program's own")]

mod calls;
mod gateway;
mod network;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sabir::demo;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use calls::{Kind, Verdict};
use gateway::{Gateway, Usage};
use network::Upstream;

/// Clients of each kind.
const CLIENTS: usize = 2;
/// Times that what may be sent twice may fail, of a thousand.
const PER_MILLE: u64 = 1;
/// How often memory and descriptors are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// What memory may grow by between the second quarter and the last, beside a seventh.
const SPARE_KIB: u64 = 8 << 10;
/// What descriptors may grow by between them, beside a fifth.
const SPARE_DESCRIPTORS: u64 = 32;

type Failure = Box<dyn Error + Send + Sync>;

/// What the command line says.
struct Options {
    duration: Duration,
    faults: bool,
    reload_every: Duration,
    sabir: PathBuf,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let beside = std::env::current_exe()?;
        let folder = beside.parent().and_then(|folder| folder.parent());
        let mut options = Self {
            duration: Duration::from_secs(600),
            faults: true,
            reload_every: Duration::from_secs(5),
            sabir: folder.ok_or("the program is nowhere")?.join("sabir"),
        };
        while let Some(argument) = arguments.next() {
            let value = arguments
                .next()
                .ok_or_else(|| format!("{argument} wants a value"))?;
            match argument.as_str() {
                "--duration" => options.duration = period(&value)?,
                "--reload-every" => options.reload_every = period(&value)?,
                "--faults" => options.faults = value != "off",
                "--sabir" => options.sabir = value.into(),
                _ => return Err(format!("{argument} is not known").into()),
            }
        }
        Ok(options)
    }
}

/// Such as `10m`, `90s` or `200ms`.
fn period(text: &str) -> Result<Duration, Failure> {
    let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    let number: u64 = text.trim_end_matches(unit).parse()?;
    match unit {
        "ms" => Ok(Duration::from_millis(number)),
        "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("\"{text}\" is no duration; write such as 10m, 90s or 200ms").into()),
    }
}

/// What became of the calls of one kind.
#[derive(Default)]
struct Tally {
    right: AtomicU64,
    failed: AtomicU64,
    wrong: AtomicU64,
    longest_ms: AtomicU64,
}

/// What is known of the whole.
struct Soak {
    tallies: Vec<(Kind, Tally)>,
    over: AtomicBool,
    complaints: Mutex<Vec<String>>,
    reloads: AtomicU64,
    events: AtomicU64,
}

impl Soak {
    fn new() -> Self {
        Self {
            tallies: Kind::ALL.iter().map(|kind| (*kind, Tally::default())).collect(),
            over: AtomicBool::new(false),
            complaints: Mutex::default(),
            reloads: AtomicU64::new(0),
            events: AtomicU64::new(0),
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn complain(&self, what: String) {
        let mut complaints = self.complaints.lock();
        if complaints.len() < 20 {
            complaints.push(what);
        }
    }

    fn note(&self, kind: Kind, verdict: Verdict, took: Duration) {
        let Some((_, tally)) = self.tallies.iter().find(|(one, _)| *one == kind) else {
            return;
        };
        let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        tally.longest_ms.fetch_max(took, Ordering::Relaxed);
        match verdict {
            Verdict::Right => tally.right.fetch_add(1, Ordering::Relaxed),
            Verdict::Failed(why) => {
                if kind.may_be_sent_twice() {
                    self.complain(format!("{kind:?} failed: {why}"));
                }
                tally.failed.fetch_add(1, Ordering::Relaxed)
            }
            Verdict::Wrong(why) => {
                self.complain(format!("{kind:?} is WRONG: {why}"));
                tally.wrong.fetch_add(1, Ordering::Relaxed)
            }
        };
    }

    /// The table, and what is not as it has to be.
    fn report(&self, options: &Options) -> Vec<String> {
        let mut problems = Vec::new();
        println!(
            "{:28} {:>9} {:>7} {:>6} {:>11}",
            "calls", "right", "failed", "wrong", "longest ms"
        );
        for (kind, tally) in &self.tallies {
            let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
            let (right, failed, wrong) = (of(&tally.right), of(&tally.failed), of(&tally.wrong));
            println!(
                "{:28} {right:>9} {failed:>7} {wrong:>6} {:>11}",
                format!("{kind:?}"),
                of(&tally.longest_ms)
            );
            if right == 0 {
                problems.push(format!("{kind:?}: no call went well"));
            }
            if wrong > 0 {
                problems.push(format!("{kind:?}: {wrong} wrong answers"));
            }
            let allowed = match (options.faults, kind.may_be_sent_twice()) {
                (false, _) => 0,
                (true, true) => (right * PER_MILLE / 1000).max(1),
                (true, false) => u64::MAX,
            };
            if failed > allowed {
                problems.push(format!(
                    "{kind:?}: {failed} failures, where {allowed} are allowed"
                ));
            }
        }
        problems
    }
}

/// One client, which calls one after the other.
async fn client(soak: Arc<Soak>, kind: Kind, address: std::net::SocketAddr, number: usize) {
    let mut caller = calls::Caller::new(kind, address, number);
    while !soak.is_over() {
        let began = Instant::now();
        let verdict = match tokio::time::timeout(Duration::from_secs(30), caller.call()).await {
            Ok(verdict) => verdict,
            Err(_) => Verdict::Wrong("no answer within 30 s".to_owned()),
        };
        if !matches!(verdict, Verdict::Right) {
            caller.forget();
        }
        soak.note(kind, verdict, began.elapsed());
    }
}

/// Stalls, resets and kills one upstream after the other.
async fn faults(soak: Arc<Soak>, upstreams: Vec<Arc<Upstream>>) -> Result<(), Failure> {
    for round in 0_usize.. {
        sleep(Duration::from_millis(700)).await;
        if soak.is_over() {
            break;
        }
        let upstream = &upstreams[round % upstreams.len()];
        match (round / upstreams.len()) % 4 {
            0 => upstream.reset(),
            1 => {
                upstream.stall();
                sleep(Duration::from_millis(400)).await;
                upstream.go_on();
            }
            2 => {
                upstream.delay(Duration::from_millis(20));
                sleep(Duration::from_millis(400)).await;
                upstream.go_on();
            }
            _ => {
                upstream.kill()?;
                sleep(Duration::from_millis(500)).await;
                upstream.restart()?;
            }
        }
        soak.events.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Changes the configuration again and again.
async fn reloads(soak: Arc<Soak>, gateway: Arc<Gateway>, every: Duration) -> Result<(), Failure> {
    let mut due = Instant::now();
    for round in 1_u64.. {
        due += every;
        sleep_until(due).await;
        if soak.is_over() {
            break;
        }
        gateway.configure(round)?;
        match gateway.reload().await {
            Ok(()) => {
                soak.reloads.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => soak.complain(format!("a reload is WRONG: {error}")),
        }
    }
    Ok(())
}

/// Looks at memory and descriptors until it is over.
async fn watch(soak: Arc<Soak>, gateway: Arc<Gateway>) -> Result<Vec<Usage>, Failure> {
    let mut seen = Vec::new();
    while !soak.is_over() {
        seen.push(gateway.usage()?);
        sleep(LOOK).await;
    }
    Ok(seen)
}

/// Whether what was seen in the last quarter is about what was seen in the second.
fn is_flat(what: &str, seen: &[Usage], of: impl Fn(&Usage) -> u64, part: u64, spare: u64) -> Option<String> {
    let quarter = seen.len() / 4;
    let most = |from: usize, to: usize| seen.get(from..to).and_then(|seen| seen.iter().map(&of).max());
    let (before, after) = (most(quarter, quarter * 2)?, most(quarter * 3, seen.len())?);
    println!("{what}: at most {before} in the second quarter, {after} in the last");
    let bound = before + before / part + spare;
    (after > bound).then(|| format!("{what} grew from {before} to {after}; {bound} are allowed"))
}

async fn run(options: Options) -> Result<bool, Failure> {
    let mut upstreams = Vec::new();
    for _ in 0..3 {
        upstreams.push(Arc::new(Upstream::start().await?));
    }
    let addresses = upstreams.iter().map(|upstream| upstream.address).collect();
    let gateway = Arc::new(Gateway::start(&options.sabir, addresses).await?);
    let idle = gateway.usage()?;
    let soak = Arc::new(Soak::new());
    let mut clients = JoinSet::new();
    for kind in Kind::ALL {
        for number in 0..CLIENTS {
            clients.spawn(client(Arc::clone(&soak), kind, gateway.address, number));
        }
    }
    let mut others = JoinSet::new();
    if options.faults {
        others.spawn(faults(Arc::clone(&soak), upstreams.clone()));
    }
    others.spawn(reloads(
        Arc::clone(&soak),
        Arc::clone(&gateway),
        options.reload_every,
    ));
    let watched = tokio::spawn(watch(Arc::clone(&soak), Arc::clone(&gateway)));
    sleep(options.duration).await;
    soak.over.store(true, Ordering::Relaxed);
    let seen = watched.await??;
    while clients.join_next().await.is_some() {}
    while let Some(outcome) = others.join_next().await {
        outcome??;
    }
    let mut problems = soak.report(&options);
    println!(
        "{} faults, {} reloads; gateway idle: {} KiB, {} descriptors",
        soak.events.load(Ordering::Relaxed),
        soak.reloads.load(Ordering::Relaxed),
        idle.resident_kib,
        idle.descriptors
    );
    problems.extend(is_flat(
        "resident KiB",
        &seen,
        |seen| seen.resident_kib,
        7,
        SPARE_KIB,
    ));
    problems.extend(is_flat(
        "descriptors",
        &seen,
        |seen| seen.descriptors,
        5,
        SPARE_DESCRIPTORS,
    ));
    // Clients have gone: what is left are listeners, files and connections to upstreams.
    let settled = settled(&gateway, idle.descriptors + SPARE_DESCRIPTORS).await?;
    println!("descriptors after it: {settled}");
    if settled > idle.descriptors + SPARE_DESCRIPTORS {
        problems.push(format!(
            "{settled} descriptors are left, {} were there before",
            idle.descriptors
        ));
    }
    let complaints = soak.complaints.lock();
    complaints.iter().for_each(|complaint| println!("  {complaint}"));
    problems.extend(
        complaints
            .iter()
            .filter(|complaint| complaint.starts_with("a reload"))
            .cloned(),
    );
    if soak.reloads.load(Ordering::Relaxed) == 0 {
        problems.push("there was no reload".to_owned());
    }
    for problem in &problems {
        eprintln!("FAILED: {problem}");
    }
    Ok(problems.is_empty())
}

/// How many descriptors are left once that is no more than `bound`, or after ten seconds.
async fn settled(gateway: &Gateway, bound: u64) -> Result<u64, Failure> {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        let left = gateway.usage()?.descriptors;
        if left <= bound || Instant::now() > give_up {
            return Ok(left);
        }
        sleep(LOOK).await;
    }
}

/// The backend process: the example service, until it is killed.
async fn backend(address: &str) -> Result<bool, Failure> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    demo::serve(listener, std::future::pending()).await?;
    Ok(true)
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let outcome = if arguments.next_if(|first| first == "--backend").is_some() {
        backend(&arguments.next().unwrap_or_default()).await
    } else {
        match Options::read(arguments) {
            Ok(options) => run(options).await,
            Err(error) => Err(error),
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::from(2)
        }
    }
}
