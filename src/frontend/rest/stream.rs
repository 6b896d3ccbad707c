//! A stream of answers for a REST client: one JSON text a line, one JSON array, server-sent events, or raw bytes.
//!
//! A stream that breaks says so in its own framing; it never ends as if it were complete.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, GetAll, HeaderValue, TRAILER, VARY};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};

use crate::fault::Fault;
use crate::frontend::refuse::{self, StatusJson};
use crate::frontend::rest::write::{content_type, not_json, shared};
use crate::frontend::rest::{Asked, Trailers, error};
use crate::route::entry::{Entry, Form, StreamEnvelope, Streaming};
use crate::status::{Code, Status};
use crate::translate::json::Target;
use crate::translate::tally::Outcome;
use crate::translate::{Messages, Part, Tally, raw_body};
use crate::wire::body::Body;
use crate::wire::ending;

/// Messages that are ready together leave in frames of about this many bytes.
const FRAME: usize = 32 << 10;

/// The framing that `Accept` asks for: the one with the greatest weight, the first of equals; `default` where it does
/// not choose. Source: RFC 9110, section 12.5.1.
pub(super) fn negotiate(accept: &GetAll<'_, HeaderValue>, default: Streaming) -> Streaming {
    let mut best: Option<(f32, Streaming)> = None;
    let ranges = accept
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut weight, mut stream) = (1.0, false);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q", q)) => weight = q.parse().unwrap_or(0.0),
                _ => stream |= parameter.eq_ignore_ascii_case("stream"),
            }
        }
        let framing = match media.as_str() {
            "text/event-stream" => Streaming::Sse,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => Streaming::Ndjson,
            "application/json" if stream => Streaming::Ndjson,
            "application/json" => Streaming::Array,
            "*/*" | "application/*" => default,
            _ => continue,
        };
        if weight > best.map_or(0.0, |(best, _)| best) {
            best = Some((weight, framing));
        }
    }
    best.map_or(default, |(_, framing)| framing)
}

/// The response of a stream whose first part may be there already.
pub(super) fn respond(
    first: Option<Part>,
    messages: Messages,
    asked: &Asked,
) -> Result<Response<Body>, Fault> {
    let (entry, tally) = shared(asked);
    let framing = match entry.bound(asked.binding).response {
        Form::Raw(field) => Framing::Raw(field),
        Form::Json(target) => Framing::of(asked.framing, target),
        Form::None => Framing::Raw(None),
    };
    let kind = match (&framing, &first) {
        (Framing::Raw(field), Some(Part::Message(message))) => content_type(
            &raw_body::decode(*field, message.clone())
                .map(|body| body.content_type)
                .unwrap_or_default(),
        ),
        (Framing::Raw(_), _) => content_type(""),
        (Framing::Lines(_), _) => HeaderValue::from_static("application/x-ndjson"),
        (Framing::Array(_), _) => HeaderValue::from_static("application/json"),
        (Framing::Events(_), _) => HeaderValue::from_static("text/event-stream"),
    };
    let is_events = matches!(framing, Framing::Events(_));
    let body = Framed {
        framing,
        messages,
        first,
        index: 0,
        state: State::Messages,
        trailers: asked.trailers,
        entry,
        tally,
    };
    let mut response = Response::new(Body::stream(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if is_events {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if asked.trailers == Trailers::Announced {
        headers.insert(TRAILER, HeaderValue::from_static("grpc-status, grpc-message"));
    }
    Ok(response)
}

/// What stands around messages.
enum Framing {
    Lines(Target),
    Array(Target),
    Events(Target),
    /// The data of `HttpBody` messages, one after the other.
    Raw(Option<u32>),
}

impl Framing {
    fn of(asked: Streaming, target: Target) -> Self {
        match asked {
            Streaming::Ndjson => Self::Lines(target),
            Streaming::Array => Self::Array(target),
            Streaming::Sse => Self::Events(target),
        }
    }
}

/// The body of a stream.
struct Framed {
    framing: Framing,
    messages: Messages,
    first: Option<Part>,
    /// Messages so far.
    index: u64,
    state: State,
    trailers: Trailers,
    entry: Arc<Entry>,
    tally: Arc<Tally>,
}

enum State {
    Messages,
    /// The last data is out; these trailers follow.
    Trailers(HeaderMap),
    /// What was sent before is out; the body breaks off with this.
    Broken(Fault),
    Done,
}

/// Whether more may follow in the same frame.
enum Step {
    More,
    Last,
}

impl Framed {
    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Fault>> {
        match self.first.take() {
            Some(part) => Poll::Ready(Ok(Some(part))),
            None => self.messages.poll_next(cx),
        }
    }

    /// Takes one part into the frame.
    fn take(&mut self, part: Result<Option<Part>, Fault>, out: &mut BytesMut) -> Step {
        let part = part.and_then(|part| part.ok_or_else(crate::translate::messages::no_status));
        match part {
            Ok(Part::Message(message)) => match self.message(&message, out) {
                Ok(()) => Step::More,
                Err(fault) => self.break_off(fault, out),
            },
            Ok(Part::End(end)) => {
                self.tally.end(Outcome::Upstream(end.status.code));
                if end.status.code == Code::Ok {
                    self.close(out);
                } else {
                    let status = error::json(&end.status, &self.entry.json);
                    self.complain(&status, out);
                    if matches!(self.framing, Framing::Raw(_)) {
                        self.state = State::Broken(Fault::upstream(
                            crate::fault::Kind::UpstreamReset,
                            "the call failed after the first bytes were sent",
                        ));
                        return Step::Last;
                    }
                }
                self.end(&end.status)
            }
            Err(fault) => self.break_off(fault, out),
        }
    }

    fn message(&mut self, message: &Bytes, out: &mut BytesMut) -> Result<(), Fault> {
        let limit = self.entry.route.bounds.max_message_bytes.saturating_mul(8);
        let before = out.len();
        let target = match &self.framing {
            Framing::Raw(field) => {
                let body = raw_body::decode(*field, message.clone()).map_err(|error| {
                    Fault::upstream(
                        crate::fault::Kind::UpstreamMessage,
                        "an answer is no google.api.HttpBody",
                    )
                    .caused_by(error)
                })?;
                out.put_slice(&body.data);
                return Ok(());
            }
            Framing::Lines(target) => *target,
            Framing::Array(target) => {
                out.put_u8(if self.index == 0 { b'[' } else { b',' });
                *target
            }
            Framing::Events(target) => {
                out.put_slice(b"id: ");
                out.put_slice(itoa::Buffer::new().format(self.index).as_bytes());
                out.put_slice(b"\ndata: ");
                *target
            }
        };
        let enveloped = self.entry.route.envelope == StreamEnvelope::Result;
        if enveloped {
            out.put_slice(b"{\"result\":");
        }
        self.entry
            .json
            .write(target, None, message, out, limit)
            .map_err(|error| {
                out.truncate(before);
                not_json(&error)
            })?;
        if enveloped {
            out.put_u8(b'}');
        }
        match &self.framing {
            Framing::Lines(_) => out.put_u8(b'\n'),
            Framing::Events(_) => out.put_slice(b"\n\n"),
            Framing::Array(_) | Framing::Raw(_) => {}
        }
        self.index += 1;
        Ok(())
    }

    /// What ends a stream that is complete.
    fn close(&self, out: &mut BytesMut) {
        if let Framing::Array(_) = self.framing {
            out.put_slice(if self.index == 0 { b"[]" } else { b"]" });
        }
    }

    /// What ends a stream that is not.
    fn complain(&self, status: &StatusJson, out: &mut BytesMut) {
        let text = match &self.framing {
            Framing::Lines(_) => format!("{{\"error\":{}}}\n", status.text()),
            Framing::Array(_) => {
                let before = if self.index == 0 { '[' } else { ',' };
                format!("{before}{{\"error\":{}}}]", status.text())
            }
            Framing::Events(_) => format!("event: error\ndata: {}\n\n", status.text()),
            Framing::Raw(_) => return,
        };
        out.put_slice(text.as_bytes());
    }

    fn break_off(&mut self, fault: Fault, out: &mut BytesMut) -> Step {
        self.tally.end(Outcome::Gateway(fault.kind(), fault.side()));
        self.complain(&refuse::json(&fault), out);
        if matches!(self.framing, Framing::Raw(_)) {
            self.state = State::Broken(fault);
            return Step::Last;
        }
        self.end(&Status::from(&fault))
    }

    fn end(&mut self, status: &Status) -> Step {
        self.state = match self.trailers {
            Trailers::None => State::Done,
            Trailers::Free | Trailers::Announced => {
                let mut trailers = HeaderMap::new();
                ending::put(&Status::new(status.code, status.message.clone()), &mut trailers);
                State::Trailers(trailers)
            }
        };
        // What is left of the upstream's stream is not wanted.
        Step::Last
    }

    /// A frame of all that is ready.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = BytesMut::new();
        while out.len() < FRAME {
            let Poll::Ready(part) = self.poll_part(cx) else {
                if out.is_empty() {
                    return Poll::Pending;
                }
                break;
            };
            if let Step::Last = self.take(part, &mut out) {
                break;
            }
        }
        Poll::Ready((!out.is_empty()).then(|| out.freeze()))
    }
}

impl HttpBody for Framed {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        if let State::Messages = this.state {
            match this.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Poll::Ready(None) => {}
            }
        }
        Poll::Ready(match std::mem::replace(&mut this.state, State::Done) {
            State::Trailers(trailers) => Some(Ok(Frame::trailers(trailers))),
            State::Broken(fault) => Some(Err(fault)),
            State::Messages | State::Done => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Done)
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    #[test]
    fn accept_chooses_the_framing() {
        let table: &[(&[&str], Streaming)] = &[
            (&[], Streaming::Ndjson),
            (&["*/*"], Streaming::Ndjson),
            (&["application/json"], Streaming::Array),
            (&["application/json; stream"], Streaming::Ndjson),
            (&["application/json;stream=true"], Streaming::Array),
            (&["text/event-stream"], Streaming::Sse),
            (&["application/x-ndjson"], Streaming::Ndjson),
            (
                &["application/json;q=0.5, text/event-stream;q=0.9"],
                Streaming::Sse,
            ),
            (&["text/html", "application/json, */*;q=0.1"], Streaming::Array),
            (&["text/event-stream, application/json"], Streaming::Sse),
            (&["text/event-stream;q=0"], Streaming::Ndjson),
        ];
        for (values, expected) in table {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(ACCEPT, HeaderValue::from_static(value));
            }
            assert_eq!(
                negotiate(&headers.get_all(ACCEPT), Streaming::Ndjson),
                *expected,
                "{values:?}"
            );
        }
    }
}
