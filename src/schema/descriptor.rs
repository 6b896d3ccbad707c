//! `FileDescriptorProto` with what the public Rust types lose: editions, features, and options as they were written.
//!
//! Options stay raw bytes, so that custom options survive a decode and an encode, and features are read from them.
//! Source: `google/protobuf/descriptor.proto`.

use bytes::Bytes;
use prost::Message;

/// `FileDescriptorProto.edition`: a file with `syntax = "editions"`.
pub const EDITION_2023: i32 = 1000;
/// The newest edition that is understood.
pub const EDITION_2024: i32 = 1001;

/// One `.proto` file.
#[derive(Clone, PartialEq, Message)]
pub struct File {
    /// Its name in imports.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The package of its declarations.
    #[prost(string, optional, tag = "2")]
    pub package: Option<String>,
    /// What it imports.
    #[prost(string, repeated, tag = "3")]
    pub dependency: Vec<String>,
    /// Indexes of public imports.
    #[prost(int32, repeated, packed = "false", tag = "10")]
    pub public_dependency: Vec<i32>,
    /// Indexes of weak imports.
    #[prost(int32, repeated, packed = "false", tag = "11")]
    pub weak_dependency: Vec<i32>,
    /// What it imports for its options alone; since edition 2024.
    #[prost(string, repeated, tag = "15")]
    pub option_dependency: Vec<String>,
    /// Messages.
    #[prost(message, repeated, tag = "4")]
    pub message_type: Vec<MessageType>,
    /// Enums.
    #[prost(message, repeated, tag = "5")]
    pub enum_type: Vec<EnumType>,
    /// Services, not decoded.
    #[prost(bytes = "bytes", repeated, tag = "6")]
    pub service: Vec<Bytes>,
    /// Extensions.
    #[prost(message, repeated, tag = "7")]
    pub extension: Vec<Field>,
    /// `FileOptions`.
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub options: Option<Bytes>,
    /// Comments and places, not decoded.
    #[prost(bytes = "bytes", optional, tag = "9")]
    pub source_code_info: Option<Bytes>,
    /// `proto2` or nothing, `proto3`, `editions`.
    #[prost(string, optional, tag = "12")]
    pub syntax: Option<String>,
    /// The edition if the syntax is `editions`.
    #[prost(int32, optional, tag = "14")]
    pub edition: Option<i32>,
}

/// A message type.
#[derive(Clone, PartialEq, Message)]
pub struct MessageType {
    /// Its own name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Fields in the order of declaration.
    #[prost(message, repeated, tag = "2")]
    pub field: Vec<Field>,
    /// Extensions declared inside.
    #[prost(message, repeated, tag = "6")]
    pub extension: Vec<Field>,
    /// Messages declared inside, map entries too.
    #[prost(message, repeated, tag = "3")]
    pub nested_type: Vec<Self>,
    /// Enums declared inside.
    #[prost(message, repeated, tag = "4")]
    pub enum_type: Vec<EnumType>,
    /// Numbers for extensions, not decoded.
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub extension_range: Vec<Bytes>,
    /// Oneofs.
    #[prost(message, repeated, tag = "8")]
    pub oneof_decl: Vec<Oneof>,
    /// `MessageOptions`.
    #[prost(bytes = "bytes", optional, tag = "7")]
    pub options: Option<Bytes>,
    /// Not decoded.
    #[prost(bytes = "bytes", repeated, tag = "9")]
    pub reserved_range: Vec<Bytes>,
    /// Names that must not be used.
    #[prost(string, repeated, tag = "10")]
    pub reserved_name: Vec<String>,
}

/// A field or an extension.
#[derive(Clone, PartialEq, Message)]
pub struct Field {
    /// Its own name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// The type that an extension extends.
    #[prost(string, optional, tag = "2")]
    pub extendee: Option<String>,
    /// Its number.
    #[prost(int32, optional, tag = "3")]
    pub number: Option<i32>,
    /// One of `LABEL_*`.
    #[prost(int32, optional, tag = "4")]
    pub label: Option<i32>,
    /// One of `TYPE_*`.
    #[prost(int32, optional, tag = "5")]
    pub r#type: Option<i32>,
    /// The message or enum, with a leading dot.
    #[prost(string, optional, tag = "6")]
    pub type_name: Option<String>,
    /// The default as text.
    #[prost(string, optional, tag = "7")]
    pub default_value: Option<String>,
    /// `FieldOptions`.
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub options: Option<Bytes>,
    /// The oneof it belongs to.
    #[prost(int32, optional, tag = "9")]
    pub oneof_index: Option<i32>,
    /// The name in JSON.
    #[prost(string, optional, tag = "10")]
    pub json_name: Option<String>,
    /// `optional` of proto3, whose oneof exists in descriptors only.
    #[prost(bool, optional, tag = "17")]
    pub proto3_optional: Option<bool>,
}

/// `FieldDescriptorProto.Label`.
pub mod label {
    /// `required` of proto2.
    pub const REQUIRED: i32 = 2;
    /// `repeated`.
    pub const REPEATED: i32 = 3;
}

/// `FieldDescriptorProto.Type` of the kinds that are not plain numbers.
pub mod kind {
    /// A group.
    pub const GROUP: i32 = 10;
    /// A message.
    pub const MESSAGE: i32 = 11;
}

/// A oneof.
#[derive(Clone, PartialEq, Message)]
pub struct Oneof {
    /// Its own name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// `OneofOptions`.
    #[prost(bytes = "bytes", optional, tag = "2")]
    pub options: Option<Bytes>,
}

/// An enum.
#[derive(Clone, PartialEq, Message)]
pub struct EnumType {
    /// Its own name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Values in the order of declaration.
    #[prost(message, repeated, tag = "2")]
    pub value: Vec<EnumValue>,
    /// `EnumOptions`.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub options: Option<Bytes>,
    /// Not decoded.
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub reserved_range: Vec<Bytes>,
    /// Names that must not be used.
    #[prost(string, repeated, tag = "5")]
    pub reserved_name: Vec<String>,
}

/// A value of an enum.
#[derive(Clone, PartialEq, Message)]
pub struct EnumValue {
    /// Its own name.
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    /// Its number.
    #[prost(int32, optional, tag = "2")]
    pub number: Option<i32>,
    /// `EnumValueOptions`.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub options: Option<Bytes>,
}

/// The features of `FeatureSet` that the language-neutral core defines; 0 is "not said".
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Features {
    /// 1 explicit, 2 implicit, 3 required.
    #[prost(int32, optional, tag = "1")]
    pub field_presence: Option<i32>,
    /// 1 open, 2 closed.
    #[prost(int32, optional, tag = "2")]
    pub enum_type: Option<i32>,
    /// 1 packed, 2 expanded.
    #[prost(int32, optional, tag = "3")]
    pub repeated_field_encoding: Option<i32>,
    /// 2 verify, 3 none.
    #[prost(int32, optional, tag = "4")]
    pub utf8_validation: Option<i32>,
    /// 1 length-prefixed, 2 delimited.
    #[prost(int32, optional, tag = "5")]
    pub message_encoding: Option<i32>,
    /// 1 allow, 2 legacy best effort.
    #[prost(int32, optional, tag = "6")]
    pub json_format: Option<i32>,
    /// Naming style, since edition 2024; kept, not used.
    #[prost(int32, optional, tag = "7")]
    pub enforce_naming_style: Option<i32>,
    /// Visibility, since edition 2024; kept, not used.
    #[prost(int32, optional, tag = "8")]
    pub default_symbol_visibility: Option<i32>,
}

/// The options of a field that change how it is written.
#[derive(Clone, PartialEq, Message)]
pub struct FieldOptions {
    /// `packed` of proto2 and proto3.
    #[prost(bool, optional, tag = "2")]
    pub packed: Option<bool>,
    /// Features of the field.
    #[prost(message, optional, tag = "21")]
    pub features: Option<Features>,
}

/// The options of a message that change how it is written.
#[derive(Clone, PartialEq, Message)]
pub struct MessageOptions {
    /// Extensions are written as items of a set.
    #[prost(bool, optional, tag = "1")]
    pub message_set_wire_format: Option<bool>,
    /// The entry of a map field.
    #[prost(bool, optional, tag = "7")]
    pub map_entry: Option<bool>,
    /// Features of the message.
    #[prost(message, optional, tag = "12")]
    pub features: Option<Features>,
}

/// Features of a file.
#[derive(Clone, PartialEq, Message)]
pub struct FileOptions {
    /// What all declarations start from.
    #[prost(message, optional, tag = "50")]
    pub features: Option<Features>,
}

/// Features of an enum.
#[derive(Clone, PartialEq, Message)]
pub struct EnumOptions {
    /// Features of the enum.
    #[prost(message, optional, tag = "7")]
    pub features: Option<Features>,
}

/// Features of a oneof.
#[derive(Clone, PartialEq, Message)]
pub struct OneofOptions {
    /// Features of its members.
    #[prost(message, optional, tag = "1")]
    pub features: Option<Features>,
}
