//! The update mask that a PATCH body stands for: the members that it has.

use std::fmt;

use bytes::BytesMut;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::field;
use super::value::{put_path, wrap};

/// The field that takes the mask, and the message whose members it names.
#[derive(Clone, Debug)]
pub(super) struct UpdateMask {
    mask: FieldDescriptor,
    resource: MessageDescriptor,
    /// Paths that the body can't change: the path of the request owns them.
    owned: Vec<String>,
}

impl UpdateMask {
    /// For a request message with `update_mask` and a body that is one of its messages.
    pub(super) fn new(input: &MessageDescriptor, body: &FieldDescriptor, owned: Vec<String>) -> Option<Self> {
        let mask = input.get_field_by_name("update_mask")?;
        let is_mask = matches!(mask.kind(), Kind::Message(message) if message.full_name() == "google.protobuf.FieldMask");
        let resource = members(body)?;
        (is_mask && !mask.is_list()).then_some(Self {
            mask,
            resource,
            owned,
        })
    }

    pub(super) fn number(&self) -> u32 {
        self.mask.number()
    }

    /// Appends the mask of a body; nothing for a body without members.
    ///
    /// # Errors
    /// Where the body is not JSON.
    pub(super) fn write(&self, body: &[u8], out: &mut BytesMut) -> Result<(), serde_json::Error> {
        let mut paths = Vec::new();
        let mut json = serde_json::Deserializer::from_slice(body);
        let members = Members {
            message: Some(&self.resource),
            path: String::new(),
            paths: &mut paths,
        };
        members.deserialize(&mut json)?;
        json.end()?;
        paths.retain(|path| !self.owned.contains(path));
        if paths.is_empty() {
            return Ok(());
        }
        paths.sort_unstable();
        let mut mask = BytesMut::new();
        for path in &paths {
            put_path(path, &mut mask);
        }
        wrap(&self.mask, &mask, out);
        Ok(())
    }
}

/// The message whose members a path of a mask can name: not those of lists, maps and well-known types.
fn members(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(message) if !field.is_list() && !field.is_map() && !field::is_whole(&message) => {
            Some(message)
        }
        _ => None,
    }
}

/// One value of the body. An object of a message adds the paths of its members, anything else its own.
struct Members<'a> {
    message: Option<&'a MessageDescriptor>,
    path: String,
    paths: &'a mut Vec<String>,
}

impl Members<'_> {
    fn leaf(self) {
        if !self.path.is_empty() {
            self.paths.push(self.path);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Members<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Members<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut any = false;
        while let Some(key) = map.next_key::<String>()? {
            any = true;
            // The transcoder has judged the body already: what is no field was to be ignored.
            let Some(field) = self.message.and_then(|message| field::named(message, &key)) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let message = members(&field);
            let path = match &*self.path {
                "" => field.name().to_owned(),
                path => format!("{path}.{}", field.name()),
            };
            map.next_value_seed(Members {
                message: message.as_ref(),
                path,
                paths: &mut *self.paths,
            })?;
        }
        if !any || self.message.is_none() {
            self.leaf();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        self.leaf();
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf();
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.leaf();
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.leaf();
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.leaf();
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.leaf();
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.leaf();
        Ok(())
    }
}
