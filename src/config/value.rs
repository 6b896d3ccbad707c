//! The values of a configuration that have a text of their own: sizes, durations, addresses of endpoints, patterns.
//!
//! Errors are what a value is not, such as `is not a size; write …`: the reader puts the value before them.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::uri::Authority;
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};
use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer};

use crate::policy::condition::Condition;
use crate::policy::identity::ForwardedClaim;
use crate::policy::time::number_and_unit;

pub use crate::policy::throttle::written::{Often, PerWindow};
pub use crate::policy::time::Period;

/// A value that is written as one text.
trait Text: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// What the text is not, and what would be valid.
    fn from_text(text: &str) -> Result<Self, String>;
}

macro_rules! written_as_text {
    ($($type:ty, $name:literal, $schema:tt;)*) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = Cow::<str>::deserialize(deserializer)?;
                Self::from_text(&text).map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

written_as_text! {
    Size, "Size", {
        "type": ["string", "integer"],
        "minimum": 1,
        "pattern": "^[1-9][0-9]*(B|KiB|MiB|GiB)?$"
    };
    Period, "Period", {
        "type": "string",
        "pattern": "^[0-9]*[1-9][0-9]*(ms|s|m|h)$"
    };
    Pause, "Pause", {
        "type": "string",
        "pattern": "^[0-9]+(ms|s|m|h)$"
    };
    StatusRange, "StatusRange", {
        "type": ["string", "integer"],
        "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$",
        "examples": [200, "200-299"]
    };
    HttpStatus, "HttpStatus", {
        "type": "integer",
        "minimum": 200,
        "maximum": 599
    };
    Hidden, "Hidden", {
        "type": "string",
        "examples": ["${CONSUL_TOKEN}"]
    };
    Percent, "Percent", {
        "type": "integer",
        "minimum": 0,
        "maximum": 100
    };
    Count, "Count", {
        "type": "integer",
        "minimum": 1
    };
    Address, "Address", {
        "type": "string",
        "examples": ["127.0.0.1:8080", "[::]:8443"]
    };
    Network, "Network", {
        "type": "string",
        "examples": ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]
    };
    Endpoint, "Endpoint", {
        "type": "string",
        "pattern": "^(https?|wss?)://",
        "examples": ["http://127.0.0.1:50051", "https://library.example.com", "ws://127.0.0.1:9000"]
    };
    Site, "Site", {
        "type": "string",
        "examples": ["https://app.example.com", "http://localhost:3000"]
    };
    Services, "Services", {
        "type": "string",
        "examples": ["*", "library.v1.*", "library.v1.Library"]
    };
    Origin, "Origin", {
        "type": "string",
        "examples": ["https://app.example.com", "http://localhost:3000", "*"]
    };
    HeaderPattern, "HeaderPattern", {
        "type": "string",
        "examples": ["authorization", "*"]
    };
    ClaimName, "ClaimName", {
        "type": "string",
        "examples": ["email", "tenant_id"]
    };
    HeaderWord, "HeaderWord", {
        "type": "string",
        "examples": ["x-api-key"]
    };
    Methods, "Methods", {
        "type": "string",
        "examples": ["library.v1.Library/GetBook", "library.v1.Library/*", "*"]
    };
    RedisUrl, "RedisUrl", {
        "type": "string",
        "pattern": "^rediss?://",
        "examples": ["redis://127.0.0.1:6379", "rediss://gateway:${REDIS_PASSWORD}@redis.example.com"]
    };
    SecretText, "SecretText", {
        "type": "string",
        "minLength": 32,
        "examples": ["${file:issuer.secret}"]
    };
    Url, "Url", {
        "type": "string",
        "pattern": "^https?://",
        "examples": ["https://id.example.com/keys"]
    };
    Pattern, "Pattern", {
        "type": "string",
        "format": "regex",
        "examples": ["(?i)sqlmap", "\\.php$"]
    };
    Expression, "Expression", {
        "type": "string",
        "maxLength": 4096,
        "examples": ["request.path.startsWith('/v1/') && identity.claims.tenant == message.tenant"]
    };
    Often, "Often", {
        "type": "string",
        "pattern": "^[1-9][0-9]*/([1-9][0-9]*)?(ms|s|m|h)$",
        "examples": ["100/s", "1000/m", "5/10s"]
    };
    BytesOften, "BytesOften", {
        "type": "string",
        "pattern": "^[1-9][0-9]*(B|KiB|MiB|GiB)?/([1-9][0-9]*)?(ms|s|m|h)$",
        "examples": ["1MiB/s", "64KiB/s"]
    };
    PerWindow, "PerWindow", {
        "type": "string",
        "pattern": "^[1-9][0-9]*/(hour|day|month)$",
        "examples": ["10000/day"]
    };
    Verb, "Verb", {
        "type": "string",
        "examples": ["GET", "POST"]
    };
}

/// A number of bytes, 1 to 2^31 - 1 or so: a plain number, or one with `B`, `KiB`, `MiB` or `GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u32);

/// The largest size: HTTP/2 windows, which are sizes too, end there.
const MAX_SIZE: u64 = (1 << 31) - 1;

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Text for Size {
    fn from_text(text: &str) -> Result<Self, String> {
        let not = || "is not a size; write bytes such as 4096, or 16KiB, 4MiB, 1GiB".to_owned();
        let (digits, unit) = number_and_unit(text);
        let scale = match unit {
            "" | "B" => 1,
            unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(not)?.1,
        };
        let number: u64 = digits.parse().map_err(|_| not())?;
        let bytes = number.checked_mul(scale).filter(|bytes| *bytes <= MAX_SIZE);
        match bytes.map(u32::try_from) {
            Some(Ok(0)) => Err("is no size to work with; write at least 1".to_owned()),
            Some(Ok(bytes)) => Ok(Self(bytes)),
            Some(Err(_)) | None => Err("is too large; the largest size is 2147483647 bytes".to_owned()),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = u64::from(self.0);
        match UNITS
            .iter()
            .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale))
        {
            Some((name, scale)) => write!(f, "{}{name}", bytes / scale),
            None => write!(f, "{bytes}"),
        }
    }
}

impl Text for Period {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

/// A length of time that may be none: `0s`, or a [`Period`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause(pub Duration);

impl Text for Pause {
    fn from_text(text: &str) -> Result<Self, String> {
        match text {
            "0ms" | "0s" | "0m" | "0h" => Ok(Self(Duration::ZERO)),
            text => Period::from_text(text).map(|period| Self(period.0)),
        }
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        Period(self.0).fmt(f)
    }
}

/// How many, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(pub u32);

impl Text for Count {
    fn from_text(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) | Err(_) => Err(format!("is not a number from 1 to {}", u32::MAX)),
            Ok(count) => Ok(Self(count)),
        }
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// HTTP statuses: one, or from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusRange(pub u16, pub u16);

impl Text for StatusRange {
    fn from_text(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let status = |text: &str| text.parse().ok().filter(|status| (100..600).contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first, last)),
            _ => Err("is no HTTP status; write one such as 200, or a range such as 200-299".to_owned()),
        }
    }
}

/// The HTTP status of an answer, 200 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpStatus(pub StatusCode);

impl Default for HttpStatus {
    fn default() -> Self {
        Self(StatusCode::OK)
    }
}

impl Text for HttpStatus {
    fn from_text(text: &str) -> Result<Self, String> {
        let status = text.parse().ok().filter(|status| (200..600).contains(status));
        status
            .and_then(|status| StatusCode::from_u16(status).ok())
            .map(Self)
            .ok_or_else(|| "is no HTTP status of an answer; write a number from 200 to 599".to_owned())
    }
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

impl Text for Hidden {
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// A whole number of percent, 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(pub u8);

impl Text for Percent {
    fn from_text(text: &str) -> Result<Self, String> {
        let percent = text.parse().ok().filter(|percent| *percent <= 100);
        percent
            .map(Self)
            .ok_or_else(|| "is not a number of percent from 0 to 100".to_owned())
    }
}

/// Where to listen: an IP address and a port; port 0 takes any that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub SocketAddr);

impl Text for Address {
    fn from_text(text: &str) -> Result<Self, String> {
        let not = "is not an address; write an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::]:8080";
        text.parse().map(Self).map_err(|_| not.to_owned())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}

/// A range of addresses, or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

impl Text for Network {
    fn from_text(text: &str) -> Result<Self, String> {
        let not = "is not a range of addresses; write one such as 10.0.0.0/8, 192.0.2.7 or fd00::/8";
        let one = || text.parse::<IpAddr>().ok().map(IpNet::from);
        text.parse()
            .ok()
            .or_else(one)
            .map(Self)
            .ok_or_else(|| not.to_owned())
    }
}

/// Where pages come from: a scheme and a host, maybe a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site(pub crate::wire::websocket::origin::Origin);

impl Text for Site {
    fn from_text(text: &str) -> Result<Self, String> {
        let not =
            "is not a site; write a scheme and a host with an optional port, such as https://app.example.com";
        text.parse().map(Self).map_err(|_| not.to_owned())
    }
}

/// Where a backend answers: `http://`, `https://`, `ws://` or `wss://`, a host, maybe a port, and maybe a path that is a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(pub Uri);

impl Text for Endpoint {
    fn from_text(text: &str) -> Result<Self, String> {
        let valid = "write one such as http://127.0.0.1:50051 or https://library.example.com";
        if !text.contains("://") {
            return Err(format!("has no scheme; did you mean \"http://{text}\"?"));
        }
        let uri: Uri = text
            .parse()
            .map_err(|error| format!("is not an endpoint: {error}; {valid}"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https" | "ws" | "wss")) {
            return Err(format!("has a scheme that is not known; {valid}"));
        }
        if uri
            .authority()
            .is_none_or(|authority| authority.as_str().contains('@'))
        {
            return Err(format!("has a user name in it; {valid}"));
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(format!("has no host; {valid}"));
        }
        let after_host = uri
            .authority()
            .and_then(|at| at.as_str().rsplit(']').next())
            .unwrap_or("");
        if after_host.contains(':') && matches!(uri.port_u16(), None | Some(0)) {
            return Err("has a port that is none; ports are 1 to 65535".to_owned());
        }
        if uri.query().is_some() || text.contains('#') {
            return Err(format!("has a query or a fragment; {valid}"));
        }
        Ok(Self(uri))
    }
}

impl Endpoint {
    /// Whether it is an endpoint of WebSockets.
    pub fn is_websocket(&self) -> bool {
        matches!(self.0.scheme_str(), Some("ws" | "wss"))
    }

    /// Whether it is reached over TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.0.scheme_str(), Some("https" | "wss"))
    }

    /// The URL that is dialled: a WebSocket begins as HTTP.
    pub fn dialled(&self) -> Uri {
        let mut parts = self.0.clone().into_parts();
        parts.scheme = Some(if self.is_secure() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        });
        // The other parts are those of a whole URL.
        Uri::from_parts(parts).unwrap_or_else(|_| self.0.clone())
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}

/// Which services a route takes: all, those whose full name begins in a certain way, or one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Services {
    /// `*`.
    All,
    /// `library.v1.*`; kept as `library.v1.`, with the dot.
    Below(String),
    /// `library.v1.Library`.
    One(String),
}

/// The packages of the services that the gateway answers itself.
const OWN: [&str; 2] = ["grpc.reflection.", "grpc.health."];

fn is_own(service: &str) -> bool {
    OWN.iter().any(|package| service.starts_with(package))
}

impl Services {
    /// Whether the pattern takes the service with this full name.
    pub fn take(&self, service: &str) -> bool {
        match self {
            // What the gateway answers itself is forwarded only where it is named.
            Self::All => !is_own(service),
            Self::Below(prefix) => {
                let names_it = OWN.iter().any(|package| prefix.starts_with(package));
                service.starts_with(prefix.as_str()) && (names_it || !is_own(service))
            }
            Self::One(name) => service == name,
        }
    }

    /// How specific the pattern is: a name before a prefix, a longer prefix before a shorter, `*` last.
    pub fn rank(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Below(prefix) => prefix.len(),
            Self::One(_) => usize::MAX,
        }
    }
}

impl Text for Services {
    fn from_text(text: &str) -> Result<Self, String> {
        let valid =
            "write \"*\", a package such as \"library.v1.*\" or a service such as \"library.v1.Library\"";
        if text == "*" {
            return Ok(Self::All);
        }
        let (names, below) = match text.strip_suffix(".*") {
            Some(names) => (names, true),
            None => (text, false),
        };
        let name = |name: &str| {
            let mut letters = name.chars();
            letters
                .next()
                .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
                && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
        };
        if !names.split('.').all(name) {
            return Err(format!("is not a pattern of services; {valid}"));
        }
        Ok(if below {
            Self::Below(format!("{names}."))
        } else {
            Self::One(names.to_owned())
        })
    }
}

impl fmt::Display for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Below(prefix) => write!(f, "{prefix}*"),
            Self::One(name) => f.write_str(name),
        }
    }
}

/// Whose pages may call: an origin as a browser writes it, or everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `*`.
    Any,
    /// Such as `https://app.example.com`.
    One(HeaderValue),
}

impl Text for Origin {
    fn from_text(text: &str) -> Result<Self, String> {
        let not = || {
            "is not an origin; write a scheme and a host such as https://app.example.com, or \"*\"".to_owned()
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        let (scheme, authority) = text.split_once("://").ok_or_else(not)?;
        let authority: Authority = authority.parse().map_err(|_| not())?;
        if scheme.is_empty() || authority.as_str().contains(['@', '*']) || authority.host().is_empty() {
            return Err(not());
        }
        let scheme = scheme.to_ascii_lowercase();
        let host = authority.host().to_ascii_lowercase();
        // A browser leaves the scheme's own port out.
        let origin = match (scheme.as_str(), authority.port_u16()) {
            (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}"),
            (_, Some(port)) => format!("{scheme}://{host}:{port}"),
        };
        HeaderValue::try_from(origin).map(Self::One).map_err(|_| not())
    }
}

/// The name of a header, or any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeaderPattern {
    /// `*`.
    Any,
    /// One name, in any case.
    One(HeaderName),
}

impl Text for HeaderPattern {
    fn from_text(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        text.parse()
            .map(Self::One)
            .map_err(|_| "is not the name of a header; write such as authorization, or \"*\"".to_owned())
    }
}

/// The name of a claim that can be told in a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimName(pub ForwardedClaim);

impl Text for ClaimName {
    fn from_text(text: &str) -> Result<Self, String> {
        ForwardedClaim::new(text).map(Self).ok_or_else(|| {
            "can't be part of a header's name; write a claim of letters, digits, - and _".to_owned()
        })
    }
}

/// The name of a header or a cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderWord(pub String);

impl Text for HeaderWord {
    fn from_text(text: &str) -> Result<Self, String> {
        // Cookies have the same letters, and keep their case. Source: RFC 6265, section 4.1.1.
        HeaderName::from_bytes(text.as_bytes())
            .map(|_| Self(text.to_owned()))
            .map_err(|_| "is not the name of a header or a cookie; write such as x-api-key".to_owned())
    }
}

/// Which methods: one, those of a service, or all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Methods {
    /// `*`.
    All,
    /// `library.v1.Library/*`.
    Of(String),
    /// `library.v1.Library/GetBook`.
    One(String),
}

impl Methods {
    /// Whether the pattern takes the method of this path, such as `/library.v1.Library/GetBook`.
    pub fn take(&self, path: &str) -> bool {
        let path = path.trim_start_matches('/');
        match self {
            Self::All => true,
            Self::Of(service) => path.rsplit_once('/').is_some_and(|(before, _)| before == service),
            Self::One(method) => path == method,
        }
    }
}

impl Text for Methods {
    fn from_text(text: &str) -> Result<Self, String> {
        let not = || {
            "is not a pattern of methods; write \"*\", \"library.v1.Library/*\" or \"library.v1.Library/GetBook\""
                .to_owned()
        };
        if text == "*" {
            return Ok(Self::All);
        }
        let (service, method) = text.split_once('/').ok_or_else(not)?;
        match (Services::from_text(service), method) {
            (Ok(Services::One(_)), "*") => Ok(Self::Of(service.to_owned())),
            (Ok(Services::One(_)), name) if !name.is_empty() && !name.contains(['/', '*']) => {
                Ok(Self::One(text.to_owned()))
            }
            _ => Err(not()),
        }
    }
}

impl FromStr for Methods {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}

impl Text for Often {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(str::to_owned)
    }
}

/// So many bytes in a stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BytesOften {
    /// How many.
    pub bytes: u32,
    /// In which time.
    pub period: Duration,
}

impl Text for BytesOften {
    fn from_text(text: &str) -> Result<Self, String> {
        let not =
            || "is no rate of bytes; write how many in which time, such as 1MiB/s or 64KiB/s".to_owned();
        let (size, time) = text.split_once('/').ok_or_else(not)?;
        let size = Size::from_text(size.trim()).map_err(|_| not())?;
        let often: Often = format!("1/{time}").parse().map_err(|_| not())?;
        Ok(Self {
            bytes: size.0,
            period: often.period,
        })
    }
}

impl Text for PerWindow {
    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(str::to_owned)
    }
}

/// A text that no error and no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(pub String);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

impl Text for SecretText {
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

/// Where Redis is. It may have a password in it, which no error and no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl(pub String);

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RedisUrl")
    }
}

impl Text for RedisUrl {
    fn from_text(text: &str) -> Result<Self, String> {
        let scheme = text
            .strip_prefix("redis://")
            .or_else(|| text.strip_prefix("rediss://"));
        let host = scheme
            .and_then(|rest| rest.rsplit('@').next())
            .and_then(|rest| rest.split('/').next());
        match host {
            Some(host) if !host.is_empty() && !host.starts_with(':') => Ok(Self(text.to_owned())),
            _ => Err(
                "is no URL of Redis; write such as redis://127.0.0.1:6379 or rediss://redis.example.com"
                    .to_owned(),
            ),
        }
    }
}

/// A URL that is asked: `http://` or `https://`, with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub Uri);

impl Text for Url {
    fn from_text(text: &str) -> Result<Self, String> {
        let not = || "is not a URL that can be asked; write such as https://id.example.com/keys".to_owned();
        let uri: Uri = text.parse().map_err(|_| not())?;
        let known = matches!(uri.scheme_str(), Some("http" | "https"));
        let named = uri.host().is_some_and(|host| !host.is_empty());
        let user = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        if known && named && !user {
            Ok(Self(uri))
        } else {
            Err(not())
        }
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::from_text(text)
    }
}

/// A regular expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub crate::wire::screen::Pattern);

impl Text for Pattern {
    fn from_text(text: &str) -> Result<Self, String> {
        crate::wire::screen::Pattern::parse(text)
            .map(Self)
            .map_err(|what| format!("is not a regular expression: {what}"))
    }
}

/// A condition in CEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression(pub Condition);

impl Text for Expression {
    fn from_text(text: &str) -> Result<Self, String> {
        Condition::parse(text)
            .map(Self)
            .map_err(|what| format!("is not a condition: {what}"))
    }
}

/// An HTTP method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verb(pub Method);

impl Text for Verb {
    fn from_text(text: &str) -> Result<Self, String> {
        let is_upper = text.bytes().all(|byte| byte.is_ascii_uppercase());
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if is_upper => Ok(Self(method)),
            Ok(_) | Err(_) => Err("is not an HTTP method; write such as GET or POST".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1", Some(1)),
            ("4096", Some(4096)),
            ("512B", Some(512)),
            ("16KiB", Some(16 << 10)),
            ("4MiB", Some(4 << 20)),
            ("1GiB", Some(1 << 30)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("2GiB", None),
            ("0", None),
            ("4MB", None),
            ("4 MiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("MiB", None),
            ("", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(Size::from_text(text).ok().map(|size| size.0), bytes, "{text}");
        }
        for text in ["1", "4097", "16KiB", "4MiB", "1GiB"] {
            assert_eq!(Size::from_text(text).expect("a size").to_string(), text);
        }
    }

    #[test]
    fn periods() {
        for (text, millis) in [
            ("1ms", Some(1)),
            ("250ms", Some(250)),
            ("10s", Some(10_000)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("0s", None),
            ("10", None),
            ("1.5s", None),
            ("1 s", None),
            ("-1s", None),
            ("10sec", None),
            ("100000000h", None),
            ("99999999999999999999s", None),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(
                Period::from_text(text).ok().map(|period| period.0),
                expected,
                "{text}"
            );
        }
        for text in ["1ms", "1500ms", "10s", "5m", "1h", "90s"] {
            assert_eq!(Period::from_text(text).expect("a duration").to_string(), text);
        }
    }

    #[test]
    fn endpoints() {
        for (text, valid) in [
            ("http://127.0.0.1:50051", true),
            ("https://library.example.com", true),
            ("http://[::1]:50051", true),
            ("http://127.0.0.1:9000/api", true),
            ("127.0.0.1:50051", false),
            ("grpc://127.0.0.1:50051", false),
            ("http://user:secret@127.0.0.1:1", false),
            ("http://", false),
            ("http://host:", false),
            ("http://host:0", false),
            ("http://host:70000", false),
            ("http://host/?a=b", false),
            ("http://host/#a", false),
            ("", false),
        ] {
            assert_eq!(
                Endpoint::from_text(text).is_ok(),
                valid,
                "{text}: {:?}",
                Endpoint::from_text(text)
            );
        }
    }

    #[test]
    fn services_take_what_they_name_and_nothing_else() {
        for (pattern, service, takes) in [
            ("*", "library.v1.Library", true),
            ("*", "grpc.health.v1.Health", false),
            ("grpc.*", "grpc.health.v1.Health", false),
            ("grpc.health.v1.*", "grpc.health.v1.Health", true),
            ("grpc.health.v1.Health", "grpc.health.v1.Health", true),
            ("*", "grpc.reflection.v1.ServerReflection", false),
            ("library.v1.*", "library.v1.Library", true),
            ("library.v1.*", "library.v1.deep.Library", true),
            ("library.v1.*", "library.v10.Library", false),
            ("library.v1.*", "library.v1", false),
            ("grpc.*", "grpc.reflection.v1.ServerReflection", false),
            ("library.v1.Library", "library.v1.Library", true),
            ("library.v1.Library", "library.v1.Library2", false),
            (
                "grpc.reflection.v1.*",
                "grpc.reflection.v1.ServerReflection",
                true,
            ),
        ] {
            let parsed = Services::from_text(pattern).expect("a pattern");
            assert_eq!(parsed.take(service), takes, "{pattern} {service}");
            assert_eq!(parsed.to_string(), pattern);
        }
        for pattern in ["", ".*", "a..b", "a.*.b", "*.Library", "a-b", "a/b", "lib*", "1a"] {
            assert!(Services::from_text(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_more_specific_pattern_has_the_higher_rank() {
        let ranks: Vec<usize> = ["*", "a.*", "a.b.*", "a.b.C"]
            .iter()
            .map(|text| Services::from_text(text).expect("a pattern").rank())
            .collect();
        assert!(ranks.is_sorted_by(|a, b| a < b), "{ranks:?}");
    }
}
