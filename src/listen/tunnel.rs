//! A connection, or a stream of HTTP/2, that its answer turns into something else: a WebSocket.
//!
//! The handler leaves a [`Tunnel`] in its answer; once that is out, the tunnel is run with the bytes below it. It
//! counts as a call of its connection, keeps the connection's place, and ends with the gateway: it is told to leave
//! some time after draining began, and cut off when time is up.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::Response;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::buffers::Rewound;
use crate::http2::Duplex;
use crate::listen::call::Open;
use crate::listen::drain::{Drain, Level, Stop};
use crate::listen::stream::Watched;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
type Start = Box<dyn FnOnce(Io, Leave) -> Task + Send>;

/// What an answer turns its connection into.
pub struct Tunnel {
    start: Start,
    /// Dropped when the tunnel has ended.
    held: Option<Box<dyn Send>>,
}

/// A tunnel on its way through an answer's extensions, which want to be cloned.
#[derive(Clone)]
struct Carried(Arc<Mutex<Option<Tunnel>>>);

impl Tunnel {
    /// A tunnel that is run by `start`.
    pub fn new<F>(start: impl FnOnce(Io, Leave) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            start: Box::new(|io, leave| Box::pin(start(io, leave))),
            held: None,
        }
    }

    /// Leaves the tunnel in an answer.
    pub fn put<B>(self, response: &mut Response<B>) {
        let carried = Carried(Arc::new(Mutex::new(Some(self))));
        response.extensions_mut().insert(carried);
    }

    /// Takes the tunnel that an answer has.
    pub fn take<B>(response: &mut Response<B>) -> Option<Self> {
        let carried = response.extensions_mut().remove::<Carried>()?;
        carried.0.lock().take()
    }

    /// The same tunnel, which keeps `thing` until it has ended.
    #[must_use]
    pub fn holding(mut self, thing: impl Send + 'static) -> Self {
        self.held = Some(match self.held {
            Some(earlier) => Box::new((earlier, thing)),
            None => Box::new(thing),
        });
        self
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

/// A tunnel whose answer is on its way out.
pub(crate) struct Switching {
    pub(crate) tunnel: Tunnel,
    pub(crate) open: Open,
}

impl Switching {
    /// Runs the tunnel over `io` until it ends or is cut off.
    ///
    /// # Cancel safety
    /// Dropping it cuts the tunnel off.
    pub(crate) async fn run(self, io: Io, drain: Drain) {
        let Self { tunnel, mut open } = self;
        let mut stop = drain.watch();
        let task = (tunnel.start)(io, Leave::of(&drain));
        let ended = tokio::select! {
            biased;
            () = stop.cut() => Ok(()),
            ended = AssertUnwindSafe(task).catch_unwind() => ended,
        };
        if let Err(panic) = ended {
            open.counters().panicked(&*panic);
        }
        open.complete();
        drop(tunnel.held);
    }
}

/// The bytes below a tunnel.
pub struct Io(Kind);

enum Kind {
    /// The connection itself.
    Http1(Box<Rewound<Watched>>),
    /// One stream of a connection.
    Http2(Duplex),
}

impl Io {
    pub(crate) fn http1(stream: Watched, before: Bytes) -> Self {
        Self(Kind::Http1(Box::new(Rewound::new(stream, before))))
    }

    pub(crate) fn http2(stream: Duplex) -> Self {
        Self(Kind::Http2(stream))
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Http1(..) => "Io::Http1",
            Kind::Http2(_) => "Io::Http2",
        })
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Http1(stream) => Pin::new(stream).poll_read(cx, buf),
            Kind::Http2(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Kind::Http1(stream) => Pin::new(stream).poll_write(cx, buf),
            Kind::Http2(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Http1(stream) => Pin::new(stream).poll_flush(cx),
            Kind::Http2(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Kind::Http1(stream) => Pin::new(stream).poll_shutdown(cx),
            Kind::Http2(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Tells a tunnel when to end because the gateway does: at a random moment of the first half of the time that
/// draining may take, so that thousands of clients don't come back in one breath.
pub struct Leave {
    stop: Stop,
    spread: Duration,
    moment: Option<Pin<Box<Sleep>>>,
}

impl Leave {
    /// When to leave a gateway that drains by `drain`.
    pub fn of(drain: &Drain) -> Self {
        Self {
            stop: drain.watch(),
            spread: drain.timeout() / 2,
            moment: None,
        }
    }

    /// Ready when it is time to leave.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let moment = match &mut self.moment {
            Some(moment) => moment,
            None => {
                if self.stop.poll_level(cx) < Level::Draining {
                    return Poll::Pending;
                }
                let part = u32::try_from(RandomState::new().hash_one(0) % 1000).unwrap_or(0);
                let wait = self.spread / 1000 * part;
                self.moment.insert(Box::pin(tokio::time::sleep(wait)))
            }
        };
        ready!(moment.as_mut().poll(cx));
        Poll::Ready(())
    }
}

impl fmt::Debug for Leave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leave")
            .field("spread", &self.spread)
            .finish_non_exhaustive()
    }
}
