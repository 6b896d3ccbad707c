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
use crate::policy::throttle::Book;
use crate::wire::body::Body;
use crate::wire::url;

/// The content type of metrics in the text form. Source: OpenMetrics 1.0, "Content type".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the admin listener answers from.
#[derive(Clone)]
pub struct Admin {
    readiness: Arc<Readiness>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    limits: Arc<Book>,
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
            limits: Arc::default(),
            refuse,
        }
    }

    /// The same, which tells what was used of the limits in this book.
    #[must_use]
    pub fn telling_of(self, limits: Arc<Book>) -> Self {
        Self { limits, ..self }
    }

    /// The handler for [`crate::listen::serve`].
    pub fn handler(self) -> impl Fn(Request<Incoming>, Peer) -> Ready<Response<Body>> + Clone {
        move |request, _peer| {
            let (head, _body) = request.into_parts();
            let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
            let answered = self.answer(&head.method, target);
            ready(answered.unwrap_or_else(|fault| (self.refuse)(&head, &fault)))
        }
    }

    /// Answers one request.
    ///
    /// # Errors
    /// A [`Fault`] of the client: there is nothing at the path, or the method is not GET or HEAD.
    pub fn answer(&self, method: &Method, target: &str) -> Result<Response<Body>, Fault> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let page: fn(&Self, &str) -> Result<Page, Fault> = match path {
            "/livez" => |_, _| Ok(Page::new(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")),
            "/readyz" => |me, _| Ok(me.ready()),
            "/metrics" => |me, _| Ok(Page::new(StatusCode::OK, OPEN_METRICS, (me.metrics)())),
            "/limits" => Self::used,
            _ => {
                return Err(Fault::client(
                    Kind::RouteNotFound,
                    "there is nothing here; there are /livez, /readyz, /metrics and /limits",
                ));
            }
        };
        if *method == Method::GET || *method == Method::HEAD {
            return page(self, query).map(|page| page.response(method));
        }
        Err(Fault::client(Kind::MethodNotAllowed, format!("{path} takes GET and HEAD")).allowing("GET, HEAD"))
    }

    /// What was used of limits: `?limit=NAME` of one, `&key=KEY` by one caller.
    fn used(&self, query: &str) -> Result<Page, Fault> {
        let asked = |wanted: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let (_, value) = pairs.find(|(name, _)| *name == wanted)?;
            let mut text = String::new();
            url::decode_form(value, &mut text).ok().map(|()| text)
        };
        let limit = asked("limit");
        match self.limits.report(limit.as_deref(), asked("key").as_deref()) {
            Some(text) => Ok(Page::new(StatusCode::OK, "application/json", text)),
            None => Err(Fault::client(
                Kind::RouteNotFound,
                "there is no such limit; /limits tells which there are",
            )),
        }
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
