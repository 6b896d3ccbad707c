//! Files and folders of `.proto` sources: what is found, what is missing and how it is told.

use std::collections::BTreeSet;

use super::*;

const BOOK: &str = "syntax = \"proto3\"; package library.v1; message Book { string name = 1; }";
const LIBRARY: &str = "syntax = \"proto3\"; package library.v1;
import \"google/api/annotations.proto\";
import \"library/v1/book.proto\";
service Library { rpc Get(Book) returns (Book) { option (google.api.http) = { get: \"/v1/{name}\" }; } }";
const OTHER: &str = "syntax = \"proto3\"; package other; message M {} service S { rpc R(M) returns (M); }";

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn standard() -> tempfile::TempDir {
    folder(&[
        ("protos/library/v1/library.proto", LIBRARY),
        ("protos/library/v1/book.proto", BOOK),
        ("other/other.proto", OTHER),
    ])
}

fn services(schema: &Schema) -> BTreeSet<String> {
    schema
        .methods
        .iter()
        .map(|method| method.service.to_string())
        .collect()
}

/// The paths below `folder`.
fn below(folder: &tempfile::TempDir, names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| folder.path().join(name)).collect()
}

#[test]
fn files_are_found_in_every_usual_way() {
    let folder = standard();
    let cases: [(&[&str], &[&str]); 5] = [
        (&["protos/library/v1/library.proto"], &["protos"]),
        (&["protos"], &[]),
        (&["protos/library"], &["protos"]),
        (
            &["protos/library/v1/book.proto", "protos/library/v1/library.proto"],
            &["other", "protos"],
        ),
        (&["protos", "protos/library/v1/library.proto"], &["protos"]),
    ];
    for (entries, include) in cases {
        let schema = load(
            &below(&folder, entries),
            &below(&folder, include),
            &Rules::empty(),
        )
        .unwrap();
        assert_eq!(
            services(&schema),
            BTreeSet::from(["library.v1.Library".to_owned()]),
            "{entries:?} {include:?}"
        );
        assert_eq!(schema.methods[0].rules[0].template, "/v1/{name}");
    }
    // An entry may be written as it is imported.
    let entries = [PathBuf::from("library/v1/library.proto")];
    assert!(load(&entries, &below(&folder, &["protos"]), &Rules::empty()).is_ok());
    let entries = [PathBuf::from("library/v1")];
    assert!(load(&entries, &below(&folder, &["protos"]), &Rules::empty()).is_ok());
}

#[test]
fn the_own_folder_is_the_proto_path_where_none_is_given() {
    let folder = standard();
    let schema = load(
        &below(&folder, &["other/other.proto", "protos"]),
        &[],
        &Rules::empty(),
    )
    .unwrap();
    let expected = ["library.v1.Library", "other.S"].map(str::to_owned);
    assert_eq!(services(&schema), BTreeSet::from(expected));
}

#[test]
fn services_of_imported_files_do_not_count() {
    let text =
        "syntax = \"proto3\"; import \"other.proto\"; service Own { rpc R(other.M) returns (other.M); }";
    let folder = folder(&[("own.proto", text), ("other.proto", OTHER)]);
    let schema = load(&below(&folder, &["own.proto"]), &[], &Rules::empty()).unwrap();
    assert_eq!(services(&schema), BTreeSet::from(["Own".to_owned()]));
}

#[test]
fn a_missing_import_is_named_with_its_place_and_the_folders() {
    let folder = standard();
    let error = load(
        &below(&folder, &["protos/library/v1/library.proto"]),
        &[],
        &Rules::empty(),
    )
    .unwrap_err();
    let own = folder.path().join("protos/library/v1");
    assert_eq!(
        error.to_string(),
        format!(
            "library.proto:3:1: import 'library/v1/book.proto' not found; looked in {}",
            own.display()
        )
    );
}

#[test]
fn what_is_not_there_is_named() {
    let folder = standard();
    let include = below(&folder, &["protos", "other"]);
    let error = load(&[PathBuf::from("lib.proto")], &include, &Rules::empty()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "lib.proto: no such file or folder; looked in {}, {}",
            include[0].display(),
            include[1].display()
        )
    );
    let empty = self::folder(&[("deep/readme.md", "")]);
    let error = load(&[empty.path().to_owned()], &[], &Rules::empty()).unwrap_err();
    assert!(
        error.to_string().ends_with(": no .proto file in this folder"),
        "{error}"
    );
}

#[test]
fn two_files_of_one_name_are_told_apart() {
    let folder = folder(&[("a/x.proto", BOOK), ("b/x.proto", OTHER)]);
    let error = load(&below(&folder, &["a/x.proto", "b/x.proto"]), &[], &Rules::empty()).unwrap_err();
    assert!(
        matches!(error, DiscoverError::SameName { ref name, .. } if name == "x.proto"),
        "{error}"
    );
    // With a folder that holds both they have different names.
    let both = load(
        &below(&folder, &["a/x.proto", "b/x.proto"]),
        &[folder.path().to_owned()],
        &Rules::empty(),
    );
    assert!(both.is_ok());
}

#[test]
fn imports_do_not_leave_the_folders() {
    let secret = "syntax = \"proto3\"; message Secret {}";
    let folder = folder(&[
        ("secret.proto", secret),
        ("in/a.proto", "syntax = \"proto3\"; import \"../secret.proto\";"),
    ]);
    assert!(load(&below(&folder, &["in"]), &[], &Rules::empty()).is_err());
    let absolute = format!(
        "syntax = \"proto3\"; import \"{}\";",
        folder.path().join("secret.proto").display()
    );
    fs::write(folder.path().join("in/a.proto"), absolute).unwrap();
    assert!(load(&below(&folder, &["in"]), &[], &Rules::empty()).is_err());
}

#[cfg(unix)]
#[test]
fn a_mounted_folder_of_links_is_read_once() {
    let folder = folder(&[("..2024/book.proto", BOOK)]);
    std::os::unix::fs::symlink("..2024", folder.path().join("..data")).unwrap();
    std::os::unix::fs::symlink("..data/book.proto", folder.path().join("book.proto")).unwrap();
    let schema = load(&[folder.path().to_owned()], &[], &Rules::empty()).unwrap();
    assert!(schema.pool.get_file_by_name("book.proto").is_some());
    // A link that leads back is followed a bounded number of times.
    std::os::unix::fs::symlink(".", folder.path().join("again")).unwrap();
    let error = load(&[folder.path().to_owned()], &[], &Rules::empty()).unwrap_err();
    assert!(
        matches!(
            error,
            DiscoverError::Folder {
                problem: FolderProblem::Deep { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn the_gateways_own_definitions_yield_to_files() {
    let own = "syntax = \"proto3\"; package google.api; message HttpBody { string mine = 9; }";
    let text = "syntax = \"proto3\"; import \"google/api/httpbody.proto\";
        service S { rpc R(google.api.HttpBody) returns (google.api.HttpBody); }";
    let folder = folder(&[("google/api/httpbody.proto", own), ("s.proto", text)]);
    let schema = load(&below(&folder, &["s.proto"]), &[], &Rules::empty()).unwrap();
    assert!(schema.methods[0].input.get_field_by_name("mine").is_some());
}
