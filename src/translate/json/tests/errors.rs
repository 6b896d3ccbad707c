//! What a client is told.

use super::super::JsonOptions;
use super::support::book;

#[test]
fn an_error_says_where_what_and_what_would_be_right() {
    let book = book(JsonOptions::default());
    let check = |json: &str, expected: &str| assert_eq!(book.error(json), expected);
    check(
        r#"{"books":[{},{},{},{"pages":3.5}]}"#,
        "books[3].pages: 3.5 is not a whole number (line 1, column 29)",
    );
    check(
        "{\n  \"name\": \"é\", \"pages\": x}",
        "pages: expected a JSON value (line 2, column 25)",
    );
    check(
        r#"{"pages":3000000000}"#,
        "pages: 3000000000 is out of range for int32 (line 1, column 10)",
    );
    check(
        r#"{"pages":"many"}"#,
        r#"pages: "many" is not a whole number (line 1, column 10)"#,
    );
    check(
        r#"{"name":[]}"#,
        "name: an array is not a string (line 1, column 9)",
    );
    check(r#"{"name":12}"#, "name: 12 is not a string (line 1, column 9)");
    check(
        r#"{"tags":["a",null]}"#,
        "tags[1]: null cannot stand here (line 1, column 14)",
    );
    check(
        r#"{"tags":"a"}"#,
        r#"tags: "a" is not an array (line 1, column 9)"#,
    );
    check(
        r#"{"counts":{"a b":"x"}}"#,
        r#"counts["a b"]: "x" is not a whole number (line 1, column 18)"#,
    );
    check(
        r#"{"color":"PINK"}"#,
        r#"color: "PINK" is not a value of t.Color (line 1, column 10)"#,
    );
    check(
        r#"{"pages":1,"pages":2}"#,
        "pages: `pages` is given twice (line 1, column 20)",
    );
    check(
        r#"{"novel":"a","volume":1}"#,
        "volume: `volume` is a second member of the oneof `sort` (line 1, column 23)",
    );
    check(
        r#"{"next":{"pages":1"#,
        "next: expected `,` or `}` (line 1, column 19)",
    );
    check(r#"{"data":"?"}"#, r#"data: "?" is not base64 (line 1, column 9)"#);
    check(
        r#"{"length":"1m"}"#,
        r#"length: "1m" is not a duration in seconds, such as "1.5s" (line 1, column 11)"#,
    );
    check(
        r#"{"detail":{"@type":"x/t.Nothing"}}"#,
        "detail: the type `t.Nothing` is not known here (line 1, column 11)",
    );
    check(
        r#"{"value":{"a":[1,{"b":tru}]}}"#,
        r#"value["a"][1]["b"]: tru is not `true` or `false` (line 1, column 23)"#,
    );
}

#[test]
fn a_long_value_is_cut() {
    let book = book(JsonOptions::default());
    let error = book.error(&format!(r#"{{"pages":"{}"}}"#, "é".repeat(500)));
    assert!(error.len() < 160, "{error}");
}
