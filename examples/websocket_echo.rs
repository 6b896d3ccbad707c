//! A WebSocket server that sends back what it is sent, on the gateway's own listener and framing: the peer of
//! conformance suites. Listens on the address that is given, 127.0.0.1:9002 without one, and compresses.

#![allow(clippy::print_stdout)]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::{Request, Response, StatusCode};
use sabir::fault::Fault;
use sabir::listen::tunnel::{Io, Tunnel};
use sabir::listen::{Connections, Drain, Settings, Sockets, serve};
use sabir::peer::Peer;
use sabir::wire::body::Body;
use sabir::wire::received::Received;
use sabir::wire::websocket::deflate::Agreed;
use sabir::wire::websocket::socket::SocketError;
use sabir::wire::websocket::{Close, Event, Limits, Reader, Role, Socket, Unit, Writer, handshake};
use tokio::sync::watch;

/// The gateway's own default.
const MAX_MESSAGE: usize = 4 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address: SocketAddr = std::env::args()
        .nth(1)
        .map_or_else(|| Ok(([127, 0, 0, 1], 9002).into()), |text| text.parse())?;
    let mut sockets = Sockets::bind(address, 1)?;
    let settings = Settings::new(sabir::limits::Limits::default(), refuse);
    let connections = Connections::new(&settings.limits);
    let drain = Drain::new(settings.limits.drain_timeout);
    println!("listening on {}", sockets.address());
    let socket = sockets.take(0).pop().ok_or("no socket")?;
    serve(
        socket,
        watch::channel(Arc::new(settings)).1,
        connections,
        drain,
        answer,
    )
    .await?;
    Ok(())
}

/// Refusals of the listener, which suites do not look at.
fn refuse(_: &Parts, fault: &Fault) -> Response<Body> {
    let mut response = Response::new(Body::whole(fault.message().to_owned().into()));
    *response.status_mut() = fault.kind().http_status();
    response
}

async fn answer(request: Request<Received>, _: Peer) -> Response<Body> {
    let (head, _) = request.into_parts();
    let Ok(opening) = handshake::check(&head) else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let deflate = head
        .headers
        .get(http::header::SEC_WEBSOCKET_EXTENSIONS)
        .and_then(|offers| offers.to_str().ok())
        .and_then(Agreed::choose);
    let mut response = handshake::accept(opening, Body::empty());
    if let Some(agreed) = deflate
        && let Ok(value) = agreed.answer().parse()
    {
        response
            .headers_mut()
            .insert(http::header::SEC_WEBSOCKET_EXTENSIONS, value);
    }
    let limits = Limits::of_messages(MAX_MESSAGE);
    let reader = Reader::new(Role::Server, Unit::Message, limits, deflate.is_some());
    let writer = Writer::new(Role::Server, deflate);
    Tunnel::new(move |io, _| echo(Socket::new(io, reader, writer))).put(&mut response);
    response
}

/// Sends back messages until the client closes or errs.
async fn echo(mut socket: Socket<Io>) {
    loop {
        match poll_fn(|cx| socket.poll_event(cx, true)).await {
            Ok(Event::Data { kind, payload, .. }) => socket.message(kind, &payload),
            Ok(Event::Ping(payload)) => socket.pong(&payload),
            Ok(Event::Pong(_)) => {}
            Ok(Event::Close(close)) => {
                socket.close(close.as_ref());
                break;
            }
            Err(SocketError::Frame(error)) => {
                socket.close(Some(&Close::new(error.code(), &error.to_string())));
                break;
            }
            Err(SocketError::Gone(_)) => return,
        }
        if poll_fn(|cx| socket.poll_flush(cx)).await.is_err() {
            return;
        }
    }
    // A client that does not wait for the end has lost nothing by it.
    let _ = poll_fn(|cx| socket.poll_shutdown(cx)).await;
}
