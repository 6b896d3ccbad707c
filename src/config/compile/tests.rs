//! Which route has which method, what becomes of bad rules, and what can't be compiled.

use std::path::Path;

use super::*;
use crate::config::from_text;
use crate::route::Matched;
use crate::schema::Rules;

const LIBRARY: &str = r#"
syntax = "proto3";
package library.v1;
import "google/api/annotations.proto";
import "google/api/httpbody.proto";
message Book { string name = 1; string title = 2; google.api.HttpBody scan = 3; }
message GetBook { string name = 1; bool deep = 2; }
service Library {
  rpc Get(GetBook) returns (Book) {
    option (google.api.http) = {
      get: "/v1/{name=shelves/*/books/*}"
      additional_bindings { get: "/v1/{nam=books/*}" }
      additional_bindings { get: "/v1/{name=shelves/*/books/*}" }
      additional_bindings { get: "/v1/{name=**}/tail" }
    };
  }
  rpc Scan(GetBook) returns (google.api.HttpBody) {
    option (google.api.http) = { post: "/v1/scans" body: "*" };
  }
  rpc Put(Book) returns (Book) {
    option (google.api.http) = { put: "/v1/scans" body: "scan" response_body: "title" };
  }
}
service Loans { rpc Lend(GetBook) returns (Book); }
"#;

const OTHER: &str = r#"
syntax = "proto3";
package other;
message Nothing {}
service Other { rpc Do(Nothing) returns (Nothing); }
"#;

fn schema(text: &str) -> SchemaState {
    let sources = [("a.proto".to_owned(), text.to_owned())].into();
    let schema = Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty());
    SchemaState::Ready(Arc::new(schema.expect("a schema")))
}

fn shown(found: &[Diagnostic]) -> String {
    found
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

/// Compiles routes over the backends `a` (the library), `b` (the same again) and `c` (pending).
fn compiled(routes: &str) -> Result<Plan, String> {
    let backends = "\
backends:
  a: {endpoints: [\"http://127.0.0.1:1\"], schema: {descriptors: a.binpb}}
  b: {endpoints: [\"http://127.0.0.1:2\"]}
  c: {endpoints: [\"http://127.0.0.1:3\"]}
  d: {endpoints: [\"http://127.0.0.1:4\"]}
";
    let text = format!("{backends}{routes}");
    let file = from_text("sabir.yaml", Path::new(""), &text).map_err(|found| shown(&found))?;
    let schemas = [
        ("a".to_owned(), schema(LIBRARY)),
        ("b".to_owned(), schema(LIBRARY)),
        ("c".to_owned(), SchemaState::Pending("it is down".to_owned())),
        ("d".to_owned(), schema(OTHER)),
    ];
    compile(&file, &schemas.into()).map_err(|found| shown(&found))
}

#[track_caller]
fn plan(routes: &str) -> Plan {
    compiled(routes).unwrap_or_else(|found| panic!("{found}"))
}

/// The backend that answers a method on a host.
fn answers(plan: &Plan, host: Option<&str>, method: &str) -> Option<String> {
    let entry = plan.routes.find_rpc(host, method)?;
    let entry = &plan.entries[entry as usize];
    Some(plan.backends[entry.route.backend].name.clone())
}

#[test]
fn a_copy_of_an_entry_is_held_apart_from_it() {
    let plan = plan("routes: [{services: [library.v1.Library], backend: a}]");
    let entry = plan.entries.first().unwrap();
    let copy = entry.apart();
    assert_eq!(copy.method.path, entry.method.path);
    assert!(!Arc::ptr_eq(&copy.method, &entry.method));
}

#[test]
fn the_most_specific_pattern_has_a_method_whatever_the_order() {
    let orders = [
        "\
routes:
  - {services: [\"*\"], backend: a}
  - {services: [library.v1.Loans], backend: b}
",
        "\
routes:
  - {services: [library.v1.Loans], backend: b}
  - {services: [\"*\"], backend: a}
",
    ];
    for routes in orders {
        let plan = plan(routes);
        assert_eq!(
            answers(&plan, None, "/library.v1.Library/Get").as_deref(),
            Some("a")
        );
        assert_eq!(
            answers(&plan, None, "/library.v1.Loans/Lend").as_deref(),
            Some("b")
        );
        assert_eq!(plan.entries.len(), 4);
    }
}

#[test]
fn a_longer_prefix_wins_over_a_shorter() {
    let plan = plan(
        "\
routes:
  - {services: [\"library.*\"], backend: a}
  - {services: [\"library.v1.*\"], backend: b}
",
    );
    assert_eq!(
        answers(&plan, None, "/library.v1.Library/Get").as_deref(),
        Some("b")
    );
}

#[test]
fn two_routes_that_take_a_method_equally_are_an_error() {
    insta::assert_snapshot!(
        compiled(
            "\
routes:
  - {services: [\"*\"], backend: a}
  - services: [\"x.*\", \"*\"]
    backend: b
  - {services: [\"*\"], backend: d}
"
        )
        .expect_err("they overlap")
    );
}

#[test]
fn hosts_keep_routes_apart() {
    let plan = plan(
        "\
routes:
  - {services: [\"*\"], backend: a, hosts: [a.example.com, shared.example.com]}
  - {services: [\"*\"], backend: b, hosts: [\"*.example.com\"]}
  - {services: [\"library.v1.Library\"], backend: b, hosts: [shared.example.com]}
",
    );
    let get = "/library.v1.Library/Get";
    assert_eq!(answers(&plan, Some("a.example.com"), get).as_deref(), Some("a"));
    assert_eq!(answers(&plan, Some("b.example.com"), get).as_deref(), Some("b"));
    assert_eq!(
        answers(&plan, Some("shared.example.com"), get).as_deref(),
        Some("b")
    );
    assert_eq!(
        answers(&plan, Some("shared.example.com"), "/library.v1.Loans/Lend").as_deref(),
        Some("a")
    );
    assert_eq!(answers(&plan, Some("example.org"), get), None);
    assert_eq!(answers(&plan, None, get), None);
}

#[test]
fn a_host_that_is_none_is_an_error() {
    let routes =
        "routes:\n  - {services: [\"*\"], backend: a, hosts: [\"http://a\", \"a:80\", b.example.com]}\n";
    insta::assert_snapshot!(compiled(routes).expect_err("not hosts"));
}

#[test]
fn a_pattern_that_takes_nothing_is_an_error_where_files_say_so_and_a_warning_elsewhere() {
    let routes = "routes:\n  - {services: [\"libary.v1.Library\", \"library.v1.*\"], backend: a}\n";
    insta::assert_snapshot!(compiled(routes).expect_err("it takes nothing"));
    let routes = "routes:\n  - {services: [\"library.v2.*\"], backend: b}\n";
    insta::assert_snapshot!(shown(&plan(routes).warnings));
}

#[test]
fn a_bad_rule_disables_itself_and_nothing_else() {
    let plan = plan("routes:\n  - {services: [\"*\"], backend: a}\n");
    let disabled: Vec<String> = plan
        .disabled
        .iter()
        .map(|disabled| format!("{}: {}: {}", disabled.method, disabled.rule, disabled.reason))
        .collect();
    insta::assert_snapshot!(disabled.join("\n"));
    let Matched { entry, binding, .. } = plan
        .routes
        .find(None, &http::Method::GET, "/v1/shelves/1/books/2")
        .expect("a route");
    assert_eq!(binding, Some(0));
    assert_eq!(
        plan.entries[entry as usize].method.full_name(),
        "library.v1.Library.Get"
    );
    assert_eq!(plan.entries[entry as usize].bindings.len(), 2);
    assert_eq!(plan.warnings.len(), 1, "{}", shown(&plan.warnings));
    assert!(
        plan.warnings[0].message.contains("goes on after"),
        "{}",
        plan.warnings[0]
    );
}

#[test]
fn a_fixed_answer_is_a_message_of_its_method() {
    let compiled = |answers: &str| {
        let text = format!(
            "backends:\n  a: {{endpoints: [\"http://127.0.0.1:1\"], schema: {{descriptors: a.binpb}}, \
             fallback: {{answers: [{answers}]}}}}\nroutes:\n  - {{services: [\"*\"], backend: a}}\n"
        );
        let file = from_text("sabir.yaml", Path::new(""), &text).expect("a file");
        let schemas = [("a".to_owned(), schema(LIBRARY))].into();
        compile(&file, &schemas).map_err(|found| shown(&found))
    };
    let plan =
        compiled("{methods: [library.v1.Library/Get], message: '{\"title\": \"x\"}'}, {methods: [\"*\"]}");
    let plan = plan.expect("a plan");
    let answer = |name: &str| {
        let entry = plan.entries.iter().find(|entry| &*entry.method.name == name);
        entry
            .and_then(|entry| entry.answer.clone())
            .map(|answer| answer.0)
    };
    assert_eq!(answer("Get").as_deref(), Some(&b"\0\0\0\0\x03\x12\x01x"[..]));
    assert_eq!(answer("Lend").as_deref(), Some(&b"\0\0\0\0\0"[..]));
    let found = compiled("{methods: [library.v1.Library/Get], message: '{\"titel\": 7}'}");
    let found = found.expect_err("no message");
    assert!(
        found.contains("is no library.v1.Book, which library.v1.Library/Get answers with"),
        "{found}"
    );
    let plan = compiled("{methods: [library.v1.Library/Nothing]}").expect("a plan");
    assert!(
        shown(&plan.warnings).contains("about no method"),
        "{:?}",
        plan.warnings
    );
}

#[test]
fn bodies_are_what_rule_and_types_say() {
    use crate::route::Form;
    let plan = plan("routes:\n  - {services: [\"*\"], backend: a}\n");
    let entry = |name: &str| {
        plan.entries
            .iter()
            .find(|entry| &*entry.method.name == name)
            .expect("an entry")
    };
    let get = entry("Get");
    assert_eq!(get.bindings[0].request, Form::None);
    assert!(matches!(get.bindings[0].response, Form::Json(_)));
    assert!(matches!(get.rpc.request, Form::Json(_)));
    assert_eq!(entry("Scan").bindings[0].response, Form::Raw(None));
    let put = entry("Put");
    assert_eq!(put.bindings[0].request, Form::Raw(Some(3)));
    assert!(matches!(
        put.bindings[0].response,
        Form::Json(crate::translate::json::Target::Field { number: 2, .. })
    ));
}

#[test]
fn a_backend_without_a_schema_is_pending_and_stops_nothing() {
    let plan = plan(
        "\
routes:
  - {services: [\"*\"], backend: a}
  - {services: [\"chat.*\"], backend: c, hosts: [chat.example.com]}
",
    );
    assert_eq!(plan.entries.len(), 4);
    let [pending] = plan.pending.as_slice() else {
        panic!("{:?}", plan.pending)
    };
    assert_eq!(pending.backend, "c");
    assert_eq!(pending.reason, "it is down");
    assert_eq!(
        pending
            .patterns
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["chat.*"]
    );
    assert_eq!(pending.hosts.len(), 1);
}

#[test]
fn what_is_written_somewhere_above_holds_below() {
    let plan = plan(
        "\
limits: {request_timeout: 9s, max_message_bytes: 1MiB, max_headers: 7}
listeners: [{address: \"127.0.0.1:0\", limits: {max_headers: 8}}, {address: \"127.0.0.1:0\"}]
workers: 3
routes:
  - {services: [library.v1.Library], backend: a}
  - {services: [library.v1.Loans], backend: a, timeout: 2s, limits: {max_message_bytes: 1KiB}}
",
    );
    assert_eq!(plan.workers, 3);
    assert_eq!(
        plan.listeners
            .iter()
            .map(|listener| listener.limits.max_headers)
            .collect::<Vec<_>>(),
        [8, 7]
    );
    let route = |name: &str| {
        &plan
            .entries
            .iter()
            .find(|entry| &*entry.method.name == name)
            .expect("an entry")
            .route
    };
    assert_eq!(route("Get").unary_timeout.as_secs(), 9);
    assert_eq!(route("Get").bounds.max_message_bytes, 1 << 20);
    assert_eq!(route("Lend").unary_timeout.as_secs(), 2);
    assert_eq!(route("Lend").bounds.max_message_bytes, 1 << 10);
    assert_eq!(route("Get").name, "library.v1.Library");
}

#[test]
fn options_of_a_route_reach_its_bindings() {
    let plan = plan(
        "routes:\n  - {services: [\"*\"], backend: a, trailing_slash: ignore, query: {unknown: [trace]}}\n",
    );
    let path = "/v1/shelves/1/books/2/";
    let matched = plan.routes.find(None, &http::Method::GET, path).expect("a route");
    let entry = &plan.entries[matched.entry as usize];
    let read = |query| {
        let mut out = bytes::BytesMut::new();
        entry
            .bound(matched.binding)
            .binding
            .read(&entry.json, &matched.captures, Some(query), &mut out)
            .map(|_| ())
    };
    assert!(read("trace=1&deep=true").is_ok());
    assert!(read("tracing=1").is_err());
}
