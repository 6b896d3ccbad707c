//! A Connect request becomes a call.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};
use tokio::time::Instant;

use super::{CONNECT_ACCEPT_ENCODING, CONNECT_CONTENT_ENCODING, allow, content_type, is_get};
use crate::call::{Call, Deadline, metadata};
use crate::fault::{Fault, Kind, Side};
use crate::frontend::Admitted;
use crate::frontend::rest::{body, deadline, read_json};
use crate::route::Entry;
use crate::schema::MethodKind;
use crate::translate::messages::{Direction, PartStream, seal};
use crate::translate::{Bounds, Messages, Part};
use crate::wire::body::{Body, Way};
use crate::wire::compression::{self, CompressionError, Growth};
use crate::wire::connect::{Query, VERSION};
use crate::wire::envelope::PREFIX;
use crate::wire::{Codec, Format, Framing};

const CONNECT_PROTOCOL_VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");

/// The call that a request asks for. A unary one goes upstream once all of it is valid.
pub(super) async fn read(admitted: Admitted) -> Result<Call, Fault> {
    shape(&admitted)?;
    let Admitted {
        head,
        body,
        format,
        entry,
        permit,
        tally,
        now,
        ..
    } = admitted;
    let deadline = Deadline::earlier(now, deadline::connect(&head.headers)?, entry.timeout());
    let body = Body::incoming(body, Side::Client).counted(&tally, Way::Request);
    let bounds = entry.route.bounds;
    let mut accepted = None;
    let messages = match (format.framing, format.codec) {
        (Framing::Connect, Codec::Proto) => {
            accepted = head.headers.get(CONNECT_ACCEPT_ENCODING).cloned();
            let encoding = head.headers.get(CONNECT_CONTENT_ENCODING).cloned();
            // Envelope and flags are gRPC's, so the bytes are relayed as they come. Compressed ones are opened: the
            // encoding was chosen with the gateway in mind, and a backend may not know it.
            Messages::raw(body, encoding, Direction::Request, bounds, tally).opened()
        }
        (Framing::Connect, Codec::Json) => {
            let encoding = head.headers.get(CONNECT_CONTENT_ENCODING).cloned();
            Messages::stream(upload(&entry, body, encoding), Direction::Request, bounds, tally)
        }
        (_, codec) => {
            let payload = match is_get(&head) {
                true => parameters(&head, bounds)?,
                false => whole(body, &head.headers, bounds, now).await?,
            };
            Messages::whole(message(&entry, codec, &payload)?, bounds, tally)
        }
    };
    let mut metadata = metadata::from_request(head.headers, metadata::Headers::Http)?;
    if let Some(accepted) = accepted {
        metadata.insert(GRPC_ACCEPT_ENCODING, accepted);
    }
    Ok(Call {
        method: Arc::clone(&entry.method),
        metadata,
        deadline,
        messages,
        permit,
    })
}

/// Whether the head is one of a Connect call of this method.
fn shape(admitted: &Admitted) -> Result<(), Fault> {
    let Admitted {
        head, format, entry, ..
    } = admitted;
    let method = &entry.method;
    let is_unary = method.kind == MethodKind::Unary;
    if is_get(head) {
        if !method.may_be_got() {
            let said = "GET is for unary methods without side effects; use POST here";
            return Err(Fault::client(Kind::MethodNotAllowed, said).allowing(allow(method)));
        }
        return Ok(());
    }
    if head.method != Method::POST {
        let said = format!("{} is no method of Connect; use {}", head.method, allow(method));
        return Err(Fault::client(Kind::MethodNotAllowed, said).allowing(allow(method)));
    }
    if (format.framing == Framing::Connect) == is_unary || !is_of(head, *format) {
        let said = format!(
            "header content-type: {} is not taken by this method; {} are",
            head.headers
                .get(CONTENT_TYPE)
                .map_or_else(|| "none".to_owned(), |value| format!("{value:?}")),
            super::accept_post(method).replace(',', " and"),
        );
        return Err(Fault::client(Kind::UnsupportedMediaType, said));
    }
    if *format == Format::JSON {
        // For the charset.
        body::expect_json(&head.headers)?;
    }
    match head.headers.get(CONNECT_PROTOCOL_VERSION) {
        Some(version) if version.as_bytes() != VERSION.as_bytes() => Err(Fault::client(
            Kind::InvalidArgument,
            format!("header connect-protocol-version: {version:?} is not known; \"{VERSION}\" is"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Whether the content type is exactly that of the format: what looks like Connect at first may have another codec.
fn is_of(head: &Parts, format: Format) -> bool {
    let value = head.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let media_type = value
        .unwrap_or_default()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    media_type.eq_ignore_ascii_case(content_type(format).as_bytes())
}

/// The message in the query of a GET request.
fn parameters(head: &Parts, bounds: Bounds) -> Result<Bytes, Fault> {
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let invalid = |said: String| Fault::client(Kind::InvalidArgument, said);
    if let Some(version) = query.version.filter(|version| *version != "v1") {
        return Err(invalid(format!(
            "parameter connect: {version:?} is not known; \"v1\" is"
        )));
    }
    match query.encoding {
        Some("proto" | "json") => {}
        Some(other) => {
            return Err(Fault::client(
                Kind::UnsupportedMediaType,
                format!("parameter encoding: {other:?} is not taken; \"json\" and \"proto\" are"),
            ));
        }
        None => {
            return Err(invalid(
                "parameter encoding: it is missing; \"json\" and \"proto\" are taken".to_owned(),
            ));
        }
    }
    let message = query.message().map_err(|error| invalid(error.to_string()))?;
    match query.compression {
        None | Some("" | "identity") => Ok(message.into()),
        Some("gzip") => {
            let growth = Growth {
                limit: bounds.max_message_bytes,
                ratio: bounds.max_decompression_ratio,
            };
            compression::gunzip(&message, growth).map_err(|error| {
                let kind = match error {
                    CompressionError::TooLarge { .. } | CompressionError::Ratio { .. } => {
                        Kind::MessageTooLarge
                    }
                    CompressionError::Unknown(_) | CompressionError::Corrupt(_) => Kind::InvalidArgument,
                };
                Fault::client(kind, format!("parameter message: {error}")).caused_by(error)
            })
        }
        Some(other) => Err(Fault::client(
            Kind::Unimplemented,
            format!("parameter compression: {other:?} is not taken; gzip and identity are"),
        )),
    }
}

/// All of the body of a unary request.
async fn whole(body: Body, headers: &HeaderMap, bounds: Bounds, now: Instant) -> Result<Bytes, Fault> {
    // Source: Connect, "Compression": an encoding that is not taken is told as `unimplemented`.
    let encoding = body::encoding(headers)
        .map_err(|fault| Fault::client(Kind::Unimplemented, fault.message().to_owned()))?;
    body::collect(body, headers, encoding, bounds, now).await
}

/// The one message of a unary request, in its envelope.
fn message(entry: &Entry, codec: Codec, payload: &[u8]) -> Result<Bytes, Fault> {
    let mut message = BytesMut::with_capacity(payload.len() + PREFIX);
    message.put_bytes(0, PREFIX);
    match codec {
        Codec::Proto => message.put_slice(payload),
        Codec::Json => read_json(entry, &entry.rpc, payload, &mut message)?,
    }
    seal(message)
}

/// The messages of a stream in JSON.
fn upload(entry: &Arc<Entry>, body: Body, encoding: Option<HeaderValue>) -> PartStream {
    // Counted where they come out; the texts themselves go to nobody's account.
    let texts = Messages::raw(
        body,
        encoding,
        Direction::Request,
        entry.route.bounds,
        Arc::default(),
    );
    let upload = Upload {
        entry: Arc::clone(entry),
        texts,
        index: 0,
    };
    Box::pin(stream::try_unfold(upload, Upload::step))
}

/// JSON texts in envelopes, each read as it comes.
struct Upload {
    entry: Arc<Entry>,
    texts: Messages,
    /// Messages so far.
    index: u64,
}

impl Upload {
    async fn step(mut self) -> Result<Option<(Part, Self)>, Fault> {
        let Some(Part::Message(text)) = self.texts.next().await? else {
            return Ok(None);
        };
        let mut message = BytesMut::with_capacity(text.len());
        read_json(&self.entry, &self.entry.rpc, &text, &mut message).map_err(|fault| {
            let said = format!("message {}: {}", self.index, fault.message());
            Fault::client(fault.kind(), said)
        })?;
        self.index += 1;
        Ok(Some((Part::Message(message.freeze()), self)))
    }
}
