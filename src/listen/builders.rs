//! What the limits mean for the servers of both versions of HTTP.

use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;

use crate::http2::frame::{FIRST_WINDOW, LEAST_FRAME, MOST_FRAME, MOST_WINDOW};
use crate::http2::{self, Role};
use crate::limits::Limits;

/// Bytes that hyper keeps of one HTTP/1.1 connection in each direction. Its own default is 400 KiB, which times ten
/// thousand connections is 8 GB. Not measured.
const HTTP1_BUFFER: usize = 64 << 10;

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

/// HTTP/2.
pub(crate) fn http2(limits: &Limits) -> http2::Settings {
    // A list that is a little too large is taken whole, so that the check of the head can refuse it in the client's
    // dialect.
    let list = u32::try_from(head_bytes(limits) + limits.max_header_bytes).unwrap_or(u32::MAX);
    http2::Settings {
        role: Role::Server,
        max_streams: limits.max_streams,
        stream_window: limits.stream_window_bytes.min(MOST_WINDOW),
        connection_window: limits.connection_window_bytes.clamp(FIRST_WINDOW, MOST_WINDOW),
        max_frame: limits.max_frame_bytes.clamp(LEAST_FRAME, MOST_FRAME),
        header_table: limits.header_table_bytes,
        max_header_list: list,
        max_pending_resets: limits.max_pending_resets,
        max_error_resets: limits.max_error_resets,
    }
}
