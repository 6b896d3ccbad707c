//! `sabir check`: everything that is wrong with a configuration, without asking a backend.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use clap::Args;

use super::{Failure, answer, tell};
use crate::config::{self, Plan, Source};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    file: PathBuf,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = config::load(&Source::file(&self.file)).map_err(Failure::Config)?;
        let plan = config::check(&file).map_err(Failure::Config)?;
        tell(&mut io::stderr().lock(), &plan.warnings)?;
        answer(summary(&self.file.display().to_string(), &plan))
    }
}

/// What the configuration comes to.
fn summary(name: &str, plan: &Plan) -> String {
    let mut text = String::new();
    let counted = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let mut line = |line: String| {
        // Writing into a string can't fail.
        let _ = writeln!(text, "{line}");
    };
    line(format!(
        "{name}: {}, {}, {}, {}",
        counted(plan.listeners.len(), "listener"),
        counted(plan.backends.len(), "backend"),
        counted(plan.declared.len() + plan.paths.len(), "route"),
        counted(plan.entries.len(), "method"),
    ));
    for disabled in &plan.disabled {
        line(format!(
            "  not in use: {} of {}: {}",
            disabled.rule, disabled.method, disabled.reason
        ));
    }
    let mut pending: Vec<&str> = plan
        .pending
        .iter()
        .map(|pending| pending.backend.as_str())
        .collect();
    pending.dedup();
    for backend in pending {
        line(format!(
            "  not checked: what backend \"{backend}\" offers; that is learned when the gateway runs"
        ));
    }
    text
}
