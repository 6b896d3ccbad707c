//! What is generated from `proto/` and committed is what the files say today.
//!
//! The build needs neither protoc nor a build script because of it. After a change of a file, write the
//! generated code anew with `BLESS=1 cargo it generated`.

use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A service of `proto/` and where its code is.
struct Generated {
    proto: &'static str,
    folder: &'static str,
    set: &'static str,
    /// Whether services are generated, and not the messages alone.
    services: bool,
    /// The files that are committed; all where none is named.
    files: &'static [&'static str],
}

const LIBRARY: Generated = Generated {
    proto: "library/v1/library.proto",
    folder: "src/demo/generated",
    set: "library.binpb",
    services: true,
    files: &[],
};

/// Its options are read from the descriptors, so that the code of what it imports is not needed.
const ADMIN: Generated = Generated {
    proto: "sabir/admin/v1/admin.proto",
    folder: "src/admin/generated",
    set: "admin.binpb",
    services: false,
    files: &["sabir.admin.v1.rs"],
};

/// Whether comments and positions stay in the descriptors.
#[derive(Clone, Copy)]
enum SourceInfo {
    Kept,
    Left,
}

impl Generated {
    /// Compiles the service with everything that it imports.
    fn compiler(&self, source_info: SourceInfo) -> protox::Compiler {
        let mut compiler = protox::Compiler::new([root().join("proto")]).expect("proto/ can be read");
        compiler
            .include_imports(true)
            .include_source_info(matches!(source_info, SourceInfo::Kept))
            .open_file(self.proto)
            .expect("the service compiles");
        compiler
    }

    /// Compares a generated file with the committed one, or writes it where asked to.
    fn check(&self, name: &str, fresh: &[u8]) {
        let committed = root().join(self.folder).join(name);
        if std::env::var_os("BLESS").is_some() {
            fs::create_dir_all(root().join(self.folder)).expect("the generated folder can be made");
            fs::write(&committed, fresh).expect("the generated folder can be written");
        }
        let kept = fs::read(&committed).unwrap_or_default();
        assert!(
            kept == fresh,
            "{} is not what proto/{} says; write it anew with BLESS=1 cargo it generated",
            committed.display(),
            self.proto
        );
    }

    fn descriptors(&self) {
        let set = self.compiler(SourceInfo::Left).encode_file_descriptor_set();
        self.check(self.set, &set);
    }

    fn code(&self) {
        // Options that are extensions are lost on this way, and the code does not need them.
        let encoded = self.compiler(SourceInfo::Kept).encode_file_descriptor_set();
        let set = prost_types::FileDescriptorSet::decode(&*encoded).expect("protox writes a descriptor set");
        let out = tempfile::tempdir().expect("a folder for what is generated");
        tonic_prost_build::configure()
            .build_client(false)
            .build_server(self.services)
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
        let mut checked = 0;
        for file in files {
            let name = file
                .file_name()
                .and_then(|name| name.to_str())
                .expect("a UTF-8 name")
                .to_owned();
            if self.files.is_empty() || self.files.contains(&name.as_str()) {
                self.check(&name, &fs::read(Path::new(&file)).expect("the file can be read"));
                checked += 1;
            }
        }
        assert!(checked > 0);
    }
}

#[test]
fn the_descriptor_sets_are_what_the_proto_files_say() {
    LIBRARY.descriptors();
    ADMIN.descriptors();
}

#[test]
fn the_code_is_what_the_proto_files_say() {
    LIBRARY.code();
    ADMIN.code();
}
