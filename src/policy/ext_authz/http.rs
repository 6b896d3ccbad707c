//! The service is asked by a plain GET: any 2xx lets the request pass, what else it says is for the client.

use ::http::header::{AUTHORIZATION, COOKIE};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use bytes::Bytes;

use super::super::remote::{Answer, Remote, RemoteError};
use super::super::setup::ExtAuthzSetup;
use super::grant::{Edit, Grant, may_change, tellable};
use super::{Verdict, nonsense, strip, target, told_body};
use crate::fault::Denial;
use crate::listen::forwarded::{X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO};

/// The method of the request that is asked about.
const X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
/// Its path and query.
const X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

pub(super) async fn check(
    remote: &Remote,
    head: &Parts,
    told: &HeaderMap,
    setup: &ExtAuthzSetup,
) -> Result<Verdict, RemoteError> {
    let answer = remote.ask(&question(remote, head, told, setup)).await?;
    read(&answer, setup).inspect_err(|error| remote.complain(error))
}

fn question(remote: &Remote, head: &Parts, told: &HeaderMap, setup: &ExtAuthzSetup) -> Request<Bytes> {
    let mut request = Request::new(Bytes::new());
    *request.method_mut() = Method::GET;
    request.uri_mut().clone_from(remote.uri());
    let headers = request.headers_mut();
    let usual = [AUTHORIZATION, COOKIE];
    let names = setup.request_headers.as_deref().unwrap_or(&usual);
    let own = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO];
    let words = told
        .keys()
        .filter(|name| name.as_str().starts_with("x-sabir-") || (names.contains(name) && may_change(name)))
        .chain(&own);
    for name in words {
        if headers.contains_key(name) {
            continue;
        }
        for value in told.get_all(name) {
            headers.append(name, value.clone());
        }
    }
    if let Ok(method) = HeaderValue::from_str(head.method.as_str()) {
        headers.insert(X_FORWARDED_METHOD, method);
    }
    if let Ok(uri) = HeaderValue::from_str(target(head)) {
        headers.insert(X_FORWARDED_URI, uri);
    }
    request
}

fn read(answer: &Answer, setup: &ExtAuthzSetup) -> Result<Verdict, RemoteError> {
    let status = answer.head.status;
    let headers = &answer.head.headers;
    if status.is_success() {
        let passed = setup.upstream_headers.iter().flat_map(|name| {
            let values = headers.get_all(name).iter();
            values.map(|value| Edit::Append(name.clone(), value.clone()))
        });
        let grant = Grant::new(strip(&setup.upstream_headers).chain(passed));
        return Ok(Verdict::Allowed(grant.into()));
    }
    if status.is_server_error() || status.is_informational() {
        return Err(nonsense(format!("the answer is {status}")));
    }
    Ok(Verdict::Denied(Denial {
        status,
        headers: tellable(headers),
        body: told_body(&answer.body),
    }))
}
