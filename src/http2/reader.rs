//! Takes apart what the peer sends, frame by frame, and applies it to the line. Source: RFC 9113, sections 3 to 6.

use std::cell::RefCell;
use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};
use http::Request;

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

/// What is read at a time. From clients 64 KiB, four frames of the usual size; from upstreams 128 KiB, so that an answer of
/// 100 KB is there in one read and no byte of it is copied.
fn size(role: Role) -> usize {
    match role {
        Role::Server => 64 << 10,
        Role::Client => 128 << 10,
    }
}

/// Less room than this is not worth a read.
const LEAST_READ: usize = 4 << 10;
/// Pieces of a body that are smaller are copied out of the buffer in which they came; larger ones keep it, all of it. So
/// what waits to be read holds a few times its size at the most.
const COPIED: usize = 16 << 10;
/// What may stay in a buffer of its own, when a peer says half of something and waits.
const FEW: usize = 1 << 10;
/// Frames over which one header block may be spread.
const MOST_FRAGMENTS: usize = 64;
/// How many times the allowed list a header block may be before it ends the connection.
const MOST_TIMES: usize = 4;
/// What an empty frame of a body weighs among those that carry nothing.
const EMPTY: u32 = 10;

thread_local! {
    /// Buffers of connections that have nothing unread, which is most of them most of the time.
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { server: None, client: None }) };
}

/// A buffer for each side.
struct Spare {
    server: Option<BytesMut>,
    client: Option<BytesMut>,
}

impl Spare {
    fn of(&mut self, role: Role) -> &mut Option<BytesMut> {
        match role {
            Role::Server => &mut self.server,
            Role::Client => &mut self.client,
        }
    }
}

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
    role: Role,
    buffer: BytesMut,
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
            role: own.role,
            buffer: BytesMut::new(),
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
        let Self { buffer, role, .. } = self;
        let size = size(*role);
        if buffer.is_empty() && !buffer.try_reclaim(size) && buffer.capacity() < size / 4 {
            *buffer = SPARE
                .with_borrow_mut(|spare| spare.of(*role).take())
                .unwrap_or_else(|| BytesMut::with_capacity(size));
        }
        if buffer.capacity() - buffer.len() < LEAST_READ {
            buffer.reserve(size);
        }
        buffer
    }

    /// Gives the buffer back to the thread, if the peer has nothing half said.
    pub(crate) fn rest(&mut self) {
        if self.buffer.is_empty() {
            let buffer = std::mem::take(&mut self.buffer);
            if let Some(buffer) = self.give_back(buffer) {
                // A piece of it waits to be read, and keeps all of it: what is left is used before another is taken.
                self.buffer = buffer;
            }
        } else if self.buffer.len() <= FEW && self.buffer.capacity() > 2 * FEW {
            // Whoever sends a few bytes and waits holds no more than a few.
            let few = BytesMut::from(&*self.buffer);
            let buffer = std::mem::replace(&mut self.buffer, few);
            let _kept_by_a_piece = self.give_back(buffer);
        }
    }

    /// Gives a buffer back to the thread; if a piece of it is in use, it is returned.
    fn give_back(&self, mut buffer: BytesMut) -> Option<BytesMut> {
        let size = size(self.role);
        buffer.clear();
        if buffer.capacity() == 0 {
            return None;
        }
        if !buffer.try_reclaim(size) {
            return Some(buffer);
        }
        // One that had to grow is not kept.
        if buffer.capacity() < 2 * size {
            SPARE.with_borrow_mut(|spare| *spare.of(self.role) = Some(buffer));
        }
        None
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
        while let Some(head) = Head::parse(&self.buffer) {
            if head.length > state.own.max_frame {
                return Err(Broken::size("a frame is larger than allowed"));
            }
            if !self.is_settled && (head.kind != Kind::Settings || head.has(flag::ACK)) {
                return Err(Broken::protocol("the first frame is not SETTINGS"));
            }
            self.is_settled = true;
            let length = head.length as usize;
            if self.buffer.len() < frame::HEAD + length {
                break;
            }
            self.buffer.advance(frame::HEAD);
            if head.kind == Kind::Data {
                // Taken before it is looked at, since it may keep the buffer.
                let payload = if length < COPIED {
                    let copy = Bytes::copy_from_slice(self.buffer.get(..length).unwrap_or_default());
                    self.buffer.advance(length);
                    copy
                } else {
                    self.buffer.split_to(length).freeze()
                };
                self.data(state, head, payload, now)?;
                continue;
            }
            let mut buffer = std::mem::take(&mut self.buffer);
            let payload = buffer.get(..length).unwrap_or_default();
            let applied = self.frame(state, head, payload, now, &mut accept);
            buffer.advance(length);
            self.buffer = buffer;
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
        let (come, wanted) = (self.buffer.len().min(missing.len()), missing);
        if self.buffer.get(..come) != wanted.get(..come) {
            return Err(Broken::protocol("the connection does not begin with the preface"));
        }
        self.buffer.advance(come);
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
