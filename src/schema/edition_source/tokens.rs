//! The words of a proto source.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A name or a keyword.
    Name,
    Number,
    /// A string with its quotes.
    Text,
    Symbol(u8),
}

/// A token, and where it stands in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) word: Word,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// All tokens; spaces and comments are none.
pub(super) fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let rest = bytes.get(at..).unwrap_or_default();
        let (word, size) = match byte {
            b'/' if rest.starts_with(b"//") => (None, count(rest, |byte| byte != b'\n')),
            b'/' if rest.starts_with(b"/*") => (None, comment(rest)),
            b'"' | b'\'' => (Some(Word::Text), string(rest, byte)),
            b'0'..=b'9' => (
                Some(Word::Number),
                count(rest, |byte| {
                    byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_'
                }),
            ),
            b'a'..=b'z' | b'A'..=b'Z' | b'_' => (
                Some(Word::Name),
                count(rest, |byte| byte.is_ascii_alphanumeric() || byte == b'_'),
            ),
            _ if byte.is_ascii_graphic() => (Some(Word::Symbol(byte)), 1),
            _ => (None, 1),
        };
        let end = at + size.max(1);
        found.extend(word.map(|word| Token { word, start: at, end }));
        at = end;
    }
    found
}

fn count(rest: &[u8], inside: impl Fn(u8) -> bool) -> usize {
    rest.iter().take_while(|byte| inside(**byte)).count()
}

fn comment(rest: &[u8]) -> usize {
    let inner = rest.get(2..).unwrap_or_default();
    inner
        .windows(2)
        .position(|pair| pair == b"*/")
        .map_or(rest.len(), |at| at + 4)
}

/// A string ends at its quote; one without stands for the rest of its line.
fn string(rest: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    for (index, &byte) in rest.iter().enumerate().skip(1) {
        if byte == b'\n' {
            return index;
        }
        if byte == quote && !escaped {
            return index + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    rest.len()
}
