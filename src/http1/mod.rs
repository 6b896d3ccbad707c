//! HTTP/1.1 (RFC 9112), below sockets and clocks: bytes in, heads and bodies out, as a server and as a client.
//!
//! `Heads` reads heads, by `httparse`; a `Framing` says where a body ends, a `Decoder` takes it out of what has come, an
//! `Encoder` writes one. The body of a request that has not come whole with its head is an [`Inbound`], which the
//! connection feeds as far as somebody reads it.

#![deny(clippy::indexing_slicing)]

mod decode;
mod encode;
mod framing;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod inbound;

pub use decode::Malformed;
pub(crate) use decode::{Decoder, Piece};
pub(crate) use encode::{Asked, Encoder, Mismatch, answer, request};
pub(crate) use framing::{Framing, has_more, is_kept, length, one_length};
pub(crate) use head::{HeadError, Heads};
pub(crate) use inbound::Feed;
pub use inbound::{Inbound, Unread};

#[cfg(any(test, fuzzing))]
use crate::buffers::{Input, Sender};

#[cfg(test)]
mod tests;
