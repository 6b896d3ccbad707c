//! JSON to the wire format in one pass: no tree, one output buffer.
//!
//! The text is walked once. Each member's name is guessed from the name before it, its value is parsed straight into
//! the output, and a length is written when its body is complete.

mod any;
mod failure;
mod map;
mod number;
mod scalar;
mod skip;
mod value;
mod well_known;

use bytes::BytesMut;

use self::failure::{Done, Fail, Failure};
use super::mask::Rule;
use super::out::Out;
use super::plan::{Field, Message, Plan, Shape};
use super::worker::{self, Learned, Scratch, Seen};
use super::{JsonError, JsonReason, MAX_DEPTH, Mask, Target, UnknownFields, scan};

/// No mask applies here.
const UNMASKED: u32 = u32::MAX;

struct Reader<'a> {
    plan: &'a Plan,
    text: &'a [u8],
    /// The next byte.
    at: usize,
    out: Out<'a>,
    learned: &'a mut Learned,
    scratch: &'a mut Scratch,
    owned: Option<&'a Mask>,
    /// Objects and arrays that are open.
    depth: u32,
}

/// See [`super::Transcoder::read`].
pub(super) fn read(
    plan: &Plan,
    target: Target,
    owned: Option<&Mask>,
    text: &[u8],
    out: &mut BytesMut,
    limit: usize,
) -> Result<(), JsonError> {
    if let Err(error) = simdutf8::basic::from_utf8(text) {
        return Err(failure::not_utf8(text, error));
    }
    worker::with(plan, |learned, scratch| {
        let out = Out::new(out, text.len() / 4 * 3 + 32, limit);
        let mut reader = Reader {
            plan,
            text,
            at: 0,
            out,
            learned,
            scratch,
            owned,
            depth: 0,
        };
        match reader.whole(target, limit) {
            Ok(()) => {
                reader.out.finish();
                Ok(())
            }
            Err(failure) => {
                reader.out.abandon();
                Err(failure.place(text))
            }
        }
    })
}

impl<'a> Reader<'a> {
    fn whole(&mut self, target: Target, limit: usize) -> Done {
        let node = if self.owned.is_some() { 0 } else { UNMASKED };
        let id = target.message().0;
        let Some(message) = self.plan.messages.get(id as usize) else {
            return Err(self.expected("a message of this schema"));
        };
        if self.token() == 0 && self.at >= self.text.len() {
            let seen = Seen::new(message, self.scratch);
            return match target {
                Target::Message(_) => self.require(message, seen, node),
                Target::Field { .. } => Ok(()),
            };
        }
        match target {
            Target::Message(_) => self.message(id, node)?,
            Target::Field { number, .. } => self.alone(message, number, node)?,
        }
        if self.token() != 0 || self.at < self.text.len() {
            return Err(self.expected("the end of the text"));
        }
        if self.out.is_over() {
            return Err(self.fail(JsonReason::TooLarge { limit }));
        }
        Ok(())
    }

    /// The value of one field: as if it stood in its message after its name.
    fn alone(&mut self, message: &'a Message, number: u32, node: u32) -> Done {
        let Some((index, field)) = message
            .index(number)
            .and_then(|at| Some((at, message.fields.get(at)?)))
        else {
            return Err(self.expected("a field of this message"));
        };
        let mut seen = Seen::new(message, self.scratch);
        let done = self
            .member(message, index, &mut seen, node)
            .map_err(|failure| failure.inside(field.spelled()));
        seen.leave(self.scratch);
        done
    }

    /// The members of an object, up to and with its end. `typed` objects may hold an `@type`.
    fn object(&mut self, message: &'a Message, node: u32, typed: Typed) -> Done {
        self.enter(b'{', "an object")?;
        let mut seen = Seen::new(message, self.scratch);
        let mut row = message.row;
        if self.token() != b'}' {
            loop {
                self.token();
                let start = self.at;
                let guess = usize::from(self.learned.successors[row]);
                let known = match message.spellings.get(guess) {
                    Some(spelling) if spelling.stands(self.text, start) => {
                        self.at += spelling.text.len();
                        Some(guess)
                    }
                    _ => self.name(message, row)?,
                };
                match known {
                    Some(index) => {
                        row = message.row + 1 + index;
                        let field = usize::from(message.spellings[index].field);
                        if let Err(failure) = self.member(message, field, &mut seen, node) {
                            return Err(failure.inside(message.fields[field].spelled()));
                        }
                    }
                    None => self.unknown(start, typed)?,
                }
                match self.token() {
                    b',' => self.at += 1,
                    b'}' => break,
                    _ => return Err(self.expected("`,` or `}`")),
                }
            }
        }
        self.at += 1;
        self.depth -= 1;
        self.require(message, seen, node)
    }

    /// Passes a name that was not the guessed one, and its colon; learns it if a field has it.
    #[inline(never)]
    fn name(&mut self, message: &Message, row: usize) -> Result<Option<usize>, Fail> {
        if self.token() != b'"' {
            return Err(self.expected("a name in double quotes"));
        }
        self.at += 1;
        let start = self.at;
        let end = scan::plain(self.text, start);
        let found = if self.text.get(end) == Some(&b'"') {
            self.at = end + 1;
            message.names.find(&self.text[start..end])
        } else {
            self.unescape()?;
            message.names.find(&self.scratch.text)
        };
        if let Some(index) = found {
            self.learned.successors[row] = index;
        }
        self.colon()?;
        Ok(found.map(usize::from))
    }

    /// A member without a field. `start` is where its name starts.
    #[inline(never)]
    fn unknown(&mut self, start: usize, typed: Typed) -> Done {
        let end = scan::plain(self.text, start + 1);
        // A name with escapes was left in the scratch text by the lookup.
        let plain = self.text.get(end) == Some(&b'"');
        let name = if plain {
            &self.text[start + 1..end]
        } else {
            &*self.scratch.text
        };
        if (typed != Typed::No && name == b"@type") || (typed == Typed::Empty && name == b"value") {
            return self.skip();
        }
        if self.plan.options.unknown_fields == UnknownFields::Reject {
            let name = String::from_utf8_lossy(name).into();
            return Err(Failure::new(start, JsonReason::UnknownField(name)));
        }
        self.skip()
    }

    /// The value of a known field.
    #[inline(always)]
    fn member(&mut self, message: &'a Message, index: usize, seen: &mut Seen, node: u32) -> Done {
        let field = &message.fields[index];
        if seen.mark(index, self.scratch) {
            return Err(self.fail(JsonReason::Duplicate(field.spelled().into())));
        }
        let inner = if node == UNMASKED {
            UNMASKED
        } else {
            self.inner(field, node)?
        };
        if self.token() == b'n' && !field.is_null {
            return self.absent(field);
        }
        if field.oneof != super::plan::NONE && seen.mark(usize::from(field.oneof), self.scratch) {
            return Err(self.second_member(message, field));
        }
        match field.shape {
            Shape::Implicit | Shape::Explicit => {
                let start = self.out.len();
                self.out.tag(field.tag);
                let body = self.out.len();
                let kept = self.value(field.kind, field, inner)?;
                if !kept || (field.shape == Shape::Implicit && is_zero(self.out.since(body))) {
                    self.out.truncate(start);
                }
                Ok(())
            }
            Shape::List => self.list(field),
            Shape::Packed => self.packed(field),
            Shape::Map(key) => self.map(field, key),
        }
    }

    #[cold]
    fn second_member(&self, message: &Message, field: &Field) -> Fail {
        let oneof = usize::from(field.oneof).checked_sub(message.fields.len());
        let oneof = oneof
            .and_then(|at| message.oneofs.get(at))
            .cloned()
            .unwrap_or_default();
        self.fail(JsonReason::Oneof {
            oneof,
            second: field.spelled().into(),
        })
    }

    /// The mask's node for what is inside a field; an error if the field itself is masked.
    #[inline(never)]
    fn inner(&self, field: &Field, node: u32) -> Result<u32, Fail> {
        match self.owned.and_then(|mask| mask.rule(node, field.number)) {
            Some(Rule::All) => Err(self.fail(JsonReason::Owned(field.spelled().into()))),
            Some(Rule::Inside(node)) => Ok(node),
            None => Ok(UNMASKED),
        }
    }

    /// `null` for a field that does not hold it: the field is absent.
    #[inline(never)]
    fn absent(&mut self, field: &Field) -> Done {
        self.word(b"null")?;
        if field.required {
            return Err(self.fail(JsonReason::Required(field.spelled().into())));
        }
        Ok(())
    }

    /// Checks that every required field was there, and leaves the message.
    #[inline]
    fn require(&mut self, message: &Message, seen: Seen, node: u32) -> Done {
        let required = &message.required.0;
        for (index, &word) in required.iter().enumerate() {
            let missing = word & !seen.word(index, self.scratch);
            if missing != 0 {
                self.missing(message, index * 64, missing, node)?;
            }
        }
        seen.leave(self.scratch);
        if self.out.is_over() {
            return Err(self.too_large());
        }
        Ok(())
    }

    /// Required fields that the text lacks: an error, but for those that the path gives.
    #[cold]
    fn missing(&self, message: &Message, first: usize, mut bits: u64, node: u32) -> Done {
        while bits != 0 {
            let field = message.fields.get(first + bits.trailing_zeros() as usize);
            let given = |field: &Field| node != UNMASKED && self.inner(field, node).ok() != Some(UNMASKED);
            if let Some(field) = field.filter(|field| !given(field)) {
                return Err(self.fail(JsonReason::Required(field.spelled().into())));
            }
            bits &= bits - 1;
        }
        Ok(())
    }

    /// An opening bracket, and one level more.
    #[inline]
    fn enter(&mut self, bracket: u8, what: &'static str) -> Done {
        if self.token() != bracket {
            return Err(self.mismatch(what));
        }
        if self.depth >= MAX_DEPTH {
            return Err(self.fail(JsonReason::Depth { limit: MAX_DEPTH }));
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    #[inline]
    fn colon(&mut self) -> Done {
        if self.token() != b':' {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(())
    }

    /// The next byte that is no space, which stays; 0 at the end.
    #[inline]
    fn token(&mut self) -> u8 {
        match self.text.get(self.at) {
            Some(&byte) if byte > b' ' => byte,
            _ => self.spaces(),
        }
    }

    #[inline(never)]
    fn spaces(&mut self) -> u8 {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    /// The byte at the current place, which stays; 0 at the end.
    #[inline]
    fn peek(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(0)
    }

    /// `true`, `false` or `null`.
    #[inline]
    fn word(&mut self, word: &'static [u8]) -> Done {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.expected("a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }
}

/// Whether an object is the body of an `Any`, so that `@type` is a name in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Typed {
    Yes,
    /// The message has no fields, and some writers put its `{}` under `value`.
    Empty,
    No,
}

/// Whether an encoded value without its tag is the default: an empty string or a zero.
#[inline]
fn is_zero(body: &[u8]) -> bool {
    body.first() == Some(&0) && body.iter().all(|&byte| byte == 0)
}
