//! Base64 as ProtoJSON takes and gives it. Source: RFC 4648, sections 4 and 5.

use super::out::Out;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Set in an entry of [`VALUES`] for a byte that only one alphabet has.
const STANDARD: u8 = 0x40;
const URL_SAFE: u8 = 0x80;
/// Both marks, which a text of one alphabet never collects.
const NEITHER: u8 = 0xff;

const VALUES: [u8; 256] = {
    let mut table = [NEITHER; 256];
    let mut value = 0;
    while value < 64 {
        let mark = if value < 62 { 0 } else { STANDARD };
        table[ALPHABET[value as usize] as usize] = value | mark;
        value += 1;
    }
    table[b'-' as usize] = 62 | URL_SAFE;
    table[b'_' as usize] = 63 | URL_SAFE;
    table
};

/// Appends the length and the bytes of a text in either alphabet, with padding or without; false if it is none.
pub(super) fn decode(text: &[u8], out: &mut Out<'_>) -> bool {
    let body = match text {
        [body @ .., b'=', b'='] | [body @ .., b'='] if text.len().is_multiple_of(4) => body,
        _ => text,
    };
    let rest = body.len() % 4;
    if rest == 1 {
        return false;
    }
    out.varint((body.len() / 4 * 3 + rest * 3 / 4) as u64);
    let mut marks = 0;
    let mut value = |byte: u8| {
        let value = VALUES[usize::from(byte)];
        marks |= value;
        u32::from(value & 0x3f)
    };
    let (quads, rest) = body.as_chunks::<4>();
    for &[a, b, c, d] in quads {
        let bits = value(a) << 26 | value(b) << 20 | value(c) << 14 | value(d) << 8;
        out.word(u64::from(bits.swap_bytes()), 3);
    }
    match *rest {
        [a, b] => out.byte((value(a) << 2 | value(b) >> 4).to_le_bytes()[0]),
        [a, b, c] => {
            let bits = value(a) << 26 | value(b) << 20 | value(c) << 14;
            out.word(u64::from(bits.swap_bytes()), 2);
        }
        _ => {}
    }
    marks & (STANDARD | URL_SAFE) != STANDARD | URL_SAFE
}

/// Appends bytes in quotes, in the standard alphabet with padding.
pub(super) fn encode(bytes: &[u8], out: &mut Out<'_>) {
    out.byte(b'"');
    let letter = |bits: u32, shift: u32| u64::from(ALPHABET[(bits >> shift & 0x3f) as usize]);
    let (triples, rest) = bytes.as_chunks::<3>();
    for &[a, b, c] in triples {
        let bits = u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c);
        out.word(
            letter(bits, 18) | letter(bits, 12) << 8 | letter(bits, 6) << 16 | letter(bits, 0) << 24,
            4,
        );
    }
    let pad = u64::from(b'=');
    match *rest {
        [a] => {
            let bits = u32::from(a) << 16;
            out.word(
                letter(bits, 18) | letter(bits, 12) << 8 | pad << 16 | pad << 24,
                4,
            );
        }
        [a, b] => {
            let bits = u32::from(a) << 16 | u32::from(b) << 8;
            out.word(
                letter(bits, 18) | letter(bits, 12) << 8 | letter(bits, 6) << 16 | pad << 24,
                4,
            );
        }
        _ => {}
    }
    out.byte(b'"');
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::{Out, decode, encode};

    fn decoded(text: &[u8]) -> Option<Vec<u8>> {
        let mut buffer = BytesMut::new();
        let mut out = Out::new(&mut buffer, 0, 1000);
        let fine = decode(text, &mut out);
        out.finish();
        fine.then(|| buffer[1..].to_vec())
    }

    #[test]
    fn what_is_encoded_decodes_in_every_spelling() {
        for size in 0..40_u8 {
            let bytes: Vec<u8> = (0..size).map(|at| at.wrapping_mul(83) ^ 0xfb).collect();
            let mut buffer = BytesMut::new();
            let mut out = Out::new(&mut buffer, 0, 1000);
            encode(&bytes, &mut out);
            out.finish();
            let text = std::str::from_utf8(&buffer).unwrap().trim_matches('"');
            let url = text.replace('+', "-").replace('/', "_");
            for spelling in [text, text.trim_end_matches('='), &url, url.trim_end_matches('=')] {
                assert_eq!(
                    decoded(spelling.as_bytes()).as_deref(),
                    Some(&*bytes),
                    "{spelling}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_base64_is_refused() {
        for text in [
            "A", "A===", "AA=", "AAA==", "=", "A A=", "+/-_", "AA==AA==", "AAAA=", "é",
        ] {
            assert_eq!(decoded(text.as_bytes()), None, "{text}");
        }
    }
}
