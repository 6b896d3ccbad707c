//! One schema, and what a text or some bytes become under it.

use bytes::{Bytes, BytesMut};
use prost::Message;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::super::{JsonError, JsonOptions, Target, Transcoder, WireError};

const SOURCE: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/any.proto";
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum Color { option allow_alias = true; RED = 0; GREEN = 1; VERT = 1; }
    message Book {
        string name = 1;
        int32 pages = 2;
        optional int64 copies = 3;
        repeated string tags = 4;
        Book next = 5;
        repeated Book books = 6;
        map<string, int32> counts = 7;
        map<int32, Book> by_number = 8;
        map<bool, bool> flags = 9;
        oneof sort { string novel = 10; int32 volume = 11; Book part = 12; google.protobuf.NullValue none = 13; }
        Color color = 14;
        repeated Color colors = 15;
        bytes data = 16;
        double price = 17;
        float weight = 18;
        uint32 small = 19;
        uint64 large = 20;
        bool done = 21;
        repeated int32 numbers = 22;
        google.protobuf.Timestamp time = 23;
        google.protobuf.Duration length = 24;
        google.protobuf.FieldMask mask = 25;
        google.protobuf.Struct fields = 26;
        google.protobuf.Value value = 27;
        google.protobuf.Int64Value wrapped = 28;
        google.protobuf.Any detail = 29;
        repeated google.protobuf.Value values = 30;
        repeated google.protobuf.StringValue words = 31;
        google.protobuf.Empty nothing = 32;
        string odd = 33 [json_name = "an odd name that is longer than thirty-two bytes"];
    }
    message Wide {
WIDE
    }
"#;

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

/// A transcoder of the schema and one of its messages.
pub(super) struct Subject {
    pub(super) transcoder: Transcoder,
    pub(super) target: Target,
}

/// `t.Book` under options.
pub(super) fn book(options: JsonOptions) -> Subject {
    subject("t.Book", options)
}

/// A message of the schema under options.
pub(super) fn subject(name: &str, options: JsonOptions) -> Subject {
    let wide: String = (1..=200)
        .map(|number| format!("optional int32 field_{number} = {};", number * 11))
        .collect();
    let source = SOURCE.replace("WIDE", &wide);
    let mut resolver = ChainFileResolver::new();
    resolver.add(Text(source));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file("t.proto").unwrap();
    let files = compiler.file_descriptor_set().file;
    let files: Vec<Bytes> = files
        .iter()
        .map(|file| Bytes::from(file.encode_to_vec()))
        .collect();
    let transcoder = Transcoder::from_files(&files, options).unwrap();
    let target = Target::Message(transcoder.message(name).unwrap());
    Subject { transcoder, target }
}

impl Subject {
    pub(super) fn read(&self, json: &str) -> Result<Vec<u8>, JsonError> {
        let mut wire = BytesMut::from(&b"before"[..]);
        let done = self
            .transcoder
            .read(self.target, None, json.as_bytes(), &mut wire, 1 << 20);
        assert!(wire.starts_with(b"before") && (done.is_ok() || wire.len() == 6));
        done.map(|()| wire[6..].to_vec())
    }

    pub(super) fn write(&self, wire: &[u8]) -> Result<String, WireError> {
        self.write_within(wire, 1 << 20)
    }

    /// The same with at most so many bytes of text.
    pub(super) fn write_within(&self, wire: &[u8], limit: usize) -> Result<String, WireError> {
        let mut text = BytesMut::from(&b"before"[..]);
        let done = self.transcoder.write(self.target, None, wire, &mut text, limit);
        assert!(text.starts_with(b"before") && (done.is_ok() || text.len() == 6));
        done.map(|()| String::from_utf8(text[6..].to_vec()).unwrap())
    }

    /// What a text is when it comes back from the wire.
    pub(super) fn again(&self, json: &str) -> String {
        let wire = self.read(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        self.write(&wire)
            .unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    pub(super) fn error(&self, json: &str) -> String {
        match self.read(json) {
            Ok(wire) => panic!("{json} was read as {wire:?}"),
            Err(error) => error.to_string(),
        }
    }
}
