//! Cuts a stream of JSON texts into values: a JSON array, one value a line, or values one after the other.
//!
//! Which of them it is, the first byte tells. Only the shape is followed here (strings, brackets, separators); what is
//! inside a value is checked by whoever reads it.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Why a stream of values could not be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// A value passed the limit, in bytes.
    #[error("a value is over the limit of {limit} bytes")]
    TooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// A byte that can't stand between values.
    #[error("{found:?} where {expected} should be")]
    Separator {
        /// What is there.
        found: char,
        /// What could be there.
        expected: &'static str,
    },
    /// A closing bracket without its opening one.
    #[error("{0:?} closes nothing")]
    Unbalanced(char),
    /// The stream ended inside a value or an array.
    #[error("the text ended inside {0}")]
    Truncated(&'static str),
}

/// What stands around the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Around {
    /// Nothing came yet.
    Unknown,
    /// Values one after the other.
    Bare,
    /// An array; the state says what may come next.
    Array(Next),
}

/// What may come next in an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    ValueOrEnd,
    Value,
    CommaOrEnd,
    Nothing,
}

/// Where the scan stands inside a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// Between values.
    Nothing,
    /// In an object or array of this depth.
    Nested(u32),
    /// In a string; the depth around it, and whether the byte before was a backslash.
    Text { depth: u32, escaped: bool },
    /// In a number, `true`, `false` or `null`.
    Bare,
}

/// Cuts values out of chunks as they arrive. Holds at most one value of at most `limit` bytes beside the newest chunk.
#[derive(Debug)]
pub struct Values {
    limit: usize,
    buffer: BytesMut,
    /// Bytes of the buffer that were looked at. 0 <= seen <= buffer.len().
    seen: usize,
    around: Around,
    inside: Inside,
}

impl Values {
    /// A cutter that refuses values over `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: BytesMut::new(),
            seen: 0,
            around: Around::Unknown,
            inside: Inside::Nothing,
        }
    }

    /// Takes the next chunk of the body.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole value, if there is one.
    ///
    /// # Errors
    /// [`StreamError`], at the first byte that is out of place.
    pub fn next_value(&mut self) -> Result<Option<Bytes>, StreamError> {
        if self.inside == Inside::Nothing && !self.enter()? {
            return Ok(None);
        }
        match self.scan()? {
            Some(length) if length <= self.limit => Ok(Some(self.cut(length))),
            None if self.buffer.len() <= self.limit => Ok(None),
            Some(_) | None => Err(StreamError::TooLarge { limit: self.limit }),
        }
    }

    /// The last value, which only the end of the stream delimits, if there is one.
    ///
    /// # Errors
    /// [`StreamError::Truncated`] when the stream ended inside a value or an array.
    pub fn finish(&mut self) -> Result<Option<Bytes>, StreamError> {
        match (self.inside, self.around) {
            (Inside::Bare, Around::Bare | Around::Unknown) => {
                let length = self.buffer.len();
                Ok(Some(self.cut(length)))
            }
            (Inside::Nothing, Around::Unknown | Around::Bare | Around::Array(Next::Nothing)) => Ok(None),
            (Inside::Nothing, Around::Array(_)) => Err(StreamError::Truncated("the array")),
            (Inside::Text { .. } | Inside::Nested(_) | Inside::Bare, _) => {
                Err(StreamError::Truncated("a value"))
            }
        }
    }

    /// Passes what stands between values; true when a value begins.
    fn enter(&mut self) -> Result<bool, StreamError> {
        loop {
            let Some(byte) = self.buffer.first().copied() else {
                return Ok(false);
            };
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                self.skip();
                continue;
            }
            match (self.around, byte) {
                (Around::Unknown, b'[') => self.around = Around::Array(Next::ValueOrEnd),
                (Around::Unknown, _) => {
                    self.around = Around::Bare;
                    continue;
                }
                (Around::Array(Next::ValueOrEnd | Next::CommaOrEnd), b']') => {
                    self.around = Around::Array(Next::Nothing);
                }
                (Around::Array(Next::CommaOrEnd), b',') => self.around = Around::Array(Next::Value),
                (Around::Array(Next::CommaOrEnd), _) => return Err(out_of_place(byte, "\",\" or \"]\"")),
                (Around::Array(Next::Nothing), _) => return Err(out_of_place(byte, "the end")),
                (Around::Array(Next::Value | Next::ValueOrEnd) | Around::Bare, _) => {
                    self.inside = match byte {
                        b'{' | b'[' | b'"' => Inside::Nested(0),
                        b'}' | b']' => return Err(StreamError::Unbalanced(char::from(byte))),
                        b',' | b':' => return Err(out_of_place(byte, "a value")),
                        _ => Inside::Bare,
                    };
                    return Ok(true);
                }
            }
            self.skip();
        }
    }

    /// Follows the value at the front; its length once it is whole.
    fn scan(&mut self) -> Result<Option<usize>, StreamError> {
        while let Some(byte) = self.buffer.get(self.seen).copied() {
            let at = self.seen;
            self.seen = self.seen.saturating_add(1);
            match self.inside {
                Inside::Text { depth, escaped: true } => {
                    self.inside = Inside::Text {
                        depth,
                        escaped: false,
                    }
                }
                Inside::Text {
                    depth,
                    escaped: false,
                } => match byte {
                    b'\\' => self.inside = Inside::Text { depth, escaped: true },
                    b'"' if depth == 0 => return Ok(Some(self.seen)),
                    b'"' => self.inside = Inside::Nested(depth),
                    _ => {}
                },
                Inside::Nested(depth) => match byte {
                    b'"' => {
                        self.inside = Inside::Text {
                            depth,
                            escaped: false,
                        }
                    }
                    b'{' | b'[' => self.inside = Inside::Nested(depth.saturating_add(1)),
                    b'}' | b']' if depth <= 1 => return Ok(Some(self.seen)),
                    b'}' | b']' => self.inside = Inside::Nested(depth.saturating_sub(1)),
                    _ => {}
                },
                Inside::Bare => {
                    if matches!(
                        byte,
                        b' ' | b'\t' | b'\r' | b'\n' | b',' | b']' | b'}' | b'{' | b'[' | b'"'
                    ) {
                        self.seen = at;
                        return Ok(Some(at));
                    }
                }
                Inside::Nothing => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Takes the value of `length` bytes off the front.
    fn cut(&mut self, length: usize) -> Bytes {
        let value = self.buffer.split_to(length.min(self.buffer.len())).freeze();
        self.seen = 0;
        self.inside = Inside::Nothing;
        if let Around::Array(_) = self.around {
            self.around = Around::Array(Next::CommaOrEnd);
        }
        value
    }

    fn skip(&mut self) {
        self.buffer.advance(1);
        self.seen = 0;
    }
}

fn out_of_place(found: u8, expected: &'static str) -> StreamError {
    StreamError::Separator {
        found: char::from(found),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, step: usize) -> Result<Vec<String>, StreamError> {
        let mut values = Values::new(40);
        let mut got = Vec::new();
        for chunk in text.as_bytes().chunks(step) {
            values.push(chunk);
            while let Some(value) = values.next_value()? {
                got.push(String::from_utf8(value.to_vec()).unwrap());
            }
        }
        got.extend(
            values
                .finish()?
                .map(|value| String::from_utf8(value.to_vec()).unwrap()),
        );
        Ok(got)
    }

    #[test]
    fn values_are_cut_however_they_are_framed_and_chunked() {
        let table: &[(&str, Result<&[&str], StreamError>)] = &[
            ("", Ok(&[])),
            ("  \n", Ok(&[])),
            ("[]", Ok(&[])),
            ("[ ] ", Ok(&[])),
            (r#"[{"a":1},{"a":[2]}]"#, Ok(&[r#"{"a":1}"#, r#"{"a":[2]}"#])),
            ("{\"a\":1}\n{\"a\":2}\n", Ok(&[r#"{"a":1}"#, r#"{"a":2}"#])),
            (r#"{"a":1}{"a":"}]"} "#, Ok(&[r#"{"a":1}"#, r#"{"a":"}]"}"#])),
            (r#"{"a":"\"}"}{}"#, Ok(&[r#"{"a":"\"}"}"#, "{}"])),
            (r#""x" 12 true"#, Ok(&[r#""x""#, "12", "true"])),
            ("[1, 2 ,3]", Ok(&["1", "2", "3"])),
            ("[[1],[2]]", Ok(&["[1]", "[2]"])),
            ("[1,]", Err(StreamError::Unbalanced(']'))),
            (
                "[,1]",
                Err(StreamError::Separator {
                    found: ',',
                    expected: "a value",
                }),
            ),
            (
                "[1 2]",
                Err(StreamError::Separator {
                    found: '2',
                    expected: "\",\" or \"]\"",
                }),
            ),
            (
                "[1]2",
                Err(StreamError::Separator {
                    found: '2',
                    expected: "the end",
                }),
            ),
            ("}", Err(StreamError::Unbalanced('}'))),
            ("[1", Err(StreamError::Truncated("a value"))),
            ("[{}", Err(StreamError::Truncated("the array"))),
            (r#"{"a":"#, Err(StreamError::Truncated("a value"))),
        ];
        for (text, expected) in table {
            for step in 1..=text.len().max(1) {
                let got = cut(text, step);
                let expected =
                    expected.map(|values| values.iter().map(|value| (*value).to_owned()).collect());
                assert_eq!(got, expected, "{text} in steps of {step}");
            }
        }
    }

    #[test]
    fn a_value_over_the_limit_is_refused() {
        for (length, fits) in [(39, true), (40, true), (41, false)] {
            let text = format!("\"{}\"", "x".repeat(length - 2));
            assert_eq!(cut(&text, 7).is_ok(), fits, "{length} bytes");
        }
        let mut values = Values::new(10);
        values.push(&[b'['; 12]);
        assert_eq!(values.next_value(), Err(StreamError::TooLarge { limit: 10 }));
    }
}
