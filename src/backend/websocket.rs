//! The WebSocket relay: what a client sends goes to a WebSocket of the upstream frame by frame, and back.
//!
//! Data frames keep their type and their fragments. Control frames belong to each connection: pings are answered by the
//! gateway, and a close is passed on with its code and its reason. A frame of one side is read when the other one has
//! room for it.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL, TE,
};
use http::{Response, response};
use http_body::Body as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};

use crate::backend::relay::Relayed;
use crate::balance::InFlight;
use crate::call::metadata;
use crate::fault::{Fault, Kind, Side};
use crate::listen::keep_alive::{Due, Timers};
use crate::listen::tunnel::{Leave, Tunnel};
use crate::route::entry::WebSocket;
use crate::status::Code;
use crate::translate::Tally;
use crate::translate::tally::Outcome;
use crate::wire::body::{Body, Count as _, Way};
use crate::wire::websocket::deflate::Agreed;
use crate::wire::websocket::handshake::{self, Opening, Question};
use crate::wire::websocket::socket::SocketError;
use crate::wire::websocket::{Close, Event, FrameError, Limits, Reader, Role, Socket, Unit, Writer};

/// How long each side may take to answer a close frame, and to close its side of the connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// A handshake of a client, on its way to an upstream.
pub(super) struct Handshake {
    opening: Opening,
    question: Question,
    /// The subprotocols that the client offers, which are passed on as they are.
    offered: Vec<String>,
    /// permessage-deflate with the client; towards the upstream it is not offered.
    deflate: Option<Agreed>,
}

impl Handshake {
    /// What a client asks for.
    ///
    /// # Errors
    /// A client fault: the request asks for no WebSocket, or not as it must.
    pub(super) fn read(relayed: &Relayed, options: &WebSocket) -> Result<Self, Fault> {
        let head = &relayed.head;
        if !handshake::asks(head) {
            return Err(Fault::client(
                Kind::WebSocketVersion,
                "this path is for WebSockets; open one",
            ));
        }
        if !relayed.body.is_end_stream() {
            return Err(Fault::client(
                Kind::BadRequest,
                "a WebSocket handshake has no body",
            ));
        }
        Ok(Self {
            opening: handshake::check(head)?,
            question: Question::new().map_err(|error| {
                Fault::gateway(Kind::Internal, "a handshake could not be written").caused_by(error)
            })?,
            offered: handshake::subprotocols(&head.headers)
                .into_iter()
                .map(str::to_owned)
                .collect(),
            deflate: Agreed::offered(&head.headers).filter(|_| options.deflate),
        })
    }

    /// Makes the headers of the client those of the gateway's own handshake.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        headers.remove(TE);
        own(headers);
        self.question.put(headers);
    }

    /// The answer to the client once the upstream has switched, with the tunnel between them.
    ///
    /// # Errors
    /// An upstream fault where its 101 is none for this question.
    pub(super) fn accept(
        self,
        head: response::Parts,
        upstream: TokioIo<Upgraded>,
        options: WebSocket,
        tally: Arc<Tally>,
        in_flight: InFlight,
    ) -> Result<Response<Body>, Fault> {
        let offered: Vec<&str> = self.offered.iter().map(String::as_str).collect();
        let mut headers = head.headers;
        if !self.question.is_answered(&headers, &offered) {
            return Err(Fault::upstream(
                Kind::UpstreamProtocol,
                "the upstream answered the WebSocket handshake with another one's answer",
            ));
        }
        metadata::end_to_end(&mut headers);
        own(&mut headers);
        headers.remove(CONTENT_LENGTH);
        let mut response = handshake::accept(self.opening, Body::empty());
        for (name, value) in &headers {
            response.headers_mut().append(name.clone(), value.clone());
        }
        let deflate = self.deflate;
        if let Some(agreed) = deflate
            && let Ok(value) = HeaderValue::try_from(agreed.answer())
        {
            response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        let limits = Limits::of_messages(options.max_message_bytes);
        let reader = move |role, deflate| Reader::new(role, Unit::Frame, limits, deflate);
        Tunnel::new(move |io, leave| {
            let client = Socket::new(
                io,
                reader(Role::Server, deflate.is_some()),
                Writer::new(Role::Server, deflate),
            );
            let upstream = Socket::new(
                upstream,
                reader(Role::Client, false),
                Writer::new(Role::Client, None),
            );
            Bridge::new(client, upstream, &options, leave, tally).run()
        })
        .holding(in_flight)
        .put(&mut response);
        Ok(response)
    }
}

/// Takes out of a handshake what is of one connection alone; the subprotocols are what both sides agree on.
fn own(headers: &mut HeaderMap) {
    for name in handshake::HEADERS {
        if name != SEC_WEBSOCKET_PROTOCOL {
            headers.remove(name);
        }
    }
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
        }
    }

    /// Passes frames until one side closes, or has to be closed.
    ///
    /// # Cancel safety
    /// Dropping it closes both connections without a word.
    async fn run(mut self) {
        let parting = loop {
            let happening = poll_fn(|cx| self.poll(cx)).await;
            if let Some(parting) = self.take(happening) {
                break parting;
            }
        };
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
        self.turn = other(self.turn);
        for side in [self.turn, other(self.turn)] {
            let (from, to_has_room) = match side {
                Side::Client => {
                    let room = self.upstream.socket.has_room();
                    (self.client.socket.poll_event(cx, room), room)
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
                let messages = u64::from(last);
                match side {
                    Side::Client => {
                        self.tally.count(Way::Request, payload.len());
                        self.tally.add_request_messages(messages);
                        self.upstream.socket.part(kind, first, last, &payload);
                    }
                    Side::Upstream | Side::Gateway => {
                        self.tally.count(Way::Reply, payload.len());
                        self.tally.add_reply_messages(messages);
                        self.client.socket.part(kind, first, last, &payload);
                    }
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
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role as PeerRole};

    use super::*;
    use crate::listen::Drain;

    /// A bridge with tungstenite at both ends.
    struct Stage {
        client: WebSocketStream<DuplexStream>,
        upstream: WebSocketStream<DuplexStream>,
        drain: Drain,
        tally: Arc<Tally>,
        task: JoinHandle<()>,
    }

    /// Bytes on their way between a peer and the bridge.
    const PIPE: usize = 1024;

    async fn stage() -> Stage {
        let limits = Limits::of_messages(1 << 20);
        let (near, client) = tokio::io::duplex(PIPE);
        let (far, upstream) = tokio::io::duplex(PIPE);
        let reader = |role| Reader::new(role, Unit::Frame, limits, false);
        let drain = Drain::new(Duration::from_secs(1));
        let tally: Arc<Tally> = Arc::default();
        let bridge = Bridge::new(
            Socket::new(near, reader(Role::Server), Writer::new(Role::Server, None)),
            Socket::new(far, reader(Role::Client), Writer::new(Role::Client, None)),
            &WebSocket::of(&crate::limits::Limits::default()),
            Leave::of(&drain),
            Arc::clone(&tally),
        );
        Stage {
            client: WebSocketStream::from_raw_socket(client, PeerRole::Client, None).await,
            upstream: WebSocketStream::from_raw_socket(upstream, PeerRole::Server, None).await,
            drain,
            tally,
            task: tokio::spawn(bridge.run()),
        }
    }

    async fn next(socket: &mut WebSocketStream<DuplexStream>) -> Message {
        loop {
            match socket.next().await {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return message,
                other => panic!("the connection ended: {other:?}"),
            }
        }
    }

    async fn closed(socket: &mut WebSocketStream<DuplexStream>) -> Option<(u16, String)> {
        match next(socket).await {
            Message::Close(close) => close.map(|close| (close.code.into(), close.reason.to_string())),
            other => panic!("no close frame: {other:?}"),
        }
    }

    #[tokio::test]
    async fn messages_and_the_close_pass_in_both_directions() {
        let mut stage = stage().await;
        let large = Message::binary(vec![7; 100_000]);
        let echo = async {
            for _ in 0..2 {
                let message = next(&mut stage.upstream).await;
                stage.upstream.send(message).await.unwrap();
            }
            closed(&mut stage.upstream).await
        };
        let talk = async {
            for message in [Message::text("héllo"), large] {
                stage.client.send(message.clone()).await.unwrap();
                assert_eq!(next(&mut stage.client).await, message);
            }
            let close = CloseFrame {
                code: 4321.into(),
                reason: "done".into(),
            };
            stage.client.close(Some(close)).await.unwrap();
            closed(&mut stage.client).await
        };
        let (upstream, client) = tokio::join!(echo, talk);
        let expected = Some((4321, "done".to_owned()));
        assert_eq!((upstream, client), (expected.clone(), expected));
        drop((stage.client, stage.upstream));
        stage.task.await.unwrap();
        assert_eq!(stage.tally.request_messages(), 2);
        assert_eq!(stage.tally.reply_messages(), 2);
        assert_eq!(stage.tally.close_code(), Some(4321));
    }

    #[tokio::test]
    async fn an_upstream_that_closes_closes_the_client() {
        let mut stage = stage().await;
        stage.upstream.close(None).await.unwrap();
        assert_eq!(closed(&mut stage.client).await, None);
        assert_eq!(closed(&mut stage.upstream).await, None);
    }

    #[tokio::test]
    async fn who_goes_without_a_word_is_missed_on_the_other_side() {
        let mut stage = stage().await;
        drop(stage.upstream);
        assert_eq!(closed(&mut stage.client).await.unwrap().0, Close::INTERNAL);

        let mut stage = self::stage().await;
        drop(stage.client);
        assert_eq!(closed(&mut stage.upstream).await.unwrap().0, Close::GOING_AWAY);
        assert_eq!(
            stage.tally.outcome(),
            Some(Outcome::Gateway(Kind::Cancelled, Side::Client))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_breaks_the_rules_is_told_which() {
        let mut stage = stage().await;
        stage
            .client
            .send(Message::binary(vec![0; (1 << 20) + 1]))
            .await
            .ok();
        let (client, upstream) = tokio::join!(closed(&mut stage.client), closed(&mut stage.upstream));
        assert_eq!(client.unwrap().0, Close::TOO_BIG);
        assert_eq!(upstream.unwrap().0, Close::GOING_AWAY);
    }

    #[tokio::test(start_paused = true)]
    async fn both_sides_are_told_that_the_gateway_stops() {
        let mut stage = stage().await;
        stage.drain.begin();
        let (client, upstream) = tokio::join!(closed(&mut stage.client), closed(&mut stage.upstream));
        assert_eq!(client.unwrap().0, Close::GOING_AWAY);
        assert_eq!(upstream.unwrap().0, Close::GOING_AWAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_read_holds_the_other_one_back() {
        let mut stage = stage().await;
        let sent = async {
            for _ in 0..1000 {
                stage.client.send(Message::binary(vec![0; 10_000])).await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), sent).await.is_err());
        assert!(
            stage.tally.request_bytes() < 200_000,
            "{}",
            stage.tally.request_bytes()
        );
    }
}
