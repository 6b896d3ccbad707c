//! A restart without a lost connection: the process that ends hands its listening sockets to the one that begins.
//!
//! They are the same sockets, so that there is no moment at which nobody listens, and what waits at them to be accepted is
//! accepted by one of the two. The one that begins asks over a UNIX socket, starts with what it is given, and says when it
//! serves; only then does the other stop accepting and finish what it does. If the new one dies before that, nothing has
//! happened.
//!
//! The conversation: `sabir 1\n` and the sockets with it, as many messages as they need, then `end\n`; `ready\n` comes back.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use thiserror::Error;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

/// The first word of both versions that may ever meet.
const HELLO: &[u8] = b"sabir 1\n";
/// Sockets follow no more.
const END: &[u8] = b"end\n";
/// The new process serves.
const READY: &[u8] = b"ready\n";
/// Sockets in one message; the kernel takes 253.
const AT_ONCE: usize = 64;
/// How long the other side may take for one message.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a new process may take from its sockets to its first call: it waits for backends that are slow.
const STARTING: Duration = Duration::from_secs(60);

/// Why sockets could not be taken over.
#[derive(Debug, Error)]
pub enum TakeoverError {
    /// The socket can't be used.
    #[error("{}: the socket of the hand-over can't be used", .0.display())]
    Socket(PathBuf, #[source] io::Error),
    /// The process at the other end does not keep to the conversation.
    #[error("{}: the process that serves there does not hand over: {problem}", .path.display())]
    Conversation {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// It is somebody else's process.
    #[error("{}: the process that serves there is another user's", .0.display())]
    Stranger(PathBuf),
}

/// The process that was taken over from, until it is told that this one serves.
#[derive(Debug)]
pub(super) struct Before(UnixStream);

impl Before {
    /// Tells it that this process serves.
    pub(super) async fn ready(self) {
        if let Err(error) = write(&self.0, READY).await {
            tracing::warn!(%error, "the process before does not hear that this one serves");
        }
    }
}

/// Asks the process at `path` for its sockets; nothing if nobody is there.
///
/// # Errors
/// [`TakeoverError`].
pub(super) async fn ask(path: &Path) -> Result<Option<(Before, Vec<TcpListener>)>, TakeoverError> {
    let broken = |error| TakeoverError::Socket(path.to_owned(), error);
    let silent = |problem| TakeoverError::Conversation {
        path: path.to_owned(),
        problem,
    };
    let stream = match UnixStream::connect(path).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(broken(error)),
    };
    if !is_own(&stream).map_err(broken)? {
        return Err(TakeoverError::Stranger(path.to_owned()));
    }
    let mut sockets = Vec::new();
    let mut text = Vec::new();
    let hearing = async {
        // Words and sockets come in any number of pieces.
        while !text.ends_with(END) {
            let (words, more) = receive(&stream).await?;
            if words.is_empty() || text.len() > 4096 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            text.extend_from_slice(&words);
            sockets.extend(more.into_iter().map(TcpListener::from));
        }
        Ok(())
    };
    match timeout(PATIENCE, hearing).await {
        Ok(Ok(())) if text.starts_with(HELLO) => Ok(Some((Before(stream), sockets))),
        Ok(Ok(())) => Err(silent("it is of another version")),
        Ok(Err(error)) => Err(broken(error)),
        Err(_) => Err(silent("it says nothing")),
    }
}

/// Offers the sockets to whoever asks at a path.
#[derive(Debug)]
pub(super) struct Offer(UnixListener);

impl Offer {
    /// Takes the place at the path, from the process before too, which offers nothing any more.
    ///
    /// # Errors
    /// [`TakeoverError::Socket`].
    pub(super) fn at(path: &Path) -> Result<Self, TakeoverError> {
        let broken = |error| TakeoverError::Socket(path.to_owned(), error);
        // Bound beside and renamed: there is no moment at which nobody is there, and none at which everybody may ask.
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = PathBuf::from(beside);
        // One that a process of the same number left.
        let _ = std::fs::remove_file(&beside);
        let listener = UnixListener::bind(&beside).map_err(broken)?;
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o600)).map_err(broken)?;
        std::fs::rename(&beside, path).map_err(broken)?;
        Ok(Self(listener))
    }

    /// Resolves when another process has taken the sockets and serves. `sockets` are those to hand over.
    ///
    /// # Cancel safety
    /// A conversation under way ends, and the other process with it.
    pub(super) async fn taken<S>(self, sockets: S)
    where
        S: AsyncFn() -> Vec<TcpListener>,
    {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => match hand_over(&stream, &sockets().await).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(%error, "a process asked for the sockets and does not serve")
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "the hand-over can't be offered");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn hand_over(stream: &UnixStream, sockets: &[TcpListener]) -> io::Result<()> {
    if !is_own(stream)? {
        return Err(io::Error::other("it is another user's"));
    }
    tracing::info!(sockets = sockets.len(), "handing over to another process");
    let mut words = HELLO;
    for some in sockets.chunks(AT_ONCE) {
        let some: Vec<BorrowedFd<'_>> = some.iter().map(TcpListener::as_fd).collect();
        timeout(PATIENCE, send(stream, words, &some)).await??;
        // A byte has to go with them.
        words = b"\n";
    }
    timeout(PATIENCE, write(stream, END)).await??;
    let mut heard = Vec::new();
    let hearing = async {
        while !heard.ends_with(READY) {
            let (words, _) = receive(stream).await?;
            if words.is_empty() || heard.len() > 64 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            heard.extend_from_slice(&words);
        }
        Ok(())
    };
    timeout(STARTING, hearing).await?
}

/// Whether the process at the other end is of the same user, or of the one who may do everything anyway.
fn is_own(stream: &UnixStream) -> io::Result<bool> {
    let other = stream.peer_cred()?.uid();
    Ok(other == 0 || other == rustix::process::geteuid().as_raw())
}

async fn write(stream: &UnixStream, words: &[u8]) -> io::Result<()> {
    send(stream, words, &[]).await
}

async fn send(stream: &UnixStream, words: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
                return Err(io::Error::from(io::ErrorKind::InvalidInput));
            }
            Ok(sendmsg(
                stream,
                &[IoSlice::new(words)],
                &mut control,
                SendFlags::NOSIGNAL,
            )?)
        })
        .await?;
    // A few bytes go whole into a socket that nobody else writes to.
    if sent == words.len() {
        Ok(())
    } else {
        Err(io::Error::from(io::ErrorKind::WriteZero))
    }
}

async fn receive(stream: &UnixStream) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    stream
        .async_io(Interest::READABLE, || {
            let mut bytes = [0; 64];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let received = recvmsg(
                stream,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            let sockets = control.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
                _ => None,
            });
            let sockets = sockets.flatten().collect();
            Ok((bytes.get(..received.bytes).unwrap_or_default().to_vec(), sockets))
        })
        .await
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn sockets_change_hands_and_a_process_that_dies_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("takeover");
        assert!(ask(&path).await.unwrap().is_none(), "nobody is there");
        // More than fit into one message.
        let kept: Vec<TcpListener> = (0..=AT_ONCE)
            .map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap())
            .collect();
        let addresses: Vec<_> = kept.iter().map(|socket| socket.local_addr().unwrap()).collect();
        let offer = Offer::at(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let taken = offer.taken(async || kept.iter().map(|socket| socket.try_clone().unwrap()).collect());
        let taking = async {
            let (died, _) = ask(&path).await.unwrap().unwrap();
            drop(died);
            let (before, sockets) = ask(&path).await.unwrap().unwrap();
            let got: Vec<_> = sockets
                .iter()
                .map(|socket| socket.local_addr().unwrap())
                .collect();
            assert_eq!(got, addresses);
            // The place is this process' from now on.
            let next = Offer::at(&path).unwrap();
            before.ready().await;
            next
        };
        let ((), _next) = tokio::join!(taken, taking);
        drop(_next);
        assert!(
            ask(&path).await.unwrap().is_none(),
            "a place that nobody keeps is nobody's"
        );
    }
}
