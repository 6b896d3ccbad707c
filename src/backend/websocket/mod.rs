//! The WebSocket relay: what a client sends goes to a WebSocket of the upstream frame by frame, and back.
//!
//! Data frames keep their type and their fragments. Control frames belong to each connection: pings are answered by the
//! gateway, and a close is passed on with its code and its reason. A frame of one side is read when the other one has
//! room for it.

mod handshake;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

pub(super) use handshake::Handshake;

use crate::fault::{Fault, Kind, Side};
use crate::listen::keep_alive::{Due, Timers};
use crate::listen::tunnel::Leave;
use crate::policy::Standing;
use crate::policy::throttle::pace::Pace;
use crate::route::entry::WebSocket;
use crate::stack::paced::Brake;
use crate::status::Code;
use crate::translate::Tally;
use crate::translate::tally::Outcome;
use crate::wire::body::{Count as _, Way};
use crate::wire::websocket::socket::SocketError;
use crate::wire::websocket::{Close, Event, FrameError, Kind as FrameKind, Socket};

/// How long each side may take to answer a close frame, and to close its side of the connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long an upstream may take to answer what the client had sent before it closed or erred.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// On what terms a client may go on.
#[derive(Debug, Default)]
pub(super) struct Terms {
    /// For how long who it is was proven.
    pub(super) holds_for: Option<Duration>,
    /// Ends with the client's token, where that can be revoked.
    pub(super) standing: Option<Standing>,
    /// How fast its messages may come.
    pub(super) pace: Option<Pace>,
}

/// Two sockets, and what passes between them.
struct Bridge<C, U> {
    client: End<C>,
    upstream: End<U>,
    timers: Timers,
    leave: Leave,
    tally: Arc<Tally>,
    /// Whose turn it is, so that neither side can keep the other waiting.
    turn: Side,
    /// Holds the client back that sends too fast.
    brake: Option<Brake>,
    /// Ends it when the client's token is revoked, where it can be.
    standing: Option<Standing>,
}

/// One side of a bridge.
struct End<S> {
    socket: Socket<S>,
    /// The pong that is owed for the last ping, once there is room.
    pong: Option<Bytes>,
}

/// What happens next.
enum Happening {
    Heard(Side, Result<Event, SocketError>),
    /// A side can't be reached any more.
    Unreachable(Side),
    Due(Due),
    /// The client's token is revoked.
    Revoked(Fault),
    /// The gateway is stopping.
    Leaving,
}

/// How a side is taken leave of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Farewell {
    /// It is gone.
    Gone,
    /// It closed; it is answered with what it said itself.
    Echo(Option<Close>),
    /// It is told, and is to answer.
    Close(Option<Close>),
    /// It is told, and nothing that it says is of use any more.
    Break(Close),
    /// Both sides have said that nothing more comes.
    Done,
}

/// How both sides are taken leave of, and what the record says.
struct Parting {
    client: Farewell,
    upstream: Farewell,
    code: u16,
    outcome: Outcome,
}

impl<S: AsyncRead + AsyncWrite + Unpin> End<S> {
    fn new(socket: Socket<S>) -> Self {
        Self { socket, pong: None }
    }

    /// Moves what is queued; ready when the side can't be reached any more.
    fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Poll::Ready(Err(_)) = self.socket.poll_flush(cx) {
            return Poll::Ready(());
        }
        if self.socket.has_room()
            && let Some(payload) = self.pong.take()
        {
            self.socket.pong(&payload);
            if let Poll::Ready(Err(_)) = self.socket.poll_flush(cx) {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    /// Sends the last frame, hears the other side's if it is to answer, and closes the connection.
    async fn part(&mut self, farewell: &Farewell) -> io::Result<()> {
        let close = match farewell {
            Farewell::Gone => return Ok(()),
            Farewell::Done => return poll_fn(|cx| self.socket.poll_shutdown(cx)).await,
            Farewell::Echo(close) | Farewell::Close(close) => close.as_ref(),
            Farewell::Break(close) => Some(close),
        };
        self.socket.close(close);
        poll_fn(|cx| self.socket.poll_flush(cx)).await?;
        if matches!(farewell, Farewell::Close(_)) {
            while let Ok(event) = poll_fn(|cx| self.socket.poll_event(cx, true)).await {
                if matches!(event, Event::Close(_)) {
                    break;
                }
            }
        }
        poll_fn(|cx| self.socket.poll_shutdown(cx)).await
    }
}

impl<C, U> Bridge<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    fn new(
        client: Socket<C>,
        upstream: Socket<U>,
        options: &WebSocket,
        leave: Leave,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            client: End::new(client),
            upstream: End::new(upstream),
            timers: Timers::new(options, Instant::now()),
            leave,
            tally,
            turn: Side::Client,
            brake: None,
            standing: None,
        }
    }

    /// The same, on these terms.
    fn on(mut self, terms: Terms) -> Self {
        let Terms {
            holds_for,
            standing,
            pace,
        } = terms;
        self.timers.expires(holds_for.map(|time| Instant::now() + time));
        Self {
            brake: pace.map(Brake::new),
            standing,
            ..self
        }
    }

    /// Passes frames until one side closes, or has to be closed.
    ///
    /// # Cancel safety
    /// Dropping it closes both connections without a word.
    async fn run(mut self) {
        let mut parting = loop {
            let happening = poll_fn(|cx| self.poll(cx)).await;
            if let Some(parting) = self.take(happening) {
                break parting;
            }
        };
        if matches!(parting.client, Farewell::Echo(_) | Farewell::Break(_))
            && let Farewell::Close(close) = &parting.upstream
        {
            self.upstream.socket.close(close.as_ref());
            let closed = timeout(LAST_WORDS, poll_fn(|cx| self.poll_last_words(cx))).await;
            parting.upstream = match closed {
                Ok(answered) => answered,
                // It has had its time, and keeps its own for the rest.
                Err(_elapsed) => Farewell::Gone,
            };
        }
        self.tally.end(parting.outcome);
        self.tally.close(parting.code);
        let both = async {
            tokio::join!(
                self.client.part(&parting.client),
                self.upstream.part(&parting.upstream)
            )
        };
        match timeout(FAREWELL, both).await {
            Ok((Ok(()), Ok(()))) => {}
            Ok((Err(error), _) | (_, Err(error))) => {
                tracing::debug!(%error, "a side did not wait for the close frame");
            }
            Err(_) => tracing::debug!("a side did not close its connection"),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        if self.client.poll_lost(cx).is_ready() {
            return Poll::Ready(Happening::Unreachable(Side::Client));
        }
        if self.upstream.poll_lost(cx).is_ready() {
            return Poll::Ready(Happening::Unreachable(Side::Upstream));
        }
        if let Some(standing) = &mut self.standing
            && let Poll::Ready(fault) = standing.poll_revoked(cx)
        {
            return Poll::Ready(Happening::Revoked(fault));
        }
        self.turn = other(self.turn);
        for side in [self.turn, other(self.turn)] {
            let (from, to_has_room) = match side {
                Side::Client => {
                    let free = match &mut self.brake {
                        Some(brake) => brake.poll_free(cx).is_ready(),
                        None => true,
                    };
                    let room = free && self.upstream.socket.has_room();
                    let event = self.client.socket.poll_event(cx, room);
                    if room
                        && event.is_pending()
                        && let Some(brake) = &mut self.brake
                    {
                        brake.caught_up();
                    }
                    (event, room)
                }
                Side::Upstream | Side::Gateway => {
                    let room = self.client.socket.has_room();
                    (self.upstream.socket.poll_event(cx, room), room)
                }
            };
            if let Poll::Ready(event) = from {
                debug_assert!(to_has_room || !matches!(event, Ok(Event::Data { .. })));
                return Poll::Ready(Happening::Heard(side, event));
            }
        }
        if self.leave.poll(cx).is_ready() {
            return Poll::Ready(Happening::Leaving);
        }
        let socket = &self.client.socket;
        let taken = (!socket.has_room()).then(|| socket.taken());
        self.timers.poll(cx, taken).map(Happening::Due)
    }

    /// Passes on what the upstream still has to say to a client that has closed or erred, until it closes too.
    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<Farewell> {
        loop {
            if let Poll::Ready(Err(_)) = self.upstream.socket.poll_flush(cx) {
                return Poll::Ready(Farewell::Gone);
            }
            if let Poll::Ready(Err(_)) = self.client.socket.poll_flush(cx) {
                return Poll::Ready(Farewell::Done);
            }
            let room = self.client.socket.has_room();
            match ready!(self.upstream.socket.poll_event(cx, room)) {
                Ok(Event::Data {
                    kind,
                    first,
                    last,
                    payload,
                }) => self.down(kind, first, last, &payload),
                Ok(Event::Ping(_) | Event::Pong(_)) => {}
                Ok(Event::Close(_)) => return Poll::Ready(Farewell::Done),
                Err(_) => return Poll::Ready(Farewell::Gone),
            }
        }
    }

    /// Passes data of the upstream to the client.
    fn down(&mut self, kind: FrameKind, first: bool, last: bool, payload: &[u8]) {
        self.tally.count(Way::Reply, payload.len());
        self.tally.add_reply_messages(u64::from(last));
        self.client.socket.part(kind, first, last, payload);
    }

    fn take(&mut self, happening: Happening) -> Option<Parting> {
        match happening {
            Happening::Heard(side, Ok(event)) => self.hear(side, event),
            Happening::Heard(side, Err(SocketError::Gone(_))) | Happening::Unreachable(side) => {
                Some(match side {
                    Side::Client => client_left(Farewell::Gone, Close::ABNORMAL),
                    Side::Upstream | Side::Gateway => upstream_failed("the upstream went away"),
                })
            }
            Happening::Heard(side, Err(SocketError::Frame(error))) => Some(match side {
                Side::Client => client_erred(error),
                Side::Upstream | Side::Gateway => {
                    tracing::debug!(%error, "an upstream broke the WebSocket protocol");
                    upstream_failed("the upstream broke the protocol")
                }
            }),
            Happening::Due(due) => self.due(due),
            Happening::Revoked(fault) => {
                self.standing = None;
                Some(Parting {
                    client: Farewell::Break(Close::new(Close::POLICY, fault.message())),
                    upstream: Farewell::Close(Some(Close::new(Close::GOING_AWAY, ""))),
                    code: Close::POLICY,
                    outcome: Outcome::Gateway(fault.kind(), fault.side()),
                })
            }
            Happening::Leaving => Some(Parting {
                client: Farewell::Close(Some(Close::new(
                    Close::GOING_AWAY,
                    "the gateway is stopping; connect again",
                ))),
                upstream: Farewell::Close(Some(Close::new(Close::GOING_AWAY, ""))),
                code: Close::GOING_AWAY,
                outcome: Outcome::Gateway(Kind::Overloaded, Side::Gateway),
            }),
        }
    }

    /// Takes what one side sends.
    fn hear(&mut self, side: Side, event: Event) -> Option<Parting> {
        match event {
            Event::Data {
                kind,
                first,
                last,
                payload,
            } => {
                self.timers.active(Instant::now());
                match side {
                    Side::Client => {
                        self.tally.count(Way::Request, payload.len());
                        self.tally.add_request_messages(u64::from(last));
                        if let Some(brake) = &mut self.brake
                            && let Err(fault) = brake.came(u64::from(last), payload.len())
                        {
                            return Some(self.too_fast(&fault));
                        }
                        self.upstream.socket.part(kind, first, last, &payload);
                    }
                    Side::Upstream | Side::Gateway => self.down(kind, first, last, &payload),
                }
                None
            }
            Event::Ping(payload) => {
                match side {
                    Side::Client => self.client.pong = Some(payload),
                    Side::Upstream | Side::Gateway => self.upstream.pong = Some(payload),
                }
                None
            }
            Event::Pong(_) => {
                if side == Side::Client {
                    self.timers.answered();
                }
                None
            }
            Event::Close(close) => {
                let (client, upstream) = match side {
                    Side::Client => (Farewell::Echo(close.clone()), Farewell::Close(close.clone())),
                    Side::Upstream | Side::Gateway => {
                        (Farewell::Close(close.clone()), Farewell::Echo(close.clone()))
                    }
                };
                Some(Parting {
                    client,
                    upstream,
                    code: close.map_or(Close::NONE, |close| close.code),
                    outcome: Outcome::Upstream(Code::Ok),
                })
            }
        }
    }

    /// Ends a client that sends faster than it may, and does not slow down.
    fn too_fast(&self, fault: &Fault) -> Parting {
        if let Some(limit) = fault.limit() {
            self.tally.met(limit);
        }
        Parting {
            outcome: Outcome::Gateway(fault.kind(), fault.side()),
            ..client_left(
                Farewell::Break(Close::new(Close::POLICY, fault.message())),
                Close::POLICY,
            )
        }
    }

    fn due(&mut self, due: Due) -> Option<Parting> {
        let now = Instant::now();
        let parting = |code, reason: &str, kind, side| {
            Some(Parting {
                client: Farewell::Break(Close::new(code, reason)),
                upstream: Farewell::Close(Some(Close::new(Close::GOING_AWAY, ""))),
                code,
                outcome: Outcome::Gateway(kind, side),
            })
        };
        match due {
            Due::Ping => {
                self.client.socket.ping(b"");
                self.timers.pinged(now);
                None
            }
            Due::NoPong if self.client.socket.waits() => {
                self.timers.excuse(now);
                None
            }
            Due::NoPong => parting(
                Close::POLICY,
                "no answer to a ping",
                Kind::Cancelled,
                Side::Client,
            ),
            Due::Idle => parting(
                Close::POLICY,
                "neither side said anything for too long",
                Kind::DeadlineExceeded,
                Side::Gateway,
            ),
            Due::Expired => parting(
                Close::POLICY,
                "what said who you are has expired; open another socket",
                Kind::CredentialsExpired,
                Side::Client,
            ),
            Due::Stalled => parting(
                Close::TRY_AGAIN,
                "what is sent is not taken",
                Kind::Cancelled,
                Side::Client,
            ),
        }
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::Client => Side::Upstream,
        Side::Upstream | Side::Gateway => Side::Client,
    }
}

/// The client is gone, or of no more use.
fn client_left(client: Farewell, code: u16) -> Parting {
    Parting {
        client,
        upstream: Farewell::Close(Some(Close::new(Close::GOING_AWAY, "the client went away"))),
        code,
        outcome: Outcome::Gateway(Kind::Cancelled, Side::Client),
    }
}

/// The client sent what it must not.
fn client_erred(error: FrameError) -> Parting {
    let code = error.code();
    let kind = match code {
        Close::TOO_BIG => Kind::MessageTooLarge,
        _ => Kind::InvalidArgument,
    };
    Parting {
        outcome: Outcome::Gateway(kind, Side::Client),
        ..client_left(Farewell::Break(Close::new(code, &error.to_string())), code)
    }
}

/// The upstream is gone, or makes no sense.
fn upstream_failed(why: &str) -> Parting {
    Parting {
        client: Farewell::Close(Some(Close::new(Close::INTERNAL, why))),
        upstream: Farewell::Gone,
        code: Close::INTERNAL,
        outcome: Outcome::Gateway(Kind::UpstreamReset, Side::Upstream),
    }
}

#[cfg(test)]
mod tests;
