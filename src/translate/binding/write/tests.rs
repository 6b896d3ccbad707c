//! Messages as requests, and back.

use super::super::tests::{Bench, bench, canonical};
use super::*;
use crate::schema::template::random::Random;

impl Bench {
    /// The message of a JSON text.
    fn wire(&self, message: &str) -> BytesMut {
        let target = Target::Message(self.json.message("t.Request").unwrap());
        let mut wire = BytesMut::new();
        self.json
            .read(target, None, message.as_bytes(), &mut wire, usize::MAX)
            .unwrap_or_else(|error| panic!("{message}: {error}"));
        wire
    }

    /// The URL and the body of a message, or the error.
    fn write(&self, rule: &str, message: &str) -> Result<(String, Option<String>), String> {
        let outgoing = Outgoing::compile(&self.bind(rule), &self.json, PathFields::InPath).unwrap();
        let wire = self.wire(message);
        let mut target = String::new();
        outgoing
            .write(&self.json, &wire, &mut target)
            .map_err(|error| error.to_string())?;
        let mut body = BytesMut::new();
        let has_body = outgoing
            .write_body(&self.json, &wire, &mut body, usize::MAX)
            .map_err(|error| error.to_string())?;
        let body = String::from_utf8(body.to_vec()).unwrap();
        Ok((target, has_body.then_some(body)))
    }
}

fn check(table: &[(&str, &str, &str, Option<&str>)]) {
    let bench = bench();
    for (rule, message, target, body) in table {
        let (got, got_body) = bench
            .write(rule, message)
            .unwrap_or_else(|error| panic!("{rule}: {error}"));
        assert_eq!(got, *target, "{rule} {message}");
        assert_eq!(
            got_body.as_deref().map(canonical),
            body.map(canonical),
            "{rule} {message}"
        );
    }
}

#[test]
fn a_message_goes_where_its_rule_says() {
    check(&[
        (
            "GET /v1/{name}",
            r#"{"name":"a/b c%é:x"}"#,
            "/v1/a%2Fb%20c%25%C3%A9%3Ax",
            None,
        ),
        (
            "GET /v1/{name=shelves/*}:get",
            r#"{"name":"shelves/a b"}"#,
            "/v1/shelves/a%20b:get",
            None,
        ),
        (
            "GET /v1/{name=a/**}",
            r#"{"name":"a/b%2Fc/d"}"#,
            "/v1/a/b%2Fc/d",
            None,
        ),
        ("GET /v1/{page_size}", r#"{"pageSize":-7}"#, "/v1/-7", None),
        (
            "GET /v1/{big}/{flag}",
            r#"{"big":"9","flag":true}"#,
            "/v1/9/true",
            None,
        ),
        ("GET /v1/{data}", r#"{"data":"+/8="}"#, "/v1/-_8%3D", None),
        ("GET /v1/{genre}", r#"{"genre":"POEM"}"#, "/v1/POEM", None),
        ("GET /v1/{genre}", r#"{"genre":77}"#, "/v1/77", None),
        (
            "GET /v1/{time}",
            r#"{"time":"2024-02-29T12:30:00Z"}"#,
            "/v1/2024-02-29T12%3A30%3A00Z",
            None,
        ),
        (
            "GET /v1/{book.author.first_name}",
            r#"{"book":{"author":{"firstName":"x","lastName":"y"}}}"#,
            "/v1/x?book.author.lastName=y",
            None,
        ),
        (
            "GET /v1",
            r#"{"name":"","pageSize":5,"tags":["a&b","c d"],"note":"","genres":["POEM",9],"span":"1.5s","updateMask":"a.bC,d"}"#,
            "/v1?genres=POEM&genres=9&note=&pageSize=5&span=1.500s&tags=a%26b&tags=c%20d&updateMask=a.bC%2Cd",
            None,
        ),
        (
            "GET /v1",
            r#"{"filter":{"a":[1,null]},"anyValue":null,"count":"0","number":"NaN","single":0.1}"#,
            "/v1?anyValue=null&count=0&filter=%7B%22a%22%3A%5B1%2Cnull%5D%7D&number=NaN&single=0.1",
            None,
        ),
        ("GET /v1", r#"{"book":{},"nothing":{}}"#, "/v1", None),
        (
            "POST /v1/{name} *",
            r#"{"name":"x","pageSize":3}"#,
            "/v1/x",
            Some(r#"{"pageSize":3}"#),
        ),
        (
            "PATCH /v1/{book.name} book",
            r#"{"book":{"name":"x","title":"t"},"pageSize":3}"#,
            "/v1/x?pageSize=3",
            Some(r#"{"title":"t"}"#),
        ),
        ("POST /v1 book", r#"{"pageSize":3}"#, "/v1?pageSize=3", Some("{}")),
        ("POST /v1 tags", "{}", "/v1", Some("[]")),
        ("POST /v1 labels", "{}", "/v1", Some("{}")),
        ("POST /v1 time", "{}", "/v1", None),
        ("POST /v1 filter", "{}", "/v1", Some("{}")),
        ("POST /v1 name", "{}", "/v1", None),
        ("POST /v1 name", r#"{"name":"x"}"#, "/v1", Some(r#""x""#)),
        ("POST /v1 note", r#"{"note":""}"#, "/v1", Some(r#""""#)),
        (
            "DELETE /%76%201/{name}:un%20do",
            r#"{"name":"x"}"#,
            "/v%201/x:un%20do",
            None,
        ),
    ]);
}

#[test]
fn what_a_url_can_not_give_is_refused_by_its_name() {
    let bench = bench();
    for (rule, message, expected) in [
        (
            "GET /v1/{name}",
            "{}",
            "`name` goes into the path of the backend's URL: it must not be empty",
        ),
        (
            "GET /v1/{time}",
            "{}",
            "`time` goes into the path of the backend's URL: it must not be empty",
        ),
        (
            "GET /v1/{book.name}",
            "{}",
            "`book.name` goes into the path of the backend's URL: it must not be empty",
        ),
        (
            "GET /v1/{name}",
            r#"{"name":".."}"#,
            "`name` goes into the path of the backend's URL: `..` can't stand in a path",
        ),
        (
            "GET /v1/{name}",
            r#"{"name":"a\\b"}"#,
            "`name` goes into the path of the backend's URL: `a\\b` can't stand in a path",
        ),
        (
            "GET /v1/{name=a/*}",
            r#"{"name":"a/."}"#,
            "`name` goes into the path of the backend's URL: `.` can't stand in a path",
        ),
        (
            "GET /v1/{name=a/**}",
            r#"{"name":"a//b"}"#,
            "`name` goes into the path of the backend's URL: `` can't stand in a path",
        ),
        (
            "GET /v1/{name=docks/*}",
            r#"{"name":"ships/7"}"#,
            "`name` goes into the path of the backend's URL: `ships/7` is not `docks/*`",
        ),
        (
            "GET /v1/{name=docks/*}",
            r#"{"name":"docks/7/8"}"#,
            "`name` goes into the path of the backend's URL: `docks/7/8` is not `docks/*`",
        ),
        (
            "GET /v1/{name=a/**/z}",
            r#"{"name":"a/b"}"#,
            "`name` goes into the path of the backend's URL: `a/b` is not `a/**/z`",
        ),
        (
            "GET /v1/{name=a/**/z}",
            r#"{"name":"a"}"#,
            "`name` goes into the path of the backend's URL: `a` is not `a/**/z`",
        ),
        (
            "GET /v1",
            r#"{"labels":{"a":"b"}}"#,
            "`labels` is a map, which the backend's URL can't give",
        ),
        (
            "GET /v1",
            r#"{"book":{"labels":{"a":"b"}}}"#,
            "`book.labels` is a map, which the backend's URL can't give",
        ),
        (
            "GET /v1",
            r#"{"shelf":[{}]}"#,
            "`shelf` is a list of messages, which the backend's URL can't give",
        ),
        (
            "GET /v1",
            r#"{"detail":{"@type":"type.googleapis.com/t.Author"}}"#,
            "`detail` is a message of any type, which the backend's URL can't give",
        ),
    ] {
        assert_eq!(
            bench.write(rule, message),
            Err(expected.to_owned()),
            "{rule} {message}"
        );
    }
}

#[test]
fn a_wildcard_without_a_field_can_not_be_written() {
    let bench = bench();
    for template in ["/v1/*/{name}", "/v1/**"] {
        let binding = bench.bind(&format!("GET {template}"));
        let outgoing = Outgoing::compile(&binding, &bench.json, PathFields::InPath);
        assert_eq!(outgoing.unwrap_err(), BindingError::Loose, "{template}");
    }
}

#[test]
fn a_body_repeats_the_path_where_it_is_asked_to() {
    let bench = bench();
    let outgoing = Outgoing::compile(
        &bench.bind("POST /v1/{name} *"),
        &bench.json,
        PathFields::InBodyToo,
    )
    .unwrap();
    let wire = bench.wire(r#"{"name":"x","pageSize":3}"#);
    let mut body = BytesMut::new();
    assert!(
        outgoing
            .write_body(&bench.json, &wire, &mut body, usize::MAX)
            .unwrap()
    );
    assert_eq!(body, r#"{"name":"x","pageSize":3}"#);
}

/// Members of a message and values of theirs; those of one line exclude each other.
const MEMBERS: &[&[&str]] = &[
    &[
        r#""name":"x""#,
        r#""name":"a/b""#,
        r#""name":"a/b%2Fc/d""#,
        r#""name":"é ?#%:&+=;""#,
        r#""name":"a/%""#,
    ],
    &[r#""pageSize":7"#, r#""pageSize":-2147483648"#],
    &[r#""big":"-9223372036854775808""#],
    &[r#""small":4294967295"#],
    &[r#""single":0.1"#, r#""single":"-Infinity""#, r#""single":1e-40"#],
    &[r#""number":1e300"#, r#""number":-0.5"#],
    &[r#""flag":true"#],
    &[r#""data":"+/+/""#],
    &[r#""genre":"POEM""#, r#""genre":12"#],
    &[r#""tags":["","a,b","é"]"#],
    &[r#""genres":["NOVEL",0,99]"#],
    &[r#""note":"""#, r#""note":"n""#],
    &[
        r#""city":"""#,
        r#""place":{"street":"s","wing":"w"}"#,
        r#""offset":"-1s""#,
    ],
    &[r#""time":"0001-01-01T00:00:00.000000001Z""#],
    &[r#""updateMask":"a.bC,d""#],
    &[r#""count":"0""#],
    &[r#""word":"""#],
    &[r#""blob":"/w==""#],
    &[r#""filter":{"a":{"b":[1,"x",null]}}"#],
    &[r#""anyValue":null"#, r#""anyValue":"text""#, r#""anyValue":{}"#],
    &[r#""list":[1,[]]"#],
    &[r#""Other":"o""#],
    &[r#""book":{"name":"b","title":"t","author":{"firstName":"f"},"novel":"","sequel":{"pages":3}}"#],
];

#[test]
fn what_is_written_reads_back_as_the_same_message() {
    let bench = bench();
    let rules = [
        "GET /v1",
        "GET /v1/{name}",
        "GET /v1/{name=**}",
        "GET /v1/{name=a/**}:verb",
        "GET /v1/{book.name}/{page_size}",
        "PUT /v1/{name} *",
        "PUT /v1/{book.author.first_name} book",
        "POST /v1 *",
        "POST /v1/{big} tags",
        "POST /v1 any_value",
    ];
    let mut random = Random::new(7);
    let mut written = 0;
    for _ in 0..2_000 {
        let rule = random.pick(&rules);
        let mut members = Vec::new();
        for member in MEMBERS {
            if random.below(3) == 0 {
                members.push(random.pick(member));
            }
        }
        let message = format!("{{{}}}", members.join(","));
        let Ok((target, body)) = bench.write(rule, &message) else {
            // The path's own field was not among the members, or did not fit.
            continue;
        };
        written += 1;
        let got = bench.read(&bench.bind(rule), &target, body.as_deref());
        let expected = bench.show(&bench.wire(&message));
        assert_eq!(canonical(&got), canonical(&expected), "{rule} {target} {body:?}");
    }
    assert!(written > 500, "{written}");
}
