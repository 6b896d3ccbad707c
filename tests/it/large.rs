//! Large answers of origins over HTTP/1.1, which go from socket to socket: nothing of them is lost, held or mixed up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use http::Response;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::clients::rest::{Rest, Version};
use crate::support::gateway::Gateway;
use crate::support::origin::{Answering, Origin, answer};
use crate::support::{stalls, until, within};

/// More than sockets and pipes hold.
const MUCH: usize = 32 << 20;
static ALL: LazyLock<Vec<u8>> = LazyLock::new(|| body(MUCH));
/// The pipes of a gateway.
#[cfg(target_os = "linux")]
const MOST_PIPES: usize = 64;
/// More clients than those.
const MANY: usize = 70;

async fn gateway(origin: &Origin) -> Gateway {
    Gateway::with_config(&format!(
        "listeners: [{{address: \"127.0.0.1:0\"}}]
admin: {{address: \"127.0.0.1:0\"}}
workers: 1
backends:
  a: {{protocol: rest, endpoints: [\"http://{}\"]}}
routes:
  - {{path: /**, backend: a}}
",
        origin.address
    ))
    .await
}

/// A body in which no two places look the same.
fn body(length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 4);
    for number in 0_u32.. {
        if bytes.len() >= length {
            break;
        }
        bytes.extend_from_slice(&number.to_be_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What `/LENGTH` is answered with.
fn sized(line: &str) -> Response<Answering> {
    let length = line.rsplit('/').next().unwrap().parse().unwrap();
    answer(200, "application/octet-stream", body(length))
}

/// Reads a head from a bare socket.
async fn head(socket: &mut TcpStream) -> String {
    within("a head", async {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    })
    .await
}

async fn request(socket: &mut TcpStream) {
    socket
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .unwrap();
}

/// Asks, and reads the head of the answer.
async fn ask(socket: &mut TcpStream) {
    request(socket).await;
    head(socket).await;
}

/// An origin that answers each request by what `talk` writes.
async fn talks<F, R>(talk: F) -> Origin
where
    F: Fn(TcpStream) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = std::io::Result<TcpStream>> + Send + 'static,
{
    Origin::sockets(move |mut socket| {
        let talk = talk.clone();
        async move {
            let mut byte = [0];
            while socket.peek(&mut byte).await.is_ok_and(|some| some > 0) {
                head(&mut socket).await;
                match talk(socket).await {
                    Ok(kept) => socket = kept,
                    Err(_gone) => return,
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_large_answer_is_what_was_sent_and_its_connections_are_kept() {
    let origin = Origin::start(|seen| sized(&seen.line)).await;
    let gateway = gateway(&origin).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for length in [
        8_000, 8_192, 20_000, 40_000, 41_000, 65_536, 100_000, 262_144, 300_000, 5_000_000,
    ] {
        let answer = client.get(&format!("/{length}")).await;
        assert_eq!(answer.header("content-length"), length.to_string());
        assert!(answer.body == body(length), "{length}");
        gateway.says(&format!("\"response_bytes\":{length},")).await;
        // The same over HTTP/2, where it goes through memory.
        let mut other = Rest::connect(gateway.address, Version::Http2).await;
        assert!(
            other.get(&format!("/{length}")).await.body == body(length),
            "{length}"
        );
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn after_a_large_answer_comes_one_of_any_size() {
    let origin = Origin::start(|seen| {
        let mut answer = sized(&seen.line);
        if seen.line.contains("/long/") {
            let long = "x".repeat(6_000).try_into().unwrap();
            answer.headers_mut().insert("x-long", long);
        }
        answer
    })
    .await;
    let gateway = gateway(&origin).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for length in [0, 1, 700, 900, 1_100, 8_192, 33_000, 34_000, 100_000] {
        for (path, long) in [("", 0), ("/long", 6_000)] {
            assert!(client.get("/100000").await.body == body(100_000), "{length}");
            let answer = client.get(&format!("{path}/{length}")).await;
            assert!(answer.body == body(length), "{path}/{length}");
            assert_eq!(answer.header("x-long").len(), long, "{path}/{length}");
        }
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn each_piece_of_a_large_answer_is_passed_on_before_the_next_one_comes() {
    const SIZES: [usize; 8] = [1, 5_000, 100, 70_000, 1_448, 33_000, 140_000, 7];
    let told = Arc::new(Notify::new());
    let waits = Arc::clone(&told);
    let length = SIZES.iter().sum();
    let origin = talks(move |mut socket| {
        let told = Arc::clone(&waits);
        async move {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
            socket.write_all(head.as_bytes()).await?;
            let all = body(length);
            let mut rest = all.as_slice();
            for size in SIZES {
                let (piece, after) = rest.split_at(size);
                socket.write_all(piece).await?;
                told.notified().await;
                rest = after;
            }
            Ok(socket)
        }
    })
    .await;
    let gateway = gateway(&origin).await;
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    for _ in 0..3 {
        ask(&mut socket).await;
        let mut got = vec![0; length];
        let mut rest = got.as_mut_slice();
        for size in SIZES {
            let (piece, after) = rest.split_at_mut(size);
            within("a piece", socket.read_exact(piece)).await.unwrap();
            told.notify_one();
            rest = after;
        }
        assert!(got == body(length));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn answers_to_pipelined_requests_come_one_after_the_other() {
    let origin = Origin::start(|seen| sized(&seen.line)).await;
    let gateway = gateway(&origin).await;
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    let lengths = [100_000, 3, 200_000, 0, 1_000_000, 50];
    let asked: String = lengths
        .iter()
        .map(|length| format!("GET /{length} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .collect();
    socket.write_all(asked.as_bytes()).await.unwrap();
    for length in lengths {
        let head = head(&mut socket).await;
        assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
        let mut got = vec![0; length];
        within("the body", socket.read_exact(&mut got)).await.unwrap();
        assert!(got == body(length), "{length}");
    }
}

#[tokio::test]
async fn a_large_answer_that_breaks_off_breaks_off() {
    for sent in [0, 50_000, 500_000] {
        let origin = talks(move |mut socket| async move {
            socket
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
                .await?;
            socket.write_all(&body(sent)).await?;
            Err(std::io::ErrorKind::BrokenPipe.into())
        })
        .await;
        let gateway = gateway(&origin).await;
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        ask(&mut socket).await;
        let mut got = Vec::new();
        within("the end", socket.read_to_end(&mut got)).await.unwrap();
        assert!(got == body(sent), "{sent}: {}", got.len());
        gateway.says("UPSTREAM_RESET").await;
    }
}

#[tokio::test]
async fn what_follows_a_large_answer_is_nobody_s() {
    let origin = talks(|mut socket| async move {
        let mut all = b"HTTP/1.1 200 OK\r\ncontent-length: 500000\r\n\r\n".to_vec();
        all.extend(body(500_000));
        all.extend(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil");
        socket.write_all(&all).await?;
        Ok(socket)
    })
    .await;
    let gateway = gateway(&origin).await;
    let mut client = Rest::connect(gateway.address, Version::Http1).await;
    for requests in 1..=3 {
        assert!(client.get("/x").await.body == body(500_000));
        assert_eq!(origin.connections(), requests);
    }
}

/// An origin that answers with [`MUCH`], and counts what is taken of it and how many of its answers have ended.
async fn pouring() -> (Origin, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (taken, ended) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let (count, over) = (Arc::clone(&taken), Arc::clone(&ended));
    let origin = talks(move |mut socket| {
        let (count, over) = (Arc::clone(&count), Arc::clone(&over));
        async move {
            let poured = async {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {MUCH}\r\n\r\n");
                socket.write_all(head.as_bytes()).await?;
                let mut rest = ALL.as_slice();
                while !rest.is_empty() {
                    let some = socket.write(&rest[..rest.len().min(64 << 10)]).await?;
                    count.fetch_add(some, Ordering::Relaxed);
                    rest = &rest[some..];
                }
                Ok(())
            };
            let poured = poured.await;
            over.fetch_add(1, Ordering::Relaxed);
            poured.map(|()| socket)
        }
    })
    .await;
    (origin, taken, ended)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_holds_its_answer_back_and_loses_nothing() {
    let (origin, taken, _ended) = pouring().await;
    let gateway = gateway(&origin).await;
    let before = gateway.resident_bytes();
    #[cfg(target_os = "linux")]
    let pipes = gateway.pipes();
    let mut sockets = Vec::new();
    for _ in 0..MANY {
        let mut socket = TcpStream::connect(gateway.address).await.unwrap();
        request(&mut socket).await;
        sockets.push(socket);
    }
    let taken = stalls(&taken).await;
    assert!(taken < MANY * MUCH * 3 / 4, "{taken}");
    let grown = gateway.resident_bytes().saturating_sub(before);
    assert!(grown < MANY * (512 << 10), "{grown}");
    // Some have a pipe, and some go through memory.
    #[cfg(target_os = "linux")]
    until("the use of all pipes", async || {
        gateway.pipes() - pipes == MOST_PIPES
    })
    .await;
    let mut got = vec![0; MUCH];
    for mut socket in [sockets.swap_remove(MANY - 1), sockets.swap_remove(0)] {
        head(&mut socket).await;
        within("the body", socket.read_exact(&mut got)).await.unwrap();
        assert!(got == *ALL);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_a_large_answer() {
    let (origin, _taken, ended) = pouring().await;
    let gateway = gateway(&origin).await;
    let mut socket = TcpStream::connect(gateway.address).await.unwrap();
    ask(&mut socket).await;
    socket.read_exact(&mut vec![0; 100_000]).await.unwrap();
    drop(socket);
    until("the end", async || ended.load(Ordering::Relaxed) > 0).await;
    gateway.says("\"fault_of\":\"client\"").await;
}
