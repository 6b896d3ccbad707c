//! The wire format to JSON: one optimistic pass, which emits each field where it stands.
//!
//! The wire may hold a field in pieces, a singular field twice or several members of a oneof. A message that turns out
//! to do so is written again by [`fallback`], which looks at all of it before it emits. Where that happens on many levels,
//! each of them would write what is inside of it twice, and double what the one below did: then everything is begun anew
//! without optimism.

mod any;
mod failure;
mod fallback;
mod input;
mod map;
mod scalar;
mod well_known;

use bytes::BytesMut;

use self::failure::{Done, Fail, Failure};
use self::input::Input;
use super::mask::Rule;
use super::out::Out;
use super::plan::{Field, Form, Kind, Message, NONE, Plan, Shape, wire};
use super::worker::{self, Scratch, Seen};
use super::{MAX_DEPTH, Mask, Target, WireError, WireReason};

/// No mask applies here.
const UNMASKED: u32 = u32::MAX;

struct Writer<'a> {
    plan: &'a Plan,
    out: Out<'a>,
    scratch: &'a mut Scratch,
    mask: Option<&'a Mask>,
    /// Messages that are open.
    depth: u32,
    /// Bytes of the wire that are to be written.
    length: usize,
    /// Bytes of the wire that were to be written again.
    again: usize,
    /// Bytes of messages in pieces that were joined and are open.
    joined: usize,
    /// Nothing is tried that may have to be written again.
    careful: bool,
}

/// How a pass over a message ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Complete,
    /// The fields are not in an order that can be emitted as it stands.
    Tangled,
}

/// See [`super::Transcoder::write`].
pub(super) fn write(
    plan: &Plan,
    target: Target,
    mask: Option<&Mask>,
    wire: &[u8],
    out: &mut BytesMut,
    limit: usize,
) -> Result<(), WireError> {
    for careful in [false, true] {
        let pass = worker::with(plan, |_, scratch| {
            let mut writer = Writer {
                plan,
                out: Out::new(out, wire.len() * 5 / 2 + 64, limit),
                scratch,
                mask,
                depth: 0,
                length: wire.len(),
                again: 0,
                joined: 0,
                careful,
            };
            match writer.whole(target, wire) {
                Ok(()) => {
                    writer.out.finish();
                    Ok(Pass::Complete)
                }
                Err(failure) => {
                    let begins_anew = writer.begins_anew();
                    writer.out.abandon();
                    if begins_anew {
                        Ok(Pass::Tangled)
                    } else {
                        Err(failure.place())
                    }
                }
            }
        })?;
        if pass == Pass::Complete {
            break;
        }
    }
    Ok(())
}

impl<'a> Writer<'a> {
    fn whole(&mut self, target: Target, wire: &[u8]) -> Done {
        let node = if self.mask.is_some() { 0 } else { UNMASKED };
        let wire = Input::new(wire);
        let id = target.message().0;
        let Some(message) = self.plan.messages.get(id as usize) else {
            return Err(Failure::new(WireReason::Malformed));
        };
        match target {
            Target::Message(_) => self.message(id, wire, node)?,
            Target::Field { number, .. } => self.alone(message, number, wire, node)?,
        }
        self.check()
    }

    /// A message in its form.
    #[inline]
    fn message(&mut self, id: u32, wire: Input<'_>, node: u32) -> Done {
        let message = &self.plan.messages[id as usize];
        match message.form {
            Form::Plain => self.object(message, wire, node),
            Form::Timestamp => self.timestamp(wire),
            Form::Duration => self.duration(wire),
            Form::FieldMask => self.field_mask(wire),
            Form::Struct => self.structure(message, wire),
            Form::Value => self.dynamic(message, wire),
            Form::ListValue => self.dynamic_list(message, wire),
            Form::Wrapper(kind) => self.wrapper(kind, wire),
            Form::Any => self.any(wire),
        }
    }

    fn object(&mut self, message: &'a Message, wire: Input<'_>, node: u32) -> Done {
        self.out.byte(b'{');
        let open = self.out.len();
        self.members(message, wire, node)?;
        self.out.end(open, b'}');
        Ok(())
    }

    /// The members of an object, each with a comma behind it.
    fn members(&mut self, message: &'a Message, wire: Input<'_>, node: u32) -> Done {
        self.enter()?;
        if self.careful {
            self.untangle(message, wire, node)?;
            self.depth -= 1;
            return self.check();
        }
        let start = self.out.len();
        let mut seen = Seen::new(message, self.scratch);
        match self.pass(message, wire, node, &mut seen)? {
            Pass::Complete => {
                self.defaults(message, &seen, node);
                seen.leave(self.scratch);
            }
            Pass::Tangled => {
                seen.leave(self.scratch);
                self.out.truncate(start);
                self.tangled(wire)?;
                self.untangle(message, wire, node)?;
            }
        }
        self.depth -= 1;
        self.check()
    }

    /// A message, or the entries of one, that were written in vain.
    #[cold]
    fn tangled(&mut self, wire: Input<'_>) -> Done {
        self.again = self.again.saturating_add(wire.bytes().len());
        if self.begins_anew() {
            // Nobody reads this: all is written anew.
            return Err(Failure::new(WireReason::Malformed));
        }
        Ok(())
    }

    /// Whether more was written in vain than there is.
    fn begins_anew(&self) -> bool {
        !self.careful && self.again > self.length
    }

    /// A message that came in pieces, which are joined.
    #[cold]
    fn joined(&mut self, id: u32, whole: &[u8], node: u32) -> Done {
        self.joined = self.joined.saturating_add(whole.len());
        if self.joined > self.out.limit() {
            // Each level of pieces in pieces holds a copy of what is inside of it.
            return Err(Failure::new(WireReason::TooLarge {
                limit: self.out.limit(),
            }));
        }
        self.message(id, Input::new(whole), node)?;
        self.joined -= whole.len();
        Ok(())
    }

    /// The optimistic pass.
    #[inline]
    fn pass(
        &mut self,
        message: &'a Message,
        wire: Input<'_>,
        node: u32,
        seen: &mut Seen,
    ) -> Result<Pass, Fail> {
        let mut input = wire;
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            let index = message.index(number);
            let Some((index, field)) = index.and_then(|index| Some((index, message.fields.get(index)?)))
            else {
                input.skip(number, wire, self.depth)?;
                continue;
            };
            if !fits(field, wire) || (field.closed && self.is_unknown(field, wire, input)) {
                input.skip(number, wire, self.depth)?;
                continue;
            }
            if seen.mark(index, self.scratch)
                || (field.oneof != NONE && seen.mark(usize::from(field.oneof), self.scratch))
            {
                return Ok(Pass::Tangled);
            }
            let inner = if node == UNMASKED {
                Some(UNMASKED)
            } else {
                self.inner(field, node)
            };
            let Some(inner) = inner else {
                input.skip(number, wire, self.depth)?;
                continue;
            };
            match self.field(field, wire, &mut input, inner) {
                Ok(Pass::Complete) => {}
                Ok(Pass::Tangled) => return Ok(Pass::Tangled),
                Err(failure) => return Err(failure.inside(field.spelled())),
            }
        }
        Ok(Pass::Complete)
    }

    /// A field with its name, whose first tag was passed, and what follows of it.
    #[inline(always)]
    fn field(&mut self, field: &'a Field, wire: u8, input: &mut Input<'_>, node: u32) -> Result<Pass, Fail> {
        let start = self.out.len();
        self.out.key(&field.key);
        match field.shape {
            Shape::Implicit | Shape::Explicit => {
                let zero = self.value(field.kind, field.number, input, node)?;
                if zero && field.shape == Shape::Implicit && !self.plan.options.emit_defaults {
                    self.out.truncate(start);
                    return Ok(Pass::Complete);
                }
            }
            Shape::List | Shape::Packed => {
                self.out.byte(b'[');
                let open = self.out.len();
                self.list(field, wire, input)?;
                if self.out.len() == open && !self.plan.options.emit_defaults {
                    self.out.truncate(start);
                    return Ok(Pass::Complete);
                }
                self.out.end(open, b']');
            }
            Shape::Map(key) => {
                self.out.byte(b'{');
                let open = self.out.len();
                if self.map(field, key, input)? == Pass::Tangled {
                    return Ok(Pass::Tangled);
                }
                if self.out.len() == open && !self.plan.options.emit_defaults {
                    self.out.truncate(start);
                    return Ok(Pass::Complete);
                }
                self.out.end(open, b'}');
            }
        }
        self.out.byte(b',');
        Ok(Pass::Complete)
    }

    /// The elements of a list that stand together, each with a comma behind it.
    fn list(&mut self, field: &Field, wire: u8, input: &mut Input<'_>) -> Done {
        let mut index = 0;
        loop {
            self.elements(field, wire, input, &mut index)
                .map_err(|failure| failure.element(index))?;
            self.check()?;
            let again = if wire == field.wire { field.one } else { field.run };
            if !input.accept(again) {
                return Ok(());
            }
        }
    }

    /// One element, or a packed run of them.
    #[inline]
    fn elements(&mut self, field: &Field, wire: u8, input: &mut Input<'_>, index: &mut usize) -> Done {
        if wire == field.wire {
            if field.closed && self.is_unknown(field, wire, *input) {
                return Ok(input.skip(field.number, wire, self.depth)?);
            }
            self.element(field.kind, field.number, input)?;
            self.out.byte(b',');
            *index += 1;
            return Ok(());
        }
        let mut run = input.delimited()?;
        while !run.is_done() {
            if field.closed && self.is_unknown(field, field.wire, run) {
                run.skip(field.number, field.wire, self.depth)?;
                continue;
            }
            self.element(field.kind, field.number, &mut run)?;
            self.out.byte(b',');
            *index += 1;
            if index.is_multiple_of(4096) {
                self.check()?;
            }
        }
        Ok(())
    }

    /// One value of a list or a map.
    #[inline(never)]
    fn element(&mut self, kind: Kind, number: u32, input: &mut Input<'_>) -> Done {
        self.value(kind, number, input, UNMASKED).map(|_| ())
    }

    /// One value. True if it is the default of its kind, which says nothing for a message.
    #[inline(always)]
    fn value(&mut self, kind: Kind, number: u32, input: &mut Input<'_>, node: u32) -> Result<bool, Fail> {
        match kind {
            Kind::Message(id) => {
                let body = input.delimited()?;
                self.message(id, body, node)?;
                Ok(false)
            }
            Kind::Group(id) => {
                let body = input.group(number, self.depth)?;
                self.message(id, body, node)?;
                Ok(false)
            }
            _ => self.scalar(kind, input),
        }
    }

    /// The fields that are written although they are absent.
    #[inline]
    fn defaults(&mut self, message: &Message, seen: &Seen, node: u32) {
        if !self.plan.options.emit_defaults {
            return;
        }
        for (index, &word) in message.always.0.iter().enumerate() {
            let mut absent = word & !seen.word(index, self.scratch);
            while absent != 0 {
                let field = &message.fields[index * 64 + absent.trailing_zeros() as usize];
                if node == UNMASKED || self.inner(field, node).is_some() {
                    self.out.bytes(&field.default);
                }
                absent &= absent - 1;
            }
        }
    }

    /// The mask's node for what is inside a field; nothing if the field itself is masked.
    #[inline(never)]
    fn inner(&self, field: &Field, node: u32) -> Option<u32> {
        match self.mask.and_then(|mask| mask.rule(node, field.number)) {
            Some(Rule::All) => None,
            Some(Rule::Inside(node)) => Some(node),
            None => Some(UNMASKED),
        }
    }

    /// Whether the value of a closed enum is none of its own: then it counts as an unknown field.
    ///
    /// A packed run is looked at element by element, where it is written.
    #[inline(never)]
    fn is_unknown(&self, field: &Field, wire: u8, mut input: Input<'_>) -> bool {
        let Kind::Enum(id) = field.kind else { return false };
        if wire != wire::VARINT || matches!(field.shape, Shape::Map(_)) {
            return false;
        }
        let number = input.varint().map(scalar::int32);
        number.is_ok_and(|number| self.plan.enums[id as usize].text(number).is_none())
    }

    #[inline]
    fn enter(&mut self) -> Done {
        if self.depth >= MAX_DEPTH {
            return Err(Failure::new(WireReason::Depth { limit: MAX_DEPTH }));
        }
        self.depth += 1;
        Ok(())
    }

    #[inline]
    fn check(&self) -> Done {
        if self.out.is_over() {
            return Err(Failure::new(WireReason::TooLarge {
                limit: self.out.limit(),
            }));
        }
        Ok(())
    }
}

/// Whether a field takes a wire type; of another one it is an unknown field.
#[inline]
fn fits(field: &Field, wire: u8) -> bool {
    field.accepts >> wire & 1 != 0
}
