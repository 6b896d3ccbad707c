//! A configuration with what its backends offer right now, for commands that do not serve.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use tokio::runtime::Builder;

use super::Failure;
use crate::config::file::{Backend, File};
use crate::config::{self, Plan, SchemaState, Source, told};
use crate::policy::Setup;
use crate::policy::auth::Authenticator;

/// How long a backend may take to tell what it offers: somebody waits for it at a terminal.
const PATIENCE: Duration = Duration::from_secs(2);

/// The plan of a file. A backend that can't be asked leaves its routes pending, with the reason.
pub(super) fn plan(path: &Path) -> Result<Plan, Failure> {
    let file = config::load(&Source::file(path)).map_err(Failure::Config)?;
    let mut schemas = config::schemas(&file).map_err(Failure::Config)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    for (name, backend) in &file.backends {
        if let Some(state @ SchemaState::Pending(_)) = schemas.get_mut(name) {
            *state = runtime.block_on(ask(&file, backend));
        }
    }
    config::compile(&file, &schemas).map_err(Failure::Config)
}

/// What checks callers, with the keys of issuers that are fetched. Keys that can't be had are told, and missing.
pub(super) async fn authenticator(setup: &Setup) -> Result<Authenticator, Failure> {
    let revocations = setup
        .revocations()
        .map_err(|error| Failure::Failed(told(&error)))?;
    #[cfg(feature = "redis")]
    if let Some(revocations) = &revocations
        && let Err(error) = revocations.once().await
    {
        super::note(format_args!(
            "redis does not tell what is revoked: {}",
            told(&error)
        ))?;
    }
    let (authenticator, keepers) = setup
        .load(revocations)
        .map_err(|error| Failure::Failed(told(&error)))?;
    for mut keeper in keepers {
        if let Err(error) = keeper.once().await {
            super::note(format_args!(
                "the keys of {} can't be fetched: {}",
                keeper.issuer(),
                told(&error)
            ))?;
        }
    }
    Ok(authenticator)
}

/// The endpoints of a backend that are there now.
async fn found(file: &File, backend: &Backend, reasons: &mut Vec<String>) -> Vec<Uri> {
    match config::source(file, backend).urls().await {
        Ok(found) => found,
        Err(error) => {
            reasons.push(told(&error));
            Vec::new()
        }
    }
}

/// Fetches the keys of issuers once, and what is revoked; what went wrong.
pub(super) async fn keys(setup: &Setup) -> Result<Vec<String>, Failure> {
    let failed = |error| Failure::Failed(told(&error));
    let revocations = setup.revocations().map_err(failed)?;
    let mut problems = Vec::new();
    #[cfg(feature = "redis")]
    if let Some(revocations) = &revocations
        && let Err(error) = revocations.once().await
    {
        problems.push(format!("redis does not tell what is revoked: {}", told(&error)));
    }
    let (_authenticator, keepers) = setup.load(revocations).map_err(failed)?;
    for mut keeper in keepers {
        if let Err(error) = keeper.once().await {
            problems.push(format!(
                "the keys of {} can't be fetched: {}",
                keeper.issuer(),
                told(&error)
            ));
        }
    }
    Ok(problems)
}

/// Asks the endpoints one after the other until one answers.
pub(super) async fn ask(file: &File, backend: &Backend) -> SchemaState {
    let mut reasons = Vec::new();
    for endpoint in found(file, backend, &mut reasons).await {
        match config::learn(file, backend, endpoint, PATIENCE).await {
            Ok(learned) => match config::taught(file, backend, learned) {
                Ok(schema) => return SchemaState::Ready(Arc::new(schema)),
                Err(error) => reasons.push(told(&error)),
            },
            Err(error) => reasons.push(told(&error)),
        }
    }
    SchemaState::Pending(reasons.join("; "))
}
