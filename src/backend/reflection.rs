//! Server reflection as a backend: the gateway itself answers, from what it exposes.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream;
use http::HeaderMap;
use tower::Service;

use crate::call::{Call, Reply};
use crate::fault::Fault;
use crate::limits::Limits;
use crate::route::entry::{Bound, Entry, Route, Streaming};
use crate::schema::exposed::{Exposed, SERVICES};
use crate::schema::rules::Rules;
use crate::schema::{Idempotency, Method, MethodKind, Schema, embedded};
use crate::status::Status;
use crate::translate::binding::{Binding, BindingOptions};
use crate::translate::json::{JsonOptions, Transcoder};
use crate::translate::messages::Direction;
use crate::translate::{Bounds, End, Messages, Part};

/// Answers the reflection protocol; its versions are the same on the wire.
#[derive(Clone, Debug)]
pub struct Reflection(Exposed);

impl Reflection {
    /// Answers from what is exposed.
    pub fn new(exposed: Exposed) -> Self {
        Self(exposed)
    }
}

impl Service<Call> for Reflection {
    type Response = Reply;
    type Error = Fault;
    type Future = Ready<Result<Reply, Fault>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let (bounds, tally) = (call.messages.bounds(), Arc::clone(call.messages.tally()));
        let dialogue = Some((self.clone(), call.messages));
        let parts = stream::try_unfold(dialogue, async |dialogue| {
            let Some((reflection, mut questions)) = dialogue else {
                return Ok(None);
            };
            Ok(Some(match questions.next().await? {
                Some(Part::Message(question)) => {
                    let answer = reflection.0.answer(&question);
                    (Part::Message(answer.into()), Some((reflection, questions)))
                }
                Some(Part::End(_)) | None => (Part::End(End::new(Status::OK)), None),
            }))
        });
        let messages = Messages::stream(Box::pin(parts), Direction::Reply, bounds, tally);
        ready(Ok(Reply {
            metadata: HeaderMap::new(),
            messages,
        }))
    }
}

/// The methods of server reflection as entries of a route of their own.
pub fn entries(limits: &Limits) -> Vec<Arc<Entry>> {
    // What is embedded compiles, or `embedded_reflection_is_complete` fails; without it, reflection is not offered.
    let Ok(schema) = Schema::from_files(embedded::files().map(|(_, file)| file).collect(), &Rules::empty())
    else {
        return Vec::new();
    };
    let Ok(json) = Transcoder::compile(&schema, JsonOptions::default()) else {
        return Vec::new();
    };
    let route = Arc::new(Route {
        name: "reflection".to_owned(),
        backend: usize::MAX,
        hosts: Vec::new(),
        json: JsonOptions::default(),
        streaming: Streaming::default(),
        unary_timeout: limits.request_timeout,
        stream_timeout: None,
        bounds: Bounds {
            max_message_bytes: limits.max_message_bytes,
            max_decompression_ratio: limits.max_decompression_ratio,
        },
        cors: None,
        auth: None,
    });
    SERVICES
        .iter()
        .filter_map(|service| method(&schema, service))
        .filter_map(|method| {
            let rpc = Binding::rpc(&method, &json, &BindingOptions::default()).ok()?;
            Some(Arc::new(Entry {
                route: Arc::clone(&route),
                bindings: Vec::new(),
                rpc: Bound::new(rpc, &method),
                json: json.clone(),
                access: None,
                method: Arc::new(method),
            }))
        })
        .collect()
}

/// The one method of a reflection service. A schema does not list it, since no backend's own is exposed.
fn method(schema: &Schema, service: &str) -> Option<Method> {
    let method = schema.pool.get_service_by_name(service)?.methods().next()?;
    Some(Method {
        path: format!("/{service}/{}", method.name()).into(),
        service: service.into(),
        name: method.name().into(),
        kind: MethodKind::Bidi,
        input: method.input(),
        output: method.output(),
        idempotency: Idempotency::NoSideEffects,
        rules: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::exposed::PATHS;

    #[test]
    fn embedded_reflection_is_complete() {
        let paths: Vec<_> = entries(&Limits::default())
            .iter()
            .map(|entry| entry.method.path.to_string())
            .collect();
        assert_eq!(paths, PATHS);
    }
}
