//! Frames byte by byte, as a peer sends and reads them.

use bytes::BytesMut;
use tungstenite::protocol::Role as PeerRole;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};
use tungstenite::{Message, WebSocket};

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

const LIMITS: Limits = Limits {
    max_message_bytes: 70_000,
    max_frame_bytes: 66_000,
    max_fragments: 4,
};

/// A frame as a client sends it: the first byte as it is, then a masked payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        0..=125 => bytes.push(0x80 | u8::try_from(payload.len()).unwrap()),
        126..=65535 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend((payload.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(
        payload
            .iter()
            .zip(MASK.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    bytes
}

fn text(payload: &str) -> Event {
    data(Kind::Text, payload.as_bytes())
}

fn data(kind: Kind, payload: &[u8]) -> Event {
    Event::Data {
        kind,
        first: true,
        last: true,
        payload: Bytes::copy_from_slice(payload),
    }
}

/// Everything that a reader makes of `bytes`, given in chunks of `chunk`.
fn read(mut reader: Reader, bytes: &[u8], chunk: usize) -> Result<Vec<Event>, (Vec<Event>, FrameError)> {
    let mut events = Vec::new();
    for mut input in bytes.chunks(chunk) {
        loop {
            match reader.read(&mut input, true) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(error) => return Err((events, error)),
            }
        }
        assert!(input.is_empty());
    }
    Ok(events)
}

fn server(unit: Unit, deflate: bool) -> Reader {
    Reader::new(Role::Server, unit, LIMITS, deflate)
}

#[track_caller]
fn check(frames: &[Vec<u8>], expected: Result<&[Event], FrameError>) {
    let bytes = frames.concat();
    for chunk in [1, 2, 3, 7, 4096, bytes.len().max(1)] {
        match (read(server(Unit::Message, false), &bytes, chunk), &expected) {
            (Ok(events), Ok(expected)) => assert_eq!(&events, expected, "chunks of {chunk}"),
            (Err((_, error)), Err(expected)) => assert_eq!(error, *expected, "chunks of {chunk}"),
            (got, expected) => panic!("chunks of {chunk}: {got:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn messages_of_every_length_form_arrive() {
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 66_000] {
        let payload = vec![b'*'; length];
        check(&[frame(0x81, &payload)], Ok(&[data(Kind::Text, &payload)]));
        check(&[frame(0x82, &payload)], Ok(&[data(Kind::Binary, &payload)]));
    }
}

#[test]
fn control_frames_are_short_and_whole() {
    let long = [b'x'; 125];
    check(
        &[frame(0x89, b""), frame(0x89, &long), frame(0x8a, b"a")],
        Ok(&[
            Event::Ping(Bytes::new()),
            Event::Ping(Bytes::copy_from_slice(&long)),
            Event::Pong("a".into()),
        ]),
    );
    check(&[frame(0x89, &[b'x'; 126])], Err(FrameError::Control));
    check(&[frame(0x09, b"x")], Err(FrameError::Control));
    check(&[frame(0x08, b"")], Err(FrameError::Control));
}

#[test]
fn reserved_bits_and_opcodes_are_refused() {
    for bits in 1..8_u8 {
        check(&[frame(0x81 | bits << 4, b"x")], Err(FrameError::Reserved));
        check(&[frame(0x89 | bits << 4, b"x")], Err(FrameError::Reserved));
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        check(&[frame(0x80 | opcode, b"x")], Err(FrameError::Opcode));
    }
    check(&[vec![0x81, 1, b'x']], Err(FrameError::Mask));
}

#[test]
fn lengths_are_written_in_the_fewest_bytes() {
    let short_in_two = vec![0x82, 0x80 | 126, 0, 125, 1, 2, 3, 4];
    check(&[short_in_two], Err(FrameError::Length));
    let mut short_in_eight = vec![0x82, 0x80 | 127];
    short_in_eight.extend(65_535_u64.to_be_bytes());
    short_in_eight.extend(MASK);
    check(&[short_in_eight], Err(FrameError::Length));
    let mut highest_bit = vec![0x82, 0x80 | 127];
    highest_bit.extend((1_u64 << 63).to_be_bytes());
    highest_bit.extend(MASK);
    check(&[highest_bit], Err(FrameError::Length));
}

#[test]
fn fragments_are_joined_and_control_frames_may_stand_between_them() {
    check(
        &[
            frame(0x01, b"frag"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x80, b"ment"),
            frame(0x82, b"next"),
        ],
        Ok(&[
            Event::Ping("ping".into()),
            text("fragment"),
            data(Kind::Binary, b"next"),
        ]),
    );
    check(&[frame(0x80, b"x")], Err(FrameError::Continuation));
    check(&[frame(0x00, b"x")], Err(FrameError::Continuation));
    check(
        &[frame(0x01, b"x"), frame(0x81, b"y")],
        Err(FrameError::Continuation),
    );
    check(
        &[frame(0x81, b"x"), frame(0x80, b"y")],
        Err(FrameError::Continuation),
    );
}

#[test]
fn a_message_has_so_many_fragments_and_no_more() {
    let with = |more: usize| {
        let mut frames = vec![frame(0x01, b"a")];
        frames.extend(std::iter::repeat_with(|| frame(0x00, b"b")).take(more - 2));
        frames.push(frame(0x80, b"c"));
        frames
    };
    check(&with(3), Ok(&[text("abc")]));
    check(&with(4), Ok(&[text("abbc")]));
    check(&with(5), Err(FrameError::Fragments { limit: 4 }));
}

#[test]
fn what_is_over_a_limit_is_refused_by_its_header_alone() {
    let header = |first: u8, length: u64| {
        let mut bytes = vec![first, 0x80 | 127];
        bytes.extend(length.to_be_bytes());
        bytes.extend(MASK);
        bytes
    };
    check(
        &[header(0x82, 66_001)],
        Err(FrameError::FrameTooLarge { limit: 66_000 }),
    );
    check(&[header(0x82, 66_000)], Ok(&[]));
    let begun = frame(0x02, &[0; 4_000]);
    check(&[begun.clone(), header(0x80, 66_000)], Ok(&[]));
    let begun = [begun, frame(0x00, b"x")].concat();
    check(
        &[begun, header(0x80, 66_000)],
        Err(FrameError::MessageTooLarge { limit: 70_000 }),
    );
}

#[test]
fn text_is_refused_at_its_first_wrong_byte_and_bytes_never() {
    let wrong = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited";
    check(&[frame(0x81, wrong)], Err(FrameError::Utf8));
    check(&[frame(0x82, wrong)], Ok(&[data(Kind::Binary, wrong)]));
    // The character is cut between fragments.
    check(
        &[frame(0x01, b"\xf0\x9f"), frame(0x80, b"\x98\x80")],
        Ok(&[text("😀")]),
    );
    check(&[frame(0x81, b"\xf0\x9f")], Err(FrameError::Utf8));
    // The first fragment is wrong already; the rest is not waited for.
    check(&[frame(0x01, b"\xf4\x90")], Err(FrameError::Utf8));
    let mut half = frame(0x81, b"\xf4\x90\x80\x80");
    half.truncate(half.len() - 2);
    check(&[half], Err(FrameError::Utf8));
}

#[test]
fn close_codes_are_those_that_may_be_sent() {
    let with = |code: u16| [&code.to_be_bytes()[..], b"bye"].concat();
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999,
    ] {
        let close = Close {
            code,
            reason: "bye".to_owned(),
        };
        check(&[frame(0x88, &with(code))], Ok(&[Event::Close(Some(close))]));
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        check(&[frame(0x88, &with(code))], Err(FrameError::Close));
    }
    check(&[frame(0x88, b"")], Ok(&[Event::Close(None)]));
    check(&[frame(0x88, b"\x03")], Err(FrameError::Close));
    check(&[frame(0x88, b"\x03\xe8\xff")], Err(FrameError::Utf8));
    check(&[frame(0x88, &[3; 126])], Err(FrameError::Control));
}

#[test]
fn a_reason_is_cut_on_a_character() {
    assert_eq!(Close::new(1000, "short").reason, "short");
    assert_eq!(Close::new(1000, &"é".repeat(62)).reason.len(), 122);
    assert_eq!(Close::new(1000, &"x".repeat(124)).reason.len(), 123);
}

#[test]
fn frames_are_given_one_by_one_where_that_is_asked() {
    let bytes = [
        frame(0x01, b"\xf0\x9f"),
        frame(0x89, b""),
        frame(0x80, b"\x98\x80"),
    ]
    .concat();
    let events = read(server(Unit::Frame, false), &bytes, 3).unwrap();
    let part = |first, last, payload: &'static [u8]| Event::Data {
        kind: Kind::Text,
        first,
        last,
        payload: Bytes::from_static(payload),
    };
    assert_eq!(
        events,
        [
            part(true, false, b"\xf0\x9f"),
            Event::Ping(Bytes::new()),
            part(false, true, b"\x98\x80")
        ]
    );
}

#[test]
fn data_waits_while_control_frames_before_it_are_heard() {
    let mut reader = server(Unit::Message, false);
    let bytes = [frame(0x89, b"p"), frame(0x81, b"text")].concat();
    let mut input = &bytes[..];
    assert_eq!(reader.read(&mut input, false), Ok(Some(Event::Ping("p".into()))));
    assert_eq!(reader.read(&mut input, false), Ok(None));
    assert_eq!(input.len(), 4, "the payload is left");
    assert_eq!(reader.read(&mut input, true), Ok(Some(text("text"))));
}

#[test]
fn compressed_messages_are_bounded_by_what_they_become() {
    let agreed = deflate::Agreed::choose("permessage-deflate").unwrap();
    let at_limit = vec![b'a'; LIMITS.max_message_bytes];
    let packed = deflate::compress(agreed, &at_limit).unwrap();
    let bytes = frame(0xc1, &packed);
    for chunk in [1, 100, bytes.len()] {
        let events = read(server(Unit::Message, true), &bytes, chunk).unwrap();
        assert_eq!(events, [data(Kind::Text, &at_limit)]);
    }
    let over = deflate::compress(agreed, &vec![b'a'; LIMITS.max_message_bytes + 1]).unwrap();
    let (_, error) = read(server(Unit::Message, true), &frame(0xc1, &over), 7).unwrap_err();
    assert_eq!(error, FrameError::MessageTooLarge { limit: 70_000 });
    // Cut into frames, of which only the first has the bit.
    let (a, b) = packed.split_at(packed.len() / 2);
    let events = read(
        server(Unit::Message, true),
        &[frame(0x41, a), frame(0x80, b)].concat(),
        5,
    );
    assert_eq!(events.unwrap(), [data(Kind::Text, &at_limit)]);
    let (_, error) = read(
        server(Unit::Message, true),
        &[frame(0x41, a), frame(0xc0, b)].concat(),
        5,
    )
    .unwrap_err();
    assert_eq!(error, FrameError::Reserved);
    // Not compressed, although it might be.
    let events = read(server(Unit::Message, true), &frame(0x81, b"plain"), 5);
    assert_eq!(events.unwrap(), [text("plain")]);
    let wrong = deflate::compress(agreed, &[0xff; 100]).unwrap();
    let (_, error) = read(server(Unit::Message, true), &frame(0xc1, &wrong), 5).unwrap_err();
    assert_eq!(error, FrameError::Utf8);
}

/// A stream of bytes that tungstenite reads.
struct Wire(std::io::Cursor<Vec<u8>>);

impl std::io::Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl std::io::Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn tungstenite_reads_what_is_written() {
    for (role, peer) in [(Role::Server, PeerRole::Client), (Role::Client, PeerRole::Server)] {
        let mut out = BytesMut::new();
        let mut writer = Writer::new(role, None);
        writer.message(Kind::Text, "héllo".as_bytes(), &mut out);
        writer.message(Kind::Binary, &[7; 70_000], &mut out);
        writer.part(Kind::Text, true, false, b"in two ", &mut out);
        writer.ping(b"p", &mut out);
        writer.part(Kind::Text, false, true, b"parts", &mut out);
        writer.pong(b"q", &mut out);
        writer.close(Some(&Close::new(4005, "no such book")), &mut out);
        let mut socket = WebSocket::from_raw_socket(Wire(std::io::Cursor::new(out.to_vec())), peer, None);
        assert_eq!(socket.read().unwrap(), Message::text("héllo"));
        assert_eq!(socket.read().unwrap(), Message::binary(vec![7; 70_000]));
        assert_eq!(socket.read().unwrap(), Message::Ping("p".into()));
        assert_eq!(socket.read().unwrap(), Message::text("in two parts"));
        assert_eq!(socket.read().unwrap(), Message::Pong("q".into()));
        let Message::Close(Some(close)) = socket.read().unwrap() else {
            panic!("no close frame");
        };
        assert_eq!(
            (u16::from(close.code), close.reason.as_str()),
            (4005, "no such book")
        );
    }
}

#[test]
fn what_tungstenite_writes_is_read() {
    let mut bytes = Vec::new();
    for (opcode, payload) in [
        (OpCode::Data(Data::Binary), &[1_u8, 2, 3][..]),
        (OpCode::Control(Control::Ping), b"x"),
    ] {
        let header = FrameHeader {
            opcode,
            mask: Some(MASK),
            ..FrameHeader::default()
        };
        Frame::from_payload(header, payload.to_vec().into())
            .format(&mut bytes)
            .unwrap();
    }
    let events = read(server(Unit::Message, false), &bytes, 2).unwrap();
    assert_eq!(events, [data(Kind::Binary, &[1, 2, 3]), Event::Ping("x".into())]);
}
