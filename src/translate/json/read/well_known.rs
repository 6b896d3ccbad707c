//! The well-known types whose JSON is not an object of their fields.

use super::super::plan::{Tag, wire};
use super::super::time;
use super::Reader;
use super::failure::Done;
use super::scalar::Quoted;

/// Field numbers and kinds of `google.protobuf.Value`.
const NULL: Tag = tag(1, wire::VARINT);
const NUMBER: Tag = tag(2, wire::I64);
const STRING: Tag = tag(3, wire::LEN);
const BOOL: Tag = tag(4, wire::VARINT);
const STRUCT: Tag = tag(5, wire::LEN);
const LIST: Tag = tag(6, wire::LEN);
/// Of an entry of `Struct.fields`, and of its key and value.
const ENTRY: Tag = tag(1, wire::LEN);
const ENTRY_VALUE: Tag = tag(2, wire::LEN);
/// Of a value of `ListValue.values`, and of a path of `FieldMask.paths`.
const ELEMENT: Tag = tag(1, wire::LEN);

/// A tag of one byte.
const fn tag(number: u8, wire: u8) -> Tag {
    Tag {
        bytes: (number << 3 | wire) as u64,
        len: 1,
    }
}

impl Reader<'_> {
    pub(super) fn timestamp(&mut self) -> Done {
        self.time(
            time::timestamp,
            "an RFC 3339 timestamp of the years 1 to 9999, such as \"2024-02-29T12:00:00Z\"",
        )
    }

    pub(super) fn duration(&mut self) -> Done {
        self.time(time::duration, "a duration in seconds, such as \"1.5s\"")
    }

    /// Field 1 is seconds, field 2 nanoseconds; zeros are not written.
    fn time(&mut self, parse: fn(&[u8]) -> Option<time::Time>, expected: &'static str) -> Done {
        self.token();
        let start = self.at;
        let quoted = self.quoted(expected)?;
        let Some(time) = parse(self.content(quoted)) else {
            return Err(self.not_at(start, expected));
        };
        if time.seconds != 0 {
            self.out.tag(tag(1, wire::VARINT));
            self.out.varint(time.seconds.cast_unsigned());
        }
        if time.nanos != 0 {
            self.out.tag(tag(2, wire::VARINT));
            self.out.varint(i64::from(time.nanos).cast_unsigned());
        }
        Ok(())
    }

    pub(super) fn field_mask(&mut self) -> Done {
        const EXPECTED: &str = "a field mask in camelCase, such as \"name,pageSize\"";
        self.token();
        let start = self.at;
        let quoted = self.quoted(EXPECTED)?;
        let content = match quoted {
            Quoted::Plain { start, end } => &self.text[start..end],
            Quoted::Unescaped => &self.scratch.text,
        };
        let out = &mut self.out;
        let fine = time::mask_paths(content, |path| {
            out.tag(ELEMENT);
            out.varint(path.len() as u64);
            out.bytes(path);
        });
        if fine {
            Ok(())
        } else {
            Err(self.not_at(start, EXPECTED))
        }
    }

    /// `google.protobuf.Value`: any JSON.
    pub(super) fn dynamic(&mut self) -> Done {
        match self.token() {
            b'n' => {
                self.word(b"null")?;
                self.out.tag(NULL);
                self.out.word(0, 1);
            }
            b't' | b'f' => {
                let value = self.boolean()?;
                self.out.tag(BOOL);
                self.out.word(value.into(), 1);
            }
            b'"' => {
                self.out.tag(STRING);
                self.string()?;
            }
            b'{' => {
                self.out.tag(STRUCT);
                let mark = self.out.open(1);
                self.structure()?;
                self.out.close(mark);
            }
            b'[' => {
                self.out.tag(LIST);
                let mark = self.out.open(1);
                self.dynamic_list()?;
                self.out.close(mark);
            }
            b'-' | b'0'..=b'9' => {
                let value = self.double()?;
                self.out.tag(NUMBER);
                self.out.word(value.to_bits(), 8);
            }
            _ => return Err(self.expected("a JSON value")),
        }
        Ok(())
    }

    /// `google.protobuf.Struct`: a map of names to values.
    pub(super) fn structure(&mut self) -> Done {
        self.enter(b'{', "an object")?;
        let mut keys = self.scratch.keys.open();
        if self.token() != b'}' {
            loop {
                if self.token() != b'"' {
                    return Err(self.expected("a name in double quotes"));
                }
                let start = self.at + 1;
                self.out.tag(ENTRY);
                let mark = self.out.open(1);
                self.out.tag(ENTRY);
                self.string()?;
                let (name, size) = ((start, self.at - 1), self.out.len() - mark.body());
                self.colon()?;
                self.out.tag(ENTRY_VALUE);
                let value = self.out.open(1);
                if let Err(failure) = self.dynamic() {
                    return Err(failure.key(self.text.get(name.0..name.1).unwrap_or_default()));
                }
                self.out.close(value);
                let width = usize::from(self.out.close(mark));
                self.unique(&mut keys, (mark.body() + width - 1, size), name)?;
                if self.out.is_over() {
                    return Err(self.too_large());
                }
                match self.token() {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return Err(self.expected("`,` or `}`")),
                }
            }
        }
        keys.close(&mut self.scratch.keys);
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }

    /// `google.protobuf.ListValue`: an array of any JSON.
    pub(super) fn dynamic_list(&mut self) -> Done {
        self.enter(b'[', "an array")?;
        if self.token() != b']' {
            let mut index = 0;
            loop {
                self.out.tag(ELEMENT);
                let mark = self.out.open(1);
                if let Err(failure) = self.dynamic() {
                    return Err(failure.element(index));
                }
                self.out.close(mark);
                if self.out.is_over() {
                    return Err(self.too_large());
                }
                index += 1;
                match self.token() {
                    b',' => self.at += 1,
                    b']' => break,
                    _ => return Err(self.expected("`,` or `]`")),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }
}
