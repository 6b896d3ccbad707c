//! What conditions may know: the head of a request as it came, who calls, and the first message.

use http::HeaderMap;
use http::header::HOST;
use http::request::Parts;
use prost_reflect::DynamicMessage;

use super::identity::Identity;
use crate::listen::forwarded;
use crate::peer::Peer;

/// The largest message that a condition reads. What a message costs once it is taken apart is many times its size.
pub const MAX_READ_BYTES: usize = 256 << 10;

/// The head of a request.
#[derive(Clone, Debug)]
#[cfg_attr(
    not(feature = "cel"),
    expect(dead_code, reason = "conditions alone read them")
)]
pub struct RequestFacts {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) host: String,
    pub(super) scheme: &'static str,
    pub(super) address: String,
    pub(super) headers: HeaderMap,
}

impl RequestFacts {
    /// What a head says, and who sent it.
    pub fn of(head: &Parts, peer: &Peer) -> Self {
        let host = match head.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => head.headers.get(HOST).and_then(|host| host.to_str().ok()),
        };
        Self {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            host: host.unwrap_or_default().to_ascii_lowercase(),
            scheme: if peer.secure() { "https" } else { "http" },
            address: forwarded::client_ip(peer, &head.headers, peer.believed()).to_string(),
            headers: head.headers.clone(),
        }
    }
}

/// Everything that a condition is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// The head of the request.
    pub request: &'f RequestFacts,
    /// Who calls.
    pub identity: &'f Identity,
    /// The first message, for those that read it.
    pub message: Option<&'f DynamicMessage>,
}
