//! A message whose fields do not stand as JSON needs them: all of it is looked at before any of it is written.

use super::super::WireReason;
use super::super::plan::{Field, Key, Kind, Message, NONE, Shape, wire};
use super::super::worker::Seen;
use super::failure::{Done, Fail, Failure};
use super::input::Input;
use super::{UNMASKED, Writer, fits};

/// A value of a field: which field, and where the value starts.
#[derive(Clone, Copy)]
struct Occurrence {
    field: usize,
    wire: u8,
    at: usize,
}

impl<'a> Writer<'a> {
    /// The members of an object, each with a comma behind it.
    #[inline(never)]
    pub(super) fn untangle(&mut self, message: &'a Message, wire: Input<'_>, node: u32) -> Done {
        let mut all = self.occurrences(message, wire)?;
        // Stable, so that the values of one field stay in their order.
        all.sort_by_key(|occurrence| occurrence.field);
        let mut seen = Seen::new(message, self.scratch);
        for group in all.chunk_by(|a, b| a.field == b.field) {
            let Some((index, field)) = group
                .first()
                .and_then(|of| Some((of.field, message.fields.get(of.field)?)))
            else {
                continue;
            };
            seen.mark(index, self.scratch);
            let inner = if node == UNMASKED {
                Some(UNMASKED)
            } else {
                self.inner(field, node)
            };
            if let Some(inner) = inner {
                let done = self.gathered(field, Some(&field.key), wire, group, inner);
                done.map_err(|failure| failure.inside(field.spelled()))?;
            }
        }
        self.defaults(message, &seen, node);
        seen.leave(self.scratch);
        Ok(())
    }

    /// The value of one field of a message, without its name.
    pub(super) fn alone(&mut self, message: &'a Message, number: u32, wire: Input<'_>, node: u32) -> Done {
        let Some(index) = message.index(number) else {
            return Err(Failure::new(WireReason::Malformed));
        };
        let field = &message.fields[index];
        let mut all = self.occurrences(message, wire)?;
        all.retain(|occurrence| occurrence.field == index);
        let start = self.out.len();
        let inner = if node == UNMASKED {
            Some(UNMASKED)
        } else {
            self.inner(field, node)
        };
        if let Some(inner) = inner.filter(|_| !all.is_empty()) {
            let done = self.gathered(field, None, wire, &all, inner);
            done.map_err(|failure| failure.inside(field.spelled()))?;
        }
        if self.out.len() > start {
            // The comma behind it.
            self.out.truncate(self.out.len() - 1);
            return Ok(());
        }
        match field.shape {
            Shape::Explicit => self.out.bytes(b"null"),
            Shape::List | Shape::Packed => self.out.bytes(b"[]"),
            Shape::Map(_) => self.out.bytes(b"{}"),
            Shape::Implicit => {
                self.scalar(field.kind, &mut Input::new(&[0; 8]))?;
            }
        }
        Ok(())
    }

    /// The values that count, in their order.
    fn occurrences(&self, message: &Message, wire: Input<'_>) -> Result<Vec<Occurrence>, Fail> {
        let mut all = Vec::new();
        let mut input = wire;
        while !input.is_done() {
            let (number, wire) = input.tag()?;
            let at = input.at;
            let index = message.index(number).filter(|&index| {
                let field = &message.fields[index];
                fits(field, wire) && !(field.closed && self.is_unknown(field, wire, input))
            });
            input.skip(number, wire, self.depth)?;
            if let Some(field) = index {
                all.push(Occurrence { field, wire, at });
            }
        }
        drop_replaced(message, &mut all);
        Ok(all)
    }

    /// All values of one field.
    fn gathered(
        &mut self,
        field: &'a Field,
        key: Option<&Key>,
        wire: Input<'_>,
        group: &[Occurrence],
        node: u32,
    ) -> Done {
        let start = self.out.len();
        let input = wire;
        let Some(last) = group.last() else { return Ok(()) };
        if let Some(key) = key {
            self.out.key(key);
        }
        let mut empty = false;
        match (field.shape, field.kind) {
            (Shape::Implicit | Shape::Explicit, Kind::Message(id) | Kind::Group(id)) if group.len() > 1 => {
                let mut whole = Vec::new();
                for piece in group {
                    let body = input.from(piece.at).body(field.number, piece.wire, self.depth)?;
                    whole.extend_from_slice(body.bytes());
                }
                self.joined(id, &whole, node)?;
            }
            (Shape::Implicit, kind) => {
                empty = self.value(kind, field.number, &mut input.from(last.at), node)?
            }
            (Shape::Explicit, kind) => {
                self.value(kind, field.number, &mut input.from(last.at), node)?;
            }
            (Shape::List | Shape::Packed, _) => {
                self.out.byte(b'[');
                let open = self.out.len();
                let mut index = 0;
                for piece in group {
                    let done = self.elements(field, piece.wire, &mut input.from(piece.at), &mut index);
                    done.map_err(|failure| failure.element(index))?;
                    self.check()?;
                }
                empty = self.out.len() == open;
                self.out.end(open, b']');
            }
            (Shape::Map(key), _) => {
                self.out.byte(b'{');
                let open = self.out.len();
                let entries: Result<Vec<_>, _> = group
                    .iter()
                    .map(|piece| input.from(piece.at).body(field.number, wire::LEN, self.depth))
                    .collect();
                self.last_entries(field, key, &entries?)?;
                empty = self.out.len() == open;
                self.out.end(open, b'}');
            }
        }
        if empty && !self.plan.options.emit_defaults {
            self.out.truncate(start);
        } else {
            self.out.byte(b',');
        }
        Ok(())
    }
}

/// Of the members of a oneof the last one counts, and what it held before another one came does not.
fn drop_replaced(message: &Message, all: &mut Vec<Occurrence>) {
    /// What was found from the end on.
    #[derive(Clone, Copy)]
    enum Winner {
        Open,
        Field(usize),
        Closed,
    }
    if message.oneofs.is_empty() {
        return;
    }
    let mut winners = vec![Winner::Open; message.oneofs.len()];
    let mut kept = vec![true; all.len()];
    for (occurrence, keep) in all.iter().zip(&mut kept).rev() {
        let oneof = message.fields[occurrence.field].oneof;
        if oneof == NONE {
            continue;
        }
        let Some(winner) = winners.get_mut(usize::from(oneof) - message.fields.len()) else {
            continue;
        };
        match *winner {
            Winner::Open => *winner = Winner::Field(occurrence.field),
            Winner::Field(field) if field == occurrence.field => {}
            Winner::Field(_) | Winner::Closed => {
                *winner = Winner::Closed;
                *keep = false;
            }
        }
    }
    let mut kept = kept.iter();
    all.retain(|_| kept.next() == Some(&true));
}
