//! Clients that other people wrote: hyper for REST over HTTP/1.1 and HTTP/2, tonic for gRPC, tokio-tungstenite for
//! WebSockets, and a bare socket.

pub(crate) mod connect;
pub(crate) mod enveloped;
pub(crate) mod grpc;
pub(crate) mod raw;
pub(crate) mod rest;
pub(crate) mod session;
pub(crate) mod websocket;
