//! A call that is not made yet: everything that the handshake said about it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http::request::Parts;
use tokio::time::Instant;

use crate::call::{Call, Deadline, metadata};
use crate::fault::{Fault, Kind};
use crate::frontend::rest::deadline;
use crate::frontend::websocket::metadata::merge;
use crate::frontend::websocket::talk::{Open, Protocol};
use crate::frontend::websocket::uplink::Uploads;
use crate::policy::{Permit, Standing};
use crate::route::entry::Form;
use crate::route::{Captures, Entry};
use crate::translate::binding::Given;
use crate::translate::json::JsonReason;
use crate::translate::messages::{Direction, seal};
use crate::translate::{Messages, Tally};
use crate::wire::envelope::PREFIX;
use crate::wire::websocket::handshake;

/// A call that waits for what the client says first.
pub(super) struct Opening {
    pub(super) reading: Reading,
    metadata: HeaderMap,
    timeout: Option<Duration>,
    permit: Permit,
    tally: Arc<Tally>,
}

/// How messages of the client become protobuf.
pub(super) struct Reading {
    entry: Arc<Entry>,
    binding: Option<u32>,
    protocol: Protocol,
    /// What path and query give; part of the first message.
    first: Option<Bytes>,
    given: Given,
    /// Messages so far.
    index: u64,
}

impl Opening {
    /// When what says who the client is does not hold any more.
    pub(super) fn expires(&self, now: Instant) -> Option<Instant> {
        self.permit.holds_for().map(|time| now + time)
    }

    /// By which the socket goes on for as long as the client's token is not revoked.
    pub(super) fn standing(&self) -> Option<Standing> {
        self.permit.standing()
    }

    /// What the handshake says.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for a path, a query or a deadline that does not fit, and whatever else REST refuses.
    pub(super) fn read(
        head: Parts,
        captures: &Captures,
        reading: (Arc<Entry>, Option<u32>, Protocol),
        permit: Permit,
        tally: Arc<Tally>,
    ) -> Result<Self, Fault> {
        let (entry, binding, protocol) = reading;
        let mut headers = head.headers;
        let timeout = deadline::asked(&headers)?;
        for name in handshake::HEADERS {
            headers.remove(name);
        }
        let mut first = BytesMut::new();
        let given = entry
            .bound(binding)
            .binding
            .read(&entry.json, captures, head.uri.query(), &mut first)
            .map_err(|error| Fault::client(Kind::InvalidArgument, error.to_string()))?;
        Ok(Self {
            reading: Reading {
                entry,
                binding,
                protocol,
                first: Some(first.freeze()),
                given,
                index: 0,
            },
            metadata: metadata::from_request(headers, metadata::Headers::Http)?,
            timeout,
            permit,
            tally,
        })
    }

    /// Adds what the client's first frame says.
    ///
    /// # Errors
    /// [`Kind::BadRequest`] for metadata that can't be sent on.
    pub(super) fn open(&mut self, open: Open) -> Result<(), Fault> {
        merge(&mut self.metadata, open.metadata)?;
        self.timeout = self.timeout.into_iter().chain(open.timeout).min();
        Ok(())
    }

    /// The call with its one message, of which the client gave `payload`, or nothing.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] for a message that does not fit.
    pub(super) fn with_message(self, payload: Option<&[u8]>, now: Instant) -> Result<Call, Fault> {
        let Self {
            mut reading,
            metadata,
            timeout,
            permit,
            tally,
        } = self;
        let mut message = BytesMut::new();
        message.put_bytes(0, PREFIX);
        reading.read(payload, &mut message)?;
        reading.patch_mask(payload, &mut message)?;
        let entry = reading.entry;
        let messages = Messages::whole(seal(message)?, entry.route.bounds, tally);
        Ok(call(&entry, metadata, timeout, permit, messages, now))
    }

    /// The call whose messages are those of `uploads`, and how they are read.
    pub(super) fn with_messages(self, uploads: Uploads, now: Instant) -> (Call, Reading) {
        let entry = Arc::clone(&self.reading.entry);
        let messages = Messages::stream(
            Box::pin(uploads),
            Direction::Request,
            entry.route.bounds,
            self.tally,
        );
        let call = call(&entry, self.metadata, self.timeout, self.permit, messages, now);
        (call, self.reading)
    }
}

fn call(
    entry: &Entry,
    metadata: HeaderMap,
    timeout: Option<Duration>,
    permit: Permit,
    messages: Messages,
    now: Instant,
) -> Call {
    Call {
        method: Arc::clone(&entry.method),
        metadata,
        deadline: Deadline::earlier(now, timeout, entry.timeout()),
        messages,
        permit,
    }
}

impl Reading {
    /// The next message as protobuf.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`] and [`Kind::MessageTooLarge`]; the text counts the message from 0.
    pub(super) fn message(&mut self, payload: &[u8]) -> Result<Bytes, Fault> {
        let mut message = BytesMut::with_capacity(payload.len());
        self.read(Some(payload), &mut message)?;
        Ok(message.freeze())
    }

    /// What path and query give, if no message has had it and it is something, or all that there can be.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        let takes_body = self.entry.bound(self.binding).binding.body_target().is_some();
        self.first.take().filter(|first| !first.is_empty() || !takes_body)
    }

    fn read(&mut self, payload: Option<&[u8]>, out: &mut BytesMut) -> Result<(), Fault> {
        let first = self.first.take().unwrap_or_default();
        let limit = self.entry.route.bounds.max_message_bytes;
        if self.is_json() {
            out.extend_from_slice(&first);
            if let Some(text) = payload {
                self.read_json(text, out, limit)?;
            }
        } else {
            let payload = payload.unwrap_or_default();
            if payload.len().saturating_add(first.len()) > limit {
                return Err(Fault::client(
                    Kind::MessageTooLarge,
                    format!("message {} is over the limit of {limit} bytes", self.index),
                ));
            }
            // The last of two values holds, so that a message can't replace what the path says, by which access
            // may have been decided.
            out.extend_from_slice(payload);
            out.extend_from_slice(&first);
        }
        self.index += 1;
        Ok(())
    }

    /// Whether the client's messages are JSON.
    fn is_json(&self) -> bool {
        let raw = matches!(self.entry.bound(self.binding).request, Form::Raw(_));
        self.protocol.is_json() && !(raw && self.protocol == Protocol::Raw)
    }

    fn read_json(&self, text: &[u8], out: &mut BytesMut, limit: usize) -> Result<(), Fault> {
        let bound = self.entry.bound(self.binding);
        bound
            .binding
            .read_body(&self.entry.json, text, out, limit)
            .map_err(|error| {
                let kind = match error.reason {
                    JsonReason::TooLarge { .. } => Kind::MessageTooLarge,
                    _ => Kind::InvalidArgument,
                };
                Fault::client(kind, format!("message {}: {error}", self.index))
            })
    }

    /// Adds the mask that a PATCH stands for.
    fn patch_mask(&self, text: Option<&[u8]>, out: &mut BytesMut) -> Result<(), Fault> {
        let Some(text) = text.filter(|_| self.is_json()) else {
            return Ok(());
        };
        let binding = &self.entry.bound(self.binding).binding;
        binding
            .patch_mask(self.given, text, out)
            .map_err(|error| Fault::client(Kind::InvalidArgument, format!("message {}: {error}", self.index)))
    }
}
