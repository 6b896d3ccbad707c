//! The value of a field, an element or a map entry, and lists of them.

use super::super::JsonReason;
use super::super::plan::{Field, Form, Kind, Tag, wire};
use super::failure::{Done, Fail};
use super::{Reader, Typed, UNMASKED};

impl<'a> Reader<'a> {
    /// One value of a list or a map, without its tag. False if it is dropped.
    #[inline(never)]
    pub(super) fn element(&mut self, field: &'a Field) -> Result<bool, Fail> {
        self.value(field.kind, field, UNMASKED)
    }

    /// One value without its tag. False if it is dropped: an enum name that is not declared, under the option.
    #[inline(always)]
    pub(super) fn value(&mut self, kind: Kind, field: &'a Field, node: u32) -> Result<bool, Fail> {
        match kind {
            Kind::String => self.string()?,
            Kind::Message(id) => {
                let mark = self.out.open(self.learned.widths[field.hint]);
                self.message(id, node)?;
                self.learned.widths[field.hint] = self.out.close(mark);
            }
            Kind::Enum(id) => return self.enumeration(id),
            Kind::Group(id) => {
                self.message(id, node)?;
                self.out.tag(Tag::new(field.number, wire::END));
            }
            _ => self.scalar(kind)?,
        }
        Ok(true)
    }

    /// A value that is neither a message nor an enum.
    #[inline]
    pub(super) fn scalar(&mut self, kind: Kind) -> Done {
        match kind {
            Kind::Int32 => {
                let value = self.int32("int32")?;
                self.out.varint(i64::from(value).cast_unsigned());
            }
            Kind::Int64 => {
                let value = self.int64("int64")?;
                self.out.varint(value.cast_unsigned());
            }
            Kind::Uint32 => {
                let value = self.uint32("uint32")?;
                self.out.varint(value.into());
            }
            Kind::Uint64 => {
                let value = self.uint64("uint64")?;
                self.out.varint(value);
            }
            Kind::Sint32 => {
                let value = self.int32("sint32")?;
                self.out.varint((value << 1 ^ value >> 31).cast_unsigned().into());
            }
            Kind::Sint64 => {
                let value = self.int64("sint64")?;
                self.out.varint((value << 1 ^ value >> 63).cast_unsigned());
            }
            Kind::Fixed32 => {
                let value = self.uint32("fixed32")?;
                self.out.word(value.into(), 4);
            }
            Kind::Fixed64 => {
                let value = self.uint64("fixed64")?;
                self.out.word(value, 8);
            }
            Kind::Sfixed32 => {
                let value = self.int32("sfixed32")?;
                self.out.word(value.cast_unsigned().into(), 4);
            }
            Kind::Sfixed64 => {
                let value = self.int64("sfixed64")?;
                self.out.word(value.cast_unsigned(), 8);
            }
            Kind::Double => {
                let value = self.double()?;
                self.out.word(value.to_bits(), 8);
            }
            Kind::Float => {
                let value = self.float()?;
                self.out.word(value.to_bits().into(), 4);
            }
            Kind::Bool => {
                let value = self.boolean()?;
                self.out.word(value.into(), 1);
            }
            Kind::String => self.string()?,
            Kind::Bytes => self.binary()?,
            Kind::Enum(_) | Kind::Message(_) | Kind::Group(_) => return Err(self.expected("a scalar")),
        }
        Ok(())
    }

    /// A message in its form, without its length.
    #[inline]
    pub(super) fn message(&mut self, id: u32, node: u32) -> Done {
        let message = &self.plan.messages[id as usize];
        match message.form {
            Form::Plain => self.object(message, node, Typed::No),
            Form::Timestamp => self.timestamp(),
            Form::Duration => self.duration(),
            Form::FieldMask => self.field_mask(),
            Form::Struct => self.structure(),
            Form::Value => self.dynamic(),
            Form::ListValue => self.dynamic_list(),
            Form::Wrapper(kind) => self.wrapper(kind),
            Form::Any => self.any(),
        }
    }

    /// An array of values that each have their tag.
    pub(super) fn list(&mut self, field: &'a Field) -> Done {
        self.elements(field, |reader| {
            let start = reader.out.len();
            reader.out.tag(field.tag);
            if !reader.element(field)? {
                reader.out.truncate(start);
            }
            Ok(())
        })
    }

    /// An array of scalars under one tag.
    pub(super) fn packed(&mut self, field: &'a Field) -> Done {
        let start = self.out.len();
        self.out.tag(field.tag);
        let mark = self.out.open(self.learned.widths[field.hint]);
        self.elements(field, |reader| reader.element(field).map(|_| ()))?;
        if self.out.len() == mark.body() {
            self.out.truncate(start);
        } else {
            self.learned.widths[field.hint] = self.out.close(mark);
        }
        Ok(())
    }

    #[inline]
    fn elements(&mut self, field: &Field, mut each: impl FnMut(&mut Self) -> Done) -> Done {
        self.enter(b'[', "an array")?;
        if self.token() != b']' {
            let mut index = 0;
            loop {
                if self.token() == b'n' && !field.takes_null {
                    return Err(self.mismatch("a value").element(index));
                }
                if let Err(failure) = each(self) {
                    return Err(failure.element(index));
                }
                if self.out.is_over() {
                    return Err(self.too_large());
                }
                index += 1;
                match self.token() {
                    b',' => {
                        self.at += 1;
                        if self.token() == b']' {
                            return Err(self.expected("a value after `,`"));
                        }
                    }
                    b']' => break,
                    _ => return Err(self.expected("`,` or `]`")),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// A wrapper holds its value as field 1, unless it is the default.
    fn wrapper(&mut self, kind: Kind) -> Done {
        if self.token() == b'n' {
            return Err(self.fail(JsonReason::Null));
        }
        let start = self.out.len();
        self.out.tag(Tag::new(1, kind.wire()));
        let body = self.out.len();
        self.scalar(kind)?;
        if super::is_zero(self.out.since(body)) {
            self.out.truncate(start);
        }
        Ok(())
    }
}
