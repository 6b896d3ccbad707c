//! Takes a body out of what has come. Source: RFC 9112, sections 6 and 7.

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

use crate::buffers::Input;
use crate::http1::framing::Framing;
use crate::http1::head;

/// A line with the size of a chunk.
const MOST_LINE: usize = 4 << 10;
/// What the lines of all chunks of a body may have beside their sizes, which nobody uses.
const MOST_EXTENSIONS: usize = 16 << 10;
/// A section of trailers, and the fields in it.
const MOST_TRAILERS: usize = 16 << 10;
const MOST_TRAILER_FIELDS: usize = 100;
/// The digits of the largest chunk.
const MOST_DIGITS: usize = 16;

/// A body that is not framed as it has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is malformed: {0}")]
pub struct Malformed(&'static str);

/// What comes next of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The end, with the trailers if there are any.
    End(Option<Box<HeaderMap>>),
}

/// Takes one body apart.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    /// What was read of extensions.
    extensions: usize,
    /// Bytes in which the trailers do not end.
    scanned: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes are left.
    Length(u64),
    UntilClose,
    /// The line with the size of a chunk.
    Size,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The end of the line after a chunk.
    ChunkEnd,
    Trailers,
    Done,
    /// Nobody knows what the rest is.
    Broken(Malformed),
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        Self {
            state: match framing {
                Framing::Nothing => State::Length(0),
                Framing::Length(length) => State::Length(length),
                Framing::Chunked => State::Size,
                Framing::UntilClose => State::UntilClose,
            },
            extensions: 0,
            scanned: 0,
        }
    }

    /// Whether the end of the connection ends the body.
    pub(crate) fn ends_with_connection(&self) -> bool {
        self.state == State::UntilClose
    }

    /// The bytes that are left, if the head has said how many there are.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            State::UntilClose
            | State::Size
            | State::Chunk(_)
            | State::ChunkEnd
            | State::Trailers
            | State::Broken(_) => None,
        }
    }

    /// So many bytes of a body of known length have gone another way.
    pub(crate) fn pass(&mut self, bytes: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(bytes);
        }
    }

    /// The next piece; `None` until more has come. What is malformed stays so, however often it is asked for.
    pub(crate) fn next(&mut self, input: &mut Input) -> Result<Option<Piece>, Malformed> {
        let next = self.advance(input);
        if let Err(malformed) = next {
            self.state = State::Broken(malformed);
        }
        next
    }

    fn advance(&mut self, input: &mut Input) -> Result<Option<Piece>, Malformed> {
        loop {
            match self.state {
                State::Length(0) | State::Done => {
                    self.state = State::Done;
                    return Ok(Some(Piece::End(None)));
                }
                State::Length(left) => {
                    let (piece, left) = take(input, left);
                    self.state = State::Length(left);
                    return Ok(piece);
                }
                State::UntilClose => return Ok(take(input, u64::MAX).0),
                State::Size => {
                    let Some(size) = self.size(input)? else {
                        return Ok(None);
                    };
                    self.state = if size == 0 {
                        State::Trailers
                    } else {
                        State::Chunk(size)
                    };
                }
                State::Chunk(left) => {
                    let (piece, left) = take(input, left);
                    self.state = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk(left)
                    };
                    return Ok(piece);
                }
                State::ChunkEnd => {
                    let bytes: &[u8] = input;
                    match bytes {
                        [b'\r', b'\n', ..] => input.advance(2),
                        [] | [b'\r'] => return Ok(None),
                        _ => return Err(Malformed("a chunk is not as long as it says")),
                    }
                    self.state = State::Size;
                }
                State::Trailers => {
                    let end = self.trailers(input)?;
                    if end.is_some() {
                        self.state = State::Done;
                    }
                    return Ok(end);
                }
                State::Broken(malformed) => return Err(malformed),
            }
        }
    }

    fn size(&mut self, input: &mut Input) -> Result<Option<u64>, Malformed> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            if input.len() > MOST_LINE {
                return Err(Malformed("the line with the size of a chunk is too long"));
            }
            return Ok(None);
        };
        let line = input.get(..end).unwrap_or_default();
        if line.len() > MOST_LINE {
            return Err(Malformed("the line with the size of a chunk is too long"));
        }
        let line = line
            .strip_suffix(b"\r")
            .ok_or(Malformed("the size of a chunk does not end in CR LF"))?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        if digits.is_empty() || digits.len() > MOST_DIGITS {
            return Err(Malformed("the size of a chunk is not a hexadecimal number"));
        }
        let is_extension = match extension.trim_ascii_start() {
            [] => extension.is_empty(),
            [b';', ..] => true,
            _ => false,
        };
        let is_text = extension
            .iter()
            .all(|byte| *byte == b'\t' || !byte.is_ascii_control());
        if !is_extension || !is_text {
            return Err(Malformed("something follows the size of a chunk"));
        }
        self.extensions += extension.len();
        if self.extensions > MOST_EXTENSIONS {
            return Err(Malformed("the chunks have too many extensions"));
        }
        let size = digits.iter().fold(0_u64, |size, digit| {
            let digit = match digit {
                b'0'..=b'9' => digit - b'0',
                letter => (letter | 0x20) - b'a' + 10,
            };
            size << 4 | u64::from(digit)
        });
        input.advance(end + 1);
        Ok(Some(size))
    }

    /// The end of a body in chunks, once the section of its trailers has come.
    fn trailers(&mut self, input: &mut Input) -> Result<Option<Piece>, Malformed> {
        if input.starts_with(b"\r\n") {
            input.advance(2);
            return Ok(Some(Piece::End(None)));
        }
        let scanned = std::mem::replace(&mut self.scanned, input.len());
        let new = input.get(scanned..).unwrap_or_default();
        let come = input.len();
        let mut read = None;
        if memchr::memchr(b'\n', new).is_some() {
            read = head::trailers(input, MOST_TRAILER_FIELDS)
                .map_err(|_| Malformed("the trailers are invalid"))?;
        }
        let length = if read.is_some() { come - input.len() } else { come };
        if length > MOST_TRAILERS {
            return Err(Malformed("the trailers are too large"));
        }
        Ok(read.map(|mut trailers| {
            // What frames or routes a message has no meaning after it. Source: RFC 9110, section 6.5.1.
            for name in [
                CONNECTION,
                CONTENT_LENGTH,
                HOST,
                TE,
                TRAILER,
                TRANSFER_ENCODING,
                UPGRADE,
            ] {
                trailers.remove(name);
            }
            Piece::End((!trailers.is_empty()).then(|| Box::new(trailers)))
        }))
    }
}

/// What has come of `left` bytes, and how many are left then.
fn take(input: &mut Input, left: u64) -> (Option<Piece>, u64) {
    let come = input.len().min(usize::try_from(left).unwrap_or(usize::MAX));
    if come == 0 {
        return (None, left);
    }
    (Some(Piece::Data(input.take(come))), left - come as u64)
}
