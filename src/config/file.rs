//! The configuration as written: one struct per block, one field per key. The documentation of a field is what the
//! JSON Schema and `sabir config schema` say about the key.

pub mod auth;
pub mod backend;
pub mod balance;
pub mod cors;
pub mod endpoints;
pub mod fallback;
pub mod limits;
pub mod outside;
pub mod redis;
pub mod relay;
pub mod revocation;
pub mod route;
pub mod screen;
pub mod throttle;
pub mod websocket;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub use auth::{Auth, Jwks, Jwt, SignatureAlgorithm};
pub use backend::{
    Backend, BackendTimeout, BackendTls, ProtoFiles, Protocol, Rest, SCHEMA_NAME, SchemaSource, Statuses,
    StreamEnvelope, is_schema_name,
};
pub use balance::{
    CircuitBreaker, Ejection, HealthCheck, HealthKind, Hedge, HedgeAfter, LoadBalancing, Retry, SlowAnswers,
    Sticky, SuccessRate, Switch,
};
pub use cors::Cors;
pub use endpoints::{Endpoints, Found, Listed};
pub use fallback::{Fallback, FixedAnswer, Page};
pub use limits::{LimitsSection, ListenerLimits};
pub use outside::{Basic, ExtAuthz, Introspection, OnFailure, TicketsSection};
pub use redis::{OnLoss, Redis};
pub use relay::{AskedHost, EncodedSlash, HeaderChanges, Mirror, Redirect, Relay, Rewrite, Share};
pub use revocation::{Revocation, RevocationOnLoss};
pub use route::{
    DeclaredPolicies, Json, PathOwned, PathUnescape, Query, Route, RouteLimits, Streaming, TrailingSlash,
    UnknownFields, UnknownParameters,
};
pub use screen::{Addresses, Block, Errors, ServerMessages};
pub use throttle::{AdaptiveConcurrency, LoadShedding, Priority, RateLimit};
pub use websocket::WebSocketSection;

use super::load::Origin;
use super::located::Located;
use super::value::{Address, Count, Network, SecretText, Services};

/// Where a gateway listens that is not told otherwise.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// Where its admin listener is.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9901);

/// The configuration of a gateway.
///
/// `${NAME}` and `${NAME:-default}` in a value read the environment, `${file:PATH}` a file. Paths are relative to the
/// folder of the configuration.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Sabir", rename = "Configuration")]
pub struct File {
    /// Where clients connect. Every listener speaks every protocol.
    #[serde(default = "default_listeners")]
    #[schemars(extend("default" = [{"address": "127.0.0.1:8080"}]))]
    pub listeners: Vec<Located<Listener>>,
    /// The operator's listener: `/livez`, `/readyz`, `/metrics` and the admin API.
    #[serde(default)]
    #[schemars(extend("default" = {"address": "127.0.0.1:9901"}))]
    pub admin: Admin,
    /// A folder for what the gateway keeps, such as registered schemas; it is made if it is not there. Default: none, and
    /// what is registered is forgotten when the process ends.
    pub data_dir: Option<Located<PathBuf>>,
    /// Worker threads. Default: one per core.
    pub workers: Option<Count>,
    /// The zone that the gateway runs in, such as `${ZONE}`. Endpoints of the same zone are preferred, as long as 70 % of
    /// them are healthy. Default: none.
    pub zone: Option<String>,
    /// Limits and time-outs for every listener, backend and route.
    #[serde(default)]
    pub limits: LimitsSection,
    /// Groups of endpoints that offer the same services, by name.
    #[serde(default)]
    pub backends: BTreeMap<String, Located<Backend>>,
    /// Which services are exposed and which backend answers them.
    #[serde(default)]
    pub routes: Vec<Located<Route>>,
    /// How callers prove who they are, by the name that routes use. A route without `auth` is open to anybody.
    #[serde(default)]
    pub auth: BTreeMap<String, Located<Auth>>,
    /// Server reflection: what the gateway tells about what it exposes. It is told to anybody who can connect, unless
    /// this says otherwise.
    #[serde(default)]
    pub reflection: Reflection,
    /// How often callers may call, by the name that routes use.
    #[serde(default)]
    pub rate_limits: BTreeMap<String, Located<RateLimit>>,
    /// When calls are shed because the gateway has more to do than it can. Default: never; `{}` turns it on.
    pub load_shedding: Option<Located<LoadShedding>>,
    /// By what the nodes of a cluster share limits. Default: each has its own.
    pub redis: Option<Located<Redis>>,
    /// Where all this comes from.
    #[serde(skip)]
    pub origin: Origin,
}

fn default_listeners() -> Vec<Located<Listener>> {
    vec![Located::default_of(Listener::at(Address(DEFAULT_LISTEN)))]
}

/// Server reflection.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Reflection {
    /// Whether it is there.
    #[schemars(extend("default" = true))]
    pub enabled: bool,
    /// How callers prove who they are before they are told anything: a name of `auth`. Default: they need not.
    pub auth: Option<Located<String>>,
    /// Which services it lists, of those that are exposed, written as in a route. Default: all.
    pub services: Vec<Located<Services>>,
}

impl Default for Reflection {
    fn default() -> Self {
        Self {
            enabled: true,
            auth: None,
            services: Vec::new(),
        }
    }
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// An IP address and a port; port 0 takes any that is free.
    pub address: Located<Address>,
    /// Certificates. Absent: cleartext HTTP/1.1, and HTTP/2 with prior knowledge.
    pub tls: Option<Located<ListenerTls>>,
    /// Proxies whose `X-Forwarded-For` is believed. Default: none.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Which client addresses are let in. A connection from another is closed at once.
    #[serde(default)]
    pub addresses: Addresses,
    /// What requests are refused, whatever they ask for.
    #[serde(default)]
    pub block: Vec<Located<Block>>,
    /// Limits of this listener, where they differ from the gateway's.
    #[serde(default)]
    pub limits: ListenerLimits,
}

impl Listener {
    /// A listener in cleartext, with everything else as it is by default.
    pub fn at(address: Address) -> Self {
        Self {
            address: Located::default_of(address),
            tls: None,
            trusted_proxies: Vec::new(),
            addresses: Addresses::default(),
            block: Vec::new(),
            limits: ListenerLimits::default(),
        }
    }
}

/// The certificates of a listener: one pair, or several of which the client's server name chooses.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// The certificate chain in PEM, the server's own first.
    pub certificate: Option<Located<PathBuf>>,
    /// Its private key in PEM.
    pub key: Option<Located<PathBuf>>,
    /// Further pairs. The first pair of all answers clients that name no server, or an unknown one.
    #[serde(default)]
    pub certificates: Vec<CertificatePair>,
    /// Authorities in PEM, one of which must have signed a client's certificate. Present: mutual TLS.
    pub client_ca: Option<Located<PathBuf>>,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificatePair {
    /// The certificate chain in PEM, the server's own first.
    pub certificate: Located<PathBuf>,
    /// Its private key in PEM.
    pub key: Located<PathBuf>,
}

/// The operator's listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// An IP address and a port; port 0 takes any that is free.
    #[serde(default = "default_admin")]
    #[schemars(extend("default" = "127.0.0.1:9901"))]
    pub address: Located<Address>,
    /// What everything but `/livez` and `/readyz` wants as `Authorization: Bearer TOKEN`: at least 32 characters, best from
    /// `${file:PATH}`. An address that is not on loopback needs it, or `tls.client_ca`. Default: none.
    pub token: Option<Located<SecretText>>,
    /// Certificates. Absent: cleartext.
    pub tls: Option<Located<ListenerTls>>,
}

impl Admin {
    /// At an address, and open to whoever can connect.
    pub fn at(address: Located<Address>) -> Self {
        Self {
            address,
            token: None,
            tls: None,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self::at(default_admin())
    }
}

fn default_admin() -> Located<Address> {
    Located::default_of(Address(DEFAULT_ADMIN))
}
