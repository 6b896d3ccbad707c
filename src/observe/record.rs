//! The access record: one line for each call, written when its answer has ended or was dropped.
//!
//! No body, no query, no header of the client but the method and the path is in it, and control characters are
//! escaped, so that neither a secret nor a forged line gets into the log.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::fault::{Kind, Side};
use crate::observe::log::{Log, LogFormat};
use crate::observe::metrics::Series;
use crate::policy::throttle::Places;
use crate::route::{Entry, PathRoute};
use crate::status::Code;
use crate::translate::tally::Outcome;
use crate::translate::{Lane, Tally};
use crate::wire::Dialect;

/// A call that is being served; written when it is dropped.
#[derive(Debug)]
pub struct Record {
    /// Where lines go.
    pub log: Log,
    /// Who hands lines on.
    pub tasks: TaskTracker,
    /// When the request came.
    pub began: Instant,
    /// The client.
    pub client: IpAddr,
    /// The dialect of the client.
    pub dialect: Dialect,
    /// The HTTP method.
    pub method: http::Method,
    /// The URL, of which only the path is written.
    pub uri: http::Uri,
    /// The number of the plan.
    pub generation: u64,
    /// Where the request went, once that was found.
    pub destination: Option<Destination>,
    /// How the bodies travel.
    pub lane: Lane,
    /// The HTTP status of the answer.
    pub http_status: u16,
    /// The counts of the call.
    pub tally: Arc<Tally>,
    /// The metrics of the call.
    pub series: Arc<Series>,
    /// What the call takes of limits on calls in flight: free again when the record is written.
    pub places: Places,
}

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

impl Record {
    /// The same record, which shares no memory with the request's head: for calls that last.
    #[must_use]
    pub fn detached(mut self) -> Self {
        if let Ok(path) = http::Uri::try_from(self.uri.path()) {
            self.uri = path;
        }
        self
    }

    /// Counts the call in another series from here on.
    pub fn recount(&mut self, series: &Arc<Series>) {
        self.series.leave();
        series.begin();
        self.series = Arc::clone(series);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.began.elapsed();
        // A call that nobody ended was dropped: the client left.
        let outcome = self
            .tally
            .outcome()
            .unwrap_or(Outcome::Gateway(Kind::Cancelled, Side::Client));
        self.series.end(outcome, duration, &self.tally);
        if let (Outcome::Upstream(Code::Unimplemented), Some(Destination::Method(entry))) =
            (outcome, &self.destination)
        {
            entry.route.doubt.raise();
        }
        let line = Line {
            record: self,
            outcome,
            duration,
        };
        self.log.write(&self.tasks, |out| match self.log.format() {
            LogFormat::Json => line.json(out),
            LogFormat::Text => line.text(out),
        });
    }
}

struct Line<'a> {
    record: &'a Record,
    outcome: Outcome,
    duration: Duration,
}

impl Line<'_> {
    fn json(&self, out: &mut Vec<u8>) {
        let record = self.record;
        let code = self.outcome.code();
        let mut text = String::with_capacity(512);
        text.push_str("{\"time\":\"");
        push_time(&mut text, SystemTime::now());
        text.push_str("\",\"kind\":\"access\",\"client\":\"");
        // Writing to a string never fails.
        let _ = write!(text, "{}\",\"dialect_in\":\"{}\"", record.client, record.dialect);
        text.push_str(",\"method\":\"");
        push_escaped(&mut text, record.method.as_str());
        text.push_str("\",\"path\":\"");
        push_escaped(&mut text, record.uri.path());
        text.push('"');
        if let Some(destination) = &record.destination {
            text.push_str(",\"route\":\"");
            push_escaped(&mut text, destination.route());
            if let Some(rpc) = destination.rpc() {
                text.push_str("\",\"rpc\":\"");
                push_escaped(&mut text, rpc);
            }
            let _ = write!(
                text,
                "\",\"dialect_out\":\"{}\",\"lane\":\"{}\"",
                destination.dialect_out(),
                record.lane
            );
        }
        if let Some(endpoint) = record.tally.endpoint() {
            text.push_str(",\"endpoint\":\"");
            push_escaped(&mut text, &endpoint);
            let _ = write!(text, "\",\"retries\":{}", record.tally.retries());
        }
        let _ = write!(
            text,
            ",\"http_status\":{},\"grpc_status\":{}",
            record.http_status,
            code.number()
        );
        if let Outcome::Gateway(kind, side) = self.outcome {
            let _ = write!(
                text,
                ",\"reason\":\"{}\",\"fault_of\":\"{}\"",
                kind.reason(),
                side_name(side)
            );
        }
        if let Some(limit) = record.tally.limit() {
            text.push_str(",\"limit\":\"");
            push_escaped(&mut text, limit);
            text.push('"');
        }
        if let Some(code) = record.tally.close_code() {
            let _ = write!(text, ",\"close_code\":{code}");
        }
        if record.tally.judged() {
            text.push_str(",\"message_read_by_rule\":true");
        }
        let _ = write!(
            text,
            ",\"request_bytes\":{},\"response_bytes\":{},\"request_messages\":{},\"response_messages\":{}",
            record.tally.request_bytes(),
            record.tally.reply_bytes(),
            record.tally.request_messages(),
            record.tally.reply_messages(),
        );
        let _ = writeln!(
            text,
            ",\"duration_ms\":{}.{:03},\"generation\":{}}}",
            self.duration.as_millis(),
            self.duration.as_micros() % 1000,
            record.generation,
        );
        out.extend_from_slice(text.as_bytes());
    }

    fn text(&self, out: &mut Vec<u8>) {
        let record = self.record;
        let code = self.outcome.code();
        let mut text = String::with_capacity(200);
        push_time(&mut text, SystemTime::now());
        let mut path = String::new();
        push_escaped(&mut path, record.uri.path());
        let _ = write!(
            text,
            " {} {} {} {path}",
            record.client, record.dialect, record.method
        );
        let _ = write!(text, " -> {} {}", record.http_status, code);
        if let Some(destination) = &record.destination {
            text.push(' ');
            push_escaped(
                &mut text,
                destination.rpc().unwrap_or_else(|| destination.route()),
            );
            let _ = write!(text, " ({})", record.lane);
        }
        if let Some(endpoint) = record.tally.endpoint() {
            text.push_str(" at ");
            push_escaped(&mut text, &endpoint);
            match record.tally.retries() {
                0 => {}
                retries => {
                    let _ = write!(text, " retries={retries}");
                }
            }
        }
        if let Outcome::Gateway(kind, side) = self.outcome
            && code != Code::Ok
        {
            let _ = write!(text, " reason={} fault_of={}", kind.reason(), side_name(side));
        }
        if let Some(limit) = record.tally.limit() {
            text.push_str(" limit=");
            push_escaped(&mut text, limit);
        }
        if let Some(code) = record.tally.close_code() {
            let _ = write!(text, " close={code}");
        }
        let _ = write!(
            text,
            " {} B in, {} B out, {}.{:03} ms",
            record.tally.request_bytes(),
            record.tally.reply_bytes(),
            self.duration.as_millis(),
            self.duration.as_micros() % 1000,
        );
        // Writing to memory never fails.
        let _ = writeln!(out, "{text}");
    }
}

fn side_name(side: Side) -> &'static str {
    match side {
        Side::Client => "client",
        Side::Gateway => "gateway",
        Side::Upstream => "upstream",
    }
}

/// Appends text with everything escaped that would end a JSON string or a line.
fn push_escaped(out: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            control if control.is_control() => {
                // Writing to a string never fails.
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
}

/// Appends an RFC 3339 time in UTC with milliseconds.
fn push_time(out: &mut String, time: SystemTime) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    // Writing to a string never fails.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis(),
    );
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Source: Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
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
            let mut out = String::new();
            push_time(&mut out, UNIX_EPOCH + Duration::from_secs(seconds));
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_path_can_not_forge_a_line() {
        let mut out = String::new();
        push_escaped(&mut out, "/a\"\\\n\u{85}b");
        assert_eq!(out, "/a\\\"\\\\\\u000a\\u0085b");
    }
}
