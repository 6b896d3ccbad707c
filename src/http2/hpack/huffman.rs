//! The Huffman code of strings. Source: RFC 7541, section 5.2 and appendix B.
//!
//! The code is canonical: of two symbols, the one with the shorter code comes first, and of equal ones the smaller symbol.
//! So the lengths tell all of it, and the tables for reading are computed from them when the program is built.

use crate::http2::hpack::HpackError;

/// Bits of each symbol's code; the last symbol ends a string and is never written.
pub(super) const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

/// The longest code.
const LONGEST: usize = 30;
/// Codes of at most so many bits are found in one look: all that text is made of.
const QUICK: u32 = 10;

/// How to read the code.
struct Tables {
    /// For the next ten bits: the symbol times 16 plus the bits of its code, or 0 if the code is longer.
    quick: [u16; 1 << QUICK],
    /// For each length: the first code that is longer than all of it, in the highest of 32 bits.
    beyond: [u64; LONGEST + 1],
    /// For each length: the first code, and where its symbol is.
    first: [(u32, u16); LONGEST + 1],
    /// The symbols, in the order of their codes.
    symbols: [u16; 257],
}

static TABLES: Tables = tables();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "computed when the program is built, where both would be errors"
)]
const fn tables() -> Tables {
    let mut tables = Tables {
        quick: [0; 1 << QUICK],
        beyond: [0; LONGEST + 1],
        first: [(0, 0); LONGEST + 1],
        symbols: [0; 257],
    };
    let (mut code, mut at, mut length) = (0_u32, 0_u16, 1);
    while length <= LONGEST {
        tables.first[length] = (code, at);
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                tables.symbols[at as usize] = symbol as u16;
                if length as u32 <= QUICK {
                    let rest = QUICK - length as u32;
                    let mut look = (code << rest) as usize;
                    while look < ((code + 1) << rest) as usize {
                        tables.quick[look] = (symbol as u16) << 4 | length as u16;
                        look += 1;
                    }
                }
                code += 1;
                at += 1;
            }
            symbol += 1;
        }
        tables.beyond[length] = (code as u64) << (32 - length);
        code <<= 1;
        length += 1;
    }
    tables
}

/// The symbol that the lowest ten bits begin with, and the bits of its code; `None` if that is longer.
#[expect(clippy::cast_possible_truncation, reason = "ten bits are what is wanted")]
fn quick(bits: u64) -> Option<(u8, u32)> {
    let found = *TABLES.quick.get(bits as usize & ((1 << QUICK) - 1))?;
    let [_, symbol] = (found >> 4).to_be_bytes();
    (found != 0).then_some((symbol, u32::from(found & 15)))
}

/// The symbol that `window` begins with, and the bits of its code.
fn symbol(window: u32) -> Option<(u16, u32)> {
    if let Some((symbol, bits)) = quick(u64::from(window >> (32 - QUICK))) {
        return Some((u16::from(symbol), bits));
    }
    let longer = TABLES.beyond.iter().enumerate().skip(QUICK as usize + 1);
    let (length, _) = longer
        .into_iter()
        .find(|(_, beyond)| u64::from(window) < **beyond)?;
    let (first, at) = *TABLES.first.get(length)?;
    let bits = u32::try_from(length).ok()?;
    let nth = (window >> (32 - bits)).checked_sub(first)?;
    let symbol = TABLES.symbols.get(usize::from(at) + nth as usize)?;
    Some((*symbol, bits))
}

/// Appends to `text` what `code` says.
///
/// # Errors
/// [`HpackError::Huffman`] for the symbol that ends a string, and for an end that is more than seven bits or other than
/// ones.
pub(super) fn decode(code: &[u8], text: &mut Vec<u8>) -> Result<(), HpackError> {
    let mut rest = code;
    let (mut held, mut bits) = (0_u64, 0_u32);
    loop {
        if bits <= 32
            && let Some((word, after)) = rest.split_first_chunk()
        {
            held = held << 32 | u64::from(u32::from_be_bytes(*word));
            bits += 32;
            rest = after;
        }
        // All of most texts. Where ten bits are held, a code that is found by them is there whole.
        while let Some(unseen) = bits.checked_sub(QUICK) {
            let Some((symbol, length)) = quick(held >> unseen) else {
                break;
            };
            text.push(symbol);
            bits -= length;
        }
        if bits < 32 && rest.len() >= size_of::<u32>() {
            continue;
        }
        while bits <= 56
            && let Some((byte, after)) = rest.split_first()
        {
            held = held << 8 | u64::from(*byte);
            bits += 8;
            rest = after;
        }
        if bits == 0 {
            return Ok(());
        }
        let window = window(held, bits);
        let (symbol, length) = symbol(window).ok_or(HpackError::Huffman)?;
        if length > bits {
            // The end is filled up with ones, to a whole byte.
            return if bits < 8 && window == u32::MAX {
                Ok(())
            } else {
                Err(HpackError::Huffman)
            };
        }
        text.push(u8::try_from(symbol).map_err(|_| HpackError::Huffman)?);
        bits -= length;
    }
}

/// The next 32 bits of those that are held, with ones after the last.
#[expect(clippy::cast_possible_truncation, reason = "32 bits are what is wanted")]
fn window(held: u64, bits: u32) -> u32 {
    if bits >= 32 {
        (held >> (bits - 32)) as u32
    } else {
        (held << (32 - bits)) as u32 | u32::MAX >> bits
    }
}
