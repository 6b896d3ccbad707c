//! permessage-deflate without context takeover: each message is compressed by itself, so that a connection that is
//! idle holds no compressor.
//!
//! Source: RFC 7692.

use std::cell::RefCell;

use bytes::BytesMut;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::FrameError;

/// The name of the extension.
const NAME: &str = "permessage-deflate";

/// What ends the last block of a message and is not sent. Source: RFC 7692, section 7.2.1.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Bytes that are decompressed at a time, so that a limit is seen soon after it is passed.
const PIECE: usize = 4096;

/// Messages below this many bytes are sent as they are: there is nothing to gain.
const WORTH_COMPRESSING: usize = 64;

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The window of what the gateway sends, as a power of two; 9 to 15.
    window_bits: u8,
    /// The peer asked for a smaller window by its name.
    named: bool,
}

impl Agreed {
    /// Picks the first offer of a `Sec-WebSocket-Extensions` header that can be taken.
    ///
    /// An offer with a parameter that is unknown, doubled or out of range is declined, as RFC 7692, section 7,
    /// demands. So is a window of 8 bits for what the gateway sends, which the compressor does not have.
    pub fn choose(header: &str) -> Option<Self> {
        header.split(',').find_map(Self::offer)
    }

    fn offer(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        if parts.next() != Some(NAME) {
            return None;
        }
        let mut seen = [false; 4];
        let mut agreed = Self {
            window_bits: 15,
            named: false,
        };
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value.trim().trim_matches('"'))),
                None => (part, None),
            };
            let index: usize = match name {
                "server_no_context_takeover" if value.is_none() => 0,
                "client_no_context_takeover" if value.is_none() => 1,
                "server_max_window_bits" => {
                    agreed.window_bits = bits(value?).filter(|bits| *bits > 8)?;
                    agreed.named = true;
                    2
                }
                // The window of the peer: the decompressor takes any.
                "client_max_window_bits" => {
                    if let Some(value) = value {
                        bits(value)?;
                    }
                    3
                }
                _ => return None,
            };
            let seen = seen.get_mut(index)?;
            if std::mem::replace(seen, true) {
                return None;
            }
        }
        Some(agreed)
    }

    /// The `Sec-WebSocket-Extensions` of the answer.
    pub fn answer(self) -> String {
        let mut text = format!("{NAME}; server_no_context_takeover; client_no_context_takeover");
        if self.named {
            text.push_str("; server_max_window_bits=");
            text.push_str(&self.window_bits.to_string());
        }
        text
    }
}

/// A window, 8 to 15, in decimal digits without a zero in front. Source: RFC 7692, section 7.1.2.
fn bits(text: &str) -> Option<u8> {
    match text {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}

/// Decompresses one message.
#[derive(Debug)]
pub(super) struct Inflate(Decompress);

impl Inflate {
    pub(super) fn new() -> Self {
        Self(Decompress::new(false))
    }

    /// Appends what the next bytes of the message decompress to; `out` may have `limit` bytes.
    pub(super) fn push(
        &mut self,
        mut bytes: &[u8],
        out: &mut BytesMut,
        limit: usize,
    ) -> Result<(), FrameError> {
        let mut piece = [0; PIECE];
        loop {
            let (read, written) = (self.0.total_in(), self.0.total_out());
            let status = self
                .0
                .decompress(bytes, &mut piece, FlushDecompress::Sync)
                .map_err(|_corrupt| FrameError::Deflate)?;
            let read = amount(self.0.total_in(), read);
            let written = amount(self.0.total_out(), written);
            bytes = bytes.get(read..).unwrap_or_default();
            if out.len().saturating_add(written) > limit {
                return Err(FrameError::MessageTooLarge { limit });
            }
            out.extend_from_slice(piece.get(..written).unwrap_or_default());
            if status == Status::StreamEnd {
                // A final block may be followed by another one. Source: RFC 7692, section 7.2.3.4.
                self.0.reset(false);
            } else if read == 0 && written == 0 || bytes.is_empty() && written < PIECE {
                return Ok(());
            }
        }
    }

    /// Appends what is left when the message has ended.
    pub(super) fn finish(&mut self, out: &mut BytesMut, limit: usize) -> Result<(), FrameError> {
        self.push(&TAIL, out, limit)
    }
}

/// How far a count went.
fn amount(now: u64, before: u64) -> usize {
    usize::try_from(now.saturating_sub(before)).unwrap_or(usize::MAX)
}

thread_local! {
    /// The worker's compressor and the window that it is for: no message needs it longer than it takes to write it.
    static COMPRESSOR: RefCell<Option<(u8, Compress)>> = const { RefCell::new(None) };
}

/// Compresses a message; `None` where that gains nothing.
pub(super) fn compress(agreed: Agreed, message: &[u8]) -> Option<Vec<u8>> {
    if message.len() < WORTH_COMPRESSING {
        return None;
    }
    COMPRESSOR.with_borrow_mut(|slot| {
        let known = slot.take_if(|(bits, _)| *bits == agreed.window_bits);
        let (_, compressor) = slot.insert(known.unwrap_or_else(|| {
            let fresh = Compress::new_with_window_bits(Compression::fast(), false, agreed.window_bits);
            (agreed.window_bits, fresh)
        }));
        compressor.reset();
        let mut out = Vec::with_capacity(message.len() / 2);
        let mut rest = message;
        loop {
            out.reserve(PIECE);
            let (read, room) = (compressor.total_in(), out.capacity());
            compressor
                .compress_vec(rest, &mut out, FlushCompress::Sync)
                .ok()?;
            rest = rest
                .get(amount(compressor.total_in(), read)..)
                .unwrap_or_default();
            // The flush is complete once the compressor leaves room.
            if rest.is_empty() && out.len() < room {
                break;
            }
            if out.len() >= message.len() {
                return None;
            }
        }
        if out.ends_with(&TAIL) {
            out.truncate(out.len().saturating_sub(TAIL.len()));
        }
        (out.len() < message.len()).then_some(out)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers_are_taken_or_declined_as_a_whole() {
        let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let narrow = format!("{plain}; server_max_window_bits=10");
        let table = [
            ("permessage-deflate", Some(plain)),
            ("permessage-deflate; client_max_window_bits", Some(plain)),
            ("permessage-deflate; client_max_window_bits=8", Some(plain)),
            ("permessage-deflate; server_max_window_bits=10", Some(&narrow)),
            ("permessage-deflate; server_max_window_bits=\"10\"", Some(&narrow)),
            ("permessage-deflate; server_max_window_bits=8", None),
            ("permessage-deflate; server_max_window_bits=08", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            (
                "permessage-deflate; client_max_window_bits; client_max_window_bits",
                None,
            ),
            ("permessage-deflate; more", None),
            ("x-webkit-deflate-frame, permessage-deflate", Some(plain)),
            (
                "permessage-deflate; server_max_window_bits=8, permessage-deflate",
                Some(plain),
            ),
            ("", None),
        ];
        for (header, answer) in table {
            let got = Agreed::choose(header).map(Agreed::answer);
            assert_eq!(got.as_deref(), answer, "{header}");
        }
    }

    #[test]
    fn what_is_compressed_comes_back_and_the_limit_holds() {
        for length in [64, 100, 4096, 70_000] {
            let message: Vec<u8> = (0..length)
                .map(|at: u32| u8::try_from(at / 7 % 251).unwrap())
                .collect();
            for window_bits in [9, 15] {
                let agreed = Agreed {
                    window_bits,
                    named: false,
                };
                let packed = compress(agreed, &message).unwrap();
                for limit in [message.len() - 1, message.len()] {
                    let mut out = BytesMut::new();
                    let mut inflate = Inflate::new();
                    let got = packed
                        .chunks(7)
                        .try_for_each(|chunk| inflate.push(chunk, &mut out, limit))
                        .and_then(|()| inflate.finish(&mut out, limit));
                    if limit < message.len() {
                        assert_eq!(got, Err(FrameError::MessageTooLarge { limit }));
                    } else {
                        assert_eq!(got, Ok(()));
                        assert_eq!(out, message);
                    }
                }
            }
        }
    }

    #[test]
    fn a_final_block_does_not_end_the_message() {
        // "Hello" as one final block, with the byte that RFC 7692, section 7.2.3.4, appends.
        let bytes = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        let mut out = BytesMut::new();
        let mut inflate = Inflate::new();
        inflate.push(&bytes, &mut out, 100).unwrap();
        inflate.finish(&mut out, 100).unwrap();
        assert_eq!(&out[..], b"Hello");
        assert_eq!(
            Inflate::new().push(&[0xff; 9], &mut out, 100),
            Err(FrameError::Deflate)
        );
    }
}
