//! The envelope of gRPC and the framings of a REST stream as a peer in a test sees them, written apart from the
//! gateway's own.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde_json::Value;

/// A message in its envelope, not compressed.
pub(crate) fn envelope(message: &[u8]) -> Bytes {
    flagged(0, message)
}

/// A message in an envelope with this flag byte.
pub(crate) fn flagged(flag: u8, message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(flag);
    framed.put_u32(u32::try_from(message.len()).unwrap());
    framed.extend_from_slice(message);
    framed.freeze()
}

/// Takes the first whole envelope off what has arrived: its flag and its message.
pub(crate) fn open(arrived: &mut BytesMut) -> Option<(u8, Bytes)> {
    let (prefix, rest) = arrived.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    if rest.len() < length {
        return None;
    }
    let flag = prefix[0];
    arrived.advance(5);
    Some((flag, arrived.split_to(length).freeze()))
}

/// How a REST answer that is a stream separates its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Ndjson,
    Sse,
    Array,
}

impl Stream {
    /// What to ask for in `Accept`, which is also the type of the answer.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Sse => "text/event-stream",
            Self::Array => "application/json",
        }
    }
}

/// How a gRPC-Web body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Web {
    Binary,
    Text,
}

/// How Connect's messages are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connect {
    Proto,
    Json,
}

/// Every form that bodies have, by the names that the cells of the matrix use.
pub(crate) mod forms {
    pub(crate) use super::Connect::{Json, Proto};
    pub(crate) use super::Stream::{Array, Ndjson, Sse};
    pub(crate) use super::Web::{Binary, Text};
    pub(crate) use crate::support::clients::websocket::Subprotocol::{SabirJson, SabirProto};
}

/// What a stream says next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Message(Value),
    /// The last item of a stream that broke: a `google.rpc.Status`.
    Error(Value),
}

/// Reads a REST stream from what has arrived.
#[derive(Debug)]
pub(crate) struct Reader {
    framing: Stream,
    arrived: BytesMut,
    /// Events so far; their ids count up from 0.
    events: u64,
    /// Where in an array the reader stands.
    array: Array,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Array {
    Before,
    First,
    Later,
    Closed,
}

impl Reader {
    pub(crate) fn new(framing: Stream) -> Self {
        Self {
            framing,
            arrived: BytesMut::new(),
            events: 0,
            array: Array::Before,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.arrived.extend_from_slice(bytes);
    }

    /// The next whole item, if it has arrived.
    pub(crate) fn next(&mut self) -> Option<Item> {
        match self.framing {
            Stream::Ndjson => self.line(),
            Stream::Sse => self.event(),
            Stream::Array => self.element(),
        }
    }

    /// Checks that the stream is complete as a document, now that its body has ended.
    pub(crate) fn finish(&self) {
        assert!(
            self.arrived.is_empty(),
            "the stream ended within an item: {:?}",
            self.arrived
        );
        assert!(
            self.framing != Stream::Array || self.array == Array::Closed,
            "the array was not closed"
        );
    }

    fn line(&mut self) -> Option<Item> {
        let end = self.arrived.iter().position(|byte| *byte == b'\n')?;
        let line = self.arrived.split_to(end + 1);
        Some(in_band(serde_json::from_slice(&line).unwrap()))
    }

    fn event(&mut self) -> Option<Item> {
        let end = self.arrived.windows(2).position(|pair| pair == b"\n\n")?;
        let event = self.arrived.split_to(end + 2);
        let (mut name, mut id, mut data) = (None, None, String::new());
        for line in std::str::from_utf8(&event).unwrap().lines() {
            match line.split_once(": ") {
                Some(("event", value)) => name = Some(value.to_owned()),
                Some(("id", value)) => id = Some(value.parse::<u64>().unwrap()),
                Some(("data", value)) => data.push_str(value),
                // A comment keeps the connection alive; the blank line ends the event.
                _ => assert!(line.is_empty() || line.starts_with(':'), "not a field: {line:?}"),
            }
        }
        if data.is_empty() {
            return self.event();
        }
        let data: Value = serde_json::from_str(&data).unwrap();
        if name.as_deref() == Some("error") {
            return Some(Item::Error(data));
        }
        assert_eq!(id, Some(self.events), "ids count up from 0");
        self.events += 1;
        Some(Item::Message(data))
    }

    fn element(&mut self) -> Option<Item> {
        loop {
            let first = *self.arrived.iter().find(|byte| !byte.is_ascii_whitespace())?;
            let blank = self
                .arrived
                .iter()
                .take_while(|byte| byte.is_ascii_whitespace())
                .count();
            match (first, self.array) {
                (b'[', Array::Before) => self.array = Array::First,
                (b',', Array::Later) => {}
                (b']', Array::First | Array::Later) => self.array = Array::Closed,
                (_, Array::First | Array::Later) => {
                    let mut values = serde_json::Deserializer::from_slice(&self.arrived).into_iter::<Value>();
                    let value = match values.next()? {
                        Ok(value) => value,
                        Err(error) if error.is_eof() => return None,
                        Err(error) => panic!("{error} in {:?}", self.arrived),
                    };
                    let end = values.byte_offset();
                    self.arrived.advance(end);
                    self.array = Array::Later;
                    return Some(in_band(value));
                }
                (letter, state) => panic!("{:?} while {state:?}", letter as char),
            }
            self.arrived.advance(blank + 1);
        }
    }
}

/// An object whose only member is `error` is the end of a stream that broke.
fn in_band(value: Value) -> Item {
    match value.as_object() {
        Some(object) if object.len() == 1 && object.contains_key("error") => {
            Item::Error(value["error"].clone())
        }
        _ => Item::Message(value),
    }
}
