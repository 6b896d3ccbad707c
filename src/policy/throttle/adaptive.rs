//! How many requests a backend takes at once, found out by how long its answers take.
//!
//! The bound follows a gradient: the time that an answer takes when next to nothing is in flight, over the time that it takes
//! now. What is counted are requests that were sent and not answered yet, so that neither streams nor slow clients take
//! room. Source: the adaptive concurrency of Envoy, whose constants these are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Clock;
use crate::fault::{Fault, Kind, Side};

/// Requests in flight while it is measured how long an answer takes at best, and the lowest bound.
const LEAST: u32 = 3;
/// Answers by which that is measured.
const MEASURED: usize = 50;
/// Answers that do where they are slow, after [`MEASURING`].
const MEASURED_SLOWLY: usize = 5;
/// How long to wait for more of them.
const MEASURING: Duration = Duration::from_secs(1);
/// How often the bound moves.
const WINDOW: Duration = Duration::from_millis(100);
/// Answers in a window below which it says nothing.
const FEW: usize = 5;
/// Answers of one window that are looked at: beyond, the last ones count.
const MOST: usize = 1024;
/// Windows in a row with next to nothing in flight that do for a measurement.
const IDLE: u32 = 5;
/// How much the bound may shrink and grow in one window.
const STEEPEST: (f64, f64) = (0.5, 2.0);
/// How long a request waits for its turn while it is measured.
const PATIENCE: Duration = Duration::from_millis(250);

/// The terms of a bound, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdaptiveSetup {
    /// The highest bound.
    pub most: u32,
    /// How much longer than at best answers may take before the bound shrinks, in percent.
    pub buffer_percent: u8,
    /// How often it is measured how long an answer takes at best.
    pub measure: Duration,
}

/// What the bound goes by. No clock, no lock: instants are nanoseconds of one clock.
#[derive(Debug)]
struct Gradient {
    setup: AdaptiveSetup,
    /// How long an answer takes at best, in microseconds; 0 before it was measured.
    best: u64,
    /// The bound before it was measured again, while it is.
    measuring: Option<u32>,
    /// When the window or the measurement began.
    began: u64,
    /// When to measure again.
    next: u64,
    bound: u32,
    /// The most that were in flight in this window.
    peak: u32,
    samples: Vec<u64>,
    /// Samples of this window so far.
    seen: usize,
    /// Windows in a row in which next to nothing was in flight.
    idle: u32,
}

impl Gradient {
    fn new(setup: AdaptiveSetup, now: u64) -> Self {
        Self {
            setup,
            best: 0,
            measuring: Some(LEAST),
            began: now,
            next: 0,
            bound: LEAST.min(setup.most),
            peak: 0,
            samples: Vec::new(),
            seen: 0,
            idle: 0,
        }
    }

    /// An answer came for a request that was sent at `sent`, when so many were in flight. True if the bound has moved.
    fn answered(&mut self, sent: u64, now: u64, in_flight: u32) -> bool {
        // What was sent before says something of another bound.
        if sent < self.began && self.measuring.is_some() {
            return false;
        }
        let micros = (now.saturating_sub(sent) / 1000).max(1);
        if self.samples.len() < MOST {
            self.samples.push(micros);
        } else if let Some(sample) = self.samples.get_mut(self.seen % MOST) {
            *sample = micros;
        }
        self.seen += 1;
        self.peak = self.peak.max(in_flight);
        match self.measuring {
            Some(before) => self.measure(before, now),
            None => self.adapt(now),
        }
    }

    fn measure(&mut self, before: u32, now: u64) -> bool {
        let late = now.saturating_sub(self.began) >= nanos(MEASURING);
        if self.seen < MEASURED && !(late && self.seen >= MEASURED_SLOWLY) {
            return false;
        }
        self.best = self.median();
        self.measuring = None;
        self.bound = before.min(self.setup.most);
        self.put_off(now);
        self.open(now);
        true
    }

    fn adapt(&mut self, now: u64) -> bool {
        if now.saturating_sub(self.began) < nanos(WINDOW) || self.seen < FEW {
            return false;
        }
        let typical = self.median();
        if self.peak <= LEAST {
            // Next to nothing is in flight, so this is how long it takes at best, and nobody has to be kept waiting for that.
            self.idle += 1;
            if self.idle >= IDLE || typical < self.best {
                self.best = typical;
                self.put_off(now);
            }
        } else if now < self.next {
            self.idle = 0;
        } else {
            self.measuring = Some(self.bound);
            self.bound = LEAST.min(self.setup.most);
            self.open(now);
            return true;
        }
        let allowed = number(self.best) * (1.0 + f64::from(self.setup.buffer_percent) / 100.0);
        let gradient = (allowed / number(typical)).clamp(STEEPEST.0, STEEPEST.1);
        let bound = f64::from(self.bound) * gradient;
        let bound = whole(bound + bound.sqrt()).clamp(LEAST.min(self.setup.most), self.setup.most);
        // A bound that nobody comes near to is not known to be too low.
        let is_used = self.peak >= self.bound / 2;
        let moved = bound < self.bound || (bound > self.bound && is_used);
        if moved {
            self.bound = bound;
        }
        self.open(now);
        moved
    }

    /// Begins a window.
    fn open(&mut self, now: u64) {
        self.began = now;
        self.samples.clear();
        self.seen = 0;
        self.peak = 0;
    }

    /// Measures again after a while: not at the same moment at every backend and every node.
    fn put_off(&mut self, now: u64) {
        let every = nanos(self.setup.measure);
        self.next = now.saturating_add(every + now % (every / 8).max(1));
        self.idle = 0;
    }

    fn median(&mut self) -> u64 {
        let middle = self.samples.len() / 2;
        if middle >= self.samples.len() {
            return 1;
        }
        *self.samples.select_nth_unstable(middle).1
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Microseconds as a number with a fraction; exact for 285 years.
#[expect(clippy::cast_precision_loss, reason = "as said")]
fn number(micros: u64) -> f64 {
    micros as f64
}

/// A bound as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "it is clamped, and positive"
)]
fn whole(bound: f64) -> u32 {
    bound.clamp(0.0, f64::from(u32::MAX)) as u32
}

/// The bound of one backend, for all workers.
#[derive(Debug)]
pub struct Adaptive {
    name: String,
    clock: Clock,
    setup: AdaptiveSetup,
    gradient: Mutex<Gradient>,
    bound: AtomicU32,
    in_flight: AtomicU32,
    best: AtomicU64,
    refused: AtomicU64,
    /// Whether it is measured, and some wait for their turn.
    measuring: AtomicBool,
    waiting: AtomicU32,
    turn: Notify,
}

impl Adaptive {
    /// A bound on what is called so, such as `backend "library"`, of which nothing is known yet.
    pub(super) fn new(name: String, setup: AdaptiveSetup, clock: Clock) -> Self {
        let now = clock.now(Instant::now(), false).nanos;
        Self {
            name,
            clock,
            setup,
            gradient: Mutex::new(Gradient::new(setup, now)),
            bound: AtomicU32::new(LEAST.min(setup.most)),
            in_flight: AtomicU32::new(0),
            best: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            measuring: AtomicBool::new(true),
            waiting: AtomicU32::new(0),
            turn: Notify::new(),
        }
    }

    /// Its terms.
    pub fn setup(&self) -> AdaptiveSetup {
        self.setup
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many requests may be in flight now.
    pub fn bound(&self) -> u32 {
        self.bound.load(Ordering::Relaxed)
    }

    /// How many are.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// How long an answer takes at best; nothing before that was measured.
    pub fn best(&self) -> Option<Duration> {
        match self.best.load(Ordering::Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    /// How many requests found no room.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Room for a request. While it is measured how long an answer takes at best, it is waited for, a moment.
    ///
    /// # Errors
    /// There is none.
    ///
    /// # Cancel safety
    /// Nothing is taken.
    pub async fn enter(self: &Arc<Self>) -> Result<Outstanding, Fault> {
        match self.take() {
            Some(sent) => Ok(sent),
            // Boxed: it is rare.
            None => Box::pin(self.wait()).await,
        }
    }

    fn take(self: &Arc<Self>) -> Option<Outstanding> {
        let bound = self.bound();
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                (taken < bound).then_some(taken + 1)
            })
            .ok()?;
        Some(Outstanding {
            of: Arc::clone(self),
            at: Instant::now(),
            over: false,
        })
    }

    async fn wait(self: &Arc<Self>) -> Result<Outstanding, Fault> {
        if let Some(_waiting) = Waiting::begin(self) {
            let until = Instant::now() + PATIENCE;
            loop {
                let turn = self.turn.notified();
                tokio::pin!(turn);
                turn.as_mut().enable();
                if let Some(sent) = self.take() {
                    return Ok(sent);
                }
                if !self.measuring.load(Ordering::Relaxed) || timeout_at(until, turn).await.is_err() {
                    break;
                }
            }
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        let message = format!(
            "{} answers more slowly the more it is sent, and has as much as it can do; try again",
            self.name
        );
        Err(Fault::new(Kind::Overloaded, Side::Gateway, message)
            .retry_after(Duration::from_secs(1))
            .of_limit(self.name.as_str()))
    }

    fn answered(&self, sent: Instant, now: Instant) {
        let at = |instant| self.clock.now(instant, false).nanos;
        let mut gradient = self.gradient.lock();
        if !gradient.answered(at(sent), at(now), self.in_flight()) {
            return;
        }
        self.bound.store(gradient.bound, Ordering::Relaxed);
        self.best.store(gradient.best, Ordering::Relaxed);
        self.measuring
            .store(gradient.measuring.is_some(), Ordering::Relaxed);
        drop(gradient);
        self.turn.notify_waiters();
    }
}

/// One of those who wait.
struct Waiting<'a>(&'a Adaptive);

impl<'a> Waiting<'a> {
    /// Nothing where nobody has to wait, or as many do as may ever be in flight.
    fn begin(of: &'a Adaptive) -> Option<Self> {
        let waiting = Self(of);
        let before = of.waiting.fetch_add(1, Ordering::Relaxed);
        (of.measuring.load(Ordering::Relaxed) && before < of.setup.most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request that was sent. It is in flight until this is dropped.
#[derive(Debug)]
pub struct Outstanding {
    of: Arc<Adaptive>,
    at: Instant,
    /// Whether it is known how it went.
    over: bool,
}

impl Outstanding {
    /// The answer came, or was waited for as long as it may take.
    pub fn answered(mut self) {
        self.over = true;
        self.of.answered(self.at, Instant::now());
    }

    /// It failed, which says nothing of how long an answer takes.
    pub fn failed(mut self) {
        self.over = true;
    }
}

impl Drop for Outstanding {
    fn drop(&mut self) {
        // Who stopped waiting did so early, which says nothing, or because it took long, which says a lot.
        if !self.over {
            let now = Instant::now();
            let waited = now.saturating_duration_since(self.at);
            if self.of.best().is_some_and(|best| waited > best * 2) {
                self.of.answered(self.at, now);
            }
        }
        self.of.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.of.waiting.load(Ordering::Relaxed) > 0 {
            self.of.turn.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    const MILLI: u64 = 1_000_000;

    fn setup(most: u32) -> AdaptiveSetup {
        AdaptiveSetup {
            most,
            buffer_percent: 25,
            measure: Duration::from_secs(60),
        }
    }

    /// A backend that does so many requests at once, each in `work`, and lets the others queue; clients that ask again as soon
    /// as they are answered, and after 5 ms where there is no room.
    struct World {
        gradient: Gradient,
        now: u64,
        work: u64,
        capacity: usize,
        /// When each worker of the backend is free.
        free: Vec<u64>,
        /// When requests are answered, and when they were sent.
        flying: BinaryHeap<Reverse<(u64, u64)>>,
        refused: u64,
        done: u64,
    }

    impl World {
        fn new(most: u32, capacity: usize, work: u64) -> Self {
            Self {
                gradient: Gradient::new(setup(most), 0),
                now: 0,
                work,
                capacity,
                free: vec![0; capacity],
                flying: BinaryHeap::new(),
                refused: 0,
                done: 0,
            }
        }

        /// So many clients, for so long.
        fn run(&mut self, clients: usize, time: u64) {
            let end = self.now + time;
            let mut asking: BinaryHeap<Reverse<u64>> = (0..clients).map(|_| Reverse(self.now)).collect();
            self.free.resize(self.capacity, self.now);
            (self.refused, self.done) = (0, 0);
            loop {
                let answer = self.flying.peek().map(|Reverse((at, _))| *at);
                let ask = asking.peek().map(|Reverse(at)| *at);
                let Some(next) = answer.into_iter().chain(ask).min().filter(|at| *at < end) else {
                    break;
                };
                self.now = next;
                if answer == Some(next) {
                    let Reverse((_, sent)) = self.flying.pop().unwrap();
                    let in_flight = u32::try_from(self.flying.len() + 1).unwrap();
                    self.gradient.answered(sent, next, in_flight);
                    self.done += 1;
                    asking.push(Reverse(next));
                    continue;
                }
                asking.pop();
                if self.flying.len() >= usize::try_from(self.gradient.bound).unwrap() {
                    self.refused += 1;
                    asking.push(Reverse(next + 5 * MILLI));
                    continue;
                }
                let worker = self.free.iter_mut().min().unwrap();
                *worker = (*worker).max(next) + self.work;
                self.flying.push(Reverse((*worker, next)));
            }
            self.now = end;
            self.flying.clear();
        }
    }

    #[test]
    fn the_bound_finds_what_a_backend_does_at_once() {
        for capacity in [8, 40, 200] {
            let mut world = World::new(1000, capacity, 10 * MILLI);
            world.run(1000, 5_000 * MILLI);
            let settled = world.gradient.bound;
            world.run(1000, 5_000 * MILLI);
            // A backend that is kept busy, and whose queue is no longer than what answers may take more.
            let bound = usize::try_from(world.gradient.bound).unwrap();
            assert!(
                (capacity..=capacity * 2).contains(&bound),
                "{capacity}: {settled}, then {bound}"
            );
            let possible = u64::try_from(capacity).unwrap() * 500;
            assert!(
                world.done >= possible * 9 / 10,
                "{capacity}: {} of {possible}",
                world.done
            );
            assert!(world.refused > 0);
        }
    }

    #[test]
    fn it_follows_a_backend_that_gets_slower_and_faster() {
        let mut world = World::new(1000, 64, 10 * MILLI);
        world.run(500, 5_000 * MILLI);
        let before = world.gradient.bound;
        world.capacity = 16;
        world.free.truncate(16);
        world.run(500, 5_000 * MILLI);
        let slower = world.gradient.bound;
        world.capacity = 64;
        world.run(500, 5_000 * MILLI);
        let after = world.gradient.bound;
        assert!(
            slower <= 32 && before >= 64 && after >= 64,
            "{before}, {slower}, {after}"
        );
    }

    #[test]
    fn what_is_not_used_does_not_grow_and_nothing_passes_the_most() {
        let mut world = World::new(20, 100, 10 * MILLI);
        world.run(5, 10_000 * MILLI);
        assert!(world.gradient.bound <= 16, "{}", world.gradient.bound);
        world.run(500, 10_000 * MILLI);
        assert_eq!(world.gradient.bound, 20);
        let mut least = World::new(1, 100, 10 * MILLI);
        least.run(50, 10_000 * MILLI);
        assert_eq!(least.gradient.bound, 1);
    }

    #[test]
    fn it_is_measured_again_with_few_in_flight_and_without_harm_where_few_are() {
        let mut world = World::new(1000, 40, 10 * MILLI);
        world.run(200, 5_000 * MILLI);
        assert_eq!(world.gradient.best, 10_000);
        // The work itself takes longer from here on. That looks like a queue, until so little is in flight that it is none.
        world.work = 30 * MILLI;
        world.run(200, 10_000 * MILLI);
        assert_eq!(world.gradient.best, 30_000);
        assert!(world.gradient.bound >= 40, "{}", world.gradient.bound);
        // A little longer is found out when it is measured again.
        world.work = 33 * MILLI;
        world.run(200, 70_000 * MILLI);
        assert_eq!(world.gradient.best, 33_000);
        assert!(world.gradient.bound >= 40, "{}", world.gradient.bound);
        // With two clients, nobody is ever kept out.
        let mut few = World::new(1000, 40, 10 * MILLI);
        few.run(2, 300_000 * MILLI);
        assert_eq!((few.refused, few.gradient.measuring), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_is_measured_requests_wait_for_their_turn_and_not_for_ever() {
        let adaptive = Arc::new(Adaptive::new("backend \"a\"".into(), setup(10), Clock::default()));
        let mut sent = Vec::new();
        for _ in 0..LEAST {
            sent.push(adaptive.enter().await.unwrap());
        }
        let mut next = Box::pin(adaptive.enter());
        assert!(futures_util::poll!(&mut next).is_pending());
        tokio::time::advance(Duration::from_millis(100)).await;
        sent.pop().unwrap().answered();
        sent.push(next.await.unwrap());
        assert_eq!(adaptive.in_flight(), LEAST);
        let began = Instant::now();
        let fault = adaptive.enter().await.unwrap_err();
        assert_eq!((fault.kind(), began.elapsed()), (Kind::Overloaded, PATIENCE));
        assert_eq!(
            (adaptive.refused(), adaptive.waiting.load(Ordering::Relaxed)),
            (1, 0)
        );
        drop(sent);
        assert_eq!(adaptive.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_or_was_left_early_says_nothing() {
        let adaptive = Arc::new(Adaptive::new("backend \"a\"".into(), setup(10), Clock::default()));
        let seen = || adaptive.gradient.lock().seen;
        adaptive.enter().await.unwrap().failed();
        drop(adaptive.enter().await.unwrap());
        assert_eq!(seen(), 0);
        for _ in 0..MEASURED {
            let sent = adaptive.enter().await.unwrap();
            tokio::time::advance(Duration::from_millis(10)).await;
            sent.answered();
        }
        assert_eq!(adaptive.best(), Some(Duration::from_millis(10)));
        for (waited, counted) in [(5, 0), (50, 1)] {
            let sent = adaptive.enter().await.unwrap();
            tokio::time::advance(Duration::from_millis(waited)).await;
            drop(sent);
            assert_eq!(seen(), counted, "{waited} ms");
        }
    }
}
