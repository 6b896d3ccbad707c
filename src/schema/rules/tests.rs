//! Rules files: forms, mistakes and what they replace.

use super::*;
use crate::schema::method::HttpMethod;

fn rule(method: HttpMethod, template: &str, body: &str, response_body: &str) -> HttpRule {
    HttpRule {
        method,
        template: template.to_owned(),
        body: body.to_owned(),
        response_body: response_body.to_owned(),
    }
}

const YAML: &str = "
type: google.api.Service
config_version: 3
name: library.example.com
http:
  rules:
  - selector: library.v1.Library.GetBook
    get: /v1/{name=shelves/*/books/*}
    additional_bindings:
    - get: /v1/books/{name}
    - custom: {kind: HEAD, path: '/v1/heads/{name}'}
      response_body: title
  - selector: library.v1.Library.CreateBook
    post: /v1/{parent=shelves/*}/books
    body: book
";

#[test]
fn yaml_and_json_give_the_same_rules() {
    let json = r#"{"type": "google.api.Service", "configVersion": 3, "http": {"fullyDecodeReservedExpansion": false, "rules": [
        {"selector": "library.v1.Library.GetBook", "get": "/v1/{name=shelves/*/books/*}", "additionalBindings": [
            {"get": "/v1/books/{name}"},
            {"custom": {"kind": "HEAD", "path": "/v1/heads/{name}"}, "responseBody": "title"}]},
        {"selector": "library.v1.Library.CreateBook", "post": "/v1/{parent=shelves/*}/books", "body": "book"}]}}"#;
    let from_yaml = Rules::parse("rules.yaml", YAML).unwrap();
    let from_json = Rules::parse("rules.json", json).unwrap();
    let expected = [
        (
            "library.v1.Library.CreateBook",
            vec![rule(
                HttpMethod::Exact(http::Method::POST),
                "/v1/{parent=shelves/*}/books",
                "book",
                "",
            )],
        ),
        (
            "library.v1.Library.GetBook",
            vec![
                rule(
                    HttpMethod::Exact(http::Method::GET),
                    "/v1/{name=shelves/*/books/*}",
                    "",
                    "",
                ),
                rule(HttpMethod::Exact(http::Method::GET), "/v1/books/{name}", "", ""),
                rule(
                    HttpMethod::Exact(http::Method::HEAD),
                    "/v1/heads/{name}",
                    "",
                    "title",
                ),
            ],
        ),
    ];
    for rules in [from_yaml, from_json] {
        let got: Vec<_> = rules.iter().map(|(name, rules)| (name, rules.to_vec())).collect();
        assert_eq!(got, expected);
    }
}

#[test]
fn the_later_rule_for_a_method_counts() {
    let text = "http: {rules: [{selector: a.B.C, get: /one}, {selector: a.B.C, get: /two}]}";
    let mut rules = Rules::parse("a", text).unwrap();
    let templates = |rules: &Rules| -> Vec<String> {
        rules
            .iter()
            .flat_map(|(_, rules)| rules.iter().map(|rule| rule.template.clone()))
            .collect()
    };
    assert_eq!(templates(&rules), ["/two"]);
    rules.merge(
        Rules::parse(
            "b",
            "http: {rules: [{selector: a.B.C, custom: {kind: '*', path: /three}}]}",
        )
        .unwrap(),
    );
    assert_eq!(templates(&rules), ["/three"]);
}

#[test]
fn an_empty_file_has_no_rules() {
    for text in ["", "  \n", "type: google.api.Service", "http: {}"] {
        assert!(Rules::parse("empty.yaml", text).unwrap().is_empty(), "{text:?}");
    }
}

/// The message starts with the place and contains each of the words.
#[track_caller]
fn check(text: &str, place: &str, words: &[&str]) {
    let message = Rules::parse("rules.yaml", text).unwrap_err().to_string();
    assert!(message.starts_with(&format!("rules.yaml:{place}: ")), "{message}");
    for word in words {
        assert!(message.contains(word), "{message} lacks {word}");
    }
    assert!(!message.contains('\n'), "{message}");
}

#[test]
fn mistakes_are_named_with_their_place() {
    check("htp: {}", "1:1", &["htp", "http"]);
    check(
        "type: google.api.Sevice",
        "1:7",
        &["google.api.Sevice", "google.api.Service"],
    );
    check(
        "http:\n  rules:\n  - selector: a.B.C\n    gett: /x",
        "4:5",
        &["gett", "get", "additional_bindings"],
    );
    check("http:\n  rules:\n  - get: /x", "3:5", &["selector"]);
    check(
        "http:\n  rules:\n  - selector: a.B.C",
        "3:15",
        &["a.B.C", "no pattern"],
    );
    check(
        "http:\n  rules:\n  - {selector: a.B.C, get: /x, put: /y}",
        "3:16",
        &["2 patterns"],
    );
    check(
        "http:\n  rules:\n  - {selector: a.B.*, get: /x}",
        "3:16",
        &["full name of one method"],
    );
    check(
        "http:\n  rules:\n  - {selector: C, get: /x}",
        "3:16",
        &["full name of one method"],
    );
    check(
        "http:\n  rules:\n  - {selector: a.B.C, custom: {kind: 'A B', path: /x}}",
        "3:16",
        &["A B", "not an HTTP method"],
    );
    check(
        "http:\n  rules:\n  - {selector: a.B.C, get: /x, additional_bindings: [{get: /y, additional_bindings: [{get: /z}]}]}",
        "3:16",
        &["can't hold"],
    );
    check(
        "http:\n  rules:\n  - {selector: a.B.C, get: /x, additional_bindings: [{selector: a.B.D, get: /y}]}",
        "3:16",
        &["no selector"],
    );
    check(
        "http: {fully_decode_reserved_expansion: true}",
        "1:41",
        &["not supported"],
    );
    check("http: [", "1:7", &[]);
}

#[test]
fn distances_count_edits() {
    let table = [
        ("", "", 0),
        ("abc", "abc", 0),
        ("abc", "abd", 1),
        ("abc", "acb", 2),
        ("abc", "ab", 1),
        ("kitten", "sitting", 3),
    ];
    for (from, to, edits) in table {
        assert_eq!(distance(from, to), edits, "{from} {to}");
    }
}
