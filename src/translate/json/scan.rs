//! How far a text goes on without a byte that needs care.

/// The first byte at or after `from` that is a quote, a backslash or below a space; the length if there is none.
#[inline]
pub(super) fn plain(text: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = text.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        let special = block::special(block);
        if special != 0 {
            return at + special.trailing_zeros() as usize;
        }
        at += 16;
    }
    while let Some(&byte) = text.get(at) {
        if is_special(byte) {
            return at;
        }
        at += 1;
    }
    at
}

/// How many of 32 bytes come before the first one that needs care.
#[inline]
pub(super) fn plain_in(window: &[u8; 32]) -> u32 {
    let [low, high] = [window.first_chunk::<16>(), window.last_chunk::<16>()];
    let special = |part: Option<&[u8; 16]>| part.map_or(0, block::special);
    (special(low) | special(high) << 16).trailing_zeros()
}

/// Whether the first `count <= 32` of 32 bytes are ASCII, and none of them needs care.
#[inline]
pub(super) fn is_simple(window: &[u8; 32], count: usize) -> bool {
    let bits = |part: Option<&[u8; 16]>| part.map_or(0, |part| block::special(part) | block::high(part));
    let odd = u64::from(bits(window.first_chunk())) | u64::from(bits(window.last_chunk())) << 16;
    odd & ((1 << count.min(32)) - 1) == 0
}

#[inline]
fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// Whether a text has no byte that needs care, and whether all of it is ASCII.
#[inline]
pub(super) fn is_plain(text: &[u8]) -> (bool, bool) {
    let Some(last) = text.last_chunk::<16>() else {
        return short_is_plain(text);
    };
    let (mut special, mut high) = (block::special(last), block::high(last));
    let (blocks, _) = text.as_chunks::<16>();
    for block in blocks {
        special |= block::special(block);
        high |= block::high(block);
    }
    (special == 0, high == 0)
}

/// The same of fewer than 16 bytes: two loads that overlap.
#[inline]
fn short_is_plain(text: &[u8]) -> (bool, bool) {
    let mut block = [b' '; 16];
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        block[..8].copy_from_slice(first);
        block[8..].copy_from_slice(last);
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        block[..4].copy_from_slice(first);
        block[4..8].copy_from_slice(last);
    } else {
        for (to, &byte) in block.iter_mut().zip(text.iter().take(3)) {
            *to = byte;
        }
    }
    (block::special(&block) == 0, block::high(&block) == 0)
}

/// Sixteen bytes at once, by instructions that every x86-64 has.
#[cfg(target_arch = "x86_64")]
mod block {
    #![allow(unsafe_code, reason = "a load of sixteen bytes from an array of sixteen")]

    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_max_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };

    #[inline]
    fn load(block: &[u8; 16]) -> __m128i {
        // SAFETY: the array has the sixteen bytes that are loaded, and the load needs no alignment.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    /// One bit for each byte that is a quote, a backslash or below a space.
    #[inline]
    pub(super) fn special(block: &[u8; 16]) -> u32 {
        let bytes = load(block);
        // SAFETY: SSE2 is part of x86-64.
        let mask = unsafe {
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x22));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x5c));
            let last = _mm_set1_epi8(0x1f);
            let control = _mm_cmpeq_epi8(_mm_max_epu8(bytes, last), last);
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control))
        };
        mask.cast_unsigned()
    }

    /// One bit for each byte that is not ASCII.
    #[inline]
    pub(super) fn high(block: &[u8; 16]) -> u32 {
        // SAFETY: SSE2 is part of x86-64.
        unsafe { _mm_movemask_epi8(load(block)) }.cast_unsigned()
    }
}

/// Sixteen bytes at once, as the compiler does it best.
#[cfg(not(target_arch = "x86_64"))]
mod block {
    #[inline]
    pub(super) fn special(block: &[u8; 16]) -> u32 {
        block
            .iter()
            .rev()
            .fold(0, |bits, &byte| bits << 1 | u32::from(super::is_special(byte)))
    }

    #[inline]
    pub(super) fn high(block: &[u8; 16]) -> u32 {
        block
            .iter()
            .rev()
            .fold(0, |bits, &byte| bits << 1 | u32::from(byte >= 0x80))
    }
}

#[cfg(test)]
mod tests {
    use super::{is_plain, is_simple, plain, plain_in};

    #[test]
    fn the_first_special_byte_is_found_wherever_it_is() {
        for length in 0..50 {
            for at in 0..length {
                for (byte, special) in [
                    (b'"', true),
                    (b'\\', true),
                    (0, true),
                    (0x1f, true),
                    (b' ', false),
                    (0x7f, false),
                    (0xff, false),
                ] {
                    let mut text = vec![b'x'; length];
                    text[at] = byte;
                    for from in 0..=at {
                        let end = if special { at } else { length };
                        assert_eq!(plain(&text, from), end);
                        if let Some(window) = text[from..].first_chunk() {
                            let simple = !special && byte != 0xff;
                            for count in 0..=32 {
                                assert_eq!(is_simple(window, count), simple || from + count <= at);
                            }
                            assert_eq!(plain_in(window) as usize, (end - from).min(32));
                        }
                        assert_eq!(is_plain(&text[from..]), (!special, byte != 0xff));
                    }
                }
            }
        }
    }
}
