//! Frames on their way out.

use std::hash::{BuildHasher as _, RandomState};

use bytes::{BufMut as _, BytesMut};
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::deflate::{self, Agreed};
use super::{Close, Kind, Role};

/// Writes frames for one peer.
#[derive(Debug)]
pub struct Writer {
    role: Role,
    deflate: Option<Agreed>,
    /// Frames masked so far: no two masks of a connection are made of the same number.
    masked: u64,
    /// Keys the masks, so that nobody can tell them in advance. Source: RFC 6455, section 10.3.
    keys: Option<RandomState>,
}

impl Writer {
    /// A writer for this end of a connection.
    pub fn new(role: Role, deflate: Option<Agreed>) -> Self {
        Self {
            role,
            deflate,
            masked: 0,
            keys: (role == Role::Client).then(RandomState::new),
        }
    }

    /// Appends a message in one frame.
    pub fn message(&mut self, kind: Kind, payload: &[u8], out: &mut BytesMut) {
        match self.deflate.and_then(|agreed| deflate::compress(agreed, payload)) {
            Some(packed) => self.frame(data(kind), true, true, &packed, out),
            None => self.frame(data(kind), true, false, payload, out),
        }
    }

    /// Appends a part of a message as one frame, never compressed.
    pub fn part(&mut self, kind: Kind, first: bool, last: bool, payload: &[u8], out: &mut BytesMut) {
        let opcode = if first {
            data(kind)
        } else {
            OpCode::Data(Data::Continue)
        };
        self.frame(opcode, last, false, payload, out);
    }

    /// Appends a ping of at most 125 bytes.
    pub fn ping(&mut self, payload: &[u8], out: &mut BytesMut) {
        self.frame(OpCode::Control(Control::Ping), true, false, payload, out);
    }

    /// Appends a pong of at most 125 bytes.
    pub fn pong(&mut self, payload: &[u8], out: &mut BytesMut) {
        self.frame(OpCode::Control(Control::Pong), true, false, payload, out);
    }

    /// Appends a close frame.
    pub fn close(&mut self, close: Option<&Close>, out: &mut BytesMut) {
        let mut payload = BytesMut::new();
        if let Some(close) = close {
            payload.put_u16(close.code);
            payload.extend_from_slice(close.reason.as_bytes());
        }
        self.frame(OpCode::Control(Control::Close), true, false, &payload, out);
    }

    fn frame(&mut self, opcode: OpCode, last: bool, compressed: bool, payload: &[u8], out: &mut BytesMut) {
        let mask = self.mask();
        let header = FrameHeader {
            is_final: last,
            rsv1: compressed,
            opcode,
            mask,
            ..FrameHeader::default()
        };
        let length = payload.len() as u64;
        out.reserve(header.len(length).saturating_add(payload.len()));
        let mut writer = (&mut *out).writer();
        // Writing to memory never fails.
        let _ = header.format(length, &mut writer);
        let begin = out.len();
        out.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(out.get_mut(begin..).unwrap_or_default(), mask, 0);
        }
    }

    fn mask(&mut self) -> Option<[u8; 4]> {
        let keys = self.keys.as_ref().filter(|_| self.role == Role::Client)?;
        self.masked = self.masked.wrapping_add(1);
        let [a, b, c, d, ..] = keys.hash_one(self.masked).to_le_bytes();
        Some([a, b, c, d])
    }
}

fn data(kind: Kind) -> OpCode {
    OpCode::Data(match kind {
        Kind::Text => Data::Text,
        Kind::Binary => Data::Binary,
    })
}

/// Masks or unmasks bytes that begin at `offset` of their frame's payload.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4], offset: usize) {
    let turn = u32::try_from(offset & 3).unwrap_or(0).saturating_mul(8);
    // The byte that comes first is the lowest one.
    let word = u32::from_le_bytes(mask).rotate_right(turn);
    let wide = (u64::from(word) << 32 | u64::from(word)).to_le_bytes();
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Some(chunk) = chunk.first_chunk_mut::<8>() {
            *chunk = (u64::from_le_bytes(*chunk) ^ u64::from_le_bytes(wide)).to_le_bytes();
        }
    }
    for (byte, mask) in chunks.into_remainder().iter_mut().zip(wide) {
        *byte ^= mask;
    }
}
