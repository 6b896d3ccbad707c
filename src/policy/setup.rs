//! What an `auth` block of the configuration comes to, as data, and how it becomes something that checks callers.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderName, Uri};
use thiserror::Error;

use super::api_keys::{ApiKeys, KeyFile, KeyFileError};
use super::auth::{Authenticator, KeyCarriers};
use super::identity::ForwardedClaim;
use super::jwks::{Keeper, KeySet, Pace, Place, SetError, Store};
use super::jwt::{Algorithm, ClaimNames, Issuer, Keys, Verifier};
use crate::upstream::fetch::Fetcher;
use crate::upstream::tls;

/// The largest file of keys that is read. Not measured: ten thousand API keys have 2 MiB.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// How callers of some routes prove who they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Setup {
    /// The name in the configuration.
    pub name: String,
    /// Issuers whose tokens are believed.
    pub issuers: Vec<IssuerSetup>,
    /// API keys.
    pub api_keys: Option<ApiKeySetup>,
    /// Whether a client certificate is taken.
    pub certificates: bool,
    /// Whether what was checked is passed on to backends.
    pub forward_credentials: bool,
    /// Claims that backends are told.
    pub forwarded_claims: Vec<ForwardedClaim>,
}

/// One issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IssuerSetup {
    /// Its name.
    pub name: String,
    /// Whom its tokens are for.
    pub audiences: Vec<String>,
    /// What it may sign with.
    pub algorithms: Vec<Algorithm>,
    /// Where its keys are.
    pub keys: KeysSetup,
    /// Where its tokens say what a caller may do.
    pub names: ClaimNames,
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeysSetup {
    /// In a file.
    File(PathBuf),
    /// It shares a secret with the gateway.
    Secret(Secret),
    /// They are fetched, from a server whose certificate comes from these authorities, or else those of the system.
    Fetched(Place, Option<PathBuf>),
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// API keys: where they are kept, and where requests carry them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApiKeySetup {
    /// The file with their digests.
    pub file: PathBuf,
    /// The header that carries a key.
    pub header: Option<HeaderName>,
    /// The cookie that carries one.
    pub cookie: Option<String>,
}

/// Why an `auth` block can't be used; names the file.
#[derive(Debug, Error)]
pub enum SetupError {
    /// A file can't be read.
    #[error("{}: can't be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file holds no keys of an issuer.
    #[error("{}: {error}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: SetError,
    },
    /// A file holds no API keys.
    #[error("{}: {error}", path.display())]
    ApiKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeyFileError,
    },
    /// The secret of an issuer does not do.
    #[error("the secret of issuer \"{issuer}\": {error}")]
    Secret {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        error: SetError,
    },
    /// TLS towards an issuer can't be set up.
    #[error("TLS towards issuer \"{0}\"")]
    Tls(String, #[source] tls::TlsError),
}

impl Setup {
    /// The files that it names.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.api_keys.iter().map(|keys| keys.file.clone()).collect();
        for issuer in &self.issuers {
            match &issuer.keys {
                KeysSetup::File(path) | KeysSetup::Fetched(_, Some(path)) => files.push(path.clone()),
                KeysSetup::Secret(_) | KeysSetup::Fetched(_, None) => {}
            }
        }
        files
    }

    /// Reads the files and gets everything ready. Keepers have to be run, for keys that are fetched.
    ///
    /// # Errors
    /// [`SetupError`]: a file, a secret or TLS.
    pub fn load(&self) -> Result<(Authenticator, Vec<Keeper>), SetupError> {
        let mut keepers = Vec::new();
        let mut issuers = Vec::new();
        for issuer in &self.issuers {
            issuers.push(Issuer {
                name: issuer.name.clone(),
                audiences: issuer.audiences.clone(),
                algorithms: issuer.algorithms.clone(),
                keys: issuer.load(&mut keepers)?,
                names: issuer.names.clone(),
            });
        }
        let api_keys = match &self.api_keys {
            None => None,
            Some(setup) => {
                let carriers = KeyCarriers {
                    header: setup.header.clone(),
                    cookie: setup.cookie.clone(),
                };
                Some((api_keys(&setup.file)?, carriers))
            }
        };
        let tokens = Verifier {
            issuers,
            forwarded: self.forwarded_claims.clone(),
        };
        Ok((Authenticator::new(self, tokens, api_keys), keepers))
    }
}

impl IssuerSetup {
    fn load(&self, keepers: &mut Vec<Keeper>) -> Result<Keys, SetupError> {
        match &self.keys {
            KeysSetup::File(path) => key_set(path).map(|set| Keys::Fixed(Arc::new(set))),
            KeysSetup::Secret(secret) => KeySet::shared(secret.0.as_bytes(), &self.algorithms)
                .map(|set| Keys::Fixed(Arc::new(set)))
                .map_err(|error| SetupError::Secret {
                    issuer: self.name.clone(),
                    error,
                }),
            KeysSetup::Fetched(place, ca) => {
                let secure = match place {
                    Place::Url(uri) => is_https(uri),
                    Place::Discovery(issuer) => issuer.parse().is_ok_and(|uri| is_https(&uri)),
                };
                let tls = secure
                    .then(|| tls::client_config(ca.as_deref(), None).map(Arc::new))
                    .transpose()
                    .map_err(|error| SetupError::Tls(self.name.clone(), error))?;
                let pace = Pace::default();
                let store = Arc::new(Store::new(pace));
                keepers.push(Keeper::new(
                    self.name.clone(),
                    place.clone(),
                    Fetcher::new(tls),
                    Arc::clone(&store),
                    pace,
                ));
                Ok(Keys::Fetched(store))
            }
        }
    }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&http::uri::Scheme::HTTPS)
}

/// The keys of an issuer from a file.
///
/// # Errors
/// It can't be read, or holds none.
pub fn key_set(path: &Path) -> Result<KeySet, SetupError> {
    KeySet::parse(&read(path)?).map_err(|error| SetupError::Keys {
        path: path.to_owned(),
        error,
    })
}

/// The API keys of a file.
///
/// # Errors
/// It can't be read, or is no such file.
pub fn api_keys(path: &Path) -> Result<ApiKeys, SetupError> {
    key_file(path).and_then(|file| {
        ApiKeys::new(file).map_err(|error| SetupError::ApiKeys {
            path: path.to_owned(),
            error,
        })
    })
}

/// A file of API keys as written.
///
/// # Errors
/// It can't be read, or is no such file.
pub fn key_file(path: &Path) -> Result<KeyFile, SetupError> {
    let text = String::from_utf8(read(path)?).map_err(|error| {
        SetupError::Read(path.to_owned(), io::Error::new(io::ErrorKind::InvalidData, error))
    })?;
    KeyFile::parse(&text).map_err(|error| SetupError::ApiKeys {
        path: path.to_owned(),
        error,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    let unreadable = |error| SetupError::Read(path.to_owned(), error);
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(unreadable(io::Error::other(format!(
            "it is larger than {MAX_FILE_BYTES} bytes"
        ))));
    }
    Ok(bytes)
}
