//! `sabir revoke`: tokens and subjects are put on the list that gateways go by, taken off it, and listed.

use std::io;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use serde_json::Value;

use super::token::read_token;
use super::{Failure, answer, note, replace};
use crate::config::{self, Source};
use crate::policy::jwt::LEEWAY_SECONDS;
use crate::policy::revocation::RevocationSetup;
use crate::policy::revocation::list::{self, Entry, Target};
use crate::policy::time::{Moment, unix_now};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").required(true).args(["jti", "sub", "token", "list"])))]
pub(super) struct Arguments {
    /// The configuration, which says where the list is.
    file: PathBuf,
    /// Revoke the token with this `jti`.
    #[arg(long, value_name = "ID")]
    jti: Option<String>,
    /// Revoke the tokens of this subject that were issued before now, or before `--before`.
    #[arg(long, value_name = "NAME")]
    sub: Option<String>,
    /// Revoke this token, by its `jti` and until it expires; `-` reads it from standard input, where no list of processes
    /// shows it.
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// List what is revoked.
    #[arg(long)]
    list: bool,
    /// Of a subject: tokens that were issued before this moment, such as 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "MOMENT", requires = "sub")]
    before: Option<Moment>,
    /// Of a subject: all tokens, those that are issued later too.
    #[arg(long, requires = "sub", conflicts_with = "before")]
    all: bool,
    /// Whose tokens these are; absent, those of any issuer.
    #[arg(long, value_name = "ISSUER")]
    issuer: Option<String>,
    /// When the entry may be forgotten, because the tokens have expired. Default: never, or for `--token` when it expires.
    #[arg(long, value_name = "MOMENT")]
    until: Option<Moment>,
    /// Take off the list what is named, instead of putting it there.
    #[arg(long, conflicts_with_all = ["list", "before", "all", "until"])]
    undo: bool,
    /// Which block of `auth`, where several have lists.
    #[arg(long, value_name = "NAME")]
    auth: Option<String>,
}

/// Where a list is.
enum Place {
    File(PathBuf),
    #[cfg(feature = "redis")]
    Redis(crate::policy::revocation::RedisSetup),
}

impl Arguments {
    pub(super) fn run(self) -> Result<(), Failure> {
        let place = self.place()?;
        if self.list {
            let entries = place.entries()?;
            let lines: String = entries.iter().map(|entry| format!("{entry}\n")).collect();
            return answer(lines);
        }
        let entry = self.entry()?;
        if self.undo {
            return place.remove(&entry);
        }
        place.add(&entry)
    }

    /// Redis, where it is asked; else the file.
    fn place(&self) -> Result<Place, Failure> {
        let file = config::load(&Source::file(&self.file)).map_err(Failure::Config)?;
        let plan = config::check(&file).map_err(Failure::Config)?;
        let mut found: Vec<(&str, &RevocationSetup)> = plan
            .auth
            .iter()
            .filter(|setup| self.auth.as_ref().is_none_or(|name| setup.name == *name))
            .filter_map(|setup| Some((setup.name.as_str(), setup.revocation.as_ref()?)))
            .collect();
        found.dedup_by(|(_, one), (_, other)| one == other);
        match found.as_slice() {
            [] => {
                let whose = self.auth.as_ref().map_or_else(
                    || "no block of auth".to_owned(),
                    |name| format!("auth \"{name}\" is not there, or"),
                );
                Err(Failure::Failed(format!("{whose} has a \"revocation\"")))
            }
            [(_, setup)] => Place::of(setup),
            several => {
                let names: Vec<_> = several.iter().map(|(name, _)| *name).collect();
                Err(Failure::Failed(format!(
                    "several blocks of auth have lists; say which by --auth: {}",
                    names.join(", ")
                )))
            }
        }
    }

    fn entry(&self) -> Result<Entry, Failure> {
        let entry = match (&self.jti, &self.sub, &self.token) {
            (Some(id), _, _) => Entry {
                target: Target::Token(id.clone()),
                issuer: self.issuer.clone(),
                until: self.until,
            },
            (_, Some(name), _) => {
                // The second in which we are counts: tokens do not say in which part of it they were issued.
                let before = self.before.unwrap_or_else(|| Moment(unix_now() + 1));
                Entry {
                    target: Target::Subject(name.clone(), (!self.all).then_some(before)),
                    issuer: self.issuer.clone(),
                    until: self.until,
                }
            }
            (_, _, Some(token)) => self.of_token(&read_token(token)?)?,
            (None, None, None) => return Err(Failure::Failed("there is nothing to revoke".to_owned())),
        };
        // What can't be read back would be refused by every gateway.
        Entry::parse(&entry.to_string())
            .map_err(|error| Failure::Failed(format!("what is to be revoked {error}")))
    }

    fn of_token(&self, token: &str) -> Result<Entry, Failure> {
        let claims = token
            .split('.')
            .nth(1)
            .and_then(|part| base64_simd::URL_SAFE_NO_PAD.decode_to_vec(part).ok())
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .ok_or_else(|| Failure::Failed("that is no JSON Web Token".to_owned()))?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let id = text("jti").ok_or_else(|| {
            let who = text("sub").map_or_else(|| "its subject".to_owned(), |name| format!("--sub {name:?}"));
            Failure::Failed(format!("the token has no \"jti\" that is a text; revoke {who}"))
        })?;
        let end = claims.get("exp").and_then(Value::as_u64);
        Ok(Entry {
            target: Target::Token(id),
            issuer: self.issuer.clone().or_else(|| text("iss")),
            until: self
                .until
                .or_else(|| end.map(|end| Moment(end.saturating_add(LEEWAY_SECONDS + 1)))),
        })
    }
}

impl Place {
    #[cfg(feature = "redis")]
    fn of(setup: &RevocationSetup) -> Result<Self, Failure> {
        match (&setup.redis, &setup.file) {
            (Some(redis), _) => Ok(Self::Redis(redis.clone())),
            (None, Some(path)) => Ok(Self::File(path.clone())),
            (None, None) => Err(Failure::Failed("the list is nowhere".to_owned())),
        }
    }

    #[cfg(not(feature = "redis"))]
    fn of(setup: &RevocationSetup) -> Result<Self, Failure> {
        let path = setup.file.clone();
        path.map(Self::File)
            .ok_or_else(|| Failure::Failed("this program was built without the feature \"redis\"".to_owned()))
    }

    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        match self {
            Self::File(path) => list::parse(&text(path)?)
                .map_err(|error| Failure::Failed(format!("{}: {error}", path.display()))),
            #[cfg(feature = "redis")]
            Self::Redis(setup) => asked(crate::policy::revocation::cluster::all(setup)),
        }
    }

    fn add(&self, entry: &Entry) -> Result<(), Failure> {
        match self {
            Self::File(path) => {
                let mut text = text(path)?;
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push_str(&format!("{entry}\n"));
                list::parse(&text).map_err(|error| {
                    Failure::Failed(format!("{} would not be valid with it: {error}", path.display()))
                })?;
                replace(path, &text)?;
                note(format_args!(
                    "{entry} is in {}; gateways that read it go by it within 2 s",
                    path.display()
                ))
            }
            #[cfg(feature = "redis")]
            Self::Redis(setup) => {
                use crate::policy::revocation::cluster::{self, Added};
                match asked(cluster::add(setup, entry))? {
                    Added::New => note(format_args!(
                        "{entry} is in redis; gateways that share it go by it within 2 s"
                    )),
                    Added::Known => note(format_args!("{entry} was in redis")),
                    Added::Full => Err(Failure::Failed(format!(
                        "redis has {} entries, and gateways keep no more; take out some by --undo",
                        list::MAX_ENTRIES
                    ))),
                }
            }
        }
    }

    /// Takes out every entry about the same token or subject, and of the same issuer if one is named.
    fn remove(&self, named: &Entry) -> Result<(), Failure> {
        let is_meant = |entry: &Entry| {
            let same = match (&entry.target, &named.target) {
                (Target::Token(one), Target::Token(other)) => one == other,
                (Target::Subject(one, _), Target::Subject(other, _)) => one == other,
                (Target::Token(_), Target::Subject(..)) | (Target::Subject(..), Target::Token(_)) => false,
            };
            same && (named.issuer.is_none() || entry.issuer == named.issuer)
        };
        let meant: Vec<Entry> = self.entries()?.into_iter().filter(is_meant).collect();
        if meant.is_empty() {
            return Err(Failure::Failed("it is not on the list".to_owned()));
        }
        match self {
            Self::File(path) => {
                let text = text(path)?;
                let kept = text
                    .lines()
                    .filter(|line| !Entry::parse(line.trim()).is_ok_and(|entry| is_meant(&entry)));
                let kept: String = kept.map(|line| format!("{line}\n")).collect();
                replace(path, &kept)?;
            }
            #[cfg(feature = "redis")]
            Self::Redis(setup) => {
                for entry in &meant {
                    asked(crate::policy::revocation::cluster::remove(setup, entry))?;
                }
            }
        }
        for entry in meant {
            note(format_args!("{entry} is off the list"))?;
        }
        Ok(())
    }
}

/// What is in a file; nothing, where it is not there yet.
fn text(path: &Path) -> Result<String, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(Failure::Failed(format!("{}: {error}", path.display()))),
    }
}

#[cfg(feature = "redis")]
fn asked<T>(question: impl Future<Output = Result<T, redis::RedisError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(question)
        .map_err(|error| Failure::Failed(format!("redis does not answer: {}", config::told(&error))))
}
