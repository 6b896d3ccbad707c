//! A connection of HTTP/2 to an upstream: its task, and the handle by which requests are sent on it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::http2::frame::{FIRST_TABLE, FIRST_WINDOW, MOST_WINDOW};
use crate::http2::{Broken, Carried, Carrier, ConnectionError, Gone, Inbound, Line, Reason, Role, Settings};
use crate::pulse::{Beat, Pulse};
use crate::upstream::connect::Http2;

/// The largest frame that an upstream may send. 32 KiB: a body of 100 KB comes in four, and two of them in one read.
const MAX_FRAME: u32 = 32 << 10;
/// Streams of one connection that may have to be reset for what the upstream did wrong.
const MAX_ERROR_RESETS: usize = 1000;
/// Turns before others have theirs.
const TURNS: usize = 8;

/// Sends requests on a connection, which ends when there is no handle any more and all is answered.
#[derive(Clone, Debug)]
pub(crate) struct Handle(Arc<Held>);

#[derive(Debug)]
struct Held(Line);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.retire();
    }
}

impl Handle {
    /// Streams at once that the upstream takes.
    pub(super) fn max_streams(&self) -> usize {
        self.0.0.max_open()
    }

    /// Sends the head of a request; what it returns brings the answer, and resets the stream when it is dropped before.
    pub(super) fn ask(&self, request: &Request<()>, ends: bool) -> Result<Inbound, Gone> {
        self.0.0.ask(request, ends)
    }

    /// What the body of a request is written to.
    pub(super) fn line(&self) -> Line {
        self.0.0.clone()
    }
}

/// Moves the bytes of a connection until it ends.
pub(crate) struct Connection<S: AsyncRead + AsyncWrite + Unpin> {
    carrier: Carrier<S>,
    pulse: Pulse,
    /// What comes of it, once it is being closed.
    ended: Option<Result<(), Broken>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn new(stream: S, settings: &Http2) -> Self {
        let window = settings.stream_window_bytes;
        let own = Settings {
            role: Role::Client,
            max_streams: settings.max_streams,
            stream_window: window.min(MOST_WINDOW),
            // As much as all streams together, so that one that is not read does not hold up the others.
            connection_window: window
                .saturating_mul(settings.max_streams)
                .clamp(FIRST_WINDOW, MOST_WINDOW),
            max_frame: MAX_FRAME,
            header_table: FIRST_TABLE,
            max_header_list: settings.max_header_bytes,
            max_pending_resets: usize::MAX,
            max_error_resets: MAX_ERROR_RESETS,
        };
        Self {
            carrier: Carrier::new(stream, own),
            pulse: Pulse::new(settings.ping_interval, settings.ping_timeout),
            ended: None,
        }
    }

    /// A handle, the first.
    pub(super) fn handle(&self) -> Handle {
        Handle(Arc::new(Held(self.carrier.line().clone())))
    }

    /// Says goodbye, and why.
    fn close(&mut self, ended: Result<(), Broken>) {
        let reason = ended.map_or_else(|broken| broken.reason, |()| Reason::NO_ERROR);
        self.carrier.line().break_off(reason);
        self.ended = Some(ended);
    }

    fn poll_turns(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        for _ in 0..TURNS {
            self.carrier.line().is_rung();
            if let Some(ended) = self.ended {
                let closed = self.carrier.poll_close(cx);
                return closed.map(|()| ended.map_err(ConnectionError::from));
            }
            if self.carrier.line().is_done() {
                self.close(Ok(()));
                continue;
            }
            let Self { carrier, pulse, .. } = self;
            let read = carrier.poll_read(cx, || pulse.hear().into_std(), drop);
            let has_read = match read {
                Poll::Ready(Ok(Carried::End)) => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(Carried::Some)) => true,
                Poll::Ready(Err(ConnectionError::Broken(broken))) => {
                    self.close(Err(broken));
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => false,
            };
            match self.pulse.poll(cx) {
                Poll::Ready(Beat::Ask) => self.carrier.line().ping(),
                Poll::Ready(Beat::Dead) => return Poll::Ready(Err(ConnectionError::Dead)),
                Poll::Pending => {}
            }
            // What could not be written goes on when the socket takes more.
            let _out = self.carrier.poll_write(cx)?;
            if !(has_read || self.carrier.goes_on()) {
                self.carrier.rest();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Connection<S> {
    type Output = Result<(), ConnectionError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        me.carrier.line().run(cx.waker());
        let polled = me.poll_turns(cx);
        if me.carrier.line().rest() && polled.is_pending() {
            cx.waker().wake_by_ref();
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;

    use bytes::Bytes;
    use http::Response;
    use http_body_util::BodyExt as _;
    use tokio::io::duplex;
    use tokio::time::timeout;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// An independent server that sends each body back.
    async fn echo(stream: tokio::io::DuplexStream, tasks: TaskTracker) {
        let mut connection = h2::server::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(64 << 20)
            .handshake::<_, Bytes>(stream)
            .await
            .unwrap();
        while let Some(Ok((request, mut answer))) = connection.accept().await {
            tasks.spawn(async move {
                let mut out = answer.send_response(Response::new(()), false).unwrap();
                let mut body = request.into_body();
                while let Some(piece) = body.data().await {
                    let piece = piece.unwrap();
                    body.flow_control().release_capacity(piece.len()).unwrap();
                    out.send_data(piece, false).unwrap();
                }
                out.send_data(Bytes::new(), true).unwrap();
            });
        }
    }

    #[tokio::test]
    async fn a_pipe_that_takes_little_at_a_time_gets_all() {
        const LENGTH: usize = 320 << 10;
        let settings = Http2 {
            max_streams: 100,
            stream_window_bytes: 1 << 20,
            max_header_bytes: 16 << 10,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
        };
        let tasks = TaskTracker::new();
        let (ours, theirs) = duplex(1000);
        tasks.spawn(echo(theirs, tasks.clone()));
        let mut connection = pin!(Connection::new(ours, &settings));
        let handle = connection.handle();
        let mut asked = Vec::new();
        for at in 0..8_u8 {
            let request = Request::post("http://a/").body(()).unwrap();
            let mut answer = handle.ask(&request, false).unwrap();
            let line = handle.line();
            asked.push(tasks.spawn(async move {
                let bytes = vec![at; LENGTH];
                let stream = answer.stream();
                let sending = async {
                    let mut sent = 0;
                    while sent < LENGTH {
                        let rest = &bytes[sent..];
                        sent += poll_fn(|cx| line.poll_data(cx, stream, rest, true))
                            .await
                            .unwrap();
                    }
                };
                let reading = async {
                    poll_fn(|cx| answer.poll_head(cx)).await.unwrap();
                    answer.collect().await.unwrap().to_bytes()
                };
                let ((), read) = tokio::join!(sending, reading);
                assert!(read == bytes, "{} bytes came back", read.len());
            }));
        }
        let all = async {
            for task in asked {
                task.await.unwrap();
            }
        };
        tokio::select! {
            done = timeout(Duration::from_secs(10), all) => done.expect("every stream should come to its end"),
            ended = &mut connection => panic!("{ended:?}"),
        }
        // The last handle is gone, and all is answered: the connection ends by itself.
        drop(handle);
        timeout(Duration::from_secs(10), connection)
            .await
            .unwrap()
            .unwrap();
    }
}
