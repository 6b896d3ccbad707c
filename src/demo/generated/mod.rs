//! The code of the example service, generated from `proto/library` and committed: no protoc, no build script.
//!
//! `tests/it/generated.rs` compares it with the proto file and writes it anew on request.

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

/// The HTTP rules and the raw body that the service's file imports.
pub mod google {
    pub mod api {
        include!("google.api.rs");
    }
    pub mod rpc {
        include!("google.rpc.rs");
    }
}

/// The service itself.
pub mod library {
    pub mod v1 {
        include!("library.v1.rs");
    }
}

/// The compiled service with everything that it imports: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!("library.binpb");
