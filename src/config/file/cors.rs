//! `cors:` of a route as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::located::Located;
use super::super::value::{HeaderPattern, Origin, Period, Verb};

/// Which pages of other origins may call from a browser, whatever protocol they speak.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Whose pages: origins such as `https://app.example.com`, or `*` for everybody's.
    #[schemars(length(min = 1))]
    pub origins: Located<Vec<Located<Origin>>>,
    /// HTTP methods that they may use. Default: those that a path answers.
    pub methods: Option<Vec<Verb>>,
    /// Request headers that they may send beside those of the protocols, such as `authorization`; `*` for any.
    #[serde(default)]
    pub headers: Vec<Located<HeaderPattern>>,
    /// Response headers that they may read. The status of a call and the metadata that an answer begins with are always
    /// exposed; `*` for any.
    #[serde(default)]
    pub expose: Vec<Located<HeaderPattern>>,
    /// Whether the browser sends cookies and other credentials along. Not with `*` in another key.
    #[serde(default)]
    pub credentials: bool,
    /// How long a browser remembers the answer to a preflight request.
    #[schemars(extend("default" = "10m"))]
    pub max_age: Option<Period>,
}
