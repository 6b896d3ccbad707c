//! Reading a `multipart/form-data` body that is in memory.
//!
//! Source: RFC 7578 over RFC 2046, section 5.1.

use memchr::memmem;

/// The longest boundary. Source: RFC 2046, section 5.1.1.
const MAX_BOUNDARY: usize = 70;

/// One part of a form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormPart<'a> {
    /// The name of its field.
    pub name: String,
    /// The name of the file that it was.
    pub file_name: Option<String>,
    /// What is in it.
    pub body: &'a [u8],
}

/// Why a form can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// The content type names no boundary, or one that is none.
    #[error("the content type has no valid boundary")]
    Boundary,
    /// The body does not begin with it, or does not end with it.
    #[error("the form is cut off, or its boundary is not the one of the content type")]
    Cut,
    /// A part does not say what it is.
    #[error("a part of the form has no name")]
    Name,
    /// There are too many parts.
    #[error("the form has more than {0} parts")]
    Many(usize),
}

/// The parts of a form; `content_type` is the value of the header, with its boundary.
///
/// # Errors
/// [`FormError`].
pub fn parts<'a>(content_type: &str, body: &'a [u8], most: usize) -> Result<Vec<FormPart<'a>>, FormError> {
    let boundary = parameter(content_type, "boundary").ok_or(FormError::Boundary)?;
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY {
        return Err(FormError::Boundary);
    }
    let first = format!("--{boundary}");
    let next = format!("\r\n--{boundary}");
    // What stands before the first boundary is nobody's.
    let start = if body.starts_with(first.as_bytes()) {
        Some(first.len())
    } else {
        memmem::find(body, next.as_bytes()).map(|at| at.saturating_add(next.len()))
    };
    let mut rest = start.and_then(|start| body.get(start..)).ok_or(FormError::Cut)?;
    let mut found = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Ok(found);
        }
        // Spaces may follow a boundary on its line.
        let line = memmem::find(rest, b"\r\n").ok_or(FormError::Cut)?;
        let part = rest.get(line..).ok_or(FormError::Cut)?;
        let end = memmem::find(part, next.as_bytes()).ok_or(FormError::Cut)?;
        if found.len() == most {
            return Err(FormError::Many(most));
        }
        found.push(part_of(part.get(..end).ok_or(FormError::Cut)?)?);
        rest = part.get(end.saturating_add(next.len())..).ok_or(FormError::Cut)?;
    }
}

/// One part, from the line break before its headers.
fn part_of(part: &[u8]) -> Result<FormPart<'_>, FormError> {
    let split = memmem::find(part, b"\r\n\r\n").ok_or(FormError::Name)?;
    let head = part.get(..split).and_then(|head| std::str::from_utf8(head).ok());
    let disposition = head
        .ok_or(FormError::Name)?
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))
        .map(|(_, value)| value.trim())
        .ok_or(FormError::Name)?;
    Ok(FormPart {
        name: parameter(disposition, "name").ok_or(FormError::Name)?,
        file_name: parameter(disposition, "filename"),
        body: part.get(split.saturating_add(4)..).unwrap_or_default(),
    })
}

/// A parameter of a header's value, out of its quotes.
fn parameter(value: &str, wanted: &str) -> Option<String> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let (text, left) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (text, left) = after.split_once(';').unwrap_or((after, ""));
                (text.trim_end().to_owned(), left)
            }
        };
        if name
            .trim()
            .trim_start_matches(';')
            .trim()
            .eq_ignore_ascii_case(wanted)
        {
            return Some(text);
        }
        rest = left.trim_start().trim_start_matches(';');
    }
}

/// What stands before the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((text, quoted.get(at.saturating_add(1)..)?)),
            // Browsers escape a quote as %22; what follows a backslash is meant as it stands.
            '\\' => text.push(letters.next()?.1),
            letter => text.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; charset=utf-8; boundary=\"x y\"";

    #[test]
    fn parts_come_with_their_names_and_bytes() {
        let body = b"nobody's\r\n--x y\r\nContent-Disposition: form-data; name=\"a/b.proto\"; filename=\"b.proto\"\r\n\
            Content-Type: text/plain\r\n\r\none\r\n\r\n--x\r\n--x y  \r\ncontent-disposition: form-data; name=plain\r\n\r\n\r\n--x y--\r\n";
        let parts = parts(TYPE, body, 2).unwrap();
        assert_eq!(parts.len(), 2);
        assert_eq!(
            (parts[0].name.as_str(), parts[0].file_name.as_deref()),
            ("a/b.proto", Some("b.proto"))
        );
        assert_eq!(parts[0].body, b"one\r\n\r\n--x");
        assert_eq!((parts[1].name.as_str(), parts[1].body), ("plain", &b""[..]));
        assert_eq!(super::parts(TYPE, body, 1), Err(FormError::Many(1)));
    }

    #[test]
    fn what_is_no_form_is_said() {
        let named = "--x y\r\ncontent-disposition: form-data; name=a\r\n\r\nb";
        for (content_type, body, error) in [
            ("multipart/form-data", "", FormError::Boundary),
            ("multipart/form-data; boundary=", "", FormError::Boundary),
            (TYPE, "", FormError::Cut),
            (TYPE, named, FormError::Cut),
            (
                TYPE,
                "--x y\r\ncontent-type: a/b\r\n\r\nb\r\n--x y--",
                FormError::Name,
            ),
            (
                TYPE,
                "--x y\r\ncontent-disposition: form-data; name=\"a\r\n\r\nb\r\n--x y--",
                FormError::Name,
            ),
        ] {
            assert_eq!(
                parts(content_type, body.as_bytes(), 9),
                Err(error),
                "{content_type} {body}"
            );
        }
        let whole = format!("{named}\r\n--x y--");
        assert_eq!(parts(TYPE, whole.as_bytes(), 9).unwrap()[0].body, b"b");
        for at in 0..whole.len() {
            assert_eq!(
                parts(TYPE, &whole.as_bytes()[..at], 9).is_ok(),
                at >= whole.len(),
                "{at}"
            );
        }
    }
}
