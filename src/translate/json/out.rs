//! A buffer to append to without a bounds check per byte: all unsafe code of the transcoder's output is here.

#![allow(
    unsafe_code,
    reason = "see the invariant of `Out`; run under AddressSanitizer and valgrind by fuzz/"
)]

use std::ptr;

use bytes::BytesMut;

use super::plan::{Key, Tag};

/// Appends to a [`BytesMut`].
///
/// Invariant: `data` is where `buffer`'s allocation starts, `capacity` is its capacity, `len <= capacity`, and the
/// first `len` bytes are initialised. Only [`Out::grow`] moves the allocation, and it renews all three. While an `Out`
/// lives, nobody else can touch the buffer, which it borrows.
#[derive(Debug)]
pub(super) struct Out<'a> {
    buffer: &'a mut BytesMut,
    data: *mut u8,
    len: usize,
    capacity: usize,
    /// Where this text or message starts.
    start: usize,
    /// The length that must not be passed.
    end: usize,
}

impl<'a> Out<'a> {
    /// Appends to a buffer; room is made for `expected` bytes at once.
    pub(super) fn new(buffer: &'a mut BytesMut, expected: usize, limit: usize) -> Self {
        buffer.reserve(expected);
        let (len, capacity) = (buffer.len(), buffer.capacity());
        let data = buffer.as_mut_ptr();
        Self {
            buffer,
            data,
            len,
            capacity,
            start: len,
            end: len.saturating_add(limit),
        }
    }

    /// Keeps what was appended.
    pub(super) fn finish(self) {
        // SAFETY: the first `len` bytes are initialised and inside the allocation.
        unsafe { self.buffer.set_len(self.len) }
    }

    /// Gives the buffer back as it was.
    pub(super) fn abandon(self) {
        self.buffer.truncate(self.start);
    }

    /// Whether more was appended than the limit allows. Asked at each message, element and end.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.len > self.end
    }

    /// How many bytes may be appended.
    pub(super) fn limit(&self) -> usize {
        self.end - self.start
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What was appended since the length was `from`.
    #[inline]
    pub(super) fn since(&self, from: usize) -> &[u8] {
        let from = from.min(self.len);
        // SAFETY: `from <= len`, and the first `len` bytes are initialised.
        unsafe { std::slice::from_raw_parts(self.data.add(from), self.len - from) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) {
        // SAFETY: the first `len` bytes are initialised and inside the allocation.
        unsafe { self.buffer.set_len(self.len) }
        self.buffer.reserve(more.max(self.len - self.start).max(64));
        self.data = self.buffer.as_mut_ptr();
        self.capacity = self.buffer.capacity();
    }

    /// Makes room, so that this many bytes can be written at `len`.
    #[inline]
    fn reserve(&mut self, more: usize) {
        if self.capacity - self.len < more {
            self.grow(more);
        }
    }

    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        self.reserve(1);
        // SAFETY: there is room for one byte at `len`.
        unsafe { self.data.add(self.len).write(byte) }
        self.len += 1;
    }

    /// The first `count` bytes of a block: a copy of fixed size is cheaper than one that counts.
    #[inline]
    pub(super) fn block<const N: usize>(&mut self, block: &[u8; N], count: usize) {
        self.reserve(N);
        // SAFETY: there is room for `N` bytes at `len`, of which at most `N` become part of it.
        unsafe { self.data.add(self.len).cast::<[u8; N]>().write_unaligned(*block) }
        self.len += count.min(N);
    }

    /// The lowest `count <= 8` bytes of a word.
    #[inline]
    pub(super) fn word(&mut self, word: u64, count: usize) {
        self.block(&word.to_le_bytes(), count);
    }

    /// The first `count <= 32` bytes of a window behind their length.
    #[inline]
    pub(super) fn counted(&mut self, window: &[u8; 32], count: u32) {
        self.reserve(33);
        let size = count.to_le_bytes()[0];
        // SAFETY: there is room for 33 bytes at `len`, of which at most 33 become part of it.
        unsafe {
            let to = self.data.add(self.len);
            to.write(size);
            to.add(1).cast::<[u8; 32]>().write_unaligned(*window);
        }
        self.len += 1 + usize::from(size).min(32);
    }

    /// The first `count <= 32` bytes of a window in quotes.
    #[inline]
    pub(super) fn quoted(&mut self, window: &[u8; 32], count: usize) {
        self.reserve(34);
        let count = count.min(32);
        // SAFETY: there is room for 34 bytes at `len`, of which at most 34 become part of it.
        unsafe {
            let to = self.data.add(self.len);
            to.write(b'"');
            to.add(1).cast::<[u8; 32]>().write_unaligned(*window);
            to.add(1 + count).write(b'"');
        }
        self.len += count + 2;
    }

    /// An unsigned number in decimal digits.
    #[inline]
    pub(super) fn decimal(&mut self, mut value: u64) {
        // Twenty digits at most, from the end of the first half; the second half is there to be copied along.
        let mut digits = [0; 44];
        let mut at = 20;
        while value >= 100 {
            at -= 2;
            let rest = value / 100;
            [digits[at], digits[at + 1]] = pair(value - rest * 100);
            value = rest;
        }
        if value >= 10 {
            at -= 2;
            [digits[at], digits[at + 1]] = pair(value);
        } else {
            at -= 1;
            digits[at] = b'0' | value.to_le_bytes()[0];
        }
        if let Some(block) = digits[at..].first_chunk::<24>() {
            self.block(block, 20 - at);
        }
    }

    #[inline]
    pub(super) fn tag(&mut self, tag: Tag) {
        self.word(tag.bytes, tag.len as usize);
    }

    #[inline]
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let count = bytes.len();
        self.reserve(count);
        // SAFETY: there is room for `count` bytes at `len`. `bytes` cannot overlap what is behind `len`.
        unsafe {
            let to = self.data.add(self.len);
            match (bytes.first_chunk::<16>(), bytes.last_chunk::<16>()) {
                // Two copies that overlap in the middle: cheaper than a call of memcpy for short strings.
                (Some(first), Some(last)) if count <= 32 => {
                    to.cast::<[u8; 16]>().write_unaligned(*first);
                    to.add(count - 16).cast::<[u8; 16]>().write_unaligned(*last);
                }
                (None, None) => short(bytes, to),
                _ => ptr::copy_nonoverlapping(bytes.as_ptr(), to, count),
            }
        }
        self.len += count;
    }

    #[inline]
    pub(super) fn key(&mut self, key: &Key) {
        let Some(padded) = &key.padded else {
            return self.bytes(&key.text);
        };
        self.block(padded, key.text.len());
    }

    #[inline]
    pub(super) fn varint(&mut self, value: u64) {
        if value < 0x80 {
            return self.word(value, 1);
        }
        self.long_varint(value);
    }

    #[inline]
    fn long_varint(&mut self, value: u64) {
        if value >> 56 != 0 {
            return self.huge_varint(value);
        }
        // Seven bits to a byte: the halves move apart, then the quarters, then the eighths.
        let halves = value & 0x0fff_ffff | (value & 0x00ff_ffff_f000_0000) << 4;
        let quarters = halves & 0x0000_3fff_0000_3fff | (halves & 0x0fff_c000_0fff_c000) << 2;
        let bytes = quarters & 0x007f_007f_007f_007f | (quarters & 0x3f80_3f80_3f80_3f80) << 1;
        let count = (63 - value.leading_zeros()) / 7 + 1;
        let more = 0x8080_8080_8080_8080 & ((1 << (8 * (count - 1))) - 1);
        self.word(bytes | more, count as usize);
    }

    #[inline(never)]
    fn huge_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.byte(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.byte(value.to_le_bytes()[0]);
    }

    /// Takes back what was appended since the length was `len`.
    #[inline]
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len.max(self.start));
    }

    /// Ends an object or a list: the comma after its last member gives way, or there was none.
    #[inline]
    pub(super) fn end(&mut self, open: usize, close: u8) {
        if self.len > open {
            self.len -= 1;
        }
        self.byte(close);
    }

    /// Leaves room for a length of `width` bytes; [`Out::close`] writes it.
    #[inline]
    pub(super) fn open(&mut self, width: u8) -> Mark {
        let mark = Mark { at: self.len, width };
        self.word(0, width.into());
        mark
    }

    /// Writes the length of what was appended since `mark`, minimal, and gives its width.
    #[inline]
    pub(super) fn close(&mut self, mark: Mark) -> u8 {
        let width = usize::from(mark.width);
        let size = self.len.saturating_sub(mark.at + width);
        if size < 0x80 && width == 1 && mark.at < self.len {
            // SAFETY: `at < len`.
            unsafe { self.data.add(mark.at).write(size.to_le_bytes()[0]) }
            return 1;
        }
        self.close_wide(mark.at, width, size)
    }

    /// The lengths that are not one byte where one was left.
    #[inline(never)]
    fn close_wide(&mut self, at: usize, width: usize, size: usize) -> u8 {
        let needed = (usize::BITS - (size | 1).leading_zeros()).div_ceil(7) as usize;
        self.reserve(10);
        let at = at.min(self.len);
        let mut rest = size;
        // SAFETY: `size` is 0 or `at + width + size == len`, so the moved bytes are initialised; `needed <= 10` and there is room for
        // ten bytes more, so they stay inside the allocation.
        unsafe {
            let field = self.data.add(at);
            if needed != width {
                ptr::copy(field.add(width), field.add(needed), size);
            }
            for index in 0..needed {
                let more = if index + 1 < needed { 0x80 } else { 0 };
                field.add(index).write((rest & 0x7f).to_le_bytes()[0] | more);
                rest >>= 7;
            }
        }
        self.len = at + needed + size;
        needed.to_le_bytes()[0]
    }
}

/// Copies fewer than 16 bytes.
///
/// # Safety
/// `to` has room for `bytes.len()` bytes and does not overlap it.
#[inline]
unsafe fn short(bytes: &[u8], to: *mut u8) {
    let count = bytes.len();
    // SAFETY: every write lies inside the first `count` bytes.
    unsafe {
        if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            to.cast::<[u8; 8]>().write_unaligned(*first);
            to.add(count - 8).cast::<[u8; 8]>().write_unaligned(*last);
        } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
            to.cast::<[u8; 4]>().write_unaligned(*first);
            to.add(count - 4).cast::<[u8; 4]>().write_unaligned(*last);
        } else {
            for (index, &byte) in bytes.iter().enumerate() {
                to.add(index).write(byte);
            }
        }
    }
}

/// Two digits of a number below 100.
#[inline]
pub(super) fn pair(value: u64) -> [u8; 2] {
    const PAIRS: [[u8; 2]; 100] = {
        let mut pairs = [[b'0'; 2]; 100];
        let mut value = 0;
        while value < 100 {
            pairs[value as usize] = [b'0' + value / 10, b'0' + value % 10];
            value += 1;
        }
        pairs
    };
    PAIRS[usize::from(value.to_le_bytes()[0] % 100)]
}

/// Where a length is still to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    at: usize,
    width: u8,
}

impl Mark {
    /// Where the body starts.
    #[inline]
    pub(super) fn body(self) -> usize {
        self.at + usize::from(self.width)
    }
}
