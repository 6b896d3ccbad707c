//! How short of memory the process is. Sampled on the control runtime, read by everybody.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use crate::listen::Drain;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(1);

/// Where the kernel shows the groups of version 2.
const CGROUPS: &str = "/sys/fs/cgroup";

/// How short memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Enough.
    Normal,
    /// More than 90 % are in use: no new connections.
    High,
    /// More than 95 % are in use: no new requests either.
    Shedding,
}

impl Level {
    /// The level at which `used` of `total` bytes are in use.
    fn of(used: u64, total: u64) -> Self {
        let parts = u128::from(used) * 100;
        let total = u128::from(total);
        if parts > total * 95 {
            Self::Shedding
        } else if parts > total * 90 {
            Self::High
        } else {
            Self::Normal
        }
    }
}

/// The level, as it was sampled last.
#[derive(Debug, Default)]
pub struct Pressure(AtomicU8);

impl Pressure {
    /// The level now.
    pub fn level(&self) -> Level {
        match self.0.load(Ordering::Relaxed) {
            0 => Level::Normal,
            1 => Level::High,
            _ => Level::Shedding,
        }
    }

    /// Sets the level, as a sample found it.
    pub fn set(&self, level: Level) {
        self.0.store(level as u8, Ordering::Relaxed);
    }
}

/// Samples memory every second until draining begins. The limits of the process' cgroup count where there are any;
/// otherwise it is the machine's memory.
///
/// # Cancel safety
/// The level stays as it was sampled last.
pub async fn watch(pressure: Arc<Pressure>, drain: Drain) {
    let groups = std::fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| group(&text).map(|group| ancestors(Path::new(CGROUPS), group)))
        .unwrap_or_default();
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let signalled = drain.signalled();
    tokio::pin!(signalled);
    loop {
        tokio::select! {
            biased;
            () = &mut signalled => return,
            _ = interval.tick() => sample(&pressure, &groups),
        }
    }
}

fn sample(pressure: &Pressure, groups: &[PathBuf]) {
    let limited = groups.iter().filter_map(|group| group_level(group)).max();
    let level = limited
        .or_else(|| {
            std::fs::read_to_string("/proc/meminfo")
                .ok()
                .and_then(|text| machine_level(&text))
        })
        .unwrap_or(Level::Normal);
    let before = pressure.level();
    pressure.set(level);
    if level > before {
        tracing::warn!(?level, "short of memory");
    } else if level < before {
        tracing::info!(?level, "memory is freed");
    }
}

/// The path of the process' group of version 2 in `/proc/self/cgroup`.
fn group(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

/// The directories of a group and of the groups around it, each of which may have a limit.
fn ancestors(root: &Path, group: &str) -> Vec<PathBuf> {
    Path::new(group.trim_start_matches('/'))
        .ancestors()
        .map(|path| root.join(path))
        .collect()
}

/// The level of one group; `None` without a limit.
fn group_level(group: &Path) -> Option<Level> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    // The word "max" stands for no limit, and is not a number.
    let max = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    // Files that the kernel has read and may forget are not in the way of anybody.
    let files = read("memory.stat")
        .and_then(|text| field(&text, "inactive_file"))
        .unwrap_or(0);
    Some(Level::of(current.saturating_sub(files), max))
}

/// The level of the machine, from `/proc/meminfo`.
fn machine_level(text: &str) -> Option<Level> {
    let total = field(text, "MemTotal:")?;
    let available = field(text, "MemAvailable:")?;
    Some(Level::of(total.saturating_sub(available), total))
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_begin_above_ninety_and_ninety_five_percent() {
        let table = [
            (0, Level::Normal),
            (90, Level::Normal),
            (91, Level::High),
            (95, Level::High),
            (96, Level::Shedding),
            (200, Level::Shedding),
        ];
        for (used, level) in table {
            assert_eq!(Level::of(used, 100), level, "{used} %");
        }
    }

    #[test]
    fn the_machine_counts_what_is_available() {
        let text = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:    500 kB\n";
        assert_eq!(machine_level(text), Some(Level::Normal));
        let text = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:     40 kB\n";
        assert_eq!(machine_level(text), Some(Level::Shedding));
        assert_eq!(machine_level(""), None);
    }

    #[test]
    fn the_group_and_those_around_it_count_without_their_file_cache() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        let write = |at: &Path, name: &str, text: &str| std::fs::write(at.join(name), text).unwrap();
        write(&inner, "memory.max", "max\n");
        write(&inner, "memory.current", "500\n");
        let outer = root.path().join("a");
        write(&outer, "memory.max", "1000\n");
        write(&outer, "memory.current", "990\n");
        write(&outer, "memory.stat", "anon 100\ninactive_file 60\n");
        let groups = ancestors(root.path(), group("4:memory:/x\n0::/a/b\n").unwrap());
        assert_eq!(groups.len(), 3);
        let levels: Vec<_> = groups.iter().map(|group| group_level(group)).collect();
        assert_eq!(levels, [None, Some(Level::High), None]);
    }
}
