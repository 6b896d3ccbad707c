//! The example service as a program of its own, for a gateway to stand in front of.
//!
//!     cargo run --example library -- --listen 127.0.0.1:50051
//!     cargo run -- serve --backend http://127.0.0.1:50051
//!
//! It says `listening on ADDR` once it answers, and ends on Ctrl-C.

// What a program has to say, it prints.
#![allow(clippy::print_stdout)]

use std::net::SocketAddr;

use clap::Parser;
use tokio::net::TcpListener;

/// A library of books, as a gRPC service with reflection.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    let ended = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            println!("Ctrl-C can't be awaited, so only a kill ends this program: {error}");
            std::future::pending::<()>().await;
        }
    };
    sabir::demo::serve(listener, ended).await?;
    Ok(())
}
