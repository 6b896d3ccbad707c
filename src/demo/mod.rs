//! An example service on tonic: a library of books, with reflection, in memory and the same at every start.
//!
//! `sabir demo` puts the gateway in front of it, `examples/library.rs` is the service as a program of its own, and
//! `proto/library/v1/library.proto` says what it does. It is no part of the gateway: nothing else imports it.

mod catalog;
mod dispatch;
mod generated;
mod library;
mod page;
mod probe;
mod reading_room;
mod refusal;

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use prost_reflect::DescriptorPool;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

pub use page::page;

use dispatch::Dispatch;

/// The compiled service with all that it imports: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = generated::DESCRIPTORS;

/// How many ports [`free_port`] tries.
const PORTS_TRIED: u16 = 100;

/// Why the example service could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// The embedded descriptors don't hold what the service needs.
    #[error("the embedded descriptors have no {0}")]
    Missing(&'static str),
    /// The embedded descriptors can't be read.
    #[error("the embedded descriptors can't be read")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    /// Reflection can't be built from them.
    #[error("reflection can't be served")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server ended with an error.
    #[error("the server stopped")]
    Server(#[from] tonic::transport::Error),
}

/// Serves the library on `listener` until `shutdown` is done and the calls in flight have ended.
///
/// gRPC over cleartext HTTP/2, with server reflection v1 and v1alpha.
///
/// # Errors
/// [`DemoError`] if the service can't be built from its descriptors, or the server fails.
///
/// # Cancel safety
/// Dropping the future closes the listener and leaves open connections to end on their own.
pub async fn serve(
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), DemoError> {
    let pool = DescriptorPool::decode(DESCRIPTORS)?;
    let service = Dispatch::new(&pool)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .serve_with_incoming_shutdown(service, incoming, shutdown)
        .await?;
    Ok(())
}

/// A listener for the service on a free port of the loopback interface.
///
/// # Errors
/// What binding says.
///
/// # Cancel safety
/// Nothing is lost.
pub async fn listen() -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
}

/// The first free address from `wanted` upwards, port by port.
///
/// Another program may take it between this answer and its use; a gateway that then can't listen says so.
///
/// # Errors
/// What binding said about `wanted`, if none of the next hundred ports is free either.
pub fn free_port(wanted: SocketAddr) -> io::Result<SocketAddr> {
    let first = match std::net::TcpListener::bind(wanted) {
        Ok(listener) => return listener.local_addr(),
        Err(error) => error,
    };
    (1..PORTS_TRIED)
        .filter_map(|step| wanted.port().checked_add(step))
        .map(|port| SocketAddr::new(wanted.ip(), port))
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .ok_or(first)
}

#[cfg(test)]
mod tests;
