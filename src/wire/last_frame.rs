//! A body whose trailers travel as its last data, for dialects whose clients can't read trailers.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};

use crate::fault::Fault;

/// The body; `write` makes its last data of the trailers.
pub struct LastFrame<B, W> {
    body: B,
    /// Gone once the trailers are out.
    write: Option<W>,
}

impl<B, W: FnOnce(HeaderMap) -> Bytes> LastFrame<B, W> {
    /// The same body, with what `write` says in the place of its trailers.
    pub fn new(body: B, write: W) -> Self {
        Self {
            body,
            write: Some(write),
        }
    }
}

impl<B: fmt::Debug, W> fmt::Debug for LastFrame<B, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastFrame")
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl<B, W> HttpBody for LastFrame<B, W>
where
    B: HttpBody<Data = Bytes, Error = Fault> + Unpin,
    W: FnOnce(HeaderMap) -> Bytes + Unpin,
{
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if self.write.is_none() {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)?) else {
            return Poll::Ready(None);
        };
        let frame = match frame.into_trailers() {
            Err(frame) => frame,
            Ok(trailers) => match self.write.take() {
                Some(write) => Frame::data(write(trailers)),
                None => return Poll::Ready(None),
            },
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.write.is_none()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::wire::body::Body;

    #[tokio::test]
    async fn trailers_are_the_last_data() {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        let body = Body::with_trailers(Bytes::from_static(b"data "), trailers);
        let last = LastFrame::new(body, |trailers: HeaderMap| {
            format!("{} trailer", trailers.len()).into()
        });
        let whole = last.collect().await.unwrap();
        assert_eq!(whole.trailers(), None);
        assert_eq!(whole.to_bytes(), "data 1 trailer");
    }
}
