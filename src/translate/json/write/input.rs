//! The wire format, value by value. Source: protobuf's encoding, "Message structure".

use super::super::MAX_DEPTH;
use super::super::plan::wire;

/// Bytes and a place in them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'w> {
    pub(super) bytes: &'w [u8],
    pub(super) at: usize,
}

/// The bytes end too early, or are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    Malformed,
    Depth,
}

type Read<T> = Result<T, Broken>;

impl<'w> Input<'w> {
    #[inline]
    pub(super) fn new(bytes: &'w [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The same bytes from another place.
    #[inline]
    pub(super) fn from(self, at: usize) -> Self {
        Self { at, ..self }
    }

    #[inline]
    pub(super) fn is_done(self) -> bool {
        self.at >= self.bytes.len()
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Read<u64> {
        match self.bytes.get(self.at) {
            Some(&byte) if byte < 0x80 => {
                self.at += 1;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    #[inline]
    fn long_varint(&mut self) -> Read<u64> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut value = 0_u64;
        for (index, &byte) in rest.iter().take(10).enumerate() {
            // The tenth byte holds one bit; more are cut, as every implementation does.
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.at += index + 1;
                return Ok(value);
            }
        }
        Err(Broken::Malformed)
    }

    /// A field number and a wire type.
    #[inline]
    pub(super) fn tag(&mut self) -> Read<(u32, u8)> {
        let value = self.varint()?;
        let Ok(value) = u32::try_from(value) else {
            return Err(Broken::Malformed);
        };
        if value < 8 {
            return Err(Broken::Malformed);
        }
        Ok((value >> 3, (value & 7).to_le_bytes()[0]))
    }

    /// Passes a tag if it is this one.
    #[inline]
    pub(super) fn accept(&mut self, number: u32, wire: u8) -> bool {
        let mut next = *self;
        if !next.is_done() && next.tag() == Ok((number, wire)) {
            *self = next;
            return true;
        }
        false
    }

    #[inline]
    pub(super) fn fixed32(&mut self) -> Read<u32> {
        let bytes = self
            .bytes
            .get(self.at..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(Broken::Malformed)?;
        self.at += 4;
        Ok(u32::from_le_bytes(*bytes))
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Read<u64> {
        let bytes = self
            .bytes
            .get(self.at..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(Broken::Malformed)?;
        self.at += 8;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A length and that many bytes.
    #[inline]
    pub(super) fn delimited(&mut self) -> Read<&'w [u8]> {
        let size = usize::try_from(self.varint()?).map_err(|_| Broken::Malformed)?;
        let end = self.at.checked_add(size).ok_or(Broken::Malformed)?;
        let bytes = self.bytes.get(self.at..end).ok_or(Broken::Malformed)?;
        self.at = end;
        Ok(bytes)
    }

    /// What is between the tags of a group, of which the first was passed.
    pub(super) fn group(&mut self, number: u32, depth: u32) -> Read<&'w [u8]> {
        let start = self.at;
        loop {
            let end = self.at;
            let (inner, wire) = self.tag()?;
            if wire == wire::END {
                return if inner == number {
                    Ok(&self.bytes[start..end])
                } else {
                    Err(Broken::Malformed)
                };
            }
            self.skip(inner, wire, depth)?;
        }
    }

    /// What is inside a message or a group.
    #[inline]
    pub(super) fn body(&mut self, number: u32, wire: u8, depth: u32) -> Read<&'w [u8]> {
        if wire == wire::START {
            self.group(number, depth)
        } else {
            self.delimited()
        }
    }

    /// Passes a value.
    pub(super) fn skip(&mut self, number: u32, wire: u8, depth: u32) -> Read<()> {
        match wire {
            wire::VARINT => self.varint().map(|_| ()),
            wire::I64 => self.fixed64().map(|_| ()),
            wire::LEN => self.delimited().map(|_| ()),
            wire::START if depth >= MAX_DEPTH => Err(Broken::Depth),
            wire::START => self.group(number, depth + 1).map(|_| ()),
            wire::I32 => self.fixed32().map(|_| ()),
            _ => Err(Broken::Malformed),
        }
    }
}
