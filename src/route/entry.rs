//! What a route offers for one method: everything a frontend needs, resolved when the configuration is compiled.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use prost_reflect::MessageDescriptor;

use crate::limits::Limits;
use crate::policy::Access;
use crate::policy::throttle::Checks;
use crate::route::Host;
use crate::route::cors::Cors;
use crate::schema::Method;
use crate::translate::binding::{Binding, BindingError, BodyRule, Outgoing, PathFields};
use crate::translate::json::{JsonOptions, Target, Transcoder};
use crate::translate::{Bounds, Hygiene, Lane, raw_body};
use crate::wire::screen::Screen;
use crate::wire::websocket::origin::Origin;
use crate::wire::{Format, websocket};

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

/// How a route takes WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocket {
    /// Pages of other sites that may open one.
    pub origins: Vec<Origin>,
    /// Whether permessage-deflate is agreed on with clients that offer it.
    pub deflate: bool,
    /// One message of the client.
    pub max_message_bytes: usize,
    /// Frames of one message.
    pub max_fragments: u32,
    /// How often the client is asked whether it is there.
    pub ping_interval: Duration,
    /// How long the answer to a ping may take.
    pub pong_timeout: Duration,
    /// How long neither side may say anything; pings don't count.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of what it is sent.
    pub write_timeout: Duration,
}

impl WebSocket {
    /// What holds where nothing is written, below these limits.
    pub fn of(limits: &Limits) -> Self {
        Self {
            origins: Vec::new(),
            deflate: false,
            max_message_bytes: limits.max_message_bytes,
            max_fragments: websocket::Limits::MAX_FRAGMENTS,
            ping_interval: Duration::from_secs(30),
            pong_timeout: Duration::from_secs(20),
            idle_timeout: limits.idle_timeout,
            write_timeout: Duration::from_secs(30),
        }
    }

    /// What may be read of a client.
    pub fn limits(&self) -> websocket::Limits {
        websocket::Limits {
            max_fragments: self.max_fragments,
            ..websocket::Limits::of_messages(self.max_message_bytes)
        }
    }
}

/// What stands around each message of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StreamEnvelope {
    /// Nothing.
    #[default]
    None,
    /// `{"result": …}`, as grpc-gateway writes and its clients read it.
    Result,
}

/// To whom the gateway tells what it exposes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offer {
    /// To all who can connect.
    #[default]
    Anybody,
    /// To callers who prove who they are, by the way with this index.
    Known(usize),
    /// To nobody.
    Nobody,
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
    /// What stands around each message of a stream.
    pub envelope: StreamEnvelope,
    /// How long a unary call may take; a client's deadline can only shorten it.
    pub unary_timeout: Duration,
    /// How long a stream may take, if that is bounded.
    pub stream_timeout: Option<Duration>,
    /// What a message may be.
    pub bounds: Bounds,
    /// How it takes WebSockets.
    pub websocket: WebSocket,
    /// Which pages of other origins may call; absent, none.
    pub cors: Option<Cors>,
    /// The index of how callers prove who they are; absent, they need not.
    pub auth: Option<usize>,
    /// Who and what is not let in; absent, nobody is kept out.
    pub screen: Option<Arc<Screen>>,
    /// What clients are not told of a backend's errors.
    pub hygiene: Hygiene,
    /// Whether what is known of its backend may be out of date.
    pub doubt: Doubt,
}

/// A flag that calls raise when a backend does not know a method that it told of, or a client asks for one that it has not.
/// Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Doubt(Arc<AtomicBool>);

impl Doubt {
    /// Raises it.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Lowers it, and says whether it was raised.
    pub fn lower(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
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
    /// Whether anybody may call it, known or not.
    pub public: bool,
    /// How often it may be called.
    pub checks: Checks,
    /// What its calls go out as.
    pub outbound: Outbound,
    /// What answers where its backend can't.
    pub answer: Option<FixedAnswer>,
}

/// A fixed answer to a call: its one message, in its envelope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedAnswer(pub Bytes);

/// What calls of a method go out as.
#[derive(Clone, Debug)]
pub enum Outbound {
    /// gRPC.
    Grpc,
    /// HTTP and JSON, by an HTTP rule.
    Rest(Arc<OutboundRest>),
}

impl Outbound {
    /// The name in records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Rest(_) => "rest",
        }
    }

    /// How much work the bodies of a client need that speaks `format`.
    pub fn lane(&self, format: Format) -> Lane {
        match self {
            Self::Grpc => Lane::between(format, Format::GRPC),
            // Of JSON on both sides too: the message is checked against its descriptor on the way.
            Self::Rest(_) => Lane::Transcode,
        }
    }

    /// Why no call of `method` can go out as this, whatever it says.
    pub fn gap(&self, method: &Method) -> Option<&'static str> {
        match self {
            Self::Grpc => None,
            Self::Rest(rest) => rest.rule_for(method).err(),
        }
    }
}

/// How calls of a method become requests of a REST backend.
#[derive(Clone, Debug)]
pub struct OutboundRest {
    /// The rule; nothing if the method has none that can be written.
    pub rule: Option<OutboundRule>,
    /// JSON to protobuf and back, as the backend has it.
    pub json: Transcoder,
    /// The backend's own ways.
    pub options: RestOptions,
}

impl OutboundRest {
    /// The rule by which `method` is called.
    ///
    /// # Errors
    /// Why it can't be.
    pub fn rule_for(&self, method: &Method) -> Result<&OutboundRule, &'static str> {
        if method.kind.client_streams() {
            return Err("streams of requests can't be sent to a REST backend");
        }
        self.rule
            .as_ref()
            .ok_or("it has no HTTP rule by which to call its backend")
    }
}

/// The rule by which a method is called.
#[derive(Clone, Debug)]
pub struct OutboundRule {
    /// The request.
    pub outgoing: Outgoing,
    /// The body of the request.
    pub request: Form,
    /// The body of the answer.
    pub response: Form,
    /// Whether there may be more than one answer.
    pub streams: bool,
    /// Whether an answer may itself be an object with a member `error`.
    pub answers_have_errors: bool,
}

impl OutboundRule {
    /// The rule of a binding.
    ///
    /// # Errors
    /// [`BindingError`]: the rule can be read and not be written.
    pub fn new(
        binding: Binding,
        method: &Method,
        json: &Transcoder,
        repeat: PathFields,
    ) -> Result<Self, BindingError> {
        let outgoing = Outgoing::compile(&binding, json, repeat)?;
        let answer = match binding.response {
            Target::Message(_) => Some(method.output.clone()),
            Target::Field { number, .. } => method
                .output
                .get_field(number)
                .and_then(|field| field.kind().as_message().cloned()),
        };
        let answers_have_errors = answer.is_some_and(|answer| {
            answer.get_field_by_json_name("error").is_some()
                || answer.get_field_by_name("error").is_some()
                || answer.full_name().starts_with("google.protobuf.")
        });
        let bound = Bound::new(binding, method);
        Ok(Self {
            outgoing,
            request: bound.request,
            response: bound.response,
            streams: method.kind.server_streams(),
            answers_have_errors,
        })
    }
}

/// The ways of a REST backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestOptions {
    /// What an HTTP status means where the body does not say.
    pub statuses: StatusTable,
    /// Whether the rest of the deadline is told by `X-Server-Timeout`.
    pub server_timeout: ServerTimeout,
    /// What stands around each message of a stream of answers.
    pub envelope: StreamEnvelope,
}

/// What an HTTP status means for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StatusTable {
    /// What an origin server means by it.
    #[default]
    Origin,
    /// What a gRPC client makes of an answer that is none.
    Grpc,
}

/// Whether a REST backend is told the deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ServerTimeout {
    /// The gateway alone holds it.
    #[default]
    Kept,
    /// In `X-Server-Timeout`, in seconds.
    Told,
}

impl Entry {
    /// A copy that is counted apart from this one, with all that its calls hold: for one worker.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self {
            method: Arc::new(Method::clone(&self.method)),
            outbound: match &self.outbound {
                Outbound::Grpc => Outbound::Grpc,
                Outbound::Rest(rest) => Outbound::Rest(Arc::new(OutboundRest::clone(rest))),
            },
            answer: self
                .answer
                .as_ref()
                .map(|FixedAnswer(answer)| FixedAnswer(Bytes::copy_from_slice(answer))),
            ..self.clone()
        }
    }

    /// The index of how callers of the method prove who they are, if they have to.
    pub fn auth(&self) -> Option<usize> {
        self.route.auth.filter(|_| !self.public)
    }

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
