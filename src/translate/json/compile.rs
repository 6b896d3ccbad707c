//! From descriptors to a plan.

mod parts;

use std::collections::HashMap;

use bytes::Bytes;

use self::parts::{accepts, called, camel_case, dense, enumeration, form};
use super::names::Names;
use super::plan::{Bits, Enum, Field, Form, Key, Kind, Message, NONE, Plan, Shape, Spelling, Tag, wire};
use super::{JsonOptions, PlanError};
use crate::schema::descriptor::{self, EnumType, File, MessageType, kind, label};
use crate::schema::editions::{self, Presence, Resolved};

/// Compiles all messages of a set of files, which may be in any order.
pub(super) fn compile(files: &[Bytes], options: JsonOptions) -> Result<Plan, PlanError> {
    let files = files
        .iter()
        .map(editions::decode)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| PlanError {
            name: error.file,
            reason: "the file is no descriptor, or of a syntax or edition that is not known",
        })?;
    let mut found = Found::default();
    for file in &files {
        found.file(file)?;
    }
    found.plan(options)
}

/// Every declaration with the features that hold for it.
#[derive(Default)]
struct Found<'a> {
    messages: Vec<(String, &'a MessageType, Resolved)>,
    enums: Vec<(String, &'a EnumType, Resolved)>,
    extensions: Vec<(String, &'a descriptor::Field, Resolved)>,
    message_ids: HashMap<String, u32>,
    enum_ids: HashMap<String, u32>,
}

impl<'a> Found<'a> {
    fn file(&mut self, file: &'a File) -> Result<(), PlanError> {
        let fail = |error: editions::EditionError| PlanError {
            name: error.file,
            reason: "the edition is not known",
        };
        let features = Resolved::file(file).map_err(fail)?;
        let scope = file.package.as_deref().unwrap_or_default();
        for message in &file.message_type {
            self.message(scope, message, features);
        }
        for declared in &file.enum_type {
            self.enumeration(scope, declared, features);
        }
        self.extensions(scope, &file.extension, features);
        Ok(())
    }

    fn message(&mut self, scope: &str, message: &'a MessageType, outer: Resolved) {
        let name = join(scope, message.name.as_deref());
        let features = outer.message(message);
        for nested in &message.nested_type {
            self.message(&name, nested, features);
        }
        for declared in &message.enum_type {
            self.enumeration(&name, declared, features);
        }
        self.extensions(&name, &message.extension, features);
        self.message_ids.insert(name.clone(), id(self.messages.len()));
        self.messages.push((name, message, features));
    }

    fn enumeration(&mut self, scope: &str, declared: &'a EnumType, outer: Resolved) {
        let name = join(scope, declared.name.as_deref());
        self.enum_ids.insert(name.clone(), id(self.enums.len()));
        self.enums.push((name, declared, outer.enumeration(declared)));
    }

    fn extensions(&mut self, scope: &str, fields: &'a [descriptor::Field], outer: Resolved) {
        for field in fields {
            self.extensions.push((
                join(scope, field.name.as_deref()),
                field,
                outer.field(field, None),
            ));
        }
    }

    fn plan(&self, options: JsonOptions) -> Result<Plan, PlanError> {
        let enums = self
            .enums
            .iter()
            .map(|(name, declared, _)| enumeration(name, declared, options));
        let enums = enums.collect::<Result<Box<[_]>, _>>()?;
        let mut extensions: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, (_, field, _)) in self.extensions.iter().enumerate() {
            let extendee = field
                .extendee
                .as_deref()
                .unwrap_or_default()
                .trim_start_matches('.');
            extensions.entry(extendee).or_default().push(index);
        }
        let mut compiler = Compiler {
            found: self,
            enums: &enums,
            options,
            rows: 0,
            hints: 0,
        };
        let mut messages = Vec::with_capacity(self.messages.len());
        for (name, message, features) in &self.messages {
            let more = extensions.get(name.as_str()).map_or(&[][..], Vec::as_slice);
            messages.push(compiler.message(name, message, *features, more)?);
        }
        let (rows, hints) = (compiler.rows, compiler.hints);
        let by_name = self
            .message_ids
            .iter()
            .map(|(name, id)| (name.as_str().into(), *id))
            .collect();
        Ok(Plan {
            serial: Plan::serial(),
            messages: messages.into(),
            enums,
            by_name,
            options,
            rows,
            hints,
        })
    }
}

struct Compiler<'a> {
    found: &'a Found<'a>,
    enums: &'a [Enum],
    options: JsonOptions,
    rows: usize,
    hints: usize,
}

impl Compiler<'_> {
    fn message(
        &mut self,
        name: &str,
        message: &MessageType,
        features: Resolved,
        extensions: &[usize],
    ) -> Result<Message, PlanError> {
        let fail = |reason| PlanError {
            name: name.to_owned(),
            reason,
        };
        let mut members = Vec::new();
        for field in &message.field {
            let oneof = usize::try_from(field.oneof_index.unwrap_or(-1)).ok();
            let oneof = oneof.and_then(|index| message.oneof_decl.get(index));
            members.push(
                self.field(field, features.field(field, oneof), None)
                    .ok_or_else(|| fail(BAD_FIELD))?,
            );
        }
        // The items of a message set have a form of their own on the wire, which is not supported.
        let set = editions::message_options(message).message_set_wire_format == Some(true);
        let extensions = if set { &[][..] } else { extensions };
        for (extension, field, features) in extensions.iter().filter_map(|&at| self.found.extensions.get(at))
        {
            let bracketed = format!("[{extension}]");
            members.push(
                self.field(field, *features, Some(&bracketed))
                    .ok_or_else(|| fail(BAD_FIELD))?,
            );
        }
        members.sort_by_key(|member| member.field.number);
        members.dedup_by_key(|member| member.field.number);
        let count = members.len();
        if count + message.oneof_decl.len() >= usize::from(NONE) / 2 {
            return Err(fail(TOO_MANY));
        }
        for member in &mut members {
            // The bit of a oneof follows the bits of all fields.
            if let Some(index) = member.oneof.and_then(|index| u16::try_from(count + index).ok()) {
                member.field.oneof = index;
            }
        }
        let called = called(&members);
        let spellings: Box<[Spelling]> = called
            .iter()
            .map(|(name, field)| Spelling::new(name, *field))
            .collect();
        let names = called
            .iter()
            .zip(0..)
            .map(|((name, _), index)| (name.as_bytes().into(), index));
        let names = Names::new(names).ok_or_else(|| fail(TOO_MANY))?;
        let fields: Box<[Field]> = members.into_iter().map(|member| member.field).collect();
        let bits = count + message.oneof_decl.len();
        let numbered = |test: fn(&Field) -> bool| {
            fields
                .iter()
                .enumerate()
                .filter(move |(_, field)| test(field))
                .map(|(index, _)| index)
        };
        let row = self.rows;
        self.rows += spellings.len() + 1;
        Ok(Message {
            form: form(name),
            dense: dense(&fields),
            spellings,
            names,
            bits,
            required: Bits::new(bits, numbered(|field| field.required)),
            always: Bits::new(bits, numbered(|field| !field.default.is_empty())),
            oneofs: message
                .oneof_decl
                .iter()
                .map(|oneof| oneof.name.clone().unwrap_or_default().into())
                .collect(),
            row,
            fields,
        })
    }

    fn field(
        &mut self,
        field: &descriptor::Field,
        features: Resolved,
        bracketed: Option<&str>,
    ) -> Option<Member> {
        let number = u32::try_from(field.number?)
            .ok()
            .filter(|number| (1..1 << 29).contains(number))?;
        let name = field.name.as_deref()?;
        let mut of = self.kind(field, features)?;
        let mut shape = match features.presence {
            _ if field.label == Some(label::REPEATED) => {
                if features.packed && of.packable() {
                    Shape::Packed
                } else {
                    Shape::List
                }
            }
            Presence::Implicit => Shape::Implicit,
            Presence::Explicit | Presence::Required => Shape::Explicit,
        };
        if let Some((key, value)) = self.entry(field) {
            (shape, of) = (Shape::Map(key), value);
        }
        let tag = match shape {
            Shape::Packed | Shape::Map(_) => Tag::new(number, wire::LEN),
            Shape::Implicit | Shape::Explicit | Shape::List => Tag::new(number, of.wire()),
        };
        let json = match (bracketed, field.json_name.as_deref()) {
            (Some(bracketed), _) => bracketed.to_owned(),
            (None, Some(json)) if !json.is_empty() => json.to_owned(),
            (None, _) => camel_case(name),
        };
        let proto = bracketed.unwrap_or(name).to_owned();
        let written = if self.options.proto_names { &proto } else { &json };
        let mut key = serde_json::to_vec(written).ok()?;
        key.push(b':');
        let singular = matches!(shape, Shape::Implicit | Shape::Explicit);
        let oneof = usize::try_from(field.oneof_index.unwrap_or(-1)).ok();
        let field = Field {
            number,
            kind: of,
            shape,
            tag,
            one: Tag::new(number, of.wire()),
            run: Tag::new(number, wire::LEN),
            wire: of.wire(),
            accepts: accepts(of, shape),
            oneof: NONE,
            is_null: singular && self.takes_null(of),
            takes_null: self.takes_null(of),
            required: singular && features.presence == Presence::Required,
            closed: matches!(of, Kind::Enum(id) if self.closed(id)),
            hint: self.hints,
            name: bracketed.unwrap_or(name).into(),
            default: if bracketed.is_some() {
                Box::default()
            } else {
                self.default(&key, of, shape)
            },
            key: Key::new(key),
        };
        self.hints += 1;
        Some(Member {
            field,
            json,
            proto,
            oneof,
        })
    }

    /// The kinds of key and value if the field is a map.
    fn entry(&self, field: &descriptor::Field) -> Option<(Kind, Kind)> {
        if field.label != Some(label::REPEATED) || field.r#type != Some(kind::MESSAGE) {
            return None;
        }
        let (_, entry, features) = self.found.messages.get(self.message_id(field)? as usize)?;
        if editions::message_options(entry).map_entry != Some(true) {
            return None;
        }
        let part = |number| entry.field.iter().find(|part| part.number == Some(number));
        // A message in a map is never delimited, whatever the file says of messages.
        let plain = Resolved {
            delimited: false,
            ..*features
        };
        Some((self.kind(part(1)?, plain)?, self.kind(part(2)?, plain)?))
    }

    fn message_id(&self, field: &descriptor::Field) -> Option<u32> {
        self.found
            .message_ids
            .get(field.type_name.as_deref()?.trim_start_matches('.'))
            .copied()
    }

    fn enum_id(&self, field: &descriptor::Field) -> Option<u32> {
        self.found
            .enum_ids
            .get(field.type_name.as_deref()?.trim_start_matches('.'))
            .copied()
    }

    /// The numbers of `FieldDescriptorProto.Type`.
    fn kind(&self, field: &descriptor::Field, features: Resolved) -> Option<Kind> {
        Some(match field.r#type? {
            1 => Kind::Double,
            2 => Kind::Float,
            3 => Kind::Int64,
            4 => Kind::Uint64,
            5 => Kind::Int32,
            6 => Kind::Fixed64,
            7 => Kind::Fixed32,
            8 => Kind::Bool,
            9 => Kind::String,
            kind::GROUP => Kind::Group(self.message_id(field)?),
            kind::MESSAGE if features.delimited => Kind::Group(self.message_id(field)?),
            kind::MESSAGE => Kind::Message(self.message_id(field)?),
            12 => Kind::Bytes,
            13 => Kind::Uint32,
            14 => Kind::Enum(self.enum_id(field)?),
            15 => Kind::Sfixed32,
            16 => Kind::Sfixed64,
            17 => Kind::Sint32,
            18 => Kind::Sint64,
            _ => return None,
        })
    }

    fn takes_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(id) | Kind::Group(id) => self
                .found
                .messages
                .get(id as usize)
                .is_some_and(|message| form(&message.0) == Form::Value),
            Kind::Enum(id) => self.enums.get(id as usize).is_some_and(|declared| declared.null),
            _ => false,
        }
    }

    fn closed(&self, id: u32) -> bool {
        self.found
            .enums
            .get(id as usize)
            .is_some_and(|declared| declared.2.closed)
    }

    /// `"name":default,` of a field that is written although it is absent.
    fn default(&self, key: &[u8], kind: Kind, shape: Shape) -> Box<[u8]> {
        let value = match shape {
            _ if !self.options.emit_defaults => return Box::default(),
            Shape::Explicit => return Box::default(),
            Shape::List | Shape::Packed => b"[]",
            Shape::Map(_) => b"{}",
            Shape::Implicit => self.zero(kind),
        };
        [key, value, b","].concat().into()
    }

    /// The text of the default of a kind.
    fn zero(&self, kind: Kind) -> &[u8] {
        let number: &[u8] = b"0";
        match kind {
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64
                if !self.options.int64_as_numbers =>
            {
                b"\"0\""
            }
            Kind::Bool => b"false",
            Kind::String | Kind::Bytes => b"\"\"",
            Kind::Message(_) | Kind::Group(_) => b"{}",
            Kind::Enum(id) => match self.enums.get(id as usize) {
                Some(declared) if declared.null => b"null",
                Some(declared) if !self.options.enums_as_ints => declared.text(0).unwrap_or(number),
                Some(_) | None => number,
            },
            _ => number,
        }
    }
}

/// A field, and what its message needs to know of it.
struct Member {
    field: Field,
    json: String,
    proto: String,
    oneof: Option<usize>,
}

const BAD_FIELD: &str = "one of its fields has no number, or a type that is not declared";
const TOO_MANY: &str = "it has more fields than are supported";

fn join(scope: &str, name: Option<&str>) -> String {
    let name = name.unwrap_or_default();
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}

/// Descriptors of four billion declarations do not fit in memory.
fn id(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}
