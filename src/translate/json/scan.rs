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

#[inline]
fn is_special(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// The same, and whether a byte before it is not ASCII.
#[inline]
pub(super) fn plain_ascii(text: &[u8], from: usize) -> (usize, bool) {
    let (mut at, mut high) = (from, 0);
    while let Some(block) = text.get(at..).and_then(<[u8]>::first_chunk::<16>) {
        high |= block::high(block);
        let special = block::special(block);
        if special != 0 {
            return (at + special.trailing_zeros() as usize, high != 0);
        }
        at += 16;
    }
    let mut wide = 0;
    while let Some(&byte) = text.get(at) {
        if is_special(byte) {
            break;
        }
        wide |= byte;
        at += 1;
    }
    (at, high != 0 || wide >= 0x80)
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

    /// Not zero if a byte is not ASCII.
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
        u32::from(block.iter().fold(0, |all, &byte| all | byte) >= 0x80)
    }
}

#[cfg(test)]
mod tests {
    use super::{plain, plain_ascii};

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
                        assert_eq!(plain_ascii(&text, from).0, end);
                        assert_eq!(plain_ascii(&text, from).1, byte == 0xff);
                    }
                }
            }
        }
    }
}
