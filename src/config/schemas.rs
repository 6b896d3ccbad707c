//! What files on disk say about the backends of a configuration: descriptors, rules, certificates.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compile::{SchemaState, backend_tls, compile, listener_tls};
use super::diagnostic::Diagnostic;
use super::file::{Backend, File, ProtoFiles, SchemaSource};
use super::load::in_order;
use super::located::{Located, Spot};
use super::plan::Plan;
use super::watch::Digest;
use crate::discover::proto_files;
use crate::listen::tls::{Identity, Tls};
use crate::policy::setup::{self, SetupError};
use crate::schema::{Rules, Schema};
use crate::upstream::tls::client_config;

/// The largest descriptor set or rules file that is read. Not measured: googleapis as a whole has 30 MiB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The schemas of all backends whose descriptors are files; those that are asked by reflection are pending.
///
/// # Errors
/// Every file that can't be read or does not compile, at the place that names it.
pub fn schemas(file: &File) -> Result<BTreeMap<String, SchemaState>, Vec<Diagnostic>> {
    SchemaCache::default().schemas(file)
}

/// The schemas of files as they were read last, so that what did not change is not compiled again.
#[derive(Debug, Default)]
pub struct SchemaCache(BTreeMap<String, Cached>);

#[derive(Debug)]
struct Cached {
    /// What was read: the roles and names of the files, and what was in them.
    key: (Vec<(Role, PathBuf)>, Digest),
    state: SchemaState,
}

/// What a file is to a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Rules,
    Set,
    Entry,
    Include,
    /// The folder of an entry, below which its imports are where nothing else is said.
    Own,
}

impl SchemaCache {
    /// As [`schemas()`], with what is known already.
    ///
    /// # Errors
    /// As [`schemas()`]; what is known stays known.
    pub fn schemas(&mut self, file: &File) -> Result<BTreeMap<String, SchemaState>, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let mut schemas = BTreeMap::new();
        for (name, backend) in &file.backends {
            let roles = roles(file, backend);
            let paths: Vec<PathBuf> = roles.iter().map(|(_, path)| path.clone()).collect();
            // Before they are read: what changes meanwhile is read once more the next time, and not missed.
            let key = (roles, Digest::of(&paths));
            let state = match self.0.get(name) {
                Some(cached) if cached.key == key => cached.state.clone(),
                Some(_) | None => match schema(file, backend) {
                    Ok(state) => {
                        let state_too = state.clone();
                        self.0.insert(name.clone(), Cached { key, state });
                        state_too
                    }
                    Err(found) => {
                        errors.extend(found);
                        continue;
                    }
                },
            };
            schemas.insert(name.clone(), state);
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        self.0.retain(|name, _| schemas.contains_key(name));
        Ok(schemas)
    }
}

/// The files that the schema of a backend is made of.
fn roles(file: &File, backend: &Backend) -> Vec<(Role, PathBuf)> {
    let all = |role, paths: &[Located<PathBuf>]| -> Vec<(Role, PathBuf)> {
        let resolved = paths.iter().map(|path| file.origin.resolve(path));
        resolved.map(|path| (role, path)).collect()
    };
    let mut roles = all(Role::Rules, &backend.rules);
    match backend.source() {
        Some(SchemaSource::Descriptors(path)) => roles.push((Role::Set, file.origin.resolve(path))),
        Some(SchemaSource::Protos(protos)) => {
            roles.extend(all(Role::Entry, &protos.protos));
            roles.extend(all(Role::Include, &protos.proto_paths));
            if protos.proto_paths.is_empty() {
                let entries = protos.protos.iter().map(|path| file.origin.resolve(path));
                let folders = entries.filter_map(|path| path.parent().map(Path::to_owned));
                for folder in folders {
                    file.origin.noted().add(folder.clone());
                    roles.push((Role::Own, folder));
                }
            }
        }
        Some(SchemaSource::Reflection | SchemaSource::Registry(_)) | None => {}
    }
    roles
}

/// All that can be known of a configuration without asking a backend: the plan as it would start.
///
/// # Errors
/// Everything that is wrong with the configuration and with the files that it names.
pub fn check(file: &File) -> Result<Plan, Vec<Diagnostic>> {
    let (schemas, mut errors) = read_all(file);
    errors.extend(certificates(file));
    errors.extend(keys(file));
    match compile(file, &schemas) {
        Ok(plan) if errors.is_empty() => Ok(plan),
        Ok(_) => Err(in_order(errors)),
        Err(more) => {
            errors.extend(more);
            Err(in_order(errors))
        }
    }
}

/// A backend whose files are wrong is pending, so that the rest can be judged without it.
fn read_all(file: &File) -> (BTreeMap<String, SchemaState>, Vec<Diagnostic>) {
    let mut schemas = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, backend) in &file.backends {
        let state = schema(file, backend).unwrap_or_else(|found| {
            errors.extend(found);
            SchemaState::Pending("its files can't be read".to_owned())
        });
        schemas.insert(name.clone(), state);
    }
    (schemas, errors)
}

/// The files by which callers are checked, each read once and thrown away.
fn keys(file: &File) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    let mut tell = |path: &Located<PathBuf>, outcome: Result<(), SetupError>| {
        if let Err(error) = outcome {
            errors.push(file.origin.error(path.spot, "auth", told(&error)));
        }
    };
    for auth in file.auth.values() {
        for issuer in &auth.jwt.0 {
            if let Some(path) = issuer.jwks.as_ref().and_then(|jwks| jwks.file.as_ref()) {
                tell(path, setup::key_set(&file.origin.resolve(path)).map(drop));
            }
            if let Some(path) = &issuer.ca {
                let outcome = client_config(Some(&file.origin.resolve(path)), None);
                let named = |error| SetupError::Tls(issuer.issuer.value.clone(), error);
                tell(path, outcome.map(drop).map_err(named));
            }
        }
        if let Some(keys) = &auth.api_keys {
            tell(
                &keys.file,
                setup::api_keys(&file.origin.resolve(&keys.file)).map(drop),
            );
        }
        if let Some(basic) = &auth.basic {
            let read = setup::passwords(&file.origin.resolve(&basic.file));
            tell(&basic.file, read.map(drop));
        }
        let outside = [
            (
                "introspection",
                auth.introspection.as_ref().and_then(|it| it.ca.as_ref()),
            ),
            ("ext_authz", auth.ext_authz.as_ref().and_then(|it| it.ca.as_ref())),
        ];
        for (name, path) in outside {
            if let Some(path) = path {
                let outcome = client_config(Some(&file.origin.resolve(path)), None);
                tell(
                    path,
                    outcome
                        .map(drop)
                        .map_err(|error| SetupError::Tls(name.to_owned(), error)),
                );
            }
        }
    }
    errors
}

fn schema(file: &File, backend: &Backend) -> Result<SchemaState, Vec<Diagnostic>> {
    // Without its rules a schema is still read, so that what is wrong with it is said too.
    let (rules, mut errors) = match rules(file, backend) {
        Ok(rules) => (rules, Vec::new()),
        Err(errors) => (Rules::empty(), errors),
    };
    let Some(source) = backend.source() else {
        let none = Schema::from_files(Vec::new(), &rules);
        return none
            .map(|schema| SchemaState::Ready(Arc::new(schema)))
            .map_err(|error| vec![Diagnostic::error("backends", error.to_string())]);
    };
    let schema = match source {
        SchemaSource::Reflection => {
            let reason = "it is asked by reflection once the gateway runs";
            Ok(SchemaState::Pending(reason.to_owned()))
        }
        SchemaSource::Protos(protos) => from_protos(file, protos, &rules).map(ready),
        SchemaSource::Descriptors(path) => from_set(file, path, &rules).map(ready),
        SchemaSource::Registry(name) => {
            let reason = format!("no schema \"{}\" is registered yet", name.value);
            Ok(SchemaState::Pending(reason))
        }
    };
    match schema {
        Ok(schema) if errors.is_empty() => Ok(schema),
        Ok(_) => Err(errors),
        Err(error) => {
            errors.push(error);
            Err(errors)
        }
    }
}

fn ready(schema: Schema) -> SchemaState {
    SchemaState::Ready(Arc::new(schema))
}

/// The HTTP rules that a backend has beside its descriptors; of two for one method the later counts.
///
/// # Errors
/// Every file that can't be read or holds no rules.
pub fn rules(file: &File, backend: &Backend) -> Result<Rules, Vec<Diagnostic>> {
    let mut rules = Rules::empty();
    let mut errors = Vec::new();
    for path in &backend.rules {
        let name = file.origin.resolve(path);
        let read = read(&name).and_then(|bytes| {
            String::from_utf8(bytes)
                .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
        });
        match read {
            Ok(text) => match Rules::parse(&name.display().to_string(), &text) {
                Ok(more) => rules.merge(more),
                Err(error) => errors.push(file.origin.error(path.spot, "rules", error.to_string())),
            },
            Err(error) => errors.push(unreadable(file, path, &error)),
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

fn from_protos(file: &File, protos: &ProtoFiles, rules: &Rules) -> Result<Schema, Diagnostic> {
    let include: Vec<PathBuf> = protos
        .proto_paths
        .iter()
        .map(|path| file.origin.resolve(path))
        .collect();
    // A file may be named as it is imported, or from the folder of the configuration.
    let entry = |path: &Located<PathBuf>| {
        let imported = include.iter().any(|folder| folder.join(&path.value).exists());
        if imported {
            path.value.clone()
        } else {
            file.origin.resolve(path)
        }
    };
    let entries: Vec<PathBuf> = protos.protos.iter().map(entry).collect();
    proto_files::load(&entries, &include, rules).map_err(|error| {
        let spot = protos.protos.first().map_or(Spot::Default, |path| path.spot);
        file.origin.error(spot, "schema", told(&error))
    })
}

fn from_set(file: &File, path: &Located<PathBuf>, rules: &Rules) -> Result<Schema, Diagnostic> {
    let bytes = read(&file.origin.resolve(path)).map_err(|error| unreadable(file, path, &error))?;
    Schema::from_descriptor_set(&bytes, rules).map_err(|error| {
        let message = format!("{}: {error}", path.value.display());
        file.origin.error(path.spot, "schema", message)
    })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    if std::fs::metadata(path)?.len() > MAX_FILE_BYTES {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    std::fs::read(path)
}

fn unreadable(file: &File, path: &Located<PathBuf>, error: &dyn std::fmt::Display) -> Diagnostic {
    let message = format!("can't read {}: {error}", file.origin.resolve(path).display());
    file.origin.error(path.spot, "path", message)
}

/// Checks the certificates, keys and authorities that the configuration names, as those will who use them.
fn certificates(file: &File) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let listeners = file.listeners.iter().map(|written| written.tls.as_ref());
    for written in listeners.chain([file.admin.tls.as_ref()]) {
        if let (Some(tls), Some(files)) = (written, listener_tls(file, written)) {
            let identity = |(certificate, key)| Identity { certificate, key };
            let identities: Vec<Identity> = files.certificates.into_iter().map(identity).collect();
            if let Err(error) = Tls::load(&identities, files.client_ca.as_deref()) {
                found.push(file.origin.key_error(tls.spot, "tls", told(&error)));
            }
        }
    }
    for backend in file.backends.values() {
        if let Some(tls) = &backend.tls {
            let files = backend_tls(file, backend);
            let own = files
                .certificate
                .as_ref()
                .map(|(certificate, key)| (certificate.as_path(), key.as_path()));
            if let Err(error) = client_config(files.ca.as_deref(), own) {
                found.push(file.origin.key_error(tls.spot, "tls", told(&error)));
            }
        }
    }
    found
}

/// An error with its causes, in one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = inner.source();
    }
    text
}
