//! Schemas from sets, sources and what servers tell; malformed ones too.

use prost::Message as _;
use prost_types::FileDescriptorProto;

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

/// The schema's own files without those that the gateway brings along.
fn own_files() -> Vec<FileDescriptorProto> {
    let schema = library();
    ["library/v1/library.proto", "library/v1/book.proto"]
        .map(|name| FileDescriptorProto::decode(file(&schema, name).clone()).unwrap())
        .into()
}

/// A file that declares one message with a field of type `wants`, which `import` is to declare.
fn wanting(name: &str, import: &str, wants: &str) -> Bytes {
    let field = prost_types::FieldDescriptorProto {
        name: Some("field".to_owned()),
        number: Some(1),
        label: Some(1),
        r#type: Some(11),
        type_name: Some(wants.to_owned()),
        ..Default::default()
    };
    encoded(&FileDescriptorProto {
        name: Some(name.to_owned()),
        dependency: vec![import.to_owned()],
        message_type: vec![prost_types::DescriptorProto {
            name: Some(format!("M{}", name.len())),
            field: vec![field],
            ..Default::default()
        }],
        ..Default::default()
    })
}

#[test]
fn order_and_duplicates_change_nothing() {
    let schema = library();
    let mut files = schema.files.clone();
    files.reverse();
    files.extend(schema.files.iter().cloned());
    let again = Schema::from_files(files, &Rules::empty()).unwrap();
    assert_eq!(
        paths(&again).len(),
        5 + 1 + 2 + 1,
        "the given files' services: Library, Health and Shelf"
    );
    let names = |schema: &Schema| -> Vec<String> {
        schema
            .files
            .iter()
            .map(|file| files::Header::read(file).unwrap().name)
            .collect()
    };
    for (at, file) in again.files.iter().enumerate() {
        for import in files::Header::read(file).unwrap().imports {
            assert!(names(&again)[..at].contains(&import), "{import}");
        }
    }
}

#[test]
fn imports_that_the_gateway_knows_are_completed() {
    let files = own_files().iter().map(encoded).collect();
    let schema = Schema::from_files(files, &Rules::empty()).unwrap();
    assert_eq!(
        templates(&schema, "/library.v1.Library/CreateBook"),
        Vec::<String>::new(),
        "prost drops extensions"
    );
    assert!(
        schema
            .pool
            .get_file_by_name("google/api/annotations.proto")
            .is_some()
    );
    assert!(
        schema.pool.get_message_by_name("google.rpc.ErrorInfo").is_some(),
        "no method mentions it"
    );
    let services: HashSet<&str> = schema.methods.iter().map(|method| &*method.service).collect();
    assert_eq!(
        services,
        HashSet::from(["library.v1.Library", "library.v1.Shelf"])
    );
    assert_eq!(schema.warnings, []);
}

#[test]
fn a_descriptor_set_needs_no_imports_that_the_gateway_knows() {
    let set: Vec<u8> = ["library/v1/library.proto", "library/v1/book.proto"]
        .iter()
        .flat_map(|name| {
            let mut field = Vec::new();
            raw::put_bytes(&mut field, 1, file(&library(), name));
            field
        })
        .collect();
    let schema = Schema::from_descriptor_set(&set, &Rules::empty()).unwrap();
    assert_eq!(templates(&schema, "/library.v1.Library/GetBook").len(), 3);
    assert_eq!(
        schema.method("/library.v1.Library/GetBook").unwrap().rules,
        library().method("/library.v1.Library/GetBook").unwrap().rules
    );
}

#[test]
fn a_missing_import_is_named_with_the_file_that_wants_it() {
    let files = vec![wanting("a.proto", "b.proto", ".B")];
    let error = Schema::from_files(files, &Rules::empty()).unwrap_err();
    assert_eq!(
        error,
        SchemaError::MissingImport {
            import: "b.proto".to_owned(),
            wanted_by: "a.proto".to_owned()
        }
    );
    assert_eq!(
        error.to_string(),
        "a.proto: import \"b.proto\" is not among the files"
    );
}

#[test]
fn of_several_missing_imports_the_one_that_is_needed_is_named() {
    let unneeded = encoded(&FileDescriptorProto {
        name: Some("a.proto".to_owned()),
        dependency: vec!["options.proto".to_owned()],
        ..Default::default()
    });
    let files = vec![unneeded, wanting("bb.proto", "c.proto", ".C")];
    let error = Schema::from_files(files, &Rules::empty()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bb.proto: import \"c.proto\" is not among the files"
    );
}

#[test]
fn a_missing_import_that_nothing_needs_is_a_warning() {
    let mut files = own_files();
    files[0].dependency.push("gogoproto/gogo.proto".to_owned());
    let schema = Schema::from_files(files.iter().map(encoded).collect(), &Rules::empty()).unwrap();
    assert_eq!(
        schema.warnings,
        [Warning::Import {
            import: "gogoproto/gogo.proto".to_owned(),
            wanted_by: "library/v1/library.proto".to_owned()
        }]
    );
    assert!(schema.method("/library.v1.Library/GetBook").is_some());
}

#[test]
fn two_files_of_one_name_must_say_the_same() {
    let mut files: Vec<Bytes> = own_files().iter().map(encoded).collect();
    let mut other = own_files()[1].clone();
    other.source_code_info = None;
    files.push(encoded(&other));
    assert!(
        Schema::from_files(files.clone(), &Rules::empty()).is_ok(),
        "only comments differ"
    );
    other.message_type.clear();
    files.push(encoded(&other));
    let error = Schema::from_files(files, &Rules::empty()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "library/v1/book.proto: two different descriptors have this name"
    );
}

#[test]
fn a_symbol_that_two_files_declare_is_an_error() {
    let mut files = own_files();
    let mut copy = files[1].clone();
    copy.name = Some("copy.proto".to_owned());
    files.push(copy);
    let error = Schema::from_files(files.iter().map(encoded).collect(), &Rules::empty())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("library.v1.Book") || error.contains("library.v1.Shelf"),
        "{error}"
    );
    assert!(error.contains(".proto: "), "{error}");
}

#[test]
fn embedded_files_yield_to_the_backends_own() {
    let error_info = prost_types::DescriptorProto {
        name: Some("ErrorInfo".to_owned()),
        ..Default::default()
    };
    let own = FileDescriptorProto {
        name: Some("vendored/error_details.proto".to_owned()),
        package: Some("google.rpc".to_owned()),
        message_type: vec![error_info],
        ..Default::default()
    };
    let schema = Schema::from_files(vec![encoded(&own)], &Rules::empty()).unwrap();
    assert!(
        schema
            .pool
            .get_file_by_name("google/rpc/error_details.proto")
            .is_none()
    );
    assert!(schema.pool.get_file_by_name("google/rpc/status.proto").is_some());
    let found = schema.pool.get_message_by_name("google.rpc.ErrorInfo").unwrap();
    assert_eq!(found.fields().len(), 0);
}

#[test]
fn files_that_import_each_other_are_an_error() {
    let files = vec![
        wanting("a.proto", "bb.proto", ".M8"),
        wanting("bb.proto", "a.proto", ".M7"),
    ];
    let error = Schema::from_files(files, &Rules::empty()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "files import each other in a circle: a.proto, bb.proto"
    );
}

#[test]
fn malformed_input_is_an_error_that_says_which() {
    let rules = Rules::empty();
    assert!(matches!(
        Schema::from_descriptor_set(b"\x0a\x05abc", &rules),
        Err(SchemaError::Set(_))
    ));
    let error = Schema::from_files(vec![Bytes::from_static(b"not a descriptor")], &rules).unwrap_err();
    assert!(error.to_string().starts_with("descriptor number 1: "), "{error}");
    let nameless = Schema::from_files(vec![Bytes::new()], &rules).unwrap_err();
    assert_eq!(nameless.to_string(), "descriptor number 1: it has no name");
    let empty = Schema::from_descriptor_set(b"", &rules).unwrap();
    assert!(empty.methods.is_empty());
}

#[test]
fn a_map_entry_without_a_key_is_an_error() {
    for fields in [0, 1, 3] {
        let field = |number| prost_types::FieldDescriptorProto {
            name: Some(format!("f{number}")),
            number: Some(number),
            label: Some(1),
            r#type: Some(9),
            ..Default::default()
        };
        let entry = prost_types::DescriptorProto {
            name: Some("Entry".to_owned()),
            field: (1..=fields).map(field).collect(),
            options: Some(prost_types::MessageOptions {
                map_entry: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        };
        let file = FileDescriptorProto {
            name: Some("map.proto".to_owned()),
            message_type: vec![entry],
            ..Default::default()
        };
        let error = Schema::from_files(vec![encoded(&file)], &Rules::empty()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "map.proto: Entry is a map entry without a key and a value"
        );
    }
}

#[test]
fn rules_take_the_place_of_annotations_and_name_what_they_miss() {
    let text = "http: {rules: [
      {selector: library.v1.Library.GetBook, post: '/v2/{name}:get', body: '*'},
      {selector: library.v1.Library.Chat, get: /v2/chat},
      {selector: library.v1.library.Watch, get: /v2/watch},
      {selector: other.Service.Method, get: /v2/other}]}";
    let rules = Rules::parse("rules.yaml", text).unwrap();
    let schema = Schema::from_sources(&["library/v1/library.proto".to_owned()], &sources(), &rules).unwrap();
    assert_eq!(
        templates(&schema, "/library.v1.Library/GetBook"),
        ["/v2/{name}:get"]
    );
    assert_eq!(templates(&schema, "/library.v1.Library/Chat"), ["/v2/chat"]);
    assert_eq!(
        templates(&schema, "/library.v1.Library/CreateBook"),
        ["/v1/books"]
    );
    let warnings: Vec<String> = schema.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "rules.yaml:4:18: no method \"library.v1.library.Watch\"; did you mean \"library.v1.Library.Watch\"?",
            "rules.yaml:5:18: no method \"other.Service.Method\"",
        ]
    );
}

#[test]
fn the_fingerprint_follows_files_and_rules() {
    let plain = library().fingerprint;
    assert_eq!(plain, library().fingerprint);
    let rules = Rules::parse(
        "r",
        "http: {rules: [{selector: library.v1.Library.Chat, get: /chat}]}",
    )
    .unwrap();
    let entries = ["library/v1/library.proto".to_owned()];
    let ruled = Schema::from_sources(&entries, &sources(), &rules)
        .unwrap()
        .fingerprint;
    let mut changed = sources();
    changed.insert(
        "library/v1/book.proto".to_owned(),
        BOOK.replace("title", "heading"),
    );
    let filed = Schema::from_sources(&entries, &changed, &Rules::empty())
        .unwrap()
        .fingerprint;
    assert_eq!(HashSet::from([plain, ruled, filed]).len(), 3);
}

#[test]
fn one_bad_binding_leaves_the_others() {
    let text = LIBRARY.replace(
        "{ get: \"/v1/books/{name}\" }",
        "{ custom { kind: \"A B\" path: \"/x\" } }",
    );
    let mut sources = sources();
    sources.insert("library/v1/library.proto".to_owned(), text);
    let schema = Schema::from_sources(
        &["library/v1/library.proto".to_owned()],
        &sources,
        &Rules::empty(),
    )
    .unwrap();
    assert_eq!(
        templates(&schema, "/library.v1.Library/GetBook"),
        ["/v1/{name=shelves/*/books/*}", "/v1/heads/{name}"]
    );
    assert_eq!(
        schema.warnings[0].to_string(),
        "library.v1.Library.GetBook: an HTTP rule is left out: \"A B\" is not an HTTP method; `*` stands for any"
    );
}

/// Compiling `text` as `a.proto` fails with this message.
#[track_caller]
fn check_source(text: &str, message: &str) {
    let sources = BTreeMap::from([("a.proto".to_owned(), text.to_owned())]);
    let error = Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty()).unwrap_err();
    assert!(matches!(error, SchemaError::Source { .. }));
    assert_eq!(error.to_string(), message);
}

#[test]
fn sources_fail_with_file_line_and_column() {
    check_source(
        "syntax = \"proto3\";\nmesage A {}",
        "a.proto:2:1: expected 'enum', 'extend', 'import', 'message', 'option', 'service', 'package' or ';', but found 'mesage'",
    );
    check_source(
        "syntax = \"proto3\";\nimport \"b.proto\";",
        "a.proto:2:1: import 'b.proto' not found",
    );
    check_source(
        "syntax = \"proto3\";\nmessage A {\n  B b = 1;\n}",
        "a.proto:3:3: name 'B' is not defined",
    );
    check_source(
        "syntax = \"proto3\";\nmessage A {",
        "a.proto:2:12: expected a message field, oneof, reserved range, enum, message, option or '}', but reached end of file",
    );
}

#[test]
fn sources_may_import_what_the_gateway_knows() {
    let text = "syntax = \"proto3\"; package p;
        import \"google/api/client.proto\"; import \"google/api/field_behavior.proto\"; import \"google/api/httpbody.proto\";
        import \"google/api/resource.proto\"; import \"google/rpc/code.proto\"; import \"google/rpc/error_details.proto\";
        import \"google/rpc/status.proto\"; import \"grpc/health/v1/health.proto\";
        import \"google/protobuf/struct.proto\"; import \"google/protobuf/type.proto\";
        message M {
          option (google.api.resource) = { type: \"p/M\" pattern: \"ms/{m}\" };
          string name = 1 [(google.api.field_behavior) = REQUIRED];
          google.rpc.Status status = 2;
          google.protobuf.Value value = 3;
        }
        service S { option (google.api.default_host) = \"example.com\"; rpc R(M) returns (google.api.HttpBody); }";
    let sources = BTreeMap::from([("a.proto".to_owned(), text.to_owned())]);
    let schema = Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty()).unwrap();
    assert_eq!(paths(&schema), ["/p.S/R"], "Health is imported and not meant");
}

/// Reads files as far as a schema does, without the embedded files that nothing imports; whether they can be read.
fn try_out(files: Vec<Bytes>) -> bool {
    let Ok(arranged) = files::arrange(files) else {
        return false;
    };
    let bytes: Vec<Bytes> = arranged.files.iter().map(|file| file.bytes.clone()).collect();
    let Ok(pool) = pool(&bytes) else { return false };
    look_at(&pool);
    let _methods = methods(&arranged.files, Services::Given, &pool, &mut Vec::new());
    true
}

/// Asks for everything that a reader of descriptors asks for.
fn look_at(pool: &DescriptorPool) {
    for message in pool.all_messages() {
        for field in message.fields() {
            let _facts = (
                field.default_value(),
                field.kind(),
                field.json_name(),
                field.containing_oneof(),
            );
            if field.is_map()
                && let Kind::Message(entry) = field.kind()
            {
                let _kinds = (entry.map_entry_key_field(), entry.map_entry_value_field());
            }
        }
        for _ in message
            .oneofs()
            .flat_map(|oneof| oneof.fields().collect::<Vec<_>>())
        {}
        for _ in message.reserved_ranges().chain(message.extension_ranges()) {}
        let _empty = prost_reflect::DynamicMessage::new(message.clone()).encode_to_vec();
    }
    for declared in pool.all_enums() {
        let _default = declared.default_value();
        for _ in declared.reserved_ranges() {}
    }
    for extension in pool.all_extensions() {
        let _facts = (
            extension.default_value(),
            extension.containing_message(),
            extension.options(),
        );
    }
}

#[test]
fn extreme_numbers_and_names_never_panic() {
    type Change = fn(&mut FileDescriptorProto, i32);
    let changes: [Change; 16] = [
        |file, x| file.message_type[0].field[0].number = Some(x),
        |file, x| file.message_type[0].field[0].oneof_index = Some(x),
        |file, x| file.message_type[0].field[0].label = Some(x),
        |file, x| file.message_type[0].field[0].r#type = Some(x),
        |file, x| file.message_type[0].field[2].r#type = Some(x),
        |file, x| file.public_dependency = vec![x],
        |file, x| file.weak_dependency = vec![x],
        |file, x| file.message_type[0].extension_range[0].start = Some(x),
        |file, x| file.message_type[0].extension_range[0].end = Some(x),
        |file, x| file.message_type[0].reserved_range[0].start = Some(x),
        |file, x| file.message_type[0].reserved_range[0].end = Some(x),
        |file, x| file.enum_type[0].value[0].number = Some(x),
        |file, x| file.enum_type[0].reserved_range[0].start = Some(x),
        |file, x| file.enum_type[0].reserved_range[0].end = Some(x),
        |file, x| file.extension[0].number = Some(x),
        |file, x| file.message_type[0].field[0].default_value = Some(x.to_string()),
    ];
    let names: [fn(&mut FileDescriptorProto, Option<String>); 14] = [
        |file, name| file.package = name,
        |file, name| file.syntax = name,
        |file, name| file.message_type[0].name = name,
        |file, name| file.message_type[0].field[0].name = name,
        |file, name| file.message_type[0].field[0].json_name = name,
        |file, name| file.message_type[0].field[2].type_name = name,
        |file, name| file.message_type[0].oneof_decl[0].name = name,
        |file, name| file.enum_type[0].name = name,
        |file, name| file.enum_type[0].value[0].name = name,
        |file, name| file.extension[0].extendee = name,
        |file, name| file.service[0].name = name,
        |file, name| file.service[0].method[0].name = name,
        |file, name| file.service[0].method[0].input_type = name,
        |file, name| file.dependency = name.into_iter().collect(),
    ];
    let text = "syntax = \"proto2\"; package p;
        message M {
          optional string a = 1; repeated int32 b = 2; optional M c = 3; map<string, E> d = 4;
          oneof o { string e = 5; } extensions 100 to 200; reserved 50 to 60;
        }
        enum E { A = 0; B = 1; reserved 10 to 20; }
        extend M { optional string x = 150; }
        service S { rpc R(M) returns (M); }";
    let sources = BTreeMap::from([("a.proto".to_owned(), text.to_owned())]);
    let schema = Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty()).unwrap();
    let sound = FileDescriptorProto::decode(file(&schema, "a.proto").clone()).unwrap();
    for change in changes {
        for x in [
            i32::MIN,
            -1,
            0,
            1,
            2,
            10,
            11,
            14,
            15,
            55,
            150,
            19_000,
            536_870_911,
            536_870_912,
            i32::MAX,
        ] {
            let mut file = sound.clone();
            change(&mut file, x);
            try_out(vec![encoded(&file)]);
        }
    }
    for change in names {
        for name in [
            None,
            Some(""),
            Some("."),
            Some(".."),
            Some(".p.M"),
            Some("M"),
            Some(".p.E"),
            Some("a.b"),
            Some("é"),
        ] {
            let mut file = sound.clone();
            change(&mut file, name.map(str::to_owned));
            try_out(vec![encoded(&file)]);
        }
    }
}

/// Bytes changed at random, always in the same way, are read or refused; what is read can be looked at.
#[test]
fn mutated_descriptors_never_panic() {
    let schema = library();
    let descriptor = embedded::file("google/protobuf/descriptor.proto").unwrap();
    let seeds = [
        file(&schema, "library/v1/library.proto"),
        file(&schema, "library/v1/book.proto"),
        &descriptor,
    ];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut read = 0;
    for round in 0..600 {
        let mut bytes = seeds[round % seeds.len()].to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = u8::try_from(random(256)).unwrap(),
                1 => bytes[at] ^= 1 << random(8),
                2 => drop(bytes.remove(at)),
                _ => bytes.insert(at, u8::try_from(random(256)).unwrap()),
            }
        }
        let mut files: Vec<Bytes> = seeds.iter().map(|&seed| seed.clone()).collect();
        files.remove(round % seeds.len());
        files.insert(0, bytes.into());
        read += usize::from(try_out(files));
    }
    assert!(
        read > 20,
        "only {read} of the mutated descriptors were good enough to be looked at"
    );
}

#[test]
fn deeply_nested_messages_are_refused() {
    let nested = |depth: usize| {
        let mut message = Vec::new();
        for _ in 0..depth {
            let inner = std::mem::take(&mut message);
            raw::put_bytes(&mut message, 1, b"M");
            raw::put_bytes(&mut message, 3, &inner);
        }
        let mut file = Vec::new();
        raw::put_bytes(&mut file, 1, b"deep.proto");
        raw::put_bytes(&mut file, 4, &message);
        Schema::from_files(vec![file.into()], &Rules::empty())
    };
    assert!(nested(50).is_ok());
    assert!(nested(5_000).is_err());
    for depth in 90..105 {
        let _read_or_refused = nested(depth);
    }
}

#[test]
fn deeply_nested_annotations_are_read_or_refused() {
    for depth in [1, 50, 90, 95, 96, 97, 98, 99, 100, 101, 5_000] {
        let mut rule = Vec::new();
        for _ in 0..depth {
            let inner = std::mem::take(&mut rule);
            raw::put_bytes(&mut rule, 2, b"/x");
            raw::put_bytes(&mut rule, 11, &inner);
        }
        let mut options = Vec::new();
        raw::put_bytes(&mut options, 72_295_728, &rule);
        let mut method = Vec::new();
        for (number, value) in [(1, &b"R"[..]), (2, b".M"), (3, b".M"), (4, &options)] {
            raw::put_bytes(&mut method, number, value);
        }
        let (mut service, mut message, mut file) = (Vec::new(), Vec::new(), Vec::new());
        raw::put_bytes(&mut service, 1, b"S");
        raw::put_bytes(&mut service, 2, &method);
        raw::put_bytes(&mut message, 1, b"M");
        for (number, value) in [
            (1, &b"a.proto"[..]),
            (3, b"google/api/annotations.proto"),
            (4, &message),
            (6, &service),
        ] {
            raw::put_bytes(&mut file, number, value);
        }
        if let Ok(schema) = Schema::from_files(vec![file.into()], &Rules::empty()) {
            assert_ne!(schema.warnings, [], "{depth}");
        }
    }
}

#[test]
fn mutated_sources_never_panic() {
    let mut state: u64 = 0x2545_f491_4f6c_dd1d;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let seed: Vec<char> = format!(
        "{LIBRARY} enum E {{ A = 0; B = -1; reserved 2 to max; }} message N {{ oneof o {{ string s = 1; E e = 2 [json_name = 'x\\n']; }}
         optional int32 i = 3; extensions 5 to 9; message D {{ repeated double d = 1 [packed = false]; }} }}"
    )
    .chars()
    .collect();
    for _ in 0..300 {
        let mut text = seed.clone();
        for _ in 0..=random(3) {
            let (at, from) = (random(text.len()), random(text.len()));
            match random(4) {
                0 => text[at] = text[from],
                1 => drop(text.remove(at)),
                2 => text.insert(at, text[from]),
                _ => text.insert(
                    at,
                    ['{', '}', '\"', '\\', '-', '0', 'é', ';', '.', '['][random(10)],
                ),
            }
        }
        let mut sources = sources();
        sources.insert("library/v1/library.proto".to_owned(), text.into_iter().collect());
        let entries = ["library/v1/library.proto".to_owned()];
        let _read_or_refused = sources::compile(&entries, &sources);
    }
}

#[test]
fn deeply_nested_options_are_read_or_refused() {
    let nested = |depth: usize| {
        let rule = format!(
            "get: \"/x\" {} {}",
            "additional_bindings { get: \"/y\" ".repeat(depth),
            "}".repeat(depth)
        );
        let text = format!(
            "syntax = \"proto3\"; import \"google/api/annotations.proto\"; message M {{}}
             service S {{ rpc R(M) returns (M) {{ option (google.api.http) = {{ {rule} }}; }} }}"
        );
        let sources = BTreeMap::from([("a.proto".to_owned(), text)]);
        Schema::from_sources(&["a.proto".to_owned()], &sources, &Rules::empty())
    };
    assert_eq!(templates(&nested(1).unwrap(), "/S/R"), ["/x", "/y"]);
    for depth in [2, 50, 60] {
        if let Ok(schema) = nested(depth) {
            assert_ne!(schema.warnings, [], "{depth}");
        }
    }
    assert!(nested(62).unwrap_err().to_string().contains("brackets nest"));
}
