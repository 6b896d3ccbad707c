//! The JSON form through prost-reflect's dynamic messages: simple, slow, and the judge of the compiled plans.

use std::collections::{HashMap, HashSet};

use bytes::{BufMut, BytesMut};
use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage,
};
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::mask::Rule;
use super::{
    JsonError, JsonOptions, JsonReason, MAX_DEPTH, Mask, MaskError, MessageId, Target, UnknownFields,
    WireError, WireReason,
};

#[derive(Debug)]
pub(super) struct Reflected {
    messages: Vec<MessageDescriptor>,
    by_name: HashMap<String, u32>,
    options: JsonOptions,
}

impl Reflected {
    pub(super) fn new(pool: &DescriptorPool, options: JsonOptions) -> Self {
        let messages: Vec<_> = pool.all_messages().collect();
        let by_name = messages
            .iter()
            .zip(0_u32..)
            .map(|(message, id)| (message.full_name().to_owned(), id))
            .collect();
        Self {
            messages,
            by_name,
            options,
        }
    }

    pub(super) fn message(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied().map(MessageId)
    }

    fn descriptor(&self, id: MessageId) -> Option<MessageDescriptor> {
        self.messages.get(id.0 as usize).cloned()
    }

    pub(super) fn mask(&self, message: MessageId, paths: &[&str]) -> Result<Mask, MaskError> {
        let mut mask = Mask::new();
        for path in paths {
            let mut at = self.descriptor(message);
            let mut numbers = Vec::new();
            for part in path.split('.') {
                let field = at.as_ref().and_then(|message| message.get_field_by_name(part));
                let Some(field) = field else {
                    return Err(MaskError {
                        path: (*path).to_owned(),
                        part: part.to_owned(),
                    });
                };
                numbers.push(field.number());
                at = if field.is_list() {
                    None
                } else {
                    field.kind().as_message().cloned()
                };
            }
            mask.insert(&numbers);
        }
        Ok(mask)
    }

    pub(super) fn read(
        &self,
        target: Target,
        owned: Option<&Mask>,
        json: &[u8],
        out: &mut BytesMut,
        limit: usize,
    ) -> Result<(), JsonError> {
        let Some(message) = self.descriptor(target.message()) else {
            return Err(broken("a message"));
        };
        if json.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        let wrapped = match target {
            Target::Message(_) => None,
            Target::Field { number, .. } => {
                let Some(field) = message.get_field(number) else {
                    return Err(broken("a field"));
                };
                Some([format!("{{\"{}\":", field.json_name()).as_bytes(), json, b"}"].concat())
            }
        };
        let json = wrapped.as_deref().unwrap_or(json);
        let check = Check {
            owned,
            node: 0,
            message: Some(message.clone()),
            depth: 0,
        };
        let mut strict = serde_json::Deserializer::from_slice(json);
        check
            .deserialize(&mut strict)
            .and_then(|()| strict.end())
            .map_err(|error| place(&error))?;
        let options = prost_reflect::DeserializeOptions::new()
            .deny_unknown_fields(self.options.unknown_fields == UnknownFields::Reject);
        let mut input = serde_json::Deserializer::from_slice(json);
        let value = DynamicMessage::deserialize_with_options(message, &mut input, &options)
            .map_err(|error| place(&error))?;
        let size = value.encoded_len();
        if size > limit {
            return Err(JsonError {
                path: String::new(),
                line: 1,
                column: 1,
                reason: JsonReason::TooLarge { limit },
            });
        }
        out.put_slice(&value.encode_to_vec());
        Ok(())
    }

    pub(super) fn write(
        &self,
        target: Target,
        mask: Option<&Mask>,
        wire: &[u8],
        out: &mut BytesMut,
        limit: usize,
    ) -> Result<(), WireError> {
        let fail = |reason| WireError {
            path: String::new(),
            reason,
        };
        let descriptor = self
            .descriptor(target.message())
            .ok_or_else(|| fail(WireReason::Malformed))?;
        let mut message =
            DynamicMessage::decode(descriptor, wire).map_err(|_| fail(WireReason::Malformed))?;
        if let Some(mask) = mask {
            cover(&mut message, mask, 0);
        }
        let text = match target {
            Target::Message(_) => self.text(&message),
            Target::Field { number, .. } => self.field_text(&message, number),
        }
        .map_err(|_| fail(WireReason::NoJsonForm("message")))?;
        if text.len() > limit {
            return Err(fail(WireReason::TooLarge { limit }));
        }
        out.put_slice(&text);
        Ok(())
    }

    fn text(&self, message: &DynamicMessage) -> Result<Vec<u8>, serde_json::Error> {
        let options = prost_reflect::SerializeOptions::new()
            .skip_default_fields(!self.options.emit_defaults)
            .use_proto_field_name(self.options.proto_names)
            .use_enum_numbers(self.options.enums_as_ints)
            .stringify_64_bit_integers(!self.options.int64_as_numbers);
        let mut text = Vec::new();
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut text), &options)?;
        Ok(text)
    }

    /// The text of one field's value: what stands after its key in the text of a message that has it alone.
    fn field_text(&self, message: &DynamicMessage, number: u32) -> Result<Vec<u8>, serde_json::Error> {
        let Some(field) = message.descriptor().get_field(number) else {
            return Err(serde_json::Error::custom("no such field"));
        };
        if !message.has_field(&field) {
            return Ok(self.unset_text(&field));
        }
        let mut alone = DynamicMessage::new(message.descriptor());
        alone.set_field(&field, message.get_field(&field).into_owned());
        let value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&self.text(&alone)?)?;
        let key = if self.options.proto_names {
            field.name()
        } else {
            field.json_name()
        };
        serde_json::to_vec(&value.get(key))
    }

    fn unset_text(&self, field: &FieldDescriptor) -> Vec<u8> {
        let quoted = !self.options.int64_as_numbers;
        let text = if field.is_map() {
            "{}"
        } else if field.is_list() {
            "[]"
        } else if field.supports_presence() {
            "null"
        } else {
            match field.kind() {
                Kind::String | Kind::Bytes => "\"\"",
                Kind::Bool => "false",
                Kind::Enum(kind) if !self.options.enums_as_ints => {
                    return format!("\"{}\"", kind.default_value().name()).into_bytes();
                }
                Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64 if quoted => {
                    "\"0\""
                }
                _ => "0",
            }
        };
        text.into()
    }
}

fn cover(message: &mut DynamicMessage, mask: &Mask, node: u32) {
    for field in message.descriptor().fields() {
        match mask.rule(node, field.number()) {
            Some(Rule::All) => message.clear_field(&field),
            Some(Rule::Inside(next)) if message.has_field(&field) => {
                if let Some(inner) = message.get_field_mut(&field).as_message_mut() {
                    cover(inner, mask, next);
                }
            }
            Some(Rule::Inside(_)) | None => {}
        }
    }
}

fn broken(what: &'static str) -> JsonError {
    JsonError {
        path: String::new(),
        line: 1,
        column: 1,
        reason: JsonReason::Expected(what),
    }
}

/// serde gives the place and a sentence; the sentence becomes the text of the reason.
fn place(error: &serde_json::Error) -> JsonError {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    JsonError {
        path: String::new(),
        line: number(error.line()),
        column: number(error.column()),
        reason: JsonReason::Not {
            text: text.into(),
            expected: "valid for this message",
        },
    }
}

/// Checks what serde and prost-reflect let pass: fields given twice in either spelling, two members of a oneof,
/// fields that the path owns, and nesting.
struct Check<'a> {
    owned: Option<&'a Mask>,
    node: u32,
    message: Option<MessageDescriptor>,
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl Check<'_> {
    fn inside(&self, message: Option<MessageDescriptor>, mask: Option<u32>) -> Self {
        let owned = if mask.is_some() { self.owned } else { None };
        Check {
            owned,
            node: mask.unwrap_or(0),
            message,
            depth: self.depth + 1,
        }
    }

    fn enter<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth < MAX_DEPTH {
            return Ok(());
        }
        Err(E::custom("a nesting of more than 100 levels"))
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.enter()?;
        while items
            .next_element_seed(self.inside(self.message.clone(), None))?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.enter()?;
        let free = self
            .message
            .as_ref()
            .is_none_or(|m| m.full_name().starts_with("google.protobuf."));
        let mut keys = HashSet::new();
        let mut numbers = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            let field = self.message.as_ref().filter(|_| !free).and_then(|message| {
                message
                    .get_field_by_json_name(&key)
                    .or_else(|| message.get_field_by_name(&key))
            });
            let twice = field
                .as_ref()
                .is_some_and(|field| !numbers.insert(field.number()));
            if twice || !keys.insert(key.clone()) {
                return Err(A::Error::custom(format_args!("a second `{key}`")));
            }
            let rule = field.as_ref().zip(self.owned);
            let rule = rule.and_then(|(field, mask)| mask.rule(self.node, field.number()));
            if rule == Some(Rule::All) {
                return Err(A::Error::custom(format_args!("`{key}`, which the path gives,")));
            }
            let next = match rule {
                Some(Rule::Inside(node)) => Some(node),
                Some(Rule::All) | None => None,
            };
            let inner = field.and_then(|field| match field.kind() {
                Kind::Message(entry) if field.is_map() => Some(entry),
                Kind::Message(message) => Some(message),
                _ => None,
            });
            let inner = inner.filter(|message| !message.is_map_entry());
            members.next_value_seed(self.inside(inner, next))?;
        }
        Ok(())
    }
}
