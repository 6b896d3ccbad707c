//! Asking a backend of the configuration what it offers.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use thiserror::Error;

use super::compile::backend_tls;
use super::diagnostic::Diagnostic;
use super::file::{Backend, File};
use super::schemas::rules;
use crate::discover::{DiscoverError, reflection};
use crate::schema::reflection::Learned;
use crate::schema::{Schema, SchemaError};
use crate::upstream::tls::{TlsError, client_config};

/// Why a backend's schema could not be learned.
#[derive(Debug, Error)]
pub enum LearnError {
    /// TLS towards the backend can't be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The backend could not be asked, or does not answer.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// A rules file can't be used.
    #[error("{}", .0.first().map_or("a rules file can't be used", |first| first.message.as_str()))]
    Rules(Vec<Diagnostic>),
    /// What the backend told is no schema.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Asks one of a backend's endpoints by server reflection what it offers.
///
/// # Errors
/// [`LearnError`]: the files of TLS, the endpoint or its answers are at fault.
///
/// # Cancel safety
/// Dropping the future closes the connection; nothing is kept.
pub async fn learn(
    file: &File,
    backend: &Backend,
    endpoint: Uri,
    timeout: Duration,
) -> Result<Learned, LearnError> {
    let tls = match endpoint.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => {
            let files = backend_tls(file, backend);
            let own = files
                .certificate
                .as_ref()
                .map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            Some(Arc::new(client_config(files.ca.as_deref(), own)?))
        }
        Some(_) | None => None,
    };
    Ok(reflection::fetch(endpoint, tls, timeout).await?)
}

/// The schema of a backend that told this, with its rules files merged over it.
///
/// # Errors
/// [`LearnError`]: a rules file can't be used, or what was told is no schema.
pub fn taught(file: &File, backend: &Backend, learned: Learned) -> Result<Schema, LearnError> {
    let rules = rules(file, backend).map_err(LearnError::Rules)?;
    Ok(Schema::from_learned(learned, &rules)?)
}
