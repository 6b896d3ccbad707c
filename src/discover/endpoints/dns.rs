//! Endpoints in DNS: every address of a name, or every service. Asked again when what was told has had its time.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{RData, RecordType};
use http::uri::Scheme;
use tokio::time::{Instant, sleep};

use super::{Feed, Name, SourceError, url};
use crate::balance::Listed;

/// What was told holds at least so long: a name whose time is nothing would be asked without end.
const SHORTEST: Duration = Duration::from_secs(5);
/// And at most so long: backends move faster than zones are kept.
const LONGEST: Duration = Duration::from_secs(60);
/// Targets of one name that are looked up.
const MOST_TARGETS: usize = 256;

/// What a name is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// A and AAAA.
    Addresses,
    /// SRV.
    Services,
}

/// Asks DNS.
pub(super) struct Resolver(TokioResolver);

/// Endpoints, and for how long they hold.
type Found = (Vec<Listed>, Duration);

impl Resolver {
    /// Asks whom the name says, or whom the system asks.
    ///
    /// # Errors
    /// The system's set-up can't be read.
    pub(super) fn new(name: &Name) -> Result<Self, SourceError> {
        let mut builder = match name.server {
            None => TokioResolver::builder_tokio().map_err(unknown)?,
            Some(server) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                let server = NameServerConfig::new(server.ip(), true, connections.into());
                let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
        };
        let options = builder.options_mut();
        // The time that an answer holds is kept here.
        options.cache_size = 0;
        options.timeout = Duration::from_secs(2);
        options.attempts = 2;
        builder.build().map(Self).map_err(unknown)
    }

    /// An endpoint for every address of a name.
    ///
    /// # Errors
    /// DNS does not know the name, or does not answer.
    pub(super) async fn addresses(&self, name: &Name) -> Result<Found, SourceError> {
        let (scheme, host) = parts(name)?;
        let port = name
            .url
            .port_u16()
            .unwrap_or(if scheme == Scheme::HTTPS { 443 } else { 80 });
        let (mut addresses, ttl) = self.ips(&host).await?;
        addresses.sort_unstable();
        let found = addresses
            .iter()
            .filter_map(|ip| url(&scheme, &ip.to_string(), port, name.url.path()))
            .map(Listed::new)
            .collect();
        Ok((found, ttl))
    }

    /// An endpoint for every address of every service of a name, of those that come first.
    ///
    /// # Errors
    /// DNS does not know the name, or does not answer.
    pub(super) async fn services(&self, name: &Name) -> Result<Found, SourceError> {
        let (scheme, host) = parts(name)?;
        let lookup = self
            .0
            .lookup(host.as_str(), RecordType::SRV)
            .await
            .map_err(unknown)?;
        let mut ttl = left(lookup.valid_until().into());
        let mut services: Vec<_> = lookup
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::SRV(service) => Some(service),
                _ => None,
            })
            .collect();
        let first = services.iter().map(|service| service.priority).min();
        // Those that come after are for when the first can't be reached, which here is known by other means.
        services.retain(|service| Some(service.priority) == first);
        services.sort_by_key(|service| (service.target.to_string(), service.port));
        let mut found = Vec::new();
        for service in services.into_iter().take(MOST_TARGETS) {
            let (mut addresses, holds) = self.ips(&service.target.to_string()).await?;
            addresses.sort_unstable();
            ttl = ttl.min(holds);
            for ip in addresses {
                if let Some(uri) = url(&scheme, &ip.to_string(), service.port, name.url.path()) {
                    found.push(Listed {
                        weight: u32::from(service.weight).max(1),
                        ..Listed::new(uri)
                    });
                }
            }
        }
        if found.is_empty() {
            return Err(SourceError::Dns(format!("{host} has no service")));
        }
        Ok((found, ttl))
    }

    async fn ips(&self, host: &str) -> Result<(Vec<IpAddr>, Duration), SourceError> {
        let lookup = self.0.lookup_ip(host).await.map_err(unknown)?;
        let mut addresses: Vec<IpAddr> = lookup.iter().collect();
        addresses.dedup();
        if addresses.is_empty() {
            return Err(SourceError::Dns(format!("{host} has no address")));
        }
        Ok((addresses, left(lookup.valid_until().into())))
    }
}

/// Asks, and asks again, and puts what is told into `feed`.
pub(super) async fn follow(name: Name, asks: Asks, mut feed: Feed) {
    loop {
        let found = async {
            let resolver = Resolver::new(&name)?;
            match asks {
                Asks::Addresses => resolver.addresses(&name).await,
                Asks::Services => resolver.services(&name).await,
            }
        };
        match found.await {
            Ok((found, ttl)) => {
                feed.put(&found);
                sleep(ttl.clamp(SHORTEST, LONGEST)).await;
            }
            Err(error) => feed.failed(&error).await,
        }
    }
}

fn parts(name: &Name) -> Result<(Scheme, String), SourceError> {
    let scheme = name.url.scheme().cloned().unwrap_or(Scheme::HTTP);
    let host = name
        .url
        .host()
        .ok_or_else(|| SourceError::Dns("the URL has no host".to_owned()))?;
    Ok((scheme, host.to_owned()))
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn unknown(error: impl std::fmt::Display) -> SourceError {
    SourceError::Dns(error.to_string())
}
