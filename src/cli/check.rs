//! `sabir check`: everything that is wrong with a configuration; with `--online`, what it comes to where it will run, and
//! what it changes at the gateway that runs there now.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use super::operator::{Operator, Secure, Silence};
use super::{Failure, answer, load, note, tell};
use crate::config::file::{Backend, SchemaSource};
use crate::config::{self, Diagnostic, File, Plan, SchemaState, Source, told};
use crate::describe::inventory::Inventory;
use crate::schema::Schema;

/// How long an endpoint may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration.
    file: PathBuf,
    /// Reach every backend, ask for schemas and keys, and compare with the gateway that runs with this configuration's
    /// admin listener.
    #[arg(long)]
    online: bool,
    #[command(flatten)]
    secure: Secure,
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = config::load(&Source::file(&self.file)).map_err(Failure::Config)?;
        let plan = config::check(&file).map_err(Failure::Config)?;
        let name = self.file.display().to_string();
        if !self.online {
            tell(&mut io::stderr().lock(), &plan.warnings)?;
            return answer(summary(&name, &plan));
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(online(&name, &file, &self.secure))
    }
}

/// The dry run: everything but serving.
async fn online(name: &str, file: &File, secure: &Secure) -> Result<(), Failure> {
    let operator = Operator::of(file, secure)?;
    let running = match operator.get("/v1/plan").await {
        Ok(running) => Some(running),
        Err(Silence::Nobody(_)) => None,
        Err(refused @ (Silence::Refused(..) | Silence::Untrusted(_))) => return Err(refused.into()),
    };
    let mut schemas = config::schemas(file).map_err(Failure::Config)?;
    let mut problems = Vec::new();
    for (name, backend) in &file.backends {
        for problem in reach(file, backend).await {
            problems.push(format!("backend \"{name}\": {problem}"));
        }
        let state = match backend.source() {
            Some(SchemaSource::Reflection) => load::ask(file, backend).await,
            Some(SchemaSource::Registry(wanted)) if running.is_some() => {
                registered(&operator, file, backend, &wanted.value).await
            }
            Some(SchemaSource::Registry(_) | SchemaSource::Protos(_) | SchemaSource::Descriptors(_))
            | None => {
                continue;
            }
        };
        if let SchemaState::Pending(reason) = &state {
            problems.push(format!("backend \"{name}\": {reason}"));
        }
        schemas.insert(name.clone(), state);
    }
    let plan = config::compile(file, &schemas).map_err(Failure::Config)?;
    for setup in &plan.auth {
        problems.extend(load::keys(setup).await?);
    }
    tell(&mut io::stderr().lock(), &plan.warnings)?;
    let mut text = summary(name, &plan);
    // Writing into a string can't fail.
    match running {
        None => {
            let _ = writeln!(
                text,
                "  no gateway runs at {}, so there is nothing to compare with",
                operator.address()
            );
        }
        Some(running) => {
            let pieces = running["pieces"].as_object().into_iter().flatten();
            let pieces =
                pieces.map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned()));
            let before = Inventory::from_pieces(pieces);
            let generation = running["generation"].as_str().unwrap_or("?");
            let changes = before.changes(&Inventory::of(&plan));
            if changes.is_empty() {
                let _ = writeln!(
                    text,
                    "  the gateway at {} runs the same (generation {generation})",
                    operator.address()
                );
            } else {
                let _ = writeln!(
                    text,
                    "  changes to the gateway at {} (generation {generation}):",
                    operator.address()
                );
            }
            for change in changes {
                let _ = writeln!(text, "    {change}");
            }
        }
    }
    answer(text)?;
    if problems.is_empty() {
        return Ok(());
    }
    problems.iter().try_for_each(note)?;
    Err(Failure::Refused)
}

/// Connects to each endpoint; what went wrong.
async fn reach(file: &File, backend: &Backend) -> Vec<String> {
    let mut problems = Vec::new();
    let found = match config::source(file, backend).once().await {
        Ok(found) => found,
        Err(error) => return vec![format!("its endpoints can't be found: {}", told(&error))],
    };
    for listed in found {
        let uri = &listed.uri;
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let usual = if uri.scheme_str() == Some("https") {
            443
        } else {
            80
        };
        let connecting = TcpStream::connect((host, uri.port_u16().unwrap_or(usual)));
        let problem = match tokio::time::timeout(PATIENCE, connecting).await {
            Ok(Ok(_)) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {PATIENCE:?}"),
        };
        problems.push(format!("{uri} can't be reached: {problem}"));
    }
    problems
}

/// What the running gateway has under a name, with the rules of the backend.
async fn registered(operator: &Operator, file: &File, backend: &Backend, name: &str) -> SchemaState {
    let set = match operator.descriptors(name).await {
        Ok(set) => set,
        Err(silence) => return SchemaState::Pending(silence.to_string()),
    };
    let rules = match config::rules(file, backend) {
        Ok(rules) => rules,
        Err(found) => {
            return SchemaState::Pending(found.iter().map(Diagnostic::brief).collect::<Vec<_>>().join("; "));
        }
    };
    match Schema::from_descriptor_set(&set, &rules) {
        Ok(schema) => SchemaState::Ready(Arc::new(schema)),
        Err(error) => SchemaState::Pending(told(&error)),
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
