//! Writes heads and bodies. Source: RFC 9112, sections 3 to 7.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Version, response};

use crate::buffers::Out;
use crate::http1::framing;

/// What an answer has to know of its request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// It was HEAD, whose answer has no body.
    pub(crate) to_head: bool,
    pub(crate) version: Version,
    /// The connection goes on after the answer.
    pub(crate) is_kept: bool,
    /// Trailers are wanted.
    pub(crate) takes_trailers: bool,
}

/// A body has not as many bytes as its head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body is not as long as its Content-Length")]
pub(crate) struct Mismatch;

/// Writes one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks, with trailers if they are wanted.
    Chunked { trailers: bool },
    /// As it is, up to the end of the connection.
    UntilClose,
    /// None is written, whatever there is.
    Nothing,
}

impl Encoder {
    /// Writes a piece.
    pub(crate) fn data(&mut self, bytes: Bytes, out: &mut Out) -> Result<(), Mismatch> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.pass(bytes.len() as u64)?;
        match self {
            Self::Chunked { .. } => {
                size(bytes.len(), out.buffer());
                out.piece(bytes);
                out.buffer().extend_from_slice(b"\r\n");
            }
            Self::Length(_) | Self::UntilClose => out.piece(bytes),
            Self::Nothing => {}
        }
        Ok(())
    }

    /// How much is to come, if the head has said that.
    pub(crate) fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked { .. } | Self::UntilClose | Self::Nothing => None,
        }
    }

    /// So many bytes of a body of known length go another way.
    pub(crate) fn pass(&mut self, bytes: u64) -> Result<(), Mismatch> {
        if let Self::Length(left) = self {
            *left = left.checked_sub(bytes).ok_or(Mismatch)?;
        }
        Ok(())
    }

    /// Writes the end.
    pub(crate) fn end(self, trailers: Option<&HeaderMap>, out: &mut Out) -> Result<(), Mismatch> {
        match self {
            Self::Length(0) | Self::UntilClose | Self::Nothing => Ok(()),
            Self::Length(_) => Err(Mismatch),
            Self::Chunked { trailers: wanted } => {
                let out = out.buffer();
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten().filter(|_| wanted) {
                    field(name, value, out);
                }
                out.extend_from_slice(b"\r\n");
                Ok(())
            }
        }
    }
}

/// Writes the head of an answer whose body has `exact` bytes, if that is known; `date` is added if it has none. What
/// `asked` says of the connection is corrected: it ends if the body can't be told from what follows it.
pub(crate) fn answer(
    head: &response::Parts,
    exact: Option<u64>,
    date: &HeaderValue,
    asked: &mut Asked,
    out: &mut Vec<u8>,
) -> Encoder {
    let is_old = asked.version == Version::HTTP_10;
    out.extend_from_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_date = false;
    for (name, value) in &head.headers {
        if *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING {
            continue;
        }
        if *name == CONNECTION {
            if value.as_bytes().eq_ignore_ascii_case(b"close") {
                asked.is_kept = false;
                continue;
            }
            if value.as_bytes().eq_ignore_ascii_case(b"keep-alive") {
                continue;
            }
        }
        has_date |= *name == DATE;
        field(name, value, out);
    }
    let switches = head.status.is_informational();
    let mut encoder = Encoder::Nothing;
    if !switches {
        let declared = framing::length(&head.headers).ok().flatten();
        let is_bodiless = head.status == StatusCode::NO_CONTENT || head.status == StatusCode::NOT_MODIFIED;
        if asked.to_head || is_bodiless {
            // What a body would have, had there been one.
            let exact = exact.filter(|exact| *exact > 0 && !is_bodiless);
            let declared = declared.filter(|_| head.status != StatusCode::NO_CONTENT);
            if let Some(length) = declared.or(exact) {
                declare(length, out);
            }
        } else if let Some(length) = exact.or(declared) {
            declare(length, out);
            encoder = Encoder::Length(length);
        } else if is_old {
            asked.is_kept = false;
            encoder = Encoder::UntilClose;
        } else {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            encoder = Encoder::Chunked {
                trailers: asked.takes_trailers,
            };
        }
        if !asked.is_kept {
            out.extend_from_slice(b"connection: close\r\n");
        } else if is_old {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
    }
    if !has_date {
        field(&DATE, date, out);
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

/// Writes the head of a request to an origin whose body has `exact` bytes, if that is known: the path alone in its first
/// line, and the authority as its host.
pub(crate) fn request(request: &Request<()>, exact: Option<u64>, out: &mut Vec<u8>) -> Encoder {
    let (uri, headers) = (request.uri(), request.headers());
    out.extend_from_slice(request.method().as_str().as_bytes());
    out.push(b' ');
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let authority = uri.authority();
    if let Some(authority) = authority {
        out.extend_from_slice(b"host: ");
        out.extend_from_slice(authority.as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in headers {
        let is_host = *name == HOST && authority.is_some();
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING && !is_host {
            field(name, value, out);
        }
    }
    let declared = framing::length(headers).ok().flatten();
    // Without it, some servers wait for a body of such a request, or answer 411.
    let takes_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    let encoder = match exact.or(declared) {
        Some(0) if !takes_body => Encoder::Length(0),
        Some(length) => {
            declare(length, out);
            Encoder::Length(length)
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Encoder::Chunked { trailers: false }
        }
    };
    out.extend_from_slice(b"\r\n");
    encoder
}

fn field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn declare(length: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"content-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// The line with the size of a chunk.
fn size(length: usize, out: &mut Vec<u8>) {
    let digits = length.checked_ilog2().unwrap_or(0) / 4;
    for place in (0..=digits).rev() {
        let digit = length >> (4 * place) & 0xF;
        out.push(b"0123456789abcdef".get(digit).copied().unwrap_or(b'0'));
    }
    out.extend_from_slice(b"\r\n");
}
