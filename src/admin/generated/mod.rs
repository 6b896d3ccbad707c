//! The messages of the admin service, generated from `proto/sabir/admin` and committed: no protoc, no build script.
//!
//! `tests/it/generated.rs` compares them with the proto file and writes them anew on request.

// Generated code has its own style; what holds for ours is not asked of it.
#![allow(
    missing_docs,
    unreachable_pub,
    unnameable_types,
    unused_qualifications,
    dead_code,
    rustdoc::all,
    clippy::all
)]
#![allow(clippy::restriction, clippy::pedantic, clippy::nursery)]

include!("sabir.admin.v1.rs");

/// The compiled service with everything that it imports: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("admin.binpb");
