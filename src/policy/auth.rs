//! Who calls: credentials are taken out of a request head, checked, and not passed on.
//!
//! The first credential that a request carries decides: a ticket or an API key that a WebSocket brings, a token or a
//! password, then an API key in its header, then one in a cookie, then the client certificate. One that is wrong is
//! refused; no other is tried in its place.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::api_keys::{ApiKeys, MAX_KEY_BYTES};
use super::cache::{Cache, Fingerprint, fingerprint};
use super::certificate;
use super::credential::{
    Authorization, Carried, Credential, KeyCarriers, authorization, cookie, is_signed, is_token,
    name_and_password, own_page, without_cookie,
};
use super::ext_authz::{Checkpoint, ExtAuthz, Passed};
use super::identity::Identity;
use super::introspection::{Inquiry, Introspection, Opinion};
use super::jwt::{Disbelieved, Keys, TokenError, Verified, Verifier};
use super::passwords::{Checked, Passwords};
use super::refusal::{Refusal, quotable};
use super::revocation::{Bell, Revocations, Standing};
use super::setup::Setup;
use super::throttle::Limit;
use super::tickets::{Ticket, Tickets};
use crate::peer::Peer;

/// How long it is believed that a name and a password are nobody's, in seconds.
const DOUBT_SECONDS: u64 = 10;

/// The ways in which callers may prove who they are, ready for use.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) tokens: Verifier,
    pub(super) api_keys: Option<(ApiKeys, KeyCarriers)>,
    pub(super) passwords: Option<Passwords>,
    pub(super) introspection: Option<Introspection>,
    pub(super) ext_authz: Option<ExtAuthz>,
    pub(super) revocations: Option<Arc<Revocations>>,
}

/// Checks callers; shared by all workers.
#[derive(Debug)]
pub struct Authenticator {
    realm: String,
    tokens: Verifier,
    api_keys: Option<(ApiKeys, KeyCarriers)>,
    own_limits: Vec<Vec<Limit>>,
    passwords: Option<Passwords>,
    introspection: Option<Arc<Introspection>>,
    ext_authz: Option<Arc<ExtAuthz>>,
    revocations: Option<Arc<Revocations>>,
    certificates: bool,
    tickets: Option<Tickets>,
    first_message: bool,
    forward_credentials: bool,
    /// What a request without a credential is told to send.
    wanted: String,
    challenges: Vec<HeaderValue>,
}

impl Authenticator {
    pub(super) fn new(setup: &Setup, ways: Ways) -> Self {
        let Ways {
            tokens,
            api_keys,
            passwords,
            introspection,
            ext_authz,
            revocations,
        } = ways;
        let mut wanted = Vec::new();
        let mut schemes = Vec::new();
        if !tokens.issuers.is_empty() || introspection.is_some() {
            wanted.push("`Authorization: Bearer TOKEN`".to_owned());
            schemes.push("Bearer");
        }
        if passwords.is_some() {
            wanted.push("a name and a password by `Authorization: Basic`".to_owned());
            schemes.push("Basic");
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
        let counted_as = setup
            .api_keys
            .as_ref()
            .map_or(&setup.name, |keys| &keys.counted_as);
        let own = api_keys.as_ref().map_or(&[][..], |(keys, _)| keys.own_limits());
        let own_limits = own.iter().map(|own| own.limits(counted_as).collect()).collect();
        let realm = quotable(&setup.name);
        let challenge = |scheme| match scheme {
            "Basic" => format!("Basic realm=\"{realm}\", charset=\"UTF-8\""),
            scheme => format!("{scheme} realm=\"{realm}\""),
        };
        Self {
            wanted: format!("send {}", wanted.join(", or ")),
            challenges: schemes
                .into_iter()
                .filter_map(|scheme| HeaderValue::try_from(challenge(scheme)).ok())
                .collect(),
            realm,
            tokens,
            api_keys,
            own_limits,
            passwords,
            introspection: introspection.map(Arc::new),
            ext_authz: ext_authz.map(Arc::new),
            revocations,
            certificates: setup.certificates,
            tickets: setup.tickets.as_ref().map(Tickets::new),
            first_message: setup.first_message,
            forward_credentials: setup.forward_credentials,
        }
    }

    /// Whether a client may say who it is by the first message of a WebSocket.
    pub(super) fn takes_first_message(&self) -> bool {
        self.first_message && self.takes_tokens()
    }

    /// The limits that API keys have of their own, in the order in which identities count them.
    pub fn own_limits(&self) -> &[Vec<Limit>] {
        &self.own_limits
    }

    /// The tokens that are believed.
    pub fn tokens(&self) -> &Verifier {
        &self.tokens
    }

    /// What is revoked, if that is asked here.
    pub fn revocations(&self) -> Option<&Arc<Revocations>> {
        self.revocations.as_ref()
    }

    /// Refuses a caller whose token is revoked; `now` in seconds of Unix time.
    ///
    /// # Errors
    /// It is, or nobody can tell.
    pub fn unrevoked(&self, identity: &Identity, now: u64) -> Result<(), Refusal> {
        match &self.revocations {
            Some(revocations) => revocations.check(identity, now),
            None => Ok(()),
        }
    }

    pub(super) fn realm(&self) -> &str {
        &self.realm
    }

    pub(super) fn challenges(&self) -> &[HeaderValue] {
        &self.challenges
    }

    /// Whether callers can prove here who they are, without the word of a service outside.
    fn proves(&self) -> bool {
        self.takes_authorization() || self.api_keys.is_some() || self.certificates
    }

    /// Whether the `Authorization` header is checked here.
    fn takes_authorization(&self) -> bool {
        self.takes_tokens() || self.passwords.is_some()
    }

    fn takes_tokens(&self) -> bool {
        !self.tokens.issuers.is_empty() || self.introspection.is_some()
    }

    /// The credential that decides.
    fn credential(&self, head: &Parts, peer: &Peer) -> Result<Credential, Refusal> {
        let headers = &head.headers;
        match head.extensions.get() {
            Some(Carried::Ticket(ticket)) if self.tickets.is_some() => {
                return Ok(Credential::Ticket(ticket.clone()));
            }
            Some(Carried::ApiKey(key)) if self.api_keys.is_some() => {
                return Ok(Credential::ApiKey(key.clone()));
            }
            Some(Carried::Ticket(_) | Carried::ApiKey(_)) | None => {}
        }
        if self.takes_authorization() {
            match authorization(headers)? {
                Some(Authorization::Bearer(token)) if self.takes_tokens() => {
                    return Ok(Credential::Token(token.to_owned()));
                }
                Some(Authorization::Basic(encoded)) if self.passwords.is_some() => {
                    return name_and_password(encoded).map(Credential::Password);
                }
                Some(Authorization::Bearer(_) | Authorization::Basic(_)) | None => {}
            }
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
    /// Where it was proven.
    desk: Arc<Desk>,
    /// The header that was checked, where it is passed on.
    checked: Option<(HeaderName, HeaderValue)>,
    /// Whether a cookie was the proof.
    pub(super) by_cookie: bool,
}

impl Proof {
    /// The limits that the caller brings with it.
    pub(super) fn own_limits(&self) -> &[Limit] {
        let at = self.identity.own_limits();
        let own = at.and_then(|at| self.desk.authenticator.own_limits.get(at));
        own.map_or(&[], Vec::as_slice)
    }

    /// By which what was begun goes on.
    pub(super) fn standing(&self) -> Option<Standing> {
        Standing::new(self.desk.bell.as_ref()?, &self.identity)
    }

    /// Takes out of metadata what could have said who calls, so that no backend learns a secret, and none takes for
    /// checked what was not; puts in who calls.
    pub(super) fn tell(&self, metadata: &mut HeaderMap) {
        let authenticator = &self.desk.authenticator;
        if authenticator.takes_authorization() {
            metadata.remove(AUTHORIZATION);
        }
        if let Some(name) = authenticator.key_header() {
            metadata.remove(name);
        }
        if let Some((name, value)) = &self.checked {
            metadata.insert(name, value.clone());
        }
        self.identity.tell(metadata);
    }
}

/// One worker's desk: an authenticator, with what was proven before. Who was found is the worker's own copy, as is the bell
/// for what is revoked, so that a call writes to nothing that another worker's calls write to.
#[derive(Debug)]
pub struct Desk {
    authenticator: Arc<Authenticator>,
    known: Mutex<Cache<Known>>,
    /// Credentials that are nobody's, and until which second of Unix time that is believed.
    doubted: Mutex<Cache<u64>>,
    inquiry: Option<Inquiry>,
    checkpoint: Option<Checkpoint>,
    bell: Option<Arc<Bell>>,
}

#[derive(Clone, Debug)]
enum Known {
    Token(Verified),
    /// Somebody who is known by a certificate or a password.
    Caller(Arc<Identity>),
    /// Somebody who is known by an API key.
    Key(Arc<Identity>),
    /// Somebody who is known by an opaque token, and until when that is believed.
    Opaque(Arc<Identity>, u64),
}

impl Desk {
    /// A desk at which nobody is known yet; what has to be asked outside is asked by `tasks`, which also listen for what is
    /// revoked.
    pub fn new(authenticator: Arc<Authenticator>, tasks: &TaskTracker) -> Self {
        let introspection = authenticator.introspection.as_ref();
        let ext_authz = authenticator.ext_authz.as_ref();
        let revocations = authenticator.revocations.as_ref();
        Self {
            inquiry: introspection.map(|it| Inquiry::new(it, tasks)),
            checkpoint: ext_authz.map(|it| Checkpoint::new(it, tasks)),
            bell: revocations.map(|it| Arc::new(Bell::new(it, tasks))),
            authenticator,
            known: Mutex::default(),
            doubted: Mutex::default(),
        }
    }

    /// What checks callers here.
    pub fn authenticator(&self) -> &Arc<Authenticator> {
        &self.authenticator
    }

    /// Finds out who calls; `now` in seconds of Unix time. `pages` are other origins that may call with what browsers
    /// send by themselves. Nothing where callers prove nothing here and a service outside alone decides.
    ///
    /// # Errors
    /// The refusal.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn identify(
        self: &Arc<Self>,
        head: &mut Parts,
        peer: &Peer,
        pages: &[HeaderValue],
        now: u64,
    ) -> Result<Option<Proof>, Refusal> {
        let it = &self.authenticator;
        if !it.proves() && it.ext_authz.is_some() {
            return Ok(None);
        }
        let credential = it.credential(head, peer)?;
        let identity = match &credential {
            Credential::Token(token) => self.token(token, now).await?,
            // Boxed, as is all that waits for somebody else: it is rare, and large.
            Credential::Password(pair) => {
                own_page(head, pages)?;
                Box::pin(self.password(pair, now)).await?
            }
            Credential::ApiKey(key) => self.api_key(key, now)?,
            Credential::Cookie(key) => {
                own_page(head, pages)?;
                self.api_key(key, now)?
            }
            Credential::Ticket(ticket) => it.redeem(ticket, now)?,
            Credential::Certificate => self.certificate(peer, now)?,
        };
        // Each time, for what was verified before may have been taken back since.
        it.unrevoked(&identity, now)?;
        let by_cookie = matches!(credential, Credential::Cookie(_));
        let carrier = match credential {
            Credential::Token(_) | Credential::Password(_) => Some(&AUTHORIZATION),
            Credential::ApiKey(_) => it.key_header(),
            Credential::Cookie(_) | Credential::Ticket(_) | Credential::Certificate => None,
        };
        let checked = carrier
            .filter(|_| it.forward_credentials)
            .and_then(|name| Some((name.clone(), head.headers.get(name)?.clone())));
        if let Some(name) = it.key_cookie()
            && !it.forward_credentials
        {
            without_cookie(&mut head.headers, name);
        }
        Ok(Some(Proof {
            identity,
            desk: Arc::clone(self),
            checked,
            by_cookie,
        }))
    }

    /// Who else has to let the request pass.
    pub(super) fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The proof of a caller whom the service outside has named.
    pub(super) fn named(self: &Arc<Self>, passed: &Passed) -> Option<Proof> {
        Some(Proof {
            identity: Arc::clone(passed.identity.as_ref()?),
            desk: Arc::clone(self),
            checked: None,
            by_cookie: false,
        })
    }

    async fn password(&self, pair: &str, now: u64) -> Result<Arc<Identity>, Refusal> {
        let passwords = self.authenticator.passwords.as_ref().ok_or(Refusal::Password)?;
        let (name, password) = pair.split_once(':').ok_or(Refusal::Header)?;
        let print = passwords.fingerprint(pair.as_bytes());
        if let Some(Known::Caller(who)) = self.known.lock().find(&print, |_| true) {
            return Ok(who);
        }
        self.doubts(&print, now, Refusal::Password)?;
        match passwords.check(name, password).await {
            Checked::Known(who) => {
                let who = Arc::new(who.apart());
                self.known.lock().put(print, Known::Caller(Arc::clone(&who)));
                Ok(who)
            }
            Checked::Wrong => {
                self.doubted.lock().put(print, now + DOUBT_SECONDS);
                Err(Refusal::Password)
            }
            Checked::Busy => Err(Refusal::Busy),
        }
    }

    /// Refuses what was found to be nobody's a moment ago.
    fn doubts(&self, print: &Fingerprint, now: u64, refusal: Refusal) -> Result<(), Refusal> {
        match self.doubted.lock().find(print, |until| now < *until) {
            Some(_) => Err(refusal),
            None => Ok(()),
        }
    }

    async fn opaque(
        &self,
        inquiry: &Inquiry,
        token: &str,
        print: Fingerprint,
        now: u64,
    ) -> Result<Arc<Identity>, Refusal> {
        self.doubts(&print, now, Refusal::Inactive)?;
        if !is_token(token) {
            return Err(Refusal::Inactive);
        }
        match inquiry.opinion(print, token, now).await {
            Opinion::Active(who, until) => {
                self.known
                    .lock()
                    .put(print, Known::Opaque(Arc::clone(&who), until));
                Ok(who)
            }
            Opinion::Inactive(until) => {
                self.doubted.lock().put(print, until);
                Err(Refusal::Inactive)
            }
            Opinion::Unknown => Err(Refusal::Unasked),
        }
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
            Known::Opaque(_, until) => now < *until,
            Known::Caller(_) | Known::Key(_) => false,
        });
        match known {
            Some(Known::Token(Verified { identity, .. }) | Known::Opaque(identity, _)) => {
                return Ok(identity);
            }
            Some(Known::Caller(_) | Known::Key(_)) | None => {}
        }
        if let Some(inquiry) = &self.inquiry
            && (tokens.issuers.is_empty() || !is_signed(token))
        {
            return Box::pin(self.opaque(inquiry, token, print, now)).await;
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

    fn api_key(&self, key: &str, now: u64) -> Result<Arc<Identity>, Refusal> {
        let keys = self.authenticator.api_keys.as_ref().map(|(keys, _)| keys);
        let keys = keys
            .filter(|_| key.len() <= MAX_KEY_BYTES)
            .ok_or(Refusal::UnknownKey)?;
        let print = fingerprint(key.as_bytes());
        let known = self
            .known
            .lock()
            .find(&print, |known| matches!(known, Known::Key(_)));
        let identity = match known {
            Some(Known::Key(identity)) => identity,
            Some(Known::Token(_) | Known::Caller(_) | Known::Opaque(..)) | None => {
                let found = keys.find(&print).ok_or(Refusal::UnknownKey)?;
                let identity = Arc::new(found.apart());
                self.known.lock().put(print, Known::Key(Arc::clone(&identity)));
                identity
            }
        };
        if identity.holds(now) {
            Ok(identity)
        } else {
            Err(Refusal::ExpiredKey)
        }
    }

    fn certificate(&self, peer: &Peer, now: u64) -> Result<Arc<Identity>, Refusal> {
        let leaf = peer.certificates().first().ok_or(Refusal::Certificate)?;
        let print = fingerprint(leaf);
        let known = self.known.lock().find(&print, |known| match known {
            Known::Caller(identity) => identity.holds(now),
            Known::Token(_) | Known::Opaque(..) | Known::Key(_) => false,
        });
        if let Some(Known::Caller(identity)) = known {
            return Ok(identity);
        }
        let caller = certificate::caller(leaf).ok_or(Refusal::Certificate)?;
        let identity = Arc::new(Identity::new(caller, &self.authenticator.tokens.forwarded));
        // A connection outlives the certificate that it began with.
        if !identity.holds(now) {
            return Err(Refusal::Certificate);
        }
        self.known.lock().put(print, Known::Caller(Arc::clone(&identity)));
        Ok(identity)
    }
}

impl Authenticator {
    /// Where tickets are given, if they are.
    pub fn tickets(&self) -> Option<&Tickets> {
        self.tickets.as_ref()
    }

    /// A ticket for a caller who was admitted; nothing where there are none, or too many are out.
    pub fn ticket(&self, permit: &super::Permit) -> Option<Ticket> {
        let identity = &permit.proof.as_ref()?.identity;
        self.tickets.as_ref()?.give(identity, super::time::unix_now())
    }

    fn redeem(&self, ticket: &str, now: u64) -> Result<Arc<Identity>, Refusal> {
        let tickets = self.tickets.as_ref().ok_or(Refusal::Ticket)?;
        let identity = tickets.redeem(ticket, now).ok_or(Refusal::Ticket)?;
        if identity.holds(now) {
            Ok(identity)
        } else {
            Err(Refusal::Ticket)
        }
    }
}

#[cfg(test)]
mod tests;
