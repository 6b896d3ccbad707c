//! Whether a WebSocket may be opened here, what it will speak, and the token that a browser hides in its handshake.

use http::header::{AUTHORIZATION, COOKIE, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http::{HeaderMap, Uri};

use crate::fault::{Fault, Kind};
use crate::frontend::websocket::talk::Protocol;
use crate::peer::Peer;
use crate::policy::Carried;
use crate::route::Route;
use crate::route::cors::{Cors, Origins};
use crate::route::entry::WebSocket;
use crate::wire::websocket::deflate::Agreed;
use crate::wire::websocket::handshake::{self, Opening};
use crate::wire::websocket::origin::Origin;

/// What stands before a token in base64url among the subprotocols.
const TOKEN: &str = "bearer.";
/// What stands before an API key in base64url.
const API_KEY: &str = "apikey.";
/// What stands before a ticket.
const TICKET: &str = "ticket.";
/// The parameter of the query that is a ticket. No field of a message can have this name.
const TICKET_PARAMETER: &str = "sabir-ticket=";
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

/// Checks where the page is from: the gateway's own site, one of `websocket.origins`, or one that CORS names, and takes
/// what proves who calls out of the subprotocols and the query. A token becomes what it stands for, an `Authorization`
/// header, unless there is one already; an API key and a ticket are carried to the gate.
///
/// # Errors
/// [`Kind::OriginDenied`], and [`Kind::BadRequest`] for a credential that can't be read.
pub(crate) fn prepare(head: &mut Parts, peer: &Peer, route: &Route) -> Result<(), Fault> {
    origin(head, peer, &route.websocket, route.cors.as_ref())?;
    let offered = take_credentials(&mut head.headers)?;
    if let Some(token) = offered.token {
        head.headers.entry(AUTHORIZATION).or_insert(token);
    }
    if let Some(carried) = take_ticket(head)?.or(offered.carried) {
        head.extensions.insert(carried);
    }
    Ok(())
}

/// Takes a ticket out of the query.
fn take_ticket(head: &mut Parts) -> Result<Option<Carried>, Fault> {
    let Some(query) = head.uri.query().filter(|query| query.contains(TICKET_PARAMETER)) else {
        return Ok(None);
    };
    let mut ticket = None;
    let mut others = Vec::new();
    for pair in query.split('&') {
        match pair.strip_prefix(TICKET_PARAMETER) {
            Some(value) => ticket = Some(Carried::Ticket(value.to_owned())),
            None => others.push(pair),
        }
    }
    let mut parts = head.uri.clone().into_parts();
    let path = head.uri.path();
    let target = match others.as_slice() {
        [] => path.to_owned(),
        others => format!("{path}?{}", others.join("&")),
    };
    let bad = || Fault::client(Kind::BadRequest, "the URL's query can't be read");
    parts.path_and_query = Some(target.parse().map_err(|_| bad())?);
    head.uri = Uri::from_parts(parts).map_err(|_| bad())?;
    Ok(ticket)
}

/// What is taken out of the subprotocols.
#[derive(Debug, Default)]
struct Offered {
    /// The value of an `Authorization` header.
    token: Option<HeaderValue>,
    carried: Option<Carried>,
}

/// Checks where the page is from that opens a WebSocket.
///
/// # Errors
/// [`Kind::OriginDenied`].
pub(crate) fn origin(
    head: &Parts,
    peer: &Peer,
    options: &WebSocket,
    cors: Option<&Cors>,
) -> Result<(), Fault> {
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

/// Takes out of the subprotocols what proves who calls.
fn take_credentials(headers: &mut HeaderMap) -> Result<Offered, Fault> {
    let offered = handshake::subprotocols(headers);
    let mut taken = Offered::default();
    let mut token = None;
    let mut names: Vec<&str> = Vec::with_capacity(offered.len());
    let mut offered = offered.into_iter();
    while let Some(name) = offered.next() {
        if let Some(encoded) = name.strip_prefix(TOKEN) {
            token = Some(decode(encoded).ok_or_else(|| bad(TOKEN, "a token in base64url"))?);
        } else if let Some(encoded) = name.strip_prefix(API_KEY) {
            let key = decode(encoded).and_then(|key| String::from_utf8(key).ok());
            let key = key.ok_or_else(|| bad(API_KEY, "an API key in base64url"))?;
            taken.carried = Some(Carried::ApiKey(key));
        } else if let Some(ticket) = name.strip_prefix(TICKET) {
            taken.carried = Some(Carried::Ticket(ticket.to_owned()));
        } else {
            names.push(name);
            if name == BEARER
                && let Some(next) = offered.next()
            {
                token = token.or_else(|| Some(next.as_bytes().to_vec()));
            }
        }
    }
    if token.is_none() && taken.carried.is_none() {
        return Ok(taken);
    }
    let unreadable = || bad(TOKEN, "a token in base64url");
    if let Some(token) = token {
        let mut value =
            HeaderValue::from_bytes(&[b"Bearer ", token.as_slice()].concat()).map_err(|_| unreadable())?;
        value.set_sensitive(true);
        taken.token = Some(value);
    }
    let names = HeaderValue::from_str(&names.join(", ")).map_err(|_| unreadable())?;
    headers.insert(SEC_WEBSOCKET_PROTOCOL, names);
    Ok(taken)
}

/// base64url, padded or not.
fn decode(text: &str) -> Option<Vec<u8>> {
    let bare = text.trim_end_matches('=');
    base64_simd::URL_SAFE_NO_PAD.decode_to_vec(bare.as_bytes()).ok()
}

fn bad(prefix: &str, expected: &str) -> Fault {
    Fault::client(
        Kind::BadRequest,
        format!("header sec-websocket-protocol: after \"{prefix}\" {expected} is expected"),
    )
}

/// What a handshake asks for.
///
/// # Errors
/// [`Kind::WebSocketVersion`] and [`Kind::BadRequest`]: what is missing, or which subprotocols there are.
pub(super) fn read(head: &Parts, options: &WebSocket) -> Result<Accepted, Fault> {
    let opening = handshake::check(head)?;
    let (protocol, named) = choose(&handshake::subprotocols(&head.headers))?;
    Ok(Accepted {
        opening,
        protocol,
        named,
        deflate: Agreed::offered(&head.headers).filter(|_| options.deflate),
    })
}

/// Whether `sabir.v1.json` is what will be spoken.
pub(super) fn chooses_json(head: &Parts) -> bool {
    matches!(
        choose(&handshake::subprotocols(&head.headers)),
        Ok((Protocol::Json, _))
    )
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
            max_fragments: 1,
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
            let got = take_credentials(&mut head.headers).unwrap();
            assert_eq!(
                got.token.as_ref().map(|value| value.to_str().unwrap()),
                *token,
                "{offered}"
            );
            assert_eq!(head.headers[SEC_WEBSOCKET_PROTOCOL], left, "{offered}");
        }
        for unreadable in ["bearer.!", "apikey.!", "apikey._w"] {
            let mut head = head(&[("sec-websocket-protocol", unreadable)]);
            assert!(take_credentials(&mut head.headers).is_err(), "{unreadable}");
        }
    }

    #[test]
    fn an_api_key_and_a_ticket_are_carried_to_the_gate_and_are_gone() {
        let table: &[(&str, Option<&str>, &str, Option<&str>)] = &[
            (
                "/x?a=1",
                Some("sabir.v1.json, apikey.c2VjcmV0"),
                "/x?a=1",
                Some("key secret"),
            ),
            (
                "/x",
                Some("ticket.AbC-_, sabir.v1.json"),
                "/x",
                Some("ticket AbC-_"),
            ),
            (
                "/x?a=1&sabir-ticket=AbC&b=2",
                Some("sabir.v1.json"),
                "/x?a=1&b=2",
                Some("ticket AbC"),
            ),
            (
                "/x?sabir-ticket=AbC",
                Some("sabir.v1.json"),
                "/x",
                Some("ticket AbC"),
            ),
            ("/x?ticket=AbC", Some("sabir.v1.json"), "/x?ticket=AbC", None),
            ("/x?sabir-ticket=", Some("sabir.v1.json"), "/x", Some("ticket ")),
        ];
        for (target, offered, left, expected) in table {
            let request = Request::get(*target).header("host", "h");
            let request = offered.iter().fold(request, |request, offered| {
                request.header("sec-websocket-protocol", *offered)
            });
            let mut head = request.body(()).unwrap().into_parts().0;
            let taken = take_credentials(&mut head.headers).unwrap();
            let carried = take_ticket(&mut head).unwrap().or(taken.carried);
            let told = carried.map(|carried| match carried {
                Carried::ApiKey(key) => format!("key {key}"),
                Carried::Ticket(ticket) => format!("ticket {ticket}"),
            });
            assert_eq!(told.as_deref(), *expected, "{target} {offered:?}");
            assert_eq!(head.uri, *left);
            assert_eq!(head.headers[SEC_WEBSOCKET_PROTOCOL], "sabir.v1.json", "{target}");
        }
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
