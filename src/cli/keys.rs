//! `sabir keys`: API keys are made here, and their digests go into a file; the keys themselves are shown once.

use std::fmt::{self, Write as _};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::{Failure, answer, note, replace};
use crate::config::told;
use crate::describe::columns;
use crate::policy::api_keys::{self, ApiKeys, Burst, KeyFile, Word, WrittenKey};
use crate::policy::setup;
use crate::policy::throttle::written::{Often, PerWindow};
use crate::policy::time::{Moment, unix_now};

#[derive(Debug, Subcommand)]
pub(super) enum Arguments {
    /// Make a key, print it, and add its digest to a file, or print what is to be added.
    Make {
        /// Whose key it is: the principal of its calls.
        #[arg(long)]
        label: String,
        /// When it ends, such as 2027-01-31 or 2027-01-31T12:00:00Z. Default: never.
        #[arg(long, value_name = "MOMENT")]
        expires: Option<Moment>,
        /// What it is for; may be given several times.
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Which part its owner plays; may be given several times.
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// How many calls it may make in each hour, day or month of the calendar, in UTC, such as 10000/day. Default: what
        /// the limits of the configuration let it.
        #[arg(long, value_name = "QUOTA")]
        quota: Option<PerWindow>,
        /// How often it may call, such as 50/s, 1000/m or 5/10s. Default: as with --quota.
        #[arg(long, value_name = "RATE")]
        rate: Option<Often>,
        /// How many calls it may make at once, with --rate. Default: as many as the rate has in its time.
        #[arg(long, value_name = "COUNT", requires = "rate")]
        burst: Option<Burst>,
        /// The file to add it to; it is made if it is not there.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Print the digest of a key that is read from standard input.
    Hash,
    /// List the keys of a file: whose they are, until when they hold, what they are for, how often they may call.
    List {
        /// The file.
        file: PathBuf,
    },
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Make {
                label,
                expires,
                scopes,
                roles,
                quota,
                rate,
                burst,
                file,
            } => {
                let limits = [
                    ("quota", quota.map(|quota| quota.to_string())),
                    ("rate", rate.map(|rate| rate.to_string())),
                    ("burst", burst.map(|burst| burst.0.to_string())),
                ];
                make(&label, expires, (&scopes, &roles), limits, file.as_deref())
            }
            Self::Hash => hash(),
            Self::List { file } => list(&file),
        }
    }
}

fn make(
    label: &str,
    expires: Option<Moment>,
    (scopes, roles): (&[String], &[String]),
    limits: [(&str, Option<String>); 3],
    file: Option<&Path>,
) -> Result<(), Failure> {
    let made =
        api_keys::make().ok_or_else(|| Failure::Failed("the system has no random numbers".to_owned()))?;
    // Strings and lists in JSON are YAML too.
    let mut entry = format!("  - label: {}\n    sha256: {}\n", json!(label), made.sha256);
    let mut line = |name: &str, text: String| {
        // Writing to a string never fails.
        let _ = writeln!(entry, "    {name}: {text}");
    };
    if let Some(moment) = expires {
        line("expires", moment.to_string());
    }
    if !scopes.is_empty() {
        line("scopes", json!(scopes).to_string());
    }
    if !roles.is_empty() {
        line("roles", json!(roles).to_string());
    }
    for (name, text) in limits {
        if let Some(text) = text {
            line(name, text);
        }
    }
    let whole = format!("keys:\n{entry}");
    KeyFile::parse(&whole)
        .and_then(ApiKeys::new)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    match file {
        Some(file) => {
            add(file, &entry)?;
            note(format_args!(
                "its digest is in {}; the key is shown this once",
                file.display()
            ))?;
        }
        None => note(format_args!(
            "add this to a file of keys; the key is shown this once\n\n{whole}"
        ))?,
    }
    answer(format_args!("{}\n", made.key))
}

/// Adds an entry at the end of a file, which is checked as a whole before it is written.
fn add(file: &Path, entry: &str) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", file.display()));
    let mut text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => "keys:\n".to_owned(),
        Err(error) => return Err(failed(error)),
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(entry);
    KeyFile::parse(&text).and_then(ApiKeys::new).map_err(|error| {
        Failure::Failed(format!("{} would not be valid with it: {error}", file.display()))
    })?;
    replace(file, &text)
}

fn hash() -> Result<(), Failure> {
    let mut key = String::new();
    io::stdin().lock().take(1 << 10).read_to_string(&mut key)?;
    let key = key.trim_end_matches(['\r', '\n']);
    if key.is_empty() {
        return Err(Failure::Failed("there is no key on standard input".to_owned()));
    }
    answer(format_args!("{}\n", api_keys::hash(key)))
}

fn list(file: &Path) -> Result<(), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::Failed(told(error));
    let written = setup::key_file(file).map_err(|error| failed(&error))?;
    let now = unix_now();
    let rows: Vec<[String; 6]> = written
        .keys
        .iter()
        .map(|key| {
            let state = match key.expires {
                None => "never ends".to_owned(),
                Some(moment) if moment.0 <= now => format!("expired {moment}"),
                Some(moment) => format!("until {moment}"),
            };
            let words = |what: &str, words: &[String]| match words {
                [] => String::new(),
                words => format!("{what}: {}", words.join(" ")),
            };
            let print = key.sha256.get(..8).unwrap_or_default().to_owned();
            [
                key.label.clone(),
                print,
                state,
                words("scopes", &key.scopes),
                words("roles", &key.roles),
                limits(key),
            ]
        })
        .collect();
    answer(Rows(rows))?;
    ApiKeys::new(written).map(drop).map_err(|error| failed(&error))
}

/// What a key may call by limits of its own, as it is written.
fn limits(key: &WrittenKey) -> String {
    let written = [("quota", &key.quota), ("rate", &key.rate), ("burst", &key.burst)];
    let written = written.iter().filter_map(|(name, word)| {
        let Word(text) = word.as_ref()?;
        Some(format!("{name}: {text}"))
    });
    written.collect::<Vec<_>>().join(", ")
}

struct Rows(Vec<[String; 6]>);

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        columns::write(f, "", &self.0)
    }
}
