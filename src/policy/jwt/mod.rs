//! JSON Web Tokens: read strictly, verified with the keys of the issuer that they name.
//!
//! The signature library is used directly, without a token library between: an issuer's algorithms are bound to its keys
//! when the keys are read, all of RFC 7518 is there (P-521 too), and a key is parsed once, not for each token. No
//! network, no clock.

mod algorithm;
mod claims;
mod token;

use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use thiserror::Error;

pub use algorithm::{Algorithm, KeyKind};
pub use claims::ClaimNames;
pub(super) use claims::{at, words_at};
pub use token::MAX_TOKEN_BYTES;

use super::identity::{ForwardedClaim, Identity};
use super::jwks::{KeySet, Store};
use token::Token;

/// How far the clocks of issuer and gateway may differ.
pub const LEEWAY_SECONDS: u64 = 30;

/// A part of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first.
    Header,
    /// The second.
    Claims,
    /// The third.
    Signature,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Claims => "claims part",
            Self::Signature => "signature",
        })
    }
}

/// Why a token is not believed. `Display` says it after "the token".
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenError {
    /// It passes [`MAX_TOKEN_BYTES`].
    #[error("is larger than {MAX_TOKEN_BYTES} bytes")]
    TooLarge,
    /// It is not header, claims and signature.
    #[error("has {0} parts between dots, not three")]
    Parts(usize),
    /// A part is empty, or not base64url in its one spelling.
    #[error("is not well formed: the {0} is not base64url without padding")]
    Base64(Part),
    /// A part is not a JSON object, or has a name twice.
    #[error("is not well formed: the {0} is not a JSON object in which each name stands once")]
    Json(Part),
    /// It needs an extension that the gateway does not have.
    #[error("needs an extension that is not known here")]
    Extension,
    /// It is signed, and not to say who calls.
    #[error("is of a type that is no access token")]
    Type,
    /// Its algorithm is unknown, `none`, or not one that its issuer may use.
    #[error("is signed by an algorithm that is not taken here")]
    Algorithm,
    /// The name of its key is not a text, or too long.
    #[error("names its key by something that is no name")]
    Kid,
    /// It has no issuer, or one that is not believed.
    #[error("comes from an issuer that is not trusted here")]
    Issuer,
    /// The issuer has no key of that name and algorithm.
    #[error("is signed with a key that its issuer does not have")]
    UnknownKey,
    /// The issuer's keys are not known.
    #[error("can't be checked, because the keys of its issuer are not known")]
    NoKeys,
    /// The signature is wrong.
    #[error("has a signature that does not hold")]
    Signature,
    /// It is for somebody else, or does not say for whom.
    #[error("is not meant for this service: its audience is another")]
    Audience,
    /// It does not say until when it holds.
    #[error("has no expiry (\"exp\")")]
    NoExpiry,
    /// A date is no number of seconds.
    #[error("has a \"{0}\" that is no number of seconds")]
    Date(&'static str),
    /// It does not hold any more.
    #[error("has expired")]
    Expired,
    /// It does not hold yet.
    #[error("does not hold yet (\"nbf\")")]
    NotYet,
    /// It says that it was made later than now.
    #[error("was issued in the future (\"iat\")")]
    FromTheFuture,
    /// It does not say who calls.
    #[error("does not say for whom it was issued (\"sub\")")]
    NoSubject,
}

/// Where the keys of an issuer are.
#[derive(Clone, Debug)]
pub enum Keys {
    /// They do not change.
    Fixed(Arc<KeySet>),
    /// They are fetched.
    Fetched(Arc<Store>),
}

/// One issuer whose tokens are believed.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// Its name, which `iss` must be, letter by letter.
    pub name: String,
    /// Whom its tokens are for: `aud` must have one of them.
    pub audiences: Vec<String>,
    /// The algorithms that it may use.
    pub algorithms: Vec<Algorithm>,
    /// Its keys.
    pub keys: Keys,
    /// Where its tokens say what a caller may do.
    pub names: ClaimNames,
}

/// Verifies the tokens of some issuers.
#[derive(Clone, Debug, Default)]
pub struct Verifier {
    /// The issuers.
    pub issuers: Vec<Issuer>,
    /// Which claims backends are told.
    pub forwarded: Vec<ForwardedClaim>,
}

/// A token that is believed.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Who calls.
    pub identity: Arc<Identity>,
    /// Whose token it is, by position.
    pub issuer: usize,
    /// The generation of the keys that said so.
    pub generation: u64,
}

/// A token that is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disbelieved {
    /// Why.
    pub error: TokenError,
    /// Which issuer it names, by position, and the name of the key, where another look at the issuer's keys may help.
    pub missing: Option<(usize, Option<String>)>,
}

impl From<TokenError> for Disbelieved {
    fn from(error: TokenError) -> Self {
        Self { error, missing: None }
    }
}

impl Verifier {
    /// Verifies a token; `now` in seconds of Unix time.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, token: &str, now: u64) -> Result<Verified, Disbelieved> {
        let token = Token::read(token)?;
        let name = token.claims.get("iss").and_then(Value::as_str);
        let (at, issuer) = self
            .issuers
            .iter()
            .enumerate()
            .find(|(_, issuer)| Some(issuer.name.as_str()) == name)
            .ok_or(TokenError::Issuer)?;
        if !issuer.algorithms.contains(&token.algorithm) {
            return Err(TokenError::Algorithm.into());
        }
        let missing = |error| Disbelieved {
            error,
            missing: Some((at, token.kid.clone())),
        };
        let (keys, generation) = issuer.keys.now().ok_or_else(|| missing(TokenError::NoKeys))?;
        let mut candidates = keys.candidates(token.kid.as_deref(), token.algorithm).peekable();
        if candidates.peek().is_none() {
            return Err(missing(TokenError::UnknownKey));
        }
        if !candidates.any(|key| key.verifies(token.signed, &token.signature)) {
            return Err(TokenError::Signature.into());
        }
        let expires = claims::check(issuer, &token.claims, now)?;
        let caller = claims::caller(issuer, token.claims, expires)?;
        Ok(Verified {
            identity: Arc::new(Identity::new(caller, &self.forwarded)),
            issuer: at,
            generation,
        })
    }

    /// Whether what was verified by keys of a generation would be by those of now.
    pub(super) fn is_current(&self, verified: &Verified) -> bool {
        match self.issuers.get(verified.issuer).map(|issuer| &issuer.keys) {
            Some(Keys::Fixed(_)) => true,
            Some(Keys::Fetched(store)) => store.generation() == Some(verified.generation),
            None => false,
        }
    }
}

impl Keys {
    /// The keys that hold now, and their generation.
    fn now(&self) -> Option<(Arc<KeySet>, u64)> {
        match self {
            Self::Fixed(set) => Some((Arc::clone(set), 0)),
            Self::Fetched(store) => store.now(),
        }
    }
}

#[cfg(test)]
mod tests;
