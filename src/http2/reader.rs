//! Takes apart what the peer sends, frame by frame, and applies it to the line. Source: RFC 9113, sections 3 to 6.

use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use http::Request;

use crate::buffers::{Input, Sender};
use crate::http2::calm::Calm;
use crate::http2::control;
use crate::http2::frame::{self, Head, Kind, flag};
use crate::http2::head::{self, Fields};
use crate::http2::hpack::Decoder;
use crate::http2::inbound::Inbound;
use crate::http2::line::Line;
use crate::http2::state::{Going, State};
use crate::http2::streams::Awaits;
use crate::http2::{Broken, PREFACE, Reason, Role, Settings};

/// Frames over which one header block may be spread.
const MOST_FRAGMENTS: usize = 64;
/// How many times the allowed list a header block may be before it ends the connection.
const MOST_TIMES: usize = 4;
/// What an empty frame of a body weighs among those that carry nothing.
const EMPTY: u32 = 10;

/// A request whose head is complete.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: u32,
    pub(crate) head: Request<()>,
    /// What follows; `None` if nothing does.
    pub(crate) body: Option<Inbound>,
}

/// A header block that is not complete.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
    fragments: usize,
}

/// Reads one connection.
#[derive(Debug)]
pub(crate) struct Reader {
    line: Line,
    input: Input,
    /// How much of the preface has come.
    greeted: usize,
    /// The first frame has come, which has to be SETTINGS.
    is_settled: bool,
    decoder: Decoder,
    block: Option<Box<Block>>,
    calm: Calm,
}

impl Reader {
    pub(crate) fn new(line: Line, own: &Settings) -> Self {
        // Until the client has read ours, its table has the size that the protocol begins with.
        let table = own.header_table.max(frame::FIRST_TABLE);
        Self {
            line,
            input: Input::new(match own.role {
                Role::Server => Sender::Client,
                Role::Client => Sender::Upstream,
            }),
            greeted: match own.role {
                Role::Server => 0,
                Role::Client => PREFACE.len(),
            },
            is_settled: false,
            decoder: Decoder::new(frame::FIRST_TABLE as usize, table as usize),
            block: None,
            calm: Calm::default(),
        }
    }

    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        self.input.room()
    }

    /// Gives the buffer back to the thread, if the peer has nothing half said.
    pub(crate) fn rest(&mut self) {
        self.input.rest();
    }

    /// Gives back room that an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        self.decoder.shrink();
    }

    /// Applies all that has come whole; `accept` takes the requests that begin.
    ///
    /// # Errors
    /// The client broke the protocol, or asks for too much.
    pub(crate) fn apply(&mut self, now: Instant, accept: impl FnMut(Opened)) -> Result<(), Broken> {
        let line = self.line.clone();
        line.with(|state| self.frames(state, now, accept))
    }

    fn frames(
        &mut self,
        state: &mut State,
        now: Instant,
        mut accept: impl FnMut(Opened),
    ) -> Result<(), Broken> {
        state.unseen = 0;
        self.calm.content(std::mem::take(&mut state.contents));
        if !self.greet()? {
            return Ok(());
        }
        while let Some(head) = Head::parse(&self.input) {
            if head.length > state.own.max_frame {
                return Err(Broken::size("a frame is larger than allowed"));
            }
            if !self.is_settled && (head.kind != Kind::Settings || head.has(flag::ACK)) {
                return Err(Broken::protocol("the first frame is not SETTINGS"));
            }
            self.is_settled = true;
            let length = head.length as usize;
            if self.input.len() < frame::HEAD + length {
                break;
            }
            self.input.advance(frame::HEAD);
            if head.kind == Kind::Data {
                // Taken before it is looked at, since it may keep the buffer.
                let payload = self.input.take(length);
                self.data(state, head, payload, now)?;
                continue;
            }
            let mut bytes = std::mem::take(&mut *self.input);
            let payload = bytes.get(..length).unwrap_or_default();
            let applied = self.frame(state, head, payload, now, &mut accept);
            bytes.advance(length);
            *self.input = bytes;
            applied?;
        }
        Ok(())
    }

    /// Reads the preface; whether it is complete.
    fn greet(&mut self) -> Result<bool, Broken> {
        let missing = PREFACE.get(self.greeted..).unwrap_or_default();
        if missing.is_empty() {
            return Ok(true);
        }
        let (come, wanted) = (self.input.len().min(missing.len()), missing);
        if self.input.get(..come) != wanted.get(..come) {
            return Err(Broken::protocol("the connection does not begin with the preface"));
        }
        self.input.advance(come);
        self.greeted += come;
        Ok(self.greeted == PREFACE.len())
    }

    fn data(&mut self, state: &mut State, head: Head, payload: Bytes, now: Instant) -> Result<(), Broken> {
        if self.block.is_some() {
            return Err(Broken::protocol("a header block is interrupted"));
        }
        if head.stream == 0 {
            return Err(Broken::protocol("DATA without a stream"));
        }
        let payload = control::unpadded_data(head, payload)?;
        let ends = head.has(flag::END_STREAM);
        if payload.is_empty() && !ends {
            self.calm.spend(EMPTY, now)?;
        } else {
            self.calm.content(1);
        }
        state.data(head.stream, head.length, payload, ends)
    }

    /// Applies a frame other than DATA.
    fn frame(
        &mut self,
        state: &mut State,
        head: Head,
        payload: &[u8],
        now: Instant,
        accept: &mut impl FnMut(Opened),
    ) -> Result<(), Broken> {
        if self.block.is_some() && head.kind != Kind::Continuation {
            return Err(Broken::protocol("a header block is interrupted"));
        }
        match head.kind {
            Kind::Headers => self.headers(state, head, payload, accept),
            Kind::Continuation => self.continuation(state, head, payload, accept),
            // It has been taken before, where it may keep its buffer.
            Kind::Data => Ok(()),
            Kind::PushPromise => Err(Broken::protocol("PUSH_PROMISE was not asked for")),
            Kind::Reset => {
                let reason = frame::number(payload).ok_or(Broken::size("RST_STREAM is four bytes"))?;
                if head.stream == 0 {
                    return Err(Broken::protocol("RST_STREAM without a stream"));
                }
                self.calm.spend(1, now)?;
                state.reset_by_peer(head.stream, Reason(reason))
            }
            Kind::Priority => {
                self.calm.spend(1, now)?;
                control::prioritised(state, head, payload)
            }
            Kind::Settings => {
                self.calm.spend(1, now)?;
                control::settings(state, head, payload)
            }
            Kind::Ping => {
                self.calm.spend(1, now)?;
                control::ping(state, head, payload)
            }
            Kind::GoAway => control::goaway(state, head, payload),
            Kind::WindowUpdate => {
                self.calm.spend(1, now)?;
                let more = frame::number(payload).ok_or(Broken::size("WINDOW_UPDATE is four bytes"))?;
                state.widen(head.stream, more & frame::MOST_WINDOW)
            }
            Kind::Other(_) => self.calm.spend(1, now),
        }
    }

    fn headers(
        &mut self,
        state: &mut State,
        head: Head,
        payload: &[u8],
        accept: &mut impl FnMut(Opened),
    ) -> Result<(), Broken> {
        if head.stream.is_multiple_of(2) {
            return Err(Broken::protocol("streams of clients have odd numbers"));
        }
        self.calm.content(1);
        let mut fragment = control::unpadded(head, payload)?;
        if head.has(flag::PRIORITY) {
            let (priority, rest) = fragment
                .split_at_checked(5)
                .ok_or(Broken::size("HEADERS is too short for its priority"))?;
            fragment = rest;
            if control::depends_on(priority) == Some(head.stream) {
                return Err(Broken::protocol("a stream depends on itself"));
            }
        }
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.complete(state, head.stream, ends, fragment, accept);
        }
        self.block = Some(Box::new(Block {
            stream: head.stream,
            ends,
            bytes: fragment.to_vec(),
            fragments: 1,
        }));
        Ok(())
    }

    fn continuation(
        &mut self,
        state: &mut State,
        head: Head,
        payload: &[u8],
        accept: &mut impl FnMut(Opened),
    ) -> Result<(), Broken> {
        let Some(mut block) = self.block.take().filter(|block| block.stream == head.stream) else {
            return Err(Broken::protocol(
                "CONTINUATION without a header block to continue",
            ));
        };
        block.bytes.extend_from_slice(payload);
        block.fragments += 1;
        // Read even if it is too large, so that it is refused and the others on the connection go on; within reason.
        let most = (state.own.max_header_list as usize).saturating_mul(MOST_TIMES);
        if block.bytes.len() > most || block.fragments > MOST_FRAGMENTS {
            return Err(Broken::calm("a header block does not end"));
        }
        if head.has(flag::END_HEADERS) {
            return self.complete(state, block.stream, block.ends, &block.bytes, accept);
        }
        self.block = Some(block);
        Ok(())
    }

    /// Takes a header block: a request, or the trailers of one.
    fn complete(
        &mut self,
        state: &mut State,
        id: u32,
        ends: bool,
        block: &[u8],
        accept: &mut impl FnMut(Opened),
    ) -> Result<(), Broken> {
        let mut fields = Fields::new(state.own.max_header_list as usize);
        // Read in any case, or the tables would not be those of the client any more.
        self.decoder
            .decode(block, |field| fields.take(field))
            .map_err(|error| Broken::new(Reason::COMPRESSION_ERROR, error.what()))?;
        if let Some(stream) = state.streams.get(id).filter(|stream| stream.lost.is_none()) {
            if let Awaits::Head { .. } = stream.awaits {
                return state.answered(id, fields, ends);
            }
            if stream.is_received {
                return Err(Broken::new(
                    Reason::STREAM_CLOSED,
                    "HEADERS after the end of a request",
                ));
            }
            return match fields.trailers() {
                Ok(trailers) if ends => state.trailers(id, trailers),
                Ok(_) | Err(_) => state.fail(id, Reason::PROTOCOL_ERROR),
            };
        }
        if id <= state.last {
            if state.is_abandoned(id) {
                return Ok(());
            }
            return Err(Broken::new(
                Reason::STREAM_CLOSED,
                "HEADERS on a stream that is closed",
            ));
        }
        if state.own.role == Role::Client {
            return Err(Broken::protocol("a server opens no streams"));
        }
        if let Going::Last(_) = state.going {
            return Ok(());
        }
        state.last = id;
        if state.is_crowded() {
            state.reset(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        let Ok((head, length)) = request(fields, ends) else {
            return state.fail(id, Reason::PROTOCOL_ERROR);
        };
        state.open(id, ends, length);
        accept(Opened {
            stream: id,
            head,
            body: (!ends).then(|| Inbound::new(self.line.clone(), id, length)),
        });
        Ok(())
    }
}

/// The request that the fields are, and the length of its body if it has said so.
fn request(fields: Fields, ends: bool) -> Result<(Request<()>, Option<u64>), head::Malformed> {
    let request = fields.request()?;
    let length = head::length(request.headers())?;
    if ends && length.is_some_and(|length| length > 0) {
        return Err(head::Malformed::LENGTH);
    }
    Ok((request, length))
}
