//! Strings and what stands in strings: enum names and bytes. Booleans.

use super::super::plan::Enum;
use super::super::{JsonReason, base64, scan};
use super::Reader;
use super::failure::{Done, Fail};

/// The content of a string that was passed.
#[derive(Clone, Copy)]
pub(super) enum Quoted {
    /// It stands in the text as it is.
    Plain { start: usize, end: usize },
    /// It had escapes; the scratch text holds it.
    Unescaped,
}

impl<'a> Reader<'a> {
    /// A string as a length and bytes.
    #[inline]
    pub(super) fn string(&mut self) -> Done {
        if let Some((window, size)) = self.short() {
            self.out.counted(window, size);
            self.at += size as usize + 2;
            return Ok(());
        }
        self.long_string()
    }

    /// The content of a string of less than 32 bytes without escapes, and what follows up to 32 bytes. It is not passed.
    ///
    /// One check of the length serves for all that is read here, since the window has a fixed size.
    #[inline]
    fn short(&self) -> Option<(&'a [u8; 32], u32)> {
        let window = self.text.get(self.at..)?.first_chunk::<33>()?;
        let (&quote, content) = window.split_first()?;
        let content = content.first_chunk::<32>()?;
        let size = scan::plain_in(content);
        (quote == b'"' && size < 32 && content[size as usize % 32] == b'"').then_some((content, size))
    }

    #[inline(never)]
    fn long_string(&mut self) -> Done {
        if self.token() != b'"' {
            return Err(self.mismatch("a string"));
        }
        let start = self.at + 1;
        let end = scan::plain(self.text, start);
        if self.text.get(end) != Some(&b'"') {
            return self.escaped_string();
        }
        self.out.varint((end - start) as u64);
        self.out.bytes(&self.text[start..end]);
        self.at = end + 1;
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn escaped_string(&mut self) -> Done {
        self.at += 1;
        self.unescape()?;
        self.out.varint(self.scratch.text.len() as u64);
        self.out.bytes(&self.scratch.text);
        Ok(())
    }

    /// Passes a string; [`Reader::content`] gives what is in it.
    #[inline]
    pub(super) fn quoted(&mut self, expected: &'static str) -> Result<Quoted, Fail> {
        if let Some((_, size)) = self.short() {
            let start = self.at + 1;
            self.at = start + size as usize + 1;
            return Ok(Quoted::Plain {
                start,
                end: start + size as usize,
            });
        }
        self.long_quoted(expected)
    }

    #[inline(never)]
    fn long_quoted(&mut self, expected: &'static str) -> Result<Quoted, Fail> {
        if self.token() != b'"' {
            return Err(self.mismatch(expected));
        }
        let start = self.at + 1;
        let end = scan::plain(self.text, start);
        if self.text.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Ok(Quoted::Plain { start, end });
        }
        self.at = start;
        self.unescape()?;
        Ok(Quoted::Unescaped)
    }

    #[inline]
    pub(super) fn content(&self, quoted: Quoted) -> &[u8] {
        match quoted {
            Quoted::Plain { start, end } => &self.text[start..end],
            Quoted::Unescaped => &self.scratch.text,
        }
    }

    /// Passes the rest of a string, behind its first quote, and leaves its content in the scratch text.
    #[cold]
    #[inline(never)]
    pub(super) fn unescape(&mut self) -> Done {
        self.scratch.text.clear();
        loop {
            let end = scan::plain(self.text, self.at);
            self.scratch.text.extend_from_slice(&self.text[self.at..end]);
            self.at = end;
            match self.text.get(end) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    let letter = self.escape()?;
                    let mut bytes = [0; 4];
                    self.scratch
                        .text
                        .extend_from_slice(letter.encode_utf8(&mut bytes).as_bytes());
                }
                Some(_) => return Err(self.expected("an escape instead of a control character")),
                None => return Err(self.expected("the end of the string")),
            }
        }
    }

    /// One escape.
    fn escape(&mut self) -> Result<char, Fail> {
        const PAIR: &str = "a pair of surrogates";
        let start = self.at;
        self.at += 1;
        let letter = self.peek();
        self.at += 1;
        Ok(match letter {
            b'"' | b'\\' | b'/' => letter.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                if !(0xd800..0xe000).contains(&unit) {
                    return char::from_u32(unit).ok_or_else(|| self.expected(PAIR));
                }
                let follows = self.text[self.at..].starts_with(b"\\u");
                self.at += 2;
                let low = if follows && unit < 0xdc00 { self.hex()? } else { 0 };
                if !(0xdc00..0xe000).contains(&low) {
                    self.at = start;
                    return Err(self.expected(PAIR));
                }
                let point = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return char::from_u32(point).ok_or_else(|| self.expected(PAIR));
            }
            _ => {
                self.at = start;
                return Err(self.expected("a JSON escape"));
            }
        })
    }

    /// Four hexadecimal digits.
    fn hex(&mut self) -> Result<u32, Fail> {
        let digits = self.text.get(self.at..).and_then(<[u8]>::first_chunk::<4>);
        let value = digits.and_then(|digits| {
            digits
                .iter()
                .try_fold(0, |sum, &digit| Some(sum << 4 | char::from(digit).to_digit(16)?))
        });
        let value = value.ok_or_else(|| self.expected("four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }

    #[inline]
    pub(super) fn boolean(&mut self) -> Result<bool, Fail> {
        let token = self.token();
        let rest = &self.text[self.at..];
        if token == b't' && rest.starts_with(b"true") {
            self.at += 4;
            Ok(true)
        } else if token == b'f' && rest.starts_with(b"false") {
            self.at += 5;
            Ok(false)
        } else {
            Err(self.mismatch("`true` or `false`"))
        }
    }

    /// A name or a number. False if the name is not declared and such names are dropped.
    pub(super) fn enumeration(&mut self, id: u32) -> Result<bool, Fail> {
        let declared: &Enum = &self.plan.enums[id as usize];
        match self.token() {
            b'"' => {
                let start = self.at;
                let quoted = self.quoted("a name")?;
                match declared.number(self.content(quoted)) {
                    Some(number) => self.out.varint(i64::from(number).cast_unsigned()),
                    None if self.plan.options.drop_unknown_enum_names => return Ok(false),
                    None => return Err(self.unknown_value(start, &declared.name)),
                }
            }
            b'n' if declared.null => {
                self.word(b"null")?;
                self.out.word(0, 1);
            }
            b'-' | b'0'..=b'9' => {
                let number = self.int32("int32")?;
                self.out.varint(i64::from(number).cast_unsigned());
            }
            _ => return Err(self.mismatch("the name or the number of an enum value")),
        }
        Ok(true)
    }

    /// Base64 as a length and bytes.
    pub(super) fn binary(&mut self) -> Done {
        let start = {
            self.token();
            self.at
        };
        let quoted = self.quoted("base64 in a string")?;
        let content = match quoted {
            Quoted::Plain { start, end } => &self.text[start..end],
            Quoted::Unescaped => &self.scratch.text,
        };
        if base64::decode(content, &mut self.out) {
            return Ok(());
        }
        Err(self.not_at(start, "base64"))
    }

    /// What `JsonReason` a string of a well-known type fails with.
    #[cold]
    pub(super) fn no_such_type(&self, name: &[u8]) -> Fail {
        self.fail(JsonReason::UnknownType(String::from_utf8_lossy(name).into()))
    }
}
