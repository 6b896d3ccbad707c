//! `auth:` and `authorize:` as written.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::{ClaimName, Expression, HeaderWord, Methods, SecretText, Url};
use super::outside::{Basic, ExtAuthz, Introspection, TicketsSection};
use super::revocation::Revocation;

/// How callers prove who they are. Each way that is there may be used, and none is by default; the first credential of a
/// request decides, in the order of these keys.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// Tokens in `Authorization: Bearer`: one issuer, or a list of issuers of which the token's `iss` chooses.
    #[serde(default)]
    pub jwt: Issuers,
    /// Opaque tokens in `Authorization: Bearer`.
    pub introspection: Option<Located<Introspection>>,
    /// Names and passwords in `Authorization: Basic`.
    pub basic: Option<Located<Basic>>,
    /// API keys.
    pub api_keys: Option<Located<ApiKeys>>,
    /// Client certificates, on listeners with `client_ca`: a SPIFFE id, another URI or a DNS name is the principal.
    pub client_certificates: Option<Located<ClientCertificates>>,
    /// A service that decides as well, or alone.
    pub ext_authz: Option<Located<ExtAuthz>>,
    /// Where it is said which tokens are revoked, though they have not expired. Needs `jwt` or `introspection`.
    pub revocation: Option<Located<Revocation>>,
    /// Tickets that open WebSockets.
    pub tickets: Option<Located<TicketsSection>>,
    /// Whether a WebSocket that speaks `sabir.v1.json` may be opened before its client has said who it is. Its first message
    /// is then `{"$auth": "TOKEN"}`, within 10 s, and nothing goes upstream before. Needs `jwt` or `introspection`.
    #[serde(default = "no")]
    #[schemars(extend("default" = false))]
    pub first_message: Located<bool>,
    /// Whether backends get the credential that was checked. Without it, they get `x-sabir-*` alone.
    #[serde(default)]
    pub forward_credentials: bool,
    /// Claims that backends get as `x-sabir-claim-NAME` (default: none), beside `x-sabir-principal`, `x-sabir-auth`, `x-sabir-issuer`,
    /// `x-sabir-scopes` and `x-sabir-roles`.
    #[serde(default)]
    pub forward_claims: Vec<Located<ClaimName>>,
}

fn no() -> Located<bool> {
    Located::default_of(false)
}

/// Client certificates have no settings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {}

/// The issuers of tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Issuers(pub Vec<Jwt>);

impl<'de> Deserialize<'de> for Issuers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IssuersVisitor;

        const FORMS: &str = "write an issuer such as {issuer: URL, audiences: [NAME]}, or a list of issuers";

        impl<'de> Visitor<'de> for IssuersVisitor {
            type Value = Issuers;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an issuer, or a list of issuers")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Issuers, E> {
                Ok(Issuers::default())
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Issuers, E> {
                Err(E::custom(format!("is no issuer; {FORMS}")))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Issuers, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Issuers)
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Issuers, A::Error> {
                Jwt::deserialize(MapAccessDeserializer::new(members)).map(|issuer| Issuers(vec![issuer]))
            }
        }

        deserializer.deserialize_any(IssuersVisitor)
    }
}

impl JsonSchema for Issuers {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Issuers".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Jwt>();
        json_schema!({"anyOf": [one, {"type": "array", "items": one}]})
    }
}

/// An issuer of tokens. `iss`, `aud` and `exp` have to be in each of them; clocks may differ by 30 s.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// What `iss` is, letter by letter.
    pub issuer: Located<String>,
    /// Whom tokens are for: `aud` has one of these.
    #[schemars(length(min = 1))]
    pub audiences: Located<Vec<String>>,
    /// Where the issuer's keys are. Default: where the issuer says by OpenID Connect discovery.
    pub jwks: Option<Located<Jwks>>,
    /// A secret that the issuer shares with the gateway, for HS256, HS384 and HS512, at least as long as their digest.
    /// Excludes `jwks`.
    pub secret: Option<Located<SecretText>>,
    /// What the issuer may sign with. Default: RS, PS and ES 256 to 512 and EdDSA, each with keys of its kind; with a
    /// `secret`, HS256.
    pub algorithms: Option<Located<Vec<Located<SignatureAlgorithm>>>>,
    /// Authorities in PEM for the certificate of an issuer that is asked for its keys. Default: those of the system.
    pub ca: Option<Located<PathBuf>>,
    /// The claim with the scopes, or a path of names joined by dots. Default: `scope`, else `scp`.
    pub scopes_claim: Option<String>,
    /// The claim with the roles, or a path of names joined by dots, such as `realm_access.roles`. Default: `roles`.
    pub roles_claim: Option<String>,
}

/// Where the keys of an issuer are: in a file, or at a URL; one of the two.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwks {
    /// A JSON Web Key set, read when the gateway starts.
    pub file: Option<Located<PathBuf>>,
    /// Where a JSON Web Key set is fetched: at the start, before what was fetched is stale, and when a token names a key
    /// that is not known, at most once in 10 s. When it can't be fetched, the last one counts for up to 24 h.
    pub url: Option<Located<Url>>,
}

/// A signature algorithm of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SignatureAlgorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSA, PKCS #1 v1.5, SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// RSA, PKCS #1 v1.5, SHA-512.
    #[serde(rename = "RS512")]
    Rs512,
    /// RSA, PSS, SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// RSA, PSS, SHA-384.
    #[serde(rename = "PS384")]
    Ps384,
    /// RSA, PSS, SHA-512.
    #[serde(rename = "PS512")]
    Ps512,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA on P-384.
    #[serde(rename = "ES384")]
    Es384,
    /// ECDSA on P-521.
    #[serde(rename = "ES512")]
    Es512,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// HMAC with SHA-256.
    #[serde(rename = "HS256")]
    Hs256,
    /// HMAC with SHA-384.
    #[serde(rename = "HS384")]
    Hs384,
    /// HMAC with SHA-512.
    #[serde(rename = "HS512")]
    Hs512,
}

/// API keys: where they are kept, and where requests carry them. On WebSockets also as the subprotocol `apikey.` and the
/// key in base64url.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiKeys {
    /// A file as `sabir keys make` writes it: `keys: [{label, sha256, expires, scopes, roles, quota, rate, burst}]`, read
    /// when the gateway starts and when it reloads. All but the first two are optional. A `quota` (such as `10000/day`) and
    /// a `rate` (such as `50/s`, with a `burst`) are the key's own, written as in `rate_limits`: they bound all of its calls
    /// together, on all routes whose `auth` takes this file, beside what routes have; without them, a key is bounded by what
    /// routes have alone.
    pub file: Located<PathBuf>,
    /// The header that carries a key. Default: `x-api-key`, unless there is a `cookie`.
    pub header: Option<Located<HeaderWord>>,
    /// The cookie that carries a key. Default: none. Pages of other origins can't use it, but for those of the route's `cors` with
    /// `credentials`.
    pub cookie: Option<Located<HeaderWord>>,
}

/// Under what conditions callers may call some methods. A condition that is not there holds by default. All conditions of a rule have to hold, and one rule is enough;
/// where no rule speaks about a method, nobody may call it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rule {
    /// Which methods: `library.v1.Library/GetBook`, `library.v1.Library/*` or `*`. Default: all of the route.
    pub methods: Vec<Located<Methods>>,
    /// Scopes that the caller has: a list of which it needs all, or `{any: […], all: […]}`.
    pub scopes: Names,
    /// Roles that it has, written alike.
    pub roles: Names,
    /// Who it is: names, or the beginning of names followed by `*`. Default: anybody who is known.
    pub principals: Vec<String>,
    /// Claims by name, or by a path of names joined by dots: each is one of the values, or a list with one of them.
    pub claims: BTreeMap<String, Values>,
    /// A condition in CEL over `request` (`method`, `path`, `query`, `host`, `scheme`, `address`, `headers`), `identity`
    /// (`principal`, `issuer`, `auth`, `scopes`, `roles`, `claims`) and `message`, the first message by the names of its
    /// fields: `identity.claims.tenant == message.tenant`. What can't be evaluated is not true. A message that is read has
    /// 256 KiB at most.
    pub when: Option<Located<Expression>>,
}

/// Names of which a caller needs some.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// One of these.
    pub any: Vec<String>,
    /// All of these.
    pub all: Vec<String>,
}

/// The keys of [`Names`] when it is a mapping.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct NamesKeys {
    /// At least one of these.
    any: Vec<String>,
    /// Every one of these.
    all: Vec<String>,
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamesVisitor;

        impl<'de> Visitor<'de> for NamesVisitor {
            type Value = Names;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("names")
            }

            fn visit_unit<E: serde::de::Error>(self) -> Result<Names, E> {
                Ok(Names::default())
            }

            fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<Names, E> {
                Err(E::custom(
                    "is no list of names; write [a, b], or {any: [a, b], all: [c]}",
                ))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Names, A::Error> {
                let all = Vec::deserialize(SeqAccessDeserializer::new(items))?;
                Ok(Names { any: Vec::new(), all })
            }

            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Names, A::Error> {
                let NamesKeys { any, all } = NamesKeys::deserialize(MapAccessDeserializer::new(members))?;
                Ok(Names { any, all })
            }
        }

        deserializer.deserialize_any(NamesVisitor)
    }
}

impl JsonSchema for Names {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Names".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let keys = generator.subschema_for::<NamesKeys>();
        json_schema!({"anyOf": [{"type": "array", "items": {"type": "string"}}, keys]})
    }
}

/// One value, or a list of values, compared by their text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values(pub Vec<String>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValuesVisitor;

        impl<'de> Visitor<'de> for ValuesVisitor {
            type Value = Values;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a value, or a list of values")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Values, E> {
                Ok(Values(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Values, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(items)).map(Values)
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Values, A::Error> {
                Err(serde::de::Error::custom(
                    "is no value; write one, or a list of values",
                ))
            }
        }

        deserializer.deserialize_any(ValuesVisitor)
    }
}

impl JsonSchema for Values {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Values".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {"type": ["string", "number", "boolean"]},
                {"type": "array", "items": {"type": ["string", "number", "boolean"]}}
            ]
        })
    }
}
