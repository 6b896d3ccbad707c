//! The errors of a configuration, as an operator reads them, and the files that are right.

use std::path::Path;

use super::*;

/// Every error of a file, one after the other.
fn errors(text: &str) -> String {
    match from_text("sabir.yaml", Path::new("/nowhere"), text) {
        Ok(_) => String::new(),
        Err(found) => found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

#[track_caller]
fn right(text: &str) -> File {
    match from_text("sabir.yaml", Path::new("/etc/sabir"), text) {
        Ok(file) => file,
        Err(found) => panic!(
            "{}",
            found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        ),
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    insta::assert_snapshot!(errors(
        "\
listeners:
  - adress: 0.0.0.0:8080
  - address: localhost:8081
    limits: {header_timeout: 10, max_message_bytes: 4MB}
    trusted_proxies: [10.0.0.0/33]
backends:
  library:
    protocol: rest
    endpoints: [127.0.0.1:50051, \"ftp://127.0.0.1\"]
    load_balancing: least_requests
    health_check: {}
routes:
  - services: [\"*\"]
    backend: library
  - services: library.v1.*
    backend: libary
  - services: [\"library.v1.*\", \"library/v1\"]
    backend: libary
    auth: members
    json: {proto_names: yes}
"
    ));
}

#[test]
fn limits_that_make_no_sense_are_told() {
    insta::assert_snapshot!(errors(
        "\
backends:
  library: {endpoints: [\"http://127.0.0.1:50051\"]}
  site: {protocol: rest, endpoints: [\"http://127.0.0.1:9000\"]}
routes:
  - {services: [\"*\"], backend: library, rate_limit: per_membr}
  - {services: [\"a.*\"], backend: library, rate_limit: [per_member, other, per_member]}
  - {services: [\"b.*\"], backend: library, rate_limit: []}
  - {path: /site/**, backend: site, rate_limit: by_field, max_in_flight: 0}
rate_limits:
  per_member: {rate: 100/s, burst: 10, weights: {\"library.v1.Library/List\": 11, library: 1}}
  by_field: {rate: 1/m, key: {message_field: a..b}}
  two: {rate: 1/s, quota: 10/day}
  none: {key: address}
  wrong: {rate: 100, key: [principal, global]}
  windows: {quota: 10/week}
  slots: {in_flight: 3, burst: 2, key: {message_field: name}, weights: {\"*\": 2}}
  \"a b\": {rate: 5/10s, key: {header: x-sabir-principal}}
  key: {rate: 1/s, key: who}
  keys: {rate: 1/s, key: {header: a, claim: b}}
  empty: {rate: 0/s, key: []}
"
    ));
}

#[test]
fn fallbacks_are_checked_as_a_whole() {
    insta::assert_snapshot!(errors(
        "\
backends:
  a: {endpoints: [\"http://127.0.0.1:1\"], fallback: b}
  b: {endpoints: [\"http://127.0.0.1:1\"], fallback: {backend: b, page: {body: x}}}
  c: {endpoints: [\"http://127.0.0.1:1\"], fallback: {}}
  d: {endpoints: [\"http://127.0.0.1:1\"], fallback: {answers: [{methods: []}, {methods: [a]}]}}
  e: {protocol: rest, endpoints: [\"http://127.0.0.1:1\"], fallback: {answers: [{methods: [\"*\"]}], backend: a}}
  f: {protocol: rest, endpoints: [\"http://127.0.0.1:1\"], fallback: {page: {status: 199, content_type: \"a\\nb\"}}}
  g: {endpoints: [\"http://127.0.0.1:1\"], fallback: aa}
"
    ));
}

#[test]
fn a_reference_says_what_was_probably_meant() {
    insta::assert_snapshot!(errors(
        "\
backends:
  library: {endpoints: [\"http://127.0.0.1:50051\"]}
  accounts: {endpoints: [\"http://127.0.0.1:50052\"]}
routes:
  - {services: [\"*\"], backend: libary}
  - {services: [\"a.*\"], backend: something}
"
    ));
}

#[test]
fn a_backend_that_is_wrong_can_be_referred_to() {
    insta::assert_snapshot!(errors(
        "\
backends:
  library: {endpoints: 7}
routes:
  - {services: [\"*\"], backend: library}
"
    ));
}

#[test]
fn a_missing_key_is_said_where_its_block_begins() {
    insta::assert_snapshot!(errors(
        "\
listeners:
  - trusted_proxies: []
backends:
  library: {protocol: grpc}
routes:
  - backend: library
"
    ));
}

#[test]
fn a_duplicate_key_is_an_error() {
    insta::assert_snapshot!(errors(
        "\
workers: 1
backends:
  a: {endpoints: [\"http://127.0.0.1:1\"]}
  a: {endpoints: [\"http://127.0.0.1:2\"]}
workers: 2
"
    ));
}

#[test]
fn keys_that_need_each_other() {
    insta::assert_snapshot!(errors(
        "\
listeners:
  - {address: \"127.0.0.1:8443\", tls: {certificate: a.pem}}
  - {address: \"127.0.0.1:8444\", tls: {key: a.key}}
  - {address: \"127.0.0.1:8445\", tls: {client_ca: ca.pem}}
  - {address: \"127.0.0.1:9901\"}
backends:
  a: {endpoints: [], tls: {ca: ca.pem}}
  b: {endpoints: [\"http://127.0.0.1:1\", \"http://127.0.0.1:1\"], tls: {certificate: a.pem, server_name: \"a b\"}}
  c: {endpoints: [\"http://127.0.0.1:1\"], schema: {protos: [a.proto], descriptors: a.binpb}}
  d: {endpoints: [\"http://127.0.0.1:1\"], schema: {proto_paths: [protos]}}
  e: {endpoints: [\"http://127.0.0.1:1\"], schema: reflect}
  f: {endpoints: [\"http://127.0.0.1:1\"], schema: {proto: [a.proto]}}
routes:
  - {services: [], backend: a, query: {unknown: refuse}}
"
    ));
}

#[test]
fn what_is_not_yaml_is_one_error() {
    insta::assert_snapshot!(
        [
            "listeners: [",
            "listeners:\n  - a: b\n c: d\n",
            "a: b\n---\na: b\n",
            "a: !secret b\n",
            "base: &base {a: b}\nother: {<<: *base}\n",
            "a: &a [*a]\n",
            "? [a]\n: b\n",
            "just text\n",
            "- a\n",
        ]
        .map(errors)
        .join("\n")
    );
}

#[test]
fn what_comes_from_outside_is_never_shown() {
    // PATH is set wherever a test runs, and is no address.
    let found = errors("listeners:\n  - address: ${PATH}\n  - address: ${SABIR_TEST_UNSET}\n");
    insta::assert_snapshot!(found);
    assert!(!found.contains("/bin"), "{found}");
}

#[test]
fn what_is_absent_is_the_default() {
    let file = right("");
    let addresses: Vec<_> = file.listeners.iter().map(|listener| listener.address.0).collect();
    assert_eq!(addresses, [file::DEFAULT_LISTEN]);
    assert_eq!(file.admin.address.0, file::DEFAULT_ADMIN);
    assert_eq!(file.limits.over(&Limits::default()), Limits::default());
    let file = right("limits:\nadmin:\nroutes:\nbackends: {a: {endpoints: [\"http://h\"], schema: }}\n");
    assert_eq!(file.backends["a"].source(), Some(&file::SchemaSource::Reflection));
}

#[test]
fn an_alias_is_a_copy() {
    let file = right(
        "\
backends:
  a: {endpoints: &endpoints [\"http://127.0.0.1:1\"], timeout: &timeout {connect: 2s}}
  b: {endpoints: *endpoints, timeout: *timeout}
",
    );
    assert_eq!(file.backends["a"], file.backends["b"]);
}

#[test]
fn aliases_of_aliases_are_bounded() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let before = level - 1;
        let list = vec![format!("*a{before}"); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert!(
        errors(&text).contains("more than 200000 values"),
        "{}",
        errors(&text)
    );
    let mut text = "a0: &a0 [x]\n".to_owned();
    for level in 1..100 {
        text.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(errors(&text).contains("deeper than 64"), "{}", errors(&text));
}

#[test]
fn the_command_line_can_say_how_many_workers() {
    let mut source = Source::flags(Flags {
        backend: "http://127.0.0.1:50051".parse().expect("an endpoint"),
        protos: Vec::new(),
        proto_paths: Vec::new(),
        descriptors: None,
        listen: None,
        admin: None,
    });
    source.workers = Some(value::Count(3));
    let file = load(&source).expect("a file");
    assert_eq!(file.workers, Some(value::Count(3)));
    assert_eq!(file.routes.len(), 1);
}

#[test]
fn a_gateway_without_a_file_is_one_with_this_file() {
    let flags = load(&Source::flags(Flags {
        backend: "http://127.0.0.1:50051".parse().expect("an endpoint"),
        protos: vec!["a.proto".into()],
        proto_paths: vec!["protos".into()],
        descriptors: None,
        listen: Some("127.0.0.1:1".parse().expect("an address")),
        admin: Some("127.0.0.1:2".parse().expect("an address")),
    }))
    .expect("a file");
    let written = right(
        "\
listeners: [{address: \"127.0.0.1:1\"}]
admin: {address: \"127.0.0.1:2\"}
backends:
  backend: {endpoints: [\"http://127.0.0.1:50051\"], schema: {protos: [a.proto], proto_paths: [protos]}}
routes: [{services: [\"*\"], backend: backend}]
",
    );
    assert_eq!(flags.listeners, written.listeners);
    assert_eq!(flags.admin, written.admin);
    assert_eq!(flags.backends, written.backends);
    assert_eq!(flags.routes, written.routes);
}

fn examples() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder)
        .expect("the examples")
        .map(|file| file.expect("a file").path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect()
}

#[test]
fn every_example_is_right() {
    let examples = examples();
    assert!(examples.len() >= 4, "{examples:?}");
    for path in examples {
        let file = load(&Source::file(&path));
        let plan = file.and_then(|file| check(&file));
        let plan = plan
            .unwrap_or_else(|found| panic!("{}", found.iter().map(ToString::to_string).collect::<String>()));
        assert_eq!(plan.disabled, [], "{}", path.display());
        assert_eq!(plan.warnings, [], "{}", path.display());
    }
}

#[test]
fn the_schema_beside_the_examples_is_the_one_of_this_version() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/sabir.schema.json");
    let committed = std::fs::read_to_string(path).expect("the schema");
    assert!(
        committed == json_schema(),
        "write it anew: sabir config schema > examples/sabir.schema.json"
    );
}

#[test]
fn cors_is_checked_as_a_whole() {
    insta::assert_snapshot!(errors(
        "\
backends:
  library: {endpoints: [\"http://127.0.0.1:1\"]}
routes:
  - services: [a.A]
    backend: library
    cors: {origins: []}
  - services: [a.B]
    backend: library
    cors: {origins: [app.example.com, \"https://*.example.com\", \"https://a.example.com/path\"], methods: [get]}
  - services: [a.C]
    backend: library
    cors: {origins: [\"*\"], headers: [\"*\", \"a b\"], expose: [\"*\"], credentials: true}
  - services: [a.D]
    backend: library
    cors: {credentials: true}
"
    ));
}

#[test]
fn origins_are_kept_as_browsers_write_them() {
    let file = right(
        "\
backends:
  library: {endpoints: [\"http://127.0.0.1:1\"]}
routes:
  - services: [a.A]
    backend: library
    cors: {origins: [\"HTTPS://App.example.com:443\", \"http://localhost:3000\", \"http://[::1]:80\"]}
",
    );
    let cors = file.routes[0].cors.as_ref().expect("cors");
    let origins: Vec<_> = cors
        .origins
        .iter()
        .map(|origin| format!("{:?}", origin.value))
        .collect();
    assert_eq!(
        origins,
        [
            "One(\"https://app.example.com\")",
            "One(\"http://localhost:3000\")",
            "One(\"http://[::1]\")"
        ]
    );
}

#[test]
fn files_that_are_missing_are_errors_at_their_place() {
    let text = "\
listeners:
  - {address: \"127.0.0.1:8443\", tls: {certificate: none.pem, key: none.key}}
backends:
  a: {endpoints: [\"https://127.0.0.1:1\"], tls: {ca: none.pem}}
  b: {endpoints: [\"http://127.0.0.1:1\"], schema: {descriptors: none.binpb}, rules: [none.yaml, none.json]}
  c: {endpoints: [\"http://127.0.0.1:1\"], schema: {protos: [none.proto], proto_paths: [none]}}
";
    let file = from_text("sabir.yaml", Path::new("/nowhere"), text).expect("a file");
    let found = check(&file).expect_err("nothing is there");
    insta::assert_snapshot!(
        found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    );
}

/// Whatever is in a file, reading it ends with a file or with errors.
#[test]
fn no_text_makes_reading_panic() {
    let seed = include_str!("../../examples/protos.yaml");
    let letters: Vec<char> = "{}[]:,-\"'#&*!|>%@`?~ \n\t$abc019.é".chars().collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).expect("small")
    };
    for _ in 0..2000 {
        let mut text: Vec<char> = seed.chars().collect();
        for _ in 0..=roll(8) {
            let at = roll(text.len());
            match roll(3) {
                0 => text[at] = letters[roll(letters.len())],
                1 => text.insert(at, letters[roll(letters.len())]),
                _ => drop(text.drain(at..(at + roll(9)).min(text.len()))),
            }
        }
        let text: String = text.into_iter().collect();
        if let Err(found) = from_text("sabir.yaml", Path::new("/nowhere"), &text) {
            assert!(!found.is_empty());
            found
                .iter()
                .for_each(|found| assert!(!found.to_string().is_empty()));
        }
    }
}

#[test]
fn auth_is_checked_as_a_whole() {
    insta::assert_snapshot!(errors(
        "\
backends:
  library: {endpoints: [\"http://127.0.0.1:1\"]}
routes:
  - {services: [a.A], backend: library, auth: member}
  - {services: [a.B], backend: library, authorize: [{scopes: [x]}]}
  - {services: [a.C], backend: library, auth: members, authorize: []}
  - {path: /x, backend: library, auth: members, authorize: [{methods: [\"*\"]}]}
  - {services: [a.D], backend: library, auth: members, authorize: [{methods: [\"a.D.Get\"]}, {scopes: read}]}
auth:
  members:
    jwt:
      - {issuer: peers, audiences: [x]}
      - {issuer: \"https://id.example.com/\", audiences: []}
      - {issuer: \"https://id.example.com/\", audiences: [x], algorithms: [HS256]}
      - {issuer: a, audiences: [x], secret: short}
      - {issuer: b, audiences: [x], secret: 0123456789012345678901234567890123456789, jwks: {file: x.json}}
      - {issuer: c, audiences: [x], secret: 0123456789012345678901234567890123456789, algorithms: [RS256]}
      - {issuer: d, audiences: [x], jwks: {}}
      - {issuer: e, audiences: [x], jwks: {file: x.json, url: \"https://x/y\"}}
      - {issuer: f, audiences: [x], jwks: {url: \"ftp://x/y\"}, algorithms: [RS265]}
      - {issuer: g}
    api_keys: {file: keys.yaml, header: x-sabir-key}
    forward_claims: [\"https://example.com/tenant\"]
  nothing: {}
"
    ));
}

#[test]
fn what_sheds_load_is_checked_as_a_whole() {
    insta::assert_snapshot!(errors(
        "\
load_shedding: {queue_time: 4ms, sustained: 0s}
backends:
  library: {endpoints: [\"http://127.0.0.1:1\"], adaptive_concurrency: {max: 0, buffer_percent: 101, measure_interval: 9s}}
routes:
  - {services: [a.A], backend: library, priority: lowest}
"
    ));
}

#[test]
fn what_is_revoked_is_somewhere() {
    insta::assert_snapshot!(errors(
        "\
backends:
  library: {endpoints: [\"http://127.0.0.1:1\"]}
routes:
  - {services: [a.A], backend: library, auth: none}
auth:
  none: {client_certificates: {}, revocation: {file: x}}
  nowhere: {jwt: {issuer: \"https://a\", audiences: [x]}, revocation: {}}
  unshared: {jwt: {issuer: \"https://a\", audiences: [x]}, revocation: {redis: true}}
  unasked: {jwt: {issuer: \"https://a\", audiences: [x]}, revocation: {file: x, on_loss: closed}}
  odd: {jwt: {issuer: \"https://a\", audiences: [x]}, revocation: {file: x, redis: perhaps, on_loss: open}}
"
    ));
}

#[test]
fn what_keeps_requests_out_is_checked_as_a_whole() {
    insta::assert_snapshot!(errors(
        "\
listeners:
  - {address: \"127.0.0.1:8080\", addresses: {deny: [10.0.0.0/33]}, block: [{}]}
backends:
  library: {endpoints: [\"http://127.0.0.1:1\"]}
routes:
  - {services: [a.A], backend: library, block: [{path: \"(\"}, {headers: {\"x y\": a}}, {user_agent: a, methods: [GET]}]}
  - {path: /x, backend: library, errors: {debug_info: true}}
reflection: {auth: member, services: [\"a.b.\"]}
auth:
  members: {client_certificates: {}}
"
    ));
}

#[cfg(feature = "cel")]
#[test]
fn conditions_are_checked_where_they_stand() {
    insta::assert_snapshot!(errors(
        "\
backends:
  library: {endpoints: [\"http://127.0.0.1:1\"]}
routes:
  - services: [a.A]
    backend: library
    auth: members
    authorize: [{when: \"request.path ==\"}, {when: \"path == '/x'\"}, {when: \"request.path.matches(request.query)\"}, {when: 7}]
  - {path: /x, backend: library, auth: members, authorize: [{when: \"message.name == 'x'\"}]}
auth:
  members: {client_certificates: {}}
"
    ));
}

#[test]
fn services_that_are_asked_who_calls_are_checked_as_a_whole() {
    insta::assert_snapshot!(errors(
        "\
backends:
  library: {endpoints: [\"http://127.0.0.1:1\"]}
routes:
  - {services: [a.A], backend: library, auth: outside, authorize: [{scopes: [x]}]}
auth:
  outside:
    ext_authz: {http: \"http://127.0.0.1:1/\", upstream_headers: [x-sabir-user, content-type], cache: {ttl: 10ms}}
    tickets: {path: tickets}
  both:
    ext_authz: {http: \"http://127.0.0.1:1/\", grpc: \"http://127.0.0.1:1\", on_failure: maybe}
  neither:
    ext_authz: {timeout: 1s, principal_header: \"x user\", cache: {ttl: 1h}}
    tickets: {path: /a/../b, ttl: 1h}
  opaque:
    introspection: {url: \"127.0.0.1/introspect\", client_id: a, client_secret: b, cache: 61s}
    tickets: {path: /tickets}
  basic:
    basic: {}
    tickets: {path: /tickets, ttl: 1ms}
"
    ));
}
