//! Endpoints in the catalogue of Consul: those whose checks pass, by blocking queries.
//!
//! Source: Consul, "Blocking Queries" and "Health HTTP Endpoint".

use std::path::PathBuf;
use std::time::Duration;

use http::uri::Scheme;
use http::{HeaderName, StatusCode, Uri};
use serde::Deserialize;

use super::client::{Client, Token};
use super::{Feed, SourceError, encoded, url};
use crate::balance::Listed;

/// How long a query may block.
const WAIT: Duration = Duration::from_secs(60);
/// `X-Consul-Token`.
const TOKEN: HeaderName = HeaderName::from_static("x-consul-token");

/// A service in the catalogue of Consul.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consul {
    /// Where its HTTP API is.
    pub url: Uri,
    /// The service's name.
    pub service: String,
    /// A tag that its instances carry.
    pub tag: Option<String>,
    /// The data centre; `None` for the agent's own.
    pub datacenter: Option<String>,
    /// What the API is asked with.
    pub token: Option<String>,
    /// Authorities for the API's certificate.
    pub ca: Option<PathBuf>,
    /// What instances speak.
    pub scheme: Scheme,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(default)]
    address: String,
    port: u16,
    weights: Option<Weights>,
    #[serde(default)]
    meta: Option<Meta>,
    locality: Option<Locality>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

#[derive(Default, Deserialize)]
struct Meta {
    zone: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Locality {
    zone: Option<String>,
}

impl Consul {
    fn client(&self) -> Result<Client, SourceError> {
        let token = self.token.clone().map(|token| Token::Text(TOKEN, token));
        Client::new(&self.url, self.ca.as_deref(), token)
    }

    /// Asks once, without waiting for a change.
    pub(super) async fn once(&self) -> Result<Vec<Listed>, SourceError> {
        self.ask(&self.client()?, 0).await.map(|(found, _)| found)
    }

    /// Asks, and each time waits for a change, and puts what is told into `feed`.
    pub(super) async fn follow(self, mut feed: Feed) {
        let mut index = 0;
        loop {
            let asked = async { self.ask(&self.client()?, index).await };
            match asked.await {
                Ok((found, at)) => {
                    // An index that goes back means that the catalogue began anew.
                    index = if at < index { 0 } else { at };
                    feed.put(&found);
                }
                Err(error) => {
                    index = 0;
                    feed.failed(&error).await;
                }
            }
        }
    }

    /// The instances that pass, once they are others than at `index`.
    async fn ask(&self, client: &Client, index: u64) -> Result<(Vec<Listed>, u64), SourceError> {
        let mut path = format!("/v1/health/service/{}?passing=1", encoded(&self.service));
        if let Some(tag) = &self.tag {
            path.push_str(&format!("&tag={}", encoded(tag)));
        }
        if let Some(datacenter) = &self.datacenter {
            path.push_str(&format!("&dc={}", encoded(datacenter)));
        }
        let mut waits = Duration::ZERO;
        if index > 0 {
            path.push_str(&format!("&index={index}&wait={}s", WAIT.as_secs()));
            // Consul adds up to a sixteenth, so that not everybody asks at once.
            waits = WAIT + WAIT / 16;
        }
        let answer = client.get(&self.url, &path, waits).await?;
        if answer.status() != StatusCode::OK {
            return Err(SourceError::Answer(format!("it is {}", answer.status())));
        }
        let at = answer
            .headers()
            .get("x-consul-index")
            .and_then(|at| at.to_str().ok()?.parse().ok());
        // Without an index there is nothing to wait by, and asking without a pause would be a flood.
        let at: u64 = at.ok_or_else(|| SourceError::Answer("it has no X-Consul-Index".to_owned()))?;
        let text = Client::whole(answer).await?;
        let instances: Vec<Instance> =
            serde_json::from_slice(&text).map_err(|error| SourceError::Answer(error.to_string()))?;
        let mut found: Vec<Listed> = instances.iter().filter_map(|it| self.endpoint(it)).collect();
        found.sort_by_cached_key(|listed| listed.uri.to_string());
        Ok((found, at.max(1)))
    }

    fn endpoint(&self, instance: &Instance) -> Option<Listed> {
        let service = &instance.service;
        let host = if service.address.is_empty() {
            &instance.node.address
        } else {
            &service.address
        };
        let locality = service
            .locality
            .as_ref()
            .and_then(|locality| locality.zone.as_deref());
        let meta = service.meta.as_ref().and_then(|meta| meta.zone.as_deref());
        Some(Listed {
            uri: url(&self.scheme, host, service.port, "")?,
            weight: service
                .weights
                .as_ref()
                .map_or(1, |weights| weights.passing.max(1)),
            zone: locality.or(meta).map(Into::into),
        })
    }
}
