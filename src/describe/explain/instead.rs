//! Who answers where a backend can't.

use super::{Explanation, Taken, endpoints, value};
use crate::config::plan::Backend;
use crate::route::relay::Page;
use crate::wire::envelope;

impl Explanation<'_> {
    /// The backend that is asked instead of `backend`, if there is one.
    fn other(&self, backend: &Backend) -> Option<String> {
        let other = self.plan.backends.get(backend.fallback?)?;
        Some(format!("backend \"{}\", {}", other.name, endpoints(other)))
    }

    /// Who answers a call that `backend` can't answer, one after the other.
    pub(super) fn instead_of_call(&self, backend: &Backend, taken: &Taken<'_>) -> Vec<String> {
        let fixed = taken.entry.answer.as_ref().and_then(|answer| {
            let message = answer.0.get(envelope::PREFIX..)?;
            let output = taken.entry.method.output.full_name();
            // What can't be shown is there all the same.
            Some(
                value(taken.entry, output, message).map_or_else(|_| String::new(), |value| value.to_string()),
            )
        });
        let fixed = fixed.map(|answer| format!("the fixed answer {answer}"));
        self.other(backend).into_iter().chain(fixed).collect()
    }

    /// Who answers a request of plain HTTP that `backend` can't answer, one after the other.
    pub(super) fn instead_of_request(&self, backend: &Backend) -> Vec<String> {
        let page = backend.page.as_ref().map(|page| {
            let Page {
                status,
                content_type,
                body,
            } = page;
            let kind = content_type.to_str().unwrap_or_default();
            format!("the fixed answer {status}, {} bytes of {kind}", body.len())
        });
        self.other(backend).into_iter().chain(page).collect()
    }
}
