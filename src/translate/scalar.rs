//! One value out of a message on the wire, without decoding the rest.

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// The text of the field to which `numbers` lead through the messages that are fields of each other: of enums the name,
/// of bytes their hexadecimal digits. `None` where it is not there, is the default, or can't be read.
///
/// Of a field that is there twice the last value counts, as protobuf has it; of a message, the last one that has the
/// field.
pub fn text(message: &MessageDescriptor, numbers: &[u32], wire: &[u8]) -> Option<Vec<u8>> {
    let (number, rest) = numbers.split_first()?;
    let field = message.get_field(*number)?;
    let mut found = None;
    let mut wire = wire;
    while wire.has_remaining() {
        let (tag, wire_type) = decode_key(&mut wire).ok()?;
        if tag != *number {
            skip_field(wire_type, tag, &mut wire, DecodeContext::default()).ok()?;
            continue;
        }
        found = match field.kind() {
            Kind::Message(inner) if wire_type == WireType::LengthDelimited && !rest.is_empty() => {
                let bytes = delimited(&mut wire)?;
                text(&inner, rest, bytes).or(found)
            }
            _ if rest.is_empty() => value(&field, wire_type, &mut wire)?,
            _ => return None,
        };
    }
    found.filter(|text| !text.is_empty())
}

fn delimited<'a>(wire: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(wire).ok()?).ok()?;
    let (bytes, rest) = wire.split_at_checked(length)?;
    *wire = rest;
    Some(bytes)
}

/// A scalar as text; an empty one where it is the default.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "protobuf keeps the low bits of a varint, and reads them as signed"
)]
fn value(field: &FieldDescriptor, wire_type: WireType, wire: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let text = match (field.kind(), wire_type) {
        (Kind::String, WireType::LengthDelimited) => delimited(wire)?.to_vec(),
        (Kind::Bytes, WireType::LengthDelimited) => {
            let digits = |byte: &u8| format!("{byte:02x}").into_bytes();
            delimited(wire)?.iter().flat_map(digits).collect()
        }
        (kind, WireType::Varint) => {
            let raw = decode_varint(wire).ok()?;
            let number = match kind {
                Kind::Int32 | Kind::Enum(_) => i64::from(raw as i32),
                Kind::Sint32 | Kind::Sint64 => ((raw >> 1) as i64) ^ -((raw & 1) as i64),
                Kind::Uint32 => i64::from(raw as u32),
                Kind::Int64 => raw as i64,
                Kind::Bool => i64::from(raw != 0),
                Kind::Uint64 => return Some(number(raw != 0, raw)),
                _ => return None,
            };
            match kind {
                Kind::Enum(_) if number == 0 => return Some(None),
                Kind::Enum(kind) => {
                    let name = i32::try_from(number).ok().and_then(|number| kind.get_value(number));
                    name.map_or_else(|| number.to_string(), |value| value.name().to_owned()).into_bytes()
                }
                _ => return Some(self::number(number != 0, number)),
            }
        }
        (kind, WireType::ThirtyTwoBit) if wire.remaining() >= 4 => {
            let raw = wire.get_u32_le();
            match kind {
                Kind::Fixed32 => return Some(number(raw != 0, raw)),
                Kind::Sfixed32 => return Some(number(raw != 0, raw as i32)),
                _ => return None,
            }
        }
        (kind, WireType::SixtyFourBit) if wire.remaining() >= 8 => {
            let raw = wire.get_u64_le();
            match kind {
                Kind::Fixed64 => return Some(number(raw != 0, raw)),
                Kind::Sfixed64 => return Some(number(raw != 0, raw as i64)),
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(Some(text))
}

/// A number that is not the default.
fn number(is_there: bool, number: impl std::fmt::Display) -> Option<Vec<u8>> {
    is_there.then(|| number.to_string().into_bytes())
}
