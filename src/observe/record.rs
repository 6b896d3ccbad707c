//! The access record of a call while it is served; written when its answer has ended or was dropped.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::Instant;

use crate::fault::{Kind, Side};
use crate::observe::line::{Destination, Line};
use crate::observe::log::Journal;
use crate::observe::metrics::Series;
use crate::policy::throttle::Places;
use crate::status::Code;
use crate::translate::tally::Outcome;
use crate::translate::{Lane, Tally};
use crate::wire::Dialect;

/// A call that is being served; written when it is dropped.
#[derive(Debug)]
pub struct Record {
    /// Where its line goes.
    pub journal: Arc<Journal>,
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
        let tally = &self.tally;
        let line = Line {
            time: SystemTime::now(),
            client: self.client,
            dialect: self.dialect,
            method: std::mem::take(&mut self.method),
            uri: std::mem::take(&mut self.uri),
            destination: self.destination.take(),
            lane: self.lane,
            endpoint: tally.take_endpoint(),
            retries: tally.retries(),
            http_status: self.http_status,
            outcome,
            limit: tally.limit().map(Box::from),
            close_code: tally.close_code(),
            judged: tally.judged(),
            request_bytes: tally.request_bytes(),
            response_bytes: tally.reply_bytes(),
            request_messages: tally.request_messages(),
            response_messages: tally.reply_messages(),
            duration,
            generation: self.generation,
        };
        self.journal.write(line);
    }
}
