//! A message as the request that a rule asks for: the inverse of reading one.
//!
//! What the path can't hold as its pattern asks, and what a query can't give, is refused: a request that means something
//! else than the message is worse than none.
//!
//! Source: `google.api.HttpRule`.

use std::fmt;

use bytes::BytesMut;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::error::excerpt;
use super::field::{self, JsonText, Shape};
use super::{Binding, BindingError, BodyRule, Variable};
use crate::schema::HttpMethod;
use crate::schema::template::Segment;
use crate::translate::json::{Mask, Target, Transcoder, WireError};
use crate::wire::url::{self, Keep};

/// 1 MiB: far more than any server takes as a URL; it bounds what is built before that is noticed.
const MAX_TARGET_BYTES: usize = 1 << 20;

/// Whether a body of `*` repeats what the path gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PathFields {
    /// The path alone has them.
    #[default]
    InPath,
    /// The body has them too.
    InBodyToo,
}

/// A rule, prepared for writing requests.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The HTTP method of the requests.
    pub method: http::Method,
    pieces: Box<[Piece]>,
    body: Option<OutgoingBody>,
    query: Option<OutgoingQuery>,
}

/// A part of the path.
#[derive(Clone, Debug)]
enum Piece {
    /// As it is sent.
    Text(Box<str>),
    Variable(OutgoingVariable),
}

#[derive(Clone, Debug)]
struct OutgoingVariable {
    name: Box<str>,
    /// The request's own field that the variable is, or is in.
    target: Target,
    /// The fields on the way from there to the variable.
    inner: Box<[FieldDescriptor]>,
    shape: Shape,
    /// What the value has to look like.
    pattern: Box<[Segment]>,
    multi: bool,
}

#[derive(Clone, Debug)]
struct OutgoingBody {
    target: Target,
    mask: Option<Mask>,
    /// What stands for a field that is not set; `None` where the body is the whole message.
    absent: Option<(u32, Option<&'static str>)>,
}

#[derive(Clone, Debug)]
struct OutgoingQuery {
    target: Target,
    message: MessageDescriptor,
    mask: Option<Mask>,
}

/// Why a message can't be written as a request of the rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// It is no such message, or holds what JSON can't express.
    Message(WireError),
    /// A field that the path needs does not fit there.
    Variable {
        /// The variable as the template writes it.
        name: String,
        /// What is wrong with its value.
        reason: VariableReason,
    },
    /// A field that a query can't give.
    Parameter {
        /// The field's path.
        name: String,
        /// What it is.
        what: &'static str,
    },
    /// The path and query together are too long.
    TooLong,
}

/// What is wrong with a value for the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariableReason {
    /// It is not set, or empty.
    Empty,
    /// A segment of it is empty, `.` or `..`, or it holds what no path may hold.
    Segment(String),
    /// It is not what the template declares.
    Pattern {
        /// The value, cut if it is long.
        text: String,
        /// What is declared.
        pattern: String,
    },
}

impl Outgoing {
    /// Prepares a rule. `json` decides how names in the query and the body are spelled.
    ///
    /// # Errors
    /// [`BindingError`] if the path has a wildcard outside of its variables, or the transcoder is another schema's.
    pub fn compile(binding: &Binding, json: &Transcoder, repeat: PathFields) -> Result<Self, BindingError> {
        let names: Vec<String> = binding
            .variables
            .iter()
            .map(|variable| variable.field.path.name())
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mask = |names: &[&str]| {
            (!names.is_empty())
                .then(|| json.mask(binding.input, names))
                .transpose()
        };
        let body = match binding.body_target() {
            None => None,
            Some(target @ Target::Message(_)) => Some(OutgoingBody {
                target,
                mask: match repeat {
                    PathFields::InPath => mask(&names)?,
                    PathFields::InBodyToo => None,
                },
                absent: None,
            }),
            Some(target @ Target::Field { number, .. }) => Some(OutgoingBody {
                target,
                mask: mask(&names)?,
                absent: Some((number, absent(&binding.request, number))),
            }),
        };
        let query = match binding.body {
            BodyRule::All => None,
            BodyRule::None | BodyRule::Field(_) => {
                let body = match binding.body {
                    BodyRule::Field(number) => binding.request.get_field(number),
                    BodyRule::None | BodyRule::All => None,
                };
                let mut names = names.clone();
                names.extend(body.as_ref().map(FieldDescriptor::name));
                Some(OutgoingQuery {
                    target: Target::Message(binding.input),
                    message: binding.request.clone(),
                    mask: mask(&names)?,
                })
            }
        };
        let method = match (&binding.method, &body) {
            (HttpMethod::Exact(method), _) => method.clone(),
            (HttpMethod::Any, Some(_)) => http::Method::POST,
            (HttpMethod::Any, None) => http::Method::GET,
        };
        Ok(Self {
            method,
            pieces: pieces(binding)?,
            body,
            query,
        })
    }

    /// Appends the path and the query of the request for a message, given as its wire bytes.
    ///
    /// # Errors
    /// [`WriteError`] names the field that does not fit; `out` may then hold the beginning.
    pub fn write(&self, json: &Transcoder, wire: &[u8], out: &mut String) -> Result<(), WriteError> {
        let start = out.len();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Variable(variable) => variable.write(json, wire, out)?,
            }
        }
        if let Some(query) = &self.query {
            query.write(json, wire, out)?;
        }
        if out.len().saturating_sub(start) > MAX_TARGET_BYTES {
            return Err(WriteError::TooLong);
        }
        Ok(())
    }

    /// Appends the JSON text of the body, at most `limit` bytes. False if the request has no body.
    ///
    /// # Errors
    /// [`WireError`] as [`Transcoder::write`]; nothing is appended then.
    pub fn write_body(
        &self,
        json: &Transcoder,
        wire: &[u8],
        out: &mut BytesMut,
        limit: usize,
    ) -> Result<bool, WireError> {
        let Some(body) = &self.body else {
            return Ok(false);
        };
        if let Some((number, instead)) = body.absent
            && !has(wire, number)
        {
            out.extend_from_slice(instead.unwrap_or_default().as_bytes());
            return Ok(instead.is_some());
        }
        json.write(body.target, body.mask.as_ref(), wire, out, limit)?;
        Ok(true)
    }
}

/// What stands in a body for a field that is not set; nothing for what has no empty form.
fn absent(message: &MessageDescriptor, number: u32) -> Option<&'static str> {
    let field = message.get_field(number)?;
    if field.is_map() {
        return Some("{}");
    }
    if field.is_list() {
        return Some("[]");
    }
    match (field.kind(), Shape::of(&field.kind())) {
        (_, Some(Shape::Json(JsonText::Object))) | (Kind::Message(_), None) => Some("{}"),
        (_, Some(Shape::Json(JsonText::Array))) => Some("[]"),
        _ => None,
    }
}

/// Whether a message has a field of its own with this number.
fn has(mut wire: &[u8], number: u32) -> bool {
    while let Ok((found, wire_type)) = decode_key(&mut wire) {
        if found == number {
            return true;
        }
        if skip_field(wire_type, found, &mut wire, DecodeContext::default()).is_err() {
            // Whoever writes the message says what is wrong with it.
            return true;
        }
    }
    !wire.is_empty()
}

/// The template with its literals as they are sent. No message says what stands for a wildcard outside of variables.
fn pieces(binding: &Binding) -> Result<Box<[Piece]>, BindingError> {
    let template = &binding.template;
    let segments = template.segments();
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut variables = template.variables().iter().zip(&binding.variables).peekable();
    let mut at = 0;
    if segments.is_empty() {
        text.push('/');
    }
    while let Some(segment) = segments.get(at) {
        text.push('/');
        if let Some((written, variable)) = variables.next_if(|(written, _)| written.segments.start == at) {
            pieces.push(Piece::Text(std::mem::take(&mut text).into()));
            let pattern = segments.get(written.segments.clone()).unwrap_or_default();
            pieces.push(Piece::Variable(OutgoingVariable::new(
                binding,
                variable,
                pattern,
                written.multi,
            )));
            at = written.segments.end;
            continue;
        }
        match segment {
            Segment::Literal(literal) => escape_literal(literal, &mut text),
            Segment::One | Segment::Rest => return Err(BindingError::Loose),
        }
        at += 1;
    }
    if let Some(verb) = template.verb() {
        text.push(':');
        escape_literal(verb, &mut text);
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text.into()));
    }
    Ok(pieces.into())
}

impl OutgoingVariable {
    fn new(binding: &Binding, variable: &Variable, pattern: &[Segment], multi: bool) -> Self {
        let steps = &variable.field.path.steps;
        Self {
            name: variable.name.clone(),
            target: Target::Field {
                message: binding.input,
                number: steps.first().map_or(0, FieldDescriptor::number),
            },
            inner: steps.iter().skip(1).cloned().collect(),
            shape: variable.field.shape.clone(),
            pattern: pattern.into(),
            multi,
        }
    }

    fn write(&self, json: &Transcoder, wire: &[u8], out: &mut String) -> Result<(), WriteError> {
        let mut text = BytesMut::new();
        json.write(self.target, None, wire, &mut text, MAX_TARGET_BYTES)
            .map_err(WriteError::Message)?;
        let value: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        let value = self.inner.iter().try_fold(&value, |value, field| {
            value.get(field.json_name()).or_else(|| value.get(field.name()))
        });
        let text = value.and_then(|value| text_of(&self.shape, value));
        match text {
            None => Err(self.refuse(VariableReason::Empty)),
            Some(text) if text.is_empty() => Err(self.refuse(VariableReason::Empty)),
            Some(text) => self.write_text(&text, out),
        }
    }

    fn write_text(&self, text: &str, out: &mut String) -> Result<(), WriteError> {
        // A control character is escaped anyway; these two are read as something else by some servers even then.
        if text.contains(['\0', '\\']) {
            return Err(self.refuse(VariableReason::Segment(excerpt(text))));
        }
        let bad = |segment: &str| matches!(segment, "" | "." | "..");
        if !self.multi {
            if bad(text) {
                return Err(self.refuse(VariableReason::Segment(excerpt(text))));
            }
            if let [Segment::Literal(literal)] = &*self.pattern
                && **literal != *text
            {
                return Err(self.mismatch(text));
            }
            url::encode(text, Keep::Nothing, out);
            return Ok(());
        }
        let segments: Vec<&str> = text.split('/').collect();
        if let Some(segment) = segments.iter().find(|segment| bad(segment)) {
            return Err(self.refuse(VariableReason::Segment(excerpt(segment))));
        }
        if !fits(&self.pattern, &segments) {
            return Err(self.mismatch(text));
        }
        url::encode(text, Keep::Slashes, out);
        Ok(())
    }

    fn refuse(&self, reason: VariableReason) -> WriteError {
        WriteError::Variable {
            name: self.name.to_string(),
            reason,
        }
    }

    fn mismatch(&self, text: &str) -> WriteError {
        self.refuse(VariableReason::Pattern {
            text: excerpt(text),
            pattern: shown(&self.pattern),
        })
    }
}

/// Whether the segments of a value are those that a pattern declares.
fn fits(pattern: &[Segment], segments: &[&str]) -> bool {
    let same = |segment: &Segment, text: &&str| match segment {
        Segment::Literal(literal) => **literal == **text,
        Segment::One | Segment::Rest => true,
    };
    match pattern.iter().position(|segment| *segment == Segment::Rest) {
        None => {
            pattern.len() == segments.len()
                && pattern
                    .iter()
                    .zip(segments)
                    .all(|(segment, text)| same(segment, text))
        }
        Some(rest) => {
            let tail = pattern.len() - rest - 1;
            segments.len() >= rest + tail
                && pattern
                    .iter()
                    .take(rest)
                    .zip(segments)
                    .all(|(segment, text)| same(segment, text))
                && pattern
                    .iter()
                    .rev()
                    .take(tail)
                    .zip(segments.iter().rev())
                    .all(|(segment, text)| same(segment, text))
        }
    }
}

/// A pattern as a template writes it.
fn shown(pattern: &[Segment]) -> String {
    let part = |segment: &Segment| match segment {
        Segment::Literal(literal) => literal.to_string(),
        Segment::One => "*".to_owned(),
        Segment::Rest => "**".to_owned(),
    };
    pattern.iter().map(part).collect::<Vec<_>>().join("/")
}

impl OutgoingQuery {
    fn write(&self, json: &Transcoder, wire: &[u8], out: &mut String) -> Result<(), WriteError> {
        if wire.is_empty() {
            return Ok(());
        }
        let mut text = BytesMut::new();
        json.write(self.target, self.mask.as_ref(), wire, &mut text, MAX_TARGET_BYTES)
            .map_err(WriteError::Message)?;
        if *text == *b"{}" {
            return Ok(());
        }
        let Ok(Value::Object(fields)) = serde_json::from_slice(&text) else {
            return Err(WriteError::Parameter {
                name: self.message.full_name().to_owned(),
                what: "a message without names for its fields",
            });
        };
        let mut pairs = Pairs {
            out,
            separator: '?',
            name: String::new(),
        };
        pairs.fields(&self.message, &fields)
    }
}

/// The parameters of a query as they are written.
struct Pairs<'o> {
    out: &'o mut String,
    separator: char,
    /// The name so far, which ends in a dot within a message.
    name: String,
}

impl Pairs<'_> {
    fn fields(&mut self, message: &MessageDescriptor, fields: &Map<String, Value>) -> Result<(), WriteError> {
        for (spelled, value) in fields {
            let outer = self.name.len();
            self.name.push_str(spelled);
            let Some(field) = field::named(message, spelled) else {
                return Err(self.refuse("an extension"));
            };
            self.field(&field, value)?;
            self.name.truncate(outer);
        }
        Ok(())
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value) -> Result<(), WriteError> {
        if field.is_map() {
            return Err(self.refuse("a map"));
        }
        let shape = Shape::of(&field.kind());
        match (shape, field.kind(), value) {
            (_, Kind::Message(_), _) if field.is_list() => Err(self.refuse("a list of messages")),
            (Some(shape), _, Value::Array(elements)) if field.is_list() => {
                elements.iter().try_for_each(|element| self.pair(&shape, element))
            }
            (Some(shape), _, value) => self.pair(&shape, value),
            (None, Kind::Message(message), Value::Object(fields)) if !field::is_whole(&message) => {
                self.name.push('.');
                self.fields(&message, fields)
            }
            (None, _, _) => Err(self.refuse("a message of any type")),
        }
    }

    fn pair(&mut self, shape: &Shape, value: &Value) -> Result<(), WriteError> {
        let Some(text) = text_of(shape, value) else {
            return Err(self.refuse("a value without a text"));
        };
        self.out.push(std::mem::replace(&mut self.separator, '&'));
        url::encode(&self.name, Keep::Nothing, self.out);
        self.out.push('=');
        url::encode(&text, Keep::Nothing, self.out);
        Ok(())
    }

    fn refuse(&self, what: &'static str) -> WriteError {
        WriteError::Parameter {
            name: self.name.clone(),
            what,
        }
    }
}

/// The text by which path and query give a value.
fn text_of(shape: &Shape, value: &Value) -> Option<String> {
    match (shape, value) {
        (Shape::Json(_), value) => Some(value.to_string()),
        (Shape::Bytes, Value::String(text)) => Some(text.replace('+', "-").replace('/', "_")),
        (_, Value::String(text)) => Some(text.clone()),
        (_, Value::Number(number)) => Some(number.to_string()),
        (_, Value::Bool(value)) => Some(value.to_string()),
        // The one value of `google.protobuf.NullValue`, which as a field is set.
        (Shape::Enum(kind), Value::Null) if kind.full_name() == "google.protobuf.NullValue" => {
            Some("NULL_VALUE".to_owned())
        }
        (_, Value::Null | Value::Array(_) | Value::Object(_)) => None,
    }
}

/// Appends a literal of a template: what RFC 3986 allows in a segment stays, but for a colon, which would begin a verb.
fn escape_literal(text: &str, out: &mut String) {
    for byte in text.bytes() {
        url::push(
            byte,
            byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=@".contains(&byte),
            out,
        );
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Message(error) => error.fmt(f),
            Self::Variable { name, reason } => {
                write!(f, "`{name}` goes into the path of the backend's URL: ")?;
                match reason {
                    VariableReason::Empty => f.write_str("it must not be empty"),
                    VariableReason::Segment(text) => write!(f, "`{text}` can't stand in a path"),
                    VariableReason::Pattern { text, pattern } => write!(f, "`{text}` is not `{pattern}`"),
                }
            }
            Self::Parameter { name, what } => {
                write!(f, "`{name}` is {what}, which the backend's URL can't give")
            }
            Self::TooLong => f.write_str("the message does not fit into a URL"),
        }
    }
}

impl std::error::Error for WriteError {}

#[cfg(test)]
mod tests;
