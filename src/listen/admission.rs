//! How many connections there may be: in all, and from one client address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::limits::Limits;

/// Locks that the addresses are spread over, so that workers seldom meet at one. Not measured.
const SHARDS: usize = 16;

/// The part of the total that only loopback and trusted proxies may use, so that health checks get through when
/// clients have taken the rest: a fiftieth, and no more than this.
const MAX_RESERVE: usize = 64;

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All places are taken.
    Total,
    /// The address has as many as one address may have.
    Address,
}

/// All connections of the process, over every listener that shares it.
#[derive(Debug)]
pub struct Connections {
    max: AtomicUsize,
    max_per_address: AtomicUsize,
    /// Places in use. 0 <= open <= max, unless max was lowered since.
    open: AtomicUsize,
    shards: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    hash: ahash::RandomState,
}

impl Connections {
    /// No connections yet, and as many as `limits` allow.
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            max: AtomicUsize::new(limits.max_connections),
            max_per_address: AtomicUsize::new(limits.max_connections_per_address),
            open: AtomicUsize::new(0),
            shards: Default::default(),
            hash: ahash::RandomState::new(),
        })
    }

    /// Goes by other limits from now on; connections that are open stay.
    pub fn limit(&self, limits: &Limits) {
        self.max.store(limits.max_connections, Ordering::Relaxed);
        self.max_per_address
            .store(limits.max_connections_per_address, Ordering::Relaxed);
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a place for a connection from `address`.
    ///
    /// `known` says that it is loopback or a trusted proxy: those stand for many clients and are not counted by
    /// address, and the reserve is theirs.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, known: bool) -> Result<Place, Full> {
        let all = self.max.load(Ordering::Relaxed);
        let max = if known {
            all
        } else {
            all.saturating_sub((all / 50).min(MAX_RESERVE))
        };
        self.open
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| {
                (open < max).then_some(open + 1)
            })
            .map_err(|_| Full::Total)?;
        let mut place = Place {
            connections: Arc::clone(self),
            counted: None,
        };
        if known {
            return Ok(place);
        }
        let address = network(address);
        let mut shard = self.shard(address).lock();
        let count = shard.entry(address).or_insert(0);
        if *count >= self.max_per_address.load(Ordering::Relaxed) {
            return Err(Full::Address);
        }
        *count += 1;
        place.counted = Some(address);
        drop(shard);
        Ok(place)
    }

    fn shard(&self, address: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        // The lowest byte picks one; the remainder is below the number of shards.
        let [byte, ..] = self.hash.hash_one(address).to_le_bytes();
        &self.shards[usize::from(byte) % SHARDS]
    }
}

/// The place of one open connection; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    counted: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.counted {
            let mut shard = self.connections.shard(address).lock();
            if let Some(count) = shard.get_mut(&address) {
                *count -= 1;
                if *count == 0 {
                    shard.remove(&address);
                }
            }
        }
    }
}

/// Who is counted as one: an IPv4 address, or the /64 that an IPv6 host is given whole.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(max: usize, max_per_address: usize) -> Arc<Connections> {
        Connections::new(&Limits {
            max_connections: max,
            max_connections_per_address: max_per_address,
            ..Limits::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_limit_and_not_one_more() {
        let connections = connections(10, 2);
        let first = connections.admit(ip("192.0.2.1"), false).unwrap();
        let _second = connections.admit(ip("192.0.2.1"), false).unwrap();
        assert_eq!(
            connections.admit(ip("192.0.2.1"), false).unwrap_err(),
            Full::Address
        );
        assert_eq!(connections.open(), 2);
        let _other = connections.admit(ip("192.0.2.2"), false).unwrap();
        drop(first);
        let _third = connections.admit(ip("192.0.2.1"), false).unwrap();
    }

    #[test]
    fn hosts_of_one_ipv6_network_are_one_client() {
        let connections = connections(10, 1);
        let _first = connections.admit(ip("2001:db8::1"), false).unwrap();
        assert_eq!(
            connections.admit(ip("2001:db8::2"), false).unwrap_err(),
            Full::Address
        );
        let _other = connections.admit(ip("2001:db8:0:1::1"), false).unwrap();
        let _mapped = connections.admit(ip("::ffff:192.0.2.1"), false).unwrap();
        assert!(connections.admit(ip("192.0.2.1"), false).is_err());
    }

    #[test]
    fn loopback_and_trusted_proxies_are_counted_in_the_total_only() {
        let connections = connections(3, 1);
        let places: Vec<_> = (0..3)
            .map(|_| connections.admit(ip("127.0.0.1"), true).unwrap())
            .collect();
        assert_eq!(connections.admit(ip("127.0.0.1"), true).unwrap_err(), Full::Total);
        drop(places);
        assert_eq!(connections.open(), 0);
    }

    #[test]
    fn the_reserve_is_for_health_checks() {
        let connections = connections(100, 100);
        let _clients: Vec<_> = (0..98)
            .map(|_| connections.admit(ip("192.0.2.1"), false).unwrap())
            .collect();
        assert_eq!(
            connections.admit(ip("192.0.2.2"), false).unwrap_err(),
            Full::Total
        );
        let _check = connections.admit(ip("127.0.0.1"), true).unwrap();
    }

    #[test]
    fn nothing_is_kept_of_addresses_that_left() {
        let connections = connections(10, 10);
        drop(connections.admit(ip("192.0.2.1"), false));
        assert!(connections.shards.iter().all(|shard| shard.lock().is_empty()));
    }
}
