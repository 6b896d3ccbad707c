//! A connection of HTTP/1.1 to an upstream, which belongs to the call that uses it: no task moves its bytes, but that of
//! the call.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use http::{Request, StatusCode, response};
use http_body::Body as _;
use tokio::io::{AsyncRead as _, AsyncWrite, ReadBuf, ReadHalf, WriteHalf};
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, unconstrained};
use tokio::time::Instant;
use tokio_util::io::poll_read_buf;
use tokio_util::task::TaskTracker;

use crate::buffers::{Input, Out, Pipe, Rewound, Sender};
use crate::fault::{Fault, Kind};
use crate::http1::{self, Encoder, Heads, Mismatch};
use crate::upstream::connect::{Http1, Stream};
use crate::upstream::stream::{MAX_INFORMATIONAL, SendError, TOO_INFORMATIONAL, Wanted};
use crate::wire::body::Body;

/// A kept connection that was closed before its upstream saw the next request shows it within this time of that: a round
/// trip. One that ends later most likely ends with a request that was read.
const STALE: Duration = Duration::from_secs(1);

/// 400 lines: what fits into the header section counts, not how it is cut; each line costs memory, though.
const MAX_HEADERS: usize = 400;

/// What is read first of an answer whose body may go on from the socket: what is read can't. 8 KiB: most answers are
/// smaller, and are there in one read.
const FIRST: usize = 8 << 10;
/// The same after an answer whose body did: most of such heads are smaller, and the less is read, the less is copied.
const FIRST_OF_LARGE: usize = 1 << 10;

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum Broke {
    /// The connection failed.
    Io(io::Error),
    /// The request did, on its way.
    Request(Fault),
}

/// What a connection runs over: whether a write that failed says what went out before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Below {
    /// Nothing did.
    Tcp,
    /// Records may have.
    Tls,
}

/// A connection, between two calls or in one.
pub(crate) struct Connection {
    half: Half,
    below: Below,
    pub(super) input: Input,
    heads: Heads,
    /// Sends the rest of the request.
    pump: Option<Pump>,
    /// It has carried a request before, or was kept for one for a while.
    is_used: bool,
    /// The last answer went on from the socket.
    was_piped: bool,
    /// Since when it is kept, or somebody's.
    since: Instant,
}

/// What is there to read from.
enum Half {
    Whole(Stream),
    /// The other half is with the pump.
    Read(ReadHalf<Stream>),
    /// There is nothing to write to any more.
    Lost,
}

/// The task that sends a request body which was not there at once; dropping it stops the task.
struct Pump {
    task: AbortHandle,
    outcome: oneshot::Receiver<Result<WriteHalf<Stream>, Stopped>>,
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a request was not sent to its end.
#[derive(Debug)]
enum Stopped {
    /// Its body failed.
    Body(Fault),
    /// The upstream takes no more. It may have answered before.
    Io(io::Error),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Mismatch> for Stopped {
    fn from(mismatch: Mismatch) -> Self {
        let message = "the request body is not as long as its Content-Length";
        Self::Body(Fault::client(Kind::BadRequest, message).caused_by(mismatch))
    }
}

impl Connection {
    pub(super) fn new(stream: Stream, settings: &Http1) -> Self {
        let below = match stream.socket() {
            Some(_) => Below::Tcp,
            None => Below::Tls,
        };
        Self {
            half: Half::Whole(stream),
            below,
            input: Input::new(Sender::Upstream),
            heads: Heads::new(settings.max_header_bytes, MAX_HEADERS),
            pump: None,
            is_used: false,
            was_piped: false,
            since: Instant::now(),
        }
    }

    /// Whether the upstream has closed it, or says what nobody has asked for: noticed before it is used.
    pub(super) fn is_closed(&mut self) -> bool {
        let Half::Whole(stream) = &mut self.half else {
            return true;
        };
        let mut byte = [0];
        let read = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // A task that has used up its turn would be told that there is nothing to read.
        let read = pin!(unconstrained(read));
        read.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Whether an answer may go on from the socket.
    pub(super) fn is_plain(&self) -> bool {
        self.below == Below::Tcp
    }

    /// It is nobody's from now on.
    pub(super) fn keep(&mut self, now: Instant) {
        self.since = now;
        self.input.rest();
    }

    /// Gives back what an answer held when the connection was kept.
    pub(super) fn rest(&mut self) {
        self.input.rest();
    }

    /// How long nobody has used it.
    pub(super) fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// It is somebody's.
    pub(super) fn take(&mut self, now: Instant) {
        self.is_used |= self.age(now) >= STALE;
        self.since = now;
    }

    /// Whether all that was to be said on it has been said, so that another call can use it.
    pub(super) fn is_free(&mut self) -> bool {
        if let Some(pump) = &mut self.pump
            && let Ok(Ok(write)) = pump.outcome.try_recv()
        {
            self.pump = None;
            self.join(write);
        }
        self.input.is_empty() && matches!(self.half, Half::Whole(_))
    }

    /// Sends a request. A body that is not there at once goes out on a task of `tasks` while the answer comes in.
    ///
    /// # Errors
    /// [`SendError`]: the body failed, or the upstream has closed the connection before it saw any of it.
    pub(super) async fn send(
        &mut self,
        request: &Request<()>,
        body: Body,
        tasks: &TaskTracker,
    ) -> Result<(), SendError> {
        let exact = if body.is_end_stream() {
            Some(0)
        } else {
            body.size_hint().exact()
        };
        let mut out = Out::default();
        let encoder = http1::request(request, exact, out.buffer());
        let mut upload = Upload {
            out,
            encoder,
            body,
            is_ended: false,
            below: self.below,
            has_sent: false,
        };
        let stream = match std::mem::replace(&mut self.half, Half::Lost) {
            Half::Whole(stream) => stream,
            Half::Read(_) | Half::Lost => {
                return Err(SendError::Protocol("was not asked: its connection is gone"));
            }
        };
        let mut stream = Some(stream);
        let polled = poll_fn(|cx| {
            Poll::Ready(
                stream
                    .as_mut()
                    .map_or(Poll::Pending, |stream| upload.poll(cx, stream)),
            )
        });
        match (polled.await, stream) {
            (Poll::Ready(Ok(())), Some(stream)) => self.half = Half::Whole(stream),
            (Poll::Ready(Err(Stopped::Body(fault))), _) => return Err(SendError::Request(fault)),
            (Poll::Ready(Err(Stopped::Io(error))), _) if !upload.has_sent => {
                return Err(SendError::Unprocessed(error.into()));
            }
            // It may have answered before it closed.
            (Poll::Ready(Err(Stopped::Io(_))), Some(stream)) => {
                self.half = Half::Read(tokio::io::split(stream).0);
            }
            (Poll::Pending, Some(stream)) => {
                let (read, write) = tokio::io::split(stream);
                self.half = Half::Read(read);
                let (told, outcome) = oneshot::channel();
                let task = tasks.spawn(async move {
                    // Nobody is told when the call is over.
                    let _told = told.send(upload.run(write).await);
                });
                self.pump = Some(Pump {
                    task: task.abort_handle(),
                    outcome,
                });
            }
            (_, None) => {}
        }
        Ok(())
    }

    /// The head of the answer.
    ///
    /// # Errors
    /// [`SendError`], which says whether trying again is safe.
    pub(super) async fn head(&mut self, wanted: Wanted) -> Result<response::Parts, SendError> {
        let was_piped = std::mem::take(&mut self.was_piped);
        let mut most = match wanted {
            Wanted::Read => usize::MAX,
            Wanted::Piped if was_piped => FIRST_OF_LARGE,
            Wanted::Piped => FIRST,
        };
        let was_kept = std::mem::replace(&mut self.is_used, true);
        let mut informational = 0;
        loop {
            match self.heads.answer(&mut self.input) {
                Ok(Some(head)) if is_informational(head.status) => {
                    informational += 1;
                    if informational > MAX_INFORMATIONAL {
                        return Err(TOO_INFORMATIONAL);
                    }
                    continue;
                }
                Ok(Some(head)) => return Ok(head),
                Ok(None) => {}
                Err(error) => return Err(SendError::Broken(error.into())),
            }
            let error = match poll_fn(|cx| self.poll_fill(cx, most)).await {
                Ok(0) => io::Error::from(io::ErrorKind::UnexpectedEof),
                Ok(_) => {
                    most = most.max(FIRST);
                    continue;
                }
                Err(Broke::Request(fault)) => return Err(SendError::Request(fault)),
                Err(Broke::Io(error)) => error,
            };
            let is_early = informational == 0 && self.input.is_empty() && self.since.elapsed() < STALE;
            return Err(if was_kept && is_early {
                SendError::Stale(error.into())
            } else {
                SendError::Broken(error.into())
            });
        }
    }

    /// Reads once, and at most `most` bytes; 0 is the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<Result<usize, Broke>> {
        if let Some(pump) = &mut self.pump
            && let Poll::Ready(outcome) = Pin::new(&mut pump.outcome).poll(cx)
        {
            self.pump = None;
            match outcome {
                Ok(Ok(write)) => self.join(write),
                Ok(Err(Stopped::Body(fault))) => return Poll::Ready(Err(Broke::Request(fault))),
                Ok(Err(Stopped::Io(_))) | Err(_) => {}
            }
        }
        let polled = self.poll_read(cx, most);
        if polled.is_pending() {
            self.input.rest();
        }
        polled.map_err(Broke::Io)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        // Who waits needs no buffer.
        if let Half::Whole(stream) = &self.half
            && let Some(socket) = stream.socket()
        {
            ready!(socket.poll_read_ready(cx))?;
        }
        let mut room = self.input.room().limit(most);
        match &mut self.half {
            Half::Whole(stream) => poll_read_buf(Pin::new(stream), cx, &mut room),
            Half::Read(stream) => poll_read_buf(Pin::new(stream), cx, &mut room),
            Half::Lost => Poll::Ready(Ok(0)),
        }
    }

    /// Moves at most `most` bytes from the socket into `pipe`; 0 is the end. `None` if they are not to be had so.
    pub(super) fn poll_pipe(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: u64,
    ) -> Poll<Option<io::Result<usize>>> {
        match &self.half {
            // What was read before goes before.
            Half::Whole(stream) if self.input.is_empty() => match stream.socket() {
                Some(socket) => {
                    let filled = pipe.poll_fill(cx, socket, most);
                    // Where there are no pipes, all of it is read.
                    self.was_piped |= matches!(filled, Poll::Ready(Some(Ok(_))));
                    filled
                }
                None => Poll::Ready(None),
            },
            Half::Whole(_) | Half::Read(_) | Half::Lost => Poll::Ready(None),
        }
    }

    fn join(&mut self, write: WriteHalf<Stream>) {
        self.half = match std::mem::replace(&mut self.half, Half::Lost) {
            Half::Read(read) if read.is_pair_of(&write) => Half::Whole(read.unsplit(write)),
            other => other,
        };
    }

    /// The bytes below, once the upstream has switched to another protocol.
    pub(super) fn into_stream(self) -> Option<Rewound<Stream>> {
        let before = Bytes::copy_from_slice(&self.input);
        match self.half {
            Half::Whole(stream) => Some(Rewound::new(stream, before)),
            Half::Read(_) | Half::Lost => None,
        }
    }
}

/// Whether the answer is still to come. Source: RFC 9110, section 15.2.
fn is_informational(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// Sends one request, as fast as the upstream takes it.
struct Upload {
    out: Out,
    encoder: Encoder,
    body: Body,
    /// All of it is in `out`, or was.
    is_ended: bool,
    below: Below,
    /// The upstream may have got something.
    has_sent: bool,
}

impl Upload {
    async fn run(mut self, mut stream: WriteHalf<Stream>) -> Result<WriteHalf<Stream>, Stopped> {
        poll_fn(|cx| self.poll(cx, &mut stream)).await?;
        Ok(stream)
    }

    fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut S,
    ) -> Poll<Result<(), Stopped>> {
        loop {
            self.gather(cx)?;
            let waits = self.out.len();
            let written = if waits == 0 {
                Poll::Ready(Ok(()))
            } else {
                self.out.poll_write(cx, stream)
            };
            self.has_sent |= self.out.len() < waits || (waits > 0 && self.below == Below::Tls);
            ready!(written)?;
            ready!(Pin::new(&mut *stream).poll_flush(cx))?;
            if self.is_ended {
                return Poll::Ready(Ok(()));
            }
            if waits == 0 {
                return Poll::Pending;
            }
        }
    }

    /// Takes what the body has, as long as there is not too much to write.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), Stopped> {
        while !self.is_ended && !self.out.is_full() {
            if self.encoder == Encoder::Length(0) || self.body.is_end_stream() {
                self.encoder.end(None, &mut self.out)?;
                self.is_ended = true;
                break;
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                break;
            };
            match frame
                .transpose()
                .map_err(Stopped::Body)?
                .map(http_body::Frame::into_data)
            {
                None => {
                    self.encoder.end(None, &mut self.out)?;
                    self.is_ended = true;
                }
                Some(Ok(bytes)) => self.encoder.data(bytes, &mut self.out)?,
                // What a client says after its body was seen by nobody who decides: it ends here.
                Some(Err(_trailers)) => {
                    self.encoder.end(None, &mut self.out)?;
                    self.is_ended = true;
                }
            }
        }
        Ok(())
    }
}
