//! Everything about a method that its descriptor says, resolved once.

use std::fmt;

use prost_reflect::MessageDescriptor;

/// Who streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MethodKind {
    /// One message each way.
    Unary,
    /// One request message, many answers.
    ServerStream,
    /// Many request messages, one answer.
    ClientStream,
    /// Many each way.
    Bidi,
}

impl MethodKind {
    /// Whether the client may send more than one message.
    pub fn client_streams(self) -> bool {
        matches!(self, Self::ClientStream | Self::Bidi)
    }

    /// Whether the server may send more than one message.
    pub fn server_streams(self) -> bool {
        matches!(self, Self::ServerStream | Self::Bidi)
    }
}

/// Whether a call may be sent twice. Source: `google.protobuf.MethodOptions.idempotency_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// Not said.
    Unknown,
    /// The call changes nothing.
    NoSideEffects,
    /// Calling twice is calling once.
    Idempotent,
}

/// The HTTP method of a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HttpMethod {
    /// This method alone.
    Exact(http::Method),
    /// Any method: `custom {kind: "*"}`.
    Any,
}

/// One HTTP rule as written; `additional_bindings` are rules of their own.
///
/// Source: `google.api.HttpRule`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRule {
    /// Which HTTP method it answers.
    pub method: HttpMethod,
    /// The path template.
    pub template: String,
    /// `*`, a field name, or nothing.
    pub body: String,
    /// A field name, or nothing for the whole message.
    pub response_body: String,
}

/// A method of a service.
#[derive(Clone)]
pub struct Method {
    /// The rpc path, such as `/library.v1.Library/GetBook`.
    pub path: Box<str>,
    /// The service's full name, such as `library.v1.Library`.
    pub service: Box<str>,
    /// The method's own name, such as `GetBook`.
    pub name: Box<str>,
    /// Who streams.
    pub kind: MethodKind,
    /// The type of the request messages.
    pub input: MessageDescriptor,
    /// The type of the answers.
    pub output: MessageDescriptor,
    /// Whether it may be called twice.
    pub idempotency: Idempotency,
    /// Its HTTP rules, in the order in which they are written.
    pub rules: Vec<HttpRule>,
    /// Who may call it, by its option or its service's.
    pub policy: Option<Policy>,
}

/// Who may call a method, as its option `sabir.policy` says or its service's `sabir.service_policy`.
///
/// Source: `proto/sabir/policy.proto`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Policy {
    /// Scopes, every one of which the caller has.
    #[prost(string, repeated, tag = "1")]
    pub scopes: Vec<String>,
    /// Scopes of which it has one.
    #[prost(string, repeated, tag = "2")]
    pub any_scopes: Vec<String>,
    /// Roles, every one of which it has.
    #[prost(string, repeated, tag = "3")]
    pub roles: Vec<String>,
    /// Roles of which it has one.
    #[prost(string, repeated, tag = "4")]
    pub any_roles: Vec<String>,
    /// A condition in CEL.
    #[prost(string, tag = "5")]
    pub when: String,
    /// Whether anybody may call.
    #[prost(bool, tag = "6")]
    pub public: bool,
}

impl fmt::Debug for Method {
    /// Types by name: a descriptor would print its whole schema.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Method")
            .field("path", &self.path)
            .field("kind", &self.kind)
            .field("input", &self.input.full_name())
            .field("output", &self.output.full_name())
            .field("idempotency", &self.idempotency)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Method {
    /// Whether calling it twice does the same as calling it once, as far as anybody says so: its idempotency level, or
    /// else HTTP rules that are all of methods which are.
    ///
    /// Source: RFC 9110, section 9.2.2.
    pub fn may_be_repeated(&self) -> bool {
        use http::Method as Verb;
        match self.idempotency {
            Idempotency::NoSideEffects | Idempotency::Idempotent => true,
            Idempotency::Unknown => {
                !self.rules.is_empty()
                    && self.rules.iter().all(|rule| match &rule.method {
                        HttpMethod::Exact(verb) => {
                            matches!(*verb, Verb::GET | Verb::HEAD | Verb::PUT | Verb::DELETE)
                        }
                        HttpMethod::Any => false,
                    })
            }
        }
    }

    /// Whether it may be called by GET with the message in the query: one message each way, and no side effects.
    ///
    /// Source: Connect protocol, "Unary-Get-Request".
    pub fn may_be_got(&self) -> bool {
        self.kind == MethodKind::Unary && self.idempotency == Idempotency::NoSideEffects
    }

    /// The full name, such as `library.v1.Library.GetBook`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.service, self.name)
    }
}
