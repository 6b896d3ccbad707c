//! Who calls: credentials are taken out of a request head, checked, and not passed on.
//!
//! The first credential that a request carries decides: a token, then an API key in its header, then one in a cookie, then
//! the client certificate. One that is wrong is refused; no other is tried in its place.

use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN, SEC_WEBSOCKET_VERSION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

use super::api_keys::{ApiKeys, MAX_KEY_BYTES};
use super::cache::{Cache, Fingerprint, fingerprint};
use super::certificate;
use super::identity::Identity;
use super::jwt::{Disbelieved, Keys, TokenError, Verified, Verifier};
use super::refusal::{Refusal, quotable};
use super::setup::Setup;
use crate::peer::Peer;

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

/// Checks callers; shared by all workers.
#[derive(Debug)]
pub struct Authenticator {
    realm: String,
    tokens: Verifier,
    api_keys: Option<(ApiKeys, KeyCarriers)>,
    certificates: bool,
    forward_credentials: bool,
    /// What a request without a credential is told to send.
    wanted: String,
    challenges: Vec<HeaderValue>,
}

impl Authenticator {
    pub(super) fn new(setup: &Setup, tokens: Verifier, api_keys: Option<(ApiKeys, KeyCarriers)>) -> Self {
        let mut wanted = Vec::new();
        let mut schemes = Vec::new();
        if !tokens.issuers.is_empty() {
            wanted.push("`Authorization: Bearer TOKEN`".to_owned());
            schemes.push("Bearer");
        }
        if let Some((_, carriers)) = &api_keys {
            wanted.extend(
                carriers
                    .header
                    .iter()
                    .map(|name| format!("an API key in the header {name}")),
            );
            wanted.extend(
                carriers
                    .cookie
                    .iter()
                    .map(|name| format!("an API key in the cookie {name}")),
            );
            schemes.push("ApiKey");
        }
        if setup.certificates {
            wanted.push("a client certificate".to_owned());
            schemes.push("Certificate");
        }
        let realm = quotable(&setup.name);
        Self {
            wanted: format!("send {}", wanted.join(", or ")),
            challenges: schemes
                .into_iter()
                .filter_map(|scheme| HeaderValue::try_from(format!("{scheme} realm=\"{realm}\"")).ok())
                .collect(),
            realm,
            tokens,
            api_keys,
            certificates: setup.certificates,
            forward_credentials: setup.forward_credentials,
        }
    }

    /// The tokens that are believed.
    pub fn tokens(&self) -> &Verifier {
        &self.tokens
    }

    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    pub(super) fn challenges(&self) -> &[HeaderValue] {
        &self.challenges
    }

    /// The credential that decides.
    fn credential(&self, headers: &HeaderMap, peer: &Peer) -> Result<Credential, Refusal> {
        if !self.tokens.issuers.is_empty()
            && let Some(token) = bearer(headers)?
        {
            return Ok(Credential::Token(token.to_owned()));
        }
        if let Some((_, carriers)) = &self.api_keys {
            if let Some(name) = &carriers.header {
                let mut values = headers.get_all(name).iter();
                if let Some(value) = values.next() {
                    let key = value.to_str().ok().filter(|_| values.next().is_none());
                    return key
                        .map(|key| Credential::ApiKey(key.to_owned()))
                        .ok_or(Refusal::UnknownKey);
                }
            }
            if let Some(name) = &carriers.cookie
                && let Some(key) = cookie(headers, name)
            {
                return Ok(Credential::Cookie(key.to_owned()));
            }
        }
        if self.certificates && !peer.certificates().is_empty() {
            return Ok(Credential::Certificate);
        }
        Err(Refusal::Missing(self.wanted.clone()))
    }

    fn key_header(&self) -> Option<&HeaderName> {
        self.api_keys.as_ref()?.1.header.as_ref()
    }

    fn key_cookie(&self) -> Option<&str> {
        self.api_keys.as_ref()?.1.cookie.as_deref()
    }
}

/// Who calls, and what of the credentials may be passed on.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) identity: Arc<Identity>,
    authenticator: Arc<Authenticator>,
    /// The header that was checked, where it is passed on.
    checked: Option<(HeaderName, HeaderValue)>,
}

impl Proof {
    /// Takes out of metadata what could have said who calls, so that no backend learns a secret, and none takes for
    /// checked what was not; puts in who calls.
    pub(super) fn tell(&self, metadata: &mut HeaderMap) {
        if !self.authenticator.tokens.issuers.is_empty() {
            metadata.remove(AUTHORIZATION);
        }
        if let Some(name) = self.authenticator.key_header() {
            metadata.remove(name);
        }
        if let Some((name, value)) = &self.checked {
            metadata.insert(name, value.clone());
        }
        self.identity.tell(metadata);
    }
}

/// What a request says about who calls.
enum Credential {
    Token(String),
    ApiKey(String),
    Cookie(String),
    Certificate,
}

/// One worker's desk: an authenticator, with what was proven before.
#[derive(Debug)]
pub struct Desk {
    authenticator: Arc<Authenticator>,
    known: Mutex<Cache<Known>>,
}

#[derive(Clone, Debug)]
enum Known {
    Token(Verified),
    Certificate(Arc<Identity>),
}

impl Desk {
    /// A desk at which nobody is known yet.
    pub fn new(authenticator: Arc<Authenticator>) -> Self {
        Self {
            authenticator,
            known: Mutex::default(),
        }
    }

    /// What checks callers here.
    pub fn authenticator(&self) -> &Arc<Authenticator> {
        &self.authenticator
    }

    /// Finds out who calls; `now` in seconds of Unix time. `pages` are other origins that may call with cookies.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn identify(
        &self,
        head: &mut Parts,
        peer: &Peer,
        pages: &[HeaderValue],
        now: u64,
    ) -> Result<Proof, Refusal> {
        let it = &self.authenticator;
        let credential = it.credential(&head.headers, peer)?;
        let identity = match &credential {
            Credential::Token(token) => self.token(token, now).await?,
            Credential::ApiKey(key) => it.api_key(key, now)?,
            Credential::Cookie(key) => {
                own_page(head, pages)?;
                it.api_key(key, now)?
            }
            Credential::Certificate => self.certificate(peer, now)?,
        };
        let carrier = match credential {
            Credential::Token(_) => Some(&AUTHORIZATION),
            Credential::ApiKey(_) => it.key_header(),
            Credential::Cookie(_) | Credential::Certificate => None,
        };
        let checked = carrier
            .filter(|_| it.forward_credentials)
            .and_then(|name| Some((name.clone(), head.headers.get(name)?.clone())));
        if let Some(name) = it.key_cookie()
            && !it.forward_credentials
        {
            without_cookie(&mut head.headers, name);
        }
        Ok(Proof {
            identity,
            authenticator: Arc::clone(it),
            checked,
        })
    }

    async fn token(&self, token: &str, now: u64) -> Result<Arc<Identity>, Refusal> {
        // What is too large is not even hashed.
        if token.len() > super::jwt::MAX_TOKEN_BYTES {
            return Err(Refusal::Token(TokenError::TooLarge));
        }
        let tokens = &self.authenticator.tokens;
        let print = fingerprint(token.as_bytes());
        let known = self.known.lock().find(&print, |known| match known {
            Known::Token(verified) => verified.identity.holds(now) && tokens.is_current(verified),
            Known::Certificate(_) => false,
        });
        if let Some(Known::Token(verified)) = known {
            return Ok(verified.identity);
        }
        match tokens.verify(token, now) {
            Ok(verified) => Ok(self.remember(print, verified)),
            Err(Disbelieved { error, missing: None }) => Err(Refusal::Token(error)),
            // Boxed: it is rare, and large.
            Err(Disbelieved {
                error,
                missing: Some((issuer, kid)),
            }) => Box::pin(self.again(token, print, now, error, (issuer, kid.as_deref()))).await,
        }
    }

    fn remember(&self, print: Fingerprint, verified: Verified) -> Arc<Identity> {
        let identity = Arc::clone(&verified.identity);
        self.known.lock().put(print, Known::Token(verified));
        identity
    }

    /// Verifies a token once more with keys that are fetched anew, if they can be.
    async fn again(
        &self,
        token: &str,
        print: Fingerprint,
        now: u64,
        error: TokenError,
        (issuer, kid): (usize, Option<&str>),
    ) -> Result<Arc<Identity>, Refusal> {
        let tokens = &self.authenticator.tokens;
        let Some(Keys::Fetched(store)) = tokens.issuers.get(issuer).map(|issuer| &issuer.keys) else {
            return Err(Refusal::Token(error));
        };
        if !store.refetched(kid).await {
            return Err(Refusal::Token(error));
        }
        match tokens.verify(token, now) {
            Ok(verified) => Ok(self.remember(print, verified)),
            Err(disbelieved) => {
                if let (TokenError::UnknownKey, Some(kid)) = (&disbelieved.error, kid) {
                    store.missing(kid);
                }
                Err(Refusal::Token(disbelieved.error))
            }
        }
    }

    fn certificate(&self, peer: &Peer, now: u64) -> Result<Arc<Identity>, Refusal> {
        let leaf = peer.certificates().first().ok_or(Refusal::Certificate)?;
        let print = fingerprint(leaf);
        let known = self.known.lock().find(&print, |known| match known {
            Known::Certificate(identity) => identity.holds(now),
            Known::Token(_) => false,
        });
        if let Some(Known::Certificate(identity)) = known {
            return Ok(identity);
        }
        let caller = certificate::caller(leaf).ok_or(Refusal::Certificate)?;
        let identity = Arc::new(Identity::new(caller, &self.authenticator.tokens.forwarded));
        // A connection outlives the certificate that it began with.
        if !identity.holds(now) {
            return Err(Refusal::Certificate);
        }
        self.known
            .lock()
            .put(print, Known::Certificate(Arc::clone(&identity)));
        Ok(identity)
    }
}

impl Authenticator {
    fn api_key(&self, key: &str, now: u64) -> Result<Arc<Identity>, Refusal> {
        let keys = self.api_keys.as_ref().map(|(keys, _)| keys);
        let found = keys
            .filter(|_| key.len() <= MAX_KEY_BYTES)
            .and_then(|keys| keys.find(key))
            .ok_or(Refusal::UnknownKey)?;
        if found.holds(now) {
            Ok(Arc::clone(found))
        } else {
            Err(Refusal::ExpiredKey)
        }
    }
}

/// The token of an `Authorization: Bearer` header; another scheme is nothing.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Refusal::Header);
    }
    let text = value.to_str().map_err(|_| Refusal::Header)?;
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    Ok(scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| rest.trim_matches(' ')))
}

/// The value of the first cookie of this name.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Takes a cookie out and leaves the others.
fn without_cookie(headers: &mut HeaderMap, name: &str) {
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

/// Refuses what a page of another origin asks for with its visitor's cookies.
///
/// Browsers say where a request comes from by `Origin`, and where they leave that out by `Sec-Fetch-Site`. What has
/// neither is no browser of today, and can lie about both.
fn own_page(head: &Parts, pages: &[HeaderValue]) -> Result<(), Refusal> {
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
mod tests;
