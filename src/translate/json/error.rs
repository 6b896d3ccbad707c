//! What was wrong with a message, where, and what was expected. Built on failure only.

use std::fmt;

/// Why a JSON text is not a message of its type.
///
/// Displays as `books[3].pages: 3.5 is not a whole number (line 1, column 9)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The field's path as the text spells it, such as `books[3].pages`; empty for the message itself.
    pub path: String,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What was wrong there.
    pub reason: JsonReason,
}

/// What was wrong at a place of a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonReason {
    /// The bytes are not UTF-8.
    Utf8,
    /// The text ends too early, or something else stands there.
    Expected(&'static str),
    /// A value that its field cannot hold; long ones are cut.
    Not {
        /// The value as written.
        text: Box<str>,
        /// What would be right.
        expected: &'static str,
    },
    /// A number beyond its type.
    Range {
        /// The number as written.
        text: Box<str>,
        /// The type, such as `int32`.
        kind: &'static str,
    },
    /// `null` where it cannot stand.
    Null,
    /// The message has no such field, and the route refuses unknown ones.
    UnknownField(Box<str>),
    /// The enum has no such value.
    UnknownEnumValue {
        /// The value as written.
        text: Box<str>,
        /// The enum's full name.
        of: Box<str>,
    },
    /// One field, or one key of a map, twice.
    Duplicate(Box<str>),
    /// Two members of one oneof.
    Oneof {
        /// The oneof's name.
        oneof: Box<str>,
        /// The member that came second.
        second: Box<str>,
    },
    /// A required field is missing.
    Required(Box<str>),
    /// The field is bound by the request's path.
    Owned(Box<str>),
    /// An `Any` names a type that no descriptor declares.
    UnknownType(Box<str>),
    /// Objects and arrays are nested too deeply.
    Depth {
        /// The limit in levels.
        limit: u32,
    },
    /// The message grew over its limit.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
}

impl fmt::Display for JsonReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Utf8 => f.write_str("the text is not UTF-8"),
            Self::Expected(what) => write!(f, "expected {what}"),
            Self::Not { text, expected } => write!(f, "{text} is not {expected}"),
            Self::Range { text, kind } => write!(f, "{text} is out of range for {kind}"),
            Self::Null => f.write_str("null cannot stand here"),
            Self::UnknownField(name) => write!(f, "there is no field `{name}`"),
            Self::UnknownEnumValue { text, of } => write!(f, "{text} is not a value of {of}"),
            Self::Duplicate(name) => write!(f, "`{name}` is given twice"),
            Self::Oneof { oneof, second } => {
                write!(f, "`{second}` is a second member of the oneof `{oneof}`")
            }
            Self::Required(name) => write!(f, "the required field `{name}` is missing"),
            Self::Owned(name) => write!(f, "`{name}` is already given by the path"),
            Self::UnknownType(name) => write!(f, "the type `{name}` is not known here"),
            Self::Depth { limit } => write!(f, "nested deeper than {limit} levels"),
            Self::TooLarge { limit } => write!(f, "the message is larger than {limit} bytes"),
        }
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} (line {}, column {})", self.reason, self.line, self.column)
    }
}

impl std::error::Error for JsonError {}

/// Why protobuf bytes could not be written as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireError {
    /// The field's path, such as `books[3].title`; empty for the message itself.
    pub path: String,
    /// What was wrong there.
    pub reason: WireReason,
}

/// What was wrong with protobuf bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireReason {
    /// The bytes end inside a value, or a tag, length or group is impossible.
    Malformed,
    /// A string field is not UTF-8.
    Utf8,
    /// Messages are nested too deeply.
    Depth {
        /// The limit in levels.
        limit: u32,
    },
    /// The text grew over its limit.
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// A well-known type holds a value that has no JSON form.
    NoJsonForm(&'static str),
}

impl fmt::Display for WireReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the bytes are not a protobuf message"),
            Self::Utf8 => f.write_str("the string is not UTF-8"),
            Self::Depth { limit } => write!(f, "nested deeper than {limit} levels"),
            Self::TooLarge { limit } => write!(f, "the JSON text is larger than {limit} bytes"),
            Self::NoJsonForm(kind) => write!(f, "this {kind} has no JSON form"),
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.reason)
    }
}

impl std::error::Error for WireError {}

/// Why a plan could not be compiled from a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// The full name of the message or enum, or a file's name.
    pub name: String,
    /// What cannot be done with it.
    pub reason: &'static str,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

impl std::error::Error for PlanError {}
