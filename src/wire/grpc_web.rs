//! gRPC-Web: trailers as the last frame of a body, and bodies in base64 for clients that can't handle bytes.
//!
//! Source: gRPC-Web protocol, "Protocol differences vs gRPC over HTTP2".

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64_simd::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use thiserror::Error;

use crate::fault::{Fault, Kind};
use crate::wire::body::Body;
use crate::wire::envelope::PREFIX;

/// The flag of the frame that holds the trailers.
pub const TRAILERS: u8 = 0x80;

/// Why a base64 body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TextError {
    /// Characters that are not base64.
    #[error("the text is not base64")]
    NotBase64,
    /// The text ended inside a group of four characters.
    #[error("the base64 text ended inside a group of four characters")]
    Truncated,
}

/// The trailers as a frame: lines of `name: value`, with lower-case names.
pub fn trailer_frame(trailers: &HeaderMap) -> Bytes {
    let mut frame = BytesMut::with_capacity(128);
    frame.put_u8(TRAILERS);
    frame.put_u32(0);
    for (name, value) in trailers {
        // A header name is lower-case, and a value has no line break: the HTTP library sees to both.
        frame.put_slice(name.as_str().as_bytes());
        frame.put_slice(b": ");
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    let length = u32::try_from(frame.len().saturating_sub(PREFIX)).unwrap_or(u32::MAX);
    if let Some(front) = frame.first_chunk_mut::<PREFIX>() {
        let [a, b, c, d] = length.to_be_bytes();
        *front = [TRAILERS, a, b, c, d];
    }
    frame.freeze()
}

/// Bytes as base64 with its padding.
pub fn to_text(bytes: &[u8]) -> Bytes {
    STANDARD.encode_to_string(bytes).into()
}

/// Reads base64 however it is cut: padded chunks may be glued together.
#[derive(Debug, Default)]
pub struct TextReader {
    /// The beginning of a group of four characters. At most three.
    held: Vec<u8>,
}

impl TextReader {
    /// What the text so far says beyond what was handed out before.
    ///
    /// # Errors
    /// [`TextError::NotBase64`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<u8>, TextError> {
        self.held.extend_from_slice(chunk);
        let whole = self.held.len() & !3;
        let rest = self.held.split_off(whole);
        let text = std::mem::replace(&mut self.held, rest);
        let mut bytes = Vec::with_capacity(text.len());
        let mut left = text.as_slice();
        while !left.is_empty() {
            // Up to and with the next group that is padded, after which another chunk may begin.
            let end = match memchr::memchr(b'=', left) {
                Some(at) => (at | 3).saturating_add(1).min(left.len()),
                None => left.len(),
            };
            let (run, after) = left.split_at_checked(end).unwrap_or((left, &[]));
            STANDARD
                .decode_append(run, &mut bytes)
                .map_err(|_| TextError::NotBase64)?;
            left = after;
        }
        Ok(bytes)
    }

    /// Says whether the text may end here.
    ///
    /// # Errors
    /// [`TextError::Truncated`] when it ended inside a group of four characters.
    pub fn finish(&self) -> Result<(), TextError> {
        if self.held.is_empty() {
            Ok(())
        } else {
            Err(TextError::Truncated)
        }
    }
}

/// A request body in base64, decoded on the way.
#[derive(Debug)]
pub struct FromText {
    body: Body,
    reader: TextReader,
}

impl FromText {
    /// The bytes that `body` spells.
    pub fn new(body: Body) -> Self {
        Self {
            body,
            reader: TextReader::default(),
        }
    }
}

fn not_text(error: TextError) -> Fault {
    Fault::client(Kind::InvalidArgument, format!("in the request body, {error}")).caused_by(error)
}

impl HttpBody for FromText {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
                return Poll::Ready(self.reader.finish().err().map(|error| Err(not_text(error))));
            };
            // A request has no trailers in gRPC: what comes as such is dropped.
            let Ok(text) = frame.into_data() else { continue };
            let bytes = self.reader.push(&text).map_err(not_text)?;
            if !bytes.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(bytes.into()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.reader.finish().is_ok()
    }
}

/// A body without trailers, in base64: each frame by itself, so that a message never waits for the next one.
#[derive(Debug)]
pub struct ToText(Body);

impl ToText {
    /// The base64 of `body`.
    pub fn new(body: Body) -> Self {
        Self(body)
    }
}

impl HttpBody for ToText {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let frame = ready!(Pin::new(&mut self.0).poll_frame(cx)?);
        Poll::Ready(frame.map(|frame| Ok(frame.map_data(|bytes| to_text(&bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn rule_45_trailers_are_a_frame_with_lower_case_names() {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.append(
            HeaderName::try_from("X-Last").unwrap(),
            HeaderValue::from_static("a"),
        );
        trailers.append("x-last", HeaderValue::from_static("b"));
        assert_eq!(
            trailer_frame(&trailers),
            "\u{80}\0\0\0\u{26}grpc-status: 5\r\nx-last: a\r\nx-last: b\r\n"
                .chars()
                .map(|letter| u8::try_from(u32::from(letter)).unwrap())
                .collect::<Vec<_>>()
        );
        assert_eq!(trailer_frame(&HeaderMap::new()), &b"\x80\0\0\0\0"[..]);
    }

    #[test]
    fn rule_45_padded_chunks_may_be_glued_and_cut_anywhere() {
        let glued = b"AAAAAAVoZWxsbw==AAAAAAA=AAAAAAJoaQ==";
        let expected = b"\0\0\0\0\x05hello\0\0\0\0\0\0\0\0\0\x02hi";
        for step in 1..=glued.len() {
            let mut reader = TextReader::default();
            let mut got = Vec::new();
            for chunk in glued.chunks(step) {
                got.extend(reader.push(chunk).unwrap());
            }
            assert_eq!(got, expected, "cut every {step} characters");
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["A?AA", "=AAA", "AA=A", "A===", "====", "AAA_", "AA A", "AB=="] {
            assert_eq!(
                TextReader::default().push(text.as_bytes()),
                Err(TextError::NotBase64),
                "{text}"
            );
        }
        let mut reader = TextReader::default();
        assert_eq!(reader.push(b"AAAAA").unwrap(), [0, 0, 0]);
        assert_eq!(reader.finish(), Err(TextError::Truncated));
    }

    #[tokio::test]
    async fn a_text_body_is_read_and_written() {
        let text = to_text(b"some bytes");
        let body = Body::stream(FromText::new(Body::whole(text.clone())));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "some bytes");
        let body = ToText::new(Body::whole(Bytes::from_static(b"some bytes")));
        assert_eq!(body.collect().await.unwrap().to_bytes(), text);
    }
}
