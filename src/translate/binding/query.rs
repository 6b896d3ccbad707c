//! The parameters of a query string, one by one, against the fields of a request message.

use ahash::AHashSet;
use bytes::BytesMut;
use prost_reflect::{Kind, MessageDescriptor};

use super::error::{ParameterError, ParameterReason, Source};
use super::field::{Choice, FieldPath, Numbers, PathProblem, Shape};
use super::value::{Settable, Slot};
use super::{Binding, BodyRule, Given, OwnedFields, UnknownQuery};
use crate::translate::json::Transcoder;
use crate::wire::url;

/// What is set so far, so that nothing is set twice.
#[derive(Default)]
struct Seen {
    fields: AHashSet<Numbers>,
    entries: AHashSet<(Numbers, String)>,
    choices: Vec<(Choice, String)>,
}

/// Which field a parameter's name stands for.
enum Named<'k> {
    Unknown,
    Field(FieldPath, Option<&'k str>),
    Problem(ParameterReason),
}

/// Appends what the query sets.
pub(super) fn read(
    binding: &Binding,
    json: &Transcoder,
    query: &str,
    out: &mut BytesMut,
) -> Result<Given, ParameterError> {
    let mut seen = Seen::default();
    let mut given = Given::default();
    let mut name = String::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        // A parameter without `=` has an empty value.
        let (raw_name, raw_value) = pair.split_once('=').unwrap_or((pair, ""));
        let fail = |reason| ParameterError {
            source: Source::Query,
            name: super::error::excerpt(raw_name),
            reason,
        };
        name.clear();
        url::decode_form(raw_name, &mut name).map_err(|error| fail(ParameterReason::Escape(error)))?;
        let parameter = Parameter {
            binding,
            json,
            name: &name,
            raw_value,
        };
        let set = parameter.read(&mut seen, out).map_err(fail)?;
        given.update_mask |= set.is_some() && set == binding.update_mask_number();
    }
    Ok(given)
}

struct Parameter<'a> {
    binding: &'a Binding,
    json: &'a Transcoder,
    name: &'a str,
    raw_value: &'a str,
}

impl Parameter<'_> {
    /// Sets the field and returns the number of the request's own field that it is in; nothing if the parameter is
    /// passed over.
    fn read(&self, seen: &mut Seen, out: &mut BytesMut) -> Result<Option<u32>, ParameterReason> {
        let (path, key) = match resolve(&self.binding.request, self.name) {
            Named::Unknown if self.binding.options.unknown_query == UnknownQuery::Ignore => return Ok(None),
            Named::Unknown if self.passes() => return Ok(None),
            Named::Unknown => return Err(ParameterReason::Unknown),
            Named::Problem(problem) => return self.refuse(problem),
            Named::Field(path, key) => (path, key),
        };
        let numbers = path.numbers();
        if let Some(reason) = self.given_elsewhere(&path, &numbers) {
            return self.refuse(reason);
        }
        let settable = settable(self.json, path, key)?;
        seen.add(&settable, &numbers)?;
        let mut value = String::with_capacity(self.raw_value.len());
        url::decode_form(self.raw_value, &mut value).map_err(ParameterReason::Escape)?;
        settable.write(self.json, &value, self.binding.options.enum_numbers, out)?;
        // An empty mask names no field, so it says no more than an absent one.
        let named = !(matches!(settable.shape, Shape::FieldMask) && value.is_empty());
        Ok(numbers.first().copied().filter(|_| named))
    }

    /// A parameter that gateways and clients use for themselves may look like a field that the query can't set.
    fn refuse(&self, reason: ParameterReason) -> Result<Option<u32>, ParameterReason> {
        let ignored =
            reason == ParameterReason::InPath && self.binding.options.owned_fields == OwnedFields::Ignore;
        if ignored || self.passes() {
            return Ok(None);
        }
        Err(reason)
    }

    fn passes(&self) -> bool {
        matches!(self.name, "access_token" | "key" | "alt")
            || self.name.starts_with('$')
            || self
                .binding
                .options
                .passed
                .iter()
                .any(|passed| **passed == *self.name)
    }

    /// Why the query can't set a field that the path or the body gives.
    fn given_elsewhere(&self, path: &FieldPath, numbers: &Numbers) -> Option<ParameterReason> {
        let Binding { variables, .. } = self.binding;
        let in_path = variables.iter().any(|variable| {
            variable.numbers == *numbers
                || path
                    .choices()
                    .any(|choice| variable.choices.iter().any(|other| other.excludes(&choice)))
        });
        if in_path {
            return Some(ParameterReason::InPath);
        }
        let in_body = match self.binding.body {
            BodyRule::None => false,
            BodyRule::All => true,
            BodyRule::Field(number) => {
                numbers.first() == Some(&number)
                    || path.choices().any(|choice| {
                        self.binding
                            .body_choice
                            .as_ref()
                            .is_some_and(|body| body.excludes(&choice))
                    })
            }
        };
        in_body.then_some(ParameterReason::InBody)
    }
}

impl Seen {
    fn add(&mut self, settable: &Settable<'_>, numbers: &Numbers) -> Result<(), ParameterReason> {
        let fresh = match settable.slot {
            Slot::Element => true,
            Slot::Singular => self.fields.insert(numbers.clone()),
            Slot::Entry(key) => self.entries.insert((numbers.clone(), key.to_owned())),
        };
        if !fresh {
            return Err(ParameterReason::Twice);
        }
        for choice in settable.path.choices() {
            if let Some((_, oneof)) = self.choices.iter().find(|(other, _)| other.excludes(&choice)) {
                return Err(ParameterReason::Oneof { oneof: oneof.clone() });
            }
            if !self.choices.iter().any(|(other, _)| *other == choice) {
                let field = settable.path.steps.get(choice.within.len());
                let oneof = field.and_then(prost_reflect::FieldDescriptor::containing_oneof);
                let name = oneof.map(|oneof| oneof.name().to_owned());
                self.choices.extend(name.map(|name| (choice, name)));
            }
        }
        Ok(())
    }
}

/// The field that a name such as `author.name` or `labels[colour]` stands for.
///
/// The name is decoded already: an escaped dot separates as well as a plain one.
fn resolve<'k>(message: &MessageDescriptor, name: &'k str) -> Named<'k> {
    let (path, key) = match name
        .split_once('[')
        .map(|(path, rest)| (path, rest.strip_suffix(']')))
    {
        None => (name, None),
        Some((path, Some(key))) => (path, Some(key)),
        Some((_, None)) => return Named::Unknown,
    };
    match FieldPath::resolve(message, path.split('.')) {
        Ok(path) if key.is_some() && !path.leaf().is_some_and(|field| field.is_map()) => Named::Unknown,
        Ok(path) => Named::Field(path, key),
        Err(PathProblem::Unknown { .. }) => Named::Unknown,
        Err(PathProblem::Through { part, what }) => Named::Problem(ParameterReason::Through { part, what }),
    }
}

/// How the field is set, if one text can set it.
fn settable<'k>(
    json: &Transcoder,
    path: FieldPath,
    key: Option<&'k str>,
) -> Result<Settable<'k>, ParameterReason> {
    let leaf = path.leaf().ok_or(ParameterReason::Unknown)?;
    let (kind, slot) = match (leaf.kind(), key) {
        (Kind::Message(entry), Some(key)) if leaf.is_map() => {
            (entry.map_entry_value_field().kind(), Slot::Entry(key))
        }
        (Kind::Message(_), _) if leaf.is_map() => return Err(ParameterReason::Map),
        (Kind::Message(_), _) if leaf.is_list() => return Err(ParameterReason::Repeated),
        (kind, _) if leaf.is_list() => (kind, Slot::Element),
        (kind, _) => (kind, Slot::Singular),
    };
    let message = json.message(leaf.parent_message().full_name());
    match (Shape::of(&kind), slot, message) {
        // A mask is written without JSON, and nothing else needs a map of them.
        (None, ..) | (Some(Shape::FieldMask), Slot::Entry(_), _) => {
            let message = match &kind {
                Kind::Message(message) => message.full_name().to_owned(),
                _ => String::new(),
            };
            match slot {
                Slot::Singular => Err(ParameterReason::Message { message }),
                Slot::Element | Slot::Entry(_) => Err(ParameterReason::Repeated),
            }
        }
        (Some(_), _, None) => Err(ParameterReason::Unknown),
        (Some(shape), slot, Some(message)) => Ok(Settable {
            path,
            message,
            shape,
            slot,
        }),
    }
}
