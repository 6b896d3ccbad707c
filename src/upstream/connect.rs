//! Dialling one endpoint: TCP, TLS where the URL says so, and the HTTP version that both sides speak.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::upstream::http1;
use crate::upstream::http2::Connection;
use crate::wire::apart;

/// Why an endpoint could not be dialled.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// No answer in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// The system refused or the name has no address.
    #[error("can't connect")]
    Io(#[source] io::Error),
    /// TLS failed: the certificate, the name or the protocol version.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// The peer speaks TLS but not HTTP/2.
    #[error("the endpoint does not offer HTTP/2 (ALPN \"h2\")")]
    NoHttp2,
    /// The peer closed the connection before it was asked anything, or spoke first.
    #[error("the endpoint does not wait for a request")]
    Closed,
}

/// Which versions of HTTP an endpoint is spoken to in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Speaks {
    /// HTTP/2 alone: with prior knowledge, or by ALPN.
    Http2,
    /// HTTP/1.1 without TLS; HTTP/2 or HTTP/1.1 by ALPN.
    Http1,
    /// HTTP/1.1 alone, with TLS too: connections that become WebSockets.
    Http1Alone,
}

/// How connections to an endpoint are made and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// The versions of HTTP.
    pub speaks: Speaks,
    /// Of HTTP/1.1 connections.
    pub http1: Http1,
    /// Of HTTP/2 connections.
    pub http2: Http2,
}

/// Settings of HTTP/1.1 connections to upstreams. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Http1 {
    /// The header section of an answer.
    pub max_header_bytes: usize,
    /// How long a connection is kept without a request.
    pub idle_timeout: Duration,
}

/// Settings of HTTP/2 connections to upstreams. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Http2 {
    /// Streams at once on one connection.
    pub max_streams: u32,
    /// The window of a stream. The window of the connection is this for each stream, so that calls whose clients read
    /// slowly can't take the connection away from the others.
    pub stream_window_bytes: u32,
    /// The header section of an answer.
    pub max_header_bytes: u32,
    /// Time between keep-alive pings.
    pub ping_interval: Duration,
    /// How long an answer to a ping may take.
    pub ping_timeout: Duration,
}

/// Dials one endpoint.
#[derive(Clone, Debug)]
pub struct Connector {
    scheme: Scheme,
    /// Counted apart from that of other workers, since every request gets a clone.
    authority: Authority,
    host: String,
    port: u16,
    tls: Option<(Arc<rustls::ClientConfig>, ServerName<'static>)>,
    connect_timeout: Duration,
    settings: Settings,
    /// What stands before every path on this endpoint; empty, or begins with a slash and does not end in one.
    prefix: Box<str>,
}

/// A dialled connection.
pub(crate) enum Dialled {
    /// Many requests at once.
    Http2(Box<Connection<Stream>>),
    /// One request after the other.
    Http1(Box<http1::Connection>),
}

/// What ALPN has chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chosen {
    Http2,
    /// HTTP/1.1, or nothing.
    Other,
}

/// What a connection runs over.
pub(crate) type Stream = Box<dyn Io>;

/// A byte stream in both directions.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// The socket, if its bytes are the stream's.
    fn socket(&self) -> Option<&TcpStream>;
}

impl Io for TcpStream {
    fn socket(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Io for TlsStream<TcpStream> {
    fn socket(&self) -> Option<&TcpStream> {
        None
    }
}

impl Connector {
    /// A connector for `endpoint`, an `http` or `https` URL; `tls` is needed for the latter. `server_name` replaces the
    /// host in the TLS handshake.
    ///
    /// # Errors
    /// An [`io::Error`] of kind `InvalidInput` that says what is wrong with the URL.
    pub fn new(
        endpoint: &Uri,
        tls: Option<Arc<rustls::ClientConfig>>,
        server_name: Option<&str>,
        connect_timeout: Duration,
        settings: Settings,
    ) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("{endpoint}: {what}"));
        let authority = endpoint
            .authority()
            .ok_or_else(|| invalid("the URL has no host"))?
            .clone();
        let scheme = endpoint
            .scheme()
            .ok_or_else(|| invalid("the URL has no scheme"))?
            .clone();
        let secure = scheme == Scheme::HTTPS;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tls = if secure {
            let config = tls.ok_or_else(|| invalid("TLS is not set up"))?;
            let config = match settings.speaks {
                Speaks::Http2 => config,
                Speaks::Http1 => {
                    let mut config = (*config).clone();
                    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                    Arc::new(config)
                }
                Speaks::Http1Alone => {
                    let mut config = (*config).clone();
                    config.alpn_protocols = vec![b"http/1.1".to_vec()];
                    Arc::new(config)
                }
            };
            let name = ServerName::try_from(server_name.unwrap_or(&host).to_owned())
                .map_err(|_| invalid("the host is not a valid TLS server name"))?;
            Some((config, name))
        } else {
            None
        };
        Ok(Self {
            scheme,
            authority: apart::authority(&authority),
            host,
            port,
            tls,
            connect_timeout,
            settings,
            prefix: endpoint.path().trim_end_matches('/').into(),
        })
    }

    /// The same connector, whose requests ask for another authority than the one that is dialled.
    #[must_use]
    pub fn asking_for(mut self, authority: &Authority) -> Self {
        self.authority = apart::authority(authority);
        self
    }

    /// The scheme of requests on the connection.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The authority of requests on the connection.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// What stands before every path on this endpoint; empty, or begins with a slash and does not end in one.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The settings of connections.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How long dialling may take.
    pub fn connect_timeout(&self) -> Duration {
        self.connect_timeout
    }

    /// Dials.
    ///
    /// # Errors
    /// [`ConnectError`]: the first thing that went wrong.
    ///
    /// # Cancel safety
    /// The half-made connection is closed.
    pub(crate) async fn dial(&self) -> Result<Dialled, ConnectError> {
        timeout(self.connect_timeout, self.handshake())
            .await
            .unwrap_or(Err(ConnectError::Timeout(self.connect_timeout)))
    }

    /// Dials, without a word of HTTP: for a connection that nobody shares.
    ///
    /// # Errors
    /// [`ConnectError`]: the first thing that went wrong.
    ///
    /// # Cancel safety
    /// The half-made connection is closed.
    pub(crate) async fn stream(&self) -> Result<Stream, ConnectError> {
        match timeout(self.connect_timeout, self.open()).await {
            Ok(opened) => opened.map(|(stream, _)| stream),
            Err(_elapsed) => Err(ConnectError::Timeout(self.connect_timeout)),
        }
    }

    async fn handshake(&self) -> Result<Dialled, ConnectError> {
        let (stream, chosen) = self.open().await?;
        match (chosen, self.settings.speaks) {
            (Some(Chosen::Http2), _) | (None, Speaks::Http2) => Ok(Dialled::Http2(Box::new(
                Connection::new(stream, &self.settings.http2),
            ))),
            (Some(Chosen::Other), Speaks::Http2) => Err(ConnectError::NoHttp2),
            // A server that knows nothing of ALPN speaks what was there before it.
            (Some(Chosen::Other) | None, Speaks::Http1 | Speaks::Http1Alone) => Ok(Dialled::Http1(Box::new(
                http1::Connection::new(stream, &self.settings.http1),
            ))),
        }
    }

    /// The bytes of a connection, and what TLS has chosen, if there is TLS.
    async fn open(&self) -> Result<(Stream, Option<Chosen>), ConnectError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(ConnectError::Io)?;
        // Without it, the last segment of a small message waits for the peer's delayed acknowledgement.
        tcp.set_nodelay(true).map_err(ConnectError::Io)?;
        let Some((config, name)) = &self.tls else {
            return Ok((Box::new(tcp), None));
        };
        let stream = TlsConnector::from(Arc::clone(config))
            .connect(name.clone(), tcp)
            .await
            .map_err(ConnectError::Tls)?;
        let chosen = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Chosen::Http2,
            Some(_) | None => Chosen::Other,
        };
        Ok((Box::new(stream), Some(chosen)))
    }
}
