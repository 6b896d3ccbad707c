//! Compression of header fields. Source: RFC 7541.

mod decode;
mod encode;
mod fields;
mod huffman;

pub(crate) use decode::Decoder;
pub(crate) use encode::Encoder;
pub(crate) use fields::{Field, Name};

/// What an entry of a table counts besides its name and value. Source: RFC 7541, section 4.1.
const OVERHEAD: usize = 32;

/// Why a header block can't be read. Nothing that comes after on the connection can be either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HpackError {
    /// The block ends inside a field.
    Truncated,
    /// A number is larger than any that could be meant.
    Number,
    /// An index names no entry.
    Index,
    /// A string is not valid in the Huffman code.
    Huffman,
    /// The table is to be larger than allowed, or changed in the middle of a block.
    Resize,
}

impl HpackError {
    /// What is wrong, in words.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::Truncated => "a header block ends inside a field",
            Self::Number => "a number in a header block is too large",
            Self::Index => "an index in a header block is in neither table",
            Self::Huffman => "a string in a header block is not valid Huffman code",
            Self::Resize => "the header table is made larger than allowed, or in the middle of a block",
        }
    }
}

#[cfg(test)]
mod tests;
