//! A failure on its way up: each level adds its part of the path. None of it is on the way of a good text.

use super::super::error::{JsonError, JsonReason};
use super::Reader;

/// Boxed, so that a result is one register.
pub(super) type Fail = Box<Failure>;

pub(super) type Done = Result<(), Fail>;

#[derive(Debug)]
pub(super) struct Failure {
    at: usize,
    reason: JsonReason,
    /// From the inside out.
    path: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Field(Box<str>),
    Index(usize),
    Key(Box<str>),
}

impl Failure {
    #[cold]
    #[inline(never)]
    pub(super) fn new(at: usize, reason: JsonReason) -> Fail {
        Box::new(Self {
            at,
            reason,
            path: Vec::new(),
        })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn inside(mut self: Box<Self>, name: &str) -> Box<Self> {
        self.path.push(Part::Field(name.into()));
        self
    }

    #[cold]
    #[inline(never)]
    pub(super) fn element(mut self: Box<Self>, index: usize) -> Box<Self> {
        self.path.push(Part::Index(index));
        self
    }

    #[cold]
    #[inline(never)]
    pub(super) fn key(mut self: Box<Self>, key: &[u8]) -> Box<Self> {
        self.path.push(Part::Key(excerpt(key)));
        self
    }

    /// With line and column, which are counted only now.
    pub(super) fn place(self, text: &[u8]) -> JsonError {
        let Self { at, reason, path } = self;
        let mut line = String::new();
        for part in path.iter().rev() {
            match part {
                Part::Field(name) if line.is_empty() => line.push_str(name),
                Part::Field(name) => {
                    line.push('.');
                    line.push_str(name);
                }
                Part::Index(index) => line.push_str(&format!("[{index}]")),
                Part::Key(key) => line.push_str(&format!("[\"{key}\"]")),
            }
        }
        located(text, at, line, reason)
    }
}

fn located(text: &[u8], at: usize, path: String, reason: JsonReason) -> JsonError {
    let before = text.get(..at).unwrap_or(text);
    let start = before
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let lines = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    // Characters, not bytes: continuation bytes are none.
    let column = before[start..]
        .iter()
        .filter(|&&byte| byte & 0xc0 != 0x80)
        .count()
        + 1;
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    JsonError {
        path,
        line: number(lines),
        column: number(column),
        reason,
    }
}

#[cold]
pub(super) fn not_utf8(text: &[u8], _: simdutf8::basic::Utf8Error) -> JsonError {
    let at = std::str::from_utf8(text)
        .err()
        .map_or(0, |error| error.valid_up_to());
    located(text, at, String::new(), JsonReason::Utf8)
}

/// As much of a value as an error says.
fn excerpt(value: &[u8]) -> Box<str> {
    const MOST: usize = 40;
    let text = String::from_utf8_lossy(value);
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

impl Reader<'_> {
    #[cold]
    #[inline(never)]
    pub(super) fn fail(&self, reason: JsonReason) -> Fail {
        Failure::new(self.at, reason)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn expected(&self, what: &'static str) -> Fail {
        self.fail(JsonReason::Expected(what))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn too_large(&self) -> Fail {
        self.fail(JsonReason::TooLarge {
            limit: self.out.limit(),
        })
    }

    /// The value at the current place is not what its field holds.
    #[cold]
    #[inline(never)]
    pub(super) fn mismatch(&self, expected: &'static str) -> Fail {
        match self.peek() {
            0 => self.expected(expected),
            b'{' => self.not(b"an object", expected),
            b'[' => self.not(b"an array", expected),
            b'n' if self.text[self.at..].starts_with(b"null") => self.fail(JsonReason::Null),
            b'"' | b'-' | b'0'..=b'9' | b't' | b'f' => self.not(self.scalar_text(self.at), expected),
            _ => self.expected("a JSON value"),
        }
    }

    /// The value that starts at `start` is not what its field holds.
    #[cold]
    #[inline(never)]
    pub(super) fn not_at(&self, start: usize, expected: &'static str) -> Fail {
        let text = excerpt(self.scalar_text(start));
        if text.is_empty() {
            return Failure::new(start, JsonReason::Expected(expected));
        }
        Failure::new(start, JsonReason::Not { text, expected })
    }

    #[cold]
    #[inline(never)]
    pub(super) fn out_of_range(&self, start: usize, kind: &'static str) -> Fail {
        Failure::new(
            start,
            JsonReason::Range {
                text: excerpt(self.scalar_text(start)),
                kind,
            },
        )
    }

    #[cold]
    #[inline(never)]
    pub(super) fn unknown_value(&self, start: usize, of: &str) -> Fail {
        let text = excerpt(self.scalar_text(start));
        Failure::new(start, JsonReason::UnknownEnumValue { text, of: of.into() })
    }

    fn not(&self, text: &[u8], expected: &'static str) -> Fail {
        self.fail(JsonReason::Not {
            text: excerpt(text),
            expected,
        })
    }

    /// A string, number or word as written.
    fn scalar_text(&self, start: usize) -> &[u8] {
        let rest = self.text.get(start..).unwrap_or_default();
        let end = if rest.first() == Some(&b'"') {
            let mut escaped = false;
            let closing = rest.iter().skip(1).position(|&byte| {
                let closes = byte == b'"' && !escaped;
                escaped = byte == b'\\' && !escaped;
                closes
            });
            closing.map(|at| at + 2)
        } else {
            rest.iter()
                .position(|&byte| matches!(byte, b',' | b'}' | b']' | b':') || byte <= b' ')
        };
        &rest[..end.unwrap_or(rest.len())]
    }
}
