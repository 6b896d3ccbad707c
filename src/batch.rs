//! What a connection of HTTP/2 writes in one turn goes out as one.
//!
//! `h2` hands its frames on as they come: a head, then each larger message by itself. Each hand-over is a system call, and
//! over a socket one more segment. Here they are gathered until the connection has nothing more to say and waits.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is gathered before it goes out in the middle of a turn. 64 KiB: with four frames of the usual size, a body of
/// 100 KB goes out in two system calls instead of seven.
pub(crate) const MOST: usize = 64 << 10;
/// Buffers that a thread keeps for the next turn.
const KEPT: usize = 4;

thread_local! {
    /// Buffers of connections that have nothing to write now, which is most of them most of the time.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A buffer for what is to go out, empty.
pub(crate) fn spare() -> Vec<u8> {
    SPARE
        .with_borrow_mut(Vec::pop)
        .unwrap_or_else(|| Vec::with_capacity(MOST))
}

/// Keeps a buffer for the next turn, of whichever connection.
pub(crate) fn give_back(mut buffer: Vec<u8>) {
    buffer.clear();
    SPARE.with_borrow_mut(|kept| {
        // One that had to grow is not kept.
        if kept.len() < KEPT && (MOST..=2 * MOST).contains(&buffer.capacity()) {
            kept.push(buffer);
        }
    });
}

/// A byte stream whose writes are gathered. Whoever drives the connection above it does so through its [`Turns`].
pub(crate) struct Batched<S>(Arc<Mutex<Batch<S>>>);

/// A connection over a [`Batched`] stream: what it writes goes out whenever it waits.
pub(crate) struct Turns<C, S> {
    connection: C,
    batch: Arc<Mutex<Batch<S>>>,
}

/// What was written, and where it goes. The lock is never waited for: both halves are on one task.
struct Batch<S> {
    stream: S,
    gathered: Vec<u8>,
    /// How much of it is out.
    sent: usize,
    /// The stream was written to since it was flushed.
    is_dirty: bool,
    /// Why the stream takes no more, for whoever writes or reads next.
    failed: Option<io::Error>,
}

/// Gathers the writes to `stream` of the connection that `connect` makes over it.
pub(crate) fn batched<S>(stream: S) -> Batched<S> {
    Batched(Arc::new(Mutex::new(Batch {
        stream,
        gathered: Vec::new(),
        sent: 0,
        is_dirty: false,
        failed: None,
    })))
}

impl<S> Batched<S> {
    /// What drives the connection that is made over this stream.
    pub(crate) fn turns<C>(&self) -> impl FnOnce(C) -> Turns<C, S> + use<C, S> {
        let batch = Arc::clone(&self.0);
        |connection| Turns { connection, batch }
    }
}

impl<S: AsyncWrite + Unpin> Batch<S> {
    /// Writes out what was gathered, and `more`; how much of `more` was taken.
    fn poll_out(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let waiting = self.gathered.get(self.sent..).unwrap_or_default();
            if waiting.is_empty() && more.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let stream = Pin::new(&mut self.stream);
            let written = match (waiting, more) {
                (waiting, []) => ready!(stream.poll_write(cx, waiting))?,
                ([], more) => ready!(stream.poll_write(cx, more))?,
                (waiting, more) => {
                    let both = [IoSlice::new(waiting), IoSlice::new(more)];
                    ready!(stream.poll_write_vectored(cx, &both))?
                }
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_dirty = true;
            let of_waiting = written.min(waiting.len());
            self.sent += of_waiting;
            if self.sent == self.gathered.len() {
                self.gathered.clear();
                self.sent = 0;
            }
            if written > of_waiting || (more.is_empty() && self.gathered.is_empty()) {
                return Poll::Ready(Ok(written - of_waiting));
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.gathered.len() + bytes.len() > MOST {
            return self.poll_out(cx, bytes);
        }
        if self.gathered.capacity() == 0 {
            self.gathered = spare();
        }
        self.gathered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Writes everything out, down to the socket.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_out(cx, &[]))?;
        if self.gathered.capacity() > 0 {
            give_back(std::mem::take(&mut self.gathered));
        }
        if self.is_dirty {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    fn take_failure(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Batched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut batch = self.0.lock();
        batch.take_failure()?;
        Pin::new(&mut batch.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Batched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut batch = self.0.lock();
        batch.take_failure()?;
        batch.poll_write(cx, bytes)
    }

    /// Done at once: what was gathered goes out at the end of the turn.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.lock().take_failure())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut batch = self.0.lock();
        ready!(batch.poll_flush(cx))?;
        Pin::new(&mut batch.stream).poll_shutdown(cx)
    }
}

impl<C, S> Turns<C, S> {
    /// The connection.
    pub(crate) fn connection(&mut self) -> &mut C {
        &mut self.connection
    }
}

impl<C: Future + Unpin, S: AsyncWrite + Unpin> Future for Turns<C, S> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        loop {
            if let Poll::Ready(ended) = Pin::new(&mut this.connection).poll(cx) {
                return Poll::Ready(ended);
            }
            let mut batch = this.batch.lock();
            let Poll::Ready(Err(error)) = batch.poll_flush(cx) else {
                return Poll::Pending;
            };
            // The connection hears of it at once: nothing else would wake it. What was gathered goes nowhere.
            batch.failed = Some(error);
            batch.gathered = Vec::new();
            batch.sent = 0;
            batch.is_dirty = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// Notes what each write takes.
    #[derive(Default)]
    struct Noting(Arc<Mutex<Vec<Vec<u8>>>>);

    impl AsyncWrite for Noting {
        fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.lock().push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes what a connection would, some pieces in each turn, and closes after the last.
    struct Writer<S> {
        stream: Batched<S>,
        turns: std::vec::IntoIter<Vec<&'static [u8]>>,
    }

    impl<S: AsyncWrite + Unpin> Future for Writer<S> {
        type Output = io::Result<()>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = &mut *self;
            let Some(pieces) = this.turns.next() else {
                return Pin::new(&mut this.stream).poll_shutdown(cx);
            };
            for piece in pieces {
                let written = ready!(Pin::new(&mut this.stream).poll_write(cx, piece))?;
                assert_eq!(written, piece.len());
                ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    fn writer<S>(stream: S, turns: Vec<Vec<&'static [u8]>>) -> Turns<Writer<S>, S> {
        let stream = batched(stream);
        let turned = stream.turns();
        turned(Writer {
            stream,
            turns: turns.into_iter(),
        })
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_is_one_write() {
        let stream = Noting::default();
        let noted = Arc::clone(&stream.0);
        writer(stream, vec![vec![b"a", b"bc"], vec![b"d"]]).await.unwrap();
        assert_eq!(*noted.lock(), [b"abc".to_vec(), b"d".to_vec()]);
    }

    #[tokio::test]
    async fn a_stream_that_takes_little_is_given_all_in_order() {
        let large: Vec<u8> = (0..=250).cycle().take(3 * MOST).collect();
        let expected = large.clone();
        let (ours, mut theirs) = duplex(1000);
        let mut stream = batched(ours);
        let turned = stream.turns();
        let writing = turned(Box::pin(async move {
            stream.write_all(b"head").await?;
            stream.write_all(&large).await?;
            stream.write_all(b"tail").await?;
            stream.shutdown().await
        }));
        let mut read = Vec::new();
        let (written, all) = tokio::join!(writing, theirs.read_to_end(&mut read));
        written.unwrap();
        assert_eq!(all.unwrap(), expected.len() + 8);
        assert!(read.starts_with(b"head") && read.ends_with(b"tail"));
        assert!(read[4..read.len() - 4] == expected);
    }

    #[tokio::test]
    async fn a_stream_that_breaks_is_told_to_the_connection() {
        let (ours, theirs) = duplex(1000);
        drop(theirs);
        let turns = writer(ours, vec![vec![b"a"], vec![b"b"]]);
        assert_eq!(turns.await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn what_waits_is_bounded() {
        let (ours, _theirs) = duplex(1000);
        let mut stream = batched(ours);
        let mut taken = 0;
        let full = poll_fn(|cx| {
            loop {
                match Pin::new(&mut stream).poll_write(cx, &[0; 4096]) {
                    Poll::Ready(written) => taken += written.unwrap(),
                    Poll::Pending => return Poll::Ready(taken),
                }
            }
        });
        assert!(full.await <= MOST + 1000);
    }
}
