//! `sabir routes`: the route table of a configuration.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Failure, answer, load};
use crate::describe::routes::Table;

/// How the table is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Written {
    /// A row for each address.
    Text,
    /// An object for each method.
    Json,
}

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    file: PathBuf,
    /// How the table is written.
    #[arg(long, value_enum, default_value_t = Written::Text)]
    format: Written,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let plan = load::plan(&self.file)?;
        let table = Table::new(&plan);
        match self.format {
            Written::Text => answer(table)?,
            Written::Json => answer(format_args!("{}\n", table.to_json().map_err(io::Error::from)?))?,
        }
        // The table says what is missing from it.
        if plan.pending.is_empty() {
            Ok(())
        } else {
            Err(Failure::Refused)
        }
    }
}
