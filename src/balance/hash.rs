//! A hash that is the same in every process and on every machine, so that gateways side by side agree who takes a key.

/// The hash of a text: FNV-1a, with its bits stirred so that the low ones are as good as the high ones.
///
/// Source: Fowler, Noll, Vo; the finaliser is MurmurHash3's. Not for what an attacker may choose to collide: all that a
/// chosen key does is choose its endpoint.
pub fn text(text: &str) -> u64 {
    bytes(text.as_bytes())
}

/// The same of bytes.
pub fn bytes(bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    stir(hash)
}

/// Another number, that nobody sees the first one in.
pub fn stir(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of the function would move every key of a running set of gateways.
    #[test]
    fn it_stays_what_it_is() {
        assert_eq!(text(""), stir(0xcbf2_9ce4_8422_2325));
        assert_ne!(text("a"), text("b"));
        let low: std::collections::HashSet<u64> = (0..1000).map(|n| text(&n.to_string()) % 64).collect();
        assert_eq!(low.len(), 64, "low bits are all used");
    }
}
