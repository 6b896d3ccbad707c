//! Server reflection at the edge: answers for what the gateway exposes and for nothing else.
//!
//! A service or method that is not exposed is absent from the files too. Files are cut at the wire level and only
//! where something is hidden, so that options and fields that nobody here knows reach the client as they came.
//! The messages of v1 and v1alpha are the same on the wire, so one answer serves both.
//! Source: `grpc.reflection.v1.ServerReflection`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};

use crate::schema::files::{self, Header, MethodHeader, ServiceHeader};
use crate::schema::{FileProblem, Method, Schema, embedded, is_reflection, raw};
use crate::status::Code;

/// The reflection services themselves, newest first. Each has one method, `ServerReflectionInfo`.
pub const SERVICES: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The rpc paths of the reflection services, in the order of [`SERVICES`].
pub const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// Messages within messages that are looked into; no compiler and no pool takes more.
const MAX_DEPTH: usize = 100;

/// What is exposed, as files. Immutable; clones share it.
#[derive(Clone, Debug)]
pub struct Exposed(Arc<Index>);

#[derive(Debug, Default)]
struct Index {
    /// The full names of the services, sorted.
    services: BTreeSet<String>,
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

impl Default for Exposed {
    fn default() -> Self {
        Self::new([])
    }
}

impl Exposed {
    /// What is exposed of each schema. A method that is exposed by one schema is visible in the files of all.
    ///
    /// Where two schemas differ in a file of one name, the first one's file is served; see
    /// [`Exposed::conflicts`].
    pub fn new<'a>(parts: impl IntoIterator<Item = (&'a Schema, &'a [Arc<Method>])>) -> Self {
        let parts: Vec<_> = parts.into_iter().collect();
        let mut visible = Visible::default();
        for method in parts.iter().flat_map(|(_, methods)| methods.iter()) {
            visible
                .0
                .entry(method.service.to_string())
                .or_default()
                .insert(method.name.to_string());
        }
        let mut index = Index {
            services: visible
                .0
                .keys()
                .cloned()
                .chain(SERVICES.map(str::to_owned))
                .collect(),
            ..Index::default()
        };
        for (schema, _) in &parts {
            index.add_schema(schema, &visible);
        }
        for (name, bytes) in embedded::files() {
            index.add_embedded(name, bytes);
        }
        Self(Arc::new(index))
    }

    /// The full names of the services that are listed, sorted.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.0.services.iter().map(String::as_str)
    }

    /// Names of files in which schemas differ, sorted.
    pub fn conflicts(&self) -> impl Iterator<Item = &str> {
        self.0.conflicts.iter().map(String::as_str)
    }

    /// The encoded answer to one encoded request, of either version.
    ///
    /// What is not exposed does not exist: `NOT_FOUND`. A request that is malformed or asks nothing is
    /// `INVALID_ARGUMENT`.
    #[must_use]
    pub fn answer(&self, request: &[u8]) -> Vec<u8> {
        let (request, answer) = match ServerReflectionRequest::decode(request) {
            Ok(request) => {
                let answer = self.find(request.message_request.as_ref());
                (request, answer)
            }
            Err(_) => (
                ServerReflectionRequest::default(),
                refusal(
                    Code::InvalidArgument,
                    "the message is not a ServerReflectionRequest".to_owned(),
                ),
            ),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        }
        .encode_to_vec()
    }

    fn find(&self, question: Option<&MessageRequest>) -> MessageResponse {
        let index = &self.0;
        match question {
            Some(MessageRequest::FileByFilename(name)) => {
                index.file(index.by_name.get(name), || format!("no file {name:?}"))
            }
            Some(MessageRequest::FileContainingSymbol(name)) => {
                index.file(index.by_symbol.get(name), || format!("no symbol {name:?}"))
            }
            Some(MessageRequest::FileContainingExtension(ExtensionRequest {
                containing_type,
                extension_number,
            })) => {
                let found = index
                    .extensions
                    .get(containing_type)
                    .and_then(|numbers| numbers.get(extension_number));
                index.file(found, || {
                    format!("no extension {extension_number} of {containing_type:?}")
                })
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) if index.messages.contains(name) => {
                let numbers = index.extensions.get(name);
                MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                    base_type_name: name.clone(),
                    extension_number: numbers
                        .map(|numbers| numbers.keys().copied().collect())
                        .unwrap_or_default(),
                })
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                refusal(Code::NotFound, format!("no message {name:?}"))
            }
            Some(MessageRequest::ListServices(_)) => {
                MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: self
                        .services()
                        .map(|name| ServiceResponse {
                            name: name.to_owned(),
                        })
                        .collect(),
                })
            }
            None => refusal(Code::InvalidArgument, "the request asks nothing".to_owned()),
        }
    }
}

fn refusal(code: Code, message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse {
        error_code: i32::from(code.number()),
        error_message: message,
    })
}

/// The exposed methods by the full name of their service.
#[derive(Debug, Default)]
struct Visible(HashMap<String, HashSet<String>>);

impl Visible {
    fn service(&self, service: &str) -> bool {
        is_reflection(service) || self.0.contains_key(service)
    }

    fn method(&self, service: &str, method: &str) -> bool {
        is_reflection(service)
            || self
                .0
                .get(service)
                .is_some_and(|methods| methods.contains(method))
    }

    /// Whether everything that the service declares may be seen.
    fn whole(&self, full_name: &str, service: &ServiceHeader) -> bool {
        self.service(full_name)
            && service
                .methods
                .iter()
                .all(|method| self.method(full_name, &method.name))
    }
}

impl Index {
    fn file(&self, position: Option<&usize>, absent: impl FnOnce() -> String) -> MessageResponse {
        match position.and_then(|position| self.files.get(*position)) {
            Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                file_descriptor_proto: vec![file.to_vec()],
            }),
            None => refusal(Code::NotFound, absent()),
        }
    }

    /// Adds the files of a schema that may be seen, cut where something is hidden.
    fn add_schema(&mut self, schema: &Schema, visible: &Visible) {
        let files: Vec<(Header, &Bytes)> = schema
            .files
            .iter()
            .filter_map(|file| Some((Header::read(file).ok()?, file)))
            .collect();
        let served = served(&files, visible);
        for (header, bytes) in files {
            if !served.contains(&header.name) {
                continue;
            }
            let whole = header
                .services
                .iter()
                .all(|service| visible.whole(&header.full_name(&service.name), service));
            let bytes = if whole {
                bytes.clone()
            } else {
                // The pool has read these bytes, so they can be read; a file that can't is not served.
                let Ok(cut) = hide(&header, bytes, visible) else {
                    continue;
                };
                Bytes::from(cut)
            };
            match self
                .by_name
                .get(&header.name)
                .and_then(|position| self.files.get(*position))
            {
                None => self.add(&header, bytes),
                Some(first) => {
                    if embedded::file(&header.name).is_none() && !files::same(first, &bytes) {
                        self.conflicts.insert(header.name);
                    }
                }
            }
        }
    }

    /// Adds an embedded file unless it, or something that it declares, is there already.
    ///
    /// Clients ask for the types of error details, which no service needs to mention.
    fn add_embedded(&mut self, name: &str, bytes: Bytes) {
        let Ok(header) = Header::read(&bytes) else { return };
        let reflection = header
            .services
            .iter()
            .any(|service| is_reflection(&header.full_name(&service.name)));
        let common = header.services.is_empty();
        let sound = header
            .imports
            .iter()
            .all(|import| self.by_name.contains_key(import));
        if !(reflection || common) || !sound || self.by_name.contains_key(name) {
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

/// The names of the files that are served: what visible services need, and what no hidden service needs.
///
/// The second half is for types that travel in `google.protobuf.Any` alone.
fn served(files: &[(Header, &Bytes)], visible: &Visible) -> HashSet<String> {
    let by_name: HashMap<&str, &Header> = files
        .iter()
        .map(|(header, _)| (header.name.as_str(), header))
        .collect();
    let needed_by = |wanted: &dyn Fn(&str) -> bool| {
        let mut needed: HashSet<&str> = HashSet::new();
        let mut waiting: Vec<&Header> = files
            .iter()
            .map(|(header, _)| header)
            .filter(|header| {
                header
                    .services
                    .iter()
                    .any(|service| wanted(&header.full_name(&service.name)))
            })
            .collect();
        while let Some(header) = waiting.pop() {
            if needed.insert(&header.name) {
                waiting.extend(
                    header
                        .imports
                        .iter()
                        .filter_map(|import| by_name.get(import.as_str()).copied()),
                );
            }
        }
        needed
    };
    let shown = needed_by(&|service| visible.service(service));
    let hidden = needed_by(&|service| !visible.service(service));
    by_name
        .keys()
        .filter(|name| shown.contains(*name) || !hidden.contains(*name))
        .map(|name| (*name).to_owned())
        .collect()
}

/// The file without its hidden services and methods.
///
/// Comments and positions go too: they count declarations by position, and a comment may speak of its neighbour.
fn hide(header: &Header, file: &[u8], visible: &Visible) -> Result<Vec<u8>, FileProblem> {
    let mut cut = Vec::with_capacity(file.len());
    for field in raw::fields(file) {
        let field = field?;
        match (field.number, field.value.bytes()) {
            (6, Some(declaration)) => {
                let service = ServiceHeader::read(declaration)?;
                let full_name = header.full_name(&service.name);
                if visible.whole(&full_name, &service) {
                    cut.extend_from_slice(field.span);
                } else if visible.service(&full_name) {
                    raw::put_bytes(
                        &mut cut,
                        field.number,
                        &hide_methods(&full_name, declaration, visible)?,
                    );
                }
            }
            (9, _) => {}
            _ => cut.extend_from_slice(field.span),
        }
    }
    Ok(cut)
}

fn hide_methods(full_name: &str, service: &[u8], visible: &Visible) -> Result<Vec<u8>, FileProblem> {
    let mut cut = Vec::with_capacity(service.len());
    for field in raw::fields(service) {
        let field = field?;
        let hidden = match (field.number, field.value.bytes()) {
            (2, Some(method)) => !visible.method(full_name, &MethodHeader::read(method)?.name),
            _ => false,
        };
        if !hidden {
            cut.extend_from_slice(field.span);
        }
    }
    Ok(cut)
}

#[cfg(test)]
mod tests;
