//! What the parts of a connection share, and what the peer's frames do to it. Source: RFC 9113, sections 5 and 6.

use std::collections::VecDeque;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use crate::buffers::Out;
use crate::http2::frame::{self, FIRST_WINDOW, MOST_WINDOW};
use crate::http2::head::Fields;
use crate::http2::hpack::Encoder;
use crate::http2::streams::{Answer, Asked, Awaits, Queue, Stream, Streams};
use crate::http2::{Broken, Lost, PREFACE, Reason, Role, Settings};

/// Streams at once that a server is believed to take before it has said. Source: RFC 9113, section 6.5.2, which
/// recommends that it be no smaller.
const FIRST_OPEN: u32 = 100;

/// Informational answers to one request. 16: a server has one or two to say before its answer.
const MOST_INFORMATIONAL: u32 = 16;

/// What pings carry: which of ours is answered.
pub(super) const KEEP_ALIVE: [u8; 8] = *b"alive?\0\0";
pub(super) const LEAVING: [u8; 8] = *b"leaving\0";

/// How far the end of a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    /// Not at all.
    Serving,
    /// The client was told that it is near, and may have sent requests that are not here yet.
    Announced,
    /// No stream after this one is served.
    Last(u32),
}

/// The state of a connection.
#[derive(Debug)]
pub(super) struct State {
    pub(super) own: Settings,
    pub(super) out: Out,
    /// Somebody waits for `out` not to be full.
    pub(super) is_room_wanted: bool,
    pub(super) encoder: Encoder,
    pub(super) streams: Streams,
    /// The highest stream that was opened, by the client.
    pub(super) last: u32,
    /// Bytes that the peer takes on all streams together.
    pub(super) window: i64,
    /// Bytes that it takes on a new stream.
    pub(super) first_window: i64,
    /// Bytes of one frame that it takes.
    pub(super) max_frame: u32,
    /// Bytes that the peer may still send on all streams together.
    left: i64,
    /// Bytes of those that were read, and that it was not given back yet.
    read: u32,
    /// Bytes that it may send on a new stream; of the protocol's choice until it has read ours.
    first_left: i64,
    pub(super) going: Going,
    /// The peer goes away: it opens no more streams, and takes none.
    pub(super) is_left: bool,
    /// Streams at once that the peer takes.
    pub(super) max_open: u32,
    /// The connection is over, and nobody writes out what is written here.
    pub(super) is_over: bool,
    /// Streams that were reset here: what the client had sent before it heard of that is still to come.
    abandoned: VecDeque<u32>,
    /// How many of them for what the peer did wrong.
    errors: usize,
    /// Streams that the client reset before anybody looked at them, in this turn.
    pub(super) unseen: usize,
    /// Frames with content that were written and not counted yet.
    pub(super) contents: u32,
}

impl State {
    pub(super) fn new(own: Settings) -> Self {
        Self {
            own,
            out: Out::default(),
            is_room_wanted: false,
            encoder: Encoder::new(),
            streams: Streams::default(),
            last: 0,
            window: FIRST_WINDOW.into(),
            first_window: FIRST_WINDOW.into(),
            max_frame: frame::LEAST_FRAME,
            left: FIRST_WINDOW.max(own.connection_window).into(),
            read: 0,
            first_left: FIRST_WINDOW.max(own.stream_window).into(),
            going: Going::Serving,
            is_left: false,
            max_open: FIRST_OPEN,
            is_over: false,
            abandoned: VecDeque::new(),
            errors: 0,
            unseen: 0,
            contents: 0,
        }
    }

    /// Says what the gateway allows, before all else.
    pub(super) fn greet(&mut self) {
        let out = self.out.buffer();
        if self.own.role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
        frame::settings(&self.own, out);
        if let Some(more) = self
            .own
            .connection_window
            .checked_sub(FIRST_WINDOW)
            .filter(|more| *more > 0)
        {
            frame::window_update(0, more, out);
        }
    }

    /// Whether a new stream would be one too many.
    pub(super) fn is_crowded(&self) -> bool {
        self.streams
            .are_at(usize::try_from(self.own.max_streams).unwrap_or(usize::MAX))
    }

    /// Opens a stream of the client, whose body is `missing` if its head says so.
    pub(super) fn open(&mut self, id: u32, is_received: bool, missing: Option<u64>) {
        self.streams.insert(
            id,
            Stream {
                is_received,
                has_reader: !is_received,
                missing,
                ..self.stream()
            },
        );
    }

    /// Opens a stream of the gateway's own; `None` if the connection takes none any more.
    pub(super) fn ask(&mut self, to: Asked) -> Option<u32> {
        let id = if self.last == 0 {
            1
        } else {
            self.last.checked_add(2)?
        };
        if self.is_left || self.is_over || id > MOST_WINDOW {
            return None;
        }
        self.last = id;
        let awaits = Awaits::Head { informational: 0, to };
        self.streams.insert(
            id,
            Stream {
                awaits,
                ..self.stream()
            },
        );
        Some(id)
    }

    /// A stream that begins now.
    fn stream(&self) -> Stream {
        Stream {
            window: self.first_window,
            answer: Answer::Unseen,
            writer: None,
            queue: Queue::default(),
            trailers: None,
            is_received: false,
            has_reader: true,
            reader: None,
            left: self.first_left,
            read: 0,
            missing: None,
            awaits: Awaits::Body,
            head: None,
            lost: None,
        }
    }

    /// Takes a piece of a body that counts `size` with its padding.
    pub(super) fn data(&mut self, id: u32, size: u32, piece: Bytes, ends: bool) -> Result<(), Broken> {
        self.left -= i64::from(size);
        if self.left < 0 {
            return Err(Broken::new(
                Reason::FLOW_CONTROL_ERROR,
                "more data than the connection's window",
            ));
        }
        let length = u32::try_from(piece.len()).unwrap_or(size);
        let Some(stream) = self.streams.get(id).filter(|stream| stream.lost.is_none()) else {
            self.give_back(size);
            return self.stray(id);
        };
        stream.left -= i64::from(size);
        let fits = match &mut stream.missing {
            None => true,
            Some(missing) => match missing.checked_sub(u64::from(length)) {
                Some(rest) => {
                    *missing = rest;
                    !ends || rest == 0
                }
                None => false,
            },
        };
        let error = if let Awaits::Head { .. } = stream.awaits {
            Some(Reason::PROTOCOL_ERROR)
        } else if stream.is_received {
            Some(Reason::STREAM_CLOSED)
        } else if stream.left < 0 {
            Some(Reason::FLOW_CONTROL_ERROR)
        } else if !fits {
            Some(Reason::PROTOCOL_ERROR)
        } else {
            None
        };
        if let Some(reason) = error {
            self.give_back(size);
            return self.fail(id, reason);
        }
        stream.is_received = ends;
        if stream.has_reader {
            stream.queue.push(piece);
            if let Some(waker) = stream.reader.take() {
                waker.wake();
            }
            // Padding is read as soon as it has come.
            self.read(id, (size - length) as usize);
        } else {
            // It counts against the stream's window for good, so that a client whose body nobody wants stops.
            self.give_back(size);
        }
        self.settle(id);
        Ok(())
    }

    /// A frame for a stream that is not here.
    fn stray(&mut self, id: u32) -> Result<(), Broken> {
        if id > self.last {
            return Err(Broken::protocol("a frame for a stream that was not opened"));
        }
        if self.is_abandoned(id) {
            return Ok(());
        }
        self.fail(id, Reason::STREAM_CLOSED)
    }

    /// Whether the peer may not know yet that a stream is over.
    pub(super) fn is_abandoned(&self, id: u32) -> bool {
        match self.own.role {
            Role::Server => {
                matches!(self.going, Going::Last(last) if id > last) || self.abandoned.contains(&id)
            }
            // A stream that is reset here makes room for another at once, so there may be any number of them.
            Role::Client => true,
        }
    }

    /// Takes the trailers of a body.
    pub(super) fn trailers(&mut self, id: u32, trailers: HeaderMap) -> Result<(), Broken> {
        let Some(stream) = self.streams.get(id) else {
            return Ok(());
        };
        if stream.missing.is_some_and(|missing| missing > 0) {
            return self.fail(id, Reason::PROTOCOL_ERROR);
        }
        stream.is_received = true;
        if stream.has_reader && !trailers.is_empty() {
            stream.trailers = Some(Box::new(trailers));
        }
        if let Some(waker) = stream.reader.take() {
            waker.wake();
        }
        self.settle(id);
        Ok(())
    }

    /// Takes the head of an answer.
    pub(super) fn answered(&mut self, id: u32, fields: Fields, ends: bool) -> Result<(), Broken> {
        let Some(stream) = self.streams.get(id) else {
            return Ok(());
        };
        let Awaits::Head { informational, to } = stream.awaits else {
            return Ok(());
        };
        let Ok((head, length)) = fields.answer() else {
            return self.fail(id, Reason::PROTOCOL_ERROR);
        };
        if head.status.is_informational() {
            let informational = informational + 1;
            stream.awaits = Awaits::Head { informational, to };
            if ends || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return self.fail(id, Reason::PROTOCOL_ERROR);
            }
            if informational > MOST_INFORMATIONAL {
                self.write_reset(id, Reason::CANCEL);
                self.lose(id, Lost::Informational);
            }
            return Ok(());
        }
        let has_body =
            to == Asked::ForAll && ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&head.status);
        stream.awaits = Awaits::Body;
        stream.missing = length.filter(|_| has_body);
        stream.is_received = ends;
        if ends && stream.missing.is_some_and(|missing| missing > 0) {
            return self.fail(id, Reason::PROTOCOL_ERROR);
        }
        stream.head = Some(Box::new(head));
        if let Some(waker) = stream.reader.take() {
            waker.wake();
        }
        self.settle(id);
        Ok(())
    }

    /// The peer goes away, and has not looked at any stream after `last`.
    pub(super) fn left(&mut self, last: u32, reason: Reason) {
        self.is_left = true;
        if self.own.role == Role::Client {
            for id in self.streams.ids() {
                if id > last {
                    self.lose(id, Lost::Left(reason));
                }
            }
        }
    }

    /// The peer resets a stream.
    pub(super) fn reset_by_peer(&mut self, id: u32, reason: Reason) -> Result<(), Broken> {
        if id > self.last {
            return Err(Broken::protocol("RST_STREAM for a stream that was not opened"));
        }
        let Some(stream) = self.streams.get(id) else {
            return Ok(());
        };
        let is_unseen = stream.answer == Answer::Unseen && stream.lost.is_none();
        self.lose(id, Lost::Reset(reason));
        if is_unseen {
            self.unseen += 1;
            if self.unseen > self.own.max_pending_resets {
                return Err(Broken::calm("streams are reset before they are looked at"));
            }
        }
        Ok(())
    }

    /// The peer takes more.
    pub(super) fn widen(&mut self, id: u32, more: u32) -> Result<(), Broken> {
        if id == 0 {
            if more == 0 {
                return Err(Broken::protocol("WINDOW_UPDATE by nothing"));
            }
            self.window += i64::from(more);
            if self.window > MOST_WINDOW.into() {
                return Err(Broken::new(
                    Reason::FLOW_CONTROL_ERROR,
                    "the connection's window is too large",
                ));
            }
            self.unblock();
            return Ok(());
        }
        if id > self.last {
            return Err(Broken::protocol("WINDOW_UPDATE for a stream that was not opened"));
        }
        let Some(stream) = self.streams.get(id) else {
            return Ok(());
        };
        stream.window += i64::from(more);
        if more == 0 {
            return self.fail(id, Reason::PROTOCOL_ERROR);
        }
        if stream.window > MOST_WINDOW.into() {
            return self.fail(id, Reason::FLOW_CONTROL_ERROR);
        }
        stream.unblock();
        Ok(())
    }

    /// Streams begin with another window.
    pub(super) fn rewindow(&mut self, first: u32) -> Result<(), Broken> {
        let change = i64::from(first) - self.first_window;
        self.first_window = first.into();
        for stream in self.streams.iter_mut() {
            stream.window += change;
            if stream.window > MOST_WINDOW.into() {
                return Err(Broken::new(
                    Reason::FLOW_CONTROL_ERROR,
                    "a stream's window is too large",
                ));
            }
        }
        self.unblock();
        Ok(())
    }

    /// The peer has read what the gateway allows.
    pub(super) fn agreed(&mut self) {
        let first = i64::from(self.own.stream_window);
        let change = first - self.first_left;
        self.first_left = first;
        for stream in self.streams.iter_mut() {
            stream.left += change;
        }
    }

    /// Wakes those who wait for a window or for room.
    pub(super) fn unblock(&mut self) {
        self.streams.iter_mut().for_each(Stream::unblock);
    }

    /// Somebody has read `bytes` of a stream's body.
    pub(super) fn read(&mut self, id: u32, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        if bytes == 0 {
            return;
        }
        self.give_back(bytes);
        let half = self.own.stream_window / 2;
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        if stream.is_received || stream.lost.is_some() {
            return;
        }
        stream.read += bytes;
        if stream.read >= half {
            let more = std::mem::take(&mut stream.read);
            stream.left += i64::from(more);
            frame::window_update(id, more, self.out.buffer());
        }
    }

    /// Lets the peer send `bytes` more on the connection; it is told when they are many.
    pub(super) fn give_back(&mut self, bytes: u32) {
        self.read += bytes;
        if self.read >= self.own.connection_window.max(FIRST_WINDOW) / 2 {
            let more = std::mem::take(&mut self.read);
            self.left += i64::from(more);
            if !self.is_over {
                frame::window_update(0, more, self.out.buffer());
            }
        }
    }

    /// Resets a stream for what the peer did wrong.
    pub(super) fn fail(&mut self, id: u32, reason: Reason) -> Result<(), Broken> {
        self.errors += 1;
        if self.errors > self.own.max_error_resets {
            return Err(Broken::calm("too many streams had to be reset"));
        }
        self.reset(id, reason);
        Ok(())
    }

    /// Resets a stream.
    pub(super) fn reset(&mut self, id: u32, reason: Reason) {
        self.write_reset(id, reason);
        self.lose(id, Lost::Broken(reason));
    }

    /// Nothing more comes or goes on a stream. It stays for whoever reads it to hear of that.
    pub(super) fn lose(&mut self, id: u32, lost: Lost) {
        let Some(stream) = self.streams.get(id) else {
            return;
        };
        stream.lost.get_or_insert(lost);
        stream.answer = Answer::Complete;
        stream.wake();
        self.settle(id);
    }

    fn write_reset(&mut self, id: u32, reason: Reason) {
        if self.is_over {
            return;
        }
        frame::reset(id, reason, self.out.buffer());
        if self.own.role == Role::Client {
            return;
        }
        // No more of them can be unknown to the client than it may have open.
        let most = usize::try_from(self.own.max_streams)
            .unwrap_or(usize::MAX)
            .max(100);
        if self.abandoned.len() >= most {
            self.abandoned.pop_front();
        }
        self.abandoned.push_back(id);
    }

    /// Gives back what nobody will read of a stream that is taken away.
    fn forget(&mut self, stream: &Stream) {
        self.give_back(u32::try_from(stream.queue.len()).unwrap_or(u32::MAX));
    }

    /// Takes a stream away if nobody has to do with it any more.
    pub(super) fn settle(&mut self, id: u32) {
        let Some(stream) = self.streams.get(id).filter(|stream| !stream.has_reader) else {
            return;
        };
        if stream.is_closed() {
            if let Some(stream) = self.streams.remove(id) {
                self.forget(&stream);
            }
            return;
        }
        match self.own.role {
            // The answer is complete and the rest of the request unwanted. Source: RFC 9113, section 8.1.
            Role::Server if stream.answer == Answer::Complete => self.reset(id, Reason::NO_ERROR),
            // Nobody wants the answer.
            Role::Client if !stream.is_received => self.reset(id, Reason::CANCEL),
            // Whoever sends goes on, or leaves.
            Role::Server | Role::Client => {}
        }
    }

    /// The client has answered that it knows of the end: from now on there are no new streams.
    pub(super) fn leave(&mut self) {
        if self.going == Going::Announced {
            self.going = Going::Last(self.last);
            frame::goaway(self.last, Reason::NO_ERROR, self.out.buffer());
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_done(&self) -> bool {
        let ends = self.is_left || matches!(self.going, Going::Last(_));
        ends && self.streams.is_empty()
    }

    /// The connection is over: whoever has to do with it is told.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        for id in self.streams.ids() {
            self.lose(id, Lost::Closed);
        }
    }
}
