//! Asking a running gateway, over its admin listener.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::Failure;
use crate::config::File;
use crate::config::file::DEFAULT_ADMIN;

/// How long an answer may take: a reload waits for backends.
const PATIENCE: Duration = Duration::from_secs(30);
/// The largest answer. Not measured: the pieces of a plan of ten thousand methods have 2 MiB.
const MAX_BYTES: usize = 64 << 20;
/// The content type of descriptors.
const PROTOBUF: &str = "application/x-protobuf";

/// Which gateway.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The admin listener of the running gateway, without TLS.
    #[arg(long, value_name = "ADDR", default_value_t = DEFAULT_ADMIN)]
    admin: SocketAddr,
    /// A file with its token.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
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
        })
    }
}

/// Asks one gateway.
pub(super) struct Operator {
    address: SocketAddr,
    token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// Nobody is there.
    Nobody(String),
    /// The gateway refuses.
    Refused(StatusCode, String),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody(said) => f.write_str(said),
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
    pub(super) fn of(file: &File) -> Self {
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
        Self {
            address,
            token: file.admin.token.as_ref().map(|token| token.0.clone()),
        }
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

fn json(answer: &[u8]) -> Result<Value, Silence> {
    serde_json::from_slice(answer)
        .map_err(|error| Silence::Nobody(format!("what answers is no gateway: {error}")))
}
