//! `sabir backends`: the endpoints of a running gateway and how each of them is.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;
use tokio::runtime::Builder;

use super::operator::Which;
use super::{Failure, answer};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The backend. Default: all of them.
    name: Option<String>,
    #[command(flatten)]
    which: Which,
}

impl Arguments {
    /// Ends with 1 where a backend has no endpoint that takes calls.
    pub(super) fn run(self) -> Result<(), Failure> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let told = runtime.block_on(async {
            let operator = self.which.operator()?;
            operator.get("/v1/backends").await.map_err(Failure::from)
        })?;
        let backends = told["backends"].as_array().into_iter().flatten();
        let wanted =
            |backend: &&Value| self.name.is_none() || backend["name"].as_str() == self.name.as_deref();
        let backends: Vec<&Value> = backends.filter(wanted).collect();
        if let (Some(name), []) = (&self.name, backends.as_slice()) {
            return Err(Failure::Failed(format!("the gateway has no backend \"{name}\"")));
        }
        answer(table(&backends))?;
        if backends.iter().all(|backend| number(&backend["healthy"]) > 0) {
            return Ok(());
        }
        Err(Failure::Refused)
    }
}

/// A line for each backend, and below it one for each of its endpoints.
fn table(backends: &[&Value]) -> String {
    let mut text = String::new();
    for backend in backends {
        let endpoints = backend["endpoints"].as_array().map_or(&[][..], Vec::as_slice);
        let mut notes = String::new();
        if let Some(circuit) = backend["circuit"].as_str() {
            notes += &format!(", circuit {circuit}");
        }
        if backend["panics"] == true {
            notes += ", so few are healthy that all are called";
        }
        if let Some(pending) = backend["schemaPending"].as_str() {
            notes += &format!(", schema: {pending}");
        }
        // Writing into a string can't fail.
        let _ = writeln!(
            text,
            "{}: {} of {} healthy, {}{notes}",
            word(&backend["name"]),
            number(&backend["healthy"]),
            endpoints.len(),
            word(&backend["loadBalancing"]),
        );
        let width = endpoints
            .iter()
            .map(|endpoint| word(&endpoint["url"]).len())
            .max();
        for endpoint in endpoints {
            let _ = writeln!(
                text,
                "  {:width$}  {:10}  {} in flight, {} calls{}",
                word(&endpoint["url"]),
                state(endpoint),
                number(&endpoint["inFlight"]),
                number(&endpoint["calls"]),
                ejections(endpoint),
                width = width.unwrap_or_default(),
            );
        }
    }
    text
}

fn state(endpoint: &Value) -> &'static str {
    let is = |key: &str| endpoint[key] == true;
    match (is("down"), is("ejected"), is("warmingUp")) {
        (true, _, _) => "down",
        (false, true, _) => "ejected",
        (false, false, true) => "warming up",
        (false, false, false) => "healthy",
    }
}

fn ejections(endpoint: &Value) -> String {
    let reasons = endpoint["ejections"].as_object().into_iter().flatten();
    let reasons: Vec<String> = reasons
        .map(|(reason, times)| format!("{} by {reason}", number(times)))
        .collect();
    if reasons.is_empty() {
        return String::new();
    }
    format!(", ejected: {}", reasons.join(", "))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

/// A number as ProtoJSON writes it: 64 bits are a text, and none is zero.
fn number(value: &Value) -> u64 {
    let text = value.as_str().and_then(|text| text.parse().ok());
    text.or(value.as_u64()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_how_an_endpoint_is() {
        let backend = json!({"name": "library", "healthy": 1, "loadBalancing": "least_request", "circuit": "half open",
        "panics": true, "endpoints": [
            {"url": "http://a:1/", "inFlight": "2", "healthy": true, "warmingUp": true, "calls": "10"},
            {"url": "http://bb:1/", "ejected": true, "ejections": {"consecutive": "3"}},
            {"url": "http://c:1/", "down": true, "ejected": true},
        ]});
        assert_eq!(
            table(&[&backend]),
            "library: 1 of 3 healthy, least_request, circuit half open, so few are healthy that all are called\n\
             \x20 http://a:1/   warming up  2 in flight, 10 calls\n\
             \x20 http://bb:1/  ejected     0 in flight, 0 calls, ejected: 3 by consecutive\n\
             \x20 http://c:1/   down        0 in flight, 0 calls\n"
        );
    }
}
