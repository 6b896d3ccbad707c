//! Accepting: sockets, TLS, HTTP/1.1 and HTTP/2 on one port, limits, and the end of it all.
//!
//! A worker calls [`serve`] with its socket. Each connection is a task: its first bytes say which HTTP it speaks
//! (after TLS, ALPN does), its driver moves it, and a clock ends it when it is silent, slow or old. Each request head
//! passes [`head::check`] before the handler sees it. What is refused here is rendered by the function that the
//! [`Settings`] carry, so that it looks like every other refusal of the gateway.

mod accept;
mod admission;
mod answer;
mod call;
mod connection;
pub mod counters;
mod date;
mod drain;
mod driver;
pub mod forwarded;
pub mod head;
mod http1;
mod http2;
pub(crate) mod keep_alive;
mod link;
pub mod pressure;
mod sockets;
mod stream;
pub mod tls;
pub mod tunnel;
pub mod worker;

use std::fmt;
use std::sync::Arc;

use http::Response;
use http::request::Parts;
use ipnet::IpNet;

pub use accept::serve;
pub use admission::Connections;
pub(crate) use call::without_body;
pub use drain::{Drain, Drained};
pub use sockets::{BindError, Sockets};

use crate::fault::Fault;
use crate::limits::Limits;
use crate::wire::body::Body;
use crate::wire::screen::Screen;
use counters::Counters;
use pressure::Pressure;
use tls::Tls;

/// Renders a fault for the client that sent this head, in its dialect.
pub type Refuse = fn(&Parts, &Fault) -> Response<Body>;

/// What one listener is like. Shared by its workers.
#[derive(Clone)]
pub struct Settings {
    /// Sizes, numbers and time-outs.
    pub limits: Limits,
    /// Certificates; `None` is cleartext.
    pub tls: Option<Tls>,
    /// Proxies whose forwarding headers are believed, and who are not counted by address.
    pub trusted_proxies: Vec<IpNet>,
    /// Who and what is not let in.
    pub screen: Screen,
    /// How refusals are rendered.
    pub refuse: Refuse,
    /// Where events are counted.
    pub counters: Arc<Counters>,
    /// How short of memory the process is.
    pub pressure: Arc<Pressure>,
}

impl Settings {
    /// A cleartext listener that believes nobody.
    pub fn new(limits: Limits, refuse: Refuse) -> Self {
        Self {
            limits,
            tls: None,
            trusted_proxies: Vec::new(),
            screen: Screen::default(),
            refuse,
            counters: Arc::default(),
            pressure: Arc::default(),
        }
    }

    /// Whether connections are served as by the other; what is only counted does not matter.
    pub fn serves_like(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one.config(), other.config()),
            (Some(_), None) | (None, Some(_)) => false,
        };
        tls && self.limits == other.limits && self.trusted_proxies == other.trusted_proxies
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("limits", &self.limits)
            .field("tls", &self.tls)
            .field("trusted_proxies", &self.trusted_proxies)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
