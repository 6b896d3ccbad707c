//! A path as a backend may read it: no dots, no empty segments, no escape that need not be one.
//!
//! What is relayed as it is would else be read once by the gateway and once more, otherwise, by the backend.
//!
//! Source: RFC 3986, sections 5.2.4 and 6.2.2.

use std::borrow::Cow;

use super::path::PathError;
use crate::wire::url::{self, EscapeError};

/// The path with its dots resolved, its slashes merged and its unreserved characters unescaped. A slash at its end stays.
///
/// # Errors
/// [`PathError`] for a path that has no such form.
pub fn normal(raw: &str) -> Result<Cow<'_, str>, PathError> {
    let bytes = raw.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::Relative);
    }
    let mut before = 0;
    let is_plain = bytes.iter().all(|byte| {
        let begins_segment = std::mem::replace(&mut before, *byte) == b'/';
        let is_odd = matches!(byte, b'%' | b'\\') || byte.is_ascii_control();
        let is_dot_or_empty = begins_segment && matches!(byte, b'/' | b'.');
        !is_odd && !is_dot_or_empty
    });
    if is_plain {
        return Ok(Cow::Borrowed(raw));
    }
    let decoded = unescape(raw)?;
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in decoded.split('/').skip(1) {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            segment => kept.push(segment),
        }
    }
    let mut path = String::with_capacity(decoded.len());
    for segment in &kept {
        path.push('/');
        path.push_str(segment);
    }
    if ends_in_slash || path.is_empty() {
        path.push('/');
    }
    Ok(if path == raw {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(path)
    })
}

/// The path without escapes of unreserved characters.
fn unescape(raw: &str) -> Result<String, PathError> {
    let bytes = raw.as_bytes();
    let mut out = String::with_capacity(raw.len());
    let mut at = 0;
    for (index, character) in raw.char_indices() {
        if index < at {
            continue;
        }
        match character {
            '%' => {
                let byte =
                    url::escape(bytes, index).ok_or(PathError::Escape(EscapeError::Digits { at: index }))?;
                match byte {
                    0 => return Err(PathError::Control { at: index }),
                    b'\\' => return Err(PathError::Backslash { at: index }),
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                        out.push(char::from(byte));
                    }
                    _ => out.push_str(raw.get(index..index + 3).unwrap_or_default()),
                }
                at = index + 3;
            }
            '\\' => return Err(PathError::Backslash { at: index }),
            control if control.is_ascii_control() => return Err(PathError::Control { at: index }),
            other => out.push(other),
        }
    }
    Ok(out)
}

/// Whether the path has an escaped slash.
pub fn has_escaped_slash(path: &str) -> bool {
    memchr::memchr_iter(b'%', path.as_bytes()).any(|at| url::escape(path.as_bytes(), at) == Some(b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_normal_form() {
        for (raw, expected) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//", "/"),
            ("//a///b//", "/a/b/"),
            ("/a/./b", "/a/b"),
            ("/a/b/..", "/a/"),
            ("/a/b/.", "/a/b/"),
            ("/a/../b", "/b"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/.well-known/x", "/.well-known/x"),
            ("/a..b/...", "/a..b/..."),
            ("/%61%7e%2D", "/a~-"),
            ("/a%2Fb/%2f..", "/a%2Fb/%2f.."),
            ("/%D0%BA%20", "/%D0%BA%20"),
        ] {
            assert_eq!(normal(raw).as_deref(), Ok(expected), "{raw}");
            assert_eq!(
                normal(expected).as_deref(),
                Ok(expected),
                "{expected} is its own normal form"
            );
        }
    }

    #[test]
    fn what_is_read_in_two_ways_is_refused() {
        for (raw, error) in [
            ("a", PathError::Relative),
            ("/a\\b", PathError::Backslash { at: 2 }),
            ("/a%5Cb", PathError::Backslash { at: 2 }),
            ("/%00", PathError::Control { at: 1 }),
            ("/a\n", PathError::Control { at: 2 }),
            ("/%zz", PathError::Escape(EscapeError::Digits { at: 1 })),
            ("/%2", PathError::Escape(EscapeError::Digits { at: 1 })),
        ] {
            assert_eq!(normal(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn an_escaped_slash_is_seen() {
        assert!(has_escaped_slash("/a%2fb") && has_escaped_slash("/%20%2F"));
        assert!(!has_escaped_slash("/a/b%20") && !has_escaped_slash("/%252F"));
    }
}
