//! gzip of one message or body, bounded by size and by ratio.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read;
use flate2::write::{GzEncoder, MultiGzDecoder};
use thiserror::Error;

/// Why a compressed message could not be read.
#[derive(Debug, Error)]
pub enum CompressionError {
    /// An encoding that is not taken.
    #[error("the encoding {0:?} is not taken; gzip and identity are")]
    Unknown(String),
    /// The message grew past the limit, in bytes.
    #[error("the message is over the limit of {limit} bytes once decompressed")]
    TooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// The message grew by more than the allowed ratio.
    #[error("the message grows to more than {ratio} times its size when decompressed")]
    Ratio {
        /// What is allowed.
        ratio: usize,
    },
    /// The bytes are not what the encoding says.
    #[error("the message is not valid gzip")]
    Corrupt(#[source] std::io::Error),
}

/// How far a message may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Bytes after decompression.
    pub limit: usize,
    /// Times its compressed size. Small messages are not judged by it: 64 KiB are always fine.
    pub ratio: usize,
}

/// Below this many bytes no ratio is a threat.
const HARMLESS: usize = 64 << 10;

/// Decompresses one gzip message.
///
/// # Errors
/// [`CompressionError`], as soon as the message grows past `growth`.
pub fn gunzip(bytes: &[u8], growth: Growth) -> Result<Bytes, CompressionError> {
    let by_ratio = bytes.len().saturating_mul(growth.ratio).max(HARMLESS);
    let allowed = growth.limit.min(by_ratio);
    let mut message = Vec::with_capacity(bytes.len().saturating_mul(4).min(allowed));
    let one_more = u64::try_from(allowed).unwrap_or(u64::MAX).saturating_add(1);
    read::MultiGzDecoder::new(bytes)
        .take(one_more)
        .read_to_end(&mut message)
        .map_err(CompressionError::Corrupt)?;
    if message.len() > allowed {
        return Err(if allowed == growth.limit {
            CompressionError::TooLarge { limit: growth.limit }
        } else {
            CompressionError::Ratio { ratio: growth.ratio }
        });
    }
    Ok(message.into())
}

/// Decompresses a gzip stream chunk by chunk.
///
/// What comes out of one chunk is bounded by the ratio; what is done with it is bounded by whoever takes it.
#[derive(Debug)]
pub struct Inflater {
    decoder: MultiGzDecoder<Vec<u8>>,
    ratio: usize,
}

impl Inflater {
    /// An inflater whose output may be `ratio` times its input.
    pub fn new(ratio: usize) -> Self {
        Self {
            decoder: MultiGzDecoder::new(Vec::new()),
            ratio,
        }
    }

    /// What the next chunk decompresses to.
    ///
    /// # Errors
    /// [`CompressionError::Corrupt`] and [`CompressionError::Ratio`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<u8>, CompressionError> {
        let allowed = chunk.len().saturating_mul(self.ratio).max(HARMLESS);
        // In small pieces, so that a bomb is noticed before it has gone off: gzip grows by 1032 at the most.
        for piece in chunk.chunks(256) {
            self.decoder.write_all(piece).map_err(CompressionError::Corrupt)?;
            self.decoder.flush().map_err(CompressionError::Corrupt)?;
            if self.decoder.get_ref().len() > allowed {
                return Err(CompressionError::Ratio { ratio: self.ratio });
            }
        }
        Ok(std::mem::take(self.decoder.get_mut()))
    }
}

/// Compresses one message.
///
/// # Errors
/// None in practice: the sink is memory.
pub fn gzip(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 2), Compression::fast());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_grows_to_the_limit_and_no_further() {
        let packed = gzip(&[b'x'; 1000]).unwrap();
        for (limit, fits) in [(999, false), (1000, true), (1001, true)] {
            assert_eq!(
                gunzip(&packed, Growth { limit, ratio: 100 }).is_ok(),
                fits,
                "limit {limit}"
            );
        }
    }

    #[test]
    fn a_bomb_is_refused_by_its_ratio() {
        let packed = gzip(&vec![0; 10 << 20]).unwrap();
        let growth = Growth {
            limit: 64 << 20,
            ratio: 100,
        };
        assert!(matches!(
            gunzip(&packed, growth),
            Err(CompressionError::Ratio { ratio: 100 })
        ));
    }

    #[test]
    fn a_stream_decompresses_chunk_by_chunk_and_a_bomb_in_it_is_refused() {
        let text: Vec<u8> = (0..20_000u32)
            .flat_map(|number| number.to_string().into_bytes())
            .collect();
        let packed = gzip(&text).unwrap();
        let mut inflater = Inflater::new(100);
        let mut got = Vec::new();
        for chunk in packed.chunks(777) {
            got.extend(inflater.push(chunk).unwrap());
        }
        assert_eq!(got, text);
        let bomb = gzip(&vec![0; 10 << 20]).unwrap();
        let mut inflater = Inflater::new(100);
        assert!(matches!(
            inflater.push(&bomb),
            Err(CompressionError::Ratio { .. })
        ));
    }

    #[test]
    fn garbage_and_cut_messages_are_corrupt() {
        let packed = gzip(b"a message").unwrap();
        let growth = Growth {
            limit: 100,
            ratio: 100,
        };
        assert!(matches!(
            gunzip(b"not gzip", growth),
            Err(CompressionError::Corrupt(_))
        ));
        assert!(matches!(
            gunzip(&packed[..packed.len() - 3], growth),
            Err(CompressionError::Corrupt(_))
        ));
    }
}
