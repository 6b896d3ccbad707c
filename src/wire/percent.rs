//! The percent-encoding of `grpc-message`.
//!
//! Source: gRPC over HTTP/2, "Responses": bytes from space to `~` stand for themselves, except `%`.

use http::HeaderValue;

/// Encodes a message for `grpc-message`.
pub fn encode(message: &str) -> HeaderValue {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut value = Vec::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => value.push(byte),
            _ => {
                value.push(b'%');
                for nibble in [byte >> 4, byte & 15] {
                    value.extend(HEX.get(usize::from(nibble)));
                }
            }
        }
    }
    // Only visible ASCII and spaces were written.
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
}

/// Decodes a `grpc-message`. What is not a valid escape stays as it is; what is not UTF-8 is replaced.
pub fn decode(value: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%'
            && let Some(([high, low], after)) = after.split_first_chunk()
            && let (Some(high), Some(low)) = (nibble(*high), nibble(*low))
        {
            bytes.push(high << 4 | low);
            rest = after;
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}

/// The value of a hexadecimal digit.
pub fn nibble(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_round_trip() {
        for text in ["", "plain", "100%", "two\nlines\t", "café ☕", "%41"] {
            let value = encode(text);
            assert!(
                value.as_bytes().iter().all(|byte| (b' '..=b'~').contains(byte)),
                "{text}"
            );
            assert_eq!(decode(value.as_bytes()), text);
        }
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(decode(b"50% off %zz %4"), "50% off %zz %4");
        assert_eq!(decode(b"%ff"), "\u{fffd}");
    }
}
