//! Who is at the other end of an accepted connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::HeaderValue;
use ipnet::IpNet;

/// The far end of one accepted connection; shared by every request on it.
#[derive(Clone, Debug)]
pub struct Peer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    address: SocketAddr,
    forwarded_for: HeaderValue,
    secure: bool,
    trusted: bool,
    certificates: Vec<Vec<u8>>,
    /// Where the listener is bound, if that is known.
    listener: Option<SocketAddr>,
    /// The proxies that the listener believes, where the peer is one of them.
    believed: Vec<IpNet>,
}

impl Peer {
    /// The peer at `address`.
    ///
    /// `secure` says that the connection is TLS, `trusted` that the address is one of the listener's trusted
    /// proxies, `certificates` holds the client's verified chain in DER, leaf first, under mutual TLS.
    pub fn new(address: SocketAddr, secure: bool, trusted: bool, certificates: Vec<Vec<u8>>) -> Self {
        let ip = address.ip().to_canonical();
        Self(Arc::new(Inner {
            address,
            // The text of an address is always a valid header value.
            forwarded_for: HeaderValue::from_str(&ip.to_string())
                .unwrap_or(HeaderValue::from_static("unknown")),
            secure,
            trusted,
            certificates,
            listener: None,
            believed: Vec::new(),
        }))
    }

    /// The same peer, at a listener that believes the proxies of these networks.
    #[must_use]
    pub fn believing(mut self, networks: Vec<IpNet>) -> Self {
        // Nobody shares a peer that was just made.
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.believed = networks;
        }
        self
    }

    /// The same peer, which came in through the listener that is bound here.
    #[must_use]
    pub fn through(mut self, listener: SocketAddr) -> Self {
        // Nobody shares a peer that was just made.
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.listener = Some(listener);
        }
        self
    }

    /// Whether the listener can be reached from the machine itself alone.
    pub fn is_local(&self) -> bool {
        self.0
            .listener
            .is_some_and(|listener| listener.ip().to_canonical().is_loopback())
    }

    /// Where the connection comes from.
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The same without the port, IPv4 in its own form.
    pub fn ip(&self) -> IpAddr {
        self.0.address.ip().to_canonical()
    }

    /// The address as `X-Forwarded-For` carries it, made once per connection.
    pub fn forwarded_for(&self) -> &HeaderValue {
        &self.0.forwarded_for
    }

    /// Whether the connection is TLS.
    pub fn secure(&self) -> bool {
        self.0.secure
    }

    /// Whether the peer is a proxy whose forwarding headers are believed.
    pub fn trusted(&self) -> bool {
        self.0.trusted
    }

    /// The proxies that are believed about who is behind them, where the peer is one of them.
    pub fn believed(&self) -> &[IpNet] {
        &self.0.believed
    }

    /// The verified client certificate chain in DER, leaf first; empty without mutual TLS.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.0.certificates
    }
}
