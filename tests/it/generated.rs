//! What is generated from `proto/library` and committed under `src/demo/generated` is what the file says today.
//!
//! The build needs neither protoc nor a build script because of it. After a change of the file, write the
//! generated code anew with `BLESS=1 cargo it generated`.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Compiles the service with everything that it imports.
fn compiler(source_info: SourceInfo) -> protox::Compiler {
    let mut compiler = protox::Compiler::new([root().join("proto")]).expect("proto/ can be read");
    compiler
        .include_imports(true)
        .include_source_info(matches!(source_info, SourceInfo::Kept))
        .open_file("library/v1/library.proto")
        .expect("the service compiles");
    compiler
}

/// Whether comments and positions stay in the descriptors.
#[derive(Clone, Copy)]
enum SourceInfo {
    Kept,
    Left,
}

/// Compares a generated file with the committed one, or writes it where asked to.
fn check(name: &str, fresh: &[u8]) {
    let committed = root().join("src/demo/generated").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&committed, fresh).expect("the generated folder can be written");
    }
    let kept = fs::read(&committed).unwrap_or_default();
    assert!(
        kept == fresh,
        "{} is not what proto/library says; write it anew with BLESS=1 cargo it generated",
        committed.display()
    );
}

#[test]
fn the_descriptor_set_is_what_the_proto_file_says() {
    check(
        "library.binpb",
        &compiler(SourceInfo::Left).encode_file_descriptor_set(),
    );
}

#[test]
fn the_code_is_what_the_proto_file_says() {
    // Options that are extensions are lost on this way, and the code does not need them.
    let encoded = compiler(SourceInfo::Kept).encode_file_descriptor_set();
    let set = prost_types::FileDescriptorSet::decode(&*encoded).expect("protox writes a descriptor set");
    let out = tempfile::tempdir().expect("a folder for what is generated");
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .btree_map(".")
        .bytes(".")
        .emit_rerun_if_changed(false)
        .out_dir(out.path())
        .compile_fds(set)
        .expect("the code is generated");
    let mut files: Vec<PathBuf> = fs::read_dir(out.path())
        .expect("the folder can be read")
        .map(|entry| entry.expect("the entry can be read").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a UTF-8 name")
            .to_owned();
        check(&name, &fs::read(Path::new(&file)).expect("the file can be read"));
    }
}
