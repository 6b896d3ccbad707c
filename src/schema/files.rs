//! Encoded files put in order: read as far as their names, completed with what is embedded, dependencies first.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use bytes::Bytes;

use super::embedded;
use super::error::{FileProblem, SchemaError};
use super::raw::{self, Field};

/// Files of one schema. A large API (all of googleapis is about 4,000) stays under it; what a hostile server may
/// make the gateway hold does not.
const MAX_FILES: usize = 16_384;

/// Bytes of one schema: 64 MiB.
const MAX_BYTES: usize = 64 << 20;

/// What a file says before its messages are looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    /// The name under which others import it.
    pub(crate) name: String,
    /// The package; empty for none.
    pub(crate) package: String,
    /// The files that it imports.
    pub(crate) imports: Vec<String>,
    /// Its services.
    pub(crate) services: Vec<ServiceHeader>,
}

/// A service as its file declares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServiceHeader {
    /// The name within the package.
    pub(crate) name: String,
    /// The names of its methods.
    pub(crate) methods: Vec<MethodHeader>,
    /// The encoded `ServiceOptions`, empty for none.
    pub(crate) options: Vec<u8>,
}

/// A method as its service declares it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MethodHeader {
    /// The name within the service.
    pub(crate) name: String,
    /// The encoded `MethodOptions`, empty for none.
    pub(crate) options: Vec<u8>,
}

impl Header {
    /// Reads the header of an encoded `FileDescriptorProto`.
    pub(crate) fn read(file: &[u8]) -> Result<Self, FileProblem> {
        let mut header = Self::default();
        for field in raw::fields(file) {
            let field = field?;
            match field.number {
                1 => header.name = text(field)?,
                2 => header.package = text(field)?,
                3 => header.imports.push(text(field)?),
                6 => header.services.push(ServiceHeader::read(bytes(field)?)?),
                _ => {}
            }
        }
        if header.name.is_empty() {
            return Err(FileProblem::Nameless);
        }
        Ok(header)
    }

    /// The full name of something that the file declares at its top level.
    pub(crate) fn full_name(&self, name: &str) -> String {
        if self.package.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.package)
        }
    }
}

impl ServiceHeader {
    /// Reads the header of an encoded `ServiceDescriptorProto`.
    pub(crate) fn read(service: &[u8]) -> Result<Self, FileProblem> {
        let mut header = Self::default();
        for field in raw::fields(service) {
            let field = field?;
            match field.number {
                1 => header.name = text(field)?,
                2 => header.methods.push(MethodHeader::read(bytes(field)?)?),
                3 => header.options.extend_from_slice(bytes(field)?),
                _ => {}
            }
        }
        Ok(header)
    }
}

impl MethodHeader {
    /// Reads the header of an encoded `MethodDescriptorProto`.
    pub(crate) fn read(method: &[u8]) -> Result<Self, FileProblem> {
        let mut header = Self::default();
        for field in raw::fields(method) {
            let field = field?;
            match field.number {
                1 => header.name = text(field)?,
                4 => header.options.extend_from_slice(bytes(field)?),
                _ => {}
            }
        }
        Ok(header)
    }
}

fn text(field: Field<'_>) -> Result<String, FileProblem> {
    field.value.text().map(str::to_owned).ok_or(FileProblem::Form)
}

fn bytes(field: Field<'_>) -> Result<&[u8], FileProblem> {
    field.value.bytes().ok_or(FileProblem::Form)
}

/// One file of an [`Arranged`] set.
#[derive(Clone, Debug)]
pub(super) struct Arrangement {
    pub(super) header: Header,
    pub(super) bytes: Bytes,
    /// Whether it was given, and not completed.
    pub(super) given: bool,
}

/// An import that no file answers. An empty file stands in for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) import: String,
    pub(super) wanted_by: String,
}

/// Files that import only files before them.
#[derive(Clone, Debug)]
pub(super) struct Arranged {
    pub(super) files: Vec<Arrangement>,
    pub(super) missing: Vec<Missing>,
}

/// The encoded files of an encoded `FileDescriptorSet`.
pub(super) fn split(set: &[u8]) -> Result<Vec<Bytes>, SchemaError> {
    let set = Bytes::copy_from_slice(set);
    let mut files = Vec::new();
    for field in raw::fields(&set) {
        let field = field.map_err(SchemaError::Set)?;
        if field.number == 1
            && let Some(file) = field.value.bytes()
        {
            files.push(set.slice_ref(file));
        }
    }
    Ok(files)
}

/// Puts files into an order that depends on nothing but the files.
pub(super) fn arrange(files: Vec<Bytes>) -> Result<Arranged, SchemaError> {
    let bytes = files.iter().map(Bytes::len).fold(0, usize::saturating_add);
    if bytes > MAX_BYTES {
        return Err(SchemaError::TooLarge {
            bytes,
            limit: MAX_BYTES,
        });
    }
    if files.len() > MAX_FILES {
        return Err(SchemaError::TooManyFiles {
            files: files.len(),
            limit: MAX_FILES,
        });
    }
    let mut known = read(files)?;
    let missing = complete(&mut known)?;
    Ok(Arranged {
        files: sort(known)?,
        missing,
    })
}

/// Reads the headers; a file that was given twice is kept once.
fn read(files: Vec<Bytes>) -> Result<BTreeMap<String, Arrangement>, SchemaError> {
    let mut known = BTreeMap::new();
    for (at, bytes) in files.into_iter().enumerate() {
        let header = Header::read(&bytes).map_err(|problem| SchemaError::File {
            position: at + 1,
            problem,
        })?;
        match known.entry(header.name.clone()) {
            btree_map::Entry::Vacant(place) => {
                place.insert(Arrangement {
                    header,
                    bytes,
                    given: true,
                });
            }
            btree_map::Entry::Occupied(first) => {
                // Each compiler brings its own release of these, and the releases agree in what matters.
                let common = embedded::file(first.key()).is_some();
                if !common && !same(&first.get().bytes, &bytes) {
                    return Err(SchemaError::Conflict { file: header.name });
                }
            }
        }
    }
    Ok(known)
}

/// Whether two encoded files say the same, comments and positions apart.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    /// `FileDescriptorProto.source_code_info`.
    const SOURCE_CODE_INFO: u32 = 9;
    let declared = |file| {
        raw::fields(file).filter(|field| !matches!(field, Ok(field) if field.number == SOURCE_CODE_INFO))
    };
    one == other || declared(one).eq(declared(other))
}

/// Adds embedded files for imports that are not there, and an empty file for those that are not embedded either.
fn complete(known: &mut BTreeMap<String, Arrangement>) -> Result<Vec<Missing>, SchemaError> {
    let mut missing = Vec::new();
    let mut wanted: Vec<(String, String)> = Vec::new();
    let want = |header: &Header, wanted: &mut Vec<(String, String)>| {
        wanted.extend(
            header
                .imports
                .iter()
                .map(|import| (import.clone(), header.name.clone())),
        );
    };
    for file in known.values().rev() {
        want(&file.header, &mut wanted);
    }
    while let Some((import, wanted_by)) = wanted.pop() {
        if known.contains_key(&import) {
            continue;
        }
        let bytes = embedded::file(&import).unwrap_or_else(|| {
            missing.push(Missing {
                import: import.clone(),
                wanted_by,
            });
            let mut empty = Vec::new();
            raw::put_bytes(&mut empty, 1, import.as_bytes());
            Bytes::from(empty)
        });
        // The name may be empty, as the import of a malformed file may be.
        let header = Header::read(&bytes).map_err(|problem| SchemaError::File { position: 0, problem })?;
        want(&header, &mut wanted);
        known.insert(
            import,
            Arrangement {
                header,
                bytes,
                given: false,
            },
        );
    }
    Ok(missing)
}

/// Dependencies first, and by name where that leaves a choice.
fn sort(mut known: BTreeMap<String, Arrangement>) -> Result<Vec<Arrangement>, SchemaError> {
    let mut waiting: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut importers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut ready = BTreeSet::new();
    for (name, file) in &known {
        let imports: BTreeSet<String> = file.header.imports.iter().cloned().collect();
        for import in &imports {
            importers.entry(import.clone()).or_default().push(name.clone());
        }
        if imports.is_empty() {
            ready.insert(name.clone());
        } else {
            waiting.insert(name.clone(), imports);
        }
    }
    let mut sorted = Vec::with_capacity(known.len());
    while let Some(name) = ready.pop_first() {
        for importer in importers.remove(&name).unwrap_or_default() {
            if let Some(imports) = waiting.get_mut(&importer) {
                imports.remove(&name);
                if imports.is_empty() {
                    waiting.remove(&importer);
                    ready.insert(importer);
                }
            }
        }
        sorted.extend(known.remove(&name));
    }
    if waiting.is_empty() {
        Ok(sorted)
    } else {
        Err(SchemaError::Cycle {
            files: waiting.into_keys().collect(),
        })
    }
}
