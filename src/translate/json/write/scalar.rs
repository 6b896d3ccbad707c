//! Scalars as JSON text.

use super::super::plan::Kind;
use super::super::{WireReason, base64, scan};
use super::Writer;
use super::failure::{Done, Fail, Failure};
use super::input::Input;

/// The low half of a varint: an `int32` that was written with more bits is cut, as everywhere.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub(super) fn int32(value: u64) -> i32 {
    value as i32
}

#[inline]
fn uint32(value: u64) -> u32 {
    int32(value).cast_unsigned()
}

impl Writer<'_> {
    /// One value that is no message. True if it is the default of its kind.
    #[inline]
    pub(super) fn scalar(&mut self, kind: Kind, input: &mut Input<'_>) -> Result<bool, Fail> {
        Ok(match kind {
            Kind::String => {
                let text = input.delimited()?;
                match text.short() {
                    Some((window, size)) if scan::is_simple(window, size) => self.out.quoted(window, size),
                    _ => self.string(text.bytes())?,
                }
                text.is_done()
            }
            Kind::Bytes => {
                let bytes = input.delimited()?.bytes();
                base64::encode(bytes, &mut self.out);
                bytes.is_empty()
            }
            Kind::Int32 => self.signed(int32(input.varint()?).into()),
            Kind::Int64 => {
                let value = input.varint()?.cast_signed();
                self.long_signed(value)
            }
            Kind::Uint32 => self.unsigned(uint32(input.varint()?).into()),
            Kind::Uint64 => {
                let value = input.varint()?;
                self.long_unsigned(value)
            }
            Kind::Sint32 => {
                let value = uint32(input.varint()?);
                self.signed(((value >> 1).cast_signed() ^ -(value & 1).cast_signed()).into())
            }
            Kind::Sint64 => {
                let value = input.varint()?;
                self.long_signed((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
            }
            Kind::Fixed32 => self.unsigned(input.fixed32()?.into()),
            Kind::Fixed64 => {
                let value = input.fixed64()?;
                self.long_unsigned(value)
            }
            Kind::Sfixed32 => self.signed(input.fixed32()?.cast_signed().into()),
            Kind::Sfixed64 => {
                let value = input.fixed64()?.cast_signed();
                self.long_signed(value)
            }
            Kind::Double => {
                let value = f64::from_bits(input.fixed64()?);
                self.double(value);
                value.to_bits() == 0
            }
            Kind::Float => {
                let value = f32::from_bits(input.fixed32()?);
                self.float(value);
                value.to_bits() == 0
            }
            Kind::Bool => {
                let value = input.varint()? != 0;
                self.boolean(value);
                !value
            }
            Kind::Enum(id) => self.enumeration(id, int32(input.varint()?)),
            Kind::Message(_) | Kind::Group(_) => return Err(Failure::new(WireReason::Malformed)),
        })
    }

    #[inline]
    pub(super) fn boolean(&mut self, value: bool) {
        let (text, size) = if value {
            (*b"true\0\0\0\0", 4)
        } else {
            (*b"false\0\0\0", 5)
        };
        self.out.word(u64::from_le_bytes(text), size);
    }

    #[inline]
    fn signed(&mut self, value: i64) -> bool {
        if value < 0 {
            self.out.byte(b'-');
        }
        self.out.decimal(value.unsigned_abs());
        value == 0
    }

    #[inline]
    fn unsigned(&mut self, value: u64) -> bool {
        self.out.decimal(value);
        value == 0
    }

    /// A number of 64 bits stands in quotes, since many readers of JSON hold numbers as doubles.
    #[inline]
    fn long_signed(&mut self, value: i64) -> bool {
        if self.plan.options.int64_as_numbers {
            return self.signed(value);
        }
        self.out.byte(b'"');
        self.signed(value);
        self.out.byte(b'"');
        value == 0
    }

    #[inline]
    fn long_unsigned(&mut self, value: u64) -> bool {
        if self.plan.options.int64_as_numbers {
            return self.unsigned(value);
        }
        self.out.byte(b'"');
        self.unsigned(value);
        self.out.byte(b'"');
        value == 0
    }

    #[inline]
    pub(super) fn double(&mut self, value: f64) {
        if value.is_finite() {
            let mut buffer = zmij::Buffer::new();
            self.digits(buffer.format_finite(value));
        } else {
            self.no_number(value.is_nan(), value > 0.0);
        }
    }

    #[inline]
    fn float(&mut self, value: f32) {
        if value.is_finite() {
            let mut buffer = zmij::Buffer::new();
            self.digits(buffer.format_finite(value));
        } else {
            self.no_number(value.is_nan(), value > 0.0);
        }
    }

    /// The shortest digits, whole numbers without a fraction.
    #[inline]
    fn digits(&mut self, text: &str) {
        let text = text.as_bytes();
        self.out.bytes(text.strip_suffix(b".0").unwrap_or(text));
    }

    #[cold]
    fn no_number(&mut self, nan: bool, positive: bool) {
        self.out.bytes(match (nan, positive) {
            (true, _) => b"\"NaN\"",
            (false, true) => b"\"Infinity\"",
            (false, false) => b"\"-Infinity\"",
        });
    }

    #[inline]
    pub(super) fn enumeration(&mut self, id: u32, number: i32) -> bool {
        let declared = &self.plan.enums[id as usize];
        match declared.text(number) {
            _ if declared.null => self.out.bytes(b"null"),
            Some(text) if !self.plan.options.enums_as_ints => self.out.bytes(text),
            Some(_) | None => {
                self.signed(number.into());
            }
        }
        number == 0
    }

    /// A string in quotes.
    #[inline]
    pub(super) fn string(&mut self, text: &[u8]) -> Done {
        let (plain, ascii) = scan::is_plain(text);
        if !plain {
            return self.escaped(text);
        }
        if !ascii && simdutf8::basic::from_utf8(text).is_err() {
            return Err(Failure::new(WireReason::Utf8));
        }
        self.out.byte(b'"');
        self.out.bytes(text);
        self.out.byte(b'"');
        Ok(())
    }

    #[inline(never)]
    fn escaped(&mut self, text: &[u8]) -> Done {
        if simdutf8::basic::from_utf8(text).is_err() {
            return Err(Failure::new(WireReason::Utf8));
        }
        self.out.byte(b'"');
        let mut at = 0;
        loop {
            let end = scan::plain(text, at);
            self.out.bytes(&text[at..end]);
            let Some(&byte) = text.get(end) else { break };
            self.escape(byte);
            at = end + 1;
        }
        self.out.byte(b'"');
        Ok(())
    }

    fn escape(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0c => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => {
                self.out.bytes(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    HEX[usize::from(byte >> 4)],
                    HEX[usize::from(byte & 15)],
                ]);
                return;
            }
        };
        self.out.bytes(&[b'\\', short]);
    }
}
