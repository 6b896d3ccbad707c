//! The gate: decides on the request head, before a body is read, whether a call may go upstream.

use std::fmt;

use http::request::Parts;

use crate::fault::Fault;
use crate::peer::Peer;

/// The gate's word that a call may go upstream. Only the gate makes one.
///
/// ```compile_fail
/// let permit = sabir::policy::Permit(());
/// ```
pub struct Permit(());

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Permit")
    }
}

/// The gate of one route. It sees heads only, so that one gate serves every dialect.
#[derive(Clone, Debug, Default)]
pub struct Gate {}

impl Gate {
    /// Admits a call. A route without a policy admits every call whose head is in order, which the listener has seen to.
    ///
    /// # Errors
    /// The policy's refusal.
    pub fn admit(&self, _head: &Parts, _peer: &Peer) -> Result<Permit, Fault> {
        Ok(Permit(()))
    }
}
