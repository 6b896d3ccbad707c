//! A backend in a process of its own, and the network before it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

use crate::Failure;

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Fair,
    /// They are held.
    Stalled,
    /// Each piece takes so long.
    Slow(Duration),
}

/// A backend behind its network.
pub(crate) struct Upstream {
    /// Where the gateway finds it.
    pub(crate) address: SocketAddr,
    sky: Arc<Sky>,
    child: Mutex<Child>,
}

struct Sky {
    /// Where the backend is.
    backend: SocketAddr,
    weather: watch::Sender<Weather>,
    resets: broadcast::Sender<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}

impl Upstream {
    /// Starts a backend and its network.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let (child, backend) = spawn("127.0.0.1:0")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let sky = Arc::new(Sky {
            backend,
            weather: watch::Sender::new(Weather::Fair),
            resets: broadcast::channel(1).0,
        });
        tokio::spawn(accept(listener, Arc::clone(&sky)));
        Ok(Self {
            address,
            sky,
            child: Mutex::new(child),
        })
    }

    /// Resets every connection.
    pub(crate) fn reset(&self) {
        // There may be none.
        let _ = self.sky.resets.send(());
    }

    /// Holds all that is said.
    pub(crate) fn stall(&self) {
        self.sky.weather.send_replace(Weather::Stalled);
    }

    /// Has each piece take so long.
    pub(crate) fn delay(&self, takes: Duration) {
        self.sky.weather.send_replace(Weather::Slow(takes));
    }

    /// Lets everything through again.
    pub(crate) fn go_on(&self) {
        self.sky.weather.send_replace(Weather::Fair);
    }

    /// Ends the backend as a crash does.
    pub(crate) fn kill(&self) -> Result<(), Failure> {
        let mut child = self.child.lock();
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Starts it again, where it was.
    pub(crate) fn restart(&self) -> Result<(), Failure> {
        let (child, _) = spawn(&self.sky.backend.to_string())?;
        *self.child.lock() = child;
        Ok(())
    }
}

fn spawn(address: &str) -> Result<(Child, SocketAddr), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--backend", address])
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

async fn accept(listener: TcpListener, sky: Arc<Sky>) {
    while let Ok((client, _)) = listener.accept().await {
        tokio::spawn(carry(client, Arc::clone(&sky)));
    }
}

async fn carry(client: TcpStream, sky: Arc<Sky>) {
    let mut resets = sky.resets.subscribe();
    let Ok(server) = TcpStream::connect(sky.backend).await else {
        return;
    };
    for socket in [&client, &server] {
        // Latency and resets are what it makes, and no more than that; a socket that is gone needs neither.
        let _ = socket.set_nodelay(true);
        let _ = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = pump(from_client, to_server, &sky) => {}
        () = pump(from_server, to_client, &sky) => {}
        _ = resets.recv() => {}
    }
}

async fn pump(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, sky: &Sky) {
    let mut weather = sky.weather.subscribe();
    let mut piece = vec![0; 16 << 10];
    loop {
        let Ok(bytes @ 1..) = from.read(&mut piece).await else {
            return;
        };
        let now = weather.wait_for(|weather| *weather != Weather::Stalled).await;
        let now = now.map_or(Weather::Fair, |weather| *weather);
        if let Weather::Slow(takes) = now {
            sleep(takes).await;
        }
        let said = piece.get(..bytes).unwrap_or_default();
        if to.write_all(said).await.is_err() {
            return;
        }
    }
}
