//! Endpoints in Kubernetes: the ready ones of a service's slices, by list and watch through the API server.
//!
//! Source: Kubernetes API concepts, "Efficient detection of changes"; `discovery.k8s.io/v1`, `EndpointSlice`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Scheme;
use http::{StatusCode, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::client::{Client, Lines, Token};
use super::{Feed, SourceError, encoded, url};
use crate::balance::Listed;

/// How long one watch lasts before it is asked for anew.
const WATCH: Duration = Duration::from_secs(300);
/// Slices in one answer.
const PAGE: u32 = 500;

/// A service of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    /// Where the API server is.
    pub server: Uri,
    /// The namespace of the service.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// The name or the number of its port; `None` for the only one, or the first.
    pub port: Option<String>,
    /// What endpoints speak.
    pub scheme: Scheme,
    /// The file of the token, which Kubernetes writes anew now and then.
    pub token: Option<PathBuf>,
    /// Authorities for the API server's certificate.
    pub ca: Option<PathBuf>,
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Option<Vec<Slice>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMeta {
    resource_version: String,
    r#continue: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Slice {
    metadata: Meta,
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    name: String,
    resource_version: String,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
    zone: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Conditions {
    /// Nothing means that it is ready.
    ready: Option<bool>,
}

#[derive(Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Event {
    r#type: String,
    object: serde_json::Value,
}

/// What is known of a service, slice by slice, and up to which version.
#[derive(Default)]
struct Known {
    slices: BTreeMap<String, Vec<Listed>>,
    version: String,
}

impl Known {
    /// All endpoints; one that moves between slices is in two of them for a moment, and counts once.
    fn endpoints(&self) -> Vec<Listed> {
        let mut all: Vec<Listed> = self.slices.values().flatten().cloned().collect();
        all.sort_by_cached_key(|listed| listed.uri.to_string());
        all.dedup_by(|a, b| a.uri == b.uri);
        all
    }
}

impl Kubernetes {
    fn client(&self) -> Result<Client, SourceError> {
        let token = self.token.clone().map(Token::Bearer);
        Client::new(&self.server, self.ca.as_deref(), token)
    }

    /// Lists once.
    pub(super) async fn once(&self) -> Result<Vec<Listed>, SourceError> {
        Ok(self.list(&self.client()?).await?.endpoints())
    }

    /// Lists, and watches what changes, and puts what is told into `feed`.
    pub(super) async fn follow(self, mut feed: Feed) {
        let mut known: Option<Known> = None;
        loop {
            let step = async {
                let client = self.client()?;
                let mut now = match known.take() {
                    Some(known) => known,
                    None => self.list(&client).await?,
                };
                feed.put(&now.endpoints());
                self.watch(&client, &mut now, &mut feed).await?;
                Ok::<_, SourceError>(now)
            };
            match step.await {
                Ok(now) => known = Some(now),
                // What has happened since the list is not told any more: it is listed anew, at once.
                Err(SourceError::Gone) => {}
                Err(error) => feed.failed(&error).await,
            }
        }
    }

    fn path(&self, query: &str) -> String {
        let selector = encoded(&format!("kubernetes.io/service-name={}", self.service));
        let namespace = encoded(&self.namespace);
        format!(
            "/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?labelSelector={selector}{query}"
        )
    }

    async fn list(&self, client: &Client) -> Result<Known, SourceError> {
        let mut known = Known::default();
        let mut next = String::new();
        loop {
            let answer = client
                .get(
                    &self.server,
                    &self.path(&format!("&limit={PAGE}{next}")),
                    Duration::ZERO,
                )
                .await?;
            check(answer.status())?;
            let list: List = parse(&Client::whole(answer).await?)?;
            for slice in list.items.unwrap_or_default() {
                known
                    .slices
                    .insert(slice.metadata.name.clone(), self.endpoints(&slice));
            }
            known.version = list.metadata.resource_version;
            match list.metadata.r#continue.filter(|token| !token.is_empty()) {
                Some(token) => next = format!("&continue={}", encoded(&token)),
                None => return Ok(known),
            }
        }
    }

    /// Follows what changes until the server ends the watch.
    async fn watch(&self, client: &Client, known: &mut Known, feed: &mut Feed) -> Result<(), SourceError> {
        let query = format!(
            "&watch=1&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            WATCH.as_secs(),
            encoded(&known.version)
        );
        let answer = client
            .get(&self.server, &self.path(&query), Duration::ZERO)
            .await?;
        check(answer.status())?;
        let mut lines = Lines::new(answer);
        let mut told = false;
        while let Some(line) = lines.next(WATCH + Duration::from_secs(30)).await? {
            let event: Event = parse(&line)?;
            match event.r#type.as_str() {
                "ADDED" | "MODIFIED" => {
                    let slice: Slice = object(event.object)?;
                    known.version.clone_from(&slice.metadata.resource_version);
                    known
                        .slices
                        .insert(slice.metadata.name.clone(), self.endpoints(&slice));
                }
                "DELETED" => {
                    let slice: Slice = object(event.object)?;
                    known.version.clone_from(&slice.metadata.resource_version);
                    known.slices.remove(&slice.metadata.name);
                }
                "BOOKMARK" => {
                    let slice: Slice = object(event.object)?;
                    known.version = slice.metadata.resource_version;
                    told = true;
                    continue;
                }
                "ERROR" => {
                    if event.object.get("code").and_then(serde_json::Value::as_u64) == Some(410) {
                        return Err(SourceError::Gone);
                    }
                    return Err(SourceError::Answer(format!("the watch failed: {}", event.object)));
                }
                _ => continue,
            }
            told = true;
            feed.put(&known.endpoints());
        }
        // A server that ends every watch at once would be asked without a pause.
        if told {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    /// The endpoints of a slice that are ready.
    fn endpoints(&self, slice: &Slice) -> Vec<Listed> {
        let Some(port) = self.port(slice) else {
            return Vec::new();
        };
        let ready = slice
            .endpoints
            .iter()
            .flatten()
            .filter(|it| it.conditions.ready != Some(false));
        ready
            .flat_map(|endpoint| endpoint.addresses.iter().map(move |address| (endpoint, address)))
            .filter_map(|(endpoint, address)| {
                Some(Listed {
                    uri: url(&self.scheme, address, port, "")?,
                    weight: 1,
                    zone: endpoint.zone.as_deref().map(Into::into),
                })
            })
            .collect()
    }

    fn port(&self, slice: &Slice) -> Option<u16> {
        let mut ports = slice.ports.iter().flatten();
        let found = match &self.port {
            None => ports.next(),
            Some(wanted) => ports.find(|port| {
                let number = port.port.map(|number| number.to_string());
                port.name.as_ref() == Some(wanted) || number.as_ref() == Some(wanted)
            }),
        };
        found?.port
    }
}

fn check(status: StatusCode) -> Result<(), SourceError> {
    match status {
        StatusCode::OK => Ok(()),
        StatusCode::GONE => Err(SourceError::Gone),
        status => Err(SourceError::Answer(format!("it is {status}"))),
    }
}

fn parse<T: DeserializeOwned>(text: &[u8]) -> Result<T, SourceError> {
    serde_json::from_slice(text).map_err(|error| SourceError::Answer(error.to_string()))
}

fn object<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, SourceError> {
    serde_json::from_value(value).map_err(|error| SourceError::Answer(error.to_string()))
}
