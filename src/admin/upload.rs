//! Schemas as bytes, for whoever has a file and curl: a descriptor set, a ZIP archive of `.proto` files, or a form with
//! them. Whatever is JSON or gRPC goes through the admin service.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::api::Api;
use super::controls::Upload;
use super::operator::Operator;
use crate::fault::{Fault, Kind};
use crate::status::{Code, Status};
use crate::wire::body::Body;
use crate::wire::multipart;
use crate::wire::received::Received;
use crate::wire::zip::{self, ZipLimits};

/// The largest body. Not measured: the descriptors of a large company have 30 MiB.
const MAX_BODY_BYTES: usize = 32 << 20;
/// What may be in an archive or a form.
const MAX_FILES: ZipLimits = ZipLimits {
    files: 8_192,
    bytes: 64 << 20,
};
/// Where schemas are.
const PREFIX: &str = "/v1/schemas/";
/// The content type of an encoded message.
const PROTOBUF: &str = "application/x-protobuf";

/// What a schema is put as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Set,
    Zip,
    Multipart,
}

/// A request about a schema that is not in JSON.
#[derive(Debug)]
pub(super) enum Raw {
    /// Its descriptor set is asked for.
    Get(String),
    /// It is put.
    Put(String, Form),
}

impl Raw {
    /// What a request asks for, if it is about a schema as bytes.
    pub(super) fn of(head: &Parts) -> Option<Self> {
        let name = head.uri.path().strip_prefix(PREFIX)?.to_owned();
        if head.method == Method::PUT {
            let form = match essence(head)?.as_str() {
                PROTOBUF | "application/protobuf" | "application/octet-stream" => Form::Set,
                "application/zip" | "application/x-zip-compressed" => Form::Zip,
                "multipart/form-data" => Form::Multipart,
                _ => return None,
            };
            return Some(Self::Put(name, form));
        }
        let wanted = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        let wants_bytes =
            wanted.is_some_and(|wanted| wanted.split(',').any(|one| essence_of(one) == PROTOBUF));
        (head.method == Method::GET && wants_bytes).then_some(Self::Get(name))
    }

    /// Answers it.
    ///
    /// # Errors
    /// The fault that the operator is told.
    pub(super) async fn answer(
        self,
        head: &Parts,
        body: Received,
        operator: &Operator,
        api: &Api,
    ) -> Result<Response<Body>, Fault> {
        match self {
            Self::Get(name) => {
                let registry = operator.controls.registry();
                let found = registry.get(&name).ok_or_else(|| {
                    Fault::client(Kind::RouteNotFound, format!("no schema \"{name}\" is registered"))
                })?;
                Ok(response(PROTOBUF, found.set.clone()))
            }
            Self::Put(name, form) => {
                let body = Limited::new(body, MAX_BODY_BYTES)
                    .collect()
                    .await
                    .map_err(|error| {
                        let kind = if error.is::<http_body_util::LengthLimitError>() {
                            Kind::MessageTooLarge
                        } else {
                            Kind::BadRequest
                        };
                        Fault::client(kind, format!("the body can't be read: {error}"))
                    })?;
                let upload = read(form, head, body.to_bytes())?;
                let put = operator
                    .put(name, upload)
                    .await
                    .map_err(|status| fault(&status))?;
                let json = api.json("sabir.admin.v1.PutSchemaResponse", &put)?;
                Ok(response("application/json", json.freeze()))
            }
        }
    }
}

fn read(form: Form, head: &Parts, body: Bytes) -> Result<Upload, Fault> {
    let invalid = |error: String| Fault::client(Kind::InvalidArgument, error);
    let named = match form {
        Form::Set => return Ok(Upload::Set(body)),
        Form::Zip => {
            let is_proto = |name: &str| name.ends_with(".proto");
            zip::files(&body, MAX_FILES, is_proto).map_err(|error| invalid(error.to_string()))?
        }
        Form::Multipart => {
            let content_type = head
                .headers
                .get(CONTENT_TYPE)
                .and_then(|value| value.to_str().ok());
            let parts = multipart::parts(content_type.unwrap_or_default(), &body, MAX_FILES.files)
                .map_err(|error| invalid(error.to_string()))?;
            parts
                .into_iter()
                .map(|part| {
                    // The name of the field can say where the file is imported from; that of the file is mostly its last part.
                    let name = if part.name.ends_with(".proto") {
                        part.name
                    } else {
                        part.file_name.unwrap_or(part.name)
                    };
                    (name, part.body.to_vec())
                })
                .collect()
        }
    };
    let mut files = BTreeMap::new();
    for (name, bytes) in named {
        let text = String::from_utf8(bytes).map_err(|_| invalid(format!("{name}: it is not UTF-8")))?;
        if files.insert(name.clone(), text).is_some() {
            return Err(invalid(format!("{name}: the file is there twice")));
        }
    }
    Ok(Upload::Files(files))
}

fn essence(head: &Parts) -> Option<String> {
    let value = head.headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(essence_of(value))
}

fn essence_of(value: &str) -> String {
    let essence = value.split(';').next().unwrap_or_default();
    essence.trim().to_ascii_lowercase()
}

fn response(content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::whole(bytes));
    *response.status_mut() = StatusCode::OK;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The same refusal as the service would give, of a request that did not go through it.
fn fault(status: &Status) -> Fault {
    let kind = match status.code {
        Code::InvalidArgument => Kind::InvalidArgument,
        Code::Unavailable | Code::ResourceExhausted => Kind::Overloaded,
        _ => Kind::Internal,
    };
    Fault::client(kind, status.message.clone())
}
