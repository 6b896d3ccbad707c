//! The body of a message as the connection brings it, whichever HTTP that speaks.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::http2::{Inbound, Lost};

/// A body that a peer sends.
#[derive(Debug)]
pub struct Received(Source);

#[derive(Debug)]
enum Source {
    /// Nothing follows the head.
    Nothing,
    /// By hyper.
    Hyper(Incoming),
    /// A request of HTTP/2.
    Http2(Inbound),
}

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// What hyper says.
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    /// The stream is over.
    #[error(transparent)]
    Http2(#[from] Lost),
}

impl Received {
    /// A body without a byte.
    pub const fn nothing() -> Self {
        Self(Source::Nothing)
    }
}

impl From<Incoming> for Received {
    fn from(body: Incoming) -> Self {
        Self(Source::Hyper(body))
    }
}

impl From<Inbound> for Received {
    fn from(body: Inbound) -> Self {
        Self(Source::Http2(body))
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match &mut self.0 {
            Source::Nothing => Poll::Ready(None),
            Source::Hyper(body) => Pin::new(body).poll_frame(cx).map_err(ReceiveError::Hyper),
            Source::Http2(body) => Pin::new(body).poll_frame(cx).map_err(ReceiveError::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Nothing => true,
            Source::Hyper(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Hyper(body) => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
        }
    }
}
