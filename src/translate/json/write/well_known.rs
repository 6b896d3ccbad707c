//! The well-known types whose JSON is not an object of their fields.

use super::super::plan::{Field, Kind, Message, Shape, wire};
use super::super::{WireReason, time};
use super::failure::{Done, Fail, Failure};
use super::input::Input;
use super::{Pass, UNMASKED, Writer, scalar};

impl Writer<'_> {
    pub(super) fn timestamp(&mut self, bytes: Input<'_>) -> Done {
        let time = self.time(bytes)?;
        if time.write_timestamp(&mut self.out) {
            Ok(())
        } else {
            Err(no_form("timestamp"))
        }
    }

    pub(super) fn duration(&mut self, bytes: Input<'_>) -> Done {
        let time = self.time(bytes)?;
        if time.write_duration(&mut self.out) {
            Ok(())
        } else {
            Err(no_form("duration"))
        }
    }

    fn time(&self, bytes: Input<'_>) -> Result<time::Time, Fail> {
        let mut time = time::Time { seconds: 0, nanos: 0 };
        let mut input = bytes;
        while !input.is_done() {
            match input.tag()? {
                (1, wire::VARINT) => time.seconds = input.varint()?.cast_signed(),
                (2, wire::VARINT) => time.nanos = scalar::int32(input.varint()?),
                (number, wire) => input.skip(number, wire, self.depth)?,
            }
        }
        Ok(time)
    }

    pub(super) fn field_mask(&mut self, bytes: Input<'_>) -> Done {
        let mut text = Vec::new();
        let mut input = bytes;
        while !input.is_done() {
            match input.tag()? {
                (1, wire::LEN) => {
                    if !text.is_empty() {
                        text.push(b',');
                    }
                    if !time::mask_text(input.delimited()?.bytes(), &mut text) {
                        return Err(no_form("field mask"));
                    }
                }
                (number, wire) => input.skip(number, wire, self.depth)?,
            }
        }
        self.string(&text)
    }

    /// The value of field 1, or its default.
    pub(super) fn wrapper(&mut self, kind: Kind, bytes: Input<'_>) -> Done {
        let mut input = bytes;
        let mut last = None;
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            if number == 1 && wire == kind.wire() {
                last = Some(input.at);
            }
            input.skip(number, wire, self.depth)?;
        }
        // Eight zeros are the default in every wire type.
        let mut value = last.map_or_else(|| Input::new(&[0; 8]), |at| input.from(at));
        self.scalar(kind, &mut value)?;
        Ok(())
    }

    /// `google.protobuf.Struct`: the object that its map is.
    pub(super) fn structure(&mut self, message: &Message, bytes: Input<'_>) -> Done {
        let (Some(field), Some(Shape::Map(key))) =
            (message.fields.first(), message.fields.first().map(|f| f.shape))
        else {
            return Err(no_form("struct"));
        };
        self.enter()?;
        self.out.byte(b'{');
        let open = self.out.len();
        if self.careful {
            self.tangled_structure(field, key, bytes)?;
            self.out.end(open, b'}');
            self.depth -= 1;
            return Ok(());
        }
        let mut keys = self.scratch.keys.open();
        let mut input = bytes;
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            if number != field.number || wire != wire::LEN {
                input.skip(number, wire, self.depth)?;
            } else if self.entry(field, key, input.delimited()?, &mut keys)? == Pass::Tangled {
                self.out.truncate(open);
                self.tangled(bytes)?;
                self.tangled_structure(field, key, bytes)?;
                break;
            }
            self.check()?;
        }
        keys.close(&mut self.scratch.keys);
        self.out.end(open, b'}');
        self.depth -= 1;
        Ok(())
    }

    #[cold]
    fn tangled_structure(&mut self, field: &Field, key: Kind, bytes: Input<'_>) -> Done {
        let mut entries = Vec::new();
        let mut input = bytes;
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            if number == field.number && wire == wire::LEN {
                entries.push(input.delimited()?);
            } else {
                input.skip(number, wire, self.depth)?;
            }
        }
        self.last_entries(field, key, &entries)
    }

    pub(super) fn dynamic_list(&mut self, message: &Message, bytes: Input<'_>) -> Done {
        let Some(&Field {
            kind: Kind::Message(id),
            ..
        }) = message.fields.first()
        else {
            return Err(no_form("list"));
        };
        self.enter()?;
        self.out.byte(b'[');
        let open = self.out.len();
        let mut index = 0;
        let mut input = bytes;
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            if number != 1 || wire != wire::LEN {
                input.skip(number, wire, self.depth)?;
                continue;
            }
            self.message(id, input.delimited()?, UNMASKED)
                .map_err(|failure| failure.element(index))?;
            self.out.byte(b',');
            self.check()?;
            index += 1;
        }
        self.out.end(open, b']');
        self.depth -= 1;
        Ok(())
    }

    /// `google.protobuf.Value`: the member of its oneof that comes last; none of them is `null`.
    pub(super) fn dynamic(&mut self, message: &Message, bytes: Input<'_>) -> Done {
        let mut input = bytes;
        let mut last: Option<(u32, usize)> = None;
        let mut pieces = false;
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            let at = input.at;
            input.skip(number, wire, self.depth)?;
            if matches!(
                (number, wire),
                (1 | 4, wire::VARINT) | (2, wire::I64) | (3 | 5 | 6, wire::LEN)
            ) {
                let again = last.is_some_and(|last| last.0 == number);
                pieces = again && (number >= 5 || pieces);
                last = Some((number, at));
            }
        }
        let Some((number, at)) = last else {
            self.out.bytes(b"null");
            return Ok(());
        };
        if pieces {
            return self.dynamic_pieces(message, number, bytes);
        }
        let mut value = input.from(at);
        match number {
            2 => {
                let value = f64::from_bits(value.fixed64()?);
                if !value.is_finite() {
                    return Err(no_form("number of a Value"));
                }
                self.double(value);
            }
            3 => self.string(value.delimited()?.bytes())?,
            4 => {
                let value = value.varint()? != 0;
                self.boolean(value);
            }
            5 | 6 => self.dynamic_body(message, number, value.delimited()?)?,
            _ => self.out.bytes(b"null"),
        }
        Ok(())
    }

    #[inline]
    fn dynamic_body(&mut self, message: &Message, number: u32, body: Input<'_>) -> Done {
        self.message(dynamic_kind(message, number)?, body, UNMASKED)
    }

    /// A struct or a list that came in pieces, after the last other member.
    #[cold]
    fn dynamic_pieces(&mut self, message: &Message, last: u32, bytes: Input<'_>) -> Done {
        let mut input = bytes;
        let mut whole = Vec::new();
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            match (number, wire) {
                (_, wire::LEN) if number == last => whole.extend_from_slice(input.delimited()?.bytes()),
                (1 | 4, wire::VARINT) | (2, wire::I64) | (3 | 5 | 6, wire::LEN) => {
                    whole.clear();
                    input.skip(number, wire, self.depth)?;
                }
                _ => input.skip(number, wire, self.depth)?,
            }
        }
        self.joined(dynamic_kind(message, last)?, &whole, UNMASKED)
    }
}

/// The type of a member of a `Value` that is a message.
#[inline]
fn dynamic_kind(message: &Message, number: u32) -> Result<u32, Fail> {
    let field = message.index(number).and_then(|index| message.fields.get(index));
    match field.map(|field| field.kind) {
        Some(Kind::Message(id)) => Ok(id),
        _ => Err(no_form("value")),
    }
}

fn no_form(what: &'static str) -> Fail {
    Failure::new(WireReason::NoJsonForm(what))
}
