//! A buffer to append to without a bounds check per byte: all unsafe code of the transcoder's output is here.

#![allow(
    unsafe_code,
    reason = "see the invariant of `Out`; run under AddressSanitizer and valgrind by fuzz/"
)]

use std::ptr;

use bytes::BytesMut;

use super::plan::Tag;

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

    /// The lowest `count <= 8` bytes of a word.
    #[inline]
    pub(super) fn word(&mut self, word: u64, count: usize) {
        self.reserve(8);
        // SAFETY: there is room for eight bytes at `len`, which is at most what becomes part of it.
        unsafe {
            self.data
                .add(self.len)
                .cast::<[u8; 8]>()
                .write_unaligned(word.to_le_bytes())
        }
        self.len += count.min(8);
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
    pub(super) fn varint(&mut self, value: u64) {
        if value < 0x80 {
            return self.word(value, 1);
        }
        self.long_varint(value);
    }

    #[inline]
    fn long_varint(&mut self, mut value: u64) {
        self.reserve(10);
        while value >= 0x80 {
            self.push_reserved(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.push_reserved(value.to_le_bytes()[0]);
    }

    /// One of at most ten bytes for which `long_varint` made room.
    #[inline]
    fn push_reserved(&mut self, byte: u8) {
        debug_assert!(self.len < self.capacity, "room was made");
        // SAFETY: the only caller made room for ten bytes and pushes at most ten.
        unsafe { self.data.add(self.len).write(byte) }
        self.len += 1;
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
