//! One HTTP rule bound to one method: which part of a request gives which field of its message.
//!
//! A field that the path gives belongs to the path: neither query nor body can set it, or another member of its oneof,
//! since access may have been decided on the path.
//!
//! Source: `google.api.HttpRule`.

mod drop;
mod error;
mod field;
mod patch;
mod query;
mod value;
mod write;

use std::sync::Arc;

use bytes::BytesMut;
use prost_reflect::{FieldDescriptor, MessageDescriptor};

use crate::schema::template::{Captures, Template, Variable as Written};
use crate::schema::{HttpMethod, HttpRule, Method};
use crate::translate::json::{JsonError, JsonReason, Mask, MessageId, Target, Transcoder};

use drop::Dropped;
pub use error::{BindingError, ParameterError, ParameterReason, Place, Source};
use field::{Choice, FieldPath, Numbers, PathProblem, Shape};
use patch::UpdateMask;
pub use value::EnumNumbers;
use value::{Settable, Slot};
pub use write::{Outgoing, PathFields, VariableReason, WriteError};

/// What the body of a request gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyRule {
    /// Nothing: the other fields are query parameters.
    None,
    /// Every field that the path does not give; there are no query parameters.
    All,
    /// The field with this number; the other ones are query parameters.
    Field(u32),
}

/// What a query parameter without a field means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnknownQuery {
    /// It is refused by its name, so that a typing mistake is seen.
    #[default]
    Reject,
    /// It is passed over.
    Ignore,
}

/// What a body or query means that gives a field which the path gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OwnedFields {
    /// It is refused.
    #[default]
    Reject,
    /// The path's value holds, and the other one is passed over.
    Ignore,
}

/// How a route binds requests.
#[derive(Clone, Debug, Default)]
pub struct BindingOptions {
    /// What a query parameter without a field means.
    pub unknown_query: UnknownQuery,
    /// Parameters that are passed over where they are no field that the query sets, beside `access_token`, `key`, `alt`
    /// and all that begin with `$`.
    pub passed: Arc<[Box<str>]>,
    /// What a body or query means that gives a field of the path.
    pub owned_fields: OwnedFields,
    /// Which enum numbers path and query may give.
    pub enum_numbers: EnumNumbers,
}

/// One HTTP rule bound to one method.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Which HTTP method it answers.
    pub method: HttpMethod,
    /// Its path.
    pub template: Template,
    /// What the body gives.
    pub body: BodyRule,
    /// What the answer's body is made of.
    pub response: Target,
    /// The fields that the body must not give.
    pub owned: Option<Mask>,
    /// The fields that are taken out of the body, where that is not an error.
    dropped: Option<Dropped>,
    input: MessageId,
    request: MessageDescriptor,
    variables: Box<[Variable]>,
    /// The member of a oneof that the body is.
    body_choice: Option<Choice>,
    update_mask: Option<UpdateMask>,
    options: BindingOptions,
}

/// A variable of the path and the field that it gives.
#[derive(Clone, Debug)]
struct Variable {
    name: Box<str>,
    field: Settable<'static>,
    numbers: Numbers,
    choices: Vec<Choice>,
}

/// What a request has given beside its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Whether `update_mask` names a field.
    update_mask: bool,
}

impl Binding {
    /// Binds a rule to its method.
    ///
    /// # Errors
    /// [`BindingError`] if the rule does not fit the method's messages; it says what to change.
    pub fn compile(
        rule: &HttpRule,
        method: &Method,
        json: &Transcoder,
        options: &BindingOptions,
    ) -> Result<Self, BindingError> {
        let template = Template::parse(&rule.template)?;
        let input = message_id(json, &method.input)?;
        let variables = variables(&template, &method.input, json)?;
        let body_field = match &*rule.body {
            "" | "*" => None,
            name => Some(own_field(&method.input, name, Place::Body)?),
        };
        let body = match &body_field {
            Some(field) => BodyRule::Field(field.number()),
            None if rule.body.is_empty() => BodyRule::None,
            None => BodyRule::All,
        };
        let body_path = body_field.clone().map(|field| FieldPath {
            steps: smallvec::smallvec![field],
        });
        let body_choice = body_path.as_ref().and_then(|path| path.choices().next());
        if let Some(path) = &body_path {
            fits_beside(path, body_choice.as_ref(), &variables)?;
        }
        let mut binding = Self {
            method: rule.method.clone(),
            template,
            body,
            response: response(rule, method, json)?,
            owned: None,
            dropped: None,
            input,
            request: method.input.clone(),
            body_choice,
            update_mask: None,
            options: options.clone(),
            variables,
        };
        if body != BodyRule::None && !binding.variables.is_empty() {
            binding.own(json)?;
        }
        if let Some(field) = body_field.filter(|_| rule.method == HttpMethod::Exact(http::Method::PATCH)) {
            let owned = binding.owned_within(field.number());
            let by_path = |mask: &UpdateMask| {
                let mut variables = binding.variables.iter();
                variables.any(|variable| variable.numbers.first() == Some(&mask.number()))
            };
            let mask = UpdateMask::new(&method.input, &field, owned).filter(|mask| !by_path(mask));
            binding.update_mask = mask;
        }
        Ok(binding)
    }

    /// What a method answers on its rpc path: POST with the whole message as the body.
    ///
    /// # Errors
    /// [`BindingError`] as [`Binding::compile`].
    pub fn rpc(method: &Method, json: &Transcoder, options: &BindingOptions) -> Result<Self, BindingError> {
        let rule = HttpRule {
            method: HttpMethod::Exact(http::Method::POST),
            template: method.path.to_string(),
            body: "*".to_owned(),
            response_body: String::new(),
        };
        Self::compile(&rule, method, json, options)
    }

    /// What the JSON text of the body stands for; nothing if the body gives nothing.
    pub fn body_target(&self) -> Option<Target> {
        match self.body {
            BodyRule::None => None,
            BodyRule::All => Some(Target::Message(self.input)),
            BodyRule::Field(number) => Some(Target::Field {
                message: self.input,
                number,
            }),
        }
    }

    /// Appends what the body gives as wire bytes of the request message, at most `limit` bytes; nothing where the body
    /// gives nothing.
    ///
    /// # Errors
    /// [`JsonError`] as [`Transcoder::read`]; nothing is appended then.
    pub fn read_body(
        &self,
        json: &Transcoder,
        body: &[u8],
        out: &mut BytesMut,
        limit: usize,
    ) -> Result<(), JsonError> {
        let Some(target) = self.body_target() else {
            return Ok(());
        };
        let Some(dropped) = &self.dropped else {
            return json.read(target, self.owned.as_ref(), body, out, limit);
        };
        let mut whole = BytesMut::new();
        json.read(target, None, body, &mut whole, limit)?;
        let start = out.len();
        dropped.copy_rest(&whole, out).map_err(|_| {
            out.truncate(start);
            JsonError {
                path: String::new(),
                line: 1,
                column: 1,
                reason: JsonReason::Expected("a message that can be read again"),
            }
        })
    }

    /// Appends what path and query give as wire bytes of the request message.
    ///
    /// The message is the concatenation of these and the body's, in either order: no field is in both.
    ///
    /// # Errors
    /// [`ParameterError`] names the variable or parameter that does not fit; nothing is appended then.
    pub fn read(
        &self,
        json: &Transcoder,
        captures: &Captures,
        query: Option<&str>,
        out: &mut BytesMut,
    ) -> Result<Given, ParameterError> {
        let start = out.len();
        let read = self.read_path(json, captures, out).and_then(|()| match query {
            Some(query) => query::read(self, json, query, out),
            None => Ok(Given::default()),
        });
        if read.is_err() {
            out.truncate(start);
        }
        read
    }

    fn read_path(
        &self,
        json: &Transcoder,
        captures: &Captures,
        out: &mut BytesMut,
    ) -> Result<(), ParameterError> {
        for (index, variable) in self.variables.iter().enumerate() {
            let text = captures.get(index).unwrap_or_default();
            variable
                .field
                .write(json, text, self.options.enum_numbers, out)
                .map_err(|reason| ParameterError {
                    source: Source::Path,
                    name: variable.name.to_string(),
                    reason,
                })?;
        }
        Ok(())
    }

    /// Appends the `update_mask` that a PATCH body stands for: the fields that it has, where the request gives none
    /// itself. Nothing for other methods and for messages without that field.
    ///
    /// The body is one that [`Binding::read_body`] has accepted.
    ///
    /// # Errors
    /// Where it is not JSON; nothing is appended then.
    pub fn patch_mask(&self, given: Given, body: &[u8], out: &mut BytesMut) -> Result<(), serde_json::Error> {
        match &self.update_mask {
            Some(mask) if !given.update_mask && !body.iter().all(u8::is_ascii_whitespace) => {
                mask.write(body, out)
            }
            _ => Ok(()),
        }
    }

    fn update_mask_number(&self) -> Option<u32> {
        self.update_mask.as_ref().map(UpdateMask::number)
    }

    /// Keeps the body from the fields of the path and from the other members of their oneofs.
    fn own(&mut self, json: &Transcoder) -> Result<(), BindingError> {
        let mut paths = Vec::new();
        for variable in &self.variables {
            paths.extend(variable.field.path.siblings());
            paths.push(variable.field.path.clone());
        }
        match self.options.owned_fields {
            OwnedFields::Reject => {
                let names: Vec<String> = paths.iter().map(FieldPath::name).collect();
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.owned = Some(json.mask(self.input, &names)?);
            }
            OwnedFields::Ignore => {
                let numbers: Vec<Numbers> = paths.iter().map(FieldPath::numbers).collect();
                self.dropped = Some(Dropped::new(numbers.iter()));
            }
        }
        Ok(())
    }

    /// The paths that variables give within the body's field, as the field's message names them.
    fn owned_within(&self, body: u32) -> Vec<String> {
        let within = |variable: &&Variable| variable.numbers.first() == Some(&body);
        let inner = |variable: &Variable| {
            let steps = variable.field.path.steps.iter().skip(1).cloned().collect();
            FieldPath { steps }.name()
        };
        self.variables.iter().filter(within).map(inner).collect()
    }
}

fn message_id(json: &Transcoder, message: &MessageDescriptor) -> Result<MessageId, BindingError> {
    json.message(message.full_name())
        .ok_or_else(|| BindingError::Message {
            message: message.full_name().to_owned(),
        })
}

/// A field of the message itself, which is all that `body` and `response_body` can name.
fn own_field(message: &MessageDescriptor, name: &str, place: Place) -> Result<FieldDescriptor, BindingError> {
    field::named(message, name).ok_or_else(|| BindingError::UnknownField {
        place,
        part: name.to_owned(),
        message: message.full_name().to_owned(),
    })
}

fn response(rule: &HttpRule, method: &Method, json: &Transcoder) -> Result<Target, BindingError> {
    let message = message_id(json, &method.output)?;
    Ok(match &*rule.response_body {
        // `*` is not in the published grammar, and means the same to whoever writes it.
        "" | "*" => Target::Message(message),
        name => Target::Field {
            message,
            number: own_field(&method.output, name, Place::ResponseBody)?.number(),
        },
    })
}

/// The fields of a template's variables, which can all be given at once.
fn variables(
    template: &Template,
    input: &MessageDescriptor,
    json: &Transcoder,
) -> Result<Box<[Variable]>, BindingError> {
    let mut variables: Vec<Variable> = Vec::new();
    for written in template.variables() {
        let variable = variable(written, input, json)?;
        for other in &variables {
            if other.numbers == variable.numbers {
                return Err(BindingError::Twice {
                    first: other.name.to_string(),
                    second: variable.name.to_string(),
                });
            }
            if excludes(&other.choices, &variable.choices) {
                return Err(BindingError::Oneof {
                    first: other.name.to_string(),
                    second: variable.name.to_string(),
                });
            }
        }
        variables.push(variable);
    }
    Ok(variables.into())
}

fn variable(
    written: &Written,
    input: &MessageDescriptor,
    json: &Transcoder,
) -> Result<Variable, BindingError> {
    let place = || Place::Variable(written.name());
    let names = written.path.iter().map(|name| &**name);
    let path = FieldPath::resolve(input, names).map_err(|problem| match problem {
        PathProblem::Unknown { part, message } => BindingError::UnknownField {
            place: place(),
            part,
            message,
        },
        PathProblem::Through { part, what } => BindingError::Through {
            place: place(),
            part,
            what,
        },
    })?;
    let not_scalar = |what| BindingError::NotScalar {
        place: place(),
        part: written
            .path
            .last()
            .map(|name| name.to_string())
            .unwrap_or_default(),
        what,
    };
    let leaf = path.leaf().ok_or_else(|| not_scalar("nothing"))?;
    if leaf.is_map() {
        return Err(not_scalar("a map"));
    }
    if leaf.is_list() {
        return Err(not_scalar("repeated"));
    }
    let shape = Shape::of(&leaf.kind())
        .filter(Shape::is_scalar)
        .ok_or_else(|| not_scalar("a message"))?;
    let message = message_id(json, leaf.parent_message())?;
    Ok(Variable {
        name: written.name().into(),
        numbers: path.numbers(),
        choices: path.choices().collect(),
        field: Settable {
            path,
            message,
            shape,
            slot: Slot::Singular,
        },
    })
}

fn excludes(some: &[Choice], others: &[Choice]) -> bool {
    some.iter()
        .any(|choice| others.iter().any(|other| other.excludes(choice)))
}

/// Whether the body can be this field beside the path's.
fn fits_beside(
    body: &FieldPath,
    choice: Option<&Choice>,
    variables: &[Variable],
) -> Result<(), BindingError> {
    for variable in variables {
        if variable.numbers == body.numbers() {
            return Err(BindingError::BodyInPath { field: body.name() });
        }
        if choice.is_some_and(|choice| variable.choices.iter().any(|other| other.excludes(choice))) {
            return Err(BindingError::Oneof {
                first: variable.name.to_string(),
                second: body.name(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
