//! What carries nothing, counted; what goes out, in order; requests that are changed at random; cookies.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{COOKIE, HeaderName};
use http::{HeaderValue, Method};
use tokio::io::AsyncWrite;
use tokio::time::Instant;

use super::calm::Calm;
use super::head::Fields;
use super::hpack::{Field, Name};
use super::{frame, fuzzing};
use crate::buffers::Out;

#[test]
fn what_carries_nothing_is_counted_for_ten_seconds() {
    let now = Instant::now().into_std();
    let mut calm = Calm::default();
    for _ in 0..2000 {
        calm.spend(1, now).unwrap();
    }
    assert!(calm.spend(1, now + Duration::from_secs(9)).is_err());
    assert!(calm.spend(1, now + Duration::from_secs(10)).is_ok());
}

#[test]
fn what_carries_something_allows_more() {
    let now = Instant::now().into_std();
    let mut calm = Calm::default();
    for _ in 0..6000 {
        calm.spend(1, now).unwrap();
        calm.content(1);
    }
}

#[test]
fn the_crumbs_of_a_cookie_are_one_cookie() {
    let mut fields = Fields::new(1000);
    for (name, value) in [(Name::Method, "GET"), (Name::Scheme, "http"), (Name::Path, "/")] {
        fields.take(Field::Pseudo(name, value.into()));
    }
    for crumb in ["a=1", "b=2"] {
        fields.take(Field::Header(COOKIE, HeaderValue::from_static(crumb)));
        let between = HeaderName::from_static("x");
        fields.take(Field::Header(between, HeaderValue::from_static("y")));
    }
    let request = fields.request().unwrap();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(
        request.headers().get_all(COOKIE).iter().collect::<Vec<_>>(),
        ["a=1; b=2"]
    );
}

#[test]
fn fields_that_are_too_many_are_cut_off_after_the_one_that_passes() {
    let list = |room: usize| {
        let mut fields = Fields::new(room);
        for (name, value) in [(Name::Method, "GET"), (Name::Scheme, "http"), (Name::Path, "/")] {
            fields.take(Field::Pseudo(name, value.into()));
        }
        for _ in 0..10 {
            fields.take(Field::Header(
                HeaderName::from_static("x"),
                HeaderValue::from_static("y"),
            ));
        }
        fields.request().unwrap().headers().len()
    };
    // Three pseudo-header fields count 42, 43 and 38 bytes, and each header field 34.
    let pseudo = 42 + 43 + 38;
    assert_eq!(list(pseudo + 340), 10);
    assert_eq!(list(pseudo + 339), 10);
    assert_eq!(list(pseudo + 305), 9);
    assert_eq!(list(pseudo), 1);
}

/// A writer that takes some bytes of some slices, or none.
struct Grudging {
    dice: Dice,
    taken: Vec<u8>,
}

impl AsyncWrite for Grudging {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.as_mut().poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let most = self.dice.roll(40_000);
        if most < 4_000 {
            return Poll::Pending;
        }
        let all: Vec<u8> = slices
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .take(most)
            .collect();
        self.taken.extend_from_slice(&all);
        Poll::Ready(Ok(all.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn what_goes_out_keeps_its_order_whatever_a_write_takes() {
    let mut out = Out::default();
    let mut cx = Context::from_waker(Waker::noop());
    let mut socket = Grudging {
        dice: Dice(7),
        taken: Vec::new(),
    };
    let mut dice = Dice(20_261_124);
    let mut written = Vec::new();
    for round in 0..2000_usize {
        let piece: Vec<u8> = (0..dice.roll(20_000))
            .map(|at| u8::try_from((at + round) % 251).unwrap())
            .collect();
        if dice.roll(2) == 0 {
            out.buffer().extend_from_slice(&piece);
        } else {
            out.piece(piece.clone().into());
        }
        written.extend_from_slice(&piece);
        let waits = written.len() - socket.taken.len();
        assert_eq!(out.is_full(), waits >= 64 << 10);
        while out.is_full() {
            let _pending = out.poll_write(&mut cx, &mut socket).map(Result::unwrap);
        }
    }
    while !out.is_empty() {
        let _pending = out.poll_write(&mut cx, &mut socket).map(Result::unwrap);
    }
    assert!(socket.taken == written);
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

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let stream = stream.to_be_bytes();
    [&length[1..], &[kind, flags], &stream, payload].concat()
}

#[test]
fn requests_that_are_changed_at_random_break_nothing() {
    let post = b"\x83\x86\x44\x06/count\x41\x01a\x40\x01x\x01y";
    let seed = [
        frame(4, 0, 0, &[0, 4, 0, 0, 255, 255]),
        frame(1, 4, 1, post),
        frame(0, 0, 1, b"some data"),
        frame(0, 8, 1, b"\x02data\0\0"),
        frame(1, 5, 1, b"\x00\x07trailer\x01y"),
        frame(6, 0, 0, &[7; 8]),
        frame(1, 0x24, 3, &[&[0, 0, 0, 0, 9], &post[..6]].concat()),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        frame(1, 1, 5, &post[..9]),
        frame(9, 4, 5, &post[9..]),
        frame(0, 1, 3, &[b'z'; 3000]),
        frame(3, 0, 5, &[0, 0, 0, 8]),
        frame(2, 0, 7, &[0; 5]),
        frame(7, 0, 0, &[0; 8]),
    ]
    .concat();
    let now = Instant::now().into_std();
    fuzzing::frames(&seed, now);
    fuzzing::header_block(post);
    let mut dice = Dice(20_261_124);
    for _ in 0..3000 {
        let mut bytes = seed.clone();
        for _ in 0..=dice.roll(4) {
            let at = dice.roll(bytes.len());
            match dice.roll(5) {
                0 => bytes[at] ^= 1 << dice.roll(8),
                1 => bytes[at] = u8::try_from(dice.roll(256)).unwrap(),
                2 => drop(bytes.remove(at)),
                3 => bytes.insert(at, 0x80),
                _ => bytes.truncate(at.max(frame::HEAD)),
            }
        }
        fuzzing::frames(&bytes, now);
        fuzzing::header_block(&bytes[frame::HEAD..]);
    }
}
