//! The configuration as written: one struct per block, one field per key. The documentation of a field is what the
//! JSON Schema and `sabir config schema` say about the key.

pub mod limits;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

pub use limits::{LimitsSection, ListenerLimits};

use super::load::Origin;
use super::located::Located;
use super::value::{Address, Count, Endpoint, Network, Period, Services, Size};

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
    /// The operator's listener: `/livez`, `/readyz` and `/metrics`.
    #[serde(default)]
    #[schemars(extend("default" = {"address": "127.0.0.1:9901"}))]
    pub admin: Admin,
    /// Worker threads. Default: one per core.
    pub workers: Option<Count>,
    /// Limits and time-outs for every listener, backend and route.
    #[serde(default)]
    pub limits: LimitsSection,
    /// Groups of endpoints that offer the same services, by name.
    #[serde(default)]
    pub backends: BTreeMap<String, Located<Backend>>,
    /// Which services are exposed and which backend answers them.
    #[serde(default)]
    pub routes: Vec<Located<Route>>,
    /// Where all this comes from.
    #[serde(skip)]
    pub origin: Origin,
}

fn default_listeners() -> Vec<Located<Listener>> {
    vec![Located::default_of(Listener::at(Address(DEFAULT_LISTEN)))]
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
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            address: default_admin(),
        }
    }
}

fn default_admin() -> Located<Address> {
    Located::default_of(Address(DEFAULT_ADMIN))
}

/// Endpoints that offer the same services.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// What the endpoints speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// Where they are: `http://` is HTTP/2 without TLS, `https://` HTTP/2 over TLS; a path is a prefix.
    #[schemars(length(min = 1))]
    pub endpoints: Located<Vec<Located<Endpoint>>>,
    /// Where the descriptors of the services come from: `reflection`, `{protos: …}` or `{descriptors: …}`.
    #[serde(default)]
    #[schemars(extend("default" = "reflection"))]
    pub schema: Located<SchemaSource>,
    /// Files with google.api.http rules in YAML or JSON, by the full names of methods; they replace what the
    /// descriptors say about the same method.
    #[serde(default)]
    pub rules: Vec<Located<PathBuf>>,
    /// How an endpoint is chosen for a call.
    #[serde(default)]
    pub load_balancing: LoadBalancing,
    /// How long connecting and calls may take.
    #[serde(default)]
    pub timeout: BackendTimeout,
    /// How `https://` endpoints are verified.
    pub tls: Option<Located<BackendTls>>,
}

/// What the endpoints of a backend speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// gRPC over HTTP/2.
    #[default]
    Grpc,
}

/// Where the descriptors of a backend's services come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum SchemaSource {
    /// The backend is asked, by server reflection.
    #[default]
    Reflection,
    /// `.proto` files.
    Protos(ProtoFiles),
    /// A `FileDescriptorSet`, as `protoc --include_imports --descriptor_set_out` and `buf build` write it.
    Descriptors(Located<PathBuf>),
}

/// `.proto` files and where their imports are.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtoFiles {
    /// Files, and folders of which every `.proto` below is taken.
    pub protos: Vec<Located<PathBuf>>,
    /// Where imports are looked up. Empty: each file's own folder.
    pub proto_paths: Vec<Located<PathBuf>>,
}

/// The keys of [`SchemaSource`] when it is a mapping.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SchemaKeys {
    /// `.proto` files, and folders of which every `.proto` below is taken.
    protos: Option<Vec<Located<PathBuf>>>,
    /// Where imports are looked up. Default: each file's own folder. Well-known types, `google/api`, `google/rpc` and
    /// `grpc` need no file.
    proto_paths: Option<Vec<Located<PathBuf>>>,
    /// A `FileDescriptorSet`, as `protoc --include_imports --descriptor_set_out` and `buf build` write it.
    descriptors: Option<Located<PathBuf>>,
}

const SCHEMA_FORMS: &str =
    "write reflection, {protos: [FILES or FOLDERS], proto_paths: [FOLDERS]} or {descriptors: FILE}";

impl TryFrom<SchemaKeys> for SchemaSource {
    type Error = String;

    fn try_from(keys: SchemaKeys) -> Result<Self, String> {
        match (keys.protos, keys.proto_paths, keys.descriptors) {
            (Some(protos), paths, None) if !protos.is_empty() => Ok(Self::Protos(ProtoFiles {
                protos,
                proto_paths: paths.unwrap_or_default(),
            })),
            (None, None, Some(descriptors)) => Ok(Self::Descriptors(descriptors)),
            (Some(_), _, Some(_)) => Err(format!("has both protos and descriptors; {SCHEMA_FORMS}")),
            (None, Some(_), Some(_)) => Err(format!("has proto_paths beside descriptors; {SCHEMA_FORMS}")),
            (Some(_) | None, _, None) => Err(format!("names no file; {SCHEMA_FORMS}")),
        }
    }
}

impl<'de> Deserialize<'de> for SchemaSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SourceVisitor;

        impl<'de> Visitor<'de> for SourceVisitor {
            type Value = SchemaSource;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a source of descriptors")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<SchemaSource, E> {
                Ok(SchemaSource::Reflection)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<SchemaSource, E> {
                match text {
                    "reflection" => Ok(SchemaSource::Reflection),
                    _ => Err(E::custom(format!(
                        "is not a source of descriptors; {SCHEMA_FORMS}"
                    ))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<SchemaSource, A::Error> {
                Err(serde::de::Error::custom(format!(
                    "is not a source of descriptors; {SCHEMA_FORMS}"
                )))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SchemaSource, A::Error> {
                let keys = SchemaKeys::deserialize(MapAccessDeserializer::new(map))?;
                keys.try_into().map_err(serde::de::Error::custom)
            }
        }

        deserializer.deserialize_any(SourceVisitor)
    }
}

impl JsonSchema for SchemaSource {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Schema".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<SchemaKeys>();
        json_schema!({
            "description": "Where the descriptors of a backend's services come from.",
            "anyOf": [{"const": "reflection", "description": "The backend is asked, by server reflection."}, keys]
        })
    }
}

/// How an endpoint is chosen for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoadBalancing {
    /// One after the other.
    RoundRobin,
    /// Of two taken at random, the one with fewer calls in flight.
    #[default]
    LeastRequest,
}

/// How long a backend may take.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendTimeout {
    /// Connecting to an endpoint. Default: `limits.connect_timeout`.
    pub connect: Option<Period>,
    /// A whole unary call. Default: `limits.request_timeout`.
    pub request: Option<Period>,
}

/// How the `https://` endpoints of a backend are verified.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendTls {
    /// Authorities in PEM. Default: those of the system.
    pub ca: Option<Located<PathBuf>>,
    /// The certificate that the gateway shows, in PEM.
    pub certificate: Option<Located<PathBuf>>,
    /// Its private key in PEM.
    pub key: Option<Located<PathBuf>>,
    /// The name that the endpoints' certificates must carry. Default: the host of the endpoint.
    pub server_name: Option<Located<String>>,
}

/// Which services are exposed, to whom, and who answers.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which services: `*` (reflection excepted), `library.v1.*` or full names. Where several routes take a service,
    /// the most specific pattern has it.
    #[schemars(length(min = 1))]
    pub services: Located<Vec<Located<Services>>>,
    /// For which hosts: names, or `*.example.com`. Default: any.
    #[serde(default)]
    pub hosts: Vec<Located<String>>,
    /// Who answers: a name of `backends`.
    pub backend: Located<String>,
    /// How JSON is read and written.
    #[serde(default)]
    pub json: Json,
    /// How query parameters are read.
    #[serde(default)]
    pub query: Query,
    /// How the messages of a stream are framed where `Accept` does not choose.
    #[serde(default)]
    pub streaming: Streaming,
    /// A whole unary call. Default: the backend's `timeout.request`.
    pub timeout: Option<Period>,
    /// Limits of this route, where they differ from the gateway's.
    #[serde(default)]
    pub limits: RouteLimits,
    /// Which escapes of a path stay as written in a variable of several segments.
    #[serde(default)]
    pub path_unescape: PathUnescape,
    /// Whether a slash at the end of a path counts.
    #[serde(default)]
    pub trailing_slash: TrailingSlash,
    /// What becomes of a field that the path gives and the body or the query gives too.
    #[serde(default)]
    pub path_owned: PathOwned,
}

/// How JSON is read and written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Json {
    /// Names of fields as in the proto (`page_size`), not in lower camel case (`pageSize`).
    pub proto_names: bool,
    /// Fields without presence are written even where they hold their default.
    pub emit_defaults: bool,
    /// Enums are written as numbers, not as names.
    pub enums_as_ints: bool,
    /// 64-bit integers are written as numbers, not as strings. Clients that read numbers as doubles lose digits.
    pub int64_as_numbers: bool,
    /// What becomes of a member that the message does not have.
    pub unknown_fields: UnknownFields,
    /// Names of enum values are read in any case.
    pub case_insensitive_enums: bool,
}

/// What becomes of a JSON member that the message does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UnknownFields {
    /// It is passed over.
    #[default]
    Ignore,
    /// The call is refused with 400.
    Reject,
}

/// How query parameters are read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Query {
    /// What becomes of a parameter that names no field: `reject`, `ignore`, or names that may pass while others are
    /// refused. `access_token`, `key`, `alt` and names that begin with `$` always pass.
    #[schemars(extend("default" = "reject"))]
    pub unknown: UnknownParameters,
}

/// What becomes of a query parameter that names no field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UnknownParameters {
    /// The call is refused with 400.
    #[default]
    Reject,
    /// It is passed over.
    Ignore,
    /// These are passed over, and others refused.
    Pass(Vec<String>),
}

impl<'de> Deserialize<'de> for UnknownParameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ParametersVisitor;

        const FORMS: &str = "write reject, ignore, or a list of the names that may pass";

        impl<'de> Visitor<'de> for ParametersVisitor {
            type Value = UnknownParameters;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a rule for parameters")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<UnknownParameters, E> {
                Ok(UnknownParameters::Reject)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<UnknownParameters, E> {
                match text {
                    "reject" => Ok(UnknownParameters::Reject),
                    "ignore" => Ok(UnknownParameters::Ignore),
                    _ => Err(E::custom(format!("is not known; {FORMS}"))),
                }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, names: A) -> Result<UnknownParameters, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(names)).map(UnknownParameters::Pass)
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<UnknownParameters, A::Error> {
                Err(serde::de::Error::custom(format!("is not known; {FORMS}")))
            }
        }

        deserializer.deserialize_any(ParametersVisitor)
    }
}

impl JsonSchema for UnknownParameters {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "UnknownParameters".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"const": "reject", "description": "The call is refused with 400."},
                {"const": "ignore", "description": "It is passed over."},
                {"type": "array", "items": {"type": "string"}, "description": "These are passed over, and others refused."}
            ]
        })
    }
}

/// How the messages of a stream are framed where `Accept` does not choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Streaming {
    /// A message per line.
    #[default]
    Ndjson,
    /// One JSON array.
    Array,
    /// Server-sent events.
    Sse,
}

/// Limits of a route.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RouteLimits {
    /// One message, in either direction and either codec, after decompression. Default: `limits.max_message_bytes`.
    pub max_message_bytes: Option<Size>,
}

/// Which escapes of a path stay as written in a variable of several segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathUnescape {
    /// `%2F` alone.
    #[default]
    AllExceptSlash,
    /// Every reserved character of RFC 3986.
    AllExceptReserved,
}

/// Whether a slash at the end of a path counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrailingSlash {
    /// `/v1/books/` is not `/v1/books`.
    #[default]
    Strict,
    /// One slash at the end is passed over.
    Ignore,
}

/// What becomes of a field that the path gives and the body or the query gives too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PathOwned {
    /// The call is refused with 400.
    #[default]
    Reject,
    /// The path's value holds, and the other is passed over.
    Ignore,
}
