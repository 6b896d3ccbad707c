//! What no single value of an `auth` block shows.

use std::time::Duration;

use super::Check;
use crate::config::compile::{MAX_INTROSPECTION_CACHE, algorithm, algorithms};
use crate::config::diagnostic::Diagnostic;
use crate::config::file::{Auth, ExtAuthz, Jwt, Revocation, TicketsSection};
use crate::config::located::Located;
use crate::config::value::{HeaderWord, Period, Url};
use crate::policy::may_change;

/// The longest that a ticket or an answer of an authorization service holds.
const LONGEST: Duration = Duration::from_secs(300);

/// Whether callers prove who they are to the gateway itself.
fn proves(auth: &Auth) -> bool {
    !auth.jwt.0.is_empty()
        || auth.introspection.is_some()
        || auth.basic.is_some()
        || auth.api_keys.is_some()
        || auth.client_certificates.is_some()
}

/// Whether it is known who calls, or nobody calls at all.
pub(super) fn names_callers(auth: &Auth) -> bool {
    let outside = auth.ext_authz.as_ref();
    proves(auth) || outside.is_none_or(|it| it.principal_header.is_some())
}

impl Check<'_> {
    pub(super) fn auth(&self, name: &str, auth: &Located<Auth>, found: &mut Vec<Diagnostic>) {
        // What is there and wrong was told.
        let told = [
            "introspection",
            "basic",
            "api_keys",
            "client_certificates",
            "ext_authz",
        ]
        .iter()
        .any(|key| self.file.origin.has(auth.spot, key));
        if !proves(auth) && !told {
            let message = format!(
                "auth \"{name}\" has no way to prove who calls; write jwt, introspection, basic, api_keys, client_certificates or ext_authz"
            );
            found.push(self.key_error(auth.spot, message));
        }
        if let Some(cache) = auth.introspection.as_ref().and_then(|it| it.cache.as_ref()) {
            self.at_most(cache, MAX_INTROSPECTION_CACHE, found);
        }
        if let Some(written) = &auth.ext_authz {
            self.ext_authz(written, found);
        }
        if let Some(written) = &auth.revocation {
            self.revocation(written, auth, found);
        }
        if auth.first_message.value && auth.jwt.0.is_empty() && auth.introspection.is_none() {
            let message = "needs \"jwt\" or \"introspection\": a first message holds a token";
            found.push(self.key_error(auth.first_message.spot, message));
        }
        if let Some(tickets) = &auth.tickets {
            self.tickets(tickets, auth, found);
        }
        let mut named: Vec<&str> = Vec::new();
        for issuer in &auth.jwt.0 {
            if named.contains(&issuer.issuer.value.as_str()) {
                let message = format!("the issuer \"{}\" is there twice", issuer.issuer.value);
                found.push(self.error(issuer.issuer.spot, message));
            }
            named.push(&issuer.issuer.value);
            self.issuer(issuer, found);
        }
        if let Some(header) = auth.api_keys.as_ref().and_then(|keys| keys.header.as_ref()) {
            let name = header.0.to_ascii_lowercase();
            if name.starts_with("x-sabir-") || matches!(name.as_str(), "authorization" | "cookie" | "host") {
                let message = format!("\"{name}\" has a meaning of its own; write such as x-api-key");
                found.push(self.error(header.spot, message));
            }
        }
    }

    fn issuer(&self, issuer: &Jwt, found: &mut Vec<Diagnostic>) {
        if issuer.audiences.is_empty() {
            let message = "names nobody; a token that is for anybody could have been stolen from anybody";
            found.push(self.key_error(issuer.audiences.spot, message));
        }
        match (&issuer.jwks, &issuer.secret) {
            (Some(_), Some(secret)) => {
                let message =
                    "stands beside \"jwks\"; an issuer has public keys or a shared secret, never both";
                found.push(self.key_error(secret.spot, message));
            }
            (Some(jwks), None) => match (&jwks.file, &jwks.url) {
                (Some(_), None) | (None, Some(_)) => {}
                (Some(_), Some(_)) | (None, None) => {
                    found.push(self.key_error(jwks.spot, "is {file: FILE} or {url: URL}, one of the two"));
                }
            },
            (None, None) => {
                if let Err(not) = issuer.issuer.parse::<Url>() {
                    let message = format!(
                        "\"{}\" {not}; or say where the keys are: jwks: {{file: FILE}} or jwks: {{url: URL}}",
                        issuer.issuer.value
                    );
                    found.push(self.error(issuer.issuer.spot, message));
                }
            }
            (None, Some(secret)) => {
                let longest = algorithms(issuer)
                    .into_iter()
                    .filter_map(|algorithm| algorithm.secret_bytes())
                    .max()
                    .unwrap_or(0);
                if secret.0.len() < longest {
                    let message = format!("is shorter than the {longest} bytes that its algorithms need");
                    found.push(self.key_error(secret.spot, message));
                }
            }
        }
        let Some(algorithms) = &issuer.algorithms else {
            return;
        };
        if algorithms.is_empty() && self.file.origin.is_empty(algorithms.spot) {
            found.push(self.key_error(
                algorithms.spot,
                "names no algorithm; leave it out for the usual ones",
            ));
        }
        for written in &algorithms.value {
            let shared = algorithm(written.value).secret_bytes().is_some();
            if shared != issuer.secret.is_some() {
                let message = if shared {
                    "needs a \"secret\", and is never taken with public keys"
                } else {
                    "needs public keys, and this issuer has a \"secret\""
                };
                found.push(self.error(written.spot, message));
            }
        }
    }

    fn revocation(&self, written: &Located<Revocation>, auth: &Auth, found: &mut Vec<Diagnostic>) {
        if auth.jwt.0.is_empty() && auth.introspection.is_none() {
            let message = "needs \"jwt\" or \"introspection\": tokens are what is revoked; others are taken out where they are listed";
            found.push(self.key_error(written.spot, message));
        }
        if written.file.is_none() && !written.redis.value {
            let message = "says nowhere what is revoked; write file: FILE, or redis: true";
            found.push(self.key_error(written.spot, message));
        }
        if written.redis.value && self.file.redis.is_none() {
            let message = "needs \"redis: {url: …}\" beside \"auth\", which says where Redis is";
            found.push(self.key_error(written.redis.spot, message));
        }
        if let Some(on_loss) = written.on_loss.as_ref().filter(|_| !written.redis.value) {
            let message =
                "says what becomes of tokens without Redis, and Redis is not asked; write redis: true too";
            found.push(self.key_error(on_loss.spot, message));
        }
    }

    fn at_most(&self, period: &Located<Period>, most: Duration, found: &mut Vec<Diagnostic>) {
        if period.0 > most {
            let message = format!("is too long; the longest is {}", Period(most));
            found.push(self.error(period.spot, message));
        }
    }

    fn ext_authz(&self, written: &Located<ExtAuthz>, found: &mut Vec<Diagnostic>) {
        if written.grpc.is_some() == written.http.is_some() {
            found.push(self.key_error(written.spot, "is {grpc: URL} or {http: URL}, one of the two"));
        }
        if let Some(cache) = &written.cache {
            self.at_most(&cache.ttl, LONGEST, found);
            if cache.ttl.0 < Duration::from_secs(1) {
                found.push(self.error(
                    cache.ttl.spot,
                    "is too short; whole seconds are counted, at least 1s",
                ));
            }
        }
        let changed = written.upstream_headers.iter().chain(&written.principal_header);
        for name in changed {
            self.changeable(name, found);
        }
    }

    fn changeable(&self, name: &Located<HeaderWord>, found: &mut Vec<Diagnostic>) {
        if name.0.parse().is_ok_and(|name| !may_change(&name)) {
            let message = format!("\"{}\" is the gateway's own, or frames the message", name.0);
            found.push(self.error(name.spot, message));
        }
    }

    fn tickets(&self, tickets: &Located<TicketsSection>, auth: &Located<Auth>, found: &mut Vec<Diagnostic>) {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
        let path = &tickets.path;
        if !path.starts_with('/') || path.contains("//") || path.contains("/.") || !path.bytes().all(plain) {
            found.push(self.error(
                path.spot,
                format!("\"{}\" is not a path, such as /tickets", path.value),
            ));
        }
        let others = self.file.auth.values().filter(|other| other.spot != auth.spot);
        let mut taken = others.filter_map(|other| other.tickets.as_ref());
        if taken.any(|other| other.path.value == path.value) {
            let message = format!("\"{}\" is where another auth gives its tickets", path.value);
            found.push(self.error(path.spot, message));
        }
        if let Some(ttl) = &tickets.ttl {
            self.at_most(ttl, LONGEST, found);
            if ttl.0 < Duration::from_secs(1) {
                found.push(self.error(ttl.spot, "is too short; whole seconds are counted, at least 1s"));
            }
        }
        if !names_callers(auth) && auth.ext_authz.is_some() {
            let message = "are given to callers who are known, and nothing here says who calls";
            found.push(self.key_error(tickets.spot, message));
        }
    }
}
