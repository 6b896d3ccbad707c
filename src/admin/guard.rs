//! Who may use the admin listener: whoever has the token, and no page in somebody's browser.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::header::{AUTHORIZATION, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderName, HeaderValue};

use crate::config::plan;
use crate::fault::{Fault, Kind};

/// How browsers say where a request comes from.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The guard of the admin listener. Clones share the token, which can be changed while it serves.
#[derive(Clone, Default)]
pub struct Guard {
    /// The digest of the token.
    token: Arc<ArcSwapOption<[u8; 32]>>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guard")
    }
}

impl Guard {
    /// Wants this token from now on, or none.
    pub fn want(&self, token: Option<&str>) {
        self.token.store(token.map(|token| Arc::new(hashed(token))));
    }

    /// Refuses pages: those of other origins, and those that have their own name lead to this machine.
    ///
    /// # Errors
    /// [`Kind::OriginDenied`].
    pub fn origin(&self, head: &Parts) -> Result<(), Fault> {
        let asked: Option<Authority> = plan::host(head).and_then(|host| host.parse().ok());
        // Whoever is asked for a secret need not fear a page, which has none to give.
        if self.token.load().is_none() && !asked.as_ref().is_some_and(is_this_machine) {
            return Err(denied(
                "the admin listener is asked for by a name that is not localhost or an address; use one of them, or \
                 configure admin.token",
            ));
        }
        let same = |origin: &HeaderValue| {
            let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            origin
                .is_some_and(|(_, authority)| asked.as_ref().is_some_and(|asked| asked.as_str() == authority))
        };
        if !head.headers.get_all(ORIGIN).iter().all(same) {
            return Err(denied("a page of another origin may not use the admin listener"));
        }
        let site = head.headers.get(SEC_FETCH_SITE);
        if site.is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none")) {
            return Err(denied("a page of another origin may not use the admin listener"));
        }
        Ok(())
    }

    /// Takes the token out of a request head and checks it, if one is wanted.
    ///
    /// # Errors
    /// [`Kind::CredentialsMissing`] or [`Kind::CredentialsInvalid`].
    pub fn token(&self, head: &mut Parts) -> Result<(), Fault> {
        let wanted = self.token.load();
        let Some(wanted) = &*wanted else { return Ok(()) };
        let is_given = head.headers.contains_key(AUTHORIZATION);
        let mut values = head.headers.get_all(AUTHORIZATION).iter();
        let given = match (values.next(), values.next()) {
            (Some(value), None) => value.to_str().ok().and_then(bearer).map(hashed),
            (None | Some(_), _) => None,
        };
        // Digests are compared, so that not even the length of the token shows in the time that it takes.
        let fits = given.is_some_and(|given| verify_slices_are_equal(&given, &wanted[..]).is_ok());
        head.headers.remove(AUTHORIZATION);
        if fits {
            return Ok(());
        }
        let kind = if is_given {
            Kind::CredentialsInvalid
        } else {
            Kind::CredentialsMissing
        };
        Err(Fault::client(
            kind,
            "the admin listener wants its token: send `Authorization: Bearer TOKEN`",
        )
        .challenging(vec![HeaderValue::from_static("Bearer realm=\"admin\"")]))
    }
}

fn denied(message: &str) -> Fault {
    Fault::client(Kind::OriginDenied, message.to_owned())
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn hashed(token: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    bytes
}

/// Whether a host can't be the name of somebody's page: an address, or the name that no DNS server answers for.
fn is_this_machine(asked: &Authority) -> bool {
    let host = asked.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::get("/v1/status");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn pages_stay_outside() {
        let open = Guard::default();
        for (headers, allowed) in [
            (&[("host", "127.0.0.1:9901")][..], true),
            (&[("host", "LocalHost:9901")], true),
            (&[("host", "[::1]:9901")], true),
            (&[("host", "10.0.0.7")], true),
            // A name that leads here because somebody else says so.
            (&[("host", "evil.example:9901")], false),
            (&[("host", "localhost.evil.example")], false),
            (&[], false),
            (
                &[("host", "localhost:9901"), ("origin", "http://localhost:9901")],
                true,
            ),
            (
                &[("host", "localhost:9901"), ("origin", "http://localhost:3000")],
                false,
            ),
            (&[("host", "localhost:9901"), ("origin", "null")], false),
            (
                &[("host", "localhost:9901"), ("origin", "https://evil.example")],
                false,
            ),
            (&[("host", "localhost"), ("sec-fetch-site", "cross-site")], false),
            (&[("host", "localhost"), ("sec-fetch-site", "same-site")], false),
            (&[("host", "localhost"), ("sec-fetch-site", "none")], true),
        ] {
            assert_eq!(open.origin(&head(headers)).is_ok(), allowed, "{headers:?}");
        }
        let closed = Guard::default();
        closed.want(Some("s"));
        assert!(closed.origin(&head(&[("host", "admin.example")])).is_ok());
        let page = [("host", "admin.example"), ("origin", "https://evil.example")];
        assert!(closed.origin(&head(&page)).is_err());
    }

    #[test]
    fn the_token_is_wanted_whole_once_and_goes_no_further() {
        let guard = Guard::default();
        let check = |headers: &[(&str, &str)]| {
            let mut head = head(headers);
            let checked = guard.token(&mut head).is_ok();
            assert!(!checked || !head.headers.contains_key("authorization") || headers.is_empty());
            checked
        };
        assert!(check(&[]), "none is wanted");
        guard.want(Some("a token of some length"));
        assert!(check(&[("authorization", "Bearer a token of some length")]));
        assert!(check(&[("authorization", "bearer a token of some length")]));
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a token of some lengt",
            "Basic a token of some length",
        ] {
            assert!(!check(&[("authorization", wrong)]), "{wrong}");
        }
        let right = ("authorization", "Bearer a token of some length");
        assert!(!check(&[right, right]), "two are one too many");
        assert!(!check(&[]));
        guard.want(Some("another"));
        assert!(!check(&[right]));
    }
}
