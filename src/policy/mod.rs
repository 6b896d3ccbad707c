//! The gate: decides on the request head, before a body is read, whether a call may go upstream.
//!
//! [`Gate::admit`] is a list of steps: whether there is time for it, who is kept out, who calls, may it,
//! how often. What an `auth` block of the configuration comes to is [`Setup`];
//! it becomes an [`auth::Authenticator`], which all workers share, at a [`Desk`] of each.

pub mod access;
pub mod api_keys;
pub mod auth;
mod cache;
mod certificate;
pub mod condition;
pub mod credential;
mod ext_authz;
pub mod facts;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod identity;
mod introspection;
mod json;
pub mod jwks;
pub mod jwt;
pub mod passwords;
#[cfg(feature = "redis")]
pub mod redis;
pub mod refusal;
mod remote;
pub mod revocation;
pub mod setup;
pub mod throttle;
pub mod tickets;
pub mod time;

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tokio::time::Instant;

pub use access::Access;
use access::Ruling;
pub use auth::Desk;
use auth::Proof;
pub use credential::Carried;
use credential::is_form;
use ext_authz::Grant;
pub(crate) use ext_authz::may_change;
use facts::{Facts, MAX_READ_BYTES, RequestFacts};
pub use identity::Identity;
pub use refusal::Refusal;
pub use revocation::Standing;
pub use setup::Setup;
use throttle::{Caller, Limit, OwnThrottles, Pass, Priority, Shedder, Throttle};

use crate::fault::{Fault, Kind};
use crate::listen::forwarded;
use crate::peer::Peer;
use crate::wire::screen::Screen;

/// The gate's word that a call may go upstream. Only the gate makes one.
///
/// ```compile_fail
/// let permit = sabir::policy::Permit { proof: None, grant: None, pending: None, pass: None };
/// ```
#[derive(Debug)]
pub struct Permit {
    proof: Option<Box<Proof>>,
    /// What an authorization service has changed.
    grant: Option<Arc<Grant>>,
    /// What the first message has to say before the call goes anywhere.
    pending: Option<Box<Pending>>,
    /// What limits gave and tell; nothing where the route has none.
    pass: Option<Box<Pass>>,
}

/// Rules of which one has to let the first message pass.
#[derive(Debug)]
struct Pending {
    access: Arc<Access>,
    rules: Vec<usize>,
    request: Box<RequestFacts>,
    realm: String,
}

impl Permit {
    /// Whether the first message still has to be judged. Until then the call goes nowhere.
    pub fn waits_for_message(&self) -> bool {
        self.pending.is_some()
    }

    /// Judges the first message of a call, of the type `input`; nothing if the client sent none.
    ///
    /// # Errors
    /// No rule lets it pass, or it is no such message.
    pub fn judge(&mut self, input: &MessageDescriptor, message: Option<&[u8]>) -> Result<(), Fault> {
        let Some(pending) = self.pending.take() else {
            return Ok(());
        };
        let outcome = self.decide(&pending, input, message);
        if outcome.is_err() {
            // What was refused once is not let pass because somebody goes on.
            self.pending = Some(pending);
        }
        outcome
    }

    fn decide(
        &self,
        pending: &Pending,
        input: &MessageDescriptor,
        message: Option<&[u8]>,
    ) -> Result<(), Fault> {
        let denied = |denied| Refusal::Denied(denied).fault(&pending.realm, &[]);
        let (Some(identity), Some(message)) = (self.identity(), message) else {
            return Err(denied(access::Denied { scopes: Vec::new() }));
        };
        if message.len() > MAX_READ_BYTES {
            return Err(Fault::client(
                Kind::MessageTooLarge,
                format!(
                    "the message has {} bytes, and a rule that decides about it reads up to {MAX_READ_BYTES}",
                    message.len()
                ),
            ));
        }
        let message = DynamicMessage::decode(input.clone(), message).map_err(|error| {
            Fault::client(
                Kind::InvalidArgument,
                "the message is not one of the method's type",
            )
            .caused_by(error)
        })?;
        let facts = Facts {
            request: &pending.request,
            identity,
            message: Some(&message),
        };
        let rule = pending
            .access
            .decide_by_message(&pending.rules, facts)
            .map_err(denied)?;
        tracing::trace!(rule = rule.name, "the first message is let pass");
        Ok(())
    }

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

    /// By which the call goes on for as long as the token is not revoked; nothing where none can be.
    pub fn standing(&self) -> Option<Standing> {
        self.proof.as_ref()?.standing()
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
        if let Some(grant) = &self.grant {
            grant.apply(metadata);
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
    /// Whether forms are taken where a cookie says who calls.
    forms: bool,
    screen: Option<Arc<Screen>>,
    throttle: Option<Arc<Throttle>>,
    /// Limits of callers' own; nothing where no caller has any.
    own_throttles: Option<Arc<OwnThrottles>>,
    shedder: Option<(Arc<Shedder>, Priority)>,
}

/// What the gate found out about a caller, and what it decided.
#[derive(Debug)]
pub struct Decision {
    permit: Permit,
    /// The rule that let the caller in, if there are rules.
    pub rule: Option<String>,
    /// The rules of which one has to let the first message pass.
    pub by_message: Vec<String>,
    /// The rule that blocks the request.
    pub blocked_by: Option<String>,
    /// Why the call is refused.
    pub refusal: Option<Fault>,
}

impl Decision {
    /// Who calls, if that was proven.
    pub fn identity(&self) -> Option<&Identity> {
        self.permit.identity()
    }

    /// The limits that the caller brings with it.
    pub fn own_limits(&self) -> &[Limit] {
        let proof = self.permit.proof.as_deref();
        proof.map_or(&[], Proof::own_limits)
    }

    /// What a backend would be told.
    pub fn tell(&self, metadata: &mut HeaderMap) {
        self.permit.tell(metadata);
    }
}

/// What the steps have found so far.
#[derive(Default)]
struct Found<'g> {
    proof: Option<Proof>,
    grant: Option<Arc<Grant>>,
    ruling: Option<Ruling<'g>>,
}

impl Found<'_> {
    fn identity(&self) -> Option<&Identity> {
        self.proof.as_ref().map(|proof| &*proof.identity)
    }

    fn permit(self, gate: &Gate) -> Permit {
        let pending = match (self.ruling, &gate.access) {
            (Some(Ruling::ByMessage(rules, request)), Some(access)) => Some(Box::new(Pending {
                access: Arc::clone(access),
                rules,
                request,
                realm: gate.realm().to_owned(),
            })),
            (Some(Ruling::ByMessage(..) | Ruling::Allowed(_)) | None, _) => None,
        };
        Permit {
            proof: self.proof.map(Box::new),
            grant: self.grant,
            pending,
            pass: None,
        }
    }
}

impl Gate {
    /// A gate at which callers prove at `desk` who they are, and which lets those in whom `access` allows.
    pub fn new(desk: Option<Arc<Desk>>, access: Option<Arc<Access>>, pages: Vec<HeaderValue>) -> Self {
        Self {
            desk,
            access,
            pages,
            forms: false,
            screen: None,
            throttle: None,
            own_throttles: None,
            shedder: None,
        }
    }

    /// The same gate, of a route whose backend reads forms, and looks after them.
    #[must_use]
    pub fn taking_forms(self) -> Self {
        Self { forms: true, ..self }
    }

    /// The same gate, which lets nobody in whom this bars.
    #[must_use]
    pub fn screened(self, screen: Option<Arc<Screen>>) -> Self {
        Self { screen, ..self }
    }

    /// Where those whom this gate knows get tickets, if they do.
    pub fn ticket_path(&self) -> Option<&str> {
        let desk = self.desk.as_ref()?;
        Some(desk.authenticator().tickets()?.path())
    }

    /// Whether a client may say who it is after its WebSocket is open.
    pub fn takes_first_message(&self) -> bool {
        let desk = self.desk.as_ref();
        desk.is_some_and(|desk| desk.authenticator().takes_first_message())
    }

    /// A ticket for a caller whom this gate has admitted; nothing if too many are out.
    pub fn ticket(&self, permit: &Permit) -> Option<tickets::Ticket> {
        self.desk.as_ref()?.authenticator().ticket(permit)
    }

    /// The same gate, which asks these limits last.
    #[must_use]
    pub fn throttled(self, throttle: Option<Arc<Throttle>>) -> Self {
        Self { throttle, ..self }
    }

    /// The same gate, which asks these limits of callers' own beside them.
    #[must_use]
    pub fn throttled_by_caller(self, own_throttles: Option<Arc<OwnThrottles>>) -> Self {
        Self {
            own_throttles,
            ..self
        }
    }

    /// The same gate, whose calls are of this class where load is shed.
    #[must_use]
    pub fn sheddable(self, shedder: Option<&Arc<Shedder>>, priority: Priority) -> Self {
        // What is never shed need not ask.
        let shedder = shedder.filter(|_| priority != Priority::Critical);
        Self {
            shedder: shedder.map(|shedder| (Arc::clone(shedder), priority)),
            ..self
        }
    }

    /// Admits a call. A route without a policy admits every call whose head is in order, which the listener has seen to.
    ///
    /// # Errors
    /// The policy's refusal.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn admit(&self, head: &mut Parts, peer: &Peer, now: Instant) -> Result<Permit, Fault> {
        // Before anything that costs.
        if let Some((shedder, priority)) = &self.shedder {
            shedder.admit(*priority)?;
        }
        let mut found = Found::default();
        self.judge(head, peer, &mut found)
            .await
            .map_err(|no| self.fault(&no))?;
        let pass = match (self.throttle.as_ref(), self.own_throttle(found.identity())) {
            (None, None) => None,
            (route, own) => {
                let caller = caller(head, peer, found.identity());
                throttle::admit(route, own, caller, now).await?.map(Box::new)
            }
        };
        Ok(Permit {
            pass,
            ..found.permit(self)
        })
    }

    /// The same steps, told one by one instead of taken.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn explain(&self, head: &mut Parts, peer: &Peer) -> Decision {
        let mut found = Found::default();
        let refusal = self.judge(head, peer, &mut found).await.err();
        let blocked_by = match &refusal {
            Some(Refusal::Blocked(rule)) => Some(rule.clone()),
            Some(_) | None => None,
        };
        Decision {
            blocked_by,
            rule: match &found.ruling {
                Some(Ruling::Allowed(rule)) => Some(rule.name.clone()),
                Some(Ruling::ByMessage(..)) | None => None,
            },
            by_message: match (&found.ruling, &self.access) {
                (Some(Ruling::ByMessage(rules, _)), Some(access)) => {
                    let rules = rules.iter().filter_map(|at| access.rules.get(*at));
                    rules.map(|rule| rule.name.clone()).collect()
                }
                (Some(Ruling::ByMessage(..) | Ruling::Allowed(_)) | None, _) => Vec::new(),
            },
            permit: found.permit(self),
            refusal: refusal.map(|refusal| self.fault(&refusal)),
        }
    }

    /// Takes the steps, and notes what each of them finds.
    async fn judge<'g>(
        &'g self,
        head: &mut Parts,
        peer: &Peer,
        found: &mut Found<'g>,
    ) -> Result<(), Refusal> {
        if let Some(screen) = &self.screen {
            let client = forwarded::client_ip(peer, &head.headers, peer.believed());
            screen.check(head, client)?;
        }
        let Some(desk) = &self.desk else {
            found.ruling = self.authorise(None, head, peer)?;
            return Ok(());
        };
        let now = time::unix_now();
        found.proof = desk.identify(head, peer, &self.pages, now).await?;
        if !self.forms && found.proof.as_ref().is_some_and(|proof| proof.by_cookie) && is_form(&head.headers)
        {
            return Err(Refusal::Form);
        }
        let named = found.proof.is_some();
        if named {
            // What can be decided here is, before anybody else is asked.
            found.ruling = self.authorise(found.identity(), head, peer)?;
        }
        if let Some(checkpoint) = desk.checkpoint() {
            // Boxed: it is large, and not on every path.
            let passed = Box::pin(checkpoint.pass(head, peer, found.identity(), now)).await?;
            if !named {
                found.proof = desk.named(&passed);
            }
            found.grant = passed.grant;
        }
        if !named {
            found.ruling = self.authorise(found.identity(), head, peer)?;
        }
        Ok(())
    }

    fn authorise(
        &self,
        identity: Option<&Identity>,
        head: &Parts,
        peer: &Peer,
    ) -> Result<Option<Ruling<'_>>, Refusal> {
        match (&self.access, identity) {
            (None, _) => Ok(None),
            (Some(access), Some(identity)) => {
                let request = || RequestFacts::of(head, peer);
                Ok(access.decide(identity, request).map(Some)?)
            }
            // Rules speak about callers; without a way to prove who calls there is none.
            (Some(_), None) => Err(access::Denied { scopes: Vec::new() }.into()),
        }
    }

    /// The limits of the caller's own, if it has some.
    fn own_throttle(&self, identity: Option<&Identity>) -> Option<&Arc<Throttle>> {
        self.own_throttles.as_ref()?.of(identity?.own_limits()?)
    }

    fn realm(&self) -> &str {
        self.desk.as_ref().map_or("", |desk| desk.authenticator().realm())
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
