//! The admin listener: whether the process lives, whether it serves, and what it has counted.
//!
//! It is served by [`crate::listen::serve`] like any other listener, with the same limits, on the control runtime.

mod controls;
mod readiness;

use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

pub use controls::{Controls, Order, Reloaded, Unheard};
pub use readiness::{Readiness, State};

use crate::fault::{Fault, Kind};
use crate::listen::Refuse;
use crate::peer::Peer;
use crate::wire::body::Body;

/// The content type of metrics in the text form. Source: OpenMetrics 1.0, "Content type".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin listener answers from.
#[derive(Clone)]
pub struct Admin {
    readiness: Arc<Readiness>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    refuse: Refuse,
}

impl Admin {
    /// `metrics` writes the text of `/metrics`; `refuse` renders what is refused.
    pub fn new(
        readiness: Arc<Readiness>,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        refuse: Refuse,
    ) -> Self {
        Self {
            readiness,
            metrics: Arc::new(metrics),
            refuse,
        }
    }

    /// The handler for [`crate::listen::serve`].
    pub fn handler(self) -> impl Fn(Request<Incoming>, Peer) -> Ready<Response<Body>> + Clone {
        move |request, _peer| {
            let (head, _body) = request.into_parts();
            let answered = self.answer(&head.method, head.uri.path());
            ready(answered.unwrap_or_else(|fault| (self.refuse)(&head, &fault)))
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// A [`Fault`] of the client: there is nothing at the path, or the method is not GET or HEAD.
    pub fn answer(&self, method: &Method, path: &str) -> Result<Response<Body>, Fault> {
        let page: fn(&Self) -> Page = match path {
            "/livez" => |_| Page::new(StatusCode::OK, "text/plain; charset=utf-8", "ok\n"),
            "/readyz" => Self::ready,
            "/metrics" => |me| Page::new(StatusCode::OK, OPEN_METRICS, (me.metrics)()),
            _ => {
                return Err(Fault::client(
                    Kind::RouteNotFound,
                    "there is nothing here; there are /livez, /readyz and /metrics",
                ));
            }
        };
        if *method == Method::GET || *method == Method::HEAD {
            return Ok(page(self).response(method));
        }
        Err(Fault::client(Kind::MethodNotAllowed, format!("{path} takes GET and HEAD")).allowing("GET, HEAD"))
    }

    fn ready(&self) -> Page {
        let status = match self.readiness.state() {
            State::Ready => StatusCode::OK,
            State::Starting | State::Draining => StatusCode::SERVICE_UNAVAILABLE,
        };
        Page::new(status, "application/json", self.readiness.to_json())
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("readiness", &self.readiness)
            .finish_non_exhaustive()
    }
}

struct Page {
    status: StatusCode,
    content_type: &'static str,
    text: Bytes,
}

impl Page {
    fn new(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Self {
        Self {
            status,
            content_type,
            text: text.into(),
        }
    }

    fn response(self, method: &Method) -> Response<Body> {
        let length = HeaderValue::from(self.text.len());
        let body = if *method == Method::HEAD {
            Body::empty()
        } else {
            Body::whole(self.text)
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CONTENT_LENGTH, length);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests;
