//! `${…}` in the values of a configuration: the environment and secret files.
//!
//! `${NAME}` is a variable, `${NAME:-default}` a variable or what follows if it is unset or empty, `${file:PATH}` the
//! text of a file without the line break at its end, and `$${` stands for `${`. Keys are never replaced.

use std::io::Read;
use std::path::Path;

use super::diagnostic::Diagnostic;
use super::document::Document;
use super::watch::Noted;

/// What a `${file:PATH}` may hold: keys and passwords are far smaller. Not measured.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// Where values come from that are not in the file.
pub(super) trait Outside {
    /// A variable of the environment; `None` if it is unset.
    fn variable(&self, name: &str) -> Option<String>;
    /// The text of a file.
    fn file(&self, path: &str) -> Result<String, String>;
}

/// The process's environment and the files beside the configuration.
#[derive(Debug)]
pub(super) struct Process<'a> {
    /// What a relative path is relative to.
    pub(super) base: &'a Path,
    /// Where it is noted which files were read.
    pub(super) noted: &'a Noted,
}

impl Outside for Process<'_> {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<String, String> {
        let mut text = String::new();
        let path = self.base.join(path);
        self.noted.add(path.clone());
        let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
        file.take(MAX_SECRET_BYTES + 1)
            .read_to_string(&mut text)
            .map_err(|error| error.to_string())?;
        if text.len() as u64 > MAX_SECRET_BYTES {
            return Err(format!("it is larger than {MAX_SECRET_BYTES} bytes"));
        }
        let end = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(end);
        Ok(text)
    }
}

/// Replaces every `${…}` in a document; what can't be replaced stays as written and is reported.
pub(super) fn interpolate(document: &mut Document, outside: &dyn Outside) -> Vec<Diagnostic> {
    let mut failed = Vec::new();
    for (node, scalar) in document.scalars_mut() {
        if !scalar.text.contains("${") {
            continue;
        }
        match replace(&scalar.text, outside) {
            Ok(text) => scalar.written = Some(std::mem::replace(&mut scalar.text, text)),
            Err(message) => failed.push((node, message)),
        }
    }
    failed
        .into_iter()
        .map(|(node, message)| document.error(node, message))
        .collect()
}

fn replace(text: &str, outside: &dyn Outside) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest.get(..at).and_then(|before| before.strip_suffix('$')) {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        out.push_str(&rest[..at]);
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('}') else {
            return Err(
                "\"${\" without its \"}\"; write \"$${\" for the two characters themselves".to_owned(),
            );
        };
        out.push_str(&value(&inner[..end], outside)?);
        rest = &inner[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// What stands for the inside of one `${…}`.
fn value(inside: &str, outside: &dyn Outside) -> Result<String, String> {
    if let Some(path) = inside.strip_prefix("file:") {
        return outside
            .file(path)
            .map_err(|error| format!("can't read the file \"{path}\": {error}"));
    }
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let mut letters = name.chars();
    let first = letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    if !first || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
        return Err(format!(
            "\"${{{inside}}}\" is not known; valid are ${{NAME}}, ${{NAME:-default}} and ${{file:PATH}}"
        ));
    }
    match (outside.variable(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(value), None) => Ok(value),
        (None, None) => Err(format!(
            "the environment has no {name}; set it, or write ${{{name}:-default}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Outside for Fixed {
        fn variable(&self, name: &str) -> Option<String> {
            match name {
                "PORT" => Some("8443".into()),
                "EMPTY" => Some(String::new()),
                _ => None,
            }
        }

        fn file(&self, path: &str) -> Result<String, String> {
            match path {
                "secret" => Ok("s3cr3t".into()),
                _ => Err("no such file".into()),
            }
        }
    }

    #[test]
    fn every_form_is_replaced_or_refused() {
        for (text, expected) in [
            ("127.0.0.1:${PORT}", Ok("127.0.0.1:8443")),
            ("${PORT}${PORT}", Ok("84438443")),
            ("${HOST:-localhost}:1", Ok("localhost:1")),
            ("${EMPTY:-x}", Ok("x")),
            ("${EMPTY}", Ok("")),
            ("${HOST:-}", Ok("")),
            ("a ${file:secret} b", Ok("a s3cr3t b")),
            ("$${PORT} $5 $", Ok("${PORT} $5 $")),
            (
                "${HOST}",
                Err("the environment has no HOST; set it, or write ${HOST:-default}"),
            ),
            ("${file:none}", Err("can't read the file \"none\": no such file")),
            (
                "${PORT",
                Err("\"${\" without its \"}\"; write \"$${\" for the two characters themselves"),
            ),
            (
                "${a-b}",
                Err("\"${a-b}\" is not known; valid are ${NAME}, ${NAME:-default} and ${file:PATH}"),
            ),
        ] {
            assert_eq!(
                replace(text, &Fixed),
                expected.map(str::to_owned).map_err(str::to_owned),
                "{text}"
            );
        }
    }
}
