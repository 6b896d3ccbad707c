//! `rate_limits:`, `rate_limit:`, `load_shedding:`, `priority:` and `adaptive_concurrency:` as written.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::{BytesOften, Count, HeaderWord, Often, PerWindow, Percent, Period};

/// What each caller may: one of `rate`, `quota` and `in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// So many calls in each stretch of time, as they come: `100/s`, `1000/m`, `5/10s`.
    pub rate: Option<Located<Often>>,
    /// How many calls at once, with a `rate`. Default: as many as the rate has in its time.
    pub burst: Option<Located<Count>>,
    /// So many calls in each hour, day or month of the calendar, in UTC: `1000/hour`, `10000/day`, `200000/month`.
    pub quota: Option<Located<PerWindow>>,
    /// So many calls at the same time, from the request to the end of the answer.
    pub in_flight: Option<Located<Count>>,
    /// By what callers are told apart: `principal` (who proved who it is; of others, the address), `api_key` (the label
    /// of the key), `address` (the client's, behind `trusted_proxies` the one that they name; of IPv6, the first 64
    /// bits), `method`, `{header: NAME}`, `{claim: NAME}`, `{message_field: PATH}`, or a list of these, which are counted
    /// together; `global` is one account for everybody. A caller of which it is not known, such as one that does not send
    /// the header, is told apart as with `principal`. A `message_field` is looked at when the first message is there, so
    /// that a WebSocket is open by then, and no part of it is told to clients that are let pass.
    #[schemars(extend("default" = "principal"))]
    pub key: Located<Keys>,
    /// What a call costs: by `library.v1.Library/ListBooks`, `library.v1.Library/*` or `*`, of which the most specific
    /// holds. Default: 1.
    pub weights: BTreeMap<String, Located<Count>>,
    /// How many callers are known at once, about 200 bytes each. Beyond it, the one that has used least begins anew.
    #[schemars(extend("default" = 100_000))]
    pub max_keys: Option<Located<Count>>,
}

/// By what callers are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys(pub Vec<KeyPart>);

impl Default for Keys {
    fn default() -> Self {
        Self(vec![KeyPart::Principal])
    }
}

/// One thing by which callers are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// Who proved who it is, or the address.
    Principal,
    /// The label of the API key.
    ApiKey,
    /// The client's address.
    Address,
    /// What is called.
    Method,
    /// Nothing: one account for everybody.
    Global,
    /// A header.
    Header(HeaderWord),
    /// A claim.
    Claim(String),
    /// A field of the first message.
    MessageField(String),
}

/// The keys of [`KeyPart`] when it is a mapping.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "KeyFrom")]
struct KeyFrom {
    /// The value of this header, the first if there are more.
    header: Option<HeaderWord>,
    /// The value of this claim: a name, or a path of names joined by dots.
    claim: Option<String>,
    /// The value of this field of the first message: a name, or a path of names joined by dots.
    message_field: Option<String>,
}

const FORMS: &str = "write principal, api_key, address, method, global, {header: NAME}, {claim: NAME}, \
                     {message_field: PATH}, or a list of these";

impl<'de> Deserialize<'de> for KeyPart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PartVisitor;

        impl<'de> Visitor<'de> for PartVisitor {
            type Value = KeyPart;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<KeyPart, E> {
                match text {
                    "principal" => Ok(KeyPart::Principal),
                    "api_key" => Ok(KeyPart::ApiKey),
                    "address" => Ok(KeyPart::Address),
                    "method" => Ok(KeyPart::Method),
                    "global" => Ok(KeyPart::Global),
                    _ => Err(E::custom(format!("is no key; {FORMS}"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<KeyPart, A::Error> {
                let from = KeyFrom::deserialize(MapAccessDeserializer::new(members))?;
                match (from.header, from.claim, from.message_field) {
                    (Some(name), None, None) => Ok(KeyPart::Header(name)),
                    (None, Some(name), None) => Ok(KeyPart::Claim(name)),
                    (None, None, Some(path)) => Ok(KeyPart::MessageField(path)),
                    _ => Err(serde::de::Error::custom(format!("is not one key; {FORMS}"))),
                }
            }
        }

        deserializer.deserialize_any(PartVisitor)
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;

        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key, or a list of keys")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Keys, E> {
                let part = KeyPart::deserialize(serde::de::value::StrDeserializer::<E>::new(text))?;
                Ok(Keys(vec![part]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Keys, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Keys)
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Keys, A::Error> {
                KeyPart::deserialize(MapAccessDeserializer::new(members)).map(|part| Keys(vec![part]))
            }
        }

        deserializer.deserialize_any(KeysVisitor)
    }
}

impl JsonSchema for Keys {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Keys".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let from = generator.subschema_for::<KeyFrom>();
        let word = json_schema!({"enum": ["principal", "api_key", "address", "method", "global"]});
        json_schema!({"anyOf": [word, from, {"type": "array", "minItems": 1, "items": {"anyOf": [word, from]}}]})
    }
}

/// The limits of a route, by their names in `rate_limits`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitNames(pub Vec<String>);

impl<'de> Deserialize<'de> for LimitNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;

        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = LimitNames;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a name of rate_limits, or a list of names")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<LimitNames, E> {
                Ok(LimitNames(vec![name.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<LimitNames, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(LimitNames)
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<LimitNames, A::Error> {
                Err(serde::de::Error::custom(
                    "is no name; write the limit under rate_limits, and its name here",
                ))
            }
        }

        deserializer.deserialize_any(NamesVisitor)
    }
}

impl JsonSchema for LimitNames {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LimitNames".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "string"},
            {"type": "array", "minItems": 1, "items": {"type": "string"}}
        ]})
    }
}

/// How fast the messages of one stream may come from a client: those of a gRPC stream, of a WebSocket, of a streamed
/// upload. Who is faster is read later, and who does not slow down is refused, a WebSocket with 1008.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamLimits {
    /// So many messages, and as many at once.
    #[schemars(extend("default" = "100/s"))]
    pub messages: Option<Often>,
    /// So many bytes of messages, and as many at once; a message that is larger is taken, and waited for afterwards.
    #[schemars(extend("default" = "1MiB/s"))]
    pub bytes: Option<BytesOften>,
    /// How long a client may have more to send than is taken.
    #[schemars(extend("default" = "10s"))]
    pub patience: Option<Period>,
}

/// When calls are shed because the gateway has more to do than it can: those of routes with the lowest `priority` first, and
/// one class more for as long as that does not help. They are answered with 503 and `Retry-After`, before anything else is
/// looked at.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LoadShedding {
    /// How long what is ready may wait for a worker. At least 5ms. Default: 100ms.
    pub queue_time: Option<Located<Period>>,
    /// For how long it has to wait longer than that before a class is shed, and not to before one is let in again. Default:
    /// 1s.
    pub sustained: Option<Period>,
}

/// How much it matters that calls are served, where load is shed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// They are shed first.
    Low,
    /// They are shed after those.
    #[default]
    Normal,
    /// They are shed last.
    High,
    /// They are never shed.
    Critical,
}

/// A bound on requests in flight that follows how long answers take: it grows while they take no longer than at best, and
/// shrinks as they take longer. What is counted are unary calls and plain HTTP, from when they are there in whole until
/// they are answered; streams, WebSockets, and what is larger than 64 KiB and still on its way are not. Where there is no room, the answer is
/// 503 with `Retry-After`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdaptiveConcurrency {
    /// The highest bound. Default: 1000.
    pub max: Option<Count>,
    /// How much longer than at best answers may take before the bound shrinks, in percent. Default: 25.
    pub buffer_percent: Option<Percent>,
    /// How often it is measured how long an answer takes at best, by 50 of them with 3 in flight; requests wait up to 250 ms
    /// for that. Where no more than that are in flight anyhow, nobody has to wait. At least 10s. Default: 60s.
    pub measure_interval: Option<Located<Period>>,
}
