//! Loopback client, gateway, backend: calls a second and latencies, beside the direct path. Bounded in count; figures are
//! for comparing within one run, since everything shares the machine.
//!
//! `cargo bench --bench end_to_end` runs it.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that can't go on says so, and tells figures"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use prost::Message as _;
use sabir::observe::{Log, LogFormat};
use sabir::{config, demo, serve};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Calls of each kind from each client.
const CALLS: usize = 2_000;
/// Clients at once.
const CLIENTS: usize = 8;

/// `library.v1.GetBookRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct GetBookRequest {
    #[prost(string, tag = "1")]
    name: String,
}

/// Messages as bytes.
#[derive(Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), tonic::Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = tonic::Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, tonic::Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

async fn rest(gateway: SocketAddr) -> Vec<Duration> {
    let stream = TcpStream::connect(gateway).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut client, connection) =
        hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .unwrap();
    let mut latencies = Vec::with_capacity(CALLS);
    let calls = async {
        for _ in 0..CALLS {
            let began = Instant::now();
            let request = http::Request::get("/v1/shelves/1/books/7")
                .header("host", gateway.to_string())
                .body(Empty::new())
                .unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            response.into_body().collect().await.unwrap();
            latencies.push(began.elapsed());
        }
        drop(client);
    };
    let (moved, ()) = tokio::join!(connection, calls);
    moved.unwrap();
    latencies
}

async fn grpc(server: SocketAddr) -> Vec<Duration> {
    let channel = tonic::transport::Endpoint::new(format!("http://{server}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    let path = http::uri::PathAndQuery::from_static("/library.v1.Library/GetBook");
    let message: Bytes = GetBookRequest {
        name: "shelves/1/books/7".to_owned(),
    }
    .encode_to_vec()
    .into();
    let mut latencies = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        client.ready().await.unwrap();
        client
            .unary(tonic::Request::new(message.clone()), path.clone(), Raw)
            .await
            .unwrap();
        latencies.push(began.elapsed());
    }
    latencies
}

/// Runs `CLIENTS` at once and prints a line.
async fn measure<F>(name: &str, client: impl Fn() -> F)
where
    F: Future<Output = Vec<Duration>>,
{
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
    let mut all: Vec<Duration> = futures_util::future::join_all(clients).await.concat();
    let took = began.elapsed();
    all.sort_unstable();
    let at = |share: usize| all.get(all.len() * share / 100).copied().unwrap_or_default();
    let rate = u128::try_from(all.len()).unwrap() * 1_000_000 / took.as_micros().max(1);
    println!(
        "{name:<28} {rate:>8} calls/s   p50 {:>10.1?}   p99 {:>10.1?}",
        at(50),
        at(99)
    );
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = demo::listen().await.unwrap();
    let service = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let library = demo::serve(listener, async move {
        // A sender that is gone means the same as its word.
        let _ = stopped.await;
    });
    let bench = async {
        let text = format!(
            "workers: 1\nlisteners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\n\
             backends: {{library: {{endpoints: [\"http://{service}\"]}}}}\n\
             routes: [{{services: [\"*\"], backend: library}}]\n"
        );
        let file = config::from_text("bench", Path::new("."), &text).unwrap();
        let (log, writer) = Log::writing(LogFormat::Json, std::io::sink()).unwrap();
        let running = serve::start(&file, log).await.unwrap();
        let gateway = running.addresses().listeners[0];
        measure("gRPC, direct", || grpc(service)).await;
        measure("gRPC through the gateway", || grpc(gateway)).await;
        measure("REST through the gateway", || rest(gateway)).await;
        running.stop().await.unwrap();
        writer.join();
        drop(stop);
    };
    let (served, ()) = tokio::join!(library, bench);
    served.unwrap();
}
