//! What a call is hashed by.

use http::HeaderMap;
use http::header::COOKIE;
use prost_reflect::MessageDescriptor;
use serde_json::Value;

use crate::balance::hash;
use crate::balance::settings::HashOn;
use crate::policy::Identity;

/// Where a key is looked up, resolved for one method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Nowhere: calls go by load.
    Nowhere,
    /// In the head of a call, or in what was proven about its caller.
    Head(HashOn),
    /// In its first message, by the numbers of the fields on the way.
    Message(Box<[u32]>),
}

impl KeySource {
    /// Where `on` stands in calls with requests of `input`; nothing there for a field that the type does not have, or
    /// that is not one plain value.
    pub fn new(on: &HashOn, input: Option<&MessageDescriptor>) -> Self {
        let HashOn::Field(path) = on else {
            return Self::Head(on.clone());
        };
        input
            .and_then(|input| numbers(path, input.clone()))
            .map_or(Self::Nowhere, Self::Message)
    }

    /// The key in the head of a call.
    pub fn of_head(&self, headers: &HeaderMap, identity: Option<&Identity>) -> Option<u64> {
        let Self::Head(on) = self else { return None };
        match on {
            HashOn::Header(name) => headers.get(name).map(|value| hash::bytes(value.as_bytes())),
            HashOn::Cookie(name) => cookie(headers, name).map(hash::text),
            HashOn::Claim(name) => claim(identity?, name),
            HashOn::Field(_) => None,
        }
    }

    /// The key in a message as it stands on the wire.
    pub fn of_message(&self, message: &[u8]) -> Option<u64> {
        match self {
            Self::Message(numbers) => field(message, numbers).map(hash::bytes),
            Self::Head(_) | Self::Nowhere => None,
        }
    }
}

/// The numbers of the fields on a path of names.
fn numbers(path: &str, input: MessageDescriptor) -> Option<Box<[u32]>> {
    let mut at = input;
    let mut numbers = Vec::new();
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let field = at
            .get_field_by_name(name)
            .or_else(|| at.get_field_by_json_name(name))?;
        if field.is_list() || field.is_map() {
            return None;
        }
        numbers.push(field.number());
        let inner = field.kind().as_message().cloned();
        match (names.peek(), inner) {
            (None, None) => return Some(numbers.into()),
            (Some(_), Some(inner)) => at = inner,
            (None, Some(_)) | (Some(_), None) => return None,
        }
    }
    None
}

/// A cookie of a request. Source: RFC 6265, section 4.2.
pub fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

fn claim(identity: &Identity, name: &str) -> Option<u64> {
    if name == "sub" {
        return Some(hash::text(identity.principal()));
    }
    match identity.claims().others.get(name)? {
        Value::String(text) => Some(hash::text(text)),
        Value::Number(number) => Some(hash::text(&number.to_string())),
        Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The bytes of a field by the numbers on the way to it; the last one counts, as in any protobuf reader.
fn field<'m>(message: &'m [u8], numbers: &[u32]) -> Option<&'m [u8]> {
    let (number, deeper) = numbers.split_first()?;
    let mut rest = message;
    let mut found = None;
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let value = value(tag & 7, &mut rest)?;
        if tag >> 3 == u64::from(*number) {
            found = Some(value);
        }
    }
    match deeper {
        [] => found,
        deeper => field(found?, deeper),
    }
}

/// The bytes of a value of this wire type.
fn value<'m>(wire_type: u64, rest: &mut &'m [u8]) -> Option<&'m [u8]> {
    let length = match wire_type {
        0 => {
            let before = *rest;
            varint(rest)?;
            return before.get(..before.len() - rest.len());
        }
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (value, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(value)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_are_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, "a=1; session=x y; b=2".parse().unwrap());
        headers.append(COOKIE, "c=3".parse().unwrap());
        for (name, expected) in [
            ("a", Some("1")),
            ("session", Some("x y")),
            ("c", Some("3")),
            ("sess", None),
            ("", None),
        ] {
            assert_eq!(cookie(&headers, name), expected, "{name}");
        }
    }

    #[test]
    fn a_field_is_found_on_the_wire() {
        // 1: "ab", 3: {2: 150}, 1: "cd", 5: fixed32, 6: fixed64
        let message = [
            &[0x0a, 2, b'a', b'b'][..],
            &[0x1a, 3, 0x10, 0x96, 0x01],
            &[0x0a, 2, b'c', b'd'],
            &[0x2d, 1, 2, 3, 4],
            &[0x31, 1, 2, 3, 4, 5, 6, 7, 8],
        ]
        .concat();
        assert_eq!(field(&message, &[1]), Some(&b"cd"[..]));
        assert_eq!(field(&message, &[3, 2]), Some(&[0x96, 0x01][..]));
        assert_eq!(field(&message, &[5]), Some(&[1, 2, 3, 4][..]));
        assert_eq!(field(&message, &[9]), None);
        for length in 0..message.len() {
            // Whatever is cut off, nothing panics.
            let _ = field(&message[..length], &[3, 2]);
        }
        assert_eq!(
            field(
                &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                &[1]
            ),
            None
        );
    }
}
