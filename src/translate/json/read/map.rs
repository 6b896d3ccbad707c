//! Maps: an object whose names are keys. A key that comes twice is an error.

use super::super::plan::{Field, Kind, Tag};
use super::super::worker::KeySet;
use super::super::{JsonReason, scan};
use super::Reader;
use super::failure::{Done, Fail};

impl<'a> Reader<'a> {
    pub(super) fn map(&mut self, field: &'a Field, key: Kind) -> Done {
        self.enter(b'{', "an object")?;
        let mut keys = self.scratch.keys.open();
        if self.token() != b'}' {
            loop {
                self.entry(field, key, &mut keys)?;
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

    fn entry(&mut self, field: &'a Field, key: Kind, keys: &mut KeySet) -> Done {
        let start = self.out.len();
        self.out.tag(field.tag);
        let width = self.learned.widths[field.hint];
        let mark = self.out.open(width);
        let name = self.key(key)?;
        let place = (mark.body(), self.out.len() - mark.body());
        self.colon()?;
        let inside = |failure: Fail, text: &[u8]| failure.key(text.get(name.0..name.1).unwrap_or_default());
        if self.token() == b'n' && !field.takes_null {
            return Err(inside(self.mismatch("a value"), self.text));
        }
        self.out.tag(Tag::new(2, field.kind.wire()));
        let kept = match self.element(field) {
            Ok(kept) => kept,
            Err(failure) => return Err(inside(failure, self.text)),
        };
        if !kept {
            self.out.truncate(start);
            return Ok(());
        }
        // The key moves if the length of the entry is wider than was left for it.
        let shifted = self.out.close(mark);
        let at = place.0 + usize::from(shifted) - usize::from(width);
        self.learned.widths[field.hint] = shifted;
        self.unique(keys, (at, place.1), name)
    }

    /// Refuses a key that the map has already; it stands in the output at `place`, and in the text at `name`.
    pub(super) fn unique(&mut self, keys: &mut KeySet, place: (usize, usize), name: (usize, usize)) -> Done {
        let out = &self.out;
        let twice = keys.insert(&mut self.scratch.keys, place, |(at, size)| {
            out.since(at).get(..size).unwrap_or_default()
        });
        if twice {
            let name = String::from_utf8_lossy(self.text.get(name.0..name.1).unwrap_or_default());
            return Err(self.fail(JsonReason::Duplicate(name.into())));
        }
        Ok(())
    }

    /// A key as field 1 of its entry; where it stands in the text, without its quotes.
    fn key(&mut self, kind: Kind) -> Result<(usize, usize), Fail> {
        if self.token() != b'"' {
            return Err(self.expected("a key in double quotes"));
        }
        let start = self.at;
        self.out.tag(Tag::new(1, kind.wire()));
        match kind {
            Kind::String => self.string()?,
            Kind::Bool => {
                let value = self.boolean_key()?;
                self.out.word(value.into(), 1);
            }
            _ => self.scalar(kind)?,
        }
        Ok((start + 1, self.at - 1))
    }

    fn boolean_key(&mut self) -> Result<bool, Fail> {
        let start = self.at;
        let end = scan::plain(self.text, start + 1);
        let (key, next) = if self.text.get(end) == Some(&b'"') {
            (&self.text[start + 1..end], end + 1)
        } else {
            self.at += 1;
            self.unescape()?;
            (&*self.scratch.text, self.at)
        };
        let value = match key {
            b"true" => true,
            b"false" => false,
            _ => return Err(self.not_at(start, "`true` or `false`")),
        };
        self.at = next;
        Ok(value)
    }
}
