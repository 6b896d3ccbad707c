//! What is revoked, as the nodes of a cluster share it through Redis.
//!
//! `PREFIX:revoked` is a sorted set of entries, in the order in which they came; `PREFIX:revoked:ends` has those that may be
//! forgotten, by when; `PREFIX:revoked:state` counts what came and what was taken out, so that a node that looks reads
//! what is new and no more. A Redis that has lost its data takes nothing back: what a node has heard counts on.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::keeper::LOOK;
use super::list::{Entry, List, MAX_ENTRIES};
use super::{RedisSetup, Revocations};
use crate::policy::time::unix_now;

/// How long connecting and an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Entries in one answer.
const PAGE: usize = 1000;

/// What has come since the last look: all of it, if something was taken out or the data are others.
const LOOK_AT: &str = "
local state = redis.call('HMGET', KEYS[1], 'epoch', 'removals', 'seq')
local epoch, removals, seq = state[1] or '', tonumber(state[2] or '0'), tonumber(state[3] or '0')
local from = tonumber(ARGV[3])
if epoch ~= ARGV[1] or removals ~= tonumber(ARGV[2]) or seq < from then from = 0 end
local found = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[4])
return {epoch, removals, from, found}
";

/// Adds an entry: 1 if it is new, 0 if it was there, -1 if there is no room. What is over is forgotten.
const ADD: &str = "
local now = redis.call('TIME')[1]
local over = redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 1000)
for _, entry in ipairs(over) do
  redis.call('ZREM', KEYS[2], entry)
  redis.call('ZREM', KEYS[3], entry)
end
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[3])
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[4]) then return -1 end
redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[1], 'seq', 1), ARGV[1])
if ARGV[2] ~= '' then redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1]) end
return 1
";

/// Takes an entry out: how many there were.
const REMOVE: &str = "
local removed = redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if removed > 0 then redis.call('HINCRBY', KEYS[1], 'removals', 1) end
return removed
";

/// The names of the keys.
fn keys(prefix: &str) -> [String; 3] {
    [
        format!("{prefix}:revoked:state"),
        format!("{prefix}:revoked"),
        format!("{prefix}:revoked:ends"),
    ]
}

async fn connect(setup: &RedisSetup) -> Result<MultiplexedConnection, RedisError> {
    let client = Client::open(setup.url.0.as_str())?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Which data a node has read, and how far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mark {
    epoch: String,
    removals: u64,
    /// The last entry.
    seq: u64,
}

/// What a node has heard.
#[derive(Debug, Default)]
struct Heard {
    mark: Mark,
    entries: Vec<Entry>,
    /// What data had that are lost.
    inherited: Vec<Entry>,
}

/// One answer: the epoch, what was taken out, from where it is told, and entries with their numbers.
type Page = (String, u64, u64, Vec<(String, u64)>);

/// What a look has found so far. Nothing of it counts before the look is over.
#[derive(Debug)]
struct Finding {
    mark: Mark,
    entries: Vec<Entry>,
    /// Whether this is all there is, and not what is new alone.
    whole: bool,
    /// Whether the data that were there are lost.
    lost: bool,
}

impl Finding {
    /// Takes an answer in; whether there is more to ask for.
    fn take(&mut self, (epoch, removals, from, found): Page) -> bool {
        let known = !self.mark.epoch.is_empty();
        if epoch != self.mark.epoch || from != self.mark.seq {
            // Where nobody has taken anything out, what is not there any more is lost.
            self.lost |= known && (epoch != self.mark.epoch || removals <= self.mark.removals);
            self.whole = true;
            self.entries.clear();
        }
        self.mark = Mark {
            epoch,
            removals,
            seq: from,
        };
        let more = found.len() >= PAGE;
        for (text, seq) in found {
            self.mark.seq = self.mark.seq.max(seq);
            match Entry::parse(&text) {
                Ok(entry) => self.entries.push(entry),
                Err(error) => tracing::error!(%error, "an entry of what is revoked in redis can't be read"),
            }
        }
        more && self.entries.len() <= MAX_ENTRIES
    }
}

impl Heard {
    fn begin(&self) -> Finding {
        Finding {
            mark: self.mark.clone(),
            entries: Vec::new(),
            whole: false,
            lost: false,
        }
    }

    /// Whether a look has found anything new.
    fn settle(&mut self, finding: Finding) -> bool {
        let changed = finding.whole || !finding.entries.is_empty();
        self.mark = finding.mark;
        if !finding.whole {
            self.entries.extend(finding.entries);
            return changed;
        }
        let before = std::mem::replace(&mut self.entries, finding.entries);
        if finding.lost && !before.is_empty() {
            tracing::warn!("redis has lost what was revoked; what was heard before counts on");
            self.inherited.extend(before);
        }
        changed
    }

    /// All that counts.
    fn list(&mut self, now: u64) -> List {
        self.entries.retain(|entry| !entry.is_over(now));
        self.inherited.retain(|entry| !entry.is_over(now));
        // The oldest go first, should data be lost again and again.
        let room = MAX_ENTRIES.saturating_sub(self.entries.len());
        let surplus = self.inherited.len().saturating_sub(room);
        self.inherited.drain(..surplus);
        List::new(self.inherited.iter().chain(&self.entries), now)
    }

    /// Asks what is new; whether anything is.
    async fn look(
        &mut self,
        connection: &mut MultiplexedConnection,
        script: &Script,
        [state, list, _]: &[String; 3],
    ) -> Result<bool, RedisError> {
        let mut finding = self.begin();
        loop {
            let page: Page = script
                .key(state)
                .key(list)
                .arg(&finding.mark.epoch)
                .arg(finding.mark.removals)
                .arg(finding.mark.seq)
                .arg(PAGE)
                .invoke_async(connection)
                .await?;
            if !finding.take(page) {
                break;
            }
        }
        if finding.entries.len() > MAX_ENTRIES {
            return Err(RedisError::from((
                redis::ErrorKind::Extension,
                "there are more revoked tokens and subjects in redis than a gateway keeps",
            )));
        }
        Ok(self.settle(finding))
    }
}

/// Looks at Redis again and again, and tells what has changed.
pub(super) async fn watch(setup: &RedisSetup, revocations: &Revocations) {
    let keys = keys(&setup.prefix);
    let script = Script::new(LOOK_AT);
    let mut heard = Heard::default();
    let mut lost = false;
    loop {
        let error = match connect(setup).await {
            Err(error) => error,
            Ok(mut connection) => {
                let mut looks = interval(LOOK);
                looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    looks.tick().await;
                    match heard.look(&mut connection, &script, &keys).await {
                        Err(error) => break error,
                        Ok(changed) => {
                            if std::mem::take(&mut lost) {
                                tracing::info!("redis tells again what is revoked");
                            }
                            revocations.told_by_redis(changed.then(|| heard.list(unix_now())));
                        }
                    }
                }
            }
        };
        if !std::mem::replace(&mut lost, true) {
            tracing::warn!(%error, "redis does not tell what is revoked");
        }
        sleep(LOOK).await;
    }
}

/// What became of an entry that was to be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there now.
    New,
    /// It was there.
    Known,
    /// There is no room for it.
    Full,
}

/// Revokes something at every node of the cluster.
///
/// # Errors
/// Redis can't be asked.
///
/// # Cancel safety
/// It may have been done.
pub async fn add(setup: &RedisSetup, entry: &Entry) -> Result<Added, RedisError> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random)
        .map_err(|_| RedisError::from((redis::ErrorKind::Client, "the system has no random numbers")))?;
    let [state, list, ends] = keys(&setup.prefix);
    let answer: i64 = Script::new(ADD)
        .key(state)
        .key(list)
        .key(ends)
        .arg(entry.to_string())
        .arg(entry.until.map_or_else(String::new, |until| until.0.to_string()))
        .arg(format!("{:032x}", u128::from_be_bytes(random)))
        .arg(MAX_ENTRIES)
        .invoke_async(&mut connect(setup).await?)
        .await?;
    Ok(match answer {
        1 => Added::New,
        0 => Added::Known,
        _ => Added::Full,
    })
}

/// Takes an entry out; whether it was there.
///
/// # Errors
/// Redis can't be asked.
///
/// # Cancel safety
/// It may have been done.
pub async fn remove(setup: &RedisSetup, entry: &Entry) -> Result<bool, RedisError> {
    let [state, list, ends] = keys(&setup.prefix);
    let removed: i64 = Script::new(REMOVE)
        .key(state)
        .key(list)
        .key(ends)
        .arg(entry.to_string())
        .invoke_async(&mut connect(setup).await?)
        .await?;
    Ok(removed > 0)
}

/// All entries, as a node would hear them.
///
/// # Errors
/// Redis can't be asked.
///
/// # Cancel safety
/// Nothing is lost.
pub async fn all(setup: &RedisSetup) -> Result<Vec<Entry>, RedisError> {
    let mut heard = Heard::default();
    let mut connection = connect(setup).await?;
    heard
        .look(&mut connection, &Script::new(LOOK_AT), &keys(&setup.prefix))
        .await?;
    Ok(heard.entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(epoch: &str, removals: u64, from: u64, ids: std::ops::Range<u64>) -> Page {
        let entry = |id| (format!("{{\"jti\": \"{id}\"}}"), id);
        (epoch.to_owned(), removals, from, ids.map(entry).collect())
    }

    fn told(heard: &mut Heard, pages: Vec<Page>) -> (bool, usize) {
        let mut finding = heard.begin();
        let last = pages.len() - 1;
        for (at, page) in pages.into_iter().enumerate() {
            assert_eq!(finding.take(page), at < last, "page {at}");
        }
        let changed = heard.settle(finding);
        (changed, heard.list(0).len())
    }

    #[test]
    fn what_is_new_is_added_and_what_is_taken_out_is_gone() {
        let mut heard = Heard::default();
        assert_eq!(told(&mut heard, vec![page("", 0, 0, 1..1)]), (false, 0));
        let size = u64::try_from(PAGE).unwrap();
        let pages = vec![
            page("a", 0, 0, 1..size + 1),
            page("a", 0, size, size + 1..size + 3),
        ];
        assert_eq!(told(&mut heard, pages), (true, PAGE + 2));
        assert_eq!(
            told(&mut heard, vec![page("a", 0, size + 2, 1..1)]),
            (false, PAGE + 2)
        );
        let new = page("a", 0, size + 2, size + 3..size + 4);
        assert_eq!(told(&mut heard, vec![new]), (true, PAGE + 3));
        assert_eq!(told(&mut heard, vec![page("a", 1, 0, 5..7)]), (true, 2));
        assert_eq!(heard.mark.seq, 6);
    }

    #[test]
    fn a_redis_that_lost_its_data_takes_nothing_back() {
        let mut heard = Heard::default();
        told(&mut heard, vec![page("a", 2, 0, 1..4)]);
        assert_eq!(told(&mut heard, vec![page("", 0, 0, 1..1)]), (true, 3), "empty");
        assert_eq!(
            told(&mut heard, vec![page("b", 0, 0, 7..8)]),
            (true, 4),
            "another"
        );
        assert_eq!(
            told(&mut heard, vec![page("b", 1, 0, 1..1)]),
            (true, 3),
            "taken out of it"
        );
        told(&mut heard, vec![page("b", 1, 0, 8..10)]);
        assert_eq!(
            told(&mut heard, vec![page("b", 1, 0, 8..9)]),
            (true, 6),
            "an older copy"
        );
        assert_eq!(heard.entries.len(), 1);
    }

    #[test]
    fn what_is_inherited_is_bounded() {
        let mut heard = Heard {
            inherited: vec![Entry::parse("{\"jti\": \"old\"}").unwrap(); MAX_ENTRIES],
            ..Heard::default()
        };
        told(&mut heard, vec![page("a", 0, 0, 1..3)]);
        assert_eq!(heard.list(0).len(), MAX_ENTRIES);
    }
}
