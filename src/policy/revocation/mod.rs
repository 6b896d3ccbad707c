//! Tokens that are not believed any more, though they have not expired: lists from a file, and from the Redis that the
//! nodes of a cluster share.
//!
//! Lists are read in the background and looked at where they are in memory, so that no call waits for a file or for
//! Redis. What is revoked counts for tokens that were verified before, and ends what was begun with them.

#[cfg(feature = "redis")]
pub mod cluster;
mod keeper;
pub mod list;

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use keeper::Keeper;
use list::List;

use super::identity::{Identity, Source};
use super::refusal::Refusal;
use super::setup::{self, Secret, SetupError};
use super::time::unix_now;
use crate::fault::Fault;

/// How long Redis may be silent before tokens are refused, where that is wanted: ten looks, in seconds.
const SILENCE_SECONDS: u64 = 10;

/// Where it is said what is revoked, as data.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RevocationSetup {
    /// A file.
    pub file: Option<PathBuf>,
    /// A Redis.
    pub redis: Option<RedisSetup>,
}

/// The Redis in which it is said what is revoked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RedisSetup {
    /// Its URL, which may have a password in it.
    pub url: Secret,
    /// What the names of its keys begin with.
    pub prefix: String,
    /// What becomes of tokens without it.
    pub on_loss: OnLoss,
}

/// What becomes of tokens while Redis can't be asked what is revoked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnLoss {
    /// What was heard last counts; before anything was heard, tokens are refused.
    #[default]
    Keep,
    /// Tokens are refused when nothing has been heard for a while.
    Closed,
}

/// What is revoked, for all workers.
pub struct Revocations {
    setup: RevocationSetup,
    file: ArcSwap<List>,
    cluster: ArcSwap<List>,
    /// The second of Unix time in which Redis was heard last; 0 before the first.
    heard: AtomicU64,
    /// Has every worker's bell rung when a list has changed.
    changed: watch::Sender<()>,
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Revocations")
            .field("setup", &self.setup)
            .field("file", &self.file.load().len())
            .field("cluster", &self.cluster.load().len())
            .finish_non_exhaustive()
    }
}

impl Revocations {
    /// What is revoked by the file, which is read; of Redis nothing is known before its keeper runs.
    ///
    /// # Errors
    /// The file can't be read, or a line of it.
    pub fn new(setup: &RevocationSetup) -> Result<Self, SetupError> {
        let file = match &setup.file {
            Some(path) => read(path)?,
            None => List::default(),
        };
        Ok(Self {
            setup: setup.clone(),
            file: ArcSwap::from_pointee(file),
            cluster: ArcSwap::default(),
            heard: AtomicU64::new(0),
            changed: watch::Sender::new(()),
        })
    }

    /// Refuses a caller whose token is revoked, or of whose token that can't be known; `now` in seconds of Unix time.
    pub(super) fn check(&self, identity: &Identity, now: u64) -> Result<(), Refusal> {
        if !is_token(identity) {
            return Ok(());
        }
        if let Some(redis) = &self.setup.redis {
            let heard = self.heard.load(Ordering::Relaxed);
            let silent = redis.on_loss == OnLoss::Closed && now.saturating_sub(heard) > SILENCE_SECONDS;
            if heard == 0 || silent {
                return Err(Refusal::RevocationUnknown);
            }
        }
        if self.file.load().revokes(identity, now) || self.cluster.load().revokes(identity, now) {
            return Err(Refusal::Revoked);
        }
        Ok(())
    }

    /// Hears once what Redis revokes, for commands that do not serve.
    ///
    /// # Errors
    /// Why it does not tell.
    ///
    /// # Cancel safety
    /// Nothing is heard.
    #[cfg(feature = "redis")]
    pub async fn once(&self) -> Result<(), redis::RedisError> {
        if let Some(setup) = &self.setup.redis {
            let entries = cluster::all(setup).await?;
            self.told_by_redis(Some(List::new(&entries, unix_now())));
        }
        Ok(())
    }

    /// How many entries the file has, and how many Redis.
    pub fn counts(&self) -> (usize, usize) {
        (self.file.load().len(), self.cluster.load().len())
    }

    fn told_by_file(&self, list: List) {
        self.file.store(Arc::new(list));
        self.changed.send_replace(());
    }

    #[cfg(feature = "redis")]
    fn told_by_redis(&self, list: Option<List>) {
        let changed = list.is_some();
        if let Some(list) = list {
            self.cluster.store(Arc::new(list));
        }
        self.heard.store(unix_now().max(1), Ordering::Relaxed);
        if changed {
            self.changed.send_replace(());
        }
    }
}

/// Whether a caller is known by a token. The owners of others are taken out where they are listed.
fn is_token(identity: &Identity) -> bool {
    match identity.claims().source {
        Source::Token | Source::Introspection => true,
        Source::ApiKey | Source::Password | Source::Certificate | Source::External => false,
    }
}

/// What a file revokes.
fn read(path: &Path) -> Result<List, SetupError> {
    let entries = list::parse(&setup::text(path)?).map_err(|error| SetupError::Revocations {
        path: path.to_owned(),
        error,
    })?;
    Ok(List::new(&entries, unix_now()))
}

/// The word by which a call goes on: it ends when the token is revoked by which its caller is known.
pub struct Standing(Pin<Box<dyn Future<Output = Fault> + Send>>);

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Standing")
    }
}

/// What one worker hears of it when a list has changed: those who wait there are counted, and woken, apart from those of
/// other workers.
#[derive(Debug)]
pub(super) struct Bell {
    revocations: Arc<Revocations>,
    rung: watch::Sender<()>,
    /// Ends who rings it.
    _ringing: DropGuard,
}

impl Bell {
    /// A bell that a task of `tasks` rings.
    pub(super) fn new(revocations: &Arc<Revocations>, tasks: &TaskTracker) -> Self {
        let (rung, end) = (watch::Sender::new(()), CancellationToken::new());
        let (mut changed, ring, until) = (revocations.changed.subscribe(), rung.clone(), end.clone());
        tasks.spawn(until.run_until_cancelled_owned(async move {
            while changed.changed().await.is_ok() {
                ring.send_replace(());
            }
        }));
        Self {
            revocations: Arc::clone(revocations),
            rung,
            _ringing: end.drop_guard(),
        }
    }
}

impl Standing {
    /// Nothing for a caller who is not known by a token.
    pub(super) fn new(bell: &Arc<Bell>, identity: &Arc<Identity>) -> Option<Self> {
        if !is_token(identity) {
            return None;
        }
        let (bell, identity) = (Arc::clone(bell), Arc::clone(identity));
        let mut rung = bell.rung.subscribe();
        Some(Self(Box::pin(async move {
            loop {
                // What came between the gate and here counts too. That nothing is heard ends no call that has begun.
                if matches!(
                    bell.revocations.check(&identity, unix_now()),
                    Err(Refusal::Revoked)
                ) {
                    return Refusal::Revoked.fault("", &[]);
                }
                if rung.changed().await.is_err() {
                    // The sender is in what this holds.
                    return std::future::pending().await;
                }
            }
        })))
    }

    /// Ready with the fault of a call whose caller's token is revoked. Not to be asked again then.
    pub fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        self.0.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests;
