//! What the process asks of the kernel and of the allocator about its memory, so that a gateway that idles is small.

use std::time::Duration;

/// Keeps the kernel from giving two megabytes where four kilobytes are asked for: of an idle connection a few hundred
/// bytes of a page are in use, and huge pages made a gateway that did nothing half as large again.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn refuse_huge_pages() {
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        tracing::debug!(%error, "transparent huge pages can't be refused");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn refuse_huge_pages() {}

/// How often a worker's allocator is asked. It keeps what was freed for a second, for whoever asks next.
const TIDIED: Duration = Duration::from_secs(2);

/// Has the allocator give back what the calling thread has freed, again and again. It does so by itself every ten thousand
/// allocations, which do not come where a worker has just fallen idle: a thousand connections that were parked at once kept
/// 14 KiB each.
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn tidy() {
    let mut tidied = tokio::time::interval(TIDIED);
    loop {
        tidied.tick().await;
        give_back_freed();
    }
}

#[cfg(feature = "mimalloc")]
fn give_back_freed() {
    // What holds the function.
    use mimalloc as _;

    #[expect(unsafe_code, reason = "a function of the allocator, which is C")]
    // SAFETY: this is its declaration in mimalloc.h. It takes no pointer, may be called at any time on any thread, and
    // touches nothing that is in use.
    unsafe extern "C" {
        safe fn mi_collect(force: bool);
    }
    mi_collect(false);
}

#[cfg(not(feature = "mimalloc"))]
fn give_back_freed() {}

/// Gives back the pages of the program itself that were needed to start: most of the code runs once or never. What is
/// needed later is found in the page cache, a few pages at a time.
pub(super) fn give_back_program() {
    #[cfg(target_os = "linux")]
    linux::give_back_program();
}

#[cfg(target_os = "linux")]
mod linux {
    #![allow(unsafe_code, reason = "see the invariant of `Mapping`")]

    use std::ffi::c_void;
    use std::path::PathBuf;
    use std::ptr;

    use rustix::mm::{Advice, madvise};

    pub(super) fn give_back_program() {
        // Without /proc, or where it says something else than here is expected, everything stays as it is.
        let (Ok(program), Ok(maps)) = (
            std::env::current_exe(),
            std::fs::read_to_string("/proc/self/smaps"),
        ) else {
            return;
        };
        for mapping in mappings(&maps).filter(|mapping| mapping.path == program && mapping.is_as_in_file()) {
            mapping.give_back();
        }
    }

    /// A range of addresses that shows a file.
    ///
    /// Invariant: `start` and `length` are those of one mapping of this process, as the kernel told them. Mappings of the
    /// program are made before `main` and stay as they are until the process ends.
    #[derive(Debug, PartialEq, Eq)]
    pub(super) struct Mapping {
        start: usize,
        length: usize,
        path: PathBuf,
        is_writable: bool,
        /// Kibibytes that are no longer what the file holds, if that is told.
        changed: Option<u64>,
    }

    impl Mapping {
        /// Whether every page is surely what the file holds: tables of addresses, which the loader fills in before it makes
        /// them read-only, are not.
        fn is_as_in_file(&self) -> bool {
            !self.is_writable && self.changed == Some(0)
        }

        fn give_back(&self) {
            let start = ptr::with_exposed_provenance_mut::<c_void>(self.start);
            // SAFETY: the range is a mapping of this process (invariant of `Mapping`) that can't be written to and whose
            // pages all are those of the file, so reading any of them again finds what was there.
            if let Err(error) = unsafe { madvise(start, self.length, Advice::LinuxDontNeed) } {
                tracing::debug!(%error, "pages of the program can't be given back");
            }
        }
    }

    /// The mappings of files. Source: proc_pid_smaps(5).
    pub(super) fn mappings(smaps: &str) -> impl Iterator<Item = Mapping> {
        let mut lines = smaps.lines().peekable();
        std::iter::from_fn(move || {
            loop {
                let Some(mut mapping) = head(lines.next()?) else {
                    continue;
                };
                while let Some(line) = lines.next_if(|line| head(line).is_none()) {
                    if let Some(size) = line.strip_prefix("Anonymous:") {
                        mapping.changed = size.trim().strip_suffix(" kB").and_then(|size| size.parse().ok());
                    }
                }
                return Some(mapping);
            }
        })
    }

    /// The line that begins a mapping of a file: `start-end perms offset device inode path`.
    fn head(line: &str) -> Option<Mapping> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let permissions = words.next()?;
        let path = words.nth(3)?;
        Some(Mapping {
            start,
            length: end.checked_sub(start)?,
            path: PathBuf::from(path),
            is_writable: permissions.contains('w'),
            changed: None,
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        const SMAPS: &str = "\
55d0c0000000-55d0c0100000 r--p 00000000 fe:00 77    /usr/bin/sabir
Size:               1024 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
55d0c0100000-55d0c0900000 r-xp 00100000 fe:00 77    /usr/bin/sabir
Rss:                2048 kB
Anonymous:             0 kB
55d0c0900000-55d0c0a00000 r--p 00900000 fe:00 77    /usr/bin/sabir
Anonymous:          1024 kB
55d0c0a00000-55d0c0a01000 rw-p 00a00000 fe:00 77    /usr/bin/sabir
Anonymous:             0 kB
55d0c1000000-55d0c1100000 rw-p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 78    /usr/lib/libc.so.6
Rss:                   4 kB
";

        #[test]
        fn only_what_is_as_in_the_file_is_given_back() {
            let found: Vec<_> = mappings(SMAPS)
                .map(|mapping| (mapping.start, mapping.length, mapping.is_as_in_file()))
                .collect();
            let expected = [
                (0x55d0_c000_0000, 0x10_0000, true),
                (0x55d0_c010_0000, 0x80_0000, true),
                (0x55d0_c090_0000, 0x10_0000, false),
                (0x55d0_c0a0_0000, 0x1000, false),
                (0x7f00_0000_0000, 0x1000, false),
            ];
            assert_eq!(found, expected);
        }

        #[test]
        fn the_program_is_found_and_goes_on() {
            give_back_program();
            let program = std::env::current_exe().unwrap();
            let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut own = mappings(&maps).filter(|mapping| mapping.path == program);
            assert!(own.any(|mapping| mapping.is_as_in_file() && mapping.length > 1 << 20));
        }
    }
}
