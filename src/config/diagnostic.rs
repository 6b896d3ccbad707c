//! What is wrong with a configuration, where, and what would be right.

use std::fmt;

/// How much a diagnostic weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// The configuration can't be used.
    Error,
    /// The configuration works, and probably not as meant.
    Warning,
}

/// The line that a diagnostic speaks about, and the part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, as it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// How many characters of the line are meant; at least one.
    pub width: usize,
    /// The line itself.
    pub text: String,
}

/// One thing that is wrong.
///
/// `Display` prints `sabir.yaml:14:14: routes[3].backend: no backend "libary"; did you mean "library"?` and below it
/// the line with the part underlined, without a line break at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it weighs.
    pub severity: Severity,
    /// Where it is written; nothing when it comes from the command line.
    pub place: Option<Box<Place>>,
    /// Which key, such as `routes[3].backend`, or which flag.
    pub path: String,
    /// What is wrong, and what was probably meant.
    pub message: String,
    /// What would be valid.
    pub note: Option<String>,
}

impl Diagnostic {
    /// An error that has no place in a file.
    pub fn error(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            place: None,
            path: path.into(),
            message: message.into(),
            note: None,
        }
    }

    /// The same, as a warning.
    #[must_use]
    pub fn as_warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// The same, saying what would be valid.
    #[must_use]
    pub fn noting(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// In one line, without what the file says there: for places where a secret must not show.
    pub fn brief(&self) -> String {
        let place = match &self.place {
            Some(place) => format!("{}:{}:{}: ", place.file, place.line, place.column),
            None => String::new(),
        };
        let path = if self.path.is_empty() { "" } else { ": " };
        format!("{place}{}{path}{}", self.path, self.message)
    }

    /// Whether the configuration can't be used.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{}:{}:{}: ", place.file, place.line, place.column)?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        let margin = self
            .place
            .as_ref()
            .map_or(2, |place| place.line.to_string().len());
        if let Some(place) = &self.place {
            let pad = " ".repeat(place.column.saturating_sub(1));
            let carets = "^".repeat(place.width.max(1));
            write!(
                f,
                "\n{:margin$} |\n{} | {}\n{:margin$} | {pad}{carets}",
                "", place.line, place.text, ""
            )?;
        }
        if let Some(note) = &self.note {
            write!(f, "\n{:margin$} = {note}", "")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

/// The candidate that `written` was probably meant to be.
///
/// At most a third of the letters, and at least one, may differ; of two that are equally near the first wins.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (written.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(written, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "library"?`, or nothing.
pub(crate) fn did_you_mean<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, candidates)
        .map(|candidate| format!("; did you mean \"{candidate}\"?"))
        .unwrap_or_default()
}

/// How many letters have to be put in, taken out, replaced or swapped with a neighbour; case counts for nothing.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let replaced = above[j] + usize::from(x != y);
            let mut least = replaced.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_is_near_or_absent() {
        let names = ["library", "accounts", "load_balancing"];
        for (written, meant) in [
            ("libary", Some("library")),
            ("lirbary", Some("library")),
            ("Library", Some("library")),
            ("load_balancer", Some("load_balancing")),
            ("auth", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, names), meant, "{written}");
        }
    }

    #[test]
    fn the_caret_stands_under_the_part_that_is_meant() {
        let diagnostic = Diagnostic {
            severity: Severity::Error,
            place: Some(Box::new(Place {
                file: "sabir.yaml".into(),
                line: 14,
                column: 14,
                width: 6,
                text: "    backend: libary".into(),
            })),
            path: "routes[3].backend".into(),
            message: "no backend \"libary\"; did you mean \"library\"?".into(),
            note: Some("backends: library".into()),
        };
        assert_eq!(
            diagnostic.to_string(),
            "sabir.yaml:14:14: routes[3].backend: no backend \"libary\"; did you mean \"library\"?\n   \
             |\n14 |     backend: libary\n   |              ^^^^^^\n   = backends: library"
        );
    }
}
