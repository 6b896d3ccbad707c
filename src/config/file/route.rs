//! `routes:` as written.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::SeqAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::{Count, Period, Services, Size};
use super::auth::Rule;
use super::backend::StreamEnvelope;
use super::cors::Cors;
use super::relay::Relay;
use super::screen::{Addresses, Block, Errors};
use super::throttle::{LimitNames, Priority, StreamLimits};
use super::websocket::WebSocketSection;

/// Which services are exposed, or which paths are relayed, to whom, and who answers.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Which services: `*` (reflection and health excepted), `library.v1.*` or full names. Where several routes take a service,
    /// the most specific pattern has it.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub services: Located<Vec<Located<Services>>>,
    /// Instead of services: which paths are relayed as they are, such as `/legacy/**`, `/legacy/{user}/avatar` or
    /// `/robots.txt`. Dots are resolved and slashes merged before.
    pub path: Option<Located<String>>,
    /// For which hosts: names, or `*.example.com`. Default: any.
    #[serde(default)]
    pub hosts: Vec<Located<String>>,
    /// Who answers: a name of `backends`.
    #[serde(default)]
    pub backend: Located<String>,
    /// What is done with the requests of a `path`.
    pub relay: Option<Located<Relay>>,
    /// How JSON is read and written.
    #[serde(default)]
    pub json: Json,
    /// How query parameters are read.
    #[serde(default)]
    pub query: Query,
    /// How the messages of a stream are framed where `Accept` does not choose.
    #[serde(default)]
    pub streaming: Streaming,
    /// How WebSockets are taken.
    #[serde(default)]
    pub websocket: WebSocketSection,
    /// What stands around each message of a stream.
    #[serde(default)]
    pub stream_envelope: StreamEnvelope,
    /// A whole unary call; of a path, how long the beginning of the answer may take. Default: the backend's `timeout.request`.
    pub timeout: Option<Period>,
    /// Which pages of other origins may call from a browser. Default: none.
    pub cors: Option<Located<Cors>>,
    /// How callers prove who they are: a name of `auth`. Default: they need not.
    pub auth: Option<Located<String>>,
    /// What callers may call: rules of which one has to let them in. Default: everybody who is known may call everything.
    pub authorize: Option<Located<Vec<Located<Rule>>>>,
    /// Whether the policies count that methods and services declare by the options of `sabir/policy.proto`. Where the route
    /// has `authorize`, they don't.
    #[serde(default)]
    pub declared_policies: DeclaredPolicies,
    /// Which client addresses are let in; others are refused with 403.
    #[serde(default)]
    pub addresses: Addresses,
    /// What requests are refused.
    #[serde(default)]
    pub block: Vec<Located<Block>>,
    /// What clients are told of the backend's errors.
    #[serde(default)]
    pub errors: Errors,
    /// How often callers may call: a name of `rate_limits`, or a list of names, all of which have to allow a call.
    /// Default: as often as they like.
    pub rate_limit: Option<Located<LimitNames>>,
    /// Calls in flight on this route, from all callers. Default: no bound.
    pub max_in_flight: Option<Count>,
    /// How much it matters that calls are served, where `load_shedding` is on.
    #[serde(default)]
    pub priority: Priority,
    /// How fast the messages of one stream may come. Default: as fast as the backend takes them.
    pub stream_limits: Option<Located<StreamLimits>>,
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

/// Whether declared policies count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeclaredPolicies {
    /// They do.
    #[default]
    Apply,
    /// They don't.
    Ignore,
}

/// How JSON is read and written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "a switch of the file each")]
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
