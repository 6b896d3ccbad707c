//! Registered schemas: compiled before they count, and kept in a folder so that the next process finds them.
//!
//! A schema is a folder of its own below `schemas`. A revision is one file, and `current` names the one that counts: it is
//! replaced as the last step, so that a crash leaves the revision before or the new one, and never half of one. Revisions
//! before the last are removed; room for a history is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::FileDescriptor;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use serde::{Deserialize, Serialize};

use crate::admin::{Registered, Registry, RegistryError, Upload};
use crate::config::file::is_schema_name;
use crate::config::told;
use crate::schema::{Rules, Schema, embedded};

/// Schemas that may be registered. Not measured: each keeps its descriptors in memory.
const MAX_SCHEMAS: usize = 256;
/// Bytes of one descriptor set.
const MAX_SET_BYTES: u64 = 64 << 20;

/// A registered schema with what it was compiled to.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) registered: Arc<Registered>,
    /// Without the rules of a backend.
    pub(super) schema: Arc<Schema>,
}

/// What is registered, by name.
pub(super) type Entries = BTreeMap<String, Entry>;

/// The file that says which revision counts.
#[derive(Debug, Serialize, Deserialize)]
struct Current {
    revision: u64,
}

/// Where schemas are kept; nowhere without a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Store(Option<PathBuf>);

impl Store {
    /// A store below the gateway's folder for what it keeps, which is made if need be.
    ///
    /// # Errors
    /// The folder can't be made.
    pub(super) fn open(data_dir: Option<&Path>) -> io::Result<Self> {
        let Some(data_dir) = data_dir else {
            return Ok(Self(None));
        };
        let folder = data_dir.join("schemas");
        fs::create_dir_all(&folder)?;
        Ok(Self(Some(folder)))
    }

    /// What is kept. A schema that can't be read is told and left where it is.
    pub(super) fn load(&self) -> Entries {
        let mut entries = Entries::new();
        let Some(folder) = &self.0 else { return entries };
        for name in names(folder) {
            match read(&folder.join(&name)) {
                Ok(entry) => {
                    entries.insert(name, entry);
                }
                Err(problem) => tracing::error!(schema = name, problem, "a registered schema can't be read"),
            }
        }
        entries
    }

    /// Keeps a revision, and forgets those before it.
    ///
    /// # Errors
    /// The disk; what was there counts on.
    pub(super) fn keep(&self, name: &str, registered: &Registered) -> io::Result<()> {
        let Some(folder) = &self.0 else { return Ok(()) };
        let folder = folder.join(name);
        fs::create_dir_all(&folder)?;
        let revision = registered.revision;
        write(&folder, &file_name(revision), &registered.set)?;
        let current = serde_json::to_vec(&Current { revision }).map_err(io::Error::other)?;
        write(&folder, "current.json", &current)?;
        for entry in fs::read_dir(&folder)?.filter_map(Result::ok) {
            let old = entry.file_name();
            if old != *file_name(revision) && old != *"current.json" {
                // What is left behind counts for nothing, and goes with the next revision.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Forgets a schema.
    ///
    /// # Errors
    /// The disk; the schema may still be there.
    pub(super) fn forget(&self, name: &str) -> io::Result<()> {
        let Some(folder) = &self.0 else { return Ok(()) };
        match fs::remove_dir_all(folder.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => sync(folder),
        }
    }
}

/// What operators see of it.
pub(super) fn view(entries: &Entries) -> Registry {
    entries
        .iter()
        .map(|(name, entry)| (name.clone(), Arc::clone(&entry.registered)))
        .collect()
}

/// Compiles what is to be registered.
///
/// # Errors
/// [`RegistryError`]: the name, the number of schemas, or what the compiler says.
pub(super) fn compile(name: &str, upload: Upload, entries: &Entries) -> Result<Entry, RegistryError> {
    if !is_schema_name(name) {
        return Err(RegistryError::Name(name.to_owned()));
    }
    let before = entries.get(name);
    if before.is_none() && entries.len() >= MAX_SCHEMAS {
        return Err(RegistryError::Full(MAX_SCHEMAS));
    }
    let refused = |error: &dyn std::error::Error| RegistryError::Schema(told(error));
    let (schema, given) = match upload {
        Upload::Set(set) => {
            let schema =
                Schema::from_descriptor_set(&set, &Rules::empty()).map_err(|error| refused(&error))?;
            (schema, names_in(&set))
        }
        Upload::Files(files) => {
            if files.is_empty() {
                return Err(RegistryError::Schema("there is no .proto file".to_owned()));
            }
            for file in files.keys() {
                let inside = Path::new(file)
                    .components()
                    .all(|part| matches!(part, Component::Normal(_)));
                if !inside || file.contains('\\') {
                    let message =
                        format!("{file}: write a path below the folder that imports are relative to");
                    return Err(RegistryError::Schema(message));
                }
            }
            let names: Vec<String> = files.keys().cloned().collect();
            let schema =
                Schema::from_sources(&names, &files, &Rules::empty()).map_err(|error| refused(&error))?;
            (schema, names)
        }
    };
    if schema.methods.is_empty() {
        return Err(RegistryError::Schema("there is no service in it".to_owned()));
    }
    let revision = before.map_or(1, |before| before.registered.revision + 1);
    Ok(entry(revision, schema, given))
}

/// `given` are the files that the schema is made of, without those that they import from what the gateway brings along.
fn entry(revision: u64, schema: Schema, given: Vec<String>) -> Entry {
    let mut services: Vec<String> = schema
        .methods
        .iter()
        .map(|method| method.service.to_string())
        .collect();
    services.dedup();
    let mut needed: BTreeSet<String> = BTreeSet::new();
    let files = given.len();
    let mut waiting = given;
    while let Some(name) = waiting.pop() {
        let file = schema.pool.get_file_by_name(&name);
        if needed.insert(name) {
            let imports = file.iter().flat_map(FileDescriptor::dependencies);
            waiting.extend(imports.map(|import| import.name().to_owned()));
        }
    }
    let is_needed = |file: &&Bytes| name_of(file).is_some_and(|name| needed.contains(&name));
    let registered = Registered {
        revision,
        fingerprint: schema.fingerprint,
        services,
        methods: schema.methods.len(),
        files,
        set: set(schema.files.iter().filter(is_needed)),
    };
    Entry {
        registered: Arc::new(registered),
        schema: Arc::new(schema),
    }
}

/// The names of the files of a set.
fn names_in(set: &[u8]) -> Vec<String> {
    let set = FileDescriptorSet::decode(set).unwrap_or_default();
    set.file.into_iter().filter_map(|file| file.name).collect()
}

fn name_of(file: &[u8]) -> Option<String> {
    FileDescriptorProto::decode(file).ok()?.name
}

/// An encoded `google.protobuf.FileDescriptorSet` of encoded files.
fn set<'a>(files: impl Iterator<Item = &'a Bytes>) -> Bytes {
    let mut set = Vec::new();
    for file in files {
        prost::encoding::encode_key(1, prost::encoding::WireType::LengthDelimited, &mut set);
        prost::encoding::encode_varint(file.len() as u64, &mut set);
        set.extend_from_slice(file);
    }
    set.into()
}

/// The folders of schemas, by names that can be theirs.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_schema_name(name))
        .collect();
    names.sort();
    names.truncate(MAX_SCHEMAS);
    names
}

fn read(folder: &Path) -> Result<Entry, String> {
    let current = fs::read(folder.join("current.json")).map_err(|error| error.to_string())?;
    let Current { revision } = serde_json::from_slice(&current).map_err(|error| error.to_string())?;
    let path = folder.join(file_name(revision));
    let length = fs::metadata(&path).map_err(|error| error.to_string())?.len();
    if length > MAX_SET_BYTES {
        return Err(format!("it is larger than {MAX_SET_BYTES} bytes"));
    }
    let set = fs::read(&path).map_err(|error| error.to_string())?;
    let schema = Schema::from_descriptor_set(&set, &Rules::empty()).map_err(|error| told(&error))?;
    // What was completed when it was registered counts as brought along here too.
    let own = |name: &String| embedded::file(name).is_none();
    let given = names_in(&set).into_iter().filter(own).collect();
    Ok(entry(revision, schema, given))
}

fn file_name(revision: u64) -> String {
    format!("{revision:08}.binpb")
}

/// Writes a file that is there whole or not at all, whatever happens meanwhile.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, folder.join(name))?;
    sync(folder)
}

/// Makes what was renamed or removed in a folder last.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(method: &str) -> Upload {
        let text = format!(
            "syntax = \"proto3\";\npackage shop.v1;\nimport \"shop/m.proto\";\nimport \"google/api/annotations.proto\";\n\
             service Shop {{\n  rpc {method}(M) returns (M);\n}}\n"
        );
        let message = "syntax = \"proto3\";\npackage shop.v1;\nmessage M {}\n";
        let files = [("shop/shop.proto", text.as_str()), ("shop/m.proto", message)];
        Upload::Files(
            files
                .map(|(name, text)| (name.to_owned(), text.to_owned()))
                .into(),
        )
    }

    #[test]
    fn what_is_kept_is_there_again_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(Some(folder.path())).unwrap();
        let mut entries = Entries::new();
        for method in ["Open", "Close"] {
            let entry = compile("shop", files(method), &entries).unwrap();
            store.keep("shop", &entry.registered).unwrap();
            entries.insert("shop".to_owned(), entry);
        }
        fs::create_dir(folder.path().join("schemas/broken")).unwrap();
        let loaded = Store::open(Some(folder.path())).unwrap().load();
        assert_eq!(view(&loaded), view(&entries));
        let shop = &loaded["shop"];
        assert_eq!((shop.registered.revision, shop.registered.files), (2, 2));
        assert_eq!(shop.registered.services, ["shop.v1.Shop"]);
        assert!(shop.schema.method("/shop.v1.Shop/Close").is_some());
        assert_eq!(
            fs::read_dir(folder.path().join("schemas/shop")).unwrap().count(),
            2
        );
        store.forget("shop").unwrap();
        store.forget("shop").unwrap();
        assert!(store.load().is_empty());
    }

    #[test]
    fn what_can_not_be_registered_is_said() {
        let none = Entries::new();
        let problem = |name: &str, upload| compile(name, upload, &none).unwrap_err();
        for name in ["", "Shop", "../etc", ".shop", "a/b", &"a".repeat(65)] {
            assert_eq!(problem(name, files("Open")), RegistryError::Name(name.to_owned()));
        }
        let one = |name: &str, text: &str| Upload::Files([(name.to_owned(), text.to_owned())].into());
        for (upload, said) in [
            (
                one("a.proto", "syntax = \"proto3\";\nmessage M {\n"),
                "a.proto:2:",
            ),
            (
                one("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n"),
                "b.proto",
            ),
            (
                one("../a.proto", "syntax = \"proto3\";"),
                "../a.proto: write a path below",
            ),
            (one("a.proto", "syntax = \"proto3\";"), "no service"),
            (Upload::Files(BTreeMap::new()), "no .proto file"),
            (Upload::Set(Bytes::from_static(b"\x0a\x05hello")), ""),
        ] {
            let RegistryError::Schema(problem) = problem("shop", upload) else {
                panic!("another error")
            };
            assert!(problem.contains(said), "{problem}");
        }
    }
}
