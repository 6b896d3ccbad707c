//! What no single value of a `block` shows.

use http::HeaderName;

use super::Check;
use crate::config::diagnostic::Diagnostic;
use crate::config::file::Block;
use crate::config::located::Located;

impl Check<'_> {
    pub(super) fn block(&self, rules: &[Located<Block>], found: &mut Vec<Diagnostic>) {
        for rule in rules {
            for (name, pattern) in &rule.headers {
                if name.parse::<HeaderName>().is_err() {
                    let message = format!("\"{name}\" is not the name of a header");
                    found.push(self.key_error(pattern.spot, message));
                }
            }
            let nothing = rule.path.is_none()
                && rule.query.is_none()
                && rule.user_agent.is_none()
                && rule.headers.is_empty();
            // What is there and wrong was told.
            let told = ["path", "query", "user_agent", "headers"]
                .iter()
                .any(|key| self.file.origin.has(rule.spot, key));
            if nothing && !told {
                let message =
                    "has no pattern, and would block everything; write path, query, user_agent or headers";
                found.push(self.error(rule.spot, message));
            }
        }
    }
}
