//! What each JSON text means, table by table.

mod differential;
mod support;

use bytes::BytesMut;

use self::support::schema;
use super::{JsonOptions, Target, Transcoder};

const BOOK: &str = r#"
    syntax = "proto3";
    package t;
    message Book { string name = 1; int32 page_count = 2; optional int64 copies = 3; repeated string tags = 4; Book next = 5; }
"#;

#[test]
fn a_message_and_one_of_its_fields_go_both_ways() {
    let transcoder = Transcoder::compile(&schema(BOOK), JsonOptions::default()).unwrap();
    let book = transcoder.message("t.Book").unwrap();
    let mut wire = BytesMut::new();
    let json = br#"{"name":"a","pageCount":3,"tags":["x"],"next":{}}"#;
    transcoder
        .read(Target::Message(book), None, json, &mut wire, 1000)
        .unwrap();
    let mut text = BytesMut::new();
    transcoder
        .write(Target::Message(book), None, &wire, &mut text, 1000)
        .unwrap();
    assert_eq!(text, &json[..]);
    text.clear();
    transcoder
        .write(
            Target::Field {
                message: book,
                number: 4,
            },
            None,
            &wire,
            &mut text,
            1000,
        )
        .unwrap();
    assert_eq!(text, &br#"["x"]"#[..]);
    wire.clear();
    transcoder
        .read(
            Target::Field {
                message: book,
                number: 4,
            },
            None,
            &text,
            &mut wire,
            1000,
        )
        .unwrap();
    assert_eq!(wire, &b"\x22\x01x"[..]);
}

#[test]
fn what_the_path_owns_is_refused_in_a_body_and_left_out_of_an_answer() {
    let transcoder = Transcoder::compile(&schema(BOOK), JsonOptions::default()).unwrap();
    let book = transcoder.message("t.Book").unwrap();
    let mask = transcoder.mask(book, &["next.name", "copies"]).unwrap();
    let mut wire = BytesMut::new();
    let read = |json: &[u8], wire: &mut BytesMut| {
        transcoder.read(Target::Message(book), Some(&mask), json, wire, 1000)
    };
    assert!(read(br#"{"next":{"name":"a"}}"#, &mut wire).is_err());
    assert!(read(br#"{"copies":"1"}"#, &mut wire).is_err());
    assert!(read(br#"{"next":{"pageCount":1},"name":"b"}"#, &mut wire).is_ok());
    assert!(transcoder.mask(book, &["next.nothing"]).is_err());
    assert!(transcoder.mask(book, &["tags.x"]).is_err());
}
