//! Watching the files that the configuration is made of.
//!
//! They are looked at again and again instead of being announced by the system: announcements get lost on network file
//! systems, when folders are swapped behind links, and when a file is replaced by a name that was not watched. A look
//! asks who and how old the files are, and reads nothing.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::admin::{Controls, Unheard};
use crate::config::watch::{Digest, Look};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// A look may take a fiftieth of the time, however many files there are.
const SHARE: u32 = 50;
/// Time between looks once something has changed, until two see the same: who writes several files is let finish.
const SETTLING: Duration = Duration::from_millis(50);
/// How often it is waited for that.
const SETTLED: usize = 20;
/// How far the clock by which a kernel dates files may lag behind: one tick.
const TICK: Duration = Duration::from_millis(4);

/// The files that are watched, and what was in them when they were read.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub(super) paths: Vec<PathBuf>,
    /// Nothing where that is not sure.
    pub(super) digest: Option<Digest>,
}

impl Watched {
    /// What is in these files now, which are about to be read.
    pub(super) fn before(paths: Vec<PathBuf>) -> Self {
        let digest = Some(Digest::of(&paths));
        Self { paths, digest }
    }

    /// What is in files that were read from `since` on; `before` is what was seen then of those that were known. Where one
    /// may have changed meanwhile, nobody knows which of the two was read, and it will be read once more.
    pub(super) fn read(paths: Vec<PathBuf>, since: SystemTime, before: Option<&Self>) -> Self {
        let digest = Digest::of(&paths);
        let is_sure = before.is_some_and(|before| before.paths == paths && before.digest == Some(digest))
            || !Look::at(&paths).changed_after(since.checked_sub(TICK).unwrap_or(since));
        Self {
            paths,
            digest: is_sure.then_some(digest),
        }
    }
}

/// Has the configuration read again whenever a file of it is another.
///
/// # Cancel safety
/// A change that was seen and not yet told is seen again by the next watcher.
pub(super) async fn run(mut watched: watch::Receiver<Watched>, controls: Controls) {
    // Of the first look it is not known what was in the files.
    let mut last: Option<Look> = None;
    loop {
        let Watched { paths, digest } = watched.borrow_and_update().clone();
        let began = Instant::now();
        let Some(look) = look(&paths).await else { return };
        let took = began.elapsed();
        if last.as_ref() != Some(&look) {
            let Some((look, found)) = settled(&paths, look).await else {
                return;
            };
            last = Some(look);
            if digest != Some(found) && !tell(&controls, found).await {
                return;
            }
        }
        let pause = tokio::time::sleep(PERIOD.max(took * SHARE));
        // Whichever comes first, all is looked at again.
        tokio::select! {
            () = pause => {}
            changed = watched.changed() => if changed.is_err() { return },
        }
    }
}

/// Has the configuration read again; false when the gateway is about to end.
async fn tell(controls: &Controls, found: Digest) -> bool {
    loop {
        match controls.changed(found).await {
            Ok(()) => return true,
            Err(Unheard::Busy) => tokio::time::sleep(PERIOD).await,
            Err(Unheard::Ending) => return false,
        }
    }
}

/// Waits until two looks see the same, and reads what is there.
async fn settled(paths: &[PathBuf], mut before: Look) -> Option<(Look, Digest)> {
    for _ in 0..SETTLED {
        tokio::time::sleep(SETTLING).await;
        let now = look(paths).await?;
        if now == before {
            break;
        }
        before = now;
    }
    let paths = paths.to_vec();
    let digest = tokio::task::spawn_blocking(move || Digest::of(&paths))
        .await
        .ok()?;
    Some((before, digest))
}

async fn look(paths: &[PathBuf]) -> Option<Look> {
    let paths = paths.to_vec();
    tokio::task::spawn_blocking(move || Look::at(&paths)).await.ok()
}
