//! Whether a request head may go further: framing, host, size and path, the same for every dialect.
//!
//! Pure functions of the head. What the HTTP library has refused or repaired before is checked again where the check
//! costs nothing, so that the rules can be read here in one place.

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderName, Method, Version};

use crate::fault::{Fault, Kind};
use crate::http1;
use crate::limits::Limits;
use crate::wire::websocket::handshake;

/// What a client may send here; the value of `Allow` where CONNECT and TRACE are refused.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// What a header line costs beside its name and value: the colon, the space and the line end of HTTP/1.1. Counted
/// for HTTP/2 too, so that the limit is one number.
const LINE_BYTES: usize = 4;

/// Names that a backend reads as something else when it takes `_` for `-`, as CGI does.
const MEANINGFUL: [&str; 20] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "transfer-encoding",
    "x-http-method-override",
    "x-original-host",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "x-method-override",
];

/// Beginnings of such names: forwarding, gRPC's own, and the gateway's own.
const MEANINGFUL_PREFIXES: [&str; 3] = ["x-forwarded-", "grpc-", "x-sabir-"];

/// Request line and headers together, at most.
pub(super) fn most_bytes(limits: &Limits) -> usize {
    /// The method, the version and the line ends around them, with room for long methods.
    const REQUEST_LINE: usize = 64;
    limits.max_header_bytes + limits.max_uri_bytes + REQUEST_LINE
}

/// Checks a head.
///
/// # Errors
/// A [`Fault`] of the client: [`Kind::BadRequest`] for framing, host, path or a misleading name,
/// [`Kind::UriTooLong`] and [`Kind::HeadersTooLarge`] for sizes, [`Kind::MethodNotAllowed`] for TRACE, and for CONNECT but to a
/// WebSocket.
pub fn check(head: &Parts, limits: &Limits) -> Result<(), Fault> {
    method(head)?;
    uri_size(head, limits)?;
    let seen = headers(head, limits)?;
    framing(head, seen)?;
    host(head, seen)?;
    path(head)
}

fn bad(message: impl Into<String>) -> Fault {
    Fault::client(Kind::BadRequest, message)
}

fn method(head: &Parts) -> Result<(), Fault> {
    let method = &head.method;
    let tunnels = *method == Method::CONNECT && !handshake::is_extended_connect(head);
    if tunnels || *method == Method::TRACE {
        return Err(Fault::client(
            Kind::MethodNotAllowed,
            format!("{method} is not served here; {METHODS} are"),
        )
        .allowing(METHODS));
    }
    Ok(())
}

fn uri_size(head: &Parts, limits: &Limits) -> Result<(), Fault> {
    let target = head
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > limits.max_uri_bytes {
        return Err(Fault::client(
            Kind::UriTooLong,
            format!(
                "the URL has {target} bytes, more than the {} that are taken",
                limits.max_uri_bytes
            ),
        ));
    }
    Ok(())
}

/// How often there are headers of which there may be one.
#[derive(Clone, Copy, Default)]
struct Seen {
    lengths: usize,
    codings: usize,
    hosts: usize,
}

/// Sizes and names, in one pass.
fn headers(head: &Parts, limits: &Limits) -> Result<Seen, Fault> {
    let (mut bytes, mut seen) = (0, Seen::default());
    for (name, value) in &head.headers {
        bytes += name.as_str().len() + value.len() + LINE_BYTES;
        seen.lengths += usize::from(*name == CONTENT_LENGTH);
        seen.codings += usize::from(*name == TRANSFER_ENCODING);
        seen.hosts += usize::from(*name == HOST);
        if memchr::memchr(b'_', name.as_str().as_bytes()).is_some() {
            plain_name(name)?;
        }
    }
    if bytes > limits.max_header_bytes {
        return Err(Fault::client(
            Kind::HeadersTooLarge,
            format!(
                "the headers have {bytes} bytes, more than the {} that are taken",
                limits.max_header_bytes
            ),
        ));
    }
    let count = head.headers.len();
    if count > limits.max_headers {
        return Err(Fault::client(
            Kind::HeadersTooLarge,
            format!(
                "the request has {count} headers, more than the {} that are taken",
                limits.max_headers
            ),
        ));
    }
    Ok(seen)
}

fn plain_name(name: &HeaderName) -> Result<(), Fault> {
    let dashed = name.as_str().replace('_', "-");
    let misleading = MEANINGFUL.contains(&dashed.as_str())
        || MEANINGFUL_PREFIXES
            .iter()
            .any(|prefix| dashed.starts_with(prefix));
    if misleading {
        return Err(bad(format!(
            "the header \"{name}\" can be mistaken for \"{dashed}\"; send it with dashes or not at all"
        )));
    }
    Ok(())
}

fn framing(head: &Parts, seen: Seen) -> Result<(), Fault> {
    if seen.lengths > 1 {
        return Err(bad("the request has more than one Content-Length; send one"));
    }
    if seen.lengths > 0 && http1::length(&head.headers).is_err() {
        return Err(bad("Content-Length is not a number of bytes in decimal digits"));
    }
    if seen.codings == 0 {
        return Ok(());
    }
    if seen.lengths > 0 {
        return Err(bad(
            "the request has both Content-Length and Transfer-Encoding; send one of them",
        ));
    }
    if head.version != Version::HTTP_11 {
        return Err(bad("Transfer-Encoding exists in HTTP/1.1 only"));
    }
    let coding = head.headers.get(TRANSFER_ENCODING);
    let is_chunked = coding.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
    if seen.codings > 1 || !is_chunked {
        return Err(bad(
            "the only Transfer-Encoding that is taken is a single \"chunked\"",
        ));
    }
    Ok(())
}

fn host(head: &Parts, seen: Seen) -> Result<(), Fault> {
    if seen.hosts > 1 {
        return Err(bad("the request has more than one Host; send one"));
    }
    let host = match seen.hosts {
        0 => None,
        _ => head.headers.get(HOST).map(http::HeaderValue::as_bytes),
    };
    let authority = head
        .uri
        .authority()
        .map(|authority| authority.as_str().as_bytes());
    match (authority, host) {
        (None, None) => return Err(bad("the request has no Host; say which host it is for")),
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(bad("Host and the authority of the request differ; send the same"));
        }
        // The request line of HTTP/1.1 does not stand in for the Host line, which is required. Source: RFC 9112,
        // section 3.2.
        (Some(_), None) if head.version <= Version::HTTP_11 => {
            return Err(bad("the request has no Host; say which host it is for"));
        }
        (Some(text), _) | (None, Some(text)) => {
            if !is_host(text) {
                return Err(bad(
                    "Host is not a name or address with an optional port, such as \"example.com:8080\"",
                ));
            }
        }
    }
    // The HTTP/1.1 parser takes any scheme in front of an authority.
    match head.uri.scheme_str() {
        None | Some("http" | "https") => Ok(()),
        Some(_) => Err(bad("the scheme of the request is neither http nor https")),
    }
}

/// Whether `text` is a host name, an IPv4 address or an IPv6 address in brackets, with an optional port.
///
/// Stricter than RFC 3986: no user information, no percent encoding and none of the punctuation that only generic
/// URIs have, because routes and backends compare this text.
fn is_host(text: &[u8]) -> bool {
    let (host, port) = if text.first() == Some(&b'[') {
        let Some(end) = memchr::memchr(b']', text) else {
            return false;
        };
        let (address, rest) = text.split_at(end);
        let valid = std::str::from_utf8(address.get(1..).unwrap_or_default())
            .is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
        if !valid {
            return false;
        }
        match rest.get(1..).unwrap_or_default() {
            [] => return true,
            [b':', port @ ..] => return is_port(port),
            _ => return false,
        }
    } else {
        match memchr::memchr(b':', text) {
            Some(at) => (&text[..at], text.get(at + 1..)),
            None => (text, None),
        }
    };
    !host.is_empty()
        && host
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~'))
        && port.is_none_or(is_port)
}

fn is_port(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(text).is_ok_and(|text| text.is_empty() || text.parse::<u16>().is_ok())
}

fn path(head: &Parts) -> Result<(), Fault> {
    let path = head.uri.path();
    if path == "*" {
        if head.method == Method::OPTIONS {
            return Ok(());
        }
        return Err(bad("the path \"*\" is for OPTIONS only"));
    }
    if !path.starts_with('/') {
        return Err(bad("the path does not begin with \"/\""));
    }
    let bytes = path.as_bytes();
    if memchr::memchr3(b'%', b'\\', b';', bytes).is_none() && memchr::memchr(0, bytes).is_none() {
        return Ok(());
    }
    escapes(bytes)?;
    if path.split('/').any(is_dots_with_parameter) {
        return Err(bad("the path has a dot segment with a \";\" parameter"));
    }
    Ok(())
}

/// Checks every byte that could be read in two ways further on.
fn escapes(path: &[u8]) -> Result<(), Fault> {
    let mut rest = path;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let byte = if *byte == b'%' {
            let [high, low, tail @ ..] = tail else {
                return Err(bad("the path ends inside a percent escape"));
            };
            let (Some(high), Some(low)) = (hex(*high), hex(*low)) else {
                return Err(bad(
                    "the path has a \"%\" that two hexadecimal digits do not follow",
                ));
            };
            rest = tail;
            high << 4 | low
        } else {
            *byte
        };
        match byte {
            0 => return Err(bad("the path has a NUL")),
            b'\\' => return Err(bad("the path has a backslash; segments are divided by \"/\"")),
            _ => {}
        }
    }
    Ok(())
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Whether a segment is `.` or `..`, written in any way, before a `;`. Some backends drop what follows the semicolon
/// before they resolve the dots.
fn is_dots_with_parameter(segment: &str) -> bool {
    let Some((mut name, _)) = segment.split_once(';') else {
        return false;
    };
    let mut dots = 0;
    loop {
        let escape = name
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case("%2e"));
        let taken = if escape { 3 } else { 1 };
        if !escape && !name.starts_with('.') {
            return name.is_empty() && (1..=2).contains(&dots);
        }
        dots += 1;
        name = name.get(taken..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
