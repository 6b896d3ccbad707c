//! How the program's own log lines look, and where they go.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::LogChoice;
use crate::observe::LogFormat;

/// What was chosen, or what suits whoever reads standard output.
pub(super) fn format(choice: Option<LogChoice>) -> LogFormat {
    match choice {
        Some(choice) => choice.into(),
        None if io::stdout().is_terminal() => LogFormat::Text,
        None => LogFormat::Json,
    }
}

/// Sends what the program says of itself to standard output; `RUST_LOG` says how much, and it is `info` otherwise.
pub(super) fn start(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false);
    let started = match format {
        LogFormat::Text => lines.with_ansi(io::stdout().is_terminal()).try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    // Whoever started one before has decided.
    drop(started);
}
