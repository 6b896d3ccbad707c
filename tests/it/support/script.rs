//! Conversations as data, and the only code that knows how to play one.
//!
//! A conversation is what a method hears and says in order: `recv` is a message that reaches the backend, `send` one
//! that it answers, `end` its status. It is played over every frontend and every backend; the cell is in the test's
//! name. What is sent by one side is waited for by the other before the next step, so that nothing is held back.

use std::net::SocketAddr;

use serde_json::Value;
use tonic::Code;

use super::backends::{self, Backend, Kind};
use super::clients::rest::Version;
use super::clients::session::{Heard, Session};
use super::clients::websocket::Subprotocol;
use super::framing::{Connect, Stream, Web};
use super::gateway::{Gateway, Settings};
use super::messages::{canonical, method};
use super::{same, within};

/// One step, seen from the backend.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Recv(Value),
    Send(Value),
    End(End),
    /// A message that the gateway lets not pass to the backend, and the code that its client is told.
    RecvRefused(Value, Code),
    /// The same of the backend's.
    SendRefused(Value, Code),
    /// The backend says nothing more, and the gateway ends the call with this code.
    Hold(Code),
    /// The client goes away.
    Leave,
}

/// How a call ends.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) code: Code,
    pub(crate) message: &'static str,
    /// `google.protobuf.Any`s as JSON.
    pub(crate) details: Vec<Value>,
}

/// A message that reaches the backend.
pub(crate) fn recv(message: Value) -> Step {
    Step::Recv(message)
}

/// A message that the backend answers.
pub(crate) fn send(message: Value) -> Step {
    Step::Send(message)
}

/// A message that is refused on its way to the backend.
pub(crate) fn recv_refused(message: Value, code: Code) -> Step {
    Step::RecvRefused(message, code)
}

/// A message that is refused on its way to the client.
pub(crate) fn send_refused(message: Value, code: Code) -> Step {
    Step::SendRefused(message, code)
}

/// The backend is silent until the gateway ends the call.
pub(crate) fn hold(code: Code) -> Step {
    Step::Hold(code)
}

/// The client goes away.
pub(crate) fn leave() -> Step {
    Step::Leave
}

/// The end of the call, without a message.
pub(crate) fn end(code: Code) -> Step {
    fail(code, "")
}

/// The end of the call with a message.
pub(crate) fn fail(code: Code, message: &'static str) -> Step {
    fail_with(code, message, Vec::new())
}

/// The end of the call with a message and details.
pub(crate) fn fail_with(code: Code, message: &'static str, details: Vec<Value>) -> Step {
    Step::End(End {
        code,
        message,
        details,
    })
}

/// A method, what is said, and what travels beside it.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    /// Such as `library.v1.Library/GetBook`.
    pub(crate) path: &'static str,
    pub(crate) steps: Vec<Step>,
    /// Metadata of the request.
    pub(crate) metadata: Vec<(&'static str, &'static str)>,
    /// Metadata before the answer.
    pub(crate) initial: Vec<(&'static str, &'static str)>,
    /// Metadata after it.
    pub(crate) trailing: Vec<(&'static str, &'static str)>,
    /// Both peers compress what they send.
    pub(crate) compressed: bool,
    /// Headers of the request that are its protocol's own, and no metadata.
    pub(crate) own: Vec<(&'static str, &'static str)>,
    /// Members of the route, in YAML.
    pub(crate) route: &'static str,
    /// Members of `limits`, in YAML.
    pub(crate) limit: &'static str,
}

impl Conversation {
    pub(crate) fn new<const N: usize>(path: &'static str, steps: [Step; N]) -> Self {
        Self {
            path,
            steps: steps.into(),
            metadata: Vec::new(),
            initial: Vec::new(),
            trailing: Vec::new(),
            compressed: false,
            own: Vec::new(),
            route: "",
            limit: "",
        }
    }

    /// A second, in the header of whatever the client speaks.
    pub(crate) fn within_a_second(mut self) -> Self {
        self.own = vec![("grpc-timeout", "1S"), ("connect-timeout-ms", "1000")];
        self
    }

    /// The headers that a client sends.
    pub(crate) fn headers(&self) -> impl Iterator<Item = &(&'static str, &'static str)> {
        self.metadata.iter().chain(&self.own)
    }

    pub(crate) fn route(mut self, line: &'static str) -> Self {
        self.route = line;
        self
    }

    pub(crate) fn limit(mut self, line: &'static str) -> Self {
        self.limit = line;
        self
    }

    pub(crate) fn metadata<const N: usize>(mut self, pairs: [(&'static str, &'static str); N]) -> Self {
        self.metadata = pairs.into();
        self
    }

    pub(crate) fn initial<const N: usize>(mut self, pairs: [(&'static str, &'static str); N]) -> Self {
        self.initial = pairs.into();
        self
    }

    pub(crate) fn trailing<const N: usize>(mut self, pairs: [(&'static str, &'static str); N]) -> Self {
        self.trailing = pairs.into();
        self
    }

    pub(crate) fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }
}

/// What a client speaks to the gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Frontend {
    Rest(Version, Stream),
    Web(Version, Web),
    Connect(Version, Connect),
    Grpc,
    WebSocket(Version, Subprotocol),
    /// gRPC without the gateway between: what the two peers make of the conversation alone.
    Nothing,
}

/// Plays a conversation through the gateway and checks both ends of it.
pub(crate) async fn play(mut conversation: Conversation, frontend: Frontend, kind: Kind) {
    let backend = backends::scripted(kind, conversation.clone()).await;
    let mut settings = Settings::to(backend.address)
        .route(conversation.route)
        .limit(conversation.limit);
    if kind.is_rest() {
        settings.protocol = "rest";
        settings.rules = Some(backends::origin::rules(conversation.path));
        settings = settings.backend(if kind == Kind::Http2 { "http2: true" } else { "" });
        // An answer in JSON has headers and no trailers.
        conversation.trailing.clear();
    }
    let gateway = match frontend {
        Frontend::Nothing => None,
        Frontend::Rest(..)
        | Frontend::Web(..)
        | Frontend::Connect(..)
        | Frontend::WebSocket(..)
        | Frontend::Grpc => Some(Gateway::start(&settings).await),
    };
    let address = gateway
        .as_ref()
        .map_or(backend.address, |gateway| gateway.address);
    if kind.is_rest() && method(conversation.path).is_client_streaming() {
        within("the refusal", is_refused(&conversation, frontend, address)).await;
        assert_eq!(backend.begun(), 0, "{}", backend.problems());
        return;
    }
    within(
        "the conversation",
        converse(&conversation, frontend, address, &backend),
    )
    .await;
    backend.has_played_to_the_end().await;
}

/// Takes the client's part of a conversation.
async fn converse(conversation: &Conversation, frontend: Frontend, address: SocketAddr, backend: &Backend) {
    let method = method(conversation.path);
    let mut session = Session::start(conversation, frontend, address).await;
    let last = conversation
        .steps
        .iter()
        .rposition(|step| matches!(step, Step::Recv(_) | Step::RecvRefused(..)));
    if last.is_none() {
        session.half_close().await;
    }
    for (at, step) in conversation.steps.iter().enumerate() {
        match step {
            Step::Recv(message) => {
                session.send(message).await;
                if Some(at) == last {
                    session.half_close().await;
                }
            }
            Step::RecvRefused(message, code) => {
                session.send(message).await;
                session.half_close().await;
                assert_eq!(session.refused().await, *code, "{}", backend.problems());
                return;
            }
            Step::SendRefused(_, code) | Step::Hold(code) => {
                assert_eq!(session.refused().await, *code, "{}", backend.problems());
                return;
            }
            Step::Leave => {
                // Some clients send nothing before they are asked for the answer.
                tokio::select! {
                    biased;
                    () = backend.holds() => return,
                    heard = session.next() => panic!("instead of silence: {heard:?}\n{}", backend.problems()),
                }
            }
            Step::Send(message) => match session.next().await {
                Heard::Message(got) => same(
                    &format!("answer of step {at}"),
                    &canonical(&method.output(), message),
                    &canonical(&method.output(), &got),
                ),
                Heard::End(end) => panic!("step {at}: the call ended: {end:?}\n{}", backend.problems()),
            },
            Step::End(wanted) => match session.next().await {
                Heard::Message(got) => panic!("step {at}: a message instead of the end: {got}"),
                Heard::End(got) => {
                    assert_eq!(got.code, wanted.code, "{got:?}\n{}", backend.problems());
                    assert_eq!(got.message, wanted.message);
                    assert_eq!(got.details, wanted.details);
                }
            },
        }
    }
    session.has_heard_metadata(conversation);
}

/// A stream of requests has no form in HTTP and JSON: it is refused before anything is sent.
async fn is_refused(conversation: &Conversation, frontend: Frontend, address: SocketAddr) {
    let mut session = Session::start(conversation, frontend, address).await;
    session.half_close().await;
    match session.next().await {
        Heard::End(end) => assert_eq!(end.code, Code::Unimplemented, "{end:?}"),
        Heard::Message(message) => panic!("a message instead of the refusal: {message}"),
    }
}

/// Makes a module of a conversation, with a test for every frontend and backend.
macro_rules! conversation {
    ($($conversation:tt)+) => {
        $crate::support::script::module!([
            nothing_to_tonic = Nothing => Tonic,
            nothing_to_h2 = Nothing => H2,
        ] $($conversation)+);
    };
}

/// The same for what only a gateway does, so that there is nothing to see without one.
macro_rules! guarded {
    ($($conversation:tt)+) => {
        $crate::support::script::module!([] $($conversation)+);
    };
}

/// The module of a conversation, with further cells.
macro_rules! module {
    ([$($further:tt)*] $name:ident, $path:literal, [$($step:expr),+ $(,)?] $(, $with:ident ($($argument:tt)*))* $(,)?) => {
        mod $name {
            use super::*;

            fn conversation() -> $crate::support::script::Conversation {
                $crate::support::script::Conversation::new($path, [$($step),+])$(.$with($($argument)*))*
            }

            $crate::support::script::cells!(conversation:
                rest_http1_ndjson_to_tonic = Rest(Http1, Ndjson) => Tonic,
                rest_http2_ndjson_to_h2 = Rest(Http2, Ndjson) => H2,
                rest_http2_sse_to_tonic = Rest(Http2, Sse) => Tonic,
                rest_http1_array_to_h2 = Rest(Http1, Array) => H2,
                rest_http2_array_to_tonic = Rest(Http2, Array) => Tonic,
                rest_http1_sse_to_h2 = Rest(Http1, Sse) => H2,
                web_binary_http1_to_tonic = Web(Http1, Binary) => Tonic,
                web_binary_http2_to_h2 = Web(Http2, Binary) => H2,
                web_text_http1_to_h2 = Web(Http1, Text) => H2,
                connect_proto_http1_to_h2 = Connect(Http1, Proto) => H2,
                connect_proto_http2_to_tonic = Connect(Http2, Proto) => Tonic,
                connect_json_http1_to_tonic = Connect(Http1, Json) => Tonic,
                connect_json_http2_to_h2 = Connect(Http2, Json) => H2,
                grpc_to_tonic = Grpc => Tonic,
                grpc_to_h2 = Grpc => H2,
                websocket_json_http1_to_tonic = WebSocket(Http1, SabirJson) => Tonic,
                websocket_json_http2_to_h2 = WebSocket(Http2, SabirJson) => H2,
                websocket_proto_http1_to_h2 = WebSocket(Http1, SabirProto) => H2,
                rest_http1_ndjson_to_http1 = Rest(Http1, Ndjson) => Http1,
                rest_http2_sse_to_http2 = Rest(Http2, Sse) => Http2,
                rest_http2_array_to_http1 = Rest(Http2, Array) => Http1,
                web_binary_http1_to_http1 = Web(Http1, Binary) => Http1,
                web_text_http2_to_http2 = Web(Http2, Text) => Http2,
                connect_proto_http1_to_http2 = Connect(Http1, Proto) => Http2,
                connect_json_http2_to_http1 = Connect(Http2, Json) => Http1,
                grpc_to_http1 = Grpc => Http1,
                grpc_to_http2 = Grpc => Http2,
                websocket_json_http1_to_http1 = WebSocket(Http1, SabirJson) => Http1,
                websocket_proto_http2_to_http2 = WebSocket(Http2, SabirProto) => Http2,
                $($further)*
            );
        }
    };
}

/// One test a cell.
macro_rules! cells {
    ($conversation:ident: $($cell:ident = $frontend:ident $(($version:ident, $form:ident))? => $kind:ident),+ $(,)?) => {
        $(
            #[tokio::test]
            async fn $cell() {
                use $crate::support::backends::Kind;
                use $crate::support::script::{Frontend, play};
                $(
                    use $crate::support::clients::rest::Version::$version;
                    use $crate::support::framing::forms::$form;
                )?
                play($conversation(), Frontend::$frontend $(($version, $form))?, Kind::$kind).await;
            }
        )+
    };
}

pub(crate) use {cells, conversation, guarded, module};
