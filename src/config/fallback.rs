//! Fixed answers of backends that can't give one: what is written as JSON becomes the method's own message here.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

use super::compile::SchemaState;
use super::diagnostic::Diagnostic;
use super::file::{self, File};
use super::located::Located;
use crate::route::Entry;
use crate::route::entry::FixedAnswer;
use crate::route::relay::Page;
use crate::schema::Method;
use crate::translate::json::{JsonOptions, Target, Transcoder, UnknownFields};
use crate::wire::envelope;

/// How the message of a fixed answer is read: a field that is not there is a mistake.
pub(super) const JSON: JsonOptions = JsonOptions {
    unknown_fields: UnknownFields::Reject,
    case_insensitive_enums: false,
    drop_unknown_enum_names: false,
    emit_defaults: false,
    proto_names: false,
    enums_as_ints: false,
    int64_as_numbers: false,
};

/// The largest message: what a client takes that says nothing about it.
const MAX_BYTES: usize = 4 << 20;

/// What a backend has for calls of a method: the first that is about it.
pub(super) fn answer<'a>(
    backend: &'a file::Backend,
    method: &Method,
) -> Option<&'a Located<file::FixedAnswer>> {
    let answers = &backend.fallback.as_ref()?.answers;
    answers
        .iter()
        .find(|answer| answer.methods.iter().any(|pattern| pattern.take(&method.path)))
}

/// Makes a message of the method's output of what is written.
///
/// # Errors
/// The text is no such message.
pub(super) fn compile(
    file: &File,
    written: &Located<file::FixedAnswer>,
    method: &Method,
    json: &Transcoder,
) -> Result<FixedAnswer, Diagnostic> {
    let name = method.output.full_name();
    let wrong = |why: String| {
        let called = method.path.trim_start_matches('/');
        let what = format!("is no {name}, which {called} answers with: {why}");
        file.origin.error(written.message.spot, "backends", what)
    };
    let Some(message) = json.message(name) else {
        return Err(wrong("the schema does not have it".to_owned()));
    };
    let mut wire = BytesMut::new();
    let text = written.message.as_bytes();
    json.read(Target::Message(message), None, text, &mut wire, MAX_BYTES)
        .map_err(|error| wrong(error.to_string()))?;
    envelope::wrap(&wire)
        .map(FixedAnswer)
        .map_err(|error| wrong(error.to_string()))
}

/// Says which fixed answers are about no method of their backend.
pub(super) fn answers_of_nothing(
    file: &File,
    states: &[&SchemaState],
    entries: &[Arc<Entry>],
) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for (at, (name, backend)) in file.backends.iter().enumerate() {
        let is_known = states
            .get(at)
            .is_some_and(|state| matches!(state, SchemaState::Ready(_)));
        for answer in backend.fallback.iter().flat_map(|fallback| &fallback.answers) {
            let is_asked = |entry: &&Arc<Entry>| {
                entry.route.backend == at
                    && answer
                        .methods
                        .iter()
                        .any(|pattern| pattern.take(&entry.method.path))
            };
            if is_known && !entries.iter().any(|entry| is_asked(&entry)) {
                let what = format!("is about no method that a route has of backend \"{name}\"");
                found.push(file.origin.error(answer.spot, "backends", what).as_warning());
            }
        }
    }
    found
}

/// What a backend has for plain HTTP.
pub(super) fn page(backend: &file::Backend) -> Option<Page> {
    let page = backend.fallback.as_ref()?.page.as_ref()?;
    Some(Page {
        status: page.status.0,
        content_type: page
            .content_type
            .as_ref()
            // The file was refused for one that is no value of a header.
            .and_then(|kind| HeaderValue::from_str(kind).ok())
            .unwrap_or(HeaderValue::from_static("text/plain; charset=utf-8")),
        body: Bytes::copy_from_slice(page.body.as_bytes()),
    })
}
