//! What a route offers for one method: everything a frontend needs, resolved when the configuration is compiled.

use std::sync::Arc;
use std::time::Duration;

use prost_reflect::MessageDescriptor;

use crate::policy::Access;
use crate::route::Host;
use crate::route::cors::Cors;
use crate::schema::Method;
use crate::translate::binding::{Binding, BodyRule};
use crate::translate::json::{JsonOptions, Target, Transcoder};
use crate::translate::{Bounds, raw_body};

/// How a stream of answers is framed for a REST client that does not choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Streaming {
    /// One JSON text a line.
    #[default]
    Ndjson,
    /// One JSON array.
    Array,
    /// Server-sent events.
    Sse,
}

/// A route of the configuration, without what only its methods know.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name in records and metrics.
    pub name: String,
    /// The index of its backend.
    pub backend: usize,
    /// The hosts that it answers; empty for any.
    pub hosts: Vec<Host>,
    /// How JSON is read and written.
    pub json: JsonOptions,
    /// The framing of streams where `Accept` does not choose.
    pub streaming: Streaming,
    /// How long a unary call may take; a client's deadline can only shorten it.
    pub unary_timeout: Duration,
    /// How long a stream may take, if that is bounded.
    pub stream_timeout: Option<Duration>,
    /// What a message may be.
    pub bounds: Bounds,
    /// Which pages of other origins may call; absent, none.
    pub cors: Option<Cors>,
    /// The index of how callers prove who they are; absent, they need not.
    pub auth: Option<usize>,
}

/// One method on one route.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The route.
    pub route: Arc<Route>,
    /// The method.
    pub method: Arc<Method>,
    /// Its HTTP rules in use.
    pub bindings: Vec<Bound>,
    /// The rule of the rpc path: `POST /package.Service/Method`, body `*`.
    pub rpc: Bound,
    /// JSON to protobuf and back.
    pub json: Transcoder,
    /// Who may call it; absent, whoever the route lets in.
    pub access: Option<Arc<Access>>,
}

impl Entry {
    /// The binding that a request matched: an HTTP rule, or the rpc path.
    pub fn bound(&self, matched: Option<u32>) -> &Bound {
        matched
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.bindings.get(at))
            .unwrap_or(&self.rpc)
    }

    /// How long a call may take by the route's word.
    pub fn timeout(&self) -> Option<Duration> {
        if self.method.kind.client_streams() || self.method.kind.server_streams() {
            self.route.stream_timeout
        } else {
            Some(self.route.unary_timeout)
        }
    }
}

/// A binding, and what the bodies of its requests and answers are.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The HTTP rule.
    pub binding: Binding,
    /// The body of a request.
    pub request: Form,
    /// The body of an answer.
    pub response: Form,
}

impl Bound {
    /// A binding of `method`, whose bodies are JSON but where a `google.api.HttpBody` makes them raw.
    pub fn new(binding: Binding, method: &Method) -> Self {
        let request = match (binding.body, binding.body_target()) {
            (BodyRule::All, Some(_)) if is_http_body(&method.input) => Form::Raw(None),
            (BodyRule::Field(number), Some(_)) if has_http_body(&method.input, number) => {
                Form::Raw(Some(number))
            }
            (_, Some(target)) => Form::Json(target),
            (_, None) => Form::None,
        };
        let response = match binding.response {
            Target::Message(_) if is_http_body(&method.output) => Form::Raw(None),
            Target::Field { number, .. } if has_http_body(&method.output, number) => Form::Raw(Some(number)),
            target @ (Target::Message(_) | Target::Field { .. }) => Form::Json(target),
        };
        Self {
            binding,
            request,
            response,
        }
    }
}

fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == raw_body::NAME
}

/// Whether a field is one `google.api.HttpBody`.
fn has_http_body(message: &MessageDescriptor, number: u32) -> bool {
    message.get_field(number).is_some_and(|field| match field.kind() {
        prost_reflect::Kind::Message(inner) => !field.is_list() && !field.is_map() && is_http_body(&inner),
        _ => false,
    })
}

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// There is no body.
    None,
    /// JSON of this target.
    Json(Target),
    /// Raw bytes: the message is a `google.api.HttpBody`, or its field of this number is one.
    Raw(Option<u32>),
}
