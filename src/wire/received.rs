//! The body of a message as the connection brings it, whichever HTTP that speaks.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::http1;
use crate::http2::{self, Lost};

/// A body that a peer sends.
#[derive(Debug)]
pub struct Received(Source);

#[derive(Debug)]
enum Source {
    /// Nothing follows the head.
    Nothing,
    /// All of it has come with the head.
    Whole(Bytes),
    /// A request of HTTP/1.1.
    Http1(http1::Inbound),
    /// A request of HTTP/2.
    Http2(http2::Inbound),
}

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// The connection is over, or the body is malformed.
    #[error(transparent)]
    Http1(#[from] http1::Unread),
    /// The stream is over.
    #[error(transparent)]
    Http2(#[from] Lost),
}

impl Received {
    /// A body without a byte.
    pub const fn nothing() -> Self {
        Self(Source::Nothing)
    }

    /// A body all of which has come.
    pub fn whole(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            Self::nothing()
        } else {
            Self(Source::Whole(bytes))
        }
    }

    /// All of it, if it has come with the head.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.0, Source::Nothing) {
            Source::Nothing => Some(Bytes::new()),
            Source::Whole(bytes) => Some(bytes),
            streamed => {
                self.0 = streamed;
                None
            }
        }
    }
}

impl From<http1::Inbound> for Received {
    fn from(body: http1::Inbound) -> Self {
        Self(Source::Http1(body))
    }
}

impl From<http2::Inbound> for Received {
    fn from(body: http2::Inbound) -> Self {
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
            Source::Nothing | Source::Whole(_) => {
                let whole = self.take_whole().filter(|bytes| !bytes.is_empty());
                Poll::Ready(whole.map(|bytes| Ok(Frame::data(bytes))))
            }
            Source::Http1(body) => Pin::new(body).poll_frame(cx).map_err(ReceiveError::Http1),
            Source::Http2(body) => Pin::new(body).poll_frame(cx).map_err(ReceiveError::Http2),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Nothing => true,
            Source::Whole(_) => false,
            Source::Http1(body) => body.is_end_stream(),
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1(body) => body.size_hint(),
            Source::Http2(body) => body.size_hint(),
        }
    }
}
