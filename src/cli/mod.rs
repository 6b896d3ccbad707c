//! The command line: what can be asked of the program, and how it ends.
//!
//! It ends with 0 if all is well, with 1 if what was asked for failed, and with 2 for a wrong command line or a wrong
//! configuration. Answers go to standard output, what is wrong to standard error.

mod backends;
mod check;
mod demo;
mod descriptors;
mod explain;
mod keys;
mod load;
mod logs;
mod operator;
mod revoke;
mod routes;
mod schema;
mod serve;
mod token;

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::Diagnostic;
use crate::observe::LogFormat;

/// A multi-protocol translating edge gateway: REST/JSON and gRPC on one port, mapped onto gRPC backends.
#[derive(Debug, Parser)]
#[command(name = "sabir", version, about, arg_required_else_help = true)]
struct Arguments {
    /// How log lines look; text on a terminal, json elsewhere.
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<LogChoice>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a gateway in front of an embedded example service, and print what to try.
    Demo,
    /// Run a gateway, from a file or in front of one gRPC backend.
    Serve(Box<serve::Arguments>),
    /// Check a configuration and the files that it names: every error at once, with its place.
    ///
    /// Nobody is contacted, unless with `--online`.
    Check(check::Arguments),
    /// Print the route table of a configuration. Backends that are asked by reflection are contacted.
    Routes(routes::Arguments),
    /// Print the backends of a running gateway, with the health and the load of their endpoints.
    ///
    /// Ends with 1 where a backend has no endpoint that takes calls.
    Backends(backends::Arguments),
    /// Say what would become of a request, and why, without sending it anywhere.
    Explain(explain::Arguments),
    /// Make, hash and list API keys.
    #[command(subcommand)]
    Keys(keys::Arguments),
    /// Say what is in a token, and whether the gateway of a configuration would believe it, or why not.
    Token(token::Arguments),
    /// Revoke a token or the tokens of a subject, before they expire, at every gateway of a configuration.
    Revoke(revoke::Arguments),
    /// List, fetch and compare descriptors, and register them with a running gateway.
    Schema(descriptors::Arguments),
    /// About the configuration itself.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print the JSON Schema of the configuration.
    Schema,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogChoice {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Why a command did not do what it was asked for.
#[derive(Debug)]
enum Failure {
    /// The configuration is wrong.
    Config(Vec<Diagnostic>),
    /// What was asked for failed; the text says why.
    Failed(String),
    /// What was asked for has been told, and it is a no.
    Refused,
    /// Nobody reads the answer any more.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

/// Reads the command line of the process and does what it says.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let wrong = error.use_stderr();
            // Where the message can't be written there is nobody to tell.
            let _ = error.print();
            return ExitCode::from(if wrong { 2 } else { 0 });
        }
    };
    match arguments.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // As above.
            let _ = failure.tell(&mut io::stderr().lock());
            failure.code()
        }
    }
}

impl Arguments {
    fn run(self) -> Result<(), Failure> {
        let format = logs::format(self.log_format);
        match self.command {
            Command::Demo => demo::run(format),
            Command::Serve(arguments) => arguments.run(format),
            Command::Check(arguments) => arguments.run(),
            Command::Routes(arguments) => arguments.run(),
            Command::Backends(arguments) => arguments.run(),
            Command::Explain(arguments) => arguments.run(),
            Command::Keys(arguments) => arguments.run(),
            Command::Token(arguments) => arguments.run(),
            Command::Revoke(arguments) => arguments.run(),
            Command::Schema(arguments) => arguments.run(),
            Command::Config(ConfigCommand::Schema) => schema::run(),
        }
    }
}

impl From<LogChoice> for LogFormat {
    fn from(choice: LogChoice) -> Self {
        match choice {
            LogChoice::Text => Self::Text,
            LogChoice::Json => Self::Json,
        }
    }
}

impl Failure {
    fn tell(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Config(found) => {
                tell(out, found)?;
                let errors = found.iter().filter(|found| found.is_error()).count();
                writeln!(out, "{errors} {}", if errors == 1 { "error" } else { "errors" })
            }
            Self::Failed(text) => writeln!(out, "sabir: {text}"),
            Self::Refused | Self::Output(_) => Ok(()),
        }
    }

    fn code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(2),
            Self::Failed(_) | Self::Refused => ExitCode::from(1),
            // `sabir routes … | head` has all that it wanted.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::Output(_) => ExitCode::from(1),
        }
    }
}

/// Writes diagnostics, an empty line after each.
fn tell(out: &mut impl Write, found: &[Diagnostic]) -> io::Result<()> {
    found.iter().try_for_each(|found| writeln!(out, "{found}\n"))
}

/// Writes a remark to standard error.
fn note(text: impl fmt::Display) -> Result<(), Failure> {
    writeln!(io::stderr().lock(), "sabir: {text}")?;
    Ok(())
}

/// Writes an answer to standard output.
fn answer(text: impl fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}")?;
    out.flush()?;
    Ok(())
}

/// Replaces a file as a whole: one that is half written would lock everybody out, or let everybody in.
fn replace(file: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", file.display()));
    let beside = file.with_extension("new");
    let mut written = std::fs::File::create(&beside).map_err(failed)?;
    written.write_all(text.as_bytes()).map_err(failed)?;
    written.sync_all().map_err(failed)?;
    std::fs::rename(&beside, file).map_err(failed)
}

#[cfg(test)]
mod tests;
