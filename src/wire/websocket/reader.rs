//! Frames on their way in: a state machine over bytes, whatever the chunks that they come in.

use std::io::Cursor;

use bytes::{Bytes, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::Inflate;
use super::utf8::Utf8;
use super::writer::apply_mask;
use super::{Close, Event, FrameError, Kind, Limits, Role};

/// The longest header: two bytes, a length of eight, a mask of four.
const MAX_HEADER: usize = 14;

/// Bytes of a control frame. Source: RFC 6455, section 5.5.
const MAX_CONTROL: u64 = 125;

/// Bytes that are set aside for a frame by its header's word alone; more is taken as it arrives.
const TRUSTED: u64 = 64 << 10;

/// Bytes that are unmasked at a time where they are decompressed afterwards.
const PIECE: usize = 1024;

/// What a data event holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A whole message.
    Message,
    /// What one frame adds to a message.
    Frame,
}

/// Reads what one peer sends.
#[derive(Debug)]
pub struct Reader {
    role: Role,
    unit: Unit,
    limits: Limits,
    /// permessage-deflate was agreed on.
    deflate: bool,
    header: [u8; MAX_HEADER],
    /// Bytes of the next header so far.
    header_length: usize,
    frame: Option<Frame>,
    /// The payload of a control frame so far.
    control: BytesMut,
    message: Option<Partial>,
}

/// The frame whose payload is being read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: OpCode,
    last: bool,
    mask: Option<[u8; 4]>,
    length: u64,
    taken: u64,
}

/// A message that is not complete.
#[derive(Debug)]
struct Partial {
    kind: Kind,
    /// What came and was not given out.
    buffer: BytesMut,
    /// Bytes that were given out, frame by frame.
    given: usize,
    fragments: u32,
    utf8: Utf8,
    inflate: Option<Box<Inflate>>,
}

impl Reader {
    /// A reader for this end of a connection. `deflate` says that permessage-deflate was agreed on.
    pub fn new(role: Role, unit: Unit, limits: Limits, deflate: bool) -> Self {
        Self {
            role,
            unit,
            limits,
            deflate,
            header: [0; MAX_HEADER],
            header_length: 0,
            frame: None,
            control: BytesMut::new(),
            message: None,
        }
    }

    /// Goes by other limits from the next frame on: a peer that has proven who it is may send more than one that has not.
    pub fn relimit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes bytes off `input` up to the next event; `None` when all of them were not enough for one.
    ///
    /// Without `takes_data` it stops in front of the payload of a data frame and leaves it in `input`, so that
    /// control frames are heard while there is no room for another message.
    ///
    /// # Errors
    /// [`FrameError`] as soon as it is certain; the connection is then of no more use.
    pub fn read(&mut self, input: &mut &[u8], takes_data: bool) -> Result<Option<Event>, FrameError> {
        loop {
            let Some(mut frame) = self.frame else {
                if !self.read_header(input)? {
                    return Ok(None);
                }
                continue;
            };
            let is_data = matches!(frame.opcode, OpCode::Data(_));
            if is_data && !takes_data {
                return Ok(None);
            }
            let left = frame.length.saturating_sub(frame.taken);
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
            let (bytes, rest) = input.split_at(count);
            *input = rest;
            if is_data {
                self.take_data(&frame, bytes)?;
            } else {
                append_unmasked(&mut self.control, &frame, bytes);
            }
            frame.taken = frame.taken.saturating_add(count as u64);
            if frame.taken < frame.length {
                self.frame = Some(frame);
                return Ok(None);
            }
            self.frame = None;
            let event = match frame.opcode {
                OpCode::Data(_) => self.end_data(&frame)?,
                OpCode::Control(control) => Some(self.end_control(control)?),
            };
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Takes bytes of a header; true when it is complete.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
        loop {
            let wanted = match self.header.get(..self.header_length) {
                Some([_, second, ..]) => header_length(*second),
                _ => 2,
            };
            if self.header_length >= wanted {
                break;
            }
            let Some((byte, rest)) = input.split_first() else {
                return Ok(false);
            };
            *input = rest;
            if let Some(room) = self.header.get_mut(self.header_length) {
                *room = *byte;
            }
            self.header_length = self.header_length.saturating_add(1);
        }
        let bytes = self.header.get(..self.header_length).unwrap_or_default();
        let parsed = FrameHeader::parse(&mut Cursor::new(bytes)).map_err(|_| FrameError::Opcode)?;
        let Some((header, length)) = parsed else {
            return Ok(false);
        };
        let written = self.header_length;
        self.header_length = 0;
        self.frame = Some(self.open(&header, length, written)?);
        Ok(true)
    }

    /// Checks a header before anything of its payload is taken.
    fn open(&mut self, header: &FrameHeader, length: u64, written: usize) -> Result<Frame, FrameError> {
        if header.rsv2 || header.rsv3 {
            return Err(FrameError::Reserved);
        }
        let masked = self.role == Role::Server;
        if header.mask.is_some() != masked {
            return Err(FrameError::Mask);
        }
        if length > u64::MAX >> 1 || header.len(length) != written {
            return Err(FrameError::Length);
        }
        match header.opcode {
            OpCode::Control(_) if header.rsv1 => return Err(FrameError::Reserved),
            OpCode::Control(_) if !header.is_final || length > MAX_CONTROL => {
                return Err(FrameError::Control);
            }
            OpCode::Control(_) => {}
            OpCode::Data(data) => self.open_data(data, header.rsv1, length)?,
        }
        Ok(Frame {
            opcode: header.opcode,
            last: header.is_final,
            mask: header.mask,
            length,
            taken: 0,
        })
    }

    fn open_data(&mut self, data: Data, compressed: bool, length: u64) -> Result<(), FrameError> {
        let kind = match data {
            Data::Continue => None,
            Data::Text => Some(Kind::Text),
            Data::Binary => Some(Kind::Binary),
            Data::Reserved(_) => return Err(FrameError::Opcode),
        };
        if compressed && (!self.deflate || kind.is_none()) {
            return Err(FrameError::Reserved);
        }
        let message = match (kind, &mut self.message) {
            (None, Some(message)) => message,
            (Some(kind), none @ None) => none.insert(Partial {
                kind,
                buffer: BytesMut::new(),
                given: 0,
                fragments: 0,
                utf8: Utf8::default(),
                inflate: compressed.then(|| Box::new(Inflate::new())),
            }),
            (None, None) | (Some(_), Some(_)) => return Err(FrameError::Continuation),
        };
        let limit = self.limits.max_frame_bytes;
        let Some(size) = usize::try_from(length).ok().filter(|size| *size <= limit) else {
            return Err(FrameError::FrameTooLarge { limit });
        };
        message.fragments = message.fragments.saturating_add(1);
        if message.fragments > self.limits.max_fragments {
            return Err(FrameError::Fragments {
                limit: self.limits.max_fragments,
            });
        }
        if message.inflate.is_none() {
            let limit = self.limits.max_message_bytes;
            if message.length().saturating_add(size) > limit {
                return Err(FrameError::MessageTooLarge { limit });
            }
            if length <= TRUSTED {
                message.buffer.reserve(size);
            }
        }
        Ok(())
    }

    fn take_data(&mut self, frame: &Frame, mut bytes: &[u8]) -> Result<(), FrameError> {
        let Some(message) = &mut self.message else {
            return Err(FrameError::Continuation);
        };
        let begin = message.buffer.len();
        if message.inflate.is_none() {
            append_unmasked(&mut message.buffer, frame, bytes);
            return message.check_text(begin);
        }
        let mut piece = [0; PIECE];
        let mut at = frame.taken;
        while !bytes.is_empty() {
            let (now, rest) = bytes.split_at(bytes.len().min(PIECE));
            bytes = rest;
            let piece = piece.get_mut(..now.len()).unwrap_or_default();
            piece.copy_from_slice(now);
            if let Some(mask) = frame.mask {
                apply_mask(piece, mask, offset(at));
            }
            at = at.saturating_add(now.len() as u64);
            message.inflate(piece, self.limits.max_message_bytes)?;
        }
        message.check_text(begin)
    }

    /// A data frame is complete.
    fn end_data(&mut self, frame: &Frame) -> Result<Option<Event>, FrameError> {
        let Some(message) = &mut self.message else {
            return Err(FrameError::Continuation);
        };
        let begin = message.buffer.len();
        if frame.last {
            if let Some(inflate) = &mut message.inflate {
                let limit = self.limits.max_message_bytes.saturating_sub(message.given);
                inflate.finish(&mut message.buffer, limit)?;
            }
            message.check_text(begin)?;
            if message.kind == Kind::Text && !message.utf8.is_complete() {
                return Err(FrameError::Utf8);
            }
        } else if self.unit == Unit::Message {
            return Ok(None);
        }
        let event = Event::Data {
            kind: message.kind,
            first: message.fragments == 1 || self.unit == Unit::Message,
            last: frame.last,
            payload: message.give(),
        };
        if frame.last {
            self.message = None;
        }
        Ok(Some(event))
    }

    fn end_control(&mut self, control: Control) -> Result<Event, FrameError> {
        let payload = std::mem::take(&mut self.control).freeze();
        match control {
            Control::Ping => Ok(Event::Ping(payload)),
            Control::Pong => Ok(Event::Pong(payload)),
            Control::Close => close(&payload).map(Event::Close),
            Control::Reserved(_) => Err(FrameError::Opcode),
        }
    }
}

impl Partial {
    /// Bytes of the message so far.
    fn length(&self) -> usize {
        self.buffer.len().saturating_add(self.given)
    }

    fn inflate(&mut self, bytes: &[u8], limit: usize) -> Result<(), FrameError> {
        let limit = limit.saturating_sub(self.given);
        match &mut self.inflate {
            Some(inflate) => inflate.push(bytes, &mut self.buffer, limit),
            None => Ok(()),
        }
    }

    /// Checks what was added to a text from `begin` on.
    fn check_text(&mut self, begin: usize) -> Result<(), FrameError> {
        let added = self.buffer.get(begin..).unwrap_or_default();
        if self.kind == Kind::Text && self.utf8.push(added).is_err() {
            return Err(FrameError::Utf8);
        }
        Ok(())
    }

    fn give(&mut self) -> Bytes {
        self.given = self.given.saturating_add(self.buffer.len());
        self.buffer.split().freeze()
    }
}

/// Bytes of a header by its second byte. Source: RFC 6455, section 5.2.
fn header_length(second: u8) -> usize {
    let length: usize = match second & 0x7f {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    length.saturating_add(if second & 0x80 == 0 { 0 } else { 4 })
}

fn append_unmasked(buffer: &mut BytesMut, frame: &Frame, bytes: &[u8]) {
    let begin = buffer.len();
    buffer.extend_from_slice(bytes);
    if let Some(mask) = frame.mask {
        apply_mask(
            buffer.get_mut(begin..).unwrap_or_default(),
            mask,
            offset(frame.taken),
        );
    }
}

/// The place in a mask of a place in a payload.
fn offset(at: u64) -> usize {
    usize::try_from(at & 3).unwrap_or(0)
}

/// What a close frame says.
fn close(payload: &[u8]) -> Result<Option<Close>, FrameError> {
    match payload {
        [] => Ok(None),
        [_] => Err(FrameError::Close),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !Close::may_be_sent(code) {
                return Err(FrameError::Close);
            }
            let reason = std::str::from_utf8(reason).map_err(|_| FrameError::Utf8)?;
            Ok(Some(Close {
                code,
                reason: reason.to_owned(),
            }))
        }
    }
}
