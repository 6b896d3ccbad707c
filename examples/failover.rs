//! What a gateway makes of backends that die: three example services as processes, two of which are killed under load and
//! come back. Prints how many calls failed, how long it took until none did, and how the load is spread afterwards.
//!
//! Run it with `cargo run --release --example failover > records`: what it found goes to standard error, the gateway's
//! access records to standard output.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the program tells what it finds"
)]

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use sabir::config;
use sabir::demo;
use sabir::observe::{Log, LogFormat};
use sabir::serve;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Clients that call one after the other.
const CLIENTS: usize = 8;
/// How long each part takes.
const PART: Duration = Duration::from_secs(3);

type Failure = Box<dyn Error + Send + Sync>;

/// A backend in a process of its own; it dies with this one.
struct Backend {
    address: SocketAddr,
    child: Child,
}

impl Backend {
    /// Starts one, at an address that is free or at the one that it had before.
    fn start(address: Option<SocketAddr>) -> Result<Self, Failure> {
        let text = address.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--backend", &text])
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        Ok(Self {
            address: line.trim().parse()?,
            child,
        })
    }

    /// Ends it as a crash does.
    fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

/// The backend process: the example service, until it is killed.
async fn backend(address: &str) -> Result<(), Failure> {
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("{}", listener.local_addr()?);
    demo::serve(listener, std::future::pending()).await?;
    Ok(())
}

/// What clients saw.
#[derive(Default)]
struct Seen {
    calls: AtomicUsize,
    failures: AtomicUsize,
    last_failure: Mutex<Option<Instant>>,
    over: AtomicBool,
}

/// Calls one after the other until it is over.
async fn call(gateway: SocketAddr, seen: Arc<Seen>) {
    while !seen.over.load(Ordering::Relaxed) {
        let outcome = get(gateway, "/v1/shelves/1/books/7").await;
        seen.calls.fetch_add(1, Ordering::Relaxed);
        if !outcome.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            seen.failures.fetch_add(1, Ordering::Relaxed);
            *seen.last_failure.lock() = Some(Instant::now());
        }
    }
}

async fn get(address: SocketAddr, path: &str) -> Result<String, std::io::Error> {
    let mut socket = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// How many calls the gateway says that each backend has got.
async fn calls(admin: SocketAddr, backends: &[Backend]) -> Result<Vec<u64>, Failure> {
    let page = get(admin, "/metrics").await?;
    let of = |backend: &Backend| {
        let endpoint = backend.address;
        let name =
            format!("sabir_endpoint_calls_total{{backend=\"library\",endpoint=\"http://{endpoint}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&name));
        Ok(value.ok_or("no such metric")?.trim().parse()?)
    };
    backends.iter().map(of).collect()
}

async fn supervise() -> Result<(), Failure> {
    let mut backends = [
        Backend::start(None)?,
        Backend::start(None)?,
        Backend::start(None)?,
    ];
    let endpoints: Vec<String> = backends
        .iter()
        .map(|it| format!("\"http://{}\"", it.address))
        .collect();
    let text = format!(
        "workers: 2\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\n\
         backends:\n  library:\n    endpoints: [{}]\n    slow_start: 2s\n    load_balancing: least_request\n\
         \x20   health_check: {{interval: 500ms, healthy: 1}}\n\
         routes:\n  - {{services: [\"library.v1.*\"], backend: library}}\n",
        endpoints.join(", ")
    );
    let file = config::from_text("failover", Path::new("."), &text)
        .map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string))?;
    let (log, writer) = Log::start(LogFormat::Json)?;
    let running = serve::start(&file, log)
        .await
        .map_err(|error| error.to_string())?;
    let addresses = running.addresses().clone();
    let gateway = addresses
        .listeners
        .first()
        .copied()
        .ok_or("there is no listener")?;
    let admin = addresses.admin.ok_or("there is no admin listener")?;

    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(call(gateway, Arc::clone(&seen)));
    }
    sleep(PART).await;
    let before = seen.failures.load(Ordering::Relaxed);
    let killed = Instant::now();
    for backend in backends.iter_mut().take(2) {
        backend.kill()?;
    }
    sleep(PART).await;
    let failed = seen.failures.load(Ordering::Relaxed) - before;
    let recovered = (*seen.last_failure.lock()).map(|at| at.saturating_duration_since(killed));
    for backend in backends.iter_mut().take(2) {
        *backend = Backend::start(Some(backend.address))?;
    }
    let back = Instant::now();
    // Ejection ends, checks find them, and they warm up.
    sleep(PART * 2).await;
    let began = calls(admin, &backends).await?;
    sleep(PART).await;
    let ended = calls(admin, &backends).await?;
    let spread: Vec<u64> = ended
        .iter()
        .zip(&began)
        .map(|(ended, began)| ended - began)
        .collect();
    seen.over.store(true, Ordering::Relaxed);
    while clients.join_next().await.is_some() {}
    running.stop().await.map_err(|error| error.to_string())?;
    writer.join();
    let calls = seen.calls.load(Ordering::Relaxed);
    let all = seen.failures.load(Ordering::Relaxed);
    eprintln!("calls: {calls}; failed in all: {all}; failed while two of three were down: {failed}");
    match recovered.filter(|_| failed > 0) {
        Some(time) => eprintln!("time from the kill to the last failure: {time:?}"),
        None => eprintln!("time from the kill to the last failure: none failed"),
    }
    let total: u64 = spread.iter().sum();
    let shares: Vec<String> = spread
        .iter()
        .map(|count| format!("{} %", count * 100 / total.max(1)))
        .collect();
    eprintln!(
        "spread of calls, {:?} after the return: {}",
        back.elapsed(),
        shares.join(", ")
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [flag, address] if flag == "--backend" => backend(address).await,
        _ => supervise().await,
    }
}
