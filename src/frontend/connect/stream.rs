//! A reply becomes a stream of envelopes, the last of which says how the call ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};

use super::{Asked, CONNECT_CONTENT_ENCODING, content_type, error, write};
use crate::call::Reply;
use crate::fault::Fault;
use crate::frontend::rest::{extend, pack};
use crate::status::Status;
use crate::translate::messages::no_status;
use crate::translate::tally::Outcome;
use crate::translate::{Messages, Part, relay};
use crate::wire::body::Body;
use crate::wire::envelope::{COMPRESSED, flagged};
use crate::wire::gathered::Gathered;
use crate::wire::last_frame::LastFrame;
use crate::wire::{Codec, ending};

/// Messages that are ready together leave in frames of about this many bytes.
const FRAME: usize = 32 << 10;

/// The response that a reply becomes.
pub(super) fn write(reply: Reply, asked: &Asked) -> Response<Body> {
    let Reply { metadata, messages } = reply;
    let encoding = match asked.format.codec {
        Codec::Proto => messages.encoding().cloned(),
        Codec::Json => asked.gzip.then_some(HeaderValue::from_static("gzip")),
    };
    let mut response = Response::new(match asked.format.codec {
        Codec::Proto => relayed(messages, asked),
        Codec::Json => Body::stream(Texts::new(messages, asked)),
    });
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(asked.format)));
    if let Some(encoding) = encoding {
        headers.insert(CONNECT_CONTENT_ENCODING, encoding);
    }
    extend(headers, metadata);
    response
}

/// The upstream's envelopes as they are, with the trailers in one of their own.
fn relayed(messages: Messages, asked: &Asked) -> Body {
    let entry = Arc::clone(&asked.entry);
    let body = LastFrame::new(relay::Reply::new(messages), move |mut trailers: HeaderMap| {
        let status = ending::take(&mut trailers).unwrap_or_else(|| Status::from(&no_status()));
        error::end_frame(&status, trailers, Some(&entry.json))
    });
    Body::stream(Gathered::new(body))
}

/// Messages as JSON texts in envelopes.
struct Texts {
    messages: Messages,
    asked: Asked,
    is_ended: bool,
}

impl Texts {
    fn new(messages: Messages, asked: &Asked) -> Self {
        Self {
            messages,
            asked: Asked {
                entry: Arc::clone(&asked.entry),
                tally: Arc::clone(&asked.tally),
                ..*asked
            },
            is_ended: false,
        }
    }

    /// Takes one part into the frame.
    fn take(&mut self, part: Result<Option<Part>, Fault>, out: &mut BytesMut) {
        let part = part.and_then(|part| part.ok_or_else(no_status));
        let taken = part.and_then(|part| match part {
            Part::Message(message) => self.message(message),
            Part::End(end) => {
                self.is_ended = true;
                self.asked.tally.end(Outcome::Upstream(end.status.code));
                Ok(error::end_frame(
                    &end.status,
                    end.metadata,
                    Some(&self.asked.entry.json),
                ))
            }
        });
        out.put(taken.unwrap_or_else(|fault| {
            self.is_ended = true;
            self.asked.tally.end(Outcome::Gateway(fault.kind(), fault.side()));
            error::end_frame(&Status::from(&fault), HeaderMap::new(), None)
        }));
    }

    fn message(&self, message: Bytes) -> Result<Bytes, Fault> {
        let text = write::encode(message, &self.asked)?;
        let (flag, payload) = match pack(&text, self.asked.gzip)? {
            Some(packed) => (COMPRESSED, packed),
            None => (0, text),
        };
        flagged(flag, &payload)
            .map_err(|error| Fault::upstream(crate::fault::Kind::UpstreamMessageTooLarge, error.to_string()))
    }
}

impl HttpBody for Texts {
    type Data = Bytes;
    type Error = Fault;

    /// A frame of all that is ready.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let mut out = BytesMut::new();
        while !this.is_ended && out.len() < FRAME {
            match this.messages.poll_next(cx) {
                Poll::Ready(part) => this.take(part, &mut out),
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready((!out.is_empty()).then(|| Ok(Frame::data(out.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended
    }
}
