//! One small document over HTTP, for the control plane: bounded in size and time, no redirects, a connection for each.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AGE, CACHE_CONTROL, HOST, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connect::Stream;

/// How long a document may take, from dialling to its last byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest document: the key sets of large providers have 20 KiB.
const MAX_BYTES: usize = 256 << 10;

/// A document that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its bytes.
    pub body: Bytes,
    /// How long it stays fresh, if the server says so.
    pub max_age: Option<Duration>,
}

/// Why a document could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// It took too long.
    #[error("no answer within {PATIENCE:?}")]
    Timeout,
    /// The URL is not one that can be asked.
    #[error("the URL {0}")]
    Url(&'static str),
    /// The connection could not be made.
    #[error("can't connect")]
    Connect(#[source] std::io::Error),
    /// The conversation broke.
    #[error("the connection broke")]
    Http(#[from] hyper::Error),
    /// The answer is not 200.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// The answer is too large, or broke off.
    #[error("the answer can't be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Fetches documents.
#[derive(Clone, Debug)]
pub struct Fetcher {
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Fetcher {
    /// A fetcher that verifies `https` servers so; without it, it asks `http` servers only.
    pub fn new(tls: Option<Arc<rustls::ClientConfig>>) -> Self {
        let tls = tls.map(|tls| {
            let mut tls = rustls::ClientConfig::clone(&tls);
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            Arc::new(tls)
        });
        Self { tls }
    }

    /// Fetches a document.
    ///
    /// # Errors
    /// [`FetchError`]: there is none, or not in time, or it is too large.
    ///
    /// # Cancel safety
    /// The connection is closed.
    pub async fn get(&self, uri: &Uri) -> Result<Document, FetchError> {
        timeout(PATIENCE, self.ask(uri))
            .await
            .unwrap_or(Err(FetchError::Timeout))
    }

    /// Asks for a document that may take its time: the head of the answer, and its bytes as they come. The time that all
    /// this may take is the caller's to bound.
    ///
    /// # Errors
    /// [`FetchError`]: nobody answers.
    ///
    /// # Cancel safety
    /// The connection is closed.
    pub async fn open(&self, uri: &Uri, headers: HeaderMap) -> Result<Answer, FetchError> {
        let (stream, http2) = self.dial(uri).await?;
        let io = TokioIo::new(stream);
        let mut request = request(uri, http2)?;
        request.headers_mut().extend(headers);
        if http2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            Answer::begin(Box::pin(connection), sender.send_request(request)).await
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            Answer::begin(Box::pin(connection), sender.send_request(request)).await
        }
    }

    async fn ask(&self, uri: &Uri) -> Result<Document, FetchError> {
        let (stream, http2) = self.dial(uri).await?;
        let io = TokioIo::new(stream);
        let request = request(uri, http2)?;
        if http2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            alongside(connection, async move {
                document(sender.send_request(request).await?).await
            })
            .await
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            alongside(connection, async move {
                document(sender.send_request(request).await?).await
            })
            .await
        }
    }

    /// A connection, and whether it speaks HTTP/2.
    async fn dial(&self, uri: &Uri) -> Result<(Stream, bool), FetchError> {
        let host = uri.host().ok_or(FetchError::Url("has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port))
            .await
            .map_err(FetchError::Connect)?;
        tcp.set_nodelay(true).map_err(FetchError::Connect)?;
        if !secure {
            return Ok((Box::new(tcp), false));
        }
        let tls = self
            .tls
            .clone()
            .ok_or(FetchError::Url("needs TLS, which is not set up"))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| FetchError::Url("has no valid host"))?;
        let stream = TlsConnector::from(tls)
            .connect(name, tcp)
            .await
            .map_err(FetchError::Connect)?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), http2))
    }
}

/// What moves the bytes of a connection.
type Connection = Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

/// An answer that is read as it comes. Dropping it closes its connection.
pub struct Answer {
    response: Response<Incoming>,
    /// `None` once it has ended.
    connection: Option<Connection>,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status())
            .finish_non_exhaustive()
    }
}

impl Answer {
    async fn begin(
        mut connection: Connection,
        answer: impl Future<Output = Result<Response<Incoming>, hyper::Error>>,
    ) -> Result<Self, FetchError> {
        tokio::pin!(answer);
        let (response, connection) = tokio::select! {
            biased;
            response = &mut answer => (response?, Some(connection)),
            // It has ended; what it brought is still to be read.
            _ended = &mut connection => (answer.await?, None),
        };
        Ok(Self { response, connection })
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Its headers.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The next bytes; `None` once all of it was read.
    ///
    /// # Errors
    /// The answer broke off.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, FetchError> {
        loop {
            let frame = match &mut self.connection {
                None => self.response.body_mut().frame().await,
                Some(connection) => tokio::select! {
                    biased;
                    frame = self.response.body_mut().frame() => frame,
                    _ended = connection => {
                        self.connection = None;
                        continue;
                    }
                },
            };
            match frame.transpose()?.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) => return Ok(Some(data)),
                // Trailers say nothing here.
                Some(Err(_)) => {}
            }
        }
    }
}

fn request(uri: &Uri, http2: bool) -> Result<Request<Empty<Bytes>>, FetchError> {
    let mut request = Request::new(Empty::new());
    let headers = request.headers_mut();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static("sabir"));
    if http2 {
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = uri.clone();
    } else {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority).map_err(|_| FetchError::Url("has no valid host"))?;
        headers.insert(HOST, host);
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse().map_err(|_| FetchError::Url("has no valid path"))?;
    }
    Ok(request)
}

/// Moves the bytes of a connection for as long as the answer takes.
async fn alongside<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    answer: impl Future<Output = Result<T, FetchError>>,
) -> Result<T, FetchError> {
    tokio::pin!(connection, answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        // It has ended; what it brought is still to be read.
        _ended = &mut connection => {}
    }
    answer.await
}

async fn document(response: Response<Incoming>) -> Result<Document, FetchError> {
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let max_age = max_age(response.headers());
    let body = Limited::new(response.into_body(), MAX_BYTES)
        .collect()
        .await
        .map_err(FetchError::Body)?;
    Ok(Document {
        body: body.to_bytes(),
        max_age,
    })
}

/// How long an answer stays fresh. Source: RFC 9111, sections 4.2.1 and 4.2.3.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut age = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',') {
            let (name, seconds) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => return Some(Duration::ZERO),
                "max-age" => age = seconds.trim().trim_matches('"').parse().ok(),
                _ => {}
            }
        }
    }
    let spent = headers
        .get(AGE)
        .and_then(|age| age.to_str().ok()?.trim().parse().ok());
    age.map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(spent.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_what_the_server_says_less_the_time_on_the_way() {
        for (control, age, expected) in [
            (None, None, None),
            (Some("max-age=300"), None, Some(300)),
            (
                Some("public, Max-Age=\"300\" , must-revalidate"),
                Some("100"),
                Some(200),
            ),
            (Some("max-age=300"), Some("400"), Some(0)),
            (Some("max-age=300, no-store"), None, Some(0)),
            (Some("max-age=x"), None, None),
            (Some("private"), None, None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(control) = control {
                headers.insert(CACHE_CONTROL, HeaderValue::from_static(control));
            }
            if let Some(age) = age {
                headers.insert(AGE, HeaderValue::from_static(age));
            }
            assert_eq!(
                max_age(&headers),
                expected.map(Duration::from_secs),
                "{control:?}"
            );
        }
    }
}
