//! The gRPC message envelope: a flag byte, a 4-byte big-endian length, the payload.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message".

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes in front of each message.
pub const PREFIX: usize = 5;

/// The flag of a compressed message.
pub const COMPRESSED: u8 = 1;

/// Why an envelope could not be read. Sizes are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The flag byte has a bit that the dialect does not define.
    #[error("the message envelope starts with flag byte {0:#04x}, which is not defined")]
    Flag(u8),
    /// The declared length passed the limit.
    #[error("a message of {declared} bytes is over the limit of {limit}")]
    TooLarge {
        /// What the envelope says.
        declared: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The body ended inside an envelope.
    #[error("the body ended inside a message, {missing} bytes short")]
    Truncated {
        /// What is missing, as far as known.
        missing: usize,
    },
}

/// One message as it travelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Whether the payload is compressed with the stream's encoding.
    pub compressed: bool,
    /// The payload, not decompressed.
    pub payload: Bytes,
}

/// Reads envelopes out of chunks as they arrive.
///
/// Holds at most one message of at most `limit` bytes beside the newest chunk. A message that lies within one
/// chunk is a slice of it, not a copy.
#[derive(Debug)]
pub struct Reader {
    limit: usize,
    /// What came and was not yet handed out. Short of one whole envelope whenever `next_envelope` said `None`.
    chunk: Bytes,
    /// A message that spans chunks.
    partial: BytesMut,
}

impl Reader {
    /// A reader that refuses payloads over `limit` bytes, before it buffers them.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            chunk: Bytes::new(),
            partial: BytesMut::new(),
        }
    }

    /// Takes the next chunk of the body. Call [`Reader::next_envelope`] until it says `None` before the next one.
    pub fn push(&mut self, chunk: Bytes) {
        if self.chunk.is_empty() && self.partial.is_empty() {
            self.chunk = chunk;
        } else {
            self.partial.put_slice(&std::mem::take(&mut self.chunk));
            self.partial.put_slice(&chunk);
        }
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// [`FrameError::Flag`] and [`FrameError::TooLarge`], as soon as the prefix is there.
    pub fn next_envelope(&mut self) -> Result<Option<Envelope>, FrameError> {
        let spanning = !self.partial.is_empty();
        let have: &[u8] = if spanning { &self.partial } else { &self.chunk };
        let Some(prefix) = have.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let (compressed, length) = parse(*prefix, self.limit)?;
        let whole = length.saturating_add(PREFIX);
        if have.len() < whole {
            if spanning {
                self.partial.reserve(whole.saturating_sub(self.partial.len()));
            }
            return Ok(None);
        }
        let payload = if spanning {
            let mut message = self.partial.split_to(whole);
            message.advance(PREFIX);
            // What follows is handed out from one chunk again.
            self.chunk = self.partial.split().freeze();
            message.freeze()
        } else {
            let mut message = self.chunk.split_to(whole);
            message.advance(PREFIX);
            message
        };
        Ok(Some(Envelope { compressed, payload }))
    }

    /// Says whether the body may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it ended inside an envelope.
    pub fn finish(&self) -> Result<(), FrameError> {
        let have: &[u8] = if self.partial.is_empty() {
            &self.chunk
        } else {
            &self.partial
        };
        if have.is_empty() {
            return Ok(());
        }
        let wanted = match have.first_chunk::<PREFIX>() {
            Some(prefix) => parse(*prefix, self.limit)?.1.saturating_add(PREFIX),
            None => PREFIX,
        };
        Err(FrameError::Truncated {
            missing: wanted.saturating_sub(have.len()),
        })
    }
}

/// Follows the envelopes of a body that is passed on untouched: checks flags and sizes, keeps no byte of a payload and at
/// most four of a prefix.
#[derive(Debug)]
pub struct Watch {
    limit: usize,
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there. 0 <= filled < PREFIX.
    filled: usize,
    /// Bytes of the payload still to come, once the prefix is whole.
    remaining: usize,
}

impl Watch {
    /// A watch that refuses payloads over `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            prefix: [0; PREFIX],
            filled: 0,
            remaining: 0,
        }
    }

    /// Follows `chunk`, and says what of it may pass on.
    ///
    /// A prefix that is not whole is kept until it is, so that what passes never ends within one and whoever passes it
    /// on can still put an end of its own there.
    pub fn follow(&mut self, chunk: Bytes) -> Followed {
        let mut chunk = match self.held() {
            [] => chunk,
            held => [held, &chunk].concat().into(),
        };
        self.filled = 0;
        let mut at = self.remaining.min(chunk.len());
        self.remaining = self.remaining.saturating_sub(at);
        let mut begun: u64 = 0;
        let mut error = None;
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            let Some(prefix) = rest.first_chunk::<PREFIX>() else {
                for (slot, byte) in self.prefix.iter_mut().zip(rest) {
                    *slot = *byte;
                }
                self.filled = rest.len();
                break;
            };
            let length = match parse(*prefix, self.limit) {
                Ok((_, length)) => length,
                Err(refused) => {
                    error = Some(refused);
                    break;
                }
            };
            begun = begun.saturating_add(1);
            let step = length.min(rest.len().saturating_sub(PREFIX));
            self.remaining = length.saturating_sub(step);
            at = at.saturating_add(PREFIX).saturating_add(step);
        }
        chunk.truncate(at);
        Followed {
            data: chunk,
            begun,
            error,
        }
    }

    /// What is there of a prefix that is not whole.
    fn held(&self) -> &[u8] {
        self.prefix.get(..self.filled).unwrap_or_default()
    }

    /// Says whether the body may end here.
    ///
    /// # Errors
    /// [`FrameError::Truncated`] when it ended inside an envelope.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.filled > 0 {
            return Err(FrameError::Truncated {
                missing: PREFIX.saturating_sub(self.filled),
            });
        }
        if self.remaining > 0 {
            return Err(FrameError::Truncated {
                missing: self.remaining,
            });
        }
        Ok(())
    }
}

/// What a [`Watch`] says of a chunk.
#[derive(Debug)]
pub struct Followed {
    /// What may pass on; empty when there is nothing yet.
    pub data: Bytes,
    /// How many messages begin in it.
    pub begun: u64,
    /// Why nothing after it may pass: [`FrameError::Flag`] or [`FrameError::TooLarge`].
    pub error: Option<FrameError>,
}

/// The flag and the length of a prefix.
fn parse(prefix: [u8; PREFIX], limit: usize) -> Result<(bool, usize), FrameError> {
    let [flag, a, b, c, d] = prefix;
    if flag > COMPRESSED {
        return Err(FrameError::Flag(flag));
    }
    let declared = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if declared > limit {
        return Err(FrameError::TooLarge { declared, limit });
    }
    Ok((flag == COMPRESSED, declared))
}

/// The prefix of an uncompressed payload of `length` bytes.
///
/// # Errors
/// [`FrameError::TooLarge`] when the length does not fit the 4 bytes.
pub fn prefix(length: usize) -> Result<[u8; PREFIX], FrameError> {
    let limit = usize::try_from(u32::MAX).unwrap_or(usize::MAX);
    let declared = u32::try_from(length).map_err(|_| FrameError::TooLarge {
        declared: length,
        limit,
    })?;
    let [a, b, c, d] = declared.to_be_bytes();
    Ok([0, a, b, c, d])
}

/// The payload behind its prefix.
///
/// # Errors
/// [`FrameError::TooLarge`] when the length does not fit the 4 bytes.
pub fn wrap(payload: &[u8]) -> Result<Bytes, FrameError> {
    flagged(0, payload)
}

/// The same with this flag byte.
///
/// # Errors
/// [`FrameError::TooLarge`] when the length does not fit the 4 bytes.
pub fn flagged(flag: u8, payload: &[u8]) -> Result<Bytes, FrameError> {
    let [_, a, b, c, d] = prefix(payload.len())?;
    let mut whole = BytesMut::with_capacity(payload.len().saturating_add(PREFIX));
    whole.put_slice(&[flag, a, b, c, d]);
    whole.put_slice(payload);
    Ok(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_messages() -> Vec<u8> {
        let mut bytes = wrap(b"first").unwrap().to_vec();
        bytes.extend_from_slice(&[1, 0, 0, 0, 0]);
        bytes.extend_from_slice(&wrap(&[7; 300]).unwrap());
        bytes
    }

    #[test]
    fn messages_are_the_same_however_the_body_is_cut() {
        let bytes = two_messages();
        for step in 1..=bytes.len() {
            let mut reader = Reader::new(300);
            let mut watch = Watch::new(300);
            let (mut got, mut begun, mut passed) = (Vec::new(), 0, Vec::new());
            for chunk in bytes.chunks(step) {
                reader.push(Bytes::copy_from_slice(chunk));
                let followed = watch.follow(Bytes::copy_from_slice(chunk));
                assert_eq!(followed.error, None);
                begun += followed.begun;
                passed.extend_from_slice(&followed.data);
                while let Some(envelope) = reader.next_envelope().unwrap() {
                    got.push((envelope.compressed, envelope.payload.len()));
                }
            }
            assert_eq!(
                got,
                [(false, 5), (true, 0), (false, 300)],
                "cut every {step} bytes"
            );
            assert_eq!((begun, &passed), (3, &bytes));
            assert_eq!(reader.finish(), Ok(()));
            assert_eq!(watch.finish(), Ok(()));
        }
    }

    #[test]
    fn what_is_watched_is_copied_only_where_a_prefix_was_cut() {
        let bytes = Bytes::from(two_messages());
        let mut watch = Watch::new(300);
        for (from, to, copied) in [
            (0, 10, false),
            (10, 13, false),
            (13, 200, true),
            (200, 320, false),
        ] {
            let chunk = bytes.slice(from..to);
            let data = watch.follow(chunk.clone()).data;
            assert_eq!(data.as_ptr() != chunk.as_ptr(), copied, "bytes {from} to {to}");
        }
        assert_eq!(watch.finish(), Ok(()));
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_buffered() {
        for (limit, fits) in [(4, false), (5, true), (6, true)] {
            let head = Bytes::copy_from_slice(&wrap(b"first").unwrap()[..5]);
            let mut reader = Reader::new(limit);
            reader.push(head.clone());
            assert_eq!(reader.next_envelope().is_ok(), fits, "limit {limit}");
            let followed = Watch::new(limit).follow(head);
            assert_eq!(followed.error.is_none(), fits, "limit {limit}");
        }
    }

    #[test]
    fn a_body_that_ends_inside_a_message_is_truncated() {
        let bytes = wrap(b"first").unwrap();
        for cut in 1..bytes.len() {
            let part = bytes.slice(..cut);
            let mut reader = Reader::new(100);
            let mut watch = Watch::new(100);
            assert_eq!(watch.follow(part.clone()).error, None);
            reader.push(part);
            assert_eq!(reader.next_envelope(), Ok(None));
            assert!(matches!(reader.finish(), Err(FrameError::Truncated { .. })));
            assert!(matches!(watch.finish(), Err(FrameError::Truncated { .. })));
        }
    }

    #[test]
    fn an_undefined_flag_is_refused() {
        let mut reader = Reader::new(100);
        reader.push(Bytes::from_static(&[2, 0, 0, 0, 0]));
        assert_eq!(reader.next_envelope(), Err(FrameError::Flag(2)));
        assert_eq!(
            Watch::new(100)
                .follow(Bytes::from_static(&[0x80, 0, 0, 0, 0]))
                .error,
            Some(FrameError::Flag(0x80))
        );
    }

    #[test]
    fn what_is_before_a_refused_message_passes_however_it_is_cut() {
        let good = two_messages();
        let mut bytes = good.clone();
        bytes.extend_from_slice(&wrap(&[7; 400]).unwrap());
        for step in 1..=bytes.len() {
            let (mut watch, mut passed) = (Watch::new(300), Vec::new());
            let error = bytes.chunks(step).find_map(|chunk| {
                let followed = watch.follow(Bytes::copy_from_slice(chunk));
                passed.extend_from_slice(&followed.data);
                followed.error
            });
            assert_eq!(passed, good, "cut every {step} bytes");
            assert_eq!(
                error,
                Some(FrameError::TooLarge {
                    declared: 400,
                    limit: 300
                })
            );
        }
    }
}
