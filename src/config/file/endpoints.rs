//! `endpoints:` of a backend as written.

use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};

use super::super::located::Located;
use super::super::value::{Address, Count, Endpoint, Hidden, Url};

/// Where the endpoints of a backend are.
#[derive(Clone, Debug, PartialEq)]
pub enum Endpoints {
    /// Written out.
    List(Vec<Located<Listed>>),
    /// Known to somebody who is asked.
    Found(Box<Found>),
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

/// Who knows where the endpoints are: one of these.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Found {
    /// A file with a list in the same form, in YAML or JSON; it is read again when it changes.
    pub file: Option<Located<PathBuf>>,
    /// A URL whose host is a name of DNS: each of its addresses is an endpoint. Asked again when the time of the answer
    /// is over, which is taken to be 5 s to 60 s.
    pub dns: Option<Located<Endpoint>>,
    /// A URL whose host is a name of DNS with SRV records, such as `http://_grpc._tcp.library.internal`: each service of
    /// the best priority is an endpoint.
    pub srv: Option<Located<Endpoint>>,
    /// Of `dns` and `srv`: who is asked. Default: whom the system asks.
    pub server: Option<Located<Address>>,
    /// A service in the catalogue of Consul.
    pub consul: Option<Located<Consul>>,
    /// A service of Kubernetes.
    pub kubernetes: Option<Located<Kubernetes>>,
}

/// A service in the catalogue of Consul; its instances whose checks pass are endpoints.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consul {
    /// Where its HTTP API is. Default: `http://127.0.0.1:8500`.
    pub url: Option<Url>,
    /// The service's name.
    pub service: String,
    /// A tag that its instances carry.
    pub tag: Option<String>,
    /// The data centre. Default: the agent's own.
    pub datacenter: Option<String>,
    /// The token that the API is asked with, such as `${CONSUL_TOKEN}`.
    pub token: Option<Hidden>,
    /// Authorities in PEM for the API's certificate. Default: those of the system.
    pub ca: Option<Located<PathBuf>>,
    /// Whether instances are reached over TLS.
    #[serde(default)]
    pub tls: bool,
}

/// A service of Kubernetes; the ready endpoints of its slices are endpoints. The gateway's account has to be allowed to
/// list and watch `endpointslices` of `discovery.k8s.io`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Kubernetes {
    /// The service's name.
    pub service: String,
    /// Its namespace. Default: that of the gateway's own pod.
    pub namespace: Option<String>,
    /// The name or the number of its port. Default: the first.
    pub port: Option<String>,
    /// Whether endpoints are reached over TLS.
    #[serde(default)]
    pub tls: bool,
    /// Where the API server is. Default: where the pod's environment says.
    pub server: Option<Located<Url>>,
    /// The file of the token. Default: that of the pod's account.
    pub token: Option<Located<PathBuf>>,
    /// Authorities in PEM for the API server's certificate. Default: those of the pod's account.
    pub ca: Option<Located<PathBuf>>,
}

const FORMS: &str = "write a list of URLs or of {url: URL, weight: NUMBER, zone: NAME}, \
                     or one of {file: FILE}, {dns: URL}, {srv: URL}, {consul: …} and {kubernetes: …}";

impl Endpoints {
    /// Endpoints that are written out.
    pub fn listed(&self) -> &[Located<Listed>] {
        match self {
            Self::List(listed) => listed,
            Self::Found(_) => &[],
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

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Endpoints, A::Error> {
                let found = Found::deserialize(MapAccessDeserializer::new(members))?;
                let given = [
                    found.file.is_some(),
                    found.dns.is_some(),
                    found.srv.is_some(),
                    found.consul.is_some(),
                    found.kubernetes.is_some(),
                ];
                if given.iter().filter(|given| **given).count() != 1 {
                    let error = format!("does not say where endpoints are in one way; {FORMS}");
                    return Err(serde::de::Error::custom(error));
                }
                if found.server.is_some() && found.dns.is_none() && found.srv.is_none() {
                    return Err(serde::de::Error::custom("has a server, which is for dns and srv"));
                }
                Ok(Endpoints::Found(Box::new(found)))
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
        let found = generator.subschema_for::<Found>();
        json_schema!({"anyOf": [{"type": "array", "items": listed, "minItems": 1}, found]})
    }
}
