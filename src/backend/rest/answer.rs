//! What a REST backend answers: never a success without its word.

use std::pin::pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, LOCATION};
use http::response::Parts;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;

use crate::backend::rest::status::{self, Refusal};
use crate::backend::rest::stream;
use crate::call::{Reply, metadata};
use crate::fault::{Fault, Kind};
use crate::route::entry::{Form, OutboundRest, OutboundRule};
use crate::status::Status;
use crate::translate::json::{JsonError, JsonReason, Target};
use crate::translate::messages::{Direction, seal};
use crate::translate::{Bounds, End, Messages, Tally, raw_body};
use crate::wire::body::Body;
use crate::wire::compression::{self, Growth, Inflater};
use crate::wire::envelope::PREFIX;

/// Bytes of the body of an answer that is no success. 64 KiB: enough for any error with its details.
const MAX_REFUSAL_BYTES: usize = 64 << 10;

/// What an answer is read by.
pub(super) struct Answer<'r> {
    pub(super) outbound: &'r OutboundRest,
    pub(super) rule: &'r OutboundRule,
    pub(super) bounds: Bounds,
    pub(super) tally: Arc<Tally>,
}

/// A head, taken apart.
struct Head {
    content_type: Option<HeaderValue>,
    encoding: Encoding,
    metadata: HeaderMap,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Identity,
    Gzip,
}

impl Head {
    fn of(mut head: Parts) -> Result<Self, Fault> {
        let content_type = head.headers.remove(CONTENT_TYPE);
        let encoding = match head.headers.remove(CONTENT_ENCODING) {
            None => Encoding::Identity,
            Some(value) => match value.as_bytes().to_ascii_lowercase().as_slice() {
                b"" | b"identity" => Encoding::Identity,
                b"gzip" | b"x-gzip" => Encoding::Gzip,
                _ => {
                    return Err(Fault::upstream(
                        Kind::UpstreamProtocol,
                        format!(
                            "the upstream answered with content encoding {value:?}, which was not asked for"
                        ),
                    ));
                }
            },
        };
        metadata::from_origin(&mut head.headers);
        Ok(Self {
            content_type,
            encoding,
            metadata: head.headers,
        })
    }
}

impl Answer<'_> {
    /// The reply of a call that has one answer.
    pub(super) async fn unary(self, response: Response<Body>) -> Result<Reply, Fault> {
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return self.refused(head, body).await;
        }
        let head = Head::of(head)?;
        let limit = self.bounds.max_message_bytes;
        let mut data = collect(body, limit).await?;
        if head.encoding == Encoding::Gzip {
            let growth = Growth {
                limit,
                ratio: self.bounds.max_decompression_ratio,
            };
            data = compression::gunzip(&data, growth).map_err(|error| bad_encoding(&error))?;
        }
        let mut message = BytesMut::with_capacity(data.len() / 2 + PREFIX + 32);
        message.put_bytes(0, PREFIX);
        match self.rule.response {
            Form::Raw(field) => raw_body::encode(field, head.content_type.as_ref(), &data, &mut message),
            Form::Json(target) => self.json(target, head.content_type.as_ref(), &data, &mut message)?,
            Form::None => {}
        }
        Ok(Reply {
            metadata: head.metadata,
            messages: Messages::answer(seal(message)?, End::new(Status::OK), self.bounds, self.tally),
        })
    }

    fn json(
        &self,
        target: Target,
        content_type: Option<&HeaderValue>,
        text: &[u8],
        message: &mut BytesMut,
    ) -> Result<(), Fault> {
        if text.iter().all(u8::is_ascii_whitespace) {
            return Ok(());
        }
        if let Some(value) = content_type.filter(|value| !is_json(value)) {
            return Err(not_json(value));
        }
        self.outbound
            .json
            .read(target, None, text, message, self.bounds.max_message_bytes)
            .map_err(|error| unreadable(&error, None))
    }

    /// The reply of a call that has a stream of answers.
    pub(super) async fn stream(self, response: Response<Body>) -> Result<Reply, Fault> {
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return self.refused(head, body).await;
        }
        let head = Head::of(head)?;
        let cutter = match (self.rule.response, head.content_type) {
            (Form::Raw(field), content_type) => stream::Cutter::raw(field, content_type),
            (Form::Json(target), content_type) => {
                stream::Cutter::json(target, content_type.as_ref(), self.bounds.max_message_bytes)?
            }
            (Form::None, content_type) => stream::Cutter::raw(None, content_type),
        };
        let inflater = match head.encoding {
            Encoding::Identity => None,
            Encoding::Gzip => Some(Inflater::new(self.bounds.max_decompression_ratio)),
        };
        let parts = stream::parts(stream::Answers {
            body,
            inflater,
            cutter,
            json: self.outbound.json.clone(),
            envelope: self.outbound.options.envelope,
            answers_have_errors: self.rule.answers_have_errors,
            limit: self.bounds.max_message_bytes,
            index: 0,
            state: stream::State::Open,
        });
        Ok(Reply {
            metadata: head.metadata,
            messages: Messages::stream(parts, Direction::Reply, self.bounds, self.tally),
        })
    }

    /// The reply of a call that the backend did not answer as asked: its status is data.
    async fn refused(self, head: Parts, body: Body) -> Result<Reply, Fault> {
        let status = head.status;
        let location = head.headers.get(LOCATION).cloned();
        let head = Head::of(head)?;
        let mut data = prefix(body, MAX_REFUSAL_BYTES).await;
        if head.encoding == Encoding::Gzip {
            let growth = Growth {
                limit: MAX_REFUSAL_BYTES,
                ratio: self.bounds.max_decompression_ratio,
            };
            // The HTTP status still stands where its explanation can't be read.
            data = compression::gunzip(&data, growth).unwrap_or_else(|_| Bytes::new());
        }
        let refusal = Refusal {
            status,
            location,
            content_type: head.content_type,
            body: data,
        };
        let status = status::of(&refusal, &self.outbound.json, self.outbound.options.statuses);
        Ok(Reply {
            metadata: head.metadata,
            messages: Messages::ended(End::new(status), self.bounds, self.tally),
        })
    }
}

/// All of a body.
async fn collect(body: Body, limit: usize) -> Result<Bytes, Fault> {
    let mut body = pin!(body);
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = body.frame().await.transpose()? {
        let Ok(data) = frame.into_data() else { continue };
        if first.len().max(more.len()).saturating_add(data.len()) > limit {
            return Err(Fault::upstream(
                Kind::UpstreamMessageTooLarge,
                format!("the upstream's answer is over the limit of {limit} bytes"),
            ));
        }
        if first.is_empty() {
            first = data;
            continue;
        }
        if more.is_empty() {
            more.extend_from_slice(&first);
        }
        more.extend_from_slice(&data);
    }
    Ok(if more.is_empty() { first } else { more.freeze() })
}

/// The beginning of a body, as far as it came.
async fn prefix(body: Body, most: usize) -> Bytes {
    let mut body = pin!(body);
    let mut all = BytesMut::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            let room = most.saturating_sub(all.len());
            all.extend_from_slice(data.get(..data.len().min(room)).unwrap_or_default());
            if all.len() == most {
                break;
            }
        }
    }
    all.freeze()
}

/// Whether a content type is one of JSON.
pub(super) fn is_json(value: &HeaderValue) -> bool {
    let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
    let media = text.split(';').next().unwrap_or_default().trim();
    matches!(
        media,
        "application/json"
            | "text/json"
            | "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/json-lines"
            | "application/json-seq"
    ) || media.starts_with("application/") && media.ends_with("+json")
}

/// An answer of another type than was asked for: most likely a page of something that stands before the backend.
pub(super) fn not_json(value: &HeaderValue) -> Fault {
    Fault::upstream(
        Kind::UpstreamMessage,
        format!("the upstream answered with content type {value:?}, not application/json"),
    )
}

/// An answer that does not fit its message; `index` is its place in a stream.
pub(super) fn unreadable(error: &JsonError, index: Option<u64>) -> Fault {
    let kind = match error.reason {
        JsonReason::TooLarge { .. } => Kind::UpstreamMessageTooLarge,
        _ => Kind::UpstreamMessage,
    };
    Fault::upstream(
        kind,
        match index {
            None => format!("in the upstream's answer, {error}"),
            Some(index) => format!("in message {index} of the upstream's answer, {error}"),
        },
    )
}

/// An answer that is not what its content encoding says.
pub(super) fn bad_encoding(error: &compression::CompressionError) -> Fault {
    let kind = match error {
        compression::CompressionError::TooLarge { .. } | compression::CompressionError::Ratio { .. } => {
            Kind::UpstreamMessageTooLarge
        }
        compression::CompressionError::Unknown(_) | compression::CompressionError::Corrupt(_) => {
            Kind::UpstreamProtocol
        }
    };
    Fault::upstream(kind, format!("in the upstream's answer, {error}"))
}
