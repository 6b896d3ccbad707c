//! Access records on their way out of the process.
//!
//! Each worker gathers lines in a buffer of its own and hands it to one writer thread when it is full or a moment old,
//! so that a slow reader of the log never slows a call. When the writer is too far behind, lines are dropped and
//! counted.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio_util::task::TaskTracker;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// A buffer of this many bytes goes to the writer at once.
const FULL: usize = 16 << 10;
/// A line waits at most this long.
const MOMENT: Duration = Duration::from_millis(50);
/// Buffers that may wait for the writer: 4 MiB of lines at the most.
const WAITING: usize = 256;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The log. Clones write to the same one.
#[derive(Clone, Debug)]
pub struct Log {
    format: LogFormat,
    sender: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
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
        Ok((
            Self {
                format,
                sender,
                dropped: Arc::default(),
            },
            Writer(thread),
        ))
    }

    /// How lines look.
    pub fn format(&self) -> LogFormat {
        self.format
    }

    /// Buffers of lines that were dropped because the writer was too far behind.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Adds a line to the worker's buffer; `write` appends it with its newline. A task of `tasks` hands the buffer on
    /// after a moment, if it is not full before.
    pub fn write(&self, tasks: &TaskTracker, write: impl FnOnce(&mut Vec<u8>)) {
        let (begun, full) = BUFFER.with_borrow_mut(|buffer| {
            let begun = buffer.is_empty();
            write(buffer);
            (begun, buffer.len() >= FULL)
        });
        if full {
            self.flush();
        } else if begun {
            let log = self.clone();
            tasks.spawn(async move {
                tokio::time::sleep(MOMENT).await;
                log.flush();
            });
        }
    }

    /// Hands the worker's buffer to the writer.
    pub fn flush(&self) {
        let lines = BUFFER.with_borrow_mut(std::mem::take);
        if lines.is_empty() {
            return;
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(lines) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
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
