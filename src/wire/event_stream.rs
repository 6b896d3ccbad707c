//! Cuts a stream of server-sent events into events.
//!
//! Source: HTML Living Standard, "Server-sent events", "Parsing an event stream".

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its type; empty where the stream names none.
    pub kind: String,
    /// Its data, with a line feed between the lines.
    pub data: Bytes,
}

/// Why a stream of events could not be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EventError {
    /// An event passed the limit, in bytes.
    #[error("an event is over the limit of {limit} bytes")]
    TooLarge {
        /// What is allowed.
        limit: usize,
    },
    /// The stream ended inside an event.
    #[error("the stream ended inside an event")]
    Truncated,
}

/// 64 bytes: no type of an event that is understood is longer.
const MAX_KIND: usize = 64;

/// Cuts events out of chunks as they arrive. Holds at most one event of at most `limit` bytes beside the newest chunk.
#[derive(Debug)]
pub struct Events {
    limit: usize,
    buffer: BytesMut,
    /// Bytes of the buffer that are known to hold no line end. 0 <= seen <= buffer.len().
    seen: usize,
    started: bool,
    /// The last line ended in a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    kind: String,
    data: BytesMut,
    has_data: bool,
}

impl Events {
    /// A cutter that refuses events over `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            buffer: BytesMut::new(),
            seen: 0,
            started: false,
            after_return: false,
            kind: String::new(),
            data: BytesMut::new(),
            has_data: false,
        }
    }

    /// Takes the next chunk of the body.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next whole event, if there is one.
    ///
    /// # Errors
    /// [`EventError::TooLarge`].
    pub fn next_event(&mut self) -> Result<Option<Event>, EventError> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                let kind = std::mem::take(&mut self.kind);
                if std::mem::take(&mut self.has_data) {
                    let data = self.data.split().freeze();
                    return Ok(Some(Event { kind, data }));
                }
                continue;
            }
            self.field(&line);
            if self.data.len() > self.limit {
                return Err(EventError::TooLarge { limit: self.limit });
            }
        }
        if self.buffer.len().saturating_add(self.data.len()) > self.limit {
            return Err(EventError::TooLarge { limit: self.limit });
        }
        Ok(None)
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    /// [`EventError::Truncated`] inside an event.
    pub fn finish(&self) -> Result<(), EventError> {
        if self.has_data || !self.buffer.is_empty() {
            return Err(EventError::Truncated);
        }
        Ok(())
    }

    /// The next line without its end.
    fn line(&mut self) -> Option<Bytes> {
        if self.after_return && !self.buffer.is_empty() {
            self.after_return = false;
            if self.buffer.first() == Some(&b'\n') {
                self.buffer.advance(1);
            }
        }
        let rest = self.buffer.get(self.seen..).unwrap_or_default();
        let Some(end) = memchr::memchr2(b'\n', b'\r', rest) else {
            self.seen = self.buffer.len();
            return None;
        };
        let end = self.seen.saturating_add(end);
        let mut line = self.buffer.split_to(end).freeze();
        self.after_return = self.buffer.first() == Some(&b'\r');
        self.buffer.advance(1);
        self.seen = 0;
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xef\xbb\xbf") {
            line.advance(3);
        }
        Some(line)
    }

    fn field(&mut self, line: &[u8]) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(colon) => {
                let (name, rest) = line.split_at(colon);
                let value = rest.get(1..).unwrap_or_default();
                (name, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.extend_from_slice(b"\n");
                }
                self.data.extend_from_slice(value);
            }
            b"event" => {
                let value = value.get(..value.len().min(MAX_KIND)).unwrap_or_default();
                self.kind = String::from_utf8_lossy(value).into_owned();
            }
            // Comments, `id`, `retry` and what nobody knows say nothing about messages.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str, step: usize) -> (Vec<(String, String)>, Result<(), EventError>) {
        let mut events = Events::new(40);
        let mut got = Vec::new();
        for chunk in text.as_bytes().chunks(step) {
            events.push(chunk);
            loop {
                match events.next_event() {
                    Ok(Some(event)) => {
                        let data = String::from_utf8(event.data.to_vec()).unwrap();
                        got.push((event.kind, data));
                    }
                    Ok(None) => break,
                    Err(error) => return (got, Err(error)),
                }
            }
        }
        let end = events.finish();
        (got, end)
    }

    #[test]
    fn events_are_cut_however_the_chunks_fall() {
        for (text, expected) in [
            ("data: a\n\ndata:b\n\n", &[("", "a"), ("", "b")][..]),
            ("\u{feff}id: 1\r\ndata: a\r\n\r\n", &[("", "a")]),
            ("data: a\r\rdata: b\r\r", &[("", "a"), ("", "b")]),
            ("event: error\ndata: {\ndata: }\n\n", &[("error", "{\n}")]),
            (": ping\n\nevent: x\n\ndata\n\n", &[("", "")]),
            ("retry: 5\ndata:  a: b\n\n", &[("", " a: b")]),
        ] {
            for step in 1..=text.len() {
                let (got, end) = cut(text, step);
                let got: Vec<_> = got
                    .iter()
                    .map(|(kind, data)| (kind.as_str(), data.as_str()))
                    .collect();
                assert_eq!(got, expected, "{text:?} cut every {step} bytes");
                assert_eq!(end, Ok(()), "{text:?}");
            }
        }
    }

    #[test]
    fn a_stream_that_ends_inside_an_event_is_truncated() {
        for text in ["data: a", "data: a\n", "data: a\n\ndata", ": half"] {
            assert_eq!(cut(text, 3).1, Err(EventError::Truncated), "{text:?}");
        }
    }

    #[test]
    fn an_event_over_the_limit_is_refused() {
        for (length, fits) in [(39, true), (40, true), (41, false)] {
            let text = format!("data:{}\n\n", "x".repeat(length));
            // In one chunk, so that the line itself does not count.
            assert_eq!(cut(&text, 100).1.is_ok(), fits, "{length}");
        }
        let endless = "data: x\n".repeat(30);
        assert_eq!(cut(&endless, 8).1, Err(EventError::TooLarge { limit: 40 }));
    }
}
