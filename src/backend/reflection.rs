//! Server reflection as a backend: the gateway itself answers, from what it exposes.

use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream;
use http::HeaderMap;
use tower::Service;

use crate::call::{Call, Reply};
use crate::fault::Fault;
use crate::schema::exposed::Exposed;
use crate::status::Status;
use crate::translate::messages::Direction;
use crate::translate::{End, Messages, Part};

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
