//! Opaque tokens: whoever issued them is asked what they stand for.
//!
//! Source: RFC 7662. Answers are believed for a minute at most and never beyond their `exp`; of callers who bring the same
//! token at once, one asks and the others wait for its answer.

use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::cache::Fingerprint;
use super::identity::{Claims, ForwardedClaim, Identity, Source};
use super::json;
use super::jwt::{ClaimNames, words_at};
use super::remote::{Place, Remote, RemoteError, sensitive};
use super::setup::IntrospectionSetup;

/// How long it is believed that a token is not active, in seconds.
const DOUBT_SECONDS: u64 = 10;
/// Questions under way at once, for one worker.
const MAX_FLIGHTS: usize = 1024;

/// What is asked and how answers are read; shared by all workers.
#[derive(Debug)]
pub(super) struct Introspection {
    place: Place,
    authorization: HeaderValue,
    audiences: Vec<String>,
    believed_seconds: u64,
    names: ClaimNames,
    forwarded: Vec<ForwardedClaim>,
}

/// What is known of an opaque token, and until which second of Unix time that is believed.
#[derive(Clone, Debug)]
pub(super) enum Opinion {
    /// It is this caller's.
    Active(Arc<Identity>, u64),
    /// It is not active, or not for this service.
    Inactive(u64),
    /// Whoever knows did not say.
    Unknown,
}

impl Introspection {
    pub(super) fn new(
        place: Place,
        setup: &IntrospectionSetup,
        forwarded: &[ForwardedClaim],
    ) -> Option<Self> {
        // Source: RFC 6749, section 2.3.1: both are form-encoded before they are joined.
        let pair = format!("{}:{}", form(&setup.client_id), form(&setup.client_secret.0));
        let pair = base64_simd::STANDARD.encode_to_string(pair);
        Some(Self {
            place,
            authorization: sensitive(&format!("Basic {pair}"))?,
            audiences: setup.audiences.clone(),
            believed_seconds: setup.cache.as_secs(),
            names: setup.names.clone(),
            forwarded: forwarded.to_vec(),
        })
    }

    fn question(&self, token: &str, remote: &Remote) -> Request<Bytes> {
        let body = format!("token={}&token_type_hint=access_token", form(token));
        let mut request = Request::new(Bytes::from(body));
        *request.method_mut() = Method::POST;
        request.uri_mut().clone_from(remote.uri());
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        request
    }

    async fn ask(&self, remote: &Remote, token: &str, now: u64) -> Opinion {
        let Ok(answer) = remote.ask(&self.question(token, remote)).await else {
            return Opinion::Unknown;
        };
        let read = match answer.head.status {
            StatusCode::OK => self
                .read(&answer.body, now)
                .map_err(|what| RemoteError::Answer(what.to_owned())),
            status => Err(RemoteError::Answer(format!("the answer is {status}"))),
        };
        read.unwrap_or_else(|error| {
            remote.complain(&error);
            Opinion::Unknown
        })
    }

    /// What an answer says. Source: RFC 7662, section 2.2.
    fn read(&self, body: &[u8], now: u64) -> Result<Opinion, &'static str> {
        let members = json::object(body).ok_or("the answer is not a JSON object with each name once")?;
        let inactive = Opinion::Inactive(now + DOUBT_SECONDS);
        match members.get("active") {
            Some(Value::Bool(true)) => {}
            Some(Value::Bool(false)) => return Ok(inactive),
            Some(_) | None => return Err("the answer has no \"active\" that is true or false"),
        }
        let end = second(&members, "exp")?;
        if end.is_some_and(|end| end <= now) || second(&members, "nbf")?.is_some_and(|begin| begin > now) {
            return Ok(inactive);
        }
        if !self.audiences.is_empty() && !self.is_meant(members.get("aud")) {
            return Ok(inactive);
        }
        let principal = ["sub", "username", "client_id"]
            .into_iter()
            .find_map(|name| members.get(name).and_then(Value::as_str))
            .filter(|name| !name.is_empty())
            .ok_or("the answer names nobody: it has no \"sub\", \"username\" or \"client_id\"")?
            .to_owned();
        let scopes = words_at(&members, self.names.scopes.as_deref().unwrap_or("scope"));
        let roles = words_at(&members, self.names.roles.as_deref().unwrap_or("roles"));
        let believed = end
            .map_or(u64::MAX, |end| end)
            .min(now.saturating_add(self.believed_seconds));
        let claims = Claims {
            principal,
            issuer: members.get("iss").and_then(Value::as_str).map(str::to_owned),
            source: Source::Introspection,
            scopes,
            roles,
            others: members,
            expires: end,
        };
        Ok(Opinion::Active(
            Arc::new(Identity::new(claims, &self.forwarded)),
            believed,
        ))
    }

    /// Whether an audience is one that this service goes by.
    fn is_meant(&self, audience: Option<&Value>) -> bool {
        let known = |name: &Value| {
            name.as_str()
                .is_some_and(|name| self.audiences.iter().any(|one| one == name))
        };
        match audience {
            Some(Value::Array(names)) => names.iter().any(known),
            Some(name) => known(name),
            None => false,
        }
    }
}

/// A date in whole seconds, which is optional, and a number if it is there.
fn second(members: &Map<String, Value>, name: &str) -> Result<Option<u64>, &'static str> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_u64()
            .map(Some)
            .ok_or("the answer has an \"exp\" or \"nbf\" that is no whole number of seconds"),
    }
}

/// A text as the value of a form. Source: WHATWG URL, "application/x-www-form-urlencoded".
fn form(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut out, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                    out.push(char::from(byte))
                }
                // Writing to a string never fails.
                _ => drop(write!(out, "%{byte:02X}")),
            }
            out
        })
}

/// One worker's questions about opaque tokens.
#[derive(Debug)]
pub(super) struct Inquiry {
    introspection: Arc<Introspection>,
    remote: Arc<Remote>,
    tasks: TaskTracker,
    flights: Arc<Mutex<AHashMap<Fingerprint, watch::Receiver<Option<Opinion>>>>>,
}

impl Inquiry {
    pub(super) fn new(introspection: &Arc<Introspection>, tasks: &TaskTracker) -> Self {
        Self {
            introspection: Arc::clone(introspection),
            remote: Arc::new(Remote::new(&introspection.place, tasks.clone())),
            tasks: tasks.clone(),
            flights: Arc::default(),
        }
    }

    /// What a token stands for, as whoever issued it says. A question that has begun goes on for those who wait for its
    /// answer too, when the caller who began it leaves.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn opinion(&self, print: Fingerprint, token: &str, now: u64) -> Opinion {
        let Some(mut answered) = self.flight(print, token, now) else {
            return Opinion::Unknown;
        };
        match answered.wait_for(Option::is_some).await {
            Ok(opinion) => opinion.clone().unwrap_or(Opinion::Unknown),
            // The worker is going away.
            Err(_) => Opinion::Unknown,
        }
    }

    fn flight(&self, print: Fingerprint, token: &str, now: u64) -> Option<watch::Receiver<Option<Opinion>>> {
        let mut flights = self.flights.lock();
        if let Some(flight) = flights.get(&print) {
            return Some(flight.clone());
        }
        if flights.len() >= MAX_FLIGHTS {
            return None;
        }
        let (tell, answered) = watch::channel(None);
        flights.insert(print, answered.clone());
        drop(flights);
        let landing = Landing {
            flights: Arc::clone(&self.flights),
            print,
        };
        let (introspection, remote) = (Arc::clone(&self.introspection), Arc::clone(&self.remote));
        let token = token.to_owned();
        self.tasks.spawn(async move {
            let opinion = introspection.ask(&remote, &token, now).await;
            drop(landing);
            // Those who asked may all have left.
            let _ = tell.send(Some(opinion));
        });
        Some(answered)
    }
}

/// Ends a flight, however its task ends.
struct Landing {
    flights: Arc<Mutex<AHashMap<Fingerprint, watch::Receiver<Option<Opinion>>>>>,
    print: Fingerprint,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.flights.lock().remove(&self.print);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Uri;
    use serde_json::json;

    use super::*;
    use crate::policy::setup::Secret;
    use crate::upstream::connect::Speaks;

    fn introspection(audiences: &[&str]) -> Introspection {
        let uri: Uri = "http://127.0.0.1:9/introspect".parse().unwrap();
        let place = Place::new("introspection", &uri, None, Speaks::Http1, Duration::from_secs(1)).unwrap();
        let setup = IntrospectionSetup {
            url: uri,
            client_id: "gate way".into(),
            client_secret: Secret("p:w%".into()),
            audiences: audiences.iter().map(|&name| name.to_owned()).collect(),
            ca: None,
            timeout: Duration::from_secs(1),
            cache: Duration::from_secs(60),
            names: ClaimNames::default(),
        };
        Introspection::new(place, &setup, &[]).unwrap()
    }

    #[test]
    fn the_client_s_secret_is_encoded_before_it_is_joined() {
        let it = introspection(&[]);
        let encoded = it.authorization.to_str().unwrap().strip_prefix("Basic ").unwrap();
        let pair = base64_simd::STANDARD.decode_to_vec(encoded).unwrap();
        assert_eq!(pair, b"gate%20way:p%3Aw%25");
        assert!(!format!("{it:?}").contains(encoded));
    }

    #[test]
    fn an_answer_is_believed_within_its_bounds() {
        const NOW: u64 = 1000;
        let it = introspection(&["library"]);
        let whole =
            json!({"active": true, "sub": "ada", "aud": ["x", "library"], "scope": "a b", "exp": 1030});
        let changed = |name: &str, value: Value| {
            let mut answer = whole.clone();
            answer[name] = value;
            answer
        };
        let table: Vec<(Value, Result<Option<u64>, ()>)> = vec![
            (whole.clone(), Ok(Some(1030))),
            (changed("exp", json!(1060)), Ok(Some(1060))),
            (changed("exp", json!(1061)), Ok(Some(1060))),
            (changed("exp", json!(1001)), Ok(Some(1001))),
            (changed("exp", json!(1000)), Ok(None)),
            (changed("exp", json!(null)), Ok(Some(1060))),
            (changed("exp", json!("1030")), Err(())),
            (changed("nbf", json!(1000)), Ok(Some(1030))),
            (changed("nbf", json!(1001)), Ok(None)),
            (changed("aud", json!("library")), Ok(Some(1030))),
            (changed("aud", json!("elsewhere")), Ok(None)),
            (changed("aud", json!(null)), Ok(None)),
            (changed("active", json!(false)), Ok(None)),
            (changed("active", json!("true")), Err(())),
            (changed("active", json!(1)), Err(())),
            (changed("sub", json!("")), Err(())),
            (json!({"sub": "ada"}), Err(())),
            (json!([true]), Err(())),
        ];
        for (answer, expected) in table {
            let read = it.read(answer.to_string().as_bytes(), NOW);
            let got = read.map_err(drop).map(|opinion| match opinion {
                Opinion::Active(who, until) => {
                    assert_eq!((who.principal(), who.claims().scopes.len()), ("ada", 2));
                    Some(until)
                }
                Opinion::Inactive(until) => {
                    assert_eq!(until, NOW + DOUBT_SECONDS);
                    None
                }
                Opinion::Unknown => panic!("{answer}"),
            });
            assert_eq!(got, expected, "{answer}");
        }
        let twice = br#"{"active": false, "active": true, "sub": "ada", "aud": "library"}"#;
        assert!(it.read(twice, NOW).is_err());
    }
}
