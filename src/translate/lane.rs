//! How much work a body needs on its way from one format to another.

#![deny(clippy::wildcard_enum_match_arm)]

use std::fmt;

use crate::wire::Format;

/// The amount of work. A field of the access record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The same bytes; envelopes are watched for limits, no message is touched.
    Relay,
    /// Other envelopes around the same payloads.
    Reframe,
    /// Decoded and encoded through the descriptor.
    Transcode,
}

impl Lane {
    /// The lane between what a peer sends and what the other one reads.
    pub fn between(have: Format, want: Format) -> Self {
        match (have.codec == want.codec, have.framing == want.framing) {
            (true, true) => Self::Relay,
            (true, false) => Self::Reframe,
            (false, _) => Self::Transcode,
        }
    }

    /// The name in records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Reframe => "reframe",
            Self::Transcode => "transcode",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Codec, Framing};

    #[test]
    fn the_whole_table() {
        let json_envelope = Format {
            framing: Framing::Envelope,
            codec: Codec::Json,
        };
        let formats = [Format::GRPC, Format::PROTO, Format::JSON, json_envelope];
        let table = [
            [Lane::Relay, Lane::Reframe, Lane::Transcode, Lane::Transcode],
            [Lane::Reframe, Lane::Relay, Lane::Transcode, Lane::Transcode],
            [Lane::Transcode, Lane::Transcode, Lane::Relay, Lane::Reframe],
            [Lane::Transcode, Lane::Transcode, Lane::Reframe, Lane::Relay],
        ];
        for (have, row) in formats.into_iter().zip(table) {
            for (want, lane) in formats.into_iter().zip(row) {
                assert_eq!(Lane::between(have, want), lane, "{have:?} to {want:?}");
            }
        }
    }
}
