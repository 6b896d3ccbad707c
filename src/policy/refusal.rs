//! Why the gate says no, and what a client is told about it.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use thiserror::Error;

use super::access::Denied;
use super::jwt::TokenError;
use crate::fault::{Denial, Fault, Kind, Side};
use crate::wire::screen::Barred;

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
    /// The ticket is not known, was used before, or has expired.
    #[error("the ticket is not known: it opens one WebSocket, for a short time")]
    Ticket,
    /// The API key has expired.
    #[error("the API key has expired")]
    ExpiredKey,
    /// The name and the password are nobody's.
    #[error("the name or the password is not right")]
    Password,
    /// More passwords are being checked than there is room for.
    #[error("too many passwords are being checked; try again")]
    Busy,
    /// Whoever issued the opaque token says that it does not hold, or not here.
    #[error("the token is not active, or not meant for this service")]
    Inactive,
    /// The token was taken back before it expired.
    #[error("the token has been revoked")]
    Revoked,
    /// Whether the token was taken back is not known.
    #[error("whether the token has been revoked can't be checked now; try again")]
    RevocationUnknown,
    /// Whoever could say what the request may do does not say.
    #[error("who calls can't be checked now; try again")]
    Unasked,
    /// An authorization service says no; what it said is for clients of HTTP.
    #[error("{}", told(.0))]
    External(Box<Denial>),
    /// The client certificate names nobody.
    #[error("the client certificate names nobody: it needs a URI or a DNS name as subject alternative name")]
    Certificate,
    /// The client's address is not taken on this route.
    #[error("requests from this address are not taken here")]
    Address,
    /// The request looks as this rule says; the client is not told which.
    #[error("requests that look like this are not taken here")]
    Blocked(String),
    /// A cookie says who calls, and the body is one that any page can send by a form.
    #[error(
        "header content-type: with a cookie that says who calls, a form is not taken; send application/json"
    )]
    Form,
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
            Self::Token(TokenError::NoKeys) | Self::Busy | Self::Unasked | Self::RevocationUnknown => {
                Kind::IdentityUnavailable
            }
            Self::Revoked => Kind::CredentialsRevoked,
            Self::Token(TokenError::Expired) | Self::ExpiredKey => Kind::CredentialsExpired,
            Self::Header
            | Self::Token(_)
            | Self::UnknownKey
            | Self::Password
            | Self::Ticket
            | Self::Inactive
            | Self::Certificate => Kind::CredentialsInvalid,
            // A redirect leads to where a visitor says who it is.
            Self::External(denial)
                if denial.status == StatusCode::UNAUTHORIZED || denial.status.is_redirection() =>
            {
                Kind::CredentialsInvalid
            }
            Self::External(_) => Kind::PermissionDenied,
            Self::Address => Kind::AddressDenied,
            Self::Blocked(_) => Kind::RequestBlocked,
            Self::Form => Kind::UnsupportedMediaType,
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
            Self::Inactive | Self::Revoked => bearer(realm, "invalid_token", &message).into_iter().collect(),
            Self::Denied(_)
            | Self::Address
            | Self::Blocked(_)
            | Self::Form
            | Self::Origin
            | Self::External(_)
            | Self::Busy
            | Self::RevocationUnknown
            | Self::Unasked => Vec::new(),
            Self::Missing(_)
            | Self::Header
            | Self::UnknownKey
            | Self::ExpiredKey
            | Self::Password
            | Self::Ticket
            | Self::Certificate => challenges.to_vec(),
        };
        let fault = Fault::client(kind, message).challenging(challenges);
        match self {
            Self::External(denial) => fault.denied_with((**denial).clone()),
            _ => fault,
        }
    }
}

impl From<Barred<'_>> for Refusal {
    fn from(barred: Barred<'_>) -> Self {
        match barred {
            Barred::Address => Self::Address,
            Barred::Rule(rule) => Self::Blocked(rule.to_owned()),
        }
    }
}

/// What a client of any dialect is told of a denial: its own words if they are a short text.
fn told(denial: &Denial) -> String {
    let own = std::str::from_utf8(&denial.body)
        .ok()
        .map(str::trim)
        .filter(|text| !text.is_empty() && text.len() <= 256 && !text.contains(['<', '{']))
        .filter(|text| !text.chars().any(char::is_control));
    own.unwrap_or("an authorization service does not let this pass")
        .to_owned()
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
