//! The WebSocket frontend: one socket, one call of any kind, on bound REST paths and on rpc paths.
//!
//! The path and the query bind the first message as in REST; there is no HTTP method, so that a path means what GET
//! does there, or else POST, PUT, PATCH or DELETE, whichever it takes first. What is wrong with a handshake is an HTTP
//! status; what goes wrong afterwards is a last frame that tells the status, and a close code of 4000 plus its number.
//!
//! | `sabir.v1.json` | `sabir.v1.proto` | from | meaning |
//! |---|---|---|---|
//! | `{"$auth": "TOKEN"}` | | client, before all else, where the route's `auth` has `first_message` | who calls |
//! | `{"$open": {"metadata": {…}, "timeout": "5s"}}` | 2, a block | client, first | more metadata, a deadline |
//! | any other value, or `{"$msg": …}` | 0, a message | both | a message |
//! | `{"$end": {}}` | 1 | client | there are no more messages |
//! | `{"$cancel": {}}` | 5 | client | give up |
//! | `{"$headers": {…}}` | 3, a block | gateway | initial metadata |
//! | `{"$status": {"code": 0, …, "trailers": {…}}}` | 3 if there are trailers, then 4, a `google.rpc.Status` | gateway, last | the end |
//!
//! A method that takes one message is called with the first; one to which a client streams is called with the first
//! frame, whatever it is. A bound path without a body is called at once. Without a subprotocol messages go alone, a
//! failure is a last `{"error": …}`, and the client may still say what `sabir.v1.json` has; where a body is a
//! `google.api.HttpBody` its bytes are the frame, text or binary, and a failure is the close code alone. `grpc-websockets` is what
//! existing clients of gRPC-Web speak.

mod handshake;
mod metadata;
mod opening;
mod proving;
mod session;
mod talk;
mod uplink;

use std::sync::Arc;

use http::Response;
use http::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http_body::Body as _;

pub(crate) use handshake::{origin, prepare};

use crate::fault::{Fault, Kind};
use crate::frontend::websocket::handshake::Accepted;
use crate::frontend::websocket::opening::Opening;
use crate::frontend::websocket::session::Session;
use crate::frontend::{Admitted, Proven, Unproven, refuse};
use crate::listen::tunnel::Tunnel;
use crate::stack::CallService;
use crate::translate::Tally;
use crate::translate::tally::Outcome;
use crate::wire::body::Body;
use crate::wire::websocket::handshake::accept;
use crate::wire::websocket::{Reader, Role, Socket, Unit, Writer};
use crate::wire::{Dialect, Format, Spoken};

/// Serves a WebSocket handshake; the answer carries the tunnel in which the call is made.
pub fn serve(admitted: Admitted, stack: CallService) -> Response<Body> {
    let tally = Arc::clone(&admitted.tally);
    open(admitted, stack).unwrap_or_else(|fault| refused(&tally, &fault))
}

fn refused(tally: &Tally, fault: &Fault) -> Response<Body> {
    tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    tracing::debug!(error = %fault, "a WebSocket was refused");
    let spoken = Spoken {
        dialect: Dialect::WebSocket,
        format: Format::JSON,
    };
    refuse::refuse(spoken, fault)
}

/// Serves a WebSocket handshake whose client is to say who it is afterwards.
pub fn serve_unproven(unproven: Unproven, stack: CallService) -> Response<Body> {
    let tally = Arc::clone(&unproven.tally);
    open_unproven(unproven, stack).unwrap_or_else(|fault| refused(&tally, &fault))
}

/// Whether a handshake leads to where a client can say later who it is.
pub(crate) fn proves_later(head: &Parts) -> bool {
    handshake::chooses_json(head)
}

fn open_unproven(unproven: Unproven, stack: CallService) -> Result<Response<Body>, Fault> {
    let Unproven {
        head,
        body,
        entry,
        binding,
        captures,
        tally,
        prove,
    } = unproven;
    if !body.is_end_stream() {
        return Err(Fault::client(
            Kind::BadRequest,
            "a WebSocket handshake has no body",
        ));
    }
    let options = entry.route.websocket.clone();
    let accepted = handshake::read(&head, &options)?;
    let protocol = accepted.protocol;
    let reader = Reader::new(
        Role::Server,
        Unit::Message,
        proving::limits(),
        accepted.deflate.is_some(),
    );
    let writer = Writer::new(Role::Server, accepted.deflate);
    let mut response = answer(accepted);
    Tunnel::new(move |io, mut leave| async move {
        let mut socket = Socket::new(io, reader, writer);
        let told = (&entry.json, &*tally);
        let Some(proven) = proving::prove(&mut socket, &mut leave, prove, told).await else {
            return;
        };
        let Proven { head, permit, held } = proven;
        let reading = (Arc::clone(&entry), binding, protocol);
        let opening = match Opening::read(head, &captures, reading, permit, Arc::clone(&tally)) {
            Ok(opening) => opening,
            Err(fault) => return proving::refuse(&mut socket, &fault, told).await,
        };
        socket.relimit(options.limits());
        let asked = (Arc::clone(&entry), binding, protocol);
        Session::new(socket, leave, opening, stack, asked, Arc::clone(&tally))
            .run()
            .await;
        drop(held);
    })
    .put(&mut response);
    Ok(response)
}

/// The answer to a handshake that is in order.
fn answer(accepted: Accepted) -> Response<Body> {
    let mut response = accept(accepted.opening, Body::empty());
    let headers = response.headers_mut();
    if let Some(name) = accepted.named {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name));
    }
    if let Some(agreed) = accepted.deflate
        && let Ok(value) = HeaderValue::try_from(agreed.answer())
    {
        headers.insert(SEC_WEBSOCKET_EXTENSIONS, value);
    }
    response
}

fn open(admitted: Admitted, stack: CallService) -> Result<Response<Body>, Fault> {
    let Admitted {
        head,
        body,
        entry,
        binding,
        captures,
        permit,
        tally,
        ..
    } = admitted;
    if !body.is_end_stream() {
        return Err(Fault::client(
            Kind::BadRequest,
            "a WebSocket handshake has no body",
        ));
    }
    let options = entry.route.websocket.clone();
    let accepted = handshake::read(&head, &options)?;
    let protocol = accepted.protocol.on(entry.bound(binding));
    let reading = (Arc::clone(&entry), binding, protocol);
    let opening = Opening::read(head, &captures, reading, permit, Arc::clone(&tally))?;

    let reader = Reader::new(
        Role::Server,
        Unit::Message,
        options.limits(),
        accepted.deflate.is_some(),
    );
    let writer = Writer::new(Role::Server, accepted.deflate);
    let mut response = answer(accepted);
    Tunnel::new(move |io, leave| {
        let socket = Socket::new(io, reader, writer);
        Session::new(socket, leave, opening, stack, (entry, binding, protocol), tally).run()
    })
    .put(&mut response);
    Ok(response)
}
