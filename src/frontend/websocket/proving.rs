//! A WebSocket whose client says who it is by its first message: `{"$auth": "TOKEN"}`, in `sabir.v1.json` alone.
//!
//! Nothing is asked upstream, and little is read, before the gate has let the client in. The time for all of it is short.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::fault::{Fault, Kind, Side};
use crate::frontend::Proven;
use crate::frontend::websocket::session::status_code;
use crate::frontend::websocket::talk::{Ended, Protocol, hear_auth};
use crate::listen::tunnel::Leave;
use crate::translate::Tally;
use crate::translate::json::Transcoder;
use crate::translate::tally::Outcome;
use crate::wire::body::{Count as _, Way};
use crate::wire::websocket::socket::SocketError;
use crate::wire::websocket::{Close, Event, Kind as FrameKind, Limits, Socket};

/// How long a client may take to say who it is, and the gate to find out.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to hear that it is not let in.
const FAREWELL: Duration = Duration::from_secs(5);
/// The largest first message: a token has 8 KiB.
const MAX_WORD_BYTES: usize = 16 << 10;

/// What may be read of a client that has not said who it is.
pub(super) fn limits() -> Limits {
    Limits::of_messages(MAX_WORD_BYTES)
}

/// Why a client is not let in.
enum Failure {
    /// It has gone, or said that it would go.
    Gone(Option<Close>),
    /// It is told.
    Told(Fault),
}

/// Lets the gate decide by the first message. Nothing comes back for a client that is not let in, which has been told.
///
/// # Cancel safety
/// The connection is closed without a word.
pub(super) async fn prove<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    leave: &mut Leave,
    prove: crate::frontend::Prove,
    (json, tally): (&Transcoder, &Tally),
) -> Option<Proven> {
    let asked = timeout(PATIENCE, async {
        let word = first_word(socket, leave, tally).await?;
        prove(word).await.map_err(Failure::Told)
    });
    let late = || {
        let message = "the first message did not say who calls in time; it has to be {\"$auth\": \"TOKEN\"}";
        Failure::Told(Fault::client(Kind::CredentialsMissing, message))
    };
    match asked.await.unwrap_or_else(|_elapsed| Err(late())) {
        Ok(proven) => Some(proven),
        Err(Failure::Gone(close)) => {
            tally.end(Outcome::Gateway(Kind::Cancelled, Side::Client));
            tally.close(close.as_ref().map_or(Close::ABNORMAL, |close| close.code));
            if close.is_some() {
                part(socket, close.as_ref()).await;
            }
            None
        }
        Err(Failure::Told(fault)) => {
            refuse(socket, &fault, (json, tally)).await;
            None
        }
    }
}

/// Tells a client why nothing comes of its WebSocket, and closes it.
///
/// # Cancel safety
/// The connection is closed without a word.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    fault: &Fault,
    (json, tally): (&Transcoder, &Tally),
) {
    if let Some(limit) = fault.limit() {
        tally.met(limit);
    }
    tally.end(Outcome::Gateway(fault.kind(), fault.side()));
    let code = match fault.kind() {
        Kind::CredentialsMissing
        | Kind::CredentialsInvalid
        | Kind::CredentialsExpired
        | Kind::CredentialsRevoked
        | Kind::PermissionDenied
        | Kind::RateLimited
        | Kind::QuotaExhausted
        | Kind::ConcurrencyLimited => Close::POLICY,
        Kind::MessageTooLarge => Close::TOO_BIG,
        kind => status_code(kind.code()),
    };
    tally.close(code);
    for frame in Protocol::Json.ended(&Ended::Gateway(fault), json) {
        tally.count(Way::Reply, frame.len());
        socket.message(FrameKind::Text, &frame);
    }
    part(socket, Some(&Close::new(code, fault.message()))).await;
}

async fn part<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket<S>, close: Option<&Close>) {
    socket.close(close);
    let parted = timeout(FAREWELL, async {
        poll_fn(|cx| socket.poll_flush(cx)).await?;
        poll_fn(|cx| socket.poll_shutdown(cx)).await
    });
    match parted.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the client did not wait for the close frame"),
        Err(_elapsed) => tracing::debug!("the client did not take the close frame"),
    }
}

/// The credential in the first message, as the value of an `Authorization` header.
async fn first_word<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut Socket<S>,
    leave: &mut Leave,
    tally: &Tally,
) -> Result<HeaderValue, Failure> {
    loop {
        let event = poll_fn(|cx| {
            if let Poll::Ready(Err(_)) = socket.poll_flush(cx) {
                return Poll::Ready(Err(Failure::Gone(None)));
            }
            if let Poll::Ready(event) = socket.poll_event(cx, true) {
                return Poll::Ready(event.map_err(|error| broken(&error)));
            }
            if leave.poll(cx).is_ready() {
                let fault = Fault::gateway(Kind::Overloaded, "the gateway is stopping; connect again");
                return Poll::Ready(Err(Failure::Told(fault)));
            }
            Poll::Pending
        });
        match event.await? {
            Event::Ping(payload) => socket.pong(&payload),
            Event::Pong(_) => {}
            Event::Close(close) => {
                return Err(Failure::Gone(Some(
                    close.unwrap_or_else(|| Close::new(Close::NORMAL, "")),
                )));
            }
            Event::Data { kind, payload, .. } => {
                tally.count(Way::Request, payload.len());
                let word = (kind == FrameKind::Text).then(|| hear_auth(&payload)).flatten();
                return word.ok_or_else(|| {
                    let message = "the first message has to say who calls: {\"$auth\": \"TOKEN\"}";
                    Failure::Told(Fault::client(Kind::CredentialsMissing, message))
                });
            }
        }
    }
}

fn broken(error: &SocketError) -> Failure {
    match error {
        SocketError::Gone(_) => Failure::Gone(None),
        SocketError::Frame(error) => {
            let kind = match error.code() {
                Close::TOO_BIG => Kind::MessageTooLarge,
                _ => Kind::InvalidArgument,
            };
            Failure::Told(Fault::client(kind, error.to_string()))
        }
    }
}
