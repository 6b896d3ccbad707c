//! Schemas from proto text.

use bytes::Bytes;
use prost::Message;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use crate::schema::Schema;

struct Text(String);

impl FileResolver for Text {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "t.proto" {
            File::from_source(name, &self.0)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// The schema of one proto file with the well-known types.
pub(in crate::translate::json) fn schema(text: &str) -> Schema {
    let mut resolver = ChainFileResolver::new();
    resolver.add(Text(text.to_owned()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("t.proto").unwrap();
    let pool = compiler.descriptor_pool();
    let files = compiler.file_descriptor_set().file;
    let files = files
        .iter()
        .map(|file| Bytes::from(file.encode_to_vec()))
        .collect();
    Schema {
        files,
        pool,
        methods: Vec::new(),
        fingerprint: 0,
        warnings: Vec::new(),
    }
}
