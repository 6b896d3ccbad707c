//! Arbitrary bytes as a message: what is written is JSON, and is canonical once it was read again.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sabir::translate::json::fuzzing::wire(data));
