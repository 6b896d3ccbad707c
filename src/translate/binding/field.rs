//! Fields by their dotted names, and how the text of one stands for its value.

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use smallvec::SmallVec;

/// The numbers of the fields on the way to a field, its own last.
pub(super) type Numbers = SmallVec<[u32; 4]>;

/// A field of a message or of the singular messages inside it: all but the last are singular messages.
#[derive(Clone, Debug)]
pub(super) struct FieldPath {
    pub(super) steps: SmallVec<[FieldDescriptor; 2]>,
}

/// Why a dotted name leads to no field. Each holds the part of the name that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathProblem {
    /// There is no such field.
    Unknown { part: String, message: String },
    /// There is such a field, and the name can't go on through it.
    Through { part: String, what: &'static str },
}

impl FieldPath {
    /// Follows names, each a proto name or a JSON name.
    pub(super) fn resolve<'n>(
        root: &MessageDescriptor,
        names: impl Iterator<Item = &'n str>,
    ) -> Result<Self, PathProblem> {
        let mut steps: SmallVec<[FieldDescriptor; 2]> = SmallVec::new();
        let mut message = root.clone();
        for name in names {
            if let Some(last) = steps.last() {
                message = inside(last)?;
            }
            let field = named(&message, name).ok_or_else(|| PathProblem::Unknown {
                part: name.to_owned(),
                message: message.full_name().to_owned(),
            })?;
            steps.push(field);
        }
        Ok(Self { steps })
    }

    pub(super) fn numbers(&self) -> Numbers {
        self.steps.iter().map(FieldDescriptor::number).collect()
    }

    /// The field itself.
    pub(super) fn leaf(&self) -> Option<&FieldDescriptor> {
        self.steps.last()
    }

    /// The path in proto names.
    pub(super) fn name(&self) -> String {
        let names: Vec<&str> = self.steps.iter().map(FieldDescriptor::name).collect();
        names.join(".")
    }

    /// The members of oneofs that the path sets, the field itself or a message on the way.
    pub(super) fn choices(&self) -> impl Iterator<Item = Choice> {
        self.steps.iter().enumerate().filter_map(|(depth, field)| {
            let within = self.steps.get(..depth)?;
            Some(Choice {
                within: within.iter().map(FieldDescriptor::number).collect(),
                oneof: oneof(field)?,
                member: field.number(),
            })
        })
    }

    /// The paths of the other members of those oneofs.
    pub(super) fn siblings(&self) -> Vec<Self> {
        let mut siblings = Vec::new();
        for (depth, field) in self.steps.iter().enumerate() {
            let Some(oneof) = field.containing_oneof() else {
                continue;
            };
            for other in oneof.fields().filter(|other| other != field) {
                let mut steps: SmallVec<_> = self.steps.iter().take(depth).cloned().collect();
                steps.push(other);
                siblings.push(Self { steps });
            }
        }
        siblings
    }
}

/// The field with this proto name or JSON name.
pub(super) fn named(message: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    message
        .get_field_by_name(name)
        .or_else(|| message.get_field_by_json_name(name))
}

/// The message whose fields can be named after this field.
fn inside(field: &FieldDescriptor) -> Result<MessageDescriptor, PathProblem> {
    let through = |what| PathProblem::Through {
        part: field.name().to_owned(),
        what,
    };
    if field.is_map() {
        return Err(through("a map"));
    }
    if field.is_list() {
        return Err(through("repeated"));
    }
    match field.kind() {
        Kind::Message(message) if is_whole(&message) => Err(through("given as a whole")),
        Kind::Message(message) => Ok(message),
        _ => Err(through("not a message")),
    }
}

/// Whether a message has a JSON form of its own, so that its fields have no names there.
pub(super) fn is_whole(message: &MessageDescriptor) -> bool {
    message.full_name() == "google.protobuf.Any" || Shape::of(&Kind::Message(message.clone())).is_some()
}

/// Which member of a oneof a path sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// The message that has the oneof.
    pub(super) within: Numbers,
    /// The number of the oneof's first member, which stands for it.
    pub(super) oneof: u32,
    pub(super) member: u32,
}

impl Choice {
    /// Whether both can't be set.
    pub(super) fn excludes(&self, other: &Self) -> bool {
        self.oneof == other.oneof && self.member != other.member && self.within == other.within
    }
}

/// The oneof that a field is a member of; an `optional` field is alone in one, which is none.
fn oneof(field: &FieldDescriptor) -> Option<u32> {
    let oneof = field.containing_oneof()?;
    if field.field_descriptor_proto().proto3_optional() {
        return None;
    }
    oneof.fields().map(|member| member.number()).min()
}

/// How a text stands for a value.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Text,
    Bytes,
    Bool,
    /// A number without a fraction: what its range is.
    Whole(&'static str),
    Float(&'static str),
    Enum(EnumDescriptor),
    Timestamp,
    Duration,
    FieldMask,
    Json(JsonText),
}

/// Which JSON texts a value can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JsonText {
    Object,
    Array,
    Any,
}

impl Shape {
    /// The shape of one value of a kind; nothing for a message that has fields to name.
    pub(super) fn of(kind: &Kind) -> Option<Self> {
        Some(match kind {
            Kind::String => Self::Text,
            Kind::Bytes => Self::Bytes,
            Kind::Bool => Self::Bool,
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Self::Whole("from -2147483648 to 2147483647"),
            Kind::Uint32 | Kind::Fixed32 => Self::Whole("from 0 to 4294967295"),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                Self::Whole("from -9223372036854775808 to 9223372036854775807")
            }
            Kind::Uint64 | Kind::Fixed64 => Self::Whole("from 0 to 18446744073709551615"),
            Kind::Float => Self::Float("float"),
            Kind::Double => Self::Float("double"),
            Kind::Enum(kind) => Self::Enum(kind.clone()),
            Kind::Message(message) => return Self::of_message(message),
        })
    }

    fn of_message(message: &MessageDescriptor) -> Option<Self> {
        let name = message.full_name().strip_prefix("google.protobuf.")?;
        Some(match name {
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "FieldMask" => Self::FieldMask,
            "Struct" => Self::Json(JsonText::Object),
            "ListValue" => Self::Json(JsonText::Array),
            "Value" => Self::Json(JsonText::Any),
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => {
                return Self::of(&message.get_field(1)?.kind());
            }
            _ => return None,
        })
    }

    /// Whether the shape is a scalar's, which a path can hold.
    pub(super) fn is_scalar(&self) -> bool {
        !matches!(self, Self::Json(_))
    }

    /// What a text has to be, for a message.
    pub(super) fn expected(&self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Bytes => "base64, of either alphabet".to_owned(),
            Self::Bool => "`true` or `false`".to_owned(),
            Self::Whole(range) => format!("a whole number {range}"),
            Self::Float(kind) => format!("a number that a {kind} holds, `NaN`, `Infinity` or `-Infinity`"),
            Self::Enum(kind) => expected_enum(kind),
            Self::Timestamp => "a timestamp such as `2024-02-29T12:30:00Z`".to_owned(),
            Self::Duration => "a duration in seconds such as `1.5s`".to_owned(),
            Self::FieldMask => "field names separated by commas, such as `title,author.name`".to_owned(),
            Self::Json(JsonText::Object) => "a JSON object".to_owned(),
            Self::Json(JsonText::Array) => "a JSON array".to_owned(),
            Self::Json(JsonText::Any) => "a JSON text, in which a string has quotes".to_owned(),
        }
    }
}

/// 8: an error is to be read, and the longest enums have hundreds of values.
const SHOWN_VALUES: usize = 8;

fn expected_enum(kind: &EnumDescriptor) -> String {
    // In the order in which they are declared.
    let values = &kind.enum_descriptor_proto().value;
    let shown: Vec<String> = values
        .iter()
        .take(SHOWN_VALUES)
        .map(|value| format!("`{}`", value.name()))
        .collect();
    let more = if values.len() > SHOWN_VALUES {
        " and more"
    } else {
        ""
    };
    format!("one of {}{more}, or its number", shown.join(", "))
}
