//! JSON of tokens and keys: an object in which every name stands once, at any depth. What stands twice can be read in
//! two ways, and the other reader may be the one who decides.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads an object; `None` for anything else, for names that stand twice, and for text after its end.
pub(super) fn object(text: &[u8]) -> Option<Map<String, Value>> {
    match serde_json::from_slice(text) {
        Ok(Strict(Value::Object(members))) => Some(members),
        Ok(_) | Err(_) => None,
    }
}

/// A value whose objects have no name twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("a number that is none"))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: de::Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let Strict(value) = members.next_value()?;
            if object.insert(name, value).is_some() {
                return Err(de::Error::custom("a name that stands twice"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// Reads base64url in its one spelling: no padding, no white space, no bits left over in the last letter.
pub(super) fn base64url(text: &str) -> Option<Vec<u8>> {
    let bytes = base64_simd::URL_SAFE_NO_PAD.decode_to_vec(text).ok()?;
    // The same bytes have one spelling: whatever else reads to them is not taken.
    (base64_simd::URL_SAFE_NO_PAD.encode_to_string(&bytes) == text).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once_at_any_depth() {
        for (text, taken) in [
            (r#"{"a": 1, "b": [{"a": 2}]}"#, true),
            (r#"{"a": 1, "a": 1}"#, false),
            (r#"{"a": {"b": 1, "b": 2}}"#, false),
            (r#"{"a": [{"b": 1, "\u0062": 2}]}"#, false),
            (r#"{"a": 1} "#, true),
            (r#"{"a": 1}x"#, false),
            (r#"{"a": 1e999}"#, false),
            ("[]", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(object(text.as_bytes()).is_some(), taken, "{text}");
        }
        assert!(object(b"{\"a\": \"\xff\"}").is_none(), "not UTF-8");
    }

    #[test]
    fn base64url_has_one_spelling() {
        for (text, read) in [
            ("", Some(&b""[..])),
            ("AQ", Some(&b"\x01"[..])),
            ("_-8", Some(&b"\xff\xef"[..])),
            ("AR", None),
            ("AQ==", None),
            ("A", None),
            ("/+8", None),
            ("A Q", None),
            ("AQ\n", None),
        ] {
            assert_eq!(base64url(text).as_deref(), read, "{text:?}");
        }
    }
}
