//! An edition's source, compiled, read and written.

use std::collections::BTreeMap;

use bytes::BytesMut;

use crate::schema::{Rules, Schema};
use crate::translate::json::{JsonOptions, Target, Transcoder};

const SOURCE: &str = r#"
// A comment with edition = "2024" in it.
edition = "2023";
package e;
import "google/protobuf/cpp_features.proto";
option features.enum_type = OPEN;
option features.(pb.cpp).string_type = VIEW;
option java_package = "x.y";

message Plain {
  int32 explicit = 1;
  int32 implicit = 2 [features.field_presence = IMPLICIT];
  string must = 3 [deprecated = true, features.field_presence = LEGACY_REQUIRED];
  repeated int32 packed = 4;
  repeated int32 expanded = 5 [
    features.repeated_field_encoding = EXPANDED,
    json_name = "spread"
  ];
  Plain inside = 6;
  Plain between = 7 [features.message_encoding = DELIMITED];
  repeated Plain betweens = 8 [features = {message_encoding: DELIMITED}];
  map<string, Plain> by_name = 9 [features.message_encoding = DELIMITED];
  oneof choice {
    int32 a = 10;
    string b = 11;
  }
  Closed closed = 12;
  .e.Open open = 13;
  string with_default = 14 [default = "x;{]"];
  reserved 20 to 30, 40;
  reserved foo, bar;
  extensions 100 to 200 [verification = UNVERIFIED];
  message Nested { option features.field_presence = IMPLICIT; int32 bare = 1; Plain message = 2; }
  enum Inner { INNER_ZERO = 0; }
}
enum Closed { option features.enum_type = CLOSED; ONE = 1; TWO = 2; }
enum Open { OPEN_ZERO = 0; reserved OLD; }
extend Plain { int32 extra = 100; repeated Plain more = 101 [features.message_encoding = DELIMITED]; }
service Things {
  option features.field_presence = EXPLICIT;
  rpc Get(Plain) returns (stream Plain) { option deprecated = true; option features.enum_type = OPEN; }
  rpc Put(Plain) returns (Plain);
}
"#;

fn schema(source: &str) -> Result<Schema, String> {
    let sources = BTreeMap::from([("e.proto".to_owned(), source.to_owned())]);
    Schema::from_sources(&["e.proto".to_owned()], &sources, &Rules::empty())
        .map_err(|error| error.to_string())
}

fn wire(transcoder: &Transcoder, name: &str, json: &str) -> Result<Vec<u8>, String> {
    let target = Target::Message(transcoder.message(name).unwrap());
    let mut wire = BytesMut::new();
    transcoder
        .read(target, None, json.as_bytes(), &mut wire, 1000)
        .map_err(|error| error.to_string())?;
    let mut text = BytesMut::new();
    transcoder.write(target, None, &wire, &mut text, 1000).unwrap();
    assert_eq!(text, json.as_bytes());
    Ok(wire.to_vec())
}

#[test]
fn features_decide_how_a_message_is_written() {
    let schema = schema(SOURCE).unwrap();
    assert_eq!(schema.methods.len(), 2);
    let transcoder = Transcoder::compile(&schema, JsonOptions::default()).unwrap();
    let check = |json: &str, expected: &[u8]| {
        assert_eq!(
            wire(&transcoder, "e.Plain", json).as_deref(),
            Ok(expected),
            "{json}"
        );
    };
    check(r#"{"explicit":0,"must":""}"#, b"\x08\x00\x1a\x00");
    check(r#"{"implicit":1,"must":""}"#, b"\x10\x01\x1a\x00");
    check(r#"{"must":"","packed":[1,2]}"#, b"\x1a\x00\x22\x02\x01\x02");
    check(r#"{"must":"","spread":[1,2]}"#, b"\x1a\x00\x28\x01\x28\x02");
    check(r#"{"must":"","inside":{"must":""}}"#, b"\x1a\x00\x32\x02\x1a\x00");
    check(
        r#"{"must":"","between":{"must":""}}"#,
        b"\x1a\x00\x3b\x1a\x00\x3c",
    );
    check(
        r#"{"must":"","betweens":[{"must":""}]}"#,
        b"\x1a\x00\x43\x1a\x00\x44",
    );
    check(
        r#"{"must":"","byName":{"k":{"must":""}}}"#,
        b"\x1a\x00\x4a\x07\x0a\x01k\x12\x02\x1a\x00",
    );
    check(r#"{"must":"","a":0}"#, b"\x1a\x00\x50\x00");
    check(
        r#"{"must":"","[e.more]":[{"must":""}]}"#,
        b"\x1a\x00\xab\x06\x1a\x00\xac\x06",
    );
    let nested = wire(&transcoder, "e.Plain.Nested", r#"{"message":{"must":""}}"#);
    assert_eq!(nested.as_deref(), Ok(&b"\x12\x02\x1a\x00"[..]));
    assert!(wire(&transcoder, "e.Plain", "{}").is_err_and(|error| error.contains("`must` is missing")));
}

#[test]
fn a_required_field_may_come_from_the_path() {
    let transcoder = Transcoder::compile(&schema(SOURCE).unwrap(), JsonOptions::default()).unwrap();
    let message = transcoder.message("e.Plain").unwrap();
    let mask = transcoder.mask(message, &["must"]).unwrap();
    let read = |target, json: &[u8]| {
        transcoder
            .read(target, Some(&mask), json, &mut BytesMut::new(), 100)
            .is_ok()
    };
    assert!(read(Target::Message(message), b"{}"));
    assert!(read(Target::Message(message), b""));
    assert!(!read(Target::Message(message), br#"{"inside":{}}"#));
    assert!(read(Target::Field { message, number: 1 }, b""));
}

#[test]
fn values_that_a_closed_enum_lacks_are_unknown_fields() {
    let transcoder = Transcoder::compile(&schema(SOURCE).unwrap(), JsonOptions::default()).unwrap();
    let target = Target::Message(transcoder.message("e.Plain").unwrap());
    let mut text = BytesMut::new();
    transcoder
        .write(target, None, b"\x1a\x00\x60\x07\x68\x07", &mut text, 1000)
        .unwrap();
    assert_eq!(text, &br#"{"must":"","open":7}"#[..]);
}

#[test]
fn the_pool_knows_the_file_in_an_older_syntax() {
    let schema = schema(SOURCE).unwrap();
    let plain = schema.pool.get_message_by_name("e.Plain").unwrap();
    assert!(plain.get_field_by_name("explicit").unwrap().supports_presence());
    assert!(plain.get_field_by_name("between").unwrap().is_group());
    assert!(plain.get_field_by_name("by_name").unwrap().is_map());
    assert!(!plain.get_field_by_name("expanded").unwrap().is_packed());
    assert!(plain.get_field_by_name("packed").unwrap().is_packed());
}

#[test]
fn the_edition_2024_is_understood_too() {
    let source = r#"edition = "2024";
        package e;
        import option "google/protobuf/go_features.proto";
        option features.(pb.go).api_level = API_OPAQUE;
        option features.default_symbol_visibility = EXPORT_ALL;
        local message Hidden { int32 x = 1; }
        export message Shown { local enum E { A = 0; } Hidden hidden = 1; E e = 2; }
        export enum Other { ZERO = 0; }
    "#;
    let transcoder = Transcoder::compile(&schema(source).unwrap(), JsonOptions::default()).unwrap();
    let expected = b"\x0a\x02\x08\x00\x10\x00";
    assert_eq!(
        wire(&transcoder, "e.Shown", r#"{"hidden":{"x":0},"e":"A"}"#).as_deref(),
        Ok(&expected[..])
    );
}

#[test]
fn errors_keep_their_lines() {
    let error =
        schema("edition = \"2023\";\nmessage M {\n  reserved a, b;\n  Nothing x = 1;\n}\n").unwrap_err();
    assert!(error.starts_with("e.proto:4:"), "{error}");
    let error = schema("edition = \"2026\";\n").unwrap_err();
    assert_eq!(
        error,
        "e.proto: edition \"2026\" is not known; \"2023\" and \"2024\" are"
    );
    for broken in [
        "edition = \"2023\"",
        "edition = \"2023\"; message",
        "edition = \"2023\"; message M { int32 x",
        "edition = \"2023\"; message M { x [ } ; }",
        "edition = \"2023\"; option features",
        "edition = \"2023\"; \"",
        "edition = \"2023\"; message M { oneof { } }",
        "edition = \"2023\"; enum E { ] ; }",
        "edition =",
    ] {
        assert!(schema(broken).is_err(), "{broken}");
    }
}
