use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

use super::*;

const LIBRARY: &str = r#"
    syntax = "proto3";
    package library.v1;

    import "google/api/annotations.proto";
    import "google/protobuf/empty.proto";
    import "library/v1/book.proto";

    service Library {
      rpc GetBook(GetBookRequest) returns (Book) {
        option (google.api.http) = {
          get: "/v1/{name=shelves/*/books/*}"
          additional_bindings { get: "/v1/books/{name}" }
          additional_bindings { custom { kind: "HEAD" path: "/v1/heads/{name}" } response_body: "title" }
        };
        option idempotency_level = NO_SIDE_EFFECTS;
      }
      rpc CreateBook(Book) returns (Book) {
        option (google.api.http) = { post: "/v1/books" body: "*" };
      }
      rpc Watch(google.protobuf.Empty) returns (stream Book);
      rpc Upload(stream Book) returns (google.protobuf.Empty);
      rpc Chat(stream Book) returns (stream Book);
    }

    message GetBookRequest { string name = 1; }
"#;

const BOOK: &str = r#"
    syntax = "proto3";
    package library.v1;
    message Book { string name = 1; string title = 2; map<string, string> labels = 3; }
    service Shelf { rpc Look(Book) returns (Book); }
"#;

fn sources() -> BTreeMap<String, String> {
    [
        ("library/v1/library.proto", LIBRARY),
        ("library/v1/book.proto", BOOK),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into()
}

fn library() -> Schema {
    Schema::from_sources(
        &["library/v1/library.proto".to_owned()],
        &sources(),
        &Rules::empty(),
    )
    .unwrap()
}

fn paths(schema: &Schema) -> Vec<&str> {
    schema.methods.iter().map(|method| method.path.as_ref()).collect()
}

fn templates(schema: &Schema, path: &str) -> Vec<String> {
    schema
        .method(path)
        .unwrap()
        .rules
        .iter()
        .map(|rule| rule.template.clone())
        .collect()
}

/// The file of this name as the schema holds it.
fn file<'a>(schema: &'a Schema, name: &str) -> &'a Bytes {
    schema
        .files
        .iter()
        .find(|file| files::Header::read(file).unwrap().name == name)
        .unwrap()
}

fn encoded(file: &FileDescriptorProto) -> Bytes {
    file.encode_to_vec().into()
}

#[test]
fn methods_know_what_their_descriptor_says() {
    let schema = library();
    assert_eq!(
        paths(&schema),
        [
            "/library.v1.Library/Chat",
            "/library.v1.Library/CreateBook",
            "/library.v1.Library/GetBook",
            "/library.v1.Library/Upload",
            "/library.v1.Library/Watch",
        ]
    );
    let kinds: Vec<_> = schema.methods.iter().map(|method| method.kind).collect();
    use MethodKind::{Bidi, ClientStream, ServerStream, Unary};
    assert_eq!(kinds, [Bidi, Unary, Unary, ClientStream, ServerStream]);
    let method = schema.method("/library.v1.Library/GetBook").unwrap();
    assert_eq!(method.full_name(), "library.v1.Library.GetBook");
    assert_eq!(method.idempotency, Idempotency::NoSideEffects);
    assert_eq!(method.input.full_name(), "library.v1.GetBookRequest");
    assert_eq!(method.output.full_name(), "library.v1.Book");
    assert_eq!(
        schema
            .method("/library.v1.Library/CreateBook")
            .unwrap()
            .idempotency,
        Idempotency::Unknown
    );
    assert!(schema.method("/library.v1.Library/Nothing").is_none());
    assert_eq!(schema.warnings, []);
}

#[test]
fn additional_bindings_are_rules_of_their_own() {
    let schema = library();
    let rules = &schema.method("/library.v1.Library/GetBook").unwrap().rules;
    let got: Vec<_> = rules
        .iter()
        .map(|rule| (&rule.method, rule.template.as_str(), rule.response_body.as_str()))
        .collect();
    assert_eq!(
        got,
        [
            (
                &HttpMethod::Exact(http::Method::GET),
                "/v1/{name=shelves/*/books/*}",
                ""
            ),
            (&HttpMethod::Exact(http::Method::GET), "/v1/books/{name}", ""),
            (
                &HttpMethod::Exact(http::Method::HEAD),
                "/v1/heads/{name}",
                "title"
            ),
        ]
    );
    assert_eq!(
        schema.method("/library.v1.Library/CreateBook").unwrap().rules[0].body,
        "*"
    );
}
