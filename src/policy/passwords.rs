//! Names and passwords: a file of slow hashes as `htpasswd` writes it, checked away from the threads that serve.
//!
//! A hash is slow on purpose, so that the number of those that run at once is bounded, and the number of callers who wait
//! for one too. A name that nobody has costs as much as one that somebody has.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::{AHashMap, AHashSet};
use argon2::{Argon2, Params, PasswordHash, PasswordVerifier as _};
use aws_lc_rs::hmac;
use thiserror::Error;
use tokio::sync::Semaphore;

use super::cache::Fingerprint;
use super::identity::{Claims, Identity, Source};

/// Callers who wait for their password to be checked. Not measured: with a hash of 50 ms, 13 s of two cores.
const MAX_WAITING: usize = 512;
/// The longest name and password together that are looked at, in bytes.
pub(super) const MAX_PASSWORD_BYTES: usize = 1024;
/// The highest cost of bcrypt: 2^15 rounds are seconds.
const MAX_BCRYPT_COST: u32 = 15;
/// The most memory of one argon2 hash, in KiB.
const MAX_ARGON2_KIB: u32 = 1 << 20;
/// The most passes of argon2 over that memory.
const MAX_ARGON2_PASSES: u32 = 32;

/// Why a file of passwords can't be used. No hash is shown.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}: {what}")]
pub struct PasswordFileError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: PasswordLineError,
}

/// What is wrong with a line of a file of passwords.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PasswordLineError {
    /// It has no colon, or nothing before it.
    #[error("is not NAME:HASH")]
    Form,
    /// The hash is none of those that are taken.
    #[error("has no hash of bcrypt ($2y$) or argon2 ($argon2id$); `htpasswd -B` makes one")]
    Hash,
    /// Checking it would take too long.
    #[error(
        "has a hash that costs too much: bcrypt up to {MAX_BCRYPT_COST}, argon2 up to {MAX_ARGON2_KIB} KiB and {MAX_ARGON2_PASSES} passes"
    )]
    Cost,
    /// The name is there twice.
    #[error("has a name that an earlier line has")]
    Twice,
}

/// A slow hash of a password.
#[derive(Clone)]
enum Slow {
    Bcrypt(Arc<str>),
    Argon2(Arc<PasswordHash>),
}

/// The callers of a file, and their hashes.
pub struct Passwords {
    users: AHashMap<String, (Slow, Arc<Identity>)>,
    /// What an unknown name is checked against: the costliest hash of the file.
    decoy: Slow,
    /// Makes digests of credentials that say nothing to anybody who has no key.
    key: hmac::Key,
    /// Hashes that may run at once.
    seats: Arc<Semaphore>,
    /// Callers who have a seat or wait for one.
    waiting: AtomicUsize,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords")
            .field("users", &self.users.len())
            .finish_non_exhaustive()
    }
}

/// What became of a password.
#[derive(Clone, Debug)]
pub(super) enum Checked {
    /// It is this caller's.
    Known(Arc<Identity>),
    /// It is nobody's.
    Wrong,
    /// Too many are being checked.
    Busy,
}

impl Passwords {
    /// Reads a file: a line for each caller, `NAME:HASH`; empty lines and those that begin with `#` are skipped.
    ///
    /// # Errors
    /// The first line that is wrong. A file without a caller is one too, at line 1.
    pub fn parse(text: &str) -> Result<Self, PasswordFileError> {
        let mut users = AHashMap::new();
        let mut names = AHashSet::new();
        let mut costliest: Option<(u64, Slow)> = None;
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what| PasswordFileError { line: at + 1, what };
            let (name, hash) = line
                .split_once(':')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| wrong(PasswordLineError::Form))?;
            let (slow, cost) = Slow::parse(hash.trim()).map_err(wrong)?;
            if !names.insert(name) {
                return Err(wrong(PasswordLineError::Twice));
            }
            if costliest.as_ref().is_none_or(|(known, _)| *known < cost) {
                costliest = Some((cost, slow.clone()));
            }
            users.insert(name.to_owned(), (slow, Arc::new(caller(name))));
        }
        let Some((_, decoy)) = costliest else {
            return Err(PasswordFileError {
                line: 1,
                what: PasswordLineError::Form,
            });
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut key = [0; 32];
        // Without random numbers digests are still digests, of a cache that never leaves the process.
        let _ = aws_lc_rs::rand::fill(&mut key);
        Ok(Self {
            users,
            decoy,
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            seats: Arc::new(Semaphore::new((cores / 2).max(1))),
            waiting: AtomicUsize::new(0),
        })
    }

    /// What a credential is remembered by.
    pub(super) fn fingerprint(&self, credential: &[u8]) -> Fingerprint {
        let mut print = [0; 32];
        print.copy_from_slice(hmac::sign(&self.key, credential).as_ref());
        print
    }

    /// Checks a password, on a thread for what blocks.
    ///
    /// # Cancel safety
    /// A check that has begun goes on to its end and holds its seat until then.
    pub(super) async fn check(&self, name: &str, password: &str) -> Checked {
        let Some(_waiting) = Waiting::begin(&self.waiting) else {
            return Checked::Busy;
        };
        // It is closed by nobody.
        let Ok(seat) = Arc::clone(&self.seats).acquire_owned().await else {
            return Checked::Busy;
        };
        let known = self
            .users
            .get(name)
            .map(|(slow, who)| (slow.clone(), Arc::clone(who)));
        let (slow, who) = match known {
            Some((slow, who)) => (slow, Some(who)),
            None => (self.decoy.clone(), None),
        };
        let password = password.to_owned();
        let holds = tokio::task::spawn_blocking(move || {
            let holds = slow.is_of(password.as_bytes());
            drop(seat);
            holds
        });
        match (holds.await, who) {
            (Ok(true), Some(who)) => Checked::Known(who),
            (Ok(_), _) => Checked::Wrong,
            (Err(_), _) => Checked::Busy,
        }
    }
}

fn caller(name: &str) -> Identity {
    let claims = Claims {
        principal: name.to_owned(),
        issuer: None,
        source: Source::Password,
        scopes: Vec::new(),
        roles: Vec::new(),
        others: serde_json::Map::new(),
        expires: None,
    };
    Identity::new(claims, &[])
}

impl Slow {
    /// A hash, and about what it costs: in blocks of memory that are read.
    fn parse(text: &str) -> Result<(Self, u64), PasswordLineError> {
        if text.starts_with("$argon2") {
            let hash = PasswordHash::new(text).map_err(|_| PasswordLineError::Hash)?;
            let params = Params::try_from(&hash).map_err(|_| PasswordLineError::Hash)?;
            if hash.hash.is_none() || hash.salt.is_none() {
                return Err(PasswordLineError::Hash);
            }
            if params.m_cost() > MAX_ARGON2_KIB || params.t_cost() > MAX_ARGON2_PASSES {
                return Err(PasswordLineError::Cost);
            }
            let cost = u64::from(params.m_cost()) * u64::from(params.t_cost());
            return Ok((Self::Argon2(Arc::new(hash)), cost));
        }
        let version = text.get(..4).unwrap_or_default();
        if !matches!(version, "$2a$" | "$2b$" | "$2x$" | "$2y$") {
            return Err(PasswordLineError::Hash);
        }
        let parts = bcrypt::HashParts::from_str(text).map_err(|_| PasswordLineError::Hash)?;
        if parts.get_cost() > MAX_BCRYPT_COST {
            return Err(PasswordLineError::Cost);
        }
        // A round of bcrypt goes over 4 KiB, about five hundred times for each of its cost.
        Ok((Self::Bcrypt(text.into()), 4 << parts.get_cost()))
    }

    fn is_of(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
        }
    }
}

/// One of those who wait.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn begin(count: &'c AtomicUsize) -> Option<Self> {
        let waiting = Self(count);
        (count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `open sesame`, by bcrypt of cost 4.
    fn bcrypt_line(name: &str, password: &str) -> String {
        format!("{name}:{}", bcrypt::hash(password, 4).unwrap())
    }

    fn argon2_line(name: &str, password: &str) -> String {
        use argon2::PasswordHasher as _;
        let params = Params::new(64, 1, 1, None).unwrap();
        let hash = Argon2::from(params)
            .hash_password_with_salt(password.as_bytes(), b"salt-of-16-bytes")
            .unwrap();
        format!("{name}:{hash}")
    }

    async fn who(passwords: &Passwords, name: &str, password: &str) -> Option<String> {
        match passwords.check(name, password).await {
            Checked::Known(who) => Some(who.principal().to_owned()),
            Checked::Wrong => None,
            Checked::Busy => panic!("nobody else is here"),
        }
    }

    #[tokio::test]
    async fn a_password_is_its_owner_s_alone() {
        let file = format!(
            "# callers\n\n{}\n{}\n",
            bcrypt_line("ada", "open sesame"),
            argon2_line("bob", "cave: 40")
        );
        let passwords = Passwords::parse(&file).unwrap();
        assert_eq!(
            who(&passwords, "ada", "open sesame").await.as_deref(),
            Some("ada")
        );
        assert_eq!(who(&passwords, "bob", "cave: 40").await.as_deref(), Some("bob"));
        for (name, password) in [
            ("ada", "cave: 40"),
            ("bob", "open sesame"),
            ("ada", ""),
            ("ada", "Open sesame"),
            ("Ada", "open sesame"),
            ("", ""),
            ("eve", "open sesame"),
            ("eve", "cave: 40"),
        ] {
            assert_eq!(who(&passwords, name, password).await, None, "{name}:{password}");
        }
        assert!(!format!("{passwords:?}").contains("ada"));
    }

    #[tokio::test]
    async fn those_who_wait_are_counted_and_no_more_than_the_limit() {
        let passwords = Passwords::parse(&bcrypt_line("ada", "x")).unwrap();
        let seats = passwords.seats.available_permits();
        let taken = Arc::clone(&passwords.seats)
            .acquire_many_owned(u32::try_from(seats).unwrap())
            .await
            .unwrap();
        {
            let mut waiting: Vec<_> = (0..MAX_WAITING)
                .map(|_| Box::pin(passwords.check("ada", "x")))
                .collect();
            for one in &mut waiting {
                assert!(futures_util::poll!(one).is_pending());
            }
            assert!(matches!(passwords.check("ada", "x").await, Checked::Busy));
        }
        drop(taken);
        assert_eq!(
            who(&passwords, "ada", "x").await.as_deref(),
            Some("ada"),
            "they left"
        );
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        let good = bcrypt_line("ada", "x");
        let dear = good.replace("$04$", "$16$");
        let thirsty = argon2_line("ada", "x").replace("m=64", "m=2000000");
        for (text, line, what) in [
            (String::new(), 1, PasswordLineError::Form),
            ("# nobody\n".to_owned(), 1, PasswordLineError::Form),
            (format!("{good}\nada"), 2, PasswordLineError::Form),
            (format!("{good}\n:x"), 2, PasswordLineError::Form),
            (format!("\n{good}\n{good}"), 3, PasswordLineError::Twice),
            ("ada:plain".to_owned(), 1, PasswordLineError::Hash),
            ("ada:$apr1$ab$cd".to_owned(), 1, PasswordLineError::Hash),
            ("ada:{SHA}x".to_owned(), 1, PasswordLineError::Hash),
            ("ada:$2y$04$short".to_owned(), 1, PasswordLineError::Hash),
            ("ada:$argon2id$v=19$m=64".to_owned(), 1, PasswordLineError::Hash),
            (dear, 1, PasswordLineError::Cost),
            (thirsty, 1, PasswordLineError::Cost),
        ] {
            let error = Passwords::parse(&text).map(drop).unwrap_err();
            assert_eq!(error, PasswordFileError { line, what }, "{text}");
        }
    }
}
