//! The admin listener: whether the process lives, whether it serves, what it has counted, and what operators ask of it.
//!
//! It is served by [`crate::listen::serve`] like any other listener, with the same limits, on the control runtime.

mod api;
mod controls;
mod generated;
mod guard;
mod operator;
mod readiness;
mod upload;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};

pub use api::ApiError;
pub use controls::{
    Controls, Order, PutSchema, Registered, Registry, RegistryError, Reloaded, Unheard, Upload, WhileInUse,
};
pub use guard::Guard;
pub use readiness::{Readiness, State};

use crate::fault::{Fault, Kind};
use crate::listen::Refuse;
use crate::peer::Peer;
use crate::policy::throttle::Book;
use crate::wire::body::Body;
use crate::wire::received::Received;
use crate::wire::url;
use api::Api;
use operator::Operator;
use upload::Raw;

/// The content type of metrics in the text form. Source: OpenMetrics 1.0, "Content type".
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An answer on its way.
type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// What the admin listener answers from.
#[derive(Clone)]
pub struct Admin {
    guard: Guard,
    operator: Operator,
    api: Arc<Api>,
    metrics: Arc<dyn Fn() -> String + Send + Sync>,
    limits: Arc<Book>,
    refuse: Refuse,
}

impl Admin {
    /// `metrics` writes the text of `/metrics`; `refuse` renders what is refused.
    ///
    /// # Errors
    /// What is built in does not fit together.
    pub fn new(
        guard: Guard,
        readiness: Arc<Readiness>,
        controls: Controls,
        metrics: impl Fn() -> String + Send + Sync + 'static,
        refuse: Refuse,
    ) -> Result<Self, ApiError> {
        let operator = Operator { readiness, controls };
        Ok(Self {
            guard,
            api: Arc::new(Api::new(&operator)?),
            operator,
            metrics: Arc::new(metrics),
            limits: Arc::default(),
            refuse,
        })
    }

    /// The same, which tells what was used of the limits in this book.
    #[must_use]
    pub fn telling_of(self, limits: Arc<Book>) -> Self {
        Self { limits, ..self }
    }

    /// The handler for [`crate::listen::serve`].
    pub fn handler(self) -> impl Fn(Request<Received>, Peer) -> Answering + Clone {
        move |request, peer| {
            let me = self.clone();
            Box::pin(async move { me.serve(request, peer).await })
        }
    }

    async fn serve(&self, request: Request<Received>, peer: Peer) -> Response<Body> {
        let (mut head, body) = request.into_parts();
        match self.admit(&mut head) {
            Ok(Some(page)) => return page,
            Ok(None) => {}
            Err(fault) => return (self.refuse)(&head, &fault),
        }
        let Some(raw) = Raw::of(&head) else {
            return self.api.serve(Request::from_parts(head, body), peer).await;
        };
        let answered = raw.answer(&head, body, &self.operator, &self.api).await;
        answered.unwrap_or_else(|fault| (self.refuse)(&head, &fault))
    }

    /// Checks who asks, and answers what is a page.
    ///
    /// # Errors
    /// A [`Fault`] of the client: it may not ask, there is nothing at the path, or a page does not take the method.
    pub fn admit(&self, head: &mut Parts) -> Result<Option<Response<Body>>, Fault> {
        let path = head.uri.path().to_owned();
        // Whoever looks after processes asks without credentials, and is told nothing but whether all is well.
        if !matches!(path.as_str(), "/livez" | "/readyz") {
            self.guard.origin(head)?;
            self.guard.token(head)?;
        }
        let page: fn(&Self, &str) -> Result<Page, Fault> = match path.as_str() {
            "/livez" => |_, _| Ok(Page::new(StatusCode::OK, "text/plain; charset=utf-8", "ok\n")),
            "/readyz" if self.may_see_reasons(head) => |me, _| Ok(me.ready(me.operator.readiness.to_json())),
            "/readyz" => |me, _| Ok(me.ready(me.operator.readiness.state_to_json())),
            "/metrics" => |me, _| Ok(Page::new(StatusCode::OK, OPEN_METRICS, (me.metrics)())),
            "/limits" => Self::used,
            "/" => {
                return Err(Fault::client(
                    Kind::RouteNotFound,
                    "there is nothing here; there are /livez, /readyz, /metrics, /limits and the service sabir.admin.v1.Admin, \
                     such as /v1/status",
                ));
            }
            _ => return Ok(None),
        };
        if head.method == Method::GET || head.method == Method::HEAD {
            let query = head.uri.query().unwrap_or_default();
            return page(self, query).map(|page| Some(page.response(&head.method)));
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

    /// Reasons name files and backends: they are for whoever may see the rest.
    fn may_see_reasons(&self, head: &mut Parts) -> bool {
        self.guard.origin(head).is_ok() && self.guard.token(head).is_ok()
    }

    fn ready(&self, text: String) -> Page {
        let status = match self.operator.readiness.state() {
            State::Ready => StatusCode::OK,
            State::Starting | State::Draining => StatusCode::SERVICE_UNAVAILABLE,
        };
        Page::new(status, "application/json", text)
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("readiness", &self.operator.readiness)
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
