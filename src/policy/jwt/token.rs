//! The parts of a token, read strictly: what has two readings is not read at all. Nothing here is verified.
//!
//! Source: RFC 7515, sections 3, 4 and 5.2; RFC 7519; RFC 8725.

use serde_json::{Map, Value};

use super::{Algorithm, Part, TokenError};
use crate::policy::json;

/// The largest token that is looked at. A header section has 16 KiB by default.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;
/// The longest name of a key: those of issuers are hashes and identifiers far below it.
const MAX_KID_BYTES: usize = 256;

/// A token that is well formed, and that nobody has vouched for yet.
#[derive(Debug)]
pub(super) struct Token<'a> {
    /// What is signed.
    pub(super) signed: &'a [u8],
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    pub(super) claims: Map<String, Value>,
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(super) fn read(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge);
        }
        let parts: Vec<&str> = text.split('.').collect();
        let [header, payload, signature] = parts.as_slice() else {
            return Err(TokenError::Parts(parts.len()));
        };
        // The dot between the first two parts is signed with them.
        let signed = text
            .as_bytes()
            .get(..header.len() + 1 + payload.len())
            .unwrap_or_default();
        let (algorithm, kid) = header_of(&decoded(header, Part::Header)?)?;
        let claims = json::object(&decoded(payload, Part::Claims)?).ok_or(TokenError::Json(Part::Claims))?;
        Ok(Self {
            signed,
            algorithm,
            kid,
            claims,
            signature: decoded(signature, Part::Signature)?,
        })
    }
}

fn decoded(text: &str, part: Part) -> Result<Vec<u8>, TokenError> {
    json::base64url(text)
        .filter(|bytes| !bytes.is_empty())
        .ok_or(TokenError::Base64(part))
}

/// The algorithm and the name of the key. `jku`, `jwk`, `x5u` and `x5c`, by which a token would bring its own key, are
/// not looked at.
fn header_of(text: &[u8]) -> Result<(Algorithm, Option<String>), TokenError> {
    let header = json::object(text).ok_or(TokenError::Json(Part::Header))?;
    // No extension is understood, and one that is critical has to be. `b64` changes what is signed, critical or not.
    if header.contains_key("crit") || header.contains_key("b64") || header.contains_key("zip") {
        return Err(TokenError::Extension);
    }
    match header.get("typ") {
        None => {}
        Some(Value::String(kind)) if is_token(kind) => {}
        // A signed logout or security event has claims too, and is no word about who calls.
        Some(_) => return Err(TokenError::Type),
    }
    let algorithm = match header.get("alg") {
        Some(Value::String(name)) => Algorithm::named(name),
        Some(_) | None => None,
    };
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) if kid.len() <= MAX_KID_BYTES => Some(kid.clone()),
        Some(_) => return Err(TokenError::Kid),
    };
    Ok((algorithm.ok_or(TokenError::Algorithm)?, kid))
}

fn is_token(kind: &str) -> bool {
    let kind = kind.to_ascii_lowercase();
    matches!(
        kind.strip_prefix("application/").unwrap_or(&kind),
        "jwt" | "at+jwt"
    )
}
