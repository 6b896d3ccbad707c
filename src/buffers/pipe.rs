//! A pipe of the kernel, by which bytes go from one socket to another without coming into memory. Source: splice(2).
//!
//! Where the system has no such thing there is no pipe, and bodies go through memory.

use std::task::{Context, Poll, ready};

use tokio::io;
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
use linux::Ends;
#[cfg(not(target_os = "linux"))]
use nowhere::Ends;

/// The least that is worth a pipe. 32 KiB: of less, the copies cost as much as it does.
pub(crate) const LEAST_PIPED: u64 = 32 << 10;

/// Bytes on their way from one socket to another. It has a pipe of its thread while there are any.
#[derive(Debug, Default)]
pub(crate) struct Pipe {
    ends: Option<Ends>,
    /// How many bytes are in it.
    held: usize,
}

impl Pipe {
    /// Whether nothing is on its way.
    pub(crate) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes at most `most` bytes of `socket`, when nothing else is on its way; 0 is the end of what comes. `None` if there
    /// is no pipe, and nothing was taken.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        socket: &TcpStream,
        most: u64,
    ) -> Poll<Option<io::Result<usize>>> {
        let Some(ends) = Ends::take() else {
            return Poll::Ready(None);
        };
        let filled = ends.poll_fill(cx, socket, usize::try_from(most).unwrap_or(usize::MAX));
        match filled {
            Poll::Ready(Some(Ok(held))) if held > 0 => {
                self.ends = Some(ends);
                self.held = held;
            }
            // Who waits keeps no pipe from others.
            Poll::Ready(_) | Poll::Pending => ends.give_back(),
        }
        filled
    }

    /// Writes to `socket` what that takes; how many bytes that is.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>, socket: &TcpStream) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else {
            return Poll::Ready(Ok(0));
        };
        let written = ready!(ends.poll_drain(cx, socket, self.held))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.held = self.held.saturating_sub(written);
        if self.held == 0
            && let Some(ends) = self.ends.take()
        {
            ends.give_back();
        }
        Poll::Ready(Ok(written))
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::cell::Cell;
    use std::os::fd::OwnedFd;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, ready};

    use rustix::io::Errno;
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
    use tokio::io::{self, Interest};
    use tokio::net::TcpStream;

    /// What a pipe holds. 256 KiB: a body of 100 KB goes through it at once, and a slow reader has no more than that waiting
    /// for it.
    const SIZE: usize = 256 << 10;
    /// What a pipe has by itself. The system gives less where a user has too many.
    const LEAST_SIZE: usize = 64 << 10;
    /// Pipes at once, each of which takes two descriptors: further bodies go through memory. All of them are a quarter of what
    /// one user may have (`pipe-user-pages-soft`).
    pub(super) const MOST: usize = 64;

    /// Pipes that there are, in use or not. It is touched where one is made or closed, and not by each call.
    static COUNT: AtomicUsize = AtomicUsize::new(0);

    thread_local! {
        /// An empty one. Few threads need another at the same time: whose client is fast has it for a moment.
        static SPARE: Cell<Option<Ends>> = const { Cell::new(None) };
        /// Sockets can't be read into pipes here, or not into pipes that are worth it.
        static REFUSED: Cell<bool> = const { Cell::new(false) };
    }

    /// Both ends of one pipe.
    #[derive(Debug)]
    pub(super) struct Ends {
        read: OwnedFd,
        write: OwnedFd,
        _counted: Counted,
    }

    /// One of [`COUNT`].
    #[derive(Debug)]
    struct Counted;

    impl Counted {
        fn new() -> Option<Self> {
            let counted = COUNT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| {
                (count < MOST).then_some(count + 1)
            });
            counted.ok().map(|_| Self)
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
    }

    impl Ends {
        /// An empty pipe, if there is one.
        pub(super) fn take() -> Option<Self> {
            SPARE.take().or_else(|| {
                if REFUSED.get() {
                    return None;
                }
                match Self::new(Counted::new()?) {
                    Ok(ends) => ends,
                    Err(error) => {
                        tracing::debug!(%error, "no pipe");
                        None
                    }
                }
            })
        }

        fn new(counted: Counted) -> rustix::io::Result<Option<Self>> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let ends = Self {
                read,
                write,
                _counted: counted,
            };
            let size = fcntl_setpipe_size(&ends.write, SIZE).or_else(|_| fcntl_getpipe_size(&ends.write))?;
            if size < LEAST_SIZE {
                refuse("the user has too many pipes");
                return Ok(None);
            }
            Ok(Some(ends))
        }

        /// For the next body. It has to be empty.
        pub(super) fn give_back(self) {
            if !REFUSED.get() {
                SPARE.set(Some(self));
            }
        }

        pub(super) fn poll_fill(
            &self,
            cx: &mut Context<'_>,
            socket: &TcpStream,
            most: usize,
        ) -> Poll<Option<io::Result<usize>>> {
            loop {
                if let Err(error) = ready!(socket.poll_read_ready(cx)) {
                    return Poll::Ready(Some(Err(error)));
                }
                // The pipe is empty: it is the socket that has nothing.
                let filled = socket.try_io(Interest::READABLE, || {
                    Ok(splice(
                        socket,
                        None,
                        &self.write,
                        None,
                        most,
                        SpliceFlags::NONBLOCK,
                    )?)
                });
                match filled {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if is_unknown(&error) => {
                        refuse(&error.to_string());
                        return Poll::Ready(None);
                    }
                    filled => return Poll::Ready(Some(filled)),
                }
            }
        }

        pub(super) fn poll_drain(
            &self,
            cx: &mut Context<'_>,
            socket: &TcpStream,
            most: usize,
        ) -> Poll<io::Result<usize>> {
            loop {
                ready!(socket.poll_write_ready(cx))?;
                let written = socket.try_io(Interest::WRITABLE, || {
                    Ok(splice(
                        &self.read,
                        None,
                        socket,
                        None,
                        most,
                        SpliceFlags::NONBLOCK,
                    )?)
                });
                match written {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    written => return Poll::Ready(written),
                }
            }
        }
    }

    /// From now on, bodies of this thread go through memory.
    fn refuse(why: &str) {
        tracing::debug!(why, "no further pipes");
        REFUSED.set(true);
    }

    /// Whether the system does not know, or not allow, what was asked of it.
    fn is_unknown(error: &io::Error) -> bool {
        let unknown = [Errno::NOSYS, Errno::INVAL, Errno::PERM, Errno::OPNOTSUPP];
        unknown
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
    }
}

#[cfg(not(target_os = "linux"))]
mod nowhere {
    use std::task::{Context, Poll};

    use tokio::io;
    use tokio::net::TcpStream;

    /// There is none.
    #[derive(Debug)]
    pub(super) enum Ends {}

    impl Ends {
        pub(super) fn take() -> Option<Self> {
            None
        }

        pub(super) fn give_back(self) {
            match self {}
        }

        pub(super) fn poll_fill(
            &self,
            _: &mut Context<'_>,
            _: &TcpStream,
            _: usize,
        ) -> Poll<Option<io::Result<usize>>> {
            match *self {}
        }

        pub(super) fn poll_drain(
            &self,
            _: &mut Context<'_>,
            _: &TcpStream,
            _: usize,
        ) -> Poll<io::Result<usize>> {
            match *self {}
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Both ends of a connection.
    async fn connection() -> io::Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = TcpStream::connect(listener.local_addr()?).await?;
        Ok((near, listener.accept().await?.0))
    }

    #[tokio::test]
    async fn what_is_taken_of_one_socket_comes_out_of_another_and_no_more_than_was_asked_for() {
        let (mut origin, from) = connection().await.unwrap();
        let (to, mut client) = connection().await.unwrap();
        let mut pipe = Pipe::default();
        origin.write_all(b"hello, world").await.unwrap();
        let filled = poll_fn(|cx| pipe.poll_fill(cx, &from, 5)).await;
        assert_eq!(filled.unwrap().unwrap(), 5);
        assert!(!pipe.is_empty());
        assert_eq!(poll_fn(|cx| pipe.poll_drain(cx, &to)).await.unwrap(), 5);
        assert!(pipe.is_empty());
        let mut got = [0; 5];
        client.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello");
        assert_eq!(from.try_read(&mut got).unwrap(), 5);
        assert_eq!(&got, b", wor");
    }

    #[tokio::test]
    async fn the_end_of_what_comes_is_nothing() {
        let (origin, from) = connection().await.unwrap();
        drop(origin);
        let mut pipe = Pipe::default();
        let filled = poll_fn(|cx| pipe.poll_fill(cx, &from, 5)).await;
        assert_eq!(filled.unwrap().unwrap(), 0);
        assert!(pipe.is_empty());
    }

    #[tokio::test]
    async fn there_are_so_many_pipes_and_no_more() {
        let (mut origin, from) = connection().await.unwrap();
        origin.write_all(&[0; 1000]).await.unwrap();
        let mut pipes = Vec::new();
        let last = loop {
            let mut pipe = Pipe::default();
            match poll_fn(|cx| pipe.poll_fill(cx, &from, 1)).await {
                Some(filled) => assert_eq!(filled.unwrap(), 1),
                None => break pipe,
            }
            pipes.push(pipe);
        };
        assert!(last.is_empty());
        // Other tests may have the others.
        let count = pipes.len();
        assert!((1..=linux::MOST).contains(&count), "{count}");
        // One that is dropped with what is in it is closed, and leaves room for another.
        drop(pipes);
        let mut pipe = Pipe::default();
        let filled = poll_fn(|cx| pipe.poll_fill(cx, &from, 1000)).await;
        assert_eq!(filled.unwrap().unwrap(), 1000 - count);
    }
}
