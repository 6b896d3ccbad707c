//! Frontends: a request in the client's dialect becomes a call, a reply becomes a response in that dialect.

pub mod connect;
pub mod grpc;
pub mod grpc_web;
pub mod refuse;
pub mod rest;
pub mod ticket;
pub mod websocket;

use std::fmt;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::future::Either;
use http::request::Parts;
use http::{HeaderValue, Response};
use tokio::time::Instant;

use crate::fault::Fault;
use crate::peer::Peer;
use crate::policy::Permit;
use crate::route::relay::PathRoute;
use crate::route::{Captures, Entry};
use crate::stack::CallService;
use crate::translate::Tally;
use crate::wire::body::Body;
use crate::wire::received::Received;
use crate::wire::{Dialect, Format};

/// A request that the gate let pass, with all that was found out about it.
#[derive(Debug)]
pub struct Admitted {
    /// The request head.
    pub head: Parts,
    /// The request body, unread.
    pub body: Received,
    /// What its body is.
    pub format: Format,
    /// What it matched.
    pub entry: Arc<Entry>,
    /// Which of the entry's bindings; `None` for the rpc path.
    pub binding: Option<u32>,
    /// The path variables.
    pub captures: Captures,
    /// The gate's word.
    pub permit: Permit,
    /// The counts of the call.
    pub tally: Arc<Tally>,
    /// When the request came.
    pub now: Instant,
}

/// A request whose client has not said who it is, and can do so later.
pub struct Unproven {
    /// The request head.
    pub head: Parts,
    /// The request body, unread.
    pub body: Received,
    /// What it matched.
    pub entry: Arc<Entry>,
    /// Which of the entry's bindings; `None` for the rpc path.
    pub binding: Option<u32>,
    /// The path variables.
    pub captures: Captures,
    /// The counts of the call.
    pub tally: Arc<Tally>,
    /// Asks the gate.
    pub prove: Prove,
}

impl fmt::Debug for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unproven")
            .field("entry", &self.entry.route.name)
            .finish_non_exhaustive()
    }
}

/// Asks the gate once more, with the value of an `Authorization` header.
pub type Prove = Box<dyn FnOnce(HeaderValue) -> Proving + Send>;

/// The gate's answer, on its way.
pub type Proving = Pin<Box<dyn Future<Output = Result<Proven, Fault>> + Send>>;

/// What the gate says of a client that it lets in.
pub struct Proven {
    /// The request head, as admitted.
    pub head: Parts,
    /// The gate's word.
    pub permit: Permit,
    /// What is to be held as long as the call lasts.
    pub held: Box<dyn Send>,
}

impl fmt::Debug for Proven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proven")
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}

/// Whether a client that did not say who it is can do so later.
pub fn proves_later(dialect: Dialect, head: &Parts) -> bool {
    match dialect {
        Dialect::Rest | Dialect::Grpc | Dialect::GrpcWeb | Dialect::Connect => false,
        Dialect::WebSocket => websocket::proves_later(head),
    }
}

/// Checks and completes a request head before the gate sees it, where its dialect has something to say about who may
/// ask and how credentials are sent.
///
/// # Errors
/// The dialect's refusal.
pub fn prepare(dialect: Dialect, head: &mut Parts, peer: &Peer, entry: &Entry) -> Result<(), Fault> {
    match dialect {
        Dialect::Rest | Dialect::Grpc | Dialect::GrpcWeb | Dialect::Connect => Ok(()),
        Dialect::WebSocket => websocket::prepare(head, peer, &entry.route),
    }
}

/// The same for a request that is relayed as it is: its credentials stay where they are.
///
/// # Errors
/// The dialect's refusal.
pub fn prepare_relayed(dialect: Dialect, head: &Parts, peer: &Peer, route: &PathRoute) -> Result<(), Fault> {
    match (dialect, route.websocket()) {
        (Dialect::WebSocket, Some(options)) => websocket::origin(head, peer, options, None),
        (Dialect::WebSocket, None)
        | (Dialect::Rest | Dialect::Grpc | Dialect::GrpcWeb | Dialect::Connect, _) => Ok(()),
    }
}

/// Serves a request in its dialect by a stack that is ready for one call.
///
/// # Cancel safety
/// Dropping it cancels the call upstream.
pub fn serve(
    dialect: Dialect,
    admitted: Admitted,
    stack: CallService,
) -> impl Future<Output = Response<Body>> + Send {
    // The large ones are boxed, or every call would have room for the largest.
    let boxed: Serving = match dialect {
        Dialect::Rest => Box::pin(rest::serve(admitted, stack)),
        Dialect::Connect => Box::pin(connect::serve(admitted, stack)),
        Dialect::WebSocket => Box::pin(ready(websocket::serve(admitted, stack))),
        Dialect::Grpc => return Either::Right(Either::Left(grpc::serve(admitted, stack))),
        Dialect::GrpcWeb => return Either::Right(Either::Right(grpc_web::serve(admitted, stack))),
    };
    Either::Left(boxed)
}

type Serving = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
