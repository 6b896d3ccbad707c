//! What `explain` says, for a request of every kind.

use std::path::Path;
use std::sync::Arc;

use http::Request;

use super::*;
use crate::config::{SchemaState, compile, from_text};
use crate::schema::{Rules, Schema};

const PROTO: &str = r#"
syntax = "proto3";
package library.v1;
import "google/api/annotations.proto";
message Book { string name = 1; string title = 2; int32 pages = 3; }
message GetBook { string name = 1; bool deep = 2; }
service Library {
  rpc Get(GetBook) returns (Book) { option (google.api.http) = {
    get: "/v1/{name=shelves/*/books/*}"
    additional_bindings { get: "/v1/{nam=shelves/*}/books/{book}" }
  }; }
  rpc Any(GetBook) returns (Book) { option (google.api.http) = { get: "/v1/{name=**}" }; }
  rpc Put(Book) returns (Book) { option (google.api.http) = { put: "/v1/{name=shelves/*/books/*}" body: "*" }; }
}
service Loans { rpc Lend(GetBook) returns (Book); }
"#;

const FILE: &str = "\
backends:
  library: {endpoints: [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]}
  other: {endpoints: [\"http://127.0.0.1:3\"]}
routes:
  - {services: [library.v1.Library], backend: library}
  - {services: [\"library.*\"], backend: library, hosts: [loans.example.com]}
  - {services: [\"other.*\"], backend: other, timeout: 2s}
";

fn plan() -> Plan {
    plan_of(FILE)
}

fn plan_of(text: &str) -> Plan {
    let file = from_text("sabir.yaml", Path::new(""), text).expect("a file");
    let sources = [("a.proto".to_owned(), PROTO.to_owned())].into();
    let schema = Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty()).expect("a schema");
    let schemas = [
        ("library".to_owned(), SchemaState::Ready(Arc::new(schema))),
        ("other".to_owned(), SchemaState::Pending("it is down".to_owned())),
    ];
    compile(&file, &schemas.into()).expect("a plan")
}

#[track_caller]
fn explained(request: http::request::Builder, body: Option<&str>) -> String {
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let plan = plan();
    let explanation = Explanation::new(&plan, &head, body.map(str::as_bytes));
    format!("{explanation}\nsends: {}", explanation.sends())
}

#[test]
fn a_request_that_is_sent() {
    let request = Request::get("/v1/shelves/1/books/2?deep=true")
        .header("x-user", "ada")
        .header("connection", "close");
    insta::assert_snapshot!(explained(request, None));
}

#[test]
fn a_body_is_woven_in() {
    let request = Request::put("/v1/shelves/1/books/2");
    insta::assert_snapshot!(explained(request, Some(r#"{"title": "Dune", "pages": 412}"#)));
}

#[test]
fn a_body_that_does_not_fit() {
    let request = Request::put("/v1/shelves/1/books/2");
    insta::assert_snapshot!(explained(request, Some(r#"{"pages": 4.5}"#)));
}

#[test]
fn a_method_that_the_path_does_not_answer() {
    insta::assert_snapshot!(explained(Request::delete("/v1/shelves/1/books/2"), None));
}

#[test]
fn a_path_that_nothing_answers() {
    // The route of the pending backend answers any host, so it may have the path once it is known.
    insta::assert_snapshot!(explained(Request::get("/v2/books"), None));
}

#[test]
fn another_host() {
    let request = Request::post("http://loans.example.com/library.v1.Loans/Lend");
    insta::assert_snapshot!(explained(request, Some(r#"{"name": "b"}"#)));
}

#[test]
fn grpc_is_found_by_its_rpc_path() {
    let request = Request::post("/library.v1.Library/Get").header("content-type", "application/grpc");
    insta::assert_snapshot!(explained(request, None));
}

#[test]
fn what_keeps_a_request_out_is_named() {
    let file = FILE.replace("routes:", "listeners:\n  - {address: \"127.0.0.1:1\", block: [{path: books}]}\n  - {address: \"127.0.0.1:2\", addresses: {deny: [192.0.2.0/24]}}\nroutes:");
    let file = from_text("sabir.yaml", Path::new(""), &file).expect("a file");
    let plan = compile(&file, &std::collections::BTreeMap::new()).expect("a plan");
    let (head, ()) = Request::get("/v1/shelves/1/books/2")
        .body(())
        .expect("a request")
        .into_parts();
    let explanation = Explanation::new(&plan, &head, None).from("192.0.2.7".parse().expect("an address"));
    let mut facts = Vec::new();
    explanation.listener_facts(&mut facts);
    assert_eq!(
        facts.concat(),
        [
            "listener",
            "127.0.0.1:1: listeners[0].block[0] blocks it",
            "listener",
            "127.0.0.1:2 does not take connections from 192.0.2.7",
        ]
    );
    assert!(!explanation.sends());
}

#[test]
fn the_limits_that_would_be_asked_are_told() {
    let file = FILE.replace(
        "backend: library}",
        "backend: library, rate_limit: [each, slots, by_name], max_in_flight: 9}",
    ) + "\
rate_limits:
  each: {rate: 10/s, burst: 20, key: [address, {header: x-tenant}], weights: {\"library.v1.Library/Get\": 3}}
  slots: {in_flight: 2, key: global}
  by_name: {quota: 5/hour, key: {message_field: name}}
";
    let plan = plan_of(&file);
    let head = Request::get("/v1/shelves/1/books/7")
        .header("x-tenant", "t-1")
        .body(())
        .unwrap()
        .into_parts()
        .0;
    insta::assert_snapshot!(Explanation::new(&plan, &head, None).to_string());
}

#[test]
fn who_answers_where_a_backend_can_not_is_told() {
    let file = FILE.replace(
        "\"http://127.0.0.1:2\"]}",
        "\"http://127.0.0.1:2\"], fallback: {backend: other, answers: [{methods: [\"*\"], message: '{\"title\": \"Gone\"}'}]}}\n  \
         shop: {protocol: rest, endpoints: [\"http://127.0.0.1:4\"], fallback: {backend: spare, page: {body: sorry}}}\n  \
         spare: {protocol: rest, endpoints: [\"http://127.0.0.1:5\"]}",
    ) + "  - {path: /shop/**, backend: shop}\n";
    let plan = plan_of(&file);
    let told = |path: &str| {
        let (head, ()) = Request::get(path).body(()).unwrap().into_parts();
        let told = Explanation::new(&plan, &head, None).to_string();
        let lines = told.lines().filter(|line| line.contains("or else"));
        lines.map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        told("/v1/shelves/1/books/7"),
        [
            "or else backend \"other\", http://127.0.0.1:3/",
            "or else the fixed answer {\"title\":\"Gone\"}",
        ]
    );
    assert_eq!(
        told("/shop/7"),
        [
            "or else  backend \"spare\", http://127.0.0.1:5/",
            "or else  the fixed answer 200 OK, 5 bytes of text/plain; charset=utf-8",
        ]
    );
}

/// The same services behind a backend that knows HTTP and JSON alone.
#[track_caller]
fn explained_to_rest(request: http::request::Builder, body: Option<&str>) -> String {
    let file = FILE.replace(
        "library: {endpoints: [\"http://127.0.0.1:1\", \"http://127.0.0.1:2\"]}",
        "library: {protocol: rest, endpoints: [\"http://127.0.0.1:1/api\", \"http://127.0.0.1:2/api/\"], schema: {protos: [a.proto]}, rest: {server_timeout: true}}",
    );
    let plan = plan_of(&file);
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let explanation = Explanation::new(&plan, &head, body.map(str::as_bytes));
    format!("{explanation}\nsends: {}", explanation.sends())
}

#[test]
fn a_rest_backend_is_asked_by_the_rule() {
    let request = Request::get("/v1/shelves/1/books/2?deep=true").header("x-user", "ada");
    insta::assert_snapshot!(explained_to_rest(request, None));
}

#[test]
fn a_rest_backend_is_sent_a_body() {
    let request = Request::post("/library.v1.Library/Put")
        .header("content-type", "application/json")
        .header("connect-protocol-version", "1");
    let body = r#"{"name": "shelves/1/books/2", "title": "Dune"}"#;
    insta::assert_snapshot!(explained_to_rest(request, Some(body)));
}

#[test]
fn a_message_of_grpc_is_given_as_json() {
    let request = || Request::post("/library.v1.Library/Get").header("content-type", "application/grpc");
    let named = explained_to_rest(request(), Some(r#"{"name": "shelves/1/books/2"}"#));
    assert!(
        named.contains("\nrequest GET /api/v1/shelves/1/books/2\n"),
        "{named}"
    );
    let unnamed = explained_to_rest(request(), Some("{}"));
    assert!(unnamed.contains("answered with 400"), "{unnamed}");
    assert!(unnamed.ends_with("sends: false"), "{unnamed}");
    let unknown = explained_to_rest(request(), None);
    assert!(
        unknown.contains("\nrequest GET, of which the message gives the rest"),
        "{unknown}"
    );
}

#[test]
fn what_can_not_be_called_says_so() {
    let request = Request::post("/library.v1.Loans/Lend").header("host", "loans.example.com");
    let said = explained_to_rest(request.header("content-type", "application/grpc"), None);
    assert!(
        said.contains("library.v1.Loans/Lend: it has no HTTP rule by which to call its backend"),
        "{said}"
    );
    assert!(said.ends_with("sends: false"), "{said}");
}

#[test]
fn a_get_of_connect_has_its_message_in_the_query() {
    let uri = "/library.v1.Loans/Lend?connect=v1&encoding=json&message=%7B%22name%22%3A%22b%22%7D";
    let said = explained(Request::get(format!("http://loans.example.com{uri}")), None);
    assert!(said.contains("\"name\": \"b\""), "{said}");
}
