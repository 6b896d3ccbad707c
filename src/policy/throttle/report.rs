//! What has been used of limits, as operators are told it.

use serde::Serialize;

use super::counter::Usage;
use super::key::shown;
use super::{Book, Counter, Verdict};

/// Owners of accounts that are told at once, those first who have used most.
const MOST: usize = 100;

/// All limits.
#[derive(Debug, Serialize)]
struct Overview {
    limits: Vec<About>,
    in_flight: Vec<Flight>,
}

#[derive(Debug, Serialize)]
struct About {
    limit: String,
    allowance: String,
    key: Vec<String>,
    keys: usize,
    allowed: u64,
    refused: u64,
}

#[derive(Debug, Serialize)]
struct Flight {
    of: String,
    in_flight: u32,
    refused: u64,
}

/// One limit.
#[derive(Debug, Serialize)]
struct Detail {
    #[serde(flatten)]
    about: About,
    usage: Vec<Account>,
}

#[derive(Debug, Serialize)]
struct Account {
    key: String,
    used: u64,
    left: u64,
    reset_seconds: u64,
}

impl Book {
    /// What has been used, in JSON: of all limits in short, or of one with those who have used most, or with the owner
    /// of one key. `None` for a limit that is not there.
    pub fn report(&self, limit: Option<&str>, key: Option<&str>) -> Option<String> {
        let Some(name) = limit else {
            return text(&Overview {
                limits: self.all().iter().map(|counter| about(counter)).collect(),
                in_flight: self
                    .rooms()
                    .iter()
                    .map(|room| Flight {
                        of: room.name().to_owned(),
                        in_flight: room.in_flight(),
                        refused: room.refused(),
                    })
                    .collect(),
            });
        };
        let counter = self
            .all()
            .into_iter()
            .find(|counter| counter.limit().name == name)?;
        let now = self.clock();
        let usage = match key {
            // Spelled as it is shown.
            Some(key) => counter
                .usage(key.replace(" + ", "\0").as_bytes(), now)
                .into_iter()
                .collect(),
            None => counter.usages(MOST, now).0,
        };
        text(&Detail {
            about: about(&counter),
            usage: usage.into_iter().map(Account::from).collect(),
        })
    }
}

impl From<Usage> for Account {
    fn from(usage: Usage) -> Self {
        Self {
            key: shown(&usage.key),
            used: usage.used,
            left: usage.left,
            reset_seconds: usage.reset.as_secs() + u64::from(usage.reset.subsec_nanos() > 0),
        }
    }
}

fn about(counter: &Counter) -> About {
    let limit = counter.limit();
    let verdicts = counter.verdicts();
    let count = |verdict: Verdict| verdicts.get(verdict as usize).copied().unwrap_or(0);
    About {
        limit: limit.name.clone(),
        allowance: limit.allowance.to_string(),
        key: limit.key.iter().map(super::Part::name).collect(),
        keys: counter.keys(),
        allowed: count(Verdict::Allowed),
        refused: count(Verdict::Refused),
    }
}

fn text(value: &impl Serialize) -> Option<String> {
    serde_json::to_string(value).ok()
}
