//! `auth.NAME.revocation:` as written.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::located::Located;

/// Where it is said which tokens are revoked: in a file, in Redis, or in both. What is revoked is refused with 401, tokens
/// that were verified before among them, and what was begun with it (WebSockets, streams, calls) is ended. A list has
/// 100,000 entries at most.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// A file with an entry a line, as `sabir revoke` writes it: `{"jti": "ID"}`, or `{"sub": "NAME"}` for all tokens of a
    /// subject, with `"before": "2027-01-31T12:00:00Z"` for those that were issued before; also `"iss"`, the issuer, and
    /// `"until"`, when the entry may be forgotten. It is looked at once a second. When it can't be read, a gateway does
    /// not start, and one that runs goes on with what it read before.
    pub file: Option<Located<PathBuf>>,
    /// Whether the Redis of `redis` says it too, for all gateways with its `prefix`. It is asked once a second, and not for
    /// calls: what is revoked there counts within 2s.
    #[serde(default = "no")]
    #[schemars(extend("default" = false))]
    pub redis: Located<bool>,
    /// What becomes of tokens while Redis can't be asked.
    #[serde(default)]
    pub on_loss: Option<Located<RevocationOnLoss>>,
}

fn no() -> Located<bool> {
    Located::default_of(false)
}

/// What becomes of tokens while Redis can't be asked what is revoked. Either way, a gateway that has heard nothing since it
/// started refuses them with 503. Default: `keep`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevocationOnLoss {
    /// What was heard last counts.
    #[default]
    Keep,
    /// After 10 s they are refused: 503.
    Closed,
}
