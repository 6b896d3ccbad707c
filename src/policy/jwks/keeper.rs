//! The task that keeps the keys of one issuer fresh: it fetches them before they are stale, sooner when a call asks, and
//! goes on with the last good ones when the issuer fails.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde_json::Value;
use thiserror::Error;
use tokio::time::{Instant, sleep_until};

use super::set::{KeySet, SetError};
use super::store::Store;
use crate::policy::json;
use crate::upstream::dice;
use crate::upstream::fetch::{Document, FetchError, Fetcher};

/// How often keys are fetched and how long they are believed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The shortest time from one fetch to the next.
    pub least: Duration,
    /// The longest.
    pub most: Duration,
    /// From a fetch that failed to the next; it doubles up to `least`.
    pub retry: Duration,
    /// Between two fetches that calls ask for.
    pub between_asked: Duration,
    /// How long the last good keys are believed.
    pub keep: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            least: Duration::from_secs(60),
            most: Duration::from_secs(3600),
            retry: Duration::from_secs(1),
            between_asked: Duration::from_secs(10),
            keep: Duration::from_secs(24 * 3600),
        }
    }
}

/// Where an issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Here.
    Url(Uri),
    /// Where the issuer with this name says, by OpenID Connect discovery.
    Discovery(String),
}

/// Why keys could not be fetched.
#[derive(Debug, Error)]
pub enum KeepError {
    /// No answer, or none that can be used.
    #[error("{0}")]
    Fetch(Uri, #[source] FetchError),
    /// The answer is no set of keys.
    #[error("{0}")]
    Set(Uri, #[source] SetError),
    /// The answer to discovery is not what OpenID Connect Discovery says.
    #[error("{0}: {1}")]
    Discovery(Uri, &'static str),
}

/// Keeps the keys of one issuer.
#[derive(Debug)]
pub struct Keeper {
    name: String,
    place: Place,
    fetcher: Fetcher,
    store: Arc<Store>,
    pace: Pace,
    /// Where discovery said that the keys are.
    found: Option<Uri>,
}

impl Keeper {
    /// A keeper for the issuer with this name.
    pub fn new(name: String, place: Place, fetcher: Fetcher, store: Arc<Store>, pace: Pace) -> Self {
        Self {
            name,
            place,
            fetcher,
            store,
            pace,
            found: None,
        }
    }

    /// Keeps the keys, for as long as it is polled.
    ///
    /// # Cancel safety
    /// The store keeps what was fetched last.
    pub async fn run(mut self) {
        let mut pause = self.pace.retry;
        let mut failing = false;
        loop {
            self.store.begin();
            let outcome = self.fetch().await;
            let next = match outcome {
                Ok(max_age) => {
                    if failing {
                        tracing::info!(issuer = %self.name, "the issuer's keys can be fetched again");
                    }
                    (failing, pause) = (false, self.pace.retry);
                    // Two thirds, so that a fetch that fails can be tried again before the keys are stale.
                    (max_age.unwrap_or(self.pace.most) * 2 / 3).clamp(self.pace.least, self.pace.most)
                }
                Err(error) => {
                    self.found = None;
                    // Said once; the same trouble again is no news.
                    if !failing {
                        tracing::warn!(issuer = %self.name, error = %chain(&error), "the issuer's keys can't be fetched; the last ones stay");
                    }
                    failing = true;
                    let wait = pause;
                    pause = (pause * 2).min(self.pace.least);
                    wait
                }
            };
            self.store.end();
            self.rest(next).await;
        }
    }

    /// Fetches the keys once.
    ///
    /// # Errors
    /// [`KeepError`]: they can't be had.
    ///
    /// # Cancel safety
    /// The store keeps what was fetched before.
    pub async fn once(&mut self) -> Result<(), KeepError> {
        self.store.begin();
        let outcome = self.fetch().await;
        self.store.end();
        outcome.map(drop)
    }

    /// The name of the issuer.
    pub fn issuer(&self) -> &str {
        &self.name
    }

    /// Waits until the next fetch is due, or a call asks for it. Up to a tenth of the time is taken away, so that many
    /// gateways do not ask at once.
    async fn rest(&self, time: Duration) {
        let tenth = usize::try_from(time.as_millis() / 10).unwrap_or(usize::MAX);
        let jitter = Duration::from_millis(dice::below(tenth) as u64);
        tokio::select! {
            () = sleep_until(Instant::now() + time - jitter) => {}
            () = self.store.asked() => {}
        }
    }

    async fn fetch(&mut self) -> Result<Option<Duration>, KeepError> {
        let uri = match (&self.place, &self.found) {
            (Place::Url(uri), _) | (Place::Discovery(_), Some(uri)) => uri.clone(),
            (Place::Discovery(issuer), None) => {
                let uri = self.discover(issuer).await?;
                self.found.insert(uri).clone()
            }
        };
        let document = self.get(&uri).await?;
        let keys = KeySet::parse(&document.body).map_err(|error| KeepError::Set(uri, error))?;
        self.store.put(keys, &document.body);
        Ok(document.max_age)
    }

    async fn get(&self, uri: &Uri) -> Result<Document, KeepError> {
        let fetched = self.fetcher.get(uri).await;
        fetched.map_err(|error| KeepError::Fetch(uri.clone(), error))
    }

    /// Asks the issuer where its keys are.
    ///
    /// Source: OpenID Connect Discovery 1.0, section 4. What says that it is another issuer is not believed.
    async fn discover(&self, issuer: &str) -> Result<Uri, KeepError> {
        let address = format!(
            "{}/.well-known/openid-configuration",
            issuer.strip_suffix('/').unwrap_or(issuer)
        );
        let no_url = |what| KeepError::Discovery(Uri::default(), what);
        let uri: Uri = address
            .parse()
            .map_err(|_| no_url("the name of the issuer is no URL"))?;
        let document = self.get(&uri).await?;
        let wrong = |what| KeepError::Discovery(uri.clone(), what);
        let facts = json::object(&document.body).ok_or_else(|| wrong("the answer is not a JSON object"))?;
        if facts.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(wrong("the answer is about another issuer"));
        }
        let keys: Uri = facts
            .get("jwks_uri")
            .and_then(Value::as_str)
            .and_then(|uri| uri.parse().ok())
            .ok_or_else(|| wrong("the answer has no \"jwks_uri\" that is a URL"))?;
        // An issuer that is asked over TLS does not hand its keys out without.
        if uri.scheme() == Some(&http::uri::Scheme::HTTPS) && keys.scheme() != uri.scheme() {
            return Err(wrong("the \"jwks_uri\" is not https"));
        }
        Ok(keys)
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
