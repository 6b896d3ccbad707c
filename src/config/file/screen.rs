//! `addresses:`, `block:` and `errors:` as written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::{Network, Pattern};

/// Which client addresses are let in. Behind `trusted_proxies`, the client is whom they forward for.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Addresses {
    /// Those who are let in. Default: all.
    pub allow: Vec<Network>,
    /// Those who are not, even if `allow` has them. Default: none.
    pub deny: Vec<Network>,
}

/// What a request looks like that is refused with 403. All patterns of a rule have to match; they are regular
/// expressions in the syntax of Rust's `regex`, found anywhere in the text unless they begin with `^` and end with `$`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Block {
    /// The path, as it was sent or with its escapes decoded.
    pub path: Option<Located<Pattern>>,
    /// The query, without its `?`, as it was sent or decoded.
    pub query: Option<Located<Pattern>>,
    /// The `User-Agent` header; empty where there is none.
    pub user_agent: Option<Located<Pattern>>,
    /// Other headers by their name: any value of each.
    pub headers: BTreeMap<String, Located<Pattern>>,
}

/// What clients are told of a backend's errors.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Errors {
    /// Whether they get details of the type `google.rpc.DebugInfo`.
    pub debug_info: bool,
    /// What becomes of the messages of errors that are the server's: those whose HTTP status is 500 or more.
    pub server_messages: ServerMessages,
}

/// What becomes of the messages of a server's errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServerMessages {
    /// Clients get them.
    #[default]
    Keep,
    /// Clients get the name of the code instead.
    Replace,
}
