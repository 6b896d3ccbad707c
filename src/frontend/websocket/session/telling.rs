//! What a session tells its client: metadata, messages, and how the call ended.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Farewell, Session, State};
use crate::call::{Reply, metadata};
use crate::fault::{Fault, Kind, Side};
use crate::frontend::websocket::talk::{Ended, Protocol};
use crate::route::entry::Form;
use crate::status::Code;
use crate::translate::json::{WireError, WireReason};
use crate::translate::tally::Outcome;
use crate::translate::{End, raw_body};
use crate::wire::body::{Count as _, Way};
use crate::wire::websocket::{Close, FrameError, Kind as FrameKind};

/// What is added to a status code to make a close code: codes from 4000 on are an application's own.
const STATUS_CODES: u16 = 4000;

/// How much larger than its protobuf the JSON of a message may be.
const JSON_GROWTH: usize = 8;

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// The upstream has answered.
    pub(super) fn reply(&mut self, reply: Reply) {
        self.tell(&reply.metadata);
        self.call = State::Answering(Box::new(reply.messages));
    }

    /// Tells the client the initial metadata, once.
    pub(super) fn tell(&mut self, metadata: &HeaderMap) {
        if !std::mem::replace(&mut self.told, true)
            && let Some(frame) = self.protocol.headers(metadata)
        {
            self.send(&frame);
        }
    }

    pub(super) fn send(&mut self, frame: &[u8]) {
        self.tally.count(Way::Reply, frame.len());
        self.socket.message(self.protocol.frames(), frame);
    }

    /// Sends a message of the upstream.
    pub(super) fn answer(&mut self, message: &Bytes) -> Option<Farewell> {
        self.timers.active(Instant::now());
        self.answers += 1;
        if self.answers > 1 && !self.entry.method.kind.server_streams() {
            return Some(self.fail(&miscounted("more than one message")));
        }
        if let (Protocol::Raw, Form::Raw(field)) = (self.protocol, self.entry.bound(self.binding).response) {
            return self.answer_raw(field, message);
        }
        if !self.protocol.is_json() {
            let frame = self.protocol.proto(message);
            self.send(&frame);
            return None;
        }
        let mut text = BytesMut::with_capacity(message.len() * 2);
        let target = self.entry.bound(self.binding).binding.response;
        let limit = self
            .entry
            .route
            .bounds
            .max_message_bytes
            .saturating_mul(JSON_GROWTH);
        if let Err(error) = self.entry.json.write(target, None, message, &mut text, limit) {
            return Some(self.fail(&not_json(&error)));
        }
        match self.protocol.json(&text) {
            Some(wrapped) => self.send(&wrapped),
            None => self.send(&text),
        }
        None
    }

    /// Sends the bytes of a `google.api.HttpBody`: as a text where its content type says so.
    fn answer_raw(&mut self, field: Option<u32>, message: &Bytes) -> Option<Farewell> {
        let body = match raw_body::decode(field, message.clone()) {
            Ok(body) => body,
            Err(error) => {
                let what = "an answer is no google.api.HttpBody";
                return Some(self.fail(&Fault::upstream(Kind::UpstreamMessage, what).caused_by(error)));
            }
        };
        let essence = body.content_type.split(';').next().unwrap_or_default().trim();
        let is_text = essence.starts_with("text/") || essence == "application/json";
        let kind = if is_text && std::str::from_utf8(&body.data).is_ok() {
            FrameKind::Text
        } else {
            FrameKind::Binary
        };
        self.tally.count(Way::Reply, body.data.len());
        self.socket.message(kind, &body.data);
        None
    }

    /// The upstream ends the call.
    pub(super) fn end(&mut self, end: End) -> Farewell {
        let End {
            status,
            metadata: mut trailers,
        } = end;
        if status.code == Code::Ok && self.answers == 0 && !self.entry.method.kind.server_streams() {
            return self.fail(&miscounted("no message"));
        }
        self.tally.end(Outcome::Upstream(status.code));
        metadata::from_upstream(&mut trailers);
        self.tell_end(&Ended::Upstream(&status, &trailers));
        Farewell::Close(Close::new(status_code(status.code), &status.message))
    }

    /// The gateway ends the call.
    pub(super) fn fail(&mut self, fault: &Fault) -> Farewell {
        self.refuse(fault, fault_code(fault))
    }

    pub(super) fn refuse(&mut self, fault: &Fault, code: u16) -> Farewell {
        tracing::debug!(error = %fault, cause = ?std::error::Error::source(fault), "a WebSocket call failed");
        if let Some(limit) = fault.limit() {
            self.tally.met(limit);
        }
        self.tally.end(Outcome::Gateway(fault.kind(), fault.side()));
        self.tell_end(&Ended::Gateway(fault));
        Farewell::Close(Close::new(code, fault.message()))
    }

    pub(super) fn tell_end(&mut self, ended: &Ended<'_>) {
        if !self.protocol.is_json() {
            // Trailers are told from initial metadata by their place alone.
            self.tell(&HeaderMap::new());
        }
        for frame in self.protocol.ended(ended, &self.entry.json) {
            self.send(&frame);
        }
    }

    /// Ends a connection on which nothing more can be read.
    pub(super) fn break_off(&mut self, error: FrameError) -> Farewell {
        let code = error.code();
        let kind = match code {
            Close::TOO_BIG => Kind::MessageTooLarge,
            _ => Kind::InvalidArgument,
        };
        let fault = Fault::client(kind, error.to_string());
        if code == Close::PROTOCOL {
            // A peer that does not keep to the framing would not understand a status either.
            self.tally.end(Outcome::Gateway(kind, Side::Client));
        } else {
            self.refuse(&fault, code);
        }
        Farewell::Break(Close::new(code, fault.message()))
    }
}

/// The close code that stands for a status.
pub(in crate::frontend::websocket) fn status_code(code: Code) -> u16 {
    match code {
        Code::Ok => Close::NORMAL,
        failed => STATUS_CODES + u16::from(failed.number()),
    }
}

/// The close code of a call that the gateway ends.
fn fault_code(fault: &Fault) -> u16 {
    match (fault.kind(), fault.side()) {
        (Kind::MessageTooLarge, Side::Client) => Close::TOO_BIG,
        (Kind::Internal, Side::Gateway) => Close::INTERNAL,
        // The call hears that the token is revoked as the session does, and may hear it first.
        (Kind::CredentialsExpired | Kind::CredentialsRevoked, _)
        | (Kind::RateLimited | Kind::QuotaExhausted | Kind::ConcurrencyLimited, _) => Close::POLICY,
        (kind, _) => status_code(kind.code()),
    }
}

fn miscounted(what: &str) -> Fault {
    Fault::upstream(
        Kind::UpstreamProtocol,
        format!("the upstream answered a call that has one answer with {what}"),
    )
}

/// A message that JSON can't express, as the upstream's fault.
fn not_json(error: &WireError) -> Fault {
    let kind = match error.reason {
        WireReason::TooLarge { .. } => Kind::UpstreamMessageTooLarge,
        _ => Kind::UpstreamMessage,
    };
    Fault::upstream(kind, format!("in the upstream's answer, {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_session_has_one_close_code_whoever_hears_of_it_first() {
        for (fault, code) in [
            (Fault::client(Kind::CredentialsRevoked, ""), 1008),
            (Fault::client(Kind::CredentialsExpired, ""), 1008),
            (Fault::client(Kind::RateLimited, ""), 1008),
            (Fault::client(Kind::MessageTooLarge, ""), 1009),
            (Fault::gateway(Kind::Internal, ""), 1011),
            (Fault::client(Kind::PermissionDenied, ""), 4007),
            (Fault::upstream(Kind::UpstreamMessage, ""), 4013),
        ] {
            assert_eq!(fault_code(&fault), code, "{fault:?}");
        }
    }
}
