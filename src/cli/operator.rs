//! Asking a running gateway, over its admin listener.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Failure;
use crate::config::file::DEFAULT_ADMIN;
use crate::config::{File, told};
use crate::upstream::tls::client_config;

/// How long an answer may take: a reload waits for backends.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer. Not measured: the pieces of a plan of ten thousand methods have 2 MiB.
const MAX_BYTES: usize = 64 << 20;
/// The content type of descriptors.
const PROTOBUF: &str = "application/x-protobuf";

/// Which gateway.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The admin listener of the running gateway.
    #[arg(long, value_name = "ADDR", default_value_t = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// A file with its token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    secure: Secure,
}

/// How an admin listener with TLS is spoken to.
#[derive(Debug, Args)]
pub(super) struct Secure {
    /// The admin listener speaks TLS; authorities of its certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// The name that its certificate is for. Default: its address.
    #[arg(long, value_name = "NAME", requires = "admin_ca")]
    admin_name: Option<String>,
    /// The certificate to show it, in PEM.
    #[arg(long, value_name = "FILE", requires_all = ["admin_ca", "admin_key"])]
    admin_certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "admin_certificate")]
    admin_key: Option<PathBuf>,
}

/// What it takes to speak TLS to an admin listener.
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Secure {
    /// What it takes to speak to the listener at `address`; nothing for one without TLS.
    fn tls(&self, address: SocketAddr, is_on: bool) -> Result<Option<Tls>, Failure> {
        if self.admin_ca.is_none() && !is_on {
            return Ok(None);
        }
        let own = self.admin_certificate.as_deref().zip(self.admin_key.as_deref());
        let mut config =
            client_config(self.admin_ca.as_deref(), own).map_err(|error| Failure::Failed(told(&error)))?;
        // The version that is spoken here.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = match &self.admin_name {
            None => ServerName::from(address.ip()),
            Some(name) => ServerName::try_from(name.clone())
                .map_err(|_| Failure::Failed(format!("--admin-name: \"{name}\" is no name of a server")))?,
        };
        Ok(Some(Tls {
            config: Arc::new(config),
            name,
        }))
    }
}

impl Which {
    pub(super) fn operator(&self) -> Result<Operator, Failure> {
        let token = match &self.token_file {
            None => None,
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?
                    .trim()
                    .to_owned(),
            ),
        };
        Ok(Operator {
            address: self.admin,
            token,
            tls: self.secure.tls(self.admin, false)?,
        })
    }
}

/// Asks one gateway.
pub(super) struct Operator {
    address: SocketAddr,
    token: Option<String>,
    tls: Option<Tls>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// Nobody is there.
    Nobody(String),
    /// Somebody is there who can't be believed to be the gateway.
    Untrusted(String),
    /// The gateway refuses.
    Refused(StatusCode, String),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(said) | Self::Untrusted(said) => f.write_str(said),
            Self::Refused(status, said) => write!(f, "the gateway refuses ({}): {said}", status.as_u16()),
        }
    }
}

impl From<Silence> for Failure {
    fn from(silence: Silence) -> Self {
        Self::Failed(silence.to_string())
    }
}

impl Operator {
    /// The one that runs with a configuration, as far as that says where it is.
    pub(super) fn of(file: &File, secure: &Secure) -> Result<Self, Failure> {
        let mut address = file.admin.address.0;
        // Where it listens on every address, it is asked on this machine's own.
        if address.ip().is_unspecified() {
            let here = if address.is_ipv4() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                Ipv6Addr::LOCALHOST.into()
            };
            address.set_ip(here);
        }
        Ok(Self {
            address,
            token: file.admin.token.as_ref().map(|token| token.0.clone()),
            tls: secure.tls(address, file.admin.tls.is_some())?,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Silence> {
        let answer = self.ask(Method::GET, path, "application/json", None).await?;
        json(&answer)
    }

    /// The descriptors of a registered schema.
    pub(super) async fn descriptors(&self, name: &str) -> Result<Bytes, Silence> {
        let path = format!("/v1/schemas/{name}");
        self.ask(Method::GET, &path, PROTOBUF, None).await
    }

    /// Registers descriptors.
    pub(super) async fn put(&self, name: &str, set: Bytes) -> Result<Value, Silence> {
        let path = format!("/v1/schemas/{name}");
        let answer = self
            .ask(Method::PUT, &path, "application/json", Some((PROTOBUF, set)))
            .await?;
        json(&answer)
    }

    /// Forgets a schema.
    pub(super) async fn delete(&self, name: &str, force: bool) -> Result<(), Silence> {
        let path = format!("/v1/schemas/{name}?force={force}");
        self.ask(Method::DELETE, &path, "application/json", None)
            .await
            .map(drop)
    }

    /// The connection, over TLS.
    async fn secured(&self, tls: &Tls, stream: TcpStream) -> Result<TlsStream<TcpStream>, Silence> {
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        connector.connect(tls.name.clone(), stream).await.map_err(|error| {
            let said = format!(
                "no TLS with the admin listener at {}: {error}; --admin-ca names the authorities of its certificate, \
                 --admin-name who it is for",
                self.address
            );
            Silence::Untrusted(said)
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Bytes, Silence> {
        let nobody = |error: &dyn fmt::Display| {
            Silence::Nobody(format!("no gateway answers at {}: {error}", self.address))
        };
        let talk = async {
            let stream = TcpStream::connect(self.address)
                .await
                .map_err(|error| nobody(&error))?;
            let stream: Box<dyn Io> = match &self.tls {
                None => Box::new(stream),
                Some(tls) => Box::new(self.secured(tls, stream).await?),
            };
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| nobody(&error))?;
            let mut request = Request::builder()
                .method(method)
                .uri(path)
                .header(HOST, self.address.to_string())
                .header(ACCEPT, accept);
            if let Some(token) = &self.token {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some((content_type, _)) = &body {
                request = request.header(CONTENT_TYPE, *content_type);
            }
            let bytes = body.map(|(_, bytes)| bytes).unwrap_or_default();
            let request = request.body(Full::new(bytes)).map_err(|error| nobody(&error))?;
            let answer = async {
                let response = sender
                    .send_request(request)
                    .await
                    .map_err(|error| nobody(&error))?;
                let status = response.status();
                let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
                let bytes = body.map_err(|error| nobody(&error))?.to_bytes();
                if status == StatusCode::OK {
                    Ok(bytes)
                } else {
                    let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                    let said = said["message"].as_str().unwrap_or("it does not say why");
                    Err(Silence::Refused(status, said.to_owned()))
                }
            };
            tokio::pin!(connection, answer);
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                // It has ended; what it brought is still to be read.
                _ended = &mut connection => {}
            }
            answer.await
        };
        match tokio::time::timeout(PATIENCE, talk).await {
            Ok(answer) => answer,
            Err(_) => Err(nobody(&format_args!("not within {PATIENCE:?}"))),
        }
    }
}

/// A connection, with or without TLS.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

fn json(answer: &[u8]) -> Result<Value, Silence> {
    serde_json::from_slice(answer)
        .map_err(|error| Silence::Nobody(format!("what answers is no gateway: {error}")))
}
