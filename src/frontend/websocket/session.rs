//! One socket and its call, from the handshake to the close frame.
//!
//! At most one message is on its way in each direction: the client's next one is read when the upstream has room for
//! it, the upstream's when the client takes what was written. Pings and the close frame of the client are heard
//! meanwhile, as long as they don't stand behind a message that waits.

mod telling;

pub(super) use telling::status_code;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tower::ServiceExt as _;

use crate::call::Reply;
use crate::fault::{Fault, Kind, Side};
use crate::frontend::websocket::opening::{Opening, Reading};
use crate::frontend::websocket::talk::{Open, Protocol, Said};
use crate::frontend::websocket::uplink::{Uplink, uplink};
use crate::listen::keep_alive::{Due, Timers};
use crate::listen::tunnel::Leave;
use crate::policy::Standing;
use crate::route::Entry;
use crate::route::entry::Form;
use crate::stack::CallService;
use crate::translate::tally::Outcome;
use crate::translate::{Messages, Part, Tally};
use crate::wire::body::{Count as _, Way};
use crate::wire::websocket::socket::SocketError;
use crate::wire::websocket::{Close, Event, Socket};

/// How long the client may take to answer the close frame, and to close its side of the connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a client of raw frames is sent what the upstream answers to what came before its close frame. Enough for
/// what is on its way.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A socket and its call.
pub(super) struct Session<S> {
    socket: Socket<S>,
    leave: Leave,
    timers: Timers,
    /// Ends the session when the client's token is revoked, where it can be.
    standing: Option<Standing>,
    /// What is called; taken when the call is made.
    stack: Option<CallService>,
    call: State,
    /// Where the client's messages go, while it may send more than one.
    uplink: Option<(Uplink, Reading)>,
    entry: Arc<Entry>,
    binding: Option<u32>,
    protocol: Protocol,
    tally: Arc<Tally>,
    /// Whether the client has said anything.
    heard: bool,
    /// Whether the client was told the initial metadata.
    told: bool,
    /// Messages of the answer so far.
    answers: u64,
    /// The pong that is owed for the last ping, once there is room.
    pong: Option<Bytes>,
    /// Whose turn it is, so that neither side can keep the other waiting.
    turn: Turn,
}

/// How far the call has come.
enum State {
    /// The client has to say something first.
    Waiting(Box<Opening>),
    /// The upstream has not answered.
    Calling(Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>),
    /// Messages come in.
    Answering(Box<Messages>),
    /// Nothing more comes.
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Client,
    Upstream,
}

/// What happens next to a session.
enum Happening {
    Heard(Result<Event, SocketError>),
    /// The client can't be reached any more.
    Unreachable,
    Replied(Result<Reply, Fault>),
    Answered(Result<Option<Part>, Fault>),
    Due(Due),
    /// The client's token is revoked.
    Revoked(Fault),
    /// The gateway is stopping.
    Leaving,
}

/// How a session ends.
enum Farewell {
    /// The client is gone.
    Gone,
    /// The client closed; it is answered with what it said itself.
    Echo(Option<Close>),
    /// The gateway closes, and the client is to answer that.
    Close(Close),
    /// The gateway closes, and nothing that the client says is of use any more.
    Break(Close),
}

impl Farewell {
    fn code(&self) -> u16 {
        match self {
            Self::Gone => Close::ABNORMAL,
            Self::Echo(close) => close.as_ref().map_or(Close::NONE, |close| close.code),
            Self::Close(close) | Self::Break(close) => close.code,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(super) fn new(
        socket: Socket<S>,
        leave: Leave,
        opening: Opening,
        stack: CallService,
        asked: (Arc<Entry>, Option<u32>, Protocol),
        tally: Arc<Tally>,
    ) -> Self {
        let (entry, binding, protocol) = asked;
        let now = Instant::now();
        let mut timers = Timers::new(&entry.route.websocket, now);
        timers.expires(opening.expires(now));
        let standing = opening.standing();
        Self {
            socket,
            leave,
            timers,
            standing,
            stack: Some(stack),
            call: State::Waiting(Box::new(opening)),
            uplink: None,
            entry,
            binding,
            protocol,
            tally,
            heard: false,
            told: false,
            answers: 0,
            pong: None,
            turn: Turn::Client,
        }
    }

    /// Runs the session to its end.
    ///
    /// # Cancel safety
    /// Dropping it cancels the call upstream and closes the connection without a word.
    pub(super) async fn run(mut self) {
        let farewell = match self.begin() {
            Ok(()) => self.converse().await,
            Err(fault) => self.fail(&fault),
        };
        if self.protocol == Protocol::Raw && matches!(farewell, Farewell::Echo(_) | Farewell::Break(_)) {
            // A client without frames of control can't say that it is done but by leaving.
            let _elapsed = timeout(LAST_WORDS, poll_fn(|cx| self.poll_last_words(cx))).await;
        }
        // Whatever is left of the call is cancelled now, not when the client has closed its side.
        self.call = State::Over;
        self.uplink = None;
        if matches!(farewell, Farewell::Gone | Farewell::Echo(_)) {
            self.tally.end(Outcome::Gateway(Kind::Cancelled, Side::Client));
        }
        self.tally.close(farewell.code());
        match timeout(FAREWELL, self.part(&farewell)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the client did not wait for the close frame"),
            Err(_) => tracing::debug!("the client did not close its side"),
        }
    }

    /// Makes the call where nothing is to be said first.
    fn begin(&mut self) -> Result<(), Fault> {
        if self.protocol == Protocol::GrpcWeb {
            return Ok(());
        }
        let takes_body = self.entry.bound(self.binding).binding.body_target().is_some();
        let streams = self.entry.method.kind.client_streams();
        if takes_body && (!streams || self.protocol.opens_by_frame()) {
            return Ok(());
        }
        self.start(None)?;
        if !takes_body {
            self.half_close();
        }
        Ok(())
    }

    async fn converse(&mut self) -> Farewell {
        loop {
            let happening = poll_fn(|cx| self.poll(cx)).await;
            let done = match happening {
                Happening::Heard(Ok(event)) => self.hear(event),
                Happening::Heard(Err(SocketError::Gone(_))) | Happening::Unreachable => Some(Farewell::Gone),
                Happening::Heard(Err(SocketError::Frame(error))) => Some(self.break_off(error)),
                Happening::Replied(Ok(reply)) => {
                    self.reply(reply);
                    None
                }
                Happening::Answered(Ok(Some(Part::Message(message)))) => self.answer(&message),
                Happening::Answered(Ok(Some(Part::End(end)))) => Some(self.end(end)),
                Happening::Answered(Ok(None)) => Some(self.fail(&crate::translate::messages::no_status())),
                Happening::Replied(Err(fault))
                | Happening::Answered(Err(fault))
                | Happening::Revoked(fault) => Some(self.fail(&fault)),
                Happening::Due(due) => self.due(due),
                Happening::Leaving => Some(self.go_away()),
            };
            if let Some(farewell) = done {
                return farewell;
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happening> {
        if let Poll::Ready(Err(_)) = self.socket.poll_flush(cx) {
            return Poll::Ready(Happening::Unreachable);
        }
        if self.socket.has_room()
            && let Some(payload) = self.pong.take()
        {
            self.socket.pong(&payload);
            if let Poll::Ready(Err(_)) = self.socket.poll_flush(cx) {
                return Poll::Ready(Happening::Unreachable);
            }
        }
        if let Some(standing) = &mut self.standing
            && let Poll::Ready(fault) = standing.poll_revoked(cx)
        {
            return Poll::Ready(Happening::Revoked(fault));
        }
        self.turn = match self.turn {
            Turn::Client => Turn::Upstream,
            Turn::Upstream => Turn::Client,
        };
        let mut happening = self.poll_side(cx, self.turn);
        if happening.is_pending() {
            let other = match self.turn {
                Turn::Client => Turn::Upstream,
                Turn::Upstream => Turn::Client,
            };
            happening = self.poll_side(cx, other);
        }
        if happening.is_ready() {
            return happening;
        }
        if self.leave.poll(cx).is_ready() {
            return Poll::Ready(Happening::Leaving);
        }
        let taken = (!self.socket.has_room()).then(|| self.socket.taken());
        self.timers.poll(cx, taken).map(Happening::Due)
    }

    fn poll_side(&mut self, cx: &mut Context<'_>, turn: Turn) -> Poll<Happening> {
        match turn {
            Turn::Client => {
                let takes_data = self.takes_data(cx);
                self.socket.poll_event(cx, takes_data).map(Happening::Heard)
            }
            Turn::Upstream => match &mut self.call {
                State::Calling(call) => call.as_mut().poll(cx).map(Happening::Replied),
                State::Answering(messages) if self.socket.has_room() => {
                    messages.poll_next(cx).map(Happening::Answered)
                }
                State::Waiting(_) | State::Answering(_) | State::Over => Poll::Pending,
            },
        }
    }

    /// Passes on what the upstream still answers, until it ends the call or can't be asked.
    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Poll::Ready(Err(_)) = self.socket.poll_flush(cx) {
                return Poll::Ready(());
            }
            if matches!(self.call, State::Waiting(_) | State::Over) {
                return Poll::Ready(());
            }
            match ready!(self.poll_side(cx, Turn::Upstream)) {
                Happening::Replied(Ok(reply)) => self.reply(reply),
                Happening::Answered(Ok(Some(Part::Message(message)))) => {
                    if self.answer(&message).is_some() {
                        return Poll::Ready(());
                    }
                }
                _ => return Poll::Ready(()),
            }
        }
    }

    /// Whether there is room for another message of the client.
    fn takes_data(&self, cx: &Context<'_>) -> bool {
        self.socket.has_room()
            && self
                .uplink
                .as_ref()
                .is_none_or(|(uplink, _)| uplink.poll_free(cx).is_ready())
    }

    /// Takes what the client sends.
    fn hear(&mut self, event: Event) -> Option<Farewell> {
        match event {
            Event::Ping(payload) => {
                self.pong = Some(payload);
                None
            }
            Event::Pong(_) => {
                self.timers.answered();
                None
            }
            Event::Close(close) => Some(Farewell::Echo(close)),
            Event::Data { kind, payload, .. } => {
                self.timers.active(Instant::now());
                self.tally.count(Way::Request, payload.len());
                let raw = match self.entry.bound(self.binding).request {
                    Form::Raw(field) if self.protocol == Protocol::Raw => {
                        Some(Said::raw(field, kind, &payload))
                    }
                    _ => None,
                };
                if raw.is_none() && kind != self.protocol.frames() {
                    let fault = Fault::client(
                        Kind::InvalidArgument,
                        format!("{kind:?} frames are not taken by this subprotocol"),
                    );
                    return Some(self.refuse(&fault, Close::UNSUPPORTED));
                }
                let first = !std::mem::replace(&mut self.heard, true);
                let said = raw.map_or_else(|| self.protocol.hear(payload, first), Ok);
                match said.and_then(|said| self.obey(said, first)) {
                    Ok(farewell) => farewell,
                    Err(fault) => Some(self.fail(&fault)),
                }
            }
        }
    }

    /// Does what the client says.
    fn obey(&mut self, said: Said, first: bool) -> Result<Option<Farewell>, Fault> {
        match said {
            Said::Open(open) => self.open(open, first)?,
            Said::Message(payload) => self.message(&payload)?,
            Said::End => {
                self.start(None)?;
                self.half_close();
            }
            Said::Cancel => {
                let fault = Fault::client(Kind::Cancelled, "the client cancelled the call");
                return Ok(Some(self.fail(&fault)));
            }
        }
        Ok(None)
    }

    fn open(&mut self, open: Open, first: bool) -> Result<(), Fault> {
        match &mut self.call {
            State::Waiting(opening) if first => opening.open(open)?,
            State::Waiting(_) | State::Calling(_) | State::Answering(_) | State::Over => {
                return Err(Fault::client(
                    Kind::InvalidArgument,
                    "the call has begun already; metadata and deadline come before it",
                ));
            }
        }
        if self.entry.method.kind.client_streams() {
            self.start(None)?;
        }
        Ok(())
    }

    fn message(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let streams = self.entry.method.kind.client_streams();
        if matches!(self.call, State::Waiting(_)) && !streams {
            return self.start(Some(payload));
        }
        self.start(None)?;
        let Some((uplink, reading)) = &mut self.uplink else {
            let what = if streams {
                "nothing more is taken after the end of the messages"
            } else {
                "the method takes one message"
            };
            return Err(Fault::client(Kind::InvalidArgument, what));
        };
        uplink.give(reading.message(payload)?);
        Ok(())
    }

    /// Makes the call, if that was not done; with this message, or none, where the method takes one.
    fn start(&mut self, message: Option<&[u8]>) -> Result<(), Fault> {
        let opening = match std::mem::replace(&mut self.call, State::Over) {
            State::Waiting(opening) => opening,
            begun @ (State::Calling(_) | State::Answering(_) | State::Over) => {
                self.call = begun;
                return Ok(());
            }
        };
        let now = Instant::now();
        let call = if self.entry.method.kind.client_streams() {
            let (uplink, uploads) = uplink();
            let (call, reading) = opening.with_messages(uploads, now);
            self.uplink = Some((uplink, reading));
            call
        } else {
            opening.with_message(message, now)?
        };
        if let Some(stack) = self.stack.take() {
            self.call = State::Calling(Box::pin(stack.oneshot(call)));
        }
        Ok(())
    }

    /// The client has said all.
    fn half_close(&mut self) {
        if let Some((uplink, mut reading)) = self.uplink.take() {
            // What path and query give is not lost where no message came that they could be part of.
            if let Some(rest) = reading.rest() {
                uplink.give(rest);
            }
            uplink.end();
        }
    }

    /// Does what is due.
    fn due(&mut self, due: Due) -> Option<Farewell> {
        let now = Instant::now();
        match due {
            Due::Ping => {
                self.socket.ping(b"");
                self.timers.pinged(now);
                None
            }
            Due::NoPong if self.socket.waits() => {
                self.timers.excuse(now);
                None
            }
            Due::NoPong => Some(self.give_up(Close::POLICY, "no answer to a ping")),
            Due::Idle => {
                let fault = Fault::gateway(Kind::DeadlineExceeded, "neither side said anything for too long");
                Some(self.fail(&fault))
            }
            Due::Expired => {
                let message = "what said who you are has expired; open another socket";
                let fault = Fault::client(Kind::CredentialsExpired, message);
                Some(self.fail(&fault))
            }
            Due::Stalled => Some(self.give_up(Close::TRY_AGAIN, "what is sent is not taken")),
        }
    }

    /// Ends a connection whose client does not do its part.
    fn give_up(&self, code: u16, reason: &str) -> Farewell {
        self.tally.end(Outcome::Gateway(Kind::Cancelled, Side::Client));
        Farewell::Break(Close::new(code, reason))
    }

    /// The gateway stops.
    fn go_away(&mut self) -> Farewell {
        let fault = Fault::gateway(Kind::Overloaded, "the gateway is stopping; connect again");
        self.refuse(&fault, Close::GOING_AWAY)
    }

    /// Sends the close frame and closes the connection once the client has had the time to read everything.
    async fn part(&mut self, farewell: &Farewell) -> io::Result<()> {
        let close = match farewell {
            Farewell::Gone => return Ok(()),
            Farewell::Echo(close) => close.as_ref(),
            Farewell::Close(close) | Farewell::Break(close) => Some(close),
        };
        self.socket.close(close);
        poll_fn(|cx| self.socket.poll_flush(cx)).await?;
        if matches!(farewell, Farewell::Close(_)) {
            // The client's close frame, or the end of its patience.
            while let Ok(event) = poll_fn(|cx| self.socket.poll_event(cx, true)).await {
                if matches!(event, Event::Close(_)) {
                    break;
                }
            }
        }
        poll_fn(|cx| self.socket.poll_shutdown(cx)).await
    }
}
