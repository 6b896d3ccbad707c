//! The messages of one direction of a call, in the form in which they came until somebody asks for more.
//!
//! A request's messages stop when the client half-closes; a reply's last part is its one [`End`].

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures_util::Stream;
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;

use crate::fault::{Fault, Kind, Side};
use crate::status::Status;
use crate::translate::hygiene::Hygiene;
use crate::translate::tally::Tally;
use crate::wire::body::Body;
use crate::wire::compression::{self, CompressionError, Growth};
use crate::wire::ending;
use crate::wire::envelope::{self, Envelope, FrameError, Reader};

/// How a reply ended.
#[derive(Clone, Debug)]
pub struct End {
    /// The upstream's own word.
    pub status: Status,
    /// Trailing metadata, without the status.
    pub metadata: HeaderMap,
}

impl End {
    /// An end that carries no metadata.
    pub fn new(status: Status) -> Self {
        Self {
            status,
            metadata: HeaderMap::new(),
        }
    }
}

/// One thing that a peer says.
#[derive(Debug)]
pub enum Part {
    /// A message: protobuf, not compressed, without its envelope.
    Message(Bytes),
    /// The end of a reply.
    End(End),
}

/// What a message may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one message, compressed or not.
    pub max_message_bytes: usize,
    /// Times its size that a message may grow when it is decompressed.
    pub max_decompression_ratio: usize,
}

/// Which way messages go: a request's stop, a reply's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client.
    Request,
    /// From the upstream.
    Reply,
}

impl Direction {
    /// Whose fault a bad message is.
    pub fn side(self) -> Side {
        match self {
            Self::Request => Side::Client,
            Self::Reply => Side::Upstream,
        }
    }

    /// A bad envelope or message, as the fault of whoever sent it.
    pub fn fault(self, error: &FrameError) -> Fault {
        let kind = match (self, error) {
            (Self::Request, FrameError::TooLarge { .. }) => Kind::MessageTooLarge,
            (Self::Request, FrameError::Flag(_) | FrameError::Truncated { .. }) => Kind::InvalidArgument,
            (Self::Reply, FrameError::TooLarge { .. }) => Kind::UpstreamMessageTooLarge,
            (Self::Reply, FrameError::Flag(_)) => Kind::UpstreamProtocol,
            (Self::Reply, FrameError::Truncated { .. }) => Kind::Truncated,
        };
        Fault::new(kind, self.side(), self.says(error))
    }

    fn compression_fault(self, error: CompressionError) -> Fault {
        let too_large = matches!(
            error,
            CompressionError::TooLarge { .. } | CompressionError::Ratio { .. }
        );
        let kind = match (self, too_large) {
            (Self::Request, true) => Kind::MessageTooLarge,
            (Self::Reply, true) => Kind::UpstreamMessageTooLarge,
            (Self::Request, false) if matches!(error, CompressionError::Unknown(_)) => Kind::Unimplemented,
            (Self::Request, false) => Kind::InvalidArgument,
            (Self::Reply, false) => Kind::UpstreamProtocol,
        };
        Fault::new(kind, self.side(), self.says(&error)).caused_by(error)
    }

    fn says(self, error: &dyn fmt::Display) -> String {
        match self {
            Self::Request => format!("in the request body, {error}"),
            Self::Reply => format!("in the upstream's answer, {error}"),
        }
    }
}

/// A stream of parts that is made on the way, such as the values of a JSON array.
pub type PartStream = Pin<Box<dyn Stream<Item = Result<Part, Fault>> + Send>>;

/// The messages of one direction of a call.
pub struct Messages {
    source: Source,
    bounds: Bounds,
    direction: Direction,
    tally: Arc<Tally>,
    /// What is taken out of the end; nothing for a request.
    hygiene: Option<Hygiene>,
}

enum Source {
    /// Nothing more.
    Done,
    /// One message in its envelope; a reply then has its end.
    Whole(Bytes, Option<Box<End>>),
    /// A reply without a message, or after its last one.
    Ended(Box<End>),
    /// Envelopes as the peer sends them.
    Raw(Raw),
    /// Made on the way.
    Stream(PartStream),
}

/// A gRPC body as a peer sends it.
pub(crate) struct Raw {
    pub(crate) body: Body,
    /// `grpc-encoding`, if it is not identity.
    encoding: Option<Box<HeaderValue>>,
    /// Of messages that are passed on nobody needs one.
    reader: Option<Box<Reader>>,
}

impl Messages {
    /// A request of one message, given in its envelope.
    pub fn whole(enveloped: Bytes, bounds: Bounds, tally: Arc<Tally>) -> Self {
        tally.add_request_messages(1);
        Self {
            source: Source::Whole(enveloped, None),
            bounds,
            direction: Direction::Request,
            tally,
            hygiene: None,
        }
    }

    /// A reply of one message, given in its envelope, and its end.
    pub fn answer(enveloped: Bytes, end: End, bounds: Bounds, tally: Arc<Tally>) -> Self {
        Self {
            source: Source::Whole(enveloped, Some(Box::new(end))),
            bounds,
            direction: Direction::Reply,
            tally,
            hygiene: None,
        }
    }

    /// A reply that has only its end.
    pub fn ended(end: End, bounds: Bounds, tally: Arc<Tally>) -> Self {
        Self {
            source: Source::Ended(Box::new(end)),
            bounds,
            direction: Direction::Reply,
            tally,
            hygiene: None,
        }
    }

    /// A gRPC body as a peer sends it, with its `grpc-encoding`.
    pub fn raw(
        body: Body,
        encoding: Option<HeaderValue>,
        direction: Direction,
        bounds: Bounds,
        tally: Arc<Tally>,
    ) -> Self {
        let encoding = encoding.filter(|value| value.as_bytes() != b"identity");
        Self {
            source: Source::Raw(Raw {
                body,
                encoding: encoding.map(Box::new),
                reader: None,
            }),
            bounds,
            direction,
            tally,
            hygiene: None,
        }
    }

    /// The same messages, out of the encoding that their peer chose, for a peer that may not know it; without one they
    /// stay as they are.
    #[must_use]
    pub fn opened(self) -> Self {
        if self.encoding().is_none() {
            return self;
        }
        let (direction, bounds, tally) = (self.direction, self.bounds, Arc::clone(&self.tally));
        // Ends are cleaned where they are taken out of the encoding.
        let closed = Self {
            // Messages are counted where they come out.
            tally: Arc::default(),
            ..self
        };
        let parts = futures_util::stream::try_unfold(closed, async |mut closed| {
            Ok(closed.next().await?.map(|part| (part, closed)))
        });
        Self::stream(Box::pin(parts), direction, bounds, tally)
    }

    /// Parts made on the way.
    pub fn stream(parts: PartStream, direction: Direction, bounds: Bounds, tally: Arc<Tally>) -> Self {
        Self {
            source: Source::Stream(parts),
            bounds,
            direction,
            tally,
            hygiene: None,
        }
    }

    /// The end says no more than this lets it.
    pub fn screen(&mut self, hygiene: Hygiene) {
        match &mut self.source {
            Source::Ended(end) | Source::Whole(_, Some(end)) => hygiene.clean(&mut end.status),
            Source::Done | Source::Whole(_, None) | Source::Raw(_) | Source::Stream(_) => {
                self.hygiene = Some(hygiene);
            }
        }
    }

    /// What the end of a raw reply may not say.
    pub(crate) fn hygiene(&self) -> Option<Hygiene> {
        self.hygiene
    }

    /// The one message of a request that is there in whole, without its envelope.
    pub fn as_whole(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Whole(enveloped, _) => enveloped.get(envelope::PREFIX..),
            Source::Done | Source::Ended(_) | Source::Raw(_) | Source::Stream(_) => None,
        }
    }

    /// The same messages, which are counted elsewhere.
    #[must_use]
    pub fn uncounted(self) -> Self {
        Self {
            tally: Arc::default(),
            ..self
        }
    }

    /// The counts of the call.
    pub fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// What a message may be.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The encoding of the peer's envelopes, while they are still as it sent them.
    pub fn encoding(&self) -> Option<&HeaderValue> {
        match &self.source {
            Source::Raw(raw) => raw.encoding.as_deref(),
            Source::Done | Source::Whole(..) | Source::Ended(_) | Source::Stream(_) => None,
        }
    }

    /// Whether the messages are still as the peer sends them.
    pub fn is_raw(&self) -> bool {
        matches!(self.source, Source::Raw(_))
    }

    /// The end, if it is all that is left.
    pub fn as_end(&self) -> Option<&End> {
        match &self.source {
            Source::Ended(end) => Some(end),
            Source::Done | Source::Whole(..) | Source::Raw(_) | Source::Stream(_) => None,
        }
    }

    /// Wraps the body as the peer sends it, for instance with a timer; messages that are whole stay as they are.
    pub fn wrap_body(&mut self, wrap: impl FnOnce(Body) -> Body) {
        if let Source::Raw(raw) = &mut self.source {
            raw.body.wrap(wrap);
        }
    }

    /// Wraps parts that are made on the way, for instance with a timer.
    pub fn wrap_parts(&mut self, wrap: impl FnOnce(PartStream) -> PartStream) {
        if let Source::Stream(parts) = &mut self.source {
            let none: PartStream = Box::pin(futures_util::stream::empty());
            *parts = wrap(std::mem::replace(parts, none));
        }
    }

    /// A reply that is there in whole: its message in an envelope, and its end.
    pub fn take_answer(&mut self) -> Option<(Bytes, End)> {
        if !matches!(self.source, Source::Whole(_, Some(_))) {
            return None;
        }
        match std::mem::replace(&mut self.source, Source::Done) {
            Source::Whole(enveloped, Some(end)) => {
                self.tally.add_reply_messages(1);
                Some((enveloped, *end))
            }
            source @ (Source::Done
            | Source::Whole(_, None)
            | Source::Ended(_)
            | Source::Raw(_)
            | Source::Stream(_)) => {
                self.source = source;
                None
            }
        }
    }

    /// The first message of a request, and the same request, of which nobody has read anything. A client's envelopes are
    /// opened for it.
    ///
    /// # Errors
    /// As [`Messages::next`].
    ///
    /// # Cancel safety
    /// The messages are lost.
    pub async fn peeked(mut self) -> Result<(Option<Bytes>, Self), Fault> {
        if let Source::Whole(enveloped, _) = &self.source {
            let message = enveloped.slice(envelope::PREFIX.min(enveloped.len())..);
            return Ok((Some(message), self));
        }
        let (direction, bounds) = (self.direction, self.bounds);
        // Messages are counted where they come out, once.
        let tally = std::mem::take(&mut self.tally);
        let first = match self.next().await? {
            Some(Part::Message(message)) => message,
            Some(Part::End(_)) | None => return Ok((None, Self { tally, ..self })),
        };
        let again = futures_util::stream::once({
            let first = first.clone();
            async move { Ok(Part::Message(first)) }
        });
        let rest = futures_util::stream::try_unfold(self, async |mut rest| {
            Ok(rest.next().await?.map(|part| (part, rest)))
        });
        let parts = futures_util::StreamExt::chain(again, rest);
        Ok((
            Some(first),
            Self::stream(Box::pin(parts), direction, bounds, tally),
        ))
    }

    /// The next part; `None` after the last one.
    ///
    /// # Errors
    /// A [`Fault`] of the sender's side for what is not valid, and [`Kind::Truncated`] for a reply that stops
    /// without an end.
    ///
    /// # Cancel safety
    /// Nothing is lost: a part is taken only when it is returned.
    pub async fn next(&mut self) -> Result<Option<Part>, Fault> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The same for an adapter that polls.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Part>, Fault>> {
        if let Source::Raw(raw) = &mut self.source {
            let mut part = ready!(raw.poll_part(cx, self.bounds, self.direction));
            clean(self.hygiene, &mut part);
            match &part {
                Ok(Some(Part::Message(_))) => self.count(1),
                Ok(Some(Part::End(_)) | None) | Err(_) => self.source = Source::Done,
            }
            return Poll::Ready(part);
        }
        if let Source::Stream(parts) = &mut self.source {
            let mut part = ready!(parts.as_mut().poll_next(cx)).transpose();
            clean(self.hygiene, &mut part);
            match &part {
                Ok(Some(Part::Message(_))) => self.count(1),
                Ok(Some(Part::End(_)) | None) | Err(_) => self.source = Source::Done,
            }
            return Poll::Ready(part);
        }
        Poll::Ready(Ok(match std::mem::replace(&mut self.source, Source::Done) {
            Source::Whole(mut enveloped, end) => {
                if let Some(end) = end {
                    self.tally.add_reply_messages(1);
                    self.source = Source::Ended(end);
                }
                enveloped.advance(envelope::PREFIX.min(enveloped.len()));
                Some(Part::Message(enveloped))
            }
            Source::Ended(end) => Some(Part::End(*end)),
            Source::Done | Source::Raw(_) | Source::Stream(_) => None,
        }))
    }

    fn count(&self, messages: u64) {
        match self.direction {
            Direction::Request => self.tally.add_request_messages(messages),
            Direction::Reply => self.tally.add_reply_messages(messages),
        }
    }

    /// The request body for a gRPC upstream: passed on untouched where the client spoke gRPC.
    pub fn into_grpc_body(self) -> Body {
        match self.source {
            Source::Whole(enveloped, _) => Body::whole(enveloped),
            Source::Raw(raw) => Body::stream(super::relay::Request::new(
                raw.body,
                self.bounds.max_message_bytes,
                self.tally,
            )),
            Source::Stream(_) => Body::stream(super::relay::Enveloped::new(self)),
            Source::Done | Source::Ended(_) => Body::empty(),
        }
    }

    /// The body as the peer sends it, if nobody has read from it; otherwise the messages back.
    pub(crate) fn into_raw(self) -> Result<Raw, Box<Self>> {
        match self.source {
            Source::Raw(raw) => Ok(raw),
            source @ (Source::Done | Source::Whole(..) | Source::Ended(_) | Source::Stream(_)) => {
                Err(Box::new(Self { source, ..self }))
            }
        }
    }
}

impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.source {
            Source::Done => "Messages::Done",
            Source::Whole(..) => "Messages::Whole",
            Source::Ended(_) => "Messages::Ended",
            Source::Raw(_) => "Messages::Raw",
            Source::Stream(_) => "Messages::Stream",
        })
    }
}

impl Raw {
    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
        bounds: Bounds,
        direction: Direction,
    ) -> Poll<Result<Option<Part>, Fault>> {
        loop {
            let reader = self
                .reader
                .get_or_insert_with(|| Box::new(Reader::new(bounds.max_message_bytes)));
            match reader.next_envelope() {
                Ok(Some(envelope)) => {
                    return Poll::Ready(
                        self.open(envelope, bounds, direction)
                            .map(|message| Some(Part::Message(message))),
                    );
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(direction.fault(&error))),
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => reader.push(data),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers()
                            && direction == Direction::Reply
                        {
                            return Poll::Ready(self.end(trailers, direction).map(Some));
                        }
                    }
                },
                Some(Err(fault)) => return Poll::Ready(Err(fault)),
                None => return Poll::Ready(self.stop(direction)),
            }
        }
    }

    /// The message in an envelope, decompressed if it must be.
    fn open(&self, envelope: Envelope, bounds: Bounds, direction: Direction) -> Result<Bytes, Fault> {
        if !envelope.compressed {
            return Ok(envelope.payload);
        }
        let growth = Growth {
            limit: bounds.max_message_bytes,
            ratio: bounds.max_decompression_ratio,
        };
        match self.encoding.as_deref().map(HeaderValue::as_bytes) {
            Some(b"gzip") => compression::gunzip(&envelope.payload, growth),
            Some(other) => Err(CompressionError::Unknown(
                String::from_utf8_lossy(other).into_owned(),
            )),
            None => Err(CompressionError::Unknown("identity".to_owned())),
        }
        .map_err(|error| direction.compression_fault(error))
    }

    fn end(&self, mut trailers: HeaderMap, direction: Direction) -> Result<Part, Fault> {
        self.finish(direction)?;
        match ending::take(&mut trailers) {
            Some(status) => Ok(Part::End(End {
                status,
                metadata: trailers,
            })),
            None => Err(no_status()),
        }
    }

    fn stop(&self, direction: Direction) -> Result<Option<Part>, Fault> {
        self.finish(direction)?;
        match direction {
            Direction::Request => Ok(None),
            Direction::Reply => Err(no_status()),
        }
    }

    /// Whether all that has come are whole messages.
    fn finish(&self, direction: Direction) -> Result<(), Fault> {
        match &self.reader {
            None => Ok(()),
            Some(reader) => reader.finish().map_err(|error| direction.fault(&error)),
        }
    }
}

/// Takes out of an end what clients are not told.
fn clean(hygiene: Option<Hygiene>, part: &mut Result<Option<Part>, Fault>) {
    if let (Some(hygiene), Ok(Some(Part::End(end)))) = (hygiene, part) {
        hygiene.clean(&mut end.status);
    }
}

/// A reply that stopped without a status: never a success.
pub(crate) fn no_status() -> Fault {
    Fault::upstream(Kind::Truncated, "the upstream ended its answer without a status")
}

/// A payload in a new envelope.
///
/// # Errors
/// A gateway fault for a payload that does not fit an envelope.
pub fn enveloped(payload: &[u8]) -> Result<Bytes, Fault> {
    envelope::wrap(payload).map_err(|error| Fault::gateway(Kind::MessageTooLarge, error.to_string()))
}

/// Puts the length into the envelope prefix that stands in front of `message`.
///
/// # Errors
/// A gateway fault for a payload that does not fit an envelope.
pub fn seal(mut message: BytesMut) -> Result<Bytes, Fault> {
    let length = message.len().saturating_sub(envelope::PREFIX);
    let prefix =
        envelope::prefix(length).map_err(|error| Fault::gateway(Kind::MessageTooLarge, error.to_string()))?;
    if let Some(front) = message.first_chunk_mut::<{ envelope::PREFIX }>() {
        *front = prefix;
    }
    Ok(message.freeze())
}
