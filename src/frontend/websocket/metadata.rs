//! Metadata within frames: as a JSON object, as a block of names and values, and as lines.
//!
//! In JSON a value is a string, or a list of strings where a name has several. A block is a protobuf message,
//! `message Block { message Entry { string name = 1; string value = 2; } repeated Entry entries = 1; }`, so that every
//! client has a reader for it. Values of names that end in `-bin` are base64 everywhere.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::call::metadata;
use crate::fault::{Fault, Kind};
use crate::listen::forwarded;

/// One value or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Values {
    One(String),
    Several(Vec<String>),
}

/// Metadata as a client writes it in JSON.
pub(super) type Written = BTreeMap<String, Values>;

/// A block of names and values.
#[derive(Clone, PartialEq, prost::Message)]
struct Block {
    #[prost(message, repeated, tag = "1")]
    entries: Vec<BlockEntry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BlockEntry {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// Metadata that a client wrote in JSON.
pub(super) fn from_json(written: &Written) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::new();
    for (name, values) in written {
        match values {
            Values::One(value) => add(&mut headers, name, value)?,
            Values::Several(values) => values
                .iter()
                .try_for_each(|value| add(&mut headers, name, value))?,
        }
    }
    Ok(headers)
}

/// Metadata that a client wrote as a block.
pub(super) fn from_block(block: &[u8]) -> Result<HeaderMap, Fault> {
    let block = Block::decode(block).map_err(|error| {
        Fault::client(Kind::InvalidArgument, "the metadata are no block of entries").caused_by(error)
    })?;
    let mut headers = HeaderMap::new();
    block
        .entries
        .iter()
        .try_for_each(|entry| add(&mut headers, &entry.name, &entry.value))?;
    Ok(headers)
}

/// Metadata that a client wrote as lines of HTTP/1.1.
pub(super) fn from_lines(lines: &[u8]) -> Result<HeaderMap, Fault> {
    let text = std::str::from_utf8(lines)
        .map_err(|error| Fault::client(Kind::InvalidArgument, "the metadata are no text").caused_by(error))?;
    let mut headers = HeaderMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| {
            Fault::client(
                Kind::InvalidArgument,
                "a line of the metadata has no name and value with a colon between them",
            )
        })?;
        add(&mut headers, name, value.trim())?;
    }
    Ok(headers)
}

fn add(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), Fault> {
    let bad = |what: &str| Fault::client(Kind::InvalidArgument, format!("metadata {name:?}: {what}"));
    let key = HeaderName::try_from(name.trim()).map_err(|_| bad("this is no name"))?;
    let value =
        HeaderValue::try_from(value).map_err(|_| bad("the value can't be sent; -bin names take any"))?;
    headers.append(key, value);
    Ok(())
}

/// Adds what a client says in its first frame to what it said in its handshake, which was judged already and holds.
pub(super) fn merge(handshake: &mut HeaderMap, mut said: HeaderMap) -> Result<(), Fault> {
    forwarded::strip(&mut said);
    let said = metadata::from_request(said, metadata::Headers::Http)?;
    for name in said.keys() {
        if handshake.contains_key(name) {
            continue;
        }
        for value in said.get_all(name) {
            handshake.append(name.clone(), value.clone());
        }
    }
    Ok(())
}

/// Metadata as JSON.
pub(super) fn json(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let mut values: Vec<Value> = headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .map(Value::from)
            .collect();
        let value = match values.len() {
            0 => continue,
            1 => values.remove(0),
            _ => Value::Array(values),
        };
        object.insert(name.as_str().to_owned(), value);
    }
    Value::Object(object)
}

/// Metadata as a block.
pub(super) fn block(headers: &HeaderMap) -> Vec<u8> {
    let entries = pairs(headers)
        .map(|(name, value)| BlockEntry {
            name: name.to_owned(),
            value: value.to_owned(),
        })
        .collect();
    Block { entries }.encode_to_vec()
}

/// Metadata as lines of HTTP/1.1.
pub(super) fn lines(headers: &HeaderMap) -> Vec<u8> {
    let mut lines = Vec::new();
    for (name, value) in pairs(headers) {
        lines.extend_from_slice(name.as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_in_every_form() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-b", HeaderValue::from_static("2"));
        headers.append("x-b", HeaderValue::from_static("3"));
        let text = json(&headers);
        assert_eq!(text, serde_json::json!({"x-a": "1", "x-b": ["2", "3"]}));
        let written: Written = serde_json::from_value(text).unwrap();
        assert_eq!(from_json(&written).unwrap(), headers);
        assert_eq!(from_block(&block(&headers)).unwrap(), headers);
        assert_eq!(from_lines(&lines(&headers)).unwrap(), headers);
    }

    #[test]
    fn the_handshake_holds_and_what_is_reserved_is_dropped() {
        let mut handshake = HeaderMap::new();
        handshake.insert("authorization", HeaderValue::from_static("Bearer judged"));
        let said = from_lines(
            b"Authorization: Bearer other\r\nx-sabir-user: root\r\ngrpc-status: 0\r\n\
              x-forwarded-for: 1.2.3.4\r\nX-Tenant: 7\r\n",
        )
        .unwrap();
        merge(&mut handshake, said).unwrap();
        assert_eq!(
            json(&handshake),
            serde_json::json!({"authorization": "Bearer judged", "x-tenant": "7"})
        );
    }

    #[test]
    fn what_is_no_metadata_is_refused() {
        assert!(from_lines(b"no colon").is_err());
        assert!(from_lines(b"a b: c").is_err());
        assert!(from_block(b"\xff").is_err());
        let written: Written = serde_json::from_str(r#"{"x": "\n"}"#).unwrap();
        assert!(from_json(&written).is_err());
    }
}
