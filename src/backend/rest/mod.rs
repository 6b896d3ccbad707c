//! The REST backend: a call goes out as HTTP and JSON by the method's HTTP rule, whatever the client speaks.
//!
//! Nothing is sent before the whole message is there and fits the rule, and an answer is a success only where its status,
//! its type and its text say so.

mod answer;
mod request;
mod status;
mod stream;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use tower::Service;

use crate::backend::dispatch::{Asked, Dispatch, Sent, Twice};
use crate::backend::grpc::fixed;
use crate::backend::replay::Replay;
use crate::balance::key::KeySource;
use crate::balance::{Ending, Target};
use crate::call::{Call, Deadline, Reply};
use crate::fault::{Fault, Kind};
use crate::route::entry::{FixedAnswer, OutboundRest};
use crate::schema::{self, Idempotency, MethodKind};
use crate::translate::{Bounds, Messages, Part};
use crate::upstream::stream::Wanted;
use crate::wire::body::Body;

use answer::Answer;
use request::{Prepared, address};

/// One method of a backend that speaks HTTP and JSON. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Rest {
    dispatch: Dispatch,
    /// Where its calls carry the key that they are balanced by.
    key: KeySource,
    outbound: Arc<OutboundRest>,
    /// What answers where no endpoint can.
    answer: Option<FixedAnswer>,
}

impl Rest {
    /// Calls `method`, which `outbound` is for, at the endpoints of `dispatch`, with `answer` where none of them can give
    /// one.
    pub fn new(
        dispatch: Dispatch,
        method: &schema::Method,
        outbound: Arc<OutboundRest>,
        answer: Option<FixedAnswer>,
    ) -> Self {
        Self {
            answer,
            key: dispatch.key_source(Some(&method.input)),
            dispatch,
            outbound,
        }
    }

    async fn serve(self, call: Call) -> Result<Reply, Fault> {
        let (bounds, tally) = (call.messages.bounds(), Arc::clone(call.messages.tally()));
        // Held until here: the gate's places are free again once the answer has begun to stream.
        let Call {
            method,
            metadata,
            deadline,
            messages,
            permit,
        } = call;
        let rule = self
            .outbound
            .rule_for(&method)
            .map_err(|why| unimplemented(&method, why))?;
        let message = only(messages).await?;
        let mut wish = self.dispatch.wish(&self.key, &metadata, permit.identity());
        wish.key = wish.key.or_else(|| self.key.of_message(&message));
        let prepared = Prepared::new(&self.outbound, rule, metadata, message, bounds)?;
        let Prepared {
            mut request,
            target: path,
            body,
        } = prepared;
        let told = self.outbound.options.server_timeout;
        let asked = Asked {
            twice: twice(&method, request.method()),
            deadline,
            tally: &tally,
            wish,
            ending: Ending::Any,
            is_unary: method.kind == MethodKind::Unary,
            has_answer: self.answer.is_some(),
            wanted: Wanted::Read,
        };
        let address = |request: &mut Request<()>, target: &Target, deadline: Option<Deadline>| {
            address(request, &path, target, deadline, told)
        };
        let mut body = Replay::once(Body::whole(body));
        let sent = self.dispatch.send(&asked, &mut request, &mut body, &address);
        let response = match sent.await? {
            Sent::Answered(response) => response,
            Sent::Unanswered => return fixed(self.answer.as_ref(), bounds, tally),
        };
        let answer = Answer {
            outbound: &self.outbound,
            rule,
            bounds,
            tally: Arc::clone(&tally),
        };
        if method.kind.server_streams() {
            answer.stream(response).await
        } else {
            answer.unary(response).await
        }
    }
}

/// Why no call of `method` can be sent, whatever it says.
pub fn unreachable(outbound: &OutboundRest, method: &schema::Method) -> Option<Fault> {
    let why = outbound.rule_for(method).err()?;
    Some(unimplemented(method, why))
}

/// The request that `message` becomes, without what its endpoint adds: path and query, headers, and the body.
///
/// # Errors
/// A client fault for a method that can't be called, and for a message that does not fit its rule.
pub fn request(
    outbound: &OutboundRest,
    method: &schema::Method,
    metadata: HeaderMap,
    message: Bytes,
    bounds: Bounds,
) -> Result<Request<Bytes>, Fault> {
    let rule = outbound
        .rule_for(method)
        .map_err(|why| unimplemented(method, why))?;
    Ok(Prepared::new(outbound, rule, metadata, message, bounds)?.unaddressed())
}

impl Service<Call> for Rest {
    type Response = Reply;
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        Box::pin(self.clone().serve(call))
    }
}

fn unimplemented(method: &schema::Method, why: &str) -> Fault {
    Fault::client(
        Kind::Unimplemented,
        format!("{}: {why}", method.path.trim_start_matches('/')),
    )
}

/// The one message of a request, and nothing after it.
async fn only(mut messages: Messages) -> Result<Bytes, Fault> {
    let wrong = |what: &str| {
        Fault::client(
            Kind::InvalidArgument,
            format!("the method takes one message, and {what} was sent"),
        )
    };
    match messages.next().await? {
        Some(Part::Message(message)) => match messages.next().await? {
            None => Ok(message),
            Some(_) => Err(wrong("more than one")),
        },
        Some(Part::End(_)) | None => Err(wrong("none")),
    }
}

/// Whether the request may reach the backend twice. Source: RFC 9110, section 9.2.2.
fn twice(method: &schema::Method, http: &Method) -> Twice {
    let idempotent = matches!(
        *http,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS
    );
    match method.idempotency {
        Idempotency::Idempotent | Idempotency::NoSideEffects => Twice::Harmless,
        Idempotency::Unknown if idempotent => Twice::Harmless,
        Idempotency::Unknown => Twice::Never,
    }
}
