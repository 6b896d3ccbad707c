//! The gRPC backend: a call goes out as gRPC over HTTP/2, whatever the client speaks.
//!
//! Source: gRPC over HTTP/2.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::Instant;
use tower::Service;

use crate::backend::dispatch::{Asked, Dispatch, Sent, Twice, Upload};
use crate::balance::key::KeySource;
use crate::balance::{Ending, Target};
use crate::call::{Call, Deadline, Reply, metadata};
use crate::fault::{Fault, Kind};
use crate::route::entry::FixedAnswer;
use crate::schema::{self, MethodKind};
use crate::stack::deadline::expired;
use crate::status::{Code, Status};
use crate::translate::messages::Direction;
use crate::translate::{Bounds, End, Messages, Tally};
use crate::upstream::stream::Wanted;
use crate::wire::body::Body;
use crate::wire::{ending, timeout};

/// `grpc-timeout`.
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// `grpc-encoding`.
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// `grpc-accept-encoding`.
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A backend that speaks gRPC. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Grpc(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dispatch: Dispatch,
    /// The rpc path, where the endpoint has no prefix.
    path: Option<PathAndQuery>,
    /// Where its calls carry the key that they are balanced by.
    key: KeySource,
    twice: Twice,
    /// What answers where no endpoint can.
    answer: Option<FixedAnswer>,
}

impl Grpc {
    /// Speaks gRPC to the endpoints of `dispatch`, in calls of `method`, with `answer` where none of them can give one.
    pub fn new(dispatch: Dispatch, method: &schema::Method, answer: Option<FixedAnswer>) -> Self {
        Self(Arc::new(Inner {
            answer,
            key: dispatch.key_source(Some(&method.input)),
            path: PathAndQuery::try_from(&*method.path).ok(),
            twice: if method.may_be_repeated() {
                Twice::Harmless
            } else {
                Twice::Never
            },
            dispatch,
        }))
    }

    /// What can be made of the call at once is, so that no room for the call itself is in what waits.
    fn serve(self, call: Call) -> impl Future<Output = Result<Reply, Fault>> + Send + use<> {
        let (bounds, tally) = (call.messages.bounds(), Arc::clone(call.messages.tally()));
        let Call {
            method,
            metadata,
            deadline,
            messages,
            permit,
        } = call;
        let mut wish = self.0.dispatch.wish(&self.0.key, &metadata, permit.identity());
        let (encoding, relays) = (messages.encoding().cloned(), messages.is_raw());
        let mut request = request(metadata, encoding, relays);
        let body = messages.into_grpc_body();
        async move {
            let Inner {
                dispatch,
                path,
                key,
                twice,
                answer,
            } = &*self.0;
            // Held until here: the gate's places are free again once the answer has begun to stream.
            let _held = &permit;
            let upload = if method.kind.client_streams() {
                Upload::Stream
            } else {
                Upload::Message
            };
            let mut body = dispatch.keep(body, upload).await?;
            if let KeySource::Message(_) = key {
                let message = body.first_message().await?;
                wish.key = message.and_then(|message| key.of_message(&message));
            }
            let asked = Asked {
                twice: *twice,
                deadline,
                tally: &tally,
                wish,
                ending: Ending::Status,
                is_unary: method.kind == MethodKind::Unary,
                has_answer: answer.is_some(),
                wanted: Wanted::Read,
            };
            let address = |request: &mut Request<()>, target: &Target, deadline: Option<Deadline>| {
                address(request, (&method, path.as_ref()), deadline, target)
            };
            let sent = dispatch.send(&asked, &mut request, &mut body, &address);
            match (sent.await?, answer) {
                (Sent::Answered(response), _) => read(response, deadline, bounds, tally),
                (Sent::Unanswered, answer) => fixed(answer.as_ref(), bounds, tally),
            }
        }
    }
}

impl Service<Call> for Grpc {
    type Response = Reply;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(self.clone().serve(call))
    }
}

/// A fixed answer as a reply.
pub(super) fn fixed(answer: Option<&FixedAnswer>, bounds: Bounds, tally: Arc<Tally>) -> Result<Reply, Fault> {
    let answer = answer.ok_or_else(|| Fault::gateway(Kind::Internal, "there is no fixed answer"))?;
    Ok(Reply {
        metadata: HeaderMap::new(),
        messages: Messages::answer(answer.0.clone(), End::new(Status::OK), bounds, tally),
    })
}

/// The request, less what changes with each attempt.
fn request(metadata: HeaderMap, encoding: Option<HeaderValue>, relays: bool) -> Request<()> {
    let mut headers = metadata;
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static("sabir"));
    if let Some(encoding) = encoding {
        headers.insert(GRPC_ENCODING, encoding);
    }
    if !relays {
        // Messages that are decoded anyway are cheaper uncompressed; gzip is still understood.
        headers.insert(GRPC_ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    *request.headers_mut() = headers;
    request
}

/// Makes a request one for this endpoint, with what is left of the deadline.
fn address(
    request: &mut Request<()>,
    (method, path): (&schema::Method, Option<&PathAndQuery>),
    deadline: Option<Deadline>,
    target: &Target,
) -> Result<(), Fault> {
    if let Some(deadline) = deadline {
        let left = deadline.left(Instant::now());
        if left.is_zero() {
            return Err(expired());
        }
        request.headers_mut().insert(GRPC_TIMEOUT, timeout::format(left));
    }
    let connector = target.pool.connector();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(connector.scheme().clone());
    parts.authority = Some(connector.authority().clone());
    parts.path_and_query = match connector.prefix() {
        "" => path.cloned(),
        prefix => PathAndQuery::try_from(format!("{prefix}{}", method.path)).ok(),
    };
    *request.uri_mut() = Uri::from_parts(parts).map_err(|error| {
        Fault::gateway(Kind::Internal, "the rpc path is no valid URL path").caused_by(error)
    })?;
    Ok(())
}

/// What the upstream answered: never a success without its word.
fn read(
    response: Response<Body>,
    deadline: Option<Deadline>,
    bounds: Bounds,
    tally: Arc<Tally>,
) -> Result<Reply, Fault> {
    let (mut head, body) = response.into_parts();
    let status = ending::take(&mut head.headers);
    let encoding = head.headers.remove(GRPC_ENCODING);
    let content_type = head.headers.remove(CONTENT_TYPE);
    let is_grpc = content_type
        .as_ref()
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    metadata::from_upstream(&mut head.headers);
    if let Some(status) = status {
        // Some servers keep the deadline too, and cancel the call a moment before it is over here.
        if status.code == Code::Cancelled && deadline.is_some_and(|deadline| deadline.is_over(Instant::now()))
        {
            return Err(expired());
        }
        // Trailers-only: the head is the end.
        let end = End {
            status,
            metadata: head.headers,
        };
        return Ok(Reply {
            metadata: HeaderMap::new(),
            messages: Messages::ended(end, bounds, tally),
        });
    }
    if head.status != StatusCode::OK {
        let code = Code::from_http(head.status);
        let status = Status::new(
            code,
            format!("the upstream answered with HTTP status {}", head.status.as_u16()),
        );
        let messages = Messages::ended(End::new(status), bounds, tally);
        return Ok(Reply {
            metadata: head.headers,
            messages,
        });
    }
    if !is_grpc {
        let said = match content_type {
            Some(value) => format!("the upstream answered with content type {value:?}, not application/grpc"),
            None => "the upstream answered without a content type".to_owned(),
        };
        return Ok(Reply {
            metadata: head.headers,
            messages: Messages::ended(End::new(Status::new(Code::Unknown, said)), bounds, tally),
        });
    }
    let messages = Messages::raw(body, encoding, Direction::Reply, bounds, tally);
    Ok(Reply {
        metadata: head.headers,
        messages,
    })
}
