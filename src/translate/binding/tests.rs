//! Rules against messages of every kind, and requests against rules.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::*;
use crate::route::{NoRoute, RoutesBuilder};
use crate::schema::{Rules, Schema};
use crate::translate::json::JsonOptions;

const PROTO: &str = r#"
    syntax = "proto3";
    package t;

    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";

    service S { rpc Call(Request) returns (Book); }

    message Request {
      string name = 1;
      int32 page_size = 2;
      int64 big = 3;
      uint32 small = 4;
      uint64 huge = 5;
      float single = 6;
      double number = 7;
      bool flag = 8;
      bytes data = 9;
      Genre genre = 10;
      Book book = 11;
      repeated string tags = 12;
      repeated Genre genres = 13;
      map<string, string> labels = 14;
      map<int32, bool> switches = 15;
      map<string, Book> books = 16;
      repeated Book shelf = 17;
      optional string note = 18;
      oneof where {
        string city = 19;
        Place place = 20;
        google.protobuf.Duration offset = 21;
      }
      google.protobuf.Timestamp time = 22;
      google.protobuf.Duration span = 23;
      google.protobuf.FieldMask update_mask = 24;
      google.protobuf.Int64Value count = 25;
      google.protobuf.StringValue word = 26;
      google.protobuf.BoolValue sure = 27;
      google.protobuf.BytesValue blob = 28;
      google.protobuf.Struct filter = 29;
      google.protobuf.Value any_value = 30;
      google.protobuf.ListValue list = 31;
      google.protobuf.Any detail = 32;
      repeated google.protobuf.Timestamp times = 33;
      map<string, google.protobuf.Duration> spans = 34;
      string key = 35;
      string spelled = 36 [json_name = "Other"];
      google.protobuf.Empty nothing = 37;
      map<string, google.protobuf.FieldMask> masks = 38;
    }
    message Book {
      string name = 1;
      string title = 2;
      Author author = 3;
      repeated string tags = 4;
      map<string, string> labels = 5;
      google.protobuf.Timestamp published = 6;
      oneof kind { string novel = 7; string poem = 8; }
      int32 pages = 9;
      Book sequel = 10;
      google.protobuf.Struct extra = 11;
    }
    message Author { string first_name = 1; string last_name = 2; }
    message Place { string street = 1; oneof floor { int32 level = 2; string wing = 3; } }
    enum Genre {
      option allow_alias = true;
      GENRE_UNSPECIFIED = 0;
      NOVEL = 1;
      ROMAN = 1;
      POEM = 2;
    }
"#;

/// Everything that bindings of one schema are made of.
pub(super) struct Bench {
    pub(super) method: Arc<Method>,
    pub(super) json: Transcoder,
}

pub(super) fn bench() -> &'static Bench {
    static BENCH: LazyLock<Bench> = LazyLock::new(|| bench_of(PROTO));
    &BENCH
}

fn bench_of(proto: &str) -> Bench {
    let sources = BTreeMap::from([("t.proto".to_owned(), proto.to_owned())]);
    let schema = Schema::from_sources(&["t.proto".to_owned()], &sources, &Rules::empty()).unwrap();
    Bench {
        method: Arc::clone(&schema.methods[0]),
        json: Transcoder::compile(&schema, JsonOptions::default()).unwrap(),
    }
}

/// A rule such as `PATCH /v1/{book.name} book -> title`.
fn rule(text: &str) -> HttpRule {
    let (request, response_body) = text.split_once(" -> ").unwrap_or((text, ""));
    let mut parts = request.split(' ');
    let method = parts.next().unwrap().parse().unwrap();
    HttpRule {
        method: HttpMethod::Exact(method),
        template: parts.next().unwrap().to_owned(),
        body: parts.next().unwrap_or_default().to_owned(),
        response_body: response_body.to_owned(),
    }
}

impl Bench {
    fn compile(&self, text: &str, options: &BindingOptions) -> Result<Binding, BindingError> {
        Binding::compile(&rule(text), &self.method, &self.json, options)
    }

    pub(super) fn bind(&self, text: &str) -> Binding {
        self.compile(text, &BindingOptions::default()).unwrap()
    }

    pub(super) fn show(&self, wire: &[u8]) -> String {
        let target = Target::Message(self.json.message("t.Request").unwrap());
        let mut text = BytesMut::new();
        self.json
            .write(target, None, wire, &mut text, usize::MAX)
            .unwrap_or_else(|error| panic!("{error}: {wire:?}"));
        String::from_utf8(text.to_vec()).unwrap()
    }

    /// The message of a URL and body as JSON, or the error.
    pub(super) fn read(&self, binding: &Binding, url: &str, body: Option<&str>) -> String {
        let (path, query) = match url.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (url, None),
        };
        let mut routes = RoutesBuilder::new();
        routes
            .bind(&[], binding.method.clone(), &binding.template, 0, 0)
            .unwrap();
        let HttpMethod::Exact(method) = &binding.method else {
            panic!("a rule of a test names its method");
        };
        let matched = match routes.build().find(None, method, path) {
            Ok(matched) => matched,
            Err(NoRoute::Malformed(error)) => return error.to_string(),
            Err(error) => panic!("{path}: {error}"),
        };
        let mut wire = BytesMut::from(&b""[..]);
        let given = match binding.read(&self.json, &matched.captures, query, &mut wire) {
            Ok(given) => given,
            Err(error) => {
                assert!(wire.is_empty(), "{url}: {error} has left {wire:?}");
                return error.to_string();
            }
        };
        if let Some(body) = body {
            if let Err(error) = binding.read_body(&self.json, body.as_bytes(), &mut wire, usize::MAX) {
                return error.to_string();
            }
            binding.patch_mask(given, body.as_bytes(), &mut wire).unwrap();
        }
        self.show(&wire)
    }
}

/// The same for every order of members and spelling of numbers; what is not JSON stays.
pub(super) fn canonical(text: &str) -> String {
    fn numbers(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Number(number) => *value = number.as_f64().into(),
            serde_json::Value::Array(list) => list.iter_mut().for_each(numbers),
            serde_json::Value::Object(members) => members.values_mut().for_each(numbers),
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str(text) else {
        return text.to_owned();
    };
    numbers(&mut value);
    value.to_string()
}

/// URLs without a body, and what they become.
fn check(bench: &Bench, binding: &Binding, table: &[(&str, &str)]) {
    for (url, expected) in table {
        let got = bench.read(binding, url, None);
        assert_eq!(canonical(&got), canonical(expected), "{url}");
    }
}

/// Queries, and what they become; an expectation that is no object is an error without its beginning.
fn check_query(bench: &Bench, binding: &Binding, table: &[(&str, &str)]) {
    for (query, expected) in table {
        let got = bench.read(binding, &format!("/v1?{query}"), None);
        let name = query.split(['=', '&']).next().unwrap();
        let got = got
            .strip_prefix(&format!("query parameter `{name}`: "))
            .unwrap_or(&got);
        assert_eq!(canonical(got), canonical(expected), "{query}");
    }
}

const UNKNOWN: &str = "there is no such parameter";
const TWICE: &str = "it is given twice, and takes one value";
const IN_BODY: &str = "the field is given by the body";
const IN_PATH: &str = "the field is given by the path";

#[test]
fn rule_4_a_path_value_is_a_scalar_of_its_field() {
    let bench = bench();
    let scalar = |field: &str| bench.bind(&format!("GET /v1/{{{field}}}"));
    for (field, value, expected) in [
        ("name", "a%2Fb%22%5B%0A", r#"{"name":"a/b\"[\n"}"#),
        (
            "name",
            "%FF",
            "the path is not valid: the escapes at byte 4 are not UTF-8",
        ),
        ("page_size", "7", r#"{"pageSize":7}"#),
        ("pageSize", "7", r#"{"pageSize":7}"#),
        (
            "book.author.first_name",
            "x",
            r#"{"book":{"author":{"firstName":"x"}}}"#,
        ),
        ("big", "-9223372036854775808", r#"{"big":"-9223372036854775808"}"#),
        ("flag", "true", r#"{"flag":true}"#),
        ("flag", "1", "path variable `flag`: `1` is not `true` or `false`"),
        ("genre", "POEM", r#"{"genre":"POEM"}"#),
        ("data", "aGk_", r#"{"data":"aGk/"}"#),
        (
            "time",
            "2024-02-29T12:30:00Z",
            r#"{"time":"2024-02-29T12:30:00Z"}"#,
        ),
        ("span", "1.5s", r#"{"span":"1.500s"}"#),
        ("count", "0", r#"{"count":"0"}"#),
        ("update_mask", "a,b.cD", r#"{"updateMask":"a,b.cD"}"#),
        ("place.street", "x", r#"{"place":{"street":"x"}}"#),
        ("note", "x", r#"{"note":"x"}"#),
    ] {
        assert_eq!(
            bench.read(&scalar(field), &format!("/v1/{value}"), None),
            expected,
            "{field}={value}"
        );
    }
    let binding = bench.bind("GET /v1/{name=**}");
    check(
        bench,
        &binding,
        &[("/v1", "{}"), ("/v1/a/b%2Fc", r#"{"name":"a/b%2Fc"}"#)],
    );
    let binding = bench.bind("GET /v1/{note=**}");
    check(bench, &binding, &[("/v1", r#"{"note":""}"#)]);
    let binding = bench.bind("GET /v1/{page_size=**}");
    check(
        bench,
        &binding,
        &[(
            "/v1",
            "path variable `page_size`: `` is not a whole number from -2147483648 to 2147483647",
        )],
    );
}

#[test]
fn rule_11_a_rule_that_does_not_fit_says_why() {
    let bench = bench();
    for (text, expected) in [
        ("GET /v1/{", "path template: column 6: expected a field name"),
        (
            "GET /v1/{nam}",
            "path variable `nam`: there is no field `nam` in t.Request",
        ),
        (
            "GET /v1/{book.nam}",
            "path variable `book.nam`: there is no field `nam` in t.Book",
        ),
        (
            "GET /v1/{name.x}",
            "path variable `name.x`: `name` is not a message, so no field can follow it",
        ),
        (
            "GET /v1/{shelf.name}",
            "path variable `shelf.name`: `shelf` is repeated, so no field can follow it",
        ),
        (
            "GET /v1/{books.name}",
            "path variable `books.name`: `books` is a map, so no field can follow it",
        ),
        (
            "GET /v1/{time.seconds}",
            "path variable `time.seconds`: `time` is given as a whole, so no field can follow it",
        ),
        (
            "GET /v1/{tags}",
            "path variable `tags`: `tags` is repeated, and a path gives scalars only",
        ),
        (
            "GET /v1/{labels}",
            "path variable `labels`: `labels` is a map, and a path gives scalars only",
        ),
        (
            "GET /v1/{book}",
            "path variable `book`: `book` is a message, and a path gives scalars only",
        ),
        (
            "GET /v1/{book.sequel}",
            "path variable `book.sequel`: `sequel` is a message, and a path gives scalars only",
        ),
        (
            "GET /v1/{filter}",
            "path variable `filter`: `filter` is a message, and a path gives scalars only",
        ),
        (
            "GET /v1/{detail}",
            "path variable `detail`: `detail` is a message, and a path gives scalars only",
        ),
        (
            "GET /v1/{page_size}/{pageSize}",
            "variables `page_size` and `pageSize` are the same field",
        ),
        (
            "GET /v1/{city}/{place.street}",
            "`city` and `place.street` are members of one oneof",
        ),
        (
            "GET /v1/{book.novel}/{book.poem}",
            "`book.novel` and `book.poem` are members of one oneof",
        ),
        (
            "POST /v1/{city} place",
            "`city` and `place` are members of one oneof",
        ),
        (
            "POST /v1/{name} name",
            "body: `name` is given by the path already",
        ),
        ("POST /v1 bok", "body: there is no field `bok` in t.Request"),
        (
            "POST /v1 book.author",
            "body: there is no field `book.author` in t.Request",
        ),
        (
            "GET /v1 -> titel",
            "response_body: there is no field `titel` in t.Book",
        ),
    ] {
        let error = bench.compile(text, &BindingOptions::default()).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
    // Not in conflict: members of different oneofs, or of the same one of different messages.
    for text in [
        "GET /v1/{place.level}/{book.novel}",
        "GET /v1/{book.novel}/{book.sequel.poem}",
        "POST /v1/{book.name} book",
    ] {
        assert!(bench.compile(text, &BindingOptions::default()).is_ok(), "{text}");
    }
    assert_eq!(
        bench.bind("GET /v1 -> title").response,
        Target::Field {
            message: bench.json.message("t.Book").unwrap(),
            number: 2
        }
    );
}

#[test]
fn rule_12_the_path_owns_its_fields() {
    let bench = bench();
    let get = bench.bind("GET /v1/{name}/{place.street}");
    check(
        bench,
        &get,
        &[
            ("/v1/a/b", r#"{"name":"a","place":{"street":"b"}}"#),
            ("/v1/a/b?name=c", &format!("query parameter `name`: {IN_PATH}")),
            (
                "/v1/a/b?place.street=c",
                &format!("query parameter `place.street`: {IN_PATH}"),
            ),
            (
                "/v1/a/b?n%61me=c",
                &format!("query parameter `n%61me`: {IN_PATH}"),
            ),
            (
                "/v1/a/b?place.level=3",
                r#"{"name":"a","place":{"street":"b","level":3}}"#,
            ),
            ("/v1/a/b?city=c", &format!("query parameter `city`: {IN_PATH}")),
        ],
    );
    let all = bench.bind("POST /v1/{page_size}/{book.author.first_name}/{place.level} *");
    for (body, expected) in [
        (r#"{"name":"x","book":{"author":{"lastName":"l"}}}"#, None),
        (r#"{"pageSize":3}"#, Some("pageSize")),
        (r#"{"page_size":1}"#, Some("page")),
        (r#"{"book":{"author":{"firstName":"x"}}}"#, Some("firstName")),
        (r#"{"city":"c"}"#, Some("city")),
        (r#"{"place":{"wing":"c"}}"#, Some("wing")),
        (r#"{"place":{"street":"c"}}"#, None),
    ] {
        let got = bench.read(&all, "/v1/1/f/2", Some(body));
        match expected {
            Some(name) => assert!(got.contains(name) && got.contains("the path"), "{got}"),
            None => assert!(
                got.contains(r#""pageSize":1"#) && got.contains(r#""firstName":"f""#),
                "{got}"
            ),
        }
    }
    let field = bench.bind("PUT /v1/{book.name=books/*} book");
    assert_eq!(
        bench.read(&field, "/v1/books/7", Some(r#"{"title":"t"}"#)),
        r#"{"book":{"name":"books/7","title":"t"}}"#
    );
    let got = bench.read(&field, "/v1/books/7", Some(r#"{"name":"books/7","title":"t"}"#));
    assert!(got.contains("name") && got.contains("the path"), "{got}");
}

#[test]
fn rule_12_by_option_the_path_holds_and_the_rest_is_passed_over() {
    let bench = bench();
    let options = BindingOptions {
        owned_fields: OwnedFields::Ignore,
        ..BindingOptions::default()
    };
    let all = bench
        .compile(
            "POST /v1/{page_size}/{book.author.first_name}/{place.level} *",
            &options,
        )
        .unwrap();
    for (body, expected) in [
        // A zero is not written, so nothing but leaving out the body's value keeps it.
        (
            r#"{"pageSize":3,"name":"n"}"#,
            r#"{"name":"n","book":{"author":{"firstName":"f"}},"place":{"level":0}}"#,
        ),
        (
            r#"{"book":{"title":"t","author":{"firstName":"x","lastName":"l"}}}"#,
            r#"{"book":{"title":"t","author":{"firstName":"f","lastName":"l"}},"place":{"level":0}}"#,
        ),
        (
            r#"{"city":"c"}"#,
            r#"{"book":{"author":{"firstName":"f"}},"place":{"level":0}}"#,
        ),
        (
            r#"{"place":{"street":"s","wing":"w"}}"#,
            r#"{"book":{"author":{"firstName":"f"}},"place":{"street":"s","level":0}}"#,
        ),
    ] {
        let got = bench.read(&all, "/v1/0/f/0", Some(body));
        assert_eq!(canonical(&got), canonical(expected), "{body}");
    }
    let get = bench.compile("GET /v1/{name}", &options).unwrap();
    check(
        bench,
        &get,
        &[("/v1/a?name=b&pageSize=1", r#"{"name":"a","pageSize":1}"#)],
    );
}

#[test]
fn rule_13_what_the_body_gives_is_no_parameter() {
    let bench = bench();
    let all = bench.bind("POST /v1 *");
    check_query(
        bench,
        &all,
        &[
            ("", "{}"),
            ("page_size=1", IN_BODY),
            ("book.title=x", IN_BODY),
            ("labels[a]=x", IN_BODY),
            ("nothing_known=1", UNKNOWN),
            ("access_token=1&alt=json&$x=1", "{}"),
            // A key of the client's, although the message has such a field.
            ("key=secret", "{}"),
        ],
    );
    let field = bench.bind("POST /v1 book");
    check_query(
        bench,
        &field,
        &[
            ("pageSize=1&name=n", r#"{"name":"n","pageSize":1}"#),
            ("book.title=x", IN_BODY),
            ("book=x", IN_BODY),
            ("book.author.first_name=x", IN_BODY),
            ("book.unknown=x", UNKNOWN),
            ("key=k", r#"{"key":"k"}"#),
        ],
    );
    let member = bench.bind("POST /v1 place");
    check_query(
        bench,
        &member,
        &[
            ("city=x", IN_BODY),
            ("offset=1s", IN_BODY),
            ("name=n", r#"{"name":"n"}"#),
        ],
    );
    // The rpc path is such a binding.
    let rpc = Binding::rpc(&bench.method, &bench.json, &BindingOptions::default()).unwrap();
    assert_eq!(rpc.template.to_string(), "/t.S/Call");
    assert_eq!(
        bench.read(&rpc, "/t.S/Call", Some(r#"{"name":"n"}"#)),
        r#"{"name":"n"}"#
    );
    assert_eq!(
        bench.read(&rpc, "/t.S/Call?name=n", Some("{}")),
        format!("query parameter `name`: {IN_BODY}")
    );
}

#[test]
fn rule_15_unknown_parameters_are_refused_unless_they_are_passed_over() {
    let bench = bench();
    let strict = bench.bind("GET /v1");
    check_query(
        bench,
        &strict,
        &[
            ("page_sze=1", UNKNOWN),
            ("Name=1", UNKNOWN),
            ("book.titel=1", UNKNOWN),
            ("=1", UNKNOWN),
            ("name.=1", "`name` is not a message, so nothing can follow it"),
            (".name=1", UNKNOWN),
            ("access_token=%FF&alt=json&$fields=a", "{}"),
            ("trace=1", UNKNOWN),
            ("other=1", UNKNOWN),
            ("Other=1", r#"{"Other":"1"}"#),
            ("spelled=1", r#"{"Other":"1"}"#),
        ],
    );
    let options = BindingOptions {
        passed: [Box::from("trace"), Box::from("name")].into(),
        ..BindingOptions::default()
    };
    let listed = bench.compile("GET /v1", &options).unwrap();
    check_query(
        bench,
        &listed,
        &[("trace=1&name=n", r#"{"name":"n"}"#), ("page_sze=1", UNKNOWN)],
    );
    let options = BindingOptions {
        unknown_query: UnknownQuery::Ignore,
        ..BindingOptions::default()
    };
    let lax = bench.compile("GET /v1", &options).unwrap();
    check_query(
        bench,
        &lax,
        &[
            ("page_sze=1&book.titel=2&=3&name=n", r#"{"name":"n"}"#),
            (
                "page_size=x",
                "`x` is not a whole number from -2147483648 to 2147483647",
            ),
        ],
    );
}

#[test]
fn rule_16_how_a_query_is_read() {
    let bench = bench();
    let binding = bench.bind("GET /v1");
    let whole = "is not a whole number from -2147483648 to 2147483647";
    check_query(
        bench,
        &binding,
        &[
            ("name=a&name=b", TWICE),
            ("pageSize=1&page_size=1", "{}"),
            ("name=", "{}"),
            ("name", "{}"),
            ("note=", r#"{"note":""}"#),
            ("note", r#"{"note":""}"#),
            ("page_size=", &format!("`` {whole}")),
            ("page_size", &format!("`` {whole}")),
            ("flag=", "`` is not `true` or `false`"),
            ("name=a+b%2Bc%20d", r#"{"name":"a b+c d"}"#),
            ("name=a%252B", r#"{"name":"a%2B"}"#),
            ("name=a=b=", r#"{"name":"a=b="}"#),
            ("name=a;page_size=1", r#"{"name":"a;page_size=1"}"#),
            ("name=a?b/c", r#"{"name":"a?b/c"}"#),
            ("book%2Etitle=x", r#"{"book":{"title":"x"}}"#),
            ("&&name=a&", r#"{"name":"a"}"#),
            ("tags=a,b&tags=c&tags=", r#"{"tags":["a,b","c",""]}"#),
            ("genres=NOVEL&genres=2", r#"{"genres":["NOVEL","POEM"]}"#),
            (
                "book.title=t&book.author.firstName=f&book.author.last_name=l&book.pages=2",
                r#"{"book":{"title":"t","author":{"firstName":"f","lastName":"l"},"pages":2}}"#,
            ),
            ("book.tags=a&book.tags=b", r#"{"book":{"tags":["a","b"]}}"#),
            (
                "name=%zz",
                "`%` at byte 0 is not followed by two hexadecimal digits",
            ),
            ("name=a%FF", "the escapes at byte 1 are not UTF-8"),
            ("n%=a", "`%` at byte 1 is not followed by two hexadecimal digits"),
        ]
        .map(|(query, expected)| match query {
            // The error names the second spelling.
            "pageSize=1&page_size=1" => ("pageSize=1", r#"{"pageSize":1}"#),
            _ => (query, expected),
        }),
    );
    assert_eq!(
        bench.read(&binding, "/v1?pageSize=1&page_size=1", None),
        format!("query parameter `page_size`: {TWICE}")
    );
}

#[test]
fn rule_17_booleans_and_numbers() {
    let bench = bench();
    let binding = bench.bind("GET /v1");
    let whole = "is not a whole number from -2147483648 to 2147483647";
    let boolean = "is not `true` or `false`";
    let mut table = vec![
        ("flag=true".to_owned(), r#"{"flag":true}"#.to_owned()),
        ("flag=false".to_owned(), "{}".to_owned()),
        ("page_size=-0".to_owned(), "{}".to_owned()),
        (
            "page_size=2147483647".to_owned(),
            r#"{"pageSize":2147483647}"#.to_owned(),
        ),
        (
            "page_size=-2147483648".to_owned(),
            r#"{"pageSize":-2147483648}"#.to_owned(),
        ),
        (
            "huge=18446744073709551615".to_owned(),
            r#"{"huge":"18446744073709551615"}"#.to_owned(),
        ),
        (
            "big=9007199254740993".to_owned(),
            r#"{"big":"9007199254740993"}"#.to_owned(),
        ),
        ("number=1.5e3".to_owned(), r#"{"number":1500.0}"#.to_owned()),
        ("number=NaN".to_owned(), r#"{"number":"NaN"}"#.to_owned()),
        (
            "number=Infinity".to_owned(),
            r#"{"number":"Infinity"}"#.to_owned(),
        ),
        (
            "single=-Infinity".to_owned(),
            r#"{"single":"-Infinity"}"#.to_owned(),
        ),
        (
            "small=-1".to_owned(),
            "`-1` is not a whole number from 0 to 4294967295".to_owned(),
        ),
        (
            "single=x".to_owned(),
            "`x` is not a number that a float holds, `NaN`, `Infinity` or `-Infinity`".to_owned(),
        ),
    ];
    for text in [
        "1", "0", "t", "T", "True", "TRUE", "yes", "\"true\"", " true", "null",
    ] {
        table.push((format!("flag={text}"), format!("`{text}` {boolean}")));
    }
    for text in [
        "01",
        "-01",
        "%2B1",
        "1 ",
        " 1",
        "1_000",
        "0x10",
        "1.5",
        ".5",
        "5.",
        "1e",
        "e1",
        "--1",
        "NaN",
        "null",
        "\"1\"",
        "[1]",
        "{}",
        "1,\"x\":2",
        "2147483648",
        "٣",
    ] {
        let shown = text.replace("%2B", "+");
        table.push((format!("page_size={text}"), format!("`{shown}` {whole}")));
    }
    for (query, expected) in &table {
        check_query(bench, &binding, &[(query, expected)]);
    }
}

#[test]
fn rule_18_enums() {
    let bench = bench();
    let open = bench.bind("GET /v1");
    let expected = "is not one of `GENRE_UNSPECIFIED`, `NOVEL`, `ROMAN`, `POEM`, or its number";
    check_query(
        bench,
        &open,
        &[
            ("genre=POEM", r#"{"genre":"POEM"}"#),
            ("genre=ROMAN", r#"{"genre":"NOVEL"}"#),
            ("genre=2", r#"{"genre":"POEM"}"#),
            ("genre=77", r#"{"genre":77}"#),
            ("genre=-1", r#"{"genre":-1}"#),
            ("genre=POEMS", &format!("`POEMS` {expected}")),
            ("genre=", &format!("`` {expected}")),
            ("genre=02", &format!("`02` {expected}")),
            ("genre=2147483648", &format!("`2147483648` {expected}")),
            ("genre=\"POEM\"", &format!("`\"POEM\"` {expected}")),
        ],
    );
    let options = BindingOptions {
        enum_numbers: EnumNumbers::Declared,
        ..BindingOptions::default()
    };
    let closed = bench.compile("GET /v1", &options).unwrap();
    check_query(
        bench,
        &closed,
        &[
            ("genre=2", r#"{"genre":"POEM"}"#),
            ("genre=77", &format!("`77` {expected}")),
            ("genres=77", &format!("`77` {expected}")),
        ],
    );
}

#[test]
fn rule_19_well_known_types_and_maps() {
    let bench = bench();
    let binding = bench.bind("GET /v1");
    let mask = "is not field names separated by commas, such as `title,author.name`";
    check_query(
        bench,
        &binding,
        &[
            (
                "time=2024-02-29T12:30:00.5%2B01:00",
                r#"{"time":"2024-02-29T11:30:00.500Z"}"#,
            ),
            (
                "time=2023-02-29T12:30:00Z",
                "`2023-02-29T12:30:00Z` is not a timestamp such as `2024-02-29T12:30:00Z`",
            ),
            ("span=1.5s", r#"{"span":"1.500s"}"#),
            ("span=1m", "`1m` is not a duration in seconds such as `1.5s`"),
            (
                "time.seconds=1",
                "`time` is given as a whole, so nothing can follow it",
            ),
            (
                "update_mask=bookName,author.first_name,x1",
                r#"{"updateMask":"bookName,author.firstName,x1"}"#,
            ),
            ("update_mask=", r#"{"updateMask":""}"#),
            ("update_mask=a,,b", &format!("`a,,b` {mask}")),
            ("update_mask=a.", &format!("`a.` {mask}")),
            ("update_mask=a b", &format!("`a b` {mask}")),
            ("update_mask=a.b[1]", &format!("`a.b[1]` {mask}")),
            ("count=0", r#"{"count":"0"}"#),
            ("count=1.0", r#"{"count":"1"}"#),
            (
                "count=null",
                "`null` is not a whole number from -9223372036854775808 to 9223372036854775807",
            ),
            ("word=", r#"{"word":""}"#),
            ("word=null", r#"{"word":"null"}"#),
            ("sure=false", r#"{"sure":false}"#),
            ("blob=-_8", r#"{"blob":"+/8="}"#),
            ("blob=%2B/8=", r#"{"blob":"+/8="}"#),
            ("data=a", "`a` is not base64, of either alphabet"),
            ("filter={\"a\":[1,null]}", r#"{"filter":{"a":[1.0,null]}}"#),
            ("filter=null", "`null` is not a JSON object"),
            ("filter=[]", "`[]` is not a JSON object"),
            (
                "filter={},\"name\":\"x\"",
                "`{},\"name\":\"x\"` is not a JSON object",
            ),
            ("list=[1]", r#"{"list":[1.0]}"#),
            ("list=", "`` is not a JSON array"),
            ("any_value=null", r#"{"anyValue":null}"#),
            ("any_value=\"x\"", r#"{"anyValue":"x"}"#),
            (
                "any_value=x",
                "`x` is not a JSON text, in which a string has quotes",
            ),
            ("labels[a.b%5D]=x", r#"{"labels":{"a.b]":"x"}}"#),
            ("labels[]=y", r#"{"labels":{"":"y"}}"#),
            ("labels%5Ba%5D=x", r#"{"labels":{"a":"x"}}"#),
            ("labels[a]=x&labels[a]=y", TWICE),
            ("switches[7]=true", r#"{"switches":{"7":true}}"#),
            ("switches[x]=true", "`true` is not `true` or `false`"),
            ("spans[a]=1s", r#"{"spans":{"a":"1s"}}"#),
            ("book.labels[a]=x", r#"{"book":{"labels":{"a":"x"}}}"#),
            (
                "labels=x",
                "it is a map, whose entries are given as `map[key]=value`",
            ),
            ("labels.a=x", "`labels` is a map, so nothing can follow it"),
            ("labels[a=x", UNKNOWN),
            ("labels[a]b=x", UNKNOWN),
            ("name[a]=x", UNKNOWN),
            (
                "books[a]=x",
                "it is a list of messages, which only a body can give",
            ),
            (
                "masks[a]=x",
                "it is a list of messages, which only a body can give",
            ),
            ("shelf=x", "it is a list of messages, which only a body can give"),
            ("shelf.name=x", "`shelf` is repeated, so nothing can follow it"),
            (
                "times=2024-02-29T12:30:00Z",
                "it is a list of messages, which only a body can give",
            ),
            ("book=x", "it is a t.Book, whose fields are given as `book.field`"),
            (
                "nothing=",
                "it is a google.protobuf.Empty, whose fields are given as `nothing.field`",
            ),
            (
                "detail.type_url=x",
                "`detail` is given as a whole, so nothing can follow it",
            ),
        ],
    );
}

#[test]
fn rule_20_two_members_of_a_oneof_are_refused() {
    let bench = bench();
    let binding = bench.bind("GET /v1");
    check_query(
        bench,
        &binding,
        &[
            (
                "place.level=1&place.street=s&book.novel=n",
                r#"{"book":{"novel":"n"},"place":{"street":"s","level":1}}"#,
            ),
            ("note=a&name=b", r#"{"name":"b","note":"a"}"#),
        ],
    );
    for (query, name, oneof) in [
        ("city=a&offset=1s", "offset", "where"),
        ("city=a&place.street=s", "place.street", "where"),
        ("place.level=1&place.wing=w", "place.wing", "floor"),
        ("book.poem=&book.novel=", "book.novel", "kind"),
    ] {
        assert_eq!(
            bench.read(&binding, &format!("/v1?{query}"), None),
            format!("query parameter `{name}`: another member of the oneof `{oneof}` is given already")
        );
    }
}

#[test]
fn a_patch_body_stands_for_its_update_mask() {
    let bench = bench();
    let patch = bench.bind("PATCH /v1/{book.name=books/*} book");
    for (query, body, mask) in [
        ("", "{}", None),
        ("", "", None),
        ("", r#"{"title":"t","pages":0}"#, Some("pages,title")),
        (
            "",
            r#"{"author":{"lastName":"l","first_name":""}}"#,
            Some("author.firstName,author.lastName"),
        ),
        ("", r#"{"author":{}}"#, Some("author")),
        ("", r#"{"author":null,"title":null}"#, Some("author,title")),
        ("", r#"{"tags":[],"labels":{"a":"b"}}"#, Some("labels,tags")),
        (
            "",
            r#"{"published":"2024-02-29T12:30:00Z","extra":{"title":{"x":1}}}"#,
            Some("extra,published"),
        ),
        (
            "",
            r#"{"sequel":{"sequel":{"pages":1}},"novel":"n"}"#,
            Some("novel,sequel.sequel.pages"),
        ),
        ("", r#"{"unknown":1,"title":"t"}"#, Some("title")),
        ("?updateMask=pages", r#"{"title":"t"}"#, Some("pages")),
        ("?update_mask=", r#"{"title":"t"}"#, Some("title")),
    ] {
        let got = bench.read(&patch, &format!("/v1/books/7{query}"), Some(body));
        let shown = mask.map(|mask| format!(r#""updateMask":"{mask}""#));
        match shown {
            Some(mask) => assert!(got.contains(&mask), "{body}: {got}"),
            None => assert!(!got.contains("updateMask"), "{body}: {got}"),
        }
    }
    for (text, body) in [
        ("PUT /v1/{book.name=books/*} book", r#"{"title":"t"}"#),
        ("PATCH /v1/{name=books/*} *", r#"{"key":"k"}"#),
        ("PATCH /v1/{name} tags", r#"["a"]"#),
        ("PATCH /v1/{name} books", r#"{"a":{"title":"t"}}"#),
        ("PATCH /v1/{update_mask} book", r#"{"title":"t"}"#),
    ] {
        let mut wire = BytesMut::new();
        let binding = bench.bind(text);
        binding
            .patch_mask(Given::default(), body.as_bytes(), &mut wire)
            .unwrap();
        assert!(wire.is_empty(), "{text}");
    }
    // What the path owns is not the body's to change, so a body that gives it all the same does not name it.
    let options = BindingOptions {
        owned_fields: OwnedFields::Ignore,
        ..BindingOptions::default()
    };
    let patch = bench
        .compile("PATCH /v1/{book.name=books/*} book", &options)
        .unwrap();
    assert_eq!(
        bench.read(&patch, "/v1/books/7", Some(r#"{"name":"books/8","title":"t"}"#)),
        r#"{"book":{"name":"books/7","title":"t"},"updateMask":"title"}"#
    );
}

#[test]
fn groups_are_written_and_taken_out_as_groups() {
    let bench = bench_of(
        r#"
        syntax = "proto2";
        package t;
        service S { rpc Call(Request) returns (Request); }
        message Request {
          optional group Inner = 1 { optional string a = 1; optional string b = 2; }
          optional string c = 2;
        }
        "#,
    );
    let options = BindingOptions {
        owned_fields: OwnedFields::Ignore,
        ..BindingOptions::default()
    };
    let binding = bench.compile("POST /v1/{inner.a} *", &options).unwrap();
    assert_eq!(
        bench.read(&binding, "/v1/x", Some(r#"{"inner":{"a":"y","b":"z"},"c":"w"}"#)),
        r#"{"inner":{"a":"x","b":"z"},"c":"w"}"#
    );
}

#[test]
fn a_long_value_is_cut_in_the_error() {
    let bench = bench();
    let binding = bench.bind("GET /v1");
    let long = "é".repeat(200);
    let got = bench.read(&binding, &format!("/v1?page_size={long}"), None);
    assert!(got.contains(&format!("`{}…` is not", "é".repeat(64))), "{got}");
}

#[test]
fn mutated_queries_never_panic_and_never_reach_a_field_that_the_path_owns() {
    use crate::schema::template::random::Random;

    let bench = bench();
    let binding = bench.bind("GET /v1/{name}");
    let captures: Captures = ["owned"].into_iter().collect();
    let seeds = [
        "page_size=1&book.title=x&labels[a]=b&tags=c",
        "filter={\"a\":1}&any_value=\"x\"&genre=POEM&time=2024-02-29T12:30:00Z",
        "name=other&n%61me=other&city=a&place.street=b",
    ];
    let alphabet: Vec<char> = "&=.[]%+2e\"{},1aé;".chars().collect();
    let mut random = Random::new(11);
    let mut read = 0;
    for round in 0..10_000 {
        let mut query: Vec<char> = seeds[round % seeds.len()].chars().collect();
        for _ in 0..random.below(4) {
            let at = random.below(query.len());
            match random.below(3) {
                0 => query[at] = random.pick(&alphabet),
                1 => query.insert(at, random.pick(&alphabet)),
                _ => drop(query.remove(at)),
            }
        }
        let query: String = query.into_iter().collect();
        let mut wire = BytesMut::new();
        match binding.read(&bench.json, &captures, Some(&query), &mut wire) {
            Ok(_) => {
                read += 1;
                let shown = bench.show(&wire);
                assert!(shown.contains(r#""name":"owned""#), "{query}: {shown}");
            }
            Err(error) => assert!(wire.is_empty(), "{query}: {error}"),
        }
    }
    assert!(read > 500, "only {read} queries were read");
}
