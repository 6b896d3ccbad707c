//! What must hold of a connection whatever a client sends. Called by `fuzz/` and, on fixed seeds, by `cargo test`.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http::{HeaderValue, Response};
use http_body::Body as _;

use super::{Broken, Inbound, Line, PREFACE, Reader, Role, Settings};

/// Windows are large, so that what is said decides, and not when it is read.
const SETTINGS: Settings = Settings {
    role: Role::Server,
    max_streams: 1_000,
    stream_window: 1 << 30,
    connection_window: 1 << 30,
    max_frame: 16 << 10,
    header_table: 512,
    max_header_list: 2_000,
    max_pending_resets: 1_000,
    max_error_resets: 3,
};

/// A connection, and what has begun on it.
struct Session {
    line: Line,
    reader: Reader,
    bodies: Vec<(u32, Inbound)>,
    /// A line for each request and each piece of a body.
    heard: Vec<String>,
    broken: Option<Broken>,
}

impl Session {
    fn new() -> Self {
        let line = Line::new(SETTINGS);
        Self {
            reader: Reader::new(line.clone(), &SETTINGS),
            line,
            bodies: Vec::new(),
            heard: Vec::new(),
            broken: None,
        }
    }

    fn read(&mut self, bytes: &[u8], now: Instant) {
        if self.broken.is_some() {
            return;
        }
        self.reader.room().extend_from_slice(bytes);
        let Self {
            reader,
            heard,
            bodies,
            ..
        } = self;
        let read = reader.apply(now, |request| {
            let (method, uri) = (request.head.method(), request.head.uri());
            let headers = request.head.headers();
            heard.push(format!("{}: {method} {uri} {headers:?}", request.stream));
            bodies.extend(request.body.map(|body| (request.stream, body)));
        });
        self.broken = read.err();
        self.reader.rest();
    }

    /// Sends back what has come of each body.
    fn answer(&mut self) {
        let Self {
            line, bodies, heard, ..
        } = self;
        let mut cx = Context::from_waker(Waker::noop());
        bodies.retain_mut(|(stream, body)| {
            let (head, ()) = Response::new(()).into_parts();
            // A stream may be over before it is answered.
            let _gone = line.head(*stream, &head, &HeaderValue::from_static("now"), false);
            while let Poll::Ready(read) = Pin::new(&mut *body).poll_frame(&mut cx) {
                let Some(Ok(frame)) = read else {
                    heard.push(format!(
                        "{stream}: {}",
                        if read.is_none() { "the end" } else { "lost" }
                    ));
                    let _blocked = line.poll_copy(&cx, *stream, &[], true);
                    return false;
                };
                match frame.into_data() {
                    Ok(data) => {
                        heard.push(format!("{stream}: {}", data.escape_ascii()));
                        let _blocked = line.poll_data(&cx, *stream, &data, false);
                    }
                    Err(trailers) => heard.push(format!("{stream}: {:?}", trailers.trailers_ref())),
                }
            }
            true
        });
    }
}

/// What comes of `data` after the preface, read in pieces of so many bytes.
fn heard(data: &[u8], piece: usize, now: Instant) -> (Vec<String>, Option<Broken>) {
    let mut session = Session::new();
    for bytes in [PREFACE].into_iter().chain(data.chunks(piece.max(1))) {
        session.read(bytes, now);
    }
    session.answer();
    session.line.end();
    (session.heard, session.broken)
}

/// Bytes after the preface: however they are cut into pieces, they mean the same or break it in the same way, and
/// answering in between breaks nothing.
///
/// # Panics
/// Something does not hold.
pub fn frames(data: &[u8], now: Instant) {
    let whole = heard(data, data.len(), now);
    for piece in [1, 7, 10, 100] {
        assert_eq!(whole, heard(data, piece, now), "in pieces of {piece}");
    }
    let mut session = Session::new();
    session.read(PREFACE, now);
    for bytes in data.chunks(100) {
        session.read(bytes, now);
        session.answer();
    }
}

/// A header block: reading it ends, and what it says is within what it may say.
pub fn header_block(data: &[u8]) {
    let mut decoder = super::hpack::Decoder::new(512, 512);
    let mut fields = super::head::Fields::new(2_000);
    let read = decoder.decode(data, |field| fields.take(field));
    if read.is_ok() {
        // Malformed or not: neither is an accident.
        let _request = fields.request();
    }
}
