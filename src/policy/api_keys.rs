//! API keys: a file of digests, of which each says who has the key, until when, what it is for, and how often it may call.
//! The keys themselves are nowhere but with their owners.

use std::fmt;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::str::FromStr;

use ahash::{AHashMap, AHashSet};
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use serde_saphyr::{SnippetMode, UserMessageFormatter};
use thiserror::Error;

use super::cache::{Fingerprint, fingerprint};
use super::identity::{Claims, Identity, Source};
use super::throttle::Allowance;
use super::throttle::own::OwnLimits;
use super::throttle::written::{Often, PerWindow};
use super::time::Moment;

/// What a key begins with, so that people and scanners of secrets know it for what it is.
const PREFIX: &str = "sabir_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// The longest key that is looked at.
pub(super) const MAX_KEY_BYTES: usize = 512;
/// The longest label of a key that has limits of its own: clients are told it in a header.
const MAX_TOLD_LABEL_BYTES: usize = 128;

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
    /// How many calls it may make in each window of the calendar, such as `10000/day`.
    #[serde(default)]
    pub quota: Option<Word>,
    /// How often it may call, such as `50/s`.
    #[serde(default)]
    pub rate: Option<Word>,
    /// How many calls it may make at once, with a rate.
    #[serde(default)]
    pub burst: Option<Word>,
}

/// A text or a number as it is written: what it means is looked at when it is known whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word(pub String);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordVisitor;

        impl Visitor<'_> for WordVisitor {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a number")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Word, E> {
                Ok(Word(number.to_string()))
            }
        }

        deserializer.deserialize_any(WordVisitor)
    }
}

impl WrittenKey {
    /// What it may call by limits of its own.
    fn allowances(&self) -> Result<Vec<Allowance>, KeyFileError> {
        let quota: Option<PerWindow> = self.read("quota", self.quota.as_ref())?;
        let rate: Option<Often> = self.read("rate", self.rate.as_ref())?;
        let burst: Option<Burst> = self.read("burst", self.burst.as_ref())?;
        if rate.is_none() && burst.is_some() {
            return Err(KeyFileError::BurstAlone(self.label.clone()));
        }
        let quota = quota.map(Allowance::from);
        let rate = rate.map(|rate| rate.with_burst(burst.map(|burst| burst.0.get())));
        Ok(quota.into_iter().chain(rate).collect())
    }

    fn read<T: FromStr<Err = &'static str>>(
        &self,
        name: &'static str,
        word: Option<&Word>,
    ) -> Result<Option<T>, KeyFileError> {
        let read = |word: &Word| {
            word.0.parse().map_err(|not| KeyFileError::Limit {
                label: self.label.as_str().into(),
                name,
                text: word.0.as_str().into(),
                not,
            })
        };
        word.map(read).transpose()
    }
}

/// How many calls at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Burst(pub NonZeroU32);

impl FromStr for Burst {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .map(Self)
            .map_err(|_| "is not a number from 1 to 4294967295")
    }
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
    /// A limit is none.
    #[error("the {name} of \"{label}\": \"{text}\" {not}")]
    Limit {
        /// Whose key it is.
        label: Box<str>,
        /// Which limit.
        name: &'static str,
        /// What is written.
        text: Box<str>,
        /// What it is not, and what would be right.
        not: &'static str,
    },
    /// A burst has no rate.
    #[error("\"{0}\" has a burst and no rate that it goes with; write such as rate: 50/s")]
    BurstAlone(String),
    /// Clients could not be told whose limit it is.
    #[error(
        "the label \"{0}\" is longer than the {MAX_TOLD_LABEL_BYTES} bytes that it may have with a quota or a rate"
    )]
    LongLabel(String),
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
    keys: AHashMap<Fingerprint, Identity>,
    /// Of those keys that have some, in the order in which their identities count them.
    own: Vec<OwnLimits>,
}

impl ApiKeys {
    /// The keys of a file.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn new(file: KeyFile) -> Result<Self, KeyFileError> {
        let mut keys = AHashMap::new();
        let mut labels = AHashSet::new();
        let mut own = Vec::new();
        for (at, written) in file.keys.into_iter().enumerate() {
            let allowances = written.allowances();
            let WrittenKey {
                label,
                sha256,
                expires,
                scopes,
                roles,
                ..
            } = written;
            if label.is_empty() {
                return Err(KeyFileError::NoLabel(at));
            }
            let print = unhex(&sha256).ok_or_else(|| KeyFileError::Digest(label.clone()))?;
            if !labels.insert(label.clone()) {
                return Err(KeyFileError::Twice(label));
            }
            let allowances = allowances?;
            if !allowances.is_empty() && label.len() > MAX_TOLD_LABEL_BYTES {
                return Err(KeyFileError::LongLabel(label));
            }
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
            let identity = if allowances.is_empty() {
                identity
            } else {
                let at = own.len();
                own.push(OwnLimits {
                    label: label.clone(),
                    allowances,
                });
                identity.with_own_limits(at)
            };
            if keys.insert(print, identity).is_some() {
                return Err(KeyFileError::Twice(label));
            }
        }
        Ok(Self { keys, own })
    }

    /// The limits of those keys that have some of their own, in the order in which their identities count them.
    pub fn own_limits(&self) -> &[OwnLimits] {
        &self.own
    }

    /// Whose key has this digest, expired or not. Since digests are looked up, the time that it takes says nothing about keys.
    pub(super) fn find(&self, print: &Fingerprint) -> Option<&Identity> {
        self.keys.get(print)
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
        let found = keys.find(&fingerprint(made.key.as_bytes())).unwrap();
        assert_eq!(found.principal(), "app");
        assert_eq!(found.claims().expires, Some(1_798_761_600));
        for wrong in [&*other.key, "", &made.sha256, &made.key[..48]] {
            assert!(keys.find(&fingerprint(wrong.as_bytes())).is_none(), "{wrong}");
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

    /// What the keys of a file may call by limits of their own, by their labels.
    fn own(text: &str) -> Result<Vec<(String, Vec<String>)>, KeyFileError> {
        let keys = KeyFile::parse(text).and_then(ApiKeys::new)?;
        let of = |own: &OwnLimits| {
            let allowances = own.allowances.iter().map(ToString::to_string);
            (own.label.clone(), allowances.collect())
        };
        Ok(keys.own_limits().iter().map(of).collect())
    }

    #[test]
    fn a_key_may_have_limits_of_its_own() {
        let digests = ["a", "b", "c", "d"].map(hash);
        let text = format!(
            "keys:
  - {{label: none, sha256: {}}}
  - {{label: both, sha256: {}, quota: 10000/day, rate: 50/s, burst: 100}}
  - {{label: rate, sha256: {}, rate: \"5/10s\", quota: null}}
  - {{label: text, sha256: {}, rate: 1/m, burst: \"7\"}}
",
            digests[0], digests[1], digests[2], digests[3]
        );
        let told = own(&text).unwrap();
        let told: Vec<(&str, Vec<&str>)> = told
            .iter()
            .map(|(label, all)| (label.as_str(), all.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(
            told,
            [
                ("both", vec!["10000 in each day", "50 in 1s, 100 at once"]),
                ("rate", vec!["5 in 10s, 5 at once"]),
                ("text", vec!["1 in 60s, 7 at once"]),
            ]
        );
        let keys = ApiKeys::new(KeyFile::parse(&text).unwrap()).unwrap();
        let at = |key: &str| keys.find(&fingerprint(key.as_bytes())).unwrap().own_limits();
        assert_eq!(
            ["a", "b", "c", "d"].map(at),
            [None, Some(0), Some(1), Some(2)],
            "each finds its own"
        );
    }

    #[test]
    fn what_is_wrong_with_a_keys_limits_is_said_with_its_label() {
        let refused = |members: &str| {
            let text = format!("keys: [{{label: app, sha256: {}, {members}}}]", hash("a"));
            own(&text).unwrap_err().to_string()
        };
        let quota =
            "is no quota; write how many in which window, such as 1000/hour, 10000/day or 200000/month";
        let rate = "is no rate; write how many in which time, such as 100/s, 1000/m or 5/10s";
        let burst = "is not a number from 1 to 4294967295";
        for (members, name, written, not) in [
            ("quota: 10000", "quota", "10000", quota),
            ("quota: 10/s", "quota", "10/s", quota),
            ("quota: 0/day", "quota", "0/day", quota),
            ("quota: ''", "quota", "", quota),
            ("rate: 50/day", "rate", "50/day", rate),
            ("rate: 1.5", "rate", "1.5", rate),
            ("rate: -1/s", "rate", "-1/s", rate),
            ("rate: 50/s, burst: 0", "burst", "0", burst),
            ("rate: 50/s, burst: -3", "burst", "-3", burst),
            ("rate: 50/s, burst: 4294967296", "burst", "4294967296", burst),
            ("rate: 50/s, burst: many", "burst", "many", burst),
        ] {
            assert_eq!(
                refused(members),
                format!("the {name} of \"app\": \"{written}\" {not}")
            );
        }
        for members in ["burst: 5", "quota: 10/day, burst: 5"] {
            assert_eq!(
                refused(members),
                "\"app\" has a burst and no rate that it goes with; write such as rate: 50/s"
            );
        }
        for members in ["quota: [1/day]", "rate: true", "in_flight: 3"] {
            assert!(!refused(members).is_empty());
        }
    }

    #[test]
    fn a_label_is_short_where_clients_are_told_it() {
        let file = |label: &str, limit: &str| {
            own(&format!(
                "keys: [{{label: {label}, sha256: {}{limit}}}]",
                hash("a")
            ))
        };
        let long = "x".repeat(129);
        assert!(file(&long, "").is_ok());
        assert!(file(&long[1..], ", quota: 1/day").is_ok());
        assert_eq!(
            file(&long, ", quota: 1/day").unwrap_err().to_string(),
            format!(
                "the label \"{long}\" is longer than the 128 bytes that it may have with a quota or a rate"
            )
        );
    }
}
