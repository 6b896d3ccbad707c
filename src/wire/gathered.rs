//! What is ready of a body goes out as one frame: each frame costs its own framing, and HTTP/1.1 writes so many at a time.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};

use crate::fault::Fault;
use crate::wire::body::Body;

/// Bytes from which on a frame goes out by itself: copying it would cost more than a frame does.
const LARGE: usize = 8 << 10;
/// Bytes of small frames that are put together.
const MOST: usize = 32 << 10;

/// A body whose small frames are put together, as far as they are ready. Nothing waits for what is to come.
#[derive(Debug)]
pub struct Gathered<B> {
    body: B,
    /// Data that comes before the rest of the body.
    first: Option<Joined>,
    /// What comes after it, and before the rest of the body.
    second: Next,
}

/// A frame that was taken from a body and not handed out yet.
type Next = Option<Result<Frame<Bytes>, Fault>>;

impl<B> Gathered<B>
where
    B: HttpBody<Data = Bytes, Error = Fault> + Send + Unpin + 'static,
{
    /// The same body, in fewer frames.
    pub fn new(body: B) -> Self {
        Self {
            body,
            first: None,
            second: None,
        }
    }

    /// Takes what is ready, so that the body is known whole if that is all of it and small.
    ///
    /// # Cancel safety
    /// It does not wait.
    pub async fn settle(&mut self) {
        // What is not ready comes later.
        let _ = poll_fn(|cx| Poll::Ready(self.poll_settle(cx))).await;
    }

    /// Waits for the end of the body, so that it is known whole; of one that is not small it does not.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn finish(&mut self) {
        poll_fn(|cx| self.poll_settle(cx)).await;
    }

    /// The body, known whole as far as that was found out.
    pub fn into_body(mut self) -> Body {
        let is_known = match &self.second {
            None => self.body.is_end_stream(),
            Some(next) => self.body.is_end_stream() && next.as_ref().is_ok_and(Frame::is_trailers),
        };
        if !is_known {
            return Body::stream(self);
        }
        let data = self.first.take().map(Joined::into_bytes).unwrap_or_default();
        match self.second.take().and_then(Result::ok) {
            None => Body::whole(data),
            Some(trailers) => Body::with_trailers(data, trailers.into_trailers().unwrap_or_default()),
        }
    }

    /// Ready when all is there, or more than is put together.
    fn poll_settle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_over() {
            let data = match ready!(self.poll_gather(cx)).map(|next| next.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => data,
                Some(Ok(Err(other))) => {
                    self.second = Some(Ok(other));
                    break;
                }
                Some(Err(fault)) => {
                    self.second = Some(Err(fault));
                    break;
                }
                None => break,
            };
            match self.first.take() {
                None => self.first = Some(Joined::One(data)),
                Some(first) if data.len() < LARGE => self.first = Some(first.and(&data)),
                first @ Some(_) => {
                    self.first = first;
                    self.second = Some(Ok(Frame::data(data)));
                    break;
                }
            }
            if self.first.as_ref().is_some_and(|first| first.len() >= LARGE) {
                break;
            }
        }
        Poll::Ready(())
    }

    /// Whether all was taken from the body.
    fn is_over(&self) -> bool {
        self.second.is_none() && self.body.is_end_stream()
    }

    /// The next frame, with the small ones after it that are ready.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let next = match self.second.take() {
            Some(next) => next,
            None => match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(next) => next,
                None => return Poll::Ready(None),
            },
        };
        let data = match next.map(Frame::into_data) {
            Ok(Ok(data)) => data,
            Ok(Err(other)) => return Poll::Ready(Some(Ok(other))),
            Err(fault) => return Poll::Ready(Some(Err(fault))),
        };
        if data.len() >= LARGE {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let mut all = Joined::One(data);
        while !self.body.is_end_stream()
            && let Poll::Ready(Some(next)) = Pin::new(&mut self.body).poll_frame(cx)
        {
            match next.map(Frame::into_data) {
                Ok(Ok(more)) if more.len() < LARGE && all.len().saturating_add(more.len()) <= MOST => {
                    all = all.and(&more);
                    continue;
                }
                Ok(Ok(more)) => self.second = Some(Ok(Frame::data(more))),
                Ok(Err(other)) => self.second = Some(Ok(other)),
                Err(fault) => self.second = Some(Err(fault)),
            }
            break;
        }
        Poll::Ready(Some(Ok(Frame::data(all.into_bytes()))))
    }
}

/// The data of one frame or of several; only several are copied.
#[derive(Debug)]
enum Joined {
    One(Bytes),
    Several(BytesMut),
}

impl Joined {
    fn len(&self) -> usize {
        match self {
            Self::One(bytes) => bytes.len(),
            Self::Several(bytes) => bytes.len(),
        }
    }

    fn and(self, more: &[u8]) -> Self {
        let mut all = match self {
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(first.len().saturating_add(more.len()).max(512));
                all.extend_from_slice(&first);
                all
            }
            Self::Several(all) => all,
        };
        all.extend_from_slice(more);
        Self::Several(all)
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Several(bytes) => bytes.freeze(),
        }
    }
}

impl<B> HttpBody for Gathered<B>
where
    B: HttpBody<Data = Bytes, Error = Fault> + Send + Unpin + 'static,
{
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first.into_bytes())))),
            None => self.poll_gather(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.is_over()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::*;
    use crate::fault::Kind;

    /// What a body says when it is polled, one after the other; `None` is a pause.
    struct Said(VecDeque<Option<Result<Frame<Bytes>, Fault>>>);

    impl HttpBody for Said {
        type Data = Bytes;
        type Error = Fault;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
            match self.0.pop_front() {
                Some(Some(said)) => Poll::Ready(Some(said)),
                Some(None) => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(None),
            }
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    fn data(length: usize) -> Option<Result<Frame<Bytes>, Fault>> {
        Some(Ok(Frame::data(vec![b'a'; length].into())))
    }

    fn trailers() -> Option<Result<Frame<Bytes>, Fault>> {
        let map = HeaderMap::from_iter([(HeaderName::from_static("a"), HeaderValue::from_static("b"))]);
        Some(Ok(Frame::trailers(map)))
    }

    async fn settled(said: Said) -> Body {
        let mut gathered = Gathered::new(said);
        gathered.settle().await;
        gathered.into_body()
    }

    async fn finished(said: Said) -> Body {
        let mut gathered = Gathered::new(said);
        gathered.finish().await;
        gathered.into_body()
    }

    /// The sizes of the frames, with 0 for trailers and `None` for a fault.
    async fn frames(mut body: impl HttpBody<Data = Bytes, Error = Fault> + Unpin) -> Vec<Option<usize>> {
        let mut sizes = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let size = frame.map(|frame| frame.data_ref().map_or(0, Bytes::len));
            sizes.push(size.ok());
        }
        assert!(body.is_end_stream());
        sizes
    }

    #[tokio::test]
    async fn what_is_ready_is_one_frame() {
        let fault = || Some(Err(Fault::upstream(Kind::UpstreamReset, "gone")));
        for (said, expected) in [
            (vec![], vec![]),
            (vec![data(3)], vec![Some(3)]),
            (vec![data(3), data(4), data(5)], vec![Some(12)]),
            (
                vec![data(3), None, None, data(4), data(5)],
                vec![Some(3), Some(9)],
            ),
            (vec![None, data(3), trailers()], vec![Some(3), Some(0)]),
            (vec![data(3), data(4), fault()], vec![Some(7), None]),
            (
                vec![data(1), data(LARGE), data(2), data(3), trailers()],
                vec![Some(1), Some(LARGE), Some(5), Some(0)],
            ),
            (
                vec![
                    data(7 << 10),
                    data(7 << 10),
                    data(7 << 10),
                    data(7 << 10),
                    data(7 << 10),
                ],
                vec![Some(28 << 10), Some(7 << 10)],
            ),
        ] {
            let again = said.iter().map(|said| match said {
                None => None,
                Some(Ok(frame)) if frame.is_trailers() => trailers(),
                Some(Ok(frame)) => data(frame.data_ref().unwrap().len()),
                Some(Err(_)) => fault(),
            });
            let again = Said(again.collect());
            assert_eq!(frames(Gathered::new(Said(said.into()))).await, expected);
            let all = |sizes: &[Option<usize>]| sizes.iter().flatten().sum::<usize>();
            let settled = frames(settled(again).await).await;
            assert_eq!(all(&settled), all(&expected));
            assert_eq!(settled.last(), expected.last());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_all_ready_is_known_whole() {
        let whole = settled(Said([data(3), data(4)].into())).await;
        assert_eq!(whole.as_whole().unwrap(), "aaaaaaa");
        let none = settled(Said([].into())).await;
        assert_eq!(none.as_whole().unwrap(), "");
        for said in [
            vec![data(3), trailers()],
            vec![data(3), None, None, data(4)],
            vec![data(3), data(LARGE)],
        ] {
            let body = settled(Said(said.into())).await;
            assert!(body.as_whole().is_none());
        }
    }

    #[tokio::test]
    async fn the_end_of_a_small_body_is_awaited() {
        let paused = || vec![None, data(3), None, data(4), None];
        let whole = finished(Said(paused().into())).await;
        assert_eq!(whole.as_whole().unwrap(), "aaaaaaa");
        let mut with_trailers = paused();
        with_trailers.push(trailers());
        let body = finished(Said(with_trailers.into())).await;
        assert_eq!(frames(body).await, [Some(7), Some(0)]);
        for size in [LARGE, MOST + 1] {
            let mut said = paused();
            said.extend([data(size), None, data(5)]);
            let body = finished(Said(said.into())).await;
            assert!(body.as_whole().is_none());
            assert_eq!(frames(body).await, [Some(7), Some(size), Some(5)]);
        }
    }
}
