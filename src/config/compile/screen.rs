//! What `addresses`, `block` and `errors` come to.

use std::sync::Arc;

use super::place;
use crate::config::file::{self, Addresses, Block, File};
use crate::config::located::Located;
use crate::translate::hygiene::{DebugInfo, Hygiene, ServerMessages};
use crate::wire::screen::{Rule, Screen};

pub(in crate::config) fn screen(file: &File, addresses: &Addresses, block: &[Located<Block>]) -> Screen {
    Screen {
        allow: addresses.allow.iter().map(|network| network.0).collect(),
        deny: addresses.deny.iter().map(|network| network.0).collect(),
        rules: block
            .iter()
            .enumerate()
            .map(|(at, written)| rule(place(file, written.spot, &format!("block[{at}]")), written))
            .collect(),
    }
}

/// The screen of a route, if it has one.
pub(in crate::config) fn route_screen(file: &File, written: &file::Route) -> Option<Arc<Screen>> {
    let screen = screen(file, &written.addresses, &written.block);
    (!screen.is_empty()).then(|| Arc::new(screen))
}

fn rule(name: String, written: &Block) -> Rule {
    Rule {
        name,
        path: written.path.as_ref().map(|pattern| pattern.0.clone()),
        query: written.query.as_ref().map(|pattern| pattern.0.clone()),
        user_agent: written.user_agent.as_ref().map(|pattern| pattern.0.clone()),
        headers: written
            .headers
            .iter()
            // The file was refused for names that are none.
            .filter_map(|(name, pattern)| Some((name.parse().ok()?, pattern.0.clone())))
            .collect(),
    }
}

pub(in crate::config) fn hygiene(written: &file::Errors) -> Hygiene {
    Hygiene {
        debug_info: if written.debug_info {
            DebugInfo::Told
        } else {
            DebugInfo::Stripped
        },
        server_messages: match written.server_messages {
            file::ServerMessages::Keep => ServerMessages::Told,
            file::ServerMessages::Replace => ServerMessages::Replaced,
        },
    }
}
