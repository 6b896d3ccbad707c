//! Reading header blocks.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::Bytes;

use crate::http2::hpack::fields::{self, Field, Name};
use crate::http2::hpack::{HpackError, huffman};

/// What a thread keeps for strings in the Huffman code.
const KEPT: usize = 4096;

thread_local! {
    /// The string that is being read.
    static TEXT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads header blocks of one connection, in their order.
#[derive(Debug)]
pub(crate) struct Decoder {
    /// The newest entry first.
    entries: VecDeque<Field>,
    /// What the entries count together.
    size: usize,
    /// What they may count, as the client has said last. At most `allowed`.
    room: usize,
    /// What the client may say.
    allowed: usize,
}

impl Decoder {
    /// A decoder whose client has a table of `room` bytes, and may choose one of up to `allowed`.
    pub(crate) fn new(room: usize, allowed: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            room,
            allowed,
        }
    }

    /// Reads a block and gives each field of it to `take`.
    ///
    /// # Errors
    /// The block can't be read. The tables of both sides may differ from then on.
    pub(crate) fn decode(&mut self, block: &[u8], mut take: impl FnMut(Field)) -> Result<(), HpackError> {
        let mut rest = Rest(block);
        let mut begun = false;
        while let Some(&first) = rest.0.first() {
            let field = match first {
                0x80.. => {
                    let index = rest.number(7)?;
                    self.entry(index)?
                }
                0x40.. => {
                    let field = self.literal(&mut rest, 6)?;
                    self.insert(field.clone());
                    field
                }
                0x20.. if begun => return Err(HpackError::Resize),
                0x20.. => {
                    let size = rest.number(5)?;
                    self.resize(size)?;
                    continue;
                }
                0x10.. => self.literal(&mut rest, 4)?.sensitive(),
                _ => self.literal(&mut rest, 4)?,
            };
            begun = true;
            take(field);
        }
        Ok(())
    }

    fn literal(&self, rest: &mut Rest<'_>, prefix: u32) -> Result<Field, HpackError> {
        let index = rest.number(prefix)?;
        if index == 0 {
            let (name, length) = rest.string(|name| (Name::of(name), name.len()))?;
            let value = rest.string(Bytes::copy_from_slice)?;
            return Ok(Field::new(name, length, value));
        }
        let (name, length) = match self.entry(index)? {
            // An invalid name is not kept; whatever it names is as invalid.
            Field::Invalid(size) => (Name::Invalid, size),
            field => {
                let name = field.name();
                let length = name.len();
                (name, length)
            }
        };
        let value = rest.string(Bytes::copy_from_slice)?;
        Ok(Field::new(name, length, value))
    }

    fn entry(&self, index: usize) -> Result<Field, HpackError> {
        let field = match index.checked_sub(fields::KNOWN + 1) {
            Some(own) => self.entries.get(own).cloned(),
            None => fields::known(index),
        };
        field.ok_or(HpackError::Index)
    }

    fn insert(&mut self, field: Field) {
        let size = field.size();
        self.evict(self.room.saturating_sub(size));
        // What is larger than the table empties it. Source: RFC 7541, section 4.4.
        if size <= self.room {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    fn resize(&mut self, room: usize) -> Result<(), HpackError> {
        if room > self.allowed {
            return Err(HpackError::Resize);
        }
        self.room = room;
        self.evict(room);
        Ok(())
    }

    /// Drops the oldest entries until the others count at most `size`.
    fn evict(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else {
                break;
            };
            self.size -= oldest.size();
        }
    }

    /// Gives back room that is not used.
    pub(crate) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }
}

/// What is left of a block.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Result<u8, HpackError> {
        let (byte, rest) = self.0.split_first().ok_or(HpackError::Truncated)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// A number whose first bits are the lowest `prefix` of the next byte. Source: RFC 7541, section 5.1.
    fn number(&mut self, prefix: u32) -> Result<usize, HpackError> {
        /// Bits that numbers may have after the first byte: more than any size or index needs.
        const MOST: u32 = 28;
        let mask = (1_usize << prefix) - 1;
        let mut number = usize::from(self.byte()?) & mask;
        if number < mask {
            return Ok(number);
        }
        let mut shift = 0;
        loop {
            let byte = self.byte()?;
            if shift >= MOST {
                return Err(HpackError::Number);
            }
            number += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
            shift += 7;
        }
    }

    /// What `make` makes of the next string.
    fn string<T>(&mut self, make: impl FnOnce(&[u8]) -> T) -> Result<T, HpackError> {
        let coded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.number(7)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(HpackError::Truncated)?;
        self.0 = rest;
        if !coded {
            return Ok(make(bytes));
        }
        TEXT.with_borrow_mut(|text| {
            text.clear();
            huffman::decode(bytes, text)?;
            let made = make(text);
            if text.capacity() > KEPT {
                *text = Vec::new();
            }
            Ok(made)
        })
    }
}
