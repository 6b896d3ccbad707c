//! Tickets: what opens one WebSocket, for pages whose scripts can't set a header on the handshake.
//!
//! A ticket is random, is given to a caller who has proven who it is, holds for a short time and is taken once. Tickets
//! are the process's own: the gateway that gave one has to be the one that takes it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::cache::{Fingerprint, fingerprint};
use super::identity::Identity;
use super::setup::TicketSetup;

/// Random bytes of a ticket.
const TICKET_BYTES: usize = 32;
/// Tickets that are out at once.
const MAX_TICKETS: usize = 16_384;
/// Tickets of one caller that are out at once.
const MAX_EACH: usize = 256;

/// A ticket that was just given.
#[derive(Clone)]
pub struct Ticket {
    /// What opens the WebSocket.
    pub ticket: String,
    /// For how long it holds.
    pub holds_for: Duration,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("holds_for", &self.holds_for)
            .finish_non_exhaustive()
    }
}

/// The tickets of one `auth` block.
#[derive(Debug)]
pub struct Tickets {
    path: String,
    ttl: Duration,
    out: Mutex<Out>,
}

/// Those that are out.
#[derive(Debug, Default)]
struct Out {
    held: AHashMap<Fingerprint, Arc<Identity>>,
    /// In the order in which they end; some were taken since.
    ends: VecDeque<(u64, Fingerprint, Arc<Identity>)>,
    /// How many each caller has among `ends`.
    each: AHashMap<String, usize>,
}

impl Out {
    /// Forgets those that have ended.
    fn sweep(&mut self, now: u64) {
        while self.ends.front().is_some_and(|(end, ..)| *end <= now) {
            let Some((_, print, identity)) = self.ends.pop_front() else {
                return;
            };
            self.held.remove(&print);
            if let Some(count) = self.each.get_mut(identity.key()) {
                *count -= 1;
                if *count == 0 {
                    self.each.remove(identity.key());
                }
            }
        }
    }
}

impl Tickets {
    pub(super) fn new(setup: &TicketSetup) -> Self {
        Self {
            path: setup.path.clone(),
            ttl: setup.ttl,
            out: Mutex::default(),
        }
    }

    /// Where they are given, by POST.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A ticket for this caller; nothing if too many are out.
    pub(super) fn give(&self, identity: &Arc<Identity>, now: u64) -> Option<Ticket> {
        let mut random = [0; TICKET_BYTES];
        aws_lc_rs::rand::fill(&mut random).ok()?;
        let ticket = base64_simd::URL_SAFE_NO_PAD.encode_to_string(random);
        let print = fingerprint(ticket.as_bytes());
        let mut out = self.out.lock();
        out.sweep(now);
        let each = out.each.get(identity.key()).copied().unwrap_or(0);
        if out.ends.len() >= MAX_TICKETS || each >= MAX_EACH {
            return None;
        }
        out.each.insert(identity.key().to_owned(), each + 1);
        out.held.insert(print, Arc::clone(identity));
        let end = now.saturating_add(self.ttl.as_secs());
        out.ends.push_back((end, print, Arc::clone(identity)));
        Some(Ticket {
            ticket,
            holds_for: self.ttl,
        })
    }

    /// Whose ticket this is. It is none from then on.
    pub(super) fn redeem(&self, ticket: &str, now: u64) -> Option<Arc<Identity>> {
        let print = fingerprint(ticket.as_bytes());
        let mut out = self.out.lock();
        out.sweep(now);
        out.held.remove(&print)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::identity::{Claims, Source};

    fn caller(name: &str) -> Arc<Identity> {
        let claims = Claims {
            principal: name.to_owned(),
            issuer: None,
            source: Source::ApiKey,
            scopes: Vec::new(),
            roles: Vec::new(),
            others: serde_json::Map::new(),
            expires: None,
        };
        Arc::new(Identity::new(claims, &[]))
    }

    fn tickets() -> Tickets {
        Tickets::new(&TicketSetup {
            path: "/tickets".into(),
            ttl: Duration::from_secs(30),
        })
    }

    #[test]
    fn a_ticket_is_taken_once_and_not_after_its_end() {
        let tickets = tickets();
        let (ada, bob) = (caller("ada"), caller("bob"));
        let first = tickets.give(&ada, 100).unwrap().ticket;
        let second = tickets.give(&bob, 100).unwrap().ticket;
        assert_ne!(first, second);
        assert_eq!(tickets.redeem(&first, 129).unwrap().principal(), "ada");
        assert!(tickets.redeem(&first, 129).is_none(), "it was taken");
        assert!(tickets.redeem(&second, 130).is_none(), "it has ended");
        assert!(tickets.redeem("", 100).is_none());
        let out = tickets.out.lock();
        assert_eq!((out.held.len(), out.ends.len(), out.each.len()), (0, 0, 0));
    }

    #[test]
    fn no_caller_has_more_than_a_share_and_all_together_no_more_than_the_limit() {
        let tickets = tickets();
        let ada = caller("ada");
        for _ in 0..MAX_EACH {
            assert!(tickets.give(&ada, 100).is_some());
        }
        assert!(tickets.give(&ada, 129).is_none());
        let mut given = MAX_EACH;
        for number in 0.. {
            let who = caller(&number.to_string());
            let before = given;
            while tickets.give(&who, 100).is_some() {
                given += 1;
            }
            if given == before {
                break;
            }
        }
        assert_eq!(given, MAX_TICKETS);
        assert!(tickets.give(&ada, 130).is_some(), "the others have ended");
    }
}
