//! How calls are spread over the endpoints of a backend, and what becomes of those that fail, as written.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IntoDeserializer as _, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::{Count, HeaderWord, Percent, Period, StatusRange};

/// How an endpoint is chosen for a call.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum LoadBalancing {
    /// One after the other.
    RoundRobin,
    /// Of two taken at random, the one with fewer calls in flight.
    #[default]
    LeastRequest,
    /// Of two taken at random, the one that costs less by latency and calls in flight.
    PeakEwma,
    /// The one that a key of the call belongs to.
    Hash(Hash),
}

/// What of a call is its key: one of these. A call without it goes by load.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Hash {
    /// A header of the request.
    pub header: Option<HeaderWord>,
    /// A cookie of the request.
    pub cookie: Option<HeaderWord>,
    /// A claim of the caller, on routes with `auth`; `sub` is the principal.
    pub claim: Option<String>,
    /// A field of the first message with one plain value, as a path of names joined by dots. Of requests that clients
    /// send compressed, or that have no descriptor, it is not read.
    pub field: Option<String>,
}

/// The keys of [`LoadBalancing`] when it is a mapping.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LoadBalancingKeys {
    /// The endpoint that a key of the call belongs to, as long as it has no more than 1.25 times its share of the calls
    /// under way.
    hash: Located<Hash>,
}

const FORMS: &str =
    "write round_robin, least_request, peak_ewma or {hash: {header | cookie | claim | field: NAME}}";

impl<'de> Deserialize<'de> for LoadBalancing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PolicyVisitor;

        impl<'de> Visitor<'de> for PolicyVisitor {
            type Value = LoadBalancing;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a way to choose an endpoint")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<LoadBalancing, E> {
                Ok(LoadBalancing::default())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<LoadBalancing, E> {
                match text {
                    "round_robin" => Ok(LoadBalancing::RoundRobin),
                    "least_request" => Ok(LoadBalancing::LeastRequest),
                    "peak_ewma" => Ok(LoadBalancing::PeakEwma),
                    _ => Err(E::custom(format!("is no way to choose an endpoint; {FORMS}"))),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<LoadBalancing, A::Error> {
                let keys = LoadBalancingKeys::deserialize(MapAccessDeserializer::new(members))?;
                let hash = keys.hash.value;
                let given = [
                    hash.header.is_some(),
                    hash.cookie.is_some(),
                    hash.claim.is_some(),
                    hash.field.is_some(),
                ];
                if given.iter().filter(|given| **given).count() != 1 {
                    return Err(serde::de::Error::custom(format!("hashes no one thing; {FORMS}")));
                }
                Ok(LoadBalancing::Hash(hash))
            }
        }

        deserializer.deserialize_any(PolicyVisitor)
    }
}

impl JsonSchema for LoadBalancing {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LoadBalancing".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<LoadBalancingKeys>();
        json_schema!({
            "description": "How an endpoint is chosen for a call.",
            "anyOf": [
                {"const": "round_robin", "description": "One after the other, by weight."},
                {"const": "least_request", "description": "Of two taken at random, the one with fewer calls in flight."},
                {"const": "peak_ewma", "description":
                    "Of two taken at random, the one that costs less by latency and calls in flight."},
                keys
            ]
        })
    }
}

/// Something that can be turned off by `off`.
#[derive(Clone, Debug, PartialEq)]
pub enum Switch<T> {
    /// It is off.
    Off,
    /// It is as written.
    On(T),
}

impl<T: Default> Default for Switch<T> {
    fn default() -> Self {
        Self::On(T::default())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Switch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SwitchVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for SwitchVisitor<T> {
            type Value = Switch<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("off, or a mapping")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Switch<T>, E> {
                match text {
                    "off" => Ok(Switch::Off),
                    text => T::deserialize(text.into_deserializer()).map(Switch::On),
                }
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Switch<T>, E> {
                Err(E::custom("is nothing; write off, or what it should be"))
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Switch<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members)).map(Switch::On)
            }
        }

        deserializer.deserialize_any(SwitchVisitor(std::marker::PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Switch<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("SwitchOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let on = generator.subschema_for::<T>();
        json_schema!({"anyOf": [{"const": "off"}, on]})
    }
}

/// The cookie by which a client stays with its endpoint, as long as that one is healthy.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sticky {
    /// Its name; the gateway sets it.
    pub cookie: HeaderWord,
    /// How long a client keeps it. Default: until it is closed.
    pub max_age: Option<Period>,
}

/// When endpoints are taken out because of the calls that they failed: connections that can't be made, broken off or
/// refused streams, answers of 502, 503, 504 or `UNAVAILABLE`, and attempts that take too long.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Failures in a row. Default: 5.
    pub consecutive: Option<Count>,
    /// How long the first time; each further time this much longer. Default: 30s.
    pub base: Option<Period>,
    /// The longest time. Default: 5m.
    pub longest: Option<Period>,
    /// Percent of the endpoints that may be out at once; the last one never is. Default: 50.
    pub max_percent: Option<Percent>,
    /// How often endpoints are compared, where `success_rate` or `latency` asks for it. Default: 10s.
    pub interval: Option<Period>,
    /// Takes out endpoints that fail more often than the others. Default: off.
    pub success_rate: Option<SuccessRate>,
    /// Takes out endpoints that are slower than the others. Default: off.
    pub latency: Option<SlowAnswers>,
}

/// Endpoints that fail more often than the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuccessRate {
    /// Calls in an interval below which an endpoint is not judged. Default: 100.
    pub min_calls: Option<Count>,
    /// Endpoints with so many calls below which nobody is judged. Default: 5.
    pub min_endpoints: Option<Count>,
    /// How far below the mean an endpoint may be, in percent of a standard deviation. Default: 190.
    pub deviation_percent: Option<Count>,
}

/// Endpoints that are slower than the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SlowAnswers {
    /// Calls in an interval below which an endpoint is not judged. Default: 100.
    pub min_calls: Option<Count>,
    /// Endpoints with so many calls below which nobody is judged. Default: 3.
    pub min_endpoints: Option<Count>,
    /// How slow an endpoint may be on average, in percent of the median of all. Default: 300.
    pub median_percent: Option<Count>,
}

/// When a request is sent again: where surely nobody has processed it; and where it may be sent twice, after a broken
/// connection, an attempt that took too long, or an answer of 502, 503, 504 or `UNAVAILABLE`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Times at most, beside the first; 0 for never, 10 at most. Default: 2.
    pub max: Option<Located<u32>>,
    /// The longest pause before the first one, of which chance decides; it doubles. Default: 25ms.
    pub first_pause: Option<Period>,
    /// The longest pause of all. Default: 250ms.
    pub longest_pause: Option<Period>,
    /// Percent of the calls under way that may be retries. Default: 20.
    pub budget_percent: Option<Percent>,
    /// Retries in a second that are allowed however few calls there are. Default: 10.
    pub budget_per_second: Option<Count>,
}

/// When a second copy of a unary request that may be sent twice goes to another endpoint; who answers first wins.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hedge {
    /// After this time; `p95` for when a call takes longer than 95 of 100 have taken lately.
    pub after: HedgeAfter,
}

/// How long a second copy waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// This time.
    Fixed(Period),
    /// What 95 of 100 calls have taken lately.
    P95,
}

impl<'de> Deserialize<'de> for HedgeAfter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        match &*text {
            "p95" => Ok(Self::P95),
            text => text
                .parse()
                .map(Self::Fixed)
                .map_err(|not: String| serde::de::Error::custom(format!("{not}; or p95"))),
        }
    }
}

impl JsonSchema for HedgeAfter {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HedgeAfter".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let fixed = generator.subschema_for::<Period>();
        json_schema!({"anyOf": [{"const": "p95"}, fixed]})
    }
}

/// When nothing is sent to a backend for a while, because most of what was sent failed.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CircuitBreaker {
    /// Requests within the window below which it stays closed. Default: 20.
    pub min_requests: Option<Count>,
    /// Percent of them that failed. Default: 50.
    pub failure_percent: Option<Percent>,
    /// Over which time requests are counted, in ten buckets. Default: 10s.
    pub window: Option<Period>,
    /// How long nothing is sent the first time; it doubles. Default: 5s.
    pub open: Option<Period>,
    /// The longest time. Default: 60s.
    pub longest: Option<Period>,
    /// Requests that try whether it works again. Default: 3.
    pub probes: Option<Count>,
}

/// How endpoints are checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// Time between two checks; a tenth more or less by chance. Default: 10s.
    pub interval: Option<Period>,
    /// How long an answer may take. Default: 2s.
    pub timeout: Option<Period>,
    /// Checks in a row that have to go well before an endpoint is called again. Default: 2.
    pub healthy: Option<Count>,
    /// Checks in a row that have to fail before an endpoint is not called any more. Default: 3.
    pub unhealthy: Option<Count>,
    /// What is asked. Default: `grpc` for `protocol: grpc`; for others `http` where there is a `path`, and else `tcp`.
    pub kind: Option<Located<HealthKind>>,
    /// Of `grpc`: the service that is asked about. Default: the server as a whole.
    pub service: Option<Located<String>>,
    /// Of `http`: the path of the page, below the endpoint's own.
    pub path: Option<Located<String>>,
    /// Of `http`: statuses that are good, such as `200` or `200-299`. Default: `200-299`.
    pub expected: Vec<Located<StatusRange>>,
    /// Of `http`: what has to stand in the first 64 KiB of the page.
    pub contains: Option<Located<String>>,
}

/// What an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthKind {
    /// `grpc.health.v1`: `Check`, and `Watch` where it is offered. Servers that know neither are asked for a connection.
    Grpc,
    /// A page.
    Http,
    /// Whether it takes a connection.
    Tcp,
}
