//! The gateway's own errors: the only ones that a client sees in the gateway's name.
//!
//! A status that an upstream sent is data (`End`), never a `Fault`. What a client is told is decided
//! here, in `From<&Fault> for Status`, and rendered in one place per dialect (`frontend::refuse`).

#![deny(clippy::wildcard_enum_match_arm)]

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use prost::Message as _;

use crate::status::{Code, Status};

/// The domain of every `google.rpc.ErrorInfo` that the gateway writes.
pub const DOMAIN: &str = "sabir";

/// Who is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client sent something wrong, asked too much, or went away.
    Client,
    /// The gateway itself.
    Gateway,
    /// The upstream misbehaved or can't be reached.
    Upstream,
}

/// What went wrong. Each kind has one reason, one gRPC code and one HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request line, a header or the framing is not valid.
    BadRequest,
    /// No route for this host and path.
    RouteNotFound,
    /// The path is known, the HTTP method is not bound to it.
    MethodNotAllowed,
    /// The page that opened the WebSocket is not one that may.
    OriginDenied,
    /// The WebSocket handshake is of another version.
    WebSocketVersion,
    /// The content type, charset or content encoding is not taken here.
    UnsupportedMediaType,
    /// The route exists and the method can't be served this way.
    Unimplemented,
    /// A path variable, query parameter or body does not fit the message.
    InvalidArgument,
    /// A message or body passed its limit.
    MessageTooLarge,
    /// The URL passed its limit.
    UriTooLong,
    /// The header section passed its limit.
    HeadersTooLarge,
    /// The route wants to know who calls, and the request does not say.
    CredentialsMissing,
    /// The request says who calls, and not convincingly.
    CredentialsInvalid,
    /// What the request says about who calls held once.
    CredentialsExpired,
    /// What the request says about who calls was taken back.
    CredentialsRevoked,
    /// The caller is known and may not do this.
    PermissionDenied,
    /// Who calls can't be checked now.
    IdentityUnavailable,
    /// The client's address is not taken here.
    AddressDenied,
    /// The request looks like what is blocked here.
    RequestBlocked,
    /// The caller calls more often than it may.
    RateLimited,
    /// The caller has used up what it may use in this window of the calendar.
    QuotaExhausted,
    /// The caller has as many calls in flight as it may.
    ConcurrencyLimited,
    /// The client did not send its body in time.
    RequestTimeout,
    /// The deadline passed.
    DeadlineExceeded,
    /// The client went away.
    Cancelled,
    /// The gateway has no room now: connections, memory, or it is draining.
    Overloaded,
    /// The backend has not told its schema yet.
    SchemaPending,
    /// No endpoint of the backend could be reached.
    UpstreamUnavailable,
    /// The upstream broke the connection or reset the stream.
    UpstreamReset,
    /// The upstream fails too often, and is sent nothing for a while.
    CircuitOpen,
    /// The upstream's stream ended without a status.
    Truncated,
    /// The upstream sent what its protocol does not allow.
    UpstreamProtocol,
    /// The upstream's message does not fit its descriptor.
    UpstreamMessage,
    /// The upstream's message passed its limit.
    UpstreamMessageTooLarge,
    /// A bug in the gateway.
    Internal,
}

impl Kind {
    /// Every kind, for tables and metrics.
    pub const ALL: [Self; 35] = [
        Self::BadRequest,
        Self::RouteNotFound,
        Self::MethodNotAllowed,
        Self::OriginDenied,
        Self::WebSocketVersion,
        Self::UnsupportedMediaType,
        Self::Unimplemented,
        Self::InvalidArgument,
        Self::MessageTooLarge,
        Self::UriTooLong,
        Self::HeadersTooLarge,
        Self::CredentialsMissing,
        Self::CredentialsInvalid,
        Self::CredentialsExpired,
        Self::CredentialsRevoked,
        Self::PermissionDenied,
        Self::IdentityUnavailable,
        Self::AddressDenied,
        Self::RequestBlocked,
        Self::RateLimited,
        Self::QuotaExhausted,
        Self::ConcurrencyLimited,
        Self::RequestTimeout,
        Self::DeadlineExceeded,
        Self::Cancelled,
        Self::Overloaded,
        Self::SchemaPending,
        Self::UpstreamUnavailable,
        Self::UpstreamReset,
        Self::CircuitOpen,
        Self::Truncated,
        Self::UpstreamProtocol,
        Self::UpstreamMessage,
        Self::UpstreamMessageTooLarge,
        Self::Internal,
    ];

    /// The stable reason in `google.rpc.ErrorInfo`, records and metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "BAD_REQUEST",
            Self::RouteNotFound => "ROUTE_NOT_FOUND",
            Self::MethodNotAllowed => "METHOD_NOT_ALLOWED",
            Self::OriginDenied => "ORIGIN_DENIED",
            Self::WebSocketVersion => "WEBSOCKET_VERSION",
            Self::UnsupportedMediaType => "UNSUPPORTED_MEDIA_TYPE",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::MessageTooLarge => "MESSAGE_TOO_LARGE",
            Self::UriTooLong => "URI_TOO_LONG",
            Self::HeadersTooLarge => "HEADERS_TOO_LARGE",
            Self::CredentialsMissing => "CREDENTIALS_MISSING",
            Self::CredentialsInvalid => "CREDENTIALS_INVALID",
            Self::CredentialsExpired => "CREDENTIALS_EXPIRED",
            Self::CredentialsRevoked => "CREDENTIALS_REVOKED",
            Self::PermissionDenied => "PERMISSION_DENIED",
            Self::IdentityUnavailable => "IDENTITY_UNAVAILABLE",
            Self::AddressDenied => "ADDRESS_DENIED",
            Self::RequestBlocked => "REQUEST_BLOCKED",
            Self::RateLimited => "RATE_LIMITED",
            Self::QuotaExhausted => "QUOTA_EXHAUSTED",
            Self::ConcurrencyLimited => "CONCURRENCY_LIMITED",
            Self::RequestTimeout => "REQUEST_TIMEOUT",
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::Cancelled => "CANCELLED",
            Self::Overloaded => "OVERLOADED",
            Self::SchemaPending => "SCHEMA_PENDING",
            Self::UpstreamUnavailable => "UPSTREAM_UNAVAILABLE",
            Self::UpstreamReset => "UPSTREAM_RESET",
            Self::CircuitOpen => "CIRCUIT_OPEN",
            Self::Truncated => "UPSTREAM_TRUNCATED",
            Self::UpstreamProtocol => "UPSTREAM_PROTOCOL",
            Self::UpstreamMessage => "UPSTREAM_MESSAGE",
            Self::UpstreamMessageTooLarge => "UPSTREAM_MESSAGE_TOO_LARGE",
            Self::Internal => "INTERNAL",
        }
    }

    /// The gRPC code that stands for it.
    pub fn code(self) -> Code {
        match self {
            Self::BadRequest
            | Self::WebSocketVersion
            | Self::UnsupportedMediaType
            | Self::InvalidArgument
            | Self::UriTooLong => Code::InvalidArgument,
            Self::OriginDenied | Self::AddressDenied | Self::RequestBlocked => Code::PermissionDenied,
            Self::RouteNotFound => Code::NotFound,
            Self::MethodNotAllowed | Self::Unimplemented => Code::Unimplemented,
            Self::MessageTooLarge
            | Self::HeadersTooLarge
            | Self::UpstreamMessageTooLarge
            | Self::RateLimited
            | Self::QuotaExhausted
            | Self::ConcurrencyLimited => Code::ResourceExhausted,
            Self::RequestTimeout | Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::Overloaded
            | Self::SchemaPending
            | Self::IdentityUnavailable
            | Self::UpstreamUnavailable
            | Self::CircuitOpen
            | Self::UpstreamReset => Code::Unavailable,
            Self::CredentialsMissing
            | Self::CredentialsInvalid
            | Self::CredentialsExpired
            | Self::CredentialsRevoked => Code::Unauthenticated,
            Self::PermissionDenied => Code::PermissionDenied,
            Self::Truncated => Code::Unknown,
            Self::UpstreamProtocol | Self::UpstreamMessage | Self::Internal => Code::Internal,
        }
    }

    /// The HTTP status for a REST client.
    pub fn http_status(self) -> StatusCode {
        match self {
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::WebSocketVersion => StatusCode::UPGRADE_REQUIRED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::MessageTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UpstreamReset
            | Self::Truncated
            | Self::UpstreamProtocol
            | Self::UpstreamMessage
            | Self::UpstreamMessageTooLarge => StatusCode::BAD_GATEWAY,
            Self::BadRequest
            | Self::OriginDenied
            | Self::RouteNotFound
            | Self::Unimplemented
            | Self::InvalidArgument
            | Self::DeadlineExceeded
            | Self::Cancelled
            | Self::Overloaded
            | Self::SchemaPending
            | Self::CredentialsMissing
            | Self::CredentialsInvalid
            | Self::CredentialsExpired
            | Self::CredentialsRevoked
            | Self::PermissionDenied
            | Self::IdentityUnavailable
            | Self::AddressDenied
            | Self::RequestBlocked
            | Self::RateLimited
            | Self::QuotaExhausted
            | Self::ConcurrencyLimited
            | Self::UpstreamUnavailable
            | Self::CircuitOpen
            | Self::Internal => self.code().http_status(),
        }
    }
}

/// An answer to a client of plain HTTP that a service outside has written which decides for the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Never a success.
    pub status: StatusCode,
    /// Those that a client may be told.
    pub headers: HeaderMap,
    /// Empty where the gateway's own words do.
    pub body: Bytes,
}

/// An error of the gateway's own making. One pointer wide: it travels in every `Result` of the call path.
#[derive(Debug)]
pub struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    side: Side,
    message: String,
    allow: Option<String>,
    challenges: Vec<HeaderValue>,
    retry_after: Option<Duration>,
    denial: Option<Box<Denial>>,
    beside: Vec<(HeaderName, HeaderValue)>,
    limit: Option<Box<str>>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Fault {
    /// A fault with what a client is told about it.
    ///
    /// The message says what was wrong and what would be right; it names no secret and no internal address.
    pub fn new(kind: Kind, side: Side, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            side,
            message: message.into(),
            allow: None,
            challenges: Vec::new(),
            retry_after: None,
            denial: None,
            beside: Vec::new(),
            limit: None,
            source: None,
        }))
    }

    /// A fault of the client.
    pub fn client(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(kind, Side::Client, message)
    }

    /// A fault of the gateway.
    pub fn gateway(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(kind, Side::Gateway, message)
    }

    /// A fault of the upstream.
    pub fn upstream(kind: Kind, message: impl Into<String>) -> Self {
        Self::new(kind, Side::Upstream, message)
    }

    /// The same, caused by `source`: for the record, never for the client.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same, with the value of the `Allow` header.
    #[must_use]
    pub fn allowing(mut self, methods: impl Into<String>) -> Self {
        self.0.allow = Some(methods.into());
        self
    }

    /// The same, with the values of the `WWW-Authenticate` header: how a client may say who it is.
    #[must_use]
    pub fn challenging(mut self, challenges: Vec<HeaderValue>) -> Self {
        self.0.challenges = challenges;
        self
    }

    /// The same, with the time after which trying again may help.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// The same, with the answer that a client of plain HTTP gets instead of the gateway's own.
    #[must_use]
    pub fn denied_with(mut self, denial: Denial) -> Self {
        self.0.denial = Some(Box::new(denial));
        self
    }

    /// The same, with a header that goes with it in every dialect.
    #[must_use]
    pub fn beside(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.beside.push((name, value));
        self
    }

    /// The same, with the name of the limit that was met: for the record.
    #[must_use]
    pub fn of_limit(mut self, name: &str) -> Self {
        self.0.limit = Some(name.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Who is at fault.
    pub fn side(&self) -> Side {
        self.0.side
    }

    /// What the client is told.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The value of the `Allow` header, on a 405.
    pub fn allow(&self) -> Option<&str> {
        self.0.allow.as_deref()
    }

    /// The values of the `WWW-Authenticate` header, on a 401 or 403.
    pub fn challenges(&self) -> &[HeaderValue] {
        &self.0.challenges
    }

    /// The answer of whoever decided, for a client of plain HTTP.
    pub fn denial(&self) -> Option<&Denial> {
        self.0.denial.as_deref()
    }

    /// Headers that go with it in every dialect.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.0.beside
    }

    /// The name of the limit that was met.
    pub fn limit(&self) -> Option<&str> {
        self.0.limit.as_deref()
    }

    /// When trying again may help.
    pub fn delay(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error for Fault {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// `google.rpc.ErrorInfo`, fields 1 and 2.
#[derive(Clone, PartialEq, prost::Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

impl From<&Fault> for Status {
    fn from(fault: &Fault) -> Self {
        let mut details = vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: ErrorInfo {
                reason: fault.kind().reason().to_owned(),
                domain: DOMAIN.to_owned(),
            }
            .encode_to_vec(),
        }];
        if let Some(delay) = fault.delay() {
            details.push(prost_types::Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: RetryInfo {
                    retry_delay: prost_types::Duration::try_from(delay).ok(),
                }
                .encode_to_vec(),
            });
        }
        Self::with_details(fault.kind().code(), fault.message(), details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_distinct() {
        let reasons: std::collections::HashSet<_> = Kind::ALL.iter().map(|kind| kind.reason()).collect();
        assert_eq!(reasons.len(), Kind::ALL.len());
    }

    #[test]
    fn a_status_carries_the_reason_and_never_the_cause() {
        let fault = Fault::upstream(Kind::UpstreamReset, "the upstream reset the stream")
            .caused_by("connection to 10.0.0.7 lost");
        let status = Status::from(&fault);
        assert_eq!(status.code, Code::Unavailable);
        let text = String::from_utf8_lossy(&status.details).into_owned();
        assert!(text.contains("UPSTREAM_RESET") && text.contains("sabir"));
        assert!(!text.contains("10.0.0.7") && !status.message.contains("10.0.0.7"));
    }
}
