//! From a document to the structs of the file, noting everything that is wrong.
//!
//! A derived `Deserialize` stops at its first error. So the document is read again and again, each time without the
//! values that were found wrong before, until a reading goes through: every error is noted once, in its own words,
//! and what is left can still be checked as a whole.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::value::{StrDeserializer, U32Deserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::diagnostic::{Diagnostic, did_you_mean, nearest};
use super::document::{Document, Kind, NodeId, Scalar};
use super::located::LOCATED;

/// After so many errors the rest would not be read. Every error costs a reading.
const MAX_ERRORS: usize = 100;

/// Reads a document, and says what was wrong in it.
///
/// With errors there may still be a value: what is left without the wrong parts.
pub(super) fn read<T: de::DeserializeOwned>(document: &Document) -> (Option<T>, Vec<Diagnostic>) {
    let notes = RefCell::new(Notes::default());
    let root = Cursor {
        document,
        notes: &notes,
        node: NodeId::ROOT,
    };
    let value = loop {
        match T::deserialize(root) {
            Ok(value) => break Some(value),
            Err(_) => {
                let notes = notes.borrow();
                if notes.wrong.contains(&NodeId::ROOT) || notes.found.len() >= MAX_ERRORS {
                    break None;
                }
            }
        }
    };
    (value, notes.into_inner().found)
}

#[derive(Debug, Default)]
struct Notes {
    found: Vec<Diagnostic>,
    /// What later readings pass over.
    wrong: HashSet<NodeId>,
}

/// Why a reading stopped.
#[derive(Debug)]
enum Stop {
    /// It is noted; the next reading passes over it.
    Noted,
    /// What a value is not, such as `is not a size`; the reader puts the value before it.
    Value(String),
    /// A key that has to be there is not.
    Missing(&'static str),
    /// The key is none of these.
    Unknown(&'static [&'static str]),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Noted => f.write_str("an error that is noted"),
            Self::Value(message) => f.write_str(message),
            Self::Missing(key) => write!(f, "no \"{key}\""),
            Self::Unknown(known) => write!(f, "none of {}", sorted(known)),
        }
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Value(message.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }

    fn unknown_field(_field: &str, expected: &'static [&'static str]) -> Self {
        Self::Unknown(expected)
    }
}

/// One node, about to be read.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    document: &'a Document,
    notes: &'a RefCell<Notes>,
    node: NodeId,
}

impl<'a> Cursor<'a> {
    fn child(self, node: NodeId) -> Self {
        Self { node, ..self }
    }

    fn kind(self) -> &'a Kind {
        self.document.kind(self.node)
    }

    fn wrong(self, node: NodeId) -> bool {
        self.notes.borrow().wrong.contains(&node)
    }

    /// Notes an error at this node, so that later readings pass over it.
    fn note(self, diagnostic: Diagnostic) -> Stop {
        let mut notes = self.notes.borrow_mut();
        if notes.wrong.insert(self.node) {
            notes.found.push(diagnostic);
        }
        Stop::Noted
    }

    fn refuse(self, message: impl Into<String>) -> Stop {
        self.note(self.document.error(self.node, message))
    }

    /// Notes that the key under which this node stands is not known.
    fn unknown(self, key: &str, known: &[&str]) -> Stop {
        let message = format!(
            "unknown key \"{key}\"{}",
            did_you_mean(key, known.iter().copied())
        );
        let valid = format!("valid keys: {}", sorted(known));
        self.note(self.document.key_error(self.node, message).noting(valid))
    }

    /// The value as an error may show it: as it is written, never what came from outside.
    fn shown(self) -> String {
        match self.kind() {
            Kind::Scalar(Scalar { text, written }) => {
                let written = written.as_ref().unwrap_or(text);
                format!("\"{written}\"")
            }
            Kind::Null => "nothing".to_owned(),
            Kind::Sequence(_) => "a list".to_owned(),
            Kind::Mapping(_) => "a mapping".to_owned(),
        }
    }

    fn expected(self, what: &str) -> Stop {
        self.refuse(format!("{} where {what} is expected", self.shown()))
    }

    /// Notes what a reading of this node stopped for, if nobody has.
    fn settle<T>(self, result: Result<T, Stop>) -> Result<T, Stop> {
        result.map_err(|stop| match stop {
            Stop::Noted => Stop::Noted,
            // What a mapping lacks may be what was found wrong in it.
            Stop::Value(_) if self.wrong_entry(|_| true) => self.pass_over(),
            Stop::Value(message) => self.refuse(format!("{} {message}", self.shown())),
            Stop::Unknown(known) => self.refuse(format!("a key that is not one of {}", sorted(known))),
            Stop::Missing(key) => {
                // The key may be there, with a wrong value or mistyped: that is said already.
                if self.wrong_entry(|written| nearest(written, [key]).is_some()) {
                    return self.pass_over();
                }
                self.note(
                    self.document
                        .key_error(self.node, format!("no \"{key}\"; it has to be there")),
                )
            }
        })
    }

    fn wrong_entry(self, which: impl Fn(&str) -> bool) -> bool {
        match self.kind() {
            Kind::Mapping(entries) => entries
                .iter()
                .any(|(key, value)| self.wrong(*value) && which(key)),
            Kind::Null | Kind::Scalar(_) | Kind::Sequence(_) => false,
        }
    }

    fn pass_over(self) -> Stop {
        self.notes.borrow_mut().wrong.insert(self.node);
        Stop::Noted
    }

    /// Reads this node for a collection that holds it: what is wrong with it is noted here, not there.
    fn read_by<S: DeserializeSeed<'a>>(self, seed: S) -> Result<S::Value, Stop> {
        self.settle(seed.deserialize(self))
    }

    fn text(self, what: &str) -> Result<&'a str, Stop> {
        match self.kind() {
            Kind::Scalar(scalar) => Ok(&scalar.text),
            Kind::Null | Kind::Sequence(_) | Kind::Mapping(_) => Err(self.expected(what)),
        }
    }

    fn number<T: std::str::FromStr>(
        self,
        least: impl fmt::Display,
        most: impl fmt::Display,
    ) -> Result<T, Stop> {
        let what = format!("a whole number from {least} to {most}");
        let text = self.text(&what)?;
        text.parse().map_err(|_| self.expected(&what))
    }

    fn entries(self, fields: Option<&'static [&'static str]>) -> Result<Entries<'a>, Stop> {
        let entries: &[_] = match self.kind() {
            Kind::Mapping(entries) => entries,
            Kind::Null => &[],
            Kind::Scalar(_) | Kind::Sequence(_) => {
                return Err(match fields {
                    Some(fields) => self.expected(&format!("a mapping with {}", one_of(fields))),
                    None => self.expected("a mapping"),
                });
            }
        };
        Ok(Entries {
            cursor: self,
            rest: entries.iter(),
            value: None,
        })
    }
}

fn sorted(names: &[&str]) -> String {
    let mut names = names.to_vec();
    names.sort_unstable();
    names.join(", ")
}

fn one_of(names: &[&str]) -> String {
    match names {
        [one] => format!("the key {one}"),
        names => format!("keys of {}", sorted(names)),
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            let number = self.number::<$type>(<$type>::MIN, <$type>::MAX)?;
            self.settle(visitor.$visit(number))
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Cursor<'de> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let read = match self.kind() {
            Kind::Null => visitor.visit_unit(),
            Kind::Scalar(scalar) => visitor.visit_borrowed_str(&scalar.text),
            Kind::Sequence(items) => visitor.visit_seq(Items {
                cursor: self,
                rest: items.iter(),
            }),
            Kind::Mapping(_) => visitor.visit_map(self.entries(None)?),
        };
        self.settle(read)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let value = match self.text("true or false")? {
            "true" => true,
            "false" => false,
            _ => return Err(self.expected("true or false")),
        };
        self.settle(visitor.visit_bool(value))
    }

    whole_numbers! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let text = self.text("text")?;
        self.settle(visitor.visit_borrowed_str(text))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.kind() {
            Kind::Null => visitor.visit_none(),
            Kind::Scalar(_) | Kind::Sequence(_) | Kind::Mapping(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let read = if name == LOCATED {
            visitor.visit_seq(Whereabouts {
                cursor: self,
                given: 0,
            })
        } else {
            visitor.visit_newtype_struct(self)
        };
        self.settle(read)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let items: &[_] = match self.kind() {
            Kind::Sequence(items) => items,
            Kind::Null => &[],
            Kind::Scalar(_) | Kind::Mapping(_) => return Err(self.expected("a list")),
        };
        let read = visitor.visit_seq(Items {
            cursor: self,
            rest: items.iter(),
        });
        self.settle(read)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        let read = visitor.visit_map(self.entries(None)?);
        self.settle(read)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let read = visitor.visit_map(self.entries(Some(fields))?);
        self.settle(read)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        let choices = || format!("one of {}", variants.join(", "));
        let text = self.text(&choices())?;
        if !variants.contains(&text) {
            let meant = did_you_mean(text, variants.iter().copied());
            let message = format!("{} is not known{meant}", self.shown());
            let valid = format!("valid: {}", variants.join(", "));
            return Err(self.note(self.document.error(self.node, message).noting(valid)));
        }
        let name: StrDeserializer<'de, Stop> = text.into_deserializer();
        self.settle(visitor.visit_enum(name))
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The elements of a list, without those that are wrong.
struct Items<'a> {
    cursor: Cursor<'a>,
    rest: std::slice::Iter<'a, NodeId>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        let cursor = self.cursor;
        let next = self.rest.by_ref().find(|item| !cursor.wrong(**item));
        next.map(|item| cursor.child(*item).read_by(seed)).transpose()
    }
}

/// The entries of a mapping, without those that are wrong.
struct Entries<'a> {
    cursor: Cursor<'a>,
    rest: std::slice::Iter<'a, (String, NodeId)>,
    value: Option<NodeId>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Stop> {
        let cursor = self.cursor;
        let Some((key, value)) = self.rest.by_ref().find(|(_, value)| !cursor.wrong(*value)) else {
            return Ok(None);
        };
        self.value = Some(*value);
        let name: StrDeserializer<'de, Stop> = key.as_str().into_deserializer();
        match seed.deserialize(name) {
            Ok(key) => Ok(Some(key)),
            Err(stop) => {
                let message = match stop {
                    Stop::Noted => return Err(Stop::Noted),
                    Stop::Unknown(known) => return Err(cursor.child(*value).unknown(key, known)),
                    Stop::Value(message) => format!("\"{key}\" {message}"),
                    Stop::Missing(missing) => format!("no \"{missing}\"; it has to be there"),
                };
                Err(cursor
                    .child(*value)
                    .note(cursor.document.key_error(*value, message)))
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Stop> {
        let node = self.value.take().ok_or_else(|| de::Error::custom("has no key"))?;
        self.cursor.child(node).read_by(seed)
    }
}

/// A value with its place, as a [`Located`](super::located::Located) reads it: the node's number, then the value.
struct Whereabouts<'a> {
    cursor: Cursor<'a>,
    given: u8,
}

impl<'de> SeqAccess<'de> for Whereabouts<'de> {
    type Error = Stop;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Stop> {
        self.given += 1;
        match self.given {
            1 => seed
                .deserialize(U32Deserializer::<Stop>::new(self.cursor.node.number()))
                .map(Some),
            2 => self.cursor.read_by(seed).map(Some),
            _ => Ok(None),
        }
    }
}
