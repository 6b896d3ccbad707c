//! Which pages of other origins may call a route from a browser, and what they may see of its answers.
//!
//! Source: Fetch standard, "CORS protocol".

use std::time::Duration;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderName, HeaderValue, ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, Method};

/// Headers that the protocols need: a page may send them whatever else it may.
const OF_THE_PROTOCOLS: [&str; 14] = [
    "accept",
    "accept-language",
    "connect-accept-encoding",
    "connect-content-encoding",
    "connect-protocol-version",
    "connect-timeout-ms",
    "content-encoding",
    "content-language",
    "content-type",
    "grpc-accept-encoding",
    "grpc-encoding",
    "grpc-timeout",
    "x-grpc-web",
    "x-user-agent",
];

/// What a page may read of every answer, there or not.
const STATUS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// What a route allows to pages of other origins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Whose pages.
    pub origins: Origins,
    /// By which methods; `None` for those that the path answers.
    pub methods: Option<Vec<Method>>,
    /// With which headers beside those of the protocols.
    pub headers: Names,
    /// What they may read beside the status and the headers of the answer at hand.
    pub expose: Names,
    /// Whether cookies and other credentials of the browser come along. Never with any origin or any name.
    pub credentials: bool,
    /// How long a browser may remember what it was told.
    pub max_age: Duration,
}

/// Whose pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Everybody's.
    Any,
    /// Those of these origins, each as a browser writes it.
    These(Vec<HeaderValue>),
}

/// Names of headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// All.
    Any,
    /// These.
    These(Vec<HeaderName>),
}

/// A browser's question whether a page may send a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    origin: HeaderValue,
    /// The method of the request in question.
    pub method: Method,
    /// The names of its headers, as they were sent.
    headers: Vec<HeaderName>,
}

impl Preflight {
    /// The question that a request is, if it is one.
    pub fn of(head: &Parts) -> Option<Self> {
        if head.method != Method::OPTIONS {
            return None;
        }
        let origin = head.headers.get(ORIGIN)?.clone();
        let method = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let headers = head
            .headers
            .get_all(ACCESS_CONTROL_REQUEST_HEADERS)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok());
        Some(Self {
            origin,
            method: Method::from_bytes(method.as_bytes()).ok()?,
            headers: headers.collect(),
        })
    }
}

impl Cors {
    /// Whether pages of this origin may call.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        match &self.origins {
            Origins::Any => true,
            Origins::These(origins) => origins.contains(origin),
        }
    }

    /// The headers of the answer to a preflight request for a method that the path answers; `None` where the origin is
    /// not allowed. Headers that are asked for are named only if they are allowed.
    pub fn preflight(&self, asked: &Preflight) -> Option<HeaderMap> {
        if !self.allows(&asked.origin) {
            return None;
        }
        let mut answer = HeaderMap::new();
        self.allow(&asked.origin, &mut answer);
        let methods = match &self.methods {
            Some(methods) => joined(methods.iter().map(Method::as_str)),
            None => asked.method.as_str().to_owned(),
        };
        insert(&mut answer, ACCESS_CONTROL_ALLOW_METHODS, &methods);
        let headers = joined(
            asked
                .headers
                .iter()
                .filter(|name| self.takes(name))
                .map(HeaderName::as_str),
        );
        if !headers.is_empty() {
            insert(&mut answer, ACCESS_CONTROL_ALLOW_HEADERS, &headers);
        }
        answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(self.max_age.as_secs()));
        answer.insert(
            VARY,
            HeaderValue::from_static("origin, access-control-request-method, access-control-request-headers"),
        );
        Some(answer)
    }

    /// Adds to an answer what lets a page of `origin` read it, status and metadata included.
    pub fn share(&self, origin: Option<&HeaderValue>, answer: &mut HeaderMap) {
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            let expose = match &self.expose {
                Names::Any => "*".to_owned(),
                Names::These(names) => {
                    let of_the_answer = answer.keys().filter(|name| is_worth_exposing(name));
                    let mut all: Vec<&str> = STATUS.into();
                    all.extend(names.iter().chain(of_the_answer).map(HeaderName::as_str));
                    all.sort_unstable();
                    all.dedup();
                    joined(all.into_iter())
                }
            };
            self.allow(origin, answer);
            insert(answer, ACCESS_CONTROL_EXPOSE_HEADERS, &expose);
        }
        if self.origins != Origins::Any {
            // Also where nothing was allowed: a cache must not give this answer to a page of an allowed origin.
            answer.append(VARY, HeaderValue::from_static("origin"));
        }
    }

    fn allow(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        let allowed = match self.origins {
            Origins::Any => HeaderValue::from_static("*"),
            Origins::These(_) => origin.clone(),
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }

    fn takes(&self, name: &HeaderName) -> bool {
        OF_THE_PROTOCOLS.contains(&name.as_str())
            || match &self.headers {
                Names::Any => true,
                Names::These(names) => names.contains(name),
            }
    }
}

/// Whether a page needs to be told that it may read a header: the others it always or never reads.
fn is_worth_exposing(name: &HeaderName) -> bool {
    !matches!(
        name.as_str(),
        "cache-control"
            | "connection"
            | "content-language"
            | "content-length"
            | "content-type"
            | "date"
            | "expires"
            | "last-modified"
            | "pragma"
            | "set-cookie"
            | "trailer"
            | "transfer-encoding"
            | "vary"
    )
}

fn joined<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

/// Names of headers and methods, joined by commas, are always a valid value.
fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APP: HeaderValue = HeaderValue::from_static("https://app.example.com");
    const EVIL: HeaderValue = HeaderValue::from_static("https://evil.example.com");

    fn cors() -> Cors {
        Cors {
            origins: Origins::These(vec![APP]),
            methods: None,
            headers: Names::These(vec![http::header::AUTHORIZATION]),
            expose: Names::These(vec![HeaderName::from_static("x-later")]),
            credentials: true,
            max_age: Duration::from_secs(600),
        }
    }

    fn asked(headers: &[(HeaderName, &'static str)]) -> Option<Preflight> {
        let mut request = http::Request::builder().method("OPTIONS").uri("/a.B/C");
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        Preflight::of(&request.body(()).unwrap().into_parts().0)
    }

    /// The value of every header, sorted and on lines.
    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_preflight_request_is_told_by_its_headers() {
        assert_eq!(asked(&[(ORIGIN, "https://app.example.com")]), None);
        assert_eq!(asked(&[(ACCESS_CONTROL_REQUEST_METHOD, "POST")]), None);
        let preflight = asked(&[
            (ORIGIN, "https://app.example.com"),
            (ACCESS_CONTROL_REQUEST_METHOD, "POST"),
            (ACCESS_CONTROL_REQUEST_HEADERS, "Content-Type, x-a"),
            (ACCESS_CONTROL_REQUEST_HEADERS, "x-b"),
        ]);
        let preflight = preflight.unwrap();
        assert_eq!(preflight.method, Method::POST);
        assert_eq!(preflight.headers, ["content-type", "x-a", "x-b"]);
    }

    #[test]
    fn asked_headers_are_echoed_only_if_they_are_allowed() {
        let preflight = asked(&[
            (ORIGIN, "https://app.example.com"),
            (ACCESS_CONTROL_REQUEST_METHOD, "PATCH"),
            (
                ACCESS_CONTROL_REQUEST_HEADERS,
                "authorization,x-grpc-web,x-secret",
            ),
        ]);
        let answer = cors().preflight(&preflight.unwrap()).unwrap();
        assert_eq!(
            lines(&answer),
            [
                "access-control-allow-credentials: true",
                "access-control-allow-headers: authorization, x-grpc-web",
                "access-control-allow-methods: PATCH",
                "access-control-allow-origin: https://app.example.com",
                "access-control-max-age: 600",
                "vary: origin, access-control-request-method, access-control-request-headers",
            ]
        );
    }

    #[test]
    fn another_origin_is_allowed_nothing() {
        let preflight = asked(&[
            (ORIGIN, "https://evil.example.com"),
            (ACCESS_CONTROL_REQUEST_METHOD, "POST"),
        ]);
        assert_eq!(cors().preflight(&preflight.unwrap()), None);
        for origin in [
            None,
            Some(EVIL),
            Some(HeaderValue::from_static("https://app.example.com.evil.com")),
            Some(HeaderValue::from_static("http://app.example.com")),
            Some(HeaderValue::from_static("null")),
        ] {
            let mut answer = HeaderMap::new();
            cors().share(origin.as_ref(), &mut answer);
            assert_eq!(lines(&answer), ["vary: origin"], "{origin:?}");
        }
    }

    #[test]
    fn status_and_metadata_of_an_answer_are_exposed() {
        let mut answer = HeaderMap::new();
        for name in ["content-type", "x-first", "trailer-x-last", "set-cookie", "vary"] {
            answer.insert(HeaderName::from_static(name), HeaderValue::from_static("a"));
        }
        cors().share(Some(&APP), &mut answer);
        assert_eq!(
            answer[ACCESS_CONTROL_EXPOSE_HEADERS],
            "grpc-message, grpc-status, grpc-status-details-bin, trailer-x-last, x-first, x-later"
        );
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], APP);
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        let vary: Vec<_> = answer.get_all(VARY).iter().collect();
        assert_eq!(vary, ["a", "origin"]);
    }

    #[test]
    fn any_origin_is_answered_with_a_star_and_no_credentials() {
        let any = Cors {
            origins: Origins::Any,
            headers: Names::Any,
            expose: Names::Any,
            credentials: false,
            methods: Some(vec![Method::GET, Method::POST]),
            ..cors()
        };
        let mut answer = HeaderMap::new();
        any.share(Some(&EVIL), &mut answer);
        assert_eq!(
            lines(&answer),
            [
                "access-control-allow-origin: *",
                "access-control-expose-headers: *"
            ]
        );
        let preflight = asked(&[
            (ORIGIN, "https://evil.example.com"),
            (ACCESS_CONTROL_REQUEST_METHOD, "POST"),
            (ACCESS_CONTROL_REQUEST_HEADERS, "x-anything"),
        ]);
        let answer = any.preflight(&preflight.unwrap()).unwrap();
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, POST");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_HEADERS], "x-anything");
    }
}
