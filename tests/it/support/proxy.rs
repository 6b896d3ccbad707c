//! A network between the gateway and an upstream, in which a test makes the weather. TCP hides the loss of packets behind
//! time, so that loss is latency and silence here; what it can't hide is a connection that is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// They arrive.
    Fair,
    /// They are held, in both directions, until it clears up: a partition.
    Dark,
    /// Each piece takes this long.
    Slow(Duration),
    /// After so many bytes of answers, the connection is reset.
    Cut(usize),
}

/// A proxy before one upstream.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    sky: Arc<Sky>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Sky {
    weather: watch::Sender<Weather>,
    /// Connections older than this are forgotten on the way: nothing of them arrives, and nobody says so.
    forgotten: AtomicU64,
    made: AtomicUsize,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub(crate) async fn before(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sky = Arc::new(Sky {
            weather: watch::Sender::new(Weather::Fair),
            forgotten: AtomicU64::new(0),
            made: AtomicUsize::new(0),
        });
        let above = Arc::clone(&sky);
        let task = tokio::spawn(async move {
            for number in 1.. {
                let (client, _) = listener.accept().await.unwrap();
                above.made.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(carry(client, upstream, number, Arc::clone(&above)));
            }
        });
        Self { address, sky, task }
    }

    /// It is so from now on, for the connections that there are and for those that come.
    pub(crate) fn becomes(&self, weather: Weather) {
        self.sky.weather.send_replace(weather);
    }

    /// Forgets the connections that there are, as a machine does that lost its power: they are half open.
    pub(crate) fn forget_connections(&self) {
        let made = self.connections();
        self.sky.forgotten.store(made as u64, Ordering::Relaxed);
    }

    /// How many connections were made.
    pub(crate) fn connections(&self) -> usize {
        self.sky.made.load(Ordering::Relaxed)
    }
}

async fn carry(client: TcpStream, upstream: SocketAddr, number: u64, sky: Arc<Sky>) {
    let Ok(server) = TcpStream::connect(upstream).await else {
        return;
    };
    for socket in [&client, &server] {
        socket.set_nodelay(true).unwrap();
        // Whoever drops it resets it.
        socket2::SockRef::from(socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // The first that ends, ends both: a reset.
    tokio::select! {
        () = pump(from_client, to_server, number, &sky, false) => {}
        () = pump(from_server, to_client, number, &sky, true) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    number: u64,
    sky: &Sky,
    answers: bool,
) {
    let mut weather = sky.weather.subscribe();
    let (mut piece, mut carried) = ([0; 16 << 10], 0);
    loop {
        let Ok(bytes @ 1..) = from.read(&mut piece).await else {
            return;
        };
        let weather = *weather
            .wait_for(|weather| *weather != Weather::Dark)
            .await
            .unwrap();
        if number <= sky.forgotten.load(Ordering::Relaxed) {
            return std::future::pending().await;
        }
        let mut goes = bytes;
        match weather {
            Weather::Slow(takes) => tokio::time::sleep(takes).await,
            Weather::Cut(after) if answers => goes = bytes.min(after.saturating_sub(carried)),
            Weather::Fair | Weather::Dark | Weather::Cut(_) => {}
        }
        if to.write_all(&piece[..goes]).await.is_err() || goes < bytes {
            return;
        }
        carried += goes;
    }
}
