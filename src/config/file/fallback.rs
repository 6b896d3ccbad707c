//! `fallback:` of a backend as written.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::super::located::Located;
use super::super::value::{HttpStatus, Methods};

/// What answers where a backend can't.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fallback {
    /// Another backend, which is asked first.
    pub backend: Option<Located<String>>,
    /// Fixed answers to calls.
    pub answers: Vec<Located<FixedAnswer>>,
    /// The fixed answer to plain HTTP.
    pub page: Option<Located<Page>>,
}

/// The keys of [`Fallback`] when it is a mapping.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct FallbackKeys {
    /// Another backend of the same protocol, which is asked first.
    backend: Option<Located<String>>,
    /// Fixed answers to calls; the first that is about a method counts. Default: none.
    answers: Vec<Located<FixedAnswer>>,
    /// The fixed answer to requests on routes with a `path`. Default: none.
    page: Option<Located<Page>>,
}

/// A fixed answer to calls of some methods.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FixedAnswer {
    /// Which methods: `library.v1.Library/GetBook`, `library.v1.Library/*` or `*`.
    pub methods: Vec<Located<Methods>>,
    /// The answer's message as JSON text, such as `'{"shelves": []}'`; each client gets it in its own dialect. A stream of
    /// answers has this one alone. Default: `{}`.
    #[serde(default = "default_message")]
    pub message: Located<String>,
}

fn default_message() -> Located<String> {
    Located::default_of("{}".to_owned())
}

/// A fixed answer to plain HTTP.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Page {
    /// Its status, 200 to 599. Default: 200.
    #[serde(default)]
    pub status: HttpStatus,
    /// Its content type. Default: `text/plain; charset=utf-8`.
    pub content_type: Option<Located<String>>,
    /// Its body; `${file:PATH}` reads one. Default: empty.
    #[serde(default)]
    pub body: String,
}

const FORMS: &str = "write the name of a backend, or {backend: NAME, answers: […], page: {…}}";

impl<'de> Deserialize<'de> for Fallback {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FallbackVisitor;

        impl<'de> Visitor<'de> for FallbackVisitor {
            type Value = Fallback;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("what answers where a backend can't")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Fallback, E> {
                Ok(Fallback {
                    backend: Some(Located::default_of(name.to_owned())),
                    ..Fallback::default()
                })
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Fallback, E> {
                Err(E::custom(format!("is nothing; {FORMS}")))
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Fallback, A::Error> {
                let FallbackKeys {
                    backend,
                    answers,
                    page,
                } = FallbackKeys::deserialize(MapAccessDeserializer::new(members))?;
                if backend.is_none() && answers.is_empty() && page.is_none() {
                    return Err(serde::de::Error::custom(format!("answers nothing; {FORMS}")));
                }
                Ok(Fallback {
                    backend,
                    answers,
                    page,
                })
            }
        }

        deserializer.deserialize_any(FallbackVisitor)
    }
}

impl JsonSchema for Fallback {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fallback".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<FallbackKeys>();
        json_schema!({
            "description": "What answers where a backend can't be reached or is not available.",
            "anyOf": [{"type": "string", "description": "The backend that is asked instead."}, keys]
        })
    }
}
