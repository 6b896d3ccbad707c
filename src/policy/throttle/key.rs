//! By what a limit tells callers apart, as a text: no two callers that are to be told apart have the same.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr};

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use smallvec::SmallVec;

use crate::listen::forwarded;
use crate::peer::Peer;
use crate::policy::cache::fingerprint;
use crate::policy::identity::{Identity, Source};
use crate::policy::jwt::at;

/// One of the things by which callers are told apart.
///
/// A caller of which it is not known (a header that was not sent, a claim that was not made) is told apart by who it is,
/// as with [`Part::Principal`], so that leaving something out opens no other account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Who proved who it is; of others, the address.
    Principal,
    /// The label of the API key.
    ApiKey,
    /// The client's address: behind proxies that are believed, the one they name. Of IPv6, the first 64 bits.
    Address,
    /// The value of a header: the first one.
    Header(HeaderName),
    /// A claim, by its name or a path of names joined by dots.
    Claim(String),
    /// The method that is called; of a path, the HTTP method.
    Method,
    /// A field of the first message, by its path of names.
    MessageField(Vec<String>),
}

impl Part {
    /// Whether it is read from a message.
    pub fn is_of_message(&self) -> bool {
        matches!(self, Self::MessageField(_))
    }

    /// How the configuration calls it.
    pub fn name(&self) -> String {
        match self {
            Self::Principal => "principal".to_owned(),
            Self::ApiKey => "api_key".to_owned(),
            Self::Address => "address".to_owned(),
            Self::Header(name) => format!("header {name}"),
            Self::Claim(name) => format!("claim {name}"),
            Self::Method => "method".to_owned(),
            Self::MessageField(path) => format!("message_field {}", path.join(".")),
        }
    }
}

/// What is known of a caller before its body is read.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Who proved who it is.
    pub identity: Option<&'a Identity>,
    /// Who is connected.
    pub peer: &'a Peer,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// What is called.
    pub method: &'a str,
}

/// Most keys fit without a place of their own.
pub(super) type Text = SmallVec<[u8; 96]>;

/// What stands between two parts: it is in no text of a part.
const BETWEEN: u8 = 0;
/// Texts that are longer count by their digest, so that no client chooses how much memory its key takes.
const LONGEST: usize = 128;

/// The key of a caller whose messages say nothing.
pub fn text(parts: &[Part], caller: Caller<'_>) -> SmallVec<[u8; 96]> {
    let mut key = before_message(parts, caller);
    if parts.iter().any(Part::is_of_message) {
        begin(&mut key);
        principal(&mut key, caller);
    }
    key
}

/// The key as far as it is known before the first message is there.
pub(super) fn before_message(parts: &[Part], caller: Caller<'_>) -> Text {
    let mut key = Text::new();
    for part in parts.iter().filter(|part| !part.is_of_message()) {
        begin(&mut key);
        push(&mut key, part, caller);
    }
    key
}

/// The same with a field of the message, or who calls in its place.
pub(super) fn with_field(key: &mut Text, name: &[String], value: Option<&[u8]>, principal: &[u8]) {
    begin(key);
    match value {
        Some(value) => {
            key.extend_from_slice(b"message_field ");
            for (at, name) in name.iter().enumerate() {
                if at > 0 {
                    key.push(b'.');
                }
                key.extend_from_slice(name.as_bytes());
            }
            key.push(b':');
            push_value(key, value);
        }
        None => key.extend_from_slice(principal),
    }
}

fn begin(key: &mut Text) {
    if !key.is_empty() {
        key.push(BETWEEN);
    }
}

fn push(key: &mut Text, part: &Part, caller: Caller<'_>) {
    match part {
        Part::Principal => principal(key, caller),
        Part::ApiKey => match caller
            .identity
            .filter(|known| known.claims().source == Source::ApiKey)
        {
            Some(known) => {
                key.extend_from_slice(b"api_key:");
                push_value(key, known.principal().as_bytes());
            }
            None => principal(key, caller),
        },
        Part::Address => address(key, caller),
        Part::Header(name) => match caller.headers.get(name) {
            Some(value) => {
                key.extend_from_slice(b"header ");
                key.extend_from_slice(name.as_str().as_bytes());
                key.push(b':');
                push_value(key, value.as_bytes());
            }
            None => principal(key, caller),
        },
        Part::Claim(name) => match claim(caller, name) {
            Some(value) => {
                key.extend_from_slice(b"claim ");
                key.extend_from_slice(name.as_bytes());
                key.push(b':');
                push_value(key, value.as_bytes());
            }
            None => principal(key, caller),
        },
        Part::Method => {
            key.extend_from_slice(b"method:");
            push_value(key, caller.method.as_bytes());
        }
        Part::MessageField(_) => {}
    }
}

/// Who calls: as it was proven, or else from where.
pub(super) fn principal(key: &mut Text, caller: Caller<'_>) {
    match caller.identity {
        Some(known) => {
            key.extend_from_slice(b"principal:");
            push_value(key, known.key().as_bytes());
        }
        None => address(key, caller),
    }
}

fn address(key: &mut Text, caller: Caller<'_>) {
    key.extend_from_slice(b"address:");
    let peer = caller.peer;
    if !peer.trusted() && peer.ip().is_ipv4() {
        // Its text was made with the connection.
        key.extend_from_slice(peer.forwarded_for().as_bytes());
        return;
    }
    let mut text = String::new();
    // Writing to a string never fails.
    let _ = match forwarded::client_ip(peer, caller.headers, peer.believed()) {
        IpAddr::V4(address) => write!(text, "{address}"),
        // A client has all of such a network, and may use another address for each call.
        IpAddr::V6(address) => {
            let network = Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX));
            write!(text, "{network}/64")
        }
    };
    key.extend_from_slice(text.as_bytes());
}

fn claim(caller: Caller<'_>, name: &str) -> Option<String> {
    let claims = caller.identity?.claims();
    match (name, at(&claims.others, name)) {
        (_, Some(Value::String(text))) => Some(text.clone()),
        (_, Some(Value::Null)) => None,
        (_, Some(value)) => Some(value.to_string()),
        ("sub", None) => Some(claims.principal.clone()),
        ("iss", None) => claims.issuer.clone(),
        (_, None) => None,
    }
}

fn push_value(key: &mut Text, value: &[u8]) {
    if value.len() <= LONGEST && !value.contains(&BETWEEN) {
        key.extend_from_slice(value);
        return;
    }
    key.extend_from_slice(b"sha256=");
    let mut text = String::with_capacity(64);
    for byte in fingerprint(value) {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
    }
    key.extend_from_slice(text.as_bytes());
}

/// A key as people read it.
pub fn shown(key: &[u8]) -> String {
    String::from_utf8_lossy(key).replace('\0', " + ")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use serde_json::json;

    use super::*;
    use crate::policy::identity::Claims;

    fn identity(source: Source, principal: &str) -> Identity {
        let others = json!({"tenant": "t-7", "org": {"id": 7}, "none": null});
        let claims = Claims {
            principal: principal.into(),
            issuer: (source == Source::Token).then(|| "https://id.example.com/".into()),
            source,
            scopes: Vec::new(),
            roles: Vec::new(),
            others: others.as_object().cloned().unwrap(),
            expires: None,
        };
        Identity::new(claims, &[])
    }

    fn peer(address: &str, believed: &[&str]) -> Peer {
        let networks: Vec<ipnet::IpNet> = believed.iter().map(|net| net.parse().unwrap()).collect();
        let address: IpAddr = address.parse().unwrap();
        let trusted = forwarded::is_trusted(address, &networks);
        Peer::new((address, 4000).into(), false, trusted, Vec::new()).believing(networks)
    }

    #[track_caller]
    fn check(
        part: Part,
        identity: Option<&Identity>,
        peer: &Peer,
        headers: &[(&'static str, &'static str)],
        expected: &str,
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let caller = Caller {
            identity,
            peer,
            headers: &map,
            method: "library.v1.Library/GetBook",
        };
        assert_eq!(shown(&text(&[part], caller)), expected);
    }

    #[test]
    fn callers_are_told_apart_by_what_is_known_of_them() {
        let ada = identity(Source::Token, "ada");
        let app = identity(Source::ApiKey, "app");
        let here = peer("192.0.2.7", &[]);
        let who = "principal:jwt|https://id.example.com/|ada";
        let header = Part::Header(HeaderName::from_static("x-tenant"));
        let claim = |name: &str| Part::Claim(name.into());
        check(Part::Principal, Some(&ada), &here, &[], who);
        check(Part::Principal, Some(&app), &here, &[], "principal:api_key||app");
        check(Part::Principal, None, &here, &[], "address:192.0.2.7");
        check(Part::ApiKey, Some(&app), &here, &[], "api_key:app");
        check(Part::ApiKey, Some(&ada), &here, &[], who);
        check(
            header.clone(),
            Some(&ada),
            &here,
            &[("x-tenant", "t-1"), ("x-tenant", "t-2")],
            "header x-tenant:t-1",
        );
        check(header, None, &here, &[], "address:192.0.2.7");
        check(claim("tenant"), Some(&ada), &here, &[], "claim tenant:t-7");
        check(claim("org.id"), Some(&ada), &here, &[], "claim org.id:7");
        check(claim("sub"), Some(&ada), &here, &[], "claim sub:ada");
        check(claim("none"), Some(&ada), &here, &[], who);
        check(claim("other"), None, &here, &[], "address:192.0.2.7");
        check(
            Part::Method,
            None,
            &here,
            &[],
            "method:library.v1.Library/GetBook",
        );
    }

    #[test]
    fn addresses_are_those_of_clients_and_networks_of_ipv6() {
        let sent = [("x-forwarded-for", "203.0.113.1, 10.0.0.2")];
        let check = |address, believed: &[&str], headers: &[(&'static str, &'static str)], expected| {
            check(Part::Address, None, &peer(address, believed), headers, expected);
        };
        check("192.0.2.7", &["10.0.0.0/8"], &sent, "address:192.0.2.7");
        check("10.0.0.1", &["10.0.0.0/8"], &sent, "address:203.0.113.1");
        check("10.0.0.1", &["10.0.0.0/8"], &[], "address:10.0.0.1");
        check("2001:db8:1:2:3:4:5:6", &[], &[], "address:2001:db8:1:2::/64");
        check("::ffff:192.0.2.7", &[], &[], "address:192.0.2.7");
    }

    #[test]
    fn no_value_can_be_made_to_look_like_another() {
        let here = peer("192.0.2.7", &[]);
        let key = |a: &str, b: &str| {
            let mut map = HeaderMap::new();
            for (name, value) in [("a", a), ("b", b)] {
                map.insert(
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    value.parse().unwrap(),
                );
            }
            let caller = Caller {
                identity: None,
                peer: &here,
                headers: &map,
                method: "",
            };
            let parts = ["a", "b"].map(|name| Part::Header(HeaderName::from_static(name)));
            text(&parts, caller)
        };
        assert_ne!(key("x", "y"), key("xy", ""));
        let long = "v".repeat(5000);
        assert!(key(&long, "").len() < 200);
        assert_ne!(key(&long, ""), key(&long[1..], ""));
        assert_ne!(key("address:192.0.2.7", "").as_slice(), b"address:192.0.2.7");
        let mut with_zero = Text::new();
        with_field(&mut with_zero, &["a".into()], Some(b"x\0y"), b"");
        assert!(!with_zero.contains(&0));
    }
}
