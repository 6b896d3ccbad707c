//! Where the endpoints of a backend are: written out, or known to somebody who is asked.
//!
//! A source is watched by a task of the control runtime, which puts what it finds into the [`Group`] of its backend. What
//! was found last stays while nobody answers: an address that was good is better than none.

mod client;
mod consul;
mod dns;
mod file;
mod kubernetes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};
use thiserror::Error;
use tokio::time::{Instant, sleep};

pub use consul::Consul;
pub use kubernetes::Kubernetes;

use crate::balance::{Group, Listed};
use crate::upstream::dice;
use crate::upstream::fetch::FetchError;
use crate::wire::url::{Keep, encode};

/// The first pause after a source could not be asked; it doubles. Jitter takes up to half of it away.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Who knows where the endpoints of a backend are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration.
    Listed(Vec<Listed>),
    /// A file.
    File(PathBuf),
    /// DNS: the addresses of a name.
    Dns(Name),
    /// DNS: the services of a name.
    Srv(Name),
    /// The catalogue of Consul.
    Consul(Consul),
    /// The endpoint slices of a Kubernetes service.
    Kubernetes(Kubernetes),
}

/// A name of DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// A URL whose host is the name.
    pub url: Uri,
    /// Who is asked; `None` for whom the system asks.
    pub server: Option<SocketAddr>,
}

/// Why a source tells no endpoints.
#[derive(Debug, Error)]
pub enum SourceError {
    /// A file can't be read, or is not a list of endpoints.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// DNS does not know the name, or does not answer.
    #[error("DNS: {0}")]
    Dns(String),
    /// A server can't be asked.
    #[error("{0}")]
    Fetch(#[from] FetchError),
    /// A server answers what it should not.
    #[error("the answer is not what was asked for: {0}")]
    Answer(String),
    /// A list of Kubernetes is too old to go on from.
    #[error("the list is too old")]
    Gone,
}

impl Source {
    /// The endpoints that are known without asking anybody.
    pub fn known(&self) -> &[Listed] {
        match self {
            Self::Listed(listed) => listed,
            Self::File(_) | Self::Dns(_) | Self::Srv(_) | Self::Consul(_) | Self::Kubernetes(_) => &[],
        }
    }

    /// Whether endpoints are reached over TLS.
    pub fn is_secure(&self) -> bool {
        let https = |uri: &Uri| uri.scheme() == Some(&Scheme::HTTPS);
        match self {
            Self::Listed(listed) => listed.iter().any(|listed| https(&listed.uri)),
            // It may list any: whoever has a file of endpoints has set TLS up, or needs none.
            Self::File(path) => file::read(path).is_ok_and(|found| found.iter().any(|it| https(&it.uri))),
            Self::Dns(name) | Self::Srv(name) => https(&name.url),
            Self::Consul(consul) => consul.scheme == Scheme::HTTPS,
            Self::Kubernetes(kubernetes) => kubernetes.scheme == Scheme::HTTPS,
        }
    }

    /// What endpoints are asked for, where that is not their address: the name that they were found by.
    pub fn authority(&self) -> Option<Authority> {
        match self {
            Self::Dns(name) => name.url.authority().cloned(),
            Self::Listed(_) | Self::File(_) | Self::Srv(_) | Self::Consul(_) | Self::Kubernetes(_) => None,
        }
    }

    /// The name that certificates have to carry, where it is not the endpoint's host.
    pub fn server_name(&self) -> Option<String> {
        match self {
            Self::Dns(name) => name.url.host().map(str::to_owned),
            Self::Listed(_) | Self::File(_) | Self::Srv(_) | Self::Consul(_) | Self::Kubernetes(_) => None,
        }
    }

    /// Asks once.
    ///
    /// # Errors
    /// [`SourceError`]: nobody tells.
    ///
    /// # Cancel safety
    /// Nothing is kept.
    pub async fn once(&self) -> Result<Vec<Listed>, SourceError> {
        match self {
            Self::Listed(listed) => Ok(listed.clone()),
            Self::File(path) => file::read(path),
            Self::Dns(name) => dns::Resolver::new(name)?
                .addresses(name)
                .await
                .map(|(found, _)| found),
            Self::Srv(name) => dns::Resolver::new(name)?
                .services(name)
                .await
                .map(|(found, _)| found),
            Self::Consul(consul) => consul.once().await,
            Self::Kubernetes(kubernetes) => kubernetes.once().await,
        }
    }
}

impl Source {
    /// The URLs at which a backend can be asked what it offers, asked for once. What is found by a name over TLS is asked
    /// by that name, which its certificate is for.
    ///
    /// # Errors
    /// [`SourceError`]: nobody tells.
    ///
    /// # Cancel safety
    /// Nothing is kept.
    pub async fn urls(&self) -> Result<Vec<Uri>, SourceError> {
        if let Self::Dns(name) = self
            && name.server.is_none()
            && self.is_secure()
        {
            return Ok(vec![name.url.clone()]);
        }
        Ok(self.once().await?.into_iter().map(|listed| listed.uri).collect())
    }
}

/// The same in words, for explanations.
impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listed(listed) => {
                let all: Vec<String> = listed.iter().map(|listed| listed.uri.to_string()).collect();
                f.write_str(&all.join(", "))
            }
            Self::File(path) => write!(f, "endpoints of the file {}", path.display()),
            Self::Dns(name) => write!(f, "addresses of {} in DNS", name.url),
            Self::Srv(name) => write!(f, "services of {} in DNS", name.url),
            Self::Consul(consul) => write!(f, "service {} of Consul", consul.service),
            Self::Kubernetes(it) => write!(f, "service {}/{} of Kubernetes", it.namespace, it.service),
        }
    }
}

/// Puts what a source tells into `group`, for as long as the group is there.
///
/// # Cancel safety
/// Nothing is lost: what was found is in the group.
pub async fn watch(source: Source, group: Weak<Group>) {
    let Some(gone) = group.upgrade().map(|group| group.gone().clone()) else {
        return;
    };
    let feed = Feed {
        group,
        source: source.to_string(),
        pause: FIRST_PAUSE,
    };
    let follow = async {
        match source {
            Source::Listed(_) => {}
            Source::File(path) => file::follow(path, feed).await,
            Source::Dns(name) => dns::follow(name, dns::Asks::Addresses, feed).await,
            Source::Srv(name) => dns::follow(name, dns::Asks::Services, feed).await,
            Source::Consul(consul) => consul.follow(feed).await,
            Source::Kubernetes(kubernetes) => kubernetes.follow(feed).await,
        }
    };
    tokio::select! {
        () = gone.cancelled() => {}
        () = follow => {}
    }
}

/// Where a source puts what it finds.
struct Feed {
    group: Weak<Group>,
    source: String,
    pause: Duration,
}

impl Feed {
    /// The endpoints are these now.
    fn put(&mut self, found: &[Listed]) {
        self.pause = FIRST_PAUSE;
        let Some(group) = self.group.upgrade() else { return };
        let before = group.members().list().len();
        group.replace(found, Instant::now());
        if before != found.len() {
            tracing::info!(backend = %group.name(), source = %self.source, endpoints = found.len(), "endpoints were found");
        }
    }

    /// The source can't be asked: what was found last stays. Waits before the next attempt.
    async fn failed(&mut self, error: &SourceError) {
        let backend: Arc<str> = self
            .group
            .upgrade()
            .map_or_else(|| "".into(), |group| Arc::clone(group.name()));
        tracing::warn!(%backend, source = %self.source, %error, "endpoints can't be found; those that are known stay");
        let half = self.pause / 2;
        let jitter = dice::below(usize::try_from(half.as_millis()).unwrap_or(usize::MAX));
        sleep(half + Duration::from_millis(jitter as u64)).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// A text as a part of a URL.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    encode(text, Keep::Nothing, &mut out);
    out
}

/// The URL of an endpoint at an address.
fn url(scheme: &Scheme, host: &str, port: u16, path: &str) -> Option<Uri> {
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.trim_end_matches('.').to_owned()
    };
    let path = path.trim_end_matches('/');
    format!("{scheme}://{host}:{port}{path}/").parse().ok()
}
