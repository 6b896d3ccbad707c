//! A connection of HTTP/1.1: the socket, and the requests that are answered on it, one after the other.
//!
//! In one turn, what has come is read, the request that it makes is answered as far as that goes, and what the answer
//! wrote goes out as one. A request is answered within the connection's own task, and an idle connection holds neither
//! buffers nor room for an answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{EXPECT, TE};
use http::{HeaderMap, Method, Response, Version, request};
use http_body::Body as _;
use tokio::io::AsyncWrite as _;
use tokio_util::io::poll_read_buf;

use crate::buffers::{Input, LEAST_PIPED, Out, Pipe, Sender};
use crate::fault::{Fault, Kind};
use crate::http1::{self, Asked, Decoder, Encoder, Feed, Framing, HeadError, Heads, Mismatch, Piece};
use crate::limits::Limits;
use crate::listen::call::Tracked;
use crate::listen::date::date;
use crate::listen::link::Link;
use crate::listen::stream::Watched;
use crate::listen::tunnel::Switching;
use crate::listen::{Settings, answer, head};
use crate::wire::body::Piped as _;
use crate::wire::received::Received;

/// Turns before others have theirs.
const TURNS: usize = 8;
/// Pieces of a body that may wait for whoever reads it: chunks may be as small as a byte, and a piece is not.
const MOST_WAITING: usize = 32;
/// Source: RFC 9110, section 15.2.1.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// An answer, and what the connection becomes after it.
pub(crate) type Answer = (Response<Tracked>, Option<Switching>);

/// Why a connection ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client went away while it was asking, or was answered.
    #[error("the client left")]
    Left,
    /// The answer broke off.
    #[error("the answer failed")]
    Failed(#[source] Fault),
    /// The answer is not what its head says.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

/// How far a connection has come.
enum Stage {
    /// The next head is awaited.
    Head,
    /// The answer is made.
    Answering,
    /// Its body is sent.
    Sending(Tracked, Encoder),
    /// What is written goes out, and then the connection is closed.
    Closing(Option<Ended>),
    /// The connection is broken off, since closing it would say that the answer is whole.
    Breaking(Option<Ended>),
    /// What is written goes out, and then the connection is something else.
    Switching(Switching),
}

/// The body of a request that has not come to its end.
struct Upload {
    decoder: Decoder,
    feed: Feed,
    /// The client waits to be asked for it.
    is_held: bool,
}

/// A connection whose requests are answered by what `B` begins.
pub(crate) struct Http1<B, X> {
    io: Watched,
    link: Arc<Link>,
    settings: Arc<Settings>,
    input: Input,
    out: Out,
    /// What goes out after that, from the socket of an upstream.
    pipe: Pipe,
    heads: Heads,
    begin: B,
    /// Room for what makes an answer, while requests come one after the other.
    answer: Option<Pin<Box<Option<X>>>>,
    stage: Stage,
    asked: Asked,
    upload: Option<Upload>,
    /// There will be no further request.
    is_last: bool,
    /// The socket has been written to since it was flushed.
    is_dirty: bool,
}

impl<B, X> Http1<B, X>
where
    B: Fn(request::Parts, Received) -> X,
    X: Future<Output = Answer>,
{
    pub(crate) fn new(io: Watched, link: Arc<Link>, settings: Arc<Settings>, begin: B) -> Self {
        let limits = &settings.limits;
        Self {
            heads: Heads::new(head::most_bytes(limits), limits.max_headers),
            io,
            link,
            settings,
            input: Input::new(Sender::Client),
            out: Out::default(),
            pipe: Pipe::default(),
            begin,
            answer: None,
            stage: Stage::Head,
            asked: Asked {
                to_head: false,
                version: Version::HTTP_11,
                is_kept: true,
                takes_trailers: false,
            },
            upload: None,
            is_last: false,
            is_dirty: false,
        }
    }

    /// No further requests; the one that is being asked or answered is the last.
    pub(crate) fn finish(&mut self) {
        self.is_last = true;
        if matches!(self.stage, Stage::Head) && self.input.is_empty() {
            self.stage = Stage::Closing(None);
        }
    }

    /// Gives back what an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        if let Stage::Head = self.stage {
            self.answer = None;
        }
    }

    /// The socket, what was read of it, and what it becomes.
    pub(crate) fn into_parts(self) -> (Watched, Bytes, Option<Switching>) {
        let switching = match self.stage {
            Stage::Switching(switching) => Some(switching),
            Stage::Head | Stage::Answering | Stage::Sending(..) | Stage::Closing(_) | Stage::Breaking(_) => {
                None
            }
        };
        (self.io, Bytes::copy_from_slice(&self.input), switching)
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        for _ in 0..TURNS {
            let is_full = self.advance(cx);
            let written = self.poll_write(cx)?;
            match &mut self.stage {
                Stage::Closing(ended) => {
                    ready!(written);
                    // A client that is gone does not hear it.
                    let _closed = ready!(Pin::new(&mut self.io).poll_shutdown(cx));
                    return Poll::Ready(ended.take().map_or(Ok(()), Err));
                }
                Stage::Breaking(ended) => {
                    self.io.break_off();
                    return Poll::Ready(ended.take().map_or(Ok(()), Err));
                }
                Stage::Switching(_) => {
                    ready!(written);
                    return Poll::Ready(Ok(()));
                }
                Stage::Head | Stage::Answering | Stage::Sending(..) => {}
            }
            let goes_on = is_full && written.is_ready();
            if self.poll_read(cx, is_full)?.is_pending() && !goes_on {
                self.input.rest();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Goes as far as it can without reading or writing; whether it would go on if there were less to write.
    fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            match &mut self.stage {
                Stage::Head | Stage::Sending(..) if self.out.is_full() || !self.pipe.is_empty() => {
                    return true;
                }
                Stage::Head => match self.heads.request(&mut self.input) {
                    Ok(Some(head)) => self.ask(head, cx),
                    Ok(None) => {
                        if !self.input.is_empty() {
                            // From its first byte on, a head has its time.
                            self.link.hear();
                        }
                        return false;
                    }
                    Err(error) => self.refuse(error),
                },
                Stage::Answering => {
                    let answer = self
                        .answer
                        .as_mut()
                        .and_then(|answer| answer.as_mut().as_pin_mut());
                    let Some(answer) = answer else { return false };
                    let Poll::Ready((response, switching)) = answer.poll(cx) else {
                        self.invite(cx);
                        return false;
                    };
                    if let Some(room) = &mut self.answer {
                        room.as_mut().set(None);
                    }
                    self.respond(response, switching);
                }
                Stage::Sending(body, encoder) => {
                    let is_piped = self.io.socket().is_some() && encoder.left() >= Some(LEAST_PIPED);
                    let pipe = is_piped.then_some(&mut self.pipe);
                    match poll_send(body, encoder, (&mut self.out, pipe), cx) {
                        Poll::Pending => return false,
                        Poll::Ready(Ok(false)) => {}
                        Poll::Ready(Ok(true)) => self.complete(),
                        Poll::Ready(Err(ended)) => {
                            let is_until_close = *encoder == Encoder::UntilClose;
                            self.stage = match ended {
                                Ended::Failed(_) if is_until_close => Stage::Breaking(Some(ended)),
                                _ => Stage::Closing(Some(ended)),
                            };
                        }
                    }
                }
                Stage::Closing(_) | Stage::Breaking(_) | Stage::Switching(_) => return false,
            }
        }
    }

    /// Begins to answer a request.
    fn ask(&mut self, head: request::Parts, cx: &Context<'_>) {
        // What two readers could differ on is refused by the check of the head, and is the last that is read.
        let framing = Framing::of_request(head.version, &head.headers);
        self.asked = Asked {
            to_head: head.method == Method::HEAD,
            version: head.version,
            is_kept: framing.is_some() && http1::is_kept(head.version, &head.headers),
            takes_trailers: head.headers.contains_key(TE) && takes_trailers(&head.headers),
        };
        let body = match framing {
            None | Some(Framing::Nothing) => Received::nothing(),
            Some(framing) => self.receive(framing, &head, cx),
        };
        let answer = (self.begin)(head, body);
        let room = self.answer.get_or_insert_with(|| Box::pin(None));
        room.as_mut().set(Some(answer));
        self.stage = Stage::Answering;
    }

    /// The body of a request, of which some may have come.
    fn receive(&mut self, framing: Framing, head: &request::Parts, cx: &Context<'_>) -> Received {
        let mut decoder = Decoder::new(framing);
        if let Some(left) = decoder.left().and_then(|left| usize::try_from(left).ok())
            && left <= self.input.len()
        {
            return Received::whole(self.input.take(left));
        }
        let length = decoder.left();
        let first = decoder.next(&mut self.input);
        if let Ok(Some(Piece::End(None))) = first {
            return Received::nothing();
        }
        let (feed, inbound) = Feed::new(length);
        let has_come = matches!(first, Ok(Some(_)));
        self.upload = Some(Upload {
            decoder,
            feed,
            is_held: !has_come && head.version == Version::HTTP_11 && waits_to_be_asked(&head.headers),
        });
        self.hand_on(first, cx);
        Received::from(inbound)
    }

    /// Hands on what has come of the body of the request, beginning with `next`, as long as few pieces wait.
    fn hand_on(&mut self, mut next: Result<Option<Piece>, http1::Malformed>, cx: &Context<'_>) {
        while let Some(upload) = &mut self.upload {
            match next {
                Ok(None) => return,
                Ok(Some(Piece::Data(bytes))) => {
                    if upload.feed.push(bytes, cx) >= MOST_WAITING {
                        return;
                    }
                    next = upload.decoder.next(&mut self.input);
                }
                Ok(Some(Piece::End(trailers))) => {
                    upload.feed.end(trailers, cx);
                    self.upload = None;
                    return;
                }
                Err(malformed) => {
                    upload.feed.fail(malformed.into());
                    self.upload = None;
                    // Nobody knows where the next request would begin.
                    self.asked.is_kept = false;
                    return;
                }
            }
        }
    }

    /// Hands on what has come of a body; whether there was anything.
    fn feed(&mut self, cx: &Context<'_>) -> bool {
        let Some(upload) = &mut self.upload else {
            return false;
        };
        let next = upload.decoder.next(&mut self.input);
        if let Ok(None) = next {
            return false;
        }
        upload.is_held = false;
        self.hand_on(next, cx);
        true
    }

    /// Asks for a body that the client holds back until it is wanted.
    fn invite(&mut self, cx: &Context<'_>) {
        if let Some(upload) = &mut self.upload
            && upload.is_held
            && upload.feed.is_wanted(cx)
        {
            upload.is_held = false;
            self.out.buffer().extend_from_slice(CONTINUE);
        }
    }

    /// Writes the head of an answer.
    fn respond(&mut self, response: Response<Tracked>, switching: Option<Switching>) {
        let (head, body) = response.into_parts();
        // Of a request that is answered whole, nobody needs the rest.
        let is_unwanted = |upload: &Upload| body.is_whole() || upload.feed.is_left();
        if self.upload.as_ref().is_some_and(is_unwanted) {
            self.skip();
        }
        self.asked.is_kept &= !self.is_last;
        let ends = body.is_end_stream();
        let exact = if ends { Some(0) } else { body.size_hint().exact() };
        let encoder = http1::answer(&head, exact, &date(), &mut self.asked, self.out.buffer());
        if let Some(switching) = switching {
            self.stage = Stage::Switching(switching);
        } else if ends || encoder == Encoder::Nothing {
            drop(body);
            self.complete();
        } else {
            self.stage = Stage::Sending(body, encoder);
        }
    }

    /// Passes over what has come of a body that nobody reads. The rest is not read here either, and the client is told so
    /// in time.
    fn skip(&mut self) {
        while let Some(upload) = &mut self.upload {
            match upload.decoder.next(&mut self.input) {
                Ok(Some(Piece::Data(_))) => {}
                Ok(Some(Piece::End(_))) => self.upload = None,
                Ok(None) | Err(_) => {
                    self.asked.is_kept = false;
                    return;
                }
            }
        }
    }

    /// The answer is written.
    fn complete(&mut self) {
        // The link hears of it even where there is nothing left to write.
        self.is_dirty = true;
        let is_read = self.upload.take().is_none();
        self.stage = if self.asked.is_kept && !self.is_last && is_read {
            Stage::Head
        } else {
            Stage::Closing(None)
        };
    }

    /// Answers a head that can't be read.
    fn refuse(&mut self, error: HeadError) {
        let fault = unreadable(error, &self.settings.limits);
        self.link.counters().heads_refused.add();
        let refusal = answer::refusal(self.settings.refuse, &fault);
        self.out.buffer().extend_from_slice(&refusal);
        self.stage = Stage::Closing(None);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.out.is_empty() {
            self.is_dirty = true;
            ready!(self.out.poll_write(cx, &mut self.io))?;
        }
        if !self.pipe.is_empty() {
            self.is_dirty = true;
            ready!(self.io.poll_drain(cx, &mut self.pipe))?;
        }
        if self.is_dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, if somebody wants what comes: between requests, unless `is_full` says that what has come waits for room,
    /// for the body of one, and to see whether the client leaves.
    fn poll_read(&mut self, cx: &mut Context<'_>, is_full: bool) -> Poll<Result<(), Ended>> {
        match (&self.stage, &self.upload) {
            (Stage::Head, _) if is_full => return Poll::Pending,
            (Stage::Head, _) => {}
            (Stage::Closing(_) | Stage::Breaking(_) | Stage::Switching(_), _) => return Poll::Pending,
            (_, Some(upload)) if !upload.feed.is_wanted(cx) => return Poll::Pending,
            (_, None) if !self.input.is_empty() => return Poll::Pending,
            (_, Some(_) | None) => {}
        }
        if self.feed(cx) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.io.poll_readable(cx))?;
        let read = ready!(poll_read_buf(Pin::new(&mut self.io), cx, self.input.room()))?;
        if read > 0 {
            self.feed(cx);
            return Poll::Ready(Ok(()));
        }
        if !matches!(self.stage, Stage::Head) {
            return Poll::Ready(Err(Ended::Left));
        }
        let ended = (!self.input.is_empty()).then_some(Ended::Left);
        self.stage = Stage::Closing(ended);
        Poll::Ready(Ok(()))
    }
}

impl<B, X> Future for Http1<B, X>
where
    B: Fn(request::Parts, Received) -> X + Unpin,
    X: Future<Output = Answer>,
{
    type Output = Result<(), Ended>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_turns(cx)
    }
}

/// Takes what comes next of the body of an answer; whether that is its end. With a `pipe`, it is moved there if it can be.
fn poll_send(
    body: &mut Tracked,
    encoder: &mut Encoder,
    (out, pipe): (&mut Out, Option<&mut Pipe>),
    cx: &mut Context<'_>,
) -> Poll<Result<bool, Ended>> {
    let moved = match pipe {
        Some(pipe) => ready!(Pin::new(&mut *body).poll_pipe(cx, pipe)),
        None => None,
    };
    let is_over = match moved {
        Some(moved) => {
            encoder.pass(moved.map_err(Ended::Failed)? as u64)?;
            body.is_end_stream()
        }
        None => match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => true,
            Some(frame) => match frame.map_err(Ended::Failed)?.into_data() {
                Ok(bytes) => {
                    encoder.data(bytes, out)?;
                    body.is_end_stream()
                }
                Err(frame) => {
                    let Ok(trailers) = frame.into_trailers() else {
                        return Poll::Ready(Ok(false));
                    };
                    encoder.end(Some(&trailers), out)?;
                    return Poll::Ready(Ok(true));
                }
            },
        },
    };
    if is_over {
        encoder.end(None, out)?;
    }
    Poll::Ready(Ok(is_over))
}

/// Whether the client takes trailers. Source: RFC 9110, section 10.1.4.
fn takes_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether the client sends the body only when it is asked for. Source: RFC 9110, section 10.1.1.
fn waits_to_be_asked(headers: &HeaderMap) -> bool {
    headers
        .get(EXPECT)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

/// What a client is told whose head can't be read.
fn unreadable(error: HeadError, limits: &Limits) -> Fault {
    match error {
        HeadError::LineTooLong => Fault::client(
            Kind::UriTooLong,
            format!("the request line is longer than {} bytes", limits.max_uri_bytes),
        ),
        HeadError::TooLarge => Fault::client(
            Kind::HeadersTooLarge,
            format!(
                "the headers are more than {} bytes or {} lines",
                limits.max_header_bytes, limits.max_headers
            ),
        ),
        HeadError::Invalid(what) => Fault::client(
            Kind::BadRequest,
            format!("the request is not valid HTTP/1.1: {what}"),
        ),
    }
}
