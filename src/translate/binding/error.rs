//! Why a rule can't be bound, and why a request does not fit a binding.

use std::fmt;

use crate::schema::template::TemplateError;
use crate::translate::json::MaskError;
use crate::wire::url::EscapeError;

/// Why an HTTP rule can't be bound to its method. It disables that rule and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindingError {
    /// The path template is not valid.
    #[error("path template: {0}")]
    Template(#[from] TemplateError),
    /// A variable, `body` or `response_body` names a field that is not there.
    #[error("{place}: there is no field `{part}` in {message}")]
    UnknownField {
        /// What names it.
        place: Place,
        /// The name that is not known.
        part: String,
        /// The message that was looked in.
        message: String,
    },
    /// A variable goes on after a field that has no fields.
    #[error("{place}: `{part}` is {what}, so no field can follow it")]
    Through {
        /// What names it.
        place: Place,
        /// The field's name.
        part: String,
        /// What it is.
        what: &'static str,
    },
    /// A variable is a field that a path can't give.
    #[error("{place}: `{part}` is {what}, and a path gives scalars only")]
    NotScalar {
        /// What names it.
        place: Place,
        /// The field's name.
        part: String,
        /// What it is: a map, repeated, a message.
        what: &'static str,
    },
    /// Two variables are one field.
    #[error("variables `{first}` and `{second}` are the same field")]
    Twice {
        /// The first, as written.
        first: String,
        /// The second, as written.
        second: String,
    },
    /// The path and the body, or two variables, set two members of a oneof.
    #[error("`{first}` and `{second}` are members of one oneof")]
    Oneof {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// The body is a field that the path gives already.
    #[error("body: `{field}` is given by the path already")]
    BodyInPath {
        /// The field's name.
        field: String,
    },
    /// The path has a wildcard that gives no field, so that no message says what to send there.
    #[error("path template: a wildcard outside of variables can be read, and not be written")]
    Loose,
    /// The transcoder does not know a message of the method.
    #[error("the JSON form of {message} is not known")]
    Message {
        /// The message's full name.
        message: String,
    },
    /// The transcoder does not take the set of fields that the path owns.
    #[error("{0}")]
    Mask(#[from] MaskError),
}

/// The part of a rule that an error is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A variable of the template, as written.
    Variable(String),
    /// `body`.
    Body,
    /// `response_body`.
    ResponseBody,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "path variable `{name}`"),
            Self::Body => f.write_str("body"),
            Self::ResponseBody => f.write_str("response_body"),
        }
    }
}

/// Where a request gives a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A variable of the path.
    Path,
    /// A parameter of the query.
    Query,
}

/// Which value of a request does not fit, and why: always the client's mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterError {
    /// Where it is.
    pub source: Source,
    /// The variable as the template writes it, or the parameter as the query does.
    pub name: String,
    /// What is wrong with it.
    pub reason: ParameterReason,
}

/// What is wrong with a value of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterReason {
    /// The name or the value is not valid percent-encoding.
    Escape(EscapeError),
    /// There is no such parameter.
    Unknown,
    /// The field is given by the body.
    InBody,
    /// The field, or another member of its oneof, is given by the path.
    InPath,
    /// A parameter that takes one value has two.
    Twice,
    /// Another parameter sets another member of the same oneof.
    Oneof {
        /// The oneof's name.
        oneof: String,
    },
    /// The field is a message: its fields are parameters, it is none.
    Message {
        /// The message's full name.
        message: String,
    },
    /// The field is a list of messages, which a query can't give.
    Repeated,
    /// The field is a map: a parameter gives one entry.
    Map,
    /// Something follows the name of a field that can't go on.
    Through {
        /// The field's name.
        part: String,
        /// What it is.
        what: &'static str,
    },
    /// The text is no value of the field.
    Value {
        /// The text, cut if it is long.
        text: String,
        /// What would be right.
        expected: String,
    },
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, name, reason } = self;
        match source {
            Source::Path => write!(f, "path variable `{name}`: ")?,
            Source::Query => write!(f, "query parameter `{name}`: ")?,
        }
        match reason {
            ParameterReason::Escape(error) => error.fmt(f),
            ParameterReason::Unknown => f.write_str("there is no such parameter"),
            ParameterReason::InBody => f.write_str("the field is given by the body"),
            ParameterReason::InPath => f.write_str("the field is given by the path"),
            ParameterReason::Twice => f.write_str("it is given twice, and takes one value"),
            ParameterReason::Oneof { oneof } => {
                write!(f, "another member of the oneof `{oneof}` is given already")
            }
            ParameterReason::Message { message } => {
                write!(f, "it is a {message}, whose fields are given as `{name}.field`")
            }
            ParameterReason::Repeated => f.write_str("it is a list of messages, which only a body can give"),
            ParameterReason::Map => f.write_str("it is a map, whose entries are given as `map[key]=value`"),
            ParameterReason::Through { part, what } => {
                write!(f, "`{part}` is {what}, so nothing can follow it")
            }
            ParameterReason::Value { text, expected } => write!(f, "`{text}` is not {expected}"),
        }
    }
}

impl std::error::Error for ParameterError {}

/// 64: enough to recognise a value, too little to carry one into a log.
const EXCERPT_CHARACTERS: usize = 64;

/// The beginning of a value, for an error.
pub(super) fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARACTERS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
