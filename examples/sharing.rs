//! What two workers of one gateway have to do with each other, in time: CPU per call of one gateway with two workers, each
//! on a core of its own, beside two gateways with one worker each, which have nothing in common. Both are loaded alike, in
//! turns. What the workers share on the way of a call would show as a cost that the two gateways don't have. Linux only,
//! and two cores.
//!
//!     cargo build --release && cargo run --release --example sharing [-- PROGRAM]
//!
//! Bounded in calls and in time.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "the program tells what it finds, and its tasks are its own"
)]

mod process;

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use process::{Failure, Gateway};
use rustix::thread::{CpuSet, Pid, sched_getaffinity, sched_setaffinity};
use sabir::demo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Connections of each of the two loads.
const CONNECTIONS: usize = 16;
/// Calls on each connection in a round.
const CALLS: usize = 400;
/// Rounds of each arrangement, after one that does not count.
const ROUNDS: usize = 11;
/// How long one call may take.
const PATIENCE: Duration = Duration::from_secs(30);

const BOOK: &str = "/v1/shelves/1/books/7";

/// One of the two loads: a thread with clients and an example service, on one core.
struct Load {
    service: SocketAddr,
    /// Where to send the next round: to each of these as many clients.
    rounds: mpsc::Sender<Vec<SocketAddr>>,
    done: mpsc::Receiver<Result<(), Failure>>,
    _thread: JoinHandle<()>,
}

impl Load {
    fn start(core: usize) -> Result<Self, Failure> {
        let (told, services) = mpsc::channel();
        let (rounds, orders) = mpsc::channel::<Vec<SocketAddr>>();
        let (finished, done) = mpsc::channel();
        let thread = std::thread::Builder::new().name("load".into()).spawn(move || {
            let run = || -> Result<(), Failure> {
                pin(None, core)?;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                runtime.block_on(async {
                    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                    told.send(listener.local_addr()?)?;
                    let orders = Arc::new(parking_lot::Mutex::new(orders));
                    let service = demo::serve(listener, std::future::pending());
                    let rounds = async {
                        loop {
                            let orders = Arc::clone(&orders);
                            let order = tokio::task::spawn_blocking(move || orders.lock().recv()).await?;
                            let Ok(gateways) = order else { return Ok(()) };
                            finished.send(round(&gateways).await)?;
                        }
                    };
                    tokio::select! {
                        served = service => Err(format!("the example service ended: {served:?}").into()),
                        ended = rounds => ended,
                    }
                })
            };
            if let Err(error) = run() {
                // Nobody listens when all is over.
                let _ = finished.send(Err(error));
            }
        })?;
        Ok(Self {
            service: services.recv()?,
            rounds,
            done,
            _thread: thread,
        })
    }
}

/// Calls on all connections at once, one after the other on each.
async fn round(gateways: &[SocketAddr]) -> Result<(), Failure> {
    let mut clients = JoinSet::new();
    for gateway in gateways.iter().cycle().take(CONNECTIONS) {
        clients.spawn(client(*gateway));
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(())
}

async fn client(gateway: SocketAddr) -> Result<(), Failure> {
    let stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    let (mut client, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    for _ in 0..CALLS {
        client.ready().await?;
        let request = http::Request::get(BOOK)
            .header("host", gateway.to_string())
            .body(Empty::new())?;
        let response = timeout(PATIENCE, client.send_request(request)).await??;
        if response.status() != 200 {
            return Err(format!("the gateway answered {}", response.status()).into());
        }
        timeout(PATIENCE, response.into_body().collect()).await??;
    }
    drop(client);
    connection.await??;
    Ok(())
}

/// Binds a thread, or the one that asks, to a core.
fn pin(thread: Option<Pid>, core: usize) -> Result<(), Failure> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(thread, &cores)?)
}

/// The threads of a process that bear its calls, by number.
fn workers(gateway: &Gateway) -> Result<Vec<Pid>, Failure> {
    let mut found = Vec::new();
    for thread in std::fs::read_dir(format!("/proc/{}/task", gateway.id()))? {
        let thread = thread?;
        let name = std::fs::read_to_string(thread.path().join("comm"))?;
        if let Some(number) = name.trim().strip_prefix("worker-") {
            let number: usize = number.parse()?;
            let id = thread
                .file_name()
                .to_string_lossy()
                .parse()
                .ok()
                .and_then(Pid::from_raw);
            found.push((number, id.ok_or("a thread without a number")?));
        }
    }
    found.sort_unstable_by_key(|(number, _)| *number);
    Ok(found.into_iter().map(|(_, thread)| thread).collect())
}

/// CPU time of all threads of a process, in nanoseconds.
fn cpu_time(gateway: &Gateway) -> Result<u64, Failure> {
    let mut all = 0;
    for thread in std::fs::read_dir(format!("/proc/{}/task", gateway.id()))? {
        let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let time = stat.split_whitespace().next().ok_or("an empty schedstat")?;
        all += time.parse::<u64>()?;
    }
    Ok(all)
}

/// Gateways beside each other, which have two workers together, each on a core.
struct Arrangement {
    name: &'static str,
    gateways: Vec<Gateway>,
    /// Nanoseconds a call, round by round.
    costs: Vec<u64>,
}

impl Arrangement {
    fn start(
        name: &'static str,
        program: &str,
        gateways: usize,
        cores: [usize; 2],
        loads: &[Load; 2],
    ) -> Result<Self, Failure> {
        let [one, other] = loads.each_ref().map(|load| load.service);
        let configuration = format!(
            "workers: {}\n\
             listeners: [{{address: \"127.0.0.1:0\"}}]\n\
             admin: {{address: \"127.0.0.1:0\"}}\n\
             backends: {{library: {{endpoints: [\"http://{one}\", \"http://{other}\"]}}}}\n\
             routes: [{{services: [\"*\"], backend: library}}]\n",
            2 / gateways
        );
        let gateways = (0..gateways)
            .map(|_| Gateway::start(Command::new(program), &configuration))
            .collect::<Result<Vec<_>, _>>()?;
        let mut cores = cores.into_iter();
        for gateway in &gateways {
            for worker in workers(gateway)? {
                pin(Some(worker), cores.next().ok_or("more workers than cores")?)?;
            }
        }
        if cores.next().is_some() {
            return Err("fewer workers than cores".into());
        }
        Ok(Self {
            name,
            gateways,
            costs: Vec::new(),
        })
    }

    /// A round from both loads. Each has half of its clients at each worker, in one gateway or in two, so that as much goes from
    /// core to core.
    fn round(&self, loads: &[Load; 2]) -> Result<u64, Failure> {
        let spent = || self.gateways.iter().map(cpu_time).sum::<Result<u64, _>>();
        let before = spent()?;
        for load in loads {
            load.rounds
                .send(self.gateways.iter().map(|gateway| gateway.address).collect())?;
        }
        for load in loads {
            load.done.recv()??;
        }
        let calls = u64::try_from(loads.len() * CONNECTIONS * CALLS)?;
        Ok((spent()? - before) / calls)
    }
}

fn main() -> Result<(), Failure> {
    let program = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "target/release/sabir".to_owned());
    let allowed = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let (Some(one), Some(other)) = (cores.next(), cores.next()) else {
        return Err("this wants two cores".into());
    };
    let cores = [one, other];
    let loads = [Load::start(one)?, Load::start(other)?];
    let mut arrangements = [
        Arrangement::start("two gateways of one worker", &program, 2, cores, &loads)?,
        Arrangement::start("one gateway of two workers", &program, 1, cores, &loads)?,
    ];
    for number in 0..=ROUNDS {
        for arrangement in &mut arrangements {
            let cost = arrangement.round(&loads)?;
            if number > 0 {
                arrangement.costs.push(cost);
            }
        }
    }
    let [apart, together] = &arrangements;
    let mut ratios: Vec<u64> = together
        .costs
        .iter()
        .zip(&apart.costs)
        .map(|(together, apart)| together * 1000 / apart.max(&1))
        .collect();
    ratios.sort_unstable();
    for arrangement in &arrangements {
        let least = arrangement.costs.iter().min().copied().unwrap_or_default();
        println!(
            "{:<28} {:>4} us of CPU a call, the least of {ROUNDS} rounds",
            arrangement.name,
            least / 1000
        );
    }
    let median = ratios.get(ROUNDS / 2).copied().unwrap_or_default();
    println!(
        "together / apart             {}.{:03}, the median over rounds in turns",
        median / 1000,
        median % 1000
    );
    Ok(())
}
