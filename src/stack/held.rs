//! Ends a call when the token is revoked by which its caller is known.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use futures_util::future::Either;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tower::Service;

use crate::call::{Call, Reply};
use crate::fault::Fault;
use crate::policy::Standing;
use crate::translate::messages::{Part, PartStream};
use crate::wire::body::Body;

/// The layer. Calls whose caller's word can't be taken back pass it without a change.
#[derive(Clone, Debug)]
pub struct Held<S> {
    inner: S,
}

impl<S> Held<S> {
    /// `inner`, whose calls go on for as long as their callers' tokens do.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }
}

type Boxed = Pin<Box<dyn Future<Output = Result<Reply, Fault>> + Send>>;

impl<S> Service<Call> for Held<S>
where
    S: Service<Call, Response = Reply, Error = Fault>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Fault;
    type Future = Either<S::Future, Boxed>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let Some(mut standing) = call.permit.standing() else {
            return Either::Left(self.inner.call(call));
        };
        let reply = self.inner.call(call);
        Either::Right(Box::pin(async move {
            let mut reply = held(&mut standing, reply).await?;
            let mut standing = Some(standing);
            reply.messages.wrap_body(|body| match standing.take() {
                Some(standing) => held_body(body, standing),
                None => body,
            });
            reply.messages.wrap_parts(|parts| match standing.take() {
                Some(standing) => Box::pin(HeldParts {
                    inner: Some(parts),
                    standing,
                }),
                None => parts,
            });
            Ok(reply)
        }))
    }
}

/// The outcome of `reply`, unless the token is revoked before.
///
/// # Errors
/// It is, or `reply` fails.
///
/// # Cancel safety
/// `reply` is dropped.
pub(crate) async fn held<T>(
    standing: &mut Standing,
    reply: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let mut reply = pin!(reply);
    poll_fn(|cx| {
        if let Poll::Ready(fault) = standing.poll_revoked(cx) {
            return Poll::Ready(Err(fault));
        }
        reply.as_mut().poll(cx)
    })
    .await
}

/// `body`, which breaks off when the token is revoked.
pub(crate) fn held_body(body: Body, standing: Standing) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::stream(HeldBody {
        inner: Some(body),
        standing,
    })
}

struct HeldBody {
    /// `None` once it broke off.
    inner: Option<Body>,
    standing: Standing,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(fault) = this.standing.poll_revoked(cx) {
            // Dropping it tells the peer at once.
            this.inner = None;
            return Poll::Ready(Some(Err(fault)));
        }
        Pin::new(inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

struct HeldParts {
    /// `None` once they broke off.
    inner: Option<PartStream>,
    standing: Standing,
}

impl Stream for HeldParts {
    type Item = Result<Part, Fault>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(fault) = this.standing.poll_revoked(cx) {
            this.inner = None;
            return Poll::Ready(Some(Err(fault)));
        }
        inner.as_mut().poll_next(cx)
    }
}
