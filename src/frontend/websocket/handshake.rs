//! Whether a WebSocket may be opened here, what it will speak, and the token that a browser hides in its handshake.

use http::HeaderMap;
use http::header::{
    AUTHORIZATION, COOKIE, HeaderValue, ORIGIN, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL,
};
use http::request::Parts;

use crate::fault::{Fault, Kind};
use crate::frontend::websocket::talk::Protocol;
use crate::peer::Peer;
use crate::route::Route;
use crate::route::cors::{Cors, Origins};
use crate::route::entry::WebSocket;
use crate::wire::websocket::deflate::Agreed;
use crate::wire::websocket::handshake::{self, HandshakeError, Opening};
use crate::wire::websocket::origin::Origin;

/// What stands before a token in base64url among the subprotocols.
const TOKEN: &str = "bearer.";
/// What stands before a token that is the next subprotocol.
const BEARER: &str = "Bearer";

/// A handshake that is in order.
pub(super) struct Accepted {
    pub(super) opening: Opening,
    pub(super) protocol: Protocol,
    /// The subprotocol that the answer names.
    pub(super) named: Option<&'static str>,
    pub(super) deflate: Option<Agreed>,
}

/// Checks where the page is from: the gateway's own site, one of `websocket.origins`, or one that CORS names, and makes of a token among the subprotocols what it stands for: an
/// `Authorization` header. One that is there already wins. The token is then gone from the head.
///
/// # Errors
/// [`Kind::OriginDenied`], and [`Kind::BadRequest`] for a token that can't be read.
pub(crate) fn prepare(head: &mut Parts, peer: &Peer, route: &Route) -> Result<(), Fault> {
    origin(head, peer, &route.websocket, route.cors.as_ref())?;
    let Some(token) = take_token(&mut head.headers)? else {
        return Ok(());
    };
    head.headers.entry(AUTHORIZATION).or_insert(token);
    Ok(())
}

fn origin(head: &Parts, peer: &Peer, options: &WebSocket, cors: Option<&Cors>) -> Result<(), Fault> {
    let mut origins = head.headers.get_all(ORIGIN).iter();
    let written = origins.next();
    let ambient = is_ambient(&head.headers) || !peer.certificates().is_empty();
    if written.is_none() && !ambient {
        // No browser, and nothing that a browser would have added by itself.
        return Ok(());
    }
    let host = match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head
            .headers
            .get(http::header::HOST)
            .and_then(|host| host.to_str().ok()),
    };
    let written = written.filter(|_| origins.next().is_none());
    let shared = cors.is_some_and(|cors| {
        cors.origins != Origins::Any
            && (cors.credentials || !ambient)
            && written.is_some_and(|origin| cors.allows(origin))
    });
    let origin: Option<Origin> = written
        .and_then(|origin| origin.to_str().ok())
        .and_then(|origin| origin.parse().ok());
    let own = origin.is_some_and(|origin| {
        options.origins.contains(&origin)
            || host.is_some_and(|host| origin.is_of(host))
            || (peer.is_local() && origin.is_loopback() && !ambient)
    });
    if own || shared {
        return Ok(());
    }
    Err(Fault::client(
        Kind::OriginDenied,
        "header origin: pages from there may not open a WebSocket here",
    ))
}

/// Whether a browser may have proved who it is without being asked by the page.
fn is_ambient(headers: &HeaderMap) -> bool {
    let by_browser = |value: &HeaderValue| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next();
        scheme.is_some_and(|scheme| {
            [&b"basic"[..], b"digest", b"negotiate", b"ntlm"]
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known))
        })
    };
    headers.contains_key(COOKIE) || headers.get_all(AUTHORIZATION).iter().any(by_browser)
}

/// Takes the token out of the subprotocols, as the value of an `Authorization` header.
fn take_token(headers: &mut HeaderMap) -> Result<Option<HeaderValue>, Fault> {
    let offered = handshake::subprotocols(headers);
    let mut token = None;
    let mut names: Vec<&str> = Vec::with_capacity(offered.len());
    let mut offered = offered.into_iter();
    while let Some(name) = offered.next() {
        if let Some(encoded) = name.strip_prefix(TOKEN) {
            token = Some(decode(encoded).ok_or_else(bad_token)?);
            continue;
        }
        names.push(name);
        if name == BEARER
            && let Some(next) = offered.next()
        {
            token = token.or_else(|| Some(next.as_bytes().to_vec()));
        }
    }
    let Some(token) = token else {
        return Ok(None);
    };
    let mut value =
        HeaderValue::from_bytes(&[b"Bearer ", token.as_slice()].concat()).map_err(|_| bad_token())?;
    value.set_sensitive(true);
    let names = HeaderValue::from_str(&names.join(", ")).map_err(|_| bad_token())?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, names);
    Ok(Some(value))
}

/// base64url, padded or not.
fn decode(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    base64_simd::URL_SAFE_NO_PAD.decode_to_vec(bare.as_bytes()).ok()
}

fn bad_token() -> Fault {
    Fault::client(
        Kind::BadRequest,
        "header sec-websocket-protocol: after \"bearer.\" a token in base64url is expected",
    )
}

/// What a handshake asks for.
///
/// # Errors
/// [`Kind::WebSocketVersion`] and [`Kind::BadRequest`]: what is missing, or which subprotocols there are.
pub(super) fn read(head: &Parts, options: &WebSocket) -> Result<Accepted, Fault> {
    let opening = handshake::check(head).map_err(|error| {
        let kind = match error {
            HandshakeError::Version => Kind::WebSocketVersion,
            HandshakeError::Connection | HandshakeError::Key => Kind::BadRequest,
        };
        Fault::client(kind, error.to_string())
    })?;
    let (protocol, named) = choose(&handshake::subprotocols(&head.headers))?;
    let offers: Vec<&str> = head
        .headers
        .get_all(SEC_WEBSOCKET_EXTENSIONS)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    Ok(Accepted {
        opening,
        protocol,
        named,
        deflate: Some(offers.join(","))
            .filter(|_| options.deflate)
            .and_then(|offers| Agreed::choose(&offers)),
    })
}

/// The first subprotocol that is known.
fn choose(offered: &[&str]) -> Result<(Protocol, Option<&'static str>), Fault> {
    for name in offered {
        if let Some(protocol) = Protocol::named(name) {
            return Ok((protocol, protocol.name()));
        }
    }
    if offered.contains(&BEARER) {
        return Ok((Protocol::Plain, Some(BEARER)));
    }
    if offered.is_empty() {
        return Ok((Protocol::Plain, None));
    }
    let known: Vec<&str> = Protocol::ALL.into_iter().filter_map(Protocol::name).collect();
    Err(Fault::client(
        Kind::BadRequest,
        format!(
            "header sec-websocket-protocol: none of these is spoken here; {} are",
            known.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use http::Request;

    use super::*;

    fn options(origins: &[&str]) -> WebSocket {
        WebSocket {
            origins: origins.iter().map(|origin| origin.parse().unwrap()).collect(),
            deflate: false,
            max_message_bytes: 1,
            ping_interval: Duration::ZERO,
            pong_timeout: Duration::ZERO,
            idle_timeout: Duration::ZERO,
            write_timeout: Duration::ZERO,
        }
    }

    type Lines<'a> = &'a [(&'a str, &'a str)];
    type Chosen = (Protocol, Option<&'static str>);

    fn head(lines: Lines<'_>) -> Parts {
        let mut request = Request::get("/x");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn origins_are_the_own_the_listed_and_on_loopback_the_machine_s() {
        const HOST: (&str, &str) = ("host", "api.example.com");
        const COOKIE: (&str, &str) = ("cookie", "a=b");
        const BASIC: (&str, &str) = ("authorization", "Basic YTpi");
        const TOKEN: (&str, &str) = ("authorization", "Bearer t");
        let table: &[(Lines<'_>, bool, bool)] = &[
            // Headers, allowed on a public listener, allowed on loopback.
            (&[HOST], true, true),
            (&[HOST, TOKEN], true, true),
            (&[HOST, ("origin", "https://api.example.com")], true, true),
            (&[HOST, ("origin", "https://app.example.com")], true, true),
            (&[HOST, ("origin", "https://evil.example")], false, false),
            (&[HOST, ("origin", "null")], false, false),
            (&[HOST, ("origin", "http://localhost:3000")], false, true),
            (&[HOST, COOKIE], false, false),
            (&[HOST, BASIC], false, false),
            (&[HOST, COOKIE, ("origin", "https://app.example.com")], true, true),
            (&[HOST, COOKIE, ("origin", "http://localhost:3000")], false, false),
            (
                &[
                    HOST,
                    ("origin", "https://app.example.com"),
                    ("origin", "https://app.example.com"),
                ],
                false,
                false,
            ),
        ];
        for (lines, public, local) in table {
            for (listener, allowed) in [("0.0.0.0:80", public), ("127.0.0.1:80", local)] {
                let client: SocketAddr = "127.0.0.1:9".parse().unwrap();
                let peer = Peer::new(client, false, false, Vec::new()).through(listener.parse().unwrap());
                let got = origin(&head(lines), &peer, &options(&["https://app.example.com"]), None);
                assert_eq!(got.is_ok(), *allowed, "{lines:?} on {listener}");
            }
        }
        let secure = Peer::new("192.0.2.1:9".parse().unwrap(), true, false, vec![vec![1]]);
        assert!(origin(&head(&[HOST]), &secure, &options(&[]), None).is_err());
    }

    #[test]
    fn a_token_becomes_authorization_and_is_gone() {
        let table: &[(&str, Option<&str>, &str)] = &[
            ("sabir.v1.json", None, "sabir.v1.json"),
            (
                "sabir.v1.json, bearer.YS9iPT0",
                Some("Bearer a/b=="),
                "sabir.v1.json",
            ),
            (
                "bearer.YS9iPT0=, sabir.v1.proto",
                Some("Bearer a/b=="),
                "sabir.v1.proto",
            ),
            ("Bearer, a/b==", Some("Bearer a/b=="), "Bearer"),
            ("Bearer", None, "Bearer"),
        ];
        for (offered, token, left) in table {
            let mut head = head(&[("sec-websocket-protocol", offered)]);
            let got = take_token(&mut head.headers).unwrap();
            assert_eq!(
                got.as_ref().map(|value| value.to_str().unwrap()),
                *token,
                "{offered}"
            );
            assert_eq!(head.headers[SEC_WEBSOCKET_PROTOCOL], left, "{offered}");
        }
        assert!(take_token(&mut head(&[("sec-websocket-protocol", "bearer.!")]).headers).is_err());
    }

    #[test]
    fn the_first_known_subprotocol_is_chosen() {
        let table: &[(&[&str], Option<Chosen>)] = &[
            (&[], Some((Protocol::Plain, None))),
            (&["Bearer"], Some((Protocol::Plain, Some("Bearer")))),
            (
                &["x", "sabir.v1.proto", "sabir.v1.json"],
                Some((Protocol::Proto, Some("sabir.v1.proto"))),
            ),
            (
                &["grpc-websockets"],
                Some((Protocol::GrpcWeb, Some("grpc-websockets"))),
            ),
            (
                &["Bearer", "sabir.v1.json"],
                Some((Protocol::Json, Some("sabir.v1.json"))),
            ),
            (&["mqtt"], None),
        ];
        for (offered, expected) in table {
            assert_eq!(choose(offered).ok(), *expected, "{offered:?}");
        }
    }
}
