//! `google.protobuf.Any`: the type may be named anywhere in the object, so it is looked for first.

use super::super::JsonReason;
use super::super::plan::{Form, Tag, wire};
use super::failure::{Done, Fail};
use super::{Reader, Typed, UNMASKED, UnknownFields};

impl Reader<'_> {
    pub(super) fn any(&mut self) -> Done {
        if self.token() != b'{' {
            return Err(self.mismatch("an object with an `@type`"));
        }
        let start = self.at;
        let Some(url) = self.type_url()? else {
            return Ok(());
        };
        let after = self.at;
        self.at = start;
        let name = url.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let id = std::str::from_utf8(name)
            .ok()
            .and_then(|name| self.plan.message(name));
        let Some(id) = id else {
            return Err(self.no_such_type(name));
        };
        self.out.tag(Tag::new(1, wire::LEN));
        self.out.varint(url.len() as u64);
        self.out.bytes(&url);
        let before = self.out.len();
        self.out.tag(Tag::new(2, wire::LEN));
        let mark = self.out.open(1);
        let message = &self.plan.messages[id.0 as usize];
        if message.form == Form::Plain {
            let typed = if message.fields.is_empty() {
                Typed::Empty
            } else {
                Typed::Yes
            };
            self.object(message, UNMASKED, typed)?;
        } else {
            self.wrapped(id.0)?;
        }
        debug_assert!(
            self.at == after || after == 0,
            "both passes end at the same place"
        );
        if self.out.len() == mark.body() {
            self.out.truncate(before);
        } else {
            self.out.close(mark);
        }
        Ok(())
    }

    /// The `@type` of the object that starts here; nothing for an empty object, which is passed.
    fn type_url(&mut self) -> Result<Option<Vec<u8>>, Fail> {
        self.enter(b'{', "an object")?;
        let mut found = None;
        if self.token() != b'}' {
            loop {
                let start = self.at;
                let name = self.quoted("a name in double quotes")?;
                let is_type = self.content(name) == b"@type";
                self.colon()?;
                if is_type {
                    let url = self.quoted("a type URL")?;
                    if found.replace(self.content(url).to_vec()).is_some() {
                        self.at = start;
                        return Err(self.fail(JsonReason::Duplicate("@type".into())));
                    }
                } else {
                    self.skip()?;
                }
                match self.token() {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return Err(self.expected("`,` or `}`")),
                }
            }
            if found.is_none() {
                return Err(self.expected("an `@type`"));
            }
        }
        self.at += 1;
        self.depth -= 1;
        Ok(found)
    }

    /// The object around a well-known type, whose own form stands under `value`.
    fn wrapped(&mut self, id: u32) -> Done {
        self.enter(b'{', "an object")?;
        let mut given = false;
        loop {
            let start = self.at;
            let name = self.quoted("a name in double quotes")?;
            let (is_type, is_value) = (self.content(name) == b"@type", self.content(name) == b"value");
            self.colon()?;
            if is_value {
                if given {
                    self.at = start;
                    return Err(self.fail(JsonReason::Duplicate("value".into())));
                }
                given = true;
                self.message(id, UNMASKED)
                    .map_err(|failure| failure.inside("value"))?;
            } else if is_type || self.plan.options.unknown_fields == UnknownFields::Ignore {
                self.skip()?;
            } else {
                let name = String::from_utf8_lossy(self.content(name)).into();
                self.at = start;
                return Err(self.fail(JsonReason::UnknownField(name)));
            }
            match self.token() {
                b',' => {
                    self.at += 1;
                    self.token();
                }
                b'}' => break,
                _ => return Err(self.expected("`,` or `}`")),
            }
        }
        if !given {
            return Err(self.expected("a `value`"));
        }
        self.at += 1;
        self.depth -= 1;
        Ok(())
    }
}
