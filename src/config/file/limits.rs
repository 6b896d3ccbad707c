//! The `limits:` block as written: every key may be absent, and one that is there replaces what stood above it.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::super::value::{Count, Pause, Period, Size};
use crate::limits::Limits;

/// How a written value becomes a limit and how a limit is written.
trait Written<T> {
    fn limit(&self) -> T;
    fn written(limit: &T) -> String;
}

macro_rules! written {
    ($written:ident, $limit:ty, $to:expr, $from:expr) => {
        impl Written<$limit> for $written {
            fn limit(&self) -> $limit {
                $to(self)
            }

            fn written(limit: &$limit) -> String {
                $written($from(*limit)).to_string()
            }
        }
    };
}

// The gateway runs where a pointer is at least 32 bits wide, so a u32 is always a usize.
written!(
    Size,
    usize,
    |size: &Size| usize::try_from(size.0).unwrap_or(usize::MAX),
    saturated
);
written!(Size, u32, |size: &Size| size.0, std::convert::identity);
written!(
    Count,
    usize,
    |count: &Count| usize::try_from(count.0).unwrap_or(usize::MAX),
    saturated
);
written!(Count, u32, |count: &Count| count.0, std::convert::identity);
written!(
    Period,
    std::time::Duration,
    |period: &Period| period.0,
    std::convert::identity
);

written!(
    Pause,
    std::time::Duration,
    |pause: &Pause| pause.0,
    std::convert::identity
);

fn saturated(limit: usize) -> u32 {
    u32::try_from(limit).unwrap_or(u32::MAX)
}

macro_rules! limits {
    ($(#[$meta:meta])* $section:ident { $($(#[doc = $doc:literal])+ $name:ident: $written:ident,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[schemars(transform = $section::show_defaults)]
        pub struct $section {
            $($(#[doc = $doc])+ pub $name: Option<$written>,)+
        }

        impl $section {
            /// The limits that hold where this block stands below `above`.
            pub fn over(&self, above: &Limits) -> Limits {
                let mut limits = above.clone();
                $(if let Some(written) = &self.$name {
                    limits.$name = written.limit();
                })+
                limits
            }

            /// Every key with the default of its limit, as a file would write it.
            fn defaults() -> Vec<(&'static str, String)> {
                let limits = Limits::default();
                vec![$((stringify!($name), <$written as Written<_>>::written(&limits.$name)),)+]
            }

            fn show_defaults(schema: &mut Schema) {
                show(schema, Self::defaults());
            }
        }
    };
}

limits! {
    /// Limits and time-outs.
    LimitsSection {
    /// Connections at once, over all listeners.
    max_connections: Count,
    /// Connections at once from one client address; loopback and trusted proxies are not counted.
    max_connections_per_address: Count,
    /// The request line of HTTP/1.1, the path and query of HTTP/2.
    max_uri_bytes: Size,
    /// The header section of a request.
    max_header_bytes: Size,
    /// Header lines of a request.
    max_headers: Count,
    /// The header section of an upstream's answer.
    max_upstream_header_bytes: Size,
    /// One message, in either direction and either codec, after decompression.
    max_message_bytes: Size,
    /// How many times larger than what arrived a decompressed message may be.
    max_decompression_ratio: Count,
    /// Streams at once on an HTTP/2 connection.
    max_streams: Count,
    /// HTTP/2 stream window.
    stream_window_bytes: Size,
    /// HTTP/2 connection window.
    connection_window_bytes: Size,
    /// Streams that a client may reset on one connection within ten seconds.
    max_resets: Count,
    /// Streams of a connection that the client has reset and the gateway not looked at yet; beyond it the connection ends.
    max_pending_resets: Count,
    /// Streams of a connection that the gateway has reset for what the client did wrong; beyond it the connection ends.
    max_error_resets: Count,
    /// One HTTP/2 frame: 16KiB at least, and less than 16MiB.
    max_frame_bytes: Size,
    /// The table by which HTTP/2 compresses the headers of requests.
    header_table_bytes: Size,
    /// The TLS handshake.
    handshake_timeout: Period,
    /// From the first byte of a connection, or of the next request, to the end of the header section; a silent new
    /// connection too.
    header_timeout: Period,
    /// A kept connection without a request.
    keep_alive_timeout: Period,
    /// A request body or stream without a byte.
    idle_timeout: Period,
    /// A whole call that is unary; a client's own deadline can only shorten it.
    request_timeout: Period,
    /// Connecting to an endpoint.
    connect_timeout: Period,
    /// Time between HTTP/2 keep-alive pings, on both sides.
    ping_interval: Period,
    /// How long an answer to a ping may take.
    ping_timeout: Period,
    /// The age at which an HTTP/2 connection is told to go, give or take a tenth.
    max_connection_age: Period,
    /// How long the gateway goes on accepting and serving after SIGTERM or the admin API's drain, while `/readyz` and
    /// `grpc.health.v1` say already that it does not serve: time for load balancers to look elsewhere. A second signal cuts
    /// it short; SIGINT and `--takeover` do without.
    drain_delay: Pause,
    /// How long calls in flight may take after that.
    drain_timeout: Period,
    }
}

limits! {
    /// Limits of one listener: of those that count for a connection. Default: what the top-level `limits` say.
    ListenerLimits {
    /// The request line of HTTP/1.1, the path and query of HTTP/2.
    max_uri_bytes: Size,
    /// The header section of a request.
    max_header_bytes: Size,
    /// Header lines of a request.
    max_headers: Count,
    /// Streams at once on an HTTP/2 connection.
    max_streams: Count,
    /// HTTP/2 stream window.
    stream_window_bytes: Size,
    /// HTTP/2 connection window.
    connection_window_bytes: Size,
    /// Streams that a client may reset on one connection within ten seconds.
    max_resets: Count,
    /// Streams of a connection that the client has reset and the gateway not looked at yet; beyond it the connection ends.
    max_pending_resets: Count,
    /// Streams of a connection that the gateway has reset for what the client did wrong; beyond it the connection ends.
    max_error_resets: Count,
    /// One HTTP/2 frame: 16KiB at least, and less than 16MiB.
    max_frame_bytes: Size,
    /// The table by which HTTP/2 compresses the headers of requests.
    header_table_bytes: Size,
    /// The TLS handshake.
    handshake_timeout: Period,
    /// From the first byte of a connection, or of the next request, to the end of the header section; a silent new
    /// connection too.
    header_timeout: Period,
    /// A kept connection without a request.
    keep_alive_timeout: Period,
    /// A request body or stream without a byte.
    idle_timeout: Period,
    /// Time between HTTP/2 keep-alive pings.
    ping_interval: Period,
    /// How long an answer to a ping may take.
    ping_timeout: Period,
    /// The age at which an HTTP/2 connection is told to go, give or take a tenth.
    max_connection_age: Period,
    }
}

fn show(schema: &mut Schema, defaults: Vec<(&'static str, String)>) {
    let Some(properties) = schema
        .get_mut("properties")
        .and_then(serde_json::Value::as_object_mut)
    else {
        return;
    };
    for (name, default) in defaults {
        if let Some(property) = properties
            .get_mut(name)
            .and_then(serde_json::Value::as_object_mut)
        {
            let number = default.parse::<u64>().ok();
            property.insert(
                "default".to_owned(),
                number.map_or_else(|| default.into(), Into::into),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_block_changes_nothing() {
        let above = Limits {
            max_streams: 7,
            ..Limits::default()
        };
        assert_eq!(LimitsSection::default().over(&above), above);
    }

    #[test]
    fn every_limit_is_a_key() {
        let written = format!("{:?}", Limits::default());
        let keys = LimitsSection::defaults();
        assert_eq!(keys.len(), written.matches(": ").count(), "{written}");
        for (key, _) in keys.iter().chain(&ListenerLimits::defaults()) {
            assert!(written.contains(&format!("{key}: ")), "{key}");
        }
    }

    #[test]
    fn a_limit_that_is_written_replaces_the_one_above() {
        let section = LimitsSection {
            max_message_bytes: Some(Size(10)),
            ..LimitsSection::default()
        };
        let expected = Limits {
            max_message_bytes: 10,
            ..Limits::default()
        };
        assert_eq!(section.over(&Limits::default()), expected);
    }

    #[test]
    fn defaults_are_written_with_their_units() {
        let defaults = LimitsSection::defaults();
        for (name, text) in [
            ("max_connections", "10000"),
            ("max_message_bytes", "4MiB"),
            ("max_header_bytes", "16KiB"),
            ("idle_timeout", "5m"),
            ("max_connection_age", "1h"),
        ] {
            assert!(
                defaults.contains(&(name, text.to_owned())),
                "{name}: {defaults:?}"
            );
        }
    }
}
