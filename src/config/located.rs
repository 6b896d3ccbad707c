//! A value that knows where it was written, for errors that only show once the whole is read.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

use super::document::NodeId;

/// The name by which a [`Located`] asks its deserializer for the place.
pub(super) const LOCATED: &str = "sabir::config::Located";

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spot {
    /// A node of the file.
    Node(NodeId),
    /// A flag of the command line, such as `--backend`.
    Flag(&'static str),
    /// Nobody wrote it: it is a default.
    Default,
}

/// A value and where it comes from.
///
/// Two are equal when their values are.
#[derive(Clone)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub spot: Spot,
}

impl<T> Located<T> {
    /// A value that a flag of the command line gave.
    pub fn flag(value: T, flag: &'static str) -> Self {
        Self {
            value,
            spot: Spot::Flag(flag),
        }
    }

    /// A value that nobody wrote.
    pub fn default_of(value: T) -> Self {
        Self {
            value,
            spot: Spot::Default,
        }
    }
}

impl<T: Default> Default for Located<T> {
    fn default() -> Self {
        Self::default_of(T::default())
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Located<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(LOCATED, LocatedVisitor(PhantomData))
    }
}

struct LocatedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for LocatedVisitor<T> {
    type Value = Located<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its place")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Self::Value, A::Error> {
        let missing = || serde::de::Error::custom("has no place");
        let number = parts.next_element::<u32>()?.ok_or_else(missing)?;
        let value = parts.next_element::<T>()?.ok_or_else(missing)?;
        Ok(Located {
            value,
            spot: Spot::Node(NodeId::from_number(number)),
        })
    }
}

impl<T: JsonSchema> JsonSchema for Located<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
