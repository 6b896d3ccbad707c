//! The pools of one worker. Two who dial the same endpoint in the same way share its connections, and a pool that nobody
//! wants any more goes when the last call on it has ended.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use crate::upstream::connect::{Connector, Settings};
use crate::upstream::pool::{Pool, WeakPool};

/// How the endpoints of a backend are dialled.
#[derive(Clone, Debug)]
pub struct Dialling {
    /// TLS, for `https` endpoints.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// The name that certificates must carry, where it is not the endpoint's host.
    pub server_name: Option<String>,
    /// What is asked for, where it is not the endpoint's host and port: endpoints that were found by a name are asked by
    /// that name.
    pub authority: Option<Authority>,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// The versions of HTTP and their settings.
    pub settings: Settings,
}

impl Dialling {
    /// Whether the other one dials in the same way, with the same set-up of TLS.
    pub fn is(&self, other: &Self) -> bool {
        let uri = Uri::default();
        Key::new(&uri, self) == Key::new(&uri, other)
    }
}

/// TLS set-ups are the same when they are one: so that none is taken for another, a key keeps its own.
#[derive(Clone, Debug)]
struct Tls(Option<Arc<rustls::ClientConfig>>);

impl Tls {
    fn address(&self) -> usize {
        self.0.as_ref().map_or(0, |tls| Arc::as_ptr(tls).addr())
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for Tls {}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address().hash(state);
    }
}

/// What makes two connections interchangeable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    uri: Uri,
    tls: Tls,
    server_name: Option<String>,
    authority: Option<Authority>,
    connect_timeout: Duration,
    settings: Settings,
}

impl Key {
    fn new(uri: &Uri, how: &Dialling) -> Self {
        Self {
            uri: uri.clone(),
            tls: Tls(how.tls.clone()),
            server_name: how.server_name.clone(),
            authority: how.authority.clone(),
            connect_timeout: how.connect_timeout,
            settings: how.settings,
        }
    }
}

/// The pools of one worker.
#[derive(Debug)]
pub struct Pools {
    known: Mutex<HashMap<Key, WeakPool>>,
    tasks: TaskTracker,
}

impl Pools {
    /// No pool yet; tasks that move bytes are spawned on `tasks`.
    pub fn new(tasks: TaskTracker) -> Self {
        Self {
            known: Mutex::default(),
            tasks,
        }
    }

    /// The connections to an endpoint. Not for the way of a call: it is asked when endpoints change.
    ///
    /// # Errors
    /// An [`io::Error`] of kind `InvalidInput` that says what is wrong with the URL.
    pub fn pool(&self, uri: &Uri, how: &Dialling) -> io::Result<Pool> {
        let key = Key::new(uri, how);
        let mut known = self.known.lock();
        if let Some(pool) = known.get(&key).and_then(WeakPool::upgrade) {
            return Ok(pool);
        }
        let pool = Pool::new(connector(uri, how)?, self.tasks.clone());
        known.retain(|_, pool| pool.upgrade().is_some());
        known.insert(key, pool.downgrade());
        Ok(pool)
    }
}

/// A connector for an endpoint.
///
/// # Errors
/// An [`io::Error`] of kind `InvalidInput` that says what is wrong with the URL.
pub fn connector(uri: &Uri, how: &Dialling) -> io::Result<Connector> {
    let connector = Connector::new(
        uri,
        how.tls.clone(),
        how.server_name.as_deref(),
        how.connect_timeout,
        how.settings,
    )?;
    Ok(match &how.authority {
        Some(authority) => connector.asking_for(authority),
        None => connector,
    })
}
