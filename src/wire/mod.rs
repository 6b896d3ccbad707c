//! How bytes are delimited and encoded, dialect by dialect. Sans-IO: no socket, no clock.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod base64;
pub mod body;
pub mod compression;
pub mod ending;
pub mod envelope;
pub mod json_stream;
pub mod percent;
pub mod timeout;
pub mod url;
pub mod websocket;

use std::fmt;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// HTTP and JSON by HTTP rules or on the rpc path.
    Rest,
    /// gRPC over HTTP/2.
    Grpc,
    /// Messages of a WebSocket, by HTTP rules or on the rpc path.
    WebSocket,
}

impl Dialect {
    /// Every dialect, in the order of its index.
    pub const ALL: [Self; 3] = [Self::Rest, Self::Grpc, Self::WebSocket];

    /// The name in records, metrics and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
            Self::WebSocket => "websocket",
        }
    }

    /// Whether a request names its method by the rpc path alone; otherwise HTTP rules count too.
    pub fn is_rpc(self) -> bool {
        match self {
            Self::Rest | Self::WebSocket => false,
            Self::Grpc => true,
        }
    }

    /// Whether the HTTP method of a request says what is asked; otherwise its path alone does.
    pub fn has_methods(self) -> bool {
        match self {
            Self::Rest | Self::Grpc => true,
            Self::WebSocket => false,
        }
    }

    /// How a client of the dialect writes and reads messages.
    pub fn format(self) -> Format {
        match self {
            // What a WebSocket without a subprotocol speaks, and with `sabir.v1.json`.
            Self::Rest | Self::WebSocket => Format::JSON,
            Self::Grpc => Format::GRPC,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing for each dialect.
#[derive(Clone, Debug)]
pub struct PerDialect<T>([T; Dialect::ALL.len()]);

impl<T> PerDialect<T> {
    /// Makes the thing of each dialect.
    pub fn new(make: impl FnMut(Dialect) -> T) -> Self {
        Self(Dialect::ALL.map(make))
    }

    /// The thing of this dialect.
    pub fn get(&self, dialect: Dialect) -> &T {
        let [rest, grpc, websocket] = &self.0;
        match dialect {
            Dialect::Rest => rest,
            Dialect::Grpc => grpc,
            Dialect::WebSocket => websocket,
        }
    }
}

/// How messages are told apart within a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One message is the whole body.
    Whole,
    /// A flag byte and a 4-byte length before each message. Source: gRPC over HTTP/2.
    Envelope,
}

/// How one message is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// The protobuf wire format.
    Proto,
    /// ProtoJSON.
    Json,
}

/// Framing and codec together: what a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// How messages are told apart.
    pub framing: Framing,
    /// How one message is encoded.
    pub codec: Codec,
}

impl Format {
    /// What a gRPC peer speaks.
    pub const GRPC: Self = Self {
        framing: Framing::Envelope,
        codec: Codec::Proto,
    };
    /// One protobuf message, whole.
    pub const PROTO: Self = Self {
        framing: Framing::Whole,
        codec: Codec::Proto,
    };
    /// One JSON text, whole.
    pub const JSON: Self = Self {
        framing: Framing::Whole,
        codec: Codec::Json,
    };
}
