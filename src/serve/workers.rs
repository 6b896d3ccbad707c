//! The workers: sockets shared out, one gateway each, new plans put in place.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use crate::config::Plan;
use crate::gateway::{Gateway, Prepared};
use crate::listen::counters::Counters;
use crate::listen::pressure::Pressure;
use crate::listen::tls::{Identity, Tls};
use crate::listen::worker::Workers;
use crate::listen::{self, Connections, Drain, Settings, Sockets};
use crate::observe::{Log, Metrics, Shard};
use crate::serve::{ServeError, refuse_head};

/// The listeners' sockets and settings, before they are shared out to the workers.
pub(super) struct Bound {
    sockets: Vec<Sockets>,
    pub(super) addresses: Vec<SocketAddr>,
    settings: Vec<Arc<Settings>>,
    workers: usize,
}

impl Bound {
    pub(super) fn new(
        plan: &Plan,
        counters: &Arc<Counters>,
        pressure: &Arc<Pressure>,
    ) -> Result<Self, ServeError> {
        let mut bound = Self {
            sockets: Vec::new(),
            addresses: Vec::new(),
            settings: Vec::new(),
            workers: plan.workers,
        };
        for listener in &plan.listeners {
            let tls = match &listener.tls {
                None => None,
                Some(files) => {
                    let identities: Vec<Identity> = files
                        .certificates
                        .iter()
                        .map(|(certificate, key)| Identity {
                            certificate: certificate.clone(),
                            key: key.clone(),
                        })
                        .collect();
                    Some(Tls::load(&identities, files.client_ca.as_deref())?)
                }
            };
            let sockets = Sockets::bind(listener.address, plan.workers)?;
            bound.addresses.push(sockets.address());
            bound.sockets.push(sockets);
            bound.settings.push(Arc::new(Settings {
                tls,
                trusted_proxies: listener.trusted_proxies.clone(),
                screen: listener.screen.clone(),
                counters: Arc::clone(counters),
                pressure: Arc::clone(pressure),
                ..Settings::new(listener.limits.clone(), refuse_head)
            }));
        }
        Ok(bound)
    }

    /// Starts the worker threads; returns once they run.
    pub(super) fn start(
        mut self,
        plans: &watch::Receiver<Arc<Prepared>>,
        metrics: &Metrics,
        log: &Log,
        connections: &Arc<Connections>,
        drain: &Drain,
    ) -> Result<Workers, ServeError> {
        let shares = (0..self.workers)
            .map(|worker| Share {
                listeners: self
                    .sockets
                    .iter_mut()
                    .filter_map(|sockets| sockets.take(worker))
                    .collect(),
                settings: self.settings.clone(),
                plans: plans.clone(),
                shard: metrics.shard(worker),
                log: log.clone(),
                connections: Arc::clone(connections),
                drain: drain.clone(),
            })
            .collect();
        Ok(Workers::start(shares, |_number, share: Share| share.run())?)
    }
}

/// What one worker gets.
struct Share {
    listeners: Vec<std::net::TcpListener>,
    settings: Vec<Arc<Settings>>,
    plans: watch::Receiver<Arc<Prepared>>,
    shard: Arc<Shard>,
    log: Log,
    connections: Arc<Connections>,
    drain: Drain,
}

impl Share {
    /// The life of a worker.
    async fn run(mut self) {
        let tasks = TaskTracker::new();
        let prepared = Arc::clone(&self.plans.borrow_and_update());
        let gateway = match Gateway::new(
            &prepared,
            tasks.clone(),
            self.shard,
            self.log.clone(),
            self.drain.clone(),
        ) {
            Ok(gateway) => Arc::new(gateway),
            Err(error) => return tracing::error!(%error, "a worker can't start"),
        };
        let replaced = tasks.spawn(replace(Arc::clone(&gateway), self.plans));
        let mut serving = JoinSet::new();
        for (listener, settings) in self.listeners.into_iter().zip(self.settings) {
            let gateway = Arc::clone(&gateway);
            let handler = move |request, peer| {
                let gateway = Arc::clone(&gateway);
                // Boxed, so that a connection that idles holds a pointer and not the room for a call.
                Box::pin(async move { gateway.handle(request, peer).await })
            };
            let connections = Arc::clone(&self.connections);
            serving.spawn(listen::serve(
                listener,
                settings,
                connections,
                self.drain.clone(),
                handler,
            ));
        }
        while let Some(served) = serving.join_next().await {
            if let Ok(Err(error)) = served {
                tracing::error!(%error, "a listener ended");
            }
        }
        replaced.abort();
        self.log.flush();
    }
}

/// Puts each new plan in place.
async fn replace(gateway: Arc<Gateway>, mut plans: watch::Receiver<Arc<Prepared>>) {
    while plans.changed().await.is_ok() {
        let prepared = Arc::clone(&plans.borrow_and_update());
        if let Err(error) = gateway.replace(&prepared) {
            tracing::error!(%error, "a plan can't be put in place; the one before stays");
        }
    }
}
