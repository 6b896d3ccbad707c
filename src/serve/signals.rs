//! Signals to the process.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::admin::Controls;

/// How a process that is told to end goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    /// Whoever sends it calls is given time to look elsewhere.
    Announced,
    /// Somebody at a terminal waits for it.
    AtOnce,
}

/// The signals that the process listens to, from the moment on at which this is made: one that comes while the gateway
/// starts is not lost, and does not end the process by surprise.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Begins to listen.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Does what signals say, and resolves when one, or an operator, tells the process to end.
    ///
    /// # Cancel safety
    /// A signal that came is not lost; reloads that are under way go on.
    pub(super) async fn obey(&mut self, controls: &Controls) -> Haste {
        // Aside, so that a signal to end is heard meanwhile.
        let mut reloads = JoinSet::new();
        let ended = controls.ended();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Haste::Announced,
                _ = self.interrupt.recv() => return Haste::AtOnce,
                () = &mut ended => return Haste::Announced,
                _ = self.hang_up.recv() => {}
            }
            while reloads.try_join_next().is_some() {}
            tracing::info!("told to reload");
            let controls = controls.clone();
            reloads.spawn(async move {
                // What becomes of it is in the log.
                if let Err(unheard) = controls.reload().await {
                    tracing::warn!(%unheard, "the configuration is not reloaded");
                }
            });
        }
    }

    /// Resolves when the process is told once more to end.
    ///
    /// # Cancel safety
    /// A signal that came is not lost.
    pub(super) async fn insist(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
