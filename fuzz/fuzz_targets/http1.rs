//! Arbitrary bytes as what a client of HTTP/1.1 sends, and as what an upstream answers: however they come, they mean the
//! same, and reading them ends.

#![no_main]

use sabir::http1::fuzzing::messages;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Some((first, rest)) = data.split_first() {
        messages(rest, first % 2 == 1);
    }
});
