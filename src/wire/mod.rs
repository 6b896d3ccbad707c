//! How bytes are delimited and encoded, dialect by dialect. Sans-IO: no socket, no clock.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod apart;
pub mod base64;
pub mod body;
pub mod compression;
pub mod connect;
pub mod ending;
pub mod envelope;
pub mod event_stream;
pub mod gathered;
pub mod grpc_web;
pub mod json_stream;
pub mod last_frame;
pub mod multipart;
pub mod percent;
pub mod received;
pub mod screen;
pub mod timeout;
pub mod url;
pub mod websocket;
pub mod zip;

use std::fmt;

/// The protocol that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// HTTP and JSON by HTTP rules or on the rpc path.
    Rest,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC-Web, binary or text, over any HTTP.
    GrpcWeb,
    /// Connect, unary or streaming, over any HTTP.
    Connect,
    /// Messages of a WebSocket.
    WebSocket,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 5] = [
        Self::Rest,
        Self::Grpc,
        Self::GrpcWeb,
        Self::Connect,
        Self::WebSocket,
    ];

    /// The name in records, metrics and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rest => "rest",
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc_web",
            Self::Connect => "connect",
            Self::WebSocket => "websocket",
        }
    }

    /// Whether a call may be a GET request with its message in the query.
    pub fn takes_get(self) -> bool {
        match self {
            Self::Connect => true,
            Self::Rest | Self::Grpc | Self::GrpcWeb | Self::WebSocket => false,
        }
    }

    /// How a call says what its messages are.
    pub fn spellings(self) -> Spellings {
        let always = |names| Spellings {
            unary: names,
            streaming: names,
            unary_header: None,
        };
        match self {
            Self::Rest => always(&["application/json"]),
            Self::Grpc => always(&["application/grpc"]),
            Self::GrpcWeb => always(&["application/grpc-web", "application/grpc-web-text"]),
            Self::Connect => Spellings {
                unary: &["application/json", "application/proto"],
                streaming: &["application/connect+json", "application/connect+proto"],
                unary_header: Some(("connect-protocol-version", connect::VERSION)),
            },
            Self::WebSocket => always(&[
                websocket::handshake::SABIR_JSON,
                websocket::handshake::SABIR_PROTO,
                websocket::handshake::GRPC_WEBSOCKETS,
            ]),
        }
    }

    /// What of a URL says which method is called.
    pub fn addressing(self) -> Addressing {
        match self {
            Self::Rest => Addressing::Rules,
            Self::Grpc | Self::GrpcWeb | Self::Connect => Addressing::RpcPath,
            Self::WebSocket => Addressing::Path,
        }
    }
}

/// What a client may write in a call: content types, or the subprotocols of WebSockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spellings {
    /// For methods that take one message and give one.
    pub unary: &'static [&'static str],
    /// For those that stream.
    pub streaming: &'static [&'static str],
    /// A header that unary calls have beside it, by its name and its value.
    pub unary_header: Option<(&'static str, &'static str)>,
}

/// What of a URL says which method is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// HTTP method and path by the rules of the methods, and the rpc path.
    Rules,
    /// The same by the path alone.
    Path,
    /// `/package.Service/Method` and nothing else.
    RpcPath,
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
        let [rest, grpc, grpc_web, connect, websocket] = &self.0;
        match dialect {
            Dialect::Rest => rest,
            Dialect::Grpc => grpc,
            Dialect::GrpcWeb => grpc_web,
            Dialect::Connect => connect,
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
    /// Envelopes, of which the last one holds the trailers. Source: gRPC-Web.
    Web,
    /// The same in base64.
    WebText,
    /// Envelopes, of which the last one says how a reply ended. Source: Connect.
    Connect,
}

/// How one message is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// The protobuf wire format.
    Proto,
    /// ProtoJSON.
    Json,
}

/// What a client speaks: the protocol, and what its bodies are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spoken {
    /// The protocol.
    pub dialect: Dialect,
    /// What its bodies are.
    pub format: Format,
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
    /// What a gRPC-Web peer speaks.
    pub const GRPC_WEB: Self = Self {
        framing: Framing::Web,
        codec: Codec::Proto,
    };
    /// What a gRPC-Web peer speaks that can't handle bytes.
    pub const GRPC_WEB_TEXT: Self = Self {
        framing: Framing::WebText,
        codec: Codec::Proto,
    };
    /// A stream of a Connect peer, in protobuf.
    pub const CONNECT_PROTO: Self = Self {
        framing: Framing::Connect,
        codec: Codec::Proto,
    };
    /// A stream of a Connect peer, in JSON.
    pub const CONNECT_JSON: Self = Self {
        framing: Framing::Connect,
        codec: Codec::Json,
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
