//! Heads and trailers, from their fields. Source: RFC 9113, sections 8.1 to 8.3 and 8.5.

use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, TE, TRANSFER_ENCODING, UPGRADE};
use http::response::Parts;
use http::uri::{self, Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use crate::http1;
use crate::http2::Protocol;
use crate::http2::hpack::{Field, Name};

/// A message whose fields make no request. Its stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is malformed: {0}")]
pub(super) struct Malformed(&'static str);

impl Malformed {
    /// A head declares a body, and none follows.
    pub(super) const LENGTH: Self = Self("the content length is not that of the body");
}

/// Header fields that speak of a connection, which HTTP/2 does not have. Source: RFC 9113, section 8.2.2.
pub(super) fn is_of_connection(name: &HeaderName) -> bool {
    *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Fields for which the map of a request has room at once: those of most clients, with what the gateway adds on the way.
const OF_A_REQUEST: usize = 12;

/// The fields of one message as they are read, within a limit.
#[derive(Debug)]
pub(super) struct Fields {
    method: Option<Bytes>,
    scheme: Option<Bytes>,
    authority: Option<Bytes>,
    path: Option<Bytes>,
    protocol: Option<Bytes>,
    status: Option<Bytes>,
    headers: HeaderMap,
    /// The crumbs of a cookie, which are one field again for whoever reads them. Source: RFC 9113, section 8.2.3.
    cookie: Vec<u8>,
    /// A field that is no pseudo-header field has come.
    has_header: bool,
    /// What the fields may count together, less what they have counted so far.
    room: Option<usize>,
    has_pseudo: bool,
    flaw: Option<Malformed>,
}

impl Fields {
    /// Fields that may count `room` bytes; those after the one that passes it are dropped.
    pub(super) fn new(room: usize) -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            protocol: None,
            status: None,
            headers: HeaderMap::new(),
            cookie: Vec::new(),
            has_header: false,
            room: Some(room),
            has_pseudo: false,
            flaw: None,
        }
    }

    /// Takes the next field.
    pub(super) fn take(&mut self, field: Field) {
        let Some(room) = self.room else { return };
        self.room = room.checked_sub(field.size());
        let taken = match field {
            Field::Pseudo(name, value) => self.pseudo(&name, value),
            Field::Header(name, value) => self.header(name, value),
            Field::Invalid(_) => Err(Malformed("a header field has an invalid name or value")),
        };
        if let Err(flaw) = taken {
            self.flaw.get_or_insert(flaw);
        }
    }

    fn pseudo(&mut self, name: &Name, value: Bytes) -> Result<(), Malformed> {
        self.has_pseudo = true;
        let place = match name {
            Name::Method => &mut self.method,
            Name::Scheme => &mut self.scheme,
            Name::Authority => &mut self.authority,
            Name::Path => &mut self.path,
            Name::Protocol => &mut self.protocol,
            Name::Status => &mut self.status,
            Name::Header(_) | Name::Invalid => return Err(Malformed("a pseudo-header field is not known")),
        };
        if self.has_header {
            return Err(Malformed("a pseudo-header field comes after a header field"));
        }
        match place.replace(value) {
            None => Ok(()),
            Some(_) => Err(Malformed("a pseudo-header field comes twice")),
        }
    }

    fn header(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), Malformed> {
        if !self.has_header && self.method.is_some() {
            self.headers.reserve(OF_A_REQUEST);
        }
        self.has_header = true;
        if is_of_connection(&name) {
            return Err(Malformed("a header field speaks of the connection"));
        }
        if name == TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
            return Err(Malformed("`te` may only be `trailers`"));
        }
        if name == COOKIE {
            if !self.cookie.is_empty() {
                self.cookie.extend_from_slice(b"; ");
            }
            self.cookie.extend_from_slice(value.as_bytes());
            return Ok(());
        }
        match self.headers.try_append(name, value) {
            Ok(_) => Ok(()),
            Err(_) => Err(Malformed("there are too many header fields")),
        }
    }

    /// The request that the fields are.
    pub(super) fn request(self) -> Result<Request<()>, Malformed> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        if self.status.is_some() {
            return Err(Malformed("a request has no :status"));
        }
        let method = self.method.ok_or(Malformed("there is no :method"))?;
        let method = Method::from_bytes(&method).map_err(|_| Malformed(":method is invalid"))?;
        let connects = method == Method::CONNECT;
        if self.protocol.is_some() && !connects {
            return Err(Malformed("only CONNECT has a :protocol"));
        }
        let mut parts = uri::Parts::default();
        if let Some(authority) = self.authority.filter(|authority| !authority.is_empty()) {
            let authority = Authority::from_maybe_shared(authority);
            parts.authority = Some(authority.map_err(|_| Malformed(":authority is invalid"))?);
        }
        if connects && self.protocol.is_none() {
            if self.scheme.is_some() || self.path.is_some() {
                return Err(Malformed("CONNECT has neither :scheme nor :path"));
            }
        } else {
            let scheme = self.scheme.ok_or(Malformed("there is no :scheme"))?;
            let scheme = Scheme::try_from(&*scheme).map_err(|_| Malformed(":scheme is invalid"))?;
            // A URI has a scheme only together with an authority.
            parts.scheme = parts.authority.is_some().then_some(scheme);
            let path = self.path.ok_or(Malformed("there is no :path"))?;
            let is_asterisk = method == Method::OPTIONS && *path == *b"*";
            if !is_asterisk && !path.starts_with(b"/") {
                return Err(Malformed(":path does not begin with a slash"));
            }
            let path = PathAndQuery::from_maybe_shared(path);
            parts.path_and_query = Some(path.map_err(|_| Malformed(":path is invalid"))?);
        }
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Malformed("the fields make no URI"))?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        if !self.cookie.is_empty() {
            let cookie = HeaderValue::from_maybe_shared(Bytes::from(self.cookie));
            let cookie = cookie.map_err(|_| Malformed("a cookie has an invalid value"))?;
            request.headers_mut().insert(COOKIE, cookie);
        }
        if let Some(protocol) = self.protocol {
            request.extensions_mut().insert(Protocol(protocol));
        }
        Ok(request)
    }

    /// The answer that the fields are, and the length of its body if it says so.
    pub(super) fn answer(self) -> Result<(Parts, Option<u64>), Malformed> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        if self.room.is_none() {
            return Err(Malformed("the header fields are too large"));
        }
        let others = [self.method, self.scheme, self.authority, self.path, self.protocol];
        if others.iter().any(Option::is_some) {
            return Err(Malformed("an answer has no pseudo-header field but :status"));
        }
        let status = self.status.ok_or(Malformed("there is no :status"))?;
        let status = StatusCode::from_bytes(&status).map_err(|_| Malformed(":status is invalid"))?;
        let length = length(&self.headers)?;
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = status;
        head.version = Version::HTTP_2;
        head.headers = self.headers;
        Ok((head, length))
    }

    /// The trailers that the fields are.
    pub(super) fn trailers(self) -> Result<HeaderMap, Malformed> {
        if let Some(flaw) = self.flaw {
            return Err(flaw);
        }
        if self.has_pseudo {
            return Err(Malformed("trailers have a pseudo-header field"));
        }
        if self.room.is_none() {
            return Err(Malformed("the trailers are too large"));
        }
        Ok(self.headers)
    }
}

/// The length that a head declares of its body.
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    http1::length(headers).map_err(|_| Malformed("the content length is invalid"))
}
