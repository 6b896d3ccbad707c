//! HTTP/2 (RFC 9113), below sockets and clocks: bytes in, messages and bytes out, as a server and as a client.
//!
//! A `Reader` takes apart what the peer sends and applies it to the `Line`, which is what the parts of one
//! connection share: its streams, its windows, and the bytes that are to go out. Whoever has something to send writes
//! into the line, whoever reads a body reads from it, and the task that drives the connection has a `Carrier` move
//! bytes between both and the socket. All of it is on one thread, so the line's lock is never waited for.
//!
//! An idle connection holds its two tables of header fields and nothing that could be made anew: buffers belong to the
//! thread.

#![deny(clippy::indexing_slicing)]

mod calm;
mod carrier;
mod control;
mod duplex;
pub(crate) mod frame;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod hpack;
mod inbound;
mod line;
mod reader;
mod state;
mod streams;

use std::fmt;

use bytes::Bytes;

pub(crate) use carrier::{Carried, Carrier, ConnectionError};
pub(crate) use duplex::Duplex;
pub use inbound::Inbound;
pub(crate) use line::{Gone, Line};
pub(crate) use reader::Opened;
#[cfg(any(test, fuzzing))]
use reader::Reader;

/// The preface that opens every connection. Source: RFC 9113, section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Which side of a connection the gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

/// What the gateway's side of a connection allows. Sizes are bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) role: Role,
    /// Streams of the peer at once; of no meaning for a server's.
    pub(crate) max_streams: u32,
    /// What may be on its way on one stream.
    pub(crate) stream_window: u32,
    /// What may be on its way on all streams together.
    pub(crate) connection_window: u32,
    /// The payload of one frame.
    pub(crate) max_frame: u32,
    /// The table by which the peer compresses header fields.
    pub(crate) header_table: u32,
    /// The header fields of one message, as section 6.5.2 counts them. What passes it in a request is cut off, for
    /// whoever checks heads to refuse; an answer that passes it is an error.
    pub(crate) max_header_list: u32,
    /// Streams that the peer may reset before they were looked at, in one turn.
    pub(crate) max_pending_resets: usize,
    /// Streams that may be reset here for what the peer did wrong.
    pub(crate) max_error_resets: usize,
}

/// What a client is told for whose connection there is no room: settings, without which it would not listen, and that
/// nothing of what it asks was looked at.
pub(crate) fn farewell() -> Vec<u8> {
    let mut out = frame::Head::new(frame::Kind::Settings, 0, 0, 0).bytes().to_vec();
    frame::goaway(0, Reason::ENHANCE_YOUR_CALM, &mut out);
    out
}

/// Why a stream or a connection ends. Source: RFC 9113, section 7.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub(crate) u32);

impl Reason {
    pub(crate) const NO_ERROR: Self = Self(0);
    pub(crate) const PROTOCOL_ERROR: Self = Self(1);
    pub(crate) const INTERNAL_ERROR: Self = Self(2);
    pub(crate) const FLOW_CONTROL_ERROR: Self = Self(3);
    pub(crate) const STREAM_CLOSED: Self = Self(5);
    pub(crate) const FRAME_SIZE_ERROR: Self = Self(6);
    pub(crate) const REFUSED_STREAM: Self = Self(7);
    pub(crate) const CANCEL: Self = Self(8);
    pub(crate) const COMPRESSION_ERROR: Self = Self(9);
    pub(crate) const ENHANCE_YOUR_CALM: Self = Self(11);
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 => "NO_ERROR",
            1 => "PROTOCOL_ERROR",
            2 => "INTERNAL_ERROR",
            3 => "FLOW_CONTROL_ERROR",
            4 => "SETTINGS_TIMEOUT",
            5 => "STREAM_CLOSED",
            6 => "FRAME_SIZE_ERROR",
            7 => "REFUSED_STREAM",
            8 => "CANCEL",
            9 => "COMPRESSION_ERROR",
            10 => "CONNECT_ERROR",
            11 => "ENHANCE_YOUR_CALM",
            12 => "INADEQUATE_SECURITY",
            13 => "HTTP_1_1_REQUIRED",
            other => return write!(f, "error code {other}"),
        };
        f.write_str(name)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a connection can't go on: an error of the connection, in the words of RFC 9113, section 5.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {what}")]
pub(crate) struct Broken {
    /// What the peer is told.
    pub(crate) reason: Reason,
    /// What it did.
    pub(crate) what: &'static str,
}

impl Broken {
    pub(crate) const fn new(reason: Reason, what: &'static str) -> Self {
        Self { reason, what }
    }

    const fn protocol(what: &'static str) -> Self {
        Self::new(Reason::PROTOCOL_ERROR, what)
    }

    const fn size(what: &'static str) -> Self {
        Self::new(Reason::FRAME_SIZE_ERROR, what)
    }

    const fn calm(what: &'static str) -> Self {
        Self::new(Reason::ENHANCE_YOUR_CALM, what)
    }
}

/// Why a stream did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The peer reset it.
    #[error("the peer reset the stream: {0}")]
    Reset(Reason),
    /// It was reset here, for what the peer did or because nobody wanted it.
    #[error("the stream was reset: {0}")]
    Broken(Reason),
    /// The peer went away before it looked at it. Source: RFC 9113, section 6.8.
    #[error("the peer went away: {0}")]
    Left(Reason),
    /// The connection was over before.
    #[error("the connection was closed")]
    Closed,
    /// The server has too much to say before its answer.
    #[error("sent too many informational answers before its answer")]
    Informational,
}

/// What an extended CONNECT asks its stream to become, as an extension of the request. Source: RFC 8441, section 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol(pub(crate) Bytes);

impl Protocol {
    /// The name, as the client wrote it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests;
