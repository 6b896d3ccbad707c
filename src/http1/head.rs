//! Heads of requests and answers. Source: RFC 9112, sections 2 to 5.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http::{request, response};
use httparse::{Header, Status};

use crate::buffers::Input;

/// Fields for which there is room on the stack; a head with more, where that is allowed, is parsed once more.
const USUAL: usize = 128;

/// Why a head can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    /// The first line does not end within the limit.
    #[error("the request line is too long")]
    LineTooLong,
    /// There are more bytes or fields than allowed.
    #[error("the header section is too large")]
    TooLarge,
    /// It is not HTTP/1.1, or not by the grammar.
    #[error("{0}")]
    Invalid(&'static str),
}

/// Fields for which a request has room beside its own: what the gateway adds on the way, mostly who the client is.
const ADDED: usize = 3;

/// Reads the heads of one connection, one after the other.
#[derive(Debug)]
pub(crate) struct Heads {
    max_bytes: usize,
    max_fields: usize,
    /// Bytes in which no head ends.
    scanned: usize,
}

impl Heads {
    /// Heads of at most so many bytes, with at most so many fields.
    pub(crate) fn new(max_bytes: usize, max_fields: usize) -> Self {
        Self {
            max_bytes,
            max_fields,
            scanned: 0,
        }
    }

    /// The head of a request, once all of it has come.
    pub(crate) fn request(&mut self, input: &mut Input) -> Result<Option<request::Parts>, HeadError> {
        // Source: RFC 9112, section 2.2.
        while let Some(b'\r' | b'\n') = input.first() {
            let bytes: &[u8] = input;
            match bytes {
                [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] => input.advance(2),
                [b'\n', ..] => input.advance(1),
                _ => return Err(HeadError::Invalid("a carriage return stands alone")),
            }
            self.scanned = 0;
        }
        if !self.may_end(input) {
            return self.within(input).map(|()| None);
        }
        let bytes: &[u8] = input;
        let parsed = with_fields(self.max_fields, |fields| {
            let mut parsed = httparse::Request::new(&mut []);
            let Status::Complete(length) = parsed.parse_with_uninit_headers(bytes, fields)? else {
                return Ok(None);
            };
            Ok(Some((length, request_of(&parsed, bytes, length))))
        });
        let Some((length, head)) = parsed? else {
            return self.within(input).map(|()| None);
        };
        self.complete(input, length)?;
        head.map(Some)
    }

    /// The head of an answer, once all of it has come.
    pub(crate) fn answer(&mut self, input: &mut Input) -> Result<Option<response::Parts>, HeadError> {
        if !self.may_end(input) {
            return self.within(input).map(|()| None);
        }
        let bytes: &[u8] = input;
        let parsed = with_fields(self.max_fields, |fields| {
            let mut parsed = httparse::Response::new(&mut []);
            let config = httparse::ParserConfig::default();
            let Status::Complete(length) =
                config.parse_response_with_uninit_headers(&mut parsed, bytes, fields)?
            else {
                return Ok(None);
            };
            Ok(Some((length, answer_of(&parsed, bytes, length))))
        });
        let Some((length, head)) = parsed? else {
            return self.within(input).map(|()| None);
        };
        self.complete(input, length)?;
        head.map(Some)
    }

    /// Whether it is worth parsing: what came last may end a head, or was not looked at at all.
    fn may_end(&mut self, input: &Input) -> bool {
        let scanned = std::mem::replace(&mut self.scanned, input.len());
        let new = input.get(scanned..).unwrap_or_default();
        !new.is_empty() && (scanned == 0 || memchr::memchr(b'\n', new).is_some())
    }

    /// Whether a head that is not complete may go on.
    fn within(&self, input: &Input) -> Result<(), HeadError> {
        self.fits(input, input.len())
    }

    /// Takes a complete head away.
    fn complete(&mut self, input: &mut Input, length: usize) -> Result<(), HeadError> {
        self.scanned = 0;
        self.fits(input, length)?;
        input.advance(length);
        Ok(())
    }

    fn fits(&self, bytes: &[u8], length: usize) -> Result<(), HeadError> {
        if length <= self.max_bytes {
            return Ok(());
        }
        let line = bytes.get(..self.max_bytes).unwrap_or_default();
        Err(match memchr::memchr(b'\n', line) {
            Some(_) => HeadError::TooLarge,
            None => HeadError::LineTooLong,
        })
    }
}

/// Parses with room for so many fields.
fn with_fields<'b, T>(
    most: usize,
    mut parse: impl FnMut(&mut [MaybeUninit<Header<'b>>]) -> Result<T, httparse::Error>,
) -> Result<T, HeadError> {
    let mut usual = [const { MaybeUninit::uninit() }; USUAL];
    let room = usual.get_mut(..most.min(USUAL)).unwrap_or_default();
    let parsed = match parse(room) {
        Err(httparse::Error::TooManyHeaders) if most > USUAL => {
            let mut many = Vec::new();
            many.resize_with(most, MaybeUninit::uninit);
            parse(&mut many)
        }
        parsed => parsed,
    };
    parsed.map_err(|error| match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::HeaderName => HeadError::Invalid("the name of a header field is invalid"),
        httparse::Error::HeaderValue => HeadError::Invalid("the value of a header field is invalid"),
        httparse::Error::NewLine => HeadError::Invalid("a line does not end in CR LF"),
        httparse::Error::Status => HeadError::Invalid("the status is invalid"),
        httparse::Error::Token => HeadError::Invalid("the first line is invalid"),
        httparse::Error::Version => HeadError::Invalid("the version is neither HTTP/1.1 nor HTTP/1.0"),
    })
}

fn request_of(
    parsed: &httparse::Request<'_, '_>,
    bytes: &[u8],
    length: usize,
) -> Result<request::Parts, HeadError> {
    // In a buffer of its own, so that a call does not keep all that was read with its head.
    let own = Own::new(bytes, length);
    let (mut head, ()) = Request::new(()).into_parts();
    let method = parsed.method.unwrap_or_default();
    head.method =
        Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::Invalid("the method is invalid"))?;
    let target = own.part(parsed.path.unwrap_or_default().as_bytes());
    head.uri = Uri::from_maybe_shared(target).map_err(|_| HeadError::Invalid("the target is invalid"))?;
    head.version = version(parsed.version);
    head.headers = own.fields(parsed.headers, ADDED)?;
    Ok(head)
}

fn answer_of(
    parsed: &httparse::Response<'_, '_>,
    bytes: &[u8],
    length: usize,
) -> Result<response::Parts, HeadError> {
    let own = Own::new(bytes, length);
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|_| HeadError::Invalid("the status is invalid"))?;
    head.version = version(parsed.version);
    head.headers = own.fields(parsed.headers, 0)?;
    Ok(head)
}

/// The fields of a section of trailers that begins `input`, once all of it has come.
pub(super) fn trailers(input: &mut Input, most: usize) -> Result<Option<HeaderMap>, HeadError> {
    let bytes: &[u8] = input;
    let mut room = [httparse::EMPTY_HEADER; USUAL];
    let room = room.get_mut(..most.min(USUAL)).unwrap_or_default();
    match httparse::parse_headers(bytes, room) {
        Ok(Status::Complete((length, fields))) => {
            let trailers = Own::new(bytes, length).fields(fields, 0)?;
            input.advance(length);
            Ok(Some(trailers))
        }
        Ok(Status::Partial) => Ok(None),
        Err(_) => Err(HeadError::Invalid("the trailers are invalid")),
    }
}

fn version(minor: Option<u8>) -> Version {
    match minor {
        Some(1) => Version::HTTP_11,
        _ => Version::HTTP_10,
    }
}

/// A copy of a head, of which its fields are parts.
struct Own {
    bytes: Bytes,
    /// Where the original begins.
    start: usize,
}

impl Own {
    fn new(bytes: &[u8], length: usize) -> Self {
        Self {
            bytes: Bytes::copy_from_slice(bytes.get(..length).unwrap_or_default()),
            start: bytes.as_ptr().addr(),
        }
    }

    /// What is in the copy where `part` is in the original.
    fn part(&self, part: &[u8]) -> Bytes {
        let at = part.as_ptr().addr().wrapping_sub(self.start);
        match at.checked_add(part.len()) {
            Some(end) if end <= self.bytes.len() => self.bytes.slice(at..end),
            // An empty part may be anywhere.
            _ => Bytes::copy_from_slice(part),
        }
    }

    /// The fields, in a map with room for so many more.
    fn fields(&self, fields: &[Header<'_>], more: usize) -> Result<HeaderMap, HeadError> {
        let mut headers = HeaderMap::with_capacity(fields.len() + more);
        for field in fields {
            let name = HeaderName::from_bytes(field.name.as_bytes())
                .map_err(|_| HeadError::Invalid("the name of a header field is invalid"))?;
            let value = HeaderValue::from_maybe_shared(self.part(field.value))
                .map_err(|_| HeadError::Invalid("the value of a header field is invalid"))?;
            headers.try_append(name, value).map_err(|_| HeadError::TooLarge)?;
        }
        Ok(headers)
    }
}
