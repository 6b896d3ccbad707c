//! The compiled whole: everything that a call needs to know, as data. It needs no runtime to build or to test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;

use super::diagnostic::Diagnostic;
use super::value::Services;
use crate::balance::LoadBalancing;
use crate::describe::reflection::Exposed;
use crate::limits::Limits;
use crate::route::{Entry, Host, Routes};

/// A configuration and the schemas of its backends, compiled.
#[derive(Debug)]
pub struct Plan {
    /// Counts up with each plan of the process.
    pub generation: u64,
    /// Worker threads.
    pub workers: usize,
    /// Limits that hold where a listener has none of its own.
    pub limits: Limits,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Where operators connect; `None` turns the admin listener off.
    pub admin: Option<SocketAddr>,
    /// Where calls go.
    pub backends: Vec<Backend>,
    /// Every exposed method, in the order in which [`Routes`] counts them.
    pub entries: Vec<Arc<Entry>>,
    /// From host and path to an entry.
    pub routes: Routes,
    /// What server reflection tells.
    pub reflection: Exposed,
    /// HTTP rules that are not in use, each with its reason.
    pub disabled: Vec<Disabled>,
    /// Routes whose backend's schema is not known yet.
    pub pending: Vec<Pending>,
    /// What works, and probably not as meant.
    pub warnings: Vec<Diagnostic>,
}

/// A socket for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Where it is bound; port 0 lets the system choose.
    pub address: SocketAddr,
    /// TLS; absent for cleartext.
    pub tls: Option<ListenerTls>,
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Its limits.
    pub limits: Limits,
}

/// The files of a TLS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificate chains with their keys, chosen by SNI; the first is the default.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// The authorities of client certificates; present, every client must have one.
    pub client_ca: Option<PathBuf>,
}

/// A named set of endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The name in the configuration.
    pub name: String,
    /// Its endpoints: `http` is HTTP/2 with prior knowledge, `https` HTTP/2 by ALPN.
    pub endpoints: Vec<Uri>,
    /// How an endpoint is chosen.
    pub load_balancing: LoadBalancing,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// TLS towards `https` endpoints.
    pub tls: BackendTls,
}

/// TLS towards a backend. Verification is always on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTls {
    /// The authorities that its certificate may come from; absent, those of the system.
    pub ca: Option<PathBuf>,
    /// The gateway's own certificate chain and key, for mutual TLS.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The name that the certificate must be for; absent, the endpoint's host.
    pub server_name: Option<String>,
}

/// An HTTP rule that is not in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disabled {
    /// The full name of its method.
    pub method: String,
    /// The rule, such as `GET /v1/{name=shelves/*}`.
    pub rule: String,
    /// Why.
    pub reason: String,
}

/// A route whose backend's schema is not known yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The backend's name.
    pub backend: String,
    /// The services that the route takes.
    pub patterns: Vec<Services>,
    /// The hosts of the route; empty for any.
    pub hosts: Vec<Host>,
    /// Why the schema is not known.
    pub reason: String,
}
