//! `redis:` as written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::located::Located;
use super::super::value::{Period, RedisUrl};

/// Redis or Valkey, by which the nodes of a cluster share `rate_limits`: rates and quotas, not calls in flight. Each node
/// borrows a twentieth of a limit at a time (one at least, a thousand at most), so that calls below
/// a limit seldom wait for it. While it answers in time, a rate is exceeded by no more than that for each node, and a quota never.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// Where it is: `redis://127.0.0.1:6379`, `rediss://` for TLS, with `user:password@` before the host where it asks
    /// for them, and `/1` after it for another database.
    pub url: Located<RedisUrl>,
    /// What the names of its keys begin with: gateways with the same prefix share limits of the same name. Default:
    /// `sabir`.
    #[serde(default)]
    #[schemars(extend("default" = "sabir"))]
    pub prefix: Option<String>,
    /// How long a call waits for it, where nothing is borrowed.
    #[schemars(extend("default" = "100ms"))]
    pub timeout: Option<Period>,
    /// What becomes of limits while it can't be reached.
    #[serde(default)]
    pub on_loss: OnLoss,
}

/// What becomes of limits while Redis can't be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLoss {
    /// Each node lets in its share: the limit, divided by the nodes that were seen last, one at least.
    #[default]
    Share,
    /// Every call is let in.
    Open,
    /// No call is let in: 503.
    Closed,
}
