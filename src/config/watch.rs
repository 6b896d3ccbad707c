//! Which files a configuration is made of, and whether they are still what they were.
//!
//! Whatever the configuration resolves is noted, so that a key that names a file is watched without being told to.
//! A look compares who and how old files are, a digest what is in them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use parking_lot::Mutex;

/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 32;
/// Links that are followed one after the other.
const MAX_LINKS: usize = 8;
/// Entries of folders that are looked at; a larger tree is watched as far as that.
const MAX_ENTRIES: usize = 65_536;

/// The paths that a configuration has named so far. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Noted(Arc<Mutex<BTreeSet<PathBuf>>>);

impl Noted {
    /// Adds a file, or a folder of which every `.proto` file below counts.
    pub fn add(&self, path: PathBuf) {
        self.0.lock().insert(path);
    }

    /// All of them, sorted.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.0.lock().iter().cloned().collect()
    }
}

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Facts {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Facts {
    /// Of the file that a path leads to at last: where folders are swapped behind links, another one.
    fn of(path: &Path) -> Option<Self> {
        let data = fs::metadata(path).ok()?;
        Some(Self {
            device: data.dev(),
            inode: data.ino(),
            length: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
        })
    }
}

/// A look at files. Two that are equal saw the same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look(Vec<(PathBuf, Option<Facts>)>);

impl Look {
    /// Looks at files, and at what is below folders.
    pub fn at(paths: &[PathBuf]) -> Self {
        let facts = |path: PathBuf| {
            let facts = Facts::of(&path);
            (path, facts)
        };
        Self(files(paths).into_iter().map(facts).collect())
    }

    /// Whether a file has changed after this time, or a link through which it is reached.
    pub fn changed_after(&self, time: SystemTime) -> bool {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(since.as_secs()).map(|seconds| (seconds, i64::from(since.subsec_nanos())));
        since.is_ok_and(|since| {
            self.0.iter().any(|(path, facts)| {
                let changed = facts.map(|facts| facts.changed.max(facts.modified));
                changed.max(linked(path, MAX_LINKS)) > Some(since)
            })
        })
    }
}

/// When the newest of the links was made through which a path leads: behind one that was swapped, all may be old.
fn linked(path: &Path, most: usize) -> Option<(i64, i64)> {
    let deeper = most.checked_sub(1)?;
    let made = path.ancestors().filter_map(|part| {
        let link = fs::symlink_metadata(part).ok().filter(fs::Metadata::is_symlink)?;
        let target = part.parent()?.join(fs::read_link(part).ok()?);
        let target = match path.strip_prefix(part) {
            Ok(rest) if rest != Path::new("") => target.join(rest),
            Ok(_) | Err(_) => target,
        };
        linked(&target, deeper).max(Some((link.ctime(), link.ctime_nsec())))
    });
    made.max()
}

/// What is in files, shortened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of the files, their names and what is below folders. A file that can't be read counts as such.
    pub fn of(paths: &[PathBuf]) -> Self {
        let mut context = Context::new(&SHA256);
        // The length keeps two parts from reading as one.
        let mut add = |part: &[u8]| {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        };
        for path in files(paths) {
            add(path.as_os_str().as_encoded_bytes());
            match fs::read(&path) {
                Ok(bytes) => add(&bytes),
                Err(error) => add(error.kind().to_string().as_bytes()),
            }
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self(digest)
    }
}

/// The files among `paths`, and the `.proto` files below the folders among them, sorted.
fn files(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut left = MAX_ENTRIES;
    for path in paths {
        if path.is_dir() {
            below(path, 0, &mut left, &mut found);
        } else {
            found.insert(path.clone());
        }
    }
    found.into_iter().collect()
}

fn below(folder: &Path, depth: usize, left: &mut usize, found: &mut BTreeSet<PathBuf>) {
    // A folder that can't be read has nothing below it; who needs what is there says so.
    let entries = fs::read_dir(folder).into_iter().flatten();
    for entry in entries.filter_map(Result::ok) {
        if *left == 0 {
            return;
        }
        *left -= 1;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "proto") {
            found.insert(path);
        } else if depth < MAX_DEPTH && path.is_dir() {
            below(&path, depth + 1, left, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn a_folder_counts_by_the_protos_below_it_and_a_file_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("a/b/one.proto"), "1");
        write(&root.join("a/notes.txt"), "not looked at");
        write(&root.join("a/.hidden/two.proto"), "2");
        write(&root.join("key.pem"), "k");
        let paths = [root.join("a"), root.join("key.pem"), root.join("gone")];
        assert_eq!(
            files(&paths),
            [
                root.join("a/b/one.proto"),
                root.join("gone"),
                root.join("key.pem")
            ]
        );
        let (look, digest) = (Look::at(&paths), Digest::of(&paths));
        assert_eq!((Look::at(&paths), Digest::of(&paths)), (look.clone(), digest));
        write(&root.join("a/notes.txt"), "still not looked at");
        assert_eq!(Look::at(&paths), look);
        write(&root.join("gone"), "come");
        assert_ne!(Look::at(&paths), look);
        assert_ne!(Digest::of(&paths), digest);
        let now = SystemTime::now();
        assert!(look.changed_after(UNIX_EPOCH));
        assert!(!look.changed_after(now + std::time::Duration::from_secs(60)));
    }

    /// As a mounted ConfigMap is changed: the file is a link through a folder that is a link.
    #[test]
    fn a_folder_that_is_swapped_behind_a_link_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("..1/sabir.yaml"), "one");
        write(&root.join("..2/sabir.yaml"), "two");
        std::os::unix::fs::symlink("..1", root.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/sabir.yaml", root.join("sabir.yaml")).unwrap();
        let paths = [root.join("sabir.yaml")];
        let (look, digest) = (Look::at(&paths), Digest::of(&paths));
        // Later than everything that is there, by more than a tick of the clock that dates files.
        let since = SystemTime::now() + std::time::Duration::from_millis(20);
        while SystemTime::now() < since + std::time::Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert!(!look.changed_after(since));
        std::os::unix::fs::symlink("..2", root.join("..next")).unwrap();
        fs::rename(root.join("..next"), root.join("..data")).unwrap();
        assert_ne!(Look::at(&paths), look);
        assert!(
            Look::at(&paths).changed_after(since),
            "what is behind the link is old"
        );
        assert_ne!(Digest::of(&paths), digest);
    }
}
