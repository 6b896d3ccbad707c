//! API keys: a file of digests, of which each says who has the key, until when, and what it is for. The keys themselves
//! are nowhere but with their owners.

use std::fmt;
use std::fmt::Write as _;

use ahash::AHashMap;
use serde::Deserialize;
use serde_saphyr::{SnippetMode, UserMessageFormatter};
use thiserror::Error;

use super::cache::{Fingerprint, fingerprint};
use super::identity::{Claims, Identity, Source};
use super::time::Moment;
use std::sync::Arc;

/// What a key begins with, so that people and scanners of secrets know it for what it is.
const PREFIX: &str = "sabir_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// The longest key that is looked at.
pub(super) const MAX_KEY_BYTES: usize = 512;

/// The keys of a file as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// The keys.
    pub keys: Vec<WrittenKey>,
}

/// A key as written: everything but the key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenKey {
    /// Whose it is: the principal of its calls.
    pub label: String,
    /// Its SHA-256 digest in hexadecimal.
    pub sha256: String,
    /// When it ends.
    #[serde(default)]
    pub expires: Option<Moment>,
    /// What it is for.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Which parts its owner plays.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// Why a file of keys can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// It is not YAML or JSON of the expected form.
    #[error("{0}")]
    Form(String),
    /// A key has no label.
    #[error("key {0} has no label")]
    NoLabel(usize),
    /// A digest is none.
    #[error("the sha256 of \"{0}\" is not 64 hexadecimal digits")]
    Digest(String),
    /// Two keys have one digest, or one label.
    #[error("\"{0}\" is there twice")]
    Twice(String),
}

impl KeyFile {
    /// Reads a file of keys, YAML or JSON.
    ///
    /// # Errors
    /// [`KeyFileError`], which shows no digest.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        serde_saphyr::from_str(text).map_err(|error| {
            let options =
                serde_saphyr::render_options! { formatter: &UserMessageFormatter, snippets: SnippetMode::Off };
            KeyFileError::Form(error.render_with_options(options))
        })
    }
}

/// The keys that are taken.
#[derive(Debug, Default)]
pub struct ApiKeys {
    keys: AHashMap<Fingerprint, Arc<Identity>>,
}

impl ApiKeys {
    /// The keys of a file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn new(file: KeyFile) -> Result<Self, KeyFileError> {
        let mut keys = AHashMap::new();
        let mut labels = Vec::new();
        for (at, written) in file.keys.into_iter().enumerate() {
            let WrittenKey {
                label,
                sha256,
                expires,
                scopes,
                roles,
            } = written;
            if label.is_empty() {
                return Err(KeyFileError::NoLabel(at));
            }
            let print = unhex(&sha256).ok_or_else(|| KeyFileError::Digest(label.clone()))?;
            if labels.contains(&label) {
                return Err(KeyFileError::Twice(label));
            }
            labels.push(label.clone());
            let identity = Identity::new(
                Claims {
                    principal: label.clone(),
                    issuer: None,
                    source: Source::ApiKey,
                    scopes,
                    roles,
                    others: serde_json::Map::new(),
                    expires: expires.map(|moment| moment.0),
                },
                &[],
            );
            if keys.insert(print, Arc::new(identity)).is_some() {
                return Err(KeyFileError::Twice(label));
            }
        }
        Ok(Self { keys })
    }

    /// Whose key this is, expired or not. The digest is looked up, so the time that it takes says nothing about keys.
    pub fn find(&self, key: &str) -> Option<&Arc<Identity>> {
        self.keys.get(&fingerprint(key.as_bytes()))
    }
}

/// A key that was just made, with its digest.
#[derive(Clone)]
pub struct NewKey {
    /// The key: to be shown once.
    pub key: String,
    /// Its digest.
    pub sha256: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey")
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// Makes a key; `None` when the system has no random numbers.
pub fn make() -> Option<NewKey> {
    let mut random = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    let key = format!(
        "{PREFIX}{}",
        base64_simd::URL_SAFE_NO_PAD.encode_to_string(random)
    );
    Some(NewKey {
        sha256: hash(&key),
        key,
    })
}

/// The digest of a key as files have it.
pub fn hash(key: &str) -> String {
    fingerprint(key.as_bytes())
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string never fails.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn unhex(text: &str) -> Option<Fingerprint> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut print = [0; 32];
    for (at, byte) in print.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(print)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_made_is_found_and_no_other() {
        let (made, other) = (make().unwrap(), make().unwrap());
        assert!(
            made.key.starts_with("sabir_") && made.key.len() == 49,
            "{}",
            made.key
        );
        let text = format!(
            "keys:\n  - {{label: app, sha256: {}, expires: 2027-01-01, scopes: [read]}}\n",
            made.sha256.to_uppercase()
        );
        let keys = ApiKeys::new(KeyFile::parse(&text).unwrap()).unwrap();
        let found = keys.find(&made.key).unwrap();
        assert_eq!(found.principal(), "app");
        assert_eq!(found.claims().expires, Some(1_798_761_600));
        for wrong in [&*other.key, "", &made.sha256, &made.key[..48]] {
            assert!(keys.find(wrong).is_none(), "{wrong}");
        }
        assert!(!format!("{made:?}").contains(&made.key));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let (a, b) = (hash("a"), hash("b"));
        for (text, expected) in [
            (
                format!("keys: [{{label: x, sha256: {a}}}, {{label: x, sha256: {b}}}]"),
                "\"x\" is there twice",
            ),
            (
                format!("keys: [{{label: x, sha256: {a}}}, {{label: y, sha256: {a}}}]"),
                "\"y\" is there twice",
            ),
            (
                "keys: [{label: x, sha256: abc}]".to_owned(),
                "the sha256 of \"x\" is not 64 hexadecimal digits",
            ),
            (
                format!("keys: [{{label: '', sha256: {a}}}]"),
                "key 0 has no label",
            ),
        ] {
            let read = KeyFile::parse(&text).and_then(ApiKeys::new);
            assert_eq!(read.unwrap_err().to_string(), expected);
        }
        for text in [
            format!("keys: [{{label: x, sha256: {a}, key: {a}}}]"),
            format!("keys: [{{label: x, sha256: {a}, expires: tomorrow}}]"),
            "[]".to_owned(),
        ] {
            let error = KeyFile::parse(&text).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.contains(&a), "{error}");
        }
    }
}
