//! Writing header blocks.
//!
//! Strings are written as they are: a field that comes again is one byte by the table, and what is left is not worth the
//! Huffman code to either side. A field goes into the table when it comes for the second time within a few, so that
//! identifiers, which differ each time, don't drive out what stays the same.

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _};

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION, SET_COOKIE};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};

use crate::http2::hpack::{OVERHEAD, fields};

/// What the table may count, even if the client allows more: a dozen fields.
const ROOM: usize = 1024;

/// Fields that were written and are not in the table, whose coming again is noticed. 32: more than most messages have, or
/// none of theirs would ever be noticed again.
const NOTED: usize = 32;

/// Where `:status` begins in the static table, and the statuses that it has there.
const STATUSES: [(u16, u8); 7] = [
    (200, 8),
    (204, 9),
    (206, 10),
    (304, 11),
    (400, 12),
    (404, 13),
    (500, 14),
];

/// A field of the table: its name and value in one text.
#[derive(Debug)]
struct Entry {
    text: Box<[u8]>,
    name: usize,
}

impl Entry {
    fn is_named(&self, name: &[u8]) -> bool {
        self.name == name.len() && self.text.starts_with(name)
    }

    fn is(&self, name: &[u8], value: &[u8]) -> bool {
        self.text.len() == name.len() + value.len() && self.is_named(name) && self.text.ends_with(value)
    }

    fn size(&self) -> usize {
        self.text.len() + OVERHEAD
    }
}

/// Whether a field may go into a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Never,
    IfItComesAgain,
}

/// Writes header blocks of one connection, in their order.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// The newest entry first.
    entries: VecDeque<Entry>,
    size: usize,
    /// What the entries may count together.
    room: usize,
    /// The client has to be told of sizes of the table: the least since it was told last, and the newest.
    resized: Option<(usize, usize)>,
    noted: [u16; NOTED],
    /// Where the next is noted.
    next: usize,
    /// The entry that is looked at first.
    likely: usize,
}

impl Encoder {
    /// An encoder for a client that has not said what it allows, which means 4,096 bytes.
    pub(crate) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            room: ROOM,
            resized: Some((ROOM, ROOM)),
            noted: [0; NOTED],
            next: 0,
            likely: 0,
        }
    }

    /// The client allows a table of `allowed` bytes.
    pub(crate) fn resize(&mut self, allowed: u32) {
        let room = usize::try_from(allowed).unwrap_or(usize::MAX).min(ROOM);
        let least = self.resized.map_or(room, |(least, _)| least.min(room));
        self.resized = Some((least, room));
        self.room = room;
        self.evict(room);
    }

    /// Begins a block.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, newest)) = self.resized.take() {
            if least < newest {
                number(0x20, 5, least, out);
            }
            number(0x20, 5, newest, out);
        }
    }

    /// Writes the status of an answer.
    pub(crate) fn status(status: StatusCode, out: &mut Vec<u8>) {
        let known = STATUSES.iter().find(|(known, _)| *known == status.as_u16());
        if let Some((_, place)) = known {
            out.push(0x80 | place);
            return;
        }
        number(0, 4, 8, out);
        string(status.as_str().as_bytes(), out);
    }

    /// Writes what a request asks for.
    pub(crate) fn request(&mut self, request: &Request<()>, out: &mut Vec<u8>) {
        match *request.method() {
            Method::GET => out.push(0x82),
            Method::POST => out.push(0x83),
            ref other => self.text(b":method", 2, other.as_str().as_bytes(), out),
        }
        let uri = request.uri();
        out.push(if uri.scheme() == Some(&Scheme::HTTPS) {
            0x87
        } else {
            0x86
        });
        if let Some(authority) = uri.authority() {
            self.text(b":authority", 1, authority.as_str().as_bytes(), out);
        }
        let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
        self.text(b":path", 4, path.as_bytes(), out);
    }

    /// Writes a header field.
    pub(crate) fn field(&mut self, name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
        let (bytes, text) = (name.as_str().as_bytes(), value.as_bytes());
        // Most fields are in the table, and no secret is. What else there is to know is looked up for the others alone.
        if !value.is_sensitive() && self.known(bytes, text, out) {
            return;
        }
        let secret = value.is_sensitive() || [AUTHORIZATION, PROXY_AUTHORIZATION, SET_COOKIE].contains(name);
        let keeps = if secret {
            Keeps::Never
        } else {
            Keeps::IfItComesAgain
        };
        self.literal(bytes, fields::place(name).unwrap_or(0), text, keeps, out);
    }

    /// Writes what a request asks for, whose name is at `place` in the static table.
    fn text(&mut self, name: &[u8], place: usize, text: &[u8], out: &mut Vec<u8>) {
        if !self.known(name, text, out) {
            self.literal(name, place, text, Keeps::IfItComesAgain, out);
        }
    }

    /// Writes a field by its place in the table, if it is there.
    fn known(&mut self, name: &[u8], text: &[u8], out: &mut Vec<u8>) -> bool {
        let is = |entry: &Entry| entry.is(name, text);
        let at = match self.entries.get(self.likely) {
            Some(entry) if is(entry) => self.likely,
            Some(_) | None => match self.entries.iter().position(is) {
                Some(at) => at,
                None => return false,
            },
        };
        number(0x80, 7, at + fields::KNOWN + 1, out);
        // Fields come in one order, message for message, and went into the table in it: after the newest comes the oldest.
        self.likely = at.checked_sub(1).unwrap_or(self.entries.len() - 1);
        true
    }

    /// Writes a field that is not in the table, and whose name is at `place` in the static one, or not in it if that is 0.
    fn literal(&mut self, bytes: &[u8], place: usize, text: &[u8], keeps: Keeps, out: &mut Vec<u8>) {
        let named = match place {
            0 => self.place(bytes),
            place => place,
        };
        let kept = keeps == Keeps::IfItComesAgain && self.comes_again(bytes, text);
        match keeps {
            Keeps::Never => number(0x10, 4, named, out),
            Keeps::IfItComesAgain if kept => number(0x40, 6, named, out),
            Keeps::IfItComesAgain => number(0, 4, named, out),
        }
        if named == 0 {
            string(bytes, out);
        }
        string(text, out);
        if kept {
            self.insert(bytes, text);
        }
    }

    /// Where a name is in the table; 0 if it is not.
    fn place(&self, name: &[u8]) -> usize {
        let own = self.entries.iter().position(|entry| entry.is_named(name));
        own.map_or(0, |at| at + fields::KNOWN + 1)
    }

    /// Whether a field was written a short while ago, and would fit; it is noted if not.
    #[expect(clippy::cast_possible_truncation, reason = "a part of a hash")]
    fn comes_again(&mut self, name: &[u8], value: &[u8]) -> bool {
        if name.len() + value.len() + OVERHEAD > self.room {
            return false;
        }
        let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
        hasher.write(name);
        hasher.write(value);
        // 0 is what nothing has been noted for.
        let mark = hasher.finish() as u16 | 1;
        if self.noted.contains(&mark) {
            return true;
        }
        if let Some(place) = self.noted.get_mut(self.next) {
            *place = mark;
        }
        self.next = (self.next + 1) % NOTED;
        false
    }

    fn insert(&mut self, name: &[u8], value: &[u8]) {
        let entry = Entry {
            text: [name, value].concat().into(),
            name: name.len(),
        };
        self.evict(self.room.saturating_sub(entry.size()));
        self.size += entry.size();
        self.entries.push_front(entry);
    }

    fn evict(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.entries.pop_back() else {
                break;
            };
            self.size -= oldest.size();
        }
    }

    /// Gives back room that is not used.
    pub(crate) fn shrink(&mut self) {
        self.entries.shrink_to_fit();
    }
}

/// Writes a number into the lowest `prefix` bits of a byte that begins with `first`, and as many more as it needs.
#[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
fn number(first: u8, prefix: u32, number: usize, out: &mut Vec<u8>) {
    let mask = (1_usize << prefix) - 1;
    if number < mask {
        return out.push(first | number as u8);
    }
    out.push(first | mask as u8);
    let mut rest = number - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn string(bytes: &[u8], out: &mut Vec<u8>) {
    number(0, 7, bytes.len(), out);
    out.extend_from_slice(bytes);
}
