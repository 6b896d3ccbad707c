//! What is revoked, as it is written: one JSON object a line in a file, or a member of a set in Redis.

use std::fmt;

use ahash::AHashMap;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::policy::identity::Identity;
use crate::policy::time::Moment;

/// Entries of one list. Not measured: with names of fifty letters, about 20 MiB.
pub const MAX_ENTRIES: usize = 100_000;
/// The longest entry, in bytes.
const MAX_ENTRY_BYTES: usize = 4096;

/// What is revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One token, by its `jti`.
    Token(String),
    /// The tokens of one subject, as far as they were issued before a moment; without one, all of them.
    Subject(String, Option<Moment>),
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What is revoked.
    pub target: Target,
    /// Whose tokens these are; absent, those of any issuer.
    pub issuer: Option<String>,
    /// When the entry may be forgotten, because the tokens have expired; absent, never.
    pub until: Option<Moment>,
}

/// Why an entry can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// It is no JSON object of the expected form.
    #[error(
        "is no entry: {0}; write such as {{\"jti\": \"ID\"}} or {{\"sub\": \"NAME\", \"before\": \"2027-01-31T12:00:00Z\"}}"
    )]
    Form(String),
    /// It is longer than entries are.
    #[error("is longer than {MAX_ENTRY_BYTES} bytes")]
    TooLong,
    /// It names no token and no subject, or both.
    #[error("has to have one of \"jti\" and \"sub\", and something in it")]
    Target,
    /// A token is revoked, not those before a moment.
    #[error("has a \"before\", which says something of a \"sub\" alone")]
    Before,
}

/// Why a list can't be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListError {
    /// A line is wrong.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        what: EntryError,
    },
    /// There are too many.
    #[error("has more than {MAX_ENTRIES} entries; take out those whose tokens have expired")]
    TooMany,
}

/// An entry as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, deserialize_with = "present")]
    jti: Option<String>,
    #[serde(default, deserialize_with = "present")]
    sub: Option<String>,
    #[serde(default, deserialize_with = "present")]
    iss: Option<String>,
    #[serde(default, deserialize_with = "present")]
    before: Option<Moment>,
    #[serde(default, deserialize_with = "present")]
    until: Option<Moment>,
}

/// A member that has a value if it is there: `null` is none.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl Entry {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        if text.len() > MAX_ENTRY_BYTES {
            return Err(EntryError::TooLong);
        }
        let written: Written =
            serde_json::from_str(text).map_err(|error| EntryError::Form(error.to_string()))?;
        let target = match (written.jti, written.sub) {
            (Some(id), None) if !id.is_empty() => {
                if written.before.is_some() {
                    return Err(EntryError::Before);
                }
                Target::Token(id)
            }
            (None, Some(name)) if !name.is_empty() => Target::Subject(name, written.before),
            _ => return Err(EntryError::Target),
        };
        Ok(Self {
            target,
            issuer: written.iss,
            until: written.until,
        })
    }

    /// Whether it may be forgotten at this second of Unix time.
    pub fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| until.0 <= now)
    }
}

/// The one spelling of an entry, so that what is revoked twice stands there once.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut members = Map::new();
        let mut add = |name: &str, value: Value| drop(members.insert(name.to_owned(), value));
        match &self.target {
            Target::Token(id) => add("jti", json!(id)),
            Target::Subject(name, before) => {
                add("sub", json!(name));
                if let Some(before) = before {
                    add("before", json!(before.to_string()));
                }
            }
        }
        if let Some(issuer) = &self.issuer {
            add("iss", json!(issuer));
        }
        if let Some(until) = self.until {
            add("until", json!(until.to_string()));
        }
        write!(f, "{}", Value::Object(members))
    }
}

/// Reads a file: an entry a line; empty lines and those that begin with `#` are skipped.
///
/// # Errors
/// The first line that is wrong, or that there are too many.
pub fn parse(text: &str) -> Result<Vec<Entry>, ListError> {
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = Entry::parse(line).map_err(|what| ListError::Line { line: at + 1, what })?;
        if entries.len() >= MAX_ENTRIES {
            return Err(ListError::TooMany);
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// What is revoked of one name.
#[derive(Debug)]
struct Mark {
    issuer: Option<Box<str>>,
    /// Tokens that were issued before this second; absent, all.
    before: Option<u64>,
    /// Until when this counts.
    until: Option<u64>,
}

impl Mark {
    fn is_of(&self, issuer: Option<&str>, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
            && self.issuer.as_deref().is_none_or(|name| Some(name) == issuer)
    }
}

/// A list that can be asked about a caller.
#[derive(Debug, Default)]
pub struct List {
    tokens: AHashMap<Box<str>, Vec<Mark>>,
    subjects: AHashMap<Box<str>, Vec<Mark>>,
    len: usize,
}

impl List {
    /// The list of these entries, without those that are over.
    pub fn new<'e>(entries: impl IntoIterator<Item = &'e Entry>, now: u64) -> Self {
        let mut list = Self::default();
        for entry in entries {
            if entry.is_over(now) {
                continue;
            }
            let mark = Mark {
                issuer: entry.issuer.as_deref().map(Into::into),
                before: None,
                until: entry.until.map(|until| until.0),
            };
            list.len += 1;
            match &entry.target {
                Target::Token(id) => list.tokens.entry(id.as_str().into()).or_default().push(mark),
                Target::Subject(name, before) => {
                    let before = before.map(|before| before.0);
                    let marks = list.subjects.entry(name.as_str().into()).or_default();
                    marks.push(Mark { before, ..mark });
                }
            }
        }
        list
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the token by which a caller is known is revoked; `now` in seconds of Unix time.
    pub fn revokes(&self, identity: &Identity, now: u64) -> bool {
        if self.is_empty() {
            return false;
        }
        let claims = identity.claims();
        let issuer = claims.issuer.as_deref();
        let id = claims.others.get("jti").and_then(Value::as_str);
        let marks = id.and_then(|id| self.tokens.get(id));
        if marks.is_some_and(|marks| marks.iter().any(|mark| mark.is_of(issuer, now))) {
            return true;
        }
        let Some(marks) = self.subjects.get(identity.principal()) else {
            return false;
        };
        // A token that does not say when it was issued can't show that it came after.
        let issued = claims.others.get("iat").and_then(Value::as_f64);
        marks.iter().any(|mark| {
            let earlier = match (mark.before, issued) {
                (None, _) | (Some(_), None) => true,
                (Some(before), Some(issued)) => issued < seconds(before),
            };
            earlier && mark.is_of(issuer, now)
        })
    }
}

/// Seconds as a number with a fraction; exact for the next 285 million years.
#[expect(clippy::cast_precision_loss, reason = "as said")]
fn seconds(whole: u64) -> f64 {
    whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::identity::{Claims, Source};

    fn identity(subject: &str, issuer: &str, others: &Value) -> Identity {
        let claims = Claims {
            principal: subject.to_owned(),
            issuer: Some(issuer.to_owned()),
            source: Source::Token,
            scopes: Vec::new(),
            roles: Vec::new(),
            others: others.as_object().cloned().unwrap(),
            expires: None,
        };
        Identity::new(claims, &[])
    }

    fn list(lines: &[&str], now: u64) -> List {
        List::new(&parse(&lines.join("\n")).unwrap(), now)
    }

    #[test]
    fn a_token_is_revoked_by_its_id_and_a_subject_up_to_a_moment() {
        let list = list(
            &[
                "# what was stolen",
                "",
                r#"{"jti": "t-1"}"#,
                r#"{"jti": "t-2", "iss": "a"}"#,
                r#"{"jti": "t-3", "until": "1970-01-01T00:03:20Z"}"#,
                r#"{"sub": "eve"}"#,
                r#"{"sub": "ada", "before": "1970-01-01T00:01:40Z"}"#,
                r#"{"sub": "bob", "iss": "a", "before": "1970-01-01T00:01:40Z"}"#,
            ],
            0,
        );
        assert_eq!(list.len(), 6);
        for (subject, issuer, others, now, revoked) in [
            ("zoe", "a", json!({"jti": "t-1"}), 0, true),
            ("zoe", "b", json!({"jti": "t-1"}), 0, true),
            ("zoe", "a", json!({"jti": "T-1"}), 0, false),
            ("zoe", "a", json!({"jti": ["t-1"]}), 0, false),
            ("zoe", "a", json!({"jti": "t-2"}), 0, true),
            ("zoe", "b", json!({"jti": "t-2"}), 0, false),
            ("zoe", "a", json!({"jti": "t-3"}), 199, true),
            ("zoe", "a", json!({"jti": "t-3"}), 200, false),
            ("t-1", "a", json!({}), 0, false),
            ("eve", "a", json!({"iat": 1_000_000}), 0, true),
            ("ada", "a", json!({"iat": 99}), 0, true),
            ("ada", "a", json!({"iat": 99.9}), 0, true),
            ("ada", "a", json!({"iat": 100}), 0, false),
            ("ada", "a", json!({}), 0, true),
            ("ada", "a", json!({"iat": "soon"}), 0, true),
            ("bob", "a", json!({"iat": 99}), 0, true),
            ("bob", "b", json!({"iat": 99}), 0, false),
        ] {
            let identity = identity(subject, issuer, &others);
            assert_eq!(
                list.revokes(&identity, now),
                revoked,
                "{subject} of {issuer}, {others} at {now}"
            );
        }
    }

    #[test]
    fn what_is_over_is_left_out() {
        let lines = [r#"{"jti": "t", "until": "1970-01-01T00:00:10Z"}"#];
        assert_eq!((list(&lines, 9).len(), list(&lines, 10).len()), (1, 0));
    }

    #[test]
    fn an_entry_has_one_spelling() {
        for (text, written) in [
            (r#"{"jti":"t"}"#, r#"{"jti":"t"}"#),
            (r#" { "iss" : "a", "jti" : "t" } "#, r#"{"iss":"a","jti":"t"}"#),
            (
                r#"{"until": "2027-01-31", "sub": "a \"b\"", "before": "2026-01-31"}"#,
                r#"{"before":"2026-01-31T00:00:00Z","sub":"a \"b\"","until":"2027-01-31T00:00:00Z"}"#,
            ),
        ] {
            let entry = Entry::parse(text).unwrap();
            let again = entry.to_string();
            let value: Value = serde_json::from_str(&again).unwrap();
            assert_eq!(value, serde_json::from_str::<Value>(written).unwrap(), "{again}");
            assert_eq!(Entry::parse(&again).unwrap(), entry);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let long = format!(r#"{{"jti": "{}"}}"#, "x".repeat(MAX_ENTRY_BYTES));
        for (line, what) in [
            ("{}", Some(EntryError::Target)),
            (r#"{"jti": ""}"#, Some(EntryError::Target)),
            (r#"{"jti": "a", "sub": "b"}"#, Some(EntryError::Target)),
            (
                r#"{"jti": "a", "before": "2027-01-31"}"#,
                Some(EntryError::Before),
            ),
            (&long, Some(EntryError::TooLong)),
            ("jti a", None),
            (r#"{"jti": 7}"#, None),
            (r#"{"jti": null}"#, None),
            (r#"{"jti": "a", "jti": "b"}"#, None),
            (r#"{"jti": "a", "exp": 7}"#, None),
            (r#"{"sub": "a", "before": "yesterday"}"#, None),
        ] {
            let text = format!("{{\"jti\": \"good\"}}\n\n{line}");
            match (parse(&text).unwrap_err(), what) {
                (ListError::Line { line: 3, what }, Some(expected)) => assert_eq!(what, expected, "{line}"),
                (
                    ListError::Line {
                        line: 3,
                        what: EntryError::Form(_),
                    },
                    None,
                ) => {}
                (other, _) => panic!("{line}: {other}"),
            }
        }
        let many = "{\"jti\": \"a\"}\n".repeat(MAX_ENTRIES);
        assert_eq!(parse(&many).unwrap().len(), MAX_ENTRIES);
        assert_eq!(
            parse(&(many + "{\"jti\": \"b\"}")).unwrap_err(),
            ListError::TooMany
        );
    }
}
