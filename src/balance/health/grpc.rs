//! `grpc.health.v1` as a client. Source: gRPC Health Checking Protocol.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tokio_util::task::TaskTracker;

use super::{MAX_BODY, Trouble, request};
use crate::status::Code;
use crate::upstream::Pool;
use crate::wire::body::Body;
use crate::wire::ending;
use crate::wire::envelope::{self, Reader};

/// `SERVING` of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
const SERVING: i32 = 1;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct Question {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Answer {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Asks once.
pub(super) async fn check(pool: &Pool, service: &str, tasks: &TaskTracker) -> Result<(), Trouble> {
    let mut watch = ask(pool, "/grpc.health.v1.Health/Check", service, tasks).await?;
    let serves = watch.next().await?;
    // The status that follows a message has to be a good one too.
    while watch.next().await?.is_some() {}
    match serves {
        Some(true) => Ok(()),
        Some(false) | None => Err(Trouble::NotServing),
    }
}

/// Asks to be told of each change.
pub(super) async fn watch(pool: &Pool, service: &str, tasks: &TaskTracker) -> Result<Watch, Trouble> {
    ask(pool, "/grpc.health.v1.Health/Watch", service, tasks).await
}

/// Answers that come one after the other.
pub(super) struct Watch {
    body: Body,
    reader: Reader,
    ended: bool,
}

async fn ask(pool: &Pool, path: &'static str, service: &str, tasks: &TaskTracker) -> Result<Watch, Trouble> {
    let path = PathAndQuery::from_static(path);
    let mut request = request(pool.connector(), Method::POST, &path).ok_or(Trouble::Request)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let question = Question {
        service: service.to_owned(),
    };
    let mut message = BytesMut::with_capacity(envelope::PREFIX + question.encoded_len());
    let prefix = envelope::prefix(question.encoded_len()).map_err(|_| Trouble::Request)?;
    message.put_slice(&prefix);
    // There is room for it.
    question.encode(&mut message).map_err(|_| Trouble::Request)?;
    let lease = pool.lease().await?;
    let response: Response<Body> = lease.send(&request, Body::whole(message.freeze()), tasks).await?;
    if response.status() != StatusCode::OK {
        return Err(match response.status() {
            // What answers so is no gRPC server at that path.
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Trouble::Unimplemented,
            status => Trouble::Status(status),
        });
    }
    let (mut head, body) = response.into_parts();
    if head.headers.contains_key("grpc-status") {
        ended(&mut head.headers)?;
    }
    Ok(Watch {
        body,
        reader: Reader::new(MAX_BODY),
        ended: false,
    })
}

impl Watch {
    /// Whether the server serves, as it says next; `None` once it says nothing more.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn next(&mut self) -> Result<Option<bool>, Trouble> {
        loop {
            if let Some(envelope) = self.reader.next_envelope().map_err(|_| Trouble::Says)? {
                let payload: Bytes = envelope.payload;
                let answer = Answer::decode(payload).map_err(|_| Trouble::Says)?;
                return Ok(Some(answer.status == SERVING));
            }
            if self.ended {
                return Ok(None);
            }
            match self.body.frame().await.transpose().map_err(Trouble::Body)? {
                None => {
                    self.ended = true;
                }
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.reader.push(data),
                    Err(frame) => {
                        self.ended = true;
                        if let Ok(mut trailers) = frame.into_trailers() {
                            ended(&mut trailers)?;
                        }
                    }
                },
            }
        }
    }
}

/// What a status says of the server.
fn ended(trailers: &mut HeaderMap) -> Result<(), Trouble> {
    match ending::take(trailers) {
        None => Ok(()),
        Some(status) => match status.code {
            Code::Ok => Ok(()),
            Code::Unimplemented => Err(Trouble::Unimplemented),
            // The service is not there.
            Code::NotFound => Err(Trouble::NotServing),
            code => Err(Trouble::Grpc(code.to_string())),
        },
    }
}
