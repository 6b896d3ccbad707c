//! Redis or Valkey: what the nodes of a cluster share. Everything is asked by one task, a batch at a time, in one round
//! trip by a script that runs there.

use std::sync::{Arc, Weak};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, Script};
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::throttle::calendar::Window;
use super::throttle::cluster::{Ask, Cluster};
use super::throttle::lease::Grant;
use super::throttle::{Allowance, Limit};

/// Accounts that are asked about in one round trip.
const BATCH: usize = 128;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// How often a node says that it is there.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a node counts that has said nothing.
const GONE: Duration = Duration::from_secs(5);
/// The first pause between attempts to connect; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause: a store that comes back is found within a breath.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A node says that it is there, and hears how many are.
const PRESENT: &str = "
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - tonumber(ARGV[2]))
redis.call('PEXPIRE', KEYS[1], 60000)
return redis.call('ZCARD', KEYS[1])
";

/// Answers the questions of one cluster until nobody asks any more.
#[derive(Debug)]
pub struct Lender {
    cluster: Weak<Cluster>,
    questions: Receiver<Ask>,
    client: Option<Client>,
    prefix: String,
    node: String,
    lend: Script,
    present: Script,
    timeout: Duration,
}

impl Lender {
    /// The task of a cluster; nothing if it has one.
    pub fn new(cluster: &Arc<Cluster>) -> Option<Self> {
        let questions = cluster.questions()?;
        let setup = cluster.setup();
        let client = Client::open(setup.url.0.as_str()).inspect_err(
            |error| tracing::error!(%error, "redis.url can't be used; limits are as without it"),
        );
        let mut random = [0; 8];
        // Without a random number, two nodes may count as one.
        let _ = aws_lc_rs::rand::fill(&mut random);
        Some(Self {
            cluster: Arc::downgrade(cluster),
            questions,
            client: client.ok(),
            prefix: setup.prefix.clone(),
            node: format!("{}-{:016x}", std::process::id(), u64::from_be_bytes(random)),
            lend: Script::new(include_str!("throttle/lend.lua")),
            present: Script::new(PRESENT),
            timeout: setup.timeout,
        })
    }

    /// Runs until no plan needs the cluster.
    ///
    /// # Cancel safety
    /// Calls that wait are answered as without the store.
    pub async fn run(mut self) {
        let mut pause = FIRST_PAUSE;
        let mut was_lost = false;
        while self.cluster.strong_count() > 0 {
            match self.connect().await {
                Ok(connection) => {
                    if was_lost {
                        tracing::info!("redis is there again");
                    }
                    pause = FIRST_PAUSE;
                    let ended = self.serve(connection).await;
                    self.set_up(false);
                    let Err(error) = ended else { return };
                    tracing::warn!(%error, "redis is lost; limits go on without it");
                }
                Err(error) if !was_lost => {
                    tracing::warn!(%error, "redis can't be reached; limits go on without it")
                }
                Err(_) => {}
            }
            was_lost = true;
            self.refuse_for(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn set_up(&self, up: bool) {
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.set_up(up);
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let Some(client) = &self.client else {
            return Err(RedisError::from((
                redis::ErrorKind::InvalidClientConfig,
                "the URL can't be used",
            )));
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            // Calls wait for less; a store that is slower than this is none.
            .set_response_timeout(Some(self.timeout.max(Duration::from_millis(100)) * 2));
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Answers what is asked while the store can't be.
    async fn refuse_for(&mut self, pause: Duration) {
        let refuse = async {
            while let Some(ask) = self.questions.recv().await {
                ask.counter.unheard(&ask.key);
            }
        };
        // Nobody asks any more, or the pause is over.
        let _ = timeout(pause, refuse).await;
        if self.questions.is_closed() {
            sleep(pause).await;
        }
    }

    /// Answers questions until nobody asks, or the store is lost.
    async fn serve(&mut self, mut connection: MultiplexedConnection) -> Result<(), RedisError> {
        self.beat(&mut connection).await?;
        self.set_up(true);
        let mut beats = interval(HEARTBEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asks = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                taken = self.questions.recv_many(&mut asks, BATCH) => {
                    if taken == 0 {
                        return Ok(());
                    }
                    self.lend(&mut connection, &mut asks).await?;
                }
                _ = beats.tick() => self.beat(&mut connection).await?,
            }
        }
    }

    async fn beat(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut call = self.present.prepare_invoke();
        call.key(format!("{}:nodes", self.prefix))
            .arg(&self.node)
            .arg(u64::try_from(GONE.as_millis()).unwrap_or(u64::MAX));
        let nodes: u32 = call.invoke_async(connection).await?;
        if let Some(cluster) = self.cluster.upgrade() {
            cluster.saw(nodes);
        }
        Ok(())
    }

    /// One round trip for all of `asks`, which are answered one way or the other.
    async fn lend(
        &self,
        connection: &mut MultiplexedConnection,
        asks: &mut Vec<Ask>,
    ) -> Result<(), RedisError> {
        let nodes = self.cluster.upgrade().map_or(1, |cluster| cluster.nodes());
        let mut call = self.lend.prepare_invoke();
        call.arg(nodes);
        for ask in &*asks {
            let limit = ask.counter.limit();
            let (kind, first, second) = numbers(limit, ask.wanted.window);
            call.key(self.name(limit, &ask.key, ask.wanted.window))
                .arg(kind)
                .arg(first)
                .arg(second)
                .arg(ask.wanted.want)
                .arg(ask.wanted.need)
                .arg(ask.wanted.owed);
        }
        let answered: Result<Vec<i64>, RedisError> = call.invoke_async(connection).await;
        let answered = match answered {
            Ok(answered) => answered,
            Err(error) => {
                // Before the calls that wait are woken, so that they see it.
                self.set_up(false);
                for ask in asks.drain(..) {
                    ask.counter.unheard(&ask.key);
                }
                return Err(error);
            }
        };
        let mut grants = answered.chunks_exact(4);
        for ask in asks.drain(..) {
            match grants.next() {
                Some(&[granted, wait, left, reset]) => {
                    let grant = Grant {
                        granted: u64::try_from(granted).unwrap_or(0),
                        next: u64::try_from(wait).ok().map(Duration::from_micros),
                        left: u64::try_from(left).unwrap_or(0),
                        reset: Duration::from_micros(u64::try_from(reset).unwrap_or(0)),
                    };
                    ask.counter.granted(&ask.key, grant, &ask.wanted);
                }
                Some(_) | None => ask.counter.unheard(&ask.key),
            }
        }
        Ok(())
    }

    /// The key of an account.
    fn name(&self, limit: &Limit, key: &[u8], window: Window) -> Vec<u8> {
        let mut name = match limit.allowance {
            Allowance::Quota { calendar, .. } => {
                format!(
                    "{}:quota:{}:{calendar}:{}:",
                    self.prefix, limit.name, window.start
                )
            }
            Allowance::Rate(_) | Allowance::InFlight(_) => format!("{}:rate:{}:", self.prefix, limit.name),
        }
        .into_bytes();
        name.extend_from_slice(key);
        name
    }
}

/// A limit in the numbers of the script.
fn numbers(limit: &Limit, window: Window) -> (&'static str, String, u64) {
    match limit.allowance {
        Allowance::Rate(rate) => {
            let each = rate.period.as_secs_f64() * 1e6 / f64::from(rate.count.max(1));
            ("r", format!("{each:.17}"), rate.burst.into())
        }
        Allowance::Quota { count, .. } => ("q", count.to_string(), window.end),
        Allowance::InFlight(most) => ("q", most.to_string(), window.end),
    }
}
