//! Messages of the example service by name, between JSON and bytes, through prost-reflect.

use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, MethodDescriptor};
use serde_json::Value;

/// The example service and everything that it imports.
pub(crate) static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| DescriptorPool::decode(sabir::demo::DESCRIPTORS).unwrap());

/// Where the compiled service lies.
pub(crate) const DESCRIPTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/demo/generated/library.binpb");

/// A method such as `library.v1.Library/GetBook`.
pub(crate) fn method(path: &str) -> MethodDescriptor {
    let (service, name) = path.split_once('/').unwrap();
    let service = POOL.get_service_by_name(service).unwrap();
    service.methods().find(|method| method.name() == name).unwrap()
}

/// A message type by its full name.
pub(crate) fn message_type(name: &str) -> MessageDescriptor {
    POOL.get_message_by_name(name).unwrap()
}

/// The bytes of a message given as JSON.
pub(crate) fn encode(descriptor: &MessageDescriptor, json: &Value) -> Bytes {
    Bytes::from(dynamic(descriptor, json).encode_to_vec())
}

/// A message given as JSON.
pub(crate) fn dynamic(descriptor: &MessageDescriptor, json: &Value) -> DynamicMessage {
    match DynamicMessage::deserialize(descriptor.clone(), json.clone()) {
        Ok(message) => message,
        Err(error) => panic!("{json} is not a {}: {error}", descriptor.full_name()),
    }
}

/// The JSON of a message given as bytes.
pub(crate) fn decode(descriptor: &MessageDescriptor, bytes: &[u8]) -> Value {
    match DynamicMessage::decode(descriptor.clone(), bytes) {
        Ok(message) => serde_json::to_value(&message).unwrap(),
        Err(error) => panic!("not a {}: {error}", descriptor.full_name()),
    }
}

/// The same message however it was spelled: parsed by one implementation and written again.
pub(crate) fn canonical(descriptor: &MessageDescriptor, json: &Value) -> String {
    let message = dynamic(descriptor, json);
    serde_json::to_string_pretty(&serde_json::to_value(&message).unwrap()).unwrap()
}

/// The details in an encoded `google.rpc.Status`, as JSON.
pub(crate) fn details(status: &[u8]) -> Vec<Value> {
    if status.is_empty() {
        return Vec::new();
    }
    let json = decode(&message_type("google.rpc.Status"), status);
    json.get("details")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default()
}
