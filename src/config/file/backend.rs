//! `backends:` as written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::{Count, Percent, Period};
use super::balance::{CircuitBreaker, Ejection, HealthCheck, Hedge, LoadBalancing, Retry, Sticky, Switch};
use super::endpoints::Endpoints;
use super::fallback::Fallback;
use super::throttle::AdaptiveConcurrency;

/// Endpoints that offer the same services.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// What the endpoints speak.
    #[serde(default)]
    pub protocol: Protocol,
    /// Where they are: `http://` is HTTP/2 without TLS for `grpc` and HTTP/1.1 for `rest`; `https://` is what both sides
    /// speak over TLS; `ws://` and `wss://` for `websocket`. A path is a prefix.
    /// Each is a URL, or `{url, weight, zone}`; or who knows them: `{file}`, `{dns}`, `{srv}`, `{consul}` or
    /// `{kubernetes}`.
    pub endpoints: Located<Endpoints>,
    /// Of `rest`: `http://` endpoints are spoken to in HTTP/2, with prior knowledge.
    #[serde(default)]
    pub http2: Located<bool>,
    /// Where the descriptors of the services come from: `reflection`, `{protos: …}`, `{descriptors: …}`
    /// or `{registry: …}`. Default:
    /// `reflection` for `grpc`; none for `rest`, which is then reached by routes with a `path`.
    pub schema: Option<Located<SchemaSource>>,
    /// How calls become requests of a `rest` backend that has descriptors.
    pub rest: Option<Located<Rest>>,
    /// Files with google.api.http rules in YAML or JSON, by the full names of methods; they replace what the
    /// descriptors say about the same method.
    #[serde(default)]
    pub rules: Vec<Located<PathBuf>>,
    /// Of `schema: reflection`: how long at most until the backend is asked again what it offers. The first pauses are
    /// shorter, and a call that it does not understand has it asked at once. Default: 5m.
    #[serde(default = "default_reflection_interval")]
    #[schemars(extend("default" = "5m"))]
    pub reflection_interval: Period,
    /// How an endpoint is chosen for a call.
    #[serde(default)]
    pub load_balancing: LoadBalancing,
    /// A cookie by which each client stays with its endpoint.
    pub sticky: Option<Sticky>,
    /// How long an endpoint that comes, or comes back, takes less than its share: a tenth at first, all of it at the end.
    /// Default: 30s.
    pub slow_start: Option<Switch<Period>>,
    /// Percent of endpoints: where fewer are healthy, calls go to all of them, since the others could not carry the
    /// load. Default: 50.
    pub panic_threshold: Option<Percent>,
    /// When endpoints are taken out because of the calls that they failed. Default: on.
    #[serde(default)]
    pub ejection: Switch<Ejection>,
    /// How endpoints are checked. Default: not at all; `{}` turns it on.
    pub health_check: Option<Located<HealthCheck>>,
    /// When a request is sent again.
    #[serde(default)]
    pub retry: Retry,
    /// When a second copy of a request is sent. Default: never.
    pub hedge: Option<Hedge>,
    /// When nothing is sent for a while. Default: never; `{}` turns it on.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// What answers where this backend can't be reached or is not available, for requests that were not sent, or may be
    /// sent twice: the name of another backend of the same protocol, or `{backend, answers, page}` with fixed answers.
    /// Default: nothing.
    pub fallback: Option<Located<Fallback>>,
    /// How long connecting and calls may take.
    #[serde(default)]
    pub timeout: BackendTimeout,
    /// How `https://` endpoints are verified.
    pub tls: Option<Located<BackendTls>>,
    /// Calls in flight to this backend, from all callers and on all routes. Default: no bound.
    pub max_in_flight: Option<Count>,
    /// A bound on requests in flight that finds itself out, by how long answers take. Default: none; `{}` turns it on.
    pub adaptive_concurrency: Option<Located<AdaptiveConcurrency>>,
}

/// How long a backend that says the same again and again is left in peace.
pub(in crate::config) fn default_reflection_interval() -> Period {
    Period(Duration::from_secs(300))
}

/// What the endpoints of a backend speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// gRPC over HTTP/2.
    #[default]
    Grpc,
    /// HTTP, and JSON where there are descriptors.
    Rest,
    /// WebSockets, relayed frame by frame on routes with a `path`.
    #[serde(rename = "websocket")]
    WebSocket,
}

impl Backend {
    /// Whether its descriptors may be others tomorrow, without a change of the configuration.
    pub fn is_learned(&self) -> bool {
        matches!(
            self.source(),
            Some(SchemaSource::Reflection | SchemaSource::Registry(_))
        )
    }

    /// Where the descriptors come from; nothing for a backend that needs none.
    pub fn source(&self) -> Option<&SchemaSource> {
        match (&self.schema, self.protocol) {
            (Some(written), _) => Some(&written.value),
            (None, Protocol::Grpc) => Some(&SchemaSource::Reflection),
            (None, Protocol::Rest | Protocol::WebSocket) => None,
        }
    }
}

/// How calls become requests of a REST backend.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "a switch of the file each")]
pub struct Rest {
    /// Which of its HTTP rules a method is called by, by its full name, counted from 0 in the order in which they are
    /// written. Default: the first.
    pub rules: BTreeMap<String, Located<u32>>,
    /// What an HTTP status means where the body of an answer does not say it.
    pub statuses: Statuses,
    /// The rest of the deadline is told in `X-Server-Timeout`, in seconds.
    pub server_timeout: bool,
    /// A body of `*` repeats the fields that the path gives.
    pub path_fields_in_body: bool,
    /// Names of fields in queries and bodies are as in the proto (`page_size`), not in lower camel case (`pageSize`).
    pub proto_names: bool,
    /// Fields without presence are sent even where they hold their default.
    pub emit_defaults: bool,
    /// What stands around each message of a stream of answers.
    pub stream_envelope: StreamEnvelope,
}

/// What an HTTP status means for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Statuses {
    /// What an origin server means by it: 404 is `NOT_FOUND`.
    #[default]
    Origin,
    /// What a gRPC client makes of it: 404 is `UNIMPLEMENTED`.
    GrpcTable,
}

/// What stands around each message of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamEnvelope {
    /// Nothing.
    #[default]
    None,
    /// `{"result": …}`, as grpc-gateway has it.
    Result,
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
    /// What is registered under this name through the admin API.
    Registry(Located<String>),
}

/// Whether a schema can be registered under this name.
pub fn is_schema_name(name: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = name.as_bytes();
    bytes.len() <= 64
        && bytes.first().is_some_and(|first| letter(*first))
        && bytes
            .iter()
            .all(|byte| letter(*byte) || matches!(byte, b'.' | b'_' | b'-'))
}

/// What such a name is, for errors.
pub const SCHEMA_NAME: &str =
    "write letters in lower case, digits, \".\", \"_\" and \"-\", a letter or a digit first, 64 at most";

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
    /// The name of a schema that is registered through the admin API while the gateway runs. Until it is, calls are
    /// answered with 503.
    registry: Option<Located<String>>,
}

const SCHEMA_FORMS: &str = "write reflection, {protos: [FILES or FOLDERS], proto_paths: [FOLDERS]}, {descriptors: FILE} or \
                            {registry: NAME}";

impl TryFrom<SchemaKeys> for SchemaSource {
    type Error = String;

    fn try_from(keys: SchemaKeys) -> Result<Self, String> {
        if let Some(name) = keys.registry {
            return match (keys.protos, keys.proto_paths, keys.descriptors) {
                (None, None, None) => Ok(Self::Registry(name)),
                _ => Err(format!("has something beside registry; {SCHEMA_FORMS}")),
            };
        }
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

/// How long a backend may take.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendTimeout {
    /// Connecting to an endpoint. Default: `limits.connect_timeout`.
    pub connect: Option<Period>,
    /// One attempt, up to where its answer begins. Default: as long as the call may take.
    pub per_try: Option<Period>,
    /// A stream on which nobody says anything. Default: `limits.idle_timeout`.
    pub idle: Option<Period>,
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
