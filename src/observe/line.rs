//! The access record of a call that is over: one line.
//!
//! No body, no query, no header of the client but the method and the path is in it, and control characters are
//! escaped, so that neither a secret nor a forged line gets into the log.

use std::cell::RefCell;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::fault::Side;
use crate::observe::log::LogFormat;
use crate::policy::time;
use crate::route::{Entry, PathRoute};
use crate::status::Code;
use crate::translate::Lane;
use crate::translate::tally::Outcome;
use crate::wire::Dialect;

/// Where a request went.
#[derive(Clone, Debug)]
pub enum Destination {
    /// To a method of a service.
    Method(Arc<Entry>),
    /// Along a route of paths.
    Path(Arc<PathRoute>),
}

impl Destination {
    /// The name of the route.
    fn route(&self) -> &str {
        match self {
            Self::Method(entry) => &entry.route.name,
            Self::Path(route) => &route.name,
        }
    }

    /// The rpc; nothing for a path.
    fn rpc(&self) -> Option<&str> {
        match self {
            Self::Method(entry) => Some(entry.method.path.trim_start_matches('/')),
            Self::Path(_) => None,
        }
    }

    /// What the backend was spoken to in.
    fn dialect_out(&self) -> &'static str {
        match self {
            Self::Method(entry) => entry.outbound.name(),
            Self::Path(route) if route.websocket().is_some() => "websocket",
            Self::Path(_) => "http",
        }
    }
}

/// Room for a line: most are shorter.
const JSON_BYTES: usize = 640;

/// A call that is over, as it is written.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) time: SystemTime,
    pub(super) client: IpAddr,
    pub(super) dialect: Dialect,
    pub(super) method: http::Method,
    /// Only its path is written.
    pub(super) uri: http::Uri,
    pub(super) destination: Option<Destination>,
    pub(super) lane: Lane,
    pub(super) endpoint: Option<Arc<str>>,
    pub(super) retries: u32,
    pub(super) http_status: u16,
    pub(super) outcome: Outcome,
    pub(super) limit: Option<Box<str>>,
    pub(super) close_code: Option<u16>,
    /// A rule has read a message.
    pub(super) judged: bool,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) request_messages: u64,
    pub(super) response_messages: u64,
    pub(super) duration: Duration,
    pub(super) generation: u64,
}

impl Line {
    /// Appends it, with its newline.
    pub(super) fn write(&self, format: LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Json => self.json(out),
            LogFormat::Text => self.text(out),
        }
    }

    fn json(&self, out: &mut Vec<u8>) {
        out.reserve(JSON_BYTES);
        push(out, "{\"time\":\"");
        push_time(out, self.time);
        push(out, "\",\"kind\":\"access\",\"client\":\"");
        push_address(out, self.client);
        push(out, "\",\"dialect_in\":\"");
        push(out, self.dialect.name());
        push(out, "\",\"method\":\"");
        push_escaped(out, self.method.as_str());
        push(out, "\",\"path\":\"");
        push_escaped(out, self.uri.path());
        if let Some(destination) = &self.destination {
            push(out, "\",\"route\":\"");
            push_escaped(out, destination.route());
            if let Some(rpc) = destination.rpc() {
                push(out, "\",\"rpc\":\"");
                push_escaped(out, rpc);
            }
            push(out, "\",\"dialect_out\":\"");
            push(out, destination.dialect_out());
            push(out, "\",\"lane\":\"");
            push(out, self.lane.name());
        }
        push(out, "\"");
        if let Some(endpoint) = &self.endpoint {
            push(out, ",\"endpoint\":\"");
            push_escaped(out, endpoint);
            push(out, "\",\"retries\":");
            push_number(out, self.retries);
        }
        push(out, ",\"http_status\":");
        push_number(out, self.http_status);
        push(out, ",\"grpc_status\":");
        push_number(out, self.outcome.code().number());
        if let Outcome::Gateway(kind, side) = self.outcome {
            push(out, ",\"reason\":\"");
            push(out, kind.reason());
            push(out, "\",\"fault_of\":\"");
            push(out, side_name(side));
            push(out, "\"");
        }
        if let Some(limit) = &self.limit {
            push(out, ",\"limit\":\"");
            push_escaped(out, limit);
            push(out, "\"");
        }
        if let Some(code) = self.close_code {
            push(out, ",\"close_code\":");
            push_number(out, code);
        }
        if self.judged {
            push(out, ",\"message_read_by_rule\":true");
        }
        push(out, ",\"request_bytes\":");
        push_number(out, self.request_bytes);
        push(out, ",\"response_bytes\":");
        push_number(out, self.response_bytes);
        push(out, ",\"request_messages\":");
        push_number(out, self.request_messages);
        push(out, ",\"response_messages\":");
        push_number(out, self.response_messages);
        push(out, ",\"duration_ms\":");
        push_number(out, u64::try_from(self.duration.as_millis()).unwrap_or(u64::MAX));
        push(out, ".");
        push_padded(out, u64::from(self.duration.subsec_micros() % 1000), 3);
        push(out, ",\"generation\":");
        push_number(out, self.generation);
        push(out, "}\n");
    }

    fn text(&self, out: &mut Vec<u8>) {
        let code = self.outcome.code();
        push_time(out, self.time);
        // Writing to memory never fails.
        let _ = write!(out, " {} {} {} ", self.client, self.dialect, self.method);
        push_escaped(out, self.uri.path());
        let _ = write!(out, " -> {} {}", self.http_status, code);
        if let Some(destination) = &self.destination {
            push(out, " ");
            push_escaped(out, destination.rpc().unwrap_or_else(|| destination.route()));
            let _ = write!(out, " ({})", self.lane);
        }
        if let Some(endpoint) = &self.endpoint {
            push(out, " at ");
            push_escaped(out, endpoint);
            match self.retries {
                0 => {}
                retries => {
                    let _ = write!(out, " retries={retries}");
                }
            }
        }
        if let Outcome::Gateway(kind, side) = self.outcome
            && code != Code::Ok
        {
            let _ = write!(out, " reason={} fault_of={}", kind.reason(), side_name(side));
        }
        if let Some(limit) = &self.limit {
            push(out, " limit=");
            push_escaped(out, limit);
        }
        if let Some(code) = self.close_code {
            let _ = write!(out, " close={code}");
        }
        let _ = writeln!(
            out,
            " {} B in, {} B out, {}.{:03} ms",
            self.request_bytes,
            self.response_bytes,
            self.duration.as_millis(),
            self.duration.as_micros() % 1000,
        );
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Gateway => "gateway",
        Side::Upstream => "upstream",
    }
}

fn push(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn push_number(out: &mut Vec<u8>, number: impl itoa::Integer) {
    push(out, itoa::Buffer::new().format(number));
}

/// Appends the last digits of a number, with zeros before it.
fn push_padded(out: &mut Vec<u8>, number: u64, digits: u32) {
    for place in (0..digits).rev() {
        let digit = number / 10_u64.pow(place) % 10;
        out.push(b'0' + digit.to_le_bytes()[0]);
    }
}

fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        // Writing to memory never fails.
        let _ = write!(out, "{address}");
        return;
    };
    for (at, octet) in address.octets().into_iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        push_number(out, octet);
    }
}

/// Appends text with everything escaped that would end a JSON string or a line.
fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\');
    // To its end, whatever comes: many bytes are compared at once then.
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        return push(out, text);
    }
    for character in text.chars() {
        match character {
            '"' => push(out, "\\\""),
            '\\' => push(out, "\\\\"),
            control if control.is_control() => {
                // Writing to memory never fails.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => push(out, other.encode_utf8(&mut [0; 4])),
        }
    }
}

/// Appends an RFC 3339 time in UTC with milliseconds.
fn push_time(out: &mut Vec<u8>, time: SystemTime) {
    thread_local! {
        /// The newest second, written out, with the dot after it.
        static NEWEST: RefCell<(u64, Vec<u8>)> = const { RefCell::new((0, Vec::new())) };
    }
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    NEWEST.with_borrow_mut(|(newest, text)| {
        if *newest != since.as_secs() || text.is_empty() {
            *newest = since.as_secs();
            text.clear();
            push_second(text, *newest);
        }
        out.extend_from_slice(text);
    });
    push_padded(out, u64::from(since.subsec_millis()), 3);
    out.push(b'Z');
}

fn push_second(out: &mut Vec<u8>, since: u64) {
    let (days, second) = (since / 86_400, since % 86_400);
    let (year, month, day) = time::date(days);
    for (number, digits, after) in [
        (year, 4, b'-'),
        (month, 2, b'-'),
        (day, 2, b'T'),
        (second / 3600, 2, b':'),
        (second / 60 % 60, 2, b':'),
        (second % 60, 2, b'.'),
    ] {
        push_padded(out, number, digits);
        out.push(after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for (seconds, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_700_000_000, "2023-11-14T22:13:20.000Z"),
            (4_102_444_799, "2099-12-31T23:59:59.000Z"),
        ] {
            let mut out = Vec::new();
            push_time(&mut out, UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn a_path_can_not_forge_a_line() {
        let mut out = Vec::new();
        push_escaped(&mut out, "/a\"\\\n\u{85}é");
        assert_eq!(String::from_utf8(out).unwrap(), "/a\\\"\\\\\\u000a\\u0085é");
    }
}
