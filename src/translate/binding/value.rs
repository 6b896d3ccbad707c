//! One text of a path or query as protobuf wire bytes.
//!
//! The text becomes the JSON text of its field, which the transcoder reads: scalars have one parser.

use bytes::{BufMut, BytesMut};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_reflect::FieldDescriptor;

use super::error::{ParameterReason, excerpt};
use super::field::{FieldPath, JsonText, Shape};
use crate::translate::json::{MessageId, Target, Transcoder};

/// 16 MiB: a bound that a request line, which has a limit of its own, never reaches.
const MAX_VALUE_BYTES: usize = 16 << 20;

/// Which enum numbers a text may give.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EnumNumbers {
    /// Any number of 32 bits, as in a JSON body.
    #[default]
    Open,
    /// Declared ones only.
    Declared,
}

/// Where a value goes within its field.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot<'k> {
    Singular,
    Element,
    /// The entry with this key.
    Entry(&'k str),
}

/// A field that a text can set.
#[derive(Clone, Debug)]
pub(super) struct Settable<'k> {
    pub(super) path: FieldPath,
    /// The message that has the field.
    pub(super) message: MessageId,
    pub(super) shape: Shape,
    pub(super) slot: Slot<'k>,
}

impl Settable<'_> {
    /// Appends the field with this value, as the wire form of the message at the root of its path.
    pub(super) fn write(
        &self,
        json: &Transcoder,
        text: &str,
        numbers: EnumNumbers,
        out: &mut BytesMut,
    ) -> Result<(), ParameterReason> {
        let refuse = || ParameterReason::Value {
            text: excerpt(text),
            expected: self.shape.expected(),
        };
        let Some((leaf, outer)) = self.path.steps.split_last() else {
            return Err(ParameterReason::Unknown);
        };
        let mut inner = BytesMut::new();
        if let Shape::FieldMask = self.shape {
            let mask = field_mask(text).ok_or_else(refuse)?;
            wrap(leaf, &mask, &mut inner);
        } else {
            let target = Target::Field {
                message: self.message,
                number: leaf.number(),
            };
            let value = self.json_text(text, numbers).ok_or_else(refuse)?;
            json.read(target, None, value.as_bytes(), &mut inner, MAX_VALUE_BYTES)
                .map_err(|_| refuse())?;
        }
        for field in outer.iter().rev() {
            let mut wrapped = BytesMut::with_capacity(inner.len() + 8);
            wrap(field, &inner, &mut wrapped);
            inner = wrapped;
        }
        out.put_slice(&inner);
        Ok(())
    }

    /// The JSON text of the whole field.
    fn json_text(&self, text: &str, numbers: EnumNumbers) -> Option<String> {
        let mut json = String::with_capacity(text.len() + 4);
        match self.slot {
            Slot::Singular => scalar(&self.shape, text, numbers, &mut json)?,
            Slot::Element => {
                json.push('[');
                scalar(&self.shape, text, numbers, &mut json)?;
                json.push(']');
            }
            Slot::Entry(key) => {
                json.push('{');
                quote(key, &mut json);
                json.push(':');
                scalar(&self.shape, text, numbers, &mut json)?;
                json.push('}');
            }
        }
        Some(json)
    }
}

/// Appends the JSON form of a text. Nothing that is not one value can come out, whatever the text holds.
fn scalar(shape: &Shape, text: &str, numbers: EnumNumbers, json: &mut String) -> Option<()> {
    match shape {
        Shape::Text | Shape::Bytes | Shape::Timestamp | Shape::Duration | Shape::FieldMask => {
            quote(text, json)
        }
        Shape::Bool => json.push_str(matches!(text, "true" | "false").then_some(text)?),
        Shape::Whole(_) => json.push_str(is_number(text).then_some(text)?),
        Shape::Float(_) if matches!(text, "NaN" | "Infinity" | "-Infinity") => quote(text, json),
        Shape::Float(_) => json.push_str(is_number(text).then_some(text)?),
        Shape::Enum(kind) if is_number(text) => {
            let declared = || text.parse().is_ok_and(|number| kind.get_value(number).is_some());
            json.push_str((numbers == EnumNumbers::Open || declared()).then_some(text)?);
        }
        // A name that nobody declares is a mistake, also where a transcoder would drop it as a body's. Its case is
        // the transcoder's to judge.
        Shape::Enum(kind) => {
            kind.values()
                .find(|value| value.name().eq_ignore_ascii_case(text))?;
            quote(text, json);
        }
        Shape::Json(kind) => {
            // The transcoder takes a bare null as an absent field, which a parameter is not.
            let begins = match kind {
                JsonText::Object => text.trim_start().starts_with('{'),
                JsonText::Array => text.trim_start().starts_with('['),
                JsonText::Any => true,
            };
            serde_json::from_str::<serde::de::IgnoredAny>(text)
                .ok()
                .filter(|_| begins)?;
            json.push_str(text);
        }
    }
    Some(())
}

/// Appends a JSON string.
fn quote(text: &str, json: &mut String) {
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\0'..='\x1f' => {
                json.push_str("\\u00");
                for nibble in [u32::from(character) >> 4, u32::from(character) & 15] {
                    json.extend(char::from_digit(nibble, 16));
                }
            }
            _ => json.push(character),
        }
    }
    json.push('"');
}

/// Whether a text is a number of JSON. Source: RFC 8259, section 6.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|exponent| digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// The wire form of a `google.protobuf.FieldMask` from names in either spelling; they are kept as proto names.
///
/// Not by way of JSON, whose camel case can't express every proto name.
fn field_mask(text: &str) -> Option<BytesMut> {
    let mut mask = BytesMut::new();
    for path in text.split(',').filter(|_| !text.is_empty()) {
        let mut name = String::with_capacity(path.len() + 4);
        for part in path.split('.') {
            if !name.is_empty() {
                name.push('.');
            }
            if part.is_empty() || part.starts_with(|first: char| first.is_ascii_digit()) {
                return None;
            }
            for character in part.chars() {
                match character {
                    'A'..='Z' => {
                        name.push('_');
                        name.push(character.to_ascii_lowercase());
                    }
                    'a'..='z' | '0'..='9' | '_' => name.push(character),
                    // Alone, it is every field.
                    '*' if part == "*" => name.push(character),
                    _ => return None,
                }
            }
        }
        put_path(&name, &mut mask);
    }
    Some(mask)
}

/// Appends one path of a `google.protobuf.FieldMask`.
pub(super) fn put_path(path: &str, mask: &mut BytesMut) {
    prost::encoding::string::encode(1, &path.to_owned(), mask);
}

/// Appends a field that holds a message.
pub(super) fn wrap(field: &FieldDescriptor, message: &[u8], out: &mut BytesMut) {
    if field.is_group() {
        encode_key(field.number(), WireType::StartGroup, out);
        out.put_slice(message);
        encode_key(field.number(), WireType::EndGroup, out);
    } else {
        encode_key(field.number(), WireType::LengthDelimited, out);
        encode_varint(message.len() as u64, out);
        out.put_slice(message);
    }
}
