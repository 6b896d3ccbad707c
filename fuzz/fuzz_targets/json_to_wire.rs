//! Arbitrary text as JSON: what is taken is JSON, becomes a message that prost-reflect decodes, and comes back the same.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sabir::translate::json::fuzzing::json(data));
