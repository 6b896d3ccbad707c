//! `sabir routes`: the route table of a configuration.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, answer, load};
use crate::describe::routes::Table;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    file: PathBuf,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let plan = load::plan(&self.file)?;
        answer(Table::new(&plan))?;
        // The table says what is missing from it.
        if plan.pending.is_empty() {
            Ok(())
        } else {
            Err(Failure::Refused)
        }
    }
}
