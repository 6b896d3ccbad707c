//! A streamed REST request: JSON values one by one, or raw bytes in chunks.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::request::Parts;
use http::{HeaderValue, header};

use crate::fault::{Fault, Kind};
use crate::frontend::rest::body::{self, Encoding};
use crate::frontend::rest::read::read_json;
use crate::route::entry::{Entry, Form};
use crate::translate::messages::{Part, PartStream};
use crate::translate::raw_body;
use crate::wire::body::Body;
use crate::wire::compression::Inflater;
use crate::wire::envelope::PREFIX;
use crate::wire::json_stream::{StreamError, Values};

/// Bytes of one message of a raw upload. A gRPC message of this size fits any peer's limits and windows.
const CHUNK: usize = 64 << 10;

/// The messages of a streamed request. `first` holds what path and query give, behind room for an envelope's prefix;
/// it goes into the first message only.
pub(super) fn parts(
    entry: &Arc<Entry>,
    binding: Option<u32>,
    head: &Parts,
    body: Body,
    first: BytesMut,
) -> Result<PartStream, Fault> {
    let first = first.freeze().slice(PREFIX..);
    match entry.bound(binding).request {
        Form::None => Ok(Box::pin(stream::iter([Ok(Part::Message(first))]))),
        Form::Json(_) => {
            body::expect_json(&head.headers)?;
            let limit = entry.route.bounds.max_message_bytes;
            let inflater = match body::encoding(&head.headers)? {
                Encoding::Identity => None,
                Encoding::Gzip => Some(Inflater::new(entry.route.bounds.max_decompression_ratio)),
            };
            let upload = JsonUpload {
                entry: Arc::clone(entry),
                binding,
                body,
                inflater,
                values: Values::new(limit),
                first: Some(first),
                index: 0,
                ended: false,
            };
            Ok(Box::pin(stream::try_unfold(upload, JsonUpload::step)))
        }
        Form::Raw(field) => {
            if body::encoding(&head.headers)? == Encoding::Gzip {
                return Err(Fault::client(
                    Kind::UnsupportedMediaType,
                    "header content-encoding: a raw upload is taken as it is; send it without one",
                ));
            }
            let content_type = head.headers.get(header::CONTENT_TYPE).cloned();
            let upload = RawUpload {
                field,
                content_type,
                body,
                first: Some(first),
                rest: Bytes::new(),
            };
            Ok(Box::pin(stream::try_unfold(upload, RawUpload::step)))
        }
    }
}

/// JSON values, each read as soon as it is complete.
struct JsonUpload {
    entry: Arc<Entry>,
    binding: Option<u32>,
    body: Body,
    inflater: Option<Inflater>,
    values: Values,
    first: Option<Bytes>,
    /// Messages so far.
    index: u64,
    ended: bool,
}

impl JsonUpload {
    async fn step(mut self) -> Result<Option<(Part, Self)>, Fault> {
        loop {
            let cut = if self.ended {
                self.values.finish()
            } else {
                self.values.next_value()
            };
            if let Some(value) = cut.map_err(|error| self.bad_stream(error))? {
                let message = self.message(&value)?;
                return Ok(Some((Part::Message(message), self)));
            }
            if self.ended {
                // What path and query give is not lost with an empty stream.
                let alone = self.first.take().filter(|first| !first.is_empty());
                return Ok(alone.map(|first| (Part::Message(first), self)));
            }
            self.fill().await?;
        }
    }

    /// Takes the next chunk of the body.
    async fn fill(&mut self) -> Result<(), Fault> {
        let mut body = pin!(&mut self.body);
        match next_chunk(&mut body).await? {
            None => self.ended = true,
            Some(data) => match &mut self.inflater {
                None => self.values.push(&data),
                Some(inflater) => {
                    let text = inflater.push(&data).map_err(|error| {
                        Fault::client(Kind::InvalidArgument, format!("in the request body, {error}"))
                    })?;
                    self.values.push(&text);
                }
            },
        }
        Ok(())
    }

    fn message(&mut self, value: &[u8]) -> Result<Bytes, Fault> {
        let mut message = BytesMut::with_capacity(value.len());
        if let Some(first) = self.first.take() {
            message.extend_from_slice(&first);
        }
        let bound = self.entry.bound(self.binding);
        read_json(&self.entry, bound, value, &mut message).map_err(|fault| self.numbered(&fault))?;
        self.index += 1;
        Ok(message.freeze())
    }

    /// The same fault, with the index of the message.
    fn numbered(&self, fault: &Fault) -> Fault {
        Fault::client(
            fault.kind(),
            format!("message {}: {}", self.index, fault.message()),
        )
    }

    fn bad_stream(&self, error: StreamError) -> Fault {
        let kind = match error {
            StreamError::TooLarge { .. } => Kind::MessageTooLarge,
            StreamError::Separator { .. } | StreamError::Unbalanced(_) | StreamError::Truncated(_) => {
                Kind::InvalidArgument
            }
        };
        Fault::client(
            kind,
            format!("message {}: in the request body, {error}", self.index),
        )
    }
}

/// Raw bytes, cut into messages of [`CHUNK`] bytes at most.
struct RawUpload {
    field: Option<u32>,
    content_type: Option<HeaderValue>,
    body: Body,
    first: Option<Bytes>,
    rest: Bytes,
}

impl RawUpload {
    async fn step(mut self) -> Result<Option<(Part, Self)>, Fault> {
        if self.rest.is_empty() {
            let mut body = pin!(&mut self.body);
            match next_chunk(&mut body).await? {
                Some(data) => self.rest = data,
                // An empty upload is one message that says so.
                None if self.first.is_some() => {}
                None => return Ok(None),
            }
        }
        let chunk = self.rest.split_to(self.rest.len().min(CHUNK));
        let mut message = BytesMut::with_capacity(chunk.len() + 64);
        if let Some(first) = self.first.take() {
            message.extend_from_slice(&first);
        }
        raw_body::encode(
            self.field,
            self.content_type.take().as_ref(),
            &chunk,
            &mut message,
        );
        Ok(Some((Part::Message(message.freeze()), self)))
    }
}

/// The next chunk of a streamed body, however long it takes: a stream may be silent, and its call has a time-out of
/// its own for when both sides are.
async fn next_chunk(body: &mut std::pin::Pin<&mut &mut Body>) -> Result<Option<Bytes>, Fault> {
    use http_body_util::BodyExt as _;
    loop {
        match body.as_mut().frame().await.transpose()? {
            None => return Ok(None),
            // Trailers of a request mean nothing here.
            Some(frame) => {
                if let Ok(data) = frame.into_data()
                    && !data.is_empty()
                {
                    return Ok(Some(data));
                }
            }
        }
    }
}
