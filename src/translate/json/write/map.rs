//! Maps. JSON must not hold a key twice, so a map in which one comes again takes the fallback.

use std::collections::HashMap;

use super::super::plan::{Field, Kind};
use super::super::worker::KeySet;
use super::failure::{Done, Fail};
use super::input::Input;
use super::{Pass, UNMASKED, Writer, scalar};

/// Where key and value of an entry stand.
#[derive(Clone, Copy, Default)]
struct Entry {
    key: Option<usize>,
    value: Option<usize>,
    /// The value is a message that comes in several pieces.
    pieces: bool,
}

impl Writer<'_> {
    /// The entries that stand together, each with a comma behind it.
    pub(super) fn map(&mut self, field: &Field, key: Kind, input: &mut Input<'_>) -> Result<Pass, Fail> {
        let mut keys = self.scratch.keys.open();
        loop {
            let entry = input.delimited()?;
            if self.entry(field, key, entry, &mut keys)? == Pass::Tangled {
                keys.close(&mut self.scratch.keys);
                return Ok(Pass::Tangled);
            }
            self.check()?;
            if !input.accept(field.tag) {
                break;
            }
        }
        keys.close(&mut self.scratch.keys);
        Ok(Pass::Complete)
    }

    /// One entry; tangled if its key is there already.
    pub(super) fn entry(
        &mut self,
        field: &Field,
        key: Kind,
        bytes: Input<'_>,
        keys: &mut KeySet,
    ) -> Result<Pass, Fail> {
        let entry = self.parts(field, key, bytes)?;
        if self.drops(field, bytes, entry) {
            return Ok(Pass::Complete);
        }
        let start = self.out.len();
        self.key(key, entry.key.map(|at| bytes.from(at)))?;
        let out = &self.out;
        let place = (start, out.len() - start);
        if keys.insert(&mut self.scratch.keys, place, |(at, size)| {
            out.since(at).get(..size).unwrap_or_default()
        }) {
            return Ok(Pass::Tangled);
        }
        self.out.byte(b':');
        self.entry_value(field, bytes, entry)?;
        self.out.byte(b',');
        Ok(Pass::Complete)
    }

    /// All entries of a map, of which the last one with a key counts.
    pub(super) fn last_entries(&mut self, field: &Field, key: Kind, entries: &[Input<'_>]) -> Done {
        let mut last: HashMap<Vec<u8>, usize> = HashMap::new();
        let start = self.out.len();
        let mut names = Vec::with_capacity(entries.len());
        for (index, &bytes) in entries.iter().enumerate() {
            let entry = self.parts(field, key, bytes)?;
            if self.drops(field, bytes, entry) {
                continue;
            }
            self.key(key, entry.key.map(|at| bytes.from(at)))?;
            let name = self.out.since(start).to_vec();
            self.out.truncate(start);
            last.insert(name.clone(), index);
            names.push((index, name, entry));
        }
        for (index, name, entry) in names {
            if last.get(&name) == Some(&index) {
                self.out.bytes(&name);
                self.out.byte(b':');
                self.entry_value(field, entries[index], entry)?;
                self.out.byte(b',');
                self.check()?;
            }
        }
        Ok(())
    }

    fn parts(&self, field: &Field, key: Kind, bytes: Input<'_>) -> Result<Entry, Fail> {
        let mut input = bytes;
        let mut entry = Entry::default();
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            let at = input.at;
            input.skip(number, wire, self.depth)?;
            if number == 1 && wire == key.wire() {
                entry.key = Some(at);
            } else if number == 2 && wire == field.wire {
                let message = matches!(field.kind, Kind::Message(_) | Kind::Group(_));
                entry.pieces = message && entry.value.is_some();
                entry.value = Some(at);
            }
        }
        Ok(entry)
    }

    /// An entry whose value a closed enum does not declare is an unknown field.
    fn drops(&self, field: &Field, bytes: Input<'_>, entry: Entry) -> bool {
        let (true, Some(at), Kind::Enum(id)) = (field.closed, entry.value, field.kind) else {
            return false;
        };
        let number = bytes.from(at).varint().map(scalar::int32);
        number.is_ok_and(|number| self.plan.enums[id as usize].text(number).is_none())
    }

    /// A key in quotes; the default if the entry has none.
    fn key(&mut self, kind: Kind, input: Option<Input<'_>>) -> Done {
        // Zero in every wire type: an empty string, a zero, false.
        let mut input = input.unwrap_or_else(|| Input::new(&[0; 8]));
        let quoted = match kind {
            Kind::String => true,
            Kind::Int64 | Kind::Uint64 | Kind::Sint64 | Kind::Fixed64 | Kind::Sfixed64 => {
                !self.plan.options.int64_as_numbers
            }
            _ => false,
        };
        if quoted {
            self.scalar(kind, &mut input)?;
        } else {
            self.out.byte(b'"');
            self.scalar(kind, &mut input)?;
            self.out.byte(b'"');
        }
        Ok(())
    }

    fn entry_value(&mut self, field: &Field, bytes: Input<'_>, entry: Entry) -> Done {
        let done = match (entry.value, field.kind) {
            (Some(_), Kind::Message(id) | Kind::Group(id)) if entry.pieces => {
                let whole = self.merged(field, bytes)?;
                self.joined(id, &whole, UNMASKED)
            }
            (Some(at), kind) => self.value(kind, 2, &mut bytes.from(at), UNMASKED).map(|_| ()),
            (None, Kind::Message(id) | Kind::Group(id)) => self.message(id, Input::new(&[]), UNMASKED),
            (None, Kind::Enum(id)) => {
                self.enumeration(id, self.plan.enums[id as usize].first);
                Ok(())
            }
            (None, kind) => self.scalar(kind, &mut Input::new(&[0; 8])).map(|_| ()),
        };
        done.map_err(|failure| failure.inside("value"))
    }

    /// The pieces of the value of an entry one after the other, which is what merging them means.
    #[cold]
    fn merged(&self, field: &Field, bytes: Input<'_>) -> Result<Vec<u8>, Fail> {
        let mut input = bytes;
        let mut whole = Vec::new();
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            if number == 2 && wire == field.wire {
                whole.extend_from_slice(input.body(number, wire, self.depth)?.bytes());
            } else {
                input.skip(number, wire, self.depth)?;
            }
        }
        Ok(whole)
    }
}
