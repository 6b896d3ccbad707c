//! Keys of `auth:` about passwords, and about services outside that are asked who calls.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::{HeaderWord, Period, SecretText, Url};

/// Names and passwords by `Authorization: Basic`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Basic {
    /// A file as `htpasswd -B` writes it: `NAME:HASH` a line, hashes by bcrypt (cost up to 15) or argon2 (up to 1 GiB and 32
    /// passes), read when the gateway starts. Half of the cores check passwords at most, 512 callers wait at most; what
    /// was right is remembered, what was wrong for 10 s.
    pub file: Located<PathBuf>,
}

/// Opaque tokens in `Authorization: Bearer`, about which their issuer is asked by RFC 7662. Beside `jwt`, tokens that
/// look like one are taken for one.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// Where it is asked.
    pub url: Located<Url>,
    /// Who the gateway is to it.
    pub client_id: Located<String>,
    /// How the gateway proves that.
    #[schemars(with = "String")]
    pub client_secret: Located<SecretText>,
    /// Whom tokens are for: `aud` has one of these. Default: anybody, as far as the issuer says that the token is active.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Authorities in PEM for its certificate. Default: those of the system.
    pub ca: Option<Located<PathBuf>>,
    /// How long an answer may take. Default: 1s.
    pub timeout: Option<Period>,
    /// How long an answer is believed, and never beyond the token's `exp`; 60s at most. Default: 60s.
    pub cache: Option<Located<Period>>,
    /// The member of the answer with the scopes, or a path of names joined by dots. Default: `scope`.
    pub scopes_claim: Option<String>,
    /// The member with the roles, or a path of names joined by dots. Default: `roles`.
    pub roles_claim: Option<String>,
}

/// A service that decides whether a request may pass, after the caller has proven who it is, where another key of the
/// block asks for that. It sees the head of the request and nothing of its body. What it denies is told to clients of
/// HTTP in its words, to others by a status.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExtAuthz {
    /// A service with `envoy.service.auth.v3.Authorization/Check`, such as `http://127.0.0.1:9191`. Excludes `http`.
    pub grpc: Option<Located<Url>>,
    /// A URL that is asked by GET: 2xx lets the request pass, anything else but 5xx denies it. It is told the request by
    /// `x-forwarded-method`, `-proto`, `-host`, `-uri` and `-for`. Excludes `grpc`.
    pub http: Option<Located<Url>>,
    /// Authorities in PEM for its certificate. Default: those of the system.
    pub ca: Option<Located<PathBuf>>,
    /// How long an answer may take. Default: 250ms.
    pub timeout: Option<Period>,
    /// What becomes of a request when there is no answer in time, or one that makes no sense.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Which headers the service is told, beside what the gateway says itself. Default: with `grpc` all, with `http`
    /// `authorization` and `cookie`.
    pub request_headers: Option<Vec<Located<HeaderWord>>>,
    /// Which headers of a 2xx answer backends get. What a client writes there is taken out; with `grpc` too, whose
    /// service may write others as well.
    #[serde(default)]
    pub upstream_headers: Vec<Located<HeaderWord>>,
    /// Which of them names the caller: for `authorize`, for limits, and as `x-sabir-principal` for backends. Default: the
    /// service names nobody.
    pub principal_header: Option<Located<HeaderWord>>,
    /// How long answers count for requests that are alike. Default: each request is asked about.
    pub cache: Option<Located<VerdictCache>>,
}

/// What becomes of a request when the service does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// It is refused with 503, or `UNAVAILABLE`.
    #[default]
    Deny,
    /// It passes.
    Allow,
}

/// How long answers count for requests with the same method, host, path, query, client address and caller, and with the
/// same values of some headers.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VerdictCache {
    /// How long; 5m at most.
    pub ttl: Located<Period>,
    /// Which headers: all that the service looks at. Default: `authorization` and `cookie`.
    pub headers: Option<Vec<Located<HeaderWord>>>,
}

/// Tickets for pages, whose scripts can't set a header on the handshake of a WebSocket: a caller who has proven who it
/// is gets one by POST, and opens one WebSocket with it, as the subprotocol `ticket.TICKET` or as `?sabir-ticket=TICKET`.
/// A ticket is taken by the process that gave it.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TicketsSection {
    /// Where they are given: a path that no route has, such as `/tickets`.
    pub path: Located<String>,
    /// How long a ticket holds; 5m at most. Default: 30s.
    pub ttl: Option<Located<Period>>,
}
