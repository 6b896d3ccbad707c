//! What files on disk say about the backends of a configuration: descriptors, rules, certificates.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::compile::SchemaState;
use super::diagnostic::Diagnostic;
use super::file::{Backend, File, ProtoFiles, SchemaSource};
use super::located::Located;
use crate::discover::proto_files;
use crate::schema::{Rules, Schema};

/// The largest descriptor set or rules file that is read. Not measured: googleapis as a whole has 30 MiB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// The schemas of all backends whose descriptors are files; those that are asked by reflection are pending.
///
/// # Errors
/// Every file that can't be read or does not compile, at the place that names it.
pub fn schemas(file: &File) -> Result<BTreeMap<String, SchemaState>, Vec<Diagnostic>> {
    let mut schemas = BTreeMap::new();
    let mut errors = Vec::new();
    for (name, backend) in &file.backends {
        match schema(file, backend) {
            Ok(schema) => {
                schemas.insert(name.clone(), schema);
            }
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() {
        Ok(schemas)
    } else {
        Err(errors)
    }
}

fn schema(file: &File, backend: &Backend) -> Result<SchemaState, Vec<Diagnostic>> {
    let rules = rules(file, backend)?;
    let schema = match &backend.schema.value {
        SchemaSource::Reflection => {
            return Ok(SchemaState::Pending(
                "it is asked by reflection once the gateway runs".to_owned(),
            ));
        }
        SchemaSource::Protos(protos) => from_protos(file, protos, &rules),
        SchemaSource::Descriptors(path) => from_set(file, path, &rules),
    };
    schema
        .map(|schema| SchemaState::Ready(Arc::new(schema)))
        .map_err(|error| vec![error])
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
        let spot = protos
            .protos
            .first()
            .map_or(super::located::Spot::Default, |path| path.spot);
        file.origin.error(spot, "schema", error.to_string())
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

/// Checks that every certificate and key that the configuration names is there and is one.
///
/// What is in them is checked by who uses them.
pub fn certificates(file: &File) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    let mut check = |path: Option<&Located<PathBuf>>, what: What| {
        if let Some(path) = path {
            found.extend(what.check(file, path));
        }
    };
    for tls in file.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        check(tls.certificate.as_ref(), What::Certificates);
        check(tls.key.as_ref(), What::Key);
        for pair in &tls.certificates {
            check(Some(&pair.certificate), What::Certificates);
            check(Some(&pair.key), What::Key);
        }
        check(tls.client_ca.as_ref(), What::Certificates);
    }
    for tls in file.backends.values().filter_map(|backend| backend.tls.as_ref()) {
        check(tls.ca.as_ref(), What::Certificates);
        check(tls.certificate.as_ref(), What::Certificates);
        check(tls.key.as_ref(), What::Key);
    }
    found
}

/// What a PEM file has to hold.
#[derive(Clone, Copy)]
enum What {
    Certificates,
    Key,
}

impl What {
    fn check(self, file: &File, path: &Located<PathBuf>) -> Option<Diagnostic> {
        let bytes = match read(&file.origin.resolve(path)) {
            Ok(bytes) => bytes,
            Err(error) => return Some(unreadable(file, path, &error)),
        };
        let (name, sound) = match self {
            Self::Certificates => {
                let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
                (
                    "certificate",
                    all.and_then(|all| {
                        if all.is_empty() {
                            Err(pem::Error::NoItemsFound)
                        } else {
                            Ok(())
                        }
                    }),
                )
            }
            Self::Key => ("private key", PrivateKeyDer::from_pem_slice(&bytes).map(|_| ())),
        };
        // The error of a key is not told in full: it could quote it.
        sound.err().map(|_| {
            let message = format!("{} holds no {name} in PEM", path.value.display());
            file.origin.error(path.spot, "path", message)
        })
    }
}
