//! What the claims of a verified token must say, and what they say about the caller.
//!
//! Source: RFC 7519, section 4.1; RFC 9068, section 2.2.

use serde_json::{Map, Value};

use super::{Issuer, LEEWAY_SECONDS, TokenError};
use crate::policy::identity::{Claims, Source};

/// Which claims hold what a caller may do: a name, or a path of names through objects, joined by dots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClaimNames {
    /// Where the scopes are; absent, `scope` or `scp`.
    pub scopes: Option<String>,
    /// Where the roles are; absent, `roles`.
    pub roles: Option<String>,
}

/// Checks the claims of a token whose signature holds; `now` in seconds of Unix time.
pub(super) fn check(issuer: &Issuer, claims: &Map<String, Value>, now: u64) -> Result<u64, TokenError> {
    audience(issuer, claims)?;
    let leeway = LEEWAY_SECONDS as f64;
    // Exact for the next 285 million years.
    let now = now as f64;
    let end = date(claims, "exp")?.ok_or(TokenError::NoExpiry)?;
    if now >= end + leeway {
        return Err(TokenError::Expired);
    }
    for (name, early) in [("nbf", TokenError::NotYet), ("iat", TokenError::FromTheFuture)] {
        if date(claims, name)?.is_some_and(|begin| begin > now + leeway) {
            return Err(early);
        }
    }
    Ok(whole(end + leeway))
}

/// A date of a claim in whole seconds, rounded up: what is compared with whole seconds holds as long.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is rounded, positive, and far below the largest number"
)]
fn whole(date: f64) -> u64 {
    date.ceil().clamp(0.0, 9e15) as u64
}

fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<f64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_f64() {
            Some(date) if (0.0..1e15).contains(&date) => Ok(Some(date)),
            Some(_) | None => Err(TokenError::Date(name)),
        },
        Some(_) => Err(TokenError::Date(name)),
    }
}

fn audience(issuer: &Issuer, claims: &Map<String, Value>) -> Result<(), TokenError> {
    let known = |name: &str| issuer.audiences.iter().any(|audience| audience == name);
    let meant = match claims.get("aud") {
        Some(Value::String(name)) => known(name),
        Some(Value::Array(names)) => {
            let mut meant = false;
            for name in names {
                let Value::String(name) = name else {
                    return Err(TokenError::Audience);
                };
                meant |= known(name);
            }
            meant
        }
        Some(_) | None => false,
    };
    if meant { Ok(()) } else { Err(TokenError::Audience) }
}

/// Who calls, by the claims of a token that holds until `expires`.
pub(super) fn caller(
    issuer: &Issuer,
    claims: Map<String, Value>,
    expires: u64,
) -> Result<Claims, TokenError> {
    // A token for a program may have no subject; it is issued to a client all the same.
    let principal = ["sub", "client_id", "azp"]
        .into_iter()
        .find_map(|name| claims.get(name))
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty())
        .ok_or(TokenError::NoSubject)?
        .to_owned();
    let names = &issuer.names;
    let scopes = match &names.scopes {
        Some(path) => words(at(&claims, path)),
        None => words(claims.get("scope").or_else(|| claims.get("scp"))),
    };
    let roles = words(at(&claims, names.roles.as_deref().unwrap_or("roles")));
    Ok(Claims {
        principal,
        issuer: Some(issuer.name.clone()),
        source: Source::Token,
        scopes,
        roles,
        others: claims,
        expires: Some(expires),
    })
}

/// The claim of this name, or else what the names between the dots lead to.
pub(in crate::policy) fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let mut names = path.split('.');
    let mut value = claims.get(names.next()?)?;
    for name in names {
        value = value.as_object()?.get(name)?;
    }
    Some(value)
}

/// The words of the claim that a name or a path leads to.
pub(in crate::policy) fn words_at(claims: &Map<String, Value>, path: &str) -> Vec<String> {
    words(at(claims, path))
}

/// A list of texts, or one text with words in it.
fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Some(Value::Array(items)) => {
            let texts = items.iter().filter_map(Value::as_str);
            texts.map(str::to_owned).collect()
        }
        Some(_) | None => Vec::new(),
    }
}
