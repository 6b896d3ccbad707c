//! Where the page comes from that opens a WebSocket.
//!
//! Source: RFC 6454, section 7.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// A scheme, a host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// In lower case.
    scheme: String,
    /// In lower case; an IPv6 address in brackets.
    host: String,
    port: u16,
}

/// The text is no origin such as `https://app.example.com`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an origin is a scheme and a host with an optional port, such as https://app.example.com")]
pub struct OriginError;

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (scheme, authority) = text.split_once("://").ok_or(OriginError)?;
        let standard = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => 80,
            "https" | "wss" => 443,
            // Extensions of browsers have schemes of their own, and no port.
            _ => 0,
        };
        let (host, port) = split(authority, standard).ok_or(OriginError)?;
        let plain = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+-.[]:_".contains(&byte))
        };
        if !plain(scheme) || !plain(host) {
            return Err(OriginError);
        }
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

/// Host and port of an authority.
fn split(authority: &str, standard: u16) -> Option<(&str, u16)> {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => Some((host, port.parse().ok()?)),
        Some(_) | None => Some((authority, standard)),
    }
}

impl Origin {
    /// Whether a request to this `Host` comes from a page of the same host and port.
    ///
    /// A host without a port has the standard port of the page's scheme: behind a proxy that ends TLS, the gateway
    /// can't tell the scheme by itself.
    pub fn is_of(&self, host: &str) -> bool {
        let standard = if self.scheme == "https" { 443 } else { 80 };
        split(host, standard)
            .is_some_and(|(host, port)| host.eq_ignore_ascii_case(&self.host) && port == self.port)
    }

    /// Whether the page is the machine's own: `localhost`, a name below it, or a loopback address.
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || bare
                .parse::<IpAddr>()
                .is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_by_scheme_host_and_port() {
        let origin: Origin = "https://App.example.com".parse().unwrap();
        assert_eq!(origin, "https://app.example.com:443".parse().unwrap());
        assert_ne!(origin, "http://app.example.com:443".parse().unwrap());
        for (host, same) in [
            ("app.example.com", true),
            ("APP.example.com:443", true),
            ("app.example.com:8443", false),
            ("example.com", false),
        ] {
            assert_eq!(origin.is_of(host), same, "{host}");
        }
        for text in [
            "null",
            "",
            "app.example.com",
            "https://",
            "https://a/b",
            "https://a:x",
            "https://u@a",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_machine_itself_has_many_names() {
        for (text, loopback) in [
            ("http://localhost:3000", true),
            ("http://app.localhost", true),
            ("http://127.9.0.1", true),
            ("http://[::1]:8080", true),
            ("http://[::ffff:127.0.0.1]", true),
            ("http://localhost.example.com", false),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(text.parse::<Origin>().unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
