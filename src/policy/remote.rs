//! A service outside that is asked about callers, over connections that one worker keeps for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use crate::upstream::connect::{Http1, Http2, Settings, Speaks};
use crate::upstream::stream::SendError;
use crate::upstream::{Connector, Pool, Unreachable};
use crate::wire::body::Body;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// How often a service that fails is complained about.
const COMPLAINTS: Duration = Duration::from_secs(10);

/// Where a service is and how long it may take; shared by all workers.
#[derive(Clone, Debug)]
pub(super) struct Place {
    name: &'static str,
    connector: Connector,
    uri: Uri,
    timeout: Duration,
}

/// Why a service gave no answer.
#[derive(Debug, Error)]
pub(super) enum RemoteError {
    /// Not in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// It can't be dialled.
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    /// The connection broke, or something is wrong with what came.
    #[error(transparent)]
    Send(#[from] SendError),
    /// The answer broke off or is too large.
    #[error("the answer can't be read")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer makes no sense.
    #[error("{0}")]
    Answer(String),
}

impl Place {
    /// A service at `uri`; `name` is for people.
    ///
    /// # Errors
    /// The URL has no host, or one that TLS can't name.
    pub(super) fn new(
        name: &'static str,
        uri: &Uri,
        tls: Option<Arc<rustls::ClientConfig>>,
        speaks: Speaks,
        timeout: Duration,
    ) -> io::Result<Self> {
        let settings = Settings {
            speaks,
            http1: Http1 {
                max_header_bytes: 16 << 10,
                idle_timeout: Duration::from_secs(30),
            },
            http2: Http2 {
                max_streams: 100,
                stream_window_bytes: 64 << 10,
                max_header_bytes: 16 << 10,
                ping_interval: Duration::from_secs(30),
                ping_timeout: Duration::from_secs(10),
            },
        };
        Ok(Self {
            name,
            connector: Connector::new(uri, tls, None, timeout, settings)?,
            uri: uri.clone(),
            timeout,
        })
    }
}

/// A service, over the connections of one worker.
#[derive(Debug)]
pub(super) struct Remote {
    place: Place,
    pool: Pool,
    tasks: TaskTracker,
    complained: Mutex<Option<Instant>>,
}

/// What a service said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Parts,
    pub(super) body: Bytes,
    pub(super) trailers: HeaderMap,
}

impl Remote {
    pub(super) fn new(place: &Place, tasks: TaskTracker) -> Self {
        Self {
            place: place.clone(),
            pool: Pool::new(place.connector.clone(), tasks.clone()),
            tasks,
            complained: Mutex::new(None),
        }
    }

    /// Where it is asked.
    pub(super) fn uri(&self) -> &Uri {
        &self.place.uri
    }

    /// How long it may take.
    pub(super) fn timeout(&self) -> Duration {
        self.place.timeout
    }

    /// Asks, and once more where the first connection had closed: a question may be asked twice.
    ///
    /// # Errors
    /// [`RemoteError`]; who reads the log has been told.
    ///
    /// # Cancel safety
    /// The question is taken back.
    pub(super) async fn ask(&self, request: &Request<Bytes>) -> Result<Answer, RemoteError> {
        let answer = timeout(self.place.timeout, self.exchange(request))
            .await
            .unwrap_or(Err(RemoteError::Timeout(self.place.timeout)));
        answer.inspect_err(|error| self.complain(error))
    }

    async fn exchange(&self, request: &Request<Bytes>) -> Result<Answer, RemoteError> {
        let response = match self.send(request).await {
            Err(RemoteError::Send(SendError::Unprocessed(_) | SendError::Stale(_))) => {
                self.send(request).await?
            }
            sent => sent?,
        };
        let (head, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(RemoteError::Body)?;
        let trailers = body.trailers().cloned().unwrap_or_default();
        Ok(Answer {
            head,
            body: body.to_bytes(),
            trailers,
        })
    }

    async fn send(&self, request: &Request<Bytes>) -> Result<http::Response<Body>, RemoteError> {
        let lease = match self.pool.try_lease() {
            Some(lease) => lease,
            None => self.pool.lease().await?,
        };
        let mut head = Request::new(());
        head.method_mut().clone_from(request.method());
        head.uri_mut().clone_from(request.uri());
        head.headers_mut().clone_from(request.headers());
        *head.version_mut() = Version::HTTP_2;
        head.headers_mut().remove(HOST);
        let body = Body::whole(request.body().clone());
        Ok(lease.send(&head, body, &self.tasks).await?)
    }

    /// Says what is wrong, and does not say it for each call.
    pub(super) fn complain(&self, error: &RemoteError) {
        let now = Instant::now();
        {
            let mut complained = self.complained.lock();
            if complained.is_some_and(|before| now.saturating_duration_since(before) < COMPLAINTS) {
                return;
            }
            *complained = Some(now);
        }
        let cause = std::error::Error::source(error).map(ToString::to_string);
        tracing::warn!(
            service = self.place.name,
            host = self.place.connector.authority().as_str(),
            %error,
            cause,
            "who calls can't be checked"
        );
    }
}

/// A header value that is not shown.
pub(super) fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
