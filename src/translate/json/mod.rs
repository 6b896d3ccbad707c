//! ProtoJSON to the protobuf wire format and back, by plans compiled from descriptors.
//!
//! Source: the ProtoJSON mapping of protobuf.dev and its conformance suite.

mod base64;
mod compile;
mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod mask;
mod names;
mod options;
mod out;
mod plan;
mod read;
mod scan;
mod time;
mod worker;
mod write;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::schema::Schema;

pub use error::{JsonError, JsonReason, PlanError, WireError, WireReason};
pub use mask::{Mask, MaskError};
pub use options::{JsonOptions, UnknownFields};

/// How many objects and arrays, or messages on the wire, may be nested in each other.
///
/// 100 is the default of every protobuf implementation.
pub const MAX_DEPTH: u32 = 100;

/// A message type of one [`Transcoder`]; it means nothing to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageId(pub(crate) u32);

/// What a JSON text stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A whole message.
    Message(MessageId),
    /// The value of one field alone; the wire side is the message that encloses it.
    Field {
        /// The enclosing message.
        message: MessageId,
        /// The field's number.
        number: u32,
    },
}

impl Target {
    /// The message of the wire side.
    pub fn message(self) -> MessageId {
        match self {
            Self::Message(message) | Self::Field { message, .. } => message,
        }
    }
}

/// Reads and writes the JSON form of every message of one schema generation, under one set of options.
///
/// Immutable and shared; what it learns is kept per thread.
#[derive(Clone, Debug)]
pub struct Transcoder(Arc<plan::Plan>);

impl Transcoder {
    /// Compiles the plan of every message in a schema.
    ///
    /// # Errors
    /// [`PlanError`] for a descriptor that contradicts itself.
    pub fn compile(schema: &Schema, options: JsonOptions) -> Result<Self, PlanError> {
        Self::from_files(&schema.files, options)
    }

    /// Compiles the plan of every message in a set of encoded `FileDescriptorProto`s, in any order.
    ///
    /// # Errors
    /// [`PlanError`] for a descriptor that contradicts itself.
    pub fn from_files(files: &[Bytes], options: JsonOptions) -> Result<Self, PlanError> {
        Ok(Self(Arc::new(compile::compile(files, options)?)))
    }

    /// The message with a full name such as `library.v1.Book`.
    pub fn message(&self, full_name: &str) -> Option<MessageId> {
        self.0.message(full_name)
    }

    /// Appends the wire form of a JSON text to `out`, at most `limit` bytes; nothing is appended on failure.
    ///
    /// An empty text is an empty message. `owned` are the fields that the text must not hold.
    ///
    /// # Errors
    /// [`JsonError`] with the place in the text.
    pub fn read(
        &self,
        target: Target,
        owned: Option<&Mask>,
        json: &[u8],
        out: &mut BytesMut,
        limit: usize,
    ) -> Result<(), JsonError> {
        read::read(&self.0, target, owned, json, out, limit)
    }

    /// Appends the JSON form of a message's wire form to `out`, at most `limit` bytes; nothing is appended on
    /// failure.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are no such message, or hold what JSON cannot express.
    pub fn write(
        &self,
        target: Target,
        mask: Option<&Mask>,
        wire: &[u8],
        out: &mut BytesMut,
        limit: usize,
    ) -> Result<(), WireError> {
        write::write(&self.0, target, mask, wire, out, limit)
    }

    /// Compiles a set of paths such as `shelf.book_id`, in proto names.
    ///
    /// # Errors
    /// [`MaskError`] for a path that the message does not have.
    pub fn mask(&self, message: MessageId, paths: &[&str]) -> Result<Mask, MaskError> {
        self.0.mask(message, paths)
    }
}

#[cfg(test)]
mod tests;
