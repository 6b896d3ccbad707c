//! The `relay:` block of a route as written: what is done with requests that are relayed as they are.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::Count;

/// What is done with the requests of a path.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// The HTTP methods that are relayed. Default: all.
    pub methods: Vec<Located<String>>,
    /// Another path for the backend.
    pub rewrite: Option<Located<Rewrite>>,
    /// The client is sent elsewhere; then there is no backend.
    pub redirect: Option<Located<Redirect>>,
    /// Several backends instead of one, each with its share of the requests.
    pub split: Vec<Located<Share>>,
    /// A backend that gets copies of requests; its answers are dropped.
    pub mirror: Option<Located<Mirror>>,
    /// Changes to the headers of the request.
    pub request_headers: HeaderChanges,
    /// Changes to the headers of the answer.
    pub response_headers: HeaderChanges,
    /// Which host the backend is asked for.
    pub host: AskedHost,
    /// What becomes of a path with an escaped slash.
    pub encoded_slash: EncodedSlash,
}

/// Another path for the backend: one of the two.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// What stands instead of the literal beginning of the route's path: with `/v2`, `/legacy/**` becomes `/v2/**`.
    pub prefix: Option<Located<String>>,
    /// The whole path, in which `{name}` is what the route's path has for it.
    pub path: Option<Located<String>>,
}

/// Where the client is sent. The query stays.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "permanent")]
    #[schemars(extend("default" = 308))]
    pub status: Located<u16>,
    /// Another scheme: `http` or `https`.
    pub scheme: Option<Located<String>>,
    /// Another host, maybe with a port.
    pub host: Option<Located<String>>,
    /// As in `rewrite`.
    pub prefix: Option<Located<String>>,
    /// As in `rewrite`.
    pub path: Option<Located<String>>,
}

fn permanent() -> Located<u16> {
    Located::default_of(308)
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// A name of `backends`.
    pub backend: Located<String>,
    /// Its share, as a part of the sum of all weights.
    pub weight: Count,
}

/// A backend that gets copies.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// A name of `backends`.
    pub backend: Located<String>,
    /// Of how many in a hundred requests; 1 to 100. Default: all.
    #[serde(default = "all")]
    #[schemars(range(min = 1, max = 100), extend("default" = 100))]
    pub percent: Located<u8>,
}

fn all() -> Located<u8> {
    Located::default_of(100)
}

/// Changes to headers: removed first, then set, then added.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderChanges {
    /// Names that are taken out.
    pub remove: Vec<Located<String>>,
    /// Names with a value that replaces what is there.
    pub set: BTreeMap<String, Located<String>>,
    /// Names with a value that stands beside what is there.
    pub add: BTreeMap<String, Located<String>>,
}

/// Which host a backend is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AskedHost {
    /// That of its endpoint; the client's is in `X-Forwarded-Host`.
    #[default]
    Endpoint,
    /// The one that the client asked for.
    Client,
}

/// What becomes of a path with `%2F` in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EncodedSlash {
    /// It is refused: a backend may read it as a slash, which the route did not see.
    #[default]
    Refuse,
    /// It is part of a segment, and stays as it is.
    Allow,
}
