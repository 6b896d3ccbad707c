//! Whether the gateway serves, and what it still waits for.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use serde::Serialize;

/// How far the process is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not serving yet.
    #[default]
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is in flight.
    Draining,
}

/// The state of the process and the reasons why a part of it does not serve.
///
/// A reason does not make the process unready: a gateway that is ready serves all but what the reasons name.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Inner>);

#[derive(Clone, Debug, Default, Serialize)]
struct Inner {
    status: State,
    /// What is missing, and why.
    pending: BTreeMap<String, String>,
    /// Why the configuration that was read last is not in place: what is wrong with it, and where.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reload_errors: Vec<String>,
}

impl Readiness {
    /// A process that is starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.0.lock().status
    }

    /// Every listener accepts from now on. A process that drains does not become ready again.
    pub fn set_ready(&self) {
        let mut inner = self.0.lock();
        if inner.status == State::Starting {
            inner.status = State::Ready;
        }
    }

    /// The process is about to end.
    pub fn set_draining(&self) {
        self.0.lock().status = State::Draining;
    }

    /// What is waited for now, such as backends, and why.
    pub fn wait_for(&self, pending: BTreeMap<String, String>) {
        self.0.lock().pending = pending;
    }

    /// What is wrong with the configuration that was read last; nothing once it is in place.
    pub fn reloaded(&self, errors: Vec<String>) {
        self.0.lock().reload_errors = errors;
    }

    /// What is wrong with the configuration that was read last.
    pub fn reload_errors(&self) -> Vec<String> {
        self.0.lock().reload_errors.clone()
    }

    /// What is waited for now, and why.
    pub fn pending(&self) -> BTreeMap<String, String> {
        self.0.lock().pending.clone()
    }

    /// The state alone as a JSON object.
    pub fn state_to_json(&self) -> String {
        let status = self.0.lock().status;
        serde_json::json!({ "status": status }).to_string()
    }

    /// The state and the reasons as a JSON object: `{"status":"ready","pending":{"library":"connection refused"}}`.
    pub fn to_json(&self) -> String {
        let inner = self.0.lock().clone();
        // A map of strings always has a JSON form; were it not so, the state alone is still true.
        serde_json::to_string(&inner).unwrap_or_else(|_| "{}".to_owned())
    }
}
