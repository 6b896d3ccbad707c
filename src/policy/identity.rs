//! Who calls, as far as it was proven, and how a backend is told.

use std::fmt::Write as _;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::wire::apart;

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A JSON Web Token.
    Token,
    /// An API key.
    ApiKey,
    /// A name and a password.
    Password,
    /// A client certificate.
    Certificate,
    /// An opaque token, which whoever issued it vouches for.
    Introspection,
    /// An authorization service said so.
    External,
}

impl Source {
    /// The word for it in headers and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "jwt",
            Self::ApiKey => "api_key",
            Self::Password => "basic",
            Self::Certificate => "mtls",
            Self::Introspection => "introspection",
            Self::External => "ext_authz",
        }
    }
}

/// What was proven about a caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims {
    /// Who it is: the subject of a token, the label of a key, the name of a user or of a certificate.
    pub principal: String,
    /// Who vouches for it, where that is not the gateway itself.
    pub issuer: Option<String>,
    /// How it was proven.
    pub source: Source,
    /// What it was granted.
    pub scopes: Vec<String>,
    /// Which parts it plays.
    pub roles: Vec<String>,
    /// Everything else that is vouched for.
    pub others: Map<String, Value>,
    /// Until when it holds, in seconds of Unix time.
    pub expires: Option<u64>,
}

/// A caller who proved who it is, with what backends are told.
#[derive(Clone, Debug)]
pub struct Identity {
    claims: Claims,
    key: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Which of the limits of its file's keys are its own, if it has some.
    own_limits: Option<usize>,
}

const PRINCIPAL: HeaderName = HeaderName::from_static("x-sabir-principal");
const ISSUER: HeaderName = HeaderName::from_static("x-sabir-issuer");
const SOURCE: HeaderName = HeaderName::from_static("x-sabir-auth");
const SCOPES: HeaderName = HeaderName::from_static("x-sabir-scopes");
const ROLES: HeaderName = HeaderName::from_static("x-sabir-roles");

/// What the names of headers that carry claims begin with.
const CLAIM: &str = "x-sabir-claim-";

impl Identity {
    /// An identity whose `forwarded` claims are told to backends too.
    pub fn new(claims: Claims, forwarded: &[ForwardedClaim]) -> Self {
        let mut headers = vec![
            (PRINCIPAL, text(&claims.principal)),
            (SOURCE, HeaderValue::from_static(claims.source.name())),
        ];
        if let Some(issuer) = &claims.issuer {
            headers.push((ISSUER, text(issuer)));
        }
        if !claims.scopes.is_empty() {
            headers.push((SCOPES, list(&claims.scopes)));
        }
        if !claims.roles.is_empty() {
            headers.push((ROLES, list(&claims.roles)));
        }
        for forwarded in forwarded {
            let value = match claims.others.get(&forwarded.claim) {
                None | Some(Value::Null) => continue,
                Some(Value::String(value)) => text(value),
                Some(value) => text(&value.to_string()),
            };
            headers.push((apart::name(&forwarded.header), value));
        }
        let key = format!(
            "{}|{}|{}",
            claims.source.name(),
            claims.issuer.as_deref().unwrap_or_default(),
            claims.principal
        );
        Self {
            claims,
            key,
            headers,
            own_limits: None,
        }
    }

    /// A copy that is counted apart from this one, with what it tells backends: for one worker.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self {
            headers: self.headers.iter().map(apart::field).collect(),
            ..self.clone()
        }
    }

    /// The same, whose calls are bounded by these of the limits that keys of its file have of their own.
    #[must_use]
    pub fn with_own_limits(self, at: usize) -> Self {
        Self {
            own_limits: Some(at),
            ..self
        }
    }

    /// Which of the limits that keys of its file have of their own are its, if it has some.
    pub fn own_limits(&self) -> Option<usize> {
        self.own_limits
    }

    /// What was proven.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Who it is.
    pub fn principal(&self) -> &str {
        &self.claims.principal
    }

    /// A text that no other caller has, whoever vouches for it: two issuers may use the same name for two people.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Whether it still holds at this second of Unix time.
    pub fn holds(&self, now: u64) -> bool {
        self.claims.expires.is_none_or(|end| now < end)
    }

    /// Tells a backend who calls. What a client wrote under these names was taken out before.
    pub fn tell(&self, metadata: &mut HeaderMap) {
        for (name, value) in &self.headers {
            metadata.insert(name, value.clone());
        }
    }
}

/// A claim that backends are told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ForwardedClaim {
    claim: String,
    header: HeaderName,
}

impl ForwardedClaim {
    /// The claim of this name, told as `x-sabir-claim-NAME`; `None` for a name that can't stand in a header's.
    pub fn new(claim: &str) -> Option<Self> {
        let name = claim.to_ascii_lowercase().replace('_', "-");
        let header = HeaderName::try_from(format!("{CLAIM}{name}")).ok()?;
        Some(Self {
            claim: claim.to_owned(),
            header,
        })
    }
}

/// Names separated by spaces; a space within a name is escaped.
fn list(names: &[String]) -> HeaderValue {
    let escaped: Vec<String> = names.iter().map(|name| escaped(name, " ")).collect();
    value(escaped.join(" "))
}

fn text(plain: &str) -> HeaderValue {
    value(escaped(plain, ""))
}

/// Everything but visible ASCII and inner spaces as `%XX`, so that every name has one header value.
pub(super) fn escaped(plain: &str, also: &str) -> String {
    let mut out = String::with_capacity(plain.len());
    for (at, byte) in plain.bytes().enumerate() {
        let edge = at == 0 || at + 1 == plain.len();
        let letter = char::from(byte);
        if !matches!(byte, b' '..=b'~') || byte == b'%' || also.contains(letter) || (edge && byte == b' ') {
            // Writing to a string never fails.
            let _ = write!(out, "%{byte:02X}");
        } else {
            out.push(letter);
        }
    }
    out
}

fn value(text: String) -> HeaderValue {
    // Visible ASCII always is a header value; were it not so, an empty one claims nothing.
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_is_told_in_visible_ascii() {
        let claims = Claims {
            principal: " Zoë%\r\n".into(),
            issuer: Some("https://id.example.com/".into()),
            source: Source::Token,
            scopes: vec!["a".into(), "b c".into()],
            roles: Vec::new(),
            others: serde_json::json!({"tenant_id": 7, "gone": null, "secret": "x"})
                .as_object()
                .cloned()
                .unwrap(),
            expires: Some(10),
        };
        let forwarded: Vec<_> = ["tenant_id", "gone", "absent"]
            .into_iter()
            .filter_map(ForwardedClaim::new)
            .collect();
        let identity = Identity::new(claims, &forwarded);
        let mut metadata = HeaderMap::new();
        metadata.append("x-sabir-principal", HeaderValue::from_static("root"));
        identity.tell(&mut metadata);
        let mut told: Vec<_> = metadata
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        told.sort();
        assert_eq!(
            told,
            [
                "x-sabir-auth: jwt",
                "x-sabir-claim-tenant-id: 7",
                "x-sabir-issuer: https://id.example.com/",
                "x-sabir-principal: %20Zo%C3%AB%25%0D%0A",
                "x-sabir-scopes: a b%20c",
            ]
        );
        assert!(identity.holds(9) && !identity.holds(10));
        assert!(ForwardedClaim::new("https://x/y").is_none());
    }
}
