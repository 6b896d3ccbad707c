//! A request body that may be sent more than once: what is whole, and the beginning of what streams.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use smallvec::SmallVec;

use crate::fault::Fault;
use crate::wire::body::Body;
use crate::wire::envelope;

/// Bytes of a stream that are kept until the answer begins. 64 KiB: as much as goes out before an upstream grants more.
/// Not measured.
const KEPT: usize = 64 << 10;

/// A request body for as many attempts as it allows.
pub(super) enum Replay {
    /// All of it.
    Whole(Bytes),
    /// For one attempt.
    Once(Option<Body>),
    /// A stream, of which the beginning is kept.
    Shared(Arc<Mutex<Kept>>),
}

/// A stream and what it has given so far.
pub(super) struct Kept {
    rest: Body,
    given: SmallVec<[Bytes; 2]>,
    bytes: usize,
    /// It has given more than is kept, or the answer has begun: no further attempt can have it.
    gone: bool,
    /// An attempt has it, or had it.
    was_given: bool,
}

impl Replay {
    /// A body that is sent once, unless it is whole.
    pub(super) fn once(body: Body) -> Self {
        body.as_whole().map_or(Self::Once(Some(body)), Self::Whole)
    }

    /// A stream of messages, whose beginning is kept: each goes on as soon as it is there.
    pub(super) fn streaming(body: Body) -> Self {
        match body.as_whole() {
            Some(whole) => Self::Whole(whole),
            None => Self::Shared(Arc::new(Mutex::new(Kept::new(body)))),
        }
    }

    /// The body of a request of one message, which is waited for, unless it is larger than what is kept.
    ///
    /// # Errors
    /// The body's own.
    ///
    /// # Cancel safety
    /// What was read is lost.
    pub(super) async fn whole(body: Body) -> Result<Self, Fault> {
        Self::kept(body, |_| false).await
    }

    /// The body of a gRPC request of one message, which is waited for, unless it is larger than what is kept: an upstream has
    /// no use for half of it. Whether the client has more to say is not waited for.
    ///
    /// # Errors
    /// The body's own.
    ///
    /// # Cancel safety
    /// What was read is lost.
    pub(super) async fn message(body: Body) -> Result<Self, Fault> {
        Self::kept(body, Kept::has_message).await
    }

    /// A body whose beginning is kept. What is there already is taken, and nothing is waited for: most requests of one
    /// message are whole when they arrive, and one that is whole needs no further care.
    ///
    /// # Errors
    /// The body's own.
    pub(super) async fn new(body: Body) -> Result<Self, Fault> {
        Self::kept(body, |_| true).await
    }

    /// The body, waited for until it is over, is larger than what is kept, or pauses when what is there is enough.
    async fn kept(body: Body, is_enough: impl Fn(&Kept) -> bool) -> Result<Self, Fault> {
        if let Some(whole) = body.as_whole() {
            return Ok(Self::Whole(whole));
        }
        let mut kept = Kept::new(body);
        let is_over = poll_fn(|cx| match kept.poll_gather(cx) {
            Poll::Pending if is_enough(&kept) => Poll::Ready(Ok(false)),
            gathered => gathered,
        })
        .await?;
        Ok(kept.shared(is_over))
    }

    /// Waits until the first message of a gRPC body is there, and gives it. Nothing for one that is compressed, is larger
    /// than what is kept, or does not come.
    ///
    /// # Errors
    /// The body's own.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn first_message(&mut self) -> Result<Option<Bytes>, Fault> {
        let shared = match self {
            Self::Whole(bytes) => return Ok(message(bytes)),
            Self::Once(_) => return Ok(None),
            Self::Shared(shared) => Arc::clone(shared),
        };
        let whole = poll_fn(|cx| {
            let mut kept = shared.lock();
            loop {
                if kept.gone || message(&kept.joined()).is_some() {
                    return Poll::Ready(Ok::<_, Fault>(None));
                }
                match ready!(kept.step(cx))? {
                    Step::Data | Step::Nothing => {}
                    Step::Over => return Poll::Ready(Ok(Some(kept.joined()))),
                }
            }
        });
        match whole.await? {
            Some(whole) => {
                let found = message(&whole);
                *self = Self::Whole(whole);
                Ok(found)
            }
            None => Ok(message(&shared.lock().joined())),
        }
    }

    /// The body for an attempt; `None` once it can't be had any more.
    pub(super) fn body(&mut self) -> Option<Body> {
        match self {
            Self::Whole(bytes) => Some(Body::whole(bytes.clone())),
            Self::Once(body) => body.take(),
            Self::Shared(shared) => {
                let mut kept = shared.lock();
                if kept.is_lost() {
                    return None;
                }
                kept.was_given = true;
                Some(Body::stream(Attempt {
                    kept: Arc::clone(shared),
                    at: 0,
                }))
            }
        }
    }

    /// Whether there is a body for another attempt.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Whole(_) => true,
            Self::Once(body) => body.is_some(),
            Self::Shared(kept) => !kept.lock().is_lost(),
        }
    }

    /// The whole body, if it is.
    pub(super) fn as_whole(&self) -> Option<&Bytes> {
        match self {
            Self::Whole(bytes) => Some(bytes),
            Self::Once(_) | Self::Shared(_) => None,
        }
    }

    /// The answer has begun: nothing more is kept.
    pub(super) fn commit(&self) {
        if let Self::Shared(kept) = self {
            kept.lock().forget();
        }
    }
}

/// The payload of the first envelope, if all of it is there and it is not compressed.
fn message(bytes: &Bytes) -> Option<Bytes> {
    let mut rest = bytes.clone();
    let [flag, a, b, c, d] = *rest.first_chunk::<{ envelope::PREFIX }>()?;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    rest.advance(envelope::PREFIX);
    (flag == 0 && length <= rest.len()).then(|| rest.slice(..length))
}

/// What a look at the rest of a stream brought.
enum Step {
    Data,
    /// A frame that says nothing.
    Nothing,
    Over,
}

impl Kept {
    fn new(rest: Body) -> Self {
        Self {
            rest,
            given: SmallVec::new(),
            bytes: 0,
            gone: false,
            was_given: false,
        }
    }

    /// The body of which this is the beginning, or all.
    fn shared(self, is_over: bool) -> Replay {
        if is_over {
            Replay::Whole(self.joined())
        } else {
            Replay::Shared(Arc::new(Mutex::new(self)))
        }
    }

    /// Takes as much as is kept; whether that was all.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        while self.bytes <= KEPT {
            match ready!(self.step(cx))? {
                Step::Over => return Poll::Ready(Ok(true)),
                Step::Data | Step::Nothing => {}
            }
        }
        self.gone = true;
        Poll::Ready(Ok(false))
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, Fault>> {
        if self.rest.is_end_stream() {
            return Poll::Ready(Ok(Step::Over));
        }
        Poll::Ready(Ok(match ready!(Pin::new(&mut self.rest).poll_frame(cx)?) {
            None => Step::Over,
            Some(frame) => match frame.into_data() {
                Ok(data) if data.is_empty() => Step::Nothing,
                Ok(data) => {
                    self.bytes += data.len();
                    self.given.push(data);
                    Step::Data
                }
                // What a client says after its body was seen by nobody who decides, and goes no further.
                Err(_trailers) => Step::Over,
            },
        }))
    }

    /// Whether the first envelope is whole, compressed or not.
    fn has_message(&self) -> bool {
        let mut bytes = self.given.iter().flatten();
        let mut prefix = [0; envelope::PREFIX];
        let is_there = prefix
            .iter_mut()
            .all(|slot| bytes.next().map(|byte| *slot = *byte).is_some());
        let [_, a, b, c, d] = prefix;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        is_there && self.bytes >= length.saturating_add(envelope::PREFIX)
    }

    fn joined(&self) -> Bytes {
        match self.given.as_slice() {
            [] => Bytes::new(),
            [one] => one.clone(),
            more => {
                let mut all = BytesMut::with_capacity(self.bytes);
                more.iter().for_each(|data| all.extend_from_slice(data));
                all.freeze()
            }
        }
    }

    fn forget(&mut self) {
        self.gone = true;
    }

    fn is_lost(&self) -> bool {
        self.gone && self.was_given
    }
}

/// A stream as one attempt sends it: what was given before, and then the rest.
struct Attempt {
    kept: Arc<Mutex<Kept>>,
    /// How many of the given frames were sent.
    at: usize,
}

impl HttpBody for Attempt {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = &mut *self;
        let mut kept = this.kept.lock();
        if let Some(data) = kept.given.get(this.at) {
            this.at += 1;
            let data = data.clone();
            if kept.gone && kept.given.len() == this.at {
                kept.given.clear();
                this.at = 0;
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let frame = ready!(Pin::new(&mut kept.rest).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && !kept.gone
        {
            match frame.data_ref() {
                Some(data) if kept.bytes + data.len() <= KEPT => {
                    kept.bytes += data.len();
                    kept.given.push(data.clone());
                    this.at += 1;
                }
                Some(_) | None => {
                    kept.forget();
                    kept.given.clear();
                    this.at = 0;
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.lock();
        kept.given.len() <= self.at && kept.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.lock();
        let left: usize = kept.given.iter().skip(self.at).map(Bytes::len).sum();
        let rest = kept.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(left as u64));
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(left as u64));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::fault::Kind;

    /// A body of these pieces; `None` is a piece that is not there yet when it is asked for first.
    fn pieces(pieces: Vec<Option<&'static [u8]>>) -> Body {
        let pieces = stream::iter(pieces).then(async |piece| match piece {
            Some(piece) => Ok(Frame::data(Bytes::from_static(piece))),
            None => {
                tokio::task::yield_now().await;
                Ok(Frame::data(Bytes::new()))
            }
        });
        Body::stream(StreamBody::new(pieces))
    }

    async fn text(body: Body) -> Vec<u8> {
        body.collect().await.unwrap().to_bytes().to_vec()
    }

    use futures_util::StreamExt as _;

    #[tokio::test]
    async fn what_is_there_at_once_is_whole() {
        let replay = Replay::new(pieces(vec![Some(b"ab"), Some(b"cd")])).await.unwrap();
        assert_eq!(replay.as_whole().unwrap(), "abcd");
    }

    #[tokio::test]
    async fn a_stream_can_be_sent_again_until_it_is_too_long_or_answered() {
        let mut replay = Replay::new(pieces(vec![Some(b"ab"), None, Some(b"cd")]))
            .await
            .unwrap();
        assert!(replay.as_whole().is_none());
        let mut first = replay.body().unwrap();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        drop(first);
        assert_eq!(text(replay.body().unwrap()).await, b"abcd");
        assert_eq!(text(replay.body().unwrap()).await, b"abcd");
        let last = replay.body().unwrap();
        replay.commit();
        assert!(!replay.is_there() && replay.body().is_none());
        assert_eq!(text(last).await, b"abcd", "the attempt that was answered goes on");

        static LONG: [u8; KEPT] = [0; KEPT];
        let mut replay = Replay::new(pieces(vec![Some(b"ab"), None, Some(&LONG), Some(b"cd")]))
            .await
            .unwrap();
        assert_eq!(text(replay.body().unwrap()).await.len(), KEPT + 4);
        assert!(!replay.is_there());
    }

    #[tokio::test]
    async fn the_first_message_is_waited_for() {
        let mut replay = Replay::new(pieces(vec![
            Some(&[0, 0, 0]),
            None,
            Some(&[0, 2, b'h', b'i', 0]),
            None,
        ]))
        .await
        .unwrap();
        assert_eq!(replay.first_message().await.unwrap().unwrap(), "hi");
        assert_eq!(text(replay.body().unwrap()).await, [0, 0, 0, 0, 2, b'h', b'i', 0]);
        let mut short = Replay::new(pieces(vec![Some(&[0, 0, 0, 0, 9, 1]), None]))
            .await
            .unwrap();
        assert_eq!(short.first_message().await.unwrap(), None);
    }

    #[tokio::test]
    async fn one_message_is_waited_for_and_not_what_comes_after_it() {
        let pause = None;
        for (said, expected) in [
            (
                vec![
                    Some(&[0, 0, 0][..]),
                    pause,
                    Some(&[0, 2, b'h', b'i']),
                    pause,
                    pause,
                ],
                7,
            ),
            (vec![pause, Some(&[1, 0, 0, 0, 2, b'h', b'i'])], 7),
            (vec![Some(&[0, 0, 0, 0, 0]), pause, Some(b"late")], 5),
            (vec![Some(&[0, 0, 0, 0, 9]), pause, Some(b"short")], 10),
            (vec![Some(&[0, 0, 0])], 3),
        ] {
            let replay = Replay::message(pieces(said)).await.unwrap();
            let there = match &replay {
                Replay::Whole(bytes) => bytes.len(),
                Replay::Shared(kept) => kept.lock().bytes,
                Replay::Once(_) => 0,
            };
            assert_eq!(there, expected);
        }
    }

    #[tokio::test]
    async fn a_body_that_fails_says_so() {
        let broken = stream::iter([Err(Fault::client(Kind::Cancelled, "it left"))]);
        let body = Body::stream(StreamBody::new(broken));
        assert_eq!(Replay::new(body).await.err().unwrap().kind(), Kind::Cancelled);
    }
}
