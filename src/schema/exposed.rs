//! Server reflection at the edge: answers for what the gateway exposes and for nothing else.
//!
//! A service or method that is not exposed is absent from the files too. Files are cut at the wire level and only
//! where something is hidden, so that options and fields that nobody here knows reach the client as they came.
//! The messages of v1 and v1alpha are the same on the wire, so one answer serves both.
//! Source: `grpc.reflection.v1.ServerReflection`.

mod cut;
mod index;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
};

use crate::schema::{Method, Schema, embedded};
use crate::status::Code;

use cut::Visible;
use index::Index;

/// The reflection services themselves, newest first. Each has one method, `ServerReflectionInfo`.
pub const SERVICES: [&str; 2] = [
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

/// The rpc paths of the reflection services, in the order of [`SERVICES`].
pub const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The health service, which the gateway answers too.
pub const HEALTH: &str = "grpc.health.v1.Health";

/// What is exposed, as files. Immutable; clones share it.
#[derive(Clone)]
pub struct Exposed(Arc<Inner>);

struct Inner {
    /// The full names of the services, sorted.
    services: Vec<String>,
    index: Index,
}

impl fmt::Debug for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exposed")
            .field("services", &self.0.services)
            .finish_non_exhaustive()
    }
}

impl Default for Exposed {
    fn default() -> Self {
        Self::new([])
    }
}

impl Exposed {
    /// What is exposed of each schema. A method that is exposed by one schema is visible in the files of all.
    ///
    /// Two backends may each have a file of one name; see [`Exposed::conflicts`] for what can't be served as it is.
    pub fn new<'a>(parts: impl IntoIterator<Item = (&'a Schema, &'a [Arc<Method>])>) -> Self {
        let parts: Vec<_> = parts.into_iter().collect();
        let visible: Visible = parts.iter().flat_map(|(_, methods)| methods.iter()).collect();
        let services: BTreeSet<String> = visible
            .services()
            .cloned()
            .chain(SERVICES.map(str::to_owned))
            .chain([HEALTH.to_owned()])
            .collect();
        let mut index = Index::default();
        for (schema, _) in &parts {
            index.add_schema(schema, &visible);
        }
        for (name, bytes) in embedded::files() {
            index.add_embedded(name, bytes);
        }
        Self(Arc::new(Inner {
            services: services.into_iter().collect(),
            index,
        }))
    }

    /// The full names of the services that are listed, sorted.
    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.0.services.iter().map(String::as_str)
    }

    /// Names of files that declare something otherwise than the file that is served in their place, sorted.
    ///
    /// Types of one full name that differ between two backends can't be told apart by a reflection client; it sees
    /// those of the first backend.
    pub fn conflicts(&self) -> impl Iterator<Item = &str> {
        self.0.index.conflicts()
    }

    /// The encoded answer to one encoded request, of either version.
    ///
    /// What is not exposed does not exist: `NOT_FOUND`. A request that is malformed or asks nothing is
    /// `INVALID_ARGUMENT`.
    #[must_use]
    pub fn answer(&self, request: &[u8]) -> Vec<u8> {
        let (request, answer) = match ServerReflectionRequest::decode(request) {
            Ok(request) => {
                let answer = self.find(request.message_request.as_ref());
                (request, answer)
            }
            Err(_) => (
                ServerReflectionRequest::default(),
                refusal(
                    Code::InvalidArgument,
                    "the message is not a ServerReflectionRequest".to_owned(),
                ),
            ),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        }
        .encode_to_vec()
    }

    fn find(&self, question: Option<&MessageRequest>) -> MessageResponse {
        let index = &self.0.index;
        match question {
            Some(MessageRequest::FileByFilename(name)) => {
                file(index.by_name(name)).unwrap_or_else(|| absent(format!("no file {name:?}")))
            }
            Some(MessageRequest::FileContainingSymbol(name)) => {
                file(index.by_symbol(name)).unwrap_or_else(|| absent(format!("no symbol {name:?}")))
            }
            Some(MessageRequest::FileContainingExtension(ExtensionRequest {
                containing_type: extended,
                extension_number: number,
            })) => file(index.by_extension(extended, *number))
                .unwrap_or_else(|| absent(format!("no extension {number} of {extended:?}"))),
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => match index.extensions(name) {
                Some(extension_number) => {
                    MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                        base_type_name: name.clone(),
                        extension_number,
                    })
                }
                None => absent(format!("no message {name:?}")),
            },
            Some(MessageRequest::ListServices(_)) => {
                MessageResponse::ListServicesResponse(ListServiceResponse {
                    service: self
                        .services()
                        .map(|name| ServiceResponse {
                            name: name.to_owned(),
                        })
                        .collect(),
                })
            }
            None => refusal(Code::InvalidArgument, "the request asks nothing".to_owned()),
        }
    }
}

fn file(file: Option<&Bytes>) -> Option<MessageResponse> {
    Some(MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
        file_descriptor_proto: vec![file?.to_vec()],
    }))
}

fn absent(message: String) -> MessageResponse {
    refusal(Code::NotFound, message)
}

fn refusal(code: Code, message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse {
        error_code: i32::from(code.number()),
        error_message: message,
    })
}

#[cfg(test)]
mod tests;
