//! Why the gate says no, and what a client is told about it.

use std::time::Duration;

use http::HeaderValue;
use thiserror::Error;

use super::access::Denied;
use super::jwt::TokenError;
use crate::fault::{Fault, Kind, Side};

/// Why a caller is not let in. `Display` is what the client is told; no credential is in it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The request carries nothing that says who calls.
    #[error("this needs a caller that says who it is: {0}")]
    Missing(String),
    /// There is more than one `Authorization` header, or one that is no text.
    #[error("the Authorization header can't be read; send one, such as `Authorization: Bearer TOKEN`")]
    Header,
    /// The token is not believed.
    #[error("the token {0}")]
    Token(TokenError),
    /// The API key is not known.
    #[error("the API key is not known")]
    UnknownKey,
    /// The API key has expired.
    #[error("the API key has expired")]
    ExpiredKey,
    /// The client certificate names nobody.
    #[error("the client certificate names nobody: it needs a URI or a DNS name as subject alternative name")]
    Certificate,
    /// A cookie says who calls, and a page of somebody else made the call.
    #[error("a page of another origin can't call with the cookies of its visitor")]
    Origin,
    /// The caller is known, and no rule lets it in.
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl Refusal {
    /// Its kind: the reason that records and metrics use.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Missing(_) => Kind::CredentialsMissing,
            Self::Token(TokenError::NoKeys) => Kind::IdentityUnavailable,
            Self::Token(TokenError::Expired) | Self::ExpiredKey => Kind::CredentialsExpired,
            Self::Header | Self::Token(_) | Self::UnknownKey | Self::Certificate => Kind::CredentialsInvalid,
            Self::Origin => Kind::OriginDenied,
            Self::Denied(_) => Kind::PermissionDenied,
        }
    }

    /// The fault that a client sees; `challenges` say how it may prove who it is.
    pub(super) fn fault(&self, realm: &str, challenges: &[HeaderValue]) -> Fault {
        let message = self.to_string();
        let kind = self.kind();
        if kind == Kind::IdentityUnavailable {
            // The keys are the gateway's to have.
            return Fault::new(kind, Side::Gateway, message).retry_after(Duration::from_secs(1));
        }
        let challenges = match self {
            Self::Token(error) => bearer(realm, "invalid_token", &format!("the token {error}"))
                .into_iter()
                .collect(),
            Self::Denied(denied) if !denied.scopes.is_empty() => {
                let scopes = denied.scopes.join(" ");
                let error = format!("insufficient_scope\", scope=\"{}", quotable(&scopes));
                bearer(realm, &error, &message).into_iter().collect()
            }
            Self::Denied(_) | Self::Origin => Vec::new(),
            Self::Missing(_) | Self::Header | Self::UnknownKey | Self::ExpiredKey | Self::Certificate => {
                challenges.to_vec()
            }
        };
        Fault::client(kind, message).challenging(challenges)
    }
}

/// What a client that may send a token is told about the one that it sent. Source: RFC 6750, section 3.
fn bearer(realm: &str, error: &str, description: &str) -> Option<HeaderValue> {
    let (realm, description) = (quotable(realm), quotable(description));
    HeaderValue::try_from(format!(
        "Bearer realm=\"{realm}\", error=\"{error}\", error_description=\"{description}\""
    ))
    .ok()
}

/// A text without what would end a quoted string, or is not visible ASCII.
pub(super) fn quotable(text: &str) -> String {
    text.chars()
        .map(|letter| match letter {
            '"' | '\\' => '\'',
            ' '..='~' => letter,
            _ => '?',
        })
        .collect()
}
