//! Frames: the nine bytes before each, and those that the gateway writes whole. Source: RFC 9113, sections 4.1 and 6.

use crate::http2::{Reason, Role, Settings};

/// Bytes before a payload.
pub(crate) const HEAD: usize = 9;

/// The least that a peer has to take as one frame, and what it takes unless it says more.
pub(crate) const LEAST_FRAME: u32 = 16 << 10;

/// The most that one frame may be.
pub(crate) const MOST_FRAME: u32 = (1 << 24) - 1;

/// The windows of a new connection and its streams.
pub(crate) const FIRST_WINDOW: u32 = 65_535;

/// The most that a window may be.
pub(crate) const MOST_WINDOW: u32 = u32::MAX >> 1;

/// The size of the tables of header fields on a new connection.
pub(crate) const FIRST_TABLE: u32 = 4096;

/// Flags, which mean something on some frames each.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// What settings are called on the wire. Source: RFC 9113, section 6.5.2; RFC 8441, section 3.
pub(crate) mod setting {
    pub(crate) const HEADER_TABLE_SIZE: u16 = 1;
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
    pub(crate) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
}

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// One that RFC 9113 does not define, which is ignored.
    Other(u8),
}

impl Kind {
    fn of(byte: u8) -> Self {
        match byte {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            other => Self::Other(other),
        }
    }

    fn byte(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::Reset => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Other(other) => other,
        }
    }
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the payload.
    pub(crate) length: u32,
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    /// The stream; 0 is the connection.
    pub(crate) stream: u32,
}

impl Head {
    pub(crate) fn new(kind: Kind, flags: u8, stream: u32, length: u32) -> Self {
        Self {
            length,
            kind,
            flags,
            stream,
        }
    }

    /// The head that `bytes` begin with; `None` while they are fewer.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, s0, s1, s2, s3] = bytes.first_chunk::<HEAD>()?;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]),
            kind: Kind::of(kind),
            flags,
            // The highest bit is reserved and ignored.
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & MOST_WINDOW,
        })
    }

    pub(crate) fn bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [a, b, c, self.kind.byte(), self.flags, s0, s1, s2, s3]
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The SETTINGS frame that says what the gateway allows.
pub(crate) fn settings(own: &Settings, out: &mut Vec<u8>) {
    let [first, second] = match own.role {
        Role::Server => [
            (setting::MAX_CONCURRENT_STREAMS, own.max_streams),
            (setting::ENABLE_CONNECT_PROTOCOL, 1),
        ],
        Role::Client => [(setting::ENABLE_PUSH, 0), (setting::MAX_CONCURRENT_STREAMS, 0)],
    };
    let all = [
        (setting::HEADER_TABLE_SIZE, own.header_table),
        first,
        second,
        (setting::INITIAL_WINDOW_SIZE, own.stream_window),
        (setting::MAX_FRAME_SIZE, own.max_frame),
        (setting::MAX_HEADER_LIST_SIZE, own.max_header_list),
    ];
    // Six settings of six bytes.
    out.extend_from_slice(&Head::new(Kind::Settings, 0, 0, 36).bytes());
    for (name, value) in all {
        out.extend_from_slice(&name.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// The answer to the client's settings.
pub(crate) fn settings_ack(out: &mut Vec<u8>) {
    out.extend_from_slice(&Head::new(Kind::Settings, flag::ACK, 0, 0).bytes());
}

/// A ping or the answer to one.
pub(crate) fn ping(flags: u8, payload: [u8; 8], out: &mut Vec<u8>) {
    out.extend_from_slice(&Head::new(Kind::Ping, flags, 0, 8).bytes());
    out.extend_from_slice(&payload);
}

/// The end of a connection: no stream after `last` was or will be looked at.
pub(crate) fn goaway(last: u32, reason: Reason, out: &mut Vec<u8>) {
    out.extend_from_slice(&Head::new(Kind::GoAway, 0, 0, 8).bytes());
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&reason.0.to_be_bytes());
}

/// The end of a stream.
pub(crate) fn reset(stream: u32, reason: Reason, out: &mut Vec<u8>) {
    out.extend_from_slice(&Head::new(Kind::Reset, 0, stream, 4).bytes());
    out.extend_from_slice(&reason.0.to_be_bytes());
}

/// Leave to send `more` bytes.
pub(crate) fn window_update(stream: u32, more: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&Head::new(Kind::WindowUpdate, 0, stream, 4).bytes());
    out.extend_from_slice(&more.to_be_bytes());
}

/// The four bytes that a payload is, read as a number; `None` if it is not four.
pub(crate) fn number(payload: &[u8]) -> Option<u32> {
    payload.try_into().ok().map(u32::from_be_bytes)
}
