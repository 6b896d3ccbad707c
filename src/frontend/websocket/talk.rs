//! The subprotocols: what a frame of the client means, and how the gateway's frames are written.

use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::json;

use crate::fault::{Fault, Kind};
use crate::frontend::refuse;
use crate::frontend::rest::error;
use crate::frontend::websocket::metadata;
use crate::route::entry::{Bound, Form};
use crate::status::Status;
use crate::translate::json::Transcoder;
use crate::translate::raw_body;
use crate::wire::websocket::Kind as FrameKind;
use crate::wire::websocket::handshake;
use crate::wire::{ending, envelope, timeout};

/// Kinds of frames of `sabir.v1.proto`.
mod kind {
    pub(super) const MESSAGE: u8 = 0;
    pub(super) const END: u8 = 1;
    pub(super) const OPEN: u8 = 2;
    pub(super) const HEADERS: u8 = 3;
    pub(super) const STATUS: u8 = 4;
    pub(super) const CANCEL: u8 = 5;
}

/// The flag of a gRPC-Web frame that holds metadata. Source: gRPC-Web protocol, "Message framing".
const METADATA: u8 = 0x80;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// A subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// `sabir.v1.json`: a text frame is a message or an object of one member that begins with `$`.
    Json,
    /// None: the messages alone, and a last `{"error": …}`; the client may still say what `sabir.v1.json` has.
    Plain,
    /// None, where a body is a `google.api.HttpBody`: its bytes are the frame, and failures are told by the close code
    /// alone.
    Raw,
    /// `sabir.v1.proto`: a binary frame is a byte of kind and a payload.
    Proto,
    /// `grpc-websockets`: frames of gRPC-Web, which the client puts behind a lead byte.
    GrpcWeb,
}

/// What a client says with a frame.
#[derive(Debug)]
pub(super) enum Said {
    /// Metadata and a deadline, before anything else.
    Open(Open),
    /// A message, in JSON or protobuf.
    Message(Bytes),
    /// There are no more messages.
    End,
    /// The call is to be given up.
    Cancel,
}

impl Said {
    /// A frame that is a `google.api.HttpBody`, or a message's field of this number that is one.
    pub(super) fn raw(field: Option<u32>, kind: FrameKind, payload: &Bytes) -> Self {
        let content_type = HeaderValue::from_static(match kind {
            FrameKind::Text => "text/plain; charset=utf-8",
            FrameKind::Binary => "application/octet-stream",
        });
        let mut message = BytesMut::new();
        raw_body::encode(field, Some(&content_type), payload, &mut message);
        Self::Message(message.freeze())
    }
}

/// What the first frame may say about the call.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) metadata: HeaderMap,
    pub(super) timeout: Option<Duration>,
}

/// How a call ended.
pub(super) enum Ended<'a> {
    /// The upstream said so, with trailing metadata.
    Upstream(&'a Status, &'a HeaderMap),
    /// The gateway said so.
    Gateway(&'a Fault),
}

impl Protocol {
    pub(super) const ALL: [Self; 5] = [Self::Json, Self::Plain, Self::Raw, Self::Proto, Self::GrpcWeb];

    /// What it is on a method with these bodies.
    pub(super) fn on(self, bound: &Bound) -> Self {
        let raw = matches!(bound.request, Form::Raw(_)) || matches!(bound.response, Form::Raw(_));
        match self {
            Self::Plain if raw => Self::Raw,
            _ => self,
        }
    }

    /// The protocol with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|protocol| protocol.name() == Some(name))
    }

    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Json => Some(handshake::SABIR_JSON),
            Self::Plain | Self::Raw => None,
            Self::Proto => Some(handshake::SABIR_PROTO),
            Self::GrpcWeb => Some(handshake::GRPC_WEBSOCKETS),
        }
    }

    /// What its frames are, but for raw bytes.
    pub(super) fn frames(self) -> FrameKind {
        match self {
            Self::Json | Self::Plain | Self::Raw => FrameKind::Text,
            Self::Proto | Self::GrpcWeb => FrameKind::Binary,
        }
    }

    /// Whether its messages are JSON.
    pub(super) fn is_json(self) -> bool {
        self.frames() == FrameKind::Text
    }

    /// Whether the call of a method to which a client streams waits for the client's first frame, which may say
    /// something about it.
    pub(super) fn opens_by_frame(self) -> bool {
        match self {
            Self::Json | Self::Proto | Self::GrpcWeb => true,
            Self::Plain | Self::Raw => false,
        }
    }

    /// What a frame means; `first` says that none came before it.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`]: what is wrong with it.
    pub(super) fn hear(self, payload: Bytes, first: bool) -> Result<Said, Fault> {
        match self {
            Self::Json | Self::Plain | Self::Raw => hear_json(payload),
            Self::Proto => hear_proto(payload),
            Self::GrpcWeb if first => hear_headers(&payload),
            Self::GrpcWeb => hear_grpc_web(payload),
        }
    }

    /// The frame for initial metadata, if the protocol has one.
    pub(super) fn headers(self, headers: &HeaderMap) -> Option<Vec<u8>> {
        match self {
            Self::Json => Some(
                json!({"$headers": metadata::json(headers)})
                    .to_string()
                    .into_bytes(),
            ),
            Self::Plain | Self::Raw => None,
            Self::Proto => Some(tagged(kind::HEADERS, &metadata::block(headers))),
            Self::GrpcWeb => Some(enveloped(METADATA, &metadata::lines(headers))),
        }
    }

    /// A protobuf message as a frame.
    pub(super) fn proto(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::GrpcWeb => enveloped(0, message),
            Self::Json | Self::Plain | Self::Raw | Self::Proto => tagged(kind::MESSAGE, message),
        }
    }

    /// A JSON text as a frame: as it is, but where it would be taken for a control frame.
    pub(super) fn json(self, text: &[u8]) -> Option<Vec<u8>> {
        if self != Self::Json || control(text).is_none() {
            return None;
        }
        Some([b"{\"$msg\":", text, b"}"].concat())
    }

    /// The frames that tell how the call ended, in order.
    pub(super) fn ended(self, ended: &Ended<'_>, transcoder: &Transcoder) -> Vec<Vec<u8>> {
        match self {
            Self::Json => {
                let (status, trailers) = match ended {
                    Ended::Upstream(status, trailers) => {
                        (error::json(status, transcoder), metadata::json(trailers))
                    }
                    Ended::Gateway(fault) => (refuse::json(fault), json!({})),
                };
                vec![
                    json!({"$status": {
                        "code": status.code,
                        "message": status.message,
                        "details": status.details,
                        "trailers": trailers,
                    }})
                    .to_string()
                    .into_bytes(),
                ]
            }
            Self::Plain => {
                let status = match ended {
                    Ended::Upstream(status, _) if status.code.number() == 0 => return Vec::new(),
                    Ended::Upstream(status, _) => error::json(status, transcoder),
                    Ended::Gateway(fault) => refuse::json(fault),
                };
                vec![json!({"error": status}).to_string().into_bytes()]
            }
            Self::Raw => Vec::new(),
            Self::Proto => {
                let (status, trailers) = both(ended);
                let mut frames = Vec::new();
                if !trailers.is_empty() {
                    frames.push(tagged(kind::HEADERS, &metadata::block(&trailers)));
                }
                frames.push(tagged(kind::STATUS, &rpc_status(&status)));
                frames
            }
            Self::GrpcWeb => {
                let (status, mut trailers) = both(ended);
                ending::put(&status, &mut trailers);
                vec![enveloped(METADATA, &metadata::lines(&trailers))]
            }
        }
    }
}

/// `google.rpc.Status`, whose details are passed on as they came.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    details: Vec<Bytes>,
}

/// A status as `google.rpc.Status`.
fn rpc_status(status: &Status) -> Vec<u8> {
    // Details that can't be read are worth less than the code and the message, which stand by themselves.
    let details = RpcStatus::decode(status.details.clone())
        .map(|status| status.details)
        .unwrap_or_default();
    let status = RpcStatus {
        code: i32::from(status.code.number()),
        message: status.message.clone(),
        details,
    };
    status.encode_to_vec()
}

fn both(ended: &Ended<'_>) -> (Status, HeaderMap) {
    match ended {
        Ended::Upstream(status, trailers) => ((*status).clone(), (*trailers).clone()),
        Ended::Gateway(fault) => (Status::from(*fault), HeaderMap::new()),
    }
}

fn bad(what: impl Into<String>) -> Fault {
    Fault::client(Kind::InvalidArgument, what)
}

/// A text frame of `sabir.v1.json`.
fn hear_json(payload: Bytes) -> Result<Said, Fault> {
    let Some((name, value)) = control(&payload) else {
        return Ok(Said::Message(payload));
    };
    match name.as_str() {
        "$msg" => Ok(Said::Message(payload.slice_ref(value))),
        "$end" => Ok(Said::End),
        "$cancel" => Ok(Said::Cancel),
        "$open" => serde_json::from_slice::<WrittenOpen>(value)
            .map_err(|error| bad(format!("$open: {error}")))?
            .read()
            .map(Said::Open),
        _ => Err(bad(format!(
            "{name} is not known; $open, $msg, $end and $cancel are"
        ))),
    }
}

/// The token of `{"$auth": "TOKEN"}`, as the value of an `Authorization` header.
pub(super) fn hear_auth(payload: &[u8]) -> Option<HeaderValue> {
    let (name, value) = control(payload)?;
    let token: String = (name == "$auth")
        .then(|| serde_json::from_slice(value).ok())
        .flatten()?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `$open` as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct WrittenOpen {
    metadata: metadata::Written,
    timeout: Option<String>,
}

impl WrittenOpen {
    fn read(self) -> Result<Open, Fault> {
        let timeout = self.timeout.map(|text| {
            seconds(&text)
                .ok_or_else(|| bad(format!("$open.timeout: {text:?} is no duration such as \"1.5s\"")))
        });
        Ok(Open {
            metadata: metadata::from_json(&self.metadata)?,
            timeout: timeout.transpose()?,
        })
    }
}

/// A duration as ProtoJSON writes it.
fn seconds(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let nanos: u32 = format!("{fraction:0<9}").parse().ok()?;
    Some(Duration::new(whole.parse().ok()?, nanos))
}

/// The name and the value of a control frame: an object of exactly one member, whose name begins with `$`.
fn control(text: &[u8]) -> Option<(String, &[u8])> {
    let inside = text.trim_ascii().strip_prefix(b"{")?.strip_suffix(b"}")?;
    let name = inside.trim_ascii_start().strip_prefix(b"\"")?;
    if !name.starts_with(b"$") {
        return None;
    }
    let Alone(known) = serde_json::from_slice(text).ok()?;
    // No member of a control frame is written with an escape, so that the name ends at the next quote.
    let rest = name.strip_prefix(known.as_bytes())?.strip_prefix(b"\"")?;
    let value = rest.trim_ascii_start().strip_prefix(b":")?;
    Some((known, value.trim_ascii()))
}

/// An object of one member.
struct Alone(String);

impl<'de> Deserialize<'de> for Alone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AloneVisitor;

        impl<'de> Visitor<'de> for AloneVisitor {
            type Value = Alone;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of one member")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Alone, A::Error> {
                let none = || serde::de::Error::custom("no member");
                let (name, IgnoredAny) = map.next_entry::<String, IgnoredAny>()?.ok_or_else(none)?;
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(Alone(name)),
                    Some(IgnoredAny) => Err(serde::de::Error::custom("more than one member")),
                }
            }
        }

        deserializer.deserialize_map(AloneVisitor)
    }
}

/// A binary frame of `sabir.v1.proto`.
fn hear_proto(mut payload: Bytes) -> Result<Said, Fault> {
    if payload.is_empty() {
        return Err(bad("a frame begins with a byte that says its kind"));
    }
    match payload.get_u8() {
        kind::MESSAGE => Ok(Said::Message(payload)),
        kind::END => Ok(Said::End),
        kind::CANCEL => Ok(Said::Cancel),
        kind::OPEN => open(metadata::from_block(&payload)?).map(Said::Open),
        other => Err(bad(format!(
            "a client sends frames of kind 0 (message), 1 (half-close), 2 (open) and 5 (cancel), not {other}"
        ))),
    }
}

/// Metadata in which a deadline stands as `grpc-timeout`.
fn open(mut metadata: HeaderMap) -> Result<Open, Fault> {
    let asked = metadata.remove(GRPC_TIMEOUT).map(|value| {
        timeout::parse(value.as_bytes()).map_err(|error| bad(format!("metadata grpc-timeout: {error}")))
    });
    Ok(Open {
        metadata,
        timeout: asked.transpose()?,
    })
}

/// The first frame of `grpc-websockets`: metadata as lines.
fn hear_headers(payload: &[u8]) -> Result<Said, Fault> {
    open(metadata::from_lines(payload)?).map(Said::Open)
}

/// A frame of `grpc-websockets`: a lead byte, and behind 0 a message in its envelope.
fn hear_grpc_web(mut payload: Bytes) -> Result<Said, Fault> {
    if payload.is_empty() {
        return Err(bad("a frame begins with a byte that says what it is"));
    }
    match payload.get_u8() {
        0 => {
            let mut reader = envelope::Reader::new(payload.len());
            reader.push(payload);
            let envelope = reader.next_envelope().map_err(|error| bad(error.to_string()))?;
            reader.finish().map_err(|error| bad(error.to_string()))?;
            match envelope {
                Some(envelope) if !envelope.compressed => Ok(Said::Message(envelope.payload)),
                Some(_) => Err(bad("compressed messages are not taken here")),
                None => Err(bad("a frame holds one message in its envelope")),
            }
        }
        1 => Ok(Said::End),
        other => Err(bad(format!(
            "a client sends frames that begin with 0 (message) or 1 (end), not {other}"
        ))),
    }
}

fn tagged(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 1);
    frame.push(kind);
    frame.extend_from_slice(payload);
    frame
}

/// A frame of gRPC-Web. What is longer than its length can say does not get here: messages have their limit.
fn enveloped(flag: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut frame = tagged(flag, &length.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(protocol: Protocol, payload: &'static [u8], first: bool) -> String {
        match protocol.hear(Bytes::from_static(payload), first) {
            Ok(Said::Open(open)) => format!("open {} {:?}", metadata::json(&open.metadata), open.timeout),
            Ok(Said::Message(message)) => format!("message {}", String::from_utf8_lossy(&message)),
            Ok(Said::End) => "end".to_owned(),
            Ok(Said::Cancel) => "cancel".to_owned(),
            Err(fault) => format!("refused: {fault}"),
        }
    }

    #[test]
    fn an_object_of_one_member_that_begins_with_a_dollar_is_a_control_frame() {
        let table: &[(&str, &str)] = &[
            (r#"{"a":1}"#, r#"message {"a":1}"#),
            (r#"{"$msg":{"$end":{}}}"#, r#"message {"$end":{}}"#),
            (r#" { "$msg" : [1, "}"] } "#, r#"message [1, "}"]"#),
            (r#"{"$end":{}}"#, "end"),
            (r#"{"$end":{}, "a":1}"#, r#"message {"$end":{}, "a":1}"#),
            (r#"{"$cancel":{}}"#, "cancel"),
            (r#""$end""#, r#"message "$end""#),
            ("{\"$end\":", "message {\"$end\":"),
            (r#"{"$open":{}}"#, "open {} None"),
            (
                r#"{"$open":{"metadata":{"x-a":["1","2"]},"timeout":"1.5s"}}"#,
                r#"open {"x-a":["1","2"]} Some(1.5s)"#,
            ),
            (
                r#"{"$open":{"timeout":"5"}}"#,
                "refused: $open.timeout: \"5\" is no duration such as \"1.5s\"",
            ),
            (
                r#"{"$stop":{}}"#,
                "refused: $stop is not known; $open, $msg, $end and $cancel are",
            ),
        ];
        for (frame, expected) in table {
            assert_eq!(
                heard(Protocol::Json, frame.as_bytes(), true),
                *expected,
                "{frame}"
            );
            assert_eq!(
                heard(Protocol::Plain, frame.as_bytes(), false),
                *expected,
                "{frame}"
            );
        }
    }

    #[test]
    fn a_byte_says_what_a_proto_frame_is() {
        let table: &[(&[u8], &str)] = &[
            (b"\x00abc", "message abc"),
            (b"\x00", "message "),
            (b"\x01", "end"),
            (b"\x05", "cancel"),
            (b"\x02\x0a\x08\x0a\x03x-a\x12\x011", "open {\"x-a\":\"1\"} None"),
            (b"\x02\x0a\x12\x0a\x0cgrpc-timeout\x12\x025S", "open {} Some(5s)"),
        ];
        for (frame, expected) in table {
            assert_eq!(heard(Protocol::Proto, frame, true), *expected);
        }
        for wrong in [&b""[..], b"\x03", b"\x04", b"\x06"] {
            assert!(
                heard(Protocol::Proto, wrong, true).starts_with("refused"),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn existing_clients_send_lines_first_and_then_lead_bytes() {
        let lines = b"content-type: application/grpc-web+proto\r\nx-grpc-web: 1\r\ngrpc-timeout: 2S\r\n";
        assert_eq!(
            heard(Protocol::GrpcWeb, lines, true),
            r#"open {"content-type":"application/grpc-web+proto","x-grpc-web":"1"} Some(2s)"#
        );
        assert_eq!(
            heard(Protocol::GrpcWeb, b"\x00\x00\x00\x00\x00\x03abc", false),
            "message abc"
        );
        assert_eq!(heard(Protocol::GrpcWeb, b"\x01", false), "end");
        for wrong in [
            &b""[..],
            b"\x00",
            b"\x00\x00\x00\x00\x00\x03ab",
            b"\x00\x01\x00\x00\x00\x01a",
            b"\x02",
        ] {
            assert!(
                heard(Protocol::GrpcWeb, wrong, false).starts_with("refused"),
                "{wrong:?}"
            );
        }
        assert_eq!(Protocol::GrpcWeb.proto(b"abc"), b"\x00\x00\x00\x00\x03abc");
    }

    #[test]
    fn what_looks_like_a_control_frame_is_wrapped() {
        assert_eq!(Protocol::Json.json(br#"{"a":1}"#), None);
        assert_eq!(
            Protocol::Json.json(br#"{"$end":1}"#).unwrap(),
            br#"{"$msg":{"$end":1}}"#
        );
        assert_eq!(Protocol::Plain.json(br#"{"$end":1}"#), None);
    }

    #[test]
    fn durations_are_those_of_protojson() {
        for (text, duration) in [
            ("5s", Some(Duration::from_secs(5))),
            ("0.000000001s", Some(Duration::from_nanos(1))),
            ("1.5s", Some(Duration::from_millis(1500))),
            ("5", None),
            ("-1s", None),
            ("1.s", None),
            ("1e3s", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(seconds(text), duration, "{text}");
        }
    }
}
