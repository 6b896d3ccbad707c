//! Access records on their way out of the process.
//!
//! Each worker gathers lines in a buffer of its own and hands it to one writer thread when it is full or a moment old,
//! so that a slow reader of the log never slows a call. When the writer is too far behind, lines are dropped and
//! counted. Lines are made into text several at a time: the code for that is much, and has to come to the processor
//! once for all of them.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use crate::observe::line::Line;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// A buffer of this many bytes goes to the writer at once: some 150 lines, of which each that is handed over alone would
/// wake the writer, which is a twentieth of what a small call costs.
const FULL: usize = 64 << 10;
/// What a buffer has room for from its first line on, so that it seldom moves: the lines of a batch, or a long one, more than
/// what makes it full.
const ROOM: usize = FULL + (8 << 10);
/// Lines that are made into text at once.
const BATCH: usize = 16;
/// A line waits at most twice this long.
const MOMENT: Duration = Duration::from_millis(25);
/// Buffers that may wait for the writer: 4 MiB of lines at the most.
const WAITING: usize = 64;

thread_local! {
    static LINES: RefCell<Lines> = const { RefCell::new(Lines { waiting: Vec::new(), buffer: Vec::new(), handed_on: 0, is_timed: false }) };
}

/// The lines of a worker that wait.
struct Lines {
    /// Those that are no text yet.
    waiting: Vec<Line>,
    buffer: Vec<u8>,
    /// Buffers that went to the writer, wrapping.
    handed_on: u32,
    /// A task looks after the buffer.
    is_timed: bool,
}

impl Lines {
    /// Makes text of all that wait.
    fn put(&mut self, format: LogFormat) {
        if self.waiting.is_empty() {
            return;
        }
        if self.buffer.capacity() == 0 {
            self.buffer.reserve(ROOM);
        }
        for line in self.waiting.drain(..) {
            line.write(format, &mut self.buffer);
        }
    }
}

/// The log. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    format: LogFormat,
    sender: SyncSender<Vec<u8>>,
    dropped: AtomicU64,
}

/// The writer thread; ends when every [`Log`] is gone.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl Writer {
    /// Waits until every line is written.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the log's writer panicked");
        }
    }
}

impl Log {
    /// Starts the writer thread; lines go to standard output.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn start(format: LogFormat) -> io::Result<(Self, Writer)> {
        Self::writing(format, io::stdout())
    }

    /// Starts the writer thread; lines go to `out`.
    ///
    /// # Errors
    /// The system refuses the thread.
    pub fn writing(format: LogFormat, out: impl Write + Send + 'static) -> io::Result<(Self, Writer)> {
        let (sender, receiver) = sync_channel(WAITING);
        let thread = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_all(&receiver, out))?;
        let inner = Inner {
            format,
            sender,
            dropped: AtomicU64::new(0),
        };
        Ok((Self(Arc::new(inner)), Writer(thread)))
    }

    /// Buffers of lines that were dropped because the writer was too far behind.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Hands on the worker's buffer whenever it has not become full for a moment, until there is nothing to hand on.
    async fn look_after(&self, _watch: Watch) {
        let mut seen = LINES.with_borrow(|lines| lines.handed_on);
        loop {
            tokio::time::sleep(MOMENT).await;
            let (is_empty, handed_on) = LINES.with_borrow(|lines| {
                let is_empty = lines.buffer.is_empty() && lines.waiting.is_empty();
                (is_empty, lines.handed_on)
            });
            if is_empty {
                return;
            }
            if std::mem::replace(&mut seen, handed_on) == handed_on {
                self.flush();
            }
        }
    }

    /// Hands the worker's lines to the writer.
    pub fn flush(&self) {
        let lines = LINES.with_borrow_mut(|lines| {
            lines.put(self.0.format);
            lines.handed_on = lines.handed_on.wrapping_add(1);
            std::mem::take(&mut lines.buffer)
        });
        if lines.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.0.sender.try_send(lines) {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The log as one worker writes it. What its calls hold of it is counted apart from what other workers' calls hold.
#[derive(Debug)]
pub struct Journal {
    log: Log,
    tasks: TaskTracker,
}

impl Journal {
    /// A journal whose lines are handed on by `tasks`.
    pub fn new(log: Log, tasks: TaskTracker) -> Self {
        Self { log, tasks }
    }

    /// Adds a line to those of the worker. A task hands them on after a moment, if they are not many before.
    pub(super) fn write(&self, line: Line) {
        let (is_full, is_timed) = LINES.with_borrow_mut(|lines| {
            lines.waiting.push(line);
            if lines.waiting.len() >= BATCH {
                lines.put(self.log.0.format);
            }
            (
                lines.buffer.len() >= FULL,
                std::mem::replace(&mut lines.is_timed, true),
            )
        });
        if is_full {
            self.log.flush();
        }
        if !is_timed {
            let (log, watch) = (self.log.clone(), Watch);
            self.tasks.spawn(async move { log.look_after(watch).await });
        }
    }
}

/// Held by the task that looks after a worker's buffer, run or not; another one may follow it.
struct Watch;

impl Drop for Watch {
    fn drop(&mut self) {
        // A thread that ends has no lines.
        let _ends = LINES.try_with(|lines| lines.borrow_mut().is_timed = false);
    }
}

fn write_all(receiver: &Receiver<Vec<u8>>, mut out: impl Write) {
    while let Ok(lines) = receiver.recv() {
        // Nobody reads the log any more: serving goes on without it.
        if out.write_all(&lines).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc::{Sender, channel};
    use std::time::SystemTime;

    use super::*;
    use crate::status::Code;
    use crate::translate::Lane;
    use crate::translate::tally::Outcome;
    use crate::wire::Dialect;

    /// Tells what is written, buffer by buffer.
    struct Told(Sender<usize>);

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.len()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The line of a request for a path of so many bytes.
    fn line(length: usize) -> Line {
        Line {
            time: SystemTime::UNIX_EPOCH,
            client: Ipv4Addr::LOCALHOST.into(),
            dialect: Dialect::Rest,
            method: http::Method::GET,
            uri: format!("/{}", "x".repeat(length - 1)).try_into().unwrap(),
            destination: None,
            lane: Lane::Relay,
            endpoint: None,
            retries: 0,
            http_status: 200,
            outcome: Outcome::Upstream(Code::Ok),
            limit: None,
            close_code: None,
            judged: false,
            request_bytes: 0,
            response_bytes: 0,
            request_messages: 0,
            response_messages: 0,
            duration: Duration::ZERO,
            generation: 1,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn lines_go_out_when_they_are_many_and_when_they_are_old() {
        let (told, heard) = channel();
        let (log, writer) = Log::writing(LogFormat::Json, Told(told)).unwrap();
        let tasks = TaskTracker::new();
        let journal = Journal::new(log, tasks.clone());
        let long = FULL / BATCH;
        let size = |length: usize| {
            let mut text = Vec::new();
            line(length).write(LogFormat::Json, &mut text);
            text.len()
        };
        for _ in 0..BATCH {
            assert!(heard.try_recv().is_err());
            journal.write(line(long));
        }
        assert_eq!(heard.recv().unwrap(), BATCH * size(long), "without a pause");
        for length in [7, 8] {
            journal.write(line(length));
            tokio::time::sleep(2 * MOMENT + MOMENT / 2).await;
            assert_eq!(heard.recv().unwrap(), size(length));
        }
        // Nobody looks after lines that have not been there for a while; the next line finds somebody else.
        tasks.close();
        tasks.wait().await;
        journal.write(line(9));
        tasks.wait().await;
        assert_eq!(heard.recv().unwrap(), size(9));
        drop(journal);
        writer.join();
        assert!(heard.recv().is_err());
    }
}
