//! The wire format, value by value. Source: protobuf's encoding, "Message structure".

use super::super::MAX_DEPTH;
use super::super::plan::{Tag, wire};

/// A message, or what is left of it, in the bytes around it.
///
/// What follows the message may be read along, so that a word is loaded at once, but it never counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'w> {
    whole: &'w [u8],
    pub(super) at: usize,
    /// `end <= whole.len()`.
    end: usize,
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
    pub(super) fn new(whole: &'w [u8]) -> Self {
        Self {
            whole,
            at: 0,
            end: whole.len(),
        }
    }

    /// The same message from another place.
    #[inline]
    pub(super) fn from(self, at: usize) -> Self {
        Self { at, ..self }
    }

    #[inline]
    pub(super) fn is_done(self) -> bool {
        self.at >= self.end
    }

    /// What is left.
    #[inline]
    pub(super) fn bytes(self) -> &'w [u8] {
        self.whole.get(self.at..self.end).unwrap_or_default()
    }

    /// What is left, if it is at most 32 bytes, and what follows it up to 32 bytes.
    #[inline]
    pub(super) fn short(self) -> Option<(&'w [u8; 32], usize)> {
        let window = self.whole.get(self.at..)?.first_chunk::<32>()?;
        let size = self.end - self.at;
        (size <= 32).then_some((window, size))
    }

    /// Eight bytes, which may lie beyond the end.
    #[inline]
    fn window(self) -> Option<u64> {
        let window = self.whole.get(self.at..).and_then(<[u8]>::first_chunk::<8>);
        window.map(|window| u64::from_le_bytes(*window))
    }

    #[inline(always)]
    pub(super) fn varint(&mut self) -> Read<u64> {
        match self.whole.get(self.at) {
            Some(&byte) if byte < 0x80 && self.at < self.end => {
                self.at += 1;
                Ok(byte.into())
            }
            _ => self.long_varint(),
        }
    }

    /// A varint of two bytes, of which this is the first; it stays where it is if there are more.
    #[inline(always)]
    fn pair(&mut self, low: u8) -> Option<u16> {
        let high = self.whole.get(self.at + 1).copied().filter(|high| *high < 0x80)?;
        if self.at + 1 >= self.end {
            return None;
        }
        self.at += 2;
        Some(u16::from(low & 0x7f) | u16::from(high) << 7)
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Read<u64> {
        if let Some(&low) = self.whole.get(self.at)
            && let Some(value) = self.pair(low)
        {
            return Ok(value.into());
        }
        let Some(window) = self.window() else {
            return self.slow_varint();
        };
        let last = !window & 0x8080_8080_8080_8080;
        let count = last.trailing_zeros() / 8 + 1;
        if last == 0 || self.at + count as usize > self.end {
            return self.slow_varint();
        }
        let bytes = window & (u64::MAX >> (64 - 8 * count)) & 0x7f7f_7f7f_7f7f_7f7f;
        // Seven bits of each byte move together: bytes to pairs, pairs to fours, fours to the whole.
        let pairs = bytes & 0x007f_007f_007f_007f | (bytes & 0x7f00_7f00_7f00_7f00) >> 1;
        let fours = pairs & 0x0000_3fff_0000_3fff | (pairs & 0x3fff_0000_3fff_0000) >> 2;
        self.at += count as usize;
        Ok(fours & 0x0fff_ffff | (fours & 0x0fff_ffff_0000_0000) >> 4)
    }

    #[inline(never)]
    fn slow_varint(&mut self) -> Read<u64> {
        let rest = self.bytes();
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
    #[inline(always)]
    pub(super) fn tag(&mut self) -> Read<(u32, u8)> {
        let key = match self.whole.get(self.at) {
            Some(&byte) if (8..0x80).contains(&byte) && self.at < self.end => {
                self.at += 1;
                byte.into()
            }
            Some(&byte) if byte >= 0x80 => match self.pair(byte) {
                Some(key) if key >= 8 => key.into(),
                Some(_) => return Err(Broken::Malformed),
                None => self.long_tag()?,
            },
            _ => self.long_tag()?,
        };
        Ok((key >> 3, (key & 7).to_le_bytes()[0]))
    }

    #[inline(never)]
    fn long_tag(&mut self) -> Read<u32> {
        let key = u32::try_from(self.varint()?).map_err(|_| Broken::Malformed)?;
        if key < 8 { Err(Broken::Malformed) } else { Ok(key) }
    }

    /// Passes a tag if it is this one.
    #[inline]
    pub(super) fn accept(&mut self, tag: Tag) -> bool {
        let size = usize::from(tag.len);
        let next = if let Some(window) = self.window() {
            (window ^ tag.bytes) << (64 - 8 * size) == 0
        } else {
            self.bytes()
                .starts_with(tag.bytes.to_le_bytes().get(..size).unwrap_or_default())
        };
        if !next || self.at + size > self.end {
            return false;
        }
        self.at += size;
        true
    }

    #[inline]
    pub(super) fn fixed32(&mut self) -> Read<u32> {
        let bytes = self.bytes().first_chunk().ok_or(Broken::Malformed)?;
        self.at += 4;
        Ok(u32::from_le_bytes(*bytes))
    }

    #[inline]
    pub(super) fn fixed64(&mut self) -> Read<u64> {
        let bytes = self.bytes().first_chunk().ok_or(Broken::Malformed)?;
        self.at += 8;
        Ok(u64::from_le_bytes(*bytes))
    }

    /// A length and that many bytes.
    #[inline(always)]
    pub(super) fn delimited(&mut self) -> Read<Self> {
        let size = self.varint()?;
        let start = self.at;
        if size > (self.end - start) as u64 {
            return Err(Broken::Malformed);
        }
        // It fits, since it is at most a length in memory.
        let size = usize::try_from(size).map_err(|_| Broken::Malformed)?;
        self.at += size;
        Ok(Self {
            end: self.at,
            ..self.from(start)
        })
    }

    /// What is between the tags of a group, of which the first was passed.
    pub(super) fn group(&mut self, number: u32, depth: u32) -> Read<Self> {
        let start = self.at;
        loop {
            let end = self.at;
            let (inner, wire) = self.tag()?;
            if wire == wire::END {
                if inner != number {
                    return Err(Broken::Malformed);
                }
                return Ok(Self {
                    end,
                    ..self.from(start)
                });
            }
            self.skip(inner, wire, depth)?;
        }
    }

    /// What is inside a message or a group.
    #[inline]
    pub(super) fn body(&mut self, number: u32, wire: u8, depth: u32) -> Read<Self> {
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
