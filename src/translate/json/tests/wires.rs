//! Messages as no good writer writes them.

use super::super::{JsonOptions, WireReason};
use super::support::book;

#[test]
fn the_last_value_counts_and_messages_are_merged() {
    let book = book(JsonOptions::default());
    let check = |wire: &[u8], expected: &str| assert_eq!(book.write(wire).unwrap(), expected, "{wire:?}");
    check(b"\x10\x01\x10\x02", r#"{"pages":2}"#);
    check(b"\x10\x01\x10\x00", "{}");
    check(b"\x22\x01a\x10\x01\x22\x01b", r#"{"pages":1,"tags":["a","b"]}"#);
    check(
        b"\x2a\x02\x10\x01\x2a\x03\x0a\x01x",
        r#"{"next":{"pages":1,"name":"x"}}"#,
    );
    // Members of a oneof: the last one, and of it only what came after the others.
    check(b"\x52\x01a\x58\x01", r#"{"volume":1}"#);
    check(
        b"\x62\x02\x10\x01\x58\x01\x62\x03\x0a\x01x",
        r#"{"part":{"name":"x"}}"#,
    );
    check(
        b"\x62\x02\x10\x01\x62\x03\x0a\x01x",
        r#"{"part":{"pages":1,"name":"x"}}"#,
    );
    // A map's key twice, together and apart; an entry's parts in either order, absent, or in pieces.
    check(
        b"\x3a\x05\x0a\x01a\x10\x01\x3a\x05\x0a\x01a\x10\x02",
        r#"{"counts":{"a":2}}"#,
    );
    check(
        b"\x3a\x05\x0a\x01a\x10\x01\x10\x07\x3a\x05\x0a\x01b\x10\x02",
        r#"{"pages":7,"counts":{"a":1,"b":2}}"#,
    );
    check(b"\x3a\x05\x10\x01\x0a\x01a", r#"{"counts":{"a":1}}"#);
    check(b"\x3a\x00", r#"{"counts":{"":0}}"#);
    check(b"\x42\x02\x08\x05", r#"{"byNumber":{"5":{}}}"#);
    check(
        b"\x42\x0b\x08\x05\x12\x02\x10\x01\x12\x03\x0a\x01x",
        r#"{"byNumber":{"5":{"pages":1,"name":"x"}}}"#,
    );
    check(
        b"\x3a\x0a\x0a\x01a\x0a\x01b\x20\x09\x10\x03",
        r#"{"counts":{"b":3}}"#,
    );
    // A struct's key twice, and a value that changes its mind.
    check(
        b"\xd2\x01\x14\x0a\x08\x0a\x01a\x12\x03\x1a\x01x\x0a\x08\x0a\x01a\x12\x03\x1a\x01y",
        r#"{"fields":{"a":"y"}}"#,
    );
    check(b"\xda\x01\x05\x20\x01\x1a\x01x", r#"{"value":"x"}"#);
    check(b"\xda\x01\x00", r#"{"value":null}"#);
}

#[test]
fn packed_and_unpacked_are_one() {
    let book = book(JsonOptions::default());
    let check = |wire: &[u8], expected: &str| assert_eq!(book.write(wire).unwrap(), expected, "{wire:?}");
    check(b"\xb2\x01\x02\x01\x02", r#"{"numbers":[1,2]}"#);
    check(b"\xb0\x01\x01\xb0\x01\x02", r#"{"numbers":[1,2]}"#);
    check(
        b"\xb0\x01\x01\xb2\x01\x02\x02\x03\xb0\x01\x04",
        r#"{"numbers":[1,2,3,4]}"#,
    );
    check(b"\xb2\x01\x01\x01\xb2\x01\x01\x02", r#"{"numbers":[1,2]}"#);
    check(b"\xb2\x01\x00", "{}");
    // Elements that are no whole varint.
    assert!(book.write(b"\xb2\x01\x01\x80").is_err());
}

#[test]
fn unknown_fields_and_other_wire_types_are_passed_over() {
    let book = book(JsonOptions::default());
    let check = |wire: &[u8], expected: &str| assert_eq!(book.write(wire).unwrap(), expected, "{wire:?}");
    check(b"\x98\x3f\x01\x10\x01", r#"{"pages":1}"#);
    check(
        b"\x9b\x3f\x08\x01\x9b\x3f\x9c\x3f\x9c\x3f\x10\x01",
        r#"{"pages":1}"#,
    );
    check(b"\x12\x01x\x10\x01", r#"{"pages":1}"#);
    check(b"\x90\x00\x01", r#"{"pages":1}"#);
    check(b"\x10\x81\x80\x00", r#"{"pages":1}"#);
    check(b"\x10\xff\xff\xff\xff\x1f", r#"{"pages":-1}"#);
    check(b"\xa8\x01\x02", r#"{"done":true}"#);
    let groups = |depth: usize| [[0x9b, 0x3f].repeat(depth), [0x9c, 0x3f].repeat(depth)].concat();
    assert!(book.write(&groups(90)).is_ok());
    assert!(book.write(&groups(110)).is_err());
}

#[test]
fn what_is_no_message_is_an_error() {
    let book = book(JsonOptions::default());
    for wrong in [
        &b"\x10"[..],
        b"\x10\x80",
        b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
        b"\x00\x00",
        b"\x0a\x05abc",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        b"\x89\x01\x00",
        b"\x0f",
        b"\x14",
        b"\x9b\x3f\x94\x3f",
        b"\x9b\x3f",
        b"\xff\xff\xff\xff\x7f\x00",
        b"\x2a\x01\x10",
        b"\x3a\x01\x0a",
    ] {
        assert_eq!(
            book.write(wrong).unwrap_err().reason,
            WireReason::Malformed,
            "{wrong:?}"
        );
    }
    let error = book.write(b"\x2a\x03\x0a\x01\xff").unwrap_err();
    assert_eq!(error.to_string(), "next.name: the string is not UTF-8");
    let error = book
        .write(b"\x32\x00\x32\x06\xba\x01\x03\x10\xff\x01")
        .map(|_| ());
    assert!(error.is_ok());
    let error = book
        .write(b"\x32\x00\x32\x0e\xba\x01\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "books[1].time: this timestamp has no JSON form"
    );
}

#[test]
fn messages_nest_a_hundred_times() {
    let book = book(JsonOptions::default());
    let nested = |depth: usize| {
        let mut wire = Vec::new();
        for _ in 0..depth {
            let mut outer = Vec::new();
            prost::encoding::bytes::encode(5, &wire, &mut outer);
            wire = outer;
        }
        wire
    };
    for (depth, fine) in [(98, true), (99, true), (100, false), (1000, false)] {
        assert_eq!(book.write(&nested(depth)).is_ok(), fine, "{depth}");
    }
}

/// A field of this tag around `body`.
fn around(tag: &[u8], body: &[u8]) -> Vec<u8> {
    let mut out = tag.to_vec();
    prost::encoding::encode_varint(body.len() as u64, &mut out);
    out.extend_from_slice(body);
    out
}

/// Every level is written a second time once its last field comes. Were that to double what the levels below did, none
/// of these would ever end.
#[test]
fn levels_that_are_all_tangled_cost_no_more_than_a_few_passes() {
    let book = book(JsonOptions::default());
    let mut message = Vec::new();
    let mut expected = "{}".to_owned();
    for _ in 0..90 {
        message = around(b"\x2a", &message);
        message.extend_from_slice(b"\x10\x01\x10\x02");
        expected = format!(r#"{{"pages":2,"next":{expected}}}"#);
    }
    assert_eq!(book.write(&message).unwrap(), expected);

    // A struct whose second key comes twice on each level.
    let entry = |key: &[u8], value: &[u8]| {
        around(
            b"\x0a",
            &[&around(b"\x0a", key)[..], &around(b"\x12", value)].concat(),
        )
    };
    let mut fields = Vec::new();
    let mut expected = "{}".to_owned();
    for _ in 0..45 {
        let mut outer = entry(b"a", &around(b"\x2a", &fields));
        outer.extend(entry(b"b", b"\x20\x01"));
        outer.extend(entry(b"b", b"\x20\x00"));
        fields = outer;
        expected = format!(r#"{{"a":{expected},"b":false}}"#);
    }
    assert_eq!(
        book.write(&around(b"\xd2\x01", &fields)).unwrap(),
        format!(r#"{{"fields":{expected}}}"#)
    );

    // What is malformed below all that is still said to be.
    let mut message = b"\x10".to_vec();
    for _ in 0..50 {
        message = around(b"\x2a", &message);
        message.extend_from_slice(b"\x10\x01\x10\x02");
    }
    let error = book.write(&message).unwrap_err();
    assert_eq!(error.reason, WireReason::Malformed);
    assert!(error.path.starts_with("next.next."), "{}", error.path);
}

/// Pieces in pieces: each level holds a copy of what is inside of it, which is bounded as the text is.
#[test]
fn pieces_in_pieces_are_bounded() {
    let book = book(JsonOptions::default());
    let mut message = around(b"\x0a", &[b'x'; 10_000]);
    for _ in 0..90 {
        let mut outer = around(b"\x2a", b"\x10\x01");
        outer.extend(around(b"\x2a", &message));
        message = outer;
    }
    let text = book.write(&message).unwrap();
    assert!(text.ends_with(&"}".repeat(91)), "{text}");
    let error = book.write_within(&message, 100_000).unwrap_err();
    assert_eq!(error.reason, WireReason::TooLarge { limit: 100_000 });
}
