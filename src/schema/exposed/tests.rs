//! What reflection tells, and what it must not.

use std::collections::BTreeMap;

use prost_types::FileDescriptorProto;

use super::*;
use crate::schema::files::{Header, ServiceHeader};
use crate::schema::{Rules, raw};

const LIBRARY: &str = "syntax = \"proto3\"; package library.v1;
import \"google/api/annotations.proto\"; import \"book.proto\"; import \"admin_types.proto\";
// The public half.
service Library {
  rpc Get(Book) returns (Book) { option (google.api.http) = { get: \"/v1/{name}\" }; }
  // Burns a book.
  rpc Burn(Book) returns (Book);
}
// The other half.
service Admin { rpc Reset(admin.Types) returns (admin.Types); }";
const BOOK: &str = "syntax = \"proto2\"; package library.v1;
message Book {
  optional string name = 1; extensions 100 to 200;
  message Page { enum Side { LEFT = 0; RIGHT = 1; } extend Book { optional int32 count = 101; } }
}
extend Book { optional string shelf = 100; }";
const ADMIN: &str = "syntax = \"proto3\"; package admin; message Types {}";
const SECRET: &str = "syntax = \"proto3\"; package secret; import \"secret_types.proto\";
service Secret { rpc Tell(Types) returns (Types); }";
const SECRET_TYPES: &str = "syntax = \"proto3\"; package secret; message Types {}";
const EVENTS: &str = "syntax = \"proto3\"; package events; message Burnt { string name = 1; }";

fn schema() -> Schema {
    let sources: BTreeMap<String, String> = [
        ("library.proto", LIBRARY),
        ("book.proto", BOOK),
        ("admin_types.proto", ADMIN),
        ("secret.proto", SECRET),
        ("secret_types.proto", SECRET_TYPES),
        ("events.proto", EVENTS),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    let entries: Vec<String> = sources.keys().cloned().collect();
    Schema::from_sources(&entries, &sources, &Rules::empty()).unwrap()
}

/// Exposes the methods with these paths.
fn exposed(schema: &Schema, paths: &[&str]) -> Exposed {
    let methods: Vec<_> = paths
        .iter()
        .map(|path| Arc::clone(schema.method(path).unwrap()))
        .collect();
    Exposed::new([(schema, methods.as_slice())])
}

fn ask(exposed: &Exposed, question: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest {
        host: "library.example.com".to_owned(),
        message_request: Some(question),
    };
    let response =
        ServerReflectionResponse::decode(exposed.answer(&request.encode_to_vec()).as_slice()).unwrap();
    assert_eq!(response.valid_host, "library.example.com");
    assert_eq!(response.original_request, Some(request));
    response.message_response.unwrap()
}

fn file(answer: MessageResponse) -> Result<FileDescriptorProto, i32> {
    match answer {
        MessageResponse::FileDescriptorResponse(files) => {
            assert_eq!(files.file_descriptor_proto.len(), 1);
            Ok(FileDescriptorProto::decode(files.file_descriptor_proto[0].as_slice()).unwrap())
        }
        MessageResponse::ErrorResponse(error) => Err(error.error_code),
        other => panic!("{other:?}"),
    }
}

fn by_symbol(exposed: &Exposed, name: &str) -> Result<FileDescriptorProto, i32> {
    file(ask(
        exposed,
        MessageRequest::FileContainingSymbol(name.to_owned()),
    ))
}

fn by_name(exposed: &Exposed, name: &str) -> Result<FileDescriptorProto, i32> {
    file(ask(exposed, MessageRequest::FileByFilename(name.to_owned())))
}

/// Services with their methods, as a file declares them.
fn declared(file: &FileDescriptorProto) -> Vec<(&str, Vec<&str>)> {
    file.service
        .iter()
        .map(|service| {
            (
                service.name(),
                service.method.iter().map(|method| method.name()).collect(),
            )
        })
        .collect()
}

#[test]
fn what_is_hidden_is_absent_from_lists_and_files() {
    let schema = schema();
    let exposed = exposed(&schema, &["/library.v1.Library/Get"]);
    let services: Vec<&str> = exposed.services().collect();
    assert_eq!(services, [HEALTH, SERVICES[0], SERVICES[1], "library.v1.Library"]);
    let MessageResponse::ListServicesResponse(list) =
        ask(&exposed, MessageRequest::ListServices(String::new()))
    else {
        panic!("no list");
    };
    assert_eq!(
        list.service
            .iter()
            .map(|service| service.name.as_str())
            .collect::<Vec<_>>(),
        services
    );
    let library = by_symbol(&exposed, "library.v1.Library").unwrap();
    assert_eq!(declared(&library), [("Library", vec!["Get"])]);
    assert_eq!(
        library.source_code_info, None,
        "a comment may speak of what is hidden"
    );
    assert_eq!(by_symbol(&exposed, "library.v1.Library.Get").unwrap(), library);
    assert_eq!(by_name(&exposed, "library.proto").unwrap(), library);
    for hidden in [
        "library.v1.Library.Burn",
        "library.v1.Admin",
        "library.v1.Admin.Reset",
        "secret.Secret",
        "secret.Types",
    ] {
        assert_eq!(by_symbol(&exposed, hidden), Err(5), "{hidden}");
    }
    for hidden in ["secret.proto", "secret_types.proto", "nothing.proto"] {
        assert_eq!(by_name(&exposed, hidden), Err(5), "{hidden}");
    }
}

#[test]
fn what_is_left_of_a_file_is_what_it_was() {
    let schema = schema();
    let library = schema
        .files
        .iter()
        .find(|file| Header::read(file).unwrap().name == "library.proto")
        .unwrap();
    let cut = exposed(&schema, &["/library.v1.Library/Get"]);
    let whole = exposed(
        &schema,
        &[
            "/library.v1.Library/Get",
            "/library.v1.Library/Burn",
            "/library.v1.Admin/Reset",
        ],
    );
    let bytes = |exposed: &Exposed| {
        let question = MessageRequest::FileByFilename("library.proto".to_owned());
        match ask(exposed, question) {
            MessageResponse::FileDescriptorResponse(mut files) => files.file_descriptor_proto.remove(0),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        bytes(&whole),
        library.as_ref(),
        "nothing is hidden, so nothing is touched"
    );
    let options = |file: &[u8]| {
        let service = raw::fields(file)
            .map(Result::unwrap)
            .find(|field| field.number == 6)
            .unwrap();
        ServiceHeader::read(service.value.bytes().unwrap())
            .unwrap()
            .methods
            .remove(0)
            .options
    };
    assert!(!options(library).is_empty());
    assert_eq!(
        options(&bytes(&cut)),
        options(library),
        "the HTTP rule, an extension, survives the cut"
    );
}

#[test]
fn fields_that_nobody_knows_survive_the_cut() {
    let mut method = Method::clone(&schema().methods[0]);
    (method.service, method.name) = ("p.S".into(), "A".into());
    let visible: Visible = [&Arc::new(method)].into_iter().collect();
    let method = |name: &str| {
        let mut method = Vec::new();
        raw::put_bytes(&mut method, 1, name.as_bytes());
        raw::put_bytes(&mut method, 4_000, b"unknown in a method");
        method
    };
    let mut service = Vec::new();
    raw::put_bytes(&mut service, 2, &method("A"));
    raw::put_bytes(&mut service, 4_001, b"unknown in a service");
    raw::put_bytes(&mut service, 1, b"S");
    let expected_service = service.clone();
    raw::put_bytes(&mut service, 2, &method("B"));
    let build = |service: &[u8]| {
        let mut file = Vec::new();
        raw::put_bytes(&mut file, 1, b"p.proto");
        raw::put_bytes(&mut file, 4_002, b"unknown in a file");
        raw::put_bytes(&mut file, 6, service);
        // The package after the services, and an edition.
        raw::put_bytes(&mut file, 2, b"p");
        file.extend([0x70, 0xe8, 0x07]);
        file
    };
    let file = Bytes::from(build(&service));
    let header = Header::read(&file).unwrap();
    assert_eq!(
        cut::hide(&header, &file, &visible).unwrap(),
        build(&expected_service)
    );
}

#[test]
fn symbols_of_every_kind_are_found() {
    let schema = schema();
    let exposed = exposed(&schema, &["/library.v1.Library/Get"]);
    let table = [
        ("library.v1.Book", "book.proto"),
        ("library.v1.Book.Page", "book.proto"),
        ("library.v1.Book.Page.Side", "book.proto"),
        ("library.v1.Book.Page.LEFT", "book.proto"),
        ("library.v1.Book.Page.count", "book.proto"),
        ("library.v1.shelf", "book.proto"),
        ("events.Burnt", "events.proto"),
        ("google.api.http", "google/api/annotations.proto"),
        ("google.rpc.ErrorInfo", "google/rpc/error_details.proto"),
        ("google.protobuf.Timestamp", "google/protobuf/timestamp.proto"),
        (
            "grpc.reflection.v1.ServerReflection",
            "grpc/reflection/v1/reflection.proto",
        ),
        (
            "grpc.reflection.v1alpha.ServerReflection",
            "grpc/reflection/v1alpha/reflection.proto",
        ),
    ];
    for (symbol, name) in table {
        assert_eq!(by_symbol(&exposed, symbol).unwrap().name(), name, "{symbol}");
        assert!(by_name(&exposed, name).is_ok(), "{name}");
    }
}

#[test]
fn every_import_of_a_served_file_is_served() {
    let schema = schema();
    for paths in [&["/library.v1.Library/Get"][..], &["/secret.Secret/Tell"], &[]] {
        let exposed = exposed(&schema, paths);
        for file in exposed.0.index.files() {
            let header = Header::read(file).unwrap();
            for import in &header.imports {
                assert!(
                    by_name(&exposed, import).is_ok(),
                    "{} imports {import}",
                    header.name
                );
            }
        }
    }
}

#[test]
fn extensions_are_found_by_number() {
    let schema = schema();
    let exposed = exposed(&schema, &["/library.v1.Library/Get"]);
    let numbers = |name: &str| match ask(
        &exposed,
        MessageRequest::AllExtensionNumbersOfType(name.to_owned()),
    ) {
        MessageResponse::AllExtensionNumbersResponse(response) => {
            assert_eq!(response.base_type_name, name);
            Ok(response.extension_number)
        }
        MessageResponse::ErrorResponse(error) => Err(error.error_code),
        other => panic!("{other:?}"),
    };
    assert_eq!(numbers("library.v1.Book"), Ok(vec![100, 101]));
    assert_eq!(
        numbers("google.protobuf.MethodOptions"),
        Ok(vec![1051, 77_410, 72_295_728])
    );
    assert_eq!(numbers("library.v1.Book.Page"), Ok(vec![]));
    assert_eq!(numbers("library.v1.Nothing"), Err(5));
    let extension = |containing_type: &str, extension_number| {
        let containing_type = containing_type.to_owned();
        file(ask(
            &exposed,
            MessageRequest::FileContainingExtension(ExtensionRequest {
                containing_type,
                extension_number,
            }),
        ))
    };
    assert_eq!(extension("library.v1.Book", 101).unwrap().name(), "book.proto");
    assert_eq!(extension("library.v1.Book", 102), Err(5));
    assert_eq!(
        extension("google.protobuf.MethodOptions", 72_295_728)
            .unwrap()
            .name(),
        "google/api/annotations.proto"
    );
}

#[test]
fn a_request_that_asks_nothing_is_refused() {
    let exposed = Exposed::default();
    for request in [&b""[..], b"\x0a\x05", b"\xff"] {
        let response = ServerReflectionResponse::decode(exposed.answer(request).as_slice()).unwrap();
        let Some(MessageResponse::ErrorResponse(error)) = response.message_response else {
            panic!("{request:?}");
        };
        assert_eq!(error.error_code, 3);
    }
    assert_eq!(
        exposed.services().collect::<Vec<_>>(),
        [HEALTH, SERVICES[0], SERVICES[1]]
    );
    assert!(by_symbol(&exposed, SERVICES[0]).is_ok());
}

#[test]
fn a_file_of_two_schemas_shows_what_either_exposes() {
    let (one, two) = (schema(), schema());
    let first = [Arc::clone(one.method("/library.v1.Library/Get").unwrap())];
    let second = [Arc::clone(two.method("/library.v1.Admin/Reset").unwrap())];
    let both = Exposed::new([(&one, &first[..]), (&two, &second[..])]);
    let file = by_name(&both, "library.proto").unwrap();
    assert_eq!(
        declared(&file),
        [("Library", vec!["Get"]), ("Admin", vec!["Reset"])]
    );
    assert_eq!(both.conflicts().count(), 0);
}

/// A schema of one file.
fn single(name: &str, text: &str) -> Schema {
    let sources = BTreeMap::from([(name.to_owned(), format!("syntax = \"proto3\"; {text}"))]);
    Schema::from_sources(&[name.to_owned()], &sources, &Rules::empty()).unwrap()
}

const OTHER: &str = "package other; message Book {} service Other { rpc R(Book) returns (Book); }";

/// All methods of two schemas.
fn both(one: &Schema, two: &Schema) -> Exposed {
    let both = Exposed::new([(one, &one.methods[..]), (two, &two.methods[..])]);
    pool(&both);
    both
}

/// The served files are sound and fit together.
fn pool(exposed: &Exposed) -> prost_reflect::DescriptorPool {
    let file = exposed
        .0
        .index
        .files()
        .map(|file| FileDescriptorProto::decode(file.clone()).unwrap())
        .collect();
    prost_reflect::DescriptorPool::from_file_descriptor_set(prost_types::FileDescriptorSet { file }).unwrap()
}

#[test]
fn a_name_that_two_files_have_is_given_to_the_first() {
    let (one, two) = (schema(), single("book.proto", OTHER));
    let both = both(&one, &two);
    assert_eq!(both.conflicts().count(), 0);
    assert_eq!(by_name(&both, "book.proto").unwrap().package(), "library.v1");
    let other = by_symbol(&both, "other.Other").unwrap();
    assert_eq!((other.name(), other.package()), ("book.2.proto", "other"));
    assert_eq!(by_name(&both, "book.2.proto").unwrap(), other);
}

#[test]
fn importers_follow_a_file_to_its_new_name() {
    let sources: BTreeMap<String, String> = [
        ("book.proto", format!("syntax = \"proto3\"; {OTHER}")),
        (
            "shop.proto",
            "syntax = \"proto3\"; package shop; import \"book.proto\";
             service Shop { rpc Buy(other.Book) returns (other.Book); }"
                .to_owned(),
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into();
    let entries: Vec<String> = sources.keys().cloned().collect();
    let two = Schema::from_sources(&entries, &sources, &Rules::empty()).unwrap();
    let both = both(&schema(), &two);
    assert_eq!(both.conflicts().count(), 0);
    assert_eq!(
        by_symbol(&both, "shop.Shop").unwrap().dependency,
        ["book.2.proto"]
    );
}

#[test]
fn one_file_under_two_names_is_served_once() {
    let one = single("book.proto", OTHER);
    let sources: BTreeMap<String, String> = [
        ("deep/book.proto", format!("syntax = \"proto3\"; {OTHER}")),
        (
            "shop.proto",
            "syntax = \"proto3\"; package shop; import \"deep/book.proto\";
             service Shop { rpc Buy(other.Book) returns (other.Book); }"
                .to_owned(),
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text))
    .into();
    let entries: Vec<String> = sources.keys().cloned().collect();
    let two = Schema::from_sources(&entries, &sources, &Rules::empty()).unwrap();
    let both = both(&one, &two);
    assert_eq!(both.conflicts().count(), 0);
    assert_eq!(by_symbol(&both, "shop.Shop").unwrap().dependency, ["book.proto"]);
    assert_eq!(by_name(&both, "deep/book.proto"), Err(5));
}

#[test]
fn types_of_one_name_that_differ_are_told() {
    let one = single("book.proto", OTHER);
    let two = single(
        "book.proto",
        &OTHER.replace("Book {}", "Book { string title = 1; }"),
    );
    let both = both(&one, &two);
    assert_eq!(both.conflicts().collect::<Vec<_>>(), ["book.proto"]);
    assert_eq!(
        by_symbol(&both, "other.Book").unwrap().message_type[0]
            .field
            .len(),
        0
    );
}

#[test]
fn the_served_files_make_a_schema() {
    let schema = schema();
    let exposed = exposed(&schema, &["/library.v1.Library/Get"]);
    let methods: Vec<String> = pool(&exposed)
        .services()
        .filter(|service| service.full_name().starts_with("library"))
        .flat_map(|service| {
            service
                .methods()
                .map(|method| method.full_name().to_owned())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(methods, ["library.v1.Library.Get"]);
}
