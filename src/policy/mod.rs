//! The gate: decides on the request head, before a body is read, whether a call may go upstream.

use std::fmt;

use crate::fault::{Fault, Kind};

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

/// What the gate knows of the process at the moment of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    Enough,
    /// Memory is nearly gone: new calls are turned away so that those in flight can finish.
    None,
}

/// The gate of one route.
#[derive(Clone, Debug, Default)]
pub struct Gate {}

impl Gate {
    /// Admits a call, or says why not.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] when there is no room.
    pub fn admit(&self, room: Room) -> Result<Permit, Fault> {
        match room {
            Room::Enough => Ok(Permit(())),
            Room::None => Err(
                Fault::gateway(Kind::Overloaded, "the gateway is short of memory; try again")
                    .retry_after(std::time::Duration::from_secs(1)),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_room_nobody_is_admitted() {
        let gate = Gate::default();
        assert!(gate.admit(Room::Enough).is_ok());
        let fault = gate.admit(Room::None).unwrap_err();
        assert_eq!(fault.kind(), Kind::Overloaded);
        assert!(fault.delay().is_some());
    }
}
