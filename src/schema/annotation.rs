//! HTTP rules as method options carry them.
//!
//! They are read from the bytes of the options, so it does not matter whether the extension's own file is among
//! the schema's files. Source: `google.api.http`, extension 72295728 of `google.protobuf.MethodOptions`.

use prost::Message as _;

use super::method;
use super::raw::{self, Malformed};
use super::rules::RuleProblem;

/// The number of the extension `google.api.http`.
const HTTP: u32 = 72_295_728;

/// `google.api.HttpRule` without its selector, which an annotation does not need.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HttpRule {
    #[prost(oneof = "Pattern", tags = "2, 3, 4, 5, 6, 8")]
    pub(super) pattern: Option<Pattern>,
    #[prost(string, tag = "7")]
    pub(super) body: String,
    #[prost(message, repeated, tag = "11")]
    pub(super) additional_bindings: Vec<Self>,
    #[prost(string, tag = "12")]
    pub(super) response_body: String,
}

/// The HTTP method with its path template.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Pattern {
    #[prost(string, tag = "2")]
    Get(String),
    #[prost(string, tag = "3")]
    Put(String),
    #[prost(string, tag = "4")]
    Post(String),
    #[prost(string, tag = "5")]
    Delete(String),
    #[prost(string, tag = "6")]
    Patch(String),
    #[prost(message, tag = "8")]
    Custom(CustomHttpPattern),
}

/// `google.api.CustomHttpPattern`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct CustomHttpPattern {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) path: String,
}

/// The rules in the bytes of a `MethodOptions`, additional bindings flattened, and what is wrong with the others.
///
/// One bad binding does not take the others with it.
///
/// # Errors
/// The bytes are not a message at all.
pub(super) fn read(options: &[u8]) -> Result<(Vec<method::HttpRule>, Vec<RuleProblem>), Malformed> {
    let mut annotation = None;
    for field in raw::fields(options) {
        let field = field?;
        if field.number == HTTP
            && let Some(bytes) = field.value.bytes()
        {
            // Parts of a message that stand apart are one message when they are put together.
            annotation.get_or_insert_with(Vec::new).extend_from_slice(bytes);
        }
    }
    let Some(annotation) = annotation else {
        return Ok((Vec::new(), Vec::new()));
    };
    let Ok(mut first) = HttpRule::decode(annotation.as_slice()) else {
        return Ok((Vec::new(), vec![RuleProblem::Malformed]));
    };
    let additional = std::mem::take(&mut first.additional_bindings);
    let mut rules = Vec::with_capacity(1 + additional.len());
    let mut problems = Vec::new();
    for wire in std::iter::once(first).chain(additional) {
        match rule(wire) {
            Ok(rule) => rules.push(rule),
            Err(problem) => problems.push(problem),
        }
    }
    Ok((rules, problems))
}

/// The number of the extensions `sabir.policy` and `sabir.service_policy`.
const POLICY: u32 = 77_410;

/// The policy in the bytes of a `MethodOptions` or a `ServiceOptions`, if there is one.
///
/// # Errors
/// The bytes are not a message, or the policy is none: what says who may call has to be understood.
pub(super) fn policy(options: &[u8]) -> Result<Option<method::Policy>, Malformed> {
    let mut found: Option<Vec<u8>> = None;
    for field in raw::fields(options) {
        let field = field?;
        if field.number == POLICY
            && let Some(bytes) = field.value.bytes()
        {
            found.get_or_insert_default().extend_from_slice(bytes);
        }
    }
    found
        .map(|bytes| method::Policy::decode(bytes.as_slice()))
        .transpose()
        .map_err(|_| Malformed("what is there as sabir.policy"))
}

/// One rule without additional bindings.
pub(super) fn rule(wire: HttpRule) -> Result<method::HttpRule, RuleProblem> {
    use method::HttpMethod::{Any, Exact};
    if !wire.additional_bindings.is_empty() {
        return Err(RuleProblem::Nested);
    }
    let (method, template) = match wire.pattern {
        None => return Err(RuleProblem::NoPattern),
        Some(Pattern::Get(path)) => (Exact(http::Method::GET), path),
        Some(Pattern::Put(path)) => (Exact(http::Method::PUT), path),
        Some(Pattern::Post(path)) => (Exact(http::Method::POST), path),
        Some(Pattern::Delete(path)) => (Exact(http::Method::DELETE), path),
        Some(Pattern::Patch(path)) => (Exact(http::Method::PATCH), path),
        Some(Pattern::Custom(custom)) if custom.kind == "*" => (Any, custom.path),
        Some(Pattern::Custom(custom)) => match http::Method::from_bytes(custom.kind.as_bytes()) {
            Ok(method) => (Exact(method), custom.path),
            Err(_) => return Err(RuleProblem::Kind(custom.kind)),
        },
    };
    Ok(method::HttpRule {
        method,
        template,
        body: wire.body,
        response_body: wire.response_body,
    })
}
