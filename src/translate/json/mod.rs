//! ProtoJSON to the protobuf wire format and back, by plans compiled from descriptors.
//!
//! Source: the ProtoJSON mapping of protobuf.dev and its conformance suite.
