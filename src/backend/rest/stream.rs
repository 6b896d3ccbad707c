//! A stream of answers: JSON texts one after the other, a JSON array, server-sent events, or raw bytes.
//!
//! A stream that ends inside a message, or whose connection breaks, is never a success.

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;

use crate::backend::rest::answer::{bad_encoding, is_json, not_json, unreadable};
use crate::backend::rest::status;
use crate::fault::{Fault, Kind};
use crate::route::entry::StreamEnvelope;
use crate::status::{Code, Status};
use crate::translate::json::{Target, Transcoder};
use crate::translate::messages::PartStream;
use crate::translate::{End, Part, raw_body};
use crate::wire::body::Body;
use crate::wire::compression::Inflater;
use crate::wire::ending;
use crate::wire::event_stream::{EventError, Events};
use crate::wire::json_stream::{StreamError, Values};

/// How messages are told apart.
pub(super) enum Cutter {
    Values(Target, Values),
    Events(Target, Events),
    /// Each chunk is a message; the content type goes into the first.
    Raw {
        field: Option<u32>,
        content_type: Option<HeaderValue>,
        chunk: Bytes,
    },
}

impl Cutter {
    /// For raw bytes.
    pub(super) fn raw(field: Option<u32>, content_type: Option<HeaderValue>) -> Self {
        Self::Raw {
            field,
            content_type,
            chunk: Bytes::new(),
        }
    }

    /// For what the content type says.
    ///
    /// # Errors
    /// An upstream fault for a type that is no stream of messages.
    pub(super) fn json(
        target: Target,
        content_type: Option<&HeaderValue>,
        limit: usize,
    ) -> Result<Self, Fault> {
        match content_type {
            Some(value) if is_events(value) => Ok(Self::Events(target, Events::new(limit))),
            Some(value) if !is_json(value) => Err(not_json(value)),
            Some(_) | None => Ok(Self::Values(target, Values::new(limit))),
        }
    }

    fn push(&mut self, data: Bytes) {
        match self {
            Self::Values(_, values) => values.push(&data),
            Self::Events(_, events) => events.push(&data),
            Self::Raw { chunk, .. } => *chunk = data,
        }
    }
}

fn is_events(value: &HeaderValue) -> bool {
    value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .is_some_and(|media| media.trim().eq_ignore_ascii_case("text/event-stream"))
}

/// A stream of answers as it comes.
pub(super) struct Answers {
    pub(super) body: Body,
    pub(super) inflater: Option<Inflater>,
    pub(super) cutter: Cutter,
    pub(super) json: Transcoder,
    pub(super) envelope: StreamEnvelope,
    pub(super) answers_have_errors: bool,
    /// Bytes of one message.
    pub(super) limit: usize,
    /// Messages so far.
    pub(super) index: u64,
    pub(super) state: State,
}

pub(super) enum State {
    /// More may come.
    Open,
    /// The body is over; its trailers may hold the status.
    Over(Status),
}

/// The parts of a stream: messages, and one end.
pub(super) fn parts(answers: Answers) -> PartStream {
    Box::pin(stream::try_unfold(Some(answers), async |answers| {
        let Some(mut answers) = answers else {
            return Ok(None);
        };
        let part = answers.next().await?;
        let more = matches!(part, Part::Message(_)).then_some(answers);
        Ok(Some((part, more)))
    }))
}

impl Answers {
    async fn next(&mut self) -> Result<Part, Fault> {
        loop {
            if let Some(part) = self.cut()? {
                return Ok(part);
            }
            if let State::Over(status) = &self.state {
                return Ok(Part::End(End::new(status.clone())));
            }
            match self.body.frame().await.transpose()? {
                None => self.over(HeaderMap::new())?,
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.push(data)?,
                    Err(frame) => self.over(frame.into_trailers().unwrap_or_default())?,
                },
            }
        }
    }

    fn push(&mut self, data: Bytes) -> Result<(), Fault> {
        let data = match &mut self.inflater {
            None => data,
            Some(inflater) => inflater
                .push(&data)
                .map(Bytes::from)
                .map_err(|error| bad_encoding(&error))?,
        };
        self.cutter.push(data);
        Ok(())
    }

    fn over(&mut self, mut trailers: HeaderMap) -> Result<(), Fault> {
        // Another gateway tells there how its stream ended.
        let status = ending::take(&mut trailers).filter(|status| status.code != Code::Ok);
        if status.is_none()
            && let Cutter::Events(_, events) = &self.cutter
        {
            events.finish().map_err(|error| self.bad_events(error))?;
        }
        self.state = State::Over(status.unwrap_or(Status::OK));
        Ok(())
    }

    /// The next part that is there.
    fn cut(&mut self) -> Result<Option<Part>, Fault> {
        match &mut self.cutter {
            Cutter::Raw {
                field,
                content_type,
                chunk,
            } => {
                if chunk.is_empty() {
                    return Ok(None);
                }
                let mut message = BytesMut::with_capacity(chunk.len() + 64);
                raw_body::encode(*field, content_type.take().as_ref(), chunk, &mut message);
                *chunk = Bytes::new();
                self.index += 1;
                Ok(Some(Part::Message(message.freeze())))
            }
            Cutter::Values(target, values) => {
                let target = *target;
                let value = match &self.state {
                    State::Over(status) if status.code == Code::Ok => values.finish(),
                    State::Over(_) => Ok(None),
                    State::Open => values.next_value(),
                };
                match value {
                    Ok(Some(text)) => self.value(target, &text).map(Some),
                    Ok(None) => Ok(None),
                    Err(error) => Err(self.bad_values(error)),
                }
            }
            Cutter::Events(target, events) => {
                let target = *target;
                match events.next_event() {
                    Ok(Some(event)) if event.kind == "error" => Ok(Some(self.broken(&event.data))),
                    Ok(Some(event)) => self.value(target, &event.data).map(Some),
                    Ok(None) => Ok(None),
                    Err(error) => Err(self.bad_events(error)),
                }
            }
        }
    }

    /// What one JSON text says: a message, or how the stream broke.
    fn value(&mut self, target: Target, text: &[u8]) -> Result<Part, Fault> {
        let enveloped = self.envelope == StreamEnvelope::Result;
        if (enveloped || !self.answers_have_errors)
            && let Some(status) = status::in_band(text, &self.json)
        {
            return Ok(Part::End(End::new(status)));
        }
        let text = if enveloped {
            result(text).ok_or_else(|| self.not_enveloped())?
        } else {
            text
        };
        let mut message = BytesMut::with_capacity(text.len() / 2 + 32);
        self.json
            .read(target, None, text, &mut message, self.limit)
            .map_err(|error| unreadable(&error, Some(self.index)))?;
        self.index += 1;
        Ok(Part::Message(message.freeze()))
    }

    /// The end that an `error` event tells.
    fn broken(&self, data: &[u8]) -> Part {
        let status = status::in_band(data, &self.json)
            .or_else(|| {
                let value = serde_json::from_slice(data).ok()?;
                status::read(&value, &self.json)
            })
            .unwrap_or_else(|| Status::new(Code::Unknown, "the upstream's stream ended with an error event"));
        Part::End(End::new(status))
    }

    fn not_enveloped(&self) -> Fault {
        Fault::upstream(
            Kind::UpstreamMessage,
            format!(
                "in message {} of the upstream's answer, expected an object with the one member `result`",
                self.index
            ),
        )
    }

    fn bad_values(&self, error: StreamError) -> Fault {
        let kind = match error {
            StreamError::TooLarge { .. } => Kind::UpstreamMessageTooLarge,
            StreamError::Truncated(_) => Kind::Truncated,
            StreamError::Separator { .. } | StreamError::Unbalanced(_) => Kind::UpstreamMessage,
        };
        Fault::upstream(
            kind,
            format!("in message {} of the upstream's answer, {error}", self.index),
        )
    }

    fn bad_events(&self, error: EventError) -> Fault {
        let kind = match error {
            EventError::TooLarge { .. } => Kind::UpstreamMessageTooLarge,
            EventError::Truncated => Kind::Truncated,
        };
        Fault::upstream(
            kind,
            format!("in message {} of the upstream's answer, {error}", self.index),
        )
    }
}

/// The value of `{"result": …}`, as it is written; whoever reads it sees whether something follows it.
fn result(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii();
    let inside = text.strip_prefix(b"{")?.strip_suffix(b"}")?.trim_ascii();
    let after = inside.strip_prefix(b"\"result\"")?.trim_ascii_start();
    Some(after.strip_prefix(b":")?.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_taken_out_of_its_envelope() {
        for (text, expected) in [
            (r#"{"result":{"a":1}}"#, Some(r#"{"a":1}"#)),
            (" { \"result\" : 7 } ", Some("7")),
            (r#"{"a":1}"#, None),
            ("7", None),
        ] {
            assert_eq!(result(text.as_bytes()), expected.map(str::as_bytes), "{text}");
        }
    }
}
