//! What a backend's descriptors say: messages, methods, HTTP rules. Pure: reads no file, opens no socket.
//!
//! A [`Schema`] is built from encoded descriptors ([`Schema::from_files`], [`Schema::from_descriptor_set`]), from
//! `.proto` sources ([`Schema::from_sources`]) or from what a server told by reflection ([`Schema::from_learned`]).
//! Malformed input is an error and never a panic.

mod annotation;
pub mod descriptor;
pub mod edition_source;
pub mod editions;
pub(crate) mod embedded;
mod error;
pub mod exposed;
pub(crate) mod files;
pub mod method;
pub(crate) mod raw;
pub mod reflection;
pub mod rules;
pub(crate) mod sources;
pub mod template;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost_reflect::{DescriptorPool, Kind, ServiceDescriptor};

pub use error::{FileProblem, SchemaError};
pub use method::{HttpMethod, HttpRule, Idempotency, Method, MethodKind, Policy};
pub use raw::Malformed;
pub use rules::Rules;

use files::{Arranged, Arrangement, Missing, ServiceHeader};
use reflection::{Learned, Undescribed};
use rules::{RuleProblem, Unmatched};

/// One generation of a backend's schema. Immutable.
#[derive(Clone)]
pub struct Schema {
    /// Encoded `FileDescriptorProto`s as they were received, dependencies first.
    ///
    /// The embedded files follow as far as they don't collide with the others, so that a detail in an error or a
    /// value in a `google.protobuf.Any` is understood although no method mentions its type.
    pub files: Vec<Bytes>,
    /// The same for lookup by name.
    pub pool: DescriptorPool,
    /// Every method of every service, sorted by path.
    pub methods: Vec<Arc<Method>>,
    /// Changes when any file or rule changes; the same in every process.
    pub fingerprint: u64,
    /// What was left out or could not be used, for the operator.
    pub warnings: Vec<Warning>,
}

impl fmt::Debug for Schema {
    /// The pool would print every declaration that it holds, several times.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("files", &self.files.len())
            .field("methods", &self.methods)
            .field("fingerprint", &self.fingerprint)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// Something in a schema that could not be used and stops nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A rule of a rules file is for a method that is not there.
    Rule(Unmatched),
    /// One HTTP rule in a method's annotation can't be used.
    Annotation {
        /// The full name of the method.
        method: String,
        /// What is wrong with it.
        problem: RuleProblem,
    },
    /// An import is missing and nothing that it declares is used.
    Import {
        /// The file that is not there.
        import: String,
        /// The file that imports it.
        wanted_by: String,
    },
    /// A service that the server listed could not be learned.
    Service(Undescribed),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(unmatched) => write!(f, "{unmatched}"),
            Self::Annotation { method, problem } => {
                write!(f, "{method}: an HTTP rule is left out: {problem}")
            }
            Self::Import { import, wanted_by } => {
                write!(
                    f,
                    "{wanted_by}: import {import:?} is not among the files; nothing of it is needed"
                )
            }
            Self::Service(undescribed) => write!(f, "{undescribed}"),
        }
    }
}

/// Which services of the files count.
#[derive(Clone, Copy, Debug)]
enum Services<'a> {
    /// Those of every file that was given.
    Given,
    /// Those with these full names.
    Named(&'a HashSet<String>),
    /// Those of the files with these names.
    InFiles(&'a HashSet<&'a str>),
}

impl Schema {
    /// From encoded `FileDescriptorProto`s in any order.
    ///
    /// Imports of google/protobuf, google/api, google/rpc and grpc that are not among the files are completed
    /// from the embedded ones. Services of `grpc.reflection` are left out: the gateway answers for itself.
    ///
    /// # Errors
    /// [`SchemaError`] where the files are malformed, contradict each other or lack an import that is needed.
    pub fn from_files(files: Vec<Bytes>, rules: &Rules) -> Result<Self, SchemaError> {
        Self::build(files, Services::Given, rules)
    }

    /// From an encoded `FileDescriptorSet`, as `protoc --descriptor_set_out` and `buf build` write it.
    ///
    /// # Errors
    /// As [`Schema::from_files`].
    pub fn from_descriptor_set(set: &[u8], rules: &Rules) -> Result<Self, SchemaError> {
        Self::from_files(files::split(set)?, rules)
    }

    /// From `.proto` sources by the names under which they import each other.
    ///
    /// `entries` are the files whose services count; the others are there to be imported. Imports of
    /// google/protobuf, google/api, google/rpc and grpc need no source.
    ///
    /// # Errors
    /// [`SchemaError::Source`] with file, line and column where a source does not compile.
    pub fn from_sources(
        entries: &[String],
        sources: &BTreeMap<String, String>,
        rules: &Rules,
    ) -> Result<Self, SchemaError> {
        let files = sources::compile(entries, sources)?;
        let entries = entries.iter().map(String::as_str).collect();
        Self::build(files, Services::InFiles(&entries), rules)
    }

    /// From what a server told by reflection: the services that it listed count.
    ///
    /// A service whose files make no schema is left out with a warning, as long as another one remains.
    ///
    /// # Errors
    /// As [`Schema::from_files`].
    pub fn from_learned(learned: Learned, rules: &Rules) -> Result<Self, SchemaError> {
        let build = |learned: &Learned| {
            let services: HashSet<String> = learned.services.iter().cloned().collect();
            Self::build(learned.files.clone(), Services::Named(&services), rules)
        };
        let mut left_out = Vec::new();
        let mut schema = match build(&learned) {
            Ok(schema) => schema,
            Err(error) => {
                let (sound, unsound) = learned.sift(|alone| build(alone).map(|_| ()));
                if sound.services.is_empty() {
                    return Err(error);
                }
                left_out = unsound;
                build(&sound)?
            }
        };
        left_out.extend(learned.warnings);
        schema.warnings.extend(left_out.into_iter().map(Warning::Service));
        Ok(schema)
    }

    /// The method at an rpc path such as `/library.v1.Library/GetBook`.
    pub fn method(&self, path: &str) -> Option<&Arc<Method>> {
        let at = self
            .methods
            .binary_search_by(|method| method.path.as_ref().cmp(path))
            .ok()?;
        self.methods.get(at)
    }

    fn build(files: Vec<Bytes>, services: Services<'_>, rules: &Rules) -> Result<Self, SchemaError> {
        let Arranged { files, missing } = files::arrange(files)?;
        let mut bytes: Vec<Bytes> = files.iter().map(|file| file.bytes.clone()).collect();
        let mut pool = pool(&bytes).map_err(|error| blame(error, &missing))?;
        let mut warnings: Vec<Warning> = missing
            .into_iter()
            .map(|Missing { import, wanted_by }| Warning::Import { import, wanted_by })
            .collect();
        let mut methods = methods(&files, services, &pool, &mut warnings)?;
        warnings.extend(rules.apply(&mut methods).into_iter().map(Warning::Rule));
        methods.sort_by(|one, other| one.path.cmp(&other.path));
        let fingerprint = fingerprint(&bytes, &methods);
        extend(&mut pool, &mut bytes);
        Ok(Self {
            files: bytes,
            pool,
            methods: methods.into_iter().map(Arc::new).collect(),
            fingerprint,
            warnings,
        })
    }
}

/// The pool of files that come after their imports.
fn pool(files: &[Bytes]) -> Result<DescriptorPool, SchemaError> {
    let mut pool = DescriptorPool::new();
    for file in files {
        check_syntax(file)?;
        // The pool knows no editions; plans for messages are compiled from the file itself.
        let file = editions::lower(file)?;
        pool.decode_file_descriptor_proto(file)
            .map_err(|error| SchemaError::Descriptor {
                file: error.file().map(str::to_owned),
                problem: error.to_string(),
            })?;
    }
    for message in pool
        .all_messages()
        .filter(prost_reflect::MessageDescriptor::is_map_entry)
    {
        // A compiler writes entries in this form and no other; readers of maps count on it.
        let number_and_kind = |number| message.get_field(number).filter(|field| !field.is_list());
        let key = number_and_kind(1).map(|field| field.kind());
        let sound = key.is_some_and(|kind| {
            !matches!(
                kind,
                Kind::Message(_) | Kind::Enum(_) | Kind::Float | Kind::Double | Kind::Bytes
            )
        });
        if !sound || number_and_kind(2).is_none() || message.fields().len() != 2 {
            return Err(SchemaError::Descriptor {
                file: Some(message.parent_file().name().to_owned()),
                problem: format!("{} is a map entry without a key and a value", message.full_name()),
            });
        }
    }
    Ok(pool)
}

/// Refuses a syntax that the pool does not know; it would not survive one.
fn check_syntax(file: &[u8]) -> Result<(), SchemaError> {
    let fields = || raw::fields(file).filter_map(Result::ok);
    let Some(syntax) = fields().filter(|field| field.number == 12).last() else {
        return Ok(());
    };
    match syntax.value.text() {
        Some("proto2" | "proto3" | "editions") => Ok(()),
        other => Err(SchemaError::Descriptor {
            file: fields()
                .filter(|field| field.number == 1)
                .find_map(|field| field.value.text())
                .map(str::to_owned),
            problem: format!(
                "syntax {:?} is none of proto2, proto3 and editions",
                other.unwrap_or_default()
            ),
        }),
    }
}

/// A pool that can't be built where imports are missing fails because of the imports.
fn blame(error: SchemaError, missing: &[Missing]) -> SchemaError {
    let file = match &error {
        SchemaError::Descriptor { file, .. } => file.as_deref(),
        _ => None,
    };
    let guilty = missing
        .iter()
        .find(|missing| Some(missing.wanted_by.as_str()) == file)
        .or_else(|| missing.first());
    match guilty {
        Some(Missing { import, wanted_by }) => SchemaError::MissingImport {
            import: import.clone(),
            wanted_by: wanted_by.clone(),
        },
        None => error,
    }
}

/// Adds the embedded files whose names, imports and declarations are not in the way of what is there.
fn extend(pool: &mut DescriptorPool, files: &mut Vec<Bytes>) {
    let mut extended = pool.clone();
    let mut added = Vec::new();
    for (name, bytes) in embedded::files() {
        if extended.get_file_by_name(name).is_some() || collides(&extended, &bytes) {
            continue;
        }
        if extended.decode_file_descriptor_proto(bytes.clone()).is_err() {
            // A collision that was not foreseen: what the backend says is enough.
            return;
        }
        added.push(bytes);
    }
    *pool = extended;
    files.append(&mut added);
}

/// Whether a name that the embedded file declares is taken, or an import of it was left out.
fn collides(pool: &DescriptorPool, file: &[u8]) -> bool {
    let Ok(header) = files::Header::read(file) else {
        return true;
    };
    if header
        .imports
        .iter()
        .any(|import| pool.get_file_by_name(import).is_none())
    {
        return true;
    }
    let declared = |field: raw::Field<'_>| match field.number {
        // message_type, enum_type, service and extension: each has its name in field 1.
        4..=7 => field
            .value
            .bytes()
            .and_then(|inner| {
                raw::fields(inner)
                    .filter_map(Result::ok)
                    .find(|field| field.number == 1)?
                    .value
                    .text()
            })
            .map(|name| header.full_name(name)),
        _ => None,
    };
    raw::fields(file)
        .filter_map(Result::ok)
        .filter_map(declared)
        .any(|name| {
            pool.get_message_by_name(&name).is_some()
                || pool.get_enum_by_name(&name).is_some()
                || pool.get_service_by_name(&name).is_some()
                || pool.get_extension_by_name(&name).is_some()
        })
}

/// The methods of the services that count, with the rules of their annotations.
fn methods(
    files: &[Arrangement],
    services: Services<'_>,
    pool: &DescriptorPool,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Method>, SchemaError> {
    let mut methods = Vec::new();
    for file in files {
        for service in &file.header.services {
            let full_name = file.header.full_name(&service.name);
            let counts = match services {
                Services::Given => file.given,
                Services::Named(names) => names.contains(&full_name),
                Services::InFiles(names) => names.contains(file.header.name.as_str()),
            };
            if !counts || is_reflection(&full_name) {
                continue;
            }
            if let Some(descriptor) = pool.get_service_by_name(&full_name) {
                read_service(service, &descriptor, &mut methods, warnings)?;
            }
        }
    }
    Ok(methods)
}

/// Whether a service is the reflection service itself.
pub(crate) fn is_reflection(service: &str) -> bool {
    service.starts_with("grpc.reflection.")
}

/// Whether the gateway answers the service itself, so that a backend's own is exposed only where it is named.
pub(crate) fn is_own(service: &str) -> bool {
    is_reflection(service) || service == "grpc.health.v1.Health"
}

fn read_service(
    header: &ServiceHeader,
    descriptor: &ServiceDescriptor,
    methods: &mut Vec<Method>,
    warnings: &mut Vec<Warning>,
) -> Result<(), SchemaError> {
    let options: HashMap<&str, &[u8]> = header
        .methods
        .iter()
        .map(|method| (method.name.as_str(), method.options.as_slice()))
        .collect();
    let service = descriptor.full_name();
    let malformed = |problem: Malformed| SchemaError::Descriptor {
        file: Some(descriptor.parent_file().name().to_owned()),
        problem: format!("the options of {service}: {problem}"),
    };
    let of_all = annotation::policy(&header.options).map_err(malformed)?;
    for method in descriptor.methods() {
        let options = options.get(method.name()).copied().unwrap_or_default();
        let malformed = |problem: Malformed| SchemaError::Descriptor {
            file: Some(descriptor.parent_file().name().to_owned()),
            problem: format!("the options of {}: {problem}", method.full_name()),
        };
        let (rules, problems) = annotation::read(options).map_err(malformed)?;
        warnings.extend(problems.into_iter().map(|problem| Warning::Annotation {
            method: method.full_name().to_owned(),
            problem,
        }));
        methods.push(Method {
            path: format!("/{service}/{}", method.name()).into(),
            service: service.into(),
            name: method.name().into(),
            kind: match (method.is_client_streaming(), method.is_server_streaming()) {
                (false, false) => MethodKind::Unary,
                (false, true) => MethodKind::ServerStream,
                (true, false) => MethodKind::ClientStream,
                (true, true) => MethodKind::Bidi,
            },
            input: method.input(),
            output: method.output(),
            idempotency: idempotency(options).map_err(malformed)?,
            rules,
            policy: annotation::policy(options)
                .map_err(malformed)?
                .or_else(|| of_all.clone()),
        });
    }
    Ok(())
}

/// `MethodOptions.idempotency_level`; a number that is not defined says nothing.
fn idempotency(options: &[u8]) -> Result<Idempotency, Malformed> {
    let mut level = Idempotency::Unknown;
    for field in raw::fields(options) {
        let field = field?;
        if field.number == 34 {
            level = match field.value.varint() {
                Some(1) => Idempotency::NoSideEffects,
                Some(2) => Idempotency::Idempotent,
                _ => Idempotency::Unknown,
            };
        }
    }
    Ok(level)
}

/// FNV-1a over the files and the rules: short, and the same on every node and in every release.
fn fingerprint(files: &[Bytes], methods: &[Method]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut add = |part: &[u8]| {
        // The length keeps two parts from reading as one.
        for byte in part.iter().chain(&part.len().to_le_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for file in files {
        add(file);
    }
    for method in methods {
        add(method.path.as_bytes());
        for rule in &method.rules {
            add(match &rule.method {
                HttpMethod::Exact(method) => method.as_str().as_bytes(),
                HttpMethod::Any => b"*",
            });
            add(rule.template.as_bytes());
            add(rule.body.as_bytes());
            add(rule.response_body.as_bytes());
        }
    }
    hash
}

#[cfg(test)]
mod tests;
