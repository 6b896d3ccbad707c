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
    find(message, numbers, wire).ok()?.filter(|text| !text.is_empty())
}

/// What can't be read, or is of another type.
struct Unreadable;

/// The same: empty for the default where it is written out.
fn find(message: &MessageDescriptor, numbers: &[u32], wire: &[u8]) -> Result<Option<Vec<u8>>, Unreadable> {
    let (number, rest) = numbers.split_first().ok_or(Unreadable)?;
    let field = message.get_field(*number).ok_or(Unreadable)?;
    let mut found = None;
    let mut wire = wire;
    while wire.has_remaining() {
        let (tag, wire_type) = decode_key(&mut wire).map_err(|_| Unreadable)?;
        if tag != *number {
            skip_field(wire_type, tag, &mut wire, DecodeContext::default()).map_err(|_| Unreadable)?;
            continue;
        }
        match field.kind() {
            Kind::Message(inner) if wire_type == WireType::LengthDelimited && !rest.is_empty() => {
                let bytes = delimited(&mut wire).ok_or(Unreadable)?;
                found = find(&inner, rest, bytes)?.or(found);
            }
            _ if rest.is_empty() => {
                found = Some(value(&field, wire_type, &mut wire).ok_or(Unreadable)?);
            }
            _ => return Err(Unreadable),
        }
    }
    Ok(found)
}

fn delimited<'a>(wire: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(decode_varint(wire).ok()?).ok()?;
    let (bytes, rest) = wire.split_at_checked(length)?;
    *wire = rest;
    Some(bytes)
}

/// A scalar as text; nothing where it is the default.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "protobuf keeps the low bits of a varint, and reads them as signed"
)]
fn value(field: &FieldDescriptor, wire_type: WireType, wire: &mut &[u8]) -> Option<Vec<u8>> {
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
                Kind::Enum(_) if number == 0 => return Some(Vec::new()),
                Kind::Enum(kind) => {
                    let name = i32::try_from(number)
                        .ok()
                        .and_then(|number| kind.get_value(number));
                    name.map_or_else(|| number.to_string(), |value| value.name().to_owned())
                        .into_bytes()
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
    Some(text)
}

/// A number that is not the default.
fn number(is_there: bool, number: impl std::fmt::Display) -> Vec<u8> {
    let text = || number.to_string().into_bytes();
    is_there.then(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::embedded;

    /// `google.protobuf.FieldDescriptorProto` has most of what there is: texts, numbers, enums, a message.
    fn found(numbers: &[u32], wire: &[u8]) -> Option<String> {
        let files = embedded::files().map(|(_, file)| file).collect();
        let schema = crate::schema::Schema::from_files(files, &crate::schema::rules::Rules::empty()).unwrap();
        let message = schema
            .pool
            .get_message_by_name("google.protobuf.FieldDescriptorProto")
            .unwrap();
        text(&message, numbers, wire).map(|text| String::from_utf8(text).unwrap())
    }

    #[test]
    fn one_value_is_found_and_the_last_one_counts() {
        let wire = b"\x0a\x01a\x18\x05\x28\x09\x0a\x02bc\x18\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01\x42\x04\x50\x01\x18\x01\x42\x02\x18\x00";
        assert_eq!(found(&[1], wire).as_deref(), Some("bc"));
        assert_eq!(found(&[3], wire).as_deref(), Some("-2"));
        assert_eq!(found(&[5], wire).as_deref(), Some("TYPE_STRING"));
        assert_eq!(
            found(&[8, 10], wire).as_deref(),
            Some("1"),
            "the second part of the message says nothing about it"
        );
        assert_eq!(found(&[8, 3], wire), None, "the default");
        assert_eq!(found(&[2], wire), None);
        assert_eq!(found(&[1, 1], wire), None);
        assert_eq!(found(&[], wire), None);
    }

    #[test]
    fn what_can_not_be_read_is_nothing() {
        for wire in [
            &b"\x0a\x05ab"[..],
            b"\x0a",
            b"\x07",
            b"\x0a\x01a\xff",
            b"\x0d\x00\x00\x00",
        ] {
            assert_eq!(found(&[1], wire), None, "{wire:?}");
        }
    }
}
