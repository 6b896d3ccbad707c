//! Path templates such as `/v1/{name=shelves/*/books/*}:move`, parsed once.
//!
//! Source: `google.api.HttpRule`, "Path template syntax". Beyond that grammar, literals may follow `**`, and `/`
//! alone is the root.

mod captures;

use std::fmt;
use std::ops::Range;

pub use captures::Captures;

use crate::wire::url::{self, Escapes};

/// 64: far more than any published API has; it bounds the recursion of a lookup.
const MAX_SEGMENTS: usize = 64;

/// What stands between two slashes of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text, compared after decoding.
    Literal(Box<str>),
    /// `*`: any one segment that is not empty.
    One,
    /// `**`: any number of segments, none included.
    Rest,
}

/// A field of the request that the path gives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variable {
    /// The field's name, or the names on the way to it.
    pub path: Box<[Box<str>]>,
    /// Which of the template's segments make up the value.
    pub segments: Range<usize>,
    /// Whether the value may hold slashes, which decides how it is decoded.
    pub multi: bool,
}

impl Variable {
    /// The names joined with dots, as in the template.
    pub fn name(&self) -> String {
        self.path.join(".")
    }
}

/// A parsed path template. `{x}` and `{x=*}` are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Template {
    segments: Box<[Segment]>,
    variables: Box<[Variable]>,
    verb: Option<Box<str>>,
}

/// Why a template could not be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: expected {expected}")]
pub struct TemplateError {
    /// Which character, counted from 1; one past the last where more was expected.
    pub column: usize,
    /// What would be right there.
    pub expected: &'static str,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`TemplateError`] with the first place that does not fit the grammar.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Parser::new(text).template()
    }

    /// The segments, with variables spelled out.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The variables, from left to right.
    pub fn variables(&self) -> &[Variable] {
        &self.variables
    }

    /// What follows the colon, decoded.
    pub fn verb(&self) -> Option<&str> {
        self.verb.as_deref()
    }

    /// Whether something follows `**`: it works here, and the published grammar does not promise it.
    pub fn goes_on_after_rest(&self) -> bool {
        self.rest().is_some_and(|at| at + 1 < self.segments.len())
    }

    /// Where `**` is. A template has at most one.
    pub fn rest(&self) -> Option<usize> {
        self.segments.iter().position(|segment| *segment == Segment::Rest)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.segments.is_empty() {
            f.write_str("/")?;
        }
        let mut at = 0;
        let mut variables = self.variables.iter().peekable();
        while at < self.segments.len() {
            f.write_str("/")?;
            let Some(variable) = variables.next_if(|variable| variable.segments.start == at) else {
                self.write_segment(f, at)?;
                at += 1;
                continue;
            };
            write!(f, "{{{}", variable.name())?;
            if !matches!(self.segments.get(variable.segments.clone()), Some([Segment::One])) {
                for inner in variable.segments.clone() {
                    f.write_str(if inner == variable.segments.start {
                        "="
                    } else {
                        "/"
                    })?;
                    self.write_segment(f, inner)?;
                }
            }
            f.write_str("}")?;
            at = variable.segments.end;
        }
        match &self.verb {
            Some(verb) => {
                f.write_str(":")?;
                write_literal(f, verb, Colon::Escaped)
            }
            None => Ok(()),
        }
    }
}

impl Template {
    fn write_segment(&self, f: &mut fmt::Formatter<'_>, at: usize) -> fmt::Result {
        match self.segments.get(at) {
            Some(Segment::Literal(text)) => {
                // A raw colon in the last segment would begin a verb.
                let last = at + 1 == self.segments.len() && self.verb.is_none();
                write_literal(f, text, if last { Colon::Escaped } else { Colon::Raw })
            }
            Some(Segment::One) => f.write_str("*"),
            Some(Segment::Rest) => f.write_str("**"),
            None => Ok(()),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Colon {
    Raw,
    Escaped,
}

fn write_literal(f: &mut fmt::Formatter<'_>, text: &str, colon: Colon) -> fmt::Result {
    for character in text.chars() {
        if literal(character) && (character != ':' || colon == Colon::Raw) {
            write!(f, "{character}")?;
        } else {
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                write!(f, "%{byte:02X}")?;
            }
        }
    }
    Ok(())
}

/// What a literal may hold without an escape: RFC 3986's `pchar` without `*`, and letters of any script.
fn literal(character: char) -> bool {
    character.is_alphanumeric() || "-._~!$&'()+,;=:@".contains(character)
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Self {
        Self {
            text,
            at: 0,
            segments: Vec::new(),
            variables: Vec::new(),
        }
    }

    fn template(mut self) -> Result<Template, TemplateError> {
        if !self.eat("/") {
            return Err(self.expected("`/`"));
        }
        // The root has no segments at all: an empty one would be a trailing slash.
        if self.rest().is_empty() {
            return Ok(self.finish(None));
        }
        loop {
            if self.eat("{") {
                self.variable()?;
            } else {
                self.segment(Place::Outside)?;
            }
            if !self.eat("/") {
                break;
            }
        }
        let verb = self.verb()?;
        if !self.rest().is_empty() {
            return Err(self.expected("`/`, `:` or the end"));
        }
        Ok(self.finish(verb))
    }

    fn finish(self, verb: Option<Box<str>>) -> Template {
        Template {
            segments: self.segments.into(),
            variables: self.variables.into(),
            verb,
        }
    }

    fn variable(&mut self) -> Result<(), TemplateError> {
        let begin = self.at;
        let mut path = vec![self.name()?];
        while self.eat(".") {
            path.push(self.name()?);
        }
        let start = self.segments.len();
        if self.eat("=") {
            loop {
                if self.rest().starts_with('{') {
                    return Err(self.expected("a segment; a variable can't hold another"));
                }
                self.segment(Place::Inside)?;
                if !self.eat("/") {
                    break;
                }
            }
            if !self.eat("}") {
                return Err(self.expected("`/` or `}`"));
            }
        } else if self.eat("}") {
            self.push(self.at, Segment::One)?;
        } else {
            return Err(self.expected("`.`, `=` or `}`"));
        }
        let path = path.into_boxed_slice();
        if self.variables.iter().any(|other| other.path == path) {
            return Err(self.expected_at(begin, "a variable that is not there already"));
        }
        let segments = start..self.segments.len();
        let multi = segments.len() > 1
            || self
                .segments
                .get(segments.clone())
                .is_some_and(|own| own.contains(&Segment::Rest));
        self.variables.push(Variable {
            path,
            segments,
            multi,
        });
        Ok(())
    }

    fn name(&mut self) -> Result<Box<str>, TemplateError> {
        let rest = self.rest();
        let end = rest
            .find(|character: char| !character.is_ascii_alphanumeric() && character != '_')
            .unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
            return Err(self.expected("a field name"));
        }
        self.at += end;
        Ok(name.into())
    }

    fn segment(&mut self, place: Place) -> Result<(), TemplateError> {
        let begin = self.at;
        if self.eat("**") {
            if self.segments.contains(&Segment::Rest) {
                return Err(self.expected_at(begin, "at most one `**`"));
            }
            return self.push(begin, Segment::Rest);
        }
        if self.eat("*") {
            return self.push(begin, Segment::One);
        }
        let end = self.literal_end(place);
        let text = self.literal(end, "a segment: a literal, `*`, `**` or a variable")?;
        self.push(begin, Segment::Literal(text))
    }

    /// Where the literal here ends: for the last segment of the path, before the verb.
    ///
    /// A request is split at its last colon too, so an earlier colon belongs to the literal.
    fn literal_end(&self, place: Place) -> usize {
        let rest = self.rest();
        let stop: &[char] = match place {
            Place::Outside => &['/', '{', '*'],
            Place::Inside => &['/', '{', '}', '*'],
        };
        let end = rest.find(stop).unwrap_or(rest.len());
        if place == Place::Outside && end == rest.len() {
            return self.at + rest.rfind(':').unwrap_or(end);
        }
        self.at + end
    }

    fn verb(&mut self) -> Result<Option<Box<str>>, TemplateError> {
        if !self.eat(":") {
            return Ok(None);
        }
        if let Some(colon) = self.rest().find(':') {
            return Err(self.expected_at(self.at + colon, "a verb without a colon"));
        }
        let end = self.text.len();
        self.literal(end, "a verb").map(Some)
    }

    /// Takes the literal up to `end`, decoded.
    fn literal(&mut self, end: usize, expected: &'static str) -> Result<Box<str>, TemplateError> {
        let raw = self.text.get(self.at..end).unwrap_or_default();
        if raw.is_empty() {
            return Err(self.expected(expected));
        }
        if let Some(odd) = raw.find(|character: char| !literal(character) && character != '%') {
            return Err(self.expected_at(self.at + odd, "a character of a path, or its escape"));
        }
        let mut text = String::with_capacity(raw.len());
        url::decode(raw, Escapes::All, &mut text).map_err(|error| {
            let (url::EscapeError::Digits { at } | url::EscapeError::Utf8 { at }) = error;
            self.expected_at(self.at + at, "`%` and two hexadecimal digits, UTF-8 when decoded")
        })?;
        // A path with any of these is refused before it is matched.
        if matches!(&*text, "." | "..") || text.contains(['\0', '\\']) {
            return Err(self.expected("a literal without NUL or backslash, and neither `.` nor `..`"));
        }
        self.at = end;
        Ok(text.into())
    }

    fn push(&mut self, begin: usize, segment: Segment) -> Result<(), TemplateError> {
        if self.segments.len() == MAX_SEGMENTS {
            return Err(self.expected_at(begin, "at most 64 segments"));
        }
        self.segments.push(segment);
        Ok(())
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expected(&self, expected: &'static str) -> TemplateError {
        self.expected_at(self.at, expected)
    }

    fn expected_at(&self, at: usize, expected: &'static str) -> TemplateError {
        let before = self.text.get(..at).unwrap_or(self.text);
        TemplateError {
            column: before.chars().count() + 1,
            expected,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Inside,
}

#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod tests;
