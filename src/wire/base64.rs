//! Base64 of binary metadata: written without padding, read with or without it.
//!
//! Source: gRPC over HTTP/2, "Custom-Metadata".

/// Encodes binary metadata, standard alphabet, no padding.
pub fn encode(bytes: &[u8]) -> String {
    base64_simd::STANDARD_NO_PAD.encode_to_string(bytes)
}

/// Decodes binary metadata; `None` when it is not base64.
pub fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let end = value
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |last| last.saturating_add(1));
    if value.len().saturating_sub(end) > 2 {
        return None;
    }
    base64_simd::STANDARD_NO_PAD.decode_to_vec(value.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_optional_and_garbage_is_refused() {
        assert_eq!(encode(&[1, 2, 3, 4]), "AQIDBA");
        assert_eq!(decode(b"AQIDBA").as_deref(), Some(&[1, 2, 3, 4][..]));
        assert_eq!(decode(b"AQIDBA==").as_deref(), Some(&[1, 2, 3, 4][..]));
        assert_eq!(decode(b"").as_deref(), Some(&[][..]));
        assert_eq!(decode(b"AQ!"), None);
        assert_eq!(decode(b"AQID==="), None);
    }
}
