//! WebSocket framing, RFC 6455, and permessage-deflate, RFC 7692. Sans-IO: bytes in, events out, and the other way.
//!
//! Frame headers are parsed and written by tungstenite; everything above a header is done here. A gateway needs what
//! a client library does not give: limits that hold before anything is buffered, text that is refused at its first
//! wrong byte, a close code for every error, compression, and frames that are passed on one by one.

pub mod deflate;
pub mod handshake;
pub mod origin;
mod reader;
pub mod socket;
mod utf8;
mod writer;

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

pub use reader::{Reader, Unit};
pub use socket::Socket;
pub use writer::Writer;

/// Which end of a connection the gateway is. Clients mask what they send, servers do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Towards a client.
    Server,
    /// Towards an upstream.
    Client,
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// What the peer did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message, or where frames are read one by one, a part of it.
    Data {
        /// Text or bytes.
        kind: Kind,
        /// This is the beginning of the message.
        first: bool,
        /// This is its end.
        last: bool,
        /// Unmasked and decompressed.
        payload: Bytes,
    },
    /// A ping, to be answered by a pong with the same bytes.
    Ping(Bytes),
    /// The answer to a ping, or one that nobody asked for.
    Pong(Bytes),
    /// Nothing more comes after this. `None`: the peer gave no reason.
    Close(Option<Close>),
}

/// Why a connection is closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: u16,
    /// For humans; at most 123 bytes.
    pub reason: String,
}

impl Close {
    /// The call is complete.
    pub const NORMAL: u16 = 1000;
    /// The gateway is stopping.
    pub const GOING_AWAY: u16 = 1001;
    /// What came is no WebSocket.
    pub const PROTOCOL: u16 = 1002;
    /// A type of message that is not taken here.
    pub const UNSUPPORTED: u16 = 1003;
    /// No code: the peer closed without one. Never on the wire.
    pub const NONE: u16 = 1005;
    /// The connection ended without a close frame. Never on the wire.
    pub const ABNORMAL: u16 = 1006;
    /// Text that is not UTF-8, or data that is not what the extension says.
    pub const INVALID_DATA: u16 = 1007;
    /// Against the rules.
    pub const POLICY: u16 = 1008;
    /// Over a limit.
    pub const TOO_BIG: u16 = 1009;
    /// A bug.
    pub const INTERNAL: u16 = 1011;
    /// Later, perhaps.
    pub const TRY_AGAIN: u16 = 1013;

    /// Bytes that a reason may have. Source: RFC 6455, section 5.5: 125 less the code.
    pub const MAX_REASON: usize = 123;

    /// A close whose reason is cut to [`Close::MAX_REASON`] bytes, on the boundary of a character.
    pub fn new(code: u16, reason: &str) -> Self {
        let mut end = reason.len().min(Self::MAX_REASON);
        while !reason.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        Self {
            code,
            reason: reason.get(..end).unwrap_or_default().to_owned(),
        }
    }

    /// Whether a peer may send this code. Source: RFC 6455, section 7.4, and the registry that it makes.
    pub fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// How much a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message, after decompression.
    pub max_message_bytes: usize,
    /// Bytes of one frame, as it is sent.
    pub max_frame_bytes: usize,
    /// Frames of one message.
    pub max_fragments: u32,
}

impl Limits {
    /// Frames that a message may have.
    pub const MAX_FRAGMENTS: u32 = 1024;

    /// Messages of this size, in one frame or in up to [`Limits::MAX_FRAGMENTS`].
    pub fn of_messages(max_message_bytes: usize) -> Self {
        Self {
            max_message_bytes,
            max_frame_bytes: max_message_bytes,
            max_fragments: Self::MAX_FRAGMENTS,
        }
    }
}

/// What is wrong with what a peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A reserved bit is set that no extension gives a meaning.
    #[error("a reserved bit is set and no extension was agreed on that uses it")]
    Reserved,
    /// An opcode without a meaning.
    #[error("a frame has an opcode that is not defined")]
    Opcode,
    /// A client that does not mask, or a server that does.
    #[error("a frame is masked the wrong way: clients mask, servers do not")]
    Mask,
    /// A length that is not written in the fewest bytes, or has its highest bit set.
    #[error("the length of a frame is not written as it must be")]
    Length,
    /// A control frame of more than 125 bytes, or in fragments.
    #[error("a control frame has more than 125 bytes or is fragmented")]
    Control,
    /// A continuation of nothing, or a new message inside another.
    #[error("a continuation and the message that it belongs to do not fit")]
    Continuation,
    /// A close frame of one byte, or with a code that may not be sent.
    #[error("a close frame has a code that may not be sent")]
    Close,
    /// Text that is not UTF-8.
    #[error("a text is not valid UTF-8")]
    Utf8,
    /// A compressed message that can't be decompressed.
    #[error("a compressed message is corrupt")]
    Deflate,
    /// A frame over its limit, told by its header.
    #[error("a frame is over the limit of {limit} bytes")]
    FrameTooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// A message over its limit.
    #[error("a message is over the limit of {limit} bytes")]
    MessageTooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// A message of too many frames.
    #[error("a message has more than {limit} fragments")]
    Fragments {
        /// What is allowed.
        limit: u32,
    },
}

impl FrameError {
    /// The code to close with. Source: RFC 6455, section 7.4.1.
    pub fn code(self) -> u16 {
        match self {
            Self::Reserved
            | Self::Opcode
            | Self::Mask
            | Self::Length
            | Self::Control
            | Self::Continuation
            | Self::Close => Close::PROTOCOL,
            Self::Utf8 | Self::Deflate => Close::INVALID_DATA,
            Self::FrameTooLarge { .. } | Self::MessageTooLarge { .. } | Self::Fragments { .. } => {
                Close::TOO_BIG
            }
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.code, self.reason)
    }
}

#[cfg(test)]
mod tests;
