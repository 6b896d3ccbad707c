//! `endpoints:` of a backend as written.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::located::Located;
use super::super::value::{Count, Endpoint};

/// Where the endpoints of a backend are.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoints {
    /// Written out.
    List(Vec<Located<Listed>>),
}

/// An endpoint that is written out: its URL, or more than that.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// Where it is.
    pub url: Endpoint,
    /// How much of the load it takes, beside the others.
    pub weight: Option<Count>,
    /// Where it runs.
    pub zone: Option<String>,
}

/// The keys of [`Listed`] when it is a mapping.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListedKeys {
    /// Where it is, such as `http://10.0.0.5:50051`.
    url: Endpoint,
    /// How much of the load it takes, beside the others. Default: 1.
    weight: Option<Count>,
    /// Where it runs, such as an availability zone. Endpoints in the gateway's own `zone` are preferred.
    zone: Option<String>,
}

const FORMS: &str = "write a list of URLs, or of {url: URL, weight: NUMBER, zone: NAME}";

impl Endpoints {
    /// Endpoints that are written out.
    pub fn listed(&self) -> &[Located<Listed>] {
        match self {
            Self::List(listed) => listed,
        }
    }
}

impl From<Endpoint> for Listed {
    fn from(url: Endpoint) -> Self {
        Self {
            url,
            weight: None,
            zone: None,
        }
    }
}

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListedVisitor;

        impl<'de> Visitor<'de> for ListedVisitor {
            type Value = Listed;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an endpoint")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Listed, E> {
                text.parse().map(|url: Endpoint| url.into()).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Listed, A::Error> {
                let keys = ListedKeys::deserialize(MapAccessDeserializer::new(members))?;
                Ok(Listed {
                    url: keys.url,
                    weight: keys.weight,
                    zone: keys.zone,
                })
            }
        }

        deserializer.deserialize_any(ListedVisitor)
    }
}

impl JsonSchema for Listed {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Listed".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let url = generator.subschema_for::<Endpoint>();
        let keys = generator.subschema_for::<ListedKeys>();
        json_schema!({"anyOf": [url, keys]})
    }
}

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EndpointsVisitor;

        impl<'de> Visitor<'de> for EndpointsVisitor {
            type Value = Endpoints;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("endpoints")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Endpoints, E> {
                Ok(Endpoints::List(Vec::new()))
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Endpoints, E> {
                Err(E::custom(format!("is no list of endpoints; {FORMS}")))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Endpoints, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Endpoints::List)
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Endpoints, A::Error> {
                Err(serde::de::Error::custom(format!(
                    "is no list of endpoints; {FORMS}"
                )))
            }
        }

        deserializer.deserialize_any(EndpointsVisitor)
    }
}

impl JsonSchema for Endpoints {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Endpoints".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let listed = generator.subschema_for::<Listed>();
        json_schema!({"anyOf": [{"type": "array", "items": listed, "minItems": 1}]})
    }
}
