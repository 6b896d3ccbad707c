//! Schemas to fuzz with: one that has everything, and random ones.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;
use prost_reflect::MessageDescriptor;
use protox::Compiler;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

use super::Dice;
use crate::translate::json::{JsonOptions, Transcoder};

/// A compiled file.
#[derive(Debug)]
pub(in super::super) struct Compiled {
    pub(in super::super) files: Vec<Bytes>,
    /// Those of the file itself.
    pub(super) messages: Vec<MessageDescriptor>,
}

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

impl Compiled {
    pub(in super::super) fn new(text: &str) -> Self {
        let mut resolver = ChainFileResolver::new();
        resolver.add(Text(text.to_owned()));
        resolver.add(GoogleFileResolver::new());
        let mut compiler = Compiler::with_file_resolver(resolver);
        let compiled = compiler.include_imports(true).open_file("t.proto");
        compiled.unwrap_or_else(|error| panic!("{error:?}: {text}"));
        let files = compiler.file_descriptor_set().file;
        let pool = compiler.descriptor_pool();
        let own = |message: &MessageDescriptor| message.package_name() == "t" && !message.is_map_entry();
        Self {
            files: files
                .iter()
                .map(|file| Bytes::from(file.encode_to_vec()))
                .collect(),
            messages: pool.all_messages().filter(own).collect(),
        }
    }

    pub(super) fn fixed() -> &'static Self {
        static FIXED: OnceLock<Compiled> = OnceLock::new();
        FIXED.get_or_init(|| Self::new(EVERYTHING))
    }

    /// The transcoder of the fixed schema under options, compiled once.
    pub(super) fn remembered(&self, options: JsonOptions) -> Transcoder {
        static KNOWN: Mutex<Option<HashMap<JsonOptions, Transcoder>>> = Mutex::new(None);
        let mut known = KNOWN.lock();
        let known = known.get_or_insert_default();
        known
            .entry(options)
            .or_insert_with(|| self.transcoder(options))
            .clone()
    }

    pub(super) fn transcoder(&self, options: JsonOptions) -> Transcoder {
        super::transcoder(&self.files, options)
    }
}

const IMPORTS: &str = r#"
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
"#;

/// One message of each sort.
const EVERYTHING: &str = r#"
syntax = "proto2";
package t;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/field_mask.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Color { option allow_alias = true; RED = 0; GREEN = 1; BLUE = -1; VERT = 1; }
enum Size { SMALL = 1; LARGE = 300; }
message All {
  optional double one_double = 1;
  optional float one_float = 2;
  optional int32 one_int32 = 3;
  optional int64 one_int64 = 4;
  optional uint32 one_uint32 = 5;
  optional uint64 one_uint64 = 6;
  optional sint32 one_sint32 = 7;
  optional sint64 one_sint64 = 8;
  optional fixed32 one_fixed32 = 9;
  optional fixed64 one_fixed64 = 10;
  optional sfixed32 one_sfixed32 = 11;
  optional sfixed64 one_sfixed64 = 12;
  optional bool one_bool = 13;
  optional string one_string = 14;
  optional bytes one_bytes = 15;
  optional Color one_color = 16;
  optional Size one_size = 17;
  optional All one_all = 18;
  repeated double many_double = 19;
  repeated float many_float = 20;
  repeated int32 many_int32 = 21;
  repeated int64 many_int64 = 22;
  repeated uint32 many_uint32 = 23;
  repeated uint64 many_uint64 = 24;
  repeated sint32 many_sint32 = 25;
  repeated sint64 many_sint64 = 26;
  repeated fixed32 many_fixed32 = 27;
  repeated fixed64 many_fixed64 = 28;
  repeated sfixed32 many_sfixed32 = 29;
  repeated sfixed64 many_sfixed64 = 30;
  repeated bool many_bool = 31;
  repeated string many_string = 32;
  repeated bytes many_bytes = 33;
  repeated Color many_color = 34;
  repeated Size many_size = 35;
  repeated All many_all = 36;
  map<int32, Size> by_int32 = 37;
  map<int64, bytes> by_int64 = 38;
  map<uint32, bytes> by_uint32 = 39;
  map<uint64, bytes> by_uint64 = 40;
  map<sint32, bytes> by_sint32 = 41;
  map<sint64, bytes> by_sint64 = 42;
  map<fixed32, bytes> by_fixed32 = 43;
  map<fixed64, bytes> by_fixed64 = 44;
  map<sfixed32, bytes> by_sfixed32 = 45;
  map<sfixed64, bytes> by_sfixed64 = 46;
  map<bool, bytes> by_bool = 47;
  map<string, All> by_string = 48;
  optional google.protobuf.Any known_any = 49;
  repeated google.protobuf.Any known_any_list = 50;
  optional google.protobuf.Duration known_duration = 51;
  repeated google.protobuf.Duration known_duration_list = 52;
  optional google.protobuf.FieldMask known_field_mask = 53;
  repeated google.protobuf.FieldMask known_field_mask_list = 54;
  optional google.protobuf.Struct known_struct = 55;
  repeated google.protobuf.Struct known_struct_list = 56;
  optional google.protobuf.Value known_value = 57;
  repeated google.protobuf.Value known_value_list = 58;
  optional google.protobuf.ListValue known_list_value = 59;
  repeated google.protobuf.ListValue known_list_value_list = 60;
  optional google.protobuf.Timestamp known_timestamp = 61;
  repeated google.protobuf.Timestamp known_timestamp_list = 62;
  optional google.protobuf.DoubleValue known_double_value = 63;
  repeated google.protobuf.DoubleValue known_double_value_list = 64;
  optional google.protobuf.FloatValue known_float_value = 65;
  repeated google.protobuf.FloatValue known_float_value_list = 66;
  optional google.protobuf.Int64Value known_int64_value = 67;
  repeated google.protobuf.Int64Value known_int64_value_list = 68;
  optional google.protobuf.UInt64Value known_uint64_value = 69;
  repeated google.protobuf.UInt64Value known_uint64_value_list = 70;
  optional google.protobuf.Int32Value known_int32_value = 71;
  repeated google.protobuf.Int32Value known_int32_value_list = 72;
  optional google.protobuf.UInt32Value known_uint32_value = 73;
  repeated google.protobuf.UInt32Value known_uint32_value_list = 74;
  optional google.protobuf.BoolValue known_bool_value = 75;
  repeated google.protobuf.BoolValue known_bool_value_list = 76;
  optional google.protobuf.StringValue known_string_value = 77;
  repeated google.protobuf.StringValue known_string_value_list = 78;
  optional google.protobuf.BytesValue known_bytes_value = 79;
  repeated google.protobuf.BytesValue known_bytes_value_list = 80;
  optional google.protobuf.NullValue nothing = 81;
  optional group Inner = 82 { optional int32 x = 1; repeated group Deep = 2 { optional string y = 3; } }
  oneof choice {
    int32 choice_int32 = 83;
    string choice_string = 84;
    All choice_all = 85;
    google.protobuf.NullValue choice_null_value = 86;
    google.protobuf.Value choice_value = 87;
    Size choice_size = 88;
  }
  extensions 1000 to 2000;
}
extend All { optional string extra = 1000; repeated sint64 extras = 1001 [packed = true]; }
message Must { required int32 need = 1; optional Must more = 2; }
message Few { optional string name = 1; optional int64 count = 2; repeated Few parts = 3; optional double ratio = 4; optional google.protobuf.Any detail = 5; }
"#;

/// The names of all scalar types, and of the well-known messages.
const SCALARS: [&str; 15] = [
    "double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64", "fixed32", "fixed64",
    "sfixed32", "sfixed64", "bool", "string", "bytes",
];
const KNOWN: [&str; 15] = [
    "Any",
    "Duration",
    "FieldMask",
    "Struct",
    "Value",
    "ListValue",
    "Timestamp",
    "DoubleValue",
    "FloatValue",
    "Int64Value",
    "UInt64Value",
    "Int32Value",
    "UInt32Value",
    "BoolValue",
    "StringValue",
];

/// A file of a few messages that hold each other.
pub(super) fn random(dice: &mut Dice) -> String {
    let proto2 = dice.one_in(2);
    let count = 1 + dice.below(4);
    let mut text = format!(
        "syntax = \"{}\";\npackage t;\n{IMPORTS}",
        if proto2 { "proto2" } else { "proto3" }
    );
    text.push_str("enum E { ZERO = 0; ONE = 1; MINUS = -1; BIG = 1000; }\n");
    for index in 0..count {
        message(&mut text, index, count, proto2, dice);
    }
    if proto2 {
        text.push_str("extend M0 { optional string extra = 5000; repeated M0 more_extra = 5001; }\n");
    }
    text
}

fn message(text: &mut String, index: usize, count: usize, proto2: bool, dice: &mut Dice) {
    let _ = writeln!(text, "message M{index} {{");
    if proto2 && index == 0 {
        text.push_str("extensions 5000 to 6000;\n");
    }
    let fields = if dice.one_in(6) {
        60 + dice.below(40)
    } else {
        dice.below(14)
    };
    let mut number = 0;
    for field in 0..fields {
        number += 1 + if dice.one_in(8) { dice.below(2000) } else { 0 };
        if (4900..6100).contains(&number) {
            number = 6100;
        }
        let name = format!("f_{field}x");
        let label = if proto2 {
            *dice.pick(&["optional ", "optional ", "required "])
        } else {
            *dice.pick(&["", "optional "])
        };
        match dice.below(12) {
            0 | 1 => {
                let packed = *dice.pick(&["", " [packed = true]", " [packed = false]"]);
                let of = if dice.one_in(5) {
                    "E"
                } else {
                    dice.pick(&SCALARS[..13])
                };
                let _ = writeln!(text, "repeated {of} {name} = {number}{packed};");
            }
            2 => {
                let _ = writeln!(text, "repeated {} {name} = {number};", of(count, dice));
            }
            3 => {
                let key = dice.pick(&[
                    "int32", "int64", "uint32", "uint64", "sint32", "fixed64", "bool", "string", "string",
                ]);
                let _ = writeln!(text, "map<{key}, {}> {name} = {number};", of(count, dice));
            }
            4 => {
                let _ = writeln!(text, "oneof o_{field} {{ {} {name} = {number};", of(count, dice));
                for other in 0..dice.below(3) {
                    number += 1;
                    let _ = writeln!(text, "{} {name}_{other} = {number};", of(count, dice));
                }
                text.push_str("}\n");
            }
            5 if proto2 => {
                let _ = writeln!(
                    text,
                    "optional group G{field}g = {number} {{ optional int32 x = 1; repeated M0 y = 2; }}"
                );
            }
            6 => {
                let _ = writeln!(
                    text,
                    "{label}string {name} = {number} [json_name = \"odd {field}\"];"
                );
            }
            // A required message can make a message that is endless.
            7 | 8 => {
                let label = if label == "required " { "optional " } else { label };
                let _ = writeln!(text, "{label}{} {name} = {number};", of(count, dice));
            }
            _ => {
                let _ = writeln!(text, "{label}{} {name} = {number};", dice.pick(&SCALARS));
            }
        }
    }
    text.push_str("}\n");
}

fn of(count: usize, dice: &mut Dice) -> String {
    match dice.below(8) {
        0 | 1 => format!("google.protobuf.{}", dice.pick(&KNOWN)),
        2 => "E".to_owned(),
        3 | 4 => format!("M{}", dice.below(count)),
        _ => (*dice.pick(&SCALARS)).to_owned(),
    }
}
