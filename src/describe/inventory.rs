//! What a plan consists of, piece by piece, so that two plans can be compared: across processes too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::Plan;
use crate::route::entry::Doubt;
use crate::route::relay::Action;
use crate::schema::HttpMethod;

/// The pieces of a plan by what they are called, each with what it is like: `backend library`, `route library.v1.*`,
/// `method library.v1.Library/GetBook`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory(BTreeMap<String, String>);

impl Inventory {
    /// Of a plan.
    pub fn of(plan: &Plan) -> Self {
        let mut pieces = BTreeMap::new();
        for (at, listener) in plan.listeners.iter().enumerate() {
            let first = !plan
                .listeners
                .iter()
                .take(at)
                .any(|other| other.address == listener.address);
            let number = if first { String::new() } else { format!(" ({at})") };
            pieces.insert(format!("listener {}{number}", listener.address), digest(listener));
        }
        pieces.insert("limits".to_owned(), digest(&plan.limits));
        for backend in &plan.backends {
            pieces.insert(format!("backend {}", backend.name), digest(backend));
        }
        for (backend, fingerprint) in plan.backends.iter().zip(&plan.schemas) {
            // Types that a method uses, and do not show in its own name and rules.
            let text = fingerprint.map_or_else(|| "unknown".to_owned(), |print| format!("{print:016x}"));
            pieces.insert(format!("schema of backend {}", backend.name), text);
        }
        for setup in &plan.auth {
            pieces.insert(format!("auth {}", setup.name), digest(setup));
        }
        for declared in &plan.declared {
            let mut route = (*declared.route).clone();
            let backend = plan.backends.get(route.backend).map(|backend| &backend.name);
            let auth = route.auth.and_then(|at| plan.auth.get(at)).map(|auth| &auth.name);
            let text = digest(&(backend, auth, &declared.services, &declared.path));
            // Numbers that count others say nothing about the route itself.
            (route.backend, route.auth) = (0, None);
            route.doubt = Doubt::default();
            pieces.insert(format!("route {}", route.name), text + &digest(&route));
        }
        for path in &plan.paths {
            let mut path = (**path).clone();
            let auth = path
                .auth
                .take()
                .and_then(|at| plan.auth.get(at))
                .map(|auth| &auth.name);
            let mut backends = Vec::new();
            if let Action::Relay(relay) = &mut path.action {
                let shares = relay.shares.iter_mut().map(|(at, _)| at);
                for at in shares.chain(relay.mirror.as_mut().map(|(at, _)| at)) {
                    backends.push(plan.backends.get(std::mem::take(at)).map(|backend| &backend.name));
                }
            }
            pieces.insert(format!("path {}", path.name), digest(&(backends, auth, &path)));
        }
        for entry in &plan.entries {
            let method = &entry.method;
            let mut text = format!("{:?} ", method.kind);
            for rule in &method.rules {
                let verb = match &rule.method {
                    HttpMethod::Exact(method) => method.as_str(),
                    HttpMethod::Any => "*",
                };
                // Writing to a string never fails.
                let _ = write!(
                    text,
                    "{verb} {} {} {};",
                    rule.template, rule.body, rule.response_body
                );
            }
            text.push_str(&digest(&(
                method.input.full_name(),
                method.output.full_name(),
                &method.idempotency,
                &entry.access,
                &entry.answer,
                entry.outbound.name(),
            )));
            let rpc = method.path.trim_start_matches('/');
            let name = format!("method {rpc} of route {}", entry.route.name);
            pieces.insert(name, text);
        }
        Self(pieces)
    }

    /// From what another process tells of its own.
    pub fn from_pieces(pieces: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pieces.into_iter().collect())
    }

    /// Names and what they are like.
    pub fn pieces(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// What another plan has in place of this one: `+` is new, `-` is gone, `~` is other than before.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let gone = self.0.keys().filter(|name| !other.0.contains_key(*name));
        let gone = gone.map(|name| (name, format!("- {name}")));
        let others = other.0.iter().filter_map(|(name, text)| match self.0.get(name) {
            None => Some((name, format!("+ {name}"))),
            Some(before) if before != text => Some((name, format!("~ {name}"))),
            Some(_) => None,
        });
        let mut all: Vec<_> = gone.chain(others).collect();
        all.sort();
        all.into_iter().map(|(_, line)| line).collect()
    }
}

/// FNV-1a over what the `Debug` form of a piece says: the same in every process of one release.
fn digest(piece: &dyn std::fmt::Debug) -> String {
    struct Hash(u64);
    impl std::fmt::Write for Hash {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            for byte in text.bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
            Ok(())
        }
    }
    let mut hash = Hash(0xcbf2_9ce4_8422_2325);
    // The hash takes whatever it is given.
    let _ = write!(hash, "{piece:?}");
    format!("{:016x}", hash.0)
}
