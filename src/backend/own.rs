//! The methods that the gateway answers itself, as entries of routes of their own.

use std::sync::Arc;

use crate::limits::Limits;
use crate::policy::throttle::Checks;
use crate::route::entry::{
    Bound, Doubt, Entry, Offer, Outbound, Route, StreamEnvelope, Streaming, WebSocket,
};
use crate::schema::exposed::{HEALTH, SERVICES};
use crate::schema::rules::Rules;
use crate::schema::{Idempotency, Method, MethodKind, Schema, embedded};
use crate::translate::binding::{Binding, BindingOptions};
use crate::translate::json::{JsonOptions, Transcoder};
use crate::translate::{Bounds, Hygiene};

/// A method that the gateway answers itself.
#[derive(Clone, Debug)]
pub struct Own {
    /// The method, as if it were routed.
    pub entry: Arc<Entry>,
    /// Who answers.
    pub answers: Answers,
}

/// Which part of the gateway answers a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// What is exposed.
    Reflection,
    /// What can be called.
    Health,
}

impl Answers {
    /// The name of the route in records and metrics.
    fn route(self) -> &'static str {
        match self {
            Self::Reflection => "reflection",
            Self::Health => "health",
        }
    }

    fn services(self) -> &'static [&'static str] {
        match self {
            Self::Reflection => &SERVICES,
            Self::Health => &[HEALTH],
        }
    }
}

/// Every one of them that is offered. `reflection` says whether that of reflection is, and to whom.
pub fn all(limits: &Limits, reflection: &Offer) -> Vec<Own> {
    // What is embedded compiles, or `what_is_embedded_is_complete` fails; without it, nothing of this is offered.
    let Ok(schema) = Schema::from_files(embedded::files().map(|(_, file)| file).collect(), &Rules::empty())
    else {
        return Vec::new();
    };
    let Ok(json) = Transcoder::compile(&schema, JsonOptions::default()) else {
        return Vec::new();
    };
    [Answers::Reflection, Answers::Health]
        .into_iter()
        .filter_map(|answers| {
            let auth = match (answers, reflection) {
                (Answers::Reflection, Offer::Nobody) => return None,
                (Answers::Reflection, Offer::Known(auth)) => Some(*auth),
                (Answers::Reflection, Offer::Anybody) | (Answers::Health, _) => None,
            };
            Some(of(answers, auth, &schema, &json, limits))
        })
        .flatten()
        .collect()
}

fn of(
    answers: Answers,
    auth: Option<usize>,
    schema: &Schema,
    json: &Transcoder,
    limits: &Limits,
) -> Vec<Own> {
    let route = Arc::new(Route {
        name: answers.route().to_owned(),
        backend: usize::MAX,
        hosts: Vec::new(),
        json: JsonOptions::default(),
        streaming: Streaming::default(),
        envelope: StreamEnvelope::default(),
        unary_timeout: limits.request_timeout,
        stream_timeout: None,
        bounds: Bounds {
            max_message_bytes: limits.max_message_bytes,
            max_decompression_ratio: limits.max_decompression_ratio,
        },
        websocket: WebSocket::of(limits),
        cors: None,
        auth,
        screen: None,
        hygiene: Hygiene::default(),
        doubt: Doubt::default(),
    });
    answers
        .services()
        .iter()
        .flat_map(|service| methods(schema, service))
        .filter_map(|method| {
            let rpc = Binding::rpc(&method, json, &BindingOptions::default()).ok()?;
            let entry = Arc::new(Entry {
                access: None,
                public: false,
                checks: Checks::default(),
                answer: None,
                route: Arc::clone(&route),
                bindings: Vec::new(),
                rpc: Bound::new(rpc, &method),
                json: json.clone(),
                outbound: Outbound::Grpc,
                method: Arc::new(method),
            });
            Some(Own { entry, answers })
        })
        .collect()
}

/// The methods of a service. A schema does not list those of reflection, since no backend's own is exposed.
fn methods(schema: &Schema, service: &str) -> Vec<Method> {
    let service = schema.pool.get_service_by_name(service);
    let methods = service.iter().flat_map(|service| service.methods());
    methods
        .map(|method| Method {
            path: format!("/{}/{}", method.parent_service().full_name(), method.name()).into(),
            service: method.parent_service().full_name().into(),
            name: method.name().into(),
            kind: match (method.is_client_streaming(), method.is_server_streaming()) {
                (false, false) => MethodKind::Unary,
                (false, true) => MethodKind::ServerStream,
                (true, false) => MethodKind::ClientStream,
                (true, true) => MethodKind::Bidi,
            },
            input: method.input(),
            output: method.output(),
            idempotency: Idempotency::NoSideEffects,
            rules: Vec::new(),
            policy: None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::exposed::PATHS;

    #[test]
    fn what_is_embedded_is_complete() {
        assert!(
            all(&Limits::default(), &Offer::Nobody)
                .iter()
                .all(|own| own.answers == Answers::Health)
        );
        let closed = all(&Limits::default(), &Offer::Known(3));
        for own in closed {
            let auth = (own.answers == Answers::Reflection).then_some(3);
            assert_eq!(own.entry.route.auth, auth);
        }
        let own = all(&Limits::default(), &Offer::Anybody);
        let paths: Vec<_> = own.iter().map(|own| &*own.entry.method.path).collect();
        let health = ["Check", "Watch", "List"].map(|method| format!("/{HEALTH}/{method}"));
        assert_eq!(
            paths,
            PATHS
                .into_iter()
                .chain(health.iter().map(String::as_str))
                .collect::<Vec<_>>()
        );
        let kinds: Vec<_> = own.iter().map(|own| own.entry.method.kind).collect();
        assert_eq!(
            kinds,
            [
                MethodKind::Bidi,
                MethodKind::Bidi,
                MethodKind::Unary,
                MethodKind::ServerStream,
                MethodKind::Unary
            ]
        );
    }
}
