//! A set of keys, each bound to the algorithms that may be used with it.
//!
//! Source: RFC 7517; RFC 7518, section 6; RFC 8037, section 2.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::ParsedPublicKey;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::policy::json;
use crate::policy::jwt::{Algorithm, KeyKind};

/// Keys of one set: issuers have a handful.
const MAX_KEYS: usize = 100;
/// The shortest and the longest modulus of an RSA key: 2,048 and 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why a text is no set of keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetError {
    /// It is not a JSON object with a list of keys.
    #[error("it is not a JSON Web Key set: an object with a list \"keys\"")]
    Json,
    /// There are too many.
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    /// None of them can be used.
    #[error(
        "it has no key that can be used here: RSA from 2048 bits on, P-256, P-384, P-521 or Ed25519, public, for signatures"
    )]
    NoKey,
    /// A shared secret is shorter than what the algorithm makes of it.
    #[error("the secret is shorter than the {0} bytes that its algorithm needs")]
    ShortSecret(usize),
}

/// The keys of one issuer.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// A key with one algorithm.
pub struct Key {
    kid: Option<String>,
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("kid", &self.kid)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl KeySet {
    /// Reads a set. Keys that can't be used are passed over: an issuer may have others for other ends. Shared secrets
    /// and private keys are never taken from a set.
    ///
    /// # Errors
    /// [`SetError`]: nothing can be used.
    pub fn parse(text: &[u8]) -> Result<Self, SetError> {
        let set = json::object(text).ok_or(SetError::Json)?;
        let Some(Value::Array(items)) = set.get("keys") else {
            return Err(SetError::Json);
        };
        if items.len() > MAX_KEYS {
            return Err(SetError::TooMany);
        }
        let keys: Vec<Key> = items
            .iter()
            .filter_map(Value::as_object)
            .filter_map(read)
            .flatten()
            .collect();
        if keys.is_empty() {
            return Err(SetError::NoKey);
        }
        Ok(Self { keys })
    }

    /// The set of an issuer that shares a secret with the gateway.
    ///
    /// # Errors
    /// [`SetError::ShortSecret`]. Source: RFC 7518, section 3.2.
    pub fn shared(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, SetError> {
        let mut keys = Vec::new();
        for algorithm in algorithms {
            let Some(parameters) = algorithm.hmac() else {
                continue;
            };
            if secret.len() < parameters.tag_len() {
                return Err(SetError::ShortSecret(parameters.tag_len()));
            }
            keys.push(Key {
                kid: None,
                algorithm: *algorithm,
                material: Material::Secret(Box::new(hmac::Key::new(parameters, secret))),
            });
        }
        if keys.is_empty() {
            return Err(SetError::NoKey);
        }
        Ok(Self { keys })
    }

    /// The keys by which a token with this header may be signed.
    ///
    /// A token that names its key is checked with that key alone. One that does not is checked with the only key that
    /// its algorithm fits, and with none where there are several: guessing would let one token cost many checks.
    pub fn candidates<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Key> {
        let fits = move |key: &&Key| key.algorithm == algorithm;
        let several = kid.is_none() && self.keys.iter().filter(fits).nth(1).is_some();
        let named = move |key: &&Key| match (kid, &key.material) {
            (None, _) => !several,
            // A shared secret has no name, so the name of a key says nothing against it.
            (Some(_), Material::Secret(_)) => true,
            (Some(kid), Material::Public(_)) => key.kid.as_deref() == Some(kid),
        };
        // Two keys of one name are the issuer's mistake; it is not repaired by trying them all.
        self.keys.iter().filter(fits).filter(named).take(2)
    }

    /// How many keys there are, each counted once for each of its algorithms.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

impl Key {
    /// Whether the key made this signature.
    pub fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Public(key) => key.verify_sig(signed, signature).is_ok(),
            Material::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
        }
    }
}

/// One key with each algorithm for which it may be used; `None` when it is not for signatures, or not public.
fn read(key: &Map<String, Value>) -> Option<Vec<Key>> {
    // A set that is published with private keys in it is compromised.
    if key.contains_key("d") || key.contains_key("k") {
        return None;
    }
    if text(key, "use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    if let Some(operations) = key.get("key_ops") {
        let verifies = |operation: &Value| operation.as_str() == Some("verify");
        if !operations.as_array()?.iter().any(verifies) {
            return None;
        }
    }
    let kid = match key.get("kid") {
        None => None,
        Some(kid) => Some(kid.as_str()?.to_owned()),
    };
    let kind = kind(key)?;
    let bound = match key.get("alg") {
        None => None,
        Some(name) => Some(Algorithm::named(name.as_str()?)?),
    };
    let keys: Vec<Key> = Algorithm::ALL
        .into_iter()
        .filter(|algorithm| algorithm.key() == kind)
        .filter(|algorithm| bound.is_none_or(|bound| bound == *algorithm))
        .filter_map(|algorithm| {
            Some(Key {
                kid: kid.clone(),
                algorithm,
                material: Material::Public(public(key, algorithm)?),
            })
        })
        .collect();
    (!keys.is_empty()).then_some(keys)
}

fn kind(key: &Map<String, Value>) -> Option<KeyKind> {
    match (text(key, "kty")?, text(key, "crv")) {
        ("RSA", _) => Some(KeyKind::Rsa),
        ("EC", Some("P-256")) => Some(KeyKind::P256),
        ("EC", Some("P-384")) => Some(KeyKind::P384),
        ("EC", Some("P-521")) => Some(KeyKind::P521),
        ("OKP", Some("Ed25519")) => Some(KeyKind::Ed25519),
        _ => None,
    }
}

fn public(key: &Map<String, Value>, algorithm: Algorithm) -> Option<ParsedPublicKey> {
    let number = |name: &str| json::base64url(text(key, name)?);
    if let Some(parameters) = algorithm.rsa() {
        let (n, e) = (number("n")?, number("e")?);
        // Some libraries write the zero by which a number is marked as positive.
        let n = n.strip_prefix(&[0]).unwrap_or(&n);
        if !RSA_BYTES.contains(&n.len()) {
            return None;
        }
        return PublicKeyComponents { n, e: &e }
            .to_parsed_public_key(parameters)
            .ok();
    }
    let point = match algorithm.key() {
        KeyKind::P256 => point(&number("x")?, &number("y")?, 32)?,
        KeyKind::P384 => point(&number("x")?, &number("y")?, 48)?,
        KeyKind::P521 => point(&number("x")?, &number("y")?, 66)?,
        KeyKind::Ed25519 => number("x")?,
        KeyKind::Rsa | KeyKind::Secret => return None,
    };
    ParsedPublicKey::new(algorithm.curve()?, point).ok()
}

/// A point in its uncompressed form; coordinates have exactly the length of the curve's field.
fn point(x: &[u8], y: &[u8], length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [&[4], x, y].concat())
}

fn text<'a>(key: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    key.get(name)?.as_str()
}
