//! Host patterns: one name, or every name below one.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// Which hosts a route answers. No pattern at all means every host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// This host alone, in lower case and without a port.
    Exact(Box<str>),
    /// Every host that ends in this, which begins with a dot: `*.example.com` is `.example.com`.
    Below(Box<str>),
}

/// Why a host pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a host name such as `api.example.com` or `*.example.com`, without a port")]
pub struct HostError;

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let address = !below
            && name.starts_with('[')
            && name.ends_with(']')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_hexdigit() || b"[]:.".contains(&byte));
        let label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        if !address && !name.split('.').all(label) {
            return Err(HostError);
        }
        let name = name.to_ascii_lowercase();
        Ok(if below {
            Self::Below(format!(".{name}").into())
        } else {
            Self::Exact(name.into())
        })
    }
}

impl Host {
    /// Whether the pattern covers the host of an authority, with or without a port.
    pub fn matches(&self, authority: &str) -> bool {
        let host = normal(authority);
        match self {
            Self::Exact(name) => **name == *host,
            Self::Below(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// The host of an authority, for comparing: no port, no dot at the end, lower case.
pub(super) fn normal(authority: &str) -> Cow<'_, str> {
    let name = match authority.rfind(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some(colon) if !authority.get(colon..).unwrap_or_default().contains(']') => {
            authority.get(..colon).unwrap_or_default()
        }
        _ => authority,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The suffixes of a host that begin with a dot, the longest first.
pub(super) fn suffixes(host: &str) -> impl Iterator<Item = &str> {
    // A pattern asks for a label before its suffix.
    memchr::memchr_iter(b'.', host.as_bytes())
        .filter(|at| *at > 0)
        .filter_map(|at| host.get(at..))
}
