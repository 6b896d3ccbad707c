//! The gate: decides on the request head, before a body is read, whether a call may go upstream.
//!
//! [`Gate::admit`] is a list of steps: who calls, may it, how often. What an `auth` block of the configuration comes to is [`Setup`];
//! it becomes an [`auth::Authenticator`], which all workers share, at a [`Desk`] of each.

pub mod access;
pub mod api_keys;
pub mod auth;
mod cache;
mod certificate;
pub mod identity;
mod json;
pub mod jwks;
pub mod jwt;
#[cfg(feature = "redis")]
pub mod redis;
pub mod refusal;
pub mod setup;
pub mod throttle;
pub mod time;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use tokio::time::Instant;

pub use access::Access;
pub use auth::Desk;
use auth::Proof;
pub use identity::Identity;
pub use refusal::Refusal;
pub use setup::Setup;
use throttle::{Caller, Pass, Throttle};

use crate::fault::Fault;
use crate::peer::Peer;

/// The gate's word that a call may go upstream. Only the gate makes one.
///
/// ```compile_fail
/// let permit = sabir::policy::Permit { proof: None, pass: None };
/// ```
#[derive(Debug)]
pub struct Permit {
    proof: Option<Proof>,
    /// What limits gave and tell; nothing where the route has none.
    pass: Option<Box<Pass>>,
}

impl Permit {
    /// Who calls, where the route asks.
    pub fn identity(&self) -> Option<&Identity> {
        self.proof.as_ref().map(|proof| &*proof.identity)
    }

    /// For how long what says who calls still holds, if that ends.
    pub fn holds_for(&self) -> Option<Duration> {
        // Far more than a connection lives, and far less than where adding to an instant overflows.
        const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
        let end = self.identity()?.claims().expires?;
        Some(Duration::from_secs(end.saturating_sub(time::unix_now())).min(LONGEST))
    }

    /// What limits gave the call, and tell its client; nothing where none was asked.
    pub fn pass(&mut self) -> Option<&mut Pass> {
        self.pass.as_deref_mut()
    }

    /// Tells a backend who calls, by metadata that no client can write, and takes out what could have said it and was
    /// not checked: clients have other ways to send metadata than the headers that the gate sees.
    pub fn tell(&self, metadata: &mut HeaderMap) {
        if let Some(proof) = &self.proof {
            proof.tell(metadata);
        }
    }
}

/// The gate of one method on one route, for one worker. It sees heads only, so that one gate serves every dialect.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    desk: Option<Arc<Desk>>,
    access: Option<Arc<Access>>,
    /// Other origins whose pages may call with cookies.
    pages: Vec<HeaderValue>,
    throttle: Option<Arc<Throttle>>,
}

/// What the gate found out about a caller, and what it decided.
#[derive(Debug)]
pub struct Decision {
    permit: Permit,
    /// The rule that let the caller in, if there are rules.
    pub rule: Option<String>,
    /// Why the call is refused.
    pub refusal: Option<Fault>,
}

impl Decision {
    /// Who calls, if that was proven.
    pub fn identity(&self) -> Option<&Identity> {
        self.permit.identity()
    }

    /// What a backend would be told.
    pub fn tell(&self, metadata: &mut HeaderMap) {
        self.permit.tell(metadata);
    }
}

impl Gate {
    /// A gate at which callers prove at `desk` who they are, and which lets those in whom `access` allows.
    pub fn new(desk: Option<Arc<Desk>>, access: Option<Arc<Access>>, pages: Vec<HeaderValue>) -> Self {
        Self {
            desk,
            access,
            pages,
            throttle: None,
        }
    }

    /// The same gate, which asks these limits last.
    #[must_use]
    pub fn throttled(self, throttle: Option<Arc<Throttle>>) -> Self {
        Self { throttle, ..self }
    }

    /// Admits a call. A route without a policy admits every call whose head is in order, which the listener has seen to.
    ///
    /// # Errors
    /// The policy's refusal.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn admit(&self, head: &mut Parts, peer: &Peer, now: Instant) -> Result<Permit, Fault> {
        let proof = self
            .authenticate(head, peer)
            .await
            .map_err(|no| self.fault(&no))?;
        let identity = proof.as_ref().map(|proof| &*proof.identity);
        self.authorise(identity).map_err(|no| self.fault(&no))?;
        let pass = match &self.throttle {
            None => None,
            Some(throttle) => {
                let pass = throttle.admit(caller(head, peer, identity), now).await?;
                Some(Box::new(pass))
            }
        };
        Ok(Permit { proof, pass })
    }

    /// The same steps, told one by one instead of taken.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn explain(&self, head: &mut Parts, peer: &Peer) -> Decision {
        let decision = |proof, rule, refusal: Option<Refusal>| Decision {
            permit: Permit { proof, pass: None },
            rule,
            refusal: refusal.map(|refusal| self.fault(&refusal)),
        };
        let proof = match self.authenticate(head, peer).await {
            Ok(proof) => proof,
            Err(refusal) => return decision(None, None, Some(refusal)),
        };
        let (rule, refusal) = match self.authorise(proof.as_ref().map(|proof| &*proof.identity)) {
            Ok(rule) => (rule.map(|rule| rule.name.clone()), None),
            Err(refusal) => (None, Some(refusal)),
        };
        decision(proof, rule, refusal)
    }

    async fn authenticate(&self, head: &mut Parts, peer: &Peer) -> Result<Option<Proof>, Refusal> {
        match &self.desk {
            None => Ok(None),
            Some(desk) => desk
                .identify(head, peer, &self.pages, time::unix_now())
                .await
                .map(Some),
        }
    }

    fn authorise(&self, identity: Option<&Identity>) -> Result<Option<&access::Rule>, Refusal> {
        match (&self.access, identity) {
            (None, _) => Ok(None),
            (Some(access), Some(identity)) => Ok(access.decide(identity).map(Some)?),
            // Rules speak about callers; without a way to prove who calls there is none.
            (Some(_), None) => Err(access::Denied { scopes: Vec::new() }.into()),
        }
    }

    /// The fault that a client sees.
    fn fault(&self, refusal: &Refusal) -> Fault {
        match &self.desk {
            None => refusal.fault("", &[]),
            Some(desk) => refusal.fault(desk.authenticator().realm(), desk.authenticator().challenges()),
        }
    }
}

/// What limits know of a caller.
fn caller<'a>(head: &'a Parts, peer: &'a Peer, identity: Option<&'a Identity>) -> Caller<'a> {
    Caller {
        identity,
        peer,
        headers: &head.headers,
        method: head.method.as_str(),
    }
}
