//! The protobuf wire format read field by field, without a descriptor.
//!
//! Descriptors are kept as the bytes that a server sent: what is read here is read in place, so fields and
//! options that nobody here knows survive. Malformed input is an error and never a panic; nothing is allocated.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use thiserror::Error;

/// Groups within groups that are followed before the input counts as malformed, as in every protobuf runtime.
const MAX_GROUP_DEPTH: u32 = 100;

/// The bytes are not a protobuf message.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a protobuf message: {0}")]
pub struct Malformed(pub(super) &'static str);

/// A field's value by its wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64([u8; 8]),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 3 and 4; what stands between them.
    Group(&'a [u8]),
    /// Wire type 5.
    Fixed32([u8; 4]),
}

impl<'a> Value<'a> {
    /// The bytes of a length-delimited value.
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Varint(_) | Self::Fixed64(_) | Self::Group(_) | Self::Fixed32(_) => None,
        }
    }

    /// The text of a length-delimited value that is UTF-8.
    pub(crate) fn text(self) -> Option<&'a str> {
        self.bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// The number of a varint.
    pub(crate) fn varint(self) -> Option<u64> {
        match self {
            Self::Varint(number) => Some(number),
            Self::Bytes(_) | Self::Fixed64(_) | Self::Group(_) | Self::Fixed32(_) => None,
        }
    }
}

/// One field as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// The field number, 1 to 2^29 - 1.
    pub(crate) number: u32,
    /// Its value.
    pub(crate) value: Value<'a>,
    /// Tag and value, to be copied as they are.
    pub(crate) span: &'a [u8],
}

/// The fields of `message`, in the order in which they stand; the first error is the last item.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

/// The fields of a message.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let start = self.rest;
        let read = field(&mut self.rest).and_then(|(number, value)| {
            let used = start.len().saturating_sub(self.rest.len());
            let span = start.get(..used).ok_or(Malformed("truncated"))?;
            Ok(Field { number, value, span })
        });
        if read.is_err() {
            self.rest = &[];
        }
        Some(read)
    }
}

/// One field from the front of `rest`.
fn field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), Malformed> {
    let (number, wire_type) = tag(rest)?;
    let value = match wire_type {
        3 => Value::Group(group(rest, number)?),
        4 => return Err(Malformed("a group ends that did not begin")),
        _ => scalar(rest, wire_type)?,
    };
    Ok((number, value))
}

/// A field number and its wire type.
fn tag(rest: &mut &[u8]) -> Result<(u32, u8), Malformed> {
    let tag = varint(rest)?;
    let number = u32::try_from(tag >> 3).map_err(|_| Malformed("a field number out of range"))?;
    if number == 0 || number > 0x1fff_ffff {
        return Err(Malformed("a field number out of range"));
    }
    Ok((number, (tag & 7) as u8))
}

/// A value that is not a group.
fn scalar<'a>(rest: &mut &'a [u8], wire_type: u8) -> Result<Value<'a>, Malformed> {
    match wire_type {
        0 => Ok(Value::Varint(varint(rest)?)),
        1 => {
            let (value, after) = rest.split_first_chunk().ok_or(Malformed("truncated"))?;
            *rest = after;
            Ok(Value::Fixed64(*value))
        }
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed("truncated"))?;
            let (value, after) = rest.split_at_checked(length).ok_or(Malformed("truncated"))?;
            *rest = after;
            Ok(Value::Bytes(value))
        }
        5 => {
            let (value, after) = rest.split_first_chunk().ok_or(Malformed("truncated"))?;
            *rest = after;
            Ok(Value::Fixed32(*value))
        }
        _ => Err(Malformed("an unknown wire type")),
    }
}

/// The inside of the group `number`, whose start tag is read already.
fn group<'a>(rest: &mut &'a [u8], number: u32) -> Result<&'a [u8], Malformed> {
    let start = *rest;
    let mut depth: u32 = 1;
    loop {
        let inside = start.len().saturating_sub(rest.len());
        let (inner, wire_type) = tag(rest)?;
        match wire_type {
            3 if depth == MAX_GROUP_DEPTH => return Err(Malformed("groups nested too deeply")),
            3 => depth = depth.saturating_add(1),
            4 => depth = depth.saturating_sub(1),
            _ => {
                scalar(rest, wire_type)?;
            }
        }
        if depth == 0 {
            if inner != number {
                return Err(Malformed("a group ends under another number"));
            }
            return start.get(..inside).ok_or(Malformed("truncated"));
        }
    }
}

/// A varint of at most ten bytes.
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first().ok_or(Malformed("truncated"))?;
        *rest = after;
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("a varint of more than ten bytes"))
}

/// The value of a packed or single `int32`, as descriptors hold them: the low 32 bits.
pub(crate) fn int32(value: u64) -> i32 {
    // Negative numbers are sign-extended to 64 bits on the wire; the low half is the number.
    let [a, b, c, d, ..] = value.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// Appends a length-delimited field.
pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    prost::encoding::encode_key(number, prost::encoding::WireType::LengthDelimited, out);
    prost::encoding::encode_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::*;

    fn read(message: &[u8]) -> Result<Vec<(u32, Value<'_>)>, Malformed> {
        fields(message)
            .map(|field| field.map(|field| (field.number, field.value)))
            .collect()
    }

    #[test]
    fn every_wire_type_is_read() {
        let message = [
            0x08, 0x96, 0x01, // 1: 150
            0x11, 1, 2, 3, 4, 5, 6, 7, 8, // 2: fixed64
            0x1a, 2, b'h', b'i', // 3: "hi"
            0x23, 0x08, 0x01, 0x24, // 4: a group of one field
            0x2d, 1, 2, 3, 4, // 5: fixed32
        ];
        let got = read(&message).unwrap();
        assert_eq!(got[0], (1, Value::Varint(150)));
        assert_eq!(got[1], (2, Value::Fixed64([1, 2, 3, 4, 5, 6, 7, 8])));
        assert_eq!(got[2], (3, Value::Bytes(b"hi")));
        assert_eq!(got[3], (4, Value::Group(&[0x08, 0x01])));
        assert_eq!(got[4], (5, Value::Fixed32([1, 2, 3, 4])));
    }

    #[test]
    fn spans_add_up_to_the_message() {
        let message = [0x08, 0x96, 0x01, 0x23, 0x08, 0x01, 0x24, 0x1a, 1, b'x'];
        let spans: Vec<u8> = fields(&message)
            .flat_map(|field| field.unwrap().span.to_vec())
            .collect();
        assert_eq!(spans, message);
    }

    #[test]
    fn malformed_input_is_an_error_and_the_end() {
        let cases: [&[u8]; 9] = [
            &[0x08],
            &[0x0a, 5, 1],
            &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[0x00, 1],
            &[0x0f, 1],
            &[0x24],
            &[0x23, 0x1c],
            &[0x23, 0x08, 0x01],
            &[
                0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
        ];
        for case in cases {
            let mut fields = fields(case);
            assert!(fields.next().unwrap().is_err(), "{case:?}");
            assert!(fields.next().is_none(), "{case:?}");
        }
    }

    #[test]
    fn groups_may_nest_a_hundred_times() {
        let nested = |depth: usize| {
            let mut message = vec![0x23; depth];
            message.resize(2 * depth, 0x24);
            message
        };
        assert!(read(&nested(100)).is_ok());
        assert!(read(&nested(101)).is_err());
    }
}
