//! Percent-encoding in paths and query strings. An escape is decoded exactly once.
//!
//! Source: RFC 3986, section 2.1; `google.api.HttpRule`, "Path template syntax".

/// Which escapes are decoded; the others stay as they were written, in the same case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Escapes {
    /// Every one.
    All,
    /// Every one but `%2F`: a value of several segments keeps the difference between a separator and a slash.
    ButSlash,
    /// Every one but those of RFC 3986's reserved characters.
    ButReserved,
}

impl Escapes {
    fn decodes(self, byte: u8) -> bool {
        match self {
            Self::All => true,
            Self::ButSlash => byte != b'/',
            Self::ButReserved => !b":/?#[]@!$&'()*+,;=".contains(&byte),
        }
    }
}

/// Why a text could not be decoded. Positions are bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EscapeError {
    /// `%` without two hexadecimal digits.
    #[error("`%` at byte {at} is not followed by two hexadecimal digits")]
    Digits {
        /// Where the `%` is.
        at: usize,
    },
    /// The escapes that begin here are not UTF-8.
    #[error("the escapes at byte {at} are not UTF-8")]
    Utf8 {
        /// Where they begin.
        at: usize,
    },
}

/// The byte that the escape at `at` stands for; nothing if there is no whole escape.
pub fn escape(raw: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = *raw.get(at..)?.first_chunk::<3>()? else {
        return None;
    };
    Some(digit(high)? << 4 | digit(low)?)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// Appends `raw`, decoded. `+` stays a plus.
///
/// # Errors
/// [`EscapeError`]; `out` may then hold the beginning.
pub fn decode(raw: &str, escapes: Escapes, out: &mut String) -> Result<(), EscapeError> {
    let mut at = 0;
    while let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty()) {
        let run = memchr::memchr(b'%', rest.as_bytes()).unwrap_or(rest.len());
        out.push_str(rest.get(..run).unwrap_or_default());
        at = at.saturating_add(run);
        at = decode_run(raw, at, escapes, out)?;
    }
    Ok(())
}

/// Appends a name or value of a query string, decoded: `+` is a space.
///
/// # Errors
/// [`EscapeError`]; `out` may then hold the beginning.
pub fn decode_form(raw: &str, out: &mut String) -> Result<(), EscapeError> {
    if memchr::memchr(b'+', raw.as_bytes()).is_none() {
        return decode(raw, Escapes::All, out);
    }
    let mut at: usize = 0;
    for (index, part) in raw.split('+').enumerate() {
        if index > 0 {
            out.push(' ');
        }
        decode(part, Escapes::All, out).map_err(|error| error.shifted(at))?;
        at = at.saturating_add(part.len()).saturating_add(1);
    }
    Ok(())
}

impl EscapeError {
    /// The same for a text that begins `by` bytes later.
    #[must_use]
    pub fn shifted(self, by: usize) -> Self {
        match self {
            Self::Digits { at } => Self::Digits {
                at: at.saturating_add(by),
            },
            Self::Utf8 { at } => Self::Utf8 {
                at: at.saturating_add(by),
            },
        }
    }
}

/// Decodes the escapes that follow one another from `at` on and returns where they end.
///
/// The text around them is whole characters, so the escapes of a run must be whole characters by themselves.
fn decode_run(raw: &str, start: usize, escapes: Escapes, out: &mut String) -> Result<usize, EscapeError> {
    let bytes = raw.as_bytes();
    let mut at = start;
    let mut run = smallvec::SmallVec::<[u8; 32]>::new();
    while bytes.get(at) == Some(&b'%') {
        let byte = escape(bytes, at).ok_or(EscapeError::Digits { at })?;
        let next = at.saturating_add(3);
        if escapes.decodes(byte) {
            run.push(byte);
        } else {
            run.extend_from_slice(bytes.get(at..next).unwrap_or_default());
        }
        at = next;
    }
    out.push_str(std::str::from_utf8(&run).map_err(|_| EscapeError::Utf8 { at: start })?);
    Ok(at)
}

/// What stays as it is beside RFC 3986's unreserved characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing.
    Nothing,
    /// Slashes, and what was read as an escaped slash.
    Slashes,
}

/// Appends `text`, percent-encoded.
pub fn encode(text: &str, keep: Keep, out: &mut String) {
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().copied().enumerate() {
        let kept = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => true,
            b'/' => keep == Keep::Slashes,
            b'%' => keep == Keep::Slashes && escape(bytes, at) == Some(b'/'),
            _ => false,
        };
        push(byte, kept, out);
    }
}

/// Appends one byte, as it is or as an escape.
pub fn push(byte: u8, kept: bool, out: &mut String) {
    if kept {
        out.push(char::from(byte));
        return;
    }
    out.push('%');
    for nibble in [byte >> 4, byte & 15] {
        out.extend(char::from_digit(u32::from(nibble), 16).map(|digit| digit.to_ascii_uppercase()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(escapes: Escapes, table: &[(&str, Result<&str, EscapeError>)]) {
        for (raw, expected) in table {
            let mut out = String::new();
            let got = decode(raw, escapes, &mut out).map(|()| out.as_str());
            assert_eq!(got, *expected, "{raw} with {escapes:?}");
        }
    }

    #[test]
    fn rule_2_every_escape_of_a_single_segment_is_decoded_once() {
        check(
            Escapes::All,
            &[
                ("", Ok("")),
                ("plain", Ok("plain")),
                ("a%2Fb", Ok("a/b")),
                ("a%252Fb", Ok("a%2Fb")),
                ("50%25", Ok("50%")),
                ("a+b", Ok("a+b")),
                ("%D0%BA%d0%bD.", Ok("кн.")),
                ("é%C3%A9", Ok("éé")),
            ],
        );
    }

    #[test]
    fn rule_2_an_escaped_slash_stays_in_several_segments_in_its_case() {
        check(
            Escapes::ButSlash,
            &[
                ("a%2Fb/c%2fd", Ok("a%2Fb/c%2fd")),
                ("%3A%23%25", Ok(":#%")),
                ("%D0%BA%2F%D0%BA", Ok("к%2Fк")),
            ],
        );
    }

    #[test]
    fn rule_3_reserved_characters_stay_by_option() {
        check(
            Escapes::ButReserved,
            &[
                ("%3a%2F%23%20", Ok("%3a%2F%23 ")),
                // What the option loses: both of these mean the same afterwards.
                ("%2523", Ok("%23")),
                ("%23", Ok("%23")),
            ],
        );
    }

    #[test]
    fn rule_4_what_is_not_an_escape_is_refused_with_its_place() {
        for escapes in [Escapes::All, Escapes::ButSlash, Escapes::ButReserved] {
            check(
                escapes,
                &[
                    ("%", Err(EscapeError::Digits { at: 0 })),
                    ("a%2", Err(EscapeError::Digits { at: 1 })),
                    ("ab%zz", Err(EscapeError::Digits { at: 2 })),
                    ("%20%é", Err(EscapeError::Digits { at: 3 })),
                    ("a%+1", Err(EscapeError::Digits { at: 1 })),
                    ("a%FF", Err(EscapeError::Utf8 { at: 1 })),
                    ("%D0a%BA", Err(EscapeError::Utf8 { at: 0 })),
                ],
            );
        }
    }

    #[test]
    fn rule_16_a_plus_is_a_space_in_a_query() {
        for (raw, expected) in [
            ("a+b", Ok("a b")),
            ("+", Ok(" ")),
            ("%2B+%2b", Ok("+ +")),
            ("a+%zz", Err(EscapeError::Digits { at: 2 })),
        ] {
            let mut out = String::new();
            assert_eq!(
                decode_form(raw, &mut out).map(|()| out.as_str()),
                expected,
                "{raw}"
            );
        }
    }
}
