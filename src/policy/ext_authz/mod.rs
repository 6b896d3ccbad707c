//! A service outside that decides whether a request may pass: over gRPC as Envoy asks it, or over HTTP as plain
//! forward-auth.
//!
//! It sees the head alone. What it says may be remembered for a while; when it says nothing, the request is refused
//! unless the configuration wants otherwise.

mod grant;
mod grpc;
mod http;
mod proto;

use std::sync::Arc;

use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue};
use aws_lc_rs::digest;
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::cache::{Cache, Fingerprint};
use super::identity::{Claims, Identity, Source};
use super::refusal::Refusal;
use super::remote::{Place, Remote, RemoteError};
use super::setup::{ExtAuthzSetup, OnFailure, Protocol};
use crate::fault::Denial;
use crate::listen::forwarded;
use crate::peer::Peer;
pub(super) use grant::Grant;
pub(crate) use grant::may_change;

/// The largest body of a denial that a client is told.
const MAX_DENIAL_BYTES: usize = 16 << 10;

/// Where the service is and how it is asked; shared by all workers.
#[derive(Debug)]
pub(super) struct ExtAuthz {
    place: Place,
    setup: ExtAuthzSetup,
}

/// What a service says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may pass, with these changes.
    Allowed(Arc<Grant>),
    /// It may not, and this is what the client is told.
    Denied(Denial),
}

/// A request that may pass: who calls, if the service said so, and what is changed.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) grant: Option<Arc<Grant>>,
}

impl ExtAuthz {
    pub(super) fn new(place: Place, setup: &ExtAuthzSetup) -> Self {
        Self {
            place,
            setup: setup.clone(),
        }
    }
}

/// One worker's questions to the service.
#[derive(Debug)]
pub(super) struct Checkpoint {
    it: Arc<ExtAuthz>,
    remote: Remote,
    /// What was said, and until which second of Unix time it counts.
    said: Mutex<Cache<(Verdict, u64)>>,
}

impl Checkpoint {
    pub(super) fn new(it: &Arc<ExtAuthz>, tasks: &TaskTracker) -> Self {
        Self {
            it: Arc::clone(it),
            remote: Remote::new(&it.place, tasks.clone()),
            said: Mutex::default(),
        }
    }

    /// Asks whether a request may pass, whose caller may be known already.
    ///
    /// # Errors
    /// The service says no, or nothing.
    ///
    /// # Cancel safety
    /// The question is taken back.
    pub(super) async fn pass(
        &self,
        head: &Parts,
        peer: &Peer,
        caller: Option<&Identity>,
        now: u64,
    ) -> Result<Passed, Refusal> {
        let setup = &self.it.setup;
        let print = setup
            .cache
            .as_ref()
            .map(|cache| fingerprint(head, peer, caller, &cache.headers));
        if let Some(print) = &print
            && let Some((verdict, _)) = self.said.lock().find(print, |(_, until)| now < *until)
        {
            return self.passed(verdict);
        }
        let told = told(head, peer, caller);
        let verdict = match setup.protocol {
            Protocol::Grpc => grpc::check(&self.remote, head, peer, &told, caller, setup, now).await,
            Protocol::Http => http::check(&self.remote, head, &told, setup).await,
        };
        match (verdict, setup.on_failure) {
            (Ok(verdict), _) => {
                if let (Some(print), Some(cache)) = (print, &setup.cache) {
                    let until = now.saturating_add(cache.ttl.as_secs());
                    self.said.lock().put(print, (verdict.clone(), until));
                }
                self.passed(verdict)
            }
            (Err(_), OnFailure::Deny) => Err(Refusal::Unasked),
            (Err(_), OnFailure::Allow) => Ok(Passed {
                identity: None,
                grant: Some(Arc::new(Grant::new(strip(&setup.upstream_headers)))),
            }),
        }
    }

    fn passed(&self, verdict: Verdict) -> Result<Passed, Refusal> {
        let grant = match verdict {
            Verdict::Allowed(grant) => grant,
            Verdict::Denied(denial) => return Err(Refusal::External(Box::new(denial))),
        };
        let name = self.it.setup.principal_header.as_ref();
        let principal = name
            .and_then(|name| grant.value(name)?.to_str().ok())
            .filter(|name| !name.is_empty());
        let identity = principal.map(|principal| {
            let claims = Claims {
                principal: principal.to_owned(),
                issuer: None,
                source: Source::External,
                scopes: Vec::new(),
                roles: Vec::new(),
                others: serde_json::Map::new(),
                expires: None,
            };
            Arc::new(Identity::new(claims, &[]))
        });
        Ok(Passed {
            identity,
            grant: Some(grant),
        })
    }
}

/// The changes by which a client can't say itself what the service would have said.
fn strip(names: &[HeaderName]) -> impl Iterator<Item = grant::Edit> + '_ {
    names.iter().cloned().map(grant::Edit::Remove)
}

/// The headers that the service is told: nothing that only the gateway or a trusted proxy may say, but in their words.
fn told(head: &Parts, peer: &Peer, caller: Option<&Identity>) -> HeaderMap {
    let mut headers = head.headers.clone();
    let claimed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-sabir-"))
        .cloned()
        .collect();
    for name in claimed {
        headers.remove(name);
    }
    let host = host(head).and_then(|host| HeaderValue::from_str(host).ok());
    forwarded::rewrite(&mut headers, peer, host);
    if let Some(caller) = caller {
        caller.tell(&mut headers);
    }
    headers
}

fn host(head: &Parts) -> Option<&str> {
    match head.uri.authority() {
        Some(authority) => Some(authority.as_str()),
        None => head.headers.get(::http::header::HOST)?.to_str().ok(),
    }
}

fn target(head: &Parts) -> &str {
    head.uri.path_and_query().map_or("/", |target| target.as_str())
}

/// What an answer is remembered by: everything that may have decided it, as the configuration says.
fn fingerprint(head: &Parts, peer: &Peer, caller: Option<&Identity>, names: &[HeaderName]) -> Fingerprint {
    let mut digest = digest::Context::new(&digest::SHA256);
    // The length before each part, so that no two requests run together to the same text.
    let mut add = |part: &[u8]| {
        digest.update(&part.len().to_be_bytes());
        digest.update(part);
    };
    add(head.method.as_str().as_bytes());
    add(host(head).unwrap_or_default().as_bytes());
    add(target(head).as_bytes());
    add(peer.ip().to_string().as_bytes());
    add(caller.map_or("", Identity::key).as_bytes());
    for name in names {
        let values = head.headers.get_all(name);
        add(&values.iter().count().to_be_bytes());
        for value in values {
            add(value.as_bytes());
        }
    }
    let mut print = [0; 32];
    print.copy_from_slice(digest.finish().as_ref());
    print
}

/// A body that a client may be told; nothing if it is too large.
fn told_body(body: &bytes::Bytes) -> bytes::Bytes {
    if body.len() > MAX_DENIAL_BYTES {
        return bytes::Bytes::new();
    }
    body.clone()
}

fn nonsense(what: impl Into<String>) -> RemoteError {
    RemoteError::Answer(what.into())
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;

    fn head(method: &str, uri: &str, lines: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn peer(address: &str) -> Peer {
        Peer::new(address.parse().unwrap(), false, false, Vec::new())
    }

    #[test]
    fn what_may_have_decided_an_answer_is_part_of_what_it_is_remembered_by() {
        let names = [::http::header::COOKIE];
        let print = |head: &Parts, from: &str| fingerprint(head, &peer(from), None, &names);
        let first = head(
            "GET",
            "/a?x=1",
            &[("host", "h"), ("cookie", "a=b"), ("x-trace", "1")],
        );
        let same = head(
            "GET",
            "/a?x=1",
            &[("cookie", "a=b"), ("host", "h"), ("x-trace", "2")],
        );
        assert_eq!(print(&first, "192.0.2.1:1"), print(&same, "192.0.2.1:2"));
        for other in [
            head("PUT", "/a?x=1", &[("host", "h"), ("cookie", "a=b")]),
            head("GET", "/a?x=2", &[("host", "h"), ("cookie", "a=b")]),
            head("GET", "/a?x=1", &[("host", "i"), ("cookie", "a=b")]),
            head("GET", "/a?x=1", &[("host", "h"), ("cookie", "a=c")]),
            head("GET", "/a?x=1", &[("host", "h")]),
            head(
                "GET",
                "/a?x=1",
                &[("host", "h"), ("cookie", "a=b"), ("cookie", "")],
            ),
        ] {
            assert_ne!(
                print(&first, "192.0.2.1:1"),
                print(&other, "192.0.2.1:1"),
                "{other:?}"
            );
        }
        assert_ne!(print(&first, "192.0.2.1:1"), print(&first, "192.0.2.2:1"));
    }

    #[test]
    fn the_service_is_told_nothing_that_a_client_made_up() {
        let lies = [
            ("host", "h"),
            ("x-sabir-principal", "root"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-original-url", "/public"),
            ("x-team", "a"),
        ];
        let told = told(&head("GET", "/a", &lies), &peer("192.0.2.1:1"), None);
        assert!(!told.contains_key("x-sabir-principal") && !told.contains_key("x-original-url"));
        assert_eq!(told["x-forwarded-for"], "192.0.2.1");
        assert_eq!(told["x-team"], "a");
    }
}
