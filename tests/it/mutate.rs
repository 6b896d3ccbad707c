//! No byte from a client can end the process: requests from `tests/corpus`, changed at random with a fixed seed.

use std::path::Path;

use http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::backends::library;
use crate::support::clients::rest::{Rest, Version, once, request};
use crate::support::gateway::{Gateway, Settings};

/// Changed requests of each seed.
const ROUNDS: u64 = 150;

/// A small generator that gives the same numbers on every machine: xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }

    /// A copy with one to four changes.
    fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for _ in 0..=self.roll(4) {
            let at = self.roll(bytes.len());
            match self.roll(6) {
                0 => bytes[at] ^= 1 << self.roll(8),
                1 => bytes[at] = self.roll(256) as u8,
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, self.roll(256) as u8),
                4 => bytes.truncate(at.max(1)),
                _ => {
                    let length = self.roll(bytes.len() - at).min(64);
                    let piece = bytes[at..at + length].to_vec();
                    let to = self.roll(bytes.len());
                    bytes.splice(to..to, piece);
                }
            }
        }
        bytes
    }
}

/// Sends bytes and the end of sending, and reads whatever comes until the gateway is done with them.
async fn throw(address: std::net::SocketAddr, bytes: &[u8]) {
    let Ok(mut socket) = TcpStream::connect(address).await else {
        return;
    };
    // The gateway may close while it is written to; that is an answer too.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut rest = Vec::new();
    let reading = socket.read_to_end(&mut rest);
    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), reading).await;
}

async fn survives(folder: &str, dice: u64) {
    let backend = library().await;
    let settings = Settings::to(backend.address)
        .limit("header_timeout: 200ms")
        .limit("idle_timeout: 200ms")
        .limit("request_timeout: 500ms");
    let gateway = Gateway::start(&settings).await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(folder);
    let mut seeds: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty());
    let mut dice = Dice(dice);
    let before = gateway.resident_bytes();
    for path in seeds {
        let seed = std::fs::read(&path).unwrap();
        for _ in 0..ROUNDS.div_ceil(10) {
            let thrown: Vec<Vec<u8>> = (0..10).map(|_| dice.mutate(&seed)).collect();
            futures_util::future::join_all(thrown.iter().map(|bytes| throw(gateway.address, bytes))).await;
        }
        let mut client = Rest::connect(gateway.address, Version::Http1).await;
        let answer = client.get("/v1/shelves/1/books/7").await;
        assert_eq!(answer.json()["title"], "Dune", "after {}", path.display());
    }
    let growth = gateway.resident_bytes().saturating_sub(before);
    assert!(growth < 64 << 20, "the gateway grew by {growth} bytes");
    // A panic would have been caught and counted.
    let metrics = once(gateway.admin, request(Method::GET, "/metrics", "")).await;
    for line in metrics
        .text()
        .lines()
        .filter(|line| line.contains("panic") && !line.starts_with('#'))
    {
        assert!(line.ends_with(" 0"), "{line}");
    }
}

#[tokio::test]
async fn http1() {
    survives("http1", 0x5ab1_0001).await;
}

#[tokio::test]
async fn http2() {
    survives("h2", 0x5ab1_0002).await;
}
