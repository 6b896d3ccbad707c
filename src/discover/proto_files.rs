//! `.proto` files on disk: which are meant, by which names they import each other, what they import.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::{DiscoverError, FolderProblem};
use crate::schema::{Rules, Schema, SchemaError, sources};

/// Folders within folders that are searched; beyond it a link most likely leads back.
const MAX_DEPTH: usize = 32;

/// Files of one schema.
const MAX_FILES: usize = 16_384;

/// Bytes of one source. The largest file of a public API that is written by hand has less than a megabyte.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// Reads `.proto` files and all that they import, and compiles them.
///
/// An entry is a file or a folder; of a folder, every `.proto` file below it. It is looked for below each of
/// `include`, in order, and then as it stands. A file is imported by its path below the folder of `include` that
/// holds it; an entry that lies below none of them is imported by its path below its own folder. Imports are
/// looked for below `include`, below the entries' own folders, and then among what the gateway brings along.
/// The services of the entries count, those of files that are merely imported do not.
///
/// # Errors
/// [`DiscoverError`] where a file is not there or can't be read, and where the files do not compile.
pub fn load(entries: &[PathBuf], include: &[PathBuf], rules: &Rules) -> Result<Schema, DiscoverError> {
    let mut folders = Folders {
        roots: include.to_vec(),
        given: include.len(),
    };
    let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
    for entry in entries {
        for (name, path) in folders.resolve(entry)? {
            if let Some(first) = files.get(&name) {
                if !is_same(first, &path) {
                    return Err(DiscoverError::SameName {
                        name,
                        first: first.clone(),
                        second: path,
                    });
                }
                continue;
            }
            files.insert(name, path);
        }
    }
    let names: Vec<String> = files.keys().cloned().collect();
    let (texts, complete) = read(files, &folders)?;
    Schema::from_sources(&names, &texts, rules).map_err(|source| match source {
        // The compiler says which file wants the import, and where.
        SchemaError::Source { .. } if !complete => DiscoverError::Import {
            source,
            searched: folders.roots,
        },
        source => source.into(),
    })
}

/// The folders below which files are imported.
struct Folders {
    roots: Vec<PathBuf>,
    /// The first so many were given; the others are the entries' own folders.
    given: usize,
}

impl Folders {
    /// The files of an entry with the names by which they are imported.
    fn resolve(&mut self, entry: &Path) -> Result<Vec<(String, PathBuf)>, DiscoverError> {
        let below = self.roots.iter().take(self.given).map(|root| root.join(entry));
        let path = below
            .chain([entry.to_owned()])
            .find(|path| path.exists())
            .ok_or_else(|| DiscoverError::Absent {
                path: entry.to_owned(),
                searched: self.roots.iter().take(self.given).cloned().collect(),
            })?;
        if !path.is_dir() {
            let name = self.name(&path, path.parent().unwrap_or_else(|| Path::new("")))?;
            return Ok(vec![(name, path)]);
        }
        let mut files = Vec::new();
        walk(&path, 0, &mut files)?;
        if files.is_empty() {
            return Err(DiscoverError::Folder {
                path,
                problem: FolderProblem::Empty,
            });
        }
        files.sort();
        files
            .into_iter()
            .map(|file| Ok((self.name(&file, &path)?, file)))
            .collect()
    }

    /// The name by which a file is imported; `own` is the folder that counts where no other holds it.
    fn name(&mut self, file: &Path, own: &Path) -> Result<String, DiscoverError> {
        let unreadable = |source| DiscoverError::Read {
            path: file.to_owned(),
            source,
        };
        let given = self.roots.iter().take(self.given);
        if let Some(name) = given.filter_map(|root| name_below(file, root)).next() {
            return Ok(name);
        }
        let own = if own.as_os_str().is_empty() {
            Path::new(".")
        } else {
            own
        };
        if !self.roots.iter().any(|root| root == own) {
            self.roots.push(own.to_owned());
        }
        name_below(file, own).ok_or_else(|| unreadable(io::Error::from(io::ErrorKind::InvalidFilename)))
    }

    /// The file that an import names.
    fn find(&self, import: &str) -> Option<PathBuf> {
        let inside = Path::new(import)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        inside
            .then(|| {
                self.roots
                    .iter()
                    .map(|root| root.join(import))
                    .find(|path| path.is_file())
            })
            .flatten()
    }
}

/// The path of `file` below `root` with slashes, if it lies there.
///
/// The paths as written come first: a mounted folder may be links to a hidden one, whose name is nobody's import.
fn name_below(file: &Path, root: &Path) -> Option<String> {
    let name = |file: &Path, root: &Path| {
        let parts: Option<Vec<&str>> = file
            .strip_prefix(root)
            .ok()?
            .components()
            .map(|part| match part {
                Component::Normal(part) => part.to_str(),
                _ => None,
            })
            .collect();
        parts
            .filter(|parts| !parts.is_empty())
            .map(|parts| parts.join("/"))
    };
    name(file, root).or_else(|| name(&fs::canonicalize(file).ok()?, &fs::canonicalize(root).ok()?))
}

/// Whether two paths lead to one file.
fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// Every `.proto` file below a folder; hidden files and folders are not meant.
fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), DiscoverError> {
    let refused = |problem| DiscoverError::Folder {
        path: folder.to_owned(),
        problem,
    };
    if depth > MAX_DEPTH {
        return Err(refused(FolderProblem::Deep { limit: MAX_DEPTH }));
    }
    let unreadable = |source| DiscoverError::Read {
        path: folder.to_owned(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        if path.is_dir() {
            walk(&path, depth + 1, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            if files.len() == MAX_FILES {
                return Err(refused(FolderProblem::Many { limit: MAX_FILES }));
            }
            files.push(path);
        }
    }
    Ok(())
}

/// The texts of `files` and of what they import, by name, and whether every import was found.
fn read(
    files: BTreeMap<String, PathBuf>,
    folders: &Folders,
) -> Result<(BTreeMap<String, String>, bool), DiscoverError> {
    let mut texts = BTreeMap::new();
    let mut complete = true;
    let mut waiting: VecDeque<(String, PathBuf)> = files.into_iter().collect();
    while let Some((name, path)) = waiting.pop_front() {
        if texts.contains_key(&name) {
            continue;
        }
        let text = read_file(&path)?;
        for import in sources::imports(&name, &text)? {
            match folders.find(&import) {
                Some(path) => waiting.push_back((import, path)),
                None => complete &= sources::is_embedded(&import),
            }
        }
        texts.insert(name, text);
        if texts.len() > MAX_FILES {
            return Err(SchemaError::TooManyFiles {
                files: texts.len(),
                limit: MAX_FILES,
            }
            .into());
        }
    }
    Ok((texts, complete))
}

fn read_file(path: &Path) -> Result<String, DiscoverError> {
    let unreadable = |source| DiscoverError::Read {
        path: path.to_owned(),
        source,
    };
    let length = fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_FILE_BYTES {
        return Err(unreadable(io::Error::from(io::ErrorKind::FileTooLarge)));
    }
    fs::read_to_string(path).map_err(unreadable)
}

#[cfg(test)]
mod tests;
