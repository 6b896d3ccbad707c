//! What a request says about who calls: which of its credentials decides, and what of them goes no further.

use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, ORIGIN, SEC_WEBSOCKET_VERSION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::passwords::MAX_PASSWORD_BYTES;
use super::refusal::Refusal;

/// How browsers say where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Where requests carry an API key.
#[derive(Clone, Debug, Default)]
pub struct KeyCarriers {
    /// The header.
    pub header: Option<HeaderName>,
    /// The cookie.
    pub cookie: Option<String>,
}

/// What a request says about who calls.
pub(super) enum Credential {
    /// A token, signed or opaque.
    Token(String),
    /// A name and a password, with a colon between.
    Password(String),
    /// An API key in its header, or where a WebSocket carries it.
    ApiKey(String),
    /// An API key in a cookie.
    Cookie(String),
    /// A ticket of the gateway's own.
    Ticket(String),
    /// The certificate of the connection.
    Certificate,
}

/// A credential that a dialect takes out of where it stands, for the gate alone: an extension of the request's head.
#[derive(Clone)]
pub enum Carried {
    /// An API key.
    ApiKey(String),
    /// A ticket.
    Ticket(String),
}

impl std::fmt::Debug for Carried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ApiKey(_) => "Carried(ApiKey)",
            Self::Ticket(_) => "Carried(Ticket)",
        })
    }
}

/// What an `Authorization` header holds.
pub(super) enum Authorization<'h> {
    /// `Bearer`.
    Bearer(&'h str),
    /// `Basic`, not decoded.
    Basic(&'h str),
}

/// The one `Authorization` header; nothing if there is none, or it is of a scheme that is not known.
///
/// # Errors
/// There are several, or it is no text.
pub(super) fn authorization(headers: &HeaderMap) -> Result<Option<Authorization<'_>>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::Header);
    }
    let text = value.to_str().map_err(|_| Refusal::Header)?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_matches(' ');
    Ok(if scheme.eq_ignore_ascii_case("bearer") {
        Some(Authorization::Bearer(rest))
    } else if scheme.eq_ignore_ascii_case("basic") {
        Some(Authorization::Basic(rest))
    } else {
        None
    })
}

/// A name and a password, with a colon between. Source: RFC 7617, section 2.
pub(super) fn name_and_password(encoded: &str) -> Result<String, Refusal> {
    // Four letters for three bytes; what is longer is not even decoded.
    if encoded.len() > MAX_PASSWORD_BYTES.div_ceil(3) * 4 {
        return Err(Refusal::Password);
    }
    let bytes = base64_simd::STANDARD
        .decode_to_vec(encoded)
        .map_err(|_| Refusal::Header)?;
    if bytes.len() > MAX_PASSWORD_BYTES {
        return Err(Refusal::Password);
    }
    let text = String::from_utf8(bytes).map_err(|_| Refusal::Header)?;
    // No name and no password has a control character.
    if text.contains(':') && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        Err(Refusal::Header)
    }
}

/// Whether a token is made of what opaque tokens are. Source: RFC 6750, section 2.1.
pub(super) fn is_token(text: &str) -> bool {
    let bare = text.trim_end_matches('=');
    !bare.is_empty()
        && bare
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte))
}

/// Whether a token looks like one that is signed: three parts, of which the first begins as JSON does in base64url.
pub(super) fn is_signed(token: &str) -> bool {
    token.starts_with("ey") && token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// The value of the first cookie of this name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Takes a cookie out and leaves the others.
pub(super) fn without_cookie(headers: &mut HeaderMap, name: &str) {
    let others: Vec<HeaderValue> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| {
            let text = value.to_str().ok()?;
            let kept: Vec<&str> = text
                .split(';')
                .map(str::trim)
                .filter(|pair| pair.split('=').next() != Some(name))
                .collect();
            (!kept.is_empty()).then(|| HeaderValue::try_from(kept.join("; ")).ok())?
        })
        .collect();
    headers.remove(COOKIE);
    for value in others {
        headers.append(COOKIE, value);
    }
}

/// Whether a body is of a kind that any page can send, by a form. Source: Fetch, "CORS-safelisted request-header".
pub(super) fn is_form(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media = media.unwrap_or_default().split(';').next().unwrap_or_default();
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data",
        "text/plain",
    ]
    .iter()
    .any(|form| media.trim().eq_ignore_ascii_case(form))
}

/// Refuses what a page of another origin asks for with what its visitor's browser sends by itself.
///
/// Browsers say where a request comes from by `Origin`, and where they leave that out by `Sec-Fetch-Site`. What has
/// neither is no browser of today, and can lie about both.
pub(super) fn own_page(head: &Parts, pages: &[HeaderValue]) -> Result<(), Refusal> {
    let own = match (head.headers.get(ORIGIN), head.headers.get(SEC_FETCH_SITE)) {
        (Some(origin), _) if pages.contains(origin) => true,
        (Some(origin), _) => {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
            let host = head.uri.authority().map(http::uri::Authority::as_str).or(host);
            origin.is_some_and(|(_, origin)| host.is_some_and(|host| host.eq_ignore_ascii_case(origin)))
        }
        (None, Some(site)) => matches!(site.as_bytes(), b"same-origin" | b"none"),
        // A browser always says where a page is that opens a WebSocket.
        (None, None) => !head.headers.contains_key(SEC_WEBSOCKET_VERSION),
    };
    if own { Ok(()) } else { Err(Refusal::Origin) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_password_have_one_spelling() {
        let long = base64_simd::STANDARD.encode_to_string(format!("a:{}", "x".repeat(MAX_PASSWORD_BYTES)));
        for (encoded, read) in [
            ("YTpi", Ok("a:b")),
            ("YTo=", Ok("a:")),
            ("OmI=", Ok(":b")),
            ("YTpiOmM=", Ok("a:b:c")),
            ("YTo", Err(Refusal::Header)),
            ("YWI=", Err(Refusal::Header)),
            ("YQo6Yg==", Err(Refusal::Header)),
            ("/zph", Err(Refusal::Header)),
            ("", Err(Refusal::Header)),
            (&long, Err(Refusal::Password)),
        ] {
            assert_eq!(name_and_password(encoded), read.map(str::to_owned), "{encoded}");
        }
    }

    #[test]
    fn tokens_are_told_apart_by_their_form() {
        for (token, taken, signed) in [
            ("eyJhbGciOiJFUzI1NiJ9.e30.x", true, true),
            ("eyJh.x", true, false),
            ("2YotnFZFEjr1zCsicMWpAA", true, false),
            ("a.b.c", true, false),
            ("a/b+c~d-e_f==", true, false),
            ("==", false, false),
            ("a b", false, false),
            ("a=b", false, false),
            ("", false, false),
        ] {
            assert_eq!((is_token(token), is_signed(token)), (taken, signed), "{token}");
        }
    }
}
