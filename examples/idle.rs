//! What an idle gateway and its idle connections hold in memory: the program in a process of its own, in front of the
//! example service, and connections that have each made one call and then say nothing. Linux only.
//!
//!     cargo build --release && cargo run --release --example idle [-- [CONNECTIONS [PROGRAM]]]
//!
//! What is counted is anonymous memory that is resident (`RssAnon`), which is what a connection adds; for the process the
//! pages of the program itself are told too. Bounded in number and time.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the program tells what it finds"
)]

mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use process::{Failure, Gateway};
use sabir::demo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

/// Connections of each kind, if no number is given.
const CONNECTIONS: usize = 1_000;
/// Connections before those that are counted, so that what all share is there.
const BEFORE: usize = 50;
/// How long memory has to stay as it is to be believed.
const STILL: Duration = Duration::from_secs(3);
/// How long it may take to come to that.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one connection may take.
const CONNECTING: Duration = Duration::from_secs(10);
/// Connections are opened in so many waves with a pause after each, so that what the gateway needs to set one up is not
/// taken for what all of them keep.
const WAVES: usize = 10;
/// Longer than the gateway waits before it parks an idle connection.
const PAUSE: Duration = Duration::from_millis(1500);
/// Rooms of the example service at once.
const ROOMS: usize = 50;

/// One figure of a process, in KiB.
fn memory(gateway: &Gateway, name: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let figure = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .ok_or("no such figure")?;
    Ok(figure.trim().parse()?)
}

/// Anonymous memory once it does not change any more, in KiB.
async fn settled(gateway: &Gateway) -> Result<u64, Failure> {
    let began = Instant::now();
    let (mut last, mut since) = (memory(gateway, "RssAnon")?, began);
    while since.elapsed() < STILL && began.elapsed() < PATIENCE {
        sleep(Duration::from_millis(200)).await;
        let now = memory(gateway, "RssAnon")?;
        if now.abs_diff(last) > 64 {
            (last, since) = (now, Instant::now());
        }
    }
    memory(gateway, "RssAnon")
}

fn start(program: &Path, service: SocketAddr) -> Result<Gateway, Failure> {
    let configuration = format!(
        "workers: 1\n\
         listeners: [{{address: \"127.0.0.1:0\"}}]\n\
         admin: {{address: \"127.0.0.1:0\"}}\n\
         backends: {{library: {{endpoints: [\"http://{service}\"]}}}}\n\
         routes: [{{services: [\"*\"], backend: library}}]\n"
    );
    Gateway::start(Command::new(program), &configuration)
}

/// A kind of connection.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Http1,
    Http2,
    WebSocket,
}

/// Something that keeps a connection open.
type Kept = Box<dyn Send>;

impl Kind {
    /// Opens a connection, makes a call and leaves it at that.
    async fn open(self, gateway: SocketAddr, number: usize) -> Result<Kept, Failure> {
        match self {
            Self::Http1 => http1(gateway).await,
            Self::Http2 => http2(gateway).await,
            Self::WebSocket => websocket(gateway, number % ROOMS).await,
        }
    }
}

const PATH: &str = "/v1/shelves/1/books/7";

async fn http1(gateway: SocketAddr) -> Result<Kept, Failure> {
    let mut socket = TcpStream::connect(gateway).await?;
    let request = format!("GET {PATH} HTTP/1.1\r\nhost: {gateway}\r\naccept: */*\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let length = socket.read(&mut answer).await?;
    if !answer[..length].starts_with(b"HTTP/1.1 200") {
        return Err(String::from_utf8_lossy(&answer[..length]).into());
    }
    Ok(Box::new(socket))
}

async fn http2(gateway: SocketAddr) -> Result<Kept, Failure> {
    let stream = TokioIo::new(TcpStream::connect(gateway).await?);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), stream).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(format!("http://{gateway}{PATH}")).body(Empty::new())?;
    let response = client.send_request(request).await?;
    if response.status() != 200 {
        return Err(response.status().to_string().into());
    }
    response.into_body().collect().await?;
    Ok(Box::new((client, connection)))
}

async fn websocket(gateway: SocketAddr, room: usize) -> Result<Kept, Failure> {
    let url = format!("ws://{gateway}/v1/rooms/{room}:chat");
    let stream = TcpStream::connect(gateway).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await?;
    socket.send(Message::text(r#"{"text":"here"}"#)).await?;
    let heard = socket.next().await.ok_or("the socket was closed")??;
    if !heard.is_text() && !heard.is_binary() {
        return Err(format!("{heard:?}").into());
    }
    Ok(Box::new(socket))
}

async fn open(
    kind: Kind,
    gateway: SocketAddr,
    numbers: std::ops::Range<usize>,
) -> Result<Vec<Kept>, Failure> {
    let mut kept = Vec::new();
    let wave = numbers.len().div_ceil(WAVES).max(1);
    for number in numbers {
        if number > BEFORE && (number - BEFORE).is_multiple_of(wave) {
            sleep(PAUSE).await;
        }
        kept.push(timeout(CONNECTING, kind.open(gateway, number)).await??);
    }
    Ok(kept)
}

async fn measure(program: &Path, service: SocketAddr, connections: usize) -> Result<(), Failure> {
    let gateway = start(program, service)?;
    settled(&gateway).await?;
    for name in ["VmRSS", "RssAnon", "RssFile"] {
        println!("{name:<10} {:>8} KiB, idle", memory(&gateway, name)?);
    }
    drop(gateway);
    for kind in [Kind::Http1, Kind::Http2, Kind::WebSocket] {
        let gateway = start(program, service)?;
        let first = open(kind, gateway.address, 0..BEFORE).await?;
        let before = settled(&gateway).await?;
        let kept = open(kind, gateway.address, BEFORE..BEFORE + connections).await?;
        let tenths =
            (settled(&gateway).await?.saturating_sub(before) * 10) / u64::try_from(connections.max(1))?;
        println!("{kind:<10?} {:>6}.{} KiB each", tenths / 10, tenths % 10);
        drop((first, kept));
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let connections = arguments.next().map_or(Ok(CONNECTIONS), |text| text.parse())?;
    let beside = || {
        let own = std::env::current_exe().ok()?;
        Some(own.parent()?.parent()?.join("sabir"))
    };
    let program = arguments
        .next()
        .map(PathBuf::from)
        .or_else(beside)
        .ok_or("which program?")?;
    let listener = demo::listen().await?;
    let service = listener.local_addr()?;
    // A task of its own: it is asked while this one waits for the gateway to start.
    tokio::spawn(demo::serve(listener, std::future::pending()));
    measure(&program, service, connections).await
}
