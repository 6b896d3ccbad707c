//! How bytes are delimited and encoded, dialect by dialect. Sans-IO: no socket, no clock.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod base64;
pub mod body;
pub mod compression;
pub mod ending;
pub mod envelope;
pub mod event_stream;
pub mod json_stream;
pub mod percent;
pub mod timeout;
pub mod url;

use std::fmt;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// HTTP and JSON by HTTP rules or on the rpc path.
    Rest,
    /// gRPC over HTTP/2.
    Grpc,
}

impl Dialect {
    /// Every dialect, in the order of its index.
    pub const ALL: [Self; 2] = [Self::Rest, Self::Grpc];

    /// The name in records, metrics and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
        }
    }

    /// Whether a request names its method by the rpc path alone; otherwise HTTP rules count too.
    pub fn is_rpc(self) -> bool {
        match self {
            Self::Rest => false,
            Self::Grpc => true,
        }
    }

    /// How a client of the dialect writes and reads messages.
    pub fn format(self) -> Format {
        match self {
            Self::Rest => Format::JSON,
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
        let [rest, grpc] = &self.0;
        match dialect {
            Dialect::Rest => rest,
            Dialect::Grpc => grpc,
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
