//! Worker threads: one runtime each, so that a call stays on the core that accepted it.

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;

use crate::listen::counters::panic_text;

/// Running workers.
#[derive(Debug)]
pub struct Workers(Vec<JoinHandle<bool>>);

/// Workers that ended by a panic; the log says where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Panicked {
    /// Their numbers, from 0.
    pub workers: Vec<usize>,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("workers ended by a panic:")?;
        self.workers.iter().try_for_each(|worker| write!(f, " {worker}"))
    }
}

impl std::error::Error for Panicked {}

impl Workers {
    /// Starts a thread for each of `shares` and runs `main` on it, with the thread's number and its share, on a
    /// single-threaded runtime. The future is made on its thread and need not be `Send`.
    ///
    /// # Errors
    /// A runtime or a thread can't be made; threads already started are told nothing, so this is fatal for a start.
    pub fn start<T, M, F>(shares: Vec<T>, main: M) -> io::Result<Self>
    where
        T: Send + 'static,
        M: FnOnce(usize, T) -> F + Clone + Send + 'static,
        F: Future<Output = ()>,
    {
        let mut threads = Vec::with_capacity(shares.len());
        for (number, share) in shares.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let main = main.clone();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || {
                    let run = catch_unwind(AssertUnwindSafe(|| runtime.block_on(main(number, share))));
                    if let Err(panic) = &run {
                        tracing::error!(worker = number, panic = panic_text(&**panic), "a worker panicked");
                    }
                    run.is_ok()
                })?;
            threads.push(thread);
        }
        Ok(Self(threads))
    }

    /// Waits until every worker has returned. Blocks the calling thread.
    ///
    /// # Errors
    /// [`Panicked`], after all of them have ended.
    pub fn join(self) -> Result<(), Panicked> {
        let workers: Vec<usize> = self
            .0
            .into_iter()
            .map(|thread| thread.join().unwrap_or(false))
            .enumerate()
            .filter_map(|(number, fine)| (!fine).then_some(number))
            .collect();
        if workers.is_empty() {
            Ok(())
        } else {
            Err(Panicked { workers })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn each_worker_runs_on_its_own_thread_and_a_panic_is_reported() {
        let (names, heard) = mpsc::channel();
        let workers = Workers::start(vec!["a", "b", "c"], move |number, share| async move {
            let not_send = Rc::new(share);
            tokio::task::yield_now().await;
            let thread = std::thread::current().name().unwrap().to_owned();
            names.send((number, *not_send, thread)).unwrap();
            assert!(number != 1, "worker one fails");
        })
        .unwrap();
        let error = workers.join().unwrap_err();
        assert_eq!(error.workers, [1]);
        assert_eq!(error.to_string(), "workers ended by a panic: 1");
        let mut all: Vec<_> = heard.iter().collect();
        all.sort_unstable();
        assert_eq!(all[2], (2, "c", "worker-2".to_owned()));
        assert_eq!(all.len(), 3);
    }
}
