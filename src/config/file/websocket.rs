//! The `websocket:` block of a route as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::value::{Count, Period, Site, Size};
use crate::limits::Limits;
use crate::route::entry::WebSocket;

/// How a route takes WebSockets.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "WebSocket")]
pub struct WebSocketSection {
    /// Sites whose pages may open a WebSocket, beside the gateway's own and those of
    /// `cors.origins`: `https://app.example.com`. On a listener
    /// that only the machine itself reaches, pages of the machine itself may too.
    pub origins: Vec<Site>,
    /// Messages are compressed (permessage-deflate) for clients that offer it.
    pub deflate: bool,
    /// One message of the client, after decompression. Default: the route's `limits.max_message_bytes`.
    pub max_message_bytes: Option<Size>,
    /// Frames of one message.
    #[schemars(extend("default" = 1024))]
    pub max_fragments: Option<Count>,
    /// How often the client is asked whether it is still there.
    #[schemars(extend("default" = "30s"))]
    pub ping_interval: Option<Period>,
    /// How long the client may take to answer that.
    #[schemars(extend("default" = "20s"))]
    pub pong_timeout: Option<Period>,
    /// How long neither side may say anything; pings don't count. Default: `limits.idle_timeout`, which bounds the
    /// call behind the WebSocket too.
    pub idle_timeout: Option<Period>,
    /// How long the client may take nothing of what it is sent.
    #[schemars(extend("default" = "30s"))]
    pub write_timeout: Option<Period>,
}

impl WebSocketSection {
    /// What holds on a route whose messages have this limit.
    pub fn over(&self, limits: &Limits, max_message_bytes: usize) -> WebSocket {
        let default = WebSocket::of(limits);
        let period = |written: Option<Period>, default| written.map_or(default, |period| period.0);
        WebSocket {
            origins: self.origins.iter().map(|site| site.0.clone()).collect(),
            deflate: self.deflate,
            max_message_bytes: self
                .max_message_bytes
                .and_then(|size| usize::try_from(size.0).ok())
                .unwrap_or(max_message_bytes),
            max_fragments: self.max_fragments.map_or(default.max_fragments, |count| count.0),
            ping_interval: period(self.ping_interval, default.ping_interval),
            pong_timeout: period(self.pong_timeout, default.pong_timeout),
            idle_timeout: period(self.idle_timeout, default.idle_timeout),
            write_timeout: period(self.write_timeout, default.write_timeout),
        }
    }
}
