//! hyper's servers with every knob that matters turned.

use std::future::Future;

use hyper::server::conn::{http1, http2};
use hyper_util::rt::TokioTimer;
use tokio_util::task::TaskTracker;

use crate::limits::Limits;

/// Bytes that hyper keeps of one HTTP/1.1 connection in each direction. Its own default is 400 KiB, which times ten
/// thousand connections is 8 GB. Not measured.
const HTTP1_BUFFER: usize = 64 << 10;

/// Bytes of one HTTP/2 stream that wait for the client. hyper's default is 400 KiB, for each of a hundred streams.
/// Not measured.
const SEND_BUFFER: usize = 64 << 10;

/// What the largest HTTP/2 frame may be; h2 panics beyond it. Source: RFC 9113, section 4.2.
const FRAMES: std::ops::RangeInclusive<u32> = 16 << 10..=(1 << 24) - 1;

/// HTTP/1.0 and HTTP/1.1.
pub(crate) fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // hyper's timer runs while a kept connection idles too, for which the time is another; the clock does both.
        .header_read_timeout(None)
        // With half-closing, a client that leaves while its answer is made would not be noticed.
        .half_close(false)
        .max_buf_size(HTTP1_BUFFER)
        .max_header_size(head_bytes(limits).min(HTTP1_BUFFER));
    // Naming the number, even the same one, moves hyper's parser from the stack to the heap.
    const HYPERS_DEFAULT: usize = 100;
    if limits.max_headers != HYPERS_DEFAULT {
        builder.max_headers(limits.max_headers);
    }
    builder
}

/// Request line and headers together, as hyper counts them.
fn head_bytes(limits: &Limits) -> usize {
    /// The method, the version and the line ends around them, with room for long methods.
    const REQUEST_LINE: usize = 64;
    limits.max_header_bytes + limits.max_uri_bytes + REQUEST_LINE
}

/// HTTP/2; streams are spawned onto `tasks`.
pub(crate) fn http2(limits: &Limits, tasks: Tasks) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(tasks);
    // h2 answers what passes its own limit with a bare 431 that gRPC clients take for INTERNAL. So it takes more
    // than the limit, and the check of the head refuses the difference in the client's dialect.
    let list = u32::try_from(head_bytes(limits) + limits.max_header_bytes).unwrap_or(u32::MAX);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.max_streams)
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window_bytes)
        .max_frame_size(limits.max_frame_bytes.clamp(*FRAMES.start(), *FRAMES.end()))
        .header_table_size(limits.header_table_bytes)
        .max_header_list_size(list)
        .max_send_buf_size(SEND_BUFFER)
        // For WebSockets; the check of the head refuses every other CONNECT.
        .enable_connect_protocol()
        .max_pending_accept_reset_streams(limits.max_pending_resets)
        .max_local_error_reset_streams(limits.max_error_resets)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout);
    builder
}

/// Spawns the streams of HTTP/2 connections where draining sees them.
#[derive(Clone)]
pub(crate) struct Tasks(pub(crate) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
