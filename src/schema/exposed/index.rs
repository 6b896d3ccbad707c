//! The served files and what they declare.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use super::cut::{self, Visible};
use crate::schema::files::{self, Header, ServiceHeader};
use crate::schema::{Schema, embedded, is_own, raw};

/// Messages within messages that are looked into; no compiler and no pool takes more.
const MAX_DEPTH: usize = 100;

/// Files by name and by what they declare.
#[derive(Debug, Default)]
pub(super) struct Index {
    files: Vec<Bytes>,
    /// Positions in `files` by the name of the file.
    by_name: HashMap<String, usize>,
    /// Positions in `files` by the full name of a service, method, message, enum, enum value or extension.
    by_symbol: HashMap<String, usize>,
    /// Messages, which can be extended.
    messages: HashSet<String>,
    /// Positions in `files` by extended message and number.
    extensions: HashMap<String, BTreeMap<i32, usize>>,
    conflicts: BTreeSet<String>,
}

/// Where the declarations of a file stand already.
enum Declared {
    /// All are new.
    Nowhere,
    /// All stand in the file of this name.
    In(String),
    /// Some are new, or they stand in several files.
    Partly,
}

impl Index {
    /// Every file, dependencies first.
    #[cfg(test)]
    pub(super) fn files(&self) -> impl Iterator<Item = &Bytes> {
        self.files.iter()
    }

    /// The file of this name.
    pub(super) fn by_name(&self, name: &str) -> Option<&Bytes> {
        self.files.get(*self.by_name.get(name)?)
    }

    /// The file that declares this full name.
    pub(super) fn by_symbol(&self, name: &str) -> Option<&Bytes> {
        self.files.get(*self.by_symbol.get(name)?)
    }

    /// The file that declares this extension.
    pub(super) fn by_extension(&self, extended: &str, number: i32) -> Option<&Bytes> {
        self.files.get(*self.extensions.get(extended)?.get(&number)?)
    }

    /// The numbers of a message's extensions, if there is such a message.
    pub(super) fn extensions(&self, extended: &str) -> Option<Vec<i32>> {
        self.messages.get(extended)?;
        let numbers = self.extensions.get(extended);
        Some(
            numbers
                .map(|numbers| numbers.keys().copied().collect())
                .unwrap_or_default(),
        )
    }

    /// Names of files that contradict the file that is served.
    pub(super) fn conflicts(&self) -> impl Iterator<Item = &str> {
        self.conflicts.iter().map(String::as_str)
    }

    /// Adds the files of a schema that may be seen, cut where something is hidden.
    ///
    /// A pool of descriptors takes one file of a name and one declaration of a symbol, and two backends know
    /// nothing of each other. So a file whose name is taken by one that declares other things gets another name,
    /// and a file that declares what another does is served as that other.
    pub(super) fn add_schema(&mut self, schema: &Schema, visible: &Visible) {
        let files: Vec<(Header, &Bytes)> = schema
            .files
            .iter()
            .filter_map(|file| Some((Header::read(file).ok()?, file)))
            .collect();
        let served = cut::served(&files, visible);
        let mut names = HashMap::new();
        for (header, bytes) in files
            .into_iter()
            .filter(|(header, _)| served.contains(&header.name))
        {
            // The pool has read these bytes, so they can be read; a file that can't is not served.
            let Ok(bytes) = cut::hide(&header, bytes, visible) else {
                continue;
            };
            self.merge(header, bytes, &mut names);
        }
    }

    /// Adds a file whose imports went by other `names` before they were added.
    fn merge(&mut self, header: Header, mut bytes: Bytes, names: &mut HashMap<String, String>) {
        if header.imports.iter().any(|import| names.contains_key(import)) {
            let Ok(renamed) = cut::rename(&bytes, &header.name, names) else {
                return;
            };
            bytes = renamed;
        }
        let name = header.name.clone();
        let namesake = self.by_name(&name);
        let common = embedded::file(&name).is_some();
        if namesake.is_some_and(|first| common || files::same(first, &bytes)) {
            return;
        }
        let taken = namesake.is_some();
        match (self.declared_by(&header, &bytes), taken) {
            (Declared::Nowhere, false) => self.add(&header, bytes),
            (Declared::Nowhere, true) => {
                let header = Header {
                    name: self.free_name(&name),
                    ..header
                };
                let Ok(bytes) = cut::rename(&bytes, &header.name, &HashMap::new()) else {
                    return;
                };
                self.add(&header, bytes);
                names.insert(name, header.name);
            }
            (Declared::In(other), _) => {
                let renamed = cut::rename(&bytes, &other, &HashMap::new());
                let agrees = renamed.is_ok_and(|renamed| {
                    self.by_name(&other)
                        .is_some_and(|other| files::same(other, &renamed))
                });
                if !agrees {
                    self.conflicts.insert(name.clone());
                }
                names.insert(name, other);
            }
            (Declared::Partly, _) => {
                if !taken {
                    self.add(&header, bytes);
                }
                self.conflicts.insert(name);
            }
        }
    }

    /// Where else the file's declarations stand.
    fn declared_by(&self, header: &Header, bytes: &Bytes) -> Declared {
        let mut own = Self::default();
        own.add(header, bytes.clone());
        let found: BTreeSet<Option<usize>> = own
            .by_symbol
            .keys()
            .map(|symbol| self.by_symbol.get(symbol).copied())
            .collect();
        match Vec::from_iter(found).as_slice() {
            [] | [None] => Declared::Nowhere,
            [Some(position)] => self
                .files
                .get(*position)
                .and_then(|file| Header::read(file).ok())
                .map_or(Declared::Partly, |other| Declared::In(other.name)),
            _ => Declared::Partly,
        }
    }

    /// A name near `name` that no file has.
    fn free_name(&self, name: &str) -> String {
        let stem = name.strip_suffix(".proto").unwrap_or(name);
        let mut number: usize = 2;
        loop {
            let free = format!("{stem}.{number}.proto");
            if !self.by_name.contains_key(&free) {
                return free;
            }
            number += 1;
        }
    }

    /// Adds an embedded file unless it, or something that it declares, is there already.
    ///
    /// Clients ask for the types of error details, which no service needs to mention.
    pub(super) fn add_embedded(&mut self, name: &str, bytes: Bytes) {
        let Ok(header) = Header::read(&bytes) else { return };
        let offered = header
            .services
            .iter()
            .all(|service| is_own(&header.full_name(&service.name)));
        let complete = header
            .imports
            .iter()
            .all(|import| self.by_name.contains_key(import));
        if !offered || !complete || self.by_name.contains_key(name) {
            return;
        }
        let mut own = Self::default();
        own.add(&header, bytes.clone());
        if own
            .by_symbol
            .keys()
            .all(|symbol| !self.by_symbol.contains_key(symbol))
        {
            self.add(&header, bytes);
        }
    }

    fn add(&mut self, header: &Header, bytes: Bytes) {
        let position = self.files.len();
        self.by_name.insert(header.name.clone(), position);
        for field in raw::fields(&bytes).filter_map(Result::ok) {
            let Some(declaration) = field.value.bytes() else {
                continue;
            };
            match field.number {
                4 => self.add_message(&header.package, declaration, position, 0),
                5 => self.add_enum(&header.package, declaration, position),
                6 => self.add_service(&header.package, declaration, position),
                7 => self.add_extension(&header.package, declaration, position),
                _ => {}
            }
        }
        self.files.push(bytes);
    }

    /// The first file that declares a symbol answers for it.
    fn add_symbol(&mut self, symbol: String, position: usize) {
        self.by_symbol.entry(symbol).or_insert(position);
    }

    fn add_message(&mut self, scope: &str, message: &[u8], position: usize, depth: usize) {
        let Some(name) = name(message).filter(|_| depth <= MAX_DEPTH) else {
            return;
        };
        let full_name = join(scope, name);
        for field in raw::fields(message).filter_map(Result::ok) {
            let Some(declaration) = field.value.bytes() else {
                continue;
            };
            match field.number {
                3 => self.add_message(&full_name, declaration, position, depth + 1),
                4 => self.add_enum(&full_name, declaration, position),
                6 => self.add_extension(&full_name, declaration, position),
                _ => {}
            }
        }
        self.messages.insert(full_name.clone());
        self.add_symbol(full_name, position);
    }

    fn add_enum(&mut self, scope: &str, declaration: &[u8], position: usize) {
        let Some(name) = name(declaration) else { return };
        self.add_symbol(join(scope, name), position);
        for field in raw::fields(declaration)
            .filter_map(Result::ok)
            .filter(|field| field.number == 2)
        {
            // A value's full name is beside the enum, not within it.
            if let Some(value) = field.value.bytes().and_then(self::name) {
                self.add_symbol(join(scope, value), position);
            }
        }
    }

    fn add_service(&mut self, scope: &str, declaration: &[u8], position: usize) {
        let Ok(service) = ServiceHeader::read(declaration) else {
            return;
        };
        let full_name = join(scope, &service.name);
        for method in &service.methods {
            self.add_symbol(join(&full_name, &method.name), position);
        }
        self.add_symbol(full_name, position);
    }

    fn add_extension(&mut self, scope: &str, declaration: &[u8], position: usize) {
        let mut extendee = None;
        let mut number = None;
        for field in raw::fields(declaration).filter_map(Result::ok) {
            match field.number {
                2 => extendee = field.value.text(),
                3 => number = field.value.varint().map(raw::int32),
                _ => {}
            }
        }
        if let Some(name) = name(declaration) {
            self.add_symbol(join(scope, name), position);
        }
        if let (Some(extendee), Some(number)) = (extendee, number) {
            let extendee = extendee.trim_start_matches('.').to_owned();
            self.extensions
                .entry(extendee)
                .or_default()
                .entry(number)
                .or_insert(position);
        }
    }
}

/// The name in field 1, where every declaration has it.
fn name(declaration: &[u8]) -> Option<&str> {
    raw::fields(declaration)
        .filter_map(Result::ok)
        .filter(|field| field.number == 1)
        .find_map(|field| field.value.text())
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}
