//! What a declaration means: features resolved from edition or syntax, file, message, oneof and field.
//!
//! Source: "Feature settings for editions" of protobuf.dev; the defaults of `FeatureSetDefaults`.

use std::fmt;

use bytes::Bytes;
use prost::Message;

use super::descriptor::{
    EDITION_2023, EDITION_2024, EnumOptions, EnumType, Features, Field, FieldOptions, File, FileOptions,
    MessageOptions, MessageType, Oneof, OneofOptions, kind, label,
};

/// Whether a field can be told from one that holds its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It can.
    Explicit,
    /// It cannot: the default is not written.
    Implicit,
    /// It must be there.
    Required,
}

/// The features that hold for one declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a feature of its own")]
pub struct Resolved {
    /// Of singular fields.
    pub presence: Presence,
    /// An enum refuses numbers that it does not declare.
    pub closed: bool,
    /// A repeated scalar is written packed.
    pub packed: bool,
    /// A message is written between tags, as a group.
    pub delimited: bool,
    /// Strings are checked to be UTF-8.
    pub verify_utf8: bool,
}

/// Why a descriptor could not be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditionError {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub reason: EditionReason,
}

/// What is wrong with a descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EditionReason {
    /// The bytes are no `FileDescriptorProto`.
    Malformed,
    /// The syntax is none that is known.
    Syntax(String),
    /// The edition is older or newer than those known.
    Edition(i32),
}

impl fmt::Display for EditionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.reason)
    }
}

impl fmt::Display for EditionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("the bytes are not a file descriptor"),
            Self::Syntax(syntax) => write!(f, "the syntax `{syntax}` is not known"),
            Self::Edition(number) => {
                write!(
                    f,
                    "edition {number} is not known; 2023 (1000) and 2024 (1001) are"
                )
            }
        }
    }
}

impl std::error::Error for EditionError {}

/// The same file in the older syntax that comes closest, for readers that know no editions; other files as they are.
///
/// A file with a field without presence becomes proto3, where a required field counts as an optional one; any other
/// becomes proto2. The files themselves stay the truth: plans for messages are compiled from them.
///
/// # Errors
/// [`EditionError`] for bytes that are no descriptor, or an edition that is not known.
pub fn lower(bytes: &Bytes) -> Result<Bytes, EditionError> {
    // Most files need no decoding to be known as what they are.
    if memchr::memmem::find(bytes, b"editions").is_none() {
        return Ok(bytes.clone());
    }
    let mut file = decode(bytes)?;
    if file.syntax.as_deref() != Some("editions") {
        return Ok(bytes.clone());
    }
    let features = Resolved::file(&file)?;
    let mut wanted = Wanted {
        implicit: false,
        nonzero: file.enum_type.iter().any(starts_above_zero),
    };
    for message in &file.message_type {
        wanted.look(message, features);
    }
    let proto3 = wanted.implicit && !wanted.nonzero;
    let lowering = Lowering { proto3 };
    for message in &mut file.message_type {
        lowering.message(message, features);
    }
    for field in &mut file.extension {
        lowering.field(field, features, None, false);
    }
    file.dependency.append(&mut file.option_dependency);
    file.syntax = Some(if proto3 { "proto3" } else { "proto2" }.to_owned());
    file.edition = None;
    Ok(file.encode_to_vec().into())
}

/// What decides the syntax of a lowered file.
struct Wanted {
    implicit: bool,
    nonzero: bool,
}

impl Wanted {
    fn look(&mut self, message: &MessageType, outer: Resolved) {
        let features = outer.message(message);
        self.nonzero |= message.enum_type.iter().any(starts_above_zero);
        self.implicit |= message.field.iter().any(|field| {
            let singular = field.label != Some(label::REPEATED);
            singular && features.field(field, oneof_of(message, field)).presence == Presence::Implicit
        });
        for nested in &message.nested_type {
            self.look(nested, features);
        }
    }
}

fn starts_above_zero(declared: &EnumType) -> bool {
    declared
        .value
        .first()
        .is_some_and(|value| value.number.unwrap_or_default() != 0)
}

fn oneof_of<'a>(message: &'a MessageType, field: &Field) -> Option<&'a Oneof> {
    message.oneof_decl.get(usize::try_from(field.oneof_index?).ok()?)
}

struct Lowering {
    proto3: bool,
}

impl Lowering {
    fn message(&self, message: &mut MessageType, outer: Resolved) {
        let features = outer.message(message);
        let entry = message_options(message).map_entry == Some(true);
        let oneofs = message.oneof_decl.clone();
        for field in &mut message.field {
            let oneof = field
                .oneof_index
                .and_then(|index| oneofs.get(usize::try_from(index).ok()?));
            self.field(field, features, oneof, entry);
        }
        for field in &mut message.extension {
            self.field(field, features, None, false);
        }
        for nested in &mut message.nested_type {
            self.message(nested, features);
        }
    }

    fn field(&self, field: &mut Field, features: Resolved, oneof: Option<&Oneof>, of_entry: bool) {
        let found = features.field(field, oneof);
        let is_message = matches!(field.r#type, Some(kind::GROUP | kind::MESSAGE));
        if field.label == Some(label::REPEATED) {
            // Packing is no choice for strings, bytes and messages, whose types are 9 to 12.
            if !matches!(field.r#type, Some(9..=12)) {
                let mut options = field.options.take().unwrap_or_default().to_vec();
                // `packed` is field 2 of the options; the last one counts.
                options.extend([0x10, u8::from(found.packed)]);
                field.options = Some(options.into());
            }
        } else if found.presence == Presence::Required && !self.proto3 {
            field.label = Some(label::REQUIRED);
        } else if self.proto3
            && found.presence != Presence::Implicit
            && !is_message
            && field.oneof_index.is_none()
            && field.extendee.is_none()
            && !of_entry
        {
            field.proto3_optional = Some(true);
        }
        if found.delimited && is_message && !of_entry && field.name.as_deref().is_some() && !is_map(field) {
            field.r#type = Some(kind::GROUP);
        }
    }
}

/// Whether a field's type is named as the entry of a map is, which is never delimited.
fn is_map(field: &Field) -> bool {
    let entry = field
        .type_name
        .as_deref()
        .and_then(|name| name.rsplit('.').next())
        .unwrap_or_default();
    field.label == Some(label::REPEATED) && entry == entry_name(field.name.as_deref().unwrap_or_default())
}

/// `PagesByTitleEntry` for `pages_by_title`: the name that every compiler gives to the entries of a map.
fn entry_name(field: &str) -> String {
    let mut name = String::with_capacity(field.len() + 5);
    let mut upper = true;
    for letter in field.chars() {
        if letter == '_' {
            upper = true;
        } else {
            name.push(if upper {
                letter.to_ascii_uppercase()
            } else {
                letter
            });
            upper = false;
        }
    }
    name.push_str("Entry");
    name
}

/// Decodes a file and refuses a syntax or an edition that is not known.
///
/// # Errors
/// [`EditionError`] that names the file.
pub fn decode(bytes: &Bytes) -> Result<File, EditionError> {
    let Ok(file) = File::decode(bytes.clone()) else {
        return Err(EditionError {
            file: String::new(),
            reason: EditionReason::Malformed,
        });
    };
    defaults(&file)?;
    Ok(file)
}

fn defaults(file: &File) -> Result<Resolved, EditionError> {
    let fail = |reason| {
        Err(EditionError {
            file: file.name.clone().unwrap_or_default(),
            reason,
        })
    };
    let proto2 = Resolved {
        presence: Presence::Explicit,
        closed: true,
        packed: false,
        delimited: false,
        verify_utf8: false,
    };
    let edition = Resolved {
        closed: false,
        packed: true,
        verify_utf8: true,
        ..proto2
    };
    match (file.syntax.as_deref(), file.edition.unwrap_or_default()) {
        (None | Some("" | "proto2"), _) => Ok(proto2),
        (Some("proto3"), _) => Ok(Resolved {
            presence: Presence::Implicit,
            ..edition
        }),
        (Some("editions"), EDITION_2023 | EDITION_2024) => Ok(edition),
        (Some("editions"), number) => fail(EditionReason::Edition(number)),
        (Some(syntax), _) => fail(EditionReason::Syntax(syntax.to_owned())),
    }
}

impl Resolved {
    /// What holds for the declarations of a file.
    ///
    /// # Errors
    /// [`EditionError`] for a syntax or an edition that is not known.
    pub fn file(file: &File) -> Result<Self, EditionError> {
        let options: FileOptions = options(file.options.as_ref());
        Ok(defaults(file)?.with(options.features))
    }

    /// What holds inside a message.
    #[must_use]
    pub fn message(self, message: &MessageType) -> Self {
        self.with(message_options(message).features)
    }

    /// What holds for an enum.
    #[must_use]
    pub fn enumeration(self, enumeration: &EnumType) -> Self {
        let options: EnumOptions = options(enumeration.options.as_ref());
        self.with(options.features)
    }

    /// What holds for a field or an extension; `oneof` is the one that it is declared in.
    #[must_use]
    pub fn field(self, field: &Field, oneof: Option<&Oneof>) -> Self {
        let declared: FieldOptions = options(field.options.as_ref());
        let group: OneofOptions = options(oneof.and_then(|oneof| oneof.options.as_ref()));
        let mut found = self.with(group.features).with(declared.features);
        if let Some(packed) = declared.packed {
            found.packed = packed;
        }
        if field.r#type == Some(kind::GROUP) {
            found.delimited = true;
        }
        let singular_message = matches!(field.r#type, Some(kind::GROUP | kind::MESSAGE));
        if field.label == Some(label::REQUIRED) {
            found.presence = Presence::Required;
        } else if found.presence == Presence::Implicit
            && (singular_message
                || field.oneof_index.is_some()
                || field.proto3_optional == Some(true)
                || field.extendee.is_some())
        {
            found.presence = Presence::Explicit;
        }
        found
    }

    fn with(mut self, features: Option<Features>) -> Self {
        let Some(features) = features else { return self };
        match features.field_presence {
            Some(1) => self.presence = Presence::Explicit,
            Some(2) => self.presence = Presence::Implicit,
            Some(3) => self.presence = Presence::Required,
            _ => {}
        }
        set(&mut self.closed, features.enum_type, 2, 1);
        set(&mut self.packed, features.repeated_field_encoding, 1, 2);
        set(&mut self.delimited, features.message_encoding, 2, 1);
        set(&mut self.verify_utf8, features.utf8_validation, 2, 3);
        self
    }
}

fn set(flag: &mut bool, value: Option<i32>, yes: i32, no: i32) {
    if value == Some(yes) {
        *flag = true;
    } else if value == Some(no) {
        *flag = false;
    }
}

/// The options of a message that change how it is written.
pub fn message_options(message: &MessageType) -> MessageOptions {
    options(message.options.as_ref())
}

/// Options that do not decode are taken as unset: protobuf's own parsers keep what they do not understand.
fn options<T: Message + Default>(raw: Option<&Bytes>) -> T {
    raw.and_then(|bytes| T::decode(bytes.clone()).ok())
        .unwrap_or_default()
}
