//! How the library says no: a status with the details that a program can read.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;
use tonic::{Code, Status};

use super::generated::google::rpc;

/// The domain of the library's own reasons.
const DOMAIN: &str = "library.example";

/// What the library does not do, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such shelf, book, cover or file.
    NotFound { what: &'static str, name: String },
    /// A book of this name is there already.
    Exists { name: String },
    /// A field holds what it can't hold.
    Invalid { field: String, description: String },
    /// The library is full; sizes are in `what`.
    Full { what: &'static str, limit: usize },
}

impl Refusal {
    /// A field that holds what it can't hold.
    pub(super) fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            description: description.into(),
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound { what, name } => with_detail(
                Code::NotFound,
                format!("no {what} \"{name}\""),
                &error_info("NOT_FOUND", [("kind", what.to_owned()), ("name", name)]),
            ),
            Refusal::Exists { name } => with_detail(
                Code::AlreadyExists,
                format!("\"{name}\" is there already"),
                &error_info("EXISTS", [("name", name)]),
            ),
            Refusal::Invalid { field, description } => with_detail(
                Code::InvalidArgument,
                format!("{field}: {description}"),
                &violation(field, description),
            ),
            Refusal::Full { what, limit } => with_detail(
                Code::ResourceExhausted,
                format!("the library takes at most {limit} {what}"),
                &error_info("FULL", [("limit", limit.to_string())]),
            ),
        }
    }
}

/// `google.rpc.ErrorInfo` with a reason of the library.
fn error_info<const N: usize>(reason: &str, metadata: [(&str, String); N]) -> prost_types::Any {
    let info = rpc::ErrorInfo {
        reason: reason.to_owned(),
        domain: DOMAIN.to_owned(),
        metadata: metadata
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<BTreeMap<_, _>>(),
    };
    any("google.rpc.ErrorInfo", info.encode_to_vec())
}

/// `google.rpc.BadRequest` with one violation.
fn violation(field: String, description: String) -> prost_types::Any {
    let bad = rpc::BadRequest {
        field_violations: vec![rpc::bad_request::FieldViolation {
            field,
            description,
            ..Default::default()
        }],
    };
    any("google.rpc.BadRequest", bad.encode_to_vec())
}

fn any(name: &str, value: Vec<u8>) -> prost_types::Any {
    prost_types::Any {
        type_url: format!("type.googleapis.com/{name}"),
        value,
    }
}

/// A status whose details are an encoded `google.rpc.Status`.
fn with_detail(code: Code, message: String, detail: &prost_types::Any) -> Status {
    let status = rpc::Status {
        code: i32::from(code),
        message: message.clone(),
        details: vec![detail.clone()],
    };
    Status::with_details(code, message, Bytes::from(status.encode_to_vec()))
}

/// The status that a caller asked for; a code that is not one is refused itself.
pub(super) fn asked_for(status: rpc::Status) -> Status {
    let code = Code::from_i32(status.code);
    if i32::from(code) != status.code {
        return Refusal::invalid("status.code", "0 to 16").into();
    }
    if status.details.is_empty() {
        return Status::new(code, status.message);
    }
    let encoded = Bytes::from(status.encode_to_vec());
    Status::with_details(code, status.message, encoded)
}
