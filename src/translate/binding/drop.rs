//! Fields taken out of a message's wire form.

use bytes::{Buf, BufMut, BytesMut};
use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};

use super::field::Numbers;

/// The fields to take out, as a tree of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    fields: Vec<(u32, Self)>,
}

impl Dropped {
    pub(super) fn new<'n>(paths: impl Iterator<Item = &'n Numbers>) -> Self {
        let mut root = Self::default();
        for numbers in paths {
            let mut node = &mut root;
            for number in numbers {
                let at = match node.fields.iter().position(|(known, _)| known == number) {
                    Some(at) => at,
                    None => {
                        node.fields.push((*number, Self::default()));
                        node.fields.len() - 1
                    }
                };
                match node.fields.get_mut(at) {
                    Some((_, next)) => node = next,
                    None => break,
                }
            }
        }
        root
    }

    /// The node of a field: nothing if it stays, one without fields if all of it goes.
    fn get(&self, number: u32) -> Option<&Self> {
        self.fields
            .iter()
            .find(|(known, _)| *known == number)
            .map(|(_, node)| node)
    }

    /// Appends the message without the fields.
    ///
    /// # Errors
    /// Where the bytes are no message.
    pub(super) fn copy_rest(&self, mut wire: &[u8], out: &mut BytesMut) -> Result<(), DecodeError> {
        while wire.has_remaining() {
            let field = wire;
            let (number, wire_type) = decode_key(&mut wire)?;
            let after_key = wire;
            skip_field(wire_type, number, &mut wire, DecodeContext::default())?;
            let taken = |from: &[u8]| from.len() - wire.len();
            match (self.get(number), wire_type) {
                (None, _) => out.put_slice(field.get(..taken(field)).unwrap_or_default()),
                (Some(node), _) if node.fields.is_empty() => {}
                (Some(node), WireType::LengthDelimited) => {
                    let mut value = after_key.get(..taken(after_key)).unwrap_or_default();
                    decode_varint(&mut value)?;
                    let mut rest = BytesMut::with_capacity(value.len());
                    node.copy_rest(value, &mut rest)?;
                    encode_key(number, wire_type, out);
                    encode_varint(rest.len() as u64, out);
                    out.put_slice(&rest);
                }
                (Some(node), WireType::StartGroup) => {
                    let group = after_key.get(..taken(after_key)).unwrap_or_default();
                    let mut end = Vec::new();
                    encode_key(number, WireType::EndGroup, &mut end);
                    encode_key(number, wire_type, out);
                    node.copy_rest(group.strip_suffix(&*end).unwrap_or(group), out)?;
                    out.put_slice(&end);
                }
                // A field that should hold a message and does not: whoever reads it skips it.
                (Some(_), _) => {}
            }
        }
        Ok(())
    }
}
