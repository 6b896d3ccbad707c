//! The definitions that the gateway brings along: google/protobuf, google/api, google/rpc, grpc, sabir.
//!
//! Nearly every schema imports some of them and few servers or folders hold them all. Neither a compiler nor a
//! file is needed at run time: the compiled set and the sources are part of the binary.

use std::sync::LazyLock;

use bytes::Bytes;

use super::raw;

/// Every file as an encoded `FileDescriptorProto`, dependencies first, with its name.
static FILES: LazyLock<Vec<(&'static str, Bytes)>> = LazyLock::new(|| {
    let set: &'static [u8] = include_bytes!("../../proto/gateway.binpb");
    raw::fields(set)
        .filter_map(Result::ok)
        .filter_map(|field| field.value.bytes())
        .filter_map(|file| Some((name(file)?, Bytes::from_static(file))))
        .collect()
});

/// The sources, for `.proto` files that import them. google/protobuf comes with the compiler.
pub(super) const SOURCES: [(&str, &str); 13] = [
    (
        "google/api/annotations.proto",
        include_str!("../../proto/google/api/annotations.proto"),
    ),
    (
        "google/api/client.proto",
        include_str!("../../proto/google/api/client.proto"),
    ),
    (
        "google/api/field_behavior.proto",
        include_str!("../../proto/google/api/field_behavior.proto"),
    ),
    (
        "google/api/http.proto",
        include_str!("../../proto/google/api/http.proto"),
    ),
    (
        "google/api/httpbody.proto",
        include_str!("../../proto/google/api/httpbody.proto"),
    ),
    (
        "google/api/resource.proto",
        include_str!("../../proto/google/api/resource.proto"),
    ),
    (
        "google/rpc/code.proto",
        include_str!("../../proto/google/rpc/code.proto"),
    ),
    (
        "google/rpc/error_details.proto",
        include_str!("../../proto/google/rpc/error_details.proto"),
    ),
    (
        "google/rpc/status.proto",
        include_str!("../../proto/google/rpc/status.proto"),
    ),
    (
        "grpc/health/v1/health.proto",
        include_str!("../../proto/grpc/health/v1/health.proto"),
    ),
    (
        "grpc/reflection/v1/reflection.proto",
        include_str!("../../proto/grpc/reflection/v1/reflection.proto"),
    ),
    (
        "grpc/reflection/v1alpha/reflection.proto",
        include_str!("../../proto/grpc/reflection/v1alpha/reflection.proto"),
    ),
    (
        "sabir/policy.proto",
        include_str!("../../proto/sabir/policy.proto"),
    ),
];

/// The compiled file of this name.
pub(crate) fn file(name: &str) -> Option<Bytes> {
    files().find(|(each, _)| *each == name).map(|(_, file)| file)
}

/// Every compiled file with its name, dependencies first.
pub(crate) fn files() -> impl Iterator<Item = (&'static str, Bytes)> {
    FILES.iter().map(|(name, file)| (*name, file.clone()))
}

/// The name in an encoded file.
fn name(file: &[u8]) -> Option<&str> {
    raw::fields(file)
        .filter_map(Result::ok)
        .filter(|field| field.number == 1)
        .find_map(|field| field.value.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The google/protobuf files that are compiled in; their sources come with protox.
    const WELL_KNOWN: [&str; 11] = [
        "google/protobuf/any.proto",
        "google/protobuf/api.proto",
        "google/protobuf/descriptor.proto",
        "google/protobuf/duration.proto",
        "google/protobuf/empty.proto",
        "google/protobuf/field_mask.proto",
        "google/protobuf/source_context.proto",
        "google/protobuf/struct.proto",
        "google/protobuf/timestamp.proto",
        "google/protobuf/type.proto",
        "google/protobuf/wrappers.proto",
    ];

    /// `SABIR_BLESS=1 cargo test gateway_binpb` writes the set anew after a change of the sources.
    #[test]
    fn gateway_binpb_is_what_the_sources_compile_to() {
        let mut compiler = protox::Compiler::with_file_resolver(crate::schema::sources::embedded_resolver());
        compiler.include_imports(true).include_source_info(false);
        compiler.open_files(WELL_KNOWN).unwrap();
        compiler.open_files(SOURCES.map(|(name, _)| name)).unwrap();
        let compiled = compiler.encode_file_descriptor_set();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/proto/gateway.binpb");
        if std::env::var_os("SABIR_BLESS").is_some() {
            std::fs::write(path, &compiled).unwrap();
        }
        let stored = std::fs::read(path).unwrap();
        assert!(
            stored == compiled,
            "proto/gateway.binpb is stale; SABIR_BLESS=1 writes it anew"
        );
    }

    #[test]
    fn every_file_is_found_by_name_and_comes_after_its_imports() {
        let names: Vec<_> = files().map(|(name, _)| name).collect();
        assert_eq!(names.len(), WELL_KNOWN.len() + SOURCES.len());
        for (at, (name, bytes)) in files().enumerate() {
            assert_eq!(file(name), Some(bytes.clone()));
            for import in raw::fields(&bytes)
                .map(Result::unwrap)
                .filter(|field| field.number == 3)
            {
                assert!(names[..at].contains(&import.value.text().unwrap()), "{name}");
            }
        }
    }
}
