//! What a schema becomes for reading and writing: tables that hold every byte and bit that can be known beforehand.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::names::Names;
use super::{JsonOptions, Mask, MaskError, MessageId};

/// Tells plans apart in what a thread learned about them.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// All messages of a schema under one set of options.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) serial: u64,
    pub(super) messages: Box<[Message]>,
    pub(super) enums: Box<[Enum]>,
    pub(super) by_name: HashMap<Box<str>, u32>,
    pub(super) options: JsonOptions,
    /// Rows of the successor table: see [`Message::row`].
    pub(super) rows: usize,
    /// How many fields there are: see [`Field::hint`].
    pub(super) hints: usize,
}

impl Plan {
    pub(super) fn serial() -> u64 {
        NEXT.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn message(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied().map(MessageId)
    }

    pub(super) fn mask(&self, message: MessageId, paths: &[&str]) -> Result<Mask, MaskError> {
        let mut mask = Mask::new();
        for path in paths {
            let mut at = Some(message.0);
            let mut numbers = Vec::new();
            for part in path.split('.') {
                let field = at.and_then(|id| {
                    let message = self.messages.get(id as usize)?;
                    message.fields.iter().find(|field| &*field.name == part)
                });
                let Some(field) = field else {
                    return Err(MaskError {
                        path: (*path).to_owned(),
                        part: part.to_owned(),
                    });
                };
                numbers.push(field.number);
                at = match (field.shape, field.kind) {
                    (Shape::Implicit | Shape::Explicit, Kind::Message(id) | Kind::Group(id)) => Some(id),
                    _ => None,
                };
            }
            mask.insert(&numbers);
        }
        Ok(mask)
    }
}

/// A message type.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) form: Form,
    /// Sorted by number; extensions are among them.
    pub(super) fields: Box<[Field]>,
    /// Field indexes by number, [`NONE`] where there is none; higher numbers are found by bisection.
    pub(super) dense: Box<[u16]>,
    /// Every name by which JSON may call a field: first the one that is written, in the order of `fields`.
    pub(super) spellings: Box<[Spelling]>,
    /// Names to indexes in `spellings`.
    pub(super) names: Names,
    /// Bits of fields, then bits of oneofs; this many.
    pub(super) bits: usize,
    pub(super) required: Bits,
    /// Fields that are written although they are absent.
    pub(super) always: Bits,
    pub(super) oneofs: Box<[Box<str>]>,
    /// Where its rows start in the successor table: one for the first key, then one for each spelling.
    pub(super) row: usize,
}

impl Message {
    /// The index of the field with a number.
    #[inline]
    pub(super) fn index(&self, number: u32) -> Option<usize> {
        if let Some(&index) = self.dense.get(number as usize) {
            return (index != NONE).then_some(index as usize);
        }
        self.fields
            .binary_search_by_key(&number, |field| field.number)
            .ok()
    }
}

/// No index.
pub(super) const NONE: u16 = u16::MAX;

/// How a message stands in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// An object with a member for each field.
    Plain,
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// The value of its field 1 alone.
    Wrapper(Kind),
}

/// What a field holds; for lists and maps, each element or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    /// The index of the enum.
    Enum(u32),
    /// The index of the message.
    Message(u32),
    /// The index of the message, which is written between tags.
    Group(u32),
}

impl Kind {
    /// The wire type of one value.
    pub(super) fn wire(self) -> u8 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => wire::I64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => wire::I32,
            Self::String | Self::Bytes | Self::Message(_) => wire::LEN,
            Self::Group(_) => wire::START,
            Self::Int32
            | Self::Int64
            | Self::Uint32
            | Self::Uint64
            | Self::Sint32
            | Self::Sint64
            | Self::Bool
            | Self::Enum(_) => wire::VARINT,
        }
    }

    /// Whether a list of it may be packed.
    pub(super) fn packable(self) -> bool {
        !matches!(
            self,
            Self::String | Self::Bytes | Self::Message(_) | Self::Group(_)
        )
    }
}

/// The wire types. Source: protobuf's encoding, "Message structure".
pub(super) mod wire {
    pub(in super::super) const VARINT: u8 = 0;
    pub(in super::super) const I64: u8 = 1;
    pub(in super::super) const LEN: u8 = 2;
    pub(in super::super) const START: u8 = 3;
    pub(in super::super) const END: u8 = 4;
    pub(in super::super) const I32: u8 = 5;
}

/// How often a field may stand in its message, and whether absence can be told from the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Once; the default is not written.
    Implicit,
    /// Once; also the default is written.
    Explicit,
    /// Any number of times, each with its tag.
    List,
    /// Any number of times, under one tag; read in either form.
    Packed,
    /// Entries of a key of this kind and a value.
    Map(Kind),
}

/// A field.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked on its own")]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) kind: Kind,
    pub(super) shape: Shape,
    /// The tag as it is written; that of the list where it is packed.
    pub(super) tag: Tag,
    /// The tag of one value.
    pub(super) one: Tag,
    /// The tag of a packed run, or of an entry.
    pub(super) run: Tag,
    /// The wire type of one value.
    pub(super) wire: u8,
    /// A bit for each wire type that it takes.
    pub(super) accepts: u8,
    /// The bit of its oneof, or [`NONE`].
    pub(super) oneof: u16,
    /// `null` is a value of it, not its absence.
    pub(super) is_null: bool,
    /// `null` is a value of its kind: as an element too.
    pub(super) takes_null: bool,
    pub(super) required: bool,
    /// Which enum values are no values of it but unknown fields.
    pub(super) closed: bool,
    /// Where it learns how wide its length is.
    pub(super) hint: usize,
    /// The name in `.proto`, for masks.
    pub(super) name: Box<str>,
    /// `"name":` as it is written.
    pub(super) key: Key,
    /// `"name":default,` if it is written although it is absent, else nothing.
    pub(super) default: Box<[u8]>,
}

impl Field {
    /// The name as it is written in JSON.
    pub(super) fn spelled(&self) -> &str {
        let inner = self.key.text.get(1..self.key.text.len() - 2).unwrap_or_default();
        std::str::from_utf8(inner).unwrap_or_default()
    }
}

/// `"name":`.
#[derive(Debug)]
pub(super) struct Key {
    /// The same with zeros behind, if it is short enough: two copies of fixed size are cheap.
    pub(super) padded: Option<[u8; 32]>,
    pub(super) text: Box<[u8]>,
}

impl Key {
    pub(super) fn new(text: Vec<u8>) -> Self {
        let mut padded = [0; 32];
        let short = padded
            .get_mut(..text.len())
            .map(|part| part.copy_from_slice(&text));
        Self {
            padded: short.map(|()| padded),
            text: text.into(),
        }
    }
}

/// An encoded tag: at most five bytes in a word, first byte lowest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tag {
    pub(super) bytes: u64,
    pub(super) len: u8,
}

impl Tag {
    pub(super) fn new(number: u32, wire: u8) -> Self {
        let mut value = u64::from(number) << 3 | u64::from(wire);
        let (mut bytes, mut len) = (0, 0);
        while value >= 0x80 {
            bytes |= (value & 0x7f | 0x80) << (8 * len);
            value >>= 7;
            len += 1;
        }
        Self {
            bytes: bytes | value << (8 * len),
            len: len + 1,
        }
    }
}

/// A name of a field, ready to be compared with the text.
#[derive(Debug)]
pub(super) struct Spelling {
    /// The first 16 bytes of `"name":`, and a mask of those that count.
    head: u128,
    mask: u128,
    /// The last 16 bytes, if there are more than 16.
    tail: u128,
    /// The whole.
    pub(super) text: Box<[u8]>,
    pub(super) field: u16,
}

impl Spelling {
    pub(super) fn new(name: &str, field: u16) -> Self {
        // A name that JSON must escape never stands in the text as it is: no UTF-8 text holds these bytes.
        let plain = name
            .bytes()
            .all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\');
        let text: Box<[u8]> = if plain {
            [b"\"", name.as_bytes(), b"\":"].concat().into()
        } else {
            [0xff; 17].into()
        };
        let (mut head, mut mask) = ([0; 16], [0; 16]);
        for ((&byte, head), mask) in text.iter().zip(&mut head).zip(&mut mask) {
            (*head, *mask) = (byte, 0xff);
        }
        Self {
            head: u128::from_le_bytes(head),
            mask: u128::from_le_bytes(mask),
            tail: text.last_chunk().map_or(0, |last| u128::from_le_bytes(*last)),
            text,
            field,
        }
    }

    /// Whether the text has this name and a colon at a place. False near the end of the text, where a lookup decides.
    #[inline]
    pub(super) fn stands(&self, text: &[u8], at: usize) -> bool {
        let window = |at: usize| text.get(at..).and_then(<[u8]>::first_chunk::<16>);
        let Some(head) = window(at) else { return false };
        if (u128::from_le_bytes(*head) ^ self.head) & self.mask != 0 {
            return false;
        }
        let size = self.text.len();
        if size <= 16 {
            return true;
        }
        let tail = window(at + size - 16).is_some_and(|tail| u128::from_le_bytes(*tail) == self.tail);
        tail && (size <= 32 || text.get(at..at + size) == Some(&*self.text))
    }
}

/// A set of indexes of known size.
#[derive(Debug, Default)]
pub(super) struct Bits(pub(super) Box<[u64]>);

impl Bits {
    pub(super) fn new(size: usize, members: impl IntoIterator<Item = usize>) -> Self {
        let mut words = vec![0; size.div_ceil(64)];
        for member in members {
            words[member / 64] |= 1 << (member % 64);
        }
        // An empty set has no words to look at.
        if words.iter().all(|&word| word == 0) {
            words.clear();
        }
        Self(words.into())
    }
}

/// An enum.
#[derive(Debug)]
pub(super) struct Enum {
    pub(super) name: Box<str>,
    /// `google.protobuf.NullValue`, which is `null` in JSON.
    pub(super) null: bool,
    /// Sorted by number, the first name of each.
    pub(super) values: Box<[(i32, Box<[u8]>)]>,
    /// Indexes into `values` by number, where the numbers are small.
    pub(super) dense: Box<[u16]>,
    /// Names to indexes in `numbers`.
    pub(super) names: Names,
    /// The same in lower case, if case does not matter.
    pub(super) folded: Option<Names>,
    pub(super) numbers: Box<[i32]>,
    /// The default: the value that is declared first.
    pub(super) first: i32,
}

impl Enum {
    /// The text of a value: its name in quotes.
    #[inline]
    pub(super) fn text(&self, number: i32) -> Option<&[u8]> {
        let dense = usize::try_from(number).ok().and_then(|at| self.dense.get(at));
        let index = match dense {
            Some(&NONE) => return None,
            Some(&index) => index as usize,
            None => self.values.binary_search_by_key(&number, |value| value.0).ok()?,
        };
        self.values.get(index).map(|value| &*value.1)
    }

    /// The number of a name.
    #[inline]
    pub(super) fn number(&self, name: &[u8]) -> Option<i32> {
        let index = self.names.find(name).or_else(|| {
            let folded = self.folded.as_ref()?;
            folded.find(&name.to_ascii_lowercase())
        })?;
        self.numbers.get(index as usize).copied()
    }
}
