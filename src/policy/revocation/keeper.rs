//! Keeps lists of what is revoked as they are where they come from.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::Revocations;

/// How often files and Redis are looked at: what is revoked counts within this, and the time that an answer takes.
pub(super) const LOOK: Duration = Duration::from_secs(1);

/// The task that keeps lists fresh.
#[derive(Debug)]
pub struct Keeper {
    revocations: Arc<Revocations>,
}

/// What is known of a file without reading it.
type Facts = (u64, u64, u64, i64, i64, i64, i64);

fn facts(path: &Path) -> Option<Facts> {
    let data = fs::metadata(path).ok()?;
    Some((
        data.dev(),
        data.ino(),
        data.len(),
        data.mtime(),
        data.mtime_nsec(),
        data.ctime(),
        data.ctime_nsec(),
    ))
}

impl Keeper {
    /// For these lists.
    pub fn new(revocations: &Arc<Revocations>) -> Self {
        Self {
            revocations: Arc::clone(revocations),
        }
    }

    /// Looks at the file and at Redis until it is dropped.
    ///
    /// # Cancel safety
    /// What was heard last stays.
    pub async fn run(self) {
        tokio::join!(watch_file(&self.revocations), self.watch_redis());
    }

    #[cfg(feature = "redis")]
    async fn watch_redis(&self) {
        if let Some(setup) = &self.revocations.setup.redis {
            super::cluster::watch(setup, &self.revocations).await;
        }
    }

    #[cfg(not(feature = "redis"))]
    #[expect(clippy::unused_async, reason = "with the feature, it waits")]
    async fn watch_redis(&self) {
        let _ = self;
    }
}

/// Reads the file again whenever it has changed. One that can't be read changes nothing.
async fn watch_file(revocations: &Revocations) {
    let Some(path) = &revocations.setup.file else {
        return;
    };
    // It may have changed since it was read first.
    let mut seen = None;
    let mut failed = false;
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let now = facts(path);
        if now.is_some() && now == seen {
            continue;
        }
        let reading = path.clone();
        let read = tokio::task::spawn_blocking(move || super::read(&reading)).await;
        match read {
            Ok(Ok(list)) => {
                tracing::debug!(entries = list.len(), "the file of what is revoked was read");
                failed = false;
                revocations.told_by_file(list);
            }
            // Said once for each state of the file.
            Ok(Err(error)) if now != seen || !failed => {
                failed = true;
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::error!(%error, cause, "what is revoked can't be read; what was read before counts");
            }
            Ok(Err(_)) | Err(_) => {}
        }
        seen = now;
    }
}
