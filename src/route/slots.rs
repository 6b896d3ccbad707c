//! Where a template's variables are in the paths that it matches.

use super::path::Segments;
use crate::schema::template::{Captures, Template, Variable};
use crate::wire::url::{self, EscapeError, Escapes};

/// Where a variable's value is among the segments of any path that its template matches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    start: Edge,
    end: Edge,
    multi: bool,
}

/// A boundary between segments. What follows `**` is known from the path's end only.
#[derive(Clone, Copy, Debug)]
enum Edge {
    FromStart(usize),
    FromEnd(usize),
}

impl Edge {
    fn resolve(self, segments: usize) -> usize {
        match self {
            Self::FromStart(at) => at,
            Self::FromEnd(at) => segments.saturating_sub(at),
        }
    }
}

pub(super) fn slots(template: &Template) -> Box<[Slot]> {
    let rest = template.rest();
    let edge = |at: usize| match rest {
        Some(rest) if at > rest => Edge::FromEnd(template.segments().len() - at),
        _ => Edge::FromStart(at),
    };
    let slot = |variable: &Variable| Slot {
        start: edge(variable.segments.start),
        end: edge(variable.segments.end),
        multi: variable.multi,
    };
    template.variables().iter().map(slot).collect()
}

/// Reads the values out of a path that the template of the slots matches.
pub(super) fn read(slots: &[Slot], path: &Segments<'_>, multi: Escapes) -> Result<Captures, EscapeError> {
    let text = |slot: &Slot| {
        let start = slot.start.resolve(path.len());
        (start, path.slice(start, slot.end.resolve(path.len())))
    };
    // Decoding never lengthens a text.
    let bytes = slots.iter().map(|slot| text(slot).1.len()).sum();
    let mut captures = Captures::with_capacity(bytes);
    for slot in slots {
        let (start, raw) = text(slot);
        let escapes = if slot.multi { multi } else { Escapes::All };
        captures
            .push_with(|out| url::decode(raw, escapes, out))
            .map_err(|error| error.shifted(path.offset(start)))?;
    }
    Ok(captures)
}
