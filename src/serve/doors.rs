//! Listeners that come, change and go while the gateway runs.
//!
//! A listener is known by its address as it is written. One that stays keeps its sockets, and new settings hold for new
//! connections; one that is new is bound before anything else changes; one that is gone finishes what it does.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::config::plan::{self, ListenerTls};
use crate::config::watch::Digest;
use crate::listen::counters::Counters;
use crate::listen::pressure::Pressure;
use crate::listen::tls::{Identity, Tls, TlsError};
use crate::listen::{Drain, Settings, Sockets};
use crate::serve::ServeError;
use crate::serve::launch::refuse_head;
use crate::serve::workers::{Desks, Opened, Order};

/// Which listener: its address, and how many of the same stand before it, since port 0 may be there twice.
type Key = (SocketAddr, usize);

/// What every listener has.
pub(super) struct House {
    pub(super) workers: usize,
    pub(super) counters: Arc<Counters>,
    pub(super) pressure: Arc<Pressure>,
    pub(super) drain: Drain,
    /// Copies of all sockets, if they may be handed over.
    pub(super) spares: Spares,
}

/// Copies of listening sockets, for a process that takes over. While they are here, the sockets stay open.
#[derive(Clone, Debug, Default)]
pub(super) struct Spares(Option<Arc<Copies>>);

/// By the address of the listener.
type Copies = Mutex<HashMap<SocketAddr, Vec<TcpListener>>>;

impl Spares {
    /// Spares that are kept.
    pub(super) fn kept() -> Self {
        Self(Some(Arc::default()))
    }

    /// Copies the sockets of a listener, before workers take them.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(super) fn keep(&self, sockets: &Sockets) -> io::Result<()> {
        if let Some(spares) = &self.0 {
            spares.lock().insert(sockets.address(), sockets.copies()?);
        }
        Ok(())
    }

    fn forget(&self, address: SocketAddr) {
        if let Some(spares) = &self.0 {
            spares.lock().remove(&address);
        }
    }

    /// Closes all of them.
    pub(super) fn close(&self) {
        if let Some(spares) = &self.0 {
            spares.lock().clear();
        }
    }

    /// Copies of them.
    pub(super) fn copies(&self) -> Vec<TcpListener> {
        let spares = self.0.iter().flat_map(|spares| {
            let all = spares.lock();
            let copies = all
                .values()
                .flatten()
                .filter_map(|socket| socket.try_clone().ok());
            copies.collect::<Vec<_>>()
        });
        spares.collect()
    }
}

/// The listeners that are open.
pub(super) struct Doors {
    house: House,
    open: Vec<Door>,
    tls: HashMap<(ListenerTls, Digest), Tls>,
}

struct Door {
    key: Key,
    /// With the real port.
    address: SocketAddr,
    settings: watch::Sender<Arc<Settings>>,
    drain: Drain,
}

/// Loads the certificates of a listener.
///
/// # Errors
/// A file can't be used.
pub(super) fn load(files: &ListenerTls) -> Result<Tls, TlsError> {
    let identity = |(certificate, key): &(PathBuf, PathBuf)| Identity {
        certificate: certificate.clone(),
        key: key.clone(),
    };
    let identities: Vec<Identity> = files.certificates.iter().map(identity).collect();
    Tls::load(&identities, files.client_ca.as_deref())
}

/// Listeners as they will be: settings are complete and sockets bound.
pub(super) struct NextDoors {
    doors: Vec<NextDoor>,
    tls: HashMap<(ListenerTls, Digest), Tls>,
}

struct NextDoor {
    key: Key,
    settings: Arc<Settings>,
    /// Of one that is new.
    sockets: Option<Sockets>,
}

impl Doors {
    pub(super) fn new(house: House) -> Self {
        Self {
            house,
            open: Vec::new(),
            tls: HashMap::new(),
        }
    }

    /// Where clients connect, in the order of the configuration.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.open.iter().map(|door| door.address).collect()
    }

    /// Reads certificates and binds what is new. `inherited` are sockets that are there already, by their addresses.
    ///
    /// # Errors
    /// A certificate can't be used, or an address can't be bound; nothing has changed then.
    pub(super) fn prepare(
        &self,
        listeners: &[plan::Listener],
        inherited: &mut Vec<TcpListener>,
    ) -> Result<NextDoors, ServeError> {
        let mut next = NextDoors {
            doors: Vec::new(),
            tls: HashMap::new(),
        };
        for (at, listener) in listeners.iter().enumerate() {
            let same = |other: &&plan::Listener| other.address == listener.address;
            let before = listeners.iter().take(at).filter(same).count();
            let key = (listener.address, before);
            let tls = match &listener.tls {
                None => None,
                Some(files) => Some(self.tls(files, &mut next)?),
            };
            let settings = Arc::new(Settings {
                tls,
                trusted_proxies: listener.trusted_proxies.clone(),
                screen: listener.screen.clone(),
                counters: Arc::clone(&self.house.counters),
                pressure: Arc::clone(&self.house.pressure),
                ..Settings::new(listener.limits.clone(), refuse_head)
            });
            let sockets = match self.open.iter().any(|door| door.key == key) {
                true => None,
                false => Some(Sockets::with(listener.address, self.house.workers, inherited)?),
            };
            next.doors.push(NextDoor {
                key,
                settings,
                sockets,
            });
        }
        Ok(next)
    }

    /// The same certificates from the same files stay, so that clients can resume their sessions.
    fn tls(&self, files: &ListenerTls, next: &mut NextDoors) -> Result<Tls, ServeError> {
        let key = (files.clone(), Digest::of(&files.paths()));
        let known = self.tls.get(&key).or_else(|| next.tls.get(&key)).cloned();
        let tls = match known {
            Some(tls) => tls,
            None => load(files)?,
        };
        next.tls.insert(key, tls.clone());
        Ok(tls)
    }

    /// Opens what is new, changes what stays, and begins to close what is gone; tasks of `tasks` see it to its end.
    pub(super) async fn apply(&mut self, next: NextDoors, desks: &Desks, tasks: &TaskTracker) {
        self.tls = next.tls;
        let mut before = std::mem::take(&mut self.open);
        for door in next.doors {
            if let Some(at) = before.iter().position(|known| known.key == door.key) {
                let known = before.swap_remove(at);
                let changes = !known.settings.borrow().serves_like(&door.settings);
                if changes {
                    known.settings.send_replace(door.settings);
                }
                self.open.push(known);
            } else if let Some(mut sockets) = door.sockets {
                let (settings, changes) = watch::channel(door.settings);
                let drain = self.house.drain.part();
                let address = sockets.address();
                if let Err(error) = self.house.spares.keep(&sockets) {
                    tracing::error!(%error, %address, "the listener can't be handed over");
                }
                for worker in 0..self.house.workers {
                    let opened = Opened {
                        sockets: sockets.take(worker),
                        settings: changes.clone(),
                        drain: drain.clone(),
                    };
                    desks.order(worker, Order::Serve(opened)).await;
                }
                tracing::info!("listening on {address}");
                self.open.push(Door {
                    key: door.key,
                    address,
                    settings,
                    drain,
                });
            }
        }
        for gone in before {
            tracing::info!("no longer listening on {}", gone.address);
            self.house.spares.forget(gone.address);
            let drain = gone.drain;
            tasks.spawn(async move { drain.part_done().await });
        }
    }
}
