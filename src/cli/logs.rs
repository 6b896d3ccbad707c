//! How the program's own log lines look, and where they go.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload::Handle;

use super::LogChoice;
use crate::observe::LogFormat;
use crate::observe::level::{self, LevelError};

/// What was chosen, or what suits whoever reads standard output.
pub(super) fn format(choice: Option<LogChoice>) -> LogFormat {
    match choice {
        Some(choice) => choice.into(),
        None if io::stdout().is_terminal() => LogFormat::Text,
        None => LogFormat::Json,
    }
}

/// Sends what the program says of itself to standard output; `RUST_LOG` says how much, and it is `info` otherwise. The
/// admin API can change that.
pub(super) fn start(format: LogFormat) {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .from_env_lossy();
    let lines = tracing_subscriber::fmt().with_target(false);
    let started = match format {
        LogFormat::Text => {
            let lines = lines
                .with_ansi(io::stdout().is_terminal())
                .with_env_filter(filter)
                .with_filter_reloading();
            adjustable(lines.reload_handle());
            lines.try_init()
        }
        LogFormat::Json => {
            let lines = lines
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_env_filter(filter)
                .with_filter_reloading();
            adjustable(lines.reload_handle());
            lines.try_init()
        }
    };
    // Whoever started one before has decided.
    drop(started);
}

fn adjustable<S: 'static>(handle: Handle<EnvFilter, S>) {
    let read = handle.clone();
    let read = move || read.with_current(ToString::to_string).ok();
    level::install(read, move |directives| {
        let wrong = || LevelError::Directives(directives.to_owned());
        // An empty text would be "say nothing but errors", which nobody means.
        if directives.trim().is_empty() {
            return Err(wrong());
        }
        let filter = EnvFilter::try_new(directives).map_err(|_| wrong())?;
        handle.reload(filter).map_err(|_| LevelError::Fixed)
    });
}
