//! A request's path as it was sent: refused if it is ambiguous, split at its raw slashes, not yet decoded.

use smallvec::SmallVec;

use crate::wire::url::{self, EscapeError};

/// Why a path is refused before it is matched. Positions are bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("the path does not begin with `/`")]
    Relative,
    /// An escape is not whole, or the escapes of a value are not UTF-8.
    #[error("the path is not valid: {0}")]
    Escape(EscapeError),
    /// A control character, NUL or not, as it is; or NUL escaped.
    #[error("the path has a control character at byte {at}")]
    Control {
        /// Where it is.
        at: usize,
    },
    /// A backslash, escaped or not: some servers read it as a slash.
    #[error("the path has a backslash at byte {at}")]
    Backslash {
        /// Where it is.
        at: usize,
    },
    /// A whole segment is `.` or `..`, escaped or not, with or without `;` and what follows.
    #[error("the path has a dot segment at byte {at}")]
    DotSegment {
        /// Where it begins.
        at: usize,
    },
}

/// Where a segment is in the raw path.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: usize,
    end: usize,
    escaped: bool,
}

/// A raw path in segments. `/` alone has none; a trailing slash makes a last one that is empty.
#[derive(Clone, Debug)]
pub(super) struct Segments<'p> {
    raw: &'p str,
    /// 16: deeper paths are rare, and the list then moves to the heap.
    spans: SmallVec<[Span; 16]>,
}

impl<'p> Segments<'p> {
    /// Checks and splits a raw path.
    ///
    /// # Errors
    /// [`PathError`] with the first thing that is wrong.
    pub(super) fn split(raw: &'p str) -> Result<Self, PathError> {
        if !raw.starts_with('/') {
            return Err(PathError::Relative);
        }
        let mut spans = SmallVec::new();
        if raw.len() > 1 {
            let mut start = 1;
            let mut escaped = false;
            for (at, byte) in raw.bytes().enumerate().skip(1) {
                match byte {
                    b'/' => {
                        spans.push(span(raw, start, at, escaped)?);
                        (start, escaped) = (at + 1, false);
                    }
                    b'%' => {
                        escaped = true;
                        match url::escape(raw.as_bytes(), at) {
                            None => return Err(PathError::Escape(EscapeError::Digits { at })),
                            Some(0) => return Err(PathError::Control { at }),
                            Some(b'\\') => return Err(PathError::Backslash { at }),
                            Some(_) => {}
                        }
                    }
                    b'\\' => return Err(PathError::Backslash { at }),
                    _ if byte.is_ascii_control() => return Err(PathError::Control { at }),
                    _ => {}
                }
            }
            spans.push(span(raw, start, raw.len(), escaped)?);
        }
        Ok(Self { raw, spans })
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    /// The segment at `at` as it was sent.
    pub(super) fn raw(&self, at: usize) -> &'p str {
        self.slice(at, at + 1)
    }

    /// The segments from `start` to before `end` with the slashes between them, as they were sent.
    pub(super) fn slice(&self, start: usize, end: usize) -> &'p str {
        if start >= end {
            return "";
        }
        match (self.spans.get(start), self.spans.get(end - 1)) {
            (Some(first), Some(last)) => self.raw.get(first.start..last.end).unwrap_or_default(),
            _ => "",
        }
    }

    /// Where the segment at `at` begins in the raw path.
    pub(super) fn offset(&self, at: usize) -> usize {
        self.spans.get(at).map_or(self.raw.len(), |span| span.start)
    }

    pub(super) fn escaped(&self, at: usize) -> bool {
        self.spans.get(at).is_some_and(|span| span.escaped)
    }

    /// The same path split at the last raw colon of its last segment, with what follows the colon.
    pub(super) fn split_verb(&self) -> Option<(Self, &'p str)> {
        let last = self.raw(self.len().checked_sub(1)?);
        let colon = memchr::memrchr(b':', last.as_bytes())?;
        let verb = last.get(colon + 1..)?;
        let mut rest = self.clone();
        let span = rest.spans.last_mut()?;
        span.end = span.start + colon;
        Some((rest, verb))
    }

    /// The same path without its trailing slash.
    pub(super) fn without_trailing_slash(&self) -> Option<Self> {
        let (last, rest) = self.spans.split_last()?;
        (last.start == last.end && !rest.is_empty()).then(|| Self {
            raw: self.raw,
            spans: SmallVec::from_slice(rest),
        })
    }
}

fn span(raw: &str, start: usize, end: usize, escaped: bool) -> Result<Span, PathError> {
    if is_dots(raw.get(start..end).unwrap_or_default().as_bytes()) {
        return Err(PathError::DotSegment { at: start });
    }
    Ok(Span { start, end, escaped })
}

/// Whether a segment is one or two dots, and nothing more before a `;` or the end.
fn is_dots(segment: &[u8]) -> bool {
    let mut at = 0;
    let mut dots = 0;
    loop {
        let (byte, width) = match segment.get(at) {
            None => return dots > 0,
            Some(b'%') => (url::escape(segment, at), 3),
            Some(byte) => (Some(*byte), 1),
        };
        match byte {
            Some(b'.') if dots < 2 => dots += 1,
            Some(b';') => return dots > 0,
            _ => return false,
        }
        at += width;
    }
}
