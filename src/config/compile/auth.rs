//! What `auth` and `authorize` come to.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::place;
use crate::config::file::{self, File, SignatureAlgorithm};
use crate::config::located::Located;
use crate::config::throttle;
use crate::config::value::HeaderWord;
use crate::policy::access::{self, Access, Principals};
use crate::policy::condition::Condition;
use crate::policy::jwks;
use crate::policy::jwt::{Algorithm, ClaimNames};
use crate::policy::revocation::{OnLoss, RedisSetup, RevocationSetup};
use crate::policy::setup::{
    ApiKeySetup, ExtAuthzSetup, IntrospectionSetup, IssuerSetup, KeysSetup, OnFailure, Protocol, Secret,
    Setup, TicketSetup, VerdictCache,
};
use crate::schema::Method;

/// How long the answer about an opaque token may take, if the file does not say.
const INTROSPECTION_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest that such an answer is believed.
pub(in crate::config) const MAX_INTROSPECTION_CACHE: Duration = Duration::from_secs(60);
/// How long an authorization service may take, if the file does not say.
const EXT_AUTHZ_TIMEOUT: Duration = Duration::from_millis(250);
/// How long a ticket holds, if the file does not say.
const TICKET_TTL: Duration = Duration::from_secs(30);

/// What an `auth` block comes to.
pub(super) fn setup(file: &File, name: &str, written: &file::Auth) -> Setup {
    Setup {
        name: name.to_owned(),
        issuers: written
            .jwt
            .0
            .iter()
            .map(|issuer| issuer_setup(file, issuer))
            .collect(),
        api_keys: written.api_keys.as_ref().map(|keys| ApiKeySetup {
            file: file.origin.resolve(&keys.file),
            counted_as: first_with(file, &file.origin.resolve(&keys.file))
                .unwrap_or(name)
                .to_owned(),
            header: match (&keys.header, &keys.cookie) {
                (Some(name), _) => name.0.parse().ok(),
                (None, None) => Some(DEFAULT_KEY_HEADER),
                (None, Some(_)) => None,
            },
            cookie: keys.cookie.as_ref().map(|name| name.0.clone()),
        }),
        passwords: written
            .basic
            .as_ref()
            .map(|basic| file.origin.resolve(&basic.file)),
        introspection: written.introspection.as_deref().map(|it| introspection(file, it)),
        certificates: written.client_certificates.is_some(),
        ext_authz: written.ext_authz.as_deref().and_then(|it| ext_authz(file, it)),
        revocation: written.revocation.as_deref().map(|it| revocation(file, it)),
        first_message: written.first_message.value,
        tickets: written.tickets.as_deref().map(|tickets| TicketSetup {
            path: tickets.path.value.clone(),
            ttl: tickets.ttl.as_ref().map_or(TICKET_TTL, |ttl| ttl.0),
        }),
        forward_credentials: written.forward_credentials,
        forwarded_claims: written
            .forward_claims
            .iter()
            .map(|claim| claim.0.clone())
            .collect(),
    }
}

/// The first `auth` block that takes the API keys of a file.
fn first_with<'f>(file: &'f File, keys: &Path) -> Option<&'f str> {
    let takes = |auth: &file::Auth| {
        let taken = auth.api_keys.as_ref();
        taken.is_some_and(|taken| file.origin.resolve(&taken.file) == keys)
    };
    let mut blocks = file.auth.iter();
    blocks
        .find(|(_, auth)| takes(auth))
        .map(|(name, _)| name.as_str())
}

fn revocation(file: &File, written: &file::Revocation) -> RevocationSetup {
    let redis = throttle::cluster(file).filter(|_| written.redis.value);
    RevocationSetup {
        file: written.file.as_ref().map(|path| file.origin.beside(path)),
        redis: redis.map(|redis| RedisSetup {
            url: redis.url,
            prefix: redis.prefix,
            on_loss: match written.on_loss.as_ref().map(|on_loss| on_loss.value) {
                Some(file::RevocationOnLoss::Closed) => OnLoss::Closed,
                Some(file::RevocationOnLoss::Keep) | None => OnLoss::Keep,
            },
        }),
    }
}

/// The header that carries an API key, if the file does not say.
const DEFAULT_KEY_HEADER: HeaderName = HeaderName::from_static("x-api-key");

fn issuer_setup(file: &File, written: &file::Jwt) -> IssuerSetup {
    let ca = written.ca.as_ref().map(|path| file.origin.resolve(path));
    let jwks = written.jwks.as_ref();
    let at_file = jwks.and_then(|jwks| jwks.file.as_ref());
    let at_url = jwks.and_then(|jwks| jwks.url.as_ref());
    let keys = match (&written.secret, at_file, at_url) {
        (Some(secret), _, _) => KeysSetup::Secret(Secret(secret.0.clone())),
        (None, Some(path), _) => KeysSetup::File(file.origin.resolve(path)),
        (None, None, Some(url)) => KeysSetup::Fetched(jwks::Place::Url(url.0.clone()), ca),
        (None, None, None) => KeysSetup::Fetched(jwks::Place::Discovery(written.issuer.value.clone()), ca),
    };
    IssuerSetup {
        name: written.issuer.value.clone(),
        audiences: written.audiences.value.clone(),
        algorithms: algorithms(written),
        keys,
        names: ClaimNames {
            scopes: written.scopes_claim.clone(),
            roles: written.roles_claim.clone(),
        },
    }
}

/// What an issuer may sign with.
pub(in crate::config) fn algorithms(written: &file::Jwt) -> Vec<Algorithm> {
    match &written.algorithms {
        Some(names) => names.iter().map(|name| algorithm(name.value)).collect(),
        None if written.secret.is_some() => vec![Algorithm::Hs256],
        None => Algorithm::ALL
            .into_iter()
            .filter(|algorithm| algorithm.secret_bytes().is_none())
            .collect(),
    }
}

pub(in crate::config) fn algorithm(written: SignatureAlgorithm) -> Algorithm {
    match written {
        SignatureAlgorithm::Rs256 => Algorithm::Rs256,
        SignatureAlgorithm::Rs384 => Algorithm::Rs384,
        SignatureAlgorithm::Rs512 => Algorithm::Rs512,
        SignatureAlgorithm::Ps256 => Algorithm::Ps256,
        SignatureAlgorithm::Ps384 => Algorithm::Ps384,
        SignatureAlgorithm::Ps512 => Algorithm::Ps512,
        SignatureAlgorithm::Es256 => Algorithm::Es256,
        SignatureAlgorithm::Es384 => Algorithm::Es384,
        SignatureAlgorithm::Es512 => Algorithm::Es512,
        SignatureAlgorithm::EdDsa => Algorithm::EdDsa,
        SignatureAlgorithm::Hs256 => Algorithm::Hs256,
        SignatureAlgorithm::Hs384 => Algorithm::Hs384,
        SignatureAlgorithm::Hs512 => Algorithm::Hs512,
    }
}

/// Which block says how callers of a route prove who they are; the file was refused for names that no block has.
pub(in crate::config) fn auth(file: &File, written: &file::Route) -> Option<usize> {
    let auth = written.auth.as_ref()?;
    // A name that is not there leads to a gate that lets nobody in, and never to an open one.
    let at = file.auth.keys().position(|name| *name == auth.value);
    Some(at.unwrap_or(usize::MAX))
}

/// Who may call a method.
#[derive(Debug, Default)]
pub(in crate::config) struct Granted {
    /// The rules; absent, whoever the route lets in.
    pub(in crate::config) access: Option<Arc<Access>>,
    /// Anybody, known or not.
    pub(in crate::config) public: bool,
    /// What is wrong with what the method declares.
    pub(in crate::config) warning: Option<String>,
}

/// Who may call one method on a route: by the route's rules, or else by what the method declares.
pub(in crate::config) fn granted(file: &File, written: &file::Route, method: &Method) -> Granted {
    let policy = match (&method.policy, written.declared_policies) {
        (Some(policy), file::DeclaredPolicies::Apply) if written.authorize.is_none() => policy,
        _ => {
            return Granted {
                access: access(file, written, Some(method)),
                ..Granted::default()
            };
        }
    };
    if policy.public {
        return Granted {
            public: true,
            ..Granted::default()
        };
    }
    let name = method.full_name();
    let mut warning = written
        .auth
        .is_none()
        .then(|| format!("{name} declares who may call it, and the route has no \"auth\" by which callers say who they are, so nobody may"));
    let when = (!policy.when.is_empty())
        .then(|| Condition::parse(&policy.when))
        .transpose();
    let rules = match when {
        Ok(when) => vec![access::Rule {
            name: format!("sabir.policy of {name}"),
            scopes: access::Names {
                any: policy.any_scopes.clone(),
                all: policy.scopes.clone(),
            },
            roles: access::Names {
                any: policy.any_roles.clone(),
                all: policy.roles.clone(),
            },
            when,
            ..access::Rule::default()
        }],
        Err(what) => {
            warning = Some(format!(
                "nobody may call {name}: the condition of its policy is none: {what}"
            ));
            Vec::new()
        }
    };
    Granted {
        access: Some(Arc::new(Access { rules })),
        public: false,
        warning,
    }
}

/// The rules of a route that speak about one method, or about its paths; nothing where the route has no rules.
pub(in crate::config) fn access(
    file: &File,
    written: &file::Route,
    method: Option<&Method>,
) -> Option<Arc<Access>> {
    let rules = written.authorize.as_ref()?;
    let rules = rules
        .iter()
        .enumerate()
        .filter(|(_, rule)| {
            let take = |method: &Method| rule.methods.iter().any(|pattern| pattern.take(&method.path));
            rule.methods.is_empty() || method.is_some_and(take)
        })
        .map(|(at, rule)| access::Rule {
            name: place(file, rule.spot, &format!("authorize[{at}]")),
            scopes: access_names(&rule.scopes),
            roles: access_names(&rule.roles),
            principals: rule.principals.iter().map(|name| Principals::new(name)).collect(),
            claims: rule
                .claims
                .iter()
                .map(|(name, values)| (name.clone(), values.0.clone()))
                .collect(),
            when: rule.when.as_ref().map(|condition| condition.0.clone()),
        });
    Some(Arc::new(Access {
        rules: rules.collect(),
    }))
}

fn access_names(written: &file::auth::Names) -> access::Names {
    access::Names {
        any: written.any.clone(),
        all: written.all.clone(),
    }
}

fn introspection(file: &File, written: &file::Introspection) -> IntrospectionSetup {
    IntrospectionSetup {
        url: written.url.0.clone(),
        client_id: written.client_id.value.clone(),
        client_secret: Secret(written.client_secret.0.clone()),
        audiences: written.audiences.clone(),
        ca: written.ca.as_ref().map(|path| file.origin.resolve(path)),
        timeout: written.timeout.map_or(INTROSPECTION_TIMEOUT, |period| period.0),
        cache: written
            .cache
            .as_ref()
            .map_or(MAX_INTROSPECTION_CACHE, |period| period.0),
        names: ClaimNames {
            scopes: written.scopes_claim.clone(),
            roles: written.roles_claim.clone(),
        },
    }
}

/// Nothing where the file was refused, because it says no place or two.
fn ext_authz(file: &File, written: &file::ExtAuthz) -> Option<ExtAuthzSetup> {
    let (protocol, url) = match (&written.grpc, &written.http) {
        (Some(url), None) => (Protocol::Grpc, url),
        (None, Some(url)) => (Protocol::Http, url),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    let principal_header = written.principal_header.as_ref().and_then(header);
    let mut upstream_headers: Vec<_> = headers(&written.upstream_headers);
    if let Some(name) = &principal_header
        && !upstream_headers.contains(name)
    {
        upstream_headers.push(name.clone());
    }
    Some(ExtAuthzSetup {
        protocol,
        url: url.0.clone(),
        ca: written.ca.as_ref().map(|path| file.origin.resolve(path)),
        timeout: written.timeout.map_or(EXT_AUTHZ_TIMEOUT, |period| period.0),
        on_failure: match written.on_failure {
            file::OnFailure::Deny => OnFailure::Deny,
            file::OnFailure::Allow => OnFailure::Allow,
        },
        request_headers: written.request_headers.as_deref().map(headers),
        upstream_headers,
        principal_header,
        cache: written.cache.as_ref().map(|cache| VerdictCache {
            ttl: cache.ttl.0,
            headers: cache.headers.as_deref().map_or_else(
                || vec![http::header::AUTHORIZATION, http::header::COOKIE],
                headers,
            ),
        }),
    })
}

fn headers(written: &[Located<HeaderWord>]) -> Vec<HeaderName> {
    written.iter().filter_map(header).collect()
}

/// The file was refused for names that are none.
fn header(written: &Located<HeaderWord>) -> Option<HeaderName> {
    written.0.parse().ok()
}
