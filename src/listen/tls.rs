//! Certificates of a listener: loaded from PEM files, checked, and chosen by the name that the client asks for.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, VerifierBuilderError, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate chain and its key, as files in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The certificate, then those that issued it.
    pub certificate: PathBuf,
    /// The certificate's private key: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
}

/// Why TLS can't be set up. Each names the file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file can't be read.
    #[error("{}: can't be read", .0.display())]
    Read(PathBuf, #[source] std::io::Error),
    /// The file is not PEM.
    #[error("{}: not a PEM file", .0.display())]
    Pem(PathBuf, #[source] pem::Error),
    /// There is no certificate in it.
    #[error("{}: no certificate in the file; it should have a line \"-----BEGIN CERTIFICATE-----\"", .0.display())]
    NoCertificate(PathBuf),
    /// There is no key in it.
    #[error("{}: no private key in the file; it should have a line \"-----BEGIN PRIVATE KEY-----\"", .0.display())]
    NoKey(PathBuf),
    /// The key is of a kind that is not supported, or broken.
    #[error("{}: the private key can't be used", .0.display())]
    Key(PathBuf, #[source] rustls::Error),
    /// The certificate is broken.
    #[error("{}: the certificate can't be used", .0.display())]
    Certificate(PathBuf, #[source] rustls::Error),
    /// The two do not belong together.
    #[error("{}: the private key does not belong to the certificate in {}", .key.display(), .certificate.display())]
    Mismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        certificate: PathBuf,
    },
    /// The client certificates can't be checked against this file.
    #[error("{}: not usable as authorities of client certificates", .0.display())]
    ClientCa(PathBuf, #[source] VerifierBuilderError),
    /// A listener needs at least one certificate.
    #[error("no certificate is given")]
    Empty,
    /// The library refuses the combination.
    #[error("TLS can't be set up")]
    Config(#[source] rustls::Error),
}

/// The TLS side of a listener.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl Tls {
    /// Loads the certificates, of which the first serves clients that ask for no name or an unknown one, and the
    /// authorities whose client certificates are required, if there are any.
    ///
    /// # Errors
    /// [`TlsError`], naming the file.
    pub fn load(identities: &[Identity], client_ca: Option<&Path>) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let names = Names::load(identities, &provider)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Config)?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(authorities(file)?), provider)
                        .build()
                        .map_err(|error| TlsError::ClientCa(file.to_owned(), error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(names));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets let a client resume with any worker; the key of the tickets lives as long as this configuration,
        // so that new authorities are not met with old sessions.
        config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Config)?;
        Ok(Self(Arc::new(config)))
    }

    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.0
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

/// Certificates by the names in them.
#[derive(Debug)]
struct Names {
    first: Arc<CertifiedKey>,
    /// Names in lower case; a wildcard is kept without its star, as `.example.com`.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Names {
    fn load(identities: &[Identity], provider: &rustls::crypto::CryptoProvider) -> Result<Self, TlsError> {
        let mut first = None;
        let mut by_name = HashMap::new();
        for identity in identities {
            let key = Arc::new(certified(identity, provider)?);
            for name in names(&key, &identity.certificate)? {
                // The certificate that is listed first keeps the name.
                by_name.entry(name).or_insert_with(|| Arc::clone(&key));
            }
            first.get_or_insert(key);
        }
        Ok(Self {
            first: first.ok_or(TlsError::Empty)?,
            by_name,
        })
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            // A wildcard stands for one label. Source: RFC 6125, section 6.4.3.
            let parent = name.find('.').and_then(|dot| name.get(dot..))?;
            self.by_name.get(parent)
        })
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|name| self.find(name));
        Some(Arc::clone(found.unwrap_or(&self.first)))
    }
}

fn names(key: &CertifiedKey, file: &Path) -> Result<Vec<String>, TlsError> {
    let leaf = key
        .end_entity_cert()
        .map_err(|error| TlsError::Certificate(file.to_owned(), error))?;
    let broken = |error: webpki::Error| {
        let error = rustls::OtherError(Arc::new(error));
        TlsError::Certificate(file.to_owned(), rustls::Error::Other(error))
    };
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(broken)?;
    let names = leaf
        .valid_dns_names()
        .map(|name| name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase())
        .collect();
    Ok(names)
}

fn certified(
    identity: &Identity,
    provider: &rustls::crypto::CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let chain = certificates(&identity.certificate)?;
    let file = || identity.key.clone();
    let key = PrivateKeyDer::from_pem_slice(&read(&identity.key)?).map_err(|error| match error {
        pem::Error::NoItemsFound => TlsError::NoKey(file()),
        error => TlsError::Pem(file(), error),
    })?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Mismatch {
            key: file(),
            certificate: identity.certificate.clone(),
        },
        error @ rustls::Error::InvalidCertificate(_) => {
            TlsError::Certificate(identity.certificate.clone(), error)
        }
        error => TlsError::Key(file(), error),
    })
}

fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Certificate(file.to_owned(), error))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Pem(file.to_owned(), error))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate(file.to_owned()));
    }
    Ok(chain)
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|error| TlsError::Read(file.to_owned(), error))
}

#[cfg(test)]
mod tests;
