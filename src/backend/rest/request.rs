//! A message becomes the request that its rule asks for.

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderMap, Request, Uri};
use tokio::time::Instant;

use crate::balance::Target;
use crate::call::Deadline;
use crate::fault::{Fault, Kind};
use crate::route::entry::{Form, OutboundRest, OutboundRule, ServerTimeout};
use crate::stack::deadline::expired;
use crate::translate::json::WireReason;
use crate::translate::{Bounds, raw_body};

/// Seconds that the call may still take, with a fraction.
const X_SERVER_TIMEOUT: HeaderName = HeaderName::from_static("x-server-timeout");
/// What a gRPC client says about its own envelopes.
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// A request, less what its endpoint decides.
pub(super) struct Prepared {
    pub(super) request: Request<()>,
    pub(super) target: PathAndQuery,
    pub(super) body: Bytes,
}

impl Prepared {
    /// The request for a message.
    ///
    /// # Errors
    /// A client fault for a message that does not fit the rule, or into a URL.
    pub(super) fn new(
        outbound: &OutboundRest,
        rule: &OutboundRule,
        metadata: HeaderMap,
        message: Bytes,
        bounds: Bounds,
    ) -> Result<Self, Fault> {
        let invalid = |said: String| Fault::client(Kind::InvalidArgument, said);
        let mut target = String::with_capacity(64);
        rule.outgoing
            .write(&outbound.json, &message, &mut target)
            .map_err(|error| invalid(error.to_string()))?;
        let mut headers = metadata;
        headers.remove(TE);
        headers.remove(ACCEPT_ENCODING);
        headers.remove(GRPC_ACCEPT_ENCODING);
        headers.insert(ACCEPT, accept(rule));
        headers
            .entry(USER_AGENT)
            .or_insert(HeaderValue::from_static("sabir"));
        let body = match rule.request {
            Form::None => Bytes::new(),
            Form::Raw(field) => {
                let body = raw_body::decode(field, message).map_err(|error| {
                    invalid("the message is no google.api.HttpBody".to_owned()).caused_by(error)
                })?;
                if let Ok(kind) = HeaderValue::from_str(&body.content_type)
                    && !kind.is_empty()
                {
                    headers.insert(CONTENT_TYPE, kind);
                }
                body.data
            }
            Form::Json(_) => {
                let mut text = BytesMut::new();
                // What fits as protobuf fits as JSON too, which takes more room for the same.
                let limit = bounds.max_message_bytes.saturating_mul(8);
                let has_body = rule
                    .outgoing
                    .write_body(&outbound.json, &message, &mut text, limit)
                    .map_err(|error| match error.reason {
                        WireReason::TooLarge { .. } => {
                            Fault::client(Kind::MessageTooLarge, error.to_string())
                        }
                        _ => invalid(format!("in the request, {error}")),
                    })?;
                if has_body {
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                }
                text.freeze()
            }
        };
        let mut request = Request::new(());
        *request.method_mut() = rule.outgoing.method.clone();
        *request.headers_mut() = headers;
        Ok(Self {
            request,
            target: PathAndQuery::try_from(target).map_err(unfit)?,
            body,
        })
    }

    /// The whole request, for no endpoint in particular.
    pub(super) fn unaddressed(self) -> Request<Bytes> {
        let mut request = self.request.map(|()| self.body);
        *request.uri_mut() = Uri::from(self.target);
        request
    }
}

/// Makes a request for `path` one for this endpoint, with what is left of the deadline.
///
/// # Errors
/// The deadline has passed, or the URL is more than can be sent.
pub(super) fn address(
    request: &mut Request<()>,
    path: &PathAndQuery,
    target: &Target,
    deadline: Option<Deadline>,
    told: ServerTimeout,
) -> Result<(), Fault> {
    if let Some(deadline) = deadline {
        let left = deadline.left(Instant::now());
        if left.is_zero() {
            return Err(expired());
        }
        if told == ServerTimeout::Told {
            let seconds = format!("{}.{:03}", left.as_secs(), left.subsec_millis().max(1));
            if let Ok(value) = HeaderValue::try_from(seconds) {
                request.headers_mut().insert(X_SERVER_TIMEOUT, value);
            }
        }
    }
    let connector = target.pool.connector();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(connector.scheme().clone());
    parts.authority = Some(connector.authority().clone());
    parts.path_and_query = Some(match connector.prefix() {
        "" => path.clone(),
        prefix => PathAndQuery::try_from(format!("{prefix}{path}")).map_err(unfit)?,
    });
    *request.uri_mut() = Uri::from_parts(parts).map_err(unfit)?;
    Ok(())
}

/// A message that makes more than a URL can be.
fn unfit(error: impl std::error::Error + Send + Sync + 'static) -> Fault {
    Fault::client(Kind::InvalidArgument, "the message does not fit into a URL").caused_by(error)
}

/// What the answer may be.
fn accept(rule: &OutboundRule) -> HeaderValue {
    HeaderValue::from_static(match rule.response {
        Form::Raw(_) | Form::None => "*/*",
        Form::Json(_) if rule.streams => {
            "application/x-ndjson, text/event-stream;q=0.9, application/json;q=0.8"
        }
        Form::Json(_) => "application/json",
    })
}
