//! The values of a template's variables.

use smallvec::SmallVec;

use super::path::Segments;
use crate::schema::template::Template;
use crate::wire::url::{self, EscapeError, Escapes};

/// The values of a template's variables, decoded, from left to right. All of them share one buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures {
    text: String,
    /// Where each value ends in the text; it begins where the one before ends.
    ends: SmallVec<[usize; 4]>,
}

impl Captures {
    /// The value of the variable with this index.
    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)?;
        let start = match index.checked_sub(1) {
            Some(before) => *self.ends.get(before)?,
            None => 0,
        };
        self.text.get(start..end)
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Every value.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    /// Reads the values out of a path that the template matches.
    pub(super) fn read(slots: &[Slot], path: &Segments<'_>, multi: Escapes) -> Result<Self, EscapeError> {
        let mut captures = Self::default();
        for slot in slots {
            let start = slot.start.resolve(path.len());
            let raw = path.slice(start, slot.end.resolve(path.len()));
            let escapes = if slot.multi { multi } else { Escapes::All };
            if captures.text.capacity() == 0 {
                // Decoding never lengthens, and most templates have one variable.
                captures.text.reserve(raw.len());
            }
            url::decode(raw, escapes, &mut captures.text)
                .map_err(|error| error.shifted(path.offset(start)))?;
            captures.ends.push(captures.text.len());
        }
        Ok(captures)
    }
}

impl<V: AsRef<str>> FromIterator<V> for Captures {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        let mut captures = Self::default();
        for value in values {
            captures.text.push_str(value.as_ref());
            captures.ends.push(captures.text.len());
        }
        captures
    }
}

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
    let slot = |variable: &crate::schema::template::Variable| Slot {
        start: edge(variable.segments.start),
        end: edge(variable.segments.end),
        multi: variable.multi,
    };
    template.variables().iter().map(slot).collect()
}
