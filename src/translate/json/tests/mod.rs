//! What each text and each message means, table by table. Rules are those of the translation of JSON bodies.

mod allocations;
mod differential;
mod errors;
mod support;
mod wires;

use bytes::BytesMut;

use self::support::{book, subject};
use super::{JsonOptions, Target, UnknownFields};

#[test]
fn rule_21_the_grammar_is_strict() {
    let book = book(JsonOptions::default());
    for wrong in [
        r#"{"pages":1,}"#,
        r#"{"tags":["a",]}"#,
        r#"{pages:1}"#,
        r#"{'pages':1}"#,
        r#"{"pages":1}x"#,
        r#"{"pages":1}{}"#,
        "{\"name\":\"\u{1}\"}",
        r#"{"price":NaN}"#,
        r#"{"pages":01}"#,
        r#"{"pages":+1}"#,
        r#"{"pages":1 2}"#,
        r#"{"price":1.}"#,
        r#"{"price":.5}"#,
        r#"{"price":1e}"#,
        r#"{"done":tru}"#,
        r#"{"name":"\x"}"#,
        r#"{"name":"\u12"}"#,
        r#"{"name":"a"#,
        r#"{"name""#,
        r#"{"unknown":[1,]}"#,
        r#"{"unknown":{"a":}}"#,
        r#"{"unknown":01}"#,
        "{",
        "[]",
        "1",
        "/**/{}",
        "\u{feff}{}",
    ] {
        assert!(book.read(wrong).is_err(), "{wrong}");
    }
    for fine in ["{}", " \t\r\n{ } ", r#"{ "pages" : 1 , "name" : "a" }"#] {
        assert!(book.read(fine).is_ok(), "{fine}");
    }
}

#[test]
fn rule_22_an_empty_text_is_an_empty_message_and_null_is_none() {
    let book = book(JsonOptions::default());
    assert_eq!(book.read("").unwrap(), b"");
    assert_eq!(book.read(" \n").unwrap(), b"");
    assert!(book.read("null").is_err());
}

#[test]
fn rules_23_and_24_numbers() {
    let book = book(JsonOptions::default());
    let check = |json: &str, expected: &str| assert_eq!(book.again(json), expected);
    check(r#"{"pages":"1e2"}"#, r#"{"pages":100}"#);
    check(r#"{"pages":1.0}"#, r#"{"pages":1}"#);
    check(r#"{"pages":-2147483648}"#, r#"{"pages":-2147483648}"#);
    check(
        r#"{"copies":9223372036854775807}"#,
        r#"{"copies":"9223372036854775807"}"#,
    );
    check(
        r#"{"copies":"-9223372036854775808"}"#,
        r#"{"copies":"-9223372036854775808"}"#,
    );
    check(r#"{"copies":0}"#, r#"{"copies":"0"}"#);
    check(
        r#"{"large":"18446744073709551615"}"#,
        r#"{"large":"18446744073709551615"}"#,
    );
    check(
        r#"{"large":1844674407370955161.5e1}"#,
        r#"{"large":"18446744073709551615"}"#,
    );
    check(r#"{"copies":-0}"#, r#"{"copies":"0"}"#);
    check(r#"{"small":-0}"#, "{}");
    check(r#"{"pages":0e999999999999999999999}"#, "{}");
    check(
        r#"{"price":54.548196000000004}"#,
        r#"{"price":54.548196000000004}"#,
    );
    check(r#"{"price":"1e-7"}"#, r#"{"price":1e-7}"#);
    check(r#"{"price":-0}"#, r#"{"price":-0}"#);
    check(
        r#"{"price":"Infinity","weight":"-Infinity"}"#,
        r#"{"price":"Infinity","weight":"-Infinity"}"#,
    );
    check(r#"{"weight":3.4028235e38}"#, r#"{"weight":3.4028235e+38}"#);
    check(
        r#"{"price":123456789012345678901234567890}"#,
        r#"{"price":1.2345678901234568e+29}"#,
    );
    for wrong in [
        r#"{"pages":2147483648}"#,
        r#"{"pages":1.5}"#,
        r#"{"pages":1e-1}"#,
        r#"{"pages":""}"#,
        r#"{"pages":" 1"}"#,
        r#"{"pages":"1 "}"#,
        r#"{"pages":"01"}"#,
        r#"{"pages":1e999999999}"#,
        r#"{"pages":true}"#,
        r#"{"small":-1}"#,
        r#"{"small":4294967296}"#,
        r#"{"large":18446744073709551616}"#,
        r#"{"copies":9223372036854775808}"#,
        r#"{"price":1e400}"#,
        r#"{"price":"1e400"}"#,
        r#"{"weight":1e39}"#,
        r#"{"price":"inf"}"#,
        r#"{"price":"0x10"}"#,
        r#"{"price":""}"#,
    ] {
        assert!(book.read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn rule_25_strings_and_bytes() {
    let book = book(JsonOptions::default());
    let check = |json: &str, expected: &str| assert_eq!(book.again(json), expected);
    check(r#"{"data":"-_-_"}"#, r#"{"data":"+/+/"}"#);
    check(r#"{"data":"AQ"}"#, r#"{"data":"AQ=="}"#);
    check(r#"{"data":"\u0041Q=="}"#, r#"{"data":"AQ=="}"#);
    check(
        r#"{"name":"\ud83d\ude00\/\u0000\t"}"#,
        "{\"name\":\"\u{1F600}/\\u0000\\t\"}",
    );
    check(r#"{"n\u0061me":"x"}"#, r#"{"name":"x"}"#);
    for wrong in [
        r#"{"data":"+/-_"}"#,
        r#"{"data":"A"}"#,
        r#"{"data":1}"#,
        r#"{"name":1}"#,
        r#"{"name":"\ud83d"}"#,
        r#"{"name":"\ude00"}"#,
        r#"{"name":"\ud83d\ud83d"}"#,
    ] {
        assert!(book.read(wrong).is_err(), "{wrong}");
    }
    let invalid = b"{\"name\":\"\xff\"}";
    assert!(
        book.transcoder
            .read(book.target, None, invalid, &mut BytesMut::new(), 100)
            .is_err()
    );
}

#[test]
fn rule_26_enums() {
    let subject = book(JsonOptions::default());
    let check = |json: &str, expected: &str| assert_eq!(subject.again(json), expected);
    check(r#"{"color":"VERT"}"#, r#"{"color":"GREEN"}"#);
    check(r#"{"color":7}"#, r#"{"color":7}"#);
    check(r#"{"color":1.0}"#, r#"{"color":"GREEN"}"#);
    check(r#"{"colors":["RED",1,-5]}"#, r#"{"colors":["RED","GREEN",-5]}"#);
    for wrong in [
        r#"{"color":"green"}"#,
        r#"{"color":""}"#,
        r#"{"color":1.5}"#,
        r#"{"color":"1"}"#,
    ] {
        assert!(subject.read(wrong).is_err(), "{wrong}");
    }
    let folded = book(JsonOptions {
        case_insensitive_enums: true,
        ..JsonOptions::default()
    });
    assert_eq!(folded.again(r#"{"color":"green"}"#), r#"{"color":"GREEN"}"#);
    let dropping = book(JsonOptions {
        drop_unknown_enum_names: true,
        ..JsonOptions::default()
    });
    assert_eq!(
        dropping.again(r#"{"color":"X","colors":["X","GREEN"]}"#),
        r#"{"colors":["GREEN"]}"#
    );
}

#[test]
fn rule_27_null() {
    let book = book(JsonOptions::default());
    let check = |json: &str, expected: &str| assert_eq!(book.again(json), expected);
    check(
        r#"{"name":null,"tags":null,"next":null,"counts":null,"wrapped":null,"values":null}"#,
        "{}",
    );
    check(r#"{"value":null,"none":null}"#, r#"{"value":null,"none":null}"#);
    check(r#"{"values":[null,1]}"#, r#"{"values":[null,1]}"#);
    check(r#"{"novel":null,"volume":1}"#, r#"{"volume":1}"#);
    for wrong in [
        r#"{"tags":[null]}"#,
        r#"{"books":[null]}"#,
        r#"{"words":[null]}"#,
        r#"{"counts":{"a":null}}"#,
        r#"{"byNumber":{"1":null}}"#,
        r#"{"tags":"a"}"#,
    ] {
        assert!(book.read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn rule_28_nothing_is_given_twice() {
    let book = book(JsonOptions::default());
    for wrong in [
        r#"{"pages":1,"pages":1}"#,
        r#"{"byNumber":{},"by_number":{}}"#,
        r#"{"pages":null,"pages":1}"#,
        r#"{"next":{},"next":{}}"#,
        r#"{"counts":{"a":1,"a":2}}"#,
        r#"{"counts":{"a":1,"\u0061":2}}"#,
        r#"{"byNumber":{"1":{},"1e0":{}}}"#,
        r#"{"flags":{"true":true,"true":true}}"#,
        r#"{"fields":{"a":1,"a":2}}"#,
        r#"{"value":{"b":{"a":1,"a":2}}}"#,
        r#"{"novel":"a","volume":1}"#,
        r#"{"novel":"a","none":null}"#,
        r#"{"detail":{"@type":"x/t.Book","@type":"x/t.Book"}}"#,
    ] {
        assert!(book.read(wrong).is_err(), "{wrong}");
    }
    // Enough keys for a table, in entries long enough to be moved.
    let name = |n: usize| format!("\"{}{n}\"", "k".repeat(n * 3));
    let many: Vec<String> = (0..60).map(|n| format!("{}:{n}", name(n))).collect();
    assert!(
        book.read(&format!(r#"{{"counts":{{{}}}}}"#, many.join(",")))
            .is_ok()
    );
    for again in [0, 17, 59] {
        let twice = format!(r#"{{"counts":{{{},{}:1}}}}"#, many.join(","), name(again));
        assert!(book.error(&twice).contains("is given twice"));
    }
}

#[test]
fn rule_29_members_without_a_field() {
    let ignoring = book(JsonOptions::default());
    assert_eq!(
        ignoring.again(r#"{"x":{"y":[1,"a",{"z":null}]},"pages":1}"#),
        r#"{"pages":1}"#
    );
    let refusing = book(JsonOptions {
        unknown_fields: UnknownFields::Reject,
        ..JsonOptions::default()
    });
    assert_eq!(
        refusing.error(r#"{"next":{"page":1}}"#),
        "next: there is no field `page` (line 1, column 10)"
    );
    let odd = "an odd name that is longer than thirty-two bytes";
    assert_eq!(
        refusing.again(&format!(r#"{{"{odd}":"x"}}"#)),
        format!(r#"{{"{odd}":"x"}}"#)
    );
    assert_eq!(refusing.again(r#"{"odd":"x"}"#), format!(r#"{{"{odd}":"x"}}"#));
}

#[test]
fn rule_30_times_and_masks() {
    let book = book(JsonOptions::default());
    let check = |json: &str, expected: &str| assert_eq!(book.again(json), expected);
    check(
        r#"{"time":"2024-02-29T01:00:00.100+01:00"}"#,
        r#"{"time":"2024-02-29T00:00:00.100Z"}"#,
    );
    check(
        r#"{"time":"1969-12-31T23:59:59.5Z"}"#,
        r#"{"time":"1969-12-31T23:59:59.500Z"}"#,
    );
    check(r#"{"length":"-1.5s"}"#, r#"{"length":"-1.500s"}"#);
    check(r#"{"mask":"fooBar,a.bC"}"#, r#"{"mask":"fooBar,a.bC"}"#);
    check(r#"{"mask":""}"#, r#"{"mask":""}"#);
    for wrong in [
        r#"{"mask":"foo_bar"}"#,
        r#"{"time":"2024-02-30T00:00:00Z"}"#,
        r#"{"length":"1"}"#,
        r#"{"time":1}"#,
    ] {
        assert!(book.read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn rule_31_any() {
    let book = book(JsonOptions {
        unknown_fields: UnknownFields::Reject,
        ..JsonOptions::default()
    });
    let check = |json: &str, expected: &str| assert_eq!(book.again(json), expected);
    check(r#"{"detail":{}}"#, r#"{"detail":{}}"#);
    check(
        r#"{"detail":{"pages":1,"name":"x","@type":"a.b/t.Book"}}"#,
        r#"{"detail":{"@type":"a.b/t.Book","pages":1,"name":"x"}}"#,
    );
    check(
        r#"{"detail":{"value":"1s","@type":"x/google.protobuf.Duration"}}"#,
        r#"{"detail":{"@type":"x/google.protobuf.Duration","value":"1s"}}"#,
    );
    check(
        r#"{"detail":{"@type":"x/google.protobuf.Any","value":{"@type":"x/t.Book","next":{}}}}"#,
        r#"{"detail":{"@type":"x/google.protobuf.Any","value":{"@type":"x/t.Book","next":{}}}}"#,
    );
    check(
        r#"{"detail":{"@type":"x/google.protobuf.Empty","value":{}}}"#,
        r#"{"detail":{"@type":"x/google.protobuf.Empty"}}"#,
    );
    for wrong in [
        r#"{"detail":{"pages":1}}"#,
        r#"{"detail":{"@type":"x/t.Nothing"}}"#,
        r#"{"detail":{"@type":"x/google.protobuf.Duration"}}"#,
        r#"{"detail":{"@type":"x/t.Book","page":1}}"#,
        r#"{"detail":1}"#,
    ] {
        assert!(book.read(wrong).is_err(), "{wrong}");
    }
    // Field 29 with a type that nobody declares.
    let wire = b"\xea\x01\x0b\x0a\x05x/t.N\x12\x02\x08\x01";
    assert_eq!(
        book.write(wire).unwrap(),
        r#"{"detail":{"@type":"x/t.N","value":"CAE="}}"#
    );
}

#[test]
fn rule_32_nesting_ends_at_a_hundred() {
    let book = book(JsonOptions::default());
    let nested = |open: &str, close: &str, depth: usize| open.repeat(depth) + "{}" + &close.repeat(depth);
    for (depth, fine) in [(98, true), (99, true), (100, false), (5000, false)] {
        assert_eq!(
            book.read(&nested(r#"{"next":"#, "}", depth)).is_ok(),
            fine,
            "{depth}"
        );
        assert_eq!(
            book.read(&nested(r#"{"x":"#, "}", depth)).is_ok(),
            fine,
            "{depth}"
        );
    }
    for (depth, fine) in [(49, true), (50, false), (5000, false)] {
        assert_eq!(
            book.read(&nested(r#"{"books":["#, "]}", depth)).is_ok(),
            fine,
            "{depth}"
        );
    }
    for (depth, fine) in [(98, true), (99, false), (5000, false)] {
        let value = format!(
            r#"{{"value":{}1{}}}"#,
            "[".repeat(depth + 1),
            "]".repeat(depth + 1)
        );
        assert_eq!(book.read(&value).is_ok(), fine, "{depth}");
    }
}

#[test]
fn rule_33_what_is_written() {
    let given = r#"{"copies":"0","color":"GREEN","large":"7","tags":["a"]}"#;
    let check = |options: JsonOptions, expected: &str| assert_eq!(book(options).again(given), expected);
    check(JsonOptions::default(), given);
    check(
        JsonOptions {
            int64_as_numbers: true,
            enums_as_ints: true,
            ..JsonOptions::default()
        },
        r#"{"copies":0,"color":1,"large":7,"tags":["a"]}"#,
    );
    let named = book(JsonOptions {
        proto_names: true,
        ..JsonOptions::default()
    });
    assert_eq!(
        named.again(r#"{"byNumber":{"1":{}}}"#),
        r#"{"by_number":{"1":{}}}"#
    );
    let full = book(JsonOptions {
        emit_defaults: true,
        ..JsonOptions::default()
    })
    .again(r#"{"pages":3}"#);
    let expected = concat!(
        r#"{"pages":3,"name":"","tags":[],"books":[],"counts":{},"byNumber":{},"flags":{},"color":"RED","#,
        r#""colors":[],"data":"","price":0,"weight":0,"small":0,"large":"0","done":false,"numbers":[],"#,
        r#""values":[],"words":[],"an odd name that is longer than thirty-two bytes":""}"#
    );
    assert_eq!(full, expected);
}

#[test]
fn messages_of_many_fields_keep_count_of_all_of_them() {
    let wide = subject("t.Wide", JsonOptions::default());
    let all: Vec<String> = (1..=200).map(|n| format!("\"field{n}\":{n}")).collect();
    let text = format!("{{{}}}", all.join(","));
    assert_eq!(wide.again(&text), text);
    for again in [1, 64, 65, 128, 200] {
        let twice = format!("{{{},\"field_{again}\":1}}", all.join(","));
        assert!(wide.error(&twice).contains("is given twice"), "{again}");
    }
}

#[test]
fn one_field_alone_goes_both_ways() {
    let book = book(JsonOptions::default());
    let message = book.target.message();
    let check = |number: u32, text: &str, wire: &[u8]| {
        let target = Target::Field { message, number };
        let mut found = BytesMut::new();
        book.transcoder
            .read(target, None, text.as_bytes(), &mut found, 1000)
            .unwrap();
        assert_eq!(found, wire, "{text}");
        let mut again = BytesMut::new();
        book.transcoder
            .write(target, None, wire, &mut again, 1000)
            .unwrap();
        assert_eq!(again, text.as_bytes());
    };
    check(4, r#"["x"]"#, b"\x22\x01x");
    check(4, "[]", b"");
    check(1, r#""x""#, b"\x0a\x01x");
    check(1, r#""""#, b"");
    check(3, "null", b"");
    check(3, r#""0""#, b"\x18\x00");
    check(5, "null", b"");
    check(5, "{}", b"\x2a\x00");
    check(7, r#"{"a":1}"#, b"\x3a\x05\x0a\x01a\x10\x01");
    let wrong = Target::Field { message, number: 999 };
    assert!(
        book.transcoder
            .read(wrong, None, b"1", &mut BytesMut::new(), 10)
            .is_err()
    );
    assert!(
        book.transcoder
            .write(wrong, None, b"", &mut BytesMut::new(), 10)
            .is_err()
    );
}

#[test]
fn what_the_path_owns_is_refused_in_a_body_and_left_out_of_an_answer() {
    let book = book(JsonOptions {
        emit_defaults: true,
        proto_names: true,
        ..JsonOptions::default()
    });
    let message = book.target.message();
    let mask = book
        .transcoder
        .mask(message, &["next.name", "copies", "name", "next.next.pages"])
        .unwrap();
    let read = |json: &str| {
        let mut wire = BytesMut::new();
        let done = book
            .transcoder
            .read(book.target, Some(&mask), json.as_bytes(), &mut wire, 1000);
        done.map(|()| wire).map_err(|error| error.to_string())
    };
    let owned = "next.name: `name` is already given by the path (line 1, column 17)";
    assert_eq!(read(r#"{"next":{"name":"a"}}"#).unwrap_err(), owned);
    assert!(read(r#"{"copies":"1"}"#).is_err());
    assert!(read(r#"{"next":{"next":{"pages":1}}}"#).is_err());
    assert!(read(r#"{"next":{"next":{"name":"x"},"pages":1},"pages":2}"#).is_ok());
    let wire = b"\x0a\x01a\x10\x01\x18\x01\x2a\x0a\x0a\x01b\x10\x02\x2a\x03\x10\x03\x70";
    let mut text = BytesMut::new();
    assert!(
        book.transcoder
            .write(book.target, Some(&mask), wire, &mut text, 10_000)
            .is_err()
    );
    let wire = b"\x0a\x01a\x10\x01\x18\x01\x2a\x09\x0a\x01b\x10\x02\x2a\x02\x10\x03";
    book.transcoder
        .write(book.target, Some(&mask), wire, &mut text, 10_000)
        .unwrap();
    let tree: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(tree.get("name"), None);
    assert_eq!(tree.get("copies"), None);
    assert_eq!(tree["pages"], 1);
    assert_eq!(tree["next"].get("name"), None);
    assert_eq!(tree["next"]["pages"], 2);
    assert_eq!(tree["next"]["next"].get("pages"), None);
    assert_eq!(tree["next"]["next"]["name"], "");
    assert!(book.transcoder.mask(message, &["next.missing"]).is_err());
    assert!(book.transcoder.mask(message, &["tags.x"]).is_err());
}

#[test]
fn a_message_over_the_limit_is_refused_either_way() {
    let book = book(JsonOptions::default());
    let text = format!(r#"{{"name":"{}"}}"#, "x".repeat(100));
    for (limit, fine) in [(101, false), (102, true), (103, true)] {
        let mut wire = BytesMut::new();
        let done = book
            .transcoder
            .read(book.target, None, text.as_bytes(), &mut wire, limit);
        assert_eq!((done.is_ok(), wire.is_empty()), (fine, !fine), "{limit}");
    }
    let wire = book.read(&text).unwrap();
    for (limit, fine) in [(110, false), (111, true), (112, true)] {
        let mut found = BytesMut::new();
        let done = book.transcoder.write(book.target, None, &wire, &mut found, limit);
        assert_eq!((done.is_ok(), found.is_empty()), (fine, !fine), "{limit}");
    }
}
