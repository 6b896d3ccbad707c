//! The gateway inside another program: a configuration in the program's own text, a gateway that serves it, one request
//! to it, and an orderly end.
//!
//! Run it with `cargo run --example embed`.

#![expect(clippy::print_stdout, reason = "the program tells what it does")]

use std::error::Error;
use std::path::Path;

use sabir::config;
use sabir::demo;
use sabir::observe::{Log, LogFormat};
use sabir::serve;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A service to stand in front of; any gRPC service with reflection will do.
    let listener = demo::listen().await?;
    let service = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let library = demo::serve(listener, async {
        // A sender that is gone means the same as its word.
        let _ = stopped.await;
    });

    let gateway = async {
        let text = format!(
            "workers: 1\n\
             listeners: [{{address: \"127.0.0.1:0\"}}]\n\
             admin: {{address: \"127.0.0.1:0\"}}\n\
             backends:\n  library: {{endpoints: [\"http://{service}\"]}}\n\
             routes:\n  - {{services: [\"library.v1.*\"], backend: library}}\n"
        );
        let file = config::from_text("embedded", Path::new("."), &text).map_err(first)?;
        let (log, writer) = Log::start(LogFormat::Text)?;
        let running = serve::start(&file, log).await?;
        let address = running
            .addresses()
            .listeners
            .first()
            .copied()
            .ok_or("there is no listener")?;
        println!("serving on {address}");

        println!("{}", get(address, "/v1/shelves/1/books/7").await?);

        running.stop().await?;
        writer.join();
        drop(stop);
        Ok::<(), Box<dyn Error>>(())
    };
    let (served, gone) = tokio::join!(gateway, library);
    served?;
    gone?;
    Ok(())
}

/// The body of one answer.
async fn get(address: std::net::SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let body = answer
        .split_once("\r\n\r\n")
        .map_or(answer.as_str(), |(_, body)| body);
    Ok(body.to_owned())
}

/// The first thing that is wrong with a configuration.
fn first(errors: Vec<config::Diagnostic>) -> Box<dyn Error> {
    errors.into_iter().next().map_or_else(
        || "the configuration is wrong".into(),
        |error| error.to_string().into(),
    )
}
