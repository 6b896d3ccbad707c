//! One call on a connection of HTTP/1.1, which is kept for the next one when both sides have said all they had to say.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use smallvec::SmallVec;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::buffers::{LEAST_PIPED, Pipe};
use crate::fault::{Fault, Kind};
use crate::http1::{self, Decoder, Framing, Piece};
use crate::upstream::http1::{Broke, Connection};
use crate::upstream::pool::Pool;
use crate::upstream::stream::{Cause, SendError, Wanted};
use crate::wire::body::{Body, Piped};

/// Pieces of an answer that are looked at before they are asked for: one, and what says that it was the last.
const AHEAD: usize = 2;

/// A connection that one call has to itself. It is kept for another call if this one does not begin, and closed if it
/// stops half-way: nobody can use it then.
pub(super) struct Exchange {
    /// `None` once it has begun.
    place: Option<(Box<Connection>, Pool)>,
    wanted: Wanted,
}

impl Exchange {
    pub(super) fn new(connection: Box<Connection>, pool: Pool) -> Self {
        Self {
            place: Some((connection, pool)),
            wanted: Wanted::Read,
        }
    }

    /// What can't go on from its socket is read, and read as what is read.
    pub(super) fn wanting(&mut self, wanted: Wanted) {
        if self
            .place
            .as_ref()
            .is_some_and(|(connection, _)| connection.is_plain())
        {
            self.wanted = wanted;
        }
    }

    pub(super) async fn send(
        mut self,
        request: &Request<()>,
        body: Body,
        tasks: &TaskTracker,
    ) -> Result<Response<Body>, SendError> {
        let Some((mut connection, pool)) = self.place.take() else {
            return Err(SendError::Protocol("was not asked: its connection is gone"));
        };
        connection.send(request, body, tasks).await?;
        let to_head = *request.method() == Method::HEAD;
        let head = connection.head(self.wanted).await?;
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(SendError::Protocol("switched protocols without being asked"));
        }
        let framing = Framing::of_answer(&head, to_head).map_err(SendError::Protocol)?;
        if self.wanted == Wanted::Piped
            && let Framing::Length(length) = framing
            && (1..LEAST_PIPED).contains(&length.saturating_sub(connection.input.len() as u64))
        {
            // What is left is not worth a pipe, and may be there.
            let filled = poll_fn(|cx| Poll::Ready(connection.poll_fill(cx, usize::MAX))).await;
            if let Poll::Ready(Err(Broke::Request(fault))) = filled {
                return Err(SendError::Request(fault));
            }
        }
        Ok(answer(head, framing, connection, Some(pool)))
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some((connection, pool)) = self.place.take() {
            pool.keep(connection);
        }
    }
}

/// An answer whose head has come, and whose body comes on `connection`; `pool` keeps that afterwards.
pub(super) fn answer(
    mut head: response::Parts,
    framing: Framing,
    connection: Box<Connection>,
    pool: Option<Pool>,
) -> Response<Body> {
    let is_kept = framing != Framing::UntilClose
        && !http1::has_more(&head)
        && http1::is_kept(head.version, &head.headers);
    http1::one_length(framing, &mut head.headers);
    let answer = Answer {
        connection: Some(connection),
        pool: pool.filter(|_| is_kept),
        decoder: Decoder::new(framing),
        ahead: SmallVec::new(),
    };
    Response::from_parts(head, answer.into_body())
}

/// The body of an answer; its connection is free again when it has ended.
struct Answer {
    /// `None` once all has come.
    connection: Option<Box<Connection>>,
    pool: Option<Pool>,
    decoder: Decoder,
    /// What has come and was not asked for yet, in order.
    ahead: SmallVec<[Piece; AHEAD]>,
}

impl Answer {
    /// The body as it is known now: an answer that is small has come whole with its head.
    fn into_body(mut self) -> Body {
        if let (Some(connection), Some(left)) = (&mut self.connection, self.decoder.left())
            && let Ok(left) = usize::try_from(left)
            && left <= connection.input.len()
        {
            let bytes = connection.input.take(left);
            self.end();
            return Body::whole(bytes);
        }
        // Of what is malformed, whoever reads hears.
        for _ in 0..AHEAD {
            let Ok(true) = self.look() else { break };
        }
        if self.connection.is_some() {
            return Body::piped(self);
        }
        let mut bytes = Bytes::new();
        for piece in self.ahead.drain(..) {
            match piece {
                Piece::Data(data) => bytes = data,
                Piece::End(Some(trailers)) => return Body::with_trailers(bytes, *trailers),
                Piece::End(None) => {}
            }
        }
        Body::whole(bytes)
    }

    /// Takes the next piece of what has come; whether there was one that is not the end.
    fn look(&mut self) -> Result<bool, http1::Malformed> {
        let Some(connection) = &mut self.connection else {
            return Ok(false);
        };
        let Some(piece) = self.decoder.next(&mut connection.input)? else {
            return Ok(false);
        };
        let is_end = matches!(piece, Piece::End(_));
        if is_end {
            self.end();
        }
        if !matches!(piece, Piece::End(None)) {
            self.ahead.push(piece);
        }
        Ok(!is_end)
    }

    /// The first piece that was not asked for yet.
    fn next(&mut self) -> Option<Piece> {
        (!self.ahead.is_empty()).then(|| self.ahead.remove(0))
    }

    /// All has come: the connection is kept, if it can be.
    fn end(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if let Some(pool) = self.pool.take()
            && connection.is_free()
        {
            connection.keep(Instant::now());
            pool.keep(connection);
        }
    }

    /// The answer broke off.
    fn broken(&mut self, cause: impl Into<Cause>) -> Fault {
        self.connection = None;
        Fault::upstream(Kind::UpstreamReset, "the upstream broke off its answer").caused_by(cause.into())
    }
}

impl Piped for Answer {
    fn poll_pipe(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Option<Result<usize, Fault>>> {
        let me = &mut *self;
        let (Some(connection), Some(left @ 1..), true) =
            (&mut me.connection, me.decoder.left(), me.ahead.is_empty())
        else {
            return Poll::Ready(None);
        };
        let moved = match ready!(connection.poll_pipe(cx, pipe, left)) {
            None => return Poll::Ready(None),
            Some(Ok(0)) => return Poll::Ready(Some(Err(me.broken(too_early())))),
            Some(Ok(moved)) => moved,
            Some(Err(error)) => return Poll::Ready(Some(Err(me.broken(error)))),
        };
        me.decoder.pass(moved as u64);
        if me.decoder.left() == Some(0) {
            me.end();
        }
        Poll::Ready(Some(Ok(moved)))
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let me = &mut *self;
        loop {
            if me.ahead.is_empty()
                && let Err(malformed) = me.look()
            {
                return Poll::Ready(Some(Err(me.broken(malformed))));
            }
            match me.next() {
                Some(Piece::Data(bytes)) => {
                    if me.ahead.is_empty() {
                        // The last piece says that it is the last. What is malformed is found when it is read.
                        let _seen = me.look();
                    }
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                Some(Piece::End(trailers)) => {
                    return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(*trailers))));
                }
                None => {}
            }
            let Some(connection) = &mut me.connection else {
                return Poll::Ready(None);
            };
            match ready!(connection.poll_fill(cx, usize::MAX)) {
                Ok(0) if me.decoder.ends_with_connection() => me.end(),
                Ok(0) => return Poll::Ready(Some(Err(me.broken(too_early())))),
                Ok(_) => {}
                // What broke the request off is why the answer did.
                Err(Broke::Request(fault)) => {
                    me.connection = None;
                    return Poll::Ready(Some(Err(fault)));
                }
                Err(Broke::Io(error)) => return Poll::Ready(Some(Err(me.broken(error)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none() && self.ahead.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.ahead.iter().map(|piece| match piece {
            Piece::Data(bytes) => bytes.len() as u64,
            Piece::End(_) => 0,
        });
        match self.decoder.left() {
            Some(left) if self.connection.is_some() => SizeHint::with_exact(left + ahead.sum::<u64>()),
            _ if self.is_end_stream() => SizeHint::with_exact(0),
            _ => SizeHint::default(),
        }
    }
}

/// The connection ended, and the answer did not.
fn too_early() -> io::Error {
    io::ErrorKind::UnexpectedEof.into()
}
