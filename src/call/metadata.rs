//! Which headers are end-to-end metadata, in either direction.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, header::Entry};
use smallvec::SmallVec;

use crate::fault::{Fault, Kind};
use crate::listen::forwarded;
use crate::wire::base64;

/// What of a client's headers a dialect turns into metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Headers {
    /// gRPC: everything that is not the protocol's own.
    Grpc,
    /// HTTP: the same, less what describes the body, with `Grpc-Metadata-X` read as `x`.
    Http,
}

/// Headers of one hop. Source: RFC 9110, section 7.6.1.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Headers that the gateway or the next hop writes itself.
fn is_framing(name: &str) -> bool {
    matches!(name, "host" | "content-length" | "content-type" | "expect")
}

/// Names that no client may set: the protocol's own, and the gateway's.
fn is_reserved(name: &str) -> bool {
    name.starts_with("grpc-")
        || name.starts_with("connect-")
        || name.starts_with("x-sabir-")
        || name.starts_with(':')
        || name == "x-grpc-web"
}

/// Whether gRPC allows the name. Source: gRPC over HTTP/2, "Header-Name".
fn is_grpc_name(name: &str) -> bool {
    /// By byte, since to compare with one range after the other costs a branch for each.
    const ALLOWED: [bool; 256] = {
        let (letters, mut allowed) = (b"0123456789abcdefghijklmnopqrstuvwxyz_-.", [false; 256]);
        let mut at = 0;
        while at < letters.len() {
            allowed[letters[at] as usize] = true;
            at += 1;
        }
        allowed
    };
    name.bytes().all(|byte| ALLOWED[usize::from(byte)])
}

/// What becomes of a request's header as metadata.
enum Fate {
    Stays,
    Goes,
    /// It stays under another name.
    Becomes(HeaderName),
}

/// Turns a request's headers into metadata.
///
/// # Errors
/// [`Kind::BadRequest`] for a `-bin` value that is not base64, which names the header.
pub fn from_request(mut headers: HeaderMap, which: Headers) -> Result<HeaderMap, Fault> {
    let named = connection_options(&headers);
    let mut unwanted: SmallVec<[HeaderName; 8]> = SmallVec::new();
    let mut renamed: SmallVec<[(HeaderName, HeaderName); 1]> = SmallVec::new();
    for name in headers.keys() {
        match fate(name, which, &named) {
            Fate::Stays => {}
            Fate::Goes => unwanted.push(name.clone()),
            Fate::Becomes(inner) => renamed.push((name.clone(), inner)),
        }
    }
    for name in unwanted {
        headers.remove(name);
    }
    for (name, inner) in renamed {
        if let Entry::Occupied(entry) = headers.entry(name) {
            let (_, values) = entry.remove_entry_mult();
            let values: SmallVec<[HeaderValue; 1]> = values.collect();
            for value in values {
                headers.append(&inner, value);
            }
        }
    }
    for name in unfit(&headers) {
        let values = headers.get_all(&name).iter();
        let kept: Vec<HeaderValue> = values.filter(|value| is_text(value)).cloned().collect();
        headers.remove(&name);
        for value in kept {
            headers.append(&name, value);
        }
    }
    match headers.iter().find(|(name, value)| is_broken(name, value)) {
        None => Ok(headers),
        Some((name, _)) => Err(Fault::client(
            Kind::BadRequest,
            format!("header {name}: a name that ends in -bin carries base64"),
        )),
    }
}

fn fate(name: &HeaderName, which: Headers, named: &[String]) -> Fate {
    let text = name.as_str();
    if is_hop_by_hop(text) || is_framing(text) || named.iter().any(|option| option == text) {
        return Fate::Goes;
    }
    if which == Headers::Http {
        if text.starts_with("content-") || text == "accept-encoding" {
            return Fate::Goes;
        }
        if let Some(inner) = text.strip_prefix("grpc-metadata-") {
            return match HeaderName::try_from(inner) {
                Ok(inner) if may_be_meant(&inner) => Fate::Becomes(inner),
                Ok(_) | Err(_) => Fate::Goes,
            };
        }
    }
    if is_metadata(text) {
        Fate::Stays
    } else {
        Fate::Goes
    }
}

/// Whether a client may say it as `Grpc-Metadata-X`: what is the gateway's own word can't be said behind its back.
fn may_be_meant(name: &HeaderName) -> bool {
    let text = name.as_str();
    !is_hop_by_hop(text) && !is_framing(text) && !forwarded::is_forwarding(name) && is_metadata(text)
}

/// Whether a client may set it, and gRPC allows it.
fn is_metadata(name: &str) -> bool {
    !is_reserved(name) && is_grpc_name(name)
}

/// The names that have a value which gRPC does not allow: of most requests none, so that they are left as they are.
fn unfit(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut names: Vec<HeaderName> = Vec::new();
    for (name, value) in headers {
        // All values of a name come one after the other.
        if !is_text(value) && names.last() != Some(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Whether the value is not what the name says.
fn is_broken(name: &HeaderName, value: &HeaderValue) -> bool {
    name.as_str().ends_with("-bin") && !value.as_bytes().split(|byte| *byte == b',').all(is_binary)
}

/// Takes out of an upstream's headers or trailers what is not metadata.
pub fn from_upstream(headers: &mut HeaderMap) {
    let named = connection_options(headers);
    let unwanted: SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|name| {
            let text = name.as_str();
            is_hop_by_hop(text)
                || is_framing(text)
                || is_reserved(text)
                // When this answer was made, the gateway says itself.
                || text == "date"
                // What pages may read is the gateway's own word, by the `cors` of a route.
                || text.starts_with("access-control-")
                || named.iter().any(|option| option == text)
        })
        .cloned()
        .collect();
    for name in unwanted {
        if let Entry::Occupied(entry) = headers.entry(name) {
            entry.remove_entry_mult();
        }
    }
}

/// Takes out of the headers of an HTTP message what belongs to one hop, and what is the gateway's own.
///
/// `TE: trailers` stays, since trailers of answers are passed on, and `Trailer`, which says which ones follow.
pub fn end_to_end(headers: &mut HeaderMap) {
    let is_of_hop = |name: &HeaderName| {
        let text = name.as_str();
        (is_hop_by_hop(text) && *name != header::TRAILER)
            || *name == header::EXPECT
            || text.starts_with("x-sabir-")
    };
    // Of most messages nothing is taken out: what else there is to know depends on what would be.
    let mut unwanted: SmallVec<[HeaderName; 4]> =
        headers.keys().filter(|name| is_of_hop(name)).cloned().collect();
    if unwanted.is_empty() {
        return;
    }
    let named = connection_options(headers);
    let is_named = |name: &&HeaderName| named.iter().any(|option| option == name.as_str());
    unwanted.extend(headers.keys().filter(is_named).cloned());
    let takes_trailers = headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case("trailers"));
    for name in unwanted {
        if let Entry::Occupied(entry) = headers.entry(name) {
            entry.remove_entry_mult();
        }
    }
    if takes_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Takes out of the trailers of an HTTP answer what belongs to one hop or is the gateway's own, and what has to be known
/// before a body. Source: RFC 9110, section 6.5.1.
pub fn trailing(trailers: &mut HeaderMap) {
    let unwanted: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| {
            let text = name.as_str();
            is_hop_by_hop(text)
                || is_framing(text)
                || text.starts_with("content-")
                || text.starts_with("x-sabir-")
                || text.starts_with("access-control-")
                || matches!(
                    text,
                    "age"
                        | "authorization"
                        | "cache-control"
                        | "expires"
                        | "location"
                        | "max-forwards"
                        | "retry-after"
                        | "set-cookie"
                        | "vary"
                        | "www-authenticate"
                )
        })
        .cloned()
        .collect();
    for name in unwanted {
        trailers.remove(name);
    }
}

/// Takes out of the headers of an HTTP origin's answer what is not metadata, or no gRPC client could be told.
pub fn from_origin(headers: &mut HeaderMap) {
    from_upstream(headers);
    let unwanted: Vec<HeaderName> = headers
        .iter()
        .filter(|(name, value)| {
            let text = name.as_str();
            text.starts_with("content-")
                || *name == header::DATE
                || !is_grpc_name(text)
                || !is_text(value)
                || is_broken(name, value)
        })
        .map(|(name, _)| name.clone())
        .collect();
    for name in unwanted {
        if let Entry::Occupied(entry) = headers.entry(name) {
            entry.remove_entry_mult();
        }
    }
}

/// The headers that `Connection` names; what frames or identifies the request can't be taken away by it.
fn connection_options(headers: &HeaderMap) -> Vec<String> {
    // Most messages have few fields, which are sooner looked at than the name is hashed.
    if headers.keys().all(|name| *name != header::CONNECTION) {
        return Vec::new();
    }
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|option| option.trim().to_ascii_lowercase())
        .filter(|option| !matches!(option.as_str(), "host" | "content-length" | "authorization" | ""))
        .collect()
}

/// Whether gRPC allows the value: visible ASCII and spaces.
fn is_text(value: &HeaderValue) -> bool {
    // To the end, since then many bytes are looked at together.
    let is_text = |fits, byte: &u8| fits & matches!(byte, b' '..=b'~');
    value.as_bytes().iter().fold(true, is_text)
}

fn is_binary(value: &[u8]) -> bool {
    base64::decode(value.trim_ascii()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::try_from(*name).unwrap(),
                    HeaderValue::try_from(*value).unwrap(),
                )
            })
            .collect()
    }

    fn names(which: Headers, lines: &[(&str, &str)]) -> Vec<String> {
        let metadata = from_request(headers(lines), which).unwrap();
        let mut names: Vec<_> = metadata.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_belongs_to_a_hop_or_a_protocol_is_lifted_out() {
        let lines = [
            ("host", "a"),
            ("connection", "close, X-Private, authorization"),
            ("x-private", "1"),
            ("authorization", "Bearer t"),
            ("te", "trailers"),
            ("content-type", "application/json"),
            ("content-language", "en"),
            ("accept-encoding", "gzip"),
            ("grpc-timeout", "1S"),
            ("grpc-status", "0"),
            ("x-sabir-user", "root"),
            ("x-request-id", "7"),
        ];
        assert_eq!(names(Headers::Http, &lines), ["authorization", "x-request-id"]);
        assert_eq!(
            names(Headers::Grpc, &lines),
            [
                "accept-encoding",
                "authorization",
                "content-language",
                "x-request-id"
            ]
        );
    }

    #[test]
    fn of_an_http_message_what_belongs_to_a_hop_goes() {
        let left = |lines: &[(&str, &str)]| {
            let mut map = headers(lines);
            end_to_end(&mut map);
            let mut left: Vec<_> = map.keys().map(|name| name.as_str().to_owned()).collect();
            left.sort();
            left
        };
        assert_eq!(left(&[("x-a", "1"), ("trailer", "x-b")]), ["trailer", "x-a"]);
        assert_eq!(
            left(&[
                ("connection", "x-a, host, authorization"),
                ("x-a", "1"),
                ("host", "h"),
                ("authorization", "b")
            ]),
            ["authorization", "host"]
        );
        assert_eq!(left(&[("te", "gzip, trailers"), ("x-a", "1")]), ["te", "x-a"]);
        assert_eq!(
            left(&[
                ("te", "gzip"),
                ("expect", "100-continue"),
                ("x-sabir-user", "root")
            ]),
            [""; 0]
        );
    }

    #[test]
    fn the_prefix_of_grpc_gateway_clients_is_taken_off() {
        let lines = [
            ("grpc-metadata-tenant", "7"),
            ("grpc-metadata-grpc-timeout", "1S"),
            ("grpc-metadata-x-sabir-user", "root"),
            ("grpc-metadata-x-forwarded-for", "203.0.113.1"),
            ("grpc-metadata-x-real-ip", "203.0.113.1"),
            ("grpc-metadata-host", "other.example"),
            ("grpc-metadata-content-length", "7"),
            ("grpc-metadata-connection", "close"),
        ];
        assert_eq!(names(Headers::Http, &lines), ["tenant"]);
    }

    #[test]
    fn values_that_grpc_does_not_allow_go_alone() {
        let mut sent = headers(&[("x-a", "1"), ("x-a", "3"), ("x-b", "4")]);
        sent.append("x-a", HeaderValue::from_bytes(b"\xff").unwrap());
        sent.append("x-c", HeaderValue::from_bytes(b"\t\xff").unwrap());
        let metadata = from_request(sent, Headers::Grpc).unwrap();
        let values: Vec<_> = metadata
            .get_all("x-a")
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        assert_eq!(values, [b"1", b"3"]);
        assert_eq!((metadata.len(), metadata.contains_key("x-c")), (3, false));
    }

    #[test]
    fn what_is_relayed_loses_what_belongs_to_a_hop_and_nothing_else() {
        let mut relayed = headers(&[
            ("connection", "keep-alive, X-Private, host, te"),
            ("keep-alive", "timeout=5"),
            ("proxy-authorization", "Basic x"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "x"),
            ("te", "trailers, deflate"),
            ("trailer", "x-checksum"),
            ("expect", "100-continue"),
            ("x-private", "1"),
            ("x-sabir-user", "root"),
            ("authorization", "Bearer t"),
            ("content-type", "text/plain"),
            ("host", "a"),
            ("x_under", "1"),
        ]);
        end_to_end(&mut relayed);
        let mut names: Vec<_> = relayed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "authorization",
                "content-type",
                "host",
                "te",
                "trailer",
                "x_under"
            ]
        );
        assert_eq!(relayed["te"], "trailers");
    }

    #[test]
    fn binary_values_are_base64_padded_or_not() {
        for (value, fits) in [
            ("AQIDBA", true),
            ("AQIDBA==", true),
            ("AQ==,Ag", true),
            ("", true),
            ("!", false),
        ] {
            let outcome = from_request(headers(&[("trace-bin", value)]), Headers::Http);
            assert_eq!(outcome.is_ok(), fits, "{value}");
        }
    }

    #[test]
    fn values_of_one_name_stay_together_and_in_order() {
        let metadata = from_request(
            headers(&[("x-a", "1"), ("x-b", "2"), ("x-a", "3")]),
            Headers::Http,
        )
        .unwrap();
        let values: Vec<_> = metadata
            .get_all("x-a")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert_eq!(values, ["1", "3"]);
    }
}
