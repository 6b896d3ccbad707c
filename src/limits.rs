//! Every limit and time-out of the gateway, with its default. One block in the file, one struct here.

use std::time::Duration;

/// Limits and time-outs. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once, over all listeners. Default 10,000.
    pub max_connections: usize,
    /// Connections at once from one client address; loopback and trusted proxies are not counted. Default 200.
    pub max_connections_per_address: usize,
    /// The request line of HTTP/1.1, the path and query of HTTP/2. Default 8 KiB.
    pub max_uri_bytes: usize,
    /// The header section of a request. Default 16 KiB.
    pub max_header_bytes: usize,
    /// Header lines of a request. Default 100.
    pub max_headers: usize,
    /// The header section of an upstream's answer. Default 64 KiB.
    pub max_upstream_header_bytes: usize,
    /// One message, in either direction and either codec, after decompression. Default 4 MiB.
    pub max_message_bytes: usize,
    /// How much larger than what arrived a decompressed message may be. Default 100.
    pub max_decompression_ratio: usize,
    /// Streams at once on an HTTP/2 connection. Default 100.
    pub max_streams: u32,
    /// HTTP/2 stream window. Default 64 KiB.
    pub stream_window_bytes: u32,
    /// HTTP/2 connection window. Default 1 MiB.
    pub connection_window_bytes: u32,
    /// Streams that a client may reset on one connection within ten seconds. Default 200.
    pub max_resets: u32,
    /// Streams of a connection that the client has reset and the gateway not looked at yet. Default 20.
    pub max_pending_resets: usize,
    /// Streams of a connection that the gateway has reset for what the client did wrong. Default 100.
    pub max_error_resets: usize,
    /// One HTTP/2 frame; the protocol has 16 KiB as the least and 16 MiB as the most. Default 16 KiB.
    pub max_frame_bytes: u32,
    /// The table by which HTTP/2 compresses the headers of requests. Default 4 KiB.
    pub header_table_bytes: u32,
    /// The TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// From the first byte of a connection, or of the next request, to the end of the header section; a silent
    /// new connection too. Default 10 s.
    pub header_timeout: Duration,
    /// A kept connection without a request. Default 60 s.
    pub keep_alive_timeout: Duration,
    /// A request body or stream without a byte. Default 5 min.
    pub idle_timeout: Duration,
    /// A whole call that is unary; a client's own deadline can only shorten it. Default 15 s.
    pub request_timeout: Duration,
    /// Connecting to an endpoint. Default 1 s.
    pub connect_timeout: Duration,
    /// HTTP/2 keep-alive pings, on both sides. Default every 30 s.
    pub ping_interval: Duration,
    /// How long an answer to a ping may take. Default 10 s.
    pub ping_timeout: Duration,
    /// The age at which an HTTP/2 connection is told to go, give or take a tenth. Default 1 h.
    pub max_connection_age: Duration,
    /// How long the gateway goes on as before once it is told to stop, and only says that it will. Default none.
    pub drain_delay: Duration,
    /// How long calls in flight may take once the gateway stops. Default 30 s.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: 200,
            max_uri_bytes: 8 << 10,
            max_header_bytes: 16 << 10,
            max_headers: 100,
            max_upstream_header_bytes: 64 << 10,
            max_message_bytes: 4 << 20,
            max_decompression_ratio: 100,
            max_streams: 100,
            stream_window_bytes: 64 << 10,
            connection_window_bytes: 1 << 20,
            max_resets: 200,
            max_pending_resets: 20,
            max_error_resets: 100,
            max_frame_bytes: 16 << 10,
            header_table_bytes: 4 << 10,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(300),
            request_timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(1),
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(10),
            max_connection_age: Duration::from_secs(3600),
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
        }
    }
}
