//! `sabir config schema`: the JSON Schema of the configuration.

use super::{Failure, answer};
use crate::config::json_schema;

pub(super) fn run() -> Result<(), Failure> {
    answer(json_schema())
}
