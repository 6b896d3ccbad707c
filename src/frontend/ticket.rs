//! The path where callers get tickets, with which their pages open WebSockets.

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response};
use serde_json::json;
use tokio::time::Instant;

use crate::fault::{Fault, Kind};
use crate::peer::Peer;
use crate::policy::Gate;
use crate::wire::body::Body;

/// Where tickets of one `auth` block are given.
#[derive(Debug)]
pub struct Booth {
    gate: Gate,
    path: String,
}

impl Booth {
    /// The booth of a gate, if tickets are given there.
    pub fn of(gate: Gate) -> Option<Self> {
        let path = gate.ticket_path()?.to_owned();
        Some(Self { gate, path })
    }

    /// Whether a request asks here.
    pub fn is_asked(&self, head: &Parts) -> bool {
        *head.uri.path() == *self.path
    }

    /// Gives a ticket to a caller who proves who it is.
    ///
    /// # Errors
    /// The gate's refusal, another method than POST, and [`Kind::Overloaded`] for a caller that has too many.
    ///
    /// # Cancel safety
    /// A ticket that nobody has heard of ends by itself.
    pub async fn give(&self, head: &mut Parts, peer: &Peer, now: Instant) -> Result<Response<Body>, Fault> {
        if head.method != Method::POST {
            let fault = Fault::client(Kind::MethodNotAllowed, "tickets are given by POST");
            return Err(fault.allowing("POST"));
        }
        let permit = self.gate.admit(head, peer, now).await?;
        let ticket = self.gate.ticket(&permit).ok_or_else(|| {
            Fault::gateway(
                Kind::Overloaded,
                "too many tickets are out; use those that you have, or wait until they end",
            )
        })?;
        let text = json!({"ticket": ticket.ticket, "expires_in": ticket.holds_for.as_secs()}).to_string();
        let mut response = Response::new(Body::whole(text.into()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}
