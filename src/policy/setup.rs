//! What an `auth` block of the configuration comes to, as data, and how it becomes something that checks callers.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};
use thiserror::Error;

use super::api_keys::{ApiKeys, KeyFile, KeyFileError};
use super::auth::{Authenticator, Ways};
use super::credential::KeyCarriers;
use super::ext_authz::ExtAuthz;
use super::identity::ForwardedClaim;
use super::introspection::Introspection;
use super::jwks::{self, Keeper, KeySet, Pace, SetError, Store};
use super::jwt::{Algorithm, ClaimNames, Issuer, Keys, Verifier};
use super::passwords::{PasswordFileError, Passwords};
use super::remote::Place;
use super::revocation::list::ListError;
use super::revocation::{RevocationSetup, Revocations};
use crate::upstream::connect::Speaks;
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
    /// The file with names and hashes of passwords.
    pub passwords: Option<PathBuf>,
    /// Who is asked about opaque tokens.
    pub introspection: Option<IntrospectionSetup>,
    /// Whether a client certificate is taken.
    pub certificates: bool,
    /// Who else is asked whether a request may pass.
    pub ext_authz: Option<ExtAuthzSetup>,
    /// Where it is said which tokens are revoked.
    pub revocation: Option<RevocationSetup>,
    /// Whether a token may come as the first message of a WebSocket.
    pub first_message: bool,
    /// Where tickets are given that open WebSockets.
    pub tickets: Option<TicketSetup>,
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
    Fetched(jwks::Place, Option<PathBuf>),
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
    /// The name under which limits of the keys' own are counted: that of the first block with this file, so that all
    /// blocks with it share them, and no two files do.
    pub counted_as: String,
    /// The header that carries a key.
    pub header: Option<HeaderName>,
    /// The cookie that carries one.
    pub cookie: Option<String>,
}

/// Who is asked about opaque tokens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IntrospectionSetup {
    /// Where.
    pub url: Uri,
    /// Who the gateway is to it.
    pub client_id: String,
    /// How it proves that.
    pub client_secret: Secret,
    /// Whom tokens have to be for; empty for anybody.
    pub audiences: Vec<String>,
    /// The authorities of its certificate; absent, those of the system.
    pub ca: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How long an answer is believed.
    pub cache: Duration,
    /// Where answers say what a caller may do.
    pub names: ClaimNames,
}

/// A service that decides whether a request may pass.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExtAuthzSetup {
    /// How it is asked.
    pub protocol: Protocol,
    /// Where.
    pub url: Uri,
    /// The authorities of its certificate; absent, those of the system.
    pub ca: Option<PathBuf>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// What becomes of a request when there is no answer.
    pub on_failure: OnFailure,
    /// Which headers it is told; absent, the usual ones.
    pub request_headers: Option<Vec<HeaderName>>,
    /// Which headers it alone may write for backends.
    pub upstream_headers: Vec<HeaderName>,
    /// Which of them says who calls.
    pub principal_header: Option<HeaderName>,
    /// How long answers count for requests that are alike.
    pub cache: Option<VerdictCache>,
}

/// Tickets that open WebSockets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TicketSetup {
    /// Where they are given, by POST.
    pub path: String,
    /// How long they hold.
    pub ttl: Duration,
}

/// How an authorization service is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// `envoy.service.auth.v3.Authorization/Check`.
    Grpc,
    /// A GET, of which any 2xx lets the request pass.
    Http,
}

/// What becomes of a request when the service does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Deny,
    /// It passes.
    Allow,
}

/// How long answers count for requests with the same method, URL, client and headers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerdictCache {
    /// How long.
    pub ttl: Duration,
    /// Which headers.
    pub headers: Vec<HeaderName>,
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
    /// A file holds no passwords.
    #[error("{}: {error}", path.display())]
    Passwords {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: PasswordFileError,
    },
    /// A file does not say what is revoked.
    #[error("{}: {error}", path.display())]
    Revocations {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: ListError,
    },
    /// A service can't be asked at its URL.
    #[error("{0}")]
    Url(&'static str, #[source] io::Error),
    /// The secret of an issuer does not do.
    #[error("the secret of issuer \"{issuer}\": {error}")]
    Secret {
        /// The issuer.
        issuer: String,
        /// What is wrong.
        error: SetError,
    },
    /// TLS towards an issuer or a service can't be set up.
    #[error("TLS towards \"{0}\"")]
    Tls(String, #[source] tls::TlsError),
}

impl Setup {
    /// The files that it names, but for the list of what is revoked, which is read when it changes and by who looks after
    /// it.
    pub fn files(&self) -> Vec<PathBuf> {
        let keys = self.api_keys.iter().map(|keys| keys.file.clone());
        let outside = [
            self.introspection.as_ref().and_then(|it| it.ca.clone()),
            self.ext_authz.as_ref().and_then(|it| it.ca.clone()),
        ];
        let mut files: Vec<PathBuf> = keys
            .chain(self.passwords.clone())
            .chain(outside.into_iter().flatten())
            .collect();
        for issuer in &self.issuers {
            match &issuer.keys {
                KeysSetup::File(path) | KeysSetup::Fetched(_, Some(path)) => files.push(path.clone()),
                KeysSetup::Secret(_) | KeysSetup::Fetched(_, None) => {}
            }
        }
        files
    }

    /// Reads the files and gets everything ready; `revocations` say what is revoked, where that is asked. Keepers have to be
    /// run, for keys that are fetched.
    ///
    /// # Errors
    /// [`SetupError`]: a file, a secret or TLS.
    pub fn load(
        &self,
        revocations: Option<Arc<Revocations>>,
    ) -> Result<(Authenticator, Vec<Keeper>), SetupError> {
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
        let ways = Ways {
            tokens: Verifier {
                issuers,
                forwarded: self.forwarded_claims.clone(),
            },
            api_keys,
            passwords: self.passwords.as_deref().map(passwords).transpose()?,
            introspection: self.introspection()?,
            ext_authz: self.ext_authz()?,
            revocations,
        };
        Ok((Authenticator::new(self, ways), keepers))
    }

    /// What is revoked by the file of this block, if that is asked.
    ///
    /// # Errors
    /// The file can't be read, or a line of it.
    pub fn revocations(&self) -> Result<Option<Arc<Revocations>>, SetupError> {
        let setup = self.revocation.as_ref();
        setup.map(|it| Revocations::new(it).map(Arc::new)).transpose()
    }

    fn introspection(&self) -> Result<Option<Introspection>, SetupError> {
        let Some(setup) = &self.introspection else {
            return Ok(None);
        };
        let place = remote(
            "introspection",
            &setup.url,
            setup.ca.as_deref(),
            Speaks::Http1,
            setup.timeout,
        )?;
        let not = || {
            SetupError::Url(
                "introspection",
                io::Error::other("the secret can't be in a header"),
            )
        };
        Introspection::new(place, setup, &self.forwarded_claims)
            .ok_or_else(not)
            .map(Some)
    }

    fn ext_authz(&self) -> Result<Option<ExtAuthz>, SetupError> {
        let Some(setup) = &self.ext_authz else {
            return Ok(None);
        };
        let speaks = match setup.protocol {
            Protocol::Grpc => Speaks::Http2,
            Protocol::Http => Speaks::Http1,
        };
        let place = remote(
            "ext_authz",
            &setup.url,
            setup.ca.as_deref(),
            speaks,
            setup.timeout,
        )?;
        Ok(Some(ExtAuthz::new(place, setup)))
    }
}

/// A service that is asked on the call path.
fn remote(
    name: &'static str,
    url: &Uri,
    ca: Option<&Path>,
    speaks: Speaks,
    timeout: Duration,
) -> Result<Place, SetupError> {
    let tls = is_https(url)
        .then(|| tls::client_config(ca, None).map(Arc::new))
        .transpose()
        .map_err(|error| SetupError::Tls(name.to_owned(), error))?;
    Place::new(name, url, tls, speaks, timeout).map_err(|error| SetupError::Url(name, error))
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
                    jwks::Place::Url(uri) => is_https(uri),
                    jwks::Place::Discovery(issuer) => issuer.parse().is_ok_and(|uri| is_https(&uri)),
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

/// The callers of a file of passwords.
///
/// # Errors
/// It can't be read, or holds none.
pub fn passwords(path: &Path) -> Result<Passwords, SetupError> {
    Passwords::parse(&text(path)?).map_err(|error| SetupError::Passwords {
        path: path.to_owned(),
        error,
    })
}

/// A file of API keys as written.
///
/// # Errors
/// It can't be read, or is no such file.
pub fn key_file(path: &Path) -> Result<KeyFile, SetupError> {
    KeyFile::parse(&text(path)?).map_err(|error| SetupError::ApiKeys {
        path: path.to_owned(),
        error,
    })
}

pub(super) fn text(path: &Path) -> Result<String, SetupError> {
    String::from_utf8(read(path)?)
        .map_err(|error| SetupError::Read(path.to_owned(), io::Error::new(io::ErrorKind::InvalidData, error)))
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
