//! Who the client is behind the proxies that are believed, and what a backend is told about it. Pure functions.

use std::net::{IpAddr, SocketAddr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;
use smallvec::SmallVec;

use crate::peer::Peer;

/// The addresses that a request came through, the client first.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme that the client used.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host that the client asked for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Names beside `X-Forwarded-*` and `Forwarded` by which backends let themselves be told an address or another URL.
const OTHERS: [&str; 4] = ["x-real-ip", "x-original-url", "x-original-host", "x-rewrite-url"];

/// Whether `address` belongs to one of `networks`, IPv4 in IPv6 form too.
pub fn is_trusted(address: IpAddr, networks: &[IpNet]) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

/// The address of the client itself.
///
/// An untrusted peer is the client. Behind a trusted one, the addresses of `X-Forwarded-For` are read from the
/// right, where the nearest proxy wrote, and the first that is not trusted itself is the client. What can't be read
/// ends the search at the last address that a trusted proxy vouched for.
pub fn client_ip(peer: &Peer, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let mut client = peer.ip();
    if !peer.trusted() {
        return client;
    }
    for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        let Ok(text) = value.to_str() else {
            return client;
        };
        for hop in text.rsplit(',') {
            let Some(address) = parse(hop.trim()) else {
                return client;
            };
            client = address.to_canonical();
            if !is_trusted(client, trusted) {
                return client;
            }
        }
    }
    client
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn parse(hop: &str) -> Option<IpAddr> {
    if let Ok(address) = hop.parse() {
        return Some(address);
    }
    if let Ok(address) = hop.parse::<SocketAddr>() {
        return Some(address.ip());
    }
    hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

/// Makes the forwarding headers say what the gateway knows.
///
/// From an untrusted peer nothing of the kind is passed on; a trusted one's words are kept and its own address is
/// added to them. `host` is what the client asked for.
pub fn rewrite(headers: &mut HeaderMap, peer: &Peer, host: Option<HeaderValue>) {
    if !peer.trusted() {
        strip(headers);
    }
    let chain = if peer.trusted() && headers.contains_key(X_FORWARDED_FOR) {
        let mut chain = Vec::new();
        for value in headers.get_all(X_FORWARDED_FOR) {
            chain.extend_from_slice(value.as_bytes());
            chain.extend_from_slice(b", ");
        }
        chain.extend_from_slice(peer.forwarded_for().as_bytes());
        HeaderValue::from_maybe_shared(bytes::Bytes::from(chain))
            .unwrap_or_else(|_| peer.forwarded_for().clone())
    } else {
        peer.forwarded_for().clone()
    };
    headers.insert(X_FORWARDED_FOR, chain);
    let scheme = HeaderValue::from_static(if peer.secure() { "https" } else { "http" });
    headers.entry(X_FORWARDED_PROTO).or_insert(scheme);
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// Removes what only a trusted proxy may say.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let said: SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|name| is_forwarding(name))
        .cloned()
        .collect();
    for name in said {
        headers.remove(name);
    }
}

/// Whether a backend lets itself be told by it where a request comes from, or what it asks for.
pub(crate) fn is_forwarding(name: &HeaderName) -> bool {
    *name == FORWARDED || name.as_str().starts_with("x-forwarded-") || OTHERS.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str, trusted: bool) -> Peer {
        Peer::new(
            SocketAddr::new(address.parse().unwrap(), 4000),
            false,
            trusted,
            Vec::new(),
        )
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            })
    }

    #[test]
    fn hops_are_counted_from_the_right() {
        let trusted: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32"]
            .map(|net| net.parse().unwrap())
            .into();
        let table: &[(&str, bool, &[&'static str], &str)] = &[
            ("192.0.2.9", false, &["203.0.113.1"], "192.0.2.9"),
            ("10.0.0.1", true, &[], "10.0.0.1"),
            ("10.0.0.1", true, &["203.0.113.1"], "203.0.113.1"),
            (
                "10.0.0.1",
                true,
                &["6.6.6.6, 203.0.113.1, 10.0.0.2"],
                "203.0.113.1",
            ),
            (
                "10.0.0.1",
                true,
                &["6.6.6.6", "203.0.113.1", "10.0.0.2"],
                "203.0.113.1",
            ),
            ("10.0.0.1", true, &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", true, &["203.0.113.1, junk, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", true, &["203.0.113.1:55"], "203.0.113.1"),
            (
                "10.0.0.1",
                true,
                &["[2001:db9::1]:55, 2001:db8::7"],
                "2001:db9::1",
            ),
            ("10.0.0.1", true, &["[2001:db9::1]"], "2001:db9::1"),
            ("::ffff:10.0.0.1", true, &["::ffff:203.0.113.1"], "203.0.113.1"),
        ];
        for (address, believed, values, client) in table {
            let mut map = HeaderMap::new();
            for value in *values {
                map.append(X_FORWARDED_FOR, HeaderValue::from_static(value));
            }
            let found = client_ip(&peer(address, *believed), &map, &trusted);
            assert_eq!(found.to_string(), *client, "{address} {values:?}");
        }
    }

    #[test]
    fn an_untrusted_peer_says_nothing_about_itself() {
        let mut map = headers(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "7.7.7.7"),
            ("x-forwarded-prefix", "/admin"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("x-original-url", "/admin"),
            ("x-original-host", "a"),
            ("x-rewrite-url", "/admin"),
            ("x-other", "kept"),
        ]);
        let host = HeaderValue::from_static("example.com");
        rewrite(&mut map, &peer("192.0.2.9", false), Some(host));
        let expected = headers(&[
            ("x-other", "kept"),
            ("x-forwarded-for", "192.0.2.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "example.com"),
        ]);
        assert_eq!(map, expected);
    }

    #[test]
    fn a_trusted_peer_is_added_to_what_it_says() {
        let mut map = headers(&[
            ("x-forwarded-for", "203.0.113.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outside.example"),
        ]);
        rewrite(
            &mut map,
            &peer("10.0.0.1", true),
            Some(HeaderValue::from_static("inside")),
        );
        let expected = headers(&[
            ("x-forwarded-for", "203.0.113.1, 10.0.0.2, 10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outside.example"),
        ]);
        assert_eq!(map, expected);
    }
}
