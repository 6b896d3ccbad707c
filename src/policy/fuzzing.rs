//! What must hold of credentials whatever a client sends. Called by `fuzz/` and, on fixed seeds, by `cargo test`.

use std::sync::Arc;

use aws_lc_rs::hmac;
use base64_simd::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderValue};

use super::credential::{Authorization, authorization, cookie, name_and_password, without_cookie};
use super::jwks::KeySet;
use super::jwt::{Algorithm, ClaimNames, Issuer, Keys, MAX_TOKEN_BYTES, Verifier};

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

fn verifier() -> Option<Verifier> {
    let set = KeySet::shared(SECRET, &[Algorithm::Hs256]).ok()?;
    Some(Verifier {
        issuers: vec![Issuer {
            name: "fuzz".to_owned(),
            audiences: vec!["library".to_owned()],
            algorithms: vec![Algorithm::Hs256],
            keys: Keys::Fixed(Arc::new(set)),
            names: ClaimNames::default(),
        }],
        forwarded: Vec::new(),
    })
}

/// A token of the issuer with these two parts.
fn signed(header: &[u8], claims: &[u8]) -> String {
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode_to_string(header),
        URL_SAFE_NO_PAD.encode_to_string(claims)
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode_to_string(tag.as_ref()))
}

/// A text as a token: it is believed only if it is signed, in its one spelling, and within its bounds.
///
/// # Panics
/// Something does not hold.
pub fn token(data: &[u8]) {
    let (Some(verifier), Ok(text)) = (verifier(), std::str::from_utf8(data)) else {
        return;
    };
    if verifier.verify(text, NOW).is_err() {
        return;
    }
    assert!(text.len() <= MAX_TOKEN_BYTES, "it is too large");
    let parts: Vec<&str> = text.split('.').collect();
    let [header, claims, signature] = parts.as_slice() else {
        panic!("it has not three parts: {text}");
    };
    let bytes = |part: &str| URL_SAFE_NO_PAD.decode_to_vec(part).unwrap_or_default();
    assert_eq!(
        signed(&bytes(header), &bytes(claims)),
        text,
        "it has another spelling, or is not signed"
    );
    assert!(!signature.is_empty());
}

/// A header and claims, with a line feed between, that the issuer has signed: what is believed says what it has to.
///
/// # Panics
/// Something does not hold.
pub fn claims(data: &[u8]) {
    let at = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (header, claims) = data.split_at(at);
    let claims = claims.get(1..).unwrap_or_default();
    let text = signed(header, claims);
    let Some(Ok(verified)) = verifier().map(|verifier| verifier.verify(&text, NOW)) else {
        return;
    };
    let known = verified.identity.claims();
    let end = known.expires.unwrap_or_else(|| panic!("it has no end: {text}"));
    assert!(NOW < end, "it has ended");
    assert!(!known.principal.is_empty(), "it is nobody's");
    let last: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_slice(claims);
    let last = last.unwrap_or_else(|error| panic!("the claims are no JSON: {error}"));
    assert_eq!(last.get("iss").and_then(|iss| iss.as_str()), Some("fuzz"));
    // A reader that takes the last of two names reads the same, since there are no two.
    assert_eq!(last, known.others);
}

/// A text as headers: what is taken out of them is in them, and a cookie that was taken out is gone.
///
/// # Panics
/// Something does not hold.
pub fn headers(data: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value.clone());
    headers.insert(COOKIE, value);
    match authorization(&headers) {
        Ok(Some(Authorization::Bearer(token))) => {
            assert!(
                data.windows(token.len().max(1))
                    .any(|piece| piece == token.as_bytes())
                    || token.is_empty()
            );
        }
        Ok(Some(Authorization::Basic(encoded))) => {
            if let Ok(pair) = name_and_password(encoded) {
                assert!(pair.contains(':') && !pair.chars().any(char::is_control));
            }
        }
        Ok(None) | Err(_) => {}
    }
    let held = cookie(&headers, "session").map(str::to_owned);
    without_cookie(&mut headers, "session");
    assert!(
        cookie(&headers, "session").is_none(),
        "a cookie is left: {held:?}"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator that gives the same numbers on every machine: xorshift.
    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, sides: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % sides.max(1) as u64).unwrap()
        }

        fn byte(&mut self) -> u8 {
            u8::try_from(self.roll(256)).unwrap()
        }

        /// A copy with one to four changes.
        fn mutate(&mut self, seed: &[u8]) -> Vec<u8> {
            let mut bytes = seed.to_vec();
            for _ in 0..=self.roll(3) {
                let at = self.roll(bytes.len());
                match self.roll(5) {
                    0 if at < bytes.len() => bytes[at] ^= 1 << self.roll(8),
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    2 => bytes.insert(at, self.byte()),
                    3 => bytes.insert(at, b".=-_{}\":,; \n"[self.roll(12)]),
                    _ => {
                        let end = at + self.roll(bytes.len() - at);
                        let piece = bytes[at..end].to_vec();
                        bytes.extend(piece);
                    }
                }
            }
            bytes
        }
    }

    const HEADER: &[u8] = br#"{"alg":"HS256","typ":"JWT","kid":"a"}"#;
    const CLAIMS: &[u8] =
        br#"{"iss":"fuzz","aud":["library"],"sub":"ada","exp":1800000600,"nbf":1700000000,"scope":"a b"}"#;

    fn rounds() -> usize {
        std::env::var("SABIR_SEEDS")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(20)
            * 500
    }

    #[test]
    fn no_change_to_a_token_is_believed() {
        let good = signed(HEADER, CLAIMS);
        let verifier = verifier().unwrap();
        verifier.verify(&good, NOW).unwrap();
        let mut dice = Dice(0x5ab1_0010);
        for _ in 0..rounds() {
            let changed = dice.mutate(good.as_bytes());
            token(&changed);
            if let Ok(text) = std::str::from_utf8(&changed) {
                assert!(text == good || verifier.verify(text, NOW).is_err(), "{text}");
            }
        }
    }

    #[test]
    fn what_an_issuer_signed_is_read_in_one_way() {
        let seed = [HEADER, b"\n", CLAIMS].concat();
        claims(&seed);
        let mut dice = Dice(0x5ab1_0011);
        let mut before = seed.clone();
        for round in 0..rounds() {
            // Changes upon changes, and back to the seed now and then.
            let changed = dice.mutate(if round % 8 == 0 { &seed } else { &before });
            claims(&changed);
            before = changed;
            before.truncate(4096);
        }
    }

    #[test]
    fn headers_are_taken_apart_whatever_they_are() {
        let mut dice = Dice(0x5ab1_0012);
        for seed in [
            &b"Bearer abc.def.ghi"[..],
            b"Basic YWRhOm9wZW4gc2VzYW1l",
            b"session=a; other=b; session=c",
            b"a=b;session=;session",
        ] {
            headers(seed);
            for _ in 0..rounds() / 4 {
                headers(&dice.mutate(seed));
            }
        }
    }
}
