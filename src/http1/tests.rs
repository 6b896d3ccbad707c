//! Heads, framing and bodies, as bytes.

use bytes::Bytes;
use http::header::TE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};

use super::*;
use crate::buffers::Out;

fn input(bytes: &[u8]) -> Input {
    let mut input = Input::new(Sender::Client);
    input.room().extend_from_slice(bytes);
    input
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            let value = HeaderValue::from_static(value);
            (http::HeaderName::from_static(name), value)
        })
        .collect()
}

/// A body and its trailers.
type Whole = (Vec<u8>, Option<HeaderMap>);

/// What all of `bytes` is; `None` if more is to come.
fn decoded(framing: Framing, bytes: &[u8]) -> Result<Option<Whole>, Malformed> {
    let mut input = input(bytes);
    let mut decoder = Decoder::new(framing);
    let mut body = Vec::new();
    while let Some(piece) = decoder.next(&mut input)? {
        match piece {
            Piece::Data(data) => body.extend_from_slice(&data),
            Piece::End(trailers) => return Ok(Some((body, trailers.map(|trailers| *trailers)))),
        }
    }
    Ok(None)
}

#[test]
fn chunks_are_read_by_the_grammar_and_nothing_but_the_grammar() {
    let long = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(3000));
    let good: [(&[u8], &str); 9] = [
        (b"0\r\n\r\n", ""),
        (b"5\r\nhello\r\n0\r\n\r\n", "hello"),
        (b"5\r\nhello\r\n6\r\n world\r\n000\r\n\r\n", "hello world"),
        (b"A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        (b"a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        (b"0000000000000005\r\nhello\r\n0\r\n\r\n", "hello"),
        (b"5;name=\"va\tlue\";other\r\nhello\r\n0;x\r\n\r\n", "hello"),
        (b"5 \t;x\r\nhello\r\n0\r\n\r\n", "hello"),
        (long.as_bytes(), "hello"),
    ];
    for (bytes, body) in good {
        let read = decoded(Framing::Chunked, bytes).unwrap().unwrap();
        assert_eq!(
            (read.0.as_slice(), read.1),
            (body.as_bytes(), None),
            "{}",
            bytes.escape_ascii()
        );
        for cut in 0..bytes.len() {
            assert_eq!(
                decoded(Framing::Chunked, &bytes[..cut]),
                Ok(None),
                "{cut} of {}",
                bytes.escape_ascii()
            );
        }
    }
    let too_long = format!("5;{}\r\n", "x".repeat(5000));
    let endless = "x".repeat(5000);
    let extended = format!("1;{}\r\nx\r\n", "x".repeat(4000)).repeat(5);
    let bad: [&[u8]; 24] = [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\nx",
        b"1 2\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5\r\nhelloo\r\n",
        b"5\r\nhello\r0",
        b"5;a\0b\r\n",
        b"5;a\rb\r\n",
        b"5;a\x7f\r\n",
        b"10000000000000000\r\n",
        b"00000000000000005\r\n",
        b"0\r\nbad name: x\r\n\r\n",
        b"0\r\nname: a\0b\r\n\r\n",
        b"0\r\n: x\r\n\r\n",
        too_long.as_bytes(),
        endless.as_bytes(),
        extended.as_bytes(),
    ];
    for bytes in bad {
        let mut input = input(bytes);
        let mut decoder = Decoder::new(Framing::Chunked);
        let malformed = loop {
            match decoder.next(&mut input) {
                Ok(Some(Piece::Data(_))) => {}
                Ok(end) => panic!("{end:?} of {}", bytes.escape_ascii()),
                Err(malformed) => break malformed,
            }
        };
        // Whoever asks again hears the same, whatever has come since.
        input.room().extend_from_slice(b"\r\n\r\n");
        for _ in 0..2 {
            assert_eq!(decoder.next(&mut input).unwrap_err(), malformed);
        }
    }
}

#[test]
fn trailers_are_kept_but_for_what_frames_and_routes() {
    let bytes = b"1\r\nx\r\n0\r\ngrpc-status: 0\r\nContent-Length: 5\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (body, trailers) = decoded(Framing::Chunked, bytes).unwrap().unwrap();
    assert_eq!(body, b"x");
    assert_eq!(trailers, Some(headers(&[("grpc-status", "0")])));
    let only_framing = b"0\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(
        decoded(Framing::Chunked, only_framing),
        Ok(Some((Vec::new(), None)))
    );
    let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(101));
    assert!(decoded(Framing::Chunked, many.as_bytes()).is_err());
    for end in ["\r\n\r\n", ""] {
        let large = format!("0\r\nx: {}{end}", "y".repeat(17 << 10));
        assert!(decoded(Framing::Chunked, large.as_bytes()).is_err());
    }
}

#[test]
fn a_body_of_a_known_length_leaves_what_follows() {
    let mut input = input(b"hello, next");
    let mut decoder = Decoder::new(Framing::Length(5));
    assert_eq!(decoder.left(), Some(5));
    let Ok(Some(Piece::Data(data))) = decoder.next(&mut input) else {
        panic!("there is data");
    };
    assert_eq!((&*data, decoder.left()), (&b"hello"[..], Some(0)));
    assert!(matches!(decoder.next(&mut input), Ok(Some(Piece::End(None)))));
    assert_eq!(&**input, b", next");
}

#[test]
fn requests_whose_end_is_in_doubt_have_no_framing() {
    let v11 = Version::HTTP_11;
    for (version, lines, framing) in [
        (v11, &[][..], Some(Framing::Nothing)),
        (v11, &[("content-length", "3")], Some(Framing::Length(3))),
        (v11, &[("content-length", "03")], Some(Framing::Length(3))),
        (v11, &[("transfer-encoding", "Chunked")], Some(Framing::Chunked)),
        (Version::HTTP_10, &[("transfer-encoding", "chunked")], None),
        (v11, &[("transfer-encoding", "gzip, chunked")], None),
        (v11, &[("transfer-encoding", "chunked, chunked")], None),
        (v11, &[("transfer-encoding", "identity")], None),
        (v11, &[("transfer-encoding", "")], None),
        (
            v11,
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            None,
        ),
        (
            v11,
            &[("transfer-encoding", "chunked"), ("content-length", "3")],
            None,
        ),
        (v11, &[("content-length", "3"), ("content-length", "3")], None),
        (v11, &[("content-length", "3, 3")], None),
        (v11, &[("content-length", "+3")], None),
        (v11, &[("content-length", "")], None),
        (v11, &[("content-length", "18446744073709551616")], None),
    ] {
        assert_eq!(
            Framing::of_request(version, &headers(lines)),
            framing,
            "{lines:?}"
        );
    }
}

#[test]
fn answers_end_where_every_reader_sees_it() {
    let head = |status: u16, version, lines: &[(&'static str, &'static str)]| {
        let (mut head, ()) = Response::new(()).into_parts();
        head.status = StatusCode::from_u16(status).unwrap();
        head.version = version;
        head.headers = headers(lines);
        head
    };
    let v11 = Version::HTTP_11;
    let chunked: &[_] = &[("transfer-encoding", "chunked")];
    let three: &[_] = &[("content-length", "3")];
    let of = |status, version, lines, to_head| Framing::of_answer(&head(status, version, lines), to_head);
    assert_eq!(of(200, v11, three, false), Ok(Framing::Length(3)));
    assert_eq!(of(200, v11, chunked, false), Ok(Framing::Chunked));
    assert_eq!(of(200, v11, &[], false), Ok(Framing::UntilClose));
    assert_eq!(of(200, Version::HTTP_10, &[], false), Ok(Framing::UntilClose));
    for (status, to_head) in [(200, true), (204, false), (304, false)] {
        assert_eq!(of(status, v11, three, to_head), Ok(Framing::Nothing));
        assert_eq!(of(status, v11, chunked, to_head), Ok(Framing::Nothing));
    }
    let twice: &[_] = &[("content-length", "3"), ("content-length", "3")];
    assert_eq!(of(200, v11, twice, false), Ok(Framing::Length(3)));
    for lines in [
        &[("content-length", "3"), ("content-length", "4")][..],
        &[("content-length", "x")],
        &[("content-length", "3"), ("transfer-encoding", "chunked")],
        &[("transfer-encoding", "gzip, chunked")],
        &[("transfer-encoding", "identity")],
    ] {
        assert!(of(200, v11, lines, false).is_err(), "{lines:?}");
    }
    assert!(of(200, Version::HTTP_10, chunked, false).is_err());
}

#[test]
fn an_answer_has_one_length_or_none() {
    let table = [
        (Framing::Length(3), &[("content-length", "3")][..], Some("3")),
        (
            Framing::Length(3),
            &[("content-length", "3"), ("content-length", "3")],
            Some("3"),
        ),
        // To HEAD, or with 304: what the body would have.
        (Framing::Nothing, &[("content-length", "3")], Some("3")),
        (
            Framing::Nothing,
            &[("content-length", "3"), ("content-length", "3")],
            Some("3"),
        ),
        (
            Framing::Nothing,
            &[("content-length", "3"), ("content-length", "4")],
            None,
        ),
        (Framing::Nothing, &[("content-length", "-3")], None),
        (Framing::Nothing, &[], None),
    ];
    for (framing, lines, expected) in table {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_static(value));
        }
        one_length(framing, &mut map);
        let left: Vec<_> = map.get_all("content-length").iter().collect();
        assert_eq!(left, Vec::from_iter(expected), "{framing:?} {lines:?}");
    }
}

#[test]
fn an_answer_without_content_that_announces_some_ends_its_connection() {
    for (status, lines, expected) in [
        (204, &[][..], false),
        (204, &[("content-length", "0")], false),
        (204, &[("content-length", "5")], true),
        (204, &[("content-length", "x")], true),
        (204, &[("transfer-encoding", "chunked")], true),
        (304, &[("content-length", "5")], false),
        (200, &[("content-length", "5")], false),
    ] {
        let (mut head, ()) = Response::builder().status(status).body(()).unwrap().into_parts();
        head.headers = headers(lines);
        assert_eq!(has_more(&head), expected, "{status} {lines:?}");
    }
}

#[test]
fn connections_are_kept_by_version_and_option() {
    let (v10, v11) = (Version::HTTP_10, Version::HTTP_11);
    for (version, lines, kept) in [
        (v11, &[][..], true),
        (v10, &[], false),
        (v11, &[("connection", "close")], false),
        (v11, &[("connection", "x, Close")], false),
        (v11, &[("connection", "x"), ("connection", "close")], false),
        (v10, &[("connection", "Keep-Alive")], true),
        (v10, &[("connection", "keep-alive, close")], false),
        (v11, &[("connection", "closed")], true),
    ] {
        assert_eq!(is_kept(version, &headers(lines)), kept, "{version:?} {lines:?}");
    }
}

#[test]
fn a_head_keeps_nothing_of_the_buffer_that_it_came_in() {
    let mut input =
        input(b"\r\n\nGET /a?b HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nx: one\r\nX:  two \r\n\r\nrest");
    let head = Heads::new(100, 10).request(&mut input).unwrap().unwrap();
    assert_eq!((head.method, head.uri.to_string()), (Method::GET, "/a?b".into()));
    assert_eq!(
        head.headers,
        headers(&[("host", "a"), ("x-empty", ""), ("x", "one"), ("x", "two")])
    );
    assert_eq!(&**input, b"rest");
    input.clear();
    assert!(input.try_reclaim(64 << 10), "nobody else holds it");
}

#[test]
fn heads_are_taken_up_to_their_limits() {
    let mut heads = Heads::new(40, 150);
    let read = |heads: &mut Heads, text: &str| {
        heads
            .request(&mut input(text.as_bytes()))
            .map(|head| head.is_some())
    };
    assert_eq!(
        read(&mut heads, "GET / HTTP/1.1\r\nx: 890123456789012\r\n\r\n"),
        Ok(true)
    );
    let one_more = "GET / HTTP/1.1\r\nx: 8901234567890123456\r\n\r\n";
    assert_eq!(read(&mut heads, one_more), Err(HeadError::TooLarge));
    let mut heads = Heads::new(40, 150);
    assert_eq!(read(&mut heads, &one_more[..41]), Err(HeadError::TooLarge));
    let mut heads = Heads::new(40, 150);
    let line = "x".repeat(41);
    assert_eq!(read(&mut heads, &line), Err(HeadError::LineTooLong));
    let lines = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(count));
    let mut heads = Heads::new(10_000, 150);
    assert_eq!(read(&mut heads, &lines(150)), Ok(true));
    assert_eq!(read(&mut heads, &lines(151)), Err(HeadError::TooLarge));
}

/// What is written for an answer with `body`, and whether the connection is kept.
fn written(request: &str, head: Response<()>, body: Option<&'static [u8]>, exact: bool) -> (String, bool) {
    let asked = Heads::new(1000, 10)
        .request(&mut input(request.as_bytes()))
        .unwrap()
        .unwrap();
    let mut asked = Asked {
        to_head: asked.method == Method::HEAD,
        version: asked.version,
        is_kept: is_kept(asked.version, &asked.headers),
        takes_trailers: asked.headers.contains_key(TE),
    };
    let mut out = Out::default();
    let length = body.map_or(0, |body| body.len() as u64);
    let date = HeaderValue::from_static("now");
    let (head, ()) = head.into_parts();
    let mut encoder = answer(&head, exact.then_some(length), &date, &mut asked, out.buffer());
    for piece in body.into_iter().flat_map(|body| body.chunks(20)) {
        encoder.data(Bytes::from_static(piece), &mut out).unwrap();
    }
    encoder.end(Some(&headers(&[("t", "u")])), &mut out).unwrap();
    (String::from_utf8(out.buffer().clone()).unwrap(), asked.is_kept)
}

#[test]
fn answers_are_framed_as_their_requests_allow() {
    let response = |status: u16, lines: &[(&'static str, &'static str)]| {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers(lines);
        response
    };
    let body: Option<&'static [u8]> = Some(b"0123456789012345678901234");
    let get = "GET / HTTP/1.1\r\n\r\n";
    let table = [
        (
            get,
            response(200, &[("x", "y")]),
            body,
            true,
            "HTTP/1.1 200 OK\r\nx: y\r\ncontent-length: 25\r\ndate: now\r\n\r\n0123456789012345678901234",
            true,
        ),
        (
            get,
            response(200, &[]),
            None,
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ndate: now\r\n\r\n",
            true,
        ),
        (
            get,
            response(200, &[("date", "then")]),
            body,
            false,
            "HTTP/1.1 200 OK\r\ndate: then\r\ntransfer-encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n5\r\n01234\r\n0\r\n\r\n",
            true,
        ),
        (
            "GET / HTTP/1.1\r\nTE: trailers\r\n\r\n",
            response(200, &[("date", "then")]),
            Some(b"x"),
            false,
            "HTTP/1.1 200 OK\r\ndate: then\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nt: u\r\n\r\n",
            true,
        ),
        (
            get,
            response(200, &[("content-length", "25"), ("transfer-encoding", "chunked")]),
            body,
            false,
            "HTTP/1.1 200 OK\r\ncontent-length: 25\r\ndate: now\r\n\r\n0123456789012345678901234",
            true,
        ),
        (
            get,
            response(299, &[("connection", "close")]),
            None,
            true,
            "HTTP/1.1 299 \r\ncontent-length: 0\r\nconnection: close\r\ndate: now\r\n\r\n",
            false,
        ),
        (
            get,
            response(204, &[("content-length", "3")]),
            None,
            true,
            "HTTP/1.1 204 No Content\r\ndate: now\r\n\r\n",
            true,
        ),
        (
            get,
            response(304, &[("content-length", "3")]),
            None,
            true,
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\ndate: now\r\n\r\n",
            true,
        ),
        (
            "HEAD / HTTP/1.1\r\n\r\n",
            response(200, &[]),
            body,
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 25\r\ndate: now\r\n\r\n",
            true,
        ),
        (
            "HEAD / HTTP/1.1\r\n\r\n",
            response(200, &[("content-length", "3")]),
            None,
            true,
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ndate: now\r\n\r\n",
            true,
        ),
        (
            "GET / HTTP/1.0\r\n\r\n",
            response(200, &[]),
            body,
            false,
            "HTTP/1.0 200 OK\r\nconnection: close\r\ndate: now\r\n\r\n0123456789012345678901234",
            false,
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            response(200, &[]),
            body,
            false,
            "HTTP/1.0 200 OK\r\nconnection: close\r\ndate: now\r\n\r\n0123456789012345678901234",
            false,
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            response(200, &[]),
            None,
            true,
            "HTTP/1.0 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\ndate: now\r\n\r\n",
            true,
        ),
        (
            get,
            response(101, &[("upgrade", "websocket"), ("connection", "upgrade")]),
            None,
            true,
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\ndate: now\r\n\r\n",
            true,
        ),
    ];
    for (request, head, body, exact, bytes, kept) in table {
        let name = format!("{request} {head:?}");
        assert_eq!(
            written(request, head, body, exact),
            (bytes.to_owned(), kept),
            "{name}"
        );
    }
}

#[test]
fn requests_say_how_long_they_are() {
    let written = |method: Method, lines, exact| {
        let mut request = Request::new(());
        let is_absolute = method == Method::DELETE;
        *request.method_mut() = method;
        let uri = if is_absolute { "http://u:80/a?b" } else { "/a?b" };
        *request.uri_mut() = uri.parse().unwrap();
        *request.headers_mut() = headers(lines);
        let mut out = Vec::new();
        let encoder = super::request(&request, exact, &mut out);
        (String::from_utf8(out).unwrap(), encoder)
    };
    let none = Encoder::Length(0);
    let table = [
        (
            Method::GET,
            &[("host", "h")][..],
            Some(0),
            "GET /a?b HTTP/1.1\r\nhost: h\r\n\r\n",
            none,
        ),
        (
            Method::POST,
            &[],
            Some(0),
            "POST /a?b HTTP/1.1\r\ncontent-length: 0\r\n\r\n",
            none,
        ),
        (
            Method::DELETE,
            &[("host", "h"), ("x", "y")],
            Some(2),
            "DELETE /a?b HTTP/1.1\r\nhost: u:80\r\nx: y\r\ncontent-length: 2\r\n\r\n",
            Encoder::Length(2),
        ),
        (
            Method::POST,
            &[("content-length", "7")],
            None,
            "POST /a?b HTTP/1.1\r\ncontent-length: 7\r\n\r\n",
            Encoder::Length(7),
        ),
        (
            Method::PUT,
            &[("transfer-encoding", "gzip")],
            None,
            "PUT /a?b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
            Encoder::Chunked { trailers: false },
        ),
    ];
    for (method, lines, exact, bytes, encoder) in table {
        assert_eq!(written(method, lines, exact), (bytes.to_owned(), encoder));
    }
}

#[test]
fn a_body_that_is_not_as_long_as_it_says_is_an_error() {
    let mut out = Out::default();
    let mut encoder = Encoder::Length(3);
    assert_eq!(encoder.data(Bytes::from_static(b"ab"), &mut out), Ok(()));
    assert_eq!(encoder.end(None, &mut out), Err(Mismatch));
    assert_eq!(encoder.data(Bytes::from_static(b"cd"), &mut out), Err(Mismatch));
}

/// A small generator that gives the same numbers on every machine: xorshift.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

#[test]
fn messages_that_are_changed_at_random_mean_the_same_however_they_are_cut() {
    let requests = b"\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /b HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world\
        POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nt: u\r\nv: w\r\n\r\n\
        PUT /d HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\nGET /e HTTP/1.1\r\n\r\n";
    let answers = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\
        HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
        HTTP/1.1 204 No Content\r\n\r\nHTTP/1.0 200 Fine\r\n\r\nuntil the end";
    let mut dice = Dice(20_261_125);
    for (seed, is_answers) in [(&requests[..], false), (&answers[..], true)] {
        fuzzing::messages(seed, is_answers);
        for _ in 0..3000 {
            let mut bytes = seed.to_vec();
            for _ in 0..=dice.roll(4) {
                let at = dice.roll(bytes.len());
                match dice.roll(6) {
                    0 => bytes[at] ^= 1 << dice.roll(8),
                    1 => bytes[at] = u8::try_from(dice.roll(256)).unwrap(),
                    2 => drop(bytes.remove(at)),
                    3 => bytes.insert(at, b"\r\n: ;0"[dice.roll(6)]),
                    4 => drop(bytes.splice(at..at, vec![b'x'; 3000])),
                    _ => bytes.truncate(at.max(1)),
                }
            }
            fuzzing::messages(&bytes, is_answers);
        }
    }
}
